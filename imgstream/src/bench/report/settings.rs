//! Settings: one small plot per sweep, all with the same scale, so that what matters looks as if it did.

use super::axis::{Axis, doubling};
use super::figure::{numbers, section};
use super::markup::Markup;
use super::svg::{SMALL, Svg, TEXT, fit, width};
use super::units::{Unit, digits, percent, rate, sane, span};
use crate::bench::findings::{Findings, Point, Setting, Settings, Sweep, Whole};
use crate::size::Size;

/// Pixels of a plot.
const WIDTH: f64 = 280.0;
const HEIGHT: f64 = 196.0;
/// Where its axes lie.
const LEFT: f64 = 32.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 168.0;
/// From the axes to the first and to the last point.
const MARGIN: f64 = 26.0;

/// The section.
pub fn show(page: &mut Markup, findings: &Findings) {
    let sweeps: Vec<&Sweep> = findings.sweeps.iter().filter(|sweep| !sweep.points.is_empty()).collect();
    if sweeps.is_empty() {
        return;
    }
    let rates = sweeps.iter().flat_map(|sweep| &sweep.points).filter(|point| point.failed.is_none());
    let most = rates.map(|point| sane(point.rate.max).max(sane(point.rate.median))).fold(0.0, f64::max);
    let unit = Unit::of(most);
    let axis = Axis::up_to(most / unit.bytes, 4);
    section(page, "settings", "Settings", |page| {
        let text = format!(
            "Throughput in {} of the raw image, one setting varied at a time, all others as used. The filled mark is \
             the value in use; whiskers run from the slowest sample to the fastest.",
            unit.name
        );
        page.text_in("p", &[], &text);
        page.element("div", &[("class", "multiples")], |page| {
            for sweep in &sweeps {
                multiple(page, sweep, findings, &axis, unit);
            }
        });
        let rows: Vec<Vec<String>> =
            sweeps.iter().flat_map(|sweep| sweep.points.iter().map(|point| row(sweep, point))).collect();
        let header = ["setting", "value", "median", "slowest", "fastest", "samples", "CPU s/GiB"];
        numbers(page, "The numbers", &header, &rows);
    });
}

fn row(sweep: &Sweep, point: &Point) -> Vec<String> {
    let mut row = vec![name(sweep.setting).into(), point.value.clone()];
    match &point.failed {
        // Why stands below the plot.
        Some(_) => row.push("failed".into()),
        None => {
            let spread = point.rate;
            row.extend([spread.median, spread.min, spread.max].map(rate));
            row.extend([spread.samples.to_string(), digits(point.cpu_per_gib)]);
        }
    }
    row.resize(7, String::new());
    row
}

fn name(setting: Setting) -> &'static str {
    match setting {
        Setting::Engine => "write engine",
        Setting::Depth => "writes in flight",
        Setting::ChunkSize => "chunk size",
        Setting::RequestSize => "request size",
        Setting::Connections => "requests in flight",
        Setting::Workers => "threads that decode",
    }
}

/// Whether a point is the value in use.
fn is_used(setting: Setting, point: &Point, used: &Settings) -> bool {
    let number = match setting {
        Setting::Engine => return point.value == used.engine,
        Setting::Depth => u64::try_from(used.depth).ok(),
        Setting::ChunkSize => Some(u64::from(used.chunk_size)),
        Setting::RequestSize => Some(used.request_size),
        Setting::Connections => u64::try_from(used.connections).ok(),
        Setting::Workers => u64::try_from(used.workers).ok(),
    };
    point.number.is_some() && point.number == number
}

/// A value as it is read: `2 MiB` for `2MiB`.
fn value(point: &Point) -> String {
    let size = point.value.ends_with('B').then(|| point.value.parse::<Size>().ok()).flatten();
    size.map_or_else(|| point.value.clone(), |size| size.to_string())
}

