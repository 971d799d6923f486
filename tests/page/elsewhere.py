"""What the page says of a key that is destroyed, and may still lie where it was kept: played, for a real keeper says so for a moment only."""

import itertools

import stub


def what_may_still_lie_elsewhere_is_said(world):
    browser = world.browser
    runs = dict(itertools.islice(stub.thousand().items(), 1))
    (name, run), = runs.items()
    made = {"source": "service", "made": stub.moment(60), "remains": 1}
    destroyed = {"at": stub.moment(10), "by": "ada"}
    gone = {"run": name, "time": stub.moment(10), "key": {"action": "destroyed", "by": "ada"}}
    run["key"] = {**made, "destroyed": destroyed}
    played = stub.Stub(world.files, runs, {name: [gone]})
    browser.new_page()
    browser.open(f"{played.url}/#run/{name}")

    def says(text):
        browser.until(f"document.querySelector('.story-side')?.innerText.includes({text!r})", f"that it says: {text}")

    says("destroyed where kept is not confirmed yet")
    says("that it is destroyed")
    played.tell("key", {"run": name, "time": stub.moment(), "key": {"action": "erased", "by": "who kept it"}}, f"/v1/runs/{name}/events")
    browser.until("document.getElementById('timeline').innerText.includes('Key erased')", "that it is gone")
    for key, text in [({**made}, "that the one before it is destroyed"), ({**made, "remains": 3}, "that 3 are destroyed")]:
        run["key"] = key
        browser.open(f"{played.url}/?{text.split()[1]}#run/{name}")
        says(text)
    played.close()
