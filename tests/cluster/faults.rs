//! One fault, one promise.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use crate::caller::Caller;
use crate::common::{Deadline, SmallDisk, now, poll};
use crate::ensemble::{Ensemble, ask};
use crate::ledger::Ledger;
use crate::member::{Crowd, Habits};
use crate::watcher::{Watcher, active};

/// Waits until a server's document shows none of a group's members, and says how long it took.
#[track_caller]
pub(crate) fn wait_until_empty(
    ensemble: &Ensemble,
    which: usize,
    group: &str,
    bound: Duration,
) -> Duration {
    let since = now();
    let what = format!(
        "the last member of {group} to be gone at server {}",
        which + 1
    );
    poll(bound, &what, || {
        let document = ensemble.ask(which, "GET", &format!("/{group}"))?;
        match document.status {
            404 => Some(()),
            200 => active(&document).is_empty().then_some(()),
            _ => None,
        }
    });
    now() - since
}

#[test]
fn each_server_killed_in_turn_expires_nobody_who_beats() {
    let timeout = Duration::from_secs(6);
    let mut ensemble = Ensemble::of_three();
    let endpoints = ensemble.addresses();
    let ledger = Ledger::default();
    let habits = Habits::faithful(timeout);
    let join =
        |group, count, habits| Crowd::join(&endpoints, &[0, 1, 2], group, count, habits, &ledger);
    let crowd = join("live", 18, &habits);
    let restless = Habits {
        restless: 4,
        ..habits.clone()
    };
    let comers_and_goers = join("restless", 6, &restless);
    let watcher = Watcher::start(&endpoints, &["live", "restless", "dead"], &ledger);
    for round in 0..3 {
        // The leader of the moment goes first, then whoever leads after it, or does not.
        let victim = (ensemble.leader() + round) % 3;
        let dying = Crowd::join(&endpoints, &[victim], "dead", 4, &habits, &ledger);
        dying.die();
        ledger.silent("dead");
        ensemble.kill(victim);
        let survivor = (victim + 1) % 3;
        let bound = ORPHAN_SLACK + timeout + LEASE;
        let took = wait_until_empty(&ensemble, survivor, "dead", bound);
        println!("round {round}: {took:?} until the dead were gone");
        ensemble.start_servers(&[victim]);
        ensemble.wait_until_all_serve();
    }
    let looks = watcher.end();
    println!("{:?}, {looks} documents", ledger.tally());
    ledger.expect_kept();
    assert_eq!(
        ledger.tally().lapsed,
        0,
        "whoever beats is answered in time"
    );
    crowd.die();
    comers_and_goers.die();
    ensemble.expect_equal(&["live".into(), "restless".into(), "dead".into()]);
    ensemble.stop_and_verify();
}

#[test]
fn a_leader_paused_for_longer_than_a_timeout_expires_nobody() {
    let ensemble = Ensemble::of_three();
    let endpoints = ensemble.addresses();
    let ledger = Ledger::default();
    let leader = ensemble.leader();
    let healthy = [(leader + 1) % 3, (leader + 2) % 3];
    let habits = Habits::faithful(Duration::from_secs(4));
    let crowd = Crowd::join(&endpoints, &healthy, "live", 20, &habits, &ledger);
    let watcher = Watcher::start(&endpoints, &["live"], &ledger);
    ensemble.pause(leader);
    Deadline::after(Duration::from_secs(7)).pass();
    ensemble.resume(leader);
    // What it might do on waking, it does within a lease and a timeout.
    ensemble.wait_until_all_serve();
    Deadline::after(Duration::from_secs(5)).pass();
    watcher.end();
    println!("{:?}", ledger.tally());
    ledger.expect_kept();
    assert_eq!(
        ledger.tally().lapsed,
        0,
        "the healthy servers answer in time"
    );
    let alive = ensemble.ask(leader, "GET", "/live").expect("a document");
    assert_eq!(active(&alive).len(), 20);
    crowd.die();
}

