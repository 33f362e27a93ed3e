//! What is promised of requests that succeed, over a real socket: joins and renewals, beats one
//! by one and in batches, configs, pages, conditions, and the server's own pages.

mod common;

use std::time::Duration;

use common::{Client, Response, Server, Setup, poll, request};
use serde_json::{Value, json};

fn server() -> (Server, Client) {
    let server = Setup::new().start();
    let client = server.client();
    (server, client)
}

fn etag(response: &Response) -> String {
    response.header("etag").expect("an ETag").to_owned()
}

#[test]
fn a_join_creates_and_a_second_one_renews() {
    let (_server, mut client) = server();
    let new = client.ask("PUT", "/g/m?timeout=20").expect(201);
    assert_eq!(new.version(), 0, "the group came with it");
    assert_eq!(new.header("x-session-timeout-ms"), Some("20000"));
    let renewed = client.ask("PUT", "/g/m").expect(200);
    assert_eq!(renewed.session(), new.session());
    assert_eq!(
        renewed.header("x-session-timeout-ms"),
        Some("20000"),
        "kept"
    );
    assert_eq!(renewed.version(), 0, "nothing visible has changed");
    let changed = client
        .ask_with("PUT", "/g/m?timeout=1m", &[], b"now")
        .expect(200);
    assert_eq!(changed.session(), new.session());
    assert_eq!(changed.header("x-session-timeout-ms"), Some("60000"));
    assert_eq!(changed.version(), 1);
    assert_eq!(changed.json()["active_members"], json!([{"m": "now"}]));
}

#[test]
fn a_takeover_fences_the_ghost() {
    let (_server, mut client) = server();
    let old = client.ask("PUT", "/g/m?takeover").expect(201).session();
    let new = client.ask("PUT", "/g/m?takeover").expect(201).session();
    assert!(new > old);
    let ghost = [("x-session-id", old.as_str())];
    client.ask_with("HEAD", "/g/m", &ghost, b"").expect(409);
    assert_eq!(client.ask("HEAD", "/g/m").expect(204).session(), new);
}

#[test]
fn leaving_removes_a_member_or_makes_it_inactive() {
    let (_server, mut client) = server();
    client.ask("PUT", "/g/plain").expect(201);
    client
        .ask_with("PUT", "/g/configured", &[], b"{\"a\": [1, 2]}")
        .expect(201);
    assert_eq!(client.ask("DELETE", "/g/plain").expect(204).version(), 2);
    assert_eq!(
        client.ask("DELETE", "/g/configured").expect(204).version(),
        3
    );
    let group = client.ask("GET", "/g").expect(200).json();
    assert_eq!(group["active_members"], json!([]));
    assert_eq!(
        group["inactive_members"],
        json!([{"configured": {"a": [1, 2]}}])
    );
    client.ask("DELETE", "/g/configured/config").expect(204);
    let group = client.ask("GET", "/g").expect(200).json();
    assert_eq!(group["inactive_members"], json!([]));
    client.ask("DELETE", "/g").expect(204);
    client.ask("GET", "/g").expect(404);
    let again = client.ask("PUT", "/g/m").expect(201);
    assert!(
        again.version() > 4,
        "a removed group's versions go on: {}",
        again.version()
    );
}

#[test]
fn configs_keep_their_bytes_and_have_versions_of_their_own() {
    let (_server, mut client) = server();
    let texts: [&[u8]; 5] = [
        b"",
        b"plain \"text\"\n",
        b"{\"a\":  1}",
        b"[1, 2",
        "\u{e9}\u{1f600}\u{7f}".as_bytes(),
    ];
    for text in texts {
        client.ask("PUT", "/g/m").expect_any(&[200, 201]);
        let head = format!(
            "PUT /g/m/config HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n",
            text.len()
        );
        client
            .send(&[head.as_bytes(), text].concat())
            .expect("to send");
        client.answer_to("PUT").expect(204);
        let stored = client.ask("GET", "/g/m/config").expect(200);
        assert_eq!(stored.body, text);
        let shown = client.ask("GET", "/g").expect(200).json()["active_members"][0]["m"].clone();
        if text.starts_with(b"{") {
            assert_eq!(shown, json!({"a": 1}));
        } else {
            assert_eq!(shown, json!(String::from_utf8_lossy(text)));
        }
    }
    let before = etag(&client.ask("GET", "/g/m/config").expect(200));
    client.ask("PUT", "/g/other").expect(201);
    let after = etag(&client.ask("GET", "/g/m/config").expect(200));
    assert_eq!(before, after, "members that come do not disturb it");
}

