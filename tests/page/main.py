"""Looks at the page as its readers do, in a real browser: with the service as it is shipped, and with a fleet that is only played.

    main.py --orchestrator PROGRAM            every check
    main.py --orchestrator PROGRAM --only X   those with X in their name
    main.py --orchestrator PROGRAM --screenshots FOLDER
"""

import argparse
import os
import pathlib
import sys
import tempfile
import time
import traceback

import elsewhere
import hostile
import late
import people
import screenshots
import thousand
import watching
from browser import Browser
from service import Service


class World:
    """What the checks share: a browser, the service, and the files of the page as it serves them."""

    def __init__(self, browser, service):
        self.browser, self.service = browser, service
        # They say nothing for longer than their lease and the grace, while the others are looked at.
        self.silent = service.create("lpar-silent")
        self.used_up, self.called_off = (
            service.create(server, max_attempts=attempts, target={"lun": {"wwid": wwid}, "reservation": "require"})
            for server, attempts, wwid in [("lpar-used-up", 1, "3600507680a"), ("lpar-called-off", 3, "3600507680b")]
        )
        self.agents = [service.agent(run) for run in (self.silent, self.used_up, self.called_off)]
        self.files = {path: self.file(path) for path in ["/", "/page.css", "/page.js", "/icon.svg"]}

    def file(self, path):
        status, body = self.service.ask("GET", path)
        assert status == 200, (path, status)
        headers = people.headers_of(self.service, path)
        kept = ["content-type", "content-security-policy", "referrer-policy", "x-content-type-options"]
        return {name: headers[name] for name in kept}, body

    def sign_in(self, role="operator"):
        """A page of its own, and somebody who is signed in there."""
        self.browser.new_page()
        self.browser.open(self.service.url + "/")
        self.browser.until("!document.getElementById('sign-in').hidden", "the form to sign in")
        self.browser.type(self.service.token(role))
        self.browser.press("Enter")
        self.browser.until("document.body.dataset.loaded", "the fleet")
        # That nobody was signed in before is answered with 401, which the browser logs.
        assert self.browser.complaints(but=["401"]) == []


CHECKS = [
    people.the_files_are_served_as_the_policy_says, people.paths_that_lead_elsewhere_lead_nowhere, people.whoever_has_a_token_signs_in,
    watching.what_happens_is_shown_without_a_reload, watching.paths_that_were_lost_before_are_shown, watching.a_run_is_cancelled_with_the_keyboard_alone,
    people.a_viewer_sees_and_changes_nothing, hostile.no_text_becomes_markup, watching.a_death_is_confirmed_by_the_servers_name,
    hostile.what_a_launcher_says_is_a_text,
    watching.the_death_is_confirmed_of_an_attempt_that_has_its_outcome, watching.whoever_cancels_is_told_that_the_key_is_destroyed,
    late.a_list_that_comes_late_changes_nothing, late.a_story_that_comes_late_changes_nothing, late.an_event_that_comes_late_is_told_once, late.what_stands_still_is_not_shown_as_if_it_moved,
    watching.the_page_comes_back_after_the_service, thousand.what_is_played_is_what_the_service_says,
    thousand.a_thousand_runs_are_shown_smoothly, thousand.everything_can_be_read_by_everybody,
    elsewhere.what_may_still_lie_elsewhere_is_said,
]


def main():
    asked = argparse.ArgumentParser()
    asked.add_argument("--orchestrator", required=True)
    asked.add_argument("--only", default="")
    asked.add_argument("--screenshots", type=pathlib.Path)
    asked = asked.parse_args()
    failed = 0
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        os.makedirs(f"{folder}/service")
        service = Service(asked.orchestrator, f"{folder}/service")
        browser = None
        try:
            service.start()
            browser = Browser(f"{folder}/browser", [service.key()])
            world = World(browser, service)
            if asked.screenshots:
                screenshots.make(world, asked.screenshots)
                return 0
            for check in CHECKS:
                if asked.only in check.__name__:
                    failed += run(check, world)
        finally:
            if browser:
                browser.close()
            service.stop()
    return int(failed > 0)


def run(check, world):
    began = time.monotonic()
    try:
        check(world)
    except Exception:
        traceback.print_exc()
        print(f"FAILED {check.__name__}", file=sys.stderr, flush=True)
        return 1
    print(f"ok {check.__name__} ({time.monotonic() - began:.1f} s)", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
