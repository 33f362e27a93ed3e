//! Applying committed transactions: the only way the state changes.

use std::sync::Arc;

use super::codec::Corrupt;
use super::feed::{EventConfig, Happening};
use super::members::{ConfigChange, FIRST_TERM, Fate};
use super::ordered::Pos;
use super::plant::Plant;
use super::record::{Config, ConfigView, Group, Tombstone};
use super::request::{
    Applied, End, EndedSession, GroupChange, GroupChangeKind, Outcome, Session, SessionChange,
};
use super::runs::Runs;
use super::state::{State, joined};
use super::txn::{JoinTxn, LapseTxn, Target, Text, Txn};
use smallvec::SmallVec;

use crate::types::{GroupVersion, Incarnation, ServerId, SessionId, Zxid};

impl State {
    /// Applies a committed transaction and says in `out` what it did.
    ///
    /// A transaction at or below [`State::applied`] is passed over with
    /// [`Outcome::Nothing`]: replay from an earlier point is harmless. Gaps are Zab's
    /// concern and not looked for.
    ///
    /// # Errors
    /// `Corrupt` if the bytes are no transaction, or the epoch does not fit the id of the
    /// session it creates. The state is unchanged.
    pub fn apply(&mut self, zxid: Zxid, bytes: &[u8], out: &mut Applied) -> Result<(), Corrupt> {
        out.clear();
        if zxid <= self.applied {
            return Ok(());
        }
        let txn = Txn::decode(bytes)?;
        self.check_place(zxid, &txn)?;
        self.in_flight.release(&txn);
        self.applied = zxid;
        let idle = match txn {
            // A join decides as `idle` does, but looks the member up only once.
            Txn::Join(_) => None,
            _ => self.idle(&txn),
        };
        out.outcome = match idle {
            Some(outcome) => outcome,
            None => self.carry_out(zxid, &txn, out),
        };
        Ok(())
    }

    fn check_place(&self, zxid: Zxid, txn: &Txn<'_>) -> Result<(), Corrupt> {
        let what = match txn {
            Txn::Join(_) if u32::try_from(zxid.epoch.0).is_err() => "an epoch beyond 32 bits",
            _ => return Ok(()),
        };
        Err(Corrupt { offset: 0, what })
    }

    /// Carries out a transaction that changes something, with the possible exception of an
    /// expiry or a move, whose every session may turn out to be stale.
    fn carry_out(&mut self, zxid: Zxid, txn: &Txn<'_>, out: &mut Applied) -> Outcome {
        match txn {
            Txn::Genesis { birth_s } => {
                self.birth_s = Some(*birth_s);
                Outcome::Founded { birth_s: *birth_s }
            }
            Txn::Join(join) => self.join(zxid, join, out),
            Txn::Leave { group, member, .. } => self.leave(group, member, out),
            Txn::SetConfig { target, config, .. } => match target.member {
                Some(member) => self.set_member_config(target.group, member, config, out),
                None => self.set_group_config(target.group, config, out),
            },
            Txn::DeleteConfig { target, .. } => self.delete_config(target, out),
            Txn::DeleteGroup { group } => self.delete_group(zxid, group, out),
            Txn::Expire(lapses) => self.expire(lapses, out),
            Txn::Move { to, lapses } => self.move_sessions(*to, lapses, out),
            Txn::Adopt(adopt) => self.adopt(adopt, out),
        }
    }

