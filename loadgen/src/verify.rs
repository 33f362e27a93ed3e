//! Holds the server to its word while loading it.
//!
//! Pure: answers and times come in, faults are counted. A *fault* is something the contract
//! forbids; one is enough for exit code 1. What the generator brought on itself, by sending
//! a beat too late, is counted apart.

use crate::names::Names;
use crate::reply::Reply;
use std::fmt;

/// What is known of one session. A million of these are held: 32 bytes. Where it
/// stands is kept apart, in [`crate::standing`].
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Session {
    /// The id the join answered with; of the latest join after a rejoin.
    pub(crate) id: u128,
    /// When the latest request that was answered 2xx had been sent. The server processed it
    /// no earlier, so it must keep the session for a timeout from here on at least.
    pub(crate) acked_ns: u64,
}

/// A request that awaits its answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    /// The session, or the batch, it is about.
    pub(crate) session: u32,
    /// When it was sent.
    pub(crate) at_ns: u64,
    /// The group's version that was known when it was sent.
    pub(crate) floor: u64,
}

/// Checks answers; see the module's doc.
pub(crate) struct Verifier {
    names: Names,
    timeout_ns: u64,
    /// Highest version seen of each group.
    floors: Vec<u64>,
    faults: Faults,
    /// Answers checked.
    pub(crate) checked: u64,
    /// Beats the generator itself sent after the deadline.
    pub(crate) late_by_us: u64,
}

impl Verifier {
    /// For sessions called `names` with this timeout.
    pub(crate) fn new(names: Names, timeout_ns: u64) -> Verifier {
        let groups = names.groups() as usize;
        Verifier {
            names,
            timeout_ns,
            floors: vec![0; groups],
            faults: Faults::default(),
            checked: 0,
            late_by_us: 0,
        }
    }

    /// The version below which an answer about `session` sent from now on is a fault.
    pub(crate) fn floor(&self, session: u32) -> u64 {
        self.floors[self.names.group_of(session) as usize]
    }

    /// An answer to a join. True if the session lives now.
    pub(crate) fn joined(&mut self, s: &mut Session, sent: Sent, reply: &Reply) -> bool {
        self.checked += 1;
        if !matches!(reply.status, 200 | 201) {
            self.status(sent, reply, "join");
            return false;
        }
        let Some(id) = reply.session else {
            self.fault(
                Fault::MissingHeader,
                sent.session,
                "join without x-session-id",
            );
            return false;
        };
        if reply.status == 201 && s.id != 0 && id <= s.id {
            let (old, what) = (s.id, "is not above the ended session's");
            self.fault(
                Fault::IdNotGrowing,
                sent.session,
                &format!("{id:032x} {what} {old:032x}"),
            );
        }
        if reply.timeout_ms != Some(self.timeout_ns / 1_000_000) {
            let said = reply.timeout_ms;
            self.fault(
                Fault::WrongTimeout,
                sent.session,
                &format!("x-session-timeout-ms {said:?}"),
            );
        }
        self.version(sent, reply);
        s.id = id;
        s.acked_ns = sent.at_ns;
        true
    }

    /// An answer to a heartbeat, received at `now_ns`. True if the session lives.
    pub(crate) fn beaten(
        &mut self,
        s: &mut Session,
        sent: Sent,
        reply: &Reply,
        now_ns: u64,
    ) -> bool {
        self.checked += 1;
        match reply.status {
            200 | 204 => {
                if reply.session != Some(s.id) {
                    let (got, want) = (reply.session.unwrap_or(0), s.id);
                    self.fault(
                        Fault::WrongSession,
                        sent.session,
                        &format!("beat answered for session {got:032x}, joined as {want:032x}"),
                    );
                }
                self.version(sent, reply);
                s.acked_ns = s.acked_ns.max(sent.at_ns);
                true
            }
            404 | 409 | 410 => {
                self.refused(s, sent, reply.status, now_ns);
                false
            }
            _ => {
                self.status(sent, reply, "beat");
                true
            }
        }
    }

    /// The fixed answer of a server that knows no sessions, such as the bound.
    pub(crate) fn bare(&mut self, sent: Sent, reply: &Reply) {
        self.checked += 1;
        if reply.status != 204 {
            self.status(sent, reply, "beat");
        }
    }

