//! Joins, leaves and configs: questions to the core, and what the client is told.

use super::beat::Beaten;
use super::conn::{Class, ConnId, Response};
use super::document::Rendered;
use super::search::{Kind, Lost};
use super::serve::{Manner, Step};
use super::{Place, Plant, Purpose, Shard};
use crate::group::{Document, Join, Joined, Name, Outcome, Refusal, Request as Change, Require};
use crate::http::{self, Answer, Code, EtagList, Problem, Request, Route};
use crate::mail::{Answer as CoreAnswer, Dealt, What};
use crate::session::Slot;
use crate::time::Millis;
use crate::types::GroupVersion;

/// A join that is at the core.
pub(super) struct JoinJob {
    place: Place,
    manner: Manner,
}

/// A change that is at the core and is no join.
pub(super) struct ChangeJob {
    place: Place,
    manner: Manner,
    about: About,
}

/// A stored config asked of the core.
pub(super) struct ConfigJob {
    place: Place,
    manner: Manner,
    /// `If-None-Match`, as sent.
    condition: Option<Box<[u8]>>,
}

/// What a change is about, for the words of a refusal.
#[derive(Clone, Copy)]
enum About {
    Member,
    Group,
    Config,
}

/// A join that found the member active, while its session is on another shard.
pub(super) struct Renewal {
    place: Place,
    manner: Manner,
    joined: Joined,
    document: Option<Document>,
}

impl Renewal {
    /// The timeout that the answer will promise.
    pub(super) fn timeout(&self) -> Millis {
        self.joined.timeout
    }
}

impl Shard {
    /// True if there is room for a change, and it comes in time.
    pub(super) fn takes_changes(&self) -> bool {
        self.admission.lets_in(self.asked)
    }

    /// Refuses the joins that `input` begins with, as far as they are familiar, where there is no
    /// room for them. Returns the bytes they take.
    ///
    /// They come by the hundred thousand just then, and from clients that are refused what they
    /// want: the time they take is lost for everybody.
    pub(super) fn refuse_run(
        &mut self,
        conn: ConnId,
        input: &[u8],
        now: Millis,
        out: &mut Vec<u8>,
    ) -> usize {
        if self.takes_changes() || !self.lease.promises(now) {
            return 0;
        }
        let open = &mut self.conns[conn.index as usize];
        let (mut used, mut count) = (0, 0);
        // What follows what is answered otherwise has to wait for it, and answers are bounded.
        while open.takes(Class::Change)
            && open.pending() < self.settings.pipelined_max
            && out.len() < self.settings.output_bytes_max
        {
            let rest = &input[used..];
            let Some(len) = self.familiar_joins.len(rest, &self.settings.http) else {
                break;
            };
            if open.is_clear() {
                out.extend_from_slice(&self.overload);
            } else {
                open.refuse_overload();
            }
            used += len;
            count += 1;
        }
        if count > 0 {
            open.progress = http::Progress::default();
            open.continued = false;
            open.since = now;
            open.changes = true;
            self.counters.requests.add(count);
            self.counters.problems.add(count);
            self.counters.overloads.add(count);
        }
        used
    }

    /// A request to change the replicated state: asks the core.
    pub(super) fn change(
        &mut self,
        conn: ConnId,
        request: &Request<'_>,
        route: &Route<'_>,
        body: &[u8],
        manner: Manner,
        now: Millis,
    ) -> Result<Step, Problem> {
        if !self.takes_changes() {
            self.counters.overloads.add(1);
            return Err(Problem::new(Code::Overloaded));
        }
        if let Route::Join { .. } = *route {
            let join = self.join_of(route, body)?;
            return self.join(conn, join, manner, now);
        }
        let (change, about) = change_of(request, route, body, manner)?;
        let what = What::Change {
            request: change,
            document: false,
            fresh: false,
        };
        self.park(conn, Class::Change, what, |place| {
            Purpose::Change(ChangeJob {
                place,
                manner,
                about,
            })
        })
    }

