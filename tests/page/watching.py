"""What happens is shown as it happens; what is done is asked first."""

import signal

from service import failure, progress


def row(server):
    return f"[...document.querySelectorAll('.row')].find((row) => row.querySelector('.name').textContent === '{server}')"


def what_happens_is_shown_without_a_reload(world):
    browser, service = world.browser, world.service
    world.sign_in()
    browser.evaluate("window.mark = 'the same page'")
    run = service.create("lpar-live")
    browser.until(f"{row('lpar-live')}", "a run that is new")
    agent = service.agent(run)
    browser.until(f"{row('lpar-live')}?.dataset.state === 'running'", "that it runs")
    agent.say({"kind": "run-started", "agent": "z", "image": "debian-13", "target": "t"}, {"kind": "phase-started", "phase": "stream"},
              {"kind": "step-started", "phase": "stream", "step": "write"})
    agent.say(progress(25))
    browser.until(f"{row('lpar-live')}?.querySelector('.step').textContent === 'write 25 %'", "25 %")
    shown = browser.evaluate(f"{row('lpar-live')}.innerText")
    for part in ["512 MiB/s", "1 min 30 s left", "10.0 of 40.0 GiB", "Limited by source"]:
        assert part in shown, (part, shown)
    bar = browser.evaluate(f"(({{ariaValueNow, ariaValueText}}) => [ariaValueNow, ariaValueText].join())({row('lpar-live')}.querySelector('.meter'))")
    assert bar == "25,write: 25 percent", bar
    agent.say(progress(60), {"kind": "path-changed", "path": "sda", "way": "0.0.1900", "state": "down", "live": 1, "total": 2})
    browser.until(f"{row('lpar-live')}?.querySelector('.step').textContent === 'write 60 %'", "60 %")
    browser.until(f"{row('lpar-live')}?.querySelector('.paths.degraded')?.textContent === '1 of 2 paths lost · a moment'", "that a path is lost")
    # Its story knows the same, from the beginning, and goes on.
    browser.evaluate(f"location.hash = '#run/{run}'")
    browser.until("document.querySelector('.share')?.textContent === '60 %'", "its progress")
    told = browser.until("document.getElementById('timeline').innerText.includes('Path sda is down') && document.getElementById('timeline').innerText", "its time line")
    assert told.index("queued") < told.index("launching") < told.index("running") < told.index("Phase stream"), told
    agent.say({"kind": "warning", "message": "it is slow"})
    browser.until("document.getElementById('timeline').innerText.includes('it is slow')", "the warning")
    agent.say(failure(message="the disk is gone", hint="put it back", causes=["EIO"]))
    browser.until("document.querySelector('.panel.failure .hint')?.textContent.includes('put it back')", "the failure and its hint")
    assert browser.until("document.querySelector('.story-state .state').dataset.state", "its state") == "failed"
    browser.evaluate("document.getElementById('back').click()")
    browser.until(f"{row('lpar-live')}?.dataset.state === 'failed' && {row('lpar-live')}.innerText.includes('the disk is gone')", "that it has failed")
    browser.until("document.getElementById('told').textContent.includes('lpar-live is failed')", "that a screen reader is told")
    assert browser.evaluate("window.mark") == "the same page"
    assert browser.complaints() == []


