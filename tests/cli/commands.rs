//! Each command, in both forms, and each exit code.

use std::io::Write as _;
use std::net::TcpListener;
use std::process::Stdio;

use serde_json::json;

use crate::common::{Ended, Server, Setup, run_to_end, systole};
use crate::{at, json, printed, run};

fn server() -> Server {
    Setup::new()
        .flag("--shards", "1")
        .flag("--pin", "off")
        .start()
}

/// Runs a command that reads `input`.
fn fed(server: &Server, args: &[&str], input: &str) -> Ended {
    let mut command = at(server, args);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(input.as_bytes()).expect("to write");
    drop(stdin);
    let output = child.wait_with_output().expect("its end");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    Ended {
        code: output.status.code(),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}

#[test]
fn a_member_joins_is_shown_beats_and_leaves() {
    let server = server();
    let said = printed(&server, &["join", "db/db1", "--timeout", "20"]);
    assert!(said.starts_with("joined db/db1: session "), "{said}");
    assert!(said.ends_with(", timeout 20000 ms, version 0\n"), "{said}");
    let again = json(&server, &["join", "db/db1", "--json"]);
    assert_eq!(
        (&again["created"], &again["timeout_ms"]),
        (&json!(false), &json!(20_000))
    );
    let session = again["session"].as_str().expect("a session").to_owned();
    assert!(said.contains(&session), "it is the same session");

    let shown = printed(&server, &["get", "db"]);
    assert_eq!(
        shown,
        "db: version 0, 1 active, 0 inactive\nMEMBER  STATE   CONFIG\ndb1     active\n"
    );
    let document = json(&server, &["get", "db", "--consistent", "--json"]);
    assert_eq!(document["active_members"], json!([{"db1": null}]));

    let beat = ["beat", "db/db1", "--session", &session];
    assert_eq!(printed(&server, &beat), "db/db1: version 0\n");
    assert_eq!(
        json(&server, &[&beat[..], &["--json"]].concat())["version"],
        0
    );

    let left = printed(&server, &["leave", "db/db1", "--session", &session]);
    assert_eq!(left, "db/db1 has left\n");
    run(&server, &["leave", "db/db1"]).expect_sentence(4, &["db/db1", "unknown_member"]);
}

#[test]
fn a_takeover_fences_the_session_before_and_an_exclusive_join_is_refused() {
    let server = server();
    let first = json(&server, &["join", "db/db1", "--json"]);
    run(&server, &["join", "db/db1", "--only-new"]).expect_sentence(5, &["already_active"]);
    let second = json(&server, &["join", "db/db1", "--takeover", "--json"]);
    assert_eq!(second["created"], true);
    let (old, new) = (
        first["session"].as_str().unwrap(),
        second["session"].as_str().unwrap(),
    );
    assert!(new > old, "a fencing token grows");
    let ended = run(&server, &["beat", "db/db1", "--session", old]);
    ended.expect_sentence(5, &["db/db1", "session_conflict"]);
    printed(&server, &["beat", "db/db1", "--session", new]);
}

#[test]
fn many_members_beat_at_once_and_what_fails_is_listed() {
    let server = server();
    for member in ["db/a", "db/b c%"] {
        printed(&server, &["join", member]);
    }
    assert_eq!(
        printed(&server, &["beat", "db/a", "db/b c%"]),
        "2 renewed, 0 failed\n"
    );
    let ended = run(&server, &["beat", "db/a", "db/gone"]);
    ended.expect_sentence(4, &["1 of 2 beats failed"]);
    let expected = "1 renewed, 1 failed\nLINE  MEMBER   STATUS  CODE\n\
                    2     db/gone  404     unknown_member\n";
    assert_eq!(ended.stdout, expected);

    // More than one request takes: lines are counted through.
    let mut input = "db/a\n".repeat(60_000);
    input.push_str(&format!("db/{}\n", "x".repeat(200)).repeat(5_000));
    input.push_str("\ndb/b c%\n");
    let ended = fed(&server, &["beat", "-", "--json"], &input);
    assert_eq!(ended.code, Some(4), "{}", ended.stderr);
    let report: serde_json::Value = serde_json::from_str(&ended.stdout).expect("JSON");
    let failed = report["failed"].as_array().expect("a list");
    assert_eq!((&report["renewed"], failed.len()), (&json!(60_001), 5_000));
    assert_eq!(failed[0]["line"], 60_001);
    assert_eq!(failed[4_999]["line"], 65_000);
}

#[test]
fn a_config_is_stored_shown_byte_for_byte_guarded_by_its_tag_and_deleted() {
    let server = server();
    let bytes = " {\"port\": 1}\n\n";
    assert_eq!(
        fed(&server, &["config", "put", "db/db1", "-"], bytes).code,
        Some(0)
    );
    assert_eq!(printed(&server, &["config", "get", "db/db1"]), bytes);
    let shown = json(&server, &["config", "get", "db/db1", "--json"]);
    assert_eq!(shown["config"], bytes);
    let tag = shown["etag"].as_str().expect("a tag");
    let put = ["config", "put", "db/db1", "-", "--if-match"];
    assert_eq!(
        fed(&server, &[&put[..], &[tag]].concat(), "new").code,
        Some(0)
    );
    let late = fed(&server, &[&put[..], &[tag]].concat(), "late");
    late.expect_sentence(5, &["precondition_failed"]);
    assert_eq!(printed(&server, &["config", "get", "db/db1"]), "new");
    let shown = printed(&server, &["get", "db"]);
    assert!(shown.contains("db1     inactive  \"new\""), "{shown}");

    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("config");
    std::fs::write(&file, "of the group").expect("to write");
    let path = file.to_str().expect("UTF-8");
    let put = json(&server, &["config", "put", "db", path, "--json"]);
    assert_eq!(put["stored"], true);
    assert!(printed(&server, &["get", "db"]).contains("config: \"of the group\""));
    assert_eq!(
        json(&server, &["config", "delete", "db", "--json"])["deleted"],
        true
    );
    run(&server, &["config", "get", "db"]).expect_sentence(4, &["no_config"]);
    printed(&server, &["join", "db/db2", "--config", path]);
    assert_eq!(
        printed(&server, &["config", "get", "db/db2"]),
        "of the group"
    );
}

#[test]
fn groups_are_listed_however_many_there_are() {
    let server = server();
    assert_eq!(json(&server, &["groups", "--json"]), json!([]));
    let mut client = server.client();
    for n in 0..1_203 {
        assert_eq!(client.ask("PUT", &format!("/g%20{n:04}/m")).status, 201);
    }
    let listed = json(&server, &["groups", "--json"]);
    let listed = listed.as_array().expect("a list");
    assert_eq!(listed.len(), 1_203);
    let last = json!({"name": "g 1202", "version": 0, "active": 1, "inactive": 0});
    assert_eq!(listed[1_202], last);
    let table = printed(&server, &["groups"]);
    assert_eq!(
        table.lines().next(),
        Some("GROUP   VERSION  ACTIVE  INACTIVE")
    );
    assert_eq!(table.lines().nth(2), Some("g 0001  0        1       0"));
}

#[test]
fn status_shows_each_server_and_fails_if_one_cannot_serve() {
    let server = server();
    let shown = json(&server, &["status", "--json"]);
    assert_eq!(shown[0]["serves"], true);
    assert_eq!(shown[0]["cluster"]["role"], "leading");
    let table = printed(&server, &["status"]);
    assert!(
        table.lines().nth(1).expect("a row").ends_with("serves"),
        "{table}"
    );
    let dead = dead_endpoint();
    let here = server.address().to_string();
    let ended = run(
        &server,
        &["status", "--endpoint", &here, "--endpoint", &dead],
    );
    ended.expect_sentence(3, &["1 of 2 servers cannot serve"]);
    assert!(
        ended.stdout.contains("connection refused"),
        "{}",
        ended.stdout
    );
}

/// An address at which nobody listens.
fn dead_endpoint() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").to_string()
}

