//! stderr, shared by progress bars, lines and logs, so that none tears another.

use std::io::{self, IsTerminal, Write};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tracing_subscriber::fmt::MakeWriter;

/// Redraws of all bars per second, at most.
const REDRAWS: u8 = 10;

/// stderr. Clones share it.
#[derive(Clone)]
pub(super) struct Screen {
    bars: Option<MultiProgress>,
}

impl Screen {
    /// With bars where stderr is a terminal.
    pub(super) fn of_this_process() -> Self {
        let draw = || MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(REDRAWS));
        Screen { bars: io::stderr().is_terminal().then(draw) }
    }

    /// The same without bars.
    pub(super) fn without_bars(&self) -> Self {
        Screen { bars: None }
    }

    /// Whether there are bars.
    pub(super) fn has_bars(&self) -> bool {
        self.bars.is_some()
    }

    /// Writes text and a line end, above the bars. Nothing can be done about a stderr that is closed.
    pub(super) fn lines(&self, text: &str) {
        self.write(format!("{text}\n").as_bytes());
    }

    /// A new bar that counts to `total`; `None` where there are no bars.
    pub(super) fn bar(&self, name: &str, total: u64) -> Option<ProgressBar> {
        let style = ProgressStyle::with_template("  {prefix} [{bar:20}] {wide_msg}");
        let style = style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ");
        let bar = self.bars.as_ref()?.add(ProgressBar::new(total));
        bar.set_style(style);
        bar.set_prefix(name.to_owned());
        Some(bar)
    }

    /// Does something that writes to stderr or stdout, while no bar is in the way.
    pub(super) fn aside<T>(&self, doing: impl FnOnce() -> T) -> T {
        match &self.bars {
            Some(bars) => bars.suspend(doing),
            None => doing(),
        }
    }

    fn write(&self, bytes: &[u8]) {
        self.aside(|| drop(io::stderr().lock().write_all(bytes)));
    }
}

/// Columns of the terminal that stdout is; `None` where it is none.
pub(super) fn width() -> Option<usize> {
    let terminal = console::Term::stdout();
    terminal.is_term().then(|| usize::from(terminal.size().1))
}

impl<'a> MakeWriter<'a> for Screen {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line { screen: self.clone(), text: Vec::new() }
    }
}

/// One log line in the making; it is shown when it is complete.
pub(super) struct Line {
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
