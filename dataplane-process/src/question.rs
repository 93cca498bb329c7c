//! The `admin` subcommand: what an exec reaches in an image without a shell.

use std::io::{self, Write};

use http::StatusCode;

use super::Question;
use crate::admin::{AskError, ask};

/// Why a question is not answered.
#[derive(Debug, thiserror::Error)]
pub enum QuestionError {
    /// It could not be asked.
    #[error("the running plane: {0}")]
    Ask(#[from] AskError),
    /// The answer could not be printed.
    #[error("printing the answer: {0}")]
    Print(#[from] io::Error),
    /// The answer is an error.
    #[error("{method} {path}: HTTP {status}")]
    Answer {
        /// How it was asked.
        method: String,
        /// What was.
        path: String,
        /// What was answered.
        status: u16,
    },
}

impl Question {
    /// Asks, prints what is answered, and fails where the answer is an error.
    pub async fn ask(&self) -> Result<(), QuestionError> {
        let path = format!("/{}", self.path.trim_start_matches('/'));
        let body = self.body.clone().into_bytes();
        let answer = ask(&self.admin_socket, &self.method, &path, body).await?;
        let mut out = io::stdout().lock();
        out.write_all(&answer.body)?;
        if !answer.body.ends_with(b"\n") {
            out.write_all(b"\n")?;
        }
        if answer.status >= StatusCode::BAD_REQUEST.as_u16() {
            return Err(QuestionError::Answer {
                method: self.method.clone(),
                path,
                status: answer.status,
            });
        }
        Ok(())
    }
}
