"""The service as it is shipped, its people, and agents that are played: they say what they are told to say, and write nowhere."""

import base64
import hashlib
import http.client
import json
import pathlib
import secrets
import signal
import socket
import ssl
import subprocess
import time

EXAMPLE_KEY = "ab" * 32


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def run(*command, given=None):
    return subprocess.run(command, input=given, capture_output=True, check=True).stdout


class Service:
    """`z-orchestrator serve` with a data folder of its own."""

    def __init__(self, program, folder):
        self.program, self.folder, self.port = program, pathlib.Path(folder), free_port()
        self.host = f"127.0.0.1:{self.port}"
        self.url = f"https://{self.host}"
        config = {"listen": [self.host], "data": str(self.folder / "data"), "lease": {"seconds": 6, "renew_after": 2, "grace": 1}}
        (self.folder / "service.json").write_text(json.dumps(config))
        self.process, self.connection = None, None

    def start(self):
        log = open(self.folder / "service.log", "ab")
        self.process = subprocess.Popen(
            # It goes with us, however we end.
            ["setpriv", "--pdeathsig", "KILL", self.program, "serve", "--config", self.folder / "service.json"], stdout=log, stderr=log, stdin=subprocess.DEVNULL
        )
        began = time.monotonic()
        while True:
            try:
                self.context = ssl.create_default_context(cafile=self.folder / "data/ca.pem")
                assert self.ask("GET", "/readyz")[0] == 204
                return
            except (OSError, AssertionError, http.client.HTTPException):
                said = (self.folder / "service.log").read_text()
                assert self.process.poll() is None and time.monotonic() - began < 30, f"the service does not start:\n{said}"
                time.sleep(0.05)

    def stop(self, how=signal.SIGTERM):
        if self.process:
            self.process.send_signal(how)
            self.process.wait(timeout=30)
        self.process, self.connection = None, None

    def token(self, role="operator"):
        return (self.folder / f"data/{role}.token").read_text().strip()

    def key(self):
        """The digest of its certificate's key, by which a browser may know it."""
        with socket.create_connection(("127.0.0.1", self.port)) as plain, self.context.wrap_socket(plain, server_hostname="localhost") as tls:
            certificate = ssl.DER_cert_to_PEM_cert(tls.getpeercert(binary_form=True))
        public = run("openssl", "x509", "-pubkey", "-noout", given=certificate.encode()).decode()
        return base64.b64encode(hashlib.sha256(ssl.PEM_cert_to_DER_cert(public.replace("PUBLIC KEY", "CERTIFICATE"))).digest()).decode()

    def ask(self, method, path, body=None, token=None, headers=None):
        """Status, and what came: JSON as such."""
        for is_last in [False, True]:
            if self.connection is None:
                self.connection = http.client.HTTPSConnection("127.0.0.1", self.port, context=self.context, timeout=20)
            try:
                asked = {"Authorization": f"Bearer {token}"} if token else {}
                if body is not None:
                    asked["Content-Type"] = "application/json"
                self.connection.request(method, path, None if body is None else json.dumps(body), asked | (headers or {}))
                answer = self.connection.getresponse()
                read = answer.read()
                is_json = "json" in answer.headers.get("Content-Type", "")
                return answer.status, json.loads(read) if is_json and read else read
            except (http.client.HTTPException, OSError):
                self.connection = None
                if is_last:
                    raise

    def must(self, method, path, body=None, token=None):
        status, answer = self.ask(method, path, body, token or self.token())
        assert status in (200, 201), (method, path, status, answer)
        return answer

    def create(self, server, **more):
        order = {
            "server": server, "launcher": "external", "image": {"name": "debian-13", "sources": ["https://images.example.com/debian/"], "trust": [EXAMPLE_KEY]},
            "target": {"device": f"/dev/disk/by-id/{server}"},
        } | more
        return self.must("POST", "/v1/runs", order)["run"]

    def agent(self, run, name="z-provisioner 0.1.0"):
        # Whose turn it is, is decided a moment later.
        token = self.must("POST", f"/v1/runs/{run}/token", {})["token"]
        return Agent(self, token, name)

    def raw(self, path):
        """What is answered to a request with this very path, which no client would send: the status, and all bytes."""
        with socket.create_connection(("127.0.0.1", self.port)) as plain, self.context.wrap_socket(plain, server_hostname="localhost") as tls:
            tls.settimeout(10)
            tls.sendall(b"GET " + path + b" HTTP/1.1\r\nHost: " + self.host.encode() + b"\r\nConnection: close\r\n\r\n")
            read = b""
            while data := tls.recv(1 << 16):
                read += data
        return int(read.split(b" ", 2)[1]), read


class Agent:
    """An agent that has enrolled, and shows the certificate that it was given for it."""

    def __init__(self, service, token, name):
        self.service, self.index, self.connection = service, 0, None
        key = run("openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")
        public = run("openssl", "pkey", "-pubout", "-outform", "DER", given=key)
        enrol = {"nonce": secrets.token_urlsafe(32), "agent": name, "client_key": base64.urlsafe_b64encode(public).decode().rstrip("=")}
        began = time.monotonic()
        while True:
            status, self.told = service.ask("POST", "/v1/agent/enrol", enrol, token)
            if status == 201:
                break
            assert self.told.get("code") == "not-yet" and time.monotonic() - began < 20, (status, self.told)
            time.sleep(0.1)
        self.path = f"/v1/agent/runs/{self.told['run']}/attempts/{self.told['attempt']}"
        shown = service.folder / f"agent-{self.told['run']}.pem"
        shown.write_bytes(key + self.told["certificate"].encode())
        self.context = ssl.create_default_context(cafile=service.folder / "data/ca.pem")
        self.context.load_cert_chain(shown)

    def ask(self, path, body):
        if self.connection is None:
            self.connection = http.client.HTTPSConnection("127.0.0.1", self.service.port, context=self.context, timeout=20)
        headers = {"Authorization": f"Bearer {self.told['session']}", "Content-Type": "application/json"}
        self.connection.request("POST", self.path + path, json.dumps(body), headers)
        answer = self.connection.getresponse()
        read = answer.read()
        assert answer.status == 200, (path, answer.status, read)
        return json.loads(read)

    def renew(self):
        """Keeps its lease, which is short, while others take their time."""
        self.ask("/lease", {})

    def say(self, *events):
        """Reports these events; what the service wants."""
        report = []
        for event in events:
            report.append({
                "run": self.told["run"], "attempt": self.told["attempt"], "index": self.index, "at": self.index / 2,
                "time": "2026-03-10T12:00:00Z", "event": event,
            })
            self.index += 1
        return self.ask("/events", {"events": report})


def progress(percent, step="write", limited="source"):
    total = 40 << 30
    rates = {"source": 190 << 20, "decode": 512 << 20, "write": 512 << 20, "read_back": 0}
    return {
        "kind": "progress", "phase": "stream", "step": step, "bytes": total * percent // 100, "total_bytes": total, "chunks": percent,
        "total_chunks": 100, "rates": rates, "limited_by": limited, "eta_seconds": 90,
    }


def failure(**more):
    return {
        "kind": "run-failed", "phase": "stream", "error": "source", "exit_code": 5, "message": "no source answers", "retryable": False,
        "target": "not-bootable",
    } | more
