//! What stands around the plots: the headline, the key figures, the machine, and how to repeat it.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::figure::section;
use super::markup::Markup;
use super::units::{bytes, count, digits, percent, rate, roughly, sane, seconds, span, unparted};
use crate::bench::findings::{Findings, Settings, Whole};

/// What the page is called.
pub fn title(findings: &Findings) -> String {
    format!("imgstream bench · {} → {} · {}", findings.subject.source, findings.sink.name, day(&findings.made))
}

/// The verdict as headline, and the figures that matter most.
pub fn head(page: &mut Markup, findings: &Findings) {
    page.element("header", &[], |header| {
        header.element("p", &[("class", "eyebrow")], |p| {
            p.text("imgstream bench · ");
            p.text_in("time", &[("datetime", &findings.made)], &minute(&findings.made));
        });
        let sentences = findings.verdict.as_ref().map_or(&[][..], |verdict| &verdict.sentences);
        let headline = sentences.first().map_or("Measured, without a verdict.", String::as_str);
        header.text_in("h1", &[], &unparted(&sentence(headline)));
        if findings.interrupted {
            header.element("p", &[("class", "notice"), ("role", "note")], |p| {
                p.text_in("strong", &[], "Interrupted. ");
                p.text(
                    "The benchmark was stopped before everything was measured: what is missing here was not reached.",
                );
            });
        }
        if sentences.len() > 1 {
            let rest: Vec<String> = sentences[1..].iter().map(|words| sentence(words)).collect();
            header.text_in("p", &[("class", "lede")], &unparted(&rest.join(" ")));
        }
        let subject = &findings.subject;
        header.text_in(
            "p",
            &[("class", "where")],
            &format!("{} of {} to {}", bytes(subject.raw_bytes), subject.source, findings.sink.name),
        );
        if !findings.sink.is_real {
            header.text_in(
                "p",
                &[("class", "where")],
                "No byte reached a device: what writing costs is not in these figures.",
            );
        }
        match &findings.whole {
            Some(whole) => key_figures(header, findings, whole),
            None => header.text_in("p", &[("class", "none")], "The whole was not measured, only stages of it."),
        }
    });
}

/// What stands in a line of its own elsewhere, as a sentence among others.
fn sentence(words: &str) -> String {
    let mut letters = words.chars();
    let first = letters.next().into_iter().flat_map(char::to_uppercase);
    let stop = if words.ends_with(['.', '!', '?']) { "" } else { "." };
    // Its hyphen is no place to end a line.
    first.chain(letters.clone()).chain(stop.chars()).collect::<String>().replace("SHA-256", "SHA\u{2011}256")
}

fn key_figures(page: &mut Markup, findings: &Findings, whole: &Whole) {
    page.element("dl", &[("class", "keys")], |keys| {
        let mut key = |name: &str, figure: &str, beside: &str| {
            keys.element("div", &[], |div| {
                div.text_in("dt", &[], name);
                div.element("dd", &[], |dd| {
                    let (number, unit) = figure.rsplit_once(' ').unwrap_or((figure, ""));
                    dd.text_in("b", &[], number);
                    dd.text(" ");
                    dd.text_in("span", &[("class", "unit")], unit);
                    dd.text_in("small", &[], beside);
                });
            });
        };
        let (spread, runs) = (whole.rate, count(whole.rate.samples, "run", "runs"));
        let span = format!("{}, {runs}", span(spread.median, spread.min, spread.max));
        key("Throughput", &rate(spread.median), if spread.samples > 1 { &span } else { &runs });
        if let Some(verdict) = findings.verdict.as_ref().filter(|verdict| sane(verdict.limit_rate) > 0.0) {
            key(
                "Of the limit",
                &percent(verdict.reached),
                &format!("{}: {} limits", rate(verdict.limit_rate), verdict.limited_by),
            );
        }
        #[allow(clippy::cast_precision_loss)]
        let gib = findings.subject.data_bytes as f64 / f64::from(1 << 30);
        key(
            "CPU",
            &seconds(whole.cpu_seconds.median),
            &format!("{} s per GiB", digits(whole.cpu_seconds.median / gib)),
        );
        key("Peak memory", &roughly(whole.peak_rss), "resident, whole process");
        match whole.first_write_seconds {
            Some(first) => key("First write", &seconds(first), "after the signature was checked"),
            None => key("First write", "–", "not seen"),
        }
    });
}

