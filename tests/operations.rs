//! Holds what operators are given to the program: each limit stands in the table of
//! docs/operations.md with the value it has, links lead somewhere, and the manifests for
//! Kubernetes name settings, pages and system calls that there are.

mod common;

use std::collections::BTreeSet;
use std::process::Command;

use common::{run_to_end, skipped};
use serde_json::Value;
use systole::config::{KEYS, Limits, TUNING_KEYS, env_name};
use systole::http::OPENAPI;
use systole::zab;

fn text(name: &str) -> String {
    let path = format!("{}/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// A row of the table of limits: name, where it stands, value, and what happens.
fn rows() -> Vec<[String; 4]> {
    let document = text("docs/operations.md");
    let (_, section) = document
        .split_once("## Every limit")
        .expect("the section of limits");
    let (section, _) = section.split_once("\n## ").expect("a section after it");
    let row = |line: &str| -> [String; 4] {
        let cells = line.trim_matches('|').split('|');
        let cells: Vec<String> = cells
            .map(|cell| cell.trim().trim_matches('`').to_owned())
            .collect();
        cells.try_into().expect("four cells")
    };
    let lines = section.lines().filter(|line| line.starts_with("| `"));
    lines.map(row).collect()
}

/// Fails unless the table has exactly these fields of `place`, with these values.
#[track_caller]
fn assert_fields(place: &str, fields: &[(&str, String)]) {
    let rows = rows();
    let told = rows.iter().filter(|[_, at, ..]| at == place);
    let told: BTreeSet<(&str, &str)> = told
        .map(|[name, _, value, _]| (&name[..], &value[..]))
        .collect();
    let there: BTreeSet<(&str, &str)> = fields
        .iter()
        .map(|(name, value)| (*name, &value[..]))
        .collect();
    assert_eq!(told, there, "{place}");
}

#[test]
fn every_limit_of_the_server_has_its_row() {
    // Without `..`, so that a new limit does not compile before it is told of.
    let Limits {
        head_bytes_max,
        target_bytes_max,
        headers_max,
        body_bytes_max,
        pipelined_max,
        watchers_max,
        output_bytes_max,
        request_timeout,
        idle_timeout,
        files_reserved,
        sessions_per_shard_max,
        asks_per_shard_max,
        changes_per_shard_max,
        core_batch_max,
        core_mail_max,
        shard_mail_max,
        peer_queue_bytes_max,
        peer_queue_frames_max,
        snapshot_log_bytes,
        snapshots_kept,
        stall_min,
    } = Limits::DEFAULT;
    let fields = [
        ("head_bytes_max", bytes(head_bytes_max as u64)),
        ("target_bytes_max", bytes(target_bytes_max as u64)),
        ("headers_max", count(headers_max as u64)),
        ("body_bytes_max", bytes(body_bytes_max as u64)),
        ("pipelined_max", count(pipelined_max as u64)),
        ("watchers_max", count(watchers_max)),
        ("output_bytes_max", bytes(output_bytes_max as u64)),
        ("request_timeout", time(request_timeout.0)),
        ("idle_timeout", time(idle_timeout.0)),
        ("files_reserved", count(files_reserved)),
        (
            "sessions_per_shard_max",
            count(sessions_per_shard_max.into()),
        ),
        ("asks_per_shard_max", count(asks_per_shard_max as u64)),
        ("changes_per_shard_max", count(changes_per_shard_max as u64)),
        ("core_batch_max", count(core_batch_max as u64)),
        ("core_mail_max", count(core_mail_max as u64)),
        ("shard_mail_max", count(shard_mail_max as u64)),
        ("peer_queue_bytes_max", bytes(peer_queue_bytes_max as u64)),
        ("peer_queue_frames_max", count(peer_queue_frames_max as u64)),
        ("snapshot_log_bytes", bytes(snapshot_log_bytes)),
        ("snapshots_kept", count(snapshots_kept as u64)),
        ("stall_min", time(stall_min.0)),
    ];
    assert_fields("config::Limits", &fields);
    let segment = TUNING_KEYS
        .iter()
        .find(|(key, _)| *key == "tuning.segment-mib");
    let mib: u64 = segment
        .and_then(|(_, mib)| mib.as_ref()?.parse().ok())
        .expect("a default");
    assert_fields("[tuning]", &[("segment-mib", bytes(mib << 20))]);
}

#[test]
fn every_limit_of_the_protocol_has_its_row() {
    let zab::Limits {
        in_flight_max,
        window_entries_max,
        window_bytes_max,
        in_flight_bytes_max,
        unacknowledged_max,
        read_bytes_max,
        barriers_max,
        // No limit that anybody meets: a leader that counts so far makes room by itself.
        counter_max: _,
    } = zab::Limits::DEFAULT;
    let fields = [
        ("in_flight_max", count(in_flight_max as u64)),
        ("window_entries_max", count(window_entries_max as u64)),
        ("window_bytes_max", bytes(window_bytes_max as u64)),
        ("in_flight_bytes_max", bytes(in_flight_bytes_max as u64)),
        ("unacknowledged_max", count(unacknowledged_max)),
        ("read_bytes_max", bytes(read_bytes_max as u64)),
        ("barriers_max", count(barriers_max as u64)),
    ];
    assert_fields("zab::Limits", &fields);
}

#[test]
fn the_constants_have_the_values_that_are_told() {
    let mut checked = 0;
    for [name, place, value, _] in rows() {
        if !place.starts_with("src/") {
            continue;
        }
        let source = text(&place);
        let (kind, found) = constant(&source, &name)
            .unwrap_or_else(|| panic!("there is no {name} in {place} that can be read"));
        let shown = if kind == "Millis" || name.contains("_MS_") {
            time(found)
        } else if name.contains("BYTES") {
            bytes(found)
        } else {
            count(found)
        };
        assert_eq!(value, shown, "{name} in {place}");
        checked += 1;
    }
    assert!(checked > 20);
}

#[test]
fn every_limit_of_settings_and_of_the_replicated_state_has_its_row() {
    let rows = rows();
    for place in ["src/config.rs", "src/group/mod.rs"] {
        let source = text(place);
        let names = source.lines().filter_map(|line| {
            let (name, _) = line.strip_prefix("pub const ")?.split_once(':')?;
            (name.ends_with("_MAX") || name.ends_with("_MIN")).then_some(name)
        });
        for name in names {
            let told = rows.iter().any(|[row, at, ..]| row == name && at == place);
            assert!(told, "{name} in {place} has no row");
        }
    }
}

#[test]
fn every_row_says_what_happens() {
    for [name, _, _, what] in rows() {
        assert!(what.len() > 10, "{name}: {what:?}");
    }
}

#[test]
fn what_the_documents_link_to_is_there() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let documents = std::fs::read_dir(root.join("docs")).expect("the documents");
    for name in documents.map(|file| file.expect("a file").file_name()) {
        let name = format!("docs/{}", name.to_str().expect("UTF-8"));
        let name = name.as_str();
        for link in text(name).split("](").skip(1) {
            let target = link.split(')').next().expect("a link ends");
            let there = root.join("docs").join(target).exists();
            assert!(there, "{name} links to {target}");
        }
    }
}

#[test]
fn the_pods_are_given_settings_that_there_are() {
    let manifest = text("deploy/kubernetes/statefulset.yaml");
    let words = manifest.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let named: BTreeSet<&str> = words.filter(|word| word.starts_with("SYSTOLE_")).collect();
    let known: BTreeSet<String> = KEYS.iter().map(|(key, _)| env_name(key)).collect();
    assert!(named.len() > 5);
    for name in named {
        assert!(known.contains(name), "{name} is no setting");
    }
}

#[test]
fn the_pods_are_asked_for_pages_that_there_are() {
    let manifest = text("deploy/kubernetes/statefulset.yaml");
    let document: Value = serde_json::from_slice(OPENAPI).expect("JSON");
    let probes: Vec<&str> = manifest
        .lines()
        .filter_map(|line| line.trim().strip_prefix("path: "))
        .collect();
    assert_eq!(probes.len(), 3);
    for path in probes {
        assert!(document["paths"][path]["get"].is_object(), "{path}");
    }
}

#[test]
fn a_pod_makes_its_number_and_its_name_of_its_host_name() {
    let manifest = text("deploy/kubernetes/statefulset.yaml");
    let (_, rest) = manifest.split_once("            - |\n").expect("a script");
    let script: String = rest
        .lines()
        .take_while(|line| line.starts_with("              "))
        .map(|line| format!("{}\n", line.trim()))
        .collect();
    let (script, started) = script.split_once("exec ").expect("a program");
    assert_eq!(started, "systole serve\n");
    let script = format!("{script}echo $SYSTOLE_ID $SYSTOLE_ADVERTISE");
    let mut command = Command::new("/bin/sh");
    command.args(["-ec", &script]);
    command
        .env("HOSTNAME", "systole-2")
        .env("NAMESPACE", "prod");
    let ended = run_to_end(&mut command);
    assert_eq!(ended.stdout, "3 systole-2.systole.prod.svc:8640\n");
}

#[test]
fn the_seccomp_profile_lets_io_uring_pass() {
    let profile = text("deploy/kubernetes/systole-seccomp.json");
    let profile: Value = serde_json::from_str(&profile).expect("JSON");
    assert_eq!(profile["defaultAction"], "SCMP_ACT_ERRNO");
    let allowed = profile["syscalls"][0]["names"].as_array().expect("a list");
    for call in ["setup", "enter", "register"] {
        let call = Value::from(format!("io_uring_{call}"));
        assert!(allowed.contains(&call), "{call}");
    }
}

#[test]
fn kubectl_puts_the_manifests_together() {
    if Command::new("kubectl").arg("--help").output().is_err() {
        return skipped("there is no kubectl here");
    }
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/kubernetes");
    let ended = run_to_end(Command::new("kubectl").args(["kustomize", folder]));
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let kinds: BTreeSet<&str> = ended
        .stdout
        .lines()
        .filter_map(|line| line.strip_prefix("kind: "))
        .collect();
    let expected = ["PodDisruptionBudget", "Service", "StatefulSet"];
    assert_eq!(kinds, expected.into_iter().collect());
}

/// Type and value of a constant in the source, if it is put simply.
fn constant(source: &str, name: &str) -> Option<(String, u64)> {
    let marker = format!("const {name}: ");
    let (_, rest) = source.split_once(&marker)?;
    let (kind, rest) = rest.split_once(" = ")?;
    let (expression, _) = rest.split_once(';')?;
    Some((kind.to_owned(), evaluate(source, expression)?))
}

/// The value of products and shifts of numbers and of other constants.
fn evaluate(source: &str, expression: &str) -> Option<u64> {
    let expression = expression.trim();
    if let Some(inner) = expression
        .strip_prefix("Millis::from_secs(")
        .and_then(|rest| rest.strip_suffix(')'))
    {
        return Some(evaluate(source, inner)? * 1_000);
    }
    if let Some(inner) = expression
        .strip_prefix("Millis(")
        .and_then(|rest| rest.strip_suffix(')'))
    {
        return evaluate(source, inner);
    }
    if let Some((left, right)) = expression.split_once(" << ") {
        return Some(evaluate(source, left)? << evaluate(source, right)?);
    }
    if let Some((left, right)) = expression.split_once(" * ") {
        return Some(evaluate(source, left)? * evaluate(source, right)?);
    }
    match expression {
        "u32::MAX as u64" => Some(u32::MAX.into()),
        "TICK_MS" => Some(systole::time::TICK_MS),
        _ => {
            let number = expression.replace('_', "").parse().ok();
            number.or_else(|| Some(constant(source, expression.trim_end_matches(".0"))?.1))
        }
    }
}

/// A number of bytes, as the table shows it.
fn bytes(value: u64) -> String {
    match value {
        _ if value.is_multiple_of(1 << 20) => format!("{} MiB", value >> 20),
        _ if value.is_multiple_of(1 << 10) => format!("{} KiB", value >> 10),
        _ => format!("{value} bytes"),
    }
}

/// A number of milliseconds, likewise.
fn time(ms: u64) -> String {
    match ms {
        _ if ms.is_multiple_of(3_600_000) => format!("{} h", ms / 3_600_000),
        _ if ms.is_multiple_of(60_000) => format!("{} min", ms / 60_000),
        _ if ms.is_multiple_of(1_000) => format!("{} s", ms / 1_000),
        _ => format!("{} ms", count(ms)),
    }
}

/// A number of things, likewise.
fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut shown = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}
