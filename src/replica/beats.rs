//! Beats for sessions that no shard of this server holds.
//!
//! While its owner lives, a beat is sent on to it, straight from server to server and in memory
//! at both ends: no quorum is asked and the leader hears nothing. Beats gather while as many
//! messages as may be are under way. A session whose owner cannot be reached, or whose client
//! has settled here, moves here through the quorum; moves go in batches too.
//!
//! Nobody is denied on this server's word alone, which may be behind: it asks the leader first
//! how far it must have applied, once for all who wait.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::requests::{Request as Submitted, What, Who};
use super::{Plant, Replica};
use crate::forward::{BEATS_MAX, Beat, Beaten, Message, Missing};
use crate::group::{Lapse, Outcome, Request, Session, Status};
use crate::mail::{Answer, ShardIndex, Tell, Verdict};
use crate::time::Millis;
use crate::types::{ServerId, SessionId};

/// What is under way for such beats.
#[derive(Default)]
pub(super) struct Beats {
    connected: BTreeSet<ServerId>,
    /// Connected servers that have left beats unanswered, and not been heard since.
    suspects: BTreeSet<ServerId>,
    newest: u64,
    inquiries: BTreeMap<u64, Inquiry>,
    /// Beats to be sent on.
    outgoing: BTreeMap<ServerId, Vec<Pending>>,
    sent: BTreeMap<u64, Sent>,
    /// Beats about to be denied.
    denials: Vec<Pending>,
    /// A flush for earlier ones is under way.
    denying: bool,
    /// Sessions that are to move here, and who waits for that.
    movers: HashMap<SessionId, Mover>,
    /// Those not proposed yet.
    moves: Vec<Lapse>,
    moving: usize,
    /// Beats of other servers that the shards look at.
    inbound: BTreeMap<(ServerId, u64), Inbound>,
    /// Messages to other servers.
    messages: Vec<(ServerId, Message)>,
}

/// A shard's question.
struct Inquiry {
    shard: ShardIndex,
    token: u64,
    verdicts: Vec<Verdict>,
    /// How many have no verdict yet.
    open: usize,
    since: Millis,
}

/// A beat whose verdict is open.
pub(super) struct Pending {
    inquiry: u64,
    at: usize,
    beat: Beat,
}

/// Beats that another server was sent.
struct Sent {
    to: ServerId,
    at: Millis,
    beats: Vec<Pending>,
}

/// Who waits for a session to move here.
struct Mover {
    shard: ShardIndex,
    beats: Vec<Pending>,
}

/// Beats that another server has sent.
struct Inbound {
    verdicts: Vec<Beaten>,
    /// Shards that have not answered.
    left: usize,
}

/// What the state knows of a beat.
enum Found {
    Session(Session, Arc<[u8]>, Box<[u8]>),
    Denied(Verdict),
}

impl Beats {
    /// The shard at which a beat waits for this session to move here.
    pub(super) fn mover_of(&self, id: SessionId) -> Option<ShardIndex> {
        self.movers.get(&id).map(|mover| mover.shard)
    }

    /// True if the server can be asked.
    pub(super) fn reaches(&self, server: ServerId) -> bool {
        self.connected.contains(&server) && !self.suspects.contains(&server)
    }

    /// When something is overdue.
    pub(super) fn deadline(&self) -> Millis {
        let unanswered = self.sent.values().map(|sent| sent.at + ANSWER_MAX).min();
        let open = self.inquiries.first_key_value();
        let open = open.map(|(_, inquiry)| inquiry.since + VERDICT_MAX);
        let never = Millis(u64::MAX);
        unanswered.unwrap_or(never).min(open.unwrap_or(never))
    }

    pub(super) fn take_messages(&mut self, into: &mut Vec<(ServerId, Message)>) {
        into.append(&mut self.messages);
    }

    fn decide(&mut self, beat: &Pending, verdict: Verdict) -> Option<Inquiry> {
        let inquiry = self.inquiries.get_mut(&beat.inquiry)?;
        inquiry.verdicts[beat.at] = verdict;
        inquiry.open -= 1;
        if inquiry.open > 0 {
            return None;
        }
        self.inquiries.remove(&beat.inquiry)
    }
}

impl Replica {
    /// A shard asks what becomes of beats that no shard here has a live session for.
    pub(super) fn ask_beats(
        &mut self,
        now: Millis,
        shard: ShardIndex,
        token: u64,
        beats: Vec<Beat>,
    ) {
        self.beats.newest += 1;
        let inquiry = self.beats.newest;
        let state = Inquiry {
            shard,
            token,
            verdicts: vec![Verdict::Unavailable; beats.len()],
            open: beats.len(),
            since: now,
        };
        if beats.is_empty() {
            return self.conclude(state);
        }
        self.beats.inquiries.insert(inquiry, state);
        for (at, beat) in beats.into_iter().enumerate() {
            let pending = Pending { inquiry, at, beat };
            self.resolve(now, pending, self.alone);
        }
    }

