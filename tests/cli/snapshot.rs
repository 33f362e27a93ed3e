//! Backup and restore of a data directory.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serde_json::Value;

use crate::common::{Ended, Server, Setup, run_to_end, systole};
use crate::servers::Ensemble;
use crate::{json, printed, run};

fn setup() -> Setup {
    Setup::new().flag("--shards", "1").flag("--pin", "off")
}

fn snapshot(args: &[&str]) -> Ended {
    run_to_end(systole().arg("snapshot").args(args))
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

#[track_caller]
fn save(dir: &Path, file: &Path) -> String {
    let ended = snapshot(&["save", text(file), "--data-dir", text(dir)]);
    assert_eq!((ended.code, &*ended.stderr), (Some(0), ""), "{ended:?}");
    ended.stdout
}

/// Documents of all groups, endpoints aside, which differ.
fn documents(server: &Server) -> Vec<String> {
    let groups = json(server, &["groups", "--json"]);
    let groups = groups.as_array().expect("a list").iter();
    groups
        .map(|group| {
            let name = group["name"].as_str().expect("a name");
            let mut document = json(server, &["get", name, "--json"]);
            document["endpoints"].take();
            format!("{group} {document}")
        })
        .collect()
}

#[test]
fn what_was_saved_from_a_running_server_is_served_by_one_on_the_restored_directory() {
    let home = tempfile::tempdir().expect("a directory");
    let (file, dir) = (home.path().join("backup"), home.path().join("restored"));
    let server = setup().start();
    for member in ["a/one", "a/two", "b/one"] {
        printed(&server, &["join", member, "--timeout", "1h"]);
    }
    let config = home.path().join("config");
    std::fs::write(&config, "{\"port\": 1}").expect("to write");
    printed(&server, &["config", "put", "a/three", text(&config)]);
    let old = json(&server, &["join", "a/one", "--json"]);

    let said = save(server.dir(), &file);
    assert!(said.contains("2 groups, 4 members"), "{said}");
    let checked = snapshot(&["verify", text(&file)]);
    assert!(
        checked.stdout.contains("2 groups, 4 members"),
        "{checked:?}"
    );
    let expected = documents(&server);
    printed(&server, &["join", "c/later"]);

    let restored = snapshot(&["restore", text(&file), text(&dir)]);
    assert_eq!(
        (restored.code, &*restored.stderr),
        (Some(0), ""),
        "{restored:?}"
    );
    let verified = run_to_end(systole().args(["log", "verify", text(&dir)]));
    assert_eq!(verified.code, Some(0), "{verified:?}");
    let mut second = setup().dir(&dir).start();
    assert_eq!(documents(&second), expected);
    let session = old["session"].as_str().expect("a session");
    printed(&second, &["beat", "a/one", "--session", session]);
    let later = json(&server, &["join", "d/original", "--json"]);
    let apart = json(&second, &["join", "d/restored", "--json"]);
    let (later, apart) = (later["session"].as_str(), apart["session"].as_str());
    assert!(apart > later, "both give out ids: {later:?} and {apart:?}");
    second.restart();
    assert_eq!(documents(&second)[..2], expected[..]);
}

#[test]
fn a_server_may_write_snapshots_and_log_while_it_is_saved() {
    let home = tempfile::tempdir().expect("a directory");
    let file = home.path().join("backup");
    let server = setup().start();
    let done = AtomicBool::new(false);
    let mut members = 0;
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let (mut client, mut joined) = (server.client(), 0);
            while !done.load(Ordering::Acquire) {
                let answer = client.ask("PUT", &format!("/g/m{joined}?timeout=1h"));
                assert_eq!(answer.status, 201);
                joined += 1;
            }
            joined
        });
        let mut counts = Vec::new();
        for _ in 0..8 {
            let before = json(&server, &["groups", "--json"])[0]["active"].as_u64();
            let said = save(server.dir(), &file);
            let count: u64 = said
                .split_whitespace()
                .zip(said.split_whitespace().skip(1))
                .find_map(|(number, word)| word.starts_with("members").then(|| number.parse()))
                .expect("a count")
                .expect("a number");
            assert!(
                Some(count) >= before,
                "{said}: answered before it began: {before:?}"
            );
            counts.push(count);
        }
        assert!(counts.is_sorted(), "{counts:?}");
        done.store(true, Ordering::Release);
        members = writer.join().expect("the writer");
    });
    drop(server);
    assert!(members > 0);
}

#[test]
fn a_damaged_backup_is_found_out_and_nothing_is_made_of_it() {
    let home = tempfile::tempdir().expect("a directory");
    let (file, dir) = (home.path().join("backup"), home.path().join("restored"));
    let mut server = setup().start();
    printed(&server, &["join", "a/one"]);
    server.stop();
    save(server.dir(), &file);
    let whole = std::fs::read(&file).expect("to read");
    for at in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[at] ^= 4;
        std::fs::write(&file, &flipped).expect("to write");
        if at % 16 == 0 {
            let ended = snapshot(&["restore", text(&file), text(&dir)]);
            assert!(matches!(ended.code, Some(1 | 2)), "byte {at}: {ended:?}");
            ended.expect_sentence(ended.code.unwrap_or(0), &["backup"]);
            assert!(!dir.exists(), "byte {at}");
        }
    }
    for length in [0, 39, 40, whole.len() - 1] {
        std::fs::write(&file, &whole[..length]).expect("to write");
        let ended = snapshot(&["verify", text(&file)]);
        ended.expect_sentence(ended.code.unwrap_or(0), &["backup"]);
    }
}

