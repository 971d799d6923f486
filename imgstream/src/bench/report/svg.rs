//! Shapes and text of a plot, and how much room text takes. Colours, strokes and fonts are the style sheet's.

use super::markup::Markup;

/// Pixels of a plot's text.
pub const TEXT: f64 = 12.5;
/// Pixels of its smaller text.
pub const SMALL: f64 = 11.0;

/// A plot being drawn. Coordinates are pixels, from the upper left.
#[derive(Debug, Default)]
pub struct Svg {
    body: Markup,
}

impl Svg {
    /// A rectangle; one without area is not drawn.
    pub fn rect(&mut self, class: &str, at: (f64, f64), size: (f64, f64)) {
        if size.0 > 0.0 && size.1 > 0.0 {
            let (x, y, width, height) = (number(at.0), number(at.1), number(size.0), number(size.1));
            self.body.empty("rect", &[("class", class), ("x", &x), ("y", &y), ("width", &width), ("height", &height)]);
        }
    }

    /// A line.
    pub fn line(&mut self, class: &str, from: (f64, f64), to: (f64, f64)) {
        let (x1, y1, x2, y2) = (number(from.0), number(from.1), number(to.0), number(to.1));
        self.body.empty("line", &[("class", class), ("x1", &x1), ("y1", &y1), ("x2", &x2), ("y2", &y2)]);
    }

    /// A dot.
    pub fn circle(&mut self, class: &str, at: (f64, f64), radius: f64) {
        let (x, y, r) = (number(at.0), number(at.1), number(radius));
        self.body.empty("circle", &[("class", class), ("cx", &x), ("cy", &y), ("r", &r)]);
    }

    /// A line through points.
    pub fn through(&mut self, class: &str, points: &[(f64, f64)]) {
        if points.len() > 1 {
            self.body.empty("path", &[("class", class), ("d", &path(points))]);
        }
    }

    /// The area that points enclose.
    pub fn area(&mut self, class: &str, points: &[(f64, f64)]) {
        if points.len() > 2 {
            self.body.empty("path", &[("class", class), ("d", &format!("{}Z", path(points)))]);
        }
    }

    /// Text; `class` says where it is held (`mid`, `end`) and how it looks.
    pub fn text(&mut self, class: &str, at: (f64, f64), text: &str) {
        let (x, y) = (number(at.0), number(at.1));
        self.body.text_in("text", &[("class", class), ("x", &x), ("y", &y)], text);
    }

    /// Small text in the middle of `at`, moved where it would leave the plot's `width`.
    pub fn tick(&mut self, at: (f64, f64), text: &str, width: f64) {
        let half = self::width(text, SMALL) / 2.0;
        self.text("small mid", (at.0.min(width - half).max(half), at.1), text);
    }

    /// What `inside` draws, with a text that shows when the pointer rests on it.
    pub fn hint(&mut self, hint: &str, inside: impl FnOnce(&mut Self)) {
        let mut group = Svg::default();
        inside(&mut group);
        self.body.element("g", &[], |g| {
            g.text_in("title", &[], hint);
            g.append(group.body);
        });
    }

    /// The vertical line at both ends of which a short one stands, lying: from the smallest to the largest sample.
    pub fn whisker(&mut self, from: f64, to: f64, y: f64) {
        if to - from >= 1.0 {
            self.line("whisker", (from, y), (to, y));
            self.line("whisker", (from, y - 4.0), (from, y + 4.0));
            self.line("whisker", (to, y - 4.0), (to, y + 4.0));
        }
    }

    /// A pattern of thin lines that the style sheet fills areas with; its identifier must be the page's only one.
    pub fn hatch(&mut self, id: &str, way: &str) {
        let (square, units) = ([("width", "6"), ("height", "6")], ("patternUnits", "userSpaceOnUse"));
        self.body.element(
            "pattern",
            &[("id", id), square[0], square[1], units, ("patternTransform", way)],
            |pattern| {
                pattern.empty("line", &[("class", "thread"), ("x1", "3"), ("y1", "0"), ("x2", "3"), ("y2", "6")]);
            },
        );
    }

