//! `watch` against servers, and what becomes of it when they are lost.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use systole::client::Client;
use systole::time::Millis;
use systole::types::GroupVersion;

use crate::common::{Deadline, Killed, Setup, now, poll, systole};
use crate::servers::Ensemble;
use crate::{json, printed};

const TIME: Duration = Duration::from_secs(20);

/// `systole watch` in the background, and its lines.
fn watch(endpoints: &str, group: &str) -> (Killed, Receiver<String>) {
    let mut child = systole()
        .args(["watch", group, "--endpoint", endpoints])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program");
    let pipe = BufReader::new(child.stdout.take().expect("piped"));
    let (tell, told) = channel();
    thread::spawn(move || {
        for line in pipe.lines().map_while(Result::ok) {
            let _ = tell.send(line);
        }
    });
    (Killed(child), told)
}

#[track_caller]
fn next(told: &Receiver<String>) -> Vec<String> {
    let line = told.recv_timeout(TIME).expect("an event");
    line.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn what_happens_in_a_group_is_shown_as_it_happens() {
    let server = Setup::new()
        .flag("--shards", "1")
        .flag("--pin", "off")
        .start();
    printed(&server, &["join", "db/db1", "--timeout", "1h"]);
    let (_watch, told) = watch(&server.address().to_string(), "db");
    assert_eq!(
        next(&told),
        ["0", "snapshot", "1", "active,", "0", "inactive:", "db1"]
    );
    printed(&server, &["join", "db/db2", "--timeout", "200ms"]);
    assert_eq!(next(&told)[..3], ["1", "join", "db2"]);
    assert_eq!(next(&told)[..3], ["2", "expire", "db2"]);
    printed(&server, &["leave", "db/db1"]);
    assert_eq!(next(&told)[..3], ["3", "leave", "db1"]);
}

/// Waits until each of the servers has come to this version of the group `db`.
fn wait_for(servers: &[String], version: u64) {
    for server in servers {
        let group = Client::new([server]).and_then(|client| client.group("db"));
        let group = group.expect("a client");
        poll(TIME, "each server to have come to the version", || {
            (group.get().ok()?.version == GroupVersion(version)).then_some(())
        });
    }
}

/// A watcher of three servers loses its own after `m1` joined. `m2` to `m9` join before it can turn
/// to another, and before the kill `elsewhere` is called with the addresses of the two that stay.
/// Returns what the watcher then shows until it is at the last of them.
fn watch_through_a_kill<T>(elsewhere: impl FnOnce(&[String]) -> T) -> Vec<Vec<String>> {
    let mut ensemble = Ensemble::of_three();
    let lost = ensemble.follower();
    let at = |i: usize| ensemble.addresses()[i].to_string();
    let all = (0..3).map(|step| at((lost + step) % 3)).collect::<Vec<_>>();
    let others = Client::new(&all[1..]).expect("a client");
    let group = others.group("db").expect("a name");
    let join = |name: &str| {
        let mut terms = systole::client::Terms::new("db", name);
        terms.timeout = Some(Millis::from_secs(3_600));
        group.join(&terms).expect("to join");
    };
    join("m0");
    wait_for(&all, 0);
    let _elsewhere = elsewhere(&all[1..]);
    let (watcher, told) = watch(&all.join(","), "db");
    assert_eq!(next(&told)[..2], ["0", "snapshot"]);
    join("m1");
    assert_eq!(next(&told)[..3], ["1", "join", "m1"]);
    let signal = |signal| kill_process(Pid::from_child(&watcher.0), signal).expect("to signal it");
    signal(Signal::STOP);
    ensemble.kill(lost);
    for n in 2..10 {
        join(&format!("m{n}"));
    }
    wait_for(&all[1..], 9);
    signal(Signal::CONT);
    let mut shown = vec![next(&told)];
    while shown[shown.len() - 1][0] != "9" {
        shown.push(next(&told));
    }
    shown
}

#[test]
fn a_watcher_whose_server_is_killed_is_told_each_event_by_one_that_has_kept_them() {
    let shown = watch_through_a_kill(|stay| {
        // A server keeps a group's events from when somebody watches the group there.
        [0, 1].map(|at| {
            let (watcher, told) = watch(&stay[at], "db");
            assert_eq!(next(&told)[..2], ["0", "snapshot"]);
            watcher
        })
    });
    let told = (2..10).map(|n| [n.to_string(), "join".to_owned(), format!("m{n}")]);
    let shown = shown.iter().map(|line| &line[..3]).collect::<Vec<_>>();
    assert_eq!(shown, told.collect::<Vec<_>>());
}

#[test]
fn a_watcher_whose_server_is_killed_is_shown_the_whole_by_one_that_has_kept_nothing() {
    let shown = watch_through_a_kill(|_| ());
    let [only] = &shown[..] else {
        panic!("more than a snapshot: {shown:?}");
    };
    let head = ["9", "snapshot", "10", "active,", "0", "inactive:"].map(str::to_owned);
    let members = (0..10).map(|n| format!("m{n}"));
    assert_eq!(*only, head.into_iter().chain(members).collect::<Vec<_>>());
}

#[test]
fn a_long_poll_comes_back_with_the_change_or_with_the_same_when_its_time_is_over() {
    let server = Setup::new()
        .flag("--shards", "1")
        .flag("--pin", "off")
        .start();
    printed(&server, &["join", "db/db1", "--timeout", "1h"]);
    // Of two servers none may be asked for long, unless waiting is what is asked for.
    let here = server.address().to_string();
    let client = Client::new([&here, "127.0.0.1:1"]).expect("a client");
    let group = client.group("db").expect("a name");
    let same = group
        .get_after(GroupVersion(0), Millis(300))
        .expect("a document");
    assert_eq!(same.version, GroupVersion(0));
    thread::scope(|scope| {
        let waits = scope.spawn(|| group.get_after(GroupVersion(0), Millis(15_000)));
        Deadline::after(Duration::from_millis(3_500)).pass();
        json(&server, &["join", "db/db2", "--json"]);
        let changed = waits.join().expect("no panic").expect("a document");
        assert_eq!(
            (changed.version, changed.active.len()),
            (GroupVersion(1), 2)
        );
    });
}

/// How soon a kill is shown is a figure, and `loadgen watch` measures it: this machine may be busy.
/// Here each kill is shown, once, and as an expiry.
#[test]
fn each_member_that_is_killed_is_shown_to_have_expired() {
    let server = Setup::new()
        .flag("--shards", "1")
        .flag("--pin", "off")
        .start();
    let endpoint = server.address().to_string();
    printed(&server, &["join", "db/stays", "--timeout", "1h"]);
    let (_watch, told) = watch(&endpoint, "db");
    next(&told);
    let mut took = Vec::new();
    for round in 0..3 {
        let args = ["join", "db/db1", "--keep", "--timeout", "1s", "--endpoint"];
        let mut command = systole();
        command.args(args).arg(&endpoint).stderr(Stdio::null());
        let member = Killed(command.spawn().expect("the program"));
        assert_eq!(next(&told), [&(2 * round + 1).to_string(), "join", "db1"]);
        let killed = now();
        drop(member);
        assert_eq!(
            next(&told)[..3],
            [&(2 * round + 2).to_string(), "expire", "db1"]
        );
        took.push(killed.elapsed());
    }
    println!("expiries were shown {took:?} after the kill");
}
