//! The scripts of `tuning/` say what they promise to, and a server serves with every knob
//! turned as far as it goes. What the scripts measure is not tested: that takes minutes and a
//! machine of their own.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use common::{Deadline, Server, Setup, now, skipped};
use systole::config::{
    BATCH_WINDOW_US_MAX, BUSY_POLL_US_MAX, RING_DEPTH_MAX, RING_DEPTH_MIN, SEGMENT_MIB_MIN,
    SOCKET_BUFFER_KIB_MAX, SOCKET_BUFFER_KIB_MIN, TUNING_KEYS, env_name,
};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A shell command in the repository, with no setting of the server in its environment.
fn shell(command: &str) -> Output {
    let mut shell = Command::new("bash");
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("SYSTOLE_") {
            shell.env_remove(name);
        }
    }
    let shell = shell.current_dir(root()).args(["-c", command]);
    shell.output().expect("a shell")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

/// The rows of `check.sh` after `before`, and its exit code.
fn check(before: &str) -> (Vec<Vec<String>>, Option<i32>) {
    let output = shell(&format!("{before} tuning/check.sh --rows"));
    let said = text(&output.stderr);
    assert_eq!(said, "", "it complains");
    let rows = text(&output.stdout);
    let rows = rows
        .lines()
        .map(|row| row.split('\t').map(str::to_owned).collect());
    (rows.collect(), output.status.code())
}

/// What the row of `knob` says: now, recommended, verdict.
fn row<'a>(rows: &'a [Vec<String>], knob: &str) -> [&'a str; 3] {
    let found = rows.iter().find(|row| row[0] == knob);
    let found = found.unwrap_or_else(|| panic!("no row for {knob}"));
    [&found[1], &found[2], &found[3]]
}

/// The scripts that are a knob each, by file name.
fn knobs() -> BTreeSet<String> {
    let output = shell(". tuning/lib.sh; knobs");
    let names = text(&output.stdout);
    let names = names.lines().map(|path| path.replace("tuning/", ""));
    names.collect()
}

#[test]
fn check_has_a_whole_row_for_every_knob_and_fails_if_one_differs() {
    let (rows, code) = check("");
    let mut seen = BTreeSet::new();
    for row in &rows {
        assert_eq!(row.len(), 6, "{row:?}");
        assert!(row.iter().all(|cell| !cell.trim().is_empty()), "{row:?}");
        let verdicts = ["ok", "note", "differs"];
        assert!(verdicts.contains(&row[3].as_str()), "{row:?}");
        assert!(seen.insert(row[0].clone()), "{} stands twice", row[0]);
    }
    for (key, default) in TUNING_KEYS {
        let default = default.expect("a knob has a default");
        assert_eq!(row(&rows, key), [default, default, "ok"], "{key}");
    }
    for knob in [
        "open-files",
        "locked-memory",
        "transparent-huge-pages",
        "frequency-governor",
        "guest-halt-poll-ns",
        "page-reporting-order",
        "net.core.somaxconn",
        "kernel.io_uring_disabled",
    ] {
        assert!(seen.contains(knob), "no row for {knob}");
    }
    let differs = rows.iter().any(|row| row[3] == "differs");
    assert_eq!(code, Some(i32::from(differs)));
}

#[test]
fn check_sees_a_limit_that_is_too_low() {
    let (rows, code) = check("ulimit -n 256; ulimit -l 64;");
    assert_eq!(row(&rows, "open-files"), ["256", "1048576", "differs"]);
    assert_eq!(row(&rows, "locked-memory"), ["65536", "8388608", "differs"]);
    assert_eq!(code, Some(1));
    let table = text(&shell("ulimit -n 256; tuning/check.sh").stdout);
    let line = table.lines().find(|line| line.starts_with("open-files "));
    assert!(
        line.is_some_and(|line| line.ends_with(" differs")),
        "{table}"
    );
    // A script alone sees the same of its own knob.
    let alone = |script| shell(&format!("ulimit -n 256; tuning/{script} check")).status;
    assert_eq!(alone("descriptors.sh").code(), Some(1));
    assert_eq!(alone("ring-depth.sh").code(), Some(0));
}

#[test]
fn check_sees_a_setting_that_is_not_the_default() {
    for (key, default) in TUNING_KEYS {
        let before = format!("{}=7", env_name(key));
        let (rows, _) = check(&before);
        let default = default.expect("a knob has a default");
        assert_eq!(row(&rows, key), ["7", default, "note"], "{key}");
    }
}

