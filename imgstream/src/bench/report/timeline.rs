//! Where the time goes: what the workers did, and how fast each stage was, over the last run.

use super::axis::Axis;
use super::figure::{Form, figure, numbers, section};
use super::markup::Markup;
use super::svg::{SMALL, Svg, apart, width};
use super::units::{Unit, percent, rate, sane, seconds};
use crate::bench::findings::{Findings, Moment};

/// More intervals than this are merged: they would be narrower than a printed dot.
const MOST: usize = 220;
/// Rows of the table.
const ROWS: usize = 20;

/// One interval, with where it begins.
#[derive(Debug, Clone, Copy)]
struct Interval {
    from: f64,
    to: f64,
    /// Shares of the workers' time: source wait, decoding, write wait.
    shares: [f64; 3],
    /// Rates: fetched, decoded, written, read back.
    rates: [f64; 4],
}

/// What the shares are of, in the data's order.
const SHARES: [(&str, &str); 3] = [("source wait", "source"), ("hash, decode", "decode"), ("write wait", "write")];
/// What the rates are of.
const RATES: [(&str, &str); 4] =
    [("fetched", "source"), ("decoded", "decode"), ("written", "write"), ("read back", "read")];

/// The section.
pub fn show(page: &mut Markup, findings: &Findings) {
    let Some(whole) = &findings.whole else { return };
    section(page, "time", "Where the time goes", |page| {
        let intervals = intervals(&whole.timeline);
        if intervals.is_empty() {
            page.text_in("p", &[("class", "none")], "The run was too short to be watched over time.");
            return;
        }
        let caption = "The last run. Above, what the threads that verify and decode spend their time on; what is left of \
                       100 % is neither. Below, how fast bytes are fetched (packed as they are), decoded, written and \
                       read back. Shares and rates named are means over the run.";
        figure(
            page,
            caption,
            |form| draw(&intervals, form),
            |page| {
                let rows: Vec<Vec<String>> = merged(&intervals, ROWS).iter().map(row).collect();
                let shares = SHARES.map(|(name, _)| name);
                let header: Vec<&str> =
                    ["until"].into_iter().chain(shares).chain(RATES.map(|(name, _)| name)).collect();
                numbers(page, "The numbers", &header, &rows);
            },
        );
    });
}

fn row(interval: &Interval) -> Vec<String> {
    let shares = interval.shares.map(percent);
    [seconds(interval.to)].into_iter().chain(shares).chain(interval.rates.map(rate)).collect()
}

/// The moments that can be drawn: time goes forward, shares are shares.
fn intervals(timeline: &[Moment]) -> Vec<Interval> {
    let mut from = 0.0;
    let mut intervals = Vec::with_capacity(timeline.len());
    for moment in timeline {
        let to = sane(moment.seconds);
        if to <= from {
            continue;
        }
        let mut left = 1.0;
        let shares = [moment.source_wait, moment.decode_busy, moment.write_wait].map(|share| {
            let share = sane(share).min(left);
            left -= share;
            share
        });
        let rates = [moment.fetched, moment.decoded, moment.written, moment.read_back].map(sane);
        intervals.push(Interval { from, to, shares, rates });
        from = to;
    }
    merged(&intervals, MOST)
}

/// At most `most` intervals: neighbours are taken together.
fn merged(intervals: &[Interval], most: usize) -> Vec<Interval> {
    intervals.chunks(intervals.len().div_ceil(most).max(1)).filter_map(mean).collect()
}

/// Several intervals as one, each counting by its length.
fn mean(intervals: &[Interval]) -> Option<Interval> {
    let (from, to) = (intervals.first()?.from, intervals.last()?.to);
    let weighted = |of: &dyn Fn(&Interval) -> f64| {
        intervals.iter().map(|interval| of(interval) * (interval.to - interval.from)).sum::<f64>() / (to - from)
    };
    let shares = [0, 1, 2].map(|i| weighted(&|interval| interval.shares[i]));
    let rates = [0, 1, 2, 3].map(|i| weighted(&|interval| interval.rates[i]));
    Some(Interval { from, to, shares, rates })
}

/// Where things lie.
struct Layout {
    form: Form,
    left: f64,
    pixels: f64,
    /// Tops of the two panels and their heights.
    panels: [(f64, f64); 2],
    end: f64,
}

