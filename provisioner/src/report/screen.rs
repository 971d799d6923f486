//! stderr, shared by progress bars, lines and logs, so that none tears another.

use std::io::{self, Write};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tracing_subscriber::fmt::MakeWriter;

/// Redraws of a bar per second, at most.
const REDRAWS: u8 = 10;

/// stderr. Clones share it.
#[derive(Clone)]
pub struct Screen {
    bars: Option<MultiProgress>,
}

impl Screen {
    /// With or without progress bars.
    pub fn new(bars: bool) -> Self {
        let draw = || MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(REDRAWS));
        Screen { bars: bars.then(draw) }
    }

    /// Writes text and a line end, above the bars. Nothing can be done about a stderr that is closed.
    pub fn lines(&self, text: &str) {
        self.write(format!("{text}\n").as_bytes());
    }

    /// A new bar that counts to `total`; `None` where there are no bars.
    pub fn bar(&self, name: &str, total: u64) -> Option<ProgressBar> {
        let style = ProgressStyle::with_template("  {prefix:10} [{bar:24}] {msg}");
        let style = style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ");
        let bar = self.bars.as_ref()?.add(ProgressBar::new(total));
        bar.set_style(style);
        bar.set_prefix(name.to_owned());
        Some(bar)
    }

    fn write(&self, bytes: &[u8]) {
        let write = || drop(io::stderr().lock().write_all(bytes));
        match &self.bars {
            Some(bars) => bars.suspend(write),
            None => write(),
        }
    }
}

impl<'a> MakeWriter<'a> for Screen {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line { screen: self.clone(), text: Vec::new() }
    }
}

/// One log line in the making; it is shown when it is complete.
pub struct Line {
    screen: Screen,
    text: Vec<u8>,
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.screen.write(&self.text);
    }
}
