//! Sees from outside when dead members expire.
//!
//! Asking for a member by its own name would renew it, so a single death is watched through
//! pages of the group document (`?after=STEM&limit=1`), and a mass expiry through the counts
//! of the group list. Both give upper bounds: the lateness reported includes the answer's way
//! and the pause between questions.

use crate::clock::MILLI;
use serde_json::Value;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Members that died one by one.
#[derive(Debug)]
pub(crate) struct Deaths {
    timeout_ns: u64,
    bound_ns: u64,
    /// When to ask next about whom.
    queue: BinaryHeap<Reverse<(u64, u32, Care)>>,
    /// Members watched closely whose end has not been seen.
    close: u32,
    /// Those of them with a question under way, so that the answer finds how it was asked.
    asked_closely: Vec<u32>,
    open: u32,
}

/// How a dead member is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Care {
    /// To be decided when its deadline is near.
    Open,
    /// Every few milliseconds from shortly before its deadline.
    Close,
    /// Once, when it must be gone.
    Once,
}

/// What an answer about a dead member says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Still listed, which is right so far.
    Waiting,
    /// Still listed long after its deadline.
    TooLong,
    /// Gone; the nanoseconds since its deadline, if it was watched closely.
    Gone(Option<u64>),
    /// Gone this long before its deadline.
    Early(u64),
}

impl Deaths {
    /// For members with this timeout, to be gone `bound_ns` after it.
    pub(crate) fn new(timeout_ns: u64, bound_ns: u64) -> Deaths {
        Deaths {
            timeout_ns,
            bound_ns,
            queue: BinaryHeap::new(),
            close: 0,
            asked_closely: Vec::new(),
            open: 0,
        }
    }

    /// A member acknowledged last at `acked_ns` stops beating.
    pub(crate) fn died(&mut self, session: u32, acked_ns: u64) {
        self.open += 1;
        let at = self.first_question(acked_ns, Care::Open);
        self.queue.push(Reverse((at, session, Care::Open)));
    }

    /// The next member to ask about, if its time has come. `acked_ns` tells the latest
    /// acknowledged beat of a session: one that was on its way when it died moves the deadline.
    pub(crate) fn ask(&mut self, now_ns: u64, acked_ns: impl Fn(u32) -> u64) -> Option<u32> {
        while let Some(Reverse((at, session, mut care))) = self.queue.peek().copied() {
            if at > now_ns {
                return None;
            }
            self.queue.pop();
            let soon = self.first_question(acked_ns(session), care) <= now_ns;
            if care == Care::Open && soon {
                care = if self.close < CLOSE_MAX {
                    Care::Close
                } else {
                    Care::Once
                };
                self.close += u32::from(care == Care::Close);
            }
            let first = self.first_question(acked_ns(session), care);
            if first > now_ns {
                self.queue.push(Reverse((first, session, care)));
                continue;
            }
            if care == Care::Close {
                self.asked_closely.push(session);
            }
            return Some(session);
        }
        None
    }

    /// Takes the answer about a member whose deadline is a timeout after `acked_ns`.
    pub(crate) fn answer(
        &mut self,
        session: u32,
        listed: bool,
        acked_ns: u64,
        now_ns: u64,
    ) -> Verdict {
        let due = acked_ns + self.timeout_ns;
        let place = self.asked_closely.iter().position(|s| *s == session);
        if let Some(place) = place {
            self.asked_closely.swap_remove(place);
        }
        let close = place.is_some();
        if listed && now_ns < due + self.bound_ns {
            let care = if close { Care::Close } else { Care::Once };
            self.queue.push(Reverse((now_ns + STEP_NS, session, care)));
            return Verdict::Waiting;
        }
        self.open -= 1;
        self.close -= u32::from(close);
        match (listed, now_ns.checked_sub(due)) {
            (true, _) => Verdict::TooLong,
            (false, None) => Verdict::Early(due - now_ns),
            (false, Some(late)) => Verdict::Gone(close.then_some(late)),
        }
    }

    /// When the next question is due.
    pub(crate) fn next_ns(&self) -> Option<u64> {
        self.queue.peek().map(|Reverse((at, ..))| *at)
    }

    /// Members whose end has not been seen.
    pub(crate) fn open(&self) -> u32 {
        self.open
    }

