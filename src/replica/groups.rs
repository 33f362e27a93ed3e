//! The replicated groups as an application of Zab, and an account of what deliveries did.

use std::collections::VecDeque;
use std::sync::Arc;

#[cfg(any(test, feature = "sim"))]
use crate::group::Plants;
use crate::group::{
    Applied, EndedSession, Event, GroupChange, Outcome, Rank, Restore, SessionChange, Settings,
    Snapshot, State, Verdict,
};
use crate::types::{GroupVersion, ServerId, Zxid};
use crate::zab::app::{
    Application, Content, Damaged, HandedBack, Origin, Preprocessed, RequestId,
    Snapshot as AppSnapshot,
};

/// The state machine, and what has happened to it since [`Groups::take`] was called last.
pub(super) struct Groups {
    pub(super) state: State,
    settings: Settings,
    applied: Applied,
    news: Vec<News>,
    /// Requests of this server that are joins of new members, as far as its shards know; those
    /// the leader has not looked at, in their order.
    fresh: VecDeque<(ServerId, RequestId)>,
    #[cfg(any(test, feature = "sim"))]
    plants: Plants,
}

/// Something that happened, in the order in which it did.
pub(super) enum News {
    /// A group is not what it was.
    Group(GroupChange),
    /// A session has ended.
    Ended(EndedSession),
    /// A session is new or not what it was.
    Session(SessionChange),
    /// This was what one transaction did.
    Done(Done),
    /// Something that watchers are told.
    Event(Event),
    /// The state was replaced as a whole; where the watched groups stand in it.
    Restored(Vec<Standing>),
    /// Another server's replica has sent this.
    Message(ServerId, Vec<u8>),
    /// A committed transaction cannot be read: no version of this code has written it.
    Corrupt(String),
}

/// Where a watched group stands.
pub(super) struct Standing {
    pub(super) group: Arc<[u8]>,
    pub(super) version: Option<GroupVersion>,
    pub(super) rank: Rank,
}

/// A transaction that was applied.
pub(super) struct Done {
    pub(super) origin: Origin,
    pub(super) outcome: Outcome,
}

impl Groups {
    pub(super) fn new(state: State, settings: Settings) -> Groups {
        Groups {
            state,
            settings,
            applied: Applied::default(),
            news: Vec::new(),
            fresh: VecDeque::new(),
            #[cfg(any(test, feature = "sim"))]
            plants: Plants::NONE,
        }
    }

    /// Plants faults in the state, and in every one that takes its place.
    #[cfg(any(test, feature = "sim"))]
    pub(super) fn plant(&mut self, plants: Plants) {
        self.plants = plants;
        self.state.plant(plants);
    }

    /// Has events made of this group from now on; says where it stands before the first.
    pub(super) fn watch(&mut self, group: &Arc<[u8]>) -> Standing {
        self.applied.feed.watch(Arc::clone(group));
        self.standing_of(group)
    }

    /// No events of this group any more. What has not been taken yet is not told either: should
    /// the group be watched again before, it would be taken for what came after.
    pub(super) fn unwatch(&mut self, group: &[u8]) {
        self.applied.feed.unwatch(group);
        for news in &mut self.news {
            if let News::Restored(standings) = news {
                standings.retain(|standing| *standing.group != *group);
            }
        }
        self.news
            .retain(|news| !matches!(news, News::Event(event) if *event.group == *group));
    }

    /// How many groups are watched.
    #[cfg(test)]
    pub(super) fn watched(&self) -> usize {
        self.applied.feed.watched().count()
    }

    fn standing_of(&self, group: &Arc<[u8]>) -> Standing {
        Standing {
            group: Arc::clone(group),
            version: self.state.version(group),
            rank: self.state.rank(group),
        }
    }

    /// This request of `server`, the newest of all, joins a member that is new to its shards.
    pub(super) fn expect_new(&mut self, server: ServerId, request: RequestId) {
        self.fresh.push_back((server, request));
    }

    /// True if this is about a join of a new member, and the first time that is asked.
    fn is_fresh(&mut self, origin: Origin) -> bool {
        let asked = (origin.server, origin.request);
        if self.fresh.front().is_none_or(|first| first.0 != asked.0) {
            return false;
        }
        while self.fresh.pop_front_if(|first| *first < asked).is_some() {}
        self.fresh.pop_front_if(|first| *first == asked).is_some()
    }

    /// What has happened since the last call; `news` comes back empty the next time.
    pub(super) fn take(&mut self, news: &mut Vec<News>) {
        std::mem::swap(&mut self.news, news);
    }
}

impl Application for Groups {
    type Outcome = ();
    type Snapshot = Snapshot;

    fn preprocess(&mut self, origin: Origin, request: &[u8]) -> Preprocessed {
        let decided = match self.is_fresh(origin) {
            true => self.state.decide_fresh(request),
            false => self.state.decide(request),
        };
        match decided {
            Ok(Verdict::Propose) => Preprocessed::AsAsked,
            // Whoever asked finds the same as soon as it has applied as much; what is no request
            // it finds too.
            Ok(Verdict::Idle) | Err(_) => Preprocessed::Answer(Vec::new()),
        }
    }

    fn withdraw(&mut self, txn: &[u8]) {
        self.state.withdraw(txn);
    }

    fn deliver(&mut self, zxid: Zxid, txn: &[u8], origin: Origin) {
        if let Err(corrupt) = self.state.apply(zxid, txn, &mut self.applied) {
            self.news.push(News::Corrupt(format!("{zxid}: {corrupt}")));
            return;
        }
        let Applied {
            outcome,
            groups,
            sessions,
            ended,
            feed,
        } = &mut self.applied;
        // The ends come first: a member never has two sessions.
        self.news.extend(groups.drain(..).map(News::Group));
        self.news.extend(ended.drain(..).map(News::Ended));
        self.news.extend(sessions.drain(..).map(News::Session));
        self.news.extend(feed.take().map(News::Event));
        let outcome = std::mem::take(outcome);
        self.news.push(News::Done(Done { origin, outcome }));
    }

    fn save(&self) -> Snapshot {
        self.state.snapshot()
    }

    fn restore(&mut self, content: &mut dyn Content) -> Result<(), Damaged> {
        let damaged = |error: &dyn std::fmt::Display| Damaged(error.to_string());
        let mut restore = Restore::new(self.settings);
        while let Some(piece) = content.next_piece()? {
            restore.feed(piece).map_err(|error| damaged(&error))?;
        }
        self.state = restore.finish().map_err(|error| damaged(&error))?;
        #[cfg(any(test, feature = "sim"))]
        self.state.plant(self.plants);
        let watched = self.applied.feed.watched();
        let standings = watched.map(|group| self.standing_of(group)).collect();
        self.news.push(News::Restored(standings));
        Ok(())
    }

    fn leading(&mut self, _: &[ServerId]) {}

    fn recovering(&mut self, _: &[HandedBack]) {
        self.fresh.clear();
        self.state.abandon_in_flight();
    }

    fn message(&mut self, from: ServerId, message: &[u8]) {
        self.news.push(News::Message(from, message.to_vec()));
    }
}

impl AppSnapshot for Snapshot {
    fn write_into(&mut self, out: &mut Vec<u8>, bytes_max: usize) -> bool {
        Snapshot::write_into(self, out, bytes_max)
    }
}
