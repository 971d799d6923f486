"""A real browser without a window, told what to do over a pipe: Chromium's DevTools protocol, JSON objects that end with a zero byte."""

import base64
import json
import os
import queue
import shutil
import subprocess
import threading
import time

NAMES = ["chromium", "chromium-browser", "google-chrome", "chromium-headless-shell"]
# How long one command may take. A loaded machine starts a browser in ten seconds.
LIMIT = 60

KEYS = {
    "Tab": ("Tab", 9, ""), "Enter": ("Enter", 13, "\r"), "Escape": ("Escape", 27, ""), " ": ("Space", 32, " "),
}


def program():
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    assert found, "chromium is missing: apt-get install --no-install-recommends chromium, or `cargo xtask test`"
    return found


class Browser:
    """A browser with one page at a time. Its profile stands in `folder`."""

    def __init__(self, folder, trusted_keys=()):
        self.events, self.number, self.session = [], 0, None
        # It reads commands from descriptor 3 and answers on 4; a shell moves our two pipes there.
        arguments = [
            "sh", "-c", 'exec "$@" 3<&0 4>&1 </dev/null >/dev/null 2>/dev/null', "sh", program(), "--headless=new", "--no-sandbox",
            "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking",
            "--disable-component-update", "--disable-sync", "--hide-scrollbars", "--remote-debugging-pipe", f"--user-data-dir={folder}",
            # No other certificate is believed than those with these keys.
            f"--ignore-certificate-errors-spki-list={','.join(trusted_keys)}", "about:blank",
        ]
        environment = dict(os.environ, HOME=folder, TMPDIR=folder, XDG_CONFIG_HOME=folder, XDG_CACHE_HOME=folder, TZ="UTC", LANG="C.UTF-8")
        self.process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
        self.answers = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        self.new_page()

    def _read(self):
        rest = b""
        while data := self.process.stdout.read1(1 << 16):
            *messages, rest = (rest + data).split(b"\0")
            for message in messages:
                self.answers.put(json.loads(message))
        self.answers.put(None)

    def close(self):
        self.process.kill()
        self.process.wait()

    def ask(self, method, **parameters):
        self.number += 1
        command = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            command["sessionId"] = self.session
        self.process.stdin.write(json.dumps(command).encode() + b"\0")
        self.process.stdin.flush()
        until = time.monotonic() + LIMIT
        while True:
            message = self.answers.get(timeout=max(0.01, until - time.monotonic()))
            assert message is not None, f"the browser ended at {method}"
            if message.get("id") == self.number:
                assert "error" not in message, f"{method}: {message['error']}"
                return message["result"]
            self.events.append(message)

    def new_page(self):
        """A page in a context of its own: without anybody's cookies."""
        old, self.session = self.session, None
        context = self.ask("Target.createBrowserContext")["browserContextId"]
        target = self.ask("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        if old:
            self.ask("Target.closeTarget", targetId=self.target)
        self.target = target
        self.session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ["Page", "Network", "Log", "Runtime"]:
            self.ask(f"{domain}.enable")
        self.look()

    def look(self, width=1440, height=900, dark=False, scale=1, reduced=False):
        """How the page is looked at."""
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=width < 700)
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        features.append({"name": "prefers-reduced-motion", "value": "reduce" if reduced else "no-preference"})
        self.ask("Emulation.setEmulatedMedia", features=features)

    def offline(self, is_offline):
        """Takes the network away from the page, or gives it back."""
        self.ask("Network.emulateNetworkConditions", offline=is_offline, latency=0, downloadThroughput=-1, uploadThroughput=-1)

    def open(self, url):
        self.ask("Page.navigate", url=url)
        self.until("document.readyState === 'complete'", f"{url} is loaded")

    def evaluate(self, expression, wait=False):
        """Evaluates past the page's policy, as a person with developer tools would."""
        answer = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=wait, userGesture=True)
        assert "exceptionDetails" not in answer, (expression, answer["exceptionDetails"])
        return answer["result"].get("value")

    def until(self, expression, what, seconds=15):
        """Waits until something holds; what it is then. An element is there, or is not."""
        expression = f"((found) => found instanceof Node || found)({expression})"
        began = time.monotonic()
        while True:
            try:
                if found := self.evaluate(expression):
                    return found
            except AssertionError:
                # The page is being exchanged.
                if time.monotonic() - began > seconds:
                    raise
            if time.monotonic() - began > seconds:
                raise AssertionError(f"not after {seconds} s: {what}\n{self.evaluate('document.body.innerText')[:3000]}")
            time.sleep(0.03)

    def text(self, selector):
        return self.evaluate(f"document.querySelector({json.dumps(selector)})?.textContent ?? null")

    def press(self, key, times=1, shift=False):
        code, number, text = KEYS[key]
        for _ in range(times):
            for kind in ["keyDown", "keyUp"]:
                told = {"type": kind, "key": key, "code": code, "windowsVirtualKeyCode": number, "modifiers": 8 if shift else 0}
                if text and kind == "keyDown":
                    told["text"] = text
                self.ask("Input.dispatchKeyEvent", **told)

    def type(self, text):
        self.ask("Input.insertText", text=text)

    def tab_to(self, expression, what, most=60):
        """Moves the focus by keyboard alone until this holds of `document.activeElement`, here `e`."""
        for _ in range(most):
            self.press("Tab")
            if self.evaluate(f"((e) => {expression})(document.activeElement)"):
                return
        raise AssertionError(f"the focus does not come to {what} within {most} steps")

    def click(self, selector):
        place = self.evaluate(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); e.scrollIntoView({{block: 'center'}});"
            " const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        for kind in ["mousePressed", "mouseReleased"]:
            self.ask("Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], button="left", clickCount=1)

    def screenshot(self, path, whole=False, quality=82):
        kind = "webp" if path.suffix == ".webp" else "png"
        options = {"format": kind, "captureBeyondViewport": whole}
        if kind == "webp":
            options["quality"] = quality
        path.write_bytes(base64.b64decode(self.ask("Page.captureScreenshot", **options)["data"]))

    def complaints(self, but=()):
        """What the browser has logged since: errors, violations of the policy, exceptions."""
        self.evaluate("1")
        found, self.events = self.events, []
        told = []
        for event in found:
            if event.get("sessionId") != self.session:
                continue
            parameters = event["params"]
            if event["method"] == "Log.entryAdded" and parameters["entry"]["level"] in ("error", "warning"):
                told.append(f"{parameters['entry']['text']} {parameters['entry'].get('url', '')}")
            elif event["method"] == "Runtime.exceptionThrown":
                told.append(json.dumps(parameters["exceptionDetails"])[:800])
            elif event["method"] == "Runtime.consoleAPICalled":
                told.append(f"console.{parameters['type']}: {json.dumps(parameters['args'])[:300]}")
        return [text for text in told if not any(part in text for part in but)]