    /// A session of a batch that the server says is not there.
    pub(crate) fn refused(&mut self, s: &Session, sent: Sent, status: u16, now_ns: u64) {
        let kept_until = s.acked_ns + self.timeout_ns;
        let since = |t: u64| format!("{:.1} ms", t.saturating_sub(s.acked_ns) as f64 / 1e6);
        if now_ns < kept_until {
            let said = format!("{status}, {} after an acknowledged beat", since(now_ns));
            self.fault(Fault::BrokenPromise, sent.session, &said);
        } else if sent.at_ns < kept_until {
            let said = format!(
                "{status} to a beat sent {} after the last acknowledged one, answered after {}",
                since(sent.at_ns),
                since(now_ns)
            );
            self.fault(Fault::FalseExpiry, sent.session, &said);
        } else {
            self.late_by_us += 1;
        }
    }

    /// An answer to a leave. True if it left.
    pub(crate) fn left(&mut self, s: &Session, sent: Sent, reply: &Reply, now_ns: u64) -> bool {
        self.checked += 1;
        match reply.status {
            204 => {
                self.version(sent, reply);
                true
            }
            404 | 410 => {
                self.refused(s, sent, reply.status, now_ns);
                false
            }
            _ => {
                self.status(sent, reply, "leave");
                false
            }
        }
    }

    /// An answer to the heartbeat of a session that is known to have ended.
    pub(crate) fn ghost(&mut self, sent: Sent, reply: &Reply) {
        self.checked += 1;
        match reply.status {
            404 | 410 => {}
            200 | 204 => self.fault(
                Fault::DeadAnswered,
                sent.session,
                "beat of an ended session",
            ),
            _ => self.status(sent, reply, "beat of an ended session"),
        }
    }

    /// Counts a fault and keeps the details of the first ones.
    pub(crate) fn fault(&mut self, fault: Fault, session: u32, detail: &str) {
        let names = &self.names;
        self.faults
            .add(fault, || format!("{}: {detail}", names.label(session)));
    }

    /// Counts a fault that is about no session.
    pub(crate) fn general(&mut self, fault: Fault, detail: &str) {
        self.faults.add(fault, || detail.to_owned());
    }

    /// The faults so far.
    pub(crate) fn faults(&self) -> &Faults {
        &self.faults
    }

    /// The highest version seen of each group.
    pub(crate) fn floors(&self) -> &[u64] {
        &self.floors
    }

    /// Takes over the versions an earlier run has seen.
    pub(crate) fn adopt(&mut self, floors: &[u64]) {
        for (mine, seen) in self.floors.iter_mut().zip(floors) {
            *mine = (*mine).max(*seen);
        }
    }

    fn version(&mut self, sent: Sent, reply: &Reply) {
        let Some(version) = reply.group_version else {
            self.fault(Fault::MissingHeader, sent.session, "no x-group-version");
            return;
        };
        if version < sent.floor {
            let said = format!("version {version}, after {} had been seen", sent.floor);
            self.fault(Fault::VersionBack, sent.session, &said);
        }
        let group = self.names.group_of(sent.session) as usize;
        self.floors[group] = self.floors[group].max(version);
    }

    fn status(&mut self, sent: Sent, reply: &Reply, what: &str) {
        let fault = if reply.status == 503 {
            Fault::Unavailable
        } else {
            Fault::UnexpectedStatus
        };
        self.fault(
            fault,
            sent.session,
            &format!("{} to a {what}", reply.status),
        );
    }
}

/// What the contract forbids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Fault {
    /// Refused within the timeout after a beat that was answered 2xx.
    BrokenPromise,
    /// Refused although the beat was sent before the deadline.
    FalseExpiry,
    /// A beat answered with another session's id.
    WrongSession,
    /// A new session's id not above its predecessor's.
    IdNotGrowing,
    /// A group's version went back.
    VersionBack,
    /// A listener missed a version, or heard one twice.
    EventGap,
    /// A header the contract promises is not there.
    MissingHeader,
    /// Another timeout than the one asked for.
    WrongTimeout,
    /// No longer listed before its timeout had passed.
    ExpiredEarly,
    /// Listed long after its deadline.
    ListedTooLong,
    /// A session that ended still gets 2xx.
    DeadAnswered,
    /// 503 from a server that should be able to serve.
    Unavailable,
    /// Another status that the request does not explain.
    UnexpectedStatus,
    /// The answer is not HTTP.
    NotHttp,
    /// The server closed or reset a connection.
    Disconnected,
    /// A request had no answer when the run ended.
    Unanswered,
}

