//! What is printed: aligned tables for people, JSON and YAML for programs. Colour only on a terminal.

use std::io::{IsTerminal, Write};

use clap::ValueEnum;
use serde::Serialize;

#[cfg(test)]
mod tests;

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Tables.
    #[default]
    Text,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
}

/// A colour of meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    /// As it should be.
    Good,
    /// To be looked at.
    Odd,
    /// Wrong.
    Bad,
    /// Less important.
    Faint,
    /// A heading.
    Strong,
}

impl Format {
    /// Prints a value, or its text.
    pub(crate) fn print<T: Serialize>(self, value: &T, text: impl FnOnce() -> String) -> anyhow::Result<()> {
        let printed = match self {
            Self::Text => text(),
            Self::Json => serde_json::to_string_pretty(value)?,
            Self::Yaml => serde_saphyr::to_string(value)?,
        };
        match writeln!(std::io::stdout(), "{}", printed.trim_end()) {
            // Whoever read has seen enough.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            written => Ok(written?),
        }
    }
}

/// What was done to one object.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Done {
    /// KIND/NAME.
    object: String,
    /// In one word.
    done: &'static str,
    /// What whoever did it should know.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) warnings: Vec<String>,
}

impl Done {
    /// Of an object.
    pub(crate) fn new(object: impl Into<String>, done: &'static str) -> Self {
        Self {
            object: object.into(),
            done,
            warnings: Vec::new(),
        }
    }

    fn render(&self) -> String {
        let warnings = self
            .warnings
            .iter()
            .map(|warning| format!("\n  {} {warning}", toned(Tone::Odd, "warning:")));
        format!("{} {}{}", self.object, self.done, warnings.collect::<String>())
    }
}

/// Prints what was done, in order.
pub(crate) fn print_done(done: &[Done], format: Format) -> anyhow::Result<()> {
    if done.is_empty() && format == Format::Text {
        return Ok(());
    }
    format.print(&done, || {
        done.iter().map(Done::render).collect::<Vec<_>>().join("\n")
    })
}

/// A text in a tone, on a terminal.
pub(crate) fn toned(tone: Tone, text: &str) -> String {
    if !std::io::stdout().is_terminal() || std::env::var_os("NO_COLOR").is_some() {
        return text.to_owned();
    }
    let code = match tone {
        Tone::Good => "32",
        Tone::Odd => "33",
        Tone::Bad => "31",
        Tone::Faint => "2",
        Tone::Strong => "1",
    };
    format!("\x1b[{code}m{text}\x1b[0m")
}

/// Rows of aligned columns.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    heading: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with a heading.
    pub(crate) fn new(heading: &[&str]) -> Self {
        Self {
            heading: heading.iter().map(|&text| text.into()).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// The text.
    pub(crate) fn render(&self) -> String {
        let mut widths: Vec<usize> = self.heading.iter().map(|cell| width(cell)).collect();
        for row in &self.rows {
            for (column, cell) in row.iter().enumerate() {
                widths[column] = widths[column].max(width(cell));
            }
        }
        let heading = self.heading.iter().map(|cell| toned(Tone::Faint, cell)).collect();
        let rows = std::iter::once(&heading).chain(&self.rows);
        rows.map(|row| line(row, &widths)).collect()
    }
}

fn line(cells: &[String], widths: &[usize]) -> String {
    let mut text = String::new();
    for (cell, column) in cells.iter().zip(widths) {
        text.push_str(cell);
        text.extend(std::iter::repeat_n(' ', column - width(cell) + 2));
    }
    format!("{}\n", text.trim_end())
}

/// How wide a text is on a terminal, without what only colours it.
fn width(text: &str) -> usize {
    let mut width = 0;
    let mut escape = false;
    for character in text.chars() {
        match (escape, character) {
            (false, '\x1b') => escape = true,
            (true, 'm') => escape = false,
            (false, _) => width += 1,
            (true, _) => {}
        }
    }
    width
}
