"""A fleet in which everything happens, for the pictures of the documentation."""

import random

from stub import moment

IMAGES = ["debian-13-s390x", "rhel-9.6-s390x", "ubuntu-24.04-s390x", "sles-15-sp7-s390x"]
SOURCES = ["oci://registry.fra1.example.net/images/{}", "https://mirror-2.fra1.example.net/{}/"]
KEYS = ["9f2c4f0ab1de77c05a6e1f83b94d20c7e1150f6a8b3cd9e2475d6a90c1b7f3e4", "41d8e6b7702f5c9aa3b1c0d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718"]
GIB, MIB = 1 << 30, 1 << 20


class Fleet:
    def __init__(self):
        self.lots, self.runs, self.stories, self.number = random.Random(20), {}, {}, 0

    def add(self, state, server, began, **more):
        self.number += 1
        name = f"{self.lots.randrange(16**8):08x}-{self.lots.randrange(16**4):04x}"
        image = IMAGES[self.number % 4]
        wwid = f"36005076810810{self.lots.randrange(16**18):018x}"
        created = began + self.lots.randrange(20, 90)
        run = {
            "run": name, "state": state, "reason": "", "since": moment(began), "server": server, "launcher": "external", "image": image,
            "target": f"LUN {wwid}", "fabric": f"fabric-{server[3]}", "priority": 0, "created": moment(created), "cancel": False,
            "max_attempts": 3, "attempts": [],
        } | more
        self.runs[name] = run
        self.stories[name] = [{"run": name, "time": moment(created), "state": {"state": "queued", "attempt": 0, "reason": "created"}}]
        return run

    def attempt(self, run, ago, **more):
        number = len(run["attempts"]) + 1
        run["attempts"].append({"attempt": number, "started": moment(ago), "agent": "z-provisioner 0.1.0"} | more)

    def running(self, server, step, percent, limited, rate, size=40, **more):
        run = self.add("running", server, 30 + percent * 2, phase="stream", step=step, **more)
        self.attempt(run, 35 + percent * 2)
        total = size * GIB
        done = total * percent // 100 + MIB
        rates = {"source": rate * MIB * 3 // 8, "decode": rate * MIB, "write": rate * MIB, "read_back": 0}
        if step == "read-back":
            rates = {"source": 0, "decode": 0, "write": 0, "read_back": rate * MIB}
        run["progress"] = {
            "phase": "stream", "step": step, "bytes": done, "total_bytes": total, "chunks": percent, "total_chunks": 100, "rates": rates,
            "eta_seconds": (total - done) // (rate * MIB),
        }
        # Nothing else is under way while the media are read.
        if step != "read-back":
            run["progress"]["limited_by"] = limited
        return run

    def waiting(self, server, what, detail, ago=240, state="queued", **more):
        return self.add(state, server, ago, waits={"for": what, "detail": detail}, **more)

    def failed(self, server, ago, phase, error, code, message, hint, target, retryable=False, **more):
        run = self.add("failed", server, ago, reason=message, ended=moment(ago), phase=phase)
        run["failure"] = {
            "phase": phase, "error": error, "exit_code": code, "message": message, "hint": hint, "retryable": retryable, "target": target,
        } | more
        run["created"] = moment(ago + 240)
        self.attempt(run, ago + 200, ended=moment(ago), outcome="failed", reason=message)
        return run

    def succeeded(self, server, ago, seconds):
        run = self.add("succeeded", server, ago, ended=moment(ago), summary=summary(seconds))
        run["summary"]["image"]["name"], run["summary"]["target"]["device"] = run["image"], run["target"]
        self.attempt(run, ago + seconds, ended=moment(ago), outcome="succeeded")
        run["created"] = moment(ago + seconds + 48)
        return run


def summary(seconds):
    return {
        "image": {"name": "", "version": 20260301, "architecture": "s390x", "digest": "sha256:" + "5b0e91c27d44a6f8" * 4, "signers": KEYS},
        "target": {
            "device": "", "size": 64 * GIB, "layout": "split", "paths": {"live": 4, "total": 4},
            "reservation": {"held": {"key": "0x5a500000000a0001"}},
            "containers": [{"region": "root", "uuid": "2f0c7f6e-9a1d-4a57-8b7e-0d3f5b9c1e22", "cipher": "aes-xts-plain64", "sector_size": 4096, "kept": False}],
        },
        "raw_bytes": 40 * GIB, "data_bytes": 22 * GIB, "zero_bytes": 18 * GIB, "fetched_bytes": 9 * GIB, "tail": {"bytes": 24 * GIB, "how": "zeroed-by-device", "proven_bytes": 24 * GIB},
        "gpt": "moved", "proof": {"read-back": {"bytes": 40 * GIB}}, "ipsec": "required: every connection was protected by AES-256-GCM",
        "engine": "io_uring", "limited_by": "source", "retries": 2,
        "phases": [{"phase": "spec", "seconds": 0.1}, {"phase": "network", "seconds": 3.4}, {"phase": "image", "seconds": 0.8},
                   {"phase": "target", "seconds": 9.7}, {"phase": "stream", "seconds": seconds - 16.0}, {"phase": "hand-over", "seconds": 2.0}],
        "write_seconds": seconds * 0.6, "read_back_seconds": seconds * 0.3, "total_seconds": float(seconds),
        "ipl": {"record": "zIPL, kernel 6.12.9-1 on /boot", "from": "0.0.1900 0x5005076300c213e9 0x4010400000000000"},
    }


def story(fleet):
    """The run whose whole story is shown: a second attempt that goes well, with a path lost and back."""
    run = fleet.running("lpa17-prod", "write", 63, "source", 486)
    name = run["run"]
    run["image"] = "rhel-9.6-s390x"
    run["attempts"] = []
    fleet.attempt(run, 561, ended=moment(402), outcome="failed", reason="no source answers: registry.fra1.example.net: connection reset (5 tries in 60 s)", handle="medium")
    fleet.attempt(run, 371, handle="medium")
    run["created"], run["since"] = moment(610), moment(368)
    run["order"] = {
        "server": run["server"], "launcher": "external",
        "image": {"name": run["image"], "architecture": "s390x", "min_version": 20260215, "sources": [source.format("rhel") for source in SOURCES], "trust": KEYS, "threshold": 2},
        "target": {"lun": {"wwid": run["target"].removeprefix("LUN "), "fcp": [], "min_paths": 2}, "layout": "split", "reservation": "require", "wipe": False},
        "options": {}, "ipsec": "required", "hand_over": "re-ipl", "fabric": run["fabric"], "priority": 0, "max_attempts": 3,
    }
    way = "0.0.1900 0x5005076300c213e9 0x4010400000000000"
    told, index = fleet.stories[name], {1: 0, 2: 0}
    told[0]["time"] = moment(610)

    def state(ago, state, attempt, reason=""):
        told.append({"run": name, "time": moment(ago), "state": {"state": state, "attempt": attempt, "reason": reason}})

    def agent(ago, attempt, **event):
        told.append({"run": name, "time": moment(ago), "agent": {
            "run": name, "attempt": attempt, "index": index[attempt], "at": 0.0, "time": moment(ago), "event": event}})
        index[attempt] += 1

    for attempt, began in [(1, 561), (2, 371)]:
        state(began, "launching", attempt, "its turn")
        state(began - 3, "running", attempt, "the agent has enrolled")
        agent(began - 3, attempt, kind="run-started", agent="z-provisioner 0.1.0", image=run["image"], target=run["target"])
        agent(began - 4, attempt, kind="phase-finished", phase="network", seconds=3.4, detail="VCN joined: 4 tunnels to gateway.fra1.example.net")
        agent(began - 5, attempt, kind="phase-finished", phase="image", seconds=0.8, detail=f"{run['image']} version 20260301, signed by 2 of 2 keys")
        agent(began - 6, attempt, kind="phase-started", phase="target")
        agent(began - 14, attempt, kind="phase-finished", phase="target", seconds=9.7, detail="4 of 4 paths live, reserved, LUKS2 opened")
        agent(began - 15, attempt, kind="phase-started", phase="stream")
        agent(began - 16, attempt, kind="step-started", phase="stream", step="compare" if attempt == 2 else "write")
        if attempt == 1:
            agent(470, 1, kind="retry", source="registry.fra1.example.net", message="connection reset after 12.4 MiB of 16.0 MiB")
            agent(433, 1, kind="warning", message="source registry.fra1.example.net has brought nothing for 30 s")
            agent(402, 1, kind="run-failed", phase="stream", error="source", exit_code=5, retryable=True, target="not-bootable",
                  message="no source answers: registry.fra1.example.net: connection reset (5 tries in 60 s)")
            state(402, "queued", 1, "attempt 1 failed and may succeed later; tried again in 30 s")
    agent(330, 2, kind="step-started", phase="stream", step="write")
    agent(214, 2, kind="path-changed", path="sdc", way=way, state="down", live=3, total=4)
    agent(171, 2, kind="path-changed", path="sdc", way=way, state="up", live=4, total=4)
    agent(96, 2, kind="path-changed", path="sdd", way=way.replace("1900", "1940"), state="down", live=3, total=4)
    run["paths"] = {"live": 3, "total": 4, "since": moment(96)}
    return name


def make():
    """The fleet, and the run whose story is told."""
    fleet = Fleet()
    wait = fleet.waiting
    lost = wait("lpb04-prod", "person", "", 1260, "lost", reason="attempt 2: the agent went silent, 75 s after its last word", phase="stream", step="write")
    lost["waits"]["detail"] = (
        "make sure that the agent of attempt 2 on server lpb04-prod can write no more (deactivate the partition, or cut it off from the "
        f"storage), then: z-orchestrator run confirm-death {lost['run']} --attempt 2")
    lost["silent"] = [2]
    fleet.attempt(lost, 3100, ended=moment(2400), outcome="not-launched", reason="no agent enrolled within 300 s")
    fleet.attempt(lost, 1900)
    shown = story(fleet)
    for server, step, percent, limited, rate in [
        ("lpa18-prod", "write", 8, "source", 512), ("lpa19-prod", "write", 91, "write", 640), ("lpa20-prod", "read-back", 34, "write", 902),
        ("lpa21-prod", "write", 55, "decode", 701), ("lpb01-prod", "write", 47, "source", 498), ("lpb02-prod", "compare", 72, "write", 1180),
        ("lpb03-prod", "read-back", 88, "write", 944), ("lpb05-stage", "write", 22, "network", 12), ("lpc01-prod", "write", 3, "source", 455),
        ("lpc02-prod", "clear-tail", 61, "write", 2210), ("lpc03-prod", "write", 77, "write", 688), ("lpc04-prod", "write", 36, "source", 505),
        ("lpc05-prod", "write", 69, "source", 475),
    ]:
        fleet.running(server, step, percent, limited, rate)
    cut_off = fleet.running("lpd02-stage", "write", 40, "write", 1, paths={"live": 0, "total": 2, "since": moment(41)})
    cut_off["progress"]["rates"]["write"] = 0
    del cut_off["progress"]["eta_seconds"]
    cut_off["waits"] = {"for": "path", "detail": (
        "none of the 2 paths from server lpd02-stage to its target is live: reads and writes wait for one as long as `no_path_retry` of "
        "multipath.conf says, then the attempt fails. Look at the ports of the storage, the zoning, the cables and the adapters")}
    for server, detail in [("lpa22-prod", "1"), ("lpc06-prod", "1")]:
        run = wait(server, "agent", f"IPL server {server} with the medium and the enrolment token of attempt {detail} (`z-orchestrator run token`)", 95, "launching")
        fleet.attempt(run, 95, agent=None)
        del run["attempts"][0]["agent"]
    for number in range(23, 29):
        wait(f"lpa{number}-prod", "fabric", "fabric-a has 14 active runs, as many as limits.per_fabric allows", 700 - number * 12)
    wait("lpb06-stage", "source", "32 active runs fetch from registry.fra1.example.net, as many as limits.per_source allows", 180)
    wait("lpb07-stage", "server", "run 5d1c0f3e-77aa is active on this server", 420)
    again = wait("lpc07-prod", "back-off", "tried again in 41 s", 19, reason="attempt 1 failed")
    fleet.attempt(again, 260, ended=moment(19), outcome="failed", reason="the tunnel to gateway.fra1.example.net did not come up: no answer to IKE_SA_INIT within 30 s")
    fleet.failed("lpb08-stage", 340, "image", "image", 3, "the image ubuntu-24.04-s390x is refused: its version 20251101 is below the run’s floor 20260215",
                 "a mirror serves an old image: push the new one there, or lower image.min_version", "untouched")
    fleet.failed("lpc08-prod", 2900, "target", "target", 4, "LUN 36005076810810a55f1 is refused: it holds a partition table (GPT) and ext4 “data” at 1 MiB",
                 "check that it is the right LUN; target.wipe lets its content go", "untouched")
    fleet.failed("lpa09-prod", 7600, "stream", "device", 6, "writing 4 MiB at 11.3 GiB of LUN 36005076810810b01c: Input/output error (errno 5)",
                 "look at the paths and the storage’s log, then retry: what is there is compared first", "not-bootable", retryable=True)
    gone = fleet.add("cancelled", "lpb09-stage", 5000, reason="cancelled by the operator: wrong image", ended=moment(5000))
    fleet.attempt(gone, 5200, ended=moment(5000), outcome="cancelled")
    for number in range(1, 17):
        fleet.succeeded(f"lpa{number:02}-prod" if number != 9 else "lpc09-prod", 900 + number * 410, 150 + number * 7 % 60)
    return fleet.runs, fleet.stories, shown


def happen(runs, shown):
    """What is told of paths while somebody looks."""
    told = []
    for server, live in [(runs[shown]["server"], 3), ("lpb01-prod", 2), ("lpa19-prod", 4)]:
        run = next(run for run in runs.values() if run["server"] == server)
        told.append({"run": run["run"], "time": moment(), "agent": {
            "run": run["run"], "attempt": 1, "index": 40, "at": 0.0, "time": moment(),
            "event": {"kind": "path-changed", "path": "sdd", "way": "0.0.1940", "state": "up" if live == 4 else "down", "live": live, "total": 4}}})
    return told
