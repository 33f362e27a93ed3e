//! Histories of one member, and whether some order of their steps explains them.
//!
//! Wing and Gong's search: of the steps that may come first (none other ended before they
//! began), one is tried whose answer is right in the present state, and so on; states that were
//! in vain before are remembered (Lowe). A step without an answer may take effect at any time
//! after it began, or never.
//!
//! Unanswered steps would make the search long, as each may be anywhere. Those that ask the same
//! are interchangeable once both have begun, so only the first of them is tried; values that
//! nobody has seen count as the same value; and what would change nothing need not happen.

use std::collections::HashSet;
use std::time::Instant;

/// What a member is to all who look.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Member {
    pub(crate) active: bool,
    pub(crate) config: Option<u64>,
}

/// What was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// Join if it is not active.
    Join,
    Leave,
    Configure(u64),
    Unconfigure,
    Look,
}

/// What was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answered {
    Done,
    /// It was active already, or was not.
    Refused,
    Seen(Member),
    /// Nothing, or nothing that tells.
    Unknown,
}

/// One question and its answer.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) asked: Asked,
    pub(crate) answered: Answered,
    pub(crate) began: Instant,
    pub(crate) ended: Instant,
}

impl Step {
    /// The state after this step, if its answer is right in this one.
    fn apply(&self, member: &Member) -> Option<Member> {
        let after = self.asked.apply(member);
        let right = match (&self.answered, self.asked) {
            (Answered::Seen(seen), _) => seen == member,
            (Answered::Done, _) => after.is_some(),
            (Answered::Refused, _) => after.is_none(),
            (Answered::Unknown, _) => true,
        };
        right.then(|| after.unwrap_or_else(|| member.clone()))
    }

    fn value_seen(&self) -> Option<u64> {
        match &self.answered {
            Answered::Seen(member) => member.config,
            _ => None,
        }
    }

    fn is_unknown(&self) -> bool {
        self.answered == Answered::Unknown
    }
}

impl Asked {
    /// The state after it; `None` if it is refused in this one.
    fn apply(self, member: &Member) -> Option<Member> {
        let mut after = member.clone();
        match self {
            Asked::Join => after.active = true,
            Asked::Leave => after.active = false,
            Asked::Configure(value) => after.config = Some(value),
            Asked::Unconfigure => after.config = None,
            Asked::Look => return Some(after),
        }
        let refused = match self {
            Asked::Join | Asked::Leave => after.active == member.active,
            Asked::Unconfigure => member.config.is_none(),
            Asked::Configure(_) | Asked::Look => false,
        };
        (!refused).then_some(after)
    }
}

/// True if some order explains the history of one member, which begins as nobody.
pub(crate) fn is_linearizable(steps: &[Step]) -> bool {
    // A look without an answer says nothing and does nothing.
    let mut steps: Vec<Step> = steps
        .iter()
        .filter(|step| !(step.is_unknown() && step.asked == Asked::Look))
        .cloned()
        .collect();
    assert!(steps.len() <= STEPS_MAX, "{} steps", steps.len());
    steps.sort_by_key(|step| step.began);
    let seen: HashSet<u64> = steps.iter().filter_map(Step::value_seen).collect();
    for step in &mut steps {
        if let Asked::Configure(value) = &mut step.asked
            && !seen.contains(value)
        {
            *value = UNSEEN;
        }
    }
    search(&steps, 0, &Member::default(), &mut HashSet::new())
}

type Taken = u128;

fn search(
    steps: &[Step],
    taken: Taken,
    member: &Member,
    vain: &mut HashSet<(Taken, Member)>,
) -> bool {
    let open = |at: &usize| taken & (1 << at) == 0;
    let left = || (0..steps.len()).filter(open);
    let known = left().filter(|&at| !steps[at].is_unknown());
    let Some(first_end) = known.map(|at| steps[at].ended).min() else {
        // Whoever has no answer need not have happened.
        return true;
    };
    if !vain.insert((taken, member.clone())) {
        return false;
    }
    let mut tried: Vec<Asked> = Vec::new();
    left().any(|at| {
        let step = &steps[at];
        let Some(after) = step.apply(member).filter(|_| step.began <= first_end) else {
            return false;
        };
        if step.is_unknown() {
            if after == *member || tried.contains(&step.asked) {
                return false;
            }
            tried.push(step.asked);
        }
        search(steps, taken | (1 << at), &after, vain)
    })
}