    /// The core's word for a join, with everything about it checked that can be here.
    fn join_of(&self, route: &Route<'_>, body: &[u8]) -> Result<Join, Problem> {
        let Route::Join {
            group,
            member,
            timeout,
            takeover,
            only_if_absent,
        } = *route
        else {
            return Err(Problem::new(Code::Internal));
        };
        let (min, max) = (self.settings.min_timeout, self.settings.max_timeout);
        if let Some(asked) = timeout.filter(|asked| *asked < min || *asked > max) {
            return Err(Problem::timeout_out_of_range(asked, min, max));
        }
        http::config_text(body)?;
        if !self.has_room(1) {
            return Err(Problem::new(Code::Overloaded).detail("this server is full of sessions"));
        }
        Ok(Join {
            config: (!body.is_empty()).then(|| body.into()),
            takeover,
            only_if_absent,
            ..self.join_asked(group, member, timeout)
        })
    }

    /// A join that asks for nothing but a session.
    pub(super) fn join_asked(&self, group: &[u8], member: &[u8], timeout: Option<Millis>) -> Join {
        Join {
            group: Name::from_slice(group),
            member: Name::from_slice(member),
            timeout,
            config: None,
            takeover: false,
            only_if_absent: false,
            owner: self.settings.server,
            incarnation: self.incarnation,
        }
    }

    fn join(
        &mut self,
        conn: ConnId,
        join: Join,
        manner: Manner,
        now: Millis,
    ) -> Result<Step, Problem> {
        if self.asked >= self.settings.asks_max {
            self.counters.overloads.add(1);
            return Err(Problem::new(Code::Overloaded));
        }
        let slot = self.tracker.find(&join.group, &join.member);
        self.put_join(conn, join, slot, manner, now);
        Ok(Step::Parked)
    }

    /// Asks the core for a join there is room for, of a member whose session is in `slot`.
    pub(super) fn put_join(
        &mut self,
        conn: ConnId,
        join: Join,
        slot: Option<Slot>,
        manner: Manner,
        now: Millis,
    ) {
        // A renewal is a sign of life too: a session that is here must not fall due while
        // the core is asked about it. One who wants to be the first, or to take over, speaks
        // for another: the ghost it waits for must fall due.
        if !join.only_if_absent
            && !join.takeover
            && let Some(slot) = slot
        {
            let _ = self.tracker.touch(slot, now);
        }
        let what = What::Change {
            request: Change::Join(join),
            document: !manner.minimal,
            fresh: slot.is_none(),
        };
        let open = &mut self.conns[conn.index as usize];
        open.lend_queue(&mut self.idle_queues);
        let seq = open.reserve(Class::Change);
        let place = Place { conn, seq };
        let asked = self.ask(what, Purpose::Join(JoinJob { place, manner }));
        debug_assert!(asked, "there is room");
    }

    /// The core has answered a join.
    pub(super) fn on_joined(&mut self, job: JoinJob, answer: CoreAnswer, now: Millis) {
        let JoinJob { place, manner } = job;
        let CoreAnswer::Joined {
            joined,
            here,
            group,
            member,
            version,
            document,
        } = answer
        else {
            return self.refused(place, answer, About::Member, manner);
        };
        let Joined {
            session: id,
            term,
            timeout,
            ..
        } = joined;
        let slot = if here {
            let dealt = Dealt {
                group,
                version,
                member,
                id,
                term,
                timeout,
                grace: Millis(0),
            };
            Some(self.hold(&dealt, now))
        } else if let Some(slot) = self.tracker.find_id(id) {
            Some(slot)
        } else {
            let lost = Lost::named(&group, &member, Some(id));
            let renewal = Box::new(Renewal {
                place,
                manner,
                joined,
                document,
            });
            let manner = Manner {
                session: Some(id),
                floor: None,
                ..manner
            };
            return self.begin_search(place, Kind::Renewal(renewal), vec![lost], manner, now);
        };
        if self.lease.has_lapsed(now) && !self.plants.has(Plant::JoinsWhileLapsed) {
            self.count_lapsed(Code::LeaseLapsed, 1);
            let problem = Problem::new(Code::LeaseLapsed);
            return self.answer_problem(place, &problem, manner.head_only);
        }
        // The promise of a join counts from here: this touch, or the one in `hold`.
        let live = slot.is_some_and(|slot| {
            matches!(self.tracker.touch(slot, now), crate::session::Touch::Live)
        });
        if live || self.plants.has(Plant::WelcomesClosing) {
            self.welcome(place, joined, document, manner);
        } else {
            let problem = Problem::new(Code::NotReady).detail("the session is being ended");
            self.answer_problem(place, &problem, manner.head_only);
        }
    }

