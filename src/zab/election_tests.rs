use super::*;
use crate::types::{Epoch, Zxid};
use crate::zab::message::Summary;
use crate::zab::ready::{Entry, Persisted};
use crate::zab::{Boot, Ensemble, Settings};

/// Server 2 of three voters and the observer 4, after so many elections that came to nothing.
fn core(failures: u32) -> Core {
    core_of(Epoch(1), failures)
}

/// Server 2 with this epoch on its disk.
fn core_of(epoch: Epoch, failures: u32) -> Core {
    let ids = [1, 2, 3].map(ServerId);
    let settings = Settings {
        ensemble: Ensemble::new(1, &ids, &[ServerId(4)]),
        ..Settings::alone(ids[1])
    };
    let boot = Boot {
        accepted_epoch: epoch,
        current_epoch: epoch,
        history: Summary::default(),
        snapshot: None,
        delivered: Zxid::ZERO,
        nonce: 1,
    };
    let mut core = Core::new(settings, boot);
    core.now = Millis(5_000);
    core.failures = failures;
    core
}

/// The vote of a server that agrees with server 2.
fn agreement(core: &Core) -> Notification {
    Notification {
        stance: Stance::Looking,
        round: core.round,
        vote: core.own_vote(),
        holds_data: true,
        ensemble: 1,
    }
}

#[test]
fn an_election_that_is_held_back_ends_when_the_hold_does() {
    let mut core = core(4);
    let mut election = Election::begin(&mut core);
    let hold = hold(&core);
    assert_eq!(hold, Millis(40));
    let said = agreement(&core);
    assert_eq!(
        election.on_notification(&mut core, ServerId(1), said),
        None,
        "held back"
    );
    let due = core.now + hold;
    assert_eq!(election.deadline(&core), due);
    core.now = due;
    assert_eq!(election.tick(&mut core), Some(ServerId(2)));
}

#[test]
fn no_election_is_held_back_for_longer_than_its_winner_waits() {
    for failures in 0..100 {
        let core = core(failures);
        let patience = core.settings.timing.sync_limit;
        assert!(hold(&core).0 * 2 <= patience.0, "{failures}");
    }
}

#[test]
fn a_server_that_comes_and_goes_does_not_hold_an_election_back() {
    let mut core = core(4);
    let mut election = Election::begin(&mut core);
    let due = core.now + hold(&core);
    for _ in 0..10 {
        core.now = core.now + Millis(3);
        let better = Vote {
            leader: ServerId(3),
            ..core.own_vote()
        };
        let said = Notification {
            vote: better,
            ..agreement(&core)
        };
        election.on_notification(&mut core, ServerId(3), said);
        election.on_disconnected(&mut core, ServerId(3));
    }
    assert_eq!(election.deadline(&core), due);
}

/// What a server says that follows `leader`, or leads.
fn has_leader(core: &Core, stance: Stance, leader: u32) -> Notification {
    let leader = ServerId(leader);
    Notification {
        stance,
        round: core.round + 7,
        vote: Vote {
            leader,
            ..core.own_vote()
        },
        ..agreement(core)
    }
}

/// A vote for server 3.
fn for_three(core: &Core) -> Vote {
    Vote {
        leader: ServerId(3),
        ..core.own_vote()
    }
}

#[test]
fn a_leader_is_joined_on_its_own_word_and_that_of_a_quorum() {
    use Stance::{Following, Leading};
    // Who says what of whom, and whether server 2 joins 3 then.
    type Saying = (u32, Stance, u32);
    let cases: &[(&[Saying], bool)] = &[
        (&[(1, Following, 3), (3, Leading, 3)], true),
        (&[(3, Leading, 3), (1, Following, 3)], true),
        (&[(3, Leading, 3)], false),
        (&[(1, Following, 3)], false),
        (&[(1, Following, 3), (3, Following, 3)], false),
        (&[(1, Following, 2), (3, Leading, 3)], false),
        (&[(1, Leading, 1), (3, Leading, 3)], false),
        (&[(1, Following, 2), (3, Following, 2)], false),
    ];
    for (sayings, joins) in cases {
        let mut core = core(0);
        let mut election = Election::begin(&mut core);
        let mut joined = None;
        for (from, stance, leader) in *sayings {
            let said = has_leader(&core, *stance, *leader);
            joined = joined.or(election.on_notification(&mut core, ServerId(*from), said));
        }
        assert_eq!(joined, joins.then_some(ServerId(3)), "{sayings:?}");
        assert_eq!(
            election.tick(&mut core),
            joins.then_some(ServerId(3)),
            "{sayings:?}"
        );
    }
}

#[test]
fn what_a_server_said_before_counts_no_more_when_it_looks_or_is_lost() {
    for lost in [true, false] {
        let mut core = core(0);
        let mut election = Election::begin(&mut core);
        let said = has_leader(&core, Stance::Leading, 3);
        assert_eq!(election.on_notification(&mut core, ServerId(3), said), None);
        if lost {
            election.on_disconnected(&mut core, ServerId(3));
        } else {
            let said = agreement(&core);
            core.round += 1;
            election.on_notification(&mut core, ServerId(3), said);
        }
        let said = has_leader(&core, Stance::Following, 3);
        assert_eq!(election.on_notification(&mut core, ServerId(1), said), None);
    }
}

