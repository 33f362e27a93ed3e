//! What a transaction makes events of, and how long a ring remembers them.

use super::*;
use crate::group::{Applied, Decision, Join, Lapse, Request, Require, Settings, State};
use crate::time::Millis;
use crate::types::{Epoch, Incarnation, ServerId, Term, Zxid};

/// A state whose group `g` is watched.
struct Watched {
    state: State,
    next: Zxid,
    out: Applied,
}

impl Watched {
    fn new() -> Watched {
        let settings = Settings {
            default_timeout: Millis(10_000),
            seeds: [0; 4],
        };
        let mut watched = Watched {
            state: State::new(settings),
            next: Zxid::new(Epoch(1), 1),
            out: Applied::default(),
        };
        watched.out.feed.watch(b"g"[..].into());
        watched.commit(&Request::Genesis { birth_s: 5 });
        watched.commit(&Request::Adopt {
            server: ServerId(1),
            incarnation: Incarnation(1),
            after: None,
            limit: 1_000,
        });
        watched
    }

    /// Commits a request; its events, each as kind, version and whether it is the last.
    fn commit(&mut self, request: &Request) -> Vec<(&'static str, u64, bool)> {
        let mut txn = Vec::new();
        if self.state.preprocess(request, &mut txn) != Decision::Propose {
            return Vec::new();
        }
        self.state.apply(self.next, &txn, &mut self.out).unwrap();
        self.next = self.next.next();
        let events = self.out.feed.take();
        events
            .map(|event| (event.name(), event.version.0, event.last))
            .collect()
    }

    fn lapse(&self, group: &str, member: &str) -> Lapse {
        let session = self.state.session(group.as_bytes(), member.as_bytes());
        Lapse {
            group: group.as_bytes().into(),
            member: member.as_bytes().into(),
            id: session.unwrap().id,
            term: Term(1),
        }
    }
}

fn join(group: &str, member: &str, config: Option<&str>) -> Join {
    Join {
        group: group.as_bytes().into(),
        member: member.as_bytes().into(),
        timeout: None,
        config: config.map(|config| config.as_bytes().into()),
        takeover: false,
        only_if_absent: false,
        owner: ServerId(1),
        incarnation: Incarnation(1),
    }
}

fn notice(version: u64) -> Arc<Notice> {
    let text = vec![b'x'; 100];
    Arc::new(Notice::new(Rank::of(GroupVersion(version)), &text))
}

#[test]
fn what_the_document_does_not_show_is_no_event() {
    let mut watched = Watched::new();
    assert_eq!(
        watched.commit(&Request::Join(join("g", "a", None))),
        [("join", 0, true)]
    );
    let longer = Join {
        timeout: Some(Millis(20_000)),
        ..join("g", "a", None)
    };
    assert_eq!(watched.commit(&Request::Join(longer)), []);
    let takeover = |config| Join {
        takeover: true,
        ..join("g", "a", config)
    };
    assert_eq!(watched.commit(&Request::Join(takeover(None))), []);
    assert_eq!(
        watched.commit(&Request::Join(join("g", "a", Some("c")))),
        [("config", 1, true)],
        "the renewal of a session that brings a config"
    );
    assert_eq!(
        watched.commit(&Request::Join(takeover(Some("d")))),
        [("join", 2, true)],
        "a new session that brings one"
    );
    let same = Request::SetConfig {
        group: b"g"[..].into(),
        member: Some(b"a"[..].into()),
        bytes: b"d"[..].into(),
        require: Require::Nothing,
    };
    assert_eq!(watched.commit(&same), [], "the same bytes again");
    assert_eq!(
        watched.commit(&Request::Join(join("h", "a", None))),
        [],
        "a group that nobody watches"
    );
}

#[test]
fn events_of_one_transaction_have_the_version_of_their_own_group() {
    let mut watched = Watched::new();
    watched.out.feed.watch(b"h"[..].into());
    for (group, member) in [("g", "a"), ("g", "b"), ("g", "c"), ("h", "a"), ("i", "a")] {
        watched.commit(&Request::Join(join(group, member, None)));
    }
    let lapses = [("g", "a"), ("g", "c"), ("h", "a"), ("i", "a")];
    let lapses = lapses.map(|(group, member)| watched.lapse(group, member));
    assert_eq!(
        watched.commit(&Request::Expire(lapses.to_vec())),
        [
            ("expire", 3, false),
            ("expire", 3, true),
            ("expire", 1, true)
        ]
    );
    assert_eq!(
        watched.commit(&Request::Expire(lapses.to_vec())),
        [],
        "all of them are stale by now"
    );
    watched.out.feed.unwatch(b"g");
    let joins =
        |watched: &mut Watched, group| watched.commit(&Request::Join(join(group, "z", None)));
    assert_eq!(joins(&mut watched, "g"), []);
    assert_eq!(joins(&mut watched, "h"), [("join", 2, true)]);
}

