//! What a transaction changed in groups that somebody watches, as events; and the newest events
//! of a group, for watchers that were cut and come back.
//!
//! An event is made when its transaction is applied: what it shows is of that moment, not of
//! the state when it comes to be sent. It is rendered once, in the bytes that go to every
//! watcher, as `text/event-stream` has it:
//!
//! ```text
//! event: join
//! id: 12
//! data: {"version":12,"member":"db1","session":"…32 hex digits…","config":null}
//!
//! ```
//!
//! `id` is the group's version after the event. Where one transaction makes several events of
//! one version, the last of them alone has it: a watcher that is cut between them comes back
//! with the version before, and is told all of them.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use super::document::put_config;
use super::record::ConfigView;
use crate::json;
use crate::types::{GroupVersion, SessionId};

/// A point in the life of a group: its versions and its removals in their order.
///
/// A removal has no version of its own. It comes after the last version before it, and before
/// the one with which the group is made again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank(u64);

impl Rank {
    /// Before everything.
    pub const NOTHING: Rank = Rank(0);

    /// When the group had become what this version says.
    #[must_use]
    pub fn of(version: GroupVersion) -> Rank {
        Rank(version.0.saturating_add(1).saturating_mul(2))
    }

    /// The group's version at that point, or its last before it was removed; `None` at the very
    /// beginning.
    #[must_use]
    pub fn version(self) -> Option<GroupVersion> {
        (self.0 / 2).checked_sub(1).map(GroupVersion)
    }

    /// When the group was removed that had this version.
    #[must_use]
    pub fn removed(version: GroupVersion) -> Rank {
        Rank(Rank::of(version).0.saturating_add(1))
    }
}

/// Something that happened in a watched group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The group's name.
    pub group: Arc<[u8]>,
    /// The group's version after it; for a removal, its last.
    pub version: GroupVersion,
    /// What happened.
    pub what: Happening,
    /// No other event of this version comes after it.
    pub last: bool,
}

/// What may happen in a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happening {
    /// A member has become active, or is active in a new session.
    Joined {
        /// The member.
        member: Box<[u8]>,
        /// Its session.
        session: SessionId,
        /// Its config.
        config: Option<EventConfig>,
    },
    /// A member's session has ended.
    Ended {
        /// The member.
        member: Box<[u8]>,
        /// The session.
        session: SessionId,
        /// Its beats stopped; otherwise its client closed it.
        expired: bool,
        /// It has a config and stays as an inactive member.
        inactive: bool,
    },
    /// A config was written or deleted.
    Configured {
        /// Whose; `None` for the group's own.
        member: Option<Box<[u8]>>,
        /// The config; `None` if it was deleted.
        config: Option<EventConfig>,
    },
    /// The group was removed.
    Removed,
}

/// A config as an event shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventConfig {
    bytes: Box<[u8]>,
    json: bool,
}

impl EventConfig {
    pub(super) fn of(config: &ConfigView<'_>) -> EventConfig {
        EventConfig {
            bytes: config.bytes.into(),
            json: config.json,
        }
    }
}

impl Event {
    /// Where it stands in the life of its group.
    #[must_use]
    pub fn rank(&self) -> Rank {
        match self.what {
            Happening::Removed => Rank::removed(self.version),
            _ => Rank::of(self.version),
        }
    }

    /// The bytes for all watchers.
    #[must_use]
    pub fn render(&self) -> Notice {
        let mut text = Vec::with_capacity(NOTICE_BYTES_GUESS);
        text.extend_from_slice(b"event: ");
        text.extend_from_slice(self.name().as_bytes());
        // A removal has the version of what came before: whoever is cut after it is told it
        // again.
        if self.last && self.what != Happening::Removed {
            text.extend_from_slice(b"\nid: ");
            json::number(&mut text, self.version.0);
        }
        text.extend_from_slice(b"\ndata: {\"version\":");
        json::number(&mut text, self.version.0);
        self.fields(&mut text);
        text.extend_from_slice(b"}\n\n");
        Notice::new(self.rank(), &text)
    }

