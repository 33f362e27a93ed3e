//! What clients were promised, and the judgement on what is seen.
//!
//! A 2xx to a beat or join was decided no earlier than the request was sent. So whoever is seen
//! gone before *sent + timeout*, without having begun to leave, has been expired too early: that
//! is a violation, whatever faults there were. The other way round, whoever has fallen silent
//! must be gone in its bound.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::common::now;

/// A member: its group and its name.
pub(crate) type Name = (String, String);

/// What clients know of their sessions, shared by all who learn something.
#[derive(Clone, Default)]
pub(crate) struct Ledger(Arc<Mutex<Facts>>);

#[derive(Default)]
struct Facts {
    members: BTreeMap<Name, Standing>,
    violations: Vec<String>,
    /// Sessions that ended although their client never stopped trying to beat, and not too
    /// early: nobody has answered it for a timeout.
    lapsed: u64,
    beats: u64,
    /// Questions that were answered 503 or not at all, and asked again elsewhere.
    retries: u64,
}

/// What a client knows of its session.
#[derive(Clone, Debug)]
enum Standing {
    /// A request that changes it is under way, or its fate is unknown.
    Unsure,
    In(Session),
    /// It has left, and that made this version.
    Left {
        version: u64,
    },
}

#[derive(Clone, Debug)]
struct Session {
    id: String,
    timeout: Duration,
    /// The group's version when the join was answered.
    version: u64,
    /// When the last request was sent that got a 2xx.
    touched: Instant,
}

impl Ledger {
    fn lock(&self) -> MutexGuard<'_, Facts> {
        self.0.lock().expect("the ledger's lock")
    }

    /// A join or a leave is about to be sent.
    pub(crate) fn unsure(&self, name: &Name) {
        let mut facts = self.lock();
        facts.members.insert(name.clone(), Standing::Unsure);
    }

    /// All members of a group fall silent: nothing is expected of them any more.
    pub(crate) fn silent(&self, group: &str) {
        let mut facts = self.lock();
        let members = facts.members.iter_mut();
        for (_, standing) in members.filter(|((of, _), _)| of == group) {
            *standing = Standing::Unsure;
        }
    }

    /// A join that was sent at `sent` got a 2xx.
    pub(crate) fn joined(
        &self,
        name: &Name,
        id: &str,
        timeout: Duration,
        version: u64,
        sent: Instant,
    ) {
        let session = Session {
            id: id.to_owned(),
            timeout,
            version,
            touched: sent,
        };
        let mut facts = self.lock();
        facts.members.insert(name.clone(), Standing::In(session));
    }

    /// A beat that was sent at `sent` got a 2xx, for this session.
    pub(crate) fn touched(&self, name: &Name, id: &str, sent: Instant) {
        let mut facts = self.lock();
        facts.beats += 1;
        let Some(Standing::In(session)) = facts.members.get_mut(name) else {
            return;
        };
        session.touched = session.touched.max(sent);
        if session.id != id {
            let known = session.id.clone();
            let said = format!("{name:?} beats for {known} and is told of {id}");
            facts.violations.push(said);
        }
    }

    /// A beat was answered that there is no such session, as of now.
    pub(crate) fn gone(&self, name: &Name, answer: &str) {
        let mut facts = self.lock();
        let Some(Standing::In(session)) = facts.members.get(name).cloned() else {
            return;
        };
        facts.members.insert(name.clone(), Standing::Unsure);
        match session.left() {
            Some(left) => facts.violations.push(format!(
                "{name:?} {} ended {left:?} too early: {answer}",
                session.id
            )),
            None => facts.lapsed += 1,
        }
    }

    /// A leave was answered 204, at this version.
    pub(crate) fn left(&self, name: &Name, version: u64) {
        let standing = Standing::Left { version };
        self.lock().members.insert(name.clone(), standing);
    }

    /// A question was not answered as hoped and is asked again.
    pub(crate) fn retried(&self) {
        self.lock().retries += 1;
    }

    /// A rule was broken.
    pub(crate) fn violation(&self, what: String) {
        self.lock().violations.push(what);
    }

    /// A server has shown these members of a group as active, just now or before, at this
    /// version.
    pub(crate) fn seen(&self, group: &str, version: u64, active: &BTreeSet<String>, by: &str) {
        let mut facts = self.lock();
        let mut found = Vec::new();
        for ((in_group, member), standing) in &facts.members {
            if in_group != group {
                continue;
            }
            match standing {
                Standing::In(session) if session.version <= version && !active.contains(member) => {
                    let early = session.left();
                    found.extend(early.map(|left| {
                        format!("{by} shows {group} {version} without {member}, {left:?} too early")
                    }));
                }
                Standing::Left { version: left } if *left <= version && active.contains(member) => {
                    found.push(format!(
                        "{by} shows {group} {version} with {member}, who left at {left}"
                    ));
                }
                _ => {}
            }
        }
        facts.violations.extend(found);
    }

    /// What has come to pass so far.
    pub(crate) fn tally(&self) -> Tally {
        let facts = self.lock();
        Tally {
            beats: facts.beats,
            retries: facts.retries,
            lapsed: facts.lapsed,
        }
    }

    /// Fails if any promise was broken.
    #[track_caller]
    pub(crate) fn expect_kept(&self) {
        let violations = self.lock().violations.clone();
        assert!(
            violations.is_empty(),
            "{} violations:\n{}",
            violations.len(),
            violations.join("\n")
        );
    }
}