#[test]
fn a_read_that_matches_is_304_and_still_a_beat() {
    let (_server, mut client) = server();
    client.ask("PUT", "/g/m?timeout=1500ms").expect(201);
    let tag = etag(&client.ask("GET", "/g").expect(200));
    let same = [("if-none-match", tag.as_str())];
    // Twice the timeout, in beats that read nothing.
    for _ in 0..10 {
        let answer = client.ask_with("GET", "/g/m", &same, b"").expect(304);
        assert_eq!(answer.version(), 0);
        common::Deadline::after(Duration::from_millis(300)).pass();
    }
    client.ask("PUT", "/g/other").expect(201);
    client.ask_with("GET", "/g", &same, b"").expect(200);
}

#[test]
fn a_group_is_read_in_pages_in_the_order_of_names() {
    let (_server, mut client) = server();
    let names: Vec<String> = (0..25).map(|n| format!("m{n:02}")).collect();
    for name in names.iter().rev() {
        let minimal = [("prefer", "return=minimal")];
        let joined = client.ask_with("PUT", &format!("/g/{name}"), &minimal, b"");
        assert!(joined.expect(201).body.is_empty());
    }
    let mut seen = Vec::new();
    loop {
        let after = seen
            .last()
            .map_or(String::new(), |name| format!("after={name}&"));
        let page = client.ask("GET", &format!("/g?{after}limit=7")).expect(200);
        let members = page.members("active_members");
        assert!(members.len() <= 7);
        let more = page.json()["truncated"] == true;
        seen.extend(members);
        if !more {
            break;
        }
    }
    assert_eq!(seen, names);
}

#[test]
fn groups_are_listed_with_their_counts() {
    let (_server, mut client) = server();
    for name in ["b", "a", "c"] {
        client.ask("PUT", &format!("/{name}/m")).expect(201);
    }
    client
        .ask_with("PUT", "/b/idle/config", &[], b"x")
        .expect(204);
    let list = client
        .ask("GET", "/?limit=2")
        .expect(200)
        .json()
        .to_string();
    let (a, b) = (list.find("\"a\""), list.find("\"b\""));
    assert!(a.is_some() && a < b && !list.contains("\"c\""), "{list}");
    let rest = client
        .ask("GET", "/?after=b")
        .expect(200)
        .json()
        .to_string();
    assert!(rest.contains("\"c\"") && !rest.contains("\"a\""), "{rest}");
}

#[test]
fn a_batch_beats_for_many_and_lists_only_the_failures() {
    let (_server, mut client) = server();
    let mut ids = Vec::new();
    for n in 0..50 {
        let joined = client
            .ask("PUT", &format!("/g/m{n}?timeout=2s"))
            .expect(201);
        let id = u128::from_str_radix(&joined.session(), 16).expect("32 hex digits");
        ids.extend(id.to_be_bytes());
    }
    let lines: String = (0..50).map(|n| format!("g/m{n}\n")).collect();
    let packed = [("content-type", "application/octet-stream")];
    // Twice the timeout, alternating the two forms.
    for _ in 0..10 {
        let by_name = client.ask_with("POST", "/-/heartbeats", &[], lines.as_bytes());
        assert_eq!(by_name.expect(200).json()["failed"], json!([]));
        let by_id = client.ask_with("POST", "/-/heartbeats", &packed, &ids);
        assert_eq!(by_id.expect(200).json()["failed"], json!([]));
        common::Deadline::after(Duration::from_millis(400)).pass();
    }
    client.ask("DELETE", "/g/m7").expect(204);
    let by_name = client.ask_with("POST", "/-/heartbeats", &[], lines.as_bytes());
    let failed = by_name.expect(200).json()["failed"].clone();
    let failed: &Vec<Value> = failed.as_array().expect("a list");
    assert_eq!(failed.len(), 1, "{failed:?}");
    assert_eq!(failed[0]["status"], 404, "{failed:?}");
    let by_id = client.ask_with("POST", "/-/heartbeats", &packed, &ids);
    let failed = by_id.expect(200).json()["failed"].clone();
    assert_eq!(failed.as_array().map(Vec::len), Some(1), "{failed}");
    assert_eq!(failed[0]["status"], 410, "{failed}");
}

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    let (_server, mut client) = server();
    let mut all = Vec::new();
    for n in 0..300 {
        all.extend(request("PUT", &format!("/g/m{n}?timeout=1h"), &[], b""));
        all.extend(request("HEAD", &format!("/g/m{n}"), &[], b""));
        all.extend(request("HEAD", "/g/none", &[], b""));
    }
    client.send(&all).expect("to send");
    for n in 0..300 {
        let joined = client.answer_to("PUT").expect(201);
        let beat = client.answer_to("HEAD").expect(204);
        assert_eq!(beat.session(), joined.session(), "m{n}");
        client.answer_to("HEAD").expect(404);
    }
}

