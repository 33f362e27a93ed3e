//! Members for the page to show.

use std::time::Duration;

use super::common::{Client, Deadline, request};

/// A number from the environment.
pub(crate) fn number(variable: &str, default: usize) -> usize {
    let given = std::env::var(variable).ok();
    given.map_or(default, |text| text.parse().expect("a number"))
}

/// The name of a group's member of this number; they sort as they count.
pub(crate) fn member(index: usize) -> String {
    format!("node-{index:06}.example.com")
}

/// Joins so many members that need not beat for an hour.
pub(crate) fn fill(client: &mut Client, group: &str, count: usize) {
    let minimal = [("Prefer", "return=minimal")];
    for first in (0..count).step_by(PIPELINED) {
        let some = first..count.min(first + PIPELINED);
        let joins = some.clone().map(|index| {
            let target = format!("/{group}/{}?timeout=1h", member(index));
            request("PUT", &target, &minimal, b"")
        });
        client
            .send(&joins.collect::<Vec<_>>().concat())
            .expect("to send");
        for _ in some {
            client.answer_to("PUT").expect(201);
        }
    }
}

/// A moment of a group's life: beats, and now and then somebody who joins and falls silent, or
/// leaves.
pub(crate) fn live(client: &mut Client, group: &str, turn: usize) {
    let known = if group == "database" {
        "db1".to_owned()
    } else {
        member(1)
    };
    let beat = request("HEAD", &format!("/{group}/{known}"), &[], b"");
    client.send(&beat.repeat(PIPELINED)).expect("to send");
    for _ in 0..PIPELINED {
        client.answer_to("HEAD").expect(204);
    }
    // Bursts of different sizes, so that the timeline has a shape.
    if turn.is_multiple_of(TURNS) {
        let burst = turn / TURNS;
        for index in 0..burst * burst % 7 {
            let job = format!("/{group}/job-{burst}-{index}");
            client.ask("PUT", &format!("{job}?timeout=2")).expect(201);
            if index % 3 == 2 {
                client.ask("DELETE", &job).expect(204);
            }
        }
    }
    Deadline::after(PAUSE).pass();
}

/// The bytes of a picture that came in base64 (RFC 4648, 4).
pub(crate) fn png(base64: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(base64.len() * 3 / 4);
    let (mut held, mut bits) = (0u32, 0);
    for digit in base64.bytes().filter(|digit| *digit != b'=') {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => panic!("no digit of base64: {digit}"),
        };
        held = held << 6 | u32::from(value);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((held >> bits) as u8);
        }
    }
    bytes
}

const PIPELINED: usize = 64;
/// From one burst to the next.
const TURNS: usize = 24;
const PAUSE: Duration = Duration::from_millis(30);
