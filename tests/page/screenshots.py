"""Pictures for the documentation: a fleet in which everything happens, and one run's story; light, dark, and on a phone."""

import fleet
import stub

WIDTH, HEIGHT = 1440, 900
PHONE = {"width": 390, "height": 844, "scale": 2}


def make(world, folder):
    folder.mkdir(parents=True, exist_ok=True)
    browser = world.browser
    runs, stories, shown = fleet.make()
    played = stub.Stub(world.files, runs, stories)

    def take(name, address, look, ready):
        browser.look(**look)
        browser.evaluate(f"location.hash = '{address}'")
        browser.until(ready, name)
        browser.evaluate("document.activeElement.blur(); window.scrollTo(0, 0); new Promise((done) => setTimeout(done, 600))", wait=True)
        browser.screenshot(folder / f"{name}.webp")
        size = (folder / f"{name}.webp").stat().st_size
        assert size < 200 << 10, f"{name} has {size} bytes"
        print(f"{folder / name}.webp: {size >> 10} KiB")

    browser.open(played.url + "/")
    browser.until("document.body.dataset.loaded && document.querySelectorAll('.row').length > 40", "the fleet")
    for told in fleet.happen(runs, shown):
        played.tell("agent", told)
    is_fleet = "!document.getElementById('fleet').hidden && document.querySelector('.degraded')"
    is_story = "document.querySelector('.story-head h1') && document.getElementById('timeline').childElementCount > 20 && document.querySelector('.now .degraded')"
    for colour, dark in [("light", False), ("dark", True)]:
        take(f"fleet-{colour}", "", {"dark": dark, "width": WIDTH, "height": HEIGHT}, is_fleet)
        take(f"run-{colour}", f"run/{shown}", {"dark": dark, "width": WIDTH, "height": 1040}, is_story)
    take("fleet-phone", "", PHONE, is_fleet)
    take("run-phone", f"run/{shown}", PHONE, is_story)
    played.close()
