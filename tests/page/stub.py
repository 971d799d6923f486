"""A service that is only played, for what a real one cannot be brought to in a moment: a thousand runs at once, and a fleet in which
everything happens. What it says of runs is compared with the real service's schemas, by `main.py`."""

import datetime
import http.server
import json
import pathlib
import random
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2] / "orchestrator/src/page"


def moment(ago=0.0):
    then = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(seconds=ago)
    return then.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Stub:
    """Serves the files that `files` names, and these runs. `stories`: what was told of a run, in the order in which it was."""

    def __init__(self, files, runs, stories=None, role="operator", name="operator token"):
        self.files, self.runs, self.stories = files, runs, stories or {}
        self.who, self.watchers, self.lock = {"role": role, "name": name}, [], threading.Lock()
        self.slow = None
        stub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_GET(self):
                stub.get(self)

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def close(self):
        self.server.shutdown()

    def get(self, request):
        path, _, query = request.path.partition("?")
        if path in self.files:
            headers, body = self.files[path]
            return self.send(request, body, headers)
        if path == "/v1/session":
            return self.json(request, self.who)
        if path == "/v1/runs":
            states = next(part for part in query.split("&") if part.startswith("state=")).removeprefix("state=").split(",")
            return self.json(request, {"runs": [run for run in self.runs.values() if run["state"] in states][:1000]})
        if path.endswith("/events"):
            return self.watch(request, path)
        run = self.runs.get(path.removeprefix("/v1/runs/"))
        return self.json(request, run) if run else request.send_error(404)

    def json(self, request, value):
        body, slow = json.dumps(value).encode(), self.slow
        if slow and slow.what in request.path:
            self.slow = None
            slow.made.set()
            slow.let_go.wait(60)
        self.send(request, body, {"Content-Type": "application/json"})

    def delay(self, what):
        """The next answer to a path that has this in it is made at once, and under way until it is let go."""
        self.slow = Slow(what)
        return self.slow

    def send(self, request, body, headers):
        request.send_response(200)
        for name, value in headers.items():
            request.send_header(name, value)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    def watch(self, request, path):
        request.send_response(200)
        request.send_header("Content-Type", "text/event-stream")
        request.send_header("Connection", "close")
        request.end_headers()
        request.close_connection = True
        told = self.stories.get(path.removeprefix("/v1/runs/").removesuffix("/events"), [])
        for number, happening in enumerate(told, 1):
            request.wfile.write(f"id: {number}\n{event(kind_of(happening), happening)}".encode())
        run = self.runs.get(path.removeprefix("/v1/runs/").removesuffix("/events"))
        if run and run.get("progress"):
            request.wfile.write(event("progress", {"run": run["run"], "progress": run["progress"]}).encode())
        request.wfile.flush()
        with self.lock:
            self.watchers.append((path, request.wfile))
        while True:
            time.sleep(3600)

    def tell(self, name, data, path="/v1/events"):
        text = event(name, data).encode()
        with self.lock:
            for watcher in [one for one in self.watchers if one[0] == path]:
                try:
                    watcher[1].write(text)
                    watcher[1].flush()
                except OSError:
                    self.watchers.remove(watcher)


class Slow:
    """An answer that is under way for long."""

    def __init__(self, what):
        self.what, self.made, self.let_go = what, threading.Event(), threading.Event()


def kind_of(happening):
    return next(kind for kind in ("state", "agent", "key") if kind in happening)


def event(name, data):
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"


def glance(run):
    told = run["progress"]
    known = {name: told[name] for name in ("phase", "step", "bytes", "total_bytes", "limited_by", "eta_seconds") if name in told}
    rate = told["rates"]["read_back" if told["step"] == "read-back" else "write"]
    return {"run": run["run"], **known, "rate": rate}


def thousand():
    """A thousand runs that all write."""
    lots, runs = random.Random(7), {}
    for number in range(1000):
        total = 40 << 30
        name = f"r-{number:06}"
        runs[name] = {
            "run": name, "state": "running", "reason": "", "since": moment(300), "server": f"lpar-{number:04}", "launcher": "external",
            "image": f"debian-13-s390x-{number % 7}", "target": f"LUN 36005076{number:024x}", "fabric": "fabric-a", "priority": 0,
            "created": moment(600 - number / 10), "cancel": False, "max_attempts": 3, "phase": "stream", "step": "write",
            "attempts": [{"attempt": 1, "started": moment(300), "agent": "z-provisioner 0.1.0"}],
            "progress": {
                "phase": "stream", "step": "write", "bytes": lots.randrange(total // 2), "total_bytes": total, "chunks": 0, "total_chunks": 20480,
                "rates": {"source": 120 << 20, "decode": 400 << 20, "write": 400 << 20, "read_back": 0}, "limited_by": "source", "eta_seconds": 100,
            },
        }
    return runs


def advance(runs):
    """Another second of each run that writes."""
    for run in runs.values():
        if run.get("progress"):
            told = run["progress"]
            rate = random.randrange(100 << 20, 600 << 20)
            told["bytes"] = min(told["total_bytes"], told["bytes"] + rate)
            told["rates"]["write"] = rate
            told["limited_by"] = random.choice(["source", "write", "decode"])
            told["eta_seconds"] = (told["total_bytes"] - told["bytes"]) // rate
