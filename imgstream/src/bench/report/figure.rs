//! A figure: what it shows in a sentence, the plot for a wide and for a narrow screen, and its numbers as a table.

use super::markup::Markup;

/// What a plot is drawn for. Text keeps its size, so a narrow plot is another drawing, not a smaller one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A screen or a sheet of paper.
    Wide,
    /// A phone.
    Narrow,
}

impl Form {
    /// Width in pixels.
    pub fn width(self) -> f64 {
        match self {
            Form::Wide => 880.0,
            Form::Narrow => 340.0,
        }
    }

    /// The class that shows it where it fits.
    pub fn class(self) -> &'static str {
        match self {
            Form::Wide => "wide",
            Form::Narrow => "narrow",
        }
    }
}

/// Where things lie in a plot of bars, in pixels.
pub struct Layout {
    /// The bars' left end.
    pub left: f64,
    /// Length of the axis.
    pub pixels: f64,
    /// The first row's top.
    pub top: f64,
    /// From one row's top to the next.
    pub pitch: f64,
    /// From a row's top to its bar's middle.
    pub middle: f64,
}

/// The class of the line that a plot of bars has at a tick: where text stands at the left edge, none may run through it.
pub fn grid(tick: f64, form: Form) -> &'static str {
    match (tick == 0.0, form) {
        (false, _) => "grid",
        (true, Form::Wide) => "base",
        (true, Form::Narrow) => "none",
    }
}

/// A section of the page with its heading.
pub fn section(page: &mut Markup, id: &str, heading: &str, inside: impl FnOnce(&mut Markup)) {
    page.new_line();
    page.element("section", &[("aria-labelledby", id)], |section| {
        section.text_in("h2", &[("id", id)], heading);
        inside(section);
    });
}

/// A figure in both forms.
pub fn figure(page: &mut Markup, caption: &str, draw: impl Fn(Form) -> Markup, rest: impl FnOnce(&mut Markup)) {
    page.element("figure", &[], |figure| {
        if !caption.is_empty() {
            figure.text_in("figcaption", &[], caption);
        }
        for form in [Form::Wide, Form::Narrow] {
            figure.new_line();
            figure.append(draw(form));
        }
        rest(figure);
    });
}

/// The numbers behind a plot, to be opened. The first column is text, the others are numbers.
pub fn numbers(page: &mut Markup, summary: &str, header: &[&str], rows: &[Vec<String>]) {
    page.new_line();
    page.element("details", &[], |details| {
        details.text_in("summary", &[], summary);
        details.element("div", &[("class", "scroll")], |scroll| table(scroll, header, rows));
    });
}

fn table(page: &mut Markup, header: &[&str], rows: &[Vec<String>]) {
    page.element("table", &[], |table| {
        table.element("thead", &[], |head| {
            head.element("tr", &[], |tr| header.iter().for_each(|name| tr.text_in("th", &[("scope", "col")], name)));
        });
        table.element("tbody", &[], |body| {
            for row in rows {
                body.element("tr", &[], |tr| {
                    for (i, cell) in row.iter().enumerate() {
                        if i == 0 {
                            tr.text_in("th", &[("scope", "row")], cell);
                        } else {
                            tr.text_in("td", &[], cell);
                        }
                    }
                });
            }
        });
    });
}