    fn join(&mut self, zxid: Zxid, join: &JoinTxn<'_>, out: &mut Applied) -> Outcome {
        let found = self.find_member(join);
        if let Some(outcome) = self.idle_join(join, &found) {
            return outcome;
        }
        let birth_s = self.birth_s.expect("`idle_join` sees to it");
        let opened = match found {
            Some((pos, _)) => Opened {
                pos,
                created: false,
            },
            None => self.open(join.group),
        };
        let group = Arc::make_mut(self.groups.at_mut(opened.pos));
        let spot = match found {
            Some((_, spot)) => spot,
            None => group.members.find(join.member),
        };
        let entry = group.members.get(&spot);
        let old = entry.and_then(|e| e.session(birth_s));
        let known = entry.is_some();
        let writes = join
            .config
            .filter(|_| entry.is_none_or(|e| join.writes(&e)));
        let renewed = old
            .filter(|_| !join.takeover)
            .and_then(|old| join.renewed(old));
        let session = renewed.unwrap_or(Session {
            id: SessionId::of(birth_s, zxid),
            term: FIRST_TERM,
            timeout: join.timeout,
            owner: join.owner,
            incarnation: join.incarnation,
        });
        let change = match writes {
            None => ConfigChange::Keep,
            Some(text) => ConfigChange::Write(next_config(&mut self.config_version, &text)),
        };
        if out.feed.wants(&group.name) {
            let shown = shown(&change, entry.and_then(|e| e.config()));
            let happened = joined_event(join.member, session.id, renewed.is_none(), shown);
            out.feed.push(&group.name, happened);
        }
        let scratch = &mut self.scratch;
        group
            .members
            .put(&spot, join.member, Some(session), change, scratch);
        if old.is_none() {
            group.active += 1;
            group.inactive -= u32::from(known);
            self.members += u64::from(!known);
        }
        let from = old.map(|old| old.run());
        self.runs.pass(from, session.run());
        let name = Arc::clone(&group.name);
        if renewed.is_none() {
            assert!(session.id > self.newest, "{} is not new", session.id);
            self.newest = session.id;
            let ended = old.map(|old| ended(&name, join.member, &old, End::TakenOver));
            out.ended.extend(ended);
        }
        out.sessions.push(SessionChange {
            group: name,
            member: SmallVec::from_slice(join.member),
            session,
            created: renewed.is_none(),
            from: from.filter(|from| renewed.is_some() && *from != session.run()),
        });
        let visible = old.is_none() || writes.is_some();
        let version = self.close(&opened, visible, out);
        Outcome::Joined(joined(session, renewed.is_none(), version))
    }

    fn leave(&mut self, group: &[u8], member: &[u8], out: &mut Applied) -> Outcome {
        let birth_s = self.birth_s.expect("a session is active");
        let opened = self.open(group);
        let group = Arc::make_mut(self.groups.at_mut(opened.pos));
        let spot = group.members.find(member);
        let entry = group.members.get(&spot).expect("`idle` found it active");
        let session = entry.session(birth_s).expect("`idle` found it active");
        let configured = entry.config().is_some();
        let scratch = &mut self.scratch;
        if configured {
            group
                .members
                .put(&spot, member, None, ConfigChange::Keep, scratch);
        } else {
            group.members.remove(&spot, scratch);
        }
        self.runs.take(session.run(), 1);
        group.active -= 1;
        group.inactive += u32::from(configured);
        self.members -= u64::from(!configured);
        out.ended
            .push(ended(&group.name, member, &session, End::Left));
        if out.feed.wants(&group.name) {
            let happened = ended_event(member, session.id, false, configured);
            out.feed.push(&group.name, happened);
        }
        let version = self.close(&opened, true, out);
        Outcome::Left { version }
    }

    fn set_member_config(
        &mut self,
        group: &[u8],
        member: &[u8],
        config: &Text<'_>,
        out: &mut Applied,
    ) -> Outcome {
        let opened = self.open(group);
        let group = Arc::make_mut(self.groups.at_mut(opened.pos));
        let spot = group.members.find(member);
        let entry = group.members.get(&spot);
        let session = entry
            .zip(self.birth_s)
            .and_then(|(e, birth)| e.session(birth));
        let known = entry.is_some();
        let old = entry.and_then(|e| e.config());
        let created = old.is_none();
        let visible = old.is_none_or(|old| old.bytes != config.bytes);
        let new = next_config(&mut self.config_version, config);
        if out.feed.wants(&group.name) {
            let happened = config_event(Some(member), Some(EventConfig::of(&new)));
            out.feed.push(&group.name, happened);
        }
        let change = ConfigChange::Write(new);
        group
            .members
            .put(&spot, member, session, change, &mut self.scratch);
        group.inactive += u32::from(!known);
        self.members += u64::from(!known);
        Outcome::ConfigSet {
            config_version: new.version,
            created,
            version: self.close(&opened, visible, out),
        }
    }

    fn set_group_config(&mut self, name: &[u8], text: &Text<'_>, out: &mut Applied) -> Outcome {
        let opened = self.open(name);
        let new = next_config(&mut self.config_version, text);
        let group = Arc::make_mut(self.groups.at_mut(opened.pos));
        let old = group.config.replace(Arc::new(Config {
            version: new.version,
            json: new.json,
            bytes: new.bytes.into(),
        }));
        let visible = old.as_ref().is_none_or(|old| *old.bytes != *text.bytes);
        if out.feed.wants(&group.name) {
            let happened = config_event(None, Some(EventConfig::of(&new)));
            out.feed.push(&group.name, happened);
        }
        Outcome::ConfigSet {
            config_version: new.version,
            created: old.is_none(),
            version: self.close(&opened, visible, out),
        }
    }

