//! What limits: each stage alone, beside the whole and what the stages allow together.

use super::axis::Axis;
use super::figure::{Form, Layout, figure, grid, numbers, section};
use super::markup::Markup;
use super::svg::{Svg, TEXT, width};
use super::units::{Unit, count, digits, percent, rate, sane, span};
use crate::bench::findings::{Findings, Part, Spread};

/// Bars that are longer than this many times the limit are cut: what lies far beyond it does not matter, and would
/// leave no room for what does.
const REACH: f64 = 4.0;

/// One bar.
struct Bar {
    name: &'static str,
    class: &'static str,
    rate: Spread,
    /// In words, below the name.
    beside: String,
    cpu_per_gib: f64,
    limits: bool,
}

impl Bar {
    /// The name's class, what stands below it, and that one's class.
    fn words(&self) -> (&'static str, String, &'static str) {
        let strong = if self.class == "whole" { "strong" } else { "" };
        if self.limits {
            (strong, format!("{} · limits", self.beside), "warm")
        } else {
            (strong, self.beside.clone(), "")
        }
    }
}

/// The section.
pub fn show(page: &mut Markup, findings: &Findings) {
    let bars = bars(findings);
    if bars.is_empty() {
        return;
    }
    let limit = findings.verdict.as_ref().map(|verdict| sane(verdict.limit_rate)).filter(|rate| *rate > 0.0);
    section(page, "limits", "What limits", |page| {
        let shared = if findings.settings.read_back {
            " While all runs, writing and reading back share the device, and every stage shares the cores."
        } else {
            ""
        };
        let caption = &format!(
            "Each stage alone and then all together, in bytes of the raw image per second. Bars are medians, whiskers run \
             from the slowest sample to the fastest.{shared}"
        );
        figure(
            page,
            caption,
            |form| draw(&bars, limit, form),
            |page| {
                let rows: Vec<Vec<String>> = bars.iter().map(row).collect();
                let header = ["stage", "median", "slowest", "fastest", "samples", "on", "CPU s/GiB"];
                numbers(page, "The numbers", &header, &rows);
            },
        );
    });
}

fn bars(findings: &Findings) -> Vec<Bar> {
    let limited_by = findings.verdict.as_ref().map_or("", |verdict| verdict.limited_by.as_str());
    let is_device = ["write", "read-back"].contains(&limited_by);
    let alone = findings.stages.iter().map(|stage| {
        let (name, class, limits) = match stage.part {
            Part::Source => ("source", "source", limited_by == "source"),
            Part::Hash => ("hash of the chunks", "other", limited_by == "cpu"),
            // On one thread it is there to compare with.
            Part::Decode => ("decode", "decode", limited_by == "cpu" && stage.threads == findings.settings.workers),
            // Both take the device's time.
            Part::Write => ("write", "write", is_device),
            Part::Read => ("read back", "read", is_device),
            Part::RawHash => ("hash of the media", "other", limited_by == "cpu"),
        };
        let beside = count(stage.threads, "thread", "threads");
        Bar { name, class, rate: stage.rate, beside, cpu_per_gib: stage.cpu_per_gib, limits }
    });
    #[allow(clippy::cast_precision_loss)]
    let gib = findings.subject.data_bytes as f64 / f64::from(1 << 30);
    let whole = findings.whole.as_ref().map(|whole| {
        let reached = findings.verdict.as_ref().map(|verdict| sane(verdict.reached)).filter(|share| *share > 0.0);
        let beside = reached.map_or_else(String::new, |share| format!("{} of the limit", percent(share)));
        let cpu_per_gib = whole.cpu_seconds.median / gib;
        Bar { name: "all together", class: "whole", rate: whole.rate, beside, cpu_per_gib, limits: false }
    });
    alone.chain(whole).collect()
}

fn row(bar: &Bar) -> Vec<String> {
    let Spread { median, min, max, samples } = bar.rate;
    let (on, cpu) = (bar.beside.clone(), digits(bar.cpu_per_gib));
    vec![bar.name.into(), rate(median), rate(min), rate(max), samples.to_string(), on, cpu]
}

fn layout(form: Form) -> Layout {
    match form {
        Form::Wide => Layout { left: 150.0, pixels: 530.0, top: 30.0, pitch: 42.0, middle: 20.0 },
        Form::Narrow => Layout { left: 0.0, pixels: 330.0, top: 30.0, pitch: 64.0, middle: 31.0 },
    }
}

