//! Histories, against the plain lists of transactions that they stand for.

use std::sync::Arc;

use super::*;
use crate::types::Epoch;

fn at(epoch: u64, counter: u64) -> Zxid {
    Zxid::new(Epoch(epoch), counter)
}

fn entry(zxid: Zxid) -> Entry {
    Entry {
        zxid,
        payload: Arc::from([0_u8; 10]),
    }
}

/// A history with everything after its base in memory.
fn history(base: Zxid, zxids: &[Zxid]) -> History {
    let mut history = History::new(&Summary {
        base,
        ends: Vec::new(),
    });
    for &zxid in zxids {
        history.push(entry(zxid));
    }
    history
}

fn in_memory(history: &History, after: Zxid, upto: Zxid) -> Option<Vec<Zxid>> {
    let range = history.range(after, upto)?;
    Some(range.map(|entry| entry.zxid).collect())
}

/// A small generator, so that the same cases are tried each time.
struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) % bound
    }
}

/// Histories as they come about: each epoch goes on from some prefix of some earlier history.
fn family(draw: &mut Draw) -> Vec<Vec<Zxid>> {
    let mut known: Vec<Vec<Zxid>> = vec![Vec::new()];
    for epoch in 1..=6 {
        let from = draw.below(known.len() as u64) as usize;
        let keep = draw.below(known[from].len() as u64 + 1) as usize;
        let initial = known[from][..keep].to_vec();
        let count = draw.below(5);
        let mut whole = initial.clone();
        whole.extend((1..=count).map(|counter| at(epoch, counter)));
        // Learners of this epoch hold the initial history and some of what was proposed.
        for held in keep..=whole.len() {
            if draw.below(2) == 0 {
                known.push(whole[..held].to_vec());
            }
        }
        known.push(whole);
    }
    known
}

#[test]
fn the_last_common_transaction_is_that_of_the_plain_lists() {
    let mut draw = Draw(1);
    let mut cuts = 0;
    for _ in 0..400 {
        let family = family(&mut draw);
        for ours in &family {
            for theirs in &family {
                let shared = ours.iter().zip(theirs).take_while(|(a, b)| a == b).count();
                let expected = shared.checked_sub(1).map_or(Zxid::ZERO, |last| ours[last]);
                let summary = history(Zxid::ZERO, theirs).summary();
                let found = history(Zxid::ZERO, ours).common_with(&summary, Plants::NONE);
                assert_eq!(found, Some(expected), "{ours:?} and {theirs:?}");
                cuts += usize::from(shared < theirs.len() && shared < ours.len());
            }
        }
    }
    assert!(cuts > 10_000, "histories that part are among them: {cuts}");
}

#[test]
fn a_trimmed_history_finds_the_same_or_says_it_cannot_tell() {
    let mut draw = Draw(2);
    let mut unknown = 0;
    for _ in 0..400 {
        let family = family(&mut draw);
        for ours in family.iter().filter(|ours| !ours.is_empty()) {
            let trimmed = draw.below(ours.len() as u64) as usize;
            let base = ours[trimmed];
            let mut leader = history(Zxid::ZERO, ours);
            leader.trim(base);
            for theirs in &family {
                let shared = ours.iter().zip(theirs).take_while(|(a, b)| a == b).count();
                let found =
                    leader.common_with(&history(Zxid::ZERO, theirs).summary(), Plants::NONE);
                // What is trimmed is committed, so that a learner lacks it, or holds it too.
                let expected = (shared > trimmed).then(|| ours[shared - 1]);
                assert_eq!(found, expected, "{ours:?} after {base} and {theirs:?}");
                unknown += usize::from(found.is_none());
            }
        }
    }
    assert!(unknown > 1_000, "{unknown}");
}

