//! Beats for which no live session is at hand.
//!
//! A search goes round: look here; claim from the other shards; ask the core for a verdict;
//! and if the core says that the session lives, then it is on its way between shards, so wait
//! a tick and go round again. Sessions that are closing, and clients ahead of this server,
//! wait in the same way. After [`SEARCH_MS_MAX`] the answer is 503, never a guess.

use std::collections::HashSet;

use super::beat::{Beaten, Hit, conflict, named};
use super::document::DocumentAsk;
use super::serve::Manner;
use super::transit::{Claim, Handover, News};
use super::{Place, Plant, Purpose, Shard};
use crate::http::{self, Answer, Code, NameFault, Problem};
use crate::mail::{Answer as CoreAnswer, Ask, Beat, Missing, Pass, Verdict, What};
use crate::session::Slot;
use crate::time::Millis;
use crate::types::{GroupVersion, SessionId};

/// A member looked for, and where in the batch it stands.
pub(super) struct Lost {
    /// Line number or position in the batch.
    pub(super) at: u32,
    /// Who it is.
    pub(super) who: Missing,
    /// Another shard knows that it may live, though it could not give it.
    pub(super) open: bool,
}

impl Lost {
    /// The member of a single beat.
    pub(super) fn named(group: &[u8], member: &[u8], session: Option<SessionId>) -> Lost {
        Lost {
            at: 0,
            who: named(group, member, session),
            open: false,
        }
    }

    /// The session at a position of a packed batch.
    pub(super) fn by_id(at: usize, id: SessionId) -> Lost {
        Lost {
            at: at as u32,
            who: Missing::Id(id),
            open: false,
        }
    }
}

/// What the search is for.
pub(super) enum Kind {
    /// `HEAD /G/M`.
    Beat,
    /// `GET /G/M`.
    BeatAndGet {
        /// The group's name.
        group: Box<[u8]>,
        /// How the document was asked for.
        ask: DocumentAsk,
    },
    /// `PUT /G/M` that renewed a session which another shard holds.
    Renewal(Box<super::change::Renewal>),
    /// `POST /-/heartbeats`; `refused` are the lines that name no member.
    Batch {
        /// How many have been touched.
        renewed: u64,
        /// Lines that name no member, and why.
        refused: Vec<(u32, NameFault)>,
    },
}

/// Beats that look for their sessions.
pub(super) struct Search {
    place: Place,
    kind: Kind,
    lost: Vec<Lost>,
    /// Those of a batch whose fate is known.
    failed: Vec<(Lost, Code)>,
    manner: Manner,
    /// Handovers still to come.
    claims: u16,
    deadline: Millis,
}

impl Search {
    /// True if the owner's word is an answer to this search. It is not, for example, if the
    /// owner has yet to hear of the timeout that a join has just raised.
    fn takes(&self, beaten: &Beaten) -> bool {
        let long_enough = match &self.kind {
            Kind::Renewal(renewal) => beaten.timeout >= renewal.timeout(),
            _ => true,
        };
        let recent = self
            .manner
            .floor
            .is_none_or(|floor| beaten.version >= floor);
        let meant = self.manner.session.is_none_or(|named| named == beaten.id);
        long_enough && recent && meant
    }
}

impl Shard {
    /// Starts a search whose answer's place is kept.
    pub(super) fn begin_search(
        &mut self,
        place: Place,
        kind: Kind,
        lost: Vec<Lost>,
        manner: Manner,
        now: Millis,
    ) {
        let deadline = now + Millis(SEARCH_MS_MAX);
        let search = Search {
            place,
            kind,
            lost,
            failed: Vec::new(),
            manner,
            claims: 0,
            deadline,
        };
        self.claim(Box::new(search), now);
    }

    /// Goes on with the searches that wait for a tick.
    pub(super) fn resume_searches(&mut self, now: Millis) {
        for token in std::mem::take(&mut self.searches) {
            if let Some(Purpose::Search(search)) = self.parked.take(token) {
                self.claim(search, now);
            }
        }
    }

