//! The tracker against a plain model, under random operations and time.
//!
//! The model keeps a map of sessions and an ordered set of deadlines in full ticks, and says
//! after each operation exactly who is due. It is also asked, in real time and without
//! regard to ticks, whether an expiry kept the promise.

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasher, Hasher};

use ahash::RandomState;
use proptest::prelude::*;

use super::*;
use crate::time::{TICK_MS, stretched};

/// A group and a member, by number.
type Who = (usize, usize);

#[derive(Clone, Debug)]
enum Op {
    Join(Who, usize),
    Beat(Who),
    BeatById(Who),
    /// A beat whose reading of the clock is a little older than the last one used.
    LateBeat(Who),
    Batch(Vec<Who>),
    BatchById(Vec<Who>),
    Run(Vec<Who>),
    Leave(Who),
    /// Leaves and joins again at the same instant: the slot is used again at once.
    Rejoin(Who, usize),
    SetTimeout(Who, usize),
    /// Ends every closing session, or reopens it.
    Settle {
        reopen: bool,
    },
    /// Time passes, then the wheel turns once with this budget, wholly if none.
    Pass {
        ms: u64,
        budget: Option<usize>,
    },
    /// Ticks pass one by one, the wheel turning at each.
    Walk {
        ticks: u64,
    },
    Gap {
        ms: u64,
    },
}

struct Known {
    id: SessionId,
    slot: Slot,
    timeout: Millis,
    /// In ticks of the virtual clock, not wrapped.
    deadline: u64,
    closing: bool,
    /// Real time lived since, gaps apart, when it was last promised its timeout.
    promised_at: Millis,
}

struct World<S> {
    tracker: Tracker<usize, S>,
    known: HashMap<Who, Known>,
    /// The deadlines of live sessions.
    deadlines: BTreeSet<(u64, Who)>,
    now: Millis,
    held: Millis,
    ids: u64,
}

impl<S: BuildHasher> World<S> {
    fn new(hasher: S, now: Millis) -> World<S> {
        let limits = Limits { sessions_max: 1000 };
        World {
            tracker: Tracker::with_hasher(limits, hasher, now),
            known: HashMap::new(),
            deadlines: BTreeSet::new(),
            now,
            held: Millis(0),
            ids: 0,
        }
    }

    fn run(&mut self, op: &Op) {
        match *op {
            Op::Join(who, timeout) => self.join(who, TIMEOUTS_MS[timeout]),
            Op::Beat(who) => self.beat(who, self.now, false),
            Op::BeatById(who) => self.beat(who, self.now, true),
            Op::LateBeat(who) => self.beat(who, Millis(self.now.0 - 25), false),
            Op::Batch(ref all) => self.batch(all, false),
            Op::BatchById(ref all) => self.batch(all, true),
            Op::Run(ref all) => self.in_stages(all),
            Op::Leave(who) => self.leave(who),
            Op::Rejoin(who, timeout) => {
                self.leave(who);
                self.join(who, TIMEOUTS_MS[timeout]);
            }
            Op::SetTimeout(who, timeout) => self.set_timeout(who, TIMEOUTS_MS[timeout]),
            Op::Settle { reopen } => self.settle(reopen),
            Op::Pass { ms, budget } => {
                self.now = Millis(self.now.0 + ms);
                self.turn(budget);
            }
            Op::Walk { ticks } => {
                self.turn(None);
                for _ in 0..ticks {
                    self.now = Millis(self.now.0 + TICK_MS);
                    self.turn(None);
                }
            }
            Op::Gap { ms } => {
                self.now = Millis(self.now.0 + ms);
                self.held = Millis(self.held.0 + ms);
                self.tracker.make_good(Millis(ms));
            }
        }
        self.check();
    }

    fn join(&mut self, who: Who, timeout: u64) {
        self.ids += 1;
        let id = SessionId::from_parts(self.ids % 3, self.ids);
        let (group, member) = (group_name(who), member_name(who));
        let new = NewSession {
            group: &group,
            member: &member,
            id,
            term: Term(1),
            timeout: Millis(timeout),
        };
        let took = self.tracker.insert(new, self.now, || who.0);
        if let Some(known) = self.known.get(&who) {
            assert_eq!(took, Err(InsertError::Exists(known.slot)));
            return;
        }
        let known = Known {
            id,
            slot: took.unwrap(),
            timeout: Millis(timeout),
            deadline: self.due(timeout, self.now),
            closing: false,
            promised_at: self.now.since(self.held),
        };
        self.deadlines.insert((known.deadline, who));
        self.known.insert(who, known);
    }

