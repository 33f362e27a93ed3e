//! The commands and the client when servers of an ensemble are lost.

use std::sync::mpsc::channel;
use std::time::Duration;

use systole::client::{Client, Event, Terms};
use systole::time::Millis;

use crate::common::{Deadline, poll, run_to_end, systole};
use crate::servers::Ensemble;

const TIME: Duration = Duration::from_secs(30);

#[test]
fn a_member_keeps_its_session_when_the_server_it_knows_of_is_killed() {
    let mut ensemble = Ensemble::of_three();
    let owner = ensemble.follower();
    let addresses = ensemble.addresses();
    // The others it must learn of.
    let client = Client::new([addresses[owner].to_string()]).expect("a client");
    let (tell, told) = channel();
    let terms = Terms {
        timeout: Some(Millis(3_000)),
        ..Terms::new("db", "db1")
    };
    let member = client.keep(terms, move |event| drop(tell.send(event)));
    let member = member.expect("a member");
    let session = member.joined(TIME).expect("no refusal").expect("a session");
    ensemble.kill(owner);
    // Longer than lease and timeout: had no beat moved it, it would be expired.
    Deadline::after(Duration::from_millis(8_000)).pass();
    assert_eq!(member.session(), Some(session));
    assert!(member.is_promised());
    let others = (0..3).filter(|&i| i != owner);
    let others: Vec<String> = others.map(|i| addresses[i].to_string()).collect();
    let session = session.to_string();
    let ended = run_to_end(systole().args([
        "beat",
        "db/db1",
        "--session",
        &session,
        "--endpoint",
        &others.join(","),
    ]));
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    member.leave();
    let events: Vec<Event> = told.iter().collect();
    let lost = |event: &&Event| matches!(event, Event::Ended(_) | Event::Lapsed);
    assert_eq!(events.iter().find(lost), None, "{events:?}");
}

#[test]
fn a_server_that_is_cut_off_sends_a_command_on_to_the_others() {
    let ensemble = Ensemble::of_three();
    let cut = ensemble.follower();
    ensemble.isolate(cut);
    poll(TIME, "its lease to lapse", || {
        let answer = ensemble.ask(cut, "GET", "/-/readyz")?;
        (answer.status == 503).then_some(())
    });
    // Named alone, it lists the others in its 503.
    let endpoint = ensemble.addresses()[cut].to_string();
    let joined = run_to_end(systole().args(["join", "db/db1", "--endpoint", &endpoint]));
    assert_eq!(joined.code, Some(0), "{}", joined.stderr);
    let status = run_to_end(systole().args(["status", "--endpoint", &endpoint]));
    status.expect_sentence(3, &["1 of 3 servers cannot serve"]);
    let rows = status
        .stdout
        .lines()
        .filter(|line| line.ends_with("serves"))
        .count();
    assert_eq!(rows, 2, "{}", status.stdout);
}
