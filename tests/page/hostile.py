"""Texts that would rather be something else: markup, scripts, addresses, another direction of writing."""

import json

import stub
from service import failure, progress

TEXTS = [
    "<img src=x onerror=\"window.pwned=1\">", "\"><script>window.pwned=1</script>", "'><svg/onload=window.pwned=1>", "javascript:window.pwned=1",
    "</span></li></ul><iframe srcdoc='<script>parent.pwned=1</script>'>", "{{constructor.constructor('window.pwned=1')()}}", "<style>*{display:none}</style>",
    "</script><base href=//example.com/>", "\u202egnp.exe\u202c", "\u2066\u200f\u0007\u001b[2Jgone", "%3Cscript%3Ewindow.pwned=1%3C/script%3E", "&lt;b&gt;\0&#60;b&#62;",
]
EVIL = " ".join(TEXTS)


def no_text_becomes_markup(world):
    browser, service = world.browser, world.service
    # A service takes no such names of servers, fabrics, images and architectures at all.
    order = {"launcher": "external", "image": {"name": "i", "sources": ["http://a/"], "trust": ["ab" * 32]}, "target": {"device": "/dev/x"}}
    for key in ["server", "fabric"]:
        for text in TEXTS:
            status, _ = service.ask("POST", "/v1/runs", order | {"server": "s"} | {key: text}, service.token())
            assert status == 400, (key, text, status)
    for key in ["name", "architecture"]:
        for text in TEXTS:
            status, _ = service.ask("POST", "/v1/runs", order | {"server": "s", "image": order["image"] | {key: text}}, service.token())
            assert status == 400, (key, text, status)
    image = {"name": "debian-13", "sources": [EVIL, "http://a/" + EVIL], "trust": ["ab" * 32]}
    device = "".join(letter for letter in EVIL.replace("/../", "/").replace("//", "/") if letter not in "\0\u0007\u001b")
    run = service.create("lpar-evil", image=image, target={"device": "/dev/" + device})
    world.sign_in()
    agent = service.agent(run, name=EVIL[:250])
    agent.say(
        {"kind": "run-started", "agent": EVIL, "image": EVIL, "target": EVIL}, {"kind": "phase-started", "phase": EVIL}, {"kind": "step-started", "phase": EVIL, "step": EVIL},
        {"kind": "warning", "message": EVIL}, {"kind": "retry", "source": EVIL, "message": EVIL}, {"kind": "phase-finished", "phase": EVIL, "seconds": 1.0, "detail": EVIL},
        {"kind": "path-changed", "path": EVIL, "way": EVIL, "state": EVIL, "live": 1, "total": 2}, {"kind": EVIL, EVIL: EVIL, "__proto__": {"polluted": EVIL}},
    )
    agent.say(progress(10, step=EVIL, limited=EVIL))
    browser.until("document.getElementById('groups').textContent.includes('Limited by <img')", "the progress")
    harmless(world)
    browser.evaluate(f"location.hash = '#run/{run}'")
    browser.until("document.getElementById('timeline').childElementCount > 8", "the story")
    harmless(world)
    browser.click("[data-act=cancel]")
    browser.until("document.getElementById('ask').open", "the question")
    harmless(world)
    browser.press("Escape")
    service.must("POST", f"/v1/runs/{run}/cancel", {"reason": EVIL[:200]})
    agent.say(failure(phase=EVIL, error="cancelled", message=EVIL, hint=EVIL, causes=[EVIL, EVIL], target=EVIL, torn_down={"undone": [EVIL], "left": [EVIL]}))
    browser.until("document.querySelector('.panel.failure .hint')", "the failure")
    harmless(world)
    shown = browser.text(".panel.failure .message")
    for text in TEXTS[:8]:
        assert text in shown, f"it is to be read as it is: {text}"
    # A run with a summary that says what it likes.
    second = service.create("lpar-evil-2", image=image)
    digest = "sha256:" + "0" * 64
    service.agent(second).say({
        "kind": "run-finished", "image": {"name": EVIL, "version": 1, "architecture": EVIL, "digest": digest, "signers": [EVIL]},
        "target": {"device": EVIL, "size": 1, "layout": EVIL, "wiped": [EVIL], "reservation": {"held": {"key": EVIL, "preempted": [EVIL]}},
                   "containers": [{"region": EVIL, "uuid": EVIL, "cipher": EVIL, "sector_size": 512, "kept": True}]},
        "raw_bytes": 1, "data_bytes": 1, "zero_bytes": 0, "fetched_bytes": 1, "tail": {"bytes": 1, "how": EVIL, "proven_bytes": 1}, "gpt": EVIL, "partitions": EVIL,
        "proof": {"not-proven": {"reason": EVIL}}, "ipsec": EVIL, "engine": EVIL, "fallback": EVIL, "limited_by": EVIL, "retries": 0,
        "phases": [{"phase": EVIL, "seconds": 1.0}], "write_seconds": 1.0, "read_back_seconds": 1.0, "total_seconds": 2.0, "ipl": {"record": EVIL, "from": EVIL},
    })
    browser.evaluate(f"location.hash = '#run/{second}'")
    browser.until("document.getElementById('panel-result')", "the summary")
    harmless(world)
    # Why a person has shut an attempt out.
    third = service.create("lpar-evil-3", image=image)
    service.agent(third)
    service.must("POST", f"/v1/runs/{third}/revoke", {"attempt": 1, "reason": EVIL[:200]})
    browser.evaluate(f"location.hash = '#run/{third}'")
    browser.until("document.getElementById('timeline').textContent.includes('revoked by operator token: <img')", "the revocation")
    harmless(world)
    # What stands in the address is a text as well.
    for address in [f"run/{EVIL}", f"q={EVIL}&state={EVIL}", "run/%", "run/..%2f..%2fsession", "run/" + "%3Cimg%20src=x%20onerror=window.pwned=1%3E"]:
        browser.evaluate(f"location.hash = {json.dumps(address)}")
        browser.evaluate("new Promise((done) => setTimeout(done, 150))", wait=True)
        harmless(world)
    complaints = browser.complaints(but=["404", "400"])
    assert complaints == [], complaints