    fn first_question(&self, acked_ns: u64, care: Care) -> u64 {
        let due = acked_ns + self.timeout_ns;
        match care {
            // A little before, so that an expiry that comes too early is noticed.
            Care::Open | Care::Close => due.saturating_sub(LEAD_NS),
            Care::Once => due + self.bound_ns,
        }
    }
}

/// Members that were renewed at the same moment and then stop together.
#[derive(Debug, Default)]
pub(crate) struct Mass {
    /// Deadlines, ascending once [`Mass::seal`] was called.
    due_ns: Vec<u64>,
    /// How many were listed as active before the first deadline.
    before: Option<u64>,
    /// How many have been seen to go.
    gone: usize,
    /// When the last one was seen to be gone.
    done_ns: u64,
}

impl Mass {
    /// `count` members were last renewed by a request sent at `acked_ns`.
    pub(crate) fn renewed(&mut self, count: usize, due_ns: u64) {
        self.due_ns.extend(std::iter::repeat_n(due_ns, count));
    }

    /// All have been renewed.
    pub(crate) fn seal(&mut self) {
        self.due_ns.sort_unstable();
    }

    /// The earliest deadline.
    pub(crate) fn first_due(&self) -> u64 {
        self.due_ns.first().copied().unwrap_or(0)
    }

    /// Whether the first of them is due at `at_ns` or before.
    pub(crate) fn is_due(&self, at_ns: u64) -> bool {
        self.due_ns.first().is_some_and(|first| *first <= at_ns)
    }

    /// The latest deadline.
    pub(crate) fn last_due(&self) -> u64 {
        self.due_ns.last().copied().unwrap_or(0)
    }

    /// Takes a count of active members, received at `now_ns`. Returns (lateness, members)
    /// for those newly gone, ranked by deadline, and how many went before their deadline.
    pub(crate) fn counted(&mut self, active: u64, now_ns: u64) -> (Vec<(u64, u32)>, u64) {
        let Some(before) = self.before else {
            self.before = Some(active);
            return (Vec::new(), 0);
        };
        let gone = (before.saturating_sub(active) as usize).min(self.due_ns.len());
        let mut late: Vec<(u64, u32)> = Vec::new();
        let mut early = 0;
        for due in &self.due_ns[self.gone.min(gone)..gone] {
            match now_ns.checked_sub(*due) {
                None => early += 1,
                Some(ns) => match late.last_mut() {
                    Some((last, n)) if *last == ns => *n += 1,
                    _ => late.push((ns, 1)),
                },
            }
        }
        if gone > self.gone {
            self.gone = gone;
            self.done_ns = now_ns;
        }
        (late, early)
    }

    /// How many are gone, of how many.
    pub(crate) fn progress(&self) -> (usize, usize) {
        (self.gone, self.due_ns.len())
    }

    /// Whether a first count is known, and all are gone.
    pub(crate) fn all_gone(&self) -> bool {
        self.before.is_some() && self.gone == self.due_ns.len()
    }

    /// Nanoseconds from the first deadline until the last member was seen to be gone.
    pub(crate) fn took_ns(&self) -> u64 {
        self.done_ns.saturating_sub(self.first_due())
    }
}

/// Whether a page of a group document lists `member` as active.
pub(crate) fn lists(body: &[u8], member: &[u8]) -> bool {
    let Some(active) = find(body, b"\"active_members\"") else {
        return false;
    };
    let rest = &body[active..];
    let end = find(rest, b"\"inactive_members\"").unwrap_or(rest.len());
    let quoted = [b"\"", member, b"\""].concat();
    find(&rest[..end], &quoted).is_some()
}

/// The sum of the active members of the groups whose names begin with `stem`, in the answer
/// to `GET /?…`.
pub(crate) fn active_in(body: &[u8], stem: &str) -> Option<u64> {
    let document: Value = serde_json::from_slice(body).ok()?;
    let groups = match &document {
        Value::Array(groups) => groups,
        Value::Object(fields) => fields.values().find_map(Value::as_array)?,
        _ => return None,
    };
    let mut sum = 0;
    for group in groups {
        if group.get("name")?.as_str()?.starts_with(stem) {
            let count = group
                .get("active")
                .or_else(|| group.get("active_members"))?;
            sum += count.as_u64()?;
        }
    }
    Some(sum)
}

fn find(hay: &[u8], needle: &[u8]) -> Option<usize> {
    hay.windows(needle.len()).position(|w| w == needle)
}

