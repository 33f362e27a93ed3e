//! The corpus of hostile requests over real sockets: each gets the answers it should or a
//! closed connection, none hangs, and none is felt on any other connection.

mod common;
#[path = "common/hostile.rs"]
mod corpus;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use common::{Client, Deadline, Dice, Lost, Server, Setup, seed};
use corpus::{Case, Outcome, cases};

/// A client that beats, on its own connection, while others misbehave.
struct Innocent {
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<u32>,
}

impl Innocent {
    fn beside(server: &Server) -> Innocent {
        let stop = Arc::new(AtomicBool::new(false));
        let mut client = server.client();
        let session = client
            .ask("PUT", "/innocent/m?timeout=2s")
            .expect(201)
            .session();
        let ends = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut beats = 0;
            loop {
                let beat = client.ask("HEAD", "/innocent/m").expect(204);
                assert_eq!(beat.session(), session);
                beats += 1;
                if ends.load(Ordering::Relaxed) {
                    return beats;
                }
                Deadline::after(Duration::from_millis(20)).pass();
            }
        });
        Innocent { stop, thread }
    }

    #[track_caller]
    fn must_be_well(self) {
        self.stop.store(true, Ordering::Relaxed);
        let beats = self
            .thread
            .join()
            .expect("the innocent one's beats were answered");
        println!("{beats} beats beside it");
    }
}

/// Reads the answers to one case and compares them with what it should get.
///
/// A refusal that leaves the connection open may end it all the same if the body has not come
/// whole by then, and says so.
fn check(client: &mut Client, case: &Case, whole: bool) -> Result<(), String> {
    for (number, outcome) in case.outcomes.iter().enumerate() {
        let Outcome { refusal, close } = *outcome;
        let answer = client
            .try_answer_of_any_method()
            .map_err(|lost| format!("answer {number}: {lost:?} instead of {outcome:?}"))?;
        let fits = refusal.is_none_or(|status| status == answer.status);
        let closes = answer.header("connection") == Some("close");
        if !fits || (close && !closes) {
            return Err(format!(
                "answer {number}: {answer:?} instead of {outcome:?}"
            ));
        }
        if closes && !close && !whole && answer.status >= 400 {
            let ends = client.ends().then_some(());
            return ends.ok_or_else(|| "the connection hangs".to_owned());
        }
    }
    let closes = case.outcomes.last().is_some_and(|outcome| outcome.close);
    if !closes {
        // What is left is incomplete, if there is anything; the end of the input ends it.
        client.finish();
    }
    loop {
        match client.try_answer_of_any_method() {
            Err(Lost::Closed) => return Ok(()),
            Err(Lost::Silent) => return Err("the connection hangs".to_owned()),
            Ok(answer) if answer.status >= 400 && !closes => {}
            Ok(answer) => return Err(format!("one answer too many: {answer:?}")),
        }
    }
}

/// Sends each case with `send`, as a whole or not, beside an innocent client.
fn run(server: &Server, whole: bool, send: impl Fn(&mut Client, &[u8])) {
    let innocent = Innocent::beside(server);
    let mut faults = Vec::new();
    let cases = cases();
    assert!(cases.len() >= 100, "{} cases", cases.len());
    for case in &cases {
        let mut client = server.client();
        send(&mut client, &case.bytes);
        if let Err(fault) = check(&mut client, case, whole) {
            faults.push(format!("{}: {fault}", case.name));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    innocent.must_be_well();
}

#[test]
fn each_hostile_request_gets_its_answer_or_a_close() {
    let server = Setup::new().start();
    run(&server, true, |client, bytes| {
        // The server may close before all is sent.
        let _ = client.send(bytes);
    });
}

#[test]
fn nothing_changes_when_they_come_in_pieces() {
    let server = Setup::new().start();
    let dice = std::cell::RefCell::new(Dice::new(seed()));
    run(&server, false, |client, bytes| {
        let mut dice = dice.borrow_mut();
        let cut = dice.below(bytes.len() as u64 + 1) as usize;
        let _ = client.send(&bytes[..cut]);
        Deadline::after(Duration::from_millis(2)).pass();
        let _ = client.send(&bytes[cut..]);
    });
}

#[test]
fn noise_gets_an_answer_or_a_close() {
    let server = Setup::new().start();
    let innocent = Innocent::beside(&server);
    let mut dice = Dice::new(seed());
    for _ in 0..200 {
        let length = 1 + dice.below(3_000) as usize;
        let noise: Vec<u8> = (0..length).map(|_| dice.below(256) as u8).collect();
        let mut client = server.client();
        let _ = client.send(&noise);
        client.finish();
        assert!(client.ends(), "noise must not hang: {noise:?}");
    }
    innocent.must_be_well();
}

#[test]
fn clients_that_vanish_in_the_middle_are_not_felt() {
    let server = Setup::new().start();
    let innocent = Innocent::beside(&server);
    let request = common::request("PUT", "/g/m?timeout=1h", &[], &[b'x'; 5_000]);
    for cut in (0..request.len()).step_by(97) {
        let mut client = server.client();
        client.send(&request[..cut]).expect("to send");
        drop(client);
        // And one that asks and does not wait for the answer.
        let mut client = server.client();
        client.send(&request).expect("to send");
    }
    innocent.must_be_well();
    server.client().ask("GET", "/-/livez").expect(200);
}

#[test]
fn many_half_open_clients_are_not_felt() {
    let server = Setup::new().start();
    let innocent = Innocent::beside(&server);
    let mut slow: Vec<Client> = Vec::new();
    for n in 0..300 {
        let mut client = server.client();
        let part = [
            "",
            "HEAD /innocent/",
            "HEAD /innocent/m HTTP/1.1\r\nHost: x\r\n",
        ][n % 3];
        client.send(part.as_bytes()).expect("to send");
        slow.push(client);
    }
    innocent.must_be_well();
    let mut last = slow.pop().expect("there are some");
    last.send(b"\r\n").expect("to send");
    last.answer_to("HEAD").expect(204);
}
