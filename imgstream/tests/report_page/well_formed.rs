//! Whether a page is well-formed: every element is closed in order, every attribute quoted and given once, every `<`,
//! `>` and `&` is markup or an entity. Enough of XML for what the page uses.

/// Demands that it is.
#[track_caller]
pub fn check(page: &str) {
    let mut rest = page.strip_prefix("<!DOCTYPE html>\n").expect("the document type");
    let mut open: Vec<&str> = Vec::new();
    while let Some(at) = rest.find('<') {
        text(&rest[..at], open.last() == Some(&"style"));
        let (tag, after) = rest[at + 1..].split_once('>').expect("a tag that ends");
        rest = after;
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "closed out of turn before {:?}", rest.get(..60));
        } else if let Some(tag) = tag.strip_suffix('/') {
            attributes(tag);
        } else {
            open.push(attributes(tag));
        }
    }
    assert!(open.is_empty(), "never closed: {open:?}");
    assert_eq!(rest.trim(), "");
}

fn text(text: &str, style: bool) {
    assert!(style || !text.contains('>'), "{text:?}");
    for (at, _) in text.match_indices('&') {
        let entity = text[at + 1..].split_once(';').expect("an entity that ends").0;
        assert!(["amp", "lt", "gt", "quot", "#39"].contains(&entity), "&{entity};");
    }
    assert!(!text.contains(|c: char| c.is_control() && c != '\n' && c != '\t'), "{text:?}");
}

/// Checks the attributes and returns the name.
fn attributes(tag: &str) -> &str {
    let (name, mut rest) = tag.split_once(' ').unwrap_or((tag, ""));
    assert!(name.bytes().all(|b| b.is_ascii_alphanumeric()) && !name.is_empty(), "{tag:?}");
    let mut seen: Vec<&str> = Vec::new();
    while !rest.is_empty() {
        let (key, after) = rest.split_once("=\"").expect("a quoted value");
        let (value, after) = after.split_once('"').expect("a value that ends");
        text(value, false);
        assert!(!seen.contains(&key), "{key} twice in {tag:?}");
        seen.push(key);
        rest = after.strip_prefix(' ').unwrap_or(after);
    }
    name
}
