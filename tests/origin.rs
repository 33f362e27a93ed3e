//! The conversation in which this server was first imagined, with curl against a real one.
//!
//! The commands are those that were written there, word by word, but for two things: curl is
//! told where `tracker1.example.com` is, and a config travels in `-d`, which the original left
//! out. Timeouts of 20 seconds are 2 here.

mod common;

use std::process::Command;
use std::time::Duration;

use common::{Server, Setup, poll, run_to_end, skipped};
use serde_json::{Value, json};

/// A tracker and the curl to talk to it, as far as there is one.
struct Tracker {
    server: Server,
}

/// What curl printed.
struct Printed {
    head: String,
    body: String,
}

impl Tracker {
    fn start() -> Option<Tracker> {
        if Command::new("curl").arg("--version").output().is_err() {
            skipped("there is no curl on this machine");
            return None;
        }
        let setup = Setup::new().flag("--advertise", "tracker1.example.com:8640");
        Some(Tracker {
            server: setup.start(),
        })
    }

    /// Runs `curl ARGS`, with the host's address and a limit on its time.
    #[track_caller]
    fn curl(&self, args: &[&str]) -> Printed {
        let here = format!("tracker1.example.com:80:{}", self.server.address());
        let mut command = Command::new("curl");
        command.args(["-sS", "--max-time", "10", "--noproxy", "*", "--include"]);
        command.args(["--connect-to", &here]).args(args);
        let ended = run_to_end(&mut command);
        assert_eq!(ended.code, Some(0), "curl {args:?}: {}", ended.stderr);
        let (head, body) = ended.stdout.split_once("\r\n\r\n").expect("a head");
        Printed {
            head: head.to_ascii_lowercase(),
            body: body.to_owned(),
        }
    }
}

impl Printed {
    #[track_caller]
    fn expect(self, status: u16, version: u64) -> Printed {
        let line = self.head.lines().next().unwrap_or_default();
        assert!(
            line.starts_with(&format!("http/1.1 {status}")),
            "{}",
            self.head
        );
        let version = format!("x-group-version: {version}");
        assert!(
            self.head.lines().any(|l| l == version),
            "{version}: {}",
            self.head
        );
        self
    }

    fn document(&self) -> Value {
        serde_json::from_str(&self.body).expect("a group document")
    }
}

const DB1: &str = "tracker1.example.com/database/db1.example.com";
const DB2: &str = "tracker1.example.com/database/db2.example.com";

#[test]
fn the_second_form_runs_literally() {
    let Some(tracker) = Tracker::start() else {
        return;
    };
    let endpoints = json!(["tracker1.example.com:8640"]);

    // join the database group. the group gets created if it doesn't exist already.
    let joined = tracker.curl(&["-XPUT", DB1]).expect(201, 0);
    assert_eq!(
        joined.document(),
        json!({
            "config": null,
            "endpoints": endpoints,
            "active_members": [ { "db1.example.com": null } ],
            "inactive_members": [],
        })
    );

    // configure metadata for db1 and db2. you can configure a member before it joins.
    let db1_config = format!("{DB1}/config");
    let db2_config = format!("{DB2}/config");
    tracker
        .curl(&["-XPUT", &db1_config, "-d", "db1 config"])
        .expect(204, 1);
    tracker
        .curl(&["-XPUT", &db2_config, "-d", "db2 config"])
        .expect(204, 2);

    let seen = tracker.curl(&["-XGET", DB1]).expect(200, 2);
    assert_eq!(
        seen.document(),
        json!({
            "config": null,
            "endpoints": endpoints,
            "active_members": [ { "db1.example.com": "db1 config" } ],
            "inactive_members": [ { "db2.example.com": "db2 config" } ],
        })
    );

    // add group-wide configuration
    let group_config = "tracker1.example.com/database/config";
    tracker
        .curl(&["-XPUT", group_config, "-d", "group config"])
        .expect(204, 3);
    let seen = tracker.curl(&["-XGET", DB1]).expect(200, 3);
    assert_eq!(
        seen.document(),
        json!({
            "config": "group config",
            "endpoints": endpoints,
            "active_members": [ { "db1.example.com": "db1 config" } ],
            "inactive_members": [ { "db2.example.com": "db2 config" } ],
        })
    );
    assert_eq!(tracker.curl(&[group_config]).body, "group config");
}

#[test]
fn the_first_form_runs_with_metadata_in_the_join() {
    let Some(tracker) = Tracker::start() else {
        return;
    };
    let metadata = json!({"opaque": "metadata"});

    let join = ["-XPUT", DB1, "-d", "{\"opaque\": \"metadata\"}"];
    let joined = tracker.curl(&join).expect(201, 0);
    let active = json!([ { "db1.example.com": metadata } ]);
    assert_eq!(joined.document()["active_members"], active);

    // send a heartbeat using HEAD
    let beat = tracker.curl(&["-XHEAD", DB1]).expect(204, 0);
    assert_eq!(beat.body, "");

    // another member joins with [2] second session timeout without any metadata.
    let joined = tracker
        .curl(&["-XPUT", &format!("{DB2}?timeout=2")])
        .expect(201, 1);
    let both = json!([ { "db1.example.com": metadata }, { "db2.example.com": null } ]);
    assert_eq!(joined.document()["active_members"], both);

    // db1 finds out the group has been modified in the next heartbeat.
    tracker.curl(&["-XHEAD", DB1]).expect(204, 1);

    // use GET heartbeat to get the new group configuration.
    let seen = tracker.curl(&["-XGET", DB1]).expect(200, 1);
    assert_eq!(seen.document()["active_members"], both);

    // db2 stops sending heartbeat. after [2] seconds, the tracker deletes db2 from the member
    // list and bump up the version. db1 finds out the group change in the next heartbeat.
    let beat = poll(Duration::from_secs(10), "version 2", || {
        let beat = tracker.curl(&["-XHEAD", DB1]);
        (!beat.head.contains("x-group-version: 1")).then_some(beat)
    });
    beat.expect(204, 2);
    let seen = tracker.curl(&["-XGET", DB1]).expect(200, 2);
    assert_eq!(seen.document()["active_members"], active);
    assert_eq!(seen.document()["inactive_members"], json!([]));
}

#[test]
fn curl_with_a_capital_i_beats_as_well() {
    let Some(tracker) = Tracker::start() else {
        return;
    };
    tracker.curl(&["-XPUT", DB1]).expect(201, 0);
    tracker.curl(&["-I", DB1]).expect(204, 0);
    let gone = tracker.curl(&["-XHEAD", DB2]);
    assert!(gone.head.starts_with("http/1.1 404"), "{}", gone.head);
}