    /// Finds out what becomes of a beat; `sure` tells that a denial needs no confirmation.
    fn resolve(&mut self, now: Millis, pending: Pending, sure: bool) {
        match self.find(&pending.beat.who) {
            Found::Denied(verdict) if sure || self.lacks(Plant::DeniesUnasked) => {
                self.decide(&pending, verdict);
            }
            Found::Denied(_) => self.beats.denials.push(pending),
            Found::Session(session, ..) if self.is_own(&session) => {
                self.decide(&pending, Verdict::Here);
            }
            Found::Session(session, group, member) => {
                let current = self.state().incarnation_of(session.owner);
                let alive = current == Some(session.incarnation);
                if session.owner == self.settings.id && self.own.settled().is_none() {
                    // It is about to be adopted.
                    self.decide(&pending, Verdict::Here);
                } else if alive && self.beats.reaches(session.owner) {
                    let outgoing = self.beats.outgoing.entry(session.owner).or_default();
                    outgoing.push(pending);
                } else {
                    self.want_here(now, session, group, &member, Some(pending));
                }
            }
        }
    }

    fn find(&mut self, who: &Missing) -> Found {
        let (group, member, session) = match who {
            Missing::Named {
                group,
                member,
                session,
            } => (Arc::from(&**group), member.clone(), *session),
            Missing::Id(id) if self.alone => {
                // The shards hold every session there is, once all are adopted.
                let known = *id <= self.state().newest();
                return Found::Denied(match (self.own.settled(), known) {
                    (None, true) => Verdict::Here,
                    (Some(_), true) => Verdict::Gone,
                    (_, false) => Verdict::NotFound,
                });
            }
            Missing::Id(id) => match self.index.find(self.node.app(), *id) {
                Some((group, member)) => (group, member, Some(*id)),
                None if *id <= self.state().newest() => return Found::Denied(Verdict::Gone),
                None => return Found::Denied(Verdict::NotFound),
            },
        };
        match self.state().status(&group, &member, session) {
            Status::Active(session) => Found::Session(session, group, member),
            Status::NotFound => Found::Denied(Verdict::NotFound),
            Status::Gone => Found::Denied(Verdict::Gone),
            Status::OtherSession => Found::Denied(Verdict::OtherSession),
        }
    }

    /// The session is to move here, for a beat that waits for it, or because it has settled.
    fn want_here(
        &mut self,
        now: Millis,
        session: Session,
        group: Arc<[u8]>,
        member: &[u8],
        pending: Option<Pending>,
    ) {
        // A server that could promise nothing had better leave it to another.
        if self.own.settled().is_none() || now >= self.lease.until() {
            if let Some(pending) = pending {
                self.decide(&pending, Verdict::Unavailable);
            }
            return;
        }
        let shard = pending.as_ref().and_then(|pending| {
            let inquiry = self.beats.inquiries.get(&pending.inquiry)?;
            Some(inquiry.shard)
        });
        let mover = self.beats.movers.entry(session.id).or_insert_with(|| {
            self.beats.moves.push(Lapse {
                group,
                member: member.into(),
                id: session.id,
                term: session.term,
            });
            let any = session.id.counter() % u64::from(self.settings.shards);
            Mover {
                shard: shard.unwrap_or(any as ShardIndex),
                beats: Vec::new(),
            }
        });
        mover.beats.extend(pending);
    }

    fn decide(&mut self, pending: &Pending, verdict: Verdict) {
        if let Some(inquiry) = self.beats.decide(pending, verdict) {
            self.conclude(inquiry);
        }
    }

    fn conclude(&mut self, inquiry: Inquiry) {
        let answer = Answer::Verdicts(inquiry.verdicts);
        self.publisher.answer(inquiry.shard, inquiry.token, answer);
    }

    /// Sends, proposes and asks what has gathered; true if the node was asked for something.
    pub(super) fn carry_beats(&mut self, now: Millis) -> bool {
        self.send_beats(now);
        let mut asked = false;
        while self.beats.moving < MOVES_MAX
            && !self.beats.moves.is_empty()
            && self.stands()
            && let Some(incarnation) = self.own.settled()
        {
            let one = self.lacks(Plant::MovesOneByOne);
            let most = if one { 1 } else { MOVE_BATCH_MAX };
            let count = self.beats.moves.len().min(most);
            let lapses: Vec<Lapse> = self.beats.moves.drain(..count).collect();
            let ids = lapses.iter().map(|lapse| lapse.id).collect();
            let owner = self.settings.id;
            let request = Request::Move {
                owner,
                incarnation,
                lapses,
            };
            self.beats.moving += 1;
            self.submit_own(now, &request, Who::Move(ids));
            asked = true;
        }
        if !self.beats.denying && !self.beats.denials.is_empty() {
            self.beats.denying = true;
            let denials = std::mem::take(&mut self.beats.denials);
            let request = Submitted::new(What::Flush, Who::Denials(denials), now);
            self.submit(now, request);
            asked = true;
        }
        asked
    }