    fn delete_config(&mut self, target: &Target<'_>, out: &mut Applied) -> Outcome {
        let opened = self.open(target.group);
        let group = Arc::make_mut(self.groups.at_mut(opened.pos));
        if let Some(member) = target.member {
            let spot = group.members.find(member);
            let entry = group.members.get(&spot).expect("`idle` found its config");
            let session = self.birth_s.and_then(|birth| entry.session(birth));
            let scratch = &mut self.scratch;
            if session.is_some() {
                group
                    .members
                    .put(&spot, member, session, ConfigChange::Remove, scratch);
            } else {
                group.members.remove(&spot, scratch);
                group.inactive -= 1;
                self.members -= 1;
            }
        } else {
            group.config = None;
        }
        if out.feed.wants(&group.name) {
            out.feed
                .push(&group.name, config_event(target.member, None));
        }
        let version = self.close(&opened, true, out);
        Outcome::ConfigDeleted { version }
    }

    fn delete_group(&mut self, zxid: Zxid, name: &[u8], out: &mut Applied) -> Outcome {
        let pos = self.find(name).expect("`idle` found the group");
        let group = self.groups.remove(pos);
        assert!(group.active == 0, "`idle` saw to it");
        self.members -= u64::from(group.inactive);
        out.groups.push(GroupChange {
            group: Arc::clone(&group.name),
            version: group.version,
            kind: GroupChangeKind::Removed,
        });
        if out.feed.wants(&group.name) {
            out.feed.push(&group.name, Happening::Removed);
            out.feed.close(Some(group.version));
        }
        self.bury(Tombstone {
            name: Arc::clone(&group.name),
            version: group.version,
            removed_by: zxid,
        });
        Outcome::GroupDeleted
    }