#[test]
fn a_history_contains_its_transactions_its_base_and_nothing_else() {
    let zxids = [at(1, 1), at(1, 2), at(3, 1), at(3, 2), at(4, 1)];
    let mut whole = history(Zxid::ZERO, &zxids);
    for epoch in 0..6 {
        for counter in 0..5 {
            let zxid = at(epoch, counter);
            let expected = zxid == Zxid::ZERO || zxids.contains(&zxid);
            assert_eq!(whole.contains(zxid), expected, "{zxid}");
        }
    }
    whole.trim(at(3, 1));
    assert!(whole.contains(at(3, 1)), "the base");
    assert!(!whole.contains(at(1, 2)), "below the base");
    assert_eq!(whole.summary().ends, [at(3, 2), at(4, 1)]);
    whole.trim(at(4, 1));
    assert_eq!((whole.last(), whole.base()), (at(4, 1), at(4, 1)));
    assert!(whole.contains(at(4, 1)));
}

#[test]
fn a_cut_leaves_what_was_before_it() {
    let zxids = [at(1, 1), at(1, 2), at(3, 1), at(3, 2), at(4, 1)];
    for (kept, &last) in zxids.iter().enumerate() {
        let mut cut = history(Zxid::ZERO, &zxids);
        cut.truncate(last);
        assert_eq!(cut.last(), last);
        let left = in_memory(&cut, Zxid::ZERO, at(9, 9));
        assert_eq!(left.as_deref(), Some(&zxids[..=kept]));
        cut.push(entry(at(5, 1)));
        assert_eq!(cut.last(), at(5, 1));
        assert!(!cut.contains(at(4, 1)) || last == at(4, 1));
    }
    let mut cut = history(at(1, 2), &zxids[2..]);
    cut.truncate(at(1, 2));
    assert_eq!((cut.last(), cut.summary().ends.len()), (at(1, 2), 0));
}

#[test]
fn memory_gives_any_range_it_still_holds() {
    let zxids = [at(1, 1), at(1, 2), at(3, 1), at(3, 2), at(3, 3), at(4, 1)];
    let mut history = history(Zxid::ZERO, &zxids);
    let keep = Keep {
        entries: 4,
        bytes: 1_000,
        open_entries: 0,
        open_bytes: 0,
    };
    history.shrink(at(4, 1), keep);
    assert_eq!(history.window_after(), at(1, 2));
    assert_eq!(in_memory(&history, at(1, 1), at(4, 1)), None, "forgotten");
    for from in 1..zxids.len() {
        for to in from..zxids.len() {
            let found = in_memory(&history, zxids[from], zxids[to]);
            assert_eq!(found.as_deref(), Some(&zxids[from + 1..=to]));
        }
    }
    assert_eq!(
        in_memory(&history, at(3, 1), at(1, 2)).as_deref(),
        Some(&[][..])
    );
}

#[test]
fn what_is_not_committed_stays_in_memory_longer() {
    let zxids: Vec<Zxid> = (1..=10).map(|counter| at(1, counter)).collect();
    let keep = Keep {
        entries: 2,
        bytes: 1_000,
        open_entries: 5,
        open_bytes: 1_000,
    };
    let mut open = history(Zxid::ZERO, &zxids);
    open.shrink(Zxid::ZERO, keep);
    assert_eq!(open.window_after(), at(1, 3), "two and five");
    open.shrink(at(1, 6), keep);
    assert_eq!(open.window_after(), at(1, 6), "the open ones, and no more");
    let tight = Keep { bytes: 15, ..keep };
    open.shrink(at(1, 10), tight);
    assert_eq!(open.window_after(), at(1, 9), "bytes count as well");
}

#[test]
fn a_summary_of_very_many_epochs_leaves_out_the_oldest() {
    let zxids: Vec<Zxid> = (1..=ENDS_MAX as u64 + 3)
        .map(|epoch| at(epoch, 1))
        .collect();
    let summary = history(Zxid::ZERO, &zxids).summary();
    assert_eq!(summary.base, at(3, 1));
    assert_eq!(summary.ends.len(), ENDS_MAX);
    assert_eq!(summary.ends[0], at(4, 1));
}
