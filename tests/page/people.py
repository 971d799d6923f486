"""Who gets what: the files, those who sign in, and those who ask for what is not theirs."""

import http.client
import re


def headers_of(service, path, **more):
    connection = http.client.HTTPSConnection("127.0.0.1", service.port, context=service.context, timeout=20)
    connection.request("GET", path, headers=more)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return {name.lower(): value for name, value in answer.getheaders()} | {"status": answer.status}


def the_files_are_served_as_the_policy_says(world):
    for path, kind in [("/", "text/html"), ("/page.css", "text/css"), ("/page.js", "text/javascript"), ("/icon.svg", "image/svg+xml")]:
        headers = headers_of(world.service, path)
        policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
        assert policy == {
            "default-src": "'none'", "script-src": "'self'", "style-src": "'self'", "img-src": "'self'", "connect-src": "'self'", "form-action": "'none'",
            "frame-ancestors": "'none'", "base-uri": "'none'", "require-trusted-types-for": "'script'",
        }, policy
        expected = {
            "content-type": kind, "cache-control": "no-cache", "x-content-type-options": "nosniff", "referrer-policy": "no-referrer",
            "cross-origin-opener-policy": "same-origin", "cross-origin-resource-policy": "same-origin", "x-frame-options": "DENY",
        }
        for name, value in expected.items():
            assert headers[name].startswith(value), (path, name, headers[name])
        again = headers_of(world.service, path, **{"If-None-Match": headers["etag"]})
        assert again["status"] == 304 and "content-security-policy" in again, again
    assert headers_of(world.service, "/v1/session")["cache-control"] == "no-store"


def paths_that_lead_elsewhere_lead_nowhere(world):
    secrets = [world.service.token("operator").encode(), world.service.token("viewer").encode(), b"root:", b"PRIVATE KEY"]
    ways = [
        "/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/page.css/../../operator.token", "/v1/../operator.token", "//etc/passwd",
        "/operator.token", "/data/operator.token", "/page.css/operator.token", "/..%2foperator.token", "/%2e%2e%5coperator.token", "/page.js%00.html",
        "/%00", "/./operator.token", "/page/%252e%252e/operator.token", "/..;/operator.token", "/....//operator.token", "/page.css/", "/PAGE.CSS", "/page.html",
        "/js/words.js", "/etc/passwd", "file:///etc/passwd", "https://example.com/../operator.token", "/v1/runs/../../operator.token", "/v1/runs/%2e%2e%2foperator.token",
    ]
    for way in [way.encode() for way in ways] + [b"/page.css\0/../operator.token", b"/\xff\xfe", b"/" + b"../" * 2000 + b"etc/passwd"]:
        status, read = world.service.raw(way)
        assert status in (400, 401, 404, 414, 431), (way, status, read[:300])
        assert not any(secret in read for secret in secrets), (way, read[:300])


def whoever_has_a_token_signs_in(world):
    browser, service = world.browser, world.service
    browser.new_page()
    browser.open(service.url + "/")
    browser.until("!document.getElementById('sign-in').hidden && document.activeElement.id === 'token'", "the form to sign in, with the focus in it")
    shape = browser.evaluate("[token.type, token.autocomplete, document.querySelector('[name=username]').autocomplete].join()")
    assert shape == "password,current-password,username", shape
    browser.type("x" * 43)
    browser.press("Enter")
    assert "not known" in browser.until("document.getElementById('sign-in-problem').textContent", "that the token is wrong")
    assert browser.evaluate("document.getElementById('groups').textContent.includes('lpar')") is False
    browser.evaluate("token.value = ''")
    browser.type(service.token())
    browser.press("Enter")
    browser.until("document.body.dataset.loaded", "the fleet")
    assert browser.text("#who-name") == "operator token" and browser.text("#link-text") == "Live"
    # Neither in the page nor anywhere that a script could read does the token remain.
    kept = browser.evaluate("[document.documentElement.outerHTML, document.cookie, JSON.stringify(localStorage), JSON.stringify(sessionStorage), location.href, token.value].join()")
    assert service.token() not in kept
    browser.open(service.url + "/")
    browser.until("document.body.dataset.loaded && document.getElementById('sign-in').hidden", "that one is still signed in after a reload")
    browser.click("#sign-out")
    browser.until("!document.getElementById('sign-in').hidden", "the form to sign in")
    browser.open(service.url + "/")
    browser.until("!document.getElementById('sign-in').hidden", "that one is signed out after a reload as well")
    assert browser.complaints(but=["401"]) == []


def a_viewer_sees_and_changes_nothing(world):
    browser, service = world.browser, world.service
    run = service.create("lpar-viewed")
    world.sign_in("viewer")
    browser.until("document.getElementById('groups').textContent.includes('lpar-viewed')", "the run")
    assert browser.text("#who-name") == "viewer token"
    assert not browser.evaluate("document.getElementById('viewer-note').hidden")
    browser.evaluate(f"location.hash = '#run/{run}'")
    browser.until("document.getElementById('story-title')?.textContent === 'lpar-viewed'", "its story")
    assert "only operators" in browser.text(".story-head")
    assert browser.evaluate("document.querySelectorAll('[data-act]').length") == 0
    for action in ["cancel", "retry", "confirm-death", "token"]:
        answer = browser.evaluate(
            f"fetch('/v1/runs/{run}/{action}', {{method: 'POST', headers: {{'Content-Type': 'application/json'}}, body: '{{}}'}}).then((a) => a.status)", wait=True
        )
        assert answer == 403, (action, answer)
    assert service.must("GET", f"/v1/runs/{run}")["state"] in ("queued", "launching")
    assert re.fullmatch(r"viewer token", browser.text("#who-name"))
    assert all("403" in text for text in browser.complaints())
    service.must("POST", f"/v1/runs/{run}/cancel", {})