#[test]
fn a_server_that_is_dead_is_passed_over_and_without_any_the_command_says_so() {
    let server = server();
    let (dead, here) = (dead_endpoint(), server.address().to_string());
    for join in [
        &["join", "db/a", "--endpoint", &dead, "--endpoint", &here][..],
        &[
            "join",
            "db/b",
            "--endpoint",
            &format!("{dead},http://{here}/"),
        ],
    ] {
        let ended = run_to_end(systole().args(join));
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    }
    // A server that accepts and says nothing is one of the dead.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let silent = silent.local_addr().map(|at| (silent, at.to_string()));
    let (_held, silent) = silent.expect("an address");
    let both = format!("{silent},{here}");
    let ended = run_to_end(systole().args(["get", "db", "--endpoint", &both]));
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);

    let ended = run_to_end(systole().args(["get", "db", "--endpoint", &dead]));
    ended.expect_sentence(
        3,
        &["no server could be reached", &dead, "connection refused"],
    );
    let wait = [
        "get",
        "db",
        "--command-timeout",
        "300ms",
        "--endpoint",
        &silent,
    ];
    run_to_end(systole().args(wait)).expect_sentence(3, &["no answer in time"]);
}

#[test]
fn what_is_asked_wrongly_is_said_in_one_line_before_any_server_is_asked() {
    let nowhere = "127.0.0.1:1";
    for (args, words) in [
        (&["join", "db"][..], &["GROUP/MEMBER"][..]),
        (
            &["join", "db/a", "--timeout", "soon"],
            &["soon", "duration"],
        ),
        (
            &["join", "db/a", "--takeover", "--only-new"],
            &["--only-new"],
        ),
        (&["join", "db/a", "--config", "/nowhere"], &["/nowhere"]),
        (&["get", "db/a"], &["without a slash"]),
        (&["get", ".."], &["no name"]),
        (&["beat"], &["GROUP/MEMBER"]),
        (&["beat", "db/a", "db"], &["GROUP/MEMBER"]),
        (&["beat", "-", "db/a"], &["-"]),
        (&["beat", "db/a", "--session", "12"], &["--session"]),
        (&["config"], &["subcommand"]),
        (&["get", "db", "--endpoint", "here"], &["here", "HOST:PORT"]),
    ] {
        let mut command = systole();
        command.args(args).env("SYSTOLE_ENDPOINT", nowhere);
        run_to_end(&mut command).expect_sentence(2, words);
    }
}