    fn send_beats(&mut self, now: Millis) {
        let beats = &mut self.beats;
        for (&to, outgoing) in &mut beats.outgoing {
            let mut under_way = beats.sent.values().filter(|sent| sent.to == to).count();
            while !outgoing.is_empty() && under_way < MESSAGES_MAX {
                let count = outgoing.len().min(BEATS_MAX);
                let batch: Vec<Pending> = outgoing.drain(..count).collect();
                beats.newest += 1;
                let token = beats.newest;
                let content = batch.iter().map(|pending| pending.beat.clone()).collect();
                let message = Message::Beats {
                    token,
                    beats: content,
                };
                beats.messages.push((to, message));
                under_way += 1;
                let sent = Sent {
                    to,
                    at: now,
                    beats: batch,
                };
                beats.sent.insert(token, sent);
            }
        }
    }

    /// The moves of a batch have met their fate.
    pub(super) fn on_moved(&mut self, ids: &[SessionId], outcome: &Outcome) {
        self.beats.moving -= 1;
        if let Outcome::Moved { moved, .. } = outcome {
            self.counters.moves.add(u64::from(*moved));
        }
        for id in ids {
            let Some(mover) = self.beats.movers.remove(id) else {
                continue;
            };
            // Those that did not move have another owner or have ended: whoever asked looks
            // again, and finds that.
            for pending in &mover.beats {
                self.decide(pending, Verdict::Here);
            }
        }
    }

    /// This server has applied everything that was committed when these were about to be
    /// denied, or could not learn how much that is.
    pub(super) fn on_denials(&mut self, now: Millis, denials: Vec<Pending>, flushed: bool) {
        self.beats.denying = false;
        for pending in denials {
            if flushed {
                self.resolve(now, pending, true);
            } else {
                self.decide(&pending, Verdict::Unavailable);
            }
        }
    }

    /// Another server has sent something.
    pub fn on_forward(&mut self, now: Millis, from: ServerId, message: Message) {
        self.advance(now);
        self.beats.suspects.remove(&from);
        match message {
            Message::Beats { token, beats } => self.on_foreign_beats(from, token, beats),
            Message::Beaten { token, verdicts } => self.on_beaten(now, from, token, &verdicts),
        }
    }

    /// Another server sends on beats for sessions of this one.
    fn on_foreign_beats(&mut self, from: ServerId, token: u64, beats: Vec<Beat>) {
        let full = self.beats.inbound.len() >= INBOUND_MAX;
        if full || beats.is_empty() || self.own.settled().is_none() {
            let verdicts = vec![Beaten::Wait; beats.len()];
            let message = Message::Beaten { token, verdicts };
            self.beats.messages.push((from, message));
            return;
        }
        let inbound = Inbound {
            verdicts: vec![Beaten::NotHeld; beats.len()],
            left: usize::from(self.settings.shards),
        };
        self.beats.inbound.insert((from, token), inbound);
        let beats: Arc<[Beat]> = beats.into();
        self.publisher.tell_all(|| Tell::Beats {
            from,
            token,
            beats: Arc::clone(&beats),
        });
    }

    /// A shard has looked at beats that another server has sent on.
    pub(super) fn on_shard_beaten(&mut self, from: ServerId, token: u64, verdicts: &[Beaten]) {
        let Some(inbound) = self.beats.inbound.get_mut(&(from, token)) else {
            return;
        };
        for (merged, verdict) in inbound.verdicts.iter_mut().zip(verdicts) {
            // At most one shard holds the session.
            if rank(verdict) > rank(merged) {
                *merged = *verdict;
            }
        }
        inbound.left -= 1;
        if inbound.left == 0
            && let Some(inbound) = self.beats.inbound.remove(&(from, token))
        {
            let verdicts = inbound.verdicts;
            let message = Message::Beaten { token, verdicts };
            self.beats.messages.push((from, message));
        }
    }

