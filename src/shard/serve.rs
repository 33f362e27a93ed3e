//! The loop over what a client has sent: parse, route, and do or park each request.

use super::conn::{Class, ConnId, Next};
use super::document::{DocumentAsk, Shown};
use super::watch::Poll;
use super::{Phase, Place, Shard};
use crate::http::{self, Answer, Code, Problem, Request, Route};
use crate::mail::What;
use crate::time::Millis;
use crate::types::{GroupVersion, SessionId};

/// What became of one request.
pub(super) enum Step {
    /// Its answer is in the output.
    Done,
    /// Its answer's place is kept; the connection may go on with requests of its kind.
    Parked,
    /// It has to wait for the answers under way, and so has all that comes after it.
    Blocked,
}

/// How far the input of a connection has been served.
pub(super) enum Served {
    /// So many bytes are used. If `blocked`, the rest holds requests that have to wait.
    Upto { used: usize, blocked: bool },
    /// The connection has had its last request; the rest is not looked at.
    Last,
}

/// What of a request outlives its bytes.
#[derive(Clone, Copy)]
pub(super) struct Manner {
    /// Answer without a body.
    pub(super) head_only: bool,
    /// The connection ends after the answer.
    pub(super) close: bool,
    /// The client does not want the document.
    pub(super) minimal: bool,
    /// The session the client believes to be in.
    pub(super) session: Option<SessionId>,
    /// The answer must not be older than this.
    pub(super) floor: Option<GroupVersion>,
}

impl Manner {
    fn of(request: &Request<'_>) -> Manner {
        Manner {
            head_only: request.head_only(),
            close: !request.keep_alive,
            minimal: request.headers.prefer_minimal,
            session: request.headers.session_id,
            floor: request.headers.group_version,
        }
    }
}

impl Manner {
    /// Of a join that asks for nothing but a session.
    pub(super) const PLAIN_JOIN: Manner = Manner {
        head_only: false,
        close: false,
        minimal: true,
        session: None,
        floor: None,
    };

    /// A beat that another server has sent on.
    pub(super) fn forwarded(session: Option<SessionId>, floor: Option<GroupVersion>) -> Manner {
        Manner {
            head_only: true,
            close: false,
            minimal: true,
            session,
            floor,
        }
    }
}

impl Shard {
    /// Serves the requests that `input` begins with; the caller keeps the rest for the
    /// connection, see [`Shard::put_by`].
    pub(super) fn serve(
        &mut self,
        conn: ConnId,
        input: &[u8],
        now: Millis,
        out: &mut Vec<u8>,
    ) -> Served {
        let mut used = 0;
        let mut blocked = false;
        loop {
            let rest = &input[used..];
            if rest.is_empty() {
                break;
            }
            let Some(open) = self.conns.get_mut(conn.index as usize) else {
                break;
            };
            open.wanted = 0;
            // Refusals take their turn too, so they count like any other answer.
            if out.len() >= self.settings.output_bytes_max
                || open.pending() >= self.settings.pipelined_max
            {
                blocked = true;
                break;
            }
            let run = self.skim(conn, rest, now, out);
            if run > 0 {
                used += run;
                continue;
            }
            let open = &mut self.conns[conn.index as usize];
            match http::parse(rest, &mut open.progress, &self.settings.http) {
                Ok(None) => break,
                Ok(Some(request)) => match self.request(conn, &request, rest, now, out) {
                    Ok(Some(Step::Blocked)) => {
                        blocked = true;
                        break;
                    }
                    Ok(Some(Step::Done | Step::Parked)) => {
                        self.familiar.learn(rest, &request);
                        self.plain_joins.learn(rest, &request);
                        used += request.total_len();
                        self.has_ended(conn, now);
                        if !request.keep_alive {
                            return Served::Last;
                        }
                        if self.conns[conn.index as usize].stream.is_some() {
                            blocked = used < input.len();
                            break;
                        }
                    }
                    // The body is not there yet.
                    Ok(None) => {
                        let wanted = request.total_len();
                        self.conns[conn.index as usize].wanted = wanted;
                        break;
                    }
                    Err(mut problem) => {
                        self.has_ended(conn, now);
                        if problem.code == Code::Overloaded {
                            self.familiar_joins.learn(rest, &request);
                        }
                        let skip = request.total_len();
                        // A refused request's body is not read as the next request, and one
                        // that has not come whole is not waited for.
                        problem.close |= rest.len() < skip || !request.keep_alive;
                        self.refuse_request(conn, &problem, request.head_only(), out);
                        if problem.close {
                            return Served::Last;
                        }
                        used += skip;
                    }
                },
                Err(problem) => {
                    let head_only = http::begins_with_head_method(rest);
                    self.refuse_request(conn, &problem, head_only, out);
                    return Served::Last;
                }
            }
        }
        Served::Upto { used, blocked }
    }

