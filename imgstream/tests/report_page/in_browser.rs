//! The page as a browser shows it: nothing asked for, nothing complained about, nothing cut off, and it prints.

use std::collections::BTreeSet;
use std::path::PathBuf;

use base64::Engine as _;
use imgstream::bench::findings::Findings;
use imgstream::bench::report;
use serde_json::{Value, json};

use crate::browser::Browser;
use crate::sample;

/// What is wrong with the page as it stands in the window: plots without size, text that leaves its plot, anything that
/// leaves the window.
const WRONG: &str = r#"(() => {
    const wrong = [], shown = e => e.getClientRects().length > 0;
    const plots = [...document.querySelectorAll('svg')].filter(shown);
    for (const svg of plots) {
        const box = svg.getBoundingClientRect(), drawn = svg.getBBox();
        const empty = !(box.width > 100 && box.height > 50 && drawn.width > 50 && drawn.height > 20);
        if (empty) wrong.push('empty: ' + svg.ariaLabel);
        const texts = [...svg.querySelectorAll('text')];
        for (const text of texts) {
            const t = text.getBoundingClientRect();
            if (t.left < box.left - 1 || t.right > box.right + 1 || t.top < box.top - 1 || t.bottom > box.bottom + 1)
                wrong.push('outside its plot: ' + text.textContent);
        }
        // The middle of the letters: lines of text may stand close, letters may not touch.
        const boxes = texts.map(e => [e.textContent, e.getBoundingClientRect()]);
        boxes.forEach(([a, p], i) => boxes.slice(i + 1).forEach(([b, q]) => {
            const across = Math.min(p.right, q.right) - Math.max(p.left, q.left);
            const down = Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top);
            if (across > 1 && down > Math.min(p.height, q.height) * 0.3) wrong.push(`one over the other: ${a} | ${b}`);
        }));
    }
    const wide = document.documentElement.clientWidth;
    if (document.documentElement.scrollWidth > wide) wrong.push('the page is wider than the window');
    for (const e of document.querySelectorAll('body *')) {
        if (!shown(e) || e.closest('svg') || e.closest('.scroll')) continue;
        const box = e.getBoundingClientRect();
        if (box.right > wide + 1 || box.left < -1) wrong.push('outside the window: ' + e.outerHTML.slice(0, 80));
    }
    return {wrong, plots: plots.length};
})()"#;

/// Writes a report, and the page's path.
fn written(findings: &Findings, dir: &tempfile::TempDir) -> PathBuf {
    report::write(dir.path(), findings).unwrap()
}

/// Looks at a page in windows of several widths.
#[track_caller]
fn looks_right(browser: &mut Browser, findings: &Findings, plots: u64) {
    let dir = tempfile::tempdir().unwrap();
    let page = written(findings, &dir);
    for width in [1280, 800, 720, 390, 360] {
        browser.open(&page, width);
        let found = browser.evaluate(WRONG);
        assert_eq!(found["wrong"], json!([]), "at {width} pixels");
        assert_eq!(found["plots"], json!(plots), "at {width} pixels");
        undisturbed(browser, &page);
    }
    // All tables open.
    browser.evaluate("document.querySelectorAll('details').forEach(details => details.open = true)");
    assert_eq!(browser.evaluate(WRONG)["wrong"], json!([]), "with its tables open");
}

/// The page is all that was asked for, and nobody complained.
#[track_caller]
fn undisturbed(browser: &mut Browser, page: &std::path::Path) {
    let asked = browser.told("Network.requestWillBeSent");
    let urls: BTreeSet<&str> = asked.iter().filter_map(|event| event["request"]["url"].as_str()).collect();
    assert_eq!(urls, BTreeSet::from([format!("file://{}", page.display()).as_str()]));
    for complaint in ["Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Network.loadingFailed"]
    {
        assert_eq!(browser.told(complaint), Vec::<&Value>::new());
    }
}

#[test]
fn a_browser_shows_the_page_whole() {
    let mut browser = Browser::start();
    looks_right(&mut browser, &sample::full(), 9);
    assert_eq!(browser.evaluate("document.compatMode"), json!("CSS1Compat"));
    looks_right(&mut browser, &sample::minimal(), 0);
    looks_right(&mut browser, &sample::interrupted(), 3);
    looks_right(&mut browser, &sample::strange(0.0), 8);
    looks_right(&mut browser, &sample::strange(f64::MAX), 9);
    looks_right(&mut browser, &sample::hostile(), 9);
    assert_ne!(browser.evaluate("document.title"), json!("owned"));
    assert_eq!(browser.evaluate("document.querySelectorAll('script, img').length"), json!(0));
}

#[test]
fn a_browser_reads_the_page_as_xml_too() {
    let mut browser = Browser::start();
    for findings in [sample::full(), sample::hostile(), sample::minimal()] {
        let page = json!(report::page(&findings)).to_string();
        let error = format!(
            "new DOMParser().parseFromString({page}, 'application/xml').querySelector('parsererror')?.textContent ?? ''"
        );
        assert_eq!(browser.evaluate(&error), json!(""));
    }
}

#[test]
fn a_browser_prints_the_page_and_shows_it_in_the_dark() {
    let mut browser = Browser::start();
    let dir = tempfile::tempdir().unwrap();
    let page = written(&sample::full(), &dir);
    browser.open(&page, 1280);
    let background = |browser: &mut Browser| browser.evaluate("getComputedStyle(document.body).backgroundColor");
    let light = background(&mut browser);
    let dark = json!({"features": [{"name": "prefers-color-scheme", "value": "dark"}]});
    browser.ask("Emulation.setEmulatedMedia", &dark);
    assert_ne!(background(&mut browser), light);
    let picture = browser.ask("Page.captureScreenshot", &json!({"captureBeyondViewport": true}));
    assert!(bytes(&picture).starts_with(b"\x89PNG"));

    // In the dark as well: paper is never black.
    for (width, height) in [(8.27, 11.69), (8.5, 11.0)] {
        let size =
            json!({"paperWidth": width, "paperHeight": height, "preferCSSPageSize": false, "printBackground": true});
        let sheets = bytes(&browser.ask("Page.printToPDF", &size));
        assert!(sheets.starts_with(b"%PDF-"));
        let count = sheets.windows(11).filter(|at| *at == b"/Type /Page").count();
        assert!((2..12).contains(&count), "{count} sheets of {width} × {height} inches");
    }
    browser.ask("Emulation.setEmulatedMedia", &json!({"media": "print", "features": dark["features"]}));
    browser.resize(680);
    assert_eq!(background(&mut browser), json!("rgba(0, 0, 0, 0)"));
    assert_eq!(browser.evaluate("getComputedStyle(document.querySelector('h1')).color"), json!("rgb(29, 33, 38)"));
    let found = browser.evaluate(WRONG);
    assert_eq!((&found["wrong"], &found["plots"]), (&json!([]), &json!(9)), "on paper");
}

fn bytes(answer: &Value) -> Vec<u8> {
    let text = answer["data"].as_str().expect("what was asked for");
    base64::engine::general_purpose::STANDARD.decode(text).unwrap()
}
