//! Diagnostics on stderr, and warnings of the data path as events.
//!
//! What `imgstream` warns of (a request repeated, a fall-back) belongs to the run, so it becomes an event and reaches every
//! output. Everything else is a log line, for whoever asked with `-v` or `RUST_LOG`.

use std::fmt::{Debug, Write};

use protocol::event::Body;
use tracing::field::{Field, Visit};
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::filter::{EnvFilter, FilterExt, LevelFilter, filter_fn};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use crate::report::Voice;

/// Carries warnings to the run's outputs, once there is a run.
struct Bridge(Voice);

/// Starts logging: warnings by default, the data path's details with one `-v`, everything with two. `RUST_LOG` overrides.
pub fn start(voice: &Voice, verbose: u8) {
    let default = match verbose {
        0 => "warn",
        1 => "warn,imgstream=debug,provisioner=debug",
        _ => "trace",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(voice.screen().clone())
        .with_ansi(false)
        .with_filter(filter.and(filter_fn(|metadata| !is_carried(metadata))));
    let carried = Bridge(voice.clone()).with_filter(LevelFilter::WARN);
    // It fails only where a subscriber is already set; then that one has the say.
    let _ = tracing_subscriber::registry().with(lines).with(carried).try_init();
}

fn is_carried(metadata: &Metadata<'_>) -> bool {
    *metadata.level() <= Level::WARN && metadata.target().starts_with("imgstream")
}

impl<S: Subscriber> Layer<S> for Bridge {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        if !is_carried(event.metadata()) {
            return;
        }
        let mut fields = Fields::default();
        event.record(&mut fields);
        self.0.tell(fields.into_body());
    }
}

/// The fields of one log event. One that names its `source` tells of a fetch that is repeated.
#[derive(Default)]
struct Fields {
    message: String,
    source: Option<String>,
    others: String,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.record(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record(field.name(), value.to_owned());
    }
}

impl Fields {
    fn record(&mut self, name: &str, value: String) {
        match name {
            "message" => self.message = value,
            "source" => self.source = Some(value),
            "error" => {
                let _ = write!(self.others, ": {value}");
            }
            _ => {
                let _ = write!(self.others, ", {name} {value}");
            }
        }
    }

    fn into_body(self) -> Body {
        let message = format!("{}{}", self.message, self.others);
        match self.source {
            Some(source) => Body::Retry { source, message },
            None => Body::Warning { message },
        }
    }
}
