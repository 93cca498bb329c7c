//! What a suite found: one line for each check, said when it is known, and the verdict at the end. Holds no
//! opinion of its own: a check passes when its closure does.

use std::fmt::Display;

#[cfg(test)]
mod tests;

/// The checks of one suite.
#[derive(Debug)]
pub struct Report {
    suite: &'static str,
    passed: usize,
    failed: usize,
    absent: bool,
}

impl Report {
    /// No checks yet.
    #[must_use]
    pub fn new(suite: &'static str) -> Self {
        Self {
            suite,
            passed: 0,
            failed: 0,
            absent: false,
        }
    }

    /// Says and counts the result of a check: what was seen, or why it is wrong.
    pub fn check(&mut self, name: impl Display, result: anyhow::Result<impl Display>) -> bool {
        match result {
            Ok(seen) => {
                self.passed += 1;
                println!("PASS {}: {name}: {seen}", self.suite);
                true
            }
            Err(error) => {
                self.failed += 1;
                println!("FAIL {}: {name}: {error:#}", self.suite);
                false
            }
        }
    }

    /// Something worth knowing that is no check.
    pub fn note(&self, text: impl Display) {
        println!("note {}: {text}", self.suite);
    }

    /// What the suite tests is not on this machine: it owes no checks.
    pub fn absent(&mut self) {
        self.absent = true;
    }

    /// How many failed.
    #[must_use]
    pub fn failed(&self) -> usize {
        self.failed
    }

    /// The closing line. A suite that made fewer checks than it states has failed.
    pub fn close(&mut self, minimum: usize) {
        let made = self.passed + self.failed;
        if made < minimum && !self.absent {
            self.check(
                "all checks were made",
                Err::<&str, _>(anyhow::anyhow!("{made} of at least {minimum}")),
            );
        }
        println!("{}: {} passed, {} failed", self.suite, self.passed, self.failed);
    }
}

/// A table with aligned columns: the first row is its head.
#[must_use]
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}