    fn beat(&mut self, who: Who, now: Millis, by_id: bool) {
        let found = match self.known.get(&who) {
            Some(known) if by_id => self.tracker.find_id(known.id),
            _ => self.tracker.find(&group_name(who), &member_name(who)),
        };
        assert_eq!(found, self.known.get(&who).map(|known| known.slot));
        if let Some(slot) = found {
            let touch = self.tracker.touch(slot, now);
            let closing = self.known[&who].closing;
            assert_eq!(touch == Touch::Closing, closing);
            self.touched(who, now);
        }
    }

    fn batch(&mut self, all: &[Who], by_id: bool) {
        let mut failures = Vec::new();
        let note = |at, failure| failures.push((at, failure));
        let touched = if by_id {
            let ids: Vec<SessionId> = all
                .iter()
                .map(|who| {
                    self.known
                        .get(who)
                        .map_or(SessionId(1 << 80), |known| known.id)
                })
                .collect();
            self.tracker.touch_ids(ids, self.now, note)
        } else {
            let names: Vec<_> = all
                .iter()
                .map(|&who| (group_name(who), member_name(who)))
                .collect();
            let names = names
                .iter()
                .map(|(group, member)| (&group[..], &member[..]));
            self.tracker.touch_names(names, self.now, note)
        };
        let want: Vec<(usize, Failure)> = all
            .iter()
            .enumerate()
            .filter_map(|(at, who)| match self.known.get(who) {
                None => Some((at, Failure::Unknown)),
                Some(known) if known.closing => Some((at, Failure::Closing)),
                Some(_) => None,
            })
            .collect();
        assert_eq!(failures, want);
        assert_eq!(touched, all.len() - failures.len());
        for &who in all {
            self.touched(who, self.now);
        }
    }

    /// All go through the stages together, those that are nobody's too.
    fn in_stages(&mut self, all: &[Who]) {
        let named = |&who| (group_name(who), member_name(who));
        let names: Vec<_> = all.iter().map(named).collect();
        let names = names.iter();
        let seek = names.map(|(group, member)| self.tracker.seek(group, member));
        let mut sought: Vec<Sought<'_>> = seek.collect();
        self.tracker.approach(&mut sought);
        let mut moment = self.tracker.moment(self.now);
        for (who, one) in all.iter().zip(&sought) {
            let reached = self.tracker.reach(one, &mut moment);
            let reached = reached.map(|found| (found.id, found.timeout, *found.group));
            let live = self.known.get(who).filter(|known| !known.closing);
            assert_eq!(reached, live.map(|known| (known.id, known.timeout, who.0)));
        }
        for &who in all {
            self.touched(who, self.now);
        }
    }

    fn leave(&mut self, who: Who) {
        let Some(known) = self.known.remove(&who) else {
            return;
        };
        self.deadlines.remove(&(known.deadline, who));
        let is_last = self.known.keys().all(|&(group, _)| group != who.0);
        assert_eq!(self.tracker.remove(known.slot), is_last.then_some(who.0));
        assert_eq!(self.tracker.find_group(&group_name(who)).is_none(), is_last);
        assert_eq!(self.tracker.find(&group_name(who), &member_name(who)), None);
        assert_eq!(self.tracker.find_id(known.id), None);
    }

    fn set_timeout(&mut self, who: Who, timeout: u64) {
        let due = self.due(timeout, self.now);
        let lived = self.now.since(self.held);
        let Some(known) = self.known.get_mut(&who) else {
            return;
        };
        let touch = self
            .tracker
            .set_timeout(known.slot, Millis(timeout), self.now);
        assert_eq!(touch == Touch::Closing, known.closing);
        known.timeout = Millis(timeout);
        if !known.closing {
            self.deadlines.remove(&(known.deadline, who));
            known.deadline = due;
            known.promised_at = lived;
            self.deadlines.insert((due, who));
        }
    }

    fn settle(&mut self, reopen: bool) {
        let closing: Vec<Who> = self
            .known
            .iter()
            .filter(|(_, known)| known.closing)
            .map(|(&who, _)| who)
            .collect();
        for who in closing {
            if !reopen {
                self.leave(who);
                continue;
            }
            let due = self.due(self.known[&who].timeout.0, self.now);
            let known = self.known.get_mut(&who).unwrap();
            self.tracker.reopen(known.slot, self.now);
            known.closing = false;
            known.deadline = due;
            known.promised_at = self.now.since(self.held);
            self.deadlines.insert((due, who));
        }
    }