#[test]
fn ranks_tell_a_removal_from_the_versions_around_it() {
    let rank = |version| Rank::of(GroupVersion(version));
    let removed = Rank::removed(GroupVersion(4));
    assert!(Rank::NOTHING < rank(0) && rank(4) < removed && removed < rank(5));
    assert_eq!(removed.version(), Some(GroupVersion(4)));
    assert_eq!(rank(4).version(), Some(GroupVersion(4)));
    assert_eq!(Rank::NOTHING.version(), None);
    let mut watched = Watched::new();
    assert_eq!(watched.state.rank(b"g"), Rank::NOTHING);
    watched.commit(&Request::Join(join("g", "a", None)));
    assert_eq!(watched.state.rank(b"g"), rank(0));
    let lapse = watched.lapse("g", "a");
    watched.commit(&Request::Expire(vec![lapse]));
    let group = b"g"[..].into();
    assert_eq!(
        watched.commit(&Request::DeleteGroup { group }),
        [("remove", 1, true)]
    );
    assert_eq!(watched.state.rank(b"g"), Rank::removed(GroupVersion(1)));
}

#[test]
fn a_ring_says_where_each_rank_goes_on() {
    let mut ring = Ring::new(Rank::of(GroupVersion(2)));
    assert_eq!(ring.after(Rank::of(GroupVersion(2))), Some(0));
    assert_eq!(ring.after(Rank::of(GroupVersion(1))), None);
    for version in [3, 4, 4, 5] {
        ring.push(notice(version), usize::MAX);
    }
    let after: Vec<_> = (1..=6)
        .map(|version| ring.after(Rank::of(GroupVersion(version))))
        .collect();
    assert_eq!(after, [None, Some(0), Some(1), Some(3), Some(4), Some(4)]);
    assert_eq!(ring.newest(), Rank::of(GroupVersion(5)));
    assert!(ring.get(3).unwrap().is_some() && ring.get(4).unwrap().is_none());
}

#[test]
fn a_ring_forgets_whole_versions_at_its_limits() {
    let mut ring = Ring::new(Rank::NOTHING);
    for version in [0, 1, 1, 2] {
        ring.push(notice(version), 350);
    }
    // Three have room, so that one of the two events of version 1 is gone with version 0.
    ring.push(notice(3), 350);
    assert_eq!(ring.get(1).unwrap_err(), Forgotten);
    assert_eq!(ring.after(Rank::of(GroupVersion(0))), None);
    assert_eq!(ring.after(Rank::of(GroupVersion(1))), Some(3));
    ring.push(notice(4), 0);
    assert_eq!(
        ring.after(Rank::of(GroupVersion(3))),
        Some(5),
        "the newest stays"
    );
    let mut ring = Ring::new(Rank::NOTHING);
    for version in 0..=RING_EVENTS_MAX as u64 {
        ring.push(notice(version), usize::MAX);
    }
    assert_eq!(ring.end() - ring.first, RING_EVENTS_MAX as u64);
    assert_eq!(ring.after(Rank::NOTHING), None);
}

#[test]
fn no_place_in_a_ring_is_one_after_a_new_start() {
    let mut ring = Ring::new(Rank::NOTHING);
    ring.push(notice(0), usize::MAX);
    let place = ring.end();
    ring.restart(Rank::of(GroupVersion(9)));
    assert_eq!(ring.get(place).unwrap_err(), Forgotten);
    assert_eq!(ring.after(Rank::of(GroupVersion(8))), None);
    let next = ring.after(Rank::of(GroupVersion(9))).unwrap();
    ring.push(notice(10), usize::MAX);
    assert!(ring.get(next).unwrap().is_some());
}

#[test]
fn rings_share_what_all_may_take() {
    assert_eq!(ring_bytes_max(1), RING_BYTES_MAX);
    assert_eq!(ring_bytes_max(64), RING_BYTES_MAX);
    assert_eq!(ring_bytes_max(6_400), RING_BYTES_MAX / 100);
}

#[test]
fn a_notice_is_one_chunk_and_its_text_is_what_is_in_it() {
    let event = Event {
        group: b"g"[..].into(),
        version: GroupVersion(7),
        what: Happening::Configured {
            member: Some("b\"\u{e9}".as_bytes().into()),
            config: Some(EventConfig {
                bytes: b"{\r\n\"a\": 1}"[..].into(),
                json: true,
            }),
        },
        last: true,
    };
    let notice = event.render();
    let text = "event: config\nid: 7\n\
                data: {\"version\":7,\"member\":\"b\\\"\u{e9}\",\"config\":{  \"a\": 1}}\n\n";
    assert_eq!(std::str::from_utf8(notice.text()), Ok(text));
    let chunk = format!("{:x}\r\n{text}\r\n", text.len());
    assert_eq!(std::str::from_utf8(notice.chunk()), Ok(&chunk[..]));
}
