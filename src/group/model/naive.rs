//! A state machine as simple as it can be said, and as slow.
//!
//! Its versions are not counted by rule: it renders a group's document before and after each
//! request and adds 1 if they differ, which is what is promised (S5).

use std::collections::BTreeMap;

use crate::group::{Join, Joined, Lapse, Outcome, Place, Refusal, Request, Session};
use crate::types::{GroupVersion, Incarnation, ServerId, SessionId, Term, Zxid};

/// A group's or member's name.
pub(super) type Name = Vec<u8>;

#[derive(Clone, Default)]
pub(super) struct Model {
    pub(super) birth_s: Option<u32>,
    pub(super) newest: SessionId,
    pub(super) config_version: u64,
    pub(super) groups: BTreeMap<Name, ModelGroup>,
    /// The recorded run of each server.
    pub(super) runs: BTreeMap<ServerId, Incarnation>,
    /// Last versions of removed groups.
    pub(super) removed: BTreeMap<Name, u64>,
}

#[derive(Clone, Default)]
pub(super) struct ModelGroup {
    pub(super) version: u64,
    pub(super) config: Option<ModelConfig>,
    pub(super) members: BTreeMap<Name, ModelMember>,
}

#[derive(Clone, Default)]
pub(super) struct ModelMember {
    pub(super) session: Option<Session>,
    pub(super) config: Option<ModelConfig>,
}

#[derive(Clone, PartialEq)]
pub(super) struct ModelConfig {
    pub(super) bytes: Vec<u8>,
    pub(super) version: u64,
}

impl Model {
    /// Carries out a request and lets the versions follow from what is shown.
    pub(super) fn apply(&mut self, zxid: Zxid, request: &Request) -> Outcome {
        let before = self.clone();
        let mut outcome = self.carry_out(zxid, request);
        let mut shown = GroupVersion(0);
        for (name, group) in &mut self.groups {
            group.version = match (before.groups.get(name), self.removed.remove(name)) {
                (None, None) => 0,
                (None, Some(last)) => last + 1,
                (Some(old), _) => old.version + u64::from(old.document() != group.document()),
            };
            if Some(&name[..]) == group_of(request) {
                shown = GroupVersion(group.version);
            }
        }
        for (name, group) in &before.groups {
            if !self.groups.contains_key(name) {
                self.removed.insert(name.clone(), group.version);
            }
        }
        match &mut outcome {
            Outcome::Joined(Joined { version, .. })
            | Outcome::Left { version }
            | Outcome::ConfigSet { version, .. }
            | Outcome::ConfigDeleted { version } => *version = shown,
            _ => {}
        }
        outcome
    }

    fn carry_out(&mut self, zxid: Zxid, request: &Request) -> Outcome {
        match request {
            Request::Genesis { birth_s } => Outcome::Founded {
                birth_s: *self.birth_s.get_or_insert(*birth_s),
            },
            Request::Join(join) => self.join(zxid, join),
            Request::Leave {
                group,
                member,
                session,
            } => {
                let current = self.session(group, member);
                match (current, session) {
                    (None, Some(id)) if *id <= self.newest => Outcome::Refused(Refusal::Gone),
                    (None, _) => Outcome::Refused(Refusal::NotFound),
                    (Some(s), Some(id)) if s.id != *id => Outcome::Refused(Refusal::OtherSession),
                    (Some(_), _) => {
                        self.end(group, member);
                        Outcome::Left {
                            version: GroupVersion(0),
                        }
                    }
                }
            }
            Request::SetConfig {
                group,
                member,
                bytes,
                require,
            } => {
                let old = self.config(group, member.as_deref());
                if !require.holds(old.as_ref().map(|c| c.version)) {
                    return Outcome::Refused(Refusal::PreconditionFailed);
                }
                let created = old.is_none();
                *self.config_slot(group, member.as_deref()) = Some(ModelConfig {
                    bytes: bytes.to_vec(),
                    version: 0,
                });
                self.config_version += 1;
                let config_version = self.config_version;
                let slot = self.config_slot(group, member.as_deref());
                slot.as_mut().unwrap().version = config_version;
                Outcome::ConfigSet {
                    config_version,
                    created,
                    version: GroupVersion(0),
                }
            }
            Request::DeleteConfig {
                group,
                member,
                require,
            } => match self.config(group, member.as_deref()) {
                None => Outcome::Refused(Refusal::NotFound),
                Some(c) if !require.holds(Some(c.version)) => {
                    Outcome::Refused(Refusal::PreconditionFailed)
                }
                Some(_) => {
                    *self.config_slot(group, member.as_deref()) = None;
                    self.tidy(group);
                    Outcome::ConfigDeleted {
                        version: GroupVersion(0),
                    }
                }
            },
            Request::DeleteGroup { group } => match self.groups.get(&group[..]) {
                None => Outcome::Refused(Refusal::NotFound),
                Some(g) if g.members.values().any(|m| m.session.is_some()) => {
                    Outcome::Refused(Refusal::GroupActive)
                }
                Some(_) => {
                    self.groups.remove(&group[..]);
                    Outcome::GroupDeleted
                }
            },
            Request::Expire(lapses) => self.expire(lapses),
            Request::Move {
                owner,
                incarnation,
                lapses,
            } => self.move_sessions((*owner, *incarnation), lapses),
            Request::Adopt {
                server,
                incarnation,
                after,
                limit,
            } => self.adopt((*server, *incarnation), after.as_ref(), *limit),
        }
    }