#[test]
fn a_leader_known_while_the_election_is_held_back_is_joined_when_the_hold_ends() {
    let mut core = core(4);
    let mut election = Election::begin(&mut core);
    for (from, stance) in [(3, Stance::Leading), (1, Stance::Following)] {
        let said = has_leader(&core, stance, 3);
        assert_eq!(
            election.on_notification(&mut core, ServerId(from), said),
            None
        );
    }
    assert_eq!(election.tick(&mut core), None);
    core.now = election.deadline(&core);
    assert_eq!(election.tick(&mut core), Some(ServerId(3)));
}

#[test]
fn observers_neither_vote_nor_are_voted_for() {
    let mut core = core(0);
    let mut election = Election::begin(&mut core);
    let better = |core: &Core, leader: u32| Notification {
        vote: Vote {
            epoch: Epoch(9),
            zxid: Zxid::new(Epoch(9), 9),
            leader: ServerId(leader),
        },
        round: core.round + 1,
        ..agreement(core)
    };
    for (from, leader) in [(4, 3), (1, 4), (77, 3), (1, 77)] {
        let said = better(&core, leader);
        election.on_notification(&mut core, ServerId(from), said);
        assert_eq!(election.vote(), core.own_vote(), "{from} names {leader}");
        assert_eq!(core.round, 1);
    }
}

#[test]
fn a_vote_of_an_earlier_round_is_answered_and_not_counted() {
    let mut core = core(0);
    core.round = 5;
    let mut election = Election::begin(&mut core);
    let said = Notification {
        round: 5,
        ..agreement(&core)
    };
    core.ready.clear();
    assert_eq!(election.on_notification(&mut core, ServerId(1), said), None);
    assert_eq!(core.ready.messages.len(), 1, "the present round is told");
    let said = agreement(&core);
    assert_eq!(
        election.on_notification(&mut core, ServerId(1), said),
        Some(ServerId(2))
    );
}

#[test]
fn who_agrees_must_hold_data_and_who_holds_data_must_agree() {
    // Server 2 holds data, 1 does not; 3 holds data and is of another mind.
    let mut core = core(0);
    let mut election = Election::begin(&mut core);
    let blank = Notification {
        holds_data: false,
        ..agreement(&core)
    };
    assert_eq!(
        election.on_notification(&mut core, ServerId(1), blank),
        None
    );
    let worse = Vote {
        epoch: Epoch(0),
        ..for_three(&core)
    };
    let other = Notification {
        vote: worse,
        ..agreement(&core)
    };
    assert_eq!(
        election.on_notification(&mut core, ServerId(3), other),
        None
    );
    // Server 2 holds none, 1 does and agrees.
    let mut core = core_of(Epoch(0), 0);
    let mut election = Election::begin(&mut core);
    let said = agreement(&core);
    assert_eq!(election.on_notification(&mut core, ServerId(1), said), None);
    let said = agreement(&core);
    assert_eq!(
        election.on_notification(&mut core, ServerId(3), said),
        Some(ServerId(2)),
        "all attend"
    );
}

#[test]
fn only_the_loss_of_whom_it_prefers_makes_a_server_begin_again() {
    let mut core = core(0);
    for (id, connected) in [(1, true), (3, true)] {
        core.set_connected(ServerId(id), connected);
    }
    let mut election = Election::begin(&mut core);
    let said = Notification {
        vote: for_three(&core),
        holds_data: false,
        ..agreement(&core)
    };
    election.on_notification(&mut core, ServerId(3), said);
    assert_eq!(election.vote(), for_three(&core));
    let round = core.round;
    election.on_disconnected(&mut core, ServerId(1));
    assert_eq!((election.vote(), core.round), (for_three(&core), round));
    election.on_disconnected(&mut core, ServerId(3));
    assert_eq!((election.vote(), core.round), (core.own_vote(), round + 1));
}

#[test]
fn a_server_whose_disk_is_stuck_says_nothing_and_elects_nobody() {
    let mut core = core(0);
    core.set_connected(ServerId(3), true);
    let mut election = Election::begin(&mut core);
    let said = agreement(&core);
    assert_eq!(
        election.on_notification(&mut core, ServerId(1), said),
        None,
        "3 may have a better vote"
    );
    let entry = Entry {
        zxid: Zxid::new(Epoch(1), 1),
        payload: (*b"a").into(),
    };
    core.append(entry);
    core.now = core.now + core.settings.timing.disk_limit + Millis(1);
    core.ready.clear();
    assert_eq!(election.tick(&mut core), None);
    election.on_connected(&mut core, ServerId(3));
    assert_eq!(election.on_notification(&mut core, ServerId(1), said), None);
    assert!(core.ready.messages.is_empty(), "{:?}", core.ready.messages);
    core.on_persisted(Persisted::Log(Zxid::new(Epoch(1), 1)));
    core.set_connected(ServerId(3), false);
    assert_eq!(election.tick(&mut core), Some(ServerId(2)));
}

#[test]
fn of_each_server_the_newest_introduction_is_kept() {
    let mut core = core(0);
    let mut election = Election::begin(&mut core);
    for (from, boot, attempt) in [(1, 8, 2), (1, 8, 1), (3, 9, 5), (1, 8, 3), (3, 7, 1)] {
        election.on_early(Early {
            from: ServerId(from),
            tenure: Tenure { boot, attempt },
            body: Body::Close,
        });
    }
    let kept = election.into_early().into_iter();
    let kept: Vec<_> = kept
        .map(|early| (early.from.0, early.tenure.boot, early.tenure.attempt))
        .collect();
    assert_eq!(kept, [(1, 8, 3), (3, 7, 1)]);
}