    fn expire(&mut self, lapses: &[LapseTxn<'_>], out: &mut Applied) -> Outcome {
        let before = out.ended.len();
        let mut stale = Vec::new();
        for run in lapses.chunk_by(|a, b| a.group == b.group) {
            match self.find(run[0].group).zip(self.birth_s) {
                Some((pos, birth_s)) => self.expire_in(pos, birth_s, run, &mut stale, out),
                None => stale.extend(run.iter().map(|lapse| lapse.id)),
            }
        }
        Outcome::Expired {
            ended: (out.ended.len() - before) as u32,
            stale,
        }
    }

    /// Ends sessions of one group: one step of its version for all of them together.
    fn expire_in(
        &mut self,
        pos: Pos,
        birth_s: u32,
        run: &[LapseTxn<'_>],
        stale: &mut Vec<SessionId>,
        out: &mut Applied,
    ) {
        let group = Arc::make_mut(self.groups.at_mut(pos));
        let (mut count, mut configured) = (0, 0);
        // Most have the owner of the one before: they are counted off together.
        let mut owned: (_, u64) = (Default::default(), 0);
        let runs = &mut self.runs;
        let any_term = self.plants.has(Plant::EndsAnyTerm);
        let watched = out.feed.wants(&group.name);
        group.members.revise(
            |i| run.get(i).map(|lapse| lapse.member),
            |i, entry| {
                let lapse = &run[i];
                let session = entry.and_then(|e| e.session(birth_s));
                let same = |s: &Session| (s.id, s.term) == (lapse.id, lapse.term);
                let Some(session) = session.filter(|s| same(s) || any_term && s.id == lapse.id)
                else {
                    stale.push(lapse.id);
                    return Fate::Stays;
                };
                count += 1;
                if owned.0 != session.run() {
                    let (run, count) = std::mem::replace(&mut owned, (session.run(), 0));
                    take_some(runs, run, count);
                }
                owned.1 += 1;
                let stays = entry.is_some_and(|e| e.has_config());
                configured += u32::from(stays);
                out.ended
                    .push(ended(&group.name, lapse.member, &session, End::Expired));
                if watched {
                    let happened = ended_event(lapse.member, session.id, true, stays);
                    out.feed.push(&group.name, happened);
                }
                Fate::Ends
            },
            &mut self.scratch,
        );
        take_some(&mut self.runs, owned.0, owned.1);
        group.active -= count;
        group.inactive += configured;
        self.members -= u64::from(count - configured);
        self.close(
            &Opened {
                pos,
                created: false,
            },
            count > 0,
            out,
        );
    }

    /// The group of this name, made if it is not there.
    fn open(&mut self, name: &[u8]) -> Opened {
        if let Some(pos) = self.find(name) {
            return Opened {
                pos,
                created: false,
            };
        }
        assert!(self.groups.len() < self.limits.groups, "`idle` sees to it");
        let version = match self.tombstones.find(name) {
            None => GroupVersion(0),
            Some(pos) => {
                let tombstone = self.tombstones.remove(pos);
                self.tombstone_ages.remove(&tombstone.removed_by);
                GroupVersion(tombstone.version.0 + 1)
            }
        };
        self.groups.insert(Arc::new(Group {
            name: name.into(),
            version,
            active: 0,
            inactive: 0,
            config: None,
            members: super::members::Members::default(),
        }));
        let pos = self.find(name).expect("it was just inserted");
        Opened { pos, created: true }
    }

    /// Ends a change to a group: gives it its version and reports it.
    fn close(&mut self, opened: &Opened, visible: bool, out: &mut Applied) -> GroupVersion {
        assert!(self.members <= self.limits.members, "`idle` sees to it");
        if !opened.created && !visible {
            out.feed.close(None);
            return self.groups.at(opened.pos).version;
        }
        let group = Arc::make_mut(self.groups.at_mut(opened.pos));
        group.version.0 += u64::from(!opened.created);
        out.feed.close(Some(group.version));
        out.groups.push(GroupChange {
            group: Arc::clone(&group.name),
            version: group.version,
            kind: match opened.created {
                true => GroupChangeKind::Created,
                false => GroupChangeKind::Changed,
            },
        });
        group.version
    }

    /// Remembers a removed group; forgets the one removed longest ago if there are too many.
    pub(super) fn bury(&mut self, tombstone: Tombstone) {
        let name = Arc::clone(&tombstone.name);
        self.tombstone_ages.insert(tombstone.removed_by, name);
        self.tombstones.insert(tombstone);
        if self.tombstones.len() > self.limits.tombstones
            && let Some((_, oldest)) = self.tombstone_ages.pop_first()
        {
            let pos = self.tombstones.find(&oldest);
            self.tombstones
                .remove(pos.expect("each age has its tombstone"));
        }
    }
}

/// Counts off the sessions of one owner that have ended, if there are any.
fn take_some(runs: &mut Runs, run: (ServerId, Incarnation), count: u64) {
    if count > 0 {
        runs.take(run, count);
    }
}

/// A group that a transaction is changing.
struct Opened {
    pos: Pos,
    /// True if this transaction made it.
    created: bool,
}

fn ended(group: &Arc<[u8]>, member: &[u8], session: &Session, end: End) -> EndedSession {
    EndedSession {
        group: Arc::clone(group),
        member: SmallVec::from_slice(member),
        id: session.id,
        owner: session.owner,
        incarnation: session.incarnation,
        end,
    }
}

/// What watchers are told of a join that shows: of a new session, or else of the config that
/// came with the renewal of an old one.
fn joined_event(
    member: &[u8],
    session: SessionId,
    created: bool,
    config: Option<EventConfig>,
) -> Happening {
    if !created {
        return config_event(Some(member), config);
    }
    Happening::Joined {
        member: member.into(),
        session,
        config,
    }
}

/// The config that a member has after `change`.
fn shown(change: &ConfigChange<'_>, old: Option<ConfigView<'_>>) -> Option<EventConfig> {
    match change {
        ConfigChange::Write(new) => Some(EventConfig::of(new)),
        ConfigChange::Keep => old.map(|old| EventConfig::of(&old)),
        ConfigChange::Remove => None,
    }
}

fn ended_event(member: &[u8], session: SessionId, expired: bool, inactive: bool) -> Happening {
    Happening::Ended {
        member: member.into(),
        session,
        expired,
        inactive,
    }
}

fn config_event(member: Option<&[u8]>, config: Option<EventConfig>) -> Happening {
    let member = member.map(Box::from);
    Happening::Configured { member, config }
}

/// The config to be written, under the next version.
fn next_config<'a>(last_version: &mut u64, text: &Text<'a>) -> ConfigView<'a> {
    *last_version += 1;
    ConfigView {
        bytes: text.bytes,
        version: *last_version,
        json: text.json,
    }
}
