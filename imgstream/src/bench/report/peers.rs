//! Peers: other tools that do the job, beside us.

use super::axis::Axis;
use super::figure::{Form, Layout, figure, grid, numbers, section};
use super::markup::Markup;
use super::svg::{SMALL, Svg, TEXT, fit, width};
use super::units::{NONE, bytes, count, roughly, sane, seconds, times};
use crate::bench::findings::{Findings, Peers, Spread, Way};

/// The section.
pub fn show(page: &mut Markup, findings: &Findings) {
    let Some(peers) = &findings.peers else { return };
    let mut measured: Vec<(&Way, Spread)> = peers
        .ways
        .iter()
        .filter_map(|way| Some((way, way.seconds.filter(|spread| sane(spread.median) > 0.0)?)))
        .collect();
    measured.sort_by(|(_, a), (_, b)| a.median.total_cmp(&b.median));
    let lacking: Vec<&Way> =
        peers.ways.iter().filter(|way| !measured.iter().any(|(other, _)| std::ptr::eq(*other, *way))).collect();
    section(page, "peers", "Peers", |page| {
        let rounds = count(peers.rounds, "round", "interleaved rounds");
        let text = format!("{}. {} of raw image, {rounds}; shorter is better.", peers.subject, bytes(peers.raw_bytes));
        if measured.is_empty() {
            page.text_in("p", &[], &text);
            page.text_in("p", &[("class", "none")], "No way could be measured.");
        } else {
            figure(page, &text, |form| draw(peers, &measured, form), |page| table(page, &measured));
        }
        if !lacking.is_empty() {
            page.element("ul", &[("class", "lacking")], |list| {
                for way in &lacking {
                    list.element("li", &[], |item| {
                        item.text_in("strong", &[], &way.name);
                        item.text(" was not measured: ");
                        item.text(if way.note.is_empty() { "no reason is given." } else { &way.note });
                    });
                }
            });
        }
        commands(page, peers);
    });
}

fn table(page: &mut Markup, measured: &[(&Way, Spread)]) {
    let spread = |spread: Option<Spread>, show: fn(f64) -> String| {
        spread.map_or(NONE.into(), |spread| {
            format!("{} ({} to {})", show(spread.median), show(spread.min), show(spread.max))
        })
    };
    let rows = measured.iter().map(|(way, time)| {
        let memory = way.peak_rss.map_or(NONE.into(), roughly);
        let (time, cpu) = (spread(Some(*time), seconds), spread(way.cpu_seconds, seconds));
        vec![way.name.clone(), way.verifies.clone(), time, cpu, memory, spread(way.ratio_to_ours, times)]
    });
    let header = ["way", "verifies", "time", "CPU time", "peak memory", "beside ours"];
    numbers(page, "The numbers", &header, &rows.collect::<Vec<_>>());
}

/// The command lines, and what is needed to be fair.
fn commands(page: &mut Markup, peers: &Peers) {
    page.new_line();
    page.element("details", &[], |details| {
        details.text_in("summary", &[], "The commands, and what to know about each");
        details.element("dl", &[("class", "commands")], |list| {
            for way in &peers.ways {
                list.text_in("dt", &[], &way.name);
                list.element("dd", &[], |dd| {
                    dd.text_in("code", &[], &way.command);
                    if !way.note.is_empty() {
                        dd.text_in("p", &[], &way.note);
                    }
                });
            }
            list.text_in("dt", &[], "all of them again");
            list.element("dd", &[], |dd| dd.text_in("code", &[], &peers.command));
        });
    });
}

/// Right ends of the columns of a wide plot: what is verified, CPU time, memory, ratio.
const COLUMNS: [(&str, f64); 4] = [("verifies", 658.0), ("CPU", 732.0), ("memory", 810.0), ("ours = 1", 880.0)];