    /// Turns the wheel and compares who is due. With a budget some may be left for later.
    fn turn(&mut self, budget: Option<usize>) {
        let lived = self.now.since(self.held);
        let mut due = Vec::new();
        let more = self
            .tracker
            .advance(self.now, budget.unwrap_or(usize::MAX), &mut due);
        assert!(!more || budget.is_some());
        let who_has: HashMap<Slot, Who> = self
            .known
            .iter()
            .map(|(&who, known)| (known.slot, who))
            .collect();
        for slot in due {
            let who = who_has[&slot];
            let known = self.known.get_mut(&who).unwrap();
            assert!(!known.closing, "{who:?} is reported twice");
            let promised = stretched(known.timeout);
            assert!(
                lived.since(known.promised_at) > promised,
                "{who:?} is expired early"
            );
            known.closing = true;
            assert!(self.deadlines.remove(&(known.deadline, who)));
        }
        if !more && let Some(&(deadline, who)) = self.deadlines.first() {
            assert!(deadline > lived.tick().0, "{who:?} is not reported");
        }
    }

    fn touched(&mut self, who: Who, now: Millis) {
        let lived = now.since(self.held);
        let Some(known) = self.known.get_mut(&who) else {
            return;
        };
        if !known.closing {
            let due = due_at(lived, known.timeout.0);
            self.deadlines.remove(&(known.deadline, who));
            known.deadline = known.deadline.max(due);
            known.promised_at = known.promised_at.max(lived);
            self.deadlines.insert((known.deadline, who));
        }
    }

    fn due(&self, timeout: u64, now: Millis) -> u64 {
        due_at(now.since(self.held), timeout)
    }

    fn check(&self) {
        assert_eq!(self.tracker.len(), self.known.len());
        for (&who, known) in &self.known {
            let view = self.tracker.view(known.slot);
            assert_eq!(view.id, known.id);
            assert_eq!(view.member, member_name(who));
            assert_eq!(view.timeout, known.timeout);
            assert_eq!(view.closing, known.closing);
            assert_eq!(self.tracker.group_name(view.group), group_name(who));
            assert_eq!(self.tracker.group(view.group), &who.0);
            if !known.closing {
                let deadline = Millis(known.deadline * TICK_MS + self.held.0);
                assert_eq!(view.deadline, deadline);
                let look = self.tracker.next_due().expect("a live session is filed");
                assert!(look <= deadline, "{who:?} is filed too late");
            }
        }
    }
}

/// Written out anew, not taken from the tracker: the end of the touch's millisecond, the
/// stretched timeout, rounded up to a tick.
fn due_at(lived: Millis, timeout: u64) -> u64 {
    (lived.0 + 1 + timeout + timeout.div_ceil(1000)).div_ceil(TICK_MS)
}

fn group_name((group, _): Who) -> Vec<u8> {
    let length = [1, 30, 31, 255, 8][group];
    vec![b'A' + group as u8; length]
}

fn member_name((_, member): Who) -> Vec<u8> {
    // Lengths on both sides of each slot size, and names that differ in one byte only.
    let length = [1, 15, 16, 17, 32, 33, 48, 254, 255, 24][member % 10];
    let mut name = vec![b'm'; length];
    name[length / 2] = b'a' + member as u8;
    name
}

fn who() -> impl Strategy<Value = Who> {
    (0..5usize, 0..20usize)
}

fn op() -> impl Strategy<Value = Op> {
    let timeout = || 0..TIMEOUTS_MS.len();
    let many = || prop::collection::vec(who(), 0..80);
    prop_oneof![
        8 => (who(), timeout()).prop_map(|(who, timeout)| Op::Join(who, timeout)),
        4 => who().prop_map(Op::Beat),
        2 => who().prop_map(Op::BeatById),
        1 => who().prop_map(Op::LateBeat),
        2 => many().prop_map(Op::Batch),
        2 => many().prop_map(Op::BatchById),
        2 => many().prop_map(Op::Run),
        2 => who().prop_map(Op::Leave),
        2 => (who(), timeout()).prop_map(|(who, timeout)| Op::Rejoin(who, timeout)),
        3 => (who(), timeout()).prop_map(|(who, timeout)| Op::SetTimeout(who, timeout)),
        1 => any::<bool>().prop_map(|reopen| Op::Settle { reopen }),
        3 => (0..200u64, 1..40usize)
            .prop_map(|(ms, budget)| Op::Pass { ms, budget: Some(budget) }),
        3 => (0..5_000u64).prop_map(|ms| Op::Pass { ms, budget: None }),
        1 => (0..100_000u64).prop_map(|ms| Op::Pass { ms, budget: None }),
        2 => (1..60u64).prop_map(|ticks| Op::Walk { ticks }),
        1 => (0..3_000u64).prop_map(|ms| Op::Gap { ms }),
    ]
}

/// Runs the operations, then lets everyone fall silent.
fn play<S: BuildHasher>(hasher: S, start: Millis, ops: &[Op]) {
    let mut world = World::new(hasher, start);
    for op in ops {
        world.run(op);
    }
    world.run(&Op::Pass {
        ms: 700_000,
        budget: None,
    });
    assert!(world.deadlines.is_empty());
    assert!(world.known.values().all(|known| known.closing));
    world.run(&Op::Settle { reopen: false });
    assert_eq!(world.tracker.group_count(), 0);
    world.run(&Op::Pass {
        ms: 100_000,
        budget: None,
    });
    assert_eq!(world.tracker.next_due(), None, "stale entries are gone");
}

