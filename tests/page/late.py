"""Answers that come late: what they say was so once, and is not any more. And what does not come at all."""

import itertools

import stub
from watching import row

# The page asks every 15 seconds for what no event tells. Here it asks when it is told to, so that its answers come in the order that we want.
AT_OUR_WORD = """
const real = window.setInterval;
window.setInterval = (work, every) => (every === 15_000 ? ((window.askAnew = work), 0) : real(work, every));
"""
PAINTED = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"


# Time passes when we say so.
AT_OUR_TIME = "window.passed = 0; const real = Date.now; Date.now = () => real() + passed;"


def play(world, script=AT_OUR_WORD):
    """Three runs that write, by their servers' names, and the page that shows them."""
    runs = dict(itertools.islice(stub.thousand().items(), 3))
    played, browser = stub.Stub(world.files, runs), world.browser
    browser.new_page()
    browser.ask("Page.addScriptToEvaluateOnNewDocument", source=script)
    browser.open(played.url + "/")
    browser.until("document.body.dataset.loaded && document.querySelectorAll('.row[data-state=running]').length === 3", "the runs")
    return played, {run["server"]: run for run in runs.values()}


def end(run, since=0.0):
    """Lets a run fail; the event that tells so."""
    then = stub.moment(since)
    run.update({"state": "failed", "reason": "the disk is gone", "since": then, "ended": then})
    del run["progress"]
    return {"run": run["run"], "time": then, "state": {"state": "failed", "attempt": 1, "reason": "it failed"}}


def a_list_that_comes_late_changes_nothing(world):
    browser = world.browser
    played, runs = play(world)
    told, untold = runs["lpar-0000"], runs["lpar-0001"]
    late = played.delay("/v1/runs?state=lost,running")
    browser.evaluate("void (window.answered = askAnew())")
    assert late.made.wait(10)
    # While that answer is under way the run ends. Its clock has been set back meanwhile: a moment is no measure of what is newer.
    played.tell("state", end(told, since=900))
    # Only an answer says why, and events say less.
    browser.until(f"{row('lpar-0000')}.dataset.state === 'failed' && {row('lpar-0000')}.innerText.includes('the disk is gone')", "that it has failed")
    late.let_go.set()
    browser.evaluate("answered", wait=True)
    browser.evaluate(PAINTED, wait=True)
    shown = browser.evaluate(f"{row('lpar-0000')}.dataset.state")
    assert shown == "failed", f"a late answer has made it {shown} again"
    # What ends without a word being heard of it is missed in the next list.
    end(untold)
    assert browser.evaluate(f"{row('lpar-0001')}.dataset.state") == "running"
    browser.evaluate("askAnew()", wait=True)
    browser.until(f"{row('lpar-0001')}.dataset.state === 'failed' && {row('lpar-0001')}.innerText.includes('the disk is gone')", "that it has failed as well", 5)
    assert browser.evaluate(f"{row('lpar-0002')}.dataset.state") == "running"
    # It is tried again: what comes in time counts, also where it leads back.
    told.update({"state": "running", "since": stub.moment(), "reason": ""})
    browser.evaluate("askAnew()", wait=True)
    browser.until(f"{row('lpar-0000')}.dataset.state === 'running'", "that it runs again", 5)
    assert browser.complaints() == []
    played.close()


