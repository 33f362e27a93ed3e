//! A client that keeps a connection, and goes on to the next server when one fails it.

use std::net::SocketAddr;
use std::time::Duration;

use crate::common::{Client, Response, request};

/// One client of an ensemble.
pub(crate) struct Caller {
    endpoints: Vec<SocketAddr>,
    at: usize,
    connection: Option<Client>,
    /// How long one answer may take before the next server is tried.
    patience: Duration,
}

/// How a question stayed without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unanswered {
    /// It cannot have reached a server.
    NotSent,
    /// It may have been carried out, or may be yet.
    Unknown,
}

impl Caller {
    /// A client that begins at the server `at`.
    pub(crate) fn new(endpoints: Vec<SocketAddr>, at: usize, patience: Duration) -> Caller {
        Caller {
            at: at % endpoints.len(),
            endpoints,
            connection: None,
            patience,
        }
    }

    /// Which server is asked next.
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// Turns to another server.
    pub(crate) fn turn_to(&mut self, server: usize) {
        if self.at != server {
            self.at = server;
            self.connection = None;
        }
    }

    /// Turns to the server after this one.
    pub(crate) fn turn_away(&mut self) {
        self.turn_to((self.at + 1) % self.endpoints.len());
    }

    /// Asks once; a client that gets no answer has no connection afterwards.
    pub(crate) fn ask(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Response, Unanswered> {
        let mut client = match self.connection.take() {
            Some(client) => client,
            None => Client::try_connect(self.endpoints[self.at], self.patience)
                .map_err(|_| Unanswered::NotSent)?,
        };
        let bytes = request(method, target, headers, body);
        client.send(&bytes).map_err(|_| Unanswered::Unknown)?;
        let answer = client.try_answer_to(method);
        let answer = answer.map_err(|_| Unanswered::Unknown)?;
        self.connection = Some(client);
        Ok(answer)
    }
}
