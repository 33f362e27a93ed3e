//! Which server is asked next.
//!
//! A client stays with the server that answers: a beat that comes to another one is forwarded,
//! and costs more. A server that fails is left alone for a while that doubles with each failure,
//! with jitter so that the clients of a server that comes back do not come all at once; meanwhile
//! the next one in the list is asked.

use crate::time::Millis;

/// The servers a client knows, and how they have done.
///
/// Invariant: there is at least one, and `current` is the index of one.
#[derive(Clone, Debug)]
pub(crate) struct Endpoints {
    list: Vec<Endpoint>,
    current: usize,
    /// The wait after a first failure, and the longest one.
    backoff: (Millis, Millis),
    dice: Dice,
}

#[derive(Clone, Debug)]
struct Endpoint {
    name: String,
    /// Named by the user, and so never forgotten.
    given: bool,
    /// Failures since the last success.
    failures: u32,
    not_before: Millis,
}

/// Who is to be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Pick {
    /// This one, now.
    Now(String),
    /// None before this time.
    At(Millis),
}

impl Endpoints {
    /// The servers in `given`, in that order; doubles are left out.
    ///
    /// # Panics
    /// If there are none.
    #[must_use]
    pub(crate) fn new(given: &[String], seed: u64) -> Endpoints {
        assert!(!given.is_empty(), "a client without a server");
        let mut endpoints = Endpoints {
            list: Vec::new(),
            current: 0,
            backoff: (BACKOFF_MIN, BACKOFF_MAX),
            dice: Dice::new(seed),
        };
        for name in given {
            endpoints.add(name, true);
        }
        endpoints
    }

    /// Sets the wait after a first failure and the longest one.
    pub(crate) fn back_off(&mut self, first: Millis, longest: Millis) {
        self.backoff = (first, longest.max(first));
    }

    /// Who is to be asked at `now`: the one that answered last, or else the next one in the
    /// list that need not be left alone.
    pub(crate) fn pick(&mut self, now: Millis) -> Pick {
        let count = self.list.len();
        let ring = (0..count).map(|step| (self.current + step) % count);
        let ready = ring.into_iter().find(|&at| self.list[at].not_before <= now);
        if let Some(at) = ready {
            self.current = at;
            return Pick::Now(self.list[at].name.clone());
        }
        let soonest = self.list.iter().map(|endpoint| endpoint.not_before).min();
        Pick::At(soonest.unwrap_or(now))
    }

    /// The server `name` has answered.
    pub(crate) fn worked(&mut self, name: &str) {
        if let Some(at) = self.find(name) {
            self.list[at].failures = 0;
            self.list[at].not_before = Millis(0);
            self.current = at;
        }
    }

    /// The server `name` has not answered, or cannot at present and asks for a pause.
    pub(crate) fn failed(&mut self, name: &str, now: Millis, retry_after: Option<Millis>) {
        let Some(at) = self.find(name) else { return };
        let (first, longest) = self.backoff;
        let doubled = first.0.saturating_mul(1 << self.list[at].failures.min(16));
        let most = doubled.min(longest.0);
        // Between a half and all of it.
        let wait = most - self.dice.below(most / 2 + 1);
        let asked = retry_after.unwrap_or_default().min(longest);
        self.list[at].failures = self.list[at].failures.saturating_add(1);
        self.list[at].not_before = now + Millis(wait.max(asked.0));
        self.current = (at + 1) % self.list.len();
    }

    /// Takes in what a server says of who there is. Those the user named stay; what was learnt
    /// before and is not named any more goes.
    pub(crate) fn learn(&mut self, named: &[String]) {
        if named.is_empty() {
            return;
        }
        let current = self.list[self.current].name.clone();
        self.list
            .retain(|known| known.given || named.contains(&known.name) || known.name == current);
        for name in named {
            if self.list.len() < ENDPOINTS_MAX {
                self.add(name, false);
            }
        }
        self.current = self.find(&current).unwrap_or(0);
    }

    /// All of them, those first that the user named.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.list.iter().map(|endpoint| &*endpoint.name)
    }

    fn find(&self, name: &str) -> Option<usize> {
        self.list.iter().position(|known| known.name == name)
    }

    fn add(&mut self, name: &str, given: bool) {
        if self.find(name).is_none() && !name.is_empty() {
            self.list.push(Endpoint {
                name: name.to_owned(),
                given,
                failures: 0,
                not_before: Millis(0),
            });
        }
    }
}

