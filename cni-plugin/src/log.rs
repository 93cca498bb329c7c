//! Logging of the binary: to standard error, with a level that can be changed while it runs.

use std::io::IsTerminal;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

/// The level in force.
#[derive(Clone, Debug)]
pub struct Level {
    handle: reload::Handle<EnvFilter, Registry>,
}

/// How lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// Begins to log. A second call has no effect but an error.
pub fn begin(level: &str, format: Format) -> Result<Level, String> {
    let filter = filter(level)?;
    let (filter, handle) = reload::Layer::new(filter);
    let colours = std::io::stderr().is_terminal();
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(colours);
    let lines = match format {
        Format::Text => lines.boxed(),
        Format::Json => lines.json().boxed(),
    };
    let subscriber = Registry::default().with(filter).with(lines);
    subscriber.try_init().map_err(|error| error.to_string())?;
    Ok(Level { handle })
}

impl Level {
    /// The level, as text.
    #[must_use]
    pub fn get(&self) -> String {
        let shown = self.handle.with_current(ToString::to_string);
        shown.unwrap_or_default()
    }

    /// Changes the level.
    pub fn set(&self, level: &str) -> Result<(), String> {
        let filter = filter(level)?;
        self.handle.reload(filter).map_err(|error| error.to_string())
    }
}

/// A plain level is about our own modules: libraries report as failures what is none to us.
fn filter(level: &str) -> Result<EnvFilter, String> {
    let plain = !level.contains(['=', ',']) && !matches!(level, "debug" | "trace");
    let level = if plain {
        format!("{level},nlink=error,kube_client=error,kube_runtime=error")
    } else {
        level.to_string()
    };
    EnvFilter::try_new(level).map_err(|error| error.to_string())
}