impl Fault {
    /// All of them, in the order of their counters.
    pub(crate) const ALL: [Fault; 16] = [
        Fault::BrokenPromise,
        Fault::FalseExpiry,
        Fault::WrongSession,
        Fault::IdNotGrowing,
        Fault::VersionBack,
        Fault::EventGap,
        Fault::MissingHeader,
        Fault::WrongTimeout,
        Fault::ExpiredEarly,
        Fault::ListedTooLong,
        Fault::DeadAnswered,
        Fault::Unavailable,
        Fault::UnexpectedStatus,
        Fault::NotHttp,
        Fault::Disconnected,
        Fault::Unanswered,
    ];
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fault::BrokenPromise => "promise broken",
            Fault::FalseExpiry => "false expiry",
            Fault::WrongSession => "wrong session id",
            Fault::IdNotGrowing => "session id not growing",
            Fault::VersionBack => "version went back",
            Fault::EventGap => "event missed or repeated",
            Fault::MissingHeader => "header missing",
            Fault::WrongTimeout => "wrong timeout",
            Fault::ExpiredEarly => "expired too early",
            Fault::ListedTooLong => "listed too long",
            Fault::DeadAnswered => "ended session answered",
            Fault::Unavailable => "unavailable",
            Fault::UnexpectedStatus => "unexpected status",
            Fault::NotHttp => "not HTTP",
            Fault::Disconnected => "disconnected",
            Fault::Unanswered => "unanswered",
        })
    }
}

/// Counts of faults, with the details of the first of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults {
    counts: [u64; Fault::ALL.len()],
    details: Vec<String>,
}

impl Faults {
    fn add(&mut self, fault: Fault, detail: impl FnOnce() -> String) {
        self.counts[fault as usize] += 1;
        if self.details.len() < DETAILS_MAX {
            self.details.push(format!("{fault}: {}", detail()));
        }
    }

    /// Counts a fault that somebody else than a [`Verifier`] has found.
    pub(crate) fn note(&mut self, fault: Fault, detail: &str) {
        self.add(fault, || detail.to_owned());
    }

    /// Adds another thread's faults.
    pub(crate) fn merge(&mut self, other: &Faults) {
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        let room = DETAILS_MAX - self.details.len();
        self.details
            .extend(other.details.iter().take(room).cloned());
    }

    /// How often this fault was seen.
    pub(crate) fn count(&self, fault: Fault) -> u64 {
        self.counts[fault as usize]
    }

    /// All faults together.
    pub(crate) fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The first faults, one sentence each.
    pub(crate) fn details(&self) -> &[String] {
        &self.details
    }

    /// Takes the faults of this kind out, for a run that expects them.
    pub(crate) fn forgive(&mut self, fault: Fault) {
        self.counts[fault as usize] = 0;
        let begin = format!("{fault}: ");
        self.details.retain(|d| !d.starts_with(&begin));
    }
}