/// Random numbers that a seed repeats (SplitMix64).
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    /// Numbers that follow from `seed`.
    #[must_use]
    pub(crate) fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    /// A number below `bound`; 0 if that is 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        z.checked_rem(bound).unwrap_or(0)
    }
}

/// The first wait, unless a timeout asks for shorter ones.
const BACKOFF_MIN: Millis = Millis(50);
/// The longest wait, unless a timeout asks for shorter ones.
const BACKOFF_MAX: Millis = Millis(2_000);
/// Most servers that are known at a time; an ensemble has 31 at most.
const ENDPOINTS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(names: &[&str]) -> Endpoints {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        Endpoints::new(&names, 1)
    }

    fn now(name: &str) -> Pick {
        Pick::Now(name.to_owned())
    }

    #[test]
    fn a_client_stays_with_the_server_that_answers() {
        let mut all = endpoints(&["a", "b", "c"]);
        assert_eq!(all.pick(Millis(0)), now("a"));
        all.failed("a", Millis(0), None);
        assert_eq!(all.pick(Millis(0)), now("b"));
        all.worked("b");
        assert_eq!(all.pick(Millis(60_000)), now("b"), "though a may be back");
    }

    #[test]
    fn when_all_have_failed_the_one_to_be_ready_first_is_waited_for() {
        let mut all = endpoints(&["a", "b"]);
        all.failed("a", Millis(0), None);
        all.failed("b", Millis(10), None);
        let Pick::At(at) = all.pick(Millis(20)) else {
            panic!("both have failed");
        };
        assert!(at >= Millis(25) && at <= Millis(50), "{at:?}");
        assert_eq!(all.pick(Millis(60)), now("a"), "both may be asked again");
    }

    #[test]
    fn waits_double_up_to_the_longest_with_jitter_below() {
        let mut all = endpoints(&["a"]);
        all.back_off(Millis(100), Millis(1_000));
        let mut waits = Vec::new();
        for _ in 0..40 {
            all.failed("a", Millis(0), None);
            match all.pick(Millis(0)) {
                Pick::At(Millis(wait)) => waits.push(wait),
                Pick::Now(_) => panic!("it has just failed"),
            }
        }
        for (failures, &wait) in waits.iter().enumerate() {
            let most = (100u64 << failures.min(10)).min(1_000);
            assert!((most / 2..=most).contains(&wait), "{failures}: {wait}");
        }
        let late = &waits[10..];
        assert!(
            late.iter().any(|wait| wait != &late[0]),
            "no jitter in {late:?}"
        );
        all.worked("a");
        assert_eq!(all.pick(Millis(0)), now("a"));
    }

    #[test]
    fn a_pause_that_is_asked_for_is_kept_but_not_without_end() {
        let mut all = endpoints(&["a"]);
        all.back_off(Millis(10), Millis(500));
        all.failed("a", Millis(0), Some(Millis(300)));
        assert_eq!(all.pick(Millis(299)), Pick::At(Millis(300)));
        all.failed("a", Millis(0), Some(Millis(3_600_000)));
        assert_eq!(all.pick(Millis(0)), Pick::At(Millis(500)));
    }

    #[test]
    fn what_is_learnt_comes_and_goes_and_what_is_given_stays() {
        let mut all = endpoints(&["a", "a"]);
        let learn = |all: &mut Endpoints, names: &[&str]| {
            let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
            all.learn(&names);
            all.names().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(learn(&mut all, &["b", "c", "a"]), ["a", "b", "c"]);
        assert_eq!(learn(&mut all, &[]), ["a", "b", "c"]);
        all.failed("a", Millis(0), None);
        assert_eq!(all.pick(Millis(0)), now("b"));
        assert_eq!(learn(&mut all, &["c"]), ["a", "b", "c"], "b is being asked");
        assert_eq!(all.pick(Millis(0)), now("b"));
        all.worked("c");
        assert_eq!(learn(&mut all, &["d"]), ["a", "c", "d"]);
        let many: Vec<String> = (0..200).map(|n| format!("server-{n}")).collect();
        all.learn(&many);
        assert_eq!(all.names().count(), ENDPOINTS_MAX);
    }
}