#[test]
fn check_looks_at_the_server_that_it_is_given() {
    let turned = ["env", "SYSTOLE_TUNING_RING_DEPTH=128"].map(str::to_owned);
    let limited = ["prlimit", "--nofile=300:300"].map(str::to_owned);
    let server = Setup::new().within(&[limited, turned].concat()).start();
    let output = shell(&format!("tuning/check.sh --rows {}", server.id()));
    let rows = text(&output.stdout);
    for beginning in ["tuning.ring-depth\t128\t", "open-files\t300\t"] {
        let found = rows.lines().any(|row| row.starts_with(beginning));
        assert!(found, "{beginning:?} is not in {rows}");
    }
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn what_needs_root_is_refused_to_others_and_changes_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let id = dir.path().join("id");
    fs::write(&id, "#!/bin/sh\necho 1000\n").expect("to write");
    let bin = dir.path().display();
    let command = |script: &str, command| {
        let state = format!("SYSTOLE_TUNING_STATE={bin}/state PATH={bin}:$PATH");
        shell(&format!(
            "chmod +x {bin}/id; {state} tuning/{script} {command}"
        ))
    };
    for script in [
        "halt-poll.sh",
        "hugepages.sh",
        "page-reporting.sh",
        "pinning.sh",
        "sysctl.sh",
    ] {
        for word in ["apply", "undo"] {
            let output = command(script, word);
            assert_eq!(output.status.code(), Some(2), "{script} {word}");
            let said = text(&output.stderr);
            assert!(said.contains("needs root; nothing was changed"), "{said}");
        }
    }
    assert!(!dir.path().join("state").exists());
    let output = command("ring-depth.sh", "apply");
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("a server's setting"));
}

