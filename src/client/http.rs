//! Calls over real connections.

use std::fmt;
use std::io::{self, BufReader, Read};
use std::time::Duration;

use ureq::http::{HeaderMap, Request, Response};
use ureq::{Agent, Body};

use super::core::call::{Answer, Call};
use crate::time::Millis;

/// Connections to servers, kept for the next call.
#[derive(Clone, Debug)]
pub(super) struct Http(Agent);

/// Why there was no answer, in words.
#[derive(Debug)]
pub(super) struct Fault(String);

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Http {
    pub(super) fn new() -> Http {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            // A beat is never redirected, and goes to the server that was named.
            .max_redirects(0)
            .proxy(None)
            .no_delay(true)
            .user_agent(concat!("systole/", env!("CARGO_PKG_VERSION")))
            .build();
        Http(config.new_agent())
    }

    /// Sends `call` to `endpoint` and reads its answer, all of it within `within`.
    pub(super) fn call(
        &self,
        endpoint: &str,
        call: &Call,
        within: Millis,
    ) -> Result<Answer, Fault> {
        let limits = Limits {
            whole: Some(Duration::from_millis(within.0)),
            connect: CONNECT_TIME,
            silence: None,
        };
        let mut response = self.send(endpoint, call, limits)?;
        let mut body = Vec::new();
        let reader = response.body_mut().as_reader();
        let mut reader = reader.take(BODY_BYTES_MAX + 1);
        reader
            .read_to_end(&mut body)
            .map_err(|error| fault(&error.into()))?;
        if body.len() as u64 > BODY_BYTES_MAX {
            return Err(Fault(format!(
                "an answer longer than {BODY_BYTES_MAX} bytes"
            )));
        }
        Ok(answer(&response, body))
    }

    /// Sends `call` to `endpoint`, whose answer goes on without end: gives the answer's head,
    /// and a reader of its body that fails after `silence` without a byte. The body of a refusal
    /// is in the answer, and nothing is left to read.
    pub(super) fn stream(
        &self,
        endpoint: &str,
        call: &Call,
        silence: Millis,
    ) -> Result<(Answer, Option<Stream>), Fault> {
        let limits = Limits {
            whole: None,
            connect: CONNECT_TIME,
            silence: Some(Duration::from_millis(silence.0)),
        };
        let mut response = self.send(endpoint, call, limits)?;
        if response.status() != 200 {
            let mut body = Vec::new();
            let mut reader = response.body_mut().as_reader().take(BODY_BYTES_MAX);
            reader
                .read_to_end(&mut body)
                .map_err(|error| fault(&error.into()))?;
            return Ok((answer(&response, body), None));
        }
        let head = answer(&response, Vec::new());
        Ok((
            head,
            Some(BufReader::new(Box::new(response.into_body().into_reader()))),
        ))
    }

    fn send(&self, endpoint: &str, call: &Call, limits: Limits) -> Result<Response<Body>, Fault> {
        let mut request = Request::builder()
            .method(call.method)
            .uri(format!("http://{endpoint}{}", call.target));
        for (name, value) in &call.headers {
            request = request.header(*name, value);
        }
        // A PUT without a body says so with a length of zero: without a length ureq would send
        // it in chunks, which the servers do not take.
        let nothing: &[u8] = &[];
        let body = call.body.as_deref();
        let body = body.or_else(|| matches!(call.method, "PUT" | "POST").then_some(nothing));
        let response = match body {
            Some(body) => request
                .body(body)
                .map_err(ureq::Error::from)
                .and_then(|request| self.0.run(limits.on(&self.0, request))),
            None => request
                .body(())
                .map_err(ureq::Error::from)
                .and_then(|request| self.0.run(limits.on(&self.0, request))),
        };
        response.map_err(|error| fault(&error))
    }
}

/// The body of an answer that goes on.
pub(super) type Stream = BufReader<Box<dyn Read + Send>>;

struct Limits {
    whole: Option<Duration>,
    connect: Duration,
    silence: Option<Duration>,
}

impl Limits {
    fn on<S: ureq::AsSendBody>(&self, agent: &Agent, request: Request<S>) -> Request<S> {
        agent
            .configure_request(request)
            .timeout_global(self.whole)
            .timeout_connect(Some(
                self.whole.map_or(self.connect, |w| w.min(self.connect)),
            ))
            .timeout_per_read(self.silence)
            .build()
    }
}

fn answer(response: &Response<Body>, body: Vec<u8>) -> Answer {
    let headers: &HeaderMap = response.headers();
    let header = |name: &str| {
        let value = headers.get(name)?.to_str().ok()?;
        Some(value.to_owned())
    };
    Answer::new(response.status().as_u16(), header, body)
}

/// A fault in words that a person can do something with.
fn fault(error: &ureq::Error) -> Fault {
    Fault(match error {
        ureq::Error::Io(error) => io_fault(error),
        ureq::Error::Timeout(_) => "no answer in time".to_owned(),
        ureq::Error::HostNotFound => "there is no such host".to_owned(),
        ureq::Error::ConnectionFailed => "cannot connect".to_owned(),
        error => error.to_string(),
    })
}

fn io_fault(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::ConnectionReset => "connection reset".to_owned(),
        io::ErrorKind::UnexpectedEof => "connection closed without an answer".to_owned(),
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => "no answer in time".to_owned(),
        _ => error.to_string(),
    }
}

/// How long a connection may take to be made.
const CONNECT_TIME: Duration = Duration::from_secs(2);
/// The longest answer that is read whole: a document of ten million members.
const BODY_BYTES_MAX: u64 = 1 << 30;
