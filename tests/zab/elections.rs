//! How fast leaders are found: what an election waits for, and what it does not.

use systole::sim::script::{Ensemble, Past};
use systole::zab::{Phase, Plant, Plants};

fn led_by_three() -> Ensemble {
    let mut ensemble = Ensemble::new(3);
    ensemble.start_all();
    ensemble.propose(3, "a").unwrap();
    ensemble.settle();
    assert_eq!(ensemble.leader(), Some(3));
    ensemble
}

#[test]
fn a_server_that_looks_later_than_another_hears_its_vote_without_waiting() {
    for first in [1, 2] {
        let mut ensemble = led_by_three();
        let second = 3 - first;
        // Only one notices that the leader is gone, and its vote meets a follower.
        ensemble.cut(3, first, true);
        ensemble.settle();
        assert_eq!(ensemble.leader(), Some(3), "with the other one");
        ensemble.crash(3);
        ensemble.settle();
        assert_eq!(ensemble.leader(), Some(2), "{second} noticed last");
        ensemble.propose(2, "b").unwrap();
        ensemble.settle();
        assert_eq!(ensemble.delivered(1), ["a", "b"]);
    }
}

#[test]
fn a_leader_that_fell_silent_is_not_waited_for() {
    let mut ensemble = led_by_three();
    ensemble.cut(3, 1, false);
    ensemble.cut(3, 2, false);
    // The silence limit, and the age of the last ping; the wait for better votes is 200 ms.
    ensemble.pass(1_010);
    assert_eq!(ensemble.leader(), Some(2));
    assert_eq!(ensemble.phase(1), Phase::Following);
}

#[test]
fn a_server_that_is_refused_again_and_again_asks_ever_less_often() {
    // With this line gone the leader stays, and the voter of a newer epoch can never join it.
    let plants = Plants::only(Plant::IgnoresNewerEpoch);
    let mut ensemble = Ensemble::new(3).plants(plants);
    let past = Past::new(2, &[(1, 1), (2, 1)]);
    ensemble.put(1, &past);
    ensemble.put(2, &past);
    ensemble.put(3, &past.clone().accepted(9));
    ensemble.start(1);
    ensemble.start(2);
    ensemble.settle();
    ensemble.start(3);
    ensemble.settle();
    let mut asked = Vec::new();
    for _ in 0..4 {
        ensemble.trace();
        ensemble.pass(5_000);
        asked.push(ensemble.trace().matches("FollowerInfo").count());
    }
    assert!(asked[0] > 4, "{asked:?}");
    assert!(
        asked[1..].iter().all(|&count| (2..=10).contains(&count)),
        "{asked:?}"
    );
}
