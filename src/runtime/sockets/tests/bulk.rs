//! Connections that may wait.

use super::super::bulk::{BULK_LATE_NS, BULK_WAITS_MAX, CALM_NS};
use super::*;

/// So many clients whose last line was bulk, and answered.
fn crowd(world: &mut World, count: usize) -> Vec<TcpStream> {
    let mut bulk: Vec<_> = (0..count).map(|_| world.client()).collect();
    all_send(&mut bulk, "bulk\n");
    all_receive(world, &mut bulk, "<bulk>");
    bulk
}

fn all_send(clients: &mut [TcpStream], line: &str) {
    for client in clients {
        client.write_all(line.as_bytes()).unwrap();
    }
}

/// Turns until nothing is left to do: each has received `wanted` then, and nothing else.
fn all_receive(world: &mut World, clients: &mut [TcpStream], wanted: &str) {
    let mut quiet = 0;
    while quiet < 3 {
        let is_idle = world.turn().events == 0 && world.sockets.has_seen_all();
        quiet = if is_idle { quiet + 1 } else { 0 };
    }
    for client in clients {
        let mut got = [0; 64];
        let count = client.read(&mut got).unwrap();
        assert_eq!(std::str::from_utf8(&got[..count]), Ok(wanted));
    }
}

/// A crowd of which most have sent twice before they were served once, all served by now.
fn crowd_aside(world: &mut World) -> Vec<TcpStream> {
    let mut bulk = crowd(world, 200);
    for _ in 0..2 {
        all_send(&mut bulk, "bulk\n");
        events_of(world);
    }
    all_receive(world, &mut bulk, "<bulk><bulk>");
    bulk
}

#[test]
fn those_who_may_wait_are_served_after_the_others_and_not_for_long() {
    let mut world = World::new(200);
    let mut bulk: Vec<_> = (0..20).map(|_| world.client()).collect();
    let mut urgent = world.client();
    for client in &mut bulk {
        client.write_all(b"bulk\n").unwrap();
        world.expect(client, "<bulk>");
    }
    let served = world.lines.bulk_lines;
    all_send(&mut bulk, "bulk\n");
    urgent.write_all(b"urgent\n").unwrap();
    // All is there: loopback delivers before `write` returns.
    world.turn();
    let of_the_first = world.lines.bulk_lines - served;
    assert_eq!(of_the_first, 1, "a quarter of a millisecond's worth");
    let mut answer = [0; 64];
    let count = urgent.read(&mut answer).unwrap();
    assert_eq!(&answer[..count], b"<urgent>", "in the same turn");
    assert!(world.sockets.is_busy());
    for turn in 1..=19 {
        world.turn();
        let lines = world.lines.bulk_lines - served;
        assert_eq!(lines, 1 + turn, "no more though nobody else wants anything");
    }
    assert!(!world.sockets.is_busy());
    // Those who waited have their turn, each in its own.
    all_receive(&mut world, &mut bulk, "<bulk>");
}

#[test]
fn who_has_waited_while_many_others_were_served_is_known_to_have() {
    let mut world = World::new(200);
    let mut bulk = crowd(&mut world, 80);
    all_send(&mut bulk, "bulk\n");
    let before = world.lines.bulk_lines;
    let mut late = Vec::new();
    while world.lines.bulk_lines - before < 80 {
        world.turn();
        late.push(world.lines.late_lines);
    }
    // A third of a millisecond a turn: after sixty turns those left have waited.
    assert_eq!((late[59], late[60]), (0, 1), "{late:?}");
    assert_eq!(world.lines.late_lines, 80 - 60);
    world.expect(&mut bulk[0], "<bulk>");
    bulk[0].write_all(b"bulk\n").unwrap();
    world.expect(&mut bulk[0], "<bulk>");
    assert_eq!(world.lines.late_lines, 80 - 60, "nobody was before him");
}

#[test]
fn a_machine_that_stood_still_makes_nobody_late() {
    let mut world = World::new(200);
    let mut bulk = crowd(&mut world, 6);
    all_send(&mut bulk, "bulk\n");
    world.turn();
    world.now.set(world.now.get() + 100 * BULK_LATE_NS);
    all_receive(&mut world, &mut bulk, "<bulk>");
    assert_eq!(world.lines.late_lines, 0);
}