/// The machine, the image, the settings.
pub fn machine(page: &mut Markup, findings: &Findings) {
    let (machine, subject) = (&findings.machine, &findings.subject);
    section(page, "machine", "Machine and versions", |page| {
        page.element("div", &[("class", "facts")], |page| {
            list(
                page,
                "Machine",
                &[
                    ("processor", machine.processor.clone()),
                    ("architecture", machine.architecture.clone()),
                    ("cores", machine.cores.to_string()),
                    ("memory", roughly(machine.memory)),
                    ("kernel", machine.kernel.clone()),
                ],
            );
            let versions: Vec<(&str, String)> =
                machine.versions.iter().map(|(name, version)| (name.as_str(), version.clone())).collect();
            list(page, "Versions", &versions);
            #[allow(clippy::cast_precision_loss)]
            let packed =
                format!("{} × smaller", digits(subject.data_bytes as f64 / subject.compressed_bytes.max(1) as f64));
            let mut image = vec![
                ("source", subject.source.clone()),
                ("raw", bytes(subject.raw_bytes)),
                ("of it data", bytes(subject.data_bytes)),
                ("packed", format!("{}, {packed}", bytes(subject.compressed_bytes))),
                ("chunk size", bytes(subject.chunk_size.into())),
            ];
            image.extend(subject.level.map(|level| ("zstd level", level.to_string())));
            list(page, "Image", &image);
            let mut target = vec![("target", findings.sink.name.clone())];
            target.extend(settings(&findings.settings));
            list(page, "Target and settings", &target);
        });
    });
}

fn settings(settings: &Settings) -> Vec<(&'static str, String)> {
    vec![
        ("write engine", settings.engine.clone()),
        ("writes in flight", settings.depth.to_string()),
        ("chunk size", bytes(settings.chunk_size.into())),
        ("request size", bytes(settings.request_size)),
        ("requests in flight", settings.connections.to_string()),
        ("threads that decode", settings.workers.to_string()),
        ("read back", if settings.read_back { "yes" } else { "no" }.into()),
    ]
}

fn list(page: &mut Markup, heading: &str, facts: &[(&str, String)]) {
    page.element("div", &[], |page| {
        page.text_in("h3", &[], heading);
        page.element("dl", &[], |dl| {
            for (name, fact) in facts {
                dl.text_in("dt", &[], name);
                dl.text_in("dd", &[], fact);
            }
        });
    });
}

/// How to do it again, and where the numbers are.
pub fn foot(page: &mut Markup, findings: &Findings) {
    section(page, "again", "How to repeat", |page| {
        page.element("pre", &[], |pre| pre.text_in("code", &[], &findings.command));
    });
    page.new_line();
    page.element("footer", &[], |footer| {
        footer.text("Every number of this page stands in ");
        footer.text_in("a", &[("href", super::DATA)], super::DATA);
        footer.text(&format!(" beside it (format {}). The page loads nothing and runs nothing.", findings.format));
    });
}

fn parse(made: &str) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(made, &Rfc3339).ok()
}

fn day(made: &str) -> String {
    parse(made).map_or_else(|| made.into(), |at| format!("{} {} {}", at.day(), at.month(), at.year()))
}

fn minute(made: &str) -> String {
    let clock = |at: OffsetDateTime| format!("{}, {:02}:{:02} UTC", day(made), at.hour(), at.minute());
    parse(made).filter(|at| at.offset().is_utc()).map_or_else(|| made.into(), clock)
}
