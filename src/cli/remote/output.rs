//! What a command prints to stdout.

use std::io::{ErrorKind, Write, stdout};

use serde_json::Value;

use super::table::Table;
use super::{super::DONE, Failure};

/// Stdout, for people or for programs.
pub(super) struct Output {
    json: bool,
}

impl Output {
    pub(super) fn new(json: bool) -> Output {
        Output { json }
    }

    /// Whether a program reads.
    pub(super) fn is_json(&self) -> bool {
        self.json
    }

    /// Prints one of the two.
    pub(super) fn either(&self, json: impl FnOnce() -> Value, text: &str) -> Result<(), Failure> {
        match self.json {
            true => self.bytes(format!("{}\n", json()).as_bytes()),
            false => self.bytes(format!("{text}\n").as_bytes()),
        }
    }

    /// Prints a table with some lines above, for people.
    pub(super) fn table(&self, above: &str, table: &Table) -> Result<(), Failure> {
        self.bytes(format!("{above}{table}").as_bytes())
    }

    /// Prints bytes as they are.
    pub(super) fn bytes(&self, bytes: &[u8]) -> Result<(), Failure> {
        let mut out = stdout().lock();
        let written = out.write_all(bytes).and_then(|()| out.flush());
        written.map_err(|error| match error.kind() {
            // `| head` has seen enough; that is no failure, and nothing is to be said.
            ErrorKind::BrokenPipe => Failure {
                sentence: String::new(),
                code: DONE,
            },
            _ => Failure::fatal(format!("cannot write the output: {error}")),
        })
    }
}

/// A line for people beside what was asked for.
pub(super) fn note(line: &str) {
    // If nobody reads it, nobody is missing.
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}
