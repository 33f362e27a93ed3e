//! Heartbeats: the road that costs nothing but a store, and its batch form.

use std::cmp::Ordering;

use super::conn::{Class, ConnId};
use super::document::{DocumentAsk, DocumentJob};
use super::search::{Kind, Lost, report};
use super::serve::{Manner, Step};
use super::{Place, Plant, Purpose, Shard};
use crate::http::{self, Code, Problem};
use crate::mail::{Missing, What};
use crate::session::{Slot, Sought, Touch};
use crate::time::Millis;
use crate::types::{GroupVersion, SessionId};

/// What became of a beat for a session that is here.
pub(super) enum Hit {
    /// It lives, for its timeout from now.
    Touched(Beaten),
    /// It is not the session the client named. Nothing was touched.
    Conflict(GroupVersion),
    /// Its fate is open, or this server is behind what the client has seen.
    Wait,
}

/// What the answer to a beat says.
#[derive(Clone, Copy)]
pub(super) struct Beaten {
    pub(super) version: GroupVersion,
    pub(super) id: SessionId,
    pub(super) timeout: Millis,
}

impl Shard {
    /// `HEAD /G/M`.
    pub(super) fn beat(
        &mut self,
        conn: ConnId,
        group: &[u8],
        member: &[u8],
        manner: Manner,
        now: Millis,
        out: &mut Vec<u8>,
    ) -> Result<Step, Problem> {
        let hit = self
            .tracker
            .find(group, member)
            .map(|slot| self.touch(slot, manner, now));
        match hit {
            Some(Hit::Touched(beaten)) => {
                self.counters.heartbeats.add(1);
                self.write_beat(out, beaten, manner.close);
                Ok(Step::Done)
            }
            Some(Hit::Conflict(version)) => Err(conflict(version)),
            Some(Hit::Wait) | None => {
                let lost = Lost::named(group, member, manner.session);
                self.search(conn, Kind::Beat, vec![lost], manner, now)
            }
        }
    }

    /// Answers the heartbeats that `input` begins with, as far as they are familiar and there is
    /// nothing to them but a touch. Returns the bytes they take; whatever comes next is for
    /// those who look at everything.
    ///
    /// A run goes through the stages together: all heads are read, all sessions fetched, all
    /// beats answered.
    #[inline]
    pub(super) fn serve_run(
        &mut self,
        conn: ConnId,
        input: &[u8],
        now: Millis,
        out: &mut Vec<u8>,
    ) -> usize {
        if !self.conns[conn.index as usize].is_clear() || !self.lease.promises(now) {
            return 0;
        }
        let limits = &self.settings.http;
        if let Some((beat, hash)) = self.ahead.recall(input, &self.familiar, limits) {
            let sought = Sought::new(beat.group, beat.member, hash);
            return self.answer_run(conn, &mut [sought], &[beat.len], now, out);
        }
        let Some(first) = self.familiar.beat(input, limits) else {
            return 0;
        };
        if first.len == input.len() {
            let mut sought = [self.tracker.seek(first.group, first.member)];
            return self.answer_run(conn, &mut sought, &[first.len], now, out);
        }
        let mut sought = [Sought::default(); RUN_MAX];
        let mut ends = [0; RUN_MAX];
        let mut count = 0;
        let mut end = 0;
        let mut next = Some(first);
        while let Some(beat) = next {
            end += beat.len;
            sought[count] = self.tracker.seek(beat.group, beat.member);
            ends[count] = end;
            count += 1;
            if count == RUN_MAX {
                break;
            }
            next = self.familiar.beat(&input[end..], &self.settings.http);
        }
        self.answer_run(conn, &mut sought[..count], &ends, now, out)
    }