    /// Answers what `input` begins with, as far as it need not be read in full. Returns the bytes
    /// that takes.
    #[inline]
    fn skim(&mut self, conn: ConnId, input: &[u8], now: Millis, out: &mut Vec<u8>) -> usize {
        match self.serve_run(conn, input, now, out) {
            0 => {}
            run => return run,
        }
        match self.join_run(conn, input, now) {
            0 => self.refuse_run(conn, input, now, out),
            run => run,
        }
    }

    /// A request has been answered, parked or refused: what follows it is another.
    fn has_ended(&mut self, conn: ConnId, now: Millis) {
        self.counters.requests.add(1);
        let open = &mut self.conns[conn.index as usize];
        open.since = now;
        open.continued = false;
    }

    /// Keeps what has not been used, and says what comes next.
    pub(super) fn put_by(
        &mut self,
        conn: ConnId,
        served: Served,
        rest: impl FnOnce(usize) -> Vec<u8>,
    ) -> Next {
        let Served::Upto { used, blocked } = served else {
            return self.no_more(conn);
        };
        let open = &mut self.conns[conn.index as usize];
        open.input = rest(used);
        open.blocked = blocked;
        // Nothing is under way that could wake it: the output is full, or a document is to
        // be sent, and both go on once the output has drained.
        if open.stream.is_some() || (blocked && open.is_clear()) {
            return Next::More;
        }
        open.rest()
    }

    /// The connection has had its last request.
    fn no_more(&mut self, conn: ConnId) -> Next {
        let open = &mut self.conns[conn.index as usize];
        open.last = true;
        open.input = Vec::new();
        if open.stream.is_some() {
            Next::More
        } else {
            open.rest()
        }
    }

    /// One request. `None` if its body has not arrived whole.
    fn request(
        &mut self,
        conn: ConnId,
        request: &Request<'_>,
        bytes: &[u8],
        now: Millis,
        out: &mut Vec<u8>,
    ) -> Result<Option<Step>, Problem> {
        let mut scratch = self.scratch.take().unwrap_or_default();
        let result = http::route(request, &mut scratch).and_then(|route| {
            if bytes.len() < request.total_len() {
                self.invite_body(conn, request, out);
                return Ok(None);
            }
            let body = &bytes[request.head_len..request.total_len()];
            self.dispatch(conn, request, &route, body, now, out)
                .map(Some)
        });
        self.scratch = Some(scratch);
        result
    }

    /// Tells a client that waits for it, once, to send its body.
    fn invite_body(&mut self, conn: ConnId, request: &Request<'_>, out: &mut Vec<u8>) {
        let open = &mut self.conns[conn.index as usize];
        // Behind answers under way it would look like one of them; such a client sends its
        // body anyway after a while (RFC 9110, 10.1.1).
        if request.expect_continue && !open.continued && open.is_clear() {
            open.continued = true;
            out.extend_from_slice(http::CONTINUE);
        }
    }

    fn dispatch(
        &mut self,
        conn: ConnId,
        request: &Request<'_>,
        route: &Route<'_>,
        body: &[u8],
        now: Millis,
        out: &mut Vec<u8>,
    ) -> Result<Step, Problem> {
        let manner = Manner::of(request);
        let open = &mut self.conns[conn.index as usize];
        open.changes = is_change(route);
        if open.changes {
            if !open.takes(Class::Change) {
                return Ok(Step::Blocked);
            }
            self.must_serve()?;
            if let Route::Join { .. } = route {
                self.must_promise_to(now)?;
            }
            return self.change(conn, request, route, body, manner, now);
        }
        if open.pending() > 0 {
            return self.dispatch_behind(conn, route, manner, now);
        }
        match *route {
            Route::Beat { group, member } => {
                self.must_promise_to(now)?;
                self.beat(conn, group, member, manner, now, out)
            }
            Route::BeatAndGet {
                group,
                member,
                page,
            } => {
                self.must_promise_to(now)?;
                let ask = DocumentAsk::new(request, page);
                self.beat_and_get(conn, (group, member), ask, manner, now, out)
            }
            Route::BatchBeats { packed } => {
                self.must_serve()?;
                self.batch(conn, body, packed, manner, now, out)
            }
            Route::GetGroup {
                group,
                page,
                version,
                wait,
                consistent,
            } => {
                self.must_serve()?;
                let ask = DocumentAsk::new(request, page);
                if version.is_none() && wait.is_none() {
                    return self.get_group(conn, group, ask, consistent, manner, out);
                }
                let poll = Poll {
                    above: version,
                    wait,
                };
                self.poll_group(conn, group, ask, (poll, consistent), manner, now)
            }
            Route::Watch { group, resume } => {
                self.must_serve()?;
                self.listen(conn, group, resume, manner, now)
            }
            Route::ListGroups { page } => {
                self.must_serve()?;
                self.list_groups(conn, page, manner)
            }
            Route::GetConfig { group, member } => {
                self.must_serve()?;
                let condition = request.headers.if_none_match;
                self.get_config(conn, group, member, condition, manner)
            }
            _ => self.page(conn, route, manner, now, out),
        }
    }