def a_story_that_comes_late_changes_nothing(world):
    browser = world.browser
    played, runs = play(world)
    run = runs["lpar-0000"]
    path = f"/v1/runs/{run['run']}"
    came = f"performance.getEntriesByType('resource').filter((one) => one.name.endsWith('{path}')).length"
    # What the fleet knows of it is shown at once, and the button under a finger stays when the rest comes.
    first = played.delay(path)
    browser.evaluate(f"location.hash = '#run/{run['run']}'")
    browser.until("document.querySelector('.story-state .state')?.dataset.state === 'running' && (window.button = document.querySelector('[data-act=cancel]'))", "its story")
    assert browser.evaluate(came) == 0
    first.let_go.set()
    browser.until(f"{came} > 0", "the rest of it")
    browser.evaluate("new Promise((done) => setTimeout(done, 100))", wait=True)
    browser.evaluate(PAINTED, wait=True)
    assert browser.evaluate("button.isConnected")
    late = played.delay(path)
    again = {"run": run["run"], "time": stub.moment(), "state": {"state": "running", "attempt": 1, "reason": ""}}
    played.tell("state", again, f"{path}/events")
    assert late.made.wait(10)
    played.tell("state", end(run), f"{path}/events")
    browser.until("document.querySelector('.story-state .state').dataset.state === 'failed'", "that it has failed")
    before = browser.evaluate(came)
    late.let_go.set()
    browser.until(f"{came} > {before}", "the late answer")
    # It is read after it has come.
    browser.evaluate("new Promise((done) => setTimeout(done, 200))", wait=True)
    browser.evaluate(PAINTED, wait=True)
    shown = browser.evaluate("document.querySelector('.story-state .state').dataset.state")
    assert shown == "failed", f"a late answer has made it {shown} again"
    assert browser.complaints() == []
    played.close()


def an_event_that_comes_late_is_told_once(world):
    browser = world.browser
    played, runs = play(world)
    run = runs["lpar-0000"]
    browser.evaluate("window.announced = []; new MutationObserver(() => announced.push(told.textContent)).observe(told, {childList: true, characterData: true, subtree: true})")
    # The answer to what was asked because of something else says already what the event will.
    run["paths"] = {"live": 0, "total": 2, "since": stub.moment()}
    browser.evaluate("askAnew()", wait=True)
    lost = "announced.filter((text) => text === 'lpar-0000 is without a path.').length"
    browser.until(f"{lost} === 1", "that a screen reader is told")
    for path in ["sda", "sdb"]:
        event = {"kind": "path-changed", "path": path, "way": f"0.0.{path} 0x5005", "state": "down", "live": 0, "total": 2}
        played.tell("event", {"run": run["run"], "time": stub.moment(), "agent": {"attempt": 1, "event": event}})
    browser.until(f"{row('lpar-0000')}.querySelector('.paths').textContent.startsWith('2 of 2 paths lost')", "the paths")
    # What is to be told is gathered for as long.
    browser.evaluate("new Promise((done) => setTimeout(done, 2000))", wait=True)
    assert browser.evaluate(lost) == 1, browser.evaluate("announced")
    assert browser.complaints() == []
    played.close()


def what_stands_still_is_not_shown_as_if_it_moved(world):
    browser = world.browser
    played, runs = play(world, AT_OUR_TIME)
    stuck, moving = runs["lpar-0000"], runs["lpar-0001"]
    # Its agent lives, and goes on telling the same.
    for seconds, rate, left in [(15, "400 MiB/s", "1 min 40 s left"), (45, "no progress", "for 40 s")]:
        browser.evaluate(f"void (passed = {seconds * 1000})")
        moving["progress"]["bytes"] += 1 << 20
        played.tell("fleet", {"runs": [stub.glance(run) for run in (stuck, moving)]})
        shown = f"{row('lpar-0000')}.querySelector('.rate').textContent === '{rate}' && {row('lpar-0000')}.querySelector('.eta').textContent.startsWith('{left}')"
        browser.until(shown, f"{rate} after {seconds} s")
    browser.until(f"{row('lpar-0001')}.querySelector('.rate').textContent === '400 MiB/s'", "that the other one gets on")
    browser.evaluate(f"location.hash = '#run/{stuck['run']}'")
    browser.until("document.querySelector('.now .amount.still')?.textContent.includes('no progress for 40 s')", "its story says the same")
    browser.evaluate("document.getElementById('back').click()")
    stuck["progress"]["bytes"] += 1 << 20
    played.tell("fleet", {"runs": [stub.glance(stuck)]})
    browser.until(f"{row('lpar-0000')}.querySelector('.rate').textContent === '400 MiB/s'", "that it gets on again")
    assert browser.complaints() == []
    played.close()
