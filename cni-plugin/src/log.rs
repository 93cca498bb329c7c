//! Logging of the binary: to standard error, with a level that can be changed while it runs.

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
    let filter = EnvFilter::try_new(level).map_err(|error| error.to_string())?;
    let (filter, handle) = reload::Layer::new(filter);
    let lines = fmt::layer().with_writer(std::io::stderr);
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
        let filter = EnvFilter::try_new(level).map_err(|error| error.to_string())?;
        self.handle.reload(filter).map_err(|error| error.to_string())
    }
}