    /// The whole element; `label` is what is said to who cannot see it.
    pub fn finish(self, class: &str, size: (f64, f64), label: &str) -> Markup {
        let view = format!("0 0 {} {}", number(size.0), number(size.1));
        let mut svg = Markup::default();
        svg.element("svg", &[("class", class), ("viewBox", &view), ("role", "img"), ("aria-label", label)], |svg| {
            svg.append(self.body);
        });
        svg
    }
}

/// A coordinate. Tenths of a pixel are enough; what is no number becomes zero, since it would break the whole plot.
fn number(value: f64) -> String {
    let value = if value.is_finite() { value.clamp(-1e6, 1e6) } else { 0.0 };
    let text = format!("{value:.1}");
    let text = text.strip_suffix(".0").unwrap_or(&text);
    if text == "-0" { "0".into() } else { text.into() }
}

fn path(points: &[(f64, f64)]) -> String {
    let steps = points.iter().enumerate().map(|(i, (x, y))| {
        let command = if i == 0 { 'M' } else { 'L' };
        format!("{command}{} {}", number(*x), number(*y))
    });
    steps.collect()
}

/// Pixels that text takes at most, in a wide system font: nobody can be asked for its measures before the page is shown.
pub fn width(text: &str, size: f64) -> f64 {
    let of = |c: char| match c {
        ' ' | 'i' | 'j' | 'l' | '.' | ',' | ':' | ';' | '|' | '!' | '\'' | '/' | '(' | ')' => 0.4,
        'f' | 'r' | 't' | '-' => 0.45,
        'm' | 'w' | 'M' | 'W' | '@' | '%' | '…' | '+' | '=' | '<' | '>' | '×' => 1.0,
        c if c.is_ascii_uppercase() => 0.78,
        c if (c as u32) < 0x250 || ('–'..='„').contains(&c) => 0.64,
        _ => 1.05,
    };
    text.chars().map(of).sum::<f64>() * size
}

/// Text that fits, its end cut off where it must be.
pub fn fit(text: &str, size: f64, room: f64) -> String {
    if width(text, size) <= room {
        return text.into();
    }
    let mut kept = String::new();
    for c in text.chars() {
        kept.push(c);
        if width(&kept, size) + width("…", size) > room {
            kept.pop();
            break;
        }
    }
    kept.trim_end().to_owned() + "…"
}

/// Positions as near as may be to `wanted` that are `gap` apart and lie between `top` and `bottom`; same order as given.
pub fn apart(wanted: &[f64], gap: f64, top: f64, bottom: f64) -> Vec<f64> {
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    order.sort_by(|a, b| wanted[*a].total_cmp(&wanted[*b]));
    let mut placed = vec![0.0; wanted.len()];
    let mut least = top;
    for i in &order {
        placed[*i] = wanted[*i].max(least);
        least = placed[*i] + gap;
    }
    let mut most = bottom;
    for i in order.iter().rev() {
        placed[*i] = placed[*i].min(most);
        most = placed[*i] - gap;
    }
    placed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_coordinate_is_anything_but_a_number() {
        let texts = [f64::NAN, f64::INFINITY, -0.01, 1.0, 12.345, 1e30].map(number);
        assert_eq!(texts, ["0", "0", "0", "1", "12.3", "1000000"]);
    }

    #[test]
    fn long_text_is_cut() {
        assert_eq!(fit("short", TEXT, 100.0), "short");
        let cut = fit("a very long name of something", TEXT, 80.0);
        assert!(cut.ends_with('…') && width(&cut, TEXT) <= 80.0, "{cut}");
        assert_eq!(fit("anything", TEXT, 0.0), "…");
    }

    #[test]
    fn labels_keep_apart() {
        assert_eq!(apart(&[10.0, 12.0, 50.0], 15.0, 0.0, 100.0), [10.0, 25.0, 50.0]);
        assert_eq!(apart(&[98.0, 99.0], 15.0, 0.0, 100.0), [85.0, 100.0]);
        assert_eq!(apart(&[12.0, 10.0], 15.0, 0.0, 100.0), [25.0, 10.0]);
        assert_eq!(apart(&[], 15.0, 0.0, 100.0), [0.0; 0]);
    }
}