#[test]
fn a_value_out_of_bounds_is_refused_in_the_servers_words() {
    let server = server();
    let ended = run(&server, &["join", "db/a", "--timeout", "1ms"]);
    ended.expect_sentence(5, &["db/a", "100 ms", "422 timeout_out_of_range"]);
    run(&server, &["get", "nosuch"]).expect_sentence(4, &["nosuch", "404 unknown_group"]);
    let ended = fed(&server, &["config", "put", "db", "-"], &"x".repeat(70_000));
    ended.expect_sentence(5, &["413 body_too_large"]);
}

#[test]
fn the_help_tells_the_exit_codes_and_every_shell_gets_its_completions() {
    let help = run_to_end(systole().arg("--help"));
    for line in [
        "3  no server could be reached",
        "4  no such group",
        "5  refused",
    ] {
        assert!(help.stdout.contains(line), "{}", help.stdout);
    }
    for shell in ["bash", "zsh", "fish"] {
        let ended = run_to_end(systole().args(["completions", shell]));
        assert_eq!(ended.code, Some(0));
        for word in ["join", "takeover", "command-timeout"] {
            assert!(ended.stdout.contains(word), "{word} for {shell}");
        }
    }
    run_to_end(systole().args(["completions", "tcsh"])).expect_sentence(2, &["tcsh"]);
}

#[test]
fn the_bash_completions_are_valid_bash() {
    let ended = run_to_end(systole().args(["completions", "bash"]));
    let check = "complete -p systole && _systole";
    let script = format!(
        "{}\nCOMP_WORDS=(systole joi); COMP_CWORD=1\n{check} systole joi systole\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"",
        ended.stdout
    );
    let ended = run_to_end(std::process::Command::new("bash").args(["-c", &script]));
    assert!(ended.stdout.lines().any(|line| line == "join"), "{ended:?}");
}