    /// Looks here, then asks the other shards for what is not.
    fn claim(&mut self, search: Box<Search>, now: Millis) {
        let Some(mut search) = self.look(search, now) else {
            return;
        };
        if self.settings.shards == 1 {
            return self.ask_verdict(search, now);
        }
        if !self.has_room(search.lost.len()) {
            self.counters.overloads.add(1);
            return self.give_up(*search, Code::Overloaded);
        }
        self.coming += search.lost.len();
        for lost in &mut search.lost {
            lost.open = false;
        }
        let wanted: Vec<Missing> = search.lost.iter().map(|lost| lost.who.clone()).collect();
        let token = self.parked.insert(Purpose::Search(search));
        let own = self.settings.index;
        for shard in (0..self.settings.shards).filter(|shard| *shard != own) {
            let wanted = wanted.clone();
            self.outbox.passes.push((
                shard,
                Pass::Claim {
                    from: own,
                    token,
                    heard: self.transit.heard(),
                    wanted,
                },
            ));
            self.transit.claimed();
            self.counters.claims.add(1);
        }
        if let Some(Purpose::Search(search)) = self.parked.get_mut(token) {
            search.claims = self.settings.shards - 1;
        }
    }

    /// Another shard has answered our claim, and given up what it held.
    pub(super) fn on_handover(&mut self, handover: Handover, now: Millis) {
        let Handover {
            token,
            asked,
            heard,
            given,
            open,
        } = handover;
        // What was given of a state that has been replaced is dealt anew, if it still is.
        let given = if self.transit.is_void(heard) {
            Vec::new()
        } else {
            given
        };
        let mut missed = self.transit.missed(&given, heard);
        if self.plants.has(Plant::ForgetsNewsOnTheWay) {
            missed.clear();
        }
        let ended: HashSet<SessionId> = missed
            .iter()
            .filter(|news| matches!(news, News::Ended(_)))
            .map(News::id)
            .collect();
        // One that has ended is not taken in even for a moment: its member may be here
        // already, in its next session, or the session itself, moved away and back.
        for dealt in given.iter().filter(|dealt| !ended.contains(&dealt.id)) {
            self.hold(dealt, now);
        }
        for news in missed.iter().filter(|news| !ended.contains(&news.id())) {
            self.on_news(*news, now);
        }
        self.transit.answered(asked);
        let Some(Purpose::Search(search)) = self.parked.get_mut(token) else {
            return;
        };
        if !open.is_empty() {
            let open: HashSet<SessionId> = open.into_iter().collect();
            for lost in &mut search.lost {
                lost.open |= matches!(&lost.who, Missing::Id(id) if open.contains(id));
            }
        }
        search.claims -= 1;
        if search.claims > 0 {
            return;
        }
        self.coming -= search.lost.len();
        if let Some(Purpose::Search(search)) = self.parked.take(token)
            && let Some(search) = self.look(search, now)
        {
            self.ask_verdict(search, now);
        }
    }

    /// Another shard asks for sessions. Those that are closing stay: their fate is decided
    /// by what this shard has proposed.
    pub(super) fn on_claim(&mut self, claim: &Claim, now: Millis) {
        let mut given = Vec::new();
        let mut open = Vec::new();
        for missing in &claim.wanted {
            match self.locate(missing) {
                Some(slot) if !self.tracker.view(slot).closing => {
                    let dealt = self.let_go(slot, now);
                    self.transit.gave(dealt.id, now);
                    given.push(dealt);
                }
                _ => open.extend(self.may_live(missing)),
            }
        }
        self.counters.handed_over.add(given.len() as u64);
        let handover = Pass::Handover {
            token: claim.token,
            asked: claim.heard,
            heard: self.transit.heard(),
            given,
            open,
        };
        self.outbox.passes.push((claim.from, handover));
    }

    /// The id, if that is all that is known of the session, and this shard cannot tell that
    /// it has ended. The core cannot either: it knows sessions by their names.
    fn may_live(&self, missing: &Missing) -> Option<SessionId> {
        let Missing::Id(id) = *missing else {
            return None;
        };
        let may = self.tracker.find_id(id).is_some() || self.transit.has_given(id);
        may.then_some(id)
    }