#[test]
fn nothing_is_restored_over_what_is_there_and_nothing_saved_of_what_is_none() {
    let home = tempfile::tempdir().expect("a directory");
    let file = home.path().join("backup");
    let server = setup().start();
    save(server.dir(), &file);
    let ended = snapshot(&["restore", text(&file), text(server.dir())]);
    ended.expect_sentence(2, &["not empty"]);
    let ended = snapshot(&["save", text(&file), "--data-dir", text(home.path())]);
    ended.expect_sentence(2, &["no data directory"]);
    snapshot(&["save", text(&file), "--data-dir", "/nowhere"]).expect_sentence(1, &["/nowhere"]);
    snapshot(&["verify", "/nowhere/file"]).expect_sentence(1, &["/nowhere"]);
    run(&server, &["snapshot"]).expect_sentence(2, &["subcommand"]);
}

/// Copies a directory as `cp -r` does.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        let (old, new) = (entry.path(), to.join(entry.file_name()));
        if old.is_dir() {
            copy(&old, &new);
        } else {
            std::fs::copy(&old, &new).expect("to copy");
        }
    }
}

/// The group as a server of an ensemble shows it, endpoints aside, once it may serve.
fn group_at(ensemble: &Ensemble, which: usize) -> Value {
    let answer = ensemble.ask(which, "GET", "/db").expect("an answer");
    let mut document = answer.json();
    document["endpoints"].take();
    document["version"] = answer.version().into();
    document
}

/// Joins `db/one`, and two more; gives its session.
fn members(ensemble: &Ensemble, which: usize) -> String {
    let joined = ensemble.ask(which, "PUT", "/db/one?timeout=1h");
    for target in ["/db/two?timeout=1h", "/db/three?timeout=1h"] {
        let answer = ensemble.ask(which, "PUT", target).expect("an answer");
        assert_eq!(answer.status, 201);
    }
    let joined = joined.expect("an answer");
    joined.session()
}

/// Fails unless all show this group, `db/one` is still in this session, and a member can join.
fn expect_restored(ensemble: &Ensemble, expected: &Value, session: &str) {
    for which in 0..ensemble.len() {
        assert_eq!(&group_at(ensemble, which), expected, "server {}", which + 1);
    }
    let addresses = ensemble.addresses().into_iter();
    let addresses: Vec<String> = addresses.map(|address| address.to_string()).collect();
    let beat = ["beat", "db/one", "--session", session, "--endpoint"];
    let ended = run_to_end(systole().args(beat).arg(addresses.join(",")));
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let joined = ensemble.ask(0, "PUT", "/db/four").expect("an answer");
    assert_eq!(joined.status, 201);
    let new = joined.session();
    assert!(*new > *session, "{new} comes after {session}");
}

#[test]
fn an_ensemble_goes_back_to_the_copy_of_a_stopped_servers_directory() {
    let home = tempfile::tempdir().expect("a directory");
    let kept = home.path().join("copy");
    let mut ensemble = Ensemble::of_three();
    let session = members(&ensemble, 0);
    ensemble.expect_equal(&["db".to_owned()]);
    let expected = group_at(&ensemble, 0);
    let which = ensemble.follower();
    ensemble.stop(which);
    copy(ensemble.data_dir(which), &kept);
    ensemble.start_servers(&[which]);
    let verified = run_to_end(systole().args(["log", "verify", text(&kept)]));
    assert_eq!(verified.code, Some(0), "{verified:?}");
    ensemble.wait_until_all_serve();
    let later = ensemble.ask(which, "DELETE", "/db/two").expect("an answer");
    assert_eq!(later.status, 204, "what was done after the copy");
    drop(ensemble);

    let mut dirs = vec![None; 3];
    dirs[which] = Some(kept);
    let ensemble = Ensemble::start_in(&dirs, &[]);
    ensemble.wait_until_all_serve();
    expect_restored(&ensemble, &expected, &session);
    ensemble.stop_and_verify();
}

#[test]
fn a_restored_backup_founds_an_ensemble_with_servers_that_have_nothing() {
    let home = tempfile::tempdir().expect("a directory");
    let (file, dir) = (home.path().join("backup"), home.path().join("restored"));
    let ensemble = Ensemble::of_three();
    let leader = ensemble.leader();
    let session = members(&ensemble, leader);
    save(ensemble.data_dir(leader), &file);
    let expected = group_at(&ensemble, leader);
    drop(ensemble);

    let restored = snapshot(&["restore", text(&file), text(&dir)]);
    assert_eq!(restored.code, Some(0), "{restored:?}");
    let ensemble = Ensemble::start_in(&[Some(dir), None, None], &[]);
    ensemble.wait_until_all_serve();
    expect_restored(&ensemble, &expected, &session);
    ensemble.stop_and_verify();
}
