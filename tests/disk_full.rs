//! A disk that is full: one sentence, and everything that was answered is still there.
//!
//! A small file system of our own needs the right to mount; without it the tests say so and
//! pass.

mod common;

use std::time::Duration;

use common::{Deadline, Lost, Setup, SmallDisk, request, run_to_end, systole};

#[test]
fn a_disk_too_small_to_start_on_is_named() {
    let Some(disk) = SmallDisk::of(4) else {
        return;
    };
    let dir = disk.path().join("data");
    let mut command = systole();
    command
        .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(&dir);
    let ended = run_to_end(&mut command);
    ended.expect_sentence(1, &[dir.to_str().expect("a UTF-8 path"), "No space left"]);
}

#[test]
fn a_disk_that_fills_up_costs_nothing_that_was_answered() {
    let Some(disk) = SmallDisk::of(160) else {
        return;
    };
    let dir = disk.path().join("data");
    let mut server = Setup::new().dir(&dir).start();
    let mut client = server.client();
    let mut answered = Vec::new();
    let patience = Deadline::after(Duration::from_secs(60));
    let config = |n: usize| format!("{n} ").repeat(8_000);
    // Each config is some 50 KB; three thousand of them fill the disk.
    for n in 0..5_000 {
        assert!(!patience.passed(), "the disk should be full by now");
        let put = request(
            "PUT",
            &format!("/g{}/config", n % 50),
            &[],
            config(n).as_bytes(),
        );
        if client.send(&put).is_err() {
            break;
        }
        match client.try_answer_to("PUT") {
            Ok(answer) if answer.status == 204 => answered.push(n),
            // Refused, or cut off: not promised.
            Ok(_) | Err(Lost::Closed) => break,
            Err(Lost::Silent) => panic!("neither an answer nor an end"),
        }
    }
    assert!(answered.len() > 500, "{} configs fitted", answered.len());
    if server.is_running() {
        server.kill();
    } else {
        server.wait_for_end().expect_sentence(1, &["No space left"]);
    }
    disk.resize(640);
    server.restart();
    let mut client = server.client();
    for n in answered.iter().rev().take(50) {
        let kept = client
            .ask("GET", &format!("/g{}/config", n % 50))
            .expect(200);
        let kept = String::from_utf8(kept.body).expect("text");
        let number: usize = kept
            .split(' ')
            .next()
            .and_then(|w| w.parse().ok())
            .expect("a number");
        // One more may have been committed without an answer; none may be missing.
        assert!(
            number >= *n && number % 50 == n % 50,
            "config {n} reads {number}"
        );
        assert_eq!(kept, config(number));
    }
}