    /// A renewed session has been found on another shard and is here now, or its owner has
    /// touched it.
    pub(super) fn renewed(&mut self, renewal: Renewal, beaten: Beaten) {
        let Renewal {
            place,
            manner,
            joined,
            document,
        } = renewal;
        debug_assert_eq!(joined.session, beaten.id, "the search was for this session");
        self.welcome(place, joined, document, manner);
    }

    /// 201 or 200, with the document unless the client does without.
    fn welcome(
        &mut self,
        place: Place,
        joined: Joined,
        document: Option<Document>,
        manner: Manner,
    ) {
        let Some(document) = document else {
            return self.answer_joined(place, joined, manner.close);
        };
        let mut answer = Answer {
            status: if joined.created { 201 } else { 200 },
            session: Some((joined.session, joined.timeout)),
            no_store: true,
            close: manner.close,
            ..Answer::default()
        };
        answer.content_type = Some("application/json");
        // The document may be newer than the join: it says what it shows.
        answer.version = Some(document.version());
        answer.etag = Some(document.version().0);
        let shown = self
            .documents
            .show(Rendered::new(document), answer, &self.endpoints, manner);
        self.answer(
            place,
            Response {
                bytes: shown.bytes,
                stream: shown.stream,
            },
        );
    }

    /// The core has answered another change.
    pub(super) fn on_changed(&mut self, job: ChangeJob, answer: CoreAnswer) {
        let ChangeJob {
            place,
            manner,
            about,
        } = job;
        let (version, etag) = match answer {
            CoreAnswer::Outcome(Outcome::Left { version } | Outcome::ConfigDeleted { version }) => {
                (Some(version), None)
            }
            CoreAnswer::Outcome(Outcome::ConfigSet {
                config_version,
                version,
                ..
            }) => (Some(version), Some(config_version)),
            CoreAnswer::Outcome(Outcome::GroupDeleted) => (None, None),
            other => return self.refused(place, other, about, manner),
        };
        let mut bytes = Vec::new();
        done(version, etag, manner).write(&mut bytes, b"", false);
        self.answer(place, bytes);
    }

    fn refused(&mut self, place: Place, answer: CoreAnswer, about: About, manner: Manner) {
        let problem = match answer {
            CoreAnswer::Outcome(Outcome::Refused(refusal)) => problem_of(refusal, about),
            CoreAnswer::Busy => Problem::new(Code::Overloaded),
            CoreAnswer::NoQuorum => Problem::new(Code::NoQuorum),
            other => {
                debug_assert!(false, "the core answered a change with {other:?}");
                Problem::new(Code::Internal)
            }
        };
        self.answer_problem(place, &problem, manner.head_only);
    }

    /// `GET /G/config` and `GET /G/M/config`.
    pub(super) fn get_config(
        &mut self,
        conn: ConnId,
        group: &[u8],
        member: Option<&[u8]>,
        condition: Option<EtagList<'_>>,
        manner: Manner,
    ) -> Result<Step, Problem> {
        let what = What::Config {
            group: group.into(),
            member: member.map(Box::from),
        };
        let condition = condition.map(|list| list.as_bytes().into());
        self.park(conn, Class::Other, what, |place| {
            Purpose::Config(ConfigJob {
                place,
                manner,
                condition,
            })
        })
    }