#[test]
fn a_follower_cut_off_stops_promising_before_its_sessions_can_expire() {
    let timeout = Duration::from_secs(4);
    let ensemble = Ensemble::of_three();
    let endpoints = ensemble.addresses();
    let ledger = Ledger::default();
    let follower = ensemble.follower();
    let habits = Habits {
        stays: true,
        ..Habits::faithful(timeout)
    };
    let crowd = Crowd::join(&endpoints, &[follower], "cut", 10, &habits, &ledger);
    let watcher = Watcher::start(&endpoints, &["cut"], &ledger);
    ensemble.isolate(follower);
    let cut = now();
    let first_refusal = poll(LEASE * 2, "the first refusal", || {
        let answer = ensemble.ask(follower, "GET", "/-/readyz")?;
        (answer.status == 503).then(|| now() - cut)
    });
    assert!(first_refusal <= LEASE + SLACK, "{first_refusal:?}");
    let mut caller = Caller::new(endpoints.clone(), follower, timeout);
    let mut promised = 0;
    // The others expire the sessions; to the end of that nobody is promised anything here.
    let bound = ORPHAN_SLACK + timeout + LEASE;
    poll(bound, "the end of the sessions", || {
        let answer = caller.ask("HEAD", "/cut/m0", &[], b"").ok()?;
        promised += u32::from(answer.status < 300);
        let document = ensemble.ask((follower + 1) % 3, "GET", "/cut")?;
        (document.status == 200 && active(&document).is_empty()).then_some(())
    });
    assert_eq!(promised, 0, "beats that were answered 2xx behind the cut");
    let until_empty = now() - cut;
    println!("refused after {first_refusal:?}, expired after {until_empty:?}");
    ensemble.network.heal();
    ensemble.wait_until_all_serve();
    crowd.die();
    watcher.end();
    ledger.expect_kept();
}

#[test]
fn a_full_stop_longer_than_every_timeout_expires_nobody_who_beats_again() {
    let timeout = Duration::from_secs(5);
    let mut ensemble = Ensemble::of_three();
    let endpoints = ensemble.addresses();
    let mut caller = Caller::new(endpoints.clone(), 0, Duration::from_secs(2));
    let mut sessions = Vec::new();
    for number in 0..30 {
        caller.turn_to(number % 3);
        let target = format!("/g/m{number}");
        let joined = caller.ask("PUT", &format!("{target}?timeout=5s"), &[], b"");
        let id = joined.expect("an answer").expect(201).session();
        sessions.push((target, id));
    }
    for server in 0..3 {
        ensemble.kill(server);
    }
    Deadline::after(timeout + LEASE).pass();
    ensemble.start_servers(&[0, 1, 2]);
    // Within the grace, which a session has in full from the moment its server is ready.
    for (number, (target, id)) in sessions.iter().enumerate() {
        caller.turn_to((number / 3) % 3);
        let headers = [("x-session-id", id.as_str())];
        let what = format!("a beat for {target}");
        let answer = poll(timeout, &what, || {
            let answer = caller.ask("HEAD", target, &headers, b"").ok()?;
            (answer.status != 503).then_some(answer)
        });
        assert_eq!(answer.expect(204).session(), *id);
    }
    let document = ensemble.ask(2, "GET", "/g").expect("a document");
    assert_eq!(active(&document).len(), 30);
    wait_until_empty(&ensemble, 1, "g", timeout + LEASE + ORPHAN_SLACK);
    ensemble.stop_and_verify();
}

#[test]
fn a_beat_at_the_wrong_server_costs_no_transaction() {
    let ensemble = Ensemble::of_three();
    let leader = ensemble.leader();
    // Neither owner nor asker leads, so that a message to the leader would be one too many.
    let (owner, asker) = ((leader + 1) % 3, (leader + 2) % 3);
    let endpoints = ensemble.addresses();
    let mut callers: Vec<Caller> = (0..20)
        .map(|_| Caller::new(endpoints.clone(), owner, Duration::from_secs(2)))
        .collect();
    for (number, caller) in callers.iter_mut().enumerate() {
        let joined = caller.ask("PUT", &format!("/g/m{number}?timeout=1m"), &[], b"");
        joined.expect("an answer").expect(201);
    }
    ensemble.expect_equal(&["g".into()]);
    let costs = || {
        let last = ensemble.cluster(leader).expect("an answer")["last_zxid"].to_string();
        let of = |name| ensemble.counters(name);
        (
            last,
            of("systole_log_bytes_total"),
            of("systole_log_syncs_total"),
            of("systole_moves_total"),
        )
    };
    // Fewer times in a row than what counts as having settled.
    let (before, rounds) = (costs(), 4);
    for _ in 0..rounds {
        for (number, caller) in callers.iter_mut().enumerate() {
            caller.turn_to(asker);
            let beat = caller.ask("HEAD", &format!("/g/m{number}"), &[], b"");
            beat.expect("an answer").expect(204);
        }
    }
    // Counters are shown a little later than they count.
    poll(SHOWN, "the forwarded beats in the counters", || {
        let forwarded = ensemble.counter(asker, "systole_forwarded_total");
        let taken = ensemble.counter(owner, "systole_heartbeats_forwarded_in_total");
        (forwarded == 20 * rounds && taken == 20 * rounds).then_some(())
    });
    assert_eq!(costs(), before);
    assert_eq!(
        ensemble.counter(leader, "systole_heartbeats_forwarded_in_total"),
        0
    );
}