fn draw(intervals: &[Interval], form: Form) -> Markup {
    let end = intervals.last().map_or(1.0, |last| last.to);
    let layout = match form {
        Form::Wide => Layout { form, left: 44.0, pixels: 666.0, panels: [(26.0, 150.0), (222.0, 170.0)], end },
        Form::Narrow => Layout { form, left: 42.0, pixels: 290.0, panels: [(82.0, 130.0), (332.0, 150.0)], end },
    };
    let Some(mean) = mean(intervals) else { return Markup::default() };
    let mut svg = Svg::default();
    svg.hatch(&format!("source-{}", form.class()), "rotate(45)");
    svg.hatch(&format!("write-{}", form.class()), "rotate(-45)");
    shares(&mut svg, intervals, &mean, &layout);
    let unit = rates(&mut svg, intervals, &mean, &layout);
    let (top, height) = layout.panels[1];
    let axis = Axis::up_to(end, if form == Form::Wide { 10 } else { 5 });
    for tick in axis.ticks.iter().filter(|tick| **tick <= end * 1.000_001) {
        let x = layout.left + tick / end * layout.pixels;
        svg.line("tick", (x, top + height), (x, top + height + 4.0));
        svg.tick((x, top + height + 17.0), &axis.label(*tick), form.width());
    }
    svg.text("small mid", (layout.left + layout.pixels / 2.0, top + height + 34.0), "seconds");
    let [source, decode, write] = mean.shares.map(percent);
    let label = format!(
        "Over {}, the workers spend {source} of their time waiting for the source, {decode} hashing and decoding, \
         {write} waiting to write. Mean rates: decoded {}, written {}. Rates are drawn in {}.",
        seconds(end),
        rate(mean.rates[1]),
        rate(mean.rates[2]),
        unit.name
    );
    svg.finish(form.class(), (form.width(), top + height + 42.0), &label)
}

/// The class that hatches a band: what is spent waiting can be told from work without colour.
fn hatching(class: &str, layout: &Layout) -> String {
    format!("hatch {class} {}", layout.form.class())
}

/// The upper panel: shares, stacked so that the first stage lies on top.
fn shares(svg: &mut Svg, intervals: &[Interval], mean: &Interval, layout: &Layout) {
    let (top, height) = layout.panels[0];
    let x = |seconds: f64| layout.left + seconds / layout.end * layout.pixels;
    svg.text("strong", (0.0, if layout.form == Form::Wide { top - 12.0 } else { 14.0 }), "The workers’ time");
    for tick in [0.0, 0.5, 1.0] {
        let y = top + height * (1.0 - tick);
        svg.line(if tick == 0.0 { "base" } else { "grid" }, (layout.left, y), (layout.left + layout.pixels, y));
        svg.text("small end", (layout.left - 6.0, y + 4.0), &format!("{:.0} %", tick * 100.0));
    }
    // The share that lies below each band.
    let below = |interval: &Interval, band: usize| interval.shares[band + 1..].iter().sum::<f64>();
    let mut middles = [0.0; 3];
    for band in 0..3 {
        let edge = |upper: bool| {
            intervals.iter().flat_map(move |interval| {
                let share = below(interval, band) + if upper { interval.shares[band] } else { 0.0 };
                [interval.from, interval.to].map(|at| (x(at), top + height * (1.0 - share)))
            })
        };
        let mut outline: Vec<(f64, f64)> = edge(true).collect();
        let mut lower: Vec<(f64, f64)> = edge(false).collect();
        lower.reverse();
        outline.append(&mut lower);
        let (name, class) = SHARES[band];
        let hint = format!("{name}: {} of the workers’ time", percent(mean.shares[band]));
        svg.hint(&hint, |svg| {
            svg.area(&format!("band {class}"), &outline);
            svg.area(&hatching(class, layout), &outline);
        });
        if let Some(last) = intervals.last() {
            middles[band] = top + height * (1.0 - below(last, band) - last.shares[band] / 2.0);
        }
    }
    let words = [0, 1, 2].map(|band| (SHARES[band].1, format!("{} {}", SHARES[band].0, percent(mean.shares[band]))));
    keys(svg, &words, &middles, layout, 0, "band");
}