fn multiple(page: &mut Markup, sweep: &Sweep, findings: &Findings, axis: &Axis, unit: Unit) {
    let marks: Vec<Mark> = marks(sweep, &findings.settings);
    page.new_line();
    page.element("figure", &[], |figure| {
        figure.text_in("h3", &[], name(sweep.setting));
        figure.append(draw(sweep.setting, &marks, axis, unit));
        figure.element("figcaption", &[], |caption| {
            caption.text(&finding(&marks, findings.whole.as_ref()));
            for mark in &marks {
                if let Some(why) = &mark.point.failed {
                    caption.element("span", &[("class", "failed")], |span| {
                        span.text(&format!("{} failed: {why}", mark.name));
                    });
                }
            }
        });
    });
}

/// A point and where it lies.
struct Mark<'a> {
    point: &'a Point,
    name: String,
    used: bool,
    x: f64,
}

fn marks<'a>(sweep: &'a Sweep, used: &Settings) -> Vec<Mark<'a>> {
    let numbers: Vec<Option<u64>> = sweep.points.iter().map(|point| point.number).collect();
    let places = doubling(&numbers).into_iter().map(|at| LEFT + MARGIN + at * (WIDTH - LEFT - 2.0 * MARGIN));
    let point =
        |(point, x): (&'a Point, f64)| Mark { point, name: value(point), used: is_used(sweep.setting, point, used), x };
    sweep.points.iter().zip(places).map(point).collect()
}

/// What a plot comes to, in a sentence. What is in use was measured twice, in the sweep and before it; the faster counts, as
/// the machine may have been busier in between.
fn finding(marks: &[Mark], whole: Option<&Whole>) -> String {
    let measured = || marks.iter().filter(|mark| mark.point.failed.is_none() && sane(mark.point.rate.median) > 0.0);
    let Some(best) = measured().max_by(|a, b| a.point.rate.median.total_cmp(&b.point.rate.median)) else {
        return "No value could be measured. ".into();
    };
    let Some(used) = measured().find(|mark| mark.used) else {
        return format!("Fastest: {}, {}. ", best.name, rate(best.point.rate.median));
    };
    let before = whole.map_or(used.point.rate, |whole| whole.rate);
    let gain = best.point.rate.median / used.point.rate.median.max(sane(before.median)) - 1.0;
    if best.used {
        format!("{}, in use, is the fastest. ", used.name)
    } else if best.point.rate.min <= used.point.rate.max.max(sane(before.max)) {
        format!("{} in use; no other is faster by more than the spread. ", used.name)
    } else {
        format!("{} would be {} faster than {}, in use. ", best.name, percent(gain), used.name)
    }
}

fn draw(setting: Setting, marks: &[Mark], axis: &Axis, unit: Unit) -> Markup {
    let height = BOTTOM - TOP;
    let y = |rate: f64| BOTTOM - axis.at(rate / unit.bytes, height);
    let mut svg = Svg::default();
    for mark in marks.iter().filter(|mark| mark.used) {
        svg.rect("used", (mark.x - 15.0, TOP), (30.0, height));
    }
    for tick in &axis.ticks {
        let y = BOTTOM - axis.at(*tick, height);
        svg.line(if *tick == 0.0 { "base" } else { "grid" }, (LEFT, y), (WIDTH, y));
        svg.text("small end", (LEFT - 6.0, y + 4.0), &axis.label(*tick));
    }
    svg.text("small", (0.0, TOP - 18.0), unit.name);
    if setting != Setting::Engine {
        let points: Vec<(f64, f64)> = marks
            .iter()
            .filter(|mark| mark.point.failed.is_none())
            .map(|mark| (mark.x, y(mark.point.rate.median)))
            .collect();
        svg.through("sweep", &points);
    }
    for mark in marks {
        draw_mark(&mut svg, mark, y);
    }
    values(&mut svg, marks, unit, y);
    names(&mut svg, marks);
    let said: Vec<String> = marks.iter().map(said).collect();
    let label = format!("Throughput against {}: {}.", name(setting), said.join(", "));
    svg.finish("multiple", (WIDTH, HEIGHT), &label)
}