fn draw(bars: &[Bar], limit: Option<f64>, form: Form) -> Markup {
    let layout = layout(form);
    let most = bars.iter().map(|bar| sane(bar.rate.max)).fold(limit.unwrap_or(0.0), f64::max);
    let end = limit.map_or(most, |limit| most.min(limit * REACH));
    let unit = Unit::of(end);
    let axis = Axis::up_to(end / unit.bytes, if form == Form::Wide { 8 } else { 4 }).cut_at(end / unit.bytes);
    let at = |rate: f64| layout.left + axis.at(rate / unit.bytes, layout.pixels);
    #[allow(clippy::cast_precision_loss)]
    let bottom = layout.top + layout.pitch * bars.len() as f64 + 4.0;

    let mut svg = Svg::default();
    for tick in &axis.ticks {
        let x = layout.left + axis.at(*tick, layout.pixels);
        svg.line(grid(*tick, form), (x, layout.top), (x, bottom));
        svg.tick((x, bottom + 16.0), &axis.label(*tick), form.width());
    }
    let right = form.width();
    svg.text(
        "small mid",
        (layout.left + layout.pixels / 2.0, bottom + 34.0),
        &format!("{} of the raw image", unit.name),
    );
    if form == Form::Wide {
        svg.text("small end", (right, 20.0), "CPU s/GiB");
    }
    if let Some(limit) = limit {
        let (x, words) = (at(limit), format!("limit {}", rate(limit)));
        let half = width(&words, TEXT) / 2.0;
        svg.text("limit mid", (x.min(right - half - 90.0).max(layout.left + half), 20.0), &words);
    }
    let end = axis.end * unit.bytes;
    let rows = |i: usize| Row { top: layout.top + layout.pitch * i as f64, end };
    for (i, bar) in bars.iter().enumerate() {
        draw_bar(&mut svg, bar, &layout, rows(i), form, (at(bar.rate.median), at(bar.rate.min), at(bar.rate.max)));
    }
    if let Some(limit) = limit {
        svg.line("limit", (at(limit), layout.top), (at(limit), bottom));
    }
    for (i, bar) in bars.iter().enumerate() {
        let after = if bar.rate.median > end { at(bar.rate.median) } else { at(bar.rate.median.max(bar.rate.max)) };
        match form {
            Form::Wide => words_beside(&mut svg, bar, &layout, rows(i).top + layout.middle, after + 8.0),
            Form::Narrow => words_around(&mut svg, bar, rows(i).top, layout.left),
        }
    }
    svg.finish(form.class(), (right, bottom + 42.0), &label(bars, limit))
}

/// A bar's place.
#[derive(Clone, Copy)]
struct Row {
    top: f64,
    /// Where the axis ends, in bytes per second.
    end: f64,
}

fn draw_bar(svg: &mut Svg, bar: &Bar, layout: &Layout, row: Row, form: Form, (median, min, max): (f64, f64, f64)) {
    let (y, height) = (row.top + layout.middle, 18.0);
    let rates = format!("{} ({})", rate(bar.rate.median), span(bar.rate.median, bar.rate.min, bar.rate.max));
    let cpu = format!("{} CPU s/GiB", digits(bar.cpu_per_gib));
    svg.hint(&format!("{}: {rates}, {}, {cpu}", bar.name, bar.beside), |svg| {
        if bar.class == "whole" {
            svg.line("rule", (0.0, row.top - 1.0), (form.width(), row.top - 1.0));
        }
        svg.rect(&format!("bar {}", bar.class), (layout.left, y - height / 2.0), (median - layout.left, height));
        if bar.rate.median > row.end {
            for x in [median - 26.0, median - 20.0] {
                svg.line("cut", (x - 3.0, y + height / 2.0 + 2.0), (x + 3.0, y - height / 2.0 - 2.0));
            }
        } else {
            svg.whisker(min, max, y);
        }
    });
}

/// Where there is room, everything stands in the bar's own line.
fn words_beside(svg: &mut Svg, bar: &Bar, layout: &Layout, y: f64, after: f64) {
    let (strong, beside, warm) = bar.words();
    svg.text(&format!("end {strong}"), (layout.left - 12.0, y - 2.0), bar.name);
    svg.text(&format!("small end {warm}"), (layout.left - 12.0, y + 12.0), &beside);
    svg.text(&format!("halo {strong}"), (after, y + 4.5), &rate(bar.rate.median));
    svg.text("end", (Form::Wide.width(), y + 4.5), &digits(bar.cpu_per_gib));
}

/// Where there is none, above and below the bar.
fn words_around(svg: &mut Svg, bar: &Bar, top: f64, left: f64) {
    let (strong, beside, warm) = bar.words();
    let right = Form::Narrow.width();
    svg.text(&format!("halo {strong}"), (left, top + 16.0), bar.name);
    svg.text("halo end strong", (right, top + 16.0), &rate(bar.rate.median));
    svg.text("small halo end", (right, top + 53.0), &format!("{} CPU s/GiB", digits(bar.cpu_per_gib)));
    svg.text(&format!("small halo {warm}"), (left, top + 53.0), &beside);
}

fn label(bars: &[Bar], limit: Option<f64>) -> String {
    let stages: Vec<String> = bars.iter().map(|bar| format!("{} {}", bar.name, rate(bar.rate.median))).collect();
    let limit = limit.map_or_else(String::new, |limit| format!("; the limit is {}", rate(limit)));
    format!("Bars: {}{limit}.", stages.join(", "))
}