    /// The core has found, or not found, a config.
    pub(super) fn on_config(&mut self, job: ConfigJob, answer: CoreAnswer) {
        let ConfigJob {
            place,
            manner,
            condition,
        } = job;
        let CoreAnswer::Config(found) = answer else {
            return self.refused(place, answer, About::Config, manner);
        };
        let Some((bytes, version)) = found else {
            return self.answer_problem(place, &Problem::new(Code::NoConfig), manner.head_only);
        };
        let condition = condition.as_deref().and_then(EtagList::parse);
        let unchanged = condition.is_some_and(|list| list.matches_weakly(version));
        let answer = Answer {
            status: if unchanged { 304 } else { 200 },
            content_type: (!unchanged).then_some("text/plain; charset=utf-8"),
            etag: Some(version),
            close: manner.close,
            ..Answer::default()
        };
        let mut out = Vec::new();
        answer.write(&mut out, &bytes, manner.head_only);
        self.answer(place, out);
    }
}

/// The core's word for a change that is no join, and what it is about.
fn change_of(
    request: &Request<'_>,
    route: &Route<'_>,
    body: &[u8],
    manner: Manner,
) -> Result<(Change, About), Problem> {
    Ok(match *route {
        Route::Leave { group, member } => {
            let (group, member) = (group.into(), member.into());
            let session = manner.session;
            (
                Change::Leave {
                    group,
                    member,
                    session,
                },
                About::Member,
            )
        }
        Route::DeleteGroup { group } => {
            let group = group.into();
            (Change::DeleteGroup { group }, About::Group)
        }
        Route::PutConfig {
            group,
            member,
            if_match,
        } => {
            http::config_text(body)?;
            let require = require(if_match, request.headers.if_none_match)?;
            let (group, member) = (group.into(), member.map(Box::from));
            let bytes = body.into();
            (
                Change::SetConfig {
                    group,
                    member,
                    bytes,
                    require,
                },
                About::Config,
            )
        }
        Route::DeleteConfig {
            group,
            member,
            if_match,
        } => {
            let require = require(if_match, None)?;
            let (group, member) = (group.into(), member.map(Box::from));
            (
                Change::DeleteConfig {
                    group,
                    member,
                    require,
                },
                About::Config,
            )
        }
        _ => return Err(Problem::new(Code::Internal)),
    })
}

/// 204 with the versions.
fn done(version: Option<GroupVersion>, etag: Option<u64>, manner: Manner) -> Answer {
    Answer {
        status: 204,
        version,
        etag,
        close: manner.close,
        ..Answer::default()
    }
}

/// The condition of a config write, as the core judges it.
fn require(
    if_match: Option<EtagList<'_>>,
    if_none_match: Option<EtagList<'_>>,
) -> Result<Require, Problem> {
    match (if_match, if_none_match) {
        (None, None) => Ok(Require::Nothing),
        (Some(list), None) if list.is_any() => Ok(Require::Exists),
        (Some(list), None) => Ok(Require::OneOf(list.versions().collect())),
        (None, Some(list)) if list.is_any() => Ok(Require::Absent),
        _ => Err(Problem::new(Code::UnsupportedCondition)
            .detail("a config is written under If-Match, or under If-None-Match: *")),
    }
}

/// A refusal by the replicated state, in the words of HTTP.
fn problem_of(refusal: Refusal, about: About) -> Problem {
    Problem::new(match (refusal, about) {
        (Refusal::NotFound, About::Member) => Code::UnknownMember,
        (Refusal::NotFound, About::Group) => Code::UnknownGroup,
        (Refusal::NotFound, About::Config) => Code::NoConfig,
        (Refusal::Gone, _) => Code::SessionEnded,
        (Refusal::OtherSession, _) => Code::SessionConflict,
        (Refusal::GroupActive, _) => Code::GroupInUse,
        (Refusal::PreconditionFailed, About::Member) => Code::AlreadyActive,
        (Refusal::PreconditionFailed, _) => Code::PreconditionFailed,
        (Refusal::GroupsFull, _) => Code::TooManyGroups,
        (Refusal::MembersFull, _) => Code::TooManyMembers,
        (Refusal::BadName, _) => Code::BadName,
        (Refusal::ConfigTooLong, _) => Code::BodyTooLarge,
        (Refusal::ConfigNotUtf8, _) => Code::ConfigNotUtf8,
        (Refusal::BadTimeout, _) => Code::TimeoutOutOfRange,
        (Refusal::TooManyVersions, _) => Code::UnsupportedCondition,
        (Refusal::StaleOwner, _) => Code::NotReady,
    })
}