fn said(mark: &Mark) -> String {
    let used = if mark.used { " (in use)" } else { "" };
    let what = if mark.point.failed.is_some() { "failed".into() } else { rate(mark.point.rate.median) };
    format!("{}{used} {what}", mark.name)
}

fn draw_mark(svg: &mut Svg, mark: &Mark, y: impl Fn(f64) -> f64) {
    let spread = mark.point.rate;
    if let Some(why) = &mark.point.failed {
        svg.hint(&format!("{} failed: {why}", mark.name), |svg| {
            let (x, y) = (mark.x, BOTTOM - 9.0);
            svg.line("cross", (x - 4.5, y - 4.5), (x + 4.5, y + 4.5));
            svg.line("cross", (x - 4.5, y + 4.5), (x + 4.5, y - 4.5));
        });
        return;
    }
    let hint = format!("{}: {} ({})", mark.name, rate(spread.median), span(spread.median, spread.min, spread.max));
    svg.hint(&hint, |svg| {
        let (top, bottom) = (y(spread.max), y(spread.min));
        if bottom - top >= 1.0 {
            svg.line("whisker", (mark.x, top), (mark.x, bottom));
            svg.line("whisker", (mark.x - 4.0, top), (mark.x + 4.0, top));
            svg.line("whisker", (mark.x - 4.0, bottom), (mark.x + 4.0, bottom));
        }
        let (class, radius) = if mark.used { ("dot in-use", 5.5) } else { ("dot", 4.5) };
        svg.circle(class, (mark.x, y(spread.median)), radius);
    });
}

/// The value in use and the fastest have their rate written above them, where the two do not touch.
fn values(svg: &mut Svg, marks: &[Mark], unit: Unit, y: impl Fn(f64) -> f64) {
    let measured = || marks.iter().filter(|mark| mark.point.failed.is_none() && sane(mark.point.rate.median) > 0.0);
    let best = measured().max_by(|a, b| a.point.rate.median.total_cmp(&b.point.rate.median));
    let mut written: Vec<(f64, f64)> = Vec::new();
    for mark in measured().find(|mark| mark.used).into_iter().chain(best) {
        let words = digits(mark.point.rate.median / unit.bytes);
        let half = width(&words, TEXT) / 2.0;
        let x = mark.x.min(WIDTH - half).max(LEFT + half);
        if written.iter().any(|(from, to)| x + half > *from && x - half < *to) {
            continue;
        }
        written.push((x - half - 4.0, x + half + 4.0));
        let spread = mark.point.rate;
        let class = if mark.used { "mid halo strong" } else { "mid halo" };
        svg.text(class, (x, y(spread.max.max(spread.median)) - 9.0), &words);
    }
}

/// The values below the axis: the one in use always, others where they fit.
fn names(svg: &mut Svg, marks: &[Mark]) {
    let room = (WIDTH - LEFT) / 2.0;
    let mut order: Vec<&Mark> = marks.iter().collect();
    order.sort_by_key(|mark| !mark.used);
    let mut written: Vec<(f64, f64)> = Vec::new();
    for mark in order {
        let name = fit(&mark.name, SMALL, room);
        let half = width(&name, SMALL) / 2.0;
        let x = mark.x.min(WIDTH - half).max(half);
        svg.line("tick", (mark.x, BOTTOM), (mark.x, BOTTOM + 4.0));
        if written.iter().all(|(from, to)| x - half >= *to || x + half <= *from) {
            written.push((x - half - 2.0, x + half + 2.0));
            let class = if mark.used { "small mid ink strong" } else { "small mid" };
            svg.text(class, (x, BOTTOM + 18.0), &name);
        }
    }
}