    fn join(&mut self, zxid: Zxid, join: &Join) -> Outcome {
        if self.runs.get(&join.owner) != Some(&join.incarnation) {
            return Outcome::Refused(Refusal::StaleOwner);
        }
        let old = self.session(&join.group, &join.member);
        if old.is_some() && join.only_if_absent {
            return Outcome::Refused(Refusal::PreconditionFailed);
        }
        let fresh = Session {
            id: SessionId::of(self.birth_s.unwrap(), zxid),
            term: Term(1),
            timeout: join.timeout.unwrap_or(super::DEFAULT_TIMEOUT),
            owner: join.owner,
            incarnation: join.incarnation,
        };
        let kept = old.filter(|_| !join.takeover).map(|old| Session {
            id: old.id,
            term: match (old.owner, old.incarnation) == (join.owner, join.incarnation) {
                true => old.term,
                false => Term(old.term.0 + 1),
            },
            timeout: join.timeout.unwrap_or(old.timeout),
            ..fresh
        });
        let session = kept.unwrap_or(fresh);
        self.newest = self.newest.max(session.id);
        let group = self.groups.entry(join.group.to_vec()).or_default();
        let member = group.members.entry(join.member.to_vec()).or_default();
        member.session = Some(session);
        if let Some(bytes) = &join.config
            && member.config.as_ref().is_none_or(|c| c.bytes != **bytes)
        {
            self.config_version += 1;
            member.config = Some(ModelConfig {
                bytes: bytes.to_vec(),
                version: self.config_version,
            });
        }
        Outcome::Joined(Joined {
            session: session.id,
            term: session.term,
            timeout: session.timeout,
            created: kept.is_none(),
            version: GroupVersion(0),
        })
    }

    fn expire(&mut self, lapses: &[Lapse]) -> Outcome {
        let (mut ended, mut stale) = (0, Vec::new());
        for ((group, member), (id, term)) in newest(lapses) {
            match self.session(&group, &member) {
                Some(session) if (session.id, session.term) == (id, term) => {
                    self.end(&group, &member);
                    ended += 1;
                }
                _ => stale.push(id),
            }
        }
        Outcome::Expired { ended, stale }
    }

    fn move_sessions(&mut self, to: (ServerId, Incarnation), lapses: &[Lapse]) -> Outcome {
        let recorded = self.runs.get(&to.0) == Some(&to.1);
        let (mut moved, mut stale) = (0, Vec::new());
        for ((group, member), (id, term)) in newest(lapses) {
            match self.session(&group, &member) {
                Some(s) if recorded && (s.id, s.term) == (id, term) && s.run() != to => {
                    self.give(&group, &member, to);
                    moved += 1;
                }
                _ => stale.push(id),
            }
        }
        Outcome::Moved { moved, stale }
    }

    /// Takes the places one after the other: each group before its members, but for the one
    /// the walk begins in.
    fn adopt(&mut self, to: (ServerId, Incarnation), after: Option<&Place>, limit: u32) -> Outcome {
        let recorded = self.runs.get(&to.0).copied();
        let fits = match after {
            None => recorded.is_none_or(|recorded| recorded < to.1),
            Some(_) => recorded == Some(to.1),
        };
        if !fits {
            return Outcome::Refused(Refusal::StaleOwner);
        }
        self.runs.insert(to.0, to.1);
        let after = after.map(|(group, member)| (group.to_vec(), member.to_vec()));
        let mut places = Vec::new();
        for (name, group) in &self.groups {
            places.push((name.clone(), Vec::new()));
            places.extend(group.members.keys().map(|m| (name.clone(), m.clone())));
        }
        places.retain(|place| after.as_ref().is_none_or(|after| place > after));
        let begun = after.is_some_and(|(group, _)| self.groups.contains_key(&group));
        if !begun && !places.is_empty() {
            places.remove(0);
        }
        let limit = limit as usize;
        let next = places.get(limit - 1).cloned();
        for (group, member) in places.into_iter().take(limit) {
            let session = self.session(&group, &member);
            if session.is_some_and(|s| s.owner == to.0 && s.incarnation != to.1) {
                self.give(&group, &member, to);
            }
        }
        Outcome::Adopted {
            incarnation: to.1,
            next: next.map(|(group, member)| (group.into(), member.into())),
        }
    }

