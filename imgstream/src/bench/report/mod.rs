//! Findings → one page for people, and the same as JSON for programs. The page needs nothing but itself: no script, no
//! font, no request. Nothing is measured or judged here.
//!
//! | room | what it holds |
//! |---|---|
//! | `facts` | headline, key figures, machine, how to repeat |
//! | `limits`, `timeline`, `settings`, `peers` | a section each, with its plots |
//! | `figure` | a plot for wide and narrow screens, with its numbers as a table |
//! | `svg`, `axis`, `units` | shapes, scales, how numbers are written |
//! | `markup` | elements and escaped text |

mod axis;
mod facts;
mod figure;
mod limits;
mod markup;
mod peers;
mod settings;
mod svg;
mod timeline;
mod units;

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use self::markup::Markup;
use super::findings::Findings;
use crate::error::{Error, IoContext as _, Kind, Result};

/// The page's file name.
const PAGE: &str = "index.html";
/// The file name of what the page is made of.
const DATA: &str = "findings.json";

/// Nothing may be loaded and nothing may run, whatever a name from outside tries.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";

/// Writes page and data to `dir`, which is made if it is missing; returns the page's path. Files of earlier reports there
/// are replaced, each at once.
pub fn write(dir: &Path, findings: &Findings) -> Result<PathBuf> {
    fs::create_dir_all(dir).context(Kind::Usage, || format!("creating the folder {} for the report", dir.display()))?;
    let mut data = serde_json::to_string_pretty(findings)
        .map_err(|error| Error::usage(format!("writing the findings as JSON: {error}")).with_source(error))?;
    data.push('\n');
    put(dir, DATA, &data)?;
    put(dir, PAGE, &page(findings))
}

fn put(dir: &Path, name: &str, text: &str) -> Result<PathBuf> {
    let (path, temporary) = (dir.join(name), dir.join(format!(".{name}.{}", std::process::id())));
    let write = || {
        let mut file = File::create(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, &path)
    };
    write().context(Kind::Device, || format!("writing {}", path.display())).inspect_err(|_| {
        // What is left of it says nothing and would only lie about.
        let _ = fs::remove_file(&temporary);
    })?;
    Ok(path)
}

/// The page.
pub fn page(findings: &Findings) -> String {
    let mut page = Markup::default();
    page.verbatim("<!DOCTYPE html>\n");
    page.element("html", &[("lang", "en")], |html| {
        html.element("head", &[], |head| head_of(head, findings));
        html.new_line();
        html.element("body", &[], |body| {
            body.element("main", &[], |main| {
                facts::head(main, findings);
                limits::show(main, findings);
                timeline::show(main, findings);
                settings::show(main, findings);
                peers::show(main, findings);
                facts::machine(main, findings);
                facts::foot(main, findings);
            });
        });
    });
    page.new_line();
    page.finish()
}

fn head_of(head: &mut Markup, findings: &Findings) {
    head.empty("meta", &[("charset", "utf-8")]);
    head.empty("meta", &[("http-equiv", "Content-Security-Policy"), ("content", POLICY)]);
    head.empty("meta", &[("name", "viewport"), ("content", "width=device-width, initial-scale=1")]);
    head.empty("meta", &[("name", "color-scheme"), ("content", "light dark")]);
    head.text_in("title", &[], &facts::title(findings));
    head.new_line();
    head.element("style", &[], |style| style.verbatim(include_str!("style.css")));
}
