//! The log: to standard error, its level changeable while running.

use std::io::IsTerminal;
use std::str::FromStr;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload::Handle;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, fmt, reload};

/// How lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// For machines: one JSON object a line.
    Json,
}

impl FromStr for Format {
    type Err = LogError;

    fn from_str(text: &str) -> Result<Self, LogError> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            other => Err(LogError::Format(other.into())),
        }
    }
}

/// Why the log is not as asked.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Neither text nor json.
    #[error("{0:?} is not a log format: text or json")]
    Format(String),
    /// Not a level or a filter.
    #[error("{0:?} is not a log level: off, error, warn, info, debug, trace, or TARGET=LEVEL,…")]
    Level(String),
    /// There is one already, or it is gone.
    #[error("the log cannot be set up: {0}")]
    Setup(String),
}

/// The level of the process's log. Clones are the same.
#[derive(Clone, Debug)]
pub struct LogLevel {
    filter: Handle<EnvFilter, Registry>,
}

impl LogLevel {
    /// Starts the process's log. Once a process.
    pub fn init(level: &str, format: Format) -> Result<Self, LogError> {
        let (filter, handle) = reload::Layer::new(parse(level)?);
        let registry = tracing_subscriber::registry().with(filter);
        // Colours are for terminals, not for files.
        let colours = std::io::stderr().is_terminal();
        let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(colours);
        let started = match format {
            Format::Text => registry.with(lines).try_init(),
            Format::Json => registry.with(lines.json()).try_init(),
        };
        started.map_err(|error| LogError::Setup(error.to_string()))?;
        Ok(Self { filter: handle })
    }

    /// A level that is nobody's, for tests and tools without a log.
    #[must_use]
    pub fn detached() -> (Self, reload::Layer<EnvFilter, Registry>) {
        let (filter, handle) = reload::Layer::new(EnvFilter::new("info"));
        (Self { filter: handle }, filter)
    }

    /// The level in force.
    #[must_use]
    pub fn current(&self) -> String {
        self.filter
            .with_current(ToString::to_string)
            .unwrap_or_else(|error| error.to_string())
    }

    /// Changes the level.
    pub fn set(&self, level: &str) -> Result<(), LogError> {
        let filter = parse(level)?;
        self.filter
            .reload(filter)
            .map_err(|error| LogError::Setup(error.to_string()))
    }
}

fn parse(level: &str) -> Result<EnvFilter, LogError> {
    let refused = || LogError::Level(level.into());
    if level.is_empty() {
        return Err(refused());
    }
    EnvFilter::try_new(level).map_err(|_| refused())
}