    fn name(&self) -> &'static str {
        match &self.what {
            Happening::Joined { .. } => "join",
            Happening::Ended { expired: true, .. } => "expire",
            Happening::Ended { expired: false, .. } => "leave",
            Happening::Configured { .. } => "config",
            Happening::Removed => "remove",
        }
    }

    fn fields(&self, text: &mut Vec<u8>) {
        match &self.what {
            Happening::Joined {
                member,
                session,
                config,
            } => {
                put_member(Some(member), text);
                put_session(*session, text);
                put_line_config(config.as_ref(), text);
            }
            Happening::Ended {
                member,
                session,
                inactive,
                ..
            } => {
                put_member(Some(member), text);
                put_session(*session, text);
                text.extend_from_slice(b",\"inactive\":");
                text.extend_from_slice(if *inactive { b"true" } else { b"false" });
            }
            Happening::Configured { member, config } => {
                put_member(member.as_deref(), text);
                put_line_config(config.as_ref(), text);
            }
            Happening::Removed => {}
        }
    }
}

fn put_member(member: Option<&[u8]>, text: &mut Vec<u8>) {
    text.extend_from_slice(b",\"member\":");
    match member {
        Some(name) => json::string_lossy(text, name),
        None => text.extend_from_slice(b"null"),
    }
}

fn put_session(session: SessionId, text: &mut Vec<u8>) {
    text.extend_from_slice(format!(",\"session\":\"{session}\"").as_bytes());
}

fn put_line_config(config: Option<&EventConfig>, text: &mut Vec<u8>) {
    text.extend_from_slice(b",\"config\":");
    let start = text.len();
    let view = config.map(|config| ConfigView {
        bytes: &config.bytes,
        version: 0,
        json: config.json,
    });
    put_config(view, text);
    on_one_line(&mut text[start..]);
}

/// Makes one line of a JSON text: its line ends stand between tokens, where a space is as good,
/// for within strings they are escaped.
pub fn on_one_line(json: &mut [u8]) {
    for byte in json {
        if matches!(*byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
}

/// An event as it is sent to every watcher of its group.
pub struct Notice {
    rank: Rank,
    /// One chunk (RFC 9112, 7.1).
    chunk: Box<[u8]>,
    /// Where in it the text begins.
    text_at: usize,
}

impl Notice {
    fn new(rank: Rank, text: &[u8]) -> Notice {
        let size = format!("{:x}\r\n", text.len());
        let text_at = size.len();
        let chunk = [size.as_bytes(), text, b"\r\n"].concat();
        Notice {
            rank,
            chunk: chunk.into(),
            text_at,
        }
    }

    /// Where the event stands in the life of its group.
    #[must_use]
    pub fn rank(&self) -> Rank {
        self.rank
    }

    /// The event as one chunk of an answer that comes in chunks.
    #[must_use]
    pub fn chunk(&self) -> &[u8] {
        &self.chunk
    }

    /// The event alone.
    #[must_use]
    pub fn text(&self) -> &[u8] {
        &self.chunk[self.text_at..self.chunk.len() - CHUNK_END.len()]
    }
}

impl std::fmt::Debug for Notice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&String::from_utf8_lossy(self.text()))
    }
}

/// What ends a chunk.
const CHUNK_END: &[u8] = b"\r\n";
/// More than an event without config takes.
const NOTICE_BYTES_GUESS: usize = 192;

/// The newest events of one group.
///
/// 1. It holds every event of the group with a rank above `since`, and none up to it.
/// 2. Ranks do not fall from one event to the next.
#[derive(Clone, Debug)]
pub struct Ring {
    notices: VecDeque<Arc<Notice>>,
    /// The number of the oldest; numbers grow by one and are never used again.
    first: u64,
    bytes: usize,
    since: Rank,
}

impl Ring {
    /// A ring that knows of nothing up to `since`.
    #[must_use]
    pub fn new(since: Rank) -> Ring {
        Ring {
            notices: VecDeque::new(),
            first: 0,
            bytes: 0,
            since,
        }
    }

    /// Forgets all events and knows of nothing up to `since`. Nobody's place in it is one any
    /// more.
    pub fn restart(&mut self, since: Rank) {
        self.first = self.end() + 1;
        self.notices.clear();
        self.bytes = 0;
        self.since = since;
    }