/// Members watched closely at a time: more questions would be a load of their own.
const CLOSE_MAX: u32 = 32;
/// Pause between two questions about a member.
const STEP_NS: u64 = 2 * MILLI;
/// How long before the deadline the questions begin.
const LEAD_NS: u64 = 20 * MILLI;

#[cfg(test)]
mod tests {
    use super::*;

    const T: u64 = 1_000 * MILLI;

    #[test]
    fn a_death_is_asked_about_from_shortly_before_its_deadline() {
        let mut d = Deaths::new(T, 100 * MILLI);
        d.died(5, 0);
        assert_eq!(d.ask(T - LEAD_NS - 1, |_| 0), None);
        assert_eq!(d.ask(T - LEAD_NS, |_| 0), Some(5));
        assert_eq!(d.answer(5, true, 0, T - LEAD_NS), Verdict::Waiting);
        assert_eq!(d.ask(T + 7 * MILLI, |_| 0), Some(5));
        assert_eq!(
            d.answer(5, false, 0, T + 8 * MILLI),
            Verdict::Gone(Some(8 * MILLI))
        );
        assert_eq!(d.open(), 0);
    }

    #[test]
    fn a_beat_that_was_on_its_way_moves_the_deadline() {
        let mut d = Deaths::new(T, 100 * MILLI);
        d.died(5, 0);
        assert_eq!(d.ask(T, |_| 500 * MILLI), None);
        assert_eq!(d.next_ns(), Some(500 * MILLI + T - LEAD_NS));
    }

    #[test]
    fn too_early_and_too_late_are_told() {
        let mut d = Deaths::new(T, 100 * MILLI);
        d.died(1, 0);
        d.died(2, 0);
        d.ask(T, |_| 0);
        d.ask(T, |_| 0);
        assert_eq!(d.answer(1, false, 0, T - 3), Verdict::Early(3));
        assert_eq!(d.answer(2, true, 0, T + 100 * MILLI), Verdict::TooLong);
        assert_eq!(d.open(), 0);
    }

    #[test]
    fn beyond_the_first_few_each_death_is_asked_about_once_at_the_bound() {
        let mut d = Deaths::new(T, 100 * MILLI);
        for s in 0..=CLOSE_MAX {
            d.died(s, 0);
        }
        let early: Vec<u32> = std::iter::from_fn(|| d.ask(T, |_| 0)).collect();
        assert_eq!(early.len(), CLOSE_MAX as usize);
        let last = d.ask(T + 100 * MILLI, |_| 0).unwrap();
        assert!(!early.contains(&last));
        assert_eq!(
            d.answer(last, false, 0, T + 101 * MILLI),
            Verdict::Gone(None)
        );
    }

    #[test]
    fn a_mass_is_ranked_by_deadline_and_early_ones_are_counted() {
        let mut m = Mass::default();
        m.renewed(2, 200);
        m.renewed(3, 100);
        assert!(!m.is_due(99));
        m.seal();
        assert!(m.is_due(100) && !m.is_due(99) && !Mass::default().is_due(u64::MAX));
        assert_eq!(m.counted(50, 10), (vec![], 0));
        assert_eq!(
            m.counted(49, 90),
            (vec![], 1),
            "one went at 90, none was due before 100"
        );
        assert_eq!(m.counted(46, 150), (vec![(50, 2)], 1));
        assert!(!m.all_gone());
        assert_eq!(m.counted(45, 230), (vec![(30, 1)], 0));
        assert!(m.all_gone());
        assert_eq!((m.took_ns(), m.progress()), (130, (5, 5)));
    }

    #[test]
    fn a_member_is_listed_only_among_the_active() {
        let page = br#"{"config":null,"endpoints":["h"],"active_members":[{"a":null}],"inactive_members":[{"b":null}]}"#;
        assert!(lists(page, b"a"));
        assert!(!lists(page, b"b"));
        assert!(!lists(page, b"h"));
        assert!(!lists(b"{}", b"a"));
    }

    #[test]
    fn group_counts_are_summed_for_our_groups() {
        let body = br#"{"groups":[{"name":"load-1","version":3,"active":4,"inactive":0},
            {"name":"load-2","version":3,"active":5,"inactive":1},{"name":"other","active":9}]}"#;
        assert_eq!(active_in(body, "load-"), Some(9));
        assert_eq!(active_in(b"[]", "x"), Some(0));
        assert_eq!(active_in(b"nonsense", "x"), None);
        assert_eq!(active_in(br#"{"groups":[{"name":"x"}]}"#, "x"), None);
    }
}