/// What has come to pass under a ledger's eyes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Beats that were answered 2xx.
    pub(crate) beats: u64,
    /// Questions asked again.
    pub(crate) retries: u64,
    /// Sessions that ended because nobody answered their clients in time.
    pub(crate) lapsed: u64,
}

impl Session {
    /// How long it still had to live; `None` if that was over.
    fn left(&self) -> Option<Duration> {
        let left = (self.touched + self.timeout).saturating_duration_since(now());
        (!left.is_zero()).then_some(left)
    }
}

mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(3_600);

    fn name() -> Name {
        ("g".to_owned(), "m".to_owned())
    }

    fn joined() -> Ledger {
        let ledger = Ledger::default();
        ledger.joined(&name(), "1", LONG, 5, now());
        ledger
    }

    fn violations(ledger: &Ledger) -> usize {
        ledger.lock().violations.len()
    }

    #[test]
    fn who_is_gone_before_its_timeout_is_a_violation() {
        let ledger = joined();
        ledger.gone(&name(), "410");
        assert_eq!(violations(&ledger), 1);
        let ledger = joined();
        ledger.seen("g", 5, &BTreeSet::new(), "server 1");
        assert_eq!(violations(&ledger), 1);
    }

    #[test]
    fn who_is_gone_after_its_timeout_has_lapsed() {
        let ledger = Ledger::default();
        ledger.joined(&name(), "1", Duration::ZERO, 5, now());
        ledger.gone(&name(), "410");
        assert_eq!((violations(&ledger), ledger.tally().lapsed), (0, 1));
    }

    #[test]
    fn an_older_document_and_an_unsure_client_prove_nothing() {
        let ledger = joined();
        ledger.seen("g", 4, &BTreeSet::new(), "server 1");
        ledger.unsure(&name());
        ledger.seen("g", 6, &BTreeSet::new(), "server 1");
        ledger.gone(&name(), "404");
        assert_eq!(violations(&ledger), 0);
    }

    #[test]
    fn who_has_left_and_is_shown_is_a_violation() {
        let ledger = joined();
        ledger.left(&name(), 7);
        let shown = BTreeSet::from(["m".to_owned()]);
        ledger.seen("g", 6, &shown, "server 1");
        assert_eq!(violations(&ledger), 0);
        ledger.seen("g", 7, &shown, "server 1");
        assert_eq!(violations(&ledger), 1);
    }

    #[test]
    fn an_answer_about_another_session_is_a_violation() {
        let ledger = joined();
        ledger.touched(&name(), "2", now());
        assert_eq!(violations(&ledger), 1);
    }
}