def paths_that_were_lost_before_are_shown(world):
    browser, service = world.browser, world.service
    run = service.create("lpar-paths")
    agent = service.agent(run)

    def change(path, state, live, total=2):
        agent.renew()
        agent.say({"kind": "path-changed", "path": path, "way": path if state == "gone" else f"0.0.{path} 0x5005", "state": state, "live": live, "total": total})

    agent.say({"kind": "run-started", "agent": "z", "image": "debian-13", "target": "t"}, progress(10))
    change("sda", "down", 1)
    world.sign_in()
    browser.until(f"{row('lpar-paths')}?.querySelector('.paths.degraded')?.textContent.startsWith('1 of 2 paths lost')", "the path that was lost before")
    assert not browser.evaluate(f"{row('lpar-paths')}.classList.contains('attention')")
    # The next announcement takes the place of one before it.
    browser.evaluate("window.announced = ''; new MutationObserver(() => { announced += told.textContent; }).observe(told, {childList: true, characterData: true, subtree: true})")
    change("sdb", "down", 0)
    waits = f"{row('lpar-paths')}.closest('section').classList.contains('person') && {row('lpar-paths')}.innerText.includes('Waits for a path to its target · a moment')"
    browser.until(waits, "that a run without a path needs attention")
    browser.until("document.title.includes('1 without a path')", "that the title says so")
    # Where more than three runs change at once their number is told.
    browser.until("/lpar-paths is without a path|runs changed: .*1 without a path/.test(announced)", "that a screen reader is told")
    # What the kernel has taken away is lost all the same.
    change("sda", "gone", 0, total=1)
    browser.evaluate(f"location.hash = '#run/{run}'")
    lost = browser.until("document.querySelector('.now .lines')?.children.length === 2 && document.querySelector('.now .facts').innerText", "which paths are lost")
    for part in ["2 of 2 paths lost", "sda is gone", "0.0.sda 0x5005", "sdb is down"]:
        assert part in lost, (part, lost)
    # One comes back, the other under another name.
    change("sdb", "up", 1, total=1)
    agent.say({"kind": "path-changed", "path": "sdc", "way": "0.0.sda 0x5005", "state": "up", "live": 2, "total": 2})
    browser.until("document.querySelector('.now .facts')?.innerText.includes('2 of 2 paths live') && document.querySelector('.now .lines').children.length === 0", "that they are back")
    browser.until("!document.querySelector('.now .waits')", "that it waits for nothing any more")
    browser.evaluate("document.getElementById('back').click()")
    browser.until(f"!{row('lpar-paths')}.classList.contains('attention') && {row('lpar-paths')}.querySelector('.paths').textContent === '2 of 2 paths live'", "that all is well")
    assert browser.complaints() == []
    agent.say(failure(message="that was all"))


def a_run_is_cancelled_with_the_keyboard_alone(world):
    browser, service = world.browser, world.service
    run = service.create("lpar-wrong")
    service.create("lpar-other")
    browser.new_page()
    browser.open(service.url + "/")
    browser.until("document.activeElement.id === 'token'", "the form to sign in")
    browser.type(service.token())
    browser.press("Enter")
    browser.until(f"{row('lpar-wrong')}", "the run")
    # The first step leads past everything.
    browser.evaluate("document.activeElement.blur()")
    browser.tab_to("e.id === 'filter'", "the filter")
    browser.type("wrong")
    browser.until(f"{row('lpar-other')}.hidden && !{row('lpar-wrong')}.hidden && location.hash === '#q=wrong'", "that the filter counts")
    browser.tab_to("e.textContent === 'lpar-wrong'", "the run")
    assert browser.evaluate("getComputedStyle(document.activeElement, '::after').outlineStyle") == "solid", "one sees where the focus is"
    browser.press("Enter")
    browser.until("document.querySelector('[data-act=cancel]')", "its story")
    browser.tab_to("e.dataset.act === 'cancel'", "the button")
    browser.press("Enter")
    browser.until("document.getElementById('ask').open", "the question")
    assert "lpar-wrong" in browser.text("#ask-title") and run in browser.text("#ask-what")
    browser.press("Escape")
    browser.until("!document.getElementById('ask').open && document.activeElement.dataset.act === 'cancel'", "that Escape leads back")
    assert service.must("GET", f"/v1/runs/{run}")["state"] in ("queued", "launching")
    browser.press("Enter")
    browser.until("document.activeElement.id === 'ask-input'", "the reason")
    browser.type("the wrong image")
    browser.press("Tab", 2)
    assert browser.evaluate("document.activeElement.id") == "ask-yes"
    browser.press("Enter")
    browser.until("document.querySelector('.story-state .state').dataset.state === 'cancelled'", "that it is cancelled")
    assert "the wrong image" in service.must("GET", f"/v1/runs/{run}")["reason"]
    browser.until("document.querySelector('[data-act=retry]')", "that it can be tried again")
    browser.evaluate("document.getElementById('back').focus()")
    browser.press("Enter")
    browser.until("document.getElementById('filter').value === 'wrong' && !document.getElementById('fleet').hidden", "that the filter is as it was")
    assert browser.complaints(but=["401"]) == []