    /// The owner of some sessions has answered.
    fn on_beaten(&mut self, now: Millis, from: ServerId, token: u64, verdicts: &[Beaten]) {
        if self
            .beats
            .sent
            .get(&token)
            .is_none_or(|sent| sent.to != from)
        {
            return;
        }
        let Some(sent) = self.beats.sent.remove(&token) else {
            return;
        };
        let missing = std::iter::repeat(&Beaten::Wait);
        for (pending, verdict) in sent.beats.into_iter().zip(verdicts.iter().chain(missing)) {
            match *verdict {
                Beaten::Touched {
                    id,
                    timeout,
                    version,
                    settled,
                } => {
                    let verdict = Verdict::Touched {
                        id,
                        timeout,
                        version,
                    };
                    self.on_touched(now, &pending, id, settled, verdict);
                }
                Beaten::Conflict { .. } => self.decide(&pending, Verdict::OtherSession),
                Beaten::Lapsed => self.relieve(now, pending),
                // Its fate is open there, or it has moved on: whoever asked looks again.
                Beaten::Wait | Beaten::NotHeld => self.decide(&pending, Verdict::Here),
            }
        }
    }

    /// The owner has touched the session of a beat.
    fn on_touched(
        &mut self,
        now: Millis,
        pending: &Pending,
        id: SessionId,
        settled: bool,
        verdict: Verdict,
    ) {
        let found = self.find(&pending.beat.who);
        let current = matches!(&found, Found::Session(session, ..) if session.id == id);
        // The owner may know of a session that is new; one that this server knows to have ended
        // since is promised nothing.
        if !current && id <= self.state().newest() {
            return self.decide(pending, Verdict::Here);
        }
        if settled
            && let Found::Session(session, group, member) = found
            && !self.is_own(&session)
        {
            self.want_here(now, session, group, &member, None);
        }
        self.decide(pending, verdict);
    }

    /// The owner of a beat's session is there but may promise nothing: it is cut off from the
    /// leader, and its sessions are orphans before long. So the session moves here.
    fn relieve(&mut self, now: Millis, pending: Pending) {
        match self.find(&pending.beat.who) {
            Found::Session(session, group, member)
                if !self.is_own(&session) && !self.lacks(Plant::LeavesLapsed) =>
            {
                self.want_here(now, session, group, &member, Some(pending));
            }
            _ => self.decide(&pending, Verdict::Here),
        }
    }

    /// The transport has a connection to `peer`.
    pub(super) fn beats_connected(&mut self, peer: ServerId) {
        self.beats.connected.insert(peer);
        self.beats.suspects.remove(&peer);
    }

    /// The transport has lost its connection to `peer`: what it was sent looks for another way.
    pub(super) fn beats_disconnected(&mut self, now: Millis, peer: ServerId) {
        self.beats.connected.remove(&peer);
        self.beats.inbound.retain(|(from, _), _| *from != peer);
        let mut again = self.beats.outgoing.remove(&peer).unwrap_or_default();
        let lost = |_: &u64, sent: &mut Sent| sent.to == peer;
        let lost = self.beats.sent.extract_if(.., lost);
        again.extend(lost.flat_map(|(_, sent)| sent.beats));
        for pending in again {
            self.resolve(now, pending, self.alone);
        }
    }

    /// Looks after beats that have waited for too long.
    pub(super) fn tick_beats(&mut self, now: Millis) {
        let late = |_: &u64, sent: &mut Sent| now.since(sent.at) >= ANSWER_MAX;
        let late: Vec<Sent> = self
            .beats
            .sent
            .extract_if(.., late)
            .map(|(_, sent)| sent)
            .collect();
        for sent in late {
            self.beats.suspects.insert(sent.to);
            let waiting = self.beats.outgoing.remove(&sent.to).unwrap_or_default();
            for pending in sent.beats.into_iter().chain(waiting) {
                self.resolve(now, pending, self.alone);
            }
        }
        while let Some(first) = self.beats.inquiries.first_entry()
            && now.since(first.get().since) >= VERDICT_MAX
        {
            let inquiry = first.remove();
            self.conclude(inquiry);
        }
    }
}

/// Which of two shards' words counts.
fn rank(verdict: &Beaten) -> u8 {
    match verdict {
        Beaten::NotHeld => 0,
        Beaten::Wait | Beaten::Lapsed => 1,
        Beaten::Conflict { .. } | Beaten::Touched { .. } => 2,
    }
}

/// An owner that leaves beats unanswered for so long is taken for lost.
const ANSWER_MAX: Millis = Millis(500);
/// How long a shard waits for its verdicts; those that are open then are 503.
const VERDICT_MAX: Millis = Millis(2_000);
/// Messages under way to one server; more beats wait, and travel together.
const MESSAGES_MAX: usize = 8;
/// Messages of other servers that the shards may be looking at.
const INBOUND_MAX: usize = 256;
/// Transactions that move sessions, under way at a time.
const MOVES_MAX: usize = 4;
/// Sessions in one of them.
const MOVE_BATCH_MAX: usize = 2_048;
const _: () = assert!(MOVE_BATCH_MAX <= crate::group::EXPIRE_BATCH_MAX);
