//! Says whether all is as it must be, and keeps the fingerprint of a run.

use std::fmt;

use super::invariants::Checker;
use super::observe::Observation;
use super::oracle::Oracle;
use crate::types::ServerId;

/// The oracle, the invariants, the fingerprint, and the trace if one is wanted.
pub struct Judge {
    /// What clients were promised.
    pub oracle: Oracle,
    checker: Checker,
    fingerprint: u64,
    violation: Option<Violation>,
    trace: Option<Sink>,
}

/// Takes the lines of a trace.
pub type Sink = Box<dyn FnMut(fmt::Arguments<'_>)>;

/// Something that must never happen, and has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// When, µs since the beginning.
    pub at_us: u64,
    /// A sentence.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at {} µs: {}", self.at_us, self.what)
    }
}

impl Judge {
    /// A judge who has seen nothing of this ensemble. `trace` takes a line for each thing that
    /// happens.
    #[must_use]
    pub fn new(voters: &[ServerId], observers: &[ServerId], trace: Option<Sink>) -> Judge {
        Judge {
            oracle: Oracle::default(),
            checker: Checker::new(voters, observers),
            fingerprint: 0,
            violation: None,
            trace,
        }
    }

    /// Takes an observation.
    #[inline]
    pub fn see(&mut self, now: u64, observation: &Observation) {
        if self.trace.is_some() {
            self.trace(now, format_args!("  {observation:?}"));
        }
        if self.violation.is_some() {
            return; // The checker is of no use after its first finding.
        }
        if let Err(violation) = self.checker.observe(now, observation) {
            self.condemn(now, violation.to_string());
        }
    }

    /// The invariants, and what they know to be true.
    #[must_use]
    pub fn checker(&self) -> &Checker {
        &self.checker
    }

    /// Holds what the oracle or the world says.
    pub fn check(&mut self, now: u64, result: Result<(), String>) {
        if let Err(what) = result {
            self.condemn(now, what);
        }
    }

    /// Notes a violation; the first one counts.
    #[cold]
    pub fn condemn(&mut self, now: u64, what: String) {
        if self.violation.is_none() {
            self.trace(now, format_args!("VIOLATION {what}"));
            self.violation = Some(Violation { at_us: now, what });
        }
    }

    /// Mixes a number into the fingerprint.
    #[inline]
    pub fn mix(&mut self, word: u64) {
        let mixed = (self.fingerprint ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.fingerprint = mixed ^ (mixed >> 32);
    }

    /// Writes a line of the trace, if there is one.
    #[cold]
    pub fn trace(&mut self, now: u64, line: fmt::Arguments<'_>) {
        if let Some(sink) = &mut self.trace {
            sink(format_args!(
                "{:>10}.{:03} {line}",
                now / 1_000,
                now % 1_000
            ));
        }
    }

    /// True if lines of the trace are wanted.
    #[inline]
    #[must_use]
    pub fn is_tracing(&self) -> bool {
        self.trace.is_some()
    }

    /// The first violation, if there was one.
    #[must_use]
    pub fn violation(&self) -> Option<&Violation> {
        self.violation.as_ref()
    }

    /// Stands for everything that happened: the same for the same seed.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }
}