def what_a_launcher_says_is_a_text(world):
    """The words of a cluster or a machine, which a service of this machine alone never has, and names that no service takes any more."""
    browser, run = world.browser, next(iter(stub.thousand().values()))
    del run["progress"]
    wait = {"for": "agent", "detail": f"attempt 1 {EVIL}"}
    attempt = {"attempt": 1, "started": run["created"], "handle": EVIL, "outcome": "lost", "reason": EVIL}
    run |= {"state": "launching", "reason": EVIL, "waits": wait, "attempts": [attempt], "image": EVIL, "target": EVIL}
    told = [{"run": run["run"], "time": run["created"], "state": {"state": "launching", "reason": EVIL}}]
    played = stub.Stub(world.files, {run["run"]: run}, {run["run"]: told})
    browser.new_page()
    browser.open(played.url + "/")
    browser.until("document.getElementById('groups').textContent.includes('attempt 1 <img')", "what it waits for")
    harmless(world)
    browser.evaluate(f"location.hash = '#run/{run['run']}'")
    browser.until("document.querySelector('td .mono')?.textContent.includes('<script>')", "what its launcher knows it by")
    harmless(world)
    assert browser.complaints() == [] and played.close() is None


def harmless(world):
    """Nothing was executed, no element is there that the page does not make itself, and nothing turns the direction of writing."""
    found = world.browser.evaluate("""(() => {
        const own = new Set(('html head meta title link script style body a svg symbol circle path use header img span p button main section h1 form input label '
            + 'div h2 ul li template nav dialog noscript code dl dt dd table thead tbody tr th td time strong ol').split(' '));
        const all = [...document.querySelectorAll('*')];
        const foreign = all.filter((e) => !own.has(e.localName) || [...e.attributes].some((a) => a.name.startsWith('on') || a.name === 'srcdoc')).map((e) => e.outerHTML);
        const scripts = all.filter((e) => e.localName === 'script' && new URL(e.src).pathname !== '/page.js').map((e) => e.outerHTML);
        const images = all.filter((e) => e.localName === 'img' && new URL(e.src).pathname !== '/icon.svg').map((e) => e.outerHTML);
        const links = all.filter((e) => e.localName === 'a' && new URL(e.href).origin !== location.origin).map((e) => e.outerHTML);
        const turned = /[\\u202a-\\u202e\\u2066-\\u2069\\u200e\\u200f\\u0007\\u001b]/.test(document.body.textContent + document.title);
        return {pwned: window.pwned ?? null, polluted: ({}).polluted ?? null, foreign, scripts, images, links, turned};
    })()""")
    assert found == {"pwned": None, "polluted": None, "foreign": [], "scripts": [], "images": [], "links": [], "turned": False}, found