/// A hasher with four results: every search meets others' sessions.
struct Weak;

struct WeakHasher(u64);

impl BuildHasher for Weak {
    type Hasher = WeakHasher;
    fn build_hasher(&self) -> WeakHasher {
        WeakHasher(0)
    }
}

impl Hasher for WeakHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0 += u64::from(bytes[bytes.len() / 2]);
    }
    fn finish(&self) -> u64 {
        u64::MAX - (self.0 & 3)
    }
}

/// Short, off the tick, around the wheel's horizon, beyond it.
const TIMEOUTS_MS: [u64; 10] = [
    100, 101, 109, 999, 1_000, 5_003, 81_820, 81_840, 90_001, 600_000,
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn the_tracker_does_what_the_model_does(
        ops in prop::collection::vec(op(), 1..150),
        // Ticks wrap at 2^32: begin up to two horizons before, and anywhere in a tick.
        before_wrap_ms in 0..160_000u64,
    ) {
        let start = Millis((1 << 32) * TICK_MS - before_wrap_ms);
        play(RandomState::with_seeds(1, 2, 3, 4), start, &ops);
    }

    #[test]
    fn the_tracker_does_what_the_model_does_when_all_hashes_collide(
        ops in prop::collection::vec(op(), 1..80),
    ) {
        play(Weak, Millis(1_000), &ops);
    }
}

#[test]
fn a_session_of_a_day_is_expired_at_its_tick_and_not_before() {
    let mut world = World::new(RandomState::with_seeds(1, 2, 3, 4), Millis(12_345));
    world.join((0, 0), 86_400_000);
    let deadline = Millis(due_at(Millis(12_345), 86_400_000) * TICK_MS);
    assert_eq!(deadline, Millis(86_498_750));
    world.now = Millis(deadline.0 - 1);
    world.turn(None);
    assert!(!world.known[&(0, 0)].closing);
    world.now = deadline;
    world.turn(None);
    assert!(world.known[&(0, 0)].closing);
}

#[test]
fn a_slot_used_again_at_the_same_tick_is_reported_once() {
    // Both the left session's entry and the new one's are filed at one tick and look alike.
    let mut world = World::new(RandomState::with_seeds(1, 2, 3, 4), Millis(0));
    world.run(&Op::Join((0, 0), 0));
    let slot = world.known[&(0, 0)].slot;
    for _ in 0..3 {
        world.run(&Op::Rejoin((0, 0), 0));
        assert_eq!(world.known[&(0, 0)].slot, slot);
    }
    world.run(&Op::Pass {
        ms: 1_000,
        budget: None,
    });
    assert!(world.known[&(0, 0)].closing);
}

#[test]
fn timeouts_changed_to_and_fro_do_not_pile_up_entries() {
    let mut world = World::new(RandomState::with_seeds(1, 2, 3, 4), Millis(0));
    world.run(&Op::Join((0, 0), 9));
    let before = world.tracker.memory_bytes();
    for _ in 0..20_000 {
        world.set_timeout((0, 0), 100);
        world.set_timeout((0, 0), 600_000);
    }
    assert_eq!(world.tracker.memory_bytes(), before);
}

#[test]
fn sessions_of_the_same_number_under_two_leaders_are_told_apart() {
    let limits = Limits { sessions_max: 10 };
    let mut tracker: Tracker<(), Weak> = Tracker::with_hasher(limits, Weak, Millis(0));
    let id = |era| SessionId::from_parts(era, 7);
    // What [`Weak`] takes for the same.
    let slots = [1, 5].map(|era| {
        let new = NewSession {
            group: b"g",
            member: if era == 1 { b"a" } else { b"b" },
            id: id(era),
            timeout: Millis(1_000),
            term: Term(1),
        };
        tracker.insert(new, Millis(0), || ()).unwrap()
    });
    for (at, era) in (1..).zip([1, 5, 5, 1]) {
        let before = slots.map(|slot| tracker.view(slot).deadline);
        let now = Millis(10 * at);
        assert_eq!(
            tracker.touch_ids([id(era)], now, |_, _| panic!("it lives")),
            1
        );
        let moved = [0, 1].map(|i| tracker.view(slots[i]).deadline > before[i]);
        assert_eq!(moved, [era == 1, era == 5]);
    }
    let mut failed = Vec::new();
    tracker.touch_ids([id(9)], Millis(90), |at, why| failed.push((at, why)));
    assert_eq!(failed, [(0, Failure::Unknown)]);
}
