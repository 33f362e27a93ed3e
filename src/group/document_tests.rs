//! Tests of `document.rs`, on states built through transactions.

use super::*;
use crate::group::{Applied, Decision, Join, Lapse, Outcome, Request, Require, Settings, State};
use crate::time::Millis;
use crate::types::{Epoch, Incarnation, ServerId, Zxid};

/// A state, and requests that are committed at once.
struct Tracker {
    state: State,
    endpoints: Vec<&'static str>,
}

impl Tracker {
    fn founded() -> Tracker {
        let settings = Settings {
            default_timeout: Millis(10_000),
            seeds: [0; 4],
        };
        let mut tracker = Tracker {
            state: State::new(settings),
            endpoints: vec!["tracker1.example.com"],
        };
        tracker.commit(&Request::Genesis { birth_s: 1 });
        tracker.commit(&Request::Adopt {
            server: ServerId(1),
            incarnation: Incarnation(1),
            after: None,
            limit: 1,
        });
        tracker
    }

    fn commit(&mut self, request: &Request) -> Outcome {
        let mut txn = Vec::new();
        match self.state.preprocess(request, &mut txn) {
            Decision::Answer(outcome) => outcome,
            Decision::Propose => {
                let mut out = Applied::default();
                let last = self.state.applied();
                let zxid = match last.epoch {
                    Epoch(0) => Zxid::new(Epoch(1), 1),
                    _ => last.next(),
                };
                self.state.apply(zxid, &txn, &mut out).unwrap();
                out.outcome
            }
        }
    }

    fn join(&mut self, member: &str, config: Option<&str>) -> Outcome {
        self.commit(&Request::Join(Join {
            group: b"database"[..].into(),
            member: member.as_bytes().into(),
            timeout: None,
            config: config.map(|c| c.as_bytes().into()),
            takeover: false,
            only_if_absent: false,
            owner: ServerId(1),
            incarnation: Incarnation(1),
        }))
    }

    fn configure(&mut self, member: Option<&str>, config: &str) -> Outcome {
        self.commit(&Request::SetConfig {
            group: Box::from(&b"database"[..]),
            member: member.map(|m| m.as_bytes().into()),
            bytes: config.as_bytes().into(),
            require: Require::Nothing,
        })
    }

    fn expire(&mut self, member: &str) {
        let session = self.state.session(b"database", member.as_bytes()).unwrap();
        self.commit(&Request::Expire(vec![Lapse {
            group: b"database"[..].into(),
            member: member.as_bytes().into(),
            id: session.id,
            term: session.term,
        }]));
    }

    fn handle(&self) -> Document {
        self.state.document(b"database").unwrap()
    }

    /// The version and the document.
    fn shown(&self) -> (u64, String) {
        let document = self.handle();
        (document.version().0, self.text(document))
    }

    fn text(&self, mut document: Document) -> String {
        let mut out = Vec::new();
        while document.render_into(&self.endpoints, &mut out, 1) {}
        String::from_utf8(out).unwrap()
    }

    /// Members named m00000, m00001, …
    fn with_members(n: usize) -> Tracker {
        let mut tracker = Tracker::founded();
        for i in 0..n {
            tracker.join(&format!("m{i:05}"), None);
        }
        tracker
    }
}