#[test]
fn rounds_are_compared_by_medians_and_ratios_within_a_round() {
    let mut awk = Command::new("awk")
        .current_dir(root())
        .args(["-F", "\t", "-f", "tuning/compared.awk"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("awk");
    let rounds = "CPU\toff\t10\nCPU\ton\t5\nCPU\ton\t30\nCPU\toff\t20\nCPU\toff\t40\nCPU\ton\t40\n\
                  rate\toff\t1500\nrate\ton\t750\n";
    let stdin = awk.stdin.as_mut().expect("piped");
    stdin.write_all(rounds.as_bytes()).expect("to write");
    let output = awk.wait_with_output().expect("to end");
    let lines = text(&output.stdout);
    let lines: Vec<&str> = lines.lines().skip(2).collect();
    assert_eq!(
        lines,
        [
            "| CPU | off | 20.0 (10.0–40.0) |  |",
            "|  | on | 30.0 (5.000–40.0) | 1.000 (0.500–1.500) |",
            "| rate | off | 1500 (1500–1500) |  |",
            "|  | on | 750.0 (750.0–750.0) | 0.500 (0.500–0.500) |",
        ]
    );
}

#[test]
fn every_knob_is_told_of_and_has_an_outcome() {
    let readme = fs::read_to_string(root().join("tuning/README.md")).expect("a README");
    let results = fs::read_dir(root().join("results")).expect("results");
    let folders = results.map(|entry| entry.expect("an entry").path());
    let is_of_tuning = |path: &PathBuf| path.to_string_lossy().contains("-tuning");
    let folders: Vec<_> = folders.filter(is_of_tuning).collect();
    let knobs = knobs();
    assert!(knobs.len() >= 13, "{knobs:?}");
    for script in &knobs {
        assert!(
            readme.contains(&format!("[{script}]({script})")),
            "{script}"
        );
        let outcome = script.replace(".sh", ".md");
        let has_it = |folder: &Path| folder.join(&outcome).exists();
        assert!(folders.iter().any(|folder| has_it(folder)), "{outcome}");
    }
    for (key, default) in TUNING_KEYS {
        let key = key.replace("tuning.", "");
        let default = default.expect("a knob has a default");
        let row = format!("| `{key}` | `{default}` |");
        assert!(readme.contains(&row), "{row:?} is not in the README");
    }
}

/// A server with these knobs turned.
fn turned(knobs: &[(&str, u32)]) -> Server {
    let mut command = vec!["env".to_owned()];
    for (key, value) in knobs {
        command.push(format!("{}={value}", env_name(&format!("tuning.{key}"))));
    }
    Setup::new().within(&command).start()
}

#[test]
fn a_server_serves_and_keeps_with_every_knob_turned_as_far_as_it_goes() {
    let least = [
        ("ring-depth", RING_DEPTH_MIN),
        ("segment-mib", SEGMENT_MIB_MIN),
        ("socket-buffer-kib", SOCKET_BUFFER_KIB_MIN),
    ];
    // The longest segment would want a GiB of the disk.
    let most = [
        ("batch-window-us", BATCH_WINDOW_US_MAX),
        ("busy-poll-us", BUSY_POLL_US_MAX),
        ("ring-depth", RING_DEPTH_MAX),
        ("segment-mib", 2 * SEGMENT_MIB_MIN),
        ("socket-buffer-kib", SOCKET_BUFFER_KIB_MAX),
    ];
    for knobs in [&least[..], &most[..]] {
        let mut server = turned(knobs);
        let mut client = server.client();
        client.ask("PUT", "/g/m").expect(201);
        client.ask("HEAD", "/g/m").expect_any(&[200, 204]);
        let long = vec![b'x'; 64 * 1024];
        client
            .ask_with("PUT", "/g/m/config", &[], &long)
            .expect(204);
        let kept = client.ask("GET", "/g/m/config").expect(200);
        assert_eq!(kept.body, long, "{knobs:?}");
        server.restart();
        let kept = server.client().ask("GET", "/g/m/config").expect(200);
        assert_eq!(kept.body, long, "{knobs:?}");
        assert_eq!(server.stop().code(), Some(0), "{knobs:?}");
    }
}

#[test]
fn a_thread_looks_for_more_after_an_input_only_if_it_is_told_to() {
    let turns = |knobs: &[(&str, u32)]| {
        let server = turned(knobs);
        let mut client = server.client();
        for _ in 0..20 {
            client.ask("GET", "/-/livez").expect(200);
            // As long as it looks at most, so that it is asleep again.
            Deadline::after(Duration::from_millis(2)).pass();
        }
        let metrics = text(&client.ask("GET", "/-/metrics").expect(200).body);
        let name = "systole_loop_turns_total{shard=\"0\"} ";
        let turns = metrics.lines().find_map(|line| line.strip_prefix(name));
        turns.expect("the metric").parse::<u64>().expect("a number")
    };
    let (asleep, awake) = (turns(&[]), turns(&[("busy-poll-us", BUSY_POLL_US_MAX)]));
    assert!(awake > 4 * asleep, "{awake} turns, and {asleep} without");
}

#[test]
fn a_segment_is_as_long_as_it_is_told_to_be() {
    let server = turned(&[("segment-mib", SEGMENT_MIB_MIN)]);
    let entries = fs::read_dir(server.dir()).expect("the data directory");
    let lengths: Vec<u64> = entries
        .map(|entry| entry.expect("an entry"))
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("segment-"))
        .map(|entry| entry.metadata().expect("its length").len())
        .collect();
    assert!(!lengths.is_empty());
    let told = u64::from(SEGMENT_MIB_MIN) << 20;
    assert!(lengths.iter().all(|bytes| *bytes == told), "{lengths:?}");
}

#[test]
fn a_lone_join_waits_for_the_batch_window_and_for_nothing_without_one() {
    let quickest = |window_us| {
        let server = turned(&[("batch-window-us", window_us)]);
        let mut client = server.client();
        let joins = (0..20).map(|member| {
            let began = now();
            client.ask("PUT", &format!("/g/m{member}")).expect(201);
            began.elapsed()
        });
        joins.min().expect("some joins")
    };
    let window = Duration::from_micros(BATCH_WINDOW_US_MAX.into());
    assert!(quickest(BATCH_WINDOW_US_MAX) >= window);
    assert!(quickest(0) < window);
}

#[test]
fn huge_pages_are_asked_for_unless_they_are_off() {
    if !Path::new("/sys/kernel/mm/transparent_hugepage").exists() {
        return skipped("this kernel has no huge pages to ask for");
    }
    let asked = |how: &str| {
        let variable = format!("{}={how}", env_name("tuning.huge-pages"));
        let server = Setup::new().within(&["env".to_owned(), variable]).start();
        // The memory is there with the first session.
        server.client().ask("PUT", "/g/m").expect(201);
        let maps = fs::read_to_string(format!("/proc/{}/smaps", server.id()));
        let maps = maps.expect("the server's memory");
        let mut flags = maps.lines().filter(|line| line.starts_with("VmFlags:"));
        flags.any(|line| line.split(' ').any(|flag| flag == "hg"))
    };
    assert!(asked("on"));
    assert!(!asked("off"));
}
