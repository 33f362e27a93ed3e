//! What a restart keeps: sessions with a full timeout, configs, versions; and what it does
//! not bring back.

mod common;

use std::time::Duration;

use common::{Client, Deadline, Server, Setup, now, poll};
use rustix::process::Signal;

const TIMEOUT: Duration = Duration::from_secs(2);

/// How late an expiry may be seen on a machine that is busy with other tests. What the
/// server promises (a tick and a commit) is measured elsewhere.
const SLACK: Duration = Duration::from_millis(2_500);

fn server() -> Server {
    Setup::new().flag("--default-timeout", "2s").start()
}

fn is_active(client: &mut Client, group: &str, member: &str) -> bool {
    let answer = client.ask("GET", group).expect(200);
    answer.members("active_members").iter().any(|m| m == member)
}

#[test]
fn after_a_kill_a_silent_session_lives_its_full_timeout_and_no_longer() {
    let mut server = server();
    server.client().ask("PUT", "/g/silent").expect(201);
    server.kill();
    // Down for longer than the timeout: nobody could beat.
    Deadline::after(TIMEOUT + Duration::from_millis(500)).pass();
    let started = now();
    server.restart();
    let ready = now();
    let mut client = server.client();
    assert!(is_active(&mut client, "/g", "silent"), "it came back");
    let all = TIMEOUT + SLACK;
    poll(all, "the expiry", || {
        (!is_active(&mut client, "/g", "silent")).then_some(())
    });
    let died = now();
    assert!(
        died >= started + TIMEOUT,
        "expired {:?} after the start",
        died - started
    );
    assert!(
        died <= ready + all,
        "expired {:?} after readiness",
        died - ready
    );
}

#[test]
fn after_a_kill_a_session_goes_on_under_its_id() {
    let mut server = server();
    let joined = server
        .client()
        .ask("PUT", "/g/m?timeout=1500ms")
        .expect(201);
    let id = joined.session();
    for round in 0..3 {
        server.restart();
        let mut client = server.client();
        let with_id = [("x-session-id", id.as_str())];
        let beat = client.ask_with("HEAD", "/g/m", &with_id, b"").expect(204);
        assert_eq!(beat.session(), id, "round {round}");
        assert_eq!(beat.header("x-session-timeout-ms"), Some("1500"));
        assert_eq!(
            beat.version(),
            joined.version(),
            "a restart changes no group"
        );
        let again = client.ask("PUT", "/g/m").expect(200);
        assert_eq!(again.session(), id, "a join renews it");
    }
}

#[test]
fn who_beats_again_after_a_restart_does_not_expire() {
    let mut server = server();
    let id = server
        .client()
        .ask("PUT", "/g/m?timeout=500ms")
        .expect(201)
        .session();
    server.restart();
    let mut client = server.client();
    let deadline = Deadline::after(Duration::from_secs(2));
    while !deadline.passed() {
        assert_eq!(client.ask("HEAD", "/g/m").expect(204).session(), id);
        Deadline::after(Duration::from_millis(100)).pass();
    }
}

#[test]
fn what_ended_before_a_restart_does_not_come_back() {
    let mut server = server();
    let mut client = server.client();
    let left = client.ask("PUT", "/g/left").expect(201).session();
    client.ask("PUT", "/g/stays?timeout=1h").expect(201);
    client
        .ask_with("PUT", "/g/left/config", &[], b"kept")
        .expect(204);
    client.ask("DELETE", "/g/left").expect(204);
    client.ask("PUT", "/g/expired?timeout=100ms").expect(201);
    poll(SLACK, "the expiry", || {
        (!is_active(&mut client, "/g", "expired")).then_some(())
    });
    let before = client.ask("GET", "/g").expect(200);
    server.restart();
    let mut client = server.client();
    let after = client.ask("GET", "/g").expect(200);
    assert_eq!(after.version(), before.version());
    let (mut was, mut is) = (before.json(), after.json());
    // The port, and with it the endpoint, is another.
    was["endpoints"].take();
    is["endpoints"].take();
    assert_eq!(is, was);
    let with_id = [("x-session-id", left.as_str())];
    client
        .ask_with("GET", "/g/left", &with_id, b"")
        .expect_problem(410, "session_ended");
    let joined = client.ask("PUT", "/g/left").expect(201);
    assert!(joined.session() > left, "ids grow across a restart");
    assert_eq!(joined.version(), before.version() + 1);
}

#[test]
fn a_server_told_to_stop_answers_what_it_accepted_and_exits_with_0() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut server = server();
        let mut client = server.client();
        let mut joins = Vec::new();
        for n in 0..50 {
            joins.extend(common::request(
                "PUT",
                &format!("/g/m{n}?timeout=1h"),
                &[],
                b"",
            ));
        }
        client.ask("PUT", "/g/first?timeout=1h").expect(201);
        client.send(&joins).expect("to send");
        // The first answer shows that the batch was read; what follows it was accepted.
        client.answer_to("PUT").expect(201);
        server.signal(signal);
        let mut answered = 1;
        while let Ok(answer) = client.try_answer_to("PUT") {
            if answer.status == 201 {
                answered += 1;
            } else {
                assert_eq!(answer.status, 503, "refused, but not dropped");
            }
        }
        let ended = server.wait_for_end();
        assert_eq!(ended.code, Some(0), "{signal:?}: {}", ended.stderr);
        server.restart();
        let group = server.client().ask("GET", "/g").expect(200);
        let active = group.members("active_members").len();
        assert!(
            active > answered,
            "{answered} and the first were promised, {active} are there"
        );
    }
}