/// The lower panel: rates, each through the middle of its intervals.
fn rates(svg: &mut Svg, intervals: &[Interval], mean: &Interval, layout: &Layout) -> Unit {
    let (top, height) = layout.panels[1];
    let most = intervals.iter().flat_map(|interval| interval.rates).fold(0.0, f64::max);
    let unit = Unit::of(most);
    let axis = Axis::up_to(most / unit.bytes, 4);
    let heading = format!("Throughput, {}", unit.name);
    svg.text("strong", (0.0, if layout.form == Form::Wide { top - 14.0 } else { top - 84.0 }), &heading);
    for tick in &axis.ticks {
        let y = top + height - axis.at(*tick, height);
        svg.line(if *tick == 0.0 { "base" } else { "grid" }, (layout.left, y), (layout.left + layout.pixels, y));
        svg.text("small end", (layout.left - 6.0, y + 4.0), &axis.label(*tick));
    }
    let (mut words, mut ends) = (Vec::new(), Vec::new());
    for (i, (name, class)) in RATES.iter().enumerate() {
        if mean.rates[i] == 0.0 {
            continue;
        }
        let y = |interval: &Interval| top + height - axis.at(interval.rates[i] / unit.bytes, height);
        let x = |seconds: f64| layout.left + seconds / layout.end * layout.pixels;
        let mut points: Vec<(f64, f64)> = Vec::with_capacity(intervals.len() + 2);
        points.extend(intervals.first().map(|first| (x(first.from), y(first))));
        points.extend(intervals.iter().map(|interval| (x(f64::midpoint(interval.from, interval.to)), y(interval))));
        points.extend(intervals.last().map(|last| (x(last.to), y(last))));
        let hint = format!("{name}: {} on average", rate(mean.rates[i]));
        svg.hint(&hint, |svg| svg.through(&format!("rate {class}"), &points));
        ends.push(intervals.last().map_or(top, y));
        words.push((*class, format!("{name} {}", rate(mean.rates[i]))));
    }
    keys(svg, &words, &ends, layout, 1, "rate");
    unit
}

/// Names what is drawn: at its right end where there is room, else above in lines. Each name has a piece of what it
/// names.
fn keys(svg: &mut Svg, words: &[(&str, String)], at: &[f64], layout: &Layout, panel: usize, kind: &str) {
    let (top, height) = layout.panels[panel];
    let mut piece = |x: f64, y: f64, class: &str, words: &str, wire: Option<f64>| {
        if let Some(from) = wire {
            svg.line("wire", (layout.left + layout.pixels + 2.0, from), (x - 4.0, y));
        }
        if kind == "band" {
            svg.rect(&format!("band {class}"), (x, y - 6.0), (14.0, 12.0));
            svg.rect(&hatching(class, layout), (x, y - 6.0), (14.0, 12.0));
        } else {
            svg.through(&format!("rate {class}"), &[(x, y), (x + 18.0, y)]);
        }
        svg.text("small ink", (x + if kind == "band" { 19.0 } else { 23.0 }, y + 4.0), words);
    };
    match layout.form {
        Form::Wide => {
            let places = apart(at, 17.0, top + 6.0, top + height - 6.0);
            for ((y, from), (class, words)) in places.iter().zip(at).zip(words) {
                piece(layout.left + layout.pixels + 18.0, *y, class, words, Some(*from));
            }
        }
        Form::Narrow => {
            let (mut x, mut y) = (0.0, top - 84.0 + if panel == 0 { 34.0 } else { 20.0 });
            for (class, words) in words {
                let takes = 23.0 + width(words, SMALL);
                if x > 0.0 && x + takes > layout.form.width() {
                    (x, y) = (0.0, y + 18.0);
                }
                piece(x, y, class, words, None);
                x += takes + 10.0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(seconds: f64, source_wait: f64, decode_busy: f64, write_wait: f64) -> Moment {
        let (fetched, decoded, written, read_back) = (1.0, 2.0, f64::NAN, -1.0);
        Moment { seconds, source_wait, decode_busy, write_wait, fetched, decoded, written, read_back }
    }

    #[test]
    fn what_cannot_be_drawn_is_left_out() {
        let timeline = [
            moment(f64::NAN, 0.1, 0.1, 0.1),
            moment(1.0, 0.5, 0.4, 0.3),
            moment(1.0, 0.1, 0.1, 0.1),
            moment(0.5, 0.1, 0.1, 0.1),
            moment(3.0, f64::NAN, -2.0, 7.0),
        ];
        let intervals = intervals(&timeline);
        assert_eq!(intervals.len(), 2);
        assert_eq!((intervals[1].from, intervals[1].to), (1.0, 3.0));
        assert!((intervals[0].shares.iter().sum::<f64>() - 1.0).abs() < 1e-9);
        assert_eq!(intervals[1].shares, [0.0, 0.0, 1.0]);
        assert_eq!(intervals[1].rates, [1.0, 2.0, 0.0, 0.0]);
    }

    #[test]
    fn many_intervals_become_few_and_keep_their_mean() {
        let timeline: Vec<Moment> =
            (1..=1000).map(|i| moment(f64::from(i) * 0.1, if i % 2 == 0 { 0.2 } else { 0.4 }, 0.1, 0.1)).collect();
        let intervals = intervals(&timeline);
        assert!(intervals.len() <= MOST && intervals.len() > MOST / 2, "{}", intervals.len());
        assert!((intervals[0].from, intervals.last().unwrap().to) == (0.0, 100.0));
        assert!((mean(&intervals).unwrap().shares[0] - 0.3).abs() < 1e-9);
    }
}
