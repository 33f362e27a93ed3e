//! The generator against a stub that keeps the contract, and against stubs that lie.
#![allow(
    clippy::disallowed_methods,
    reason = "the stub keeps real time, as a server does"
)]

mod stub;

use std::process::{Command, Output};
use stub::Lie;

fn loadgen(lie: Lie, args: &str) -> (i32, String) {
    let address = stub::start(lie);
    let mut words = args.split_whitespace();
    let output: Output = Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .arg(words.next().unwrap())
        .args(["--endpoint", &address.to_string()])
        .args(words)
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.code().unwrap(),
        String::from_utf8(text).unwrap(),
    )
}

/// Everything at once, in little time: 400 members, some of which die, leave and rejoin.
const CHURN: &str = "beat --sessions 400 --connections 4 --groups 5 --timeout 500ms --interval 120ms \
    --duration 2400ms --warmup 50ms --die 0.05 --leave 0.05 --rejoin 0.05 --late-bound 400ms";
/// Only beats.
const PLAIN: &str = "beat --sessions 100 --connections 4 --groups 2 --timeout 5s --interval 50ms \
    --duration 400ms --warmup 50ms";

#[track_caller]
fn clean(args: &str) -> String {
    let (code, said) = loadgen(Lie::None, args);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("faults: none"), "{said}");
    said
}

#[track_caller]
fn caught(lie: Lie, args: &str, fault: &str) {
    let (code, said) = loadgen(lie, args);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains(fault), "no `{fault}` in: {said}");
}

#[test]
fn an_honest_server_is_found_honest_under_churn() {
    let said = clean(CHURN);
    for word in ["seen to expire", "rejoined", "expiry-lateness"] {
        assert!(said.contains(word), "no `{word}` in: {said}");
    }
}

#[test]
fn an_honest_server_is_found_honest_in_every_mode() {
    clean(&format!("{PLAIN} --closed"));
    clean(&format!("{PLAIN} --closed --pipeline 8 --with-id"));
    clean(&format!("{PLAIN} --mode batch-id --batch 20"));
    clean(&format!("{PLAIN} --mode batch-name --batch 7 --closed"));
    clean(&format!("{PLAIN} --threads 2 --burst 3"));
    clean("join --sessions 500 --connections 3 --outstanding 1");
}

#[test]
fn a_mass_that_expires_together_is_watched_to_its_end() {
    let said = clean(
        "expire --sessions 1000 --connections 4 --groups 3 --timeout 700ms --interval 150ms \
         --duration 500ms --share 0.8",
    );
    assert!(said.contains("first deadline to last gone"), "{said}");
}

#[test]
fn another_sessions_id_is_caught() {
    caught(Lie::WrongSession, PLAIN, "wrong session id");
}

#[test]
fn a_version_that_goes_back_is_caught() {
    caught(Lie::VersionBack, PLAIN, "version went back");
}

#[test]
fn a_404_for_a_live_member_is_caught() {
    caught(Lie::Forgets, PLAIN, "promise broken");
    let batch = format!("{PLAIN} --mode batch-id --batch 10 --closed");
    caught(Lie::ForgetsInBatch, &batch, "promise broken");
}

#[test]
fn expiry_too_early_and_too_late_are_caught() {
    caught(Lie::Hasty, CHURN, "expired too early");
    caught(Lie::Sluggish, CHURN, "listed too long");
    // Nearly a second too early, so that a stub which is held up does not seem to be honest.
    let mass = "expire --sessions 300 --connections 2 --groups 3 --timeout 3s --interval 600ms \
        --duration 700ms --share 0.8";
    caught(Lie::Hasty, mass, "expired too early");
}

#[test]
fn an_ended_session_that_is_answered_is_caught() {
    caught(Lie::Ghosts, CHURN, "ended session answered");
}

#[test]
fn an_old_id_for_a_new_session_is_caught() {
    caught(Lie::SameId, CHURN, "session id not growing");
}

#[test]
fn refusals_hang_ups_and_garbage_are_caught() {
    caught(Lie::Unavailable, PLAIN, "unavailable");
    caught(Lie::HangsUp, PLAIN, "disconnected");
    caught(Lie::Garbage, PLAIN, "not HTTP");
}

#[test]
fn an_answer_that_never_comes_is_caught() {
    caught(Lie::Silent, &format!("{PLAIN} --with-id"), "FAULTS");
}

#[test]
fn disconnects_are_forgiven_where_they_are_expected() {
    let (_, said) = loadgen(Lie::HangsUp, &format!("{PLAIN} --tolerate-disconnects"));
    assert!(!said.contains("disconnected"), "{said}");
    assert!(said.contains("connections that ended"), "{said}");
}

#[test]
fn another_machine_is_refused() {
    let output = Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .args(["join", "--endpoint", "192.0.2.1:80"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("not this machine"), "{said}");
}

#[test]
fn a_stall_is_seen_by_every_beat_that_was_due_in_it() {
    let dir = std::env::temp_dir().join(format!("loadgen-stall-{}", std::process::id()));
    let args = "beat --sessions 100 --connections 4 --groups 2 --timeout 5s --interval 100ms \
        --duration 2s --warmup 100ms";
    let (code, said) = loadgen(Lie::Stalls, &format!("{args} --out {}", dir.display()));
    assert_eq!(code, 0, "{said}");
    let folder = std::fs::read_dir(&dir).unwrap().next().unwrap().unwrap();
    let text = std::fs::read_to_string(folder.path().join("summary.json")).unwrap();
    let summary: serde_json::Value = serde_json::from_str(&text).unwrap();
    let beat = &summary["latency_ns"]["beat"];
    // A thousand beats a second, and 0.7 s in which none is answered: a third of all wait,
    // half of those longer than 0.35 s. Had the generator waited too, only four would have.
    assert!(beat["p90"].as_u64().unwrap() > 300_000_000, "{beat}");
    assert!(beat["max"].as_u64().unwrap() > 690_000_000, "{beat}");
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn a_run_leaves_its_folder() {
    let dir = std::env::temp_dir().join(format!("loadgen-test-{}", std::process::id()));
    clean(&format!("{PLAIN} --out {}", dir.display()));
    let folder = std::fs::read_dir(&dir)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    for name in [
        "beat.hgrm",
        "intervals.hlog",
        "latency.svg",
        "summary.json",
        "summary.md",
    ] {
        assert!(folder.join(name).is_file(), "{name}");
    }
    std::fs::remove_dir_all(dir).unwrap();
}

/// A soak of three seconds, with churn. How long anything takes is the machine's affair here.
fn soak(lie: Lie) -> (i32, String) {
    let pid = std::process::id();
    let args = format!(
        "soak --pid {pid} --minutes 0.05 --ramp 300ms --sessions 200 --churn 100 --saturation 0.2"
    );
    loadgen(lie, &args)
}

#[test]
fn a_soak_tells_of_latencies_rolls_expiries_and_whose_the_stalls_are() {
    let (code, said) = soak(Lie::None);
    assert!(code < 2, "{said}");
    for part in [
        "beats a second at most",
        "beats, from when each was due",
        "snapshots written, 5 asked for",
        "0 of 200 are gone: holds",
        "no stall over 20.00 ms that is ours",
        "| at, UTC | after | longest wait |",
        "faults: none",
    ] {
        assert!(said.contains(part), "no `{part}` in: {said}");
    }
}

#[test]
fn a_session_that_a_server_forgets_in_a_soak_is_a_fault() {
    let (code, said) = soak(Lie::Forgets);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("promise broken"), "{said}");
    assert!(said.contains("nobody expires"), "{said}");
}
