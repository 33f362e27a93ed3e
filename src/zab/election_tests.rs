use super::*;
use crate::types::{Epoch, Zxid};
use crate::zab::message::Summary;
use crate::zab::{Boot, Ensemble, Settings};

/// Server 2 of three, after so many elections that came to nothing.
fn core(failures: u32) -> Core {
    let ids = [1, 2, 3].map(ServerId);
    let settings = Settings {
        ensemble: Ensemble::new(1, &ids, &[]),
        ..Settings::alone(ids[1])
    };
    let boot = Boot {
        accepted_epoch: Epoch(1),
        current_epoch: Epoch(1),
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