    fn give(&mut self, group: &[u8], member: &[u8], to: (ServerId, Incarnation)) {
        let members = &mut self.groups.get_mut(group).unwrap().members;
        let session = members.get_mut(member).unwrap().session.as_mut().unwrap();
        (session.owner, session.incarnation) = to;
        session.term.0 += 1;
    }

    fn end(&mut self, group: &[u8], member: &[u8]) {
        let members = &mut self.groups.get_mut(group).unwrap().members;
        members.get_mut(member).unwrap().session = None;
        self.tidy(group);
    }

    fn tidy(&mut self, group: &[u8]) {
        let members = &mut self.groups.get_mut(group).unwrap().members;
        members.retain(|_, m| m.session.is_some() || m.config.is_some());
    }

    pub(super) fn session(&self, group: &[u8], member: &[u8]) -> Option<Session> {
        self.groups.get(group)?.members.get(member)?.session
    }

    pub(super) fn config(&self, group: &[u8], member: Option<&[u8]>) -> Option<ModelConfig> {
        let group = self.groups.get(group)?;
        match member {
            None => group.config.clone(),
            Some(member) => group.members.get(member)?.config.clone(),
        }
    }

    fn config_slot(&mut self, group: &[u8], member: Option<&[u8]>) -> &mut Option<ModelConfig> {
        let group = self.groups.entry(group.to_vec()).or_default();
        match member {
            None => &mut group.config,
            Some(member) => &mut group.members.entry(member.to_vec()).or_default().config,
        }
    }

    pub(super) fn sessions(&self) -> BTreeMap<SessionId, (Name, Name, Session)> {
        let mut sessions = BTreeMap::new();
        for (name, group) in &self.groups {
            for (member, m) in &group.members {
                if let Some(s) = m.session {
                    sessions.insert(s.id, (name.clone(), member.clone(), s));
                }
            }
        }
        sessions
    }
}

/// One lapse a member, the newest; in the order of names.
fn newest(lapses: &[Lapse]) -> BTreeMap<(Name, Name), (SessionId, Term)> {
    let mut newest = BTreeMap::new();
    for lapse in lapses {
        let key = (lapse.group.to_vec(), lapse.member.to_vec());
        let this = (lapse.id, lapse.term);
        let best = newest.entry(key).or_insert(this);
        *best = this.max(*best);
    }
    newest
}

impl ModelGroup {
    /// The document by way of serde_json, which knows nothing of pieces and leaves. JSON
    /// configs are marked, so that their bytes are compared and not their values.
    pub(super) fn document(&self) -> String {
        let show = |config: &Option<ModelConfig>| match config {
            None => "null".to_owned(),
            Some(c) if matches!(c.bytes.first(), Some(b'{' | b'[')) => text(&c.bytes),
            Some(c) => serde_json::to_string(&text(&c.bytes)).unwrap(),
        };
        let list = |active: bool| {
            let some = self
                .members
                .iter()
                .filter(|(_, m)| m.session.is_some() == active);
            let shown: Vec<String> = some
                .map(|(name, m)| {
                    let name = serde_json::to_string(&text(name)).unwrap();
                    format!("{{{name}:{}}}", show(&m.config))
                })
                .collect();
            shown.join(",")
        };
        format!(
            "{{\"config\":{},\"endpoints\":[\"a:1\",\"b:2\"],\"active_members\":[{}],\"inactive_members\":[{}]}}",
            show(&self.config),
            list(true),
            list(false)
        )
    }
}

pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn group_of(request: &Request) -> Option<&[u8]> {
    match request {
        Request::Join(join) => Some(&join.group),
        Request::Leave { group, .. }
        | Request::SetConfig { group, .. }
        | Request::DeleteConfig { group, .. }
        | Request::DeleteGroup { group } => Some(group),
        Request::Expire(_)
        | Request::Move { .. }
        | Request::Adopt { .. }
        | Request::Genesis { .. } => None,
    }
}