#[test]
fn one_who_may_wait_is_read_in_small_portions() {
    let mut world = World::new(8);
    let mut client = world.client();
    client.write_all(b"bulk\n").unwrap();
    world.expect(&mut client, "<bulk>");
    let line = format!("bulk{}\n", "x".repeat(1_019));
    client.write_all(line.repeat(20).as_bytes()).unwrap();
    let before = world.lines.bulk_lines;
    world.turn();
    let a_portion = STAGE_BYTES / line.len();
    assert_eq!(world.lines.bulk_lines - before, a_portion);
    // And one that may not is not kept waiting by more of the same.
    while world.sockets.is_busy() {
        world.turn();
    }
    assert_eq!(world.lines.bulk_lines - before, 20);
}

#[test]
fn one_who_waited_too_long_is_read_in_large_portions() {
    let mut world = World::new(200);
    let mut bulk = crowd(&mut world, 80);
    let mut last = bulk.pop().unwrap();
    all_send(&mut bulk, "bulk\n");
    // They are queued, in the order in which the events come.
    world.turn();
    let line = format!("bulk{}\n", "x".repeat(1_019));
    last.write_all(line.repeat(20).as_bytes()).unwrap();
    let before = world.lines.late_lines;
    let mut portions = Vec::new();
    while portions.is_empty() || world.sockets.is_busy() {
        let lines = world.lines.bulk_lines;
        world.turn();
        portions.push(world.lines.bulk_lines - lines);
    }
    // Another may have been served before it in the same turn.
    let large = portions.iter().max().copied().unwrap_or(0);
    assert!(large >= LATE_BYTES / line.len(), "{portions:?}");
    assert!(world.lines.late_lines - before >= 16);
}

#[test]
fn those_who_may_wait_have_a_turn_however_much_others_have_to_do() {
    let mut world = World::new(400);
    let mut bulk = world.client();
    bulk.write_all(b"bulk\n").unwrap();
    world.expect(&mut bulk, "<bulk>");
    let mut others: Vec<_> = (0..2 * EVENTS_MAX).map(|_| world.client()).collect();
    for _ in 0..50 {
        world.turn();
    }
    bulk.write_all(b"bulk\n").unwrap();
    let before = world.lines.bulk_lines;
    let mut turns = 0;
    while world.lines.bulk_lines == before {
        for client in &mut others {
            client.write_all(b"a\n").unwrap();
        }
        world.turn();
        turns += 1;
        assert!(turns <= BULK_WAITS_MAX + 2, "never served");
    }
    assert!(turns > 2, "the others came first");
}

/// Turns until a batch of events is not full; returns how many there were.
fn events_of(world: &mut World) -> usize {
    let mut events = 0;
    loop {
        let some = world.turn().events;
        events += some;
        if some < EVENTS_MAX {
            return events;
        }
    }
}

#[test]
fn many_who_send_more_before_their_turn_make_no_more_news() {
    let mut world = World::new(400);
    let mut bulk = crowd(&mut world, 200);
    all_send(&mut bulk, "bulk\n");
    assert_eq!(events_of(&mut world), 200);
    all_send(&mut bulk, "bulk\n");
    assert_eq!(events_of(&mut world), 200);
    all_send(&mut bulk, "bulk\n");
    // A few have been served meanwhile.
    let events = events_of(&mut world);
    assert!(events <= 20, "{events}");
    assert!(!world.sockets.has_seen_all());
    all_receive(&mut world, &mut bulk, "<bulk><bulk><bulk>");
    world.turn();
    assert!(world.sockets.has_seen_all());
    // Nobody is forgotten there, and each has a turn.
    all_send(&mut bulk, "bulk\n");
    all_receive(&mut world, &mut bulk, "<bulk>");
}

#[test]
fn few_who_send_more_before_their_turn_are_watched_as_before() {
    let mut world = World::new(400);
    let mut bulk = crowd(&mut world, 100);
    for _ in 0..3 {
        all_send(&mut bulk, "bulk\n");
        assert_eq!(world.turn().events, 100);
    }
}

#[test]
fn nobody_who_may_wait_comes_before_those_aside() {
    let mut world = World::new(400);
    let _aside = crowd_aside(&mut world);
    let mut late = [world.client()];
    // The first is not known to be bulk, and the second is the last that is told of here.
    for events in [None, Some(1), Some(0)] {
        all_send(&mut late, "bulk\n");
        if let Some(events) = events {
            assert_eq!(events_of(&mut world), events);
        }
        all_receive(&mut world, &mut late, "<bulk>");
    }
}

