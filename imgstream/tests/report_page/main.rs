//! The page that `--report` writes, from made-up findings: whole, well-formed, harmless, and as a real browser shows it.

// A test reports trouble by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod browser;
mod in_browser;
mod sample;
mod well_formed;

use imgstream::bench::report;
use well_formed::check;

#[test]
fn every_finding_is_on_the_page() {
    let page = report::page(&sample::full());
    check(&page);
    for id in ["limits", "time", "settings", "peers", "machine", "again"] {
        assert!(page.contains(&format!("<h2 id=\"{id}\">")), "no section {id}");
    }
    let facts = [
        "<h1>The device limits: it takes 1.47\u{a0}GiB/s",
        "<b>95</b>",
        "<b>91</b>",
        "<b>41.2</b>",
        "AMD EPYC 7763",
        "6.1.0-28-amd64",
        "Samsung SSD 980 PRO",
        "findings.json",
        "imgstream bench --source",
        "buffered failed: buffered writes need a file",
        "8 would be 9 % faster than 4, in use.",
        "casync</strong> was not measured: casync extract: Failed to seed",
        "3 June 2025, 14:12 UTC",
        "Bars: source 12.1 GiB/s, hash of the chunks 9.03 GiB/s, decode 2.41 GiB/s, write 1.47 GiB/s",
    ];
    for fact in facts {
        assert!(page.contains(fact), "{fact:?} is not on the page");
    }
    // Each plot has its numbers as text, and says what it shows to who cannot see it.
    assert_eq!(page.matches("<svg ").count(), page.matches("role=\"img\" aria-label=\"").count());
    assert_eq!(page.matches("The numbers</summary>").count(), 4);
    assert!(!page.contains("Interrupted"));
}

#[test]
fn what_was_not_measured_is_left_out_or_said() {
    let page = report::page(&sample::minimal());
    check(&page);
    for id in ["limits", "time", "settings", "peers"] {
        assert!(!page.contains(&format!("<h2 id=\"{id}\">")), "section {id} has nothing to show");
    }
    assert!(!page.contains("<svg"));
    for words in ["Measured, without a verdict.", "The whole was not measured", "No byte reached a device"] {
        assert!(page.contains(words), "{words:?} is not said");
    }
}

#[test]
fn an_interrupted_benchmark_says_so_first() {
    let page = report::page(&sample::interrupted());
    check(&page);
    let (notice, section) = (page.find("Interrupted.").unwrap(), page.find("<section").unwrap());
    assert!(notice < section);
}

#[test]
fn text_from_outside_cannot_become_markup() {
    let page = report::page(&sample::hostile());
    check(&page);
    for harm in ["<script", "<img", "onerror=alert(1)>", "\u{202e}", "\u{0}"] {
        assert!(!page.contains(harm), "{harm:?} is on the page");
    }
    assert!(page.contains("&lt;script&gt;document.title=&#39;owned&#39;") && page.contains("äöü 日本語"));
}

#[test]
fn no_number_breaks_the_page() {
    for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0, 0.0, f64::MIN_POSITIVE, f64::MAX] {
        let page = report::page(&sample::strange(number));
        check(&page);
        for wrong in ["NaN", ">inf", " inf", "\"inf", "-inf", "(inf"] {
            assert!(!page.contains(wrong), "{wrong} on the page of {number}");
        }
    }
}

#[test]
fn the_page_asks_for_nothing_and_runs_nothing() {
    let page = report::page(&sample::full());
    assert!(page.contains("default-src &#39;none&#39;; style-src &#39;unsafe-inline&#39;"));
    for outside in ["<script", "<link", "<img", "<iframe", "@import", " src=", "url(http"] {
        assert!(!page.contains(outside), "{outside} is on the page");
    }
    assert_eq!(page.matches("href=").count(), 1, "one link: to the data");
}

#[test]
fn page_and_data_are_written_and_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let report = dir.path().join("new/report");
    for findings in [sample::minimal(), sample::full()] {
        let path = report::write(&report, &findings).unwrap();
        assert_eq!(path, report.join("index.html"));
        assert_eq!(std::fs::read_to_string(path).unwrap(), report::page(&findings));
        let data = std::fs::read_to_string(report.join("findings.json")).unwrap();
        let again: imgstream::bench::findings::Findings = serde_json::from_str(&data).unwrap();
        assert_eq!((&again.command, again.settings == findings.settings), (&findings.command, true));
        assert_eq!((again.stages.len(), again.sweeps.len()), (findings.stages.len(), findings.sweeps.len()));
        assert_eq!(std::fs::read_dir(&report).unwrap().count(), 2, "nothing else is left");
    }
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = report::write(&file, &sample::full()).unwrap_err();
    assert!(error.to_string().contains(&file.display().to_string()), "{error}");
}
