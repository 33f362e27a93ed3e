//! `systole log dump|verify DIR`: what is in a data directory, without a server.

use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::Path;

use super::{Failure, LogCommand};
use crate::group;
use crate::log::{self, InspectError};
use crate::zab::app;

/// Runs one of the two on its directory.
pub(super) fn run(command: &LogCommand) -> Result<(), Failure> {
    let (LogCommand::Dump { dir } | LogCommand::Verify { dir }) = command;
    if !dir.is_dir() {
        let dir = dir.display();
        return Err(Failure::usage(format!("{dir} is not a directory")));
    }
    let mut out = BufWriter::new(io::stdout().lock());
    let outcome = look(command, dir, &mut out);
    let outcome = outcome.and_then(|()| {
        out.flush().map_err(|source| InspectError::Io {
            doing: "write the report".to_owned(),
            source,
        })
    });
    match outcome {
        // `| head` has seen enough; that is no failure.
        Err(InspectError::Io { source, .. }) if source.kind() == ErrorKind::BrokenPipe => Ok(()),
        outcome => outcome.map_err(Failure::fatal),
    }
}

fn look(command: &LogCommand, dir: &Path, out: &mut impl Write) -> Result<(), InspectError> {
    match command {
        LogCommand::Dump { .. } => log::dump(dir, out, &describe).map(|_| ()),
        LogCommand::Verify { .. } => log::verify(dir, out).map(|_| ()),
    }
}

/// An entry of the log in words: who asked for it, and what it does.
fn describe(payload: &[u8]) -> String {
    match app::transaction(payload) {
        Ok((origin, txn)) => format!(
            "{} (request {} of server {})",
            group::describe(txn),
            origin.request.0,
            origin.server
        ),
        Err(malformed) => malformed.to_string(),
    }
}