#[test]
fn one_who_is_aside_wakes_a_shard_that_has_nothing_to_do_and_none_that_rests() {
    let mut world = World::new(400);
    let mut bulk = crowd_aside(&mut world);
    let would_wake = |world: &World| {
        let mut polled = [rustix::event::PollFd::new(
            world.sockets.poller(),
            rustix::event::PollFlags::IN,
        )];
        let at_once = rustix::event::Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        rustix::event::poll(&mut polled, Some(&at_once)).unwrap() == 1
    };
    let idle = Waits {
        idle_ns: 1,
        rest_ns: 0,
    };
    for (waits, wakes) in [(Waits::default(), false), (idle, true), (idle, true)] {
        let client = &mut bulk[70];
        world.turn_with(waits);
        assert!(!would_wake(&world));
        client.write_all(b"bulk\n").unwrap();
        assert_eq!(would_wake(&world), wakes, "{waits:?}");
        world.expect(client, "<bulk>");
    }
}

#[test]
fn one_who_no_longer_may_wait_is_watched_with_the_others_again() {
    let mut world = World::new(400);
    let mut bulk = crowd_aside(&mut world);
    let client = &mut bulk[50];
    client.write_all(b"urgent\n").unwrap();
    world.expect(client, "<urgent>");
    client.write_all(b"urgent\n").unwrap();
    assert_eq!(world.turn().events, 1);
    world.expect(client, "<urgent>");
}

#[test]
fn nobody_stays_aside_once_everybody_has_been_served_in_time_for_a_while() {
    let mut world = World::new(400);
    let mut bulk = crowd_aside(&mut world);
    let reviewed_after = |world: &mut World, ns: u64| {
        world.now.set(world.now.get() + ns);
        world.sockets.review(&mut world.lines);
        world.turn();
    };
    reviewed_after(&mut world, 0);
    all_send(&mut bulk, "bulk\n");
    let events = events_of(&mut world);
    assert!(events < 80, "{events}");
    all_receive(&mut world, &mut bulk, "<bulk>");
    reviewed_after(&mut world, CALM_NS);
    all_send(&mut bulk, "bulk\n");
    assert_eq!(events_of(&mut world), 200);
}

#[test]
fn who_goes_away_aside_is_gone() {
    let mut world = World::new(400);
    let bulk = crowd_aside(&mut world);
    drop(bulk);
    for _ in 0..500 {
        world.turn();
    }
    assert_eq!(world.sockets.open(), 0);
    assert!(world.sockets.has_seen_all());
}

#[test]
fn who_serves_more_than_can_be_served_in_time_rests_between_portions_but_not_from_others() {
    let mut world = World::new(400);
    let mut urgent = world.client();
    let mut bulk = crowd_aside(&mut world);
    all_send(&mut bulk, "bulk\n");
    let rests = Waits {
        idle_ns: 0,
        rest_ns: 100_000,
    };
    let portion = |world: &mut World| {
        let before = world.lines.bulk_lines;
        world.turn_with(rests);
        world.lines.bulk_lines - before
    };
    // The clock stands still between the lines, so a rest lasts until it is moved.
    assert_eq!([portion(&mut world), portion(&mut world)], [1, 0]);
    urgent.write_all(b"urgent\n").unwrap();
    assert_eq!(portion(&mut world), 0);
    let mut answer = [0; 64];
    let count = urgent.read(&mut answer).unwrap();
    assert_eq!(&answer[..count], b"<urgent>", "in the same turn");
    world.now.set(world.now.get() + 100_000);
    assert_eq!([portion(&mut world), portion(&mut world)], [1, 0]);
    // Nobody rests who need not, nor once there is time for everybody.
    world.now.set(world.now.get() + 100_000);
    let mut unasked = || {
        let before = world.lines.bulk_lines;
        world.turn();
        world.lines.bulk_lines - before
    };
    assert_eq!([unasked(), unasked()], [1, 1]);
    all_receive(&mut world, &mut bulk, "<bulk>");
    world.now.set(world.now.get() + CALM_NS);
    world.sockets.review(&mut world.lines);
    events_of(&mut world);
    all_send(&mut bulk[..20], "bulk\n");
    assert_eq!([portion(&mut world), portion(&mut world)], [1, 1]);
}