def a_death_is_confirmed_by_the_servers_name(world):
    browser, service = world.browser, world.service
    run = world.silent
    world.sign_in()
    browser.until(f"{row('lpar-silent')}?.dataset.state === 'lost'", "that its agent is lost", 20)
    browser.until(f"{row('lpar-silent')}.closest('section').classList.contains('person') && {row('lpar-silent')}.innerText.includes('Waits for a person')", "that it stands first")
    browser.evaluate(f"location.hash = '#run/{run}'")
    browser.until("document.querySelector('[data-act=confirm-death]')", "the button")
    browser.click("[data-act=confirm-death]")
    browser.until("document.getElementById('ask').open", "the question")
    assert browser.evaluate("document.getElementById('ask-yes').disabled")
    browser.type("lpar-silen")
    assert browser.evaluate("document.getElementById('ask-yes').disabled"), "not before it is typed whole"
    browser.type("t")
    browser.click("#ask-yes")
    browser.until("!document.getElementById('ask').open", "that it is done")
    browser.until("['launching', 'queued'].includes(document.querySelector('.story-state .state').dataset.state)", "that it is tried again")
    assert browser.complaints() == []
    service.must("POST", f"/v1/runs/{run}/cancel", {})


def the_death_is_confirmed_of_an_attempt_that_has_its_outcome(world):
    browser, service = world.browser, world.service
    # Nobody shuts its agent out any more: one run has no attempt left, the other is called off.
    service.must("POST", f"/v1/runs/{world.called_off}/cancel", {"reason": "no longer wanted"})
    world.sign_in()
    for run, server, then in [(world.used_up, "lpar-used-up", "failed"), (world.called_off, "lpar-called-off", "cancelled")]:
        waits = f"{row(server)}?.innerText.includes('confirm-death {run} --attempt 1')"
        browser.until(waits, "that a person is waited for", 20)
        assert service.must("GET", f"/v1/runs/{run}")["attempts"][0]["outcome"] == "lost"
        browser.evaluate(f"location.hash = '#run/{run}'")
        browser.until(f"document.getElementById('story-title')?.textContent === '{server}' && document.querySelector('[data-act=confirm-death]')", "the button")
        browser.click("[data-act=confirm-death]")
        browser.until("document.getElementById('ask').open", "the question")
        assert f"attempt 1 of run {run}" in browser.text("#ask-what")
        browser.type(server)
        browser.click("#ask-yes")
        browser.until(f"document.querySelector('.story-state .state').dataset.state === '{then}'", f"that it has {then}")
        assert not browser.evaluate("document.querySelector('[data-act=confirm-death]')")
        browser.until("!document.getElementById('ask').open", "that it is done")
        browser.evaluate("location.hash = '#'")
    assert browser.complaints() == []