#[test]
fn a_client_that_alternates_servers_moves_nothing() {
    let ensemble = Ensemble::of_three();
    let endpoints = ensemble.addresses();
    let ledger = Ledger::default();
    let habits = Habits {
        wanders: true,
        ..Habits::faithful(Duration::from_millis(1_500))
    };
    let crowd = Crowd::join(&endpoints, &[0, 1, 2], "g", 6, &habits, &ledger);
    let enough = || (ledger.tally().beats >= 120).then_some(());
    poll(Duration::from_secs(30), "twenty beats of each", enough);
    crowd.die();
    ledger.expect_kept();
    // An owner that is not run for half a second is taken for lost, and its sessions move: on a
    // busy machine that happens, and has nothing to do with who alternates.
    let (moves, beats) = (
        ensemble.counters("systole_moves_total"),
        ledger.tally().beats,
    );
    assert!(moves * 10 <= beats, "{moves} moves in {beats} beats");
}

#[test]
fn a_client_that_has_settled_elsewhere_is_moved_once() {
    let ensemble = Ensemble::of_three();
    let endpoints = ensemble.addresses();
    let leader = ensemble.leader();
    let (owner, other) = ((leader + 1) % 3, (leader + 2) % 3);
    let mut caller = Caller::new(endpoints, owner, Duration::from_secs(2));
    let joined = caller.ask("PUT", "/g/m?timeout=1m", &[], b"");
    let id = joined.expect("an answer").expect(201).session();
    caller.turn_to(other);
    let mut beats = 0;
    poll(SHOWN, "the move in the counters", || {
        let beat = caller.ask("HEAD", "/g/m", &[], b"").expect("an answer");
        assert_eq!(beat.expect(204).session(), id);
        beats += 1;
        let held = |i| ensemble.counter(i, "systole_sessions");
        (held(owner) == 0 && held(other) == 1).then_some(())
    });
    assert!(beats >= 8, "{beats} beats were taken for having settled");
    let last = || ensemble.cluster(leader).expect("an answer")["last_zxid"].to_string();
    let before = last();
    for _ in 0..10 {
        caller
            .ask("HEAD", "/g/m", &[], b"")
            .expect("an answer")
            .expect(204);
    }
    assert_eq!(last(), before, "it stays where it has settled");
}

#[test]
fn a_rolling_restart_expires_nobody_and_costs_others_no_beat() {
    let timeout = Duration::from_secs(5);
    let mut ensemble = Ensemble::of_three();
    let endpoints = ensemble.addresses();
    let ledger = Ledger::default();
    let habits = Habits::faithful(timeout);
    let crowd = Crowd::join(&endpoints, &[0, 1, 2], "live", 18, &habits, &ledger);
    let watcher = Watcher::start(&endpoints, &["live"], &ledger);
    for server in 0..3 {
        ensemble.stop(server);
        ensemble.start_servers(&[server]);
        ensemble.wait_until_all_serve();
    }
    Deadline::after(timeout).pass();
    watcher.end();
    println!("{:?}", ledger.tally());
    ledger.expect_kept();
    assert_eq!(
        ledger.tally().lapsed,
        0,
        "whoever beats is answered in time"
    );
    let alive = ensemble.ask(0, "GET", "/live").expect("a document");
    assert_eq!(active(&alive).len(), 18);
    crowd.die();
    ensemble.expect_equal(&["live".into()]);
    ensemble.stop_and_verify();
}