#[test]
fn names_are_compared_decoded() {
    let (_server, mut client) = server();
    client.ask("PUT", "/caf%C3%A9/m%20%31").expect(201);
    client.ask("HEAD", "/caf%c3%a9/m%201").expect(204);
    let group = client.ask("GET", "/caf%C3%A9").expect(200);
    assert_eq!(group.members("active_members"), ["m 1"]);
}

#[test]
fn a_session_is_found_from_every_shard() {
    let server = Setup::new()
        .flag("--shards", "3")
        .flag("--pin", "off")
        .start();
    let joined = server
        .client()
        .ask("PUT", "/g/m?timeout=1h")
        .expect(201)
        .session();
    // The kernel spreads connections over the shards by their ports.
    for _ in 0..30 {
        let mut client = server.client();
        for _ in 0..3 {
            assert_eq!(client.ask("HEAD", "/g/m").expect(204).session(), joined);
        }
        assert_eq!(client.ask("PUT", "/g/m").expect(200).session(), joined);
    }
    let mut lines = String::new();
    for n in 0..60 {
        server
            .client()
            .ask("PUT", &format!("/g/n{n}?timeout=1h"))
            .expect(201);
        lines.push_str(&format!("g/n{n}\n"));
    }
    let batch = server
        .client()
        .ask_with("POST", "/-/heartbeats", &[], lines.as_bytes());
    assert_eq!(batch.expect(200).json()["failed"], json!([]));
    for n in 0..60 {
        server
            .client()
            .ask("DELETE", &format!("/g/n{n}"))
            .expect(204);
    }
    let group = server.client().ask("GET", "/g").expect(200);
    assert_eq!(group.members("active_members"), ["m"]);
}

#[test]
fn the_servers_own_pages_say_what_they_should() {
    let (server, mut client) = server();
    client.ask("PUT", "/g/m").expect(201);
    client.ask("GET", "/-/livez").expect(200);
    client.ask("GET", "/-/readyz").expect(200);
    let cluster = client.ask("GET", "/-/cluster").expect(200).json();
    assert_eq!(cluster["id"], 1);
    assert_eq!(cluster["leader"], 1);
    assert_eq!(cluster["role"], "leading");
    let endpoint = server.address().to_string();
    assert_eq!(cluster["servers"][0]["endpoint"], endpoint.as_str());
    let zxid = |page: &Value| page["applied_zxid"].as_str().expect("a zxid").to_owned();
    client.ask("PUT", "/g/n").expect(201);
    let later = client.ask("GET", "/-/cluster").expect(200).json();
    assert_ne!(zxid(&cluster), zxid(&later), "a join is a transaction");
    client.ask("HEAD", "/g/n").expect(204);
    let last = client.ask("GET", "/-/cluster").expect(200).json();
    assert_eq!(zxid(&last), zxid(&later), "a beat is none");
    // Counters are published once a second.
    poll(Duration::from_secs(10), "the beat in the metrics", || {
        let metrics = client.ask("GET", "/-/metrics").expect(200);
        let text = String::from_utf8(metrics.body).expect("text");
        let told = |line: &str| line.starts_with("systole_") && line.contains("heartbeats");
        text.lines()
            .any(|line| told(line) && !line.ends_with(" 0"))
            .then_some(())
    });
    let metrics = client.ask("GET", "/-/metrics").expect(200);
    let text = String::from_utf8(metrics.body).expect("text");
    let logged = |line: &&str| line.starts_with("systole_log_bytes_total ");
    let bytes = text
        .lines()
        .find(logged)
        .and_then(|line| line.split(' ').nth(1)?.parse().ok());
    assert!(
        bytes.is_some_and(|bytes: u64| bytes > 20),
        "two joins: {bytes:?}"
    );
    assert!(text.contains("\nsystole_log_segments 1\n"), "{text}");
    let histograms = client.ask("GET", "/-/histograms").expect(200);
    assert!(!histograms.body.is_empty());
}