/// Details kept; the rest is only counted.
const DETAILS_MAX: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn verifier() -> Verifier {
        Verifier::new(Names::new("t", 2, 24, 0, 0), 1_000 * MS)
    }

    fn live(acked_ms: u64) -> Session {
        Session {
            id: 9,
            acked_ns: acked_ms * MS,
        }
    }

    fn sent(at_ms: u64, floor: u64) -> Sent {
        Sent {
            session: 0,
            at_ns: at_ms * MS,
            floor,
        }
    }

    fn reply(status: u16) -> Reply {
        Reply {
            status,
            group_version: Some(5),
            session: Some(9),
            timeout_ms: Some(1_000),
            ..Reply::default()
        }
    }

    fn only(v: &Verifier, fault: Fault) {
        assert_eq!(v.faults.count(fault), 1, "{:?}", v.faults);
        assert_eq!(v.faults.total(), 1, "{:?}", v.faults);
    }

    #[test]
    fn an_honest_beat_extends_what_is_promised() {
        let (mut v, mut s) = (verifier(), live(100));
        assert!(v.beaten(&mut s, sent(300, 5), &reply(204), 301 * MS));
        assert_eq!(s.acked_ns, 300 * MS);
        assert_eq!((v.faults.total(), v.checked), (0, 1));
    }

    #[test]
    fn another_sessions_id_is_a_fault() {
        let (mut v, mut s) = (verifier(), live(0));
        let wrong = Reply {
            session: Some(8),
            ..reply(204)
        };
        v.beaten(&mut s, sent(1, 0), &wrong, 2 * MS);
        only(&v, Fault::WrongSession);
    }

    #[test]
    fn a_version_below_one_seen_before_the_request_is_a_fault() {
        let (mut v, mut s) = (verifier(), live(0));
        v.beaten(&mut s, sent(1, 0), &reply(204), 2 * MS);
        assert_eq!(v.floor(0), 5);
        assert_eq!(v.floor(1), 0, "the other group's");
        let back = Reply {
            group_version: Some(4),
            ..reply(204)
        };
        v.beaten(&mut s, sent(3, 4), &back, 4 * MS);
        assert_eq!(v.faults.total(), 0, "it was on the way before 5 was seen");
        v.beaten(&mut s, sent(5, 5), &back, 6 * MS);
        only(&v, Fault::VersionBack);
    }

    #[test]
    fn a_refusal_within_the_timeout_breaks_the_promise() {
        for status in [404, 409, 410] {
            let (mut v, mut s) = (verifier(), live(100));
            assert!(!v.beaten(&mut s, sent(1_098, 0), &reply(status), 1_099 * MS));
            only(&v, Fault::BrokenPromise);
        }
    }

    #[test]
    fn a_beat_sent_in_time_and_refused_later_is_a_false_expiry() {
        let (mut v, mut s) = (verifier(), live(100));
        v.beaten(&mut s, sent(1_099, 0), &reply(404), 2_000 * MS);
        only(&v, Fault::FalseExpiry);
    }

    #[test]
    fn a_beat_sent_after_the_deadline_is_our_own_fault() {
        let (mut v, mut s) = (verifier(), live(100));
        assert!(!v.beaten(&mut s, sent(1_100, 0), &reply(404), 1_101 * MS));
        assert_eq!((v.faults.total(), v.late_by_us), (0, 1));
    }

    #[test]
    fn a_rejoin_must_get_a_higher_id() {
        let (mut v, mut s) = (verifier(), live(0));
        let higher = Reply {
            session: Some(10),
            ..reply(201)
        };
        assert!(v.joined(&mut s, sent(1, 0), &higher));
        assert_eq!(v.faults.total(), 0);
        v.joined(&mut s, sent(2, 0), &higher);
        only(&v, Fault::IdNotGrowing);
    }

    #[test]
    fn a_join_must_say_its_id_version_and_timeout() {
        let mut v = verifier();
        let mut s = Session::default();
        assert!(!v.joined(
            &mut s,
            sent(1, 0),
            &Reply {
                session: None,
                ..reply(201)
            }
        ));
        v.joined(
            &mut s,
            sent(1, 0),
            &Reply {
                group_version: None,
                ..reply(201)
            },
        );
        assert_eq!(v.faults.count(Fault::MissingHeader), 2);
        let mut v = verifier();
        v.joined(
            &mut Session::default(),
            sent(1, 0),
            &Reply {
                timeout_ms: Some(999),
                ..reply(201)
            },
        );
        only(&v, Fault::WrongTimeout);
    }

    #[test]
    fn ended_sessions_must_stay_ended() {
        let mut v = verifier();
        v.ghost(sent(1, 0), &reply(404));
        v.ghost(sent(1, 0), &reply(410));
        assert_eq!(v.faults.total(), 0);
        v.ghost(sent(1, 0), &reply(204));
        only(&v, Fault::DeadAnswered);
    }

    #[test]
    fn a_503_and_other_statuses_are_told_apart() {
        let (mut v, mut s) = (verifier(), live(0));
        v.beaten(&mut s, sent(1, 0), &reply(503), 2 * MS);
        v.beaten(&mut s, sent(1, 0), &reply(500), 2 * MS);
        v.joined(&mut Session::default(), sent(1, 0), &reply(503));
        v.left(&s, sent(1, 0), &reply(500), 2 * MS);
        v.bare(sent(1, 0), &reply(200));
        assert_eq!(v.faults.count(Fault::Unavailable), 2);
        assert_eq!(v.faults.count(Fault::UnexpectedStatus), 3);
    }

    #[test]
    fn every_fault_has_the_counter_of_its_place() {
        for (place, fault) in Fault::ALL.iter().enumerate() {
            assert_eq!(*fault as usize, place);
        }
        let (mut v, mut s) = (verifier(), live(0));
        for _ in 0..30 {
            v.beaten(&mut s, sent(1, 9), &reply(204), 2 * MS);
        }
        let mut sum = Faults::default();
        sum.merge(v.faults());
        sum.merge(v.faults());
        assert_eq!((sum.total(), sum.details().len()), (60, DETAILS_MAX));
        assert!(sum.details()[0].starts_with("version went back: t-00000/"));
        sum.forgive(Fault::VersionBack);
        assert_eq!((sum.total(), sum.details().len()), (0, 0));
    }
}