fn draw(peers: &Peers, measured: &[(&Way, Spread)], form: Form) -> Markup {
    let layout = match form {
        Form::Wide => Layout { left: 158.0, pixels: 318.0, top: 30.0, pitch: 34.0, middle: 17.0 },
        Form::Narrow => Layout { left: 0.0, pixels: 330.0, top: 30.0, pitch: 64.0, middle: 31.0 },
    };
    let limit = peers.limit_seconds.map(sane).filter(|limit| *limit > 0.0);
    let most = measured
        .iter()
        .map(|(_, spread)| sane(spread.max).max(sane(spread.median)))
        .fold(limit.unwrap_or(0.0), f64::max);
    let axis = Axis::up_to(most, 5).cut_at(most);
    let at = |seconds: f64| layout.left + axis.at(seconds, layout.pixels);
    #[allow(clippy::cast_precision_loss)]
    let top = |i: usize| layout.top + layout.pitch * i as f64;
    let bottom = top(measured.len()) + 4.0;
    let mut svg = Svg::default();
    for tick in &axis.ticks {
        svg.line(grid(*tick, form), (at(*tick), layout.top), (at(*tick), bottom));
        svg.tick((at(*tick), bottom + 16.0), &axis.label(*tick), form.width());
    }
    svg.text("small mid", (layout.left + layout.pixels / 2.0, bottom + 34.0), "seconds");
    for (i, (way, spread)) in measured.iter().enumerate() {
        draw_bar(&mut svg, way, *spread, &layout, top(i), at);
    }
    if let Some(limit) = limit {
        svg.line("limit", (at(limit), layout.top), (at(limit), bottom));
        let by = peers.limit_by.as_deref().map_or_else(String::new, |by| format!(": {by}"));
        let room = if form == Form::Wide { COLUMNS[0].1 - 100.0 } else { form.width() };
        let words = fit(&format!("limit {}{by}", seconds(limit)), TEXT, room);
        let half = width(&words, TEXT) / 2.0;
        svg.text("limit mid", (at(limit).min(room - half).max(half), 20.0), &words);
    }
    for (i, (way, spread)) in measured.iter().enumerate() {
        let after = at(spread.max.max(spread.median)) + 8.0;
        match form {
            Form::Wide => words_beside(&mut svg, way, *spread, layout.left, top(i) + layout.middle + 4.5, after),
            Form::Narrow => words_around(&mut svg, way, *spread, layout.left, top(i)),
        }
    }
    if form == Form::Wide {
        COLUMNS.iter().for_each(|(name, x)| svg.text("small end", (*x, 20.0), name));
    }
    svg.finish(form.class(), (form.width(), bottom + 42.0), &label(measured, limit))
}

fn draw_bar(svg: &mut Svg, way: &Way, spread: Spread, layout: &Layout, top: f64, at: impl Fn(f64) -> f64) {
    let (y, height) = (top + layout.middle, 18.0);
    let times = format!("{} ({} to {})", seconds(spread.median), seconds(spread.min), seconds(spread.max));
    svg.hint(&format!("{}: {times}, verifies {}", way.name, way.verifies), |svg| {
        let class = if way.ours { "bar whole" } else { "bar peer" };
        svg.rect(class, (layout.left, y - height / 2.0), (at(spread.median) - layout.left, height));
        svg.whisker(at(spread.min), at(spread.max), y);
    });
}

fn words_beside(svg: &mut Svg, way: &Way, spread: Spread, left: f64, y: f64, after: f64) {
    let strong = if way.ours { "strong" } else { "" };
    svg.text(&format!("end {strong}"), (left - 12.0, y), &fit(&way.name, TEXT, left - 12.0));
    svg.text(&format!("halo {strong}"), (after, y), &seconds(spread.median));
    let cells = [fit(&way.verifies, SMALL, 120.0), cpu(way), memory(way), ratio(way)];
    for ((_, x), cell) in COLUMNS.iter().zip(cells) {
        svg.text(&format!("small end ink {strong}"), (*x, y), &cell);
    }
}

fn words_around(svg: &mut Svg, way: &Way, spread: Spread, left: f64, top: f64) {
    let strong = if way.ours { "strong" } else { "" };
    let (right, time) = (Form::Narrow.width(), seconds(spread.median));
    let room = right - left - width(&time, TEXT) - 12.0;
    svg.text(&format!("halo {strong}"), (left, top + 16.0), &fit(&way.name, TEXT, room));
    svg.text("halo end strong", (right, top + 16.0), &time);
    let beside = if way.ours { String::new() } else { format!("{} ours", ratio(way)) };
    let facts = [format!("verifies {}", way.verifies), format!("CPU {}", cpu(way)), memory(way)].join(" · ");
    let room = right - left - width(&beside, SMALL) - 8.0;
    svg.text("small halo", (left, top + 53.0), &fit(&facts, SMALL, room));
    svg.text("small halo end", (right, top + 53.0), &beside);
}

fn cpu(way: &Way) -> String {
    way.cpu_seconds.map_or(NONE.into(), |spread| seconds(spread.median))
}

fn memory(way: &Way) -> String {
    way.peak_rss.map_or(NONE.into(), roughly)
}

fn ratio(way: &Way) -> String {
    if way.ours { "1".into() } else { way.ratio_to_ours.map_or(NONE.into(), |spread| times(spread.median)) }
}

fn label(measured: &[(&Way, Spread)], limit: Option<f64>) -> String {
    let ways: Vec<String> =
        measured.iter().map(|(way, spread)| format!("{} {}", way.name, seconds(spread.median))).collect();
    let limit = limit.map_or_else(String::new, |limit| format!("; the limit is {}", seconds(limit)));
    format!("Bars: {}{limit}.", ways.join(", "))
}