    /// Takes in the next event, and forgets the oldest ones beyond [`RING_EVENTS_MAX`] or
    /// `bytes_max`. The newest stays, however long it is.
    pub fn push(&mut self, notice: Arc<Notice>, bytes_max: usize) {
        debug_assert!(notice.rank >= self.newest(), "ranks do not fall");
        self.bytes += notice.chunk.len();
        self.notices.push_back(notice);
        while self.notices.len() > RING_EVENTS_MAX
            || (self.bytes > bytes_max && self.notices.len() > 1)
        {
            let Some(oldest) = self.notices.pop_front() else {
                return;
            };
            self.first += 1;
            self.bytes -= oldest.chunk.len();
            self.since = oldest.rank;
        }
        if self.notices.len() * 4 < self.notices.capacity() {
            self.notices.shrink_to(self.notices.len() * 2);
        }
    }

    /// The number of the first event after `rank`, or of the next one to come; `None` if events
    /// after `rank` are forgotten.
    #[must_use]
    pub fn after(&self, rank: Rank) -> Option<u64> {
        let passed = self.notices.partition_point(|notice| notice.rank <= rank);
        (rank >= self.since).then(|| self.first + passed as u64)
    }

    /// The event of this number: `None` if it is still to come, an error if it is forgotten.
    ///
    /// # Errors
    /// `Forgotten`.
    pub fn get(&self, number: u64) -> Result<Option<&Notice>, Forgotten> {
        let at = number.checked_sub(self.first).ok_or(Forgotten)?;
        let at = usize::try_from(at).unwrap_or(usize::MAX);
        Ok(self.notices.get(at).map(|notice| &**notice))
    }

    /// The number of the next event to come.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.first + self.notices.len() as u64
    }

    /// The rank of the newest event, or up to which there was none.
    #[must_use]
    pub fn newest(&self) -> Rank {
        self.notices.back().map_or(self.since, |newest| newest.rank)
    }
}

/// A place in a ring whose event is not in it any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forgotten;

/// What the events of one group may take when so many groups are watched: what one may have, or
/// an equal share of what all may have together. The newest event of each is kept beyond that.
#[must_use]
pub fn ring_bytes_max(rings: usize) -> usize {
    RING_BYTES_MAX.min(RINGS_BYTES_MAX / rings.max(1))
}

const RING_BYTES_MAX: usize = 1 << 20;
const RINGS_BYTES_MAX: usize = 64 << 20;

/// Most events in one ring: more than one transaction that expires sessions of one group makes.
pub(super) const RING_EVENTS_MAX: usize = 4_096;

/// The groups that are watched, and what happened in them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Feed {
    watched: BTreeSet<Arc<[u8]>>,
    /// What the transaction being applied has done so far, in its order.
    events: Vec<Event>,
    /// How many of `events` have their version.
    closed: usize,
}

impl Feed {
    /// Has events made of this group from now on.
    pub fn watch(&mut self, group: Arc<[u8]>) {
        self.watched.insert(group);
    }

    /// No events of this group any more.
    pub fn unwatch(&mut self, group: &[u8]) {
        self.watched.remove(group);
    }

    /// The names of the groups that are watched, in their order.
    pub fn watched(&self) -> impl Iterator<Item = &Arc<[u8]>> {
        self.watched.iter()
    }

    /// What the last transaction did, in its order; taken out.
    pub fn take(&mut self) -> impl Iterator<Item = Event> + '_ {
        self.closed = 0;
        self.events.drain(..)
    }

    /// True if events of this group are wanted. Free as long as nothing is watched.
    #[inline]
    pub(super) fn wants(&self, group: &[u8]) -> bool {
        !self.watched.is_empty() && self.watched.contains(group)
    }

    pub(super) fn clear(&mut self) {
        self.events.clear();
        self.closed = 0;
    }

    /// Something has happened in a group whose events are wanted. Its version is not known yet.
    pub(super) fn push(&mut self, group: &Arc<[u8]>, what: Happening) {
        self.events.push(Event {
            group: Arc::clone(group),
            version: GroupVersion(0),
            what,
            last: false,
        });
    }

    /// The group of the events since the last call has this version now; `None` if what it
    /// shows has not changed, and then nothing has happened.
    pub(super) fn close(&mut self, version: Option<GroupVersion>) {
        let Some(version) = version else {
            return self.events.truncate(self.closed);
        };
        for event in &mut self.events[self.closed..] {
            event.version = version;
        }
        if let Some(event) = self.events[self.closed..].last_mut() {
            event.last = true;
        }
        self.closed = self.events.len();
    }
}
