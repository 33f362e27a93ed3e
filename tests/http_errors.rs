//! Every refusal that is promised, over a real socket: its status, its code, its form, and
//! whether the connection goes on.

mod common;

use std::time::Duration;

use common::{Client, Server, Setup, poll, request};

/// A server with the group `g`, in which `m` is active and `c` is only configured.
fn server() -> (Server, Client, String) {
    let server = Setup::new().flag("--max-timeout", "1h").start();
    let mut client = server.client();
    let session = client.ask("PUT", "/g/m").expect(201).session();
    client
        .ask_with("PUT", "/g/c/config", &[], b"c's config")
        .expect(204);
    (server, client, session)
}

#[test]
fn requests_that_make_no_sense_are_400() {
    let (_server, mut client, session) = server();
    let long_name = format!("/g/{}", "x".repeat(256));
    let cases = [
        ("PUT", "/g/a%2Fb", "bad_name"),
        ("PUT", "/g/a%00b", "bad_name"),
        ("PUT", "/g/a%0Ab", "bad_name"),
        ("PUT", "/g/a%7Fb", "bad_name"),
        ("PUT", "/g/%ff%fe", "bad_name"),
        ("PUT", "/g/a%2", "bad_name"),
        ("PUT", long_name.as_str(), "bad_name"),
        ("PUT", "/-g/m", "reserved_name"),
        ("PUT", "/g/m?timeout=soon", "bad_parameter"),
        ("PUT", "/g/m?timeout=-1", "bad_parameter"),
        ("GET", "/?limit=many", "bad_parameter"),
        ("PUT", "/g/m?timout=20", "unknown_parameter"),
    ];
    for (method, target, code) in cases {
        println!("{method} {target}");
        client.ask(method, target).expect_problem(400, code);
    }
    let bad_session = [("x-session-id", "17")];
    client
        .ask_with("GET", "/g/m", &bad_session, b"")
        .expect_problem(400, "bad_header");
    let beat = client.ask("HEAD", "/g/m").expect(204);
    assert_eq!(
        beat.session(),
        session,
        "the connection and the session live on"
    );
}

#[test]
fn a_batch_that_is_none_is_400_and_a_batch_of_a_strange_type_415() {
    let (_server, mut client, _) = server();
    let packed = [("content-type", "application/octet-stream")];
    let torn = client.ask_with("POST", "/-/heartbeats", &packed, b"17 bytes, not 16!");
    torn.expect_problem(400, "bad_batch");
    let image = [("content-type", "image/png")];
    let strange = client.ask_with("POST", "/-/heartbeats", &image, b"g/m\n");
    strange.expect_problem(415, "unsupported_media_type");
}

#[test]
fn what_is_not_there_is_404() {
    let (_server, mut client, _) = server();
    let cases = [
        ("GET", "/none", "unknown_group"),
        ("DELETE", "/none", "unknown_group"),
        ("GET", "/g/c", "unknown_member"),
        ("GET", "/g/none", "unknown_member"),
        ("DELETE", "/g/none", "unknown_member"),
        ("GET", "/g/config", "no_config"),
        ("GET", "/g/m/config", "no_config"),
        ("GET", "/g/m/more", "unknown_page"),
        ("GET", "/-/none", "unknown_page"),
    ];
    for (method, target, code) in cases {
        println!("{method} {target}");
        client.ask(method, target).expect_problem(404, code);
    }
    let beat = client.ask("HEAD", "/g/none").expect(404);
    assert_eq!(beat.header("x-problem"), Some("unknown_member"));
    assert_eq!(
        beat.header("content-length"),
        Some("0"),
        "curl -XHEAD must not wait"
    );
}

#[test]
fn a_method_that_a_path_does_not_take_is_405_and_says_which_it_takes() {
    let (_server, mut client, _) = server();
    for (method, target, allowed) in [
        ("POST", "/g/m", "PUT"),
        ("PUT", "/g", "DELETE"),
        ("POST", "/g/config", "PUT"),
        ("DELETE", "/", "GET"),
        ("GET", "/-/heartbeats", "POST"),
        ("PUT", "/-/livez", "GET"),
    ] {
        let answer = client
            .ask(method, target)
            .expect_problem(405, "method_not_allowed");
        let allow = answer.header("allow").expect("Allow");
        assert!(allow.contains(allowed), "{method} {target}: {allow}");
        assert!(
            !allow.split(", ").any(|m| m == method),
            "{method} {target}: {allow}"
        );
    }
}