    /// A request that is no change, behind answers under way.
    #[cold]
    fn dispatch_behind(
        &mut self,
        conn: ConnId,
        route: &Route<'_>,
        manner: Manner,
        now: Millis,
    ) -> Result<Step, Problem> {
        let Route::Beat { group, member } = *route else {
            return Ok(Step::Blocked);
        };
        if !self.conns[conn.index as usize].takes(Class::Beat) {
            return Ok(Step::Blocked);
        }
        self.must_promise_to(now)?;
        let mut bytes = Vec::new();
        let step = self.beat(conn, group, member, manner, now, &mut bytes)?;
        if matches!(step, Step::Done) {
            let seq = self.conns[conn.index as usize].reserve(Class::Beat);
            self.answer(Place { conn, seq }, bytes);
            return Ok(Step::Parked);
        }
        Ok(step)
    }

    /// Refuses what only a server in service may answer.
    pub(super) fn must_serve(&self) -> Result<(), Problem> {
        match self.phase {
            Phase::Serving => Ok(()),
            Phase::Starting => Err(Problem::new(Code::NotReady)),
            Phase::Stopping => Err(Problem::new(Code::ShuttingDown).closing()),
        }
    }

    /// Parks a question to the core that is answered on `conn`.
    pub(super) fn park(
        &mut self,
        conn: ConnId,
        class: Class,
        what: What,
        purpose: impl FnOnce(Place) -> super::Purpose,
    ) -> Result<Step, Problem> {
        let open = &self.conns[conn.index as usize];
        // The place that `reserve` will give: taken only if the question is put.
        let place = Place {
            conn,
            seq: open.next_seq(),
        };
        if !self.ask(what, purpose(place)) {
            return Err(Problem::new(Code::Overloaded));
        }
        self.conns[conn.index as usize].reserve(class);
        Ok(Step::Parked)
    }

    fn refuse_request(
        &mut self,
        conn: ConnId,
        problem: &Problem,
        head_only: bool,
        out: &mut Vec<u8>,
    ) {
        self.counters.problems.add(1);
        let open = &mut self.conns[conn.index as usize];
        if !head_only && *problem == Problem::new(Code::Overloaded) {
            if open.is_clear() {
                out.extend_from_slice(&self.overload);
            } else {
                open.refuse_overload();
            }
            return;
        }
        if open.is_clear() {
            problem.write(out, head_only, &self.endpoints);
            return;
        }
        let seq = open.reserve(Class::Other);
        let mut bytes = Vec::new();
        problem.write(&mut bytes, head_only, &self.endpoints);
        self.answer(Place { conn, seq }, bytes);
    }

    /// Writes an answer without a document.
    pub(super) fn plain(
        out: &mut Vec<u8>,
        manner: Manner,
        content_type: &'static str,
        body: &[u8],
    ) -> Step {
        let answer = Answer {
            content_type: Some(content_type),
            no_store: true,
            close: manner.close,
            ..Answer::default()
        };
        answer.write(out, body, manner.head_only);
        Step::Done
    }

    /// Puts a document on its way on a connection that is clear.
    pub(super) fn show(&mut self, conn: ConnId, shown: Shown, out: &mut Vec<u8>) -> Step {
        out.extend_from_slice(&shown.bytes);
        self.conns[conn.index as usize].stream = shown.stream;
        Step::Done
    }
}

/// True for what goes through the core to be committed.
fn is_change(route: &Route<'_>) -> bool {
    matches!(
        route,
        Route::Join { .. }
            | Route::Leave { .. }
            | Route::PutConfig { .. }
            | Route::DeleteConfig { .. }
            | Route::DeleteGroup { .. }
    )
}
