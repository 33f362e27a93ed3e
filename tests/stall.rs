//! A server that the machine did not run for a while: beats that were sent meanwhile count,
//! and silence does not count double.

mod common;

use std::time::Duration;

use common::{Client, Deadline, Setup, now, poll, request};
use rustix::process::Signal;

const TIMEOUT: Duration = Duration::from_secs(1);
const STALL: Duration = Duration::from_secs(3);

/// How late an expiry may be seen on a busy machine.
const SLACK: Duration = Duration::from_millis(2_500);

fn active(client: &mut Client) -> Vec<String> {
    client
        .ask("GET", "/g")
        .expect(200)
        .members("active_members")
}

#[test]
fn after_a_stall_of_three_timeouts_nobody_who_beat_has_died() {
    let server = Setup::new().flag("--default-timeout", "1s").start();
    let mut beaters: Vec<Client> = (0..20).map(|_| server.client()).collect();
    let mut sessions = Vec::new();
    for (n, client) in beaters.iter_mut().enumerate() {
        sessions.push(client.ask("PUT", &format!("/g/m{n}")).expect(201).session());
    }
    // One whose connection is made while the server does not run: it waits in the backlog.
    let reconnecting = server
        .client()
        .ask("PUT", "/g/reconnecting")
        .expect(201)
        .session();
    server.client().ask("PUT", "/g/silent").expect(201);

    server.signal(Signal::STOP);
    let end = Deadline::after(STALL);
    let mut beats_sent = 0;
    let mut late = server.client();
    while !end.passed() {
        for (n, client) in beaters.iter_mut().enumerate() {
            let beat = request("HEAD", &format!("/g/m{n}"), &[], b"");
            client.send(&beat).expect("to send a beat");
        }
        late.send(&request("HEAD", "/g/reconnecting", &[], b""))
            .expect("to send a beat");
        beats_sent += 1;
        Deadline::after(Duration::from_millis(300)).pass();
    }
    server.signal(Signal::CONT);
    let resumed = now();

    for _ in 0..beats_sent {
        for (client, session) in beaters.iter_mut().zip(&sessions) {
            assert_eq!(&client.answer_to("HEAD").expect(204).session(), session);
        }
        assert_eq!(late.answer_to("HEAD").expect(204).session(), reconnecting);
    }
    // Those who beat go on; the silent one dies within its bound.
    poll(TIMEOUT + SLACK, "the silent one's expiry", || {
        for (n, client) in beaters.iter_mut().enumerate() {
            client.ask("HEAD", &format!("/g/m{n}")).expect(204);
        }
        late.ask("HEAD", "/g/reconnecting").expect(204);
        (!active(&mut late).contains(&"silent".to_owned())).then_some(())
    });
    println!("the silent one died {:?} after the stall", now() - resumed);
    assert_eq!(active(&mut late).len(), 21);
}

#[test]
fn a_stall_does_not_make_sessions_immortal() {
    let server = Setup::new().flag("--default-timeout", "1s").start();
    let mut client = server.client();
    client.ask("PUT", "/g/watcher?timeout=1h").expect(201);
    client.ask("PUT", "/g/silent").expect(201);
    // Three short stalls within one timeout may each postpone the deadline by their length,
    // and by no more.
    let started = now();
    let mut stalled = Duration::ZERO;
    for _ in 0..3 {
        server.signal(Signal::STOP);
        let stall = Duration::from_millis(800);
        Deadline::after(stall).pass();
        server.signal(Signal::CONT);
        stalled += stall;
        Deadline::after(Duration::from_millis(100)).pass();
    }
    poll(SLACK + TIMEOUT, "the expiry", || {
        (!active(&mut client).contains(&"silent".to_owned())).then_some(())
    });
    let lived = now() - started;
    assert!(lived <= TIMEOUT + stalled + SLACK, "it lived {lived:?}");
    assert!(lived >= TIMEOUT, "it lived {lived:?} only");
}
