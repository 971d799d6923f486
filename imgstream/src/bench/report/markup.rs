//! Markup that is well-formed by construction, for HTML and SVG alike: whatever comes from outside can only become text.

use std::fmt::Write as _;

/// Attributes: names are ours, values may be anybody's.
pub type Attributes<'a> = &'a [(&'a str, &'a str)];

/// Markup so far.
#[derive(Debug, Default)]
pub struct Markup(String);

impl Markup {
    /// An element with what `inside` puts into it.
    pub fn element(&mut self, name: &str, attributes: Attributes<'_>, inside: impl FnOnce(&mut Self)) {
        self.open(name, attributes);
        self.0.push('>');
        inside(self);
        let _ = write!(self.0, "</{name}>");
    }

    /// An element that holds text.
    pub fn text_in(&mut self, name: &str, attributes: Attributes<'_>, text: &str) {
        self.element(name, attributes, |inside| inside.text(text));
    }

    /// An element that holds nothing.
    pub fn empty(&mut self, name: &str, attributes: Attributes<'_>) {
        self.open(name, attributes);
        self.0.push_str("/>");
    }

    /// Text.
    pub fn text(&mut self, text: &str) {
        escape(&mut self.0, text);
    }

    /// What another made.
    pub fn append(&mut self, other: Markup) {
        self.0.push_str(&other.0);
    }

    /// A line of the source, so that it can be read with an editor too.
    pub fn new_line(&mut self) {
        self.0.push('\n');
    }

    /// Text of this program's own source that needs no escaping and must not have any: style sheet, document type.
    pub fn verbatim(&mut self, ours: &'static str) {
        self.0.push_str(ours);
    }

    /// All of it.
    pub fn finish(self) -> String {
        self.0
    }

    fn open(&mut self, name: &str, attributes: Attributes<'_>) {
        let _ = write!(self.0, "<{name}");
        for (name, value) in attributes {
            let _ = write!(self.0, " {name}=\"");
            escape(&mut self.0, value);
            self.0.push('"');
        }
    }
}

/// Escapes for text and for attributes in double quotes. Characters that no document may hold, and those that turn the
/// direction of writing, become `U+FFFD`.
fn escape(to: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '&' => to.push_str("&amp;"),
            '<' => to.push_str("&lt;"),
            '>' => to.push_str("&gt;"),
            '"' => to.push_str("&quot;"),
            '\'' => to.push_str("&#39;"),
            '\n' | '\t' => to.push(c),
            '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => to.push('\u{fffd}'),
            '\u{fffe}' | '\u{ffff}' => to.push('\u{fffd}'),
            c if c.is_control() => to.push('\u{fffd}'),
            c => to.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_outside_stays_text() {
        let mut markup = Markup::default();
        markup.element("p", &[("title", "\"><script>alert('x')</script>")], |p| {
            p.text("</p><script>&\u{0}\u{1b}\u{202e}ä日本");
            p.empty("br", &[]);
        });
        assert_eq!(
            markup.finish(),
            "<p title=\"&quot;&gt;&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;\">\
             &lt;/p&gt;&lt;script&gt;&amp;\u{fffd}\u{fffd}\u{fffd}ä日本<br/></p>"
        );
    }
}