/// The second form of the conversation this server comes from: config and inactive members.
#[test]
fn the_conversation_gives_the_documents_and_versions_it_tells() {
    let mut tracker = Tracker::founded();
    tracker.endpoints = vec![
        "tracker1.example.com",
        "tracker2.example.com",
        "tracker3.example.com",
    ];
    let endpoints =
        r#""endpoints":["tracker1.example.com","tracker2.example.com","tracker3.example.com"]"#;
    let shown = |config: &str, active: &str, inactive: &str| {
        format!(
            r#"{{"config":{config},{endpoints},"active_members":[{active}],"inactive_members":[{inactive}]}}"#
        )
    };
    tracker.join("db1.example.com", None);
    let joined = shown("null", r#"{"db1.example.com":null}"#, "");
    assert_eq!(tracker.shown(), (0, joined));

    tracker.configure(Some("db1.example.com"), "db1 config");
    tracker.configure(Some("db2.example.com"), "db2 config");
    let active = r#"{"db1.example.com":"db1 config"}"#;
    let inactive = r#"{"db2.example.com":"db2 config"}"#;
    assert_eq!(tracker.shown(), (2, shown("null", active, inactive)));

    tracker.configure(None, "group config");
    let configured = shown("\"group config\"", active, inactive);
    assert_eq!(tracker.shown(), (3, configured));
}

/// The first form: a join with `-d`, another without, and an expiry.
#[test]
fn a_join_with_metadata_and_an_expiry_give_the_versions_of_the_first_form() {
    let mut tracker = Tracker::founded();
    tracker.join("db1.example.com", Some(r#"{"opaque": "metadata"}"#));
    let (version, document) = tracker.shown();
    assert_eq!(version, 0);
    assert!(document.contains(r#""active_members":[{"db1.example.com":{"opaque": "metadata"}}]"#));
    tracker.join("db2.example.com", None);
    assert_eq!(tracker.shown().0, 1);
    tracker.expire("db2.example.com");
    assert_eq!(tracker.shown(), (2, document));
    tracker.expire("db1.example.com");
    let (version, document) = tracker.shown();
    assert_eq!(version, 3);
    assert!(document.ends_with(
        r#""active_members":[],"inactive_members":[{"db1.example.com":{"opaque": "metadata"}}]}"#
    ));
}

#[test]
fn a_config_is_shown_as_it_was_written_or_as_a_string() {
    let mut tracker = Tracker::founded();
    for (config, shown) in [
        ("[1, 2]", "[1, 2]"),
        ("null", "\"null\""),
        ("", "\"\""),
        ("{\"a\"", "\"{\\\"a\\\"\""),
        (
            "a\\b\u{1}\u{1f}\u{7f}\t\r\nü",
            "\"a\\\\b\\u0001\\u001f\u{7f}\\t\\r\\nü\"",
        ),
    ] {
        tracker.configure(None, config);
        let (_, document) = tracker.shown();
        let start = format!("{{\"config\":{shown},\"endpoints\"");
        assert!(document.starts_with(&start), "{document}");
        let value: serde_json::Value = serde_json::from_str(&document).unwrap();
        if !config.starts_with('[') {
            assert_eq!(value["config"], config);
        }
    }
}

#[test]
fn a_handle_shows_its_moment_while_the_state_goes_on() {
    let mut tracker = Tracker::with_members(100);
    let before = tracker.text(tracker.handle());
    let mut document = tracker.handle();
    let mut out = Vec::new();
    assert!(document.render_into(&tracker.endpoints, &mut out, 200));
    for i in 0..100 {
        tracker.expire(&format!("m{i:05}"));
    }
    while document.render_into(&tracker.endpoints, &mut out, 200) {}
    assert_eq!(String::from_utf8(out).unwrap(), before);
}

#[test]
fn a_piece_ends_with_the_member_that_fills_its_budget() {
    let tracker = Tracker::with_members(1_000);
    let mut document = tracker.handle();
    let mut pieces = 0;
    loop {
        let mut out = Vec::new();
        let more = document.render_into(&tracker.endpoints, &mut out, 500);
        assert!(out.len() < 600, "{} bytes", out.len());
        pieces += 1;
        if !more {
            break;
        }
    }
    assert!(pieces > 25, "{pieces} pieces");
}

#[test]
fn members_passed_over_use_up_the_budget_too() {
    let mut tracker = Tracker::with_members(1_000);
    tracker.configure(Some("z"), "the only inactive one");
    let mut document = tracker.handle();
    let mut out = Vec::new();
    let mut short_pieces = 0;
    loop {
        let before = out.len();
        let more = document.render_into(&tracker.endpoints, &mut out, 320);
        short_pieces += u32::from(out.len() - before < 320);
        if !more {
            break;
        }
    }
    assert!(short_pieces > 1_000 / (320 / 16) - 2, "{short_pieces}");
}

#[test]
fn pages_show_each_member_once_and_say_where_they_end() {
    let mut tracker = Tracker::with_members(50);
    for i in (0..50).step_by(3) {
        tracker.configure(Some(&format!("m{i:05}")), "c");
        tracker.expire(&format!("m{i:05}"));
    }
    let mut after: Option<String> = None;
    let mut names = Vec::new();
    loop {
        let page = tracker
            .handle()
            .page(after.as_deref().map(str::as_bytes), 7);
        let value: serde_json::Value = serde_json::from_str(&tracker.text(page)).unwrap();
        assert_eq!(value["active_count"], 33);
        assert_eq!(value["inactive_count"], 17);
        let mut page: Vec<String> = ["active_members", "inactive_members"]
            .iter()
            .flat_map(|list| value[list].as_array().unwrap())
            .map(|member| member.as_object().unwrap().keys().next().unwrap().clone())
            .collect();
        page.sort();
        names.extend(page);
        after = names.last().cloned();
        if value["truncated"] == false {
            break;
        }
        assert_eq!(names.len() % 7, 0, "a full page");
    }
    let all: Vec<String> = (0..50).map(|i| format!("m{i:05}")).collect();
    assert_eq!(names, all);
    let past_the_end = tracker.text(tracker.handle().page(Some(b"z"), 7));
    assert!(past_the_end.contains("\"active_members\":[],\"inactive_members\":[],"));
    assert!(past_the_end.ends_with("\"truncated\":false}"));
    let nobody = tracker.text(tracker.handle().page(None, 0));
    assert!(nobody.ends_with("\"truncated\":true}"));
}

#[test]
fn a_joiner_of_a_long_group_sees_itself_and_the_counts() {
    let tracker = Tracker::with_members(1_000);
    let whole = tracker.text(tracker.handle());
    assert_eq!(tracker.text(tracker.handle().for_joiner(b"m00007")), whole);

    let tracker = Tracker::with_members(1_001);
    assert_eq!(
        tracker.text(tracker.handle().for_joiner(b"m00007")),
        r#"{"config":null,"endpoints":["tracker1.example.com"],"active_members":[{"m00007":null}],"inactive_members":[],"active_count":1001,"inactive_count":0,"truncated":true}"#
    );
    // Gone again by the time the answer is written.
    let gone = tracker.text(tracker.handle().for_joiner(b"m00007x"));
    assert!(gone.contains("\"active_members\":[],\"inactive_members\":[],"));
}

#[test]
fn a_group_made_again_goes_on_counting() {
    let mut tracker = Tracker::founded();
    tracker.join("db1", None);
    tracker.join("db2", None);
    let delete = Request::DeleteGroup {
        group: Box::from(&b"database"[..]),
    };
    tracker.expire("db1");
    tracker.expire("db2");
    assert_eq!(tracker.shown().0, 3);
    assert_eq!(tracker.commit(&delete), Outcome::GroupDeleted);
    assert!(tracker.state.document(b"database").is_none());
    tracker.join("db1", None);
    assert_eq!(tracker.shown().0, 4);
}

/// The targets of the group, in pieces of about `budget` bytes, and how many those were.
fn targets(tracker: &Tracker, budget: usize) -> (Vec<serde_json::Value>, usize) {
    let mut document = tracker
        .state
        .document(b"database")
        .unwrap()
        .targets(Some(9));
    let (mut text, mut pieces) = (Vec::new(), 1);
    while document.render_into(&tracker.endpoints, &mut text, budget) {
        pieces += 1;
    }
    (serde_json::from_slice(&text).unwrap(), pieces)
}

#[test]
fn active_members_and_they_alone_are_targets() {
    let mut tracker = Tracker::founded();
    tracker.join("a", None);
    tracker.join("b", Some("{\"address\":\"b.example:1\"}"));
    tracker.commit(&Request::SetConfig {
        group: Box::from(&b"database"[..]),
        member: Some(Box::from(&b"idle"[..])),
        bytes: Box::from(&b"1"[..]),
        require: Require::Nothing,
    });
    let (shown, _) = targets(&tracker, usize::MAX);
    let addresses: Vec<&str> = shown
        .iter()
        .map(|target| target["targets"][0].as_str().unwrap())
        .collect();
    assert_eq!(addresses, ["a:9", "b.example:1"]);
}

#[test]
fn targets_in_pieces_of_any_size_are_the_same() {
    let mut tracker = Tracker::founded();
    for n in 0..40 {
        tracker.join(&format!("m{n:02}"), (n % 3 == 0).then_some("{\"x\":1}"));
    }
    let (whole, pieces) = targets(&tracker, usize::MAX);
    assert_eq!((whole.len(), pieces), (40, 1));
    for budget in [0, 1, 100, 1_000] {
        let (parts, pieces) = targets(&tracker, budget);
        assert_eq!(parts, whole);
        assert!(pieces > 1, "{budget}");
    }
}

#[test]
fn a_config_that_is_read_counts_against_the_budget_of_a_piece() {
    let mut tracker = Tracker::founded();
    let long = format!("{{\"x\":\"{}\"}}", "y".repeat(10_000));
    for n in 0..10 {
        tracker.join(&format!("m{n}"), Some(&long));
    }
    let (shown, pieces) = targets(&tracker, 10_000);
    assert_eq!((shown.len(), pieces), (10, 11));
}