#[test]
fn a_request_that_does_not_end_is_408() {
    let server = Setup::new().start();
    let parts = [
        "GET / HT",
        "PUT /g/m HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf",
    ];
    let waiting = parts.map(|part| {
        let mut client = server.client();
        client.answer_time = Duration::from_secs(20);
        client.send(part.as_bytes()).expect("to send");
        client
    });
    for mut client in waiting {
        let answer = client.answer_to("GET");
        let answer = answer.expect_problem(408, "request_timeout");
        assert_eq!(answer.header("connection"), Some("close"));
        assert!(client.is_closed());
    }
}

#[test]
fn what_contradicts_the_state_is_409() {
    let (_server, mut client, first) = server();
    client
        .ask("DELETE", "/g")
        .expect_problem(409, "group_in_use");
    let second = client.ask("PUT", "/g/m?takeover").expect(201).session();
    assert!(second > first, "ids grow: {second} after {first}");
    let old = [("x-session-id", first.as_str())];
    let ghost = client.ask_with("HEAD", "/g/m", &old, b"").expect(409);
    assert_eq!(ghost.header("x-problem"), Some("session_conflict"));
    let ghost = client.ask_with("GET", "/g/m", &old, b"");
    ghost.expect_problem(409, "session_conflict");
    let ghost = client.ask_with("DELETE", "/g/m", &old, b"");
    ghost.expect_problem(409, "session_conflict");
    let new = [("x-session-id", second.as_str())];
    client.ask_with("HEAD", "/g/m", &new, b"").expect(204);
}

#[test]
fn a_session_that_left_or_expired_is_410_by_its_id() {
    let (_server, mut client, session) = server();
    client.ask("DELETE", "/g/m").expect(204);
    let left = [("x-session-id", session.as_str())];
    client
        .ask_with("GET", "/g/m", &left, b"")
        .expect_problem(410, "session_ended");
    client
        .ask_with("DELETE", "/g/m", &left, b"")
        .expect_problem(410, "session_ended");

    let short = client
        .ask("PUT", "/g/short?timeout=100ms")
        .expect(201)
        .session();
    poll(Duration::from_secs(10), "the expiry", || {
        let group = client.ask("GET", "/g").expect(200);
        group.members("active_members").is_empty().then_some(())
    });
    let expired = [("x-session-id", short.as_str())];
    let beat = client
        .ask_with("HEAD", "/g/short", &expired, b"")
        .expect(410);
    assert_eq!(beat.header("x-problem"), Some("session_ended"));
}

#[test]
fn a_condition_that_does_not_hold_is_412() {
    let (_server, mut client, _) = server();
    let none = [("if-none-match", "*")];
    let join = client.ask_with("PUT", "/g/m", &none, b"");
    join.expect_problem(412, "already_active");
    client.ask_with("PUT", "/g/other", &none, b"").expect(201);
    let wrong = [("if-match", "\"987654\"")];
    let config = client.ask_with("PUT", "/g/c/config", &wrong, b"new");
    config.expect_problem(412, "precondition_failed");
    let config = client.ask_with("DELETE", "/g/c/config", &wrong, b"");
    config.expect_problem(412, "precondition_failed");
    let config = client.ask("GET", "/g/c/config").expect(200);
    assert_eq!(config.body, b"c's config");
    let right = [("if-match", config.header("etag").expect("ETag"))];
    client
        .ask_with("PUT", "/g/c/config", &right, b"new")
        .expect(204);
}