    /// Answers beats for the sessions that are `sought`, up to the first that is more than a
    /// touch. Returns where in the input the last one answered ends, of `ends`.
    #[inline]
    fn answer_run(
        &mut self,
        conn: ConnId,
        sought: &mut [Sought<'_>],
        ends: &[usize],
        now: Millis,
        out: &mut Vec<u8>,
    ) -> usize {
        let mut moment = self.tracker.moment(now);
        self.tracker.approach(sought);
        let mut answered = 0;
        for one in sought {
            if out.len() >= self.settings.output_bytes_max {
                break;
            }
            let Some(reached) = self.tracker.reach(one, &mut moment) else {
                break;
            };
            let version = reached.group.get();
            self.answers
                .write(out, version, reached.id, reached.timeout);
            answered += 1;
        }
        if answered == 0 {
            return 0;
        }
        self.counters.requests.add(answered as u64);
        self.counters.heartbeats.add(answered as u64);
        let open = &mut self.conns[conn.index as usize];
        open.progress = http::Progress::default();
        open.since = now;
        open.changes = false;
        ends[answered - 1]
    }

    /// `GET /G/M`.
    pub(super) fn beat_and_get(
        &mut self,
        conn: ConnId,
        (group, member): (&[u8], &[u8]),
        ask: DocumentAsk,
        manner: Manner,
        now: Millis,
        out: &mut Vec<u8>,
    ) -> Result<Step, Problem> {
        let hit = self
            .tracker
            .find(group, member)
            .map(|slot| self.touch(slot, manner, now));
        match hit {
            Some(Hit::Touched(beaten)) => {
                self.counters.heartbeats.add(1);
                let beaten = Some(beaten);
                if let Some(shown) = self.cached_document(group, &ask, beaten, manner) {
                    return Ok(self.show(conn, shown, out));
                }
                let what = What::Document {
                    group: group.into(),
                    consistent: false,
                };
                self.park(conn, Class::Other, what, |place| {
                    let job = DocumentJob::new(place, group, ask, beaten, manner);
                    Purpose::Document(job)
                })
            }
            Some(Hit::Conflict(version)) => Err(conflict(version)),
            Some(Hit::Wait) | None => {
                let lost = Lost::named(group, member, manner.session);
                let group = group.into();
                self.search(
                    conn,
                    Kind::BeatAndGet { group, ask },
                    vec![lost],
                    manner,
                    now,
                )
            }
        }
    }

    /// `POST /-/heartbeats`.
    pub(super) fn batch(
        &mut self,
        conn: ConnId,
        body: &[u8],
        packed: bool,
        manner: Manner,
        now: Millis,
        out: &mut Vec<u8>,
    ) -> Result<Step, Problem> {
        if packed && !body.len().is_multiple_of(PACKED_ID_BYTES) {
            return Err(Problem::new(Code::BadBatch).detail(format!(
                "the body has {} bytes, which is no multiple of {PACKED_ID_BYTES}",
                body.len()
            )));
        }
        self.counters.batches.add(1);
        let mut refused = Vec::new();
        if self.lease.has_lapsed(now) && !self.plants.has(Plant::BatchesWhileLapsed) {
            let lost = self.all_lost(body, packed, &mut refused);
            self.count_lapsed(Code::LeaseLapsed, lost.len());
            let failed: Vec<(Lost, Code)> = lost
                .into_iter()
                .map(|lost| (lost, Code::LeaseLapsed))
                .collect();
            report(&failed, &refused, 0, manner, out);
            return Ok(Step::Done);
        }
        let (lost, touched) = if packed {
            self.touch_packed(body, now)
        } else {
            self.touch_lines(body, now, &mut refused)
        };
        let renewed = touched as u64;
        self.counters.heartbeats.add(renewed);
        if lost.is_empty() {
            report(&[], &refused, renewed, manner, out);
            return Ok(Step::Done);
        }
        // Both are about one member, and a batch has many.
        let manner = Manner {
            session: None,
            floor: None,
            ..manner
        };
        self.search(conn, Kind::Batch { renewed, refused }, lost, manner, now)
    }

    fn touch_packed(&mut self, body: &[u8], now: Millis) -> (Vec<Lost>, usize) {
        let mut missed = Vec::new();
        let touched = self
            .tracker
            .touch_ids(http::packed(body), now, |at, _| missed.push(at));
        let id = |at: usize| http::packed(&body[at * PACKED_ID_BYTES..]).next();
        let lost = missed
            .into_iter()
            .filter_map(|at| Some(Lost::by_id(at, id(at)?)));
        (lost.collect(), touched)
    }

    /// Touches the members that the lines of `body` name; lines that name none are appended
    /// to `refused`.
    fn touch_lines(
        &mut self,
        body: &[u8],
        now: Millis,
        refused: &mut Vec<(u32, http::NameFault)>,
    ) -> (Vec<Lost>, usize) {
        // Names are decoded where they stand, in a copy; its memory is kept for the next.
        let mut copy = std::mem::take(&mut self.batch);
        copy.clear();
        copy.extend_from_slice(body);
        let mut missed = Vec::new();
        let named_lines = http::names(&mut copy).filter_map(|line| {
            line.names
                .inspect_err(|fault| refused.push((line.number, *fault)))
                .ok()
        });
        let touched = self
            .tracker
            .touch_names(named_lines, now, |at, _| missed.push(at));
        missed.sort_unstable();
        let mut lost = Vec::new();
        if !missed.is_empty() {
            // Rare, so who they were is read once more.
            let mut missed = missed.into_iter().peekable();
            lost = lost_lines(body, &mut copy, |index| missed.next_if_eq(&index).is_some());
        }
        self.batch = copy;
        (lost, touched)
    }

    /// Everybody in a batch, none of them touched.
    fn all_lost(
        &mut self,
        body: &[u8],
        packed: bool,
        refused: &mut Vec<(u32, http::NameFault)>,
    ) -> Vec<Lost> {
        if packed {
            let ids = http::packed(body).enumerate();
            return ids.map(|(at, id)| Lost::by_id(at, id)).collect();
        }
        let mut copy = std::mem::take(&mut self.batch);
        copy.clear();
        copy.extend_from_slice(body);
        refused.extend(
            http::names(&mut copy).filter_map(|line| Some((line.number, line.names.err()?))),
        );
        let lost = lost_lines(body, &mut copy, |_| true);
        self.batch = copy;
        lost
    }

    /// A beat for a session that is here.
    #[inline]
    pub(super) fn touch(&mut self, slot: Slot, manner: Manner, now: Millis) -> Hit {
        let (id, timeout, group) = self.tracker.identity(slot);
        let version = self.tracker.group(group).get();
        let beaten = Beaten {
            version,
            id,
            timeout,
        };
        match manner.session.map(|named| named.cmp(&beaten.id)) {
            None | Some(Ordering::Equal) => {}
            Some(Ordering::Less) => return Hit::Conflict(version),
            Some(Ordering::Greater) if self.plants.has(Plant::DeniesWhoIsAhead) => {
                return Hit::Conflict(version);
            }
            // Ids grow in the order of commits: the client is in a session that this server has
            // not heard of yet, and the one that is here has ended.
            Some(Ordering::Greater) => return Hit::Wait,
        }
        let behind = manner.floor.is_some_and(|floor| version < floor);
        if behind && !self.plants.has(Plant::BeatsIgnoreFloor) {
            return Hit::Wait;
        }
        match self.tracker.touch(slot, now) {
            Touch::Live => Hit::Touched(beaten),
            Touch::Closing if self.plants.has(Plant::BeatsClosing) => Hit::Touched(beaten),
            Touch::Closing => Hit::Wait,
        }
    }

    /// Appends the answer to a beat.
    #[inline]
    pub(super) fn write_beat(&mut self, out: &mut Vec<u8>, beaten: Beaten, close: bool) {
        let Beaten {
            version,
            id,
            timeout,
        } = beaten;
        if close {
            self.answers.write_last(out, version, id, timeout);
        } else {
            self.answers.write(out, version, id, timeout);
        }
    }

    /// Puts off what was asked about a member until its session is found.
    fn search(
        &mut self,
        conn: ConnId,
        kind: Kind,
        lost: Vec<Lost>,
        manner: Manner,
        now: Millis,
    ) -> Result<Step, Problem> {
        self.counters.beat_misses.add(lost.len() as u64);
        let class = match kind {
            Kind::Beat => Class::Beat,
            _ => Class::Other,
        };
        let seq = self.conns[conn.index as usize].reserve(class);
        self.begin_search(Place { conn, seq }, kind, lost, manner, now);
        Ok(Step::Parked)
    }
}

/// A member by name, perhaps with the session the client believes to be in.
pub(super) fn named(group: &[u8], member: &[u8], session: Option<SessionId>) -> Missing {
    Missing::Named {
        group: group.into(),
        member: member.into(),
        session,
    }
}

/// The members that the lines of `body` name, as far as `wanted` says so of their positions.
fn lost_lines(body: &[u8], copy: &mut Vec<u8>, mut wanted: impl FnMut(usize) -> bool) -> Vec<Lost> {
    copy.clear();
    copy.extend_from_slice(body);
    let lines = http::names(copy).filter_map(|line| Some((line.number, line.names.ok()?)));
    let lines = lines.enumerate().filter(|(index, _)| wanted(*index));
    lines
        .map(|(_, (number, (group, member)))| Lost {
            at: number,
            who: named(group, member, None),
            open: false,
        })
        .collect()
}

/// The member is another session's.
pub(super) fn conflict(version: GroupVersion) -> Problem {
    Problem::new(Code::SessionConflict).about(version)
}

/// A session id in a packed batch.
const PACKED_ID_BYTES: usize = 16;
/// Heartbeats of one input that are looked up together: enough for their waits for memory to
/// overlap.
const RUN_MAX: usize = 32;