#[test]
fn joins_during_an_election_are_answered_and_hold() {
    let mut ensemble = Ensemble::of_three();
    let endpoints = ensemble.addresses();
    let leader = ensemble.leader();
    ensemble.kill(leader);
    let asked: Vec<_> = (0..24)
        .map(|number| {
            let at = endpoints[(leader + 1 + number % 2) % 3];
            std::thread::spawn(move || {
                let mut caller = Caller::new(vec![at], 0, Duration::from_secs(8));
                let target = format!("/g/m{number}?timeout=1m");
                let answer = caller.ask("PUT", &target, &[], b"").expect("an answer");
                (format!("m{number}"), answer)
            })
        })
        .collect();
    let mut joined = Vec::new();
    for thread in asked {
        let (name, answer) = thread.join().expect("a client's end");
        match answer.status {
            201 => joined.push(name),
            _ => drop(answer.expect_problem(503, "no_quorum")),
        }
    }
    println!("{} of 24 joined", joined.len());
    ensemble.start_servers(&[leader]);
    ensemble.wait_until_all_serve();
    ensemble.expect_equal(&["g".into()]);
    let shown = ask(endpoints[leader], "GET", "/g?consistent", &[]).expect("a document");
    let shown = active(&shown);
    for name in joined {
        assert!(shown.contains(&name), "{name} was told that it has joined");
    }
}

#[test]
fn a_leader_whose_wire_is_cut_is_followed_by_another_and_comes_back() {
    let Some(ensemble) = Ensemble::start_in_namespaces(3) else {
        return;
    };
    let endpoints = ensemble.addresses();
    let ledger = Ledger::default();
    let habits = Habits::faithful(Duration::from_secs(6));
    let crowd = Crowd::join(&endpoints, &[0, 1, 2], "live", 9, &habits, &ledger);
    let watcher = Watcher::start(&endpoints, &["live"], &ledger);
    let leader = ensemble.leader();
    ensemble.isolate(leader);
    Deadline::after(Duration::from_secs(7)).pass();
    ensemble.network.heal();
    let healed = now();
    ensemble.wait_until_all_serve();
    println!("{:?} until all served again", now() - healed);
    watcher.end();
    println!("{:?}", ledger.tally());
    ledger.expect_kept();
    assert_eq!(
        ledger.tally().lapsed,
        0,
        "whoever beats is answered in time"
    );
    crowd.die();
    ensemble.expect_equal(&["live".into()]);
}

#[test]
fn a_follower_whose_disk_is_full_ends_and_takes_nobody_with_it() {
    let Some(disk) = SmallDisk::of(160) else {
        return;
    };
    let dirs = [0, 1, 2].map(|server| (server == 0).then(|| disk.path().join("data")));
    let mut ensemble = Ensemble::start_in(&dirs, &[]);
    let endpoints = ensemble.addresses();
    let ledger = Ledger::default();
    let habits = Habits::faithful(Duration::from_secs(6));
    let crowd = Crowd::join(&endpoints, &[0, 1, 2], "live", 9, &habits, &ledger);
    let watcher = Watcher::start(&endpoints, &["live"], &ledger);
    let ballast = disk.path().join("ballast");
    fill(&ballast);
    // A new epoch has to be written down before anybody may be promised anything in it.
    let leader = ensemble.leader();
    if leader == 0 {
        ensemble.pause(0);
        // The others have long found another leader then.
        Deadline::after(LEASE).pass();
        ensemble.resume(0);
    } else {
        ensemble.kill(leader);
        ensemble.start_servers(&[leader]);
    }
    let ended = ensemble.wait_for_end(0);
    ended.expect_sentence(1, &["No space left"]);
    ensemble.wait_until_all_serve();
    let so_far = ledger.tally().beats;
    let enough = || (ledger.tally().beats >= so_far + 27).then_some(());
    poll(Duration::from_secs(30), "three beats of each", enough);
    std::fs::remove_file(&ballast).expect("the ballast to be removed");
    ensemble.start_servers(&[0]);
    ensemble.wait_until_all_serve();
    watcher.end();
    println!("{:?}", ledger.tally());
    ledger.expect_kept();
    assert_eq!(
        ledger.tally().lapsed,
        0,
        "whoever beats is answered in time"
    );
    crowd.die();
    ensemble.expect_equal(&["live".into()]);
    ensemble.stop_and_verify();
}

/// Writes a file until there is no room for more.
fn fill(file: &Path) {
    let mut file = std::fs::File::create(file).expect("a file");
    for size in [1 << 20, 1 << 12, 1] {
        while file.write_all(&vec![0; size]).is_ok() {}
    }
}

/// The length of a lease as it ships.
const LEASE: Duration = Duration::from_secs(3);

/// What a busy machine may add to a time that is exact otherwise.
const SLACK: Duration = Duration::from_secs(1);

/// What losing an owner may add: noticing, an election, drift, and a busy machine.
const ORPHAN_SLACK: Duration = Duration::from_secs(5);

/// How late counters are shown.
const SHOWN: Duration = Duration::from_secs(5);