/// Stands for every value that no look has shown.
const UNSEEN: u64 = 0;

/// Steps of one history; [`Taken`] has a bit for each.
pub(crate) const STEPS_MAX: usize = 128;

mod tests {
    use std::time::Duration;

    use super::*;
    use crate::common::now;

    /// A history of (what was asked, the answer, begin, end), in milliseconds.
    fn history(steps: &[(Asked, Answered, u64, u64)]) -> bool {
        let start = now();
        let at = |ms| start + Duration::from_millis(ms);
        let step = |(asked, answered, began, ended): &(Asked, Answered, u64, u64)| Step {
            asked: *asked,
            answered: answered.clone(),
            began: at(*began),
            ended: at(*ended),
        };
        is_linearizable(&steps.iter().map(step).collect::<Vec<_>>())
    }

    fn seen(active: bool, config: Option<u64>) -> Answered {
        Answered::Seen(Member { active, config })
    }

    #[test]
    fn steps_one_after_the_other_are_taken_in_their_order() {
        let write = (Asked::Configure(1), Answered::Done, 0, 1);
        assert!(history(&[
            write.clone(),
            (Asked::Look, seen(false, Some(1)), 2, 3)
        ]));
        assert!(!history(&[write, (Asked::Look, seen(false, None), 2, 3)]));
    }

    #[test]
    fn steps_at_the_same_time_may_come_in_any_order_but_only_one() {
        let (one, two) = (Asked::Configure(1), Asked::Configure(2));
        let both = [(one, Answered::Done, 0, 9), (two, Answered::Done, 0, 9)];
        for value in [1, 2] {
            let look = (Asked::Look, seen(false, Some(value)), 10, 11);
            assert!(history(&[both[0].clone(), both[1].clone(), look]));
        }
        let looks = [
            (Asked::Look, seen(false, Some(1)), 10, 11),
            (Asked::Look, seen(false, Some(2)), 12, 13),
        ];
        let [first, second] = looks;
        assert!(!history(&[both[0].clone(), both[1].clone(), first, second]));
    }

    #[test]
    fn a_step_without_an_answer_happens_late_or_never_and_not_before_it_began() {
        let unknown = (Asked::Join, Answered::Unknown, 5, 6);
        let before = (Asked::Look, seen(false, None), 20, 21);
        let after = (Asked::Look, seen(true, None), 22, 23);
        assert!(history(&[unknown.clone(), before.clone()]));
        assert!(history(&[unknown.clone(), before, after.clone()]));
        let too_early = (Asked::Look, seen(true, None), 1, 2);
        assert!(!history(&[too_early, unknown]));
    }

    #[test]
    fn many_steps_without_an_answer_are_judged_soon() {
        let unknown = |at| {
            [
                (Asked::Join, Answered::Unknown, at, at),
                (Asked::Leave, Answered::Unknown, at, at),
                (Asked::Configure(100 + at), Answered::Unknown, at, at),
                (Asked::Unconfigure, Answered::Unknown, at, at),
            ]
        };
        let mut steps: Vec<_> = (1..16).flat_map(unknown).collect();
        for at in 20..40 {
            steps.push((Asked::Look, seen(at % 2 == 0, None), at, at));
        }
        assert!(history(&steps));
        steps.push((Asked::Look, seen(true, Some(7)), 50, 51));
        assert!(!history(&steps), "nobody has written it");
    }

    #[test]
    fn a_refusal_tells_of_the_state_too() {
        let joined = (Asked::Join, Answered::Done, 0, 1);
        let again = (Asked::Join, Answered::Done, 2, 3);
        assert!(!history(&[joined.clone(), again]));
        let refused = (Asked::Join, Answered::Refused, 2, 3);
        assert!(history(&[joined.clone(), refused]));
        let nobody = (Asked::Leave, Answered::Refused, 2, 3);
        assert!(!history(&[joined, nobody]));
    }
}