def whoever_cancels_is_told_that_the_key_is_destroyed(world):
    browser, service = world.browser, world.service
    encrypted = {"target": {"device": "/dev/disk/by-id/encrypted", "layout": "whole"}}
    world.sign_in()

    def warning(server, **more):
        """What the question warns of, which stays open."""
        run = service.create(server, **more)
        browser.evaluate(f"location.hash = '#run/{run}'")
        browser.until(f"document.getElementById('story-title')?.textContent === '{server}' && document.querySelector('[data-act=cancel]')", "the button")
        browser.click("[data-act=cancel]")
        browser.until("document.getElementById('ask').open", "the question")
        return run, browser.evaluate("document.getElementById('ask-warning').checkVisibility() && document.getElementById('ask-warning').textContent")

    assert warning("lpar-plain")[1] is False
    browser.press("Escape")
    assert warning("lpar-own-key", key="agent", **encrypted)[1] is False, "of an agent's key the service has none"
    browser.press("Escape")
    run, said = warning("lpar-keyed", **encrypted)
    assert "destroyed at once and for good" in said and "never be read again" in said, said
    browser.press("Escape")
    browser.until("!document.getElementById('ask').open", "that Escape leads back")
    service.must("POST", f"/v1/runs/{run}/key", {})
    browser.until("document.getElementById('timeline').innerText.includes('Key shown') && document.querySelector('.story-side').innerText.includes('; shown ')", "that it was shown")
    browser.click("[data-act=cancel]")
    browser.until("document.getElementById('ask').open", "the question")
    assert "only whoever was shown it" in browser.text("#ask-warning")
    browser.click("#ask-yes")
    browser.until("document.querySelector('.story-state .state').dataset.state === 'cancelled'", "that it is cancelled")
    browser.until("document.querySelector('.story-side').innerText.includes('; destroyed ')", "that the key is destroyed")
    assert service.must("GET", f"/v1/runs/{run}")["key"]["destroyed"]
    assert browser.complaints() == []


def the_page_comes_back_after_the_service(world):
    browser, service = world.browser, world.service
    run = service.create("lpar-stays")
    world.sign_in()
    browser.until(f"{row('lpar-stays')}?.dataset.state === 'launching'", "the run")
    browser.evaluate("window.mark = 'the same page'")
    service.stop(signal.SIGKILL)
    browser.until("document.getElementById('link').dataset.state === 'lost' && !document.getElementById('away').hidden", "that the connection is lost")
    assert "is as it was at" in browser.text("#away") and "old" in browser.text("#link-text")
    assert browser.evaluate(f"{row('lpar-stays')}.dataset.state") == "launching", "what was known stays"
    # Also on a small phone everything is still there.
    browser.look(width=320, height=640)
    browser.until("document.documentElement.scrollWidth <= document.documentElement.clientWidth", "that nothing is wider than the window")
    browser.look()
    # A run that is looked at meanwhile is shown as far as it is known; one that is not known, once the service is back.
    browser.evaluate(f"location.hash = '#run/{run}'")
    browser.until("document.querySelector('.story-state .state')?.dataset.state === 'launching'", "what is known of the run")
    browser.offline(True)
    service.start()
    linked = service.create("lpar-linked")
    browser.evaluate(f"location.hash = '#run/{linked}'")
    browser.until("document.getElementById('story-body').textContent.includes('asked again')", "that nothing is known of it")
    browser.offline(False)
    browser.until("document.getElementById('story-title')?.textContent === 'lpar-linked' && document.querySelector('[data-act=cancel]')", "its story", 20)
    browser.evaluate("location.hash = ''")
    service.must("POST", f"/v1/runs/{linked}/cancel", {})
    service.must("POST", f"/v1/runs/{run}/cancel", {"reason": "while nobody looked"})
    browser.until("document.getElementById('link').dataset.state === 'live' && document.getElementById('away').hidden", "that it is back", 20)
    browser.until(f"{row('lpar-stays')}.dataset.state === 'cancelled' && {row('lpar-stays')}.innerText.includes('while nobody looked')", "what was missed")
    assert browser.evaluate("window.mark") == "the same page"
    assert browser.complaints(but=["ERR_CONNECTION_REFUSED", "ERR_INTERNET_DISCONNECTED", "ERR_CONNECTION_RESET", "ERR_EMPTY_RESPONSE", "ERR_INCOMPLETE", "ERR_HTTP2", "ERR_CONNECTION_CLOSED"]) == []
