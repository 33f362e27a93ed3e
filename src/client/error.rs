//! Why a call came to nothing.

use super::Problem;

/// Why a call came to nothing; each is one plain sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No server was named.
    #[error("no server is named")]
    NoEndpoint,
    /// What was named is no server's address.
    #[error("`{0}` is no server's address: HOST:PORT is wanted")]
    BadEndpoint(String),
    /// What was named is no name of a group or member.
    #[error("`{0}` is no name: 1 to 255 bytes without a slash are wanted, and not . or ..")]
    BadName(String),
    /// No server could be asked.
    #[error("no server could be reached; {endpoint}: {why}")]
    Unreachable {
        /// The one that was asked last.
        endpoint: String,
        /// What came of it.
        why: String,
    },
    /// Servers were reached, and none could answer at present.
    #[error("no server can answer at present; {endpoint}: {problem}")]
    Unavailable {
        /// The one that was asked last.
        endpoint: String,
        /// What it said.
        problem: Problem,
    },
    /// The servers will not have it.
    #[error("{0}")]
    Refused(Problem),
    /// An answer that does not say what such an answer says.
    #[error("an answer without {0}: is that a systole?")]
    Strange(&'static str),
    /// The member's thread could not be started.
    #[error("cannot start a thread: {0}")]
    NoThread(String),
}

impl Error {
    /// The status and the code of a refusal.
    #[must_use]
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Error::Refused(problem) | Error::Unavailable { problem, .. } => Some(problem),
            _ => None,
        }
    }
}