    pub(super) fn locate(&self, missing: &Missing) -> Option<Slot> {
        match missing {
            Missing::Named { group, member, .. } => self.tracker.find(group, member),
            Missing::Id(id) => self.tracker.find_id(*id),
        }
    }

    /// Touches what is here by now. `None` if that was all and the answer is given.
    fn look(&mut self, mut search: Box<Search>, now: Millis) -> Option<Box<Search>> {
        if self.lease.has_lapsed(now) && !self.plants.has(Plant::SearchesWhileLapsed) {
            self.count_lapsed(Code::LeaseLapsed, search.lost.len());
            self.give_up(*search, Code::LeaseLapsed);
            return None;
        }
        let mut lost = std::mem::take(&mut search.lost);
        let mut last = None;
        let mut touched = 0;
        let manner = search.manner;
        lost.retain(|lost| {
            let Some(slot) = self.locate(&lost.who) else {
                return true;
            };
            match self.touch(slot, manner, now) {
                Hit::Touched(beaten) => {
                    self.counters.heartbeats.add(1);
                    touched += 1;
                    last = Some(Ok(beaten));
                    false
                }
                Hit::Conflict(version) => {
                    last = Some(Err(conflict(version)));
                    false
                }
                Hit::Wait => true,
            }
        });
        search.lost = lost;
        if let Kind::Batch { renewed, .. } = &mut search.kind {
            *renewed += touched;
        }
        if !search.lost.is_empty() {
            return Some(search);
        }
        self.conclude(*search, last);
        None
    }

    /// Asks the core what became of those that no shard holds.
    fn ask_verdict(&mut self, search: Box<Search>, now: Millis) {
        // Alone, nothing can be moved here.
        let full = !self.lease.is_endless() && !self.has_room(search.lost.len());
        if full || self.asked >= self.settings.asks_max {
            self.counters.overloads.add(1);
            return self.give_up(*search, Code::Overloaded);
        }
        if now >= search.deadline {
            let code = if search.manner.floor.is_some() {
                Code::Behind
            } else {
                Code::NotReady
            };
            return self.give_up(*search, code);
        }
        let floor = search.manner.floor;
        let beats = search.lost.iter().map(|lost| Beat {
            who: lost.who.clone(),
            floor,
        });
        let beats = beats.collect();
        self.coming += search.lost.len();
        let token = self.parked.insert(Purpose::Search(search));
        self.asked += 1;
        self.counters.asks.add(1);
        self.outbox.asks.push(Ask {
            token,
            what: What::Beats(beats),
        });
    }

    /// The core has answered for those that no shard held.
    pub(super) fn on_judged(&mut self, search: Box<Search>, answer: CoreAnswer, now: Millis) {
        self.coming -= search.lost.len();
        match answer {
            CoreAnswer::Verdicts(verdicts) if verdicts.len() == search.lost.len() => {
                self.on_verdicts(search, &verdicts, now);
            }
            CoreAnswer::NoQuorum => self.give_up(*search, Code::NoQuorum),
            _ => self.give_up(*search, Code::Overloaded),
        }
    }

    /// One verdict for each of those that no shard held.
    fn on_verdicts(&mut self, mut search: Box<Search>, verdicts: &[Verdict], now: Millis) {
        let mut open = Vec::new();
        let mut last = None;
        let mut touched = 0;
        for (lost, verdict) in std::mem::take(&mut search.lost).into_iter().zip(verdicts) {
            let code = match *verdict {
                Verdict::Touched {
                    id,
                    timeout,
                    version,
                } => {
                    let version = version.max(self.version_here(&lost.who));
                    let beaten = Beaten {
                        version,
                        id,
                        timeout,
                    };
                    if search.takes(&beaten) {
                        touched += 1;
                        last = Some(Ok(beaten));
                    } else {
                        open.push(lost);
                    }
                    continue;
                }
                Verdict::Here => {
                    open.push(lost);
                    continue;
                }
                Verdict::Gone if lost.open || self.may_live(&lost.who).is_some() => {
                    open.push(lost);
                    continue;
                }
                Verdict::NotFound => Code::UnknownMember,
                Verdict::Gone => Code::SessionEnded,
                Verdict::OtherSession => Code::SessionConflict,
                Verdict::Unavailable => Code::OwnerUnreachable,
            };
            search.failed.push((lost, code));
        }
        self.counters.heartbeats.add(touched);
        self.counters.forwarded.add(touched);
        if let Kind::Batch { renewed, .. } = &mut search.kind {
            *renewed += touched;
        }
        search.lost = open;
        if search.lost.is_empty() {
            return self.conclude(*search, last);
        }
        // It lives: it has just been joined or dealt here, or is on its way to us, or closing.
        if let Some(search) = self.look(search, now) {
            let token = self.parked.insert(Purpose::Search(search));
            self.searches.push(token);
        }
    }