#[test]
fn what_is_too_large_is_refused_by_its_kind() {
    let server = Setup::new().start();
    let longest = vec![b'x'; 65_536];
    let mut client = server.client();
    client
        .ask_with("PUT", "/g/m/config", &[], &longest)
        .expect(204);
    let too_long = vec![b'x'; 65_537];
    let answer = client.ask_with("PUT", "/g/m/config", &[], &too_long);
    answer.expect_problem(413, "body_too_large");

    // Announced and never sent: refused by the announcement.
    let mut client = server.client();
    let head = "POST /-/heartbeats HTTP/1.1\r\nHost: x\r\nContent-Length: 1048577\r\n\r\n";
    client.send(head.as_bytes()).expect("to send");
    client
        .answer_to("POST")
        .expect_problem(413, "body_too_large");
    assert!(client.is_closed());

    let long_target = request("GET", &format!("/{}", "x".repeat(9_000)), &[], b"");
    let long_header = request("GET", "/", &[("x-long", &"x".repeat(17_000))], b"");
    let many = vec![("x-a", "b"); 200];
    let many_headers = request("GET", "/", &many, b"");
    for (bytes, status, code) in [
        (long_target, 414, "target_too_long"),
        (long_header, 431, "head_too_large"),
        (many_headers, 431, "too_many_headers"),
    ] {
        let mut client = server.client();
        client.send(&bytes).expect("to send");
        client.answer_to("GET").expect_problem(status, code);
        assert!(client.is_closed(), "{code}");
    }
}

#[test]
fn a_config_that_is_not_text_is_415() {
    let (_server, mut client, _) = server();
    for target in ["/g/m/config", "/g/config", "/g/new"] {
        let answer = client.ask_with("PUT", target, &[], b"\xff\xfe");
        answer.expect_problem(415, "config_not_utf8");
    }
}

#[test]
fn a_timeout_out_of_bounds_is_422_and_names_the_bounds() {
    let (_server, mut client, _) = server();
    for target in ["/g/n?timeout=99ms", "/g/n?timeout=3601", "/g/m?timeout=0"] {
        let answer = client
            .ask("PUT", target)
            .expect_problem(422, "timeout_out_of_range");
        let detail = answer.json()["detail"]
            .as_str()
            .expect("a detail")
            .to_owned();
        let bounds = detail.contains("100 ms") && detail.contains("3600000 ms");
        assert!(bounds, "{detail}");
    }
    client.ask("GET", "/g/n").expect(404);
}

#[test]
fn a_version_that_this_server_has_not_seen_is_503_after_a_second() {
    let (server, mut client, _) = server();
    let ahead = [("x-group-version", "1000")];
    let answer = client
        .ask_with("GET", "/g", &ahead, b"")
        .expect_problem(503, "behind");
    assert_eq!(answer.header("retry-after"), Some("1"));
    let endpoints = answer.json()["endpoints"].clone();
    assert_eq!(endpoints, serde_json::json!([server.address().to_string()]));
    let seen = [("x-group-version", "1")];
    client.ask_with("GET", "/g", &seen, b"").expect(200);
}

#[test]
fn refusals_are_small_on_head_and_the_connection_goes_on() {
    let (_server, mut client, _) = server();
    // All in one packet: a refusal in the middle must not eat or invent an answer.
    let mut all = Vec::new();
    for target in ["/g/m", "/g/none", "/g/m?x=1", "/none/m", "/g/m"] {
        all.extend(request("HEAD", target, &[], b""));
    }
    client.send(&all).expect("to send");
    let statuses: Vec<u16> = (0..5).map(|_| client.answer_to("HEAD").status).collect();
    assert_eq!(statuses, [204, 404, 400, 404, 204]);
}

#[test]
fn a_client_that_says_no_more_is_answered_all_the_same() {
    let (server, _client, _) = server();
    for (method, target, status) in [
        ("GET", "/-/livez", 200),
        ("HEAD", "/g/m", 204),
        ("HEAD", "/g/none", 404),
        ("GET", "/g", 200),
        ("PUT", "/g/new", 201),
        ("DELETE", "/g/new", 204),
    ] {
        let mut client = server.client();
        client
            .send(&request(method, target, &[], b""))
            .expect("to send");
        client.finish();
        println!("{method} {target}");
        client.answer_to(method).expect(status);
        assert!(client.is_closed(), "{method} {target}");
    }
}

#[test]
fn a_refusal_before_the_body_has_come_says_whether_the_connection_goes_on() {
    let (server, _client, _) = server();
    let mut client = server.client();
    let head = "HEAD /g/m HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n";
    client.send(head.as_bytes()).expect("to send");
    let refused = client.answer_to("HEAD").expect(400);
    if refused.header("connection") == Some("close") {
        assert!(client.is_closed());
    } else {
        client.send(b"123456789").expect("to send");
        client.ask("HEAD", "/g/m").expect(204);
    }
}