    /// The version of the member's group, as far as this shard can tell.
    fn version_here(&self, missing: &Missing) -> GroupVersion {
        let Missing::Named { group, .. } = missing else {
            return GroupVersion::default();
        };
        let group = self.tracker.find_group(group);
        group.map_or_else(GroupVersion::default, |group| {
            self.tracker.group(group).get()
        })
    }

    /// Answers for a search none of whose members is in doubt any more.
    fn conclude(&mut self, search: Search, last: Option<Result<Beaten, Problem>>) {
        let Search {
            place,
            kind,
            failed,
            manner,
            ..
        } = search;
        if let Kind::Batch { renewed, refused } = kind {
            let mut bytes = Vec::new();
            report(&failed, &refused, renewed, manner, &mut bytes);
            return self.answer(place, bytes);
        }
        let verdict = match (last, failed.first()) {
            (Some(verdict), _) => verdict,
            (None, Some((_, code))) => Err(Problem::new(*code)),
            (None, None) => Err(Problem::new(Code::Internal)),
        };
        let beaten = match verdict {
            Ok(beaten) => beaten,
            Err(problem) => {
                let problem = match kind {
                    // It was there when it was renewed and has ended since; nobody who joins is
                    // to hear that he has gone.
                    Kind::Renewal(_) => {
                        Problem::new(Code::NotReady).detail("the session has just ended")
                    }
                    _ => problem,
                };
                return self.answer_problem(place, &problem, manner.head_only);
            }
        };
        match kind {
            Kind::BeatAndGet { group, ask } => {
                self.ask_document(place, &group, ask, Some(beaten), manner);
            }
            Kind::Renewal(renewal) => self.renewed(*renewal, beaten),
            Kind::Beat | Kind::Batch { .. } => {
                let mut bytes = Vec::new();
                self.write_beat(&mut bytes, beaten, manner.close);
                self.answer(place, bytes);
            }
        }
    }

    /// Ends a search that has taken too long, or found the core overloaded.
    pub(super) fn give_up(&mut self, mut search: Search, code: Code) {
        let lost = std::mem::take(&mut search.lost);
        search
            .failed
            .extend(lost.into_iter().map(|lost| (lost, code)));
        self.conclude(search, None);
    }
}

/// Writes the answer to a batch: 200 and the failures.
pub(super) fn report(
    failed: &[(Lost, Code)],
    refused: &[(u32, NameFault)],
    renewed: u64,
    manner: Manner,
    out: &mut Vec<u8>,
) {
    let mut body = Vec::new();
    let mut report = http::Report::begin(&mut body);
    for (line, fault) in refused {
        report.line(*line, *fault);
    }
    for (lost, code) in failed {
        match &lost.who {
            Missing::Named { group, member, .. } => report.member(lost.at, group, member, *code),
            Missing::Id(id) => report.session(lost.at, *id, *code),
        }
    }
    report.finish(renewed);
    let answer = Answer {
        content_type: Some("application/json"),
        no_store: true,
        close: manner.close,
        ..Answer::default()
    };
    answer.write(out, &body, manner.head_only);
}

/// How long a beat may look for its session, and how long a client that is ahead of this
/// server waits for it, milliseconds.
const SEARCH_MS_MAX: u64 = 1_000;
