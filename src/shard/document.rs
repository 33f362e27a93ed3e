//! Group documents: rendered once a version, shared by all who ask, sent in pieces.
//!
//! The core gives a handle on the group as it was at one version. This shard renders it, a
//! piece at a time, keeps the pieces while somebody is being sent them, and keeps short
//! documents for the next who asks.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use super::beat::Beaten;
use super::conn::{Class, ConnId, Response, Stream};
use super::serve::{Manner, Step};
use super::watch::Poll;
use super::{Place, Plant, Purpose, Shard};
use crate::group::Document;
use crate::http::{self, Answer, Code, EtagList, Length, Page, Problem, Request};
use crate::json;
use crate::mail::{Answer as CoreAnswer, ListedGroup, What};
use crate::time::Millis;
use crate::types::GroupVersion;

/// How a document was asked for.
#[derive(Clone)]
pub(super) struct DocumentAsk {
    /// `If-None-Match`, as sent.
    condition: Option<Box<[u8]>>,
    /// Members after this name, so many at most; absent for the whole document.
    page: Option<(Option<Box<[u8]>>, u64)>,
}

impl DocumentAsk {
    pub(super) fn new(request: &Request<'_>, page: Page<'_>) -> DocumentAsk {
        let paged = page.after.is_some() || page.limit.is_some();
        let limit = page
            .limit
            .map_or(PAGE_MAX, |limit| u64::from(limit).min(PAGE_MAX));
        DocumentAsk {
            condition: request
                .headers
                .if_none_match
                .map(|list| list.as_bytes().into()),
            page: paged.then(|| (page.after.map(Box::from), limit)),
        }
    }

    /// True if the client has this version already.
    fn is_known(&self, version: GroupVersion) -> bool {
        let list = self.condition.as_deref().and_then(EtagList::parse);
        list.is_some_and(|list| list.matches_weakly(version.0))
    }
}

/// A document asked of the core.
pub(super) struct DocumentJob {
    place: Place,
    group: Box<[u8]>,
    ask: DocumentAsk,
    /// The heartbeat that came with the question.
    beaten: Option<Beaten>,
    manner: Manner,
    /// Until when a client ahead of this server waits, once that is known.
    deadline: Option<Millis>,
    /// The answer is to wait for a change, once this server is sure of what is there now.
    poll: Option<Poll>,
}

impl DocumentJob {
    pub(super) fn new(
        place: Place,
        group: &[u8],
        ask: DocumentAsk,
        beaten: Option<Beaten>,
        manner: Manner,
    ) -> DocumentJob {
        DocumentJob {
            place,
            group: group.into(),
            ask,
            beaten,
            manner,
            deadline: None,
            poll: None,
        }
    }

    pub(super) fn polling(self, poll: Poll) -> DocumentJob {
        let poll = Some(poll);
        DocumentJob { poll, ..self }
    }

    pub(super) fn place(&self) -> Place {
        self.place
    }

    pub(super) fn group(&self) -> &[u8] {
        &self.group
    }

    pub(super) fn head_only(&self) -> bool {
        self.manner.head_only
    }

    /// True if it asks for the whole document, which one rendering serves all with.
    pub(super) fn is_whole(&self) -> bool {
        self.ask.page.is_none()
    }
}

/// A list of groups asked of the core.
pub(super) struct ListJob {
    place: Place,
    manner: Manner,
}

/// A document, as far as it has been rendered.
pub(super) struct Rendered {
    version: GroupVersion,
    state: RefCell<Rendering>,
}

struct Rendering {
    pieces: Vec<Rc<[u8]>>,
    /// What is still to be rendered; `None` once all is.
    source: Option<Document>,
}

impl Rendered {
    pub(super) fn new(document: Document) -> Rc<Rendered> {
        let version = document.version();
        let state = RefCell::new(Rendering {
            pieces: Vec::new(),
            source: Some(document),
        });
        Rc::new(Rendered { version, state })
    }

    /// The `index`th piece, rendered now if nobody has asked for it before; `None` after the
    /// last.
    pub(super) fn piece(&self, index: usize, endpoints: &[String]) -> Option<Rc<[u8]>> {
        let mut state = self.state.borrow_mut();
        if index == state.pieces.len() {
            let mut piece = Vec::new();
            let more = state
                .source
                .as_mut()?
                .render_into(endpoints, &mut piece, PIECE_BYTES);
            if !more {
                state.source = None;
            }
            state.pieces.push(piece.into());
        }
        state.pieces.get(index).cloned()
    }

    pub(super) fn version(&self) -> GroupVersion {
        self.version
    }

    /// The whole document, if it is rendered and one piece.
    fn whole(&self) -> Option<Rc<[u8]>> {
        let state = self.state.borrow();
        match (&state.source, state.pieces.as_slice()) {
            (None, [only]) => Some(Rc::clone(only)),
            _ => None,
        }
    }
}

/// A long document on its way to one client.
pub(super) struct Pieces {
    rendered: Rc<Rendered>,
    next: usize,
    /// In chunks; otherwise the end of the connection is the end of the document.
    chunked: bool,
}

impl Pieces {
    /// Appends the next piece; false if that was the end.
    pub(super) fn send(&mut self, out: &mut Vec<u8>) -> bool {
        // The endpoints stand in the first piece, which has been rendered already.
        let piece = self.rendered.piece(self.next, &[]);
        self.next += 1;
        match &piece {
            Some(piece) => http::piece(out, piece, self.chunked),
            None if self.chunked => out.extend_from_slice(http::LAST_CHUNK),
            None => {}
        }
        piece.is_some()
    }
}

/// A document ready to be sent: its head and first piece, and the rest.
pub(super) struct Shown {
    pub(super) bytes: Vec<u8>,
    pub(super) stream: Option<Box<Stream>>,
}

/// Documents kept for the next who asks.
#[derive(Default)]
pub(super) struct Documents {
    kept: HashMap<Box<[u8]>, Rc<Rendered>>,
    bytes: usize,
}

impl Documents {
    /// Keeps a document that is whole and short.
    pub(super) fn keep(&mut self, group: &[u8], rendered: &Rc<Rendered>) {
        let Some(whole) = rendered.whole() else {
            return;
        };
        let bytes = whole.len() + group.len();
        if self.bytes + bytes > KEPT_BYTES_MAX || self.kept.len() >= KEPT_MAX {
            self.kept.clear();
            self.bytes = 0;
        }
        self.bytes += bytes;
        let before = self.kept.insert(group.into(), Rc::clone(rendered));
        if let Some(before) = before.and_then(|before| before.whole()) {
            self.bytes -= before.len() + group.len();
        }
    }

    /// What was kept does not say any more what there is.
    pub(super) fn forget(&mut self) {
        self.kept.clear();
        self.bytes = 0;
    }

    /// What the kept documents and their names take.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn get(&self, group: &[u8], version: GroupVersion) -> Option<&Rc<Rendered>> {
        self.kept
            .get(group)
            .filter(|rendered| rendered.version == version)
    }

    /// Makes an answer of a document.
    pub(super) fn show(
        &self,
        rendered: Rc<Rendered>,
        answer: Answer,
        endpoints: &[String],
        manner: Manner,
    ) -> Shown {
        let mut bytes = Vec::new();
        if manner.head_only {
            answer.write(&mut bytes, b"", true);
            return Shown {
                bytes,
                stream: None,
            };
        }
        let first = rendered.piece(0, endpoints);
        if let Some(whole) = rendered.whole() {
            answer.write(&mut bytes, &whole, false);
            return Shown {
                bytes,
                stream: None,
            };
        }
        drop(first);
        let length = if manner.close {
            Length::Unsaid
        } else {
            Length::Chunked
        };
        answer.write_head(&mut bytes, length);
        let pieces = Pieces {
            rendered,
            next: 0,
            chunked: !manner.close,
        };
        Shown {
            bytes,
            stream: Some(Box::new(Stream::Document(pieces))),
        }
    }
}

impl Shard {
    /// The answer, if this shard holds the group's document at its present version.
    pub(super) fn cached_document(
        &self,
        group: &[u8],
        ask: &DocumentAsk,
        beaten: Option<Beaten>,
        manner: Manner,
    ) -> Option<Shown> {
        let slot = self.tracker.find_group(group)?;
        let version = self.tracker.group(slot).get();
        let behind = manner.floor.is_some_and(|floor| version < floor);
        if behind && !self.plants.has(Plant::DocumentsIgnoreFloor) {
            return None;
        }
        if ask.is_known(version) {
            return Some(unchanged(version, beaten, manner));
        }
        if ask.page.is_some() {
            return None;
        }
        let rendered = Rc::clone(self.documents.get(group, version)?);
        Some(self.documents.show(
            rendered,
            head(version, beaten, manner),
            &self.endpoints,
            manner,
        ))
    }

    /// `GET /G`.
    pub(super) fn get_group(
        &mut self,
        conn: ConnId,
        group: &[u8],
        ask: DocumentAsk,
        consistent: bool,
        manner: Manner,
        out: &mut Vec<u8>,
    ) -> Result<Step, Problem> {
        if !consistent && let Some(shown) = self.cached_document(group, &ask, None, manner) {
            return Ok(self.show(conn, shown, out));
        }
        let what = What::Document {
            group: group.into(),
            consistent,
        };
        self.park(conn, Class::Other, what, |place| {
            Purpose::Document(DocumentJob::new(place, group, ask, None, manner))
        })
    }

    /// Shows a document on a place that is kept already.
    pub(super) fn ask_document(
        &mut self,
        place: Place,
        group: &[u8],
        ask: DocumentAsk,
        beaten: Option<Beaten>,
        manner: Manner,
    ) {
        self.put_document_job(DocumentJob::new(place, group, ask, beaten, manner));
    }

    fn put_document_job(&mut self, job: DocumentJob) {
        let (place, head_only) = (job.place, job.manner.head_only);
        let what = What::Document {
            group: job.group.clone(),
            consistent: false,
        };
        if !self.ask(what, Purpose::Document(job)) {
            self.answer_problem(place, &Problem::new(Code::Overloaded), head_only);
        }
    }

    /// The core has given a document, or knows of none.
    pub(super) fn on_document(&mut self, mut job: DocumentJob, answer: CoreAnswer, now: Millis) {
        let head_only = job.manner.head_only;
        if let CoreAnswer::Document(_) = answer
            && let Some(poll) = job.poll.take()
        {
            return self.hang_poll(job, poll, now);
        }
        let document = match answer {
            CoreAnswer::Document(Some(document)) => document,
            CoreAnswer::Document(None) => {
                let problem = Problem::new(Code::UnknownGroup);
                return self.answer_problem(job.place, &problem, head_only);
            }
            CoreAnswer::NoQuorum => {
                let problem = Problem::new(Code::NoQuorum);
                return self.answer_problem(job.place, &problem, head_only);
            }
            _ => {
                let problem = Problem::new(Code::Overloaded);
                return self.answer_problem(job.place, &problem, head_only);
            }
        };
        self.give_document(job, document, None, now);
    }

    /// Answers with a document; `rendered` is the whole of it, if somebody has rendered it.
    pub(super) fn give_document(
        &mut self,
        mut job: DocumentJob,
        document: Document,
        rendered: Option<Rc<Rendered>>,
        now: Millis,
    ) {
        let head_only = job.manner.head_only;
        let version = document.version();
        let behind = job.manner.floor.is_some_and(|floor| version < floor);
        if behind && !self.plants.has(Plant::DocumentsIgnoreFloor) {
            let deadline = *job.deadline.get_or_insert(now + Millis(BEHIND_MS_MAX));
            if now < deadline {
                return self.behind.push(job);
            }
            let problem = Problem::new(Code::Behind).about(version);
            return self.answer_problem(job.place, &problem, head_only);
        }
        if job.ask.is_known(version) {
            let shown = unchanged(version, job.beaten, job.manner);
            return self.answer(job.place, shown.bytes);
        }
        let rendered = match &job.ask.page {
            Some((after, limit)) => Rendered::new(document.page(after.as_deref(), *limit)),
            None => match rendered
                .as_ref()
                .or(self.documents.get(&job.group, version))
            {
                Some(rendered) => Rc::clone(rendered),
                None => Rendered::new(document),
            },
        };
        let answer = head(version, job.beaten, job.manner);
        let shown = self
            .documents
            .show(Rc::clone(&rendered), answer, &self.endpoints, job.manner);
        if job.ask.page.is_none() {
            self.documents.keep(&job.group, &rendered);
        }
        self.answer(
            job.place,
            Response {
                bytes: shown.bytes,
                stream: shown.stream,
            },
        );
    }

    /// Answers with a document that is kept, if this one is.
    pub(super) fn give_kept(
        &mut self,
        job: DocumentJob,
        version: GroupVersion,
    ) -> Option<DocumentJob> {
        let behind = job.manner.floor.is_some_and(|floor| version < floor);
        let kept = self.documents.get(&job.group, version).cloned();
        let Some(rendered) = kept.filter(|_| !behind && job.is_whole()) else {
            return Some(job);
        };
        let shown = if job.ask.is_known(version) {
            unchanged(version, job.beaten, job.manner)
        } else {
            let answer = head(version, job.beaten, job.manner);
            self.documents
                .show(rendered, answer, &self.endpoints, job.manner)
        };
        let Shown { bytes, stream } = shown;
        self.answer(job.place, Response { bytes, stream });
        None
    }

    /// Asks again for the documents of clients that are ahead of this server.
    pub(super) fn resume_behind(&mut self) {
        for job in std::mem::take(&mut self.behind) {
            self.put_document_job(job);
        }
    }

    /// `GET /`.
    pub(super) fn list_groups(
        &mut self,
        conn: ConnId,
        page: Page<'_>,
        manner: Manner,
    ) -> Result<Step, Problem> {
        let limit = page
            .limit
            .map_or(PAGE_MAX, |limit| u64::from(limit).min(PAGE_MAX));
        let what = What::List {
            after: page.after.map(Box::from),
            limit: limit as usize,
        };
        self.park(conn, Class::Other, what, |place| {
            Purpose::List(ListJob { place, manner })
        })
    }

    /// The core has listed groups.
    pub(super) fn on_list(&mut self, job: ListJob, answer: CoreAnswer) {
        let CoreAnswer::List(groups) = answer else {
            let problem = Problem::new(Code::Overloaded);
            return self.answer_problem(job.place, &problem, job.manner.head_only);
        };
        let mut out = Vec::new();
        let answer = Answer {
            content_type: Some("application/json"),
            no_store: true,
            close: job.manner.close,
            ..Answer::default()
        };
        answer.write(&mut out, &listing(&groups), job.manner.head_only);
        self.answer(job.place, out);
    }
}

fn listing(groups: &[ListedGroup]) -> Vec<u8> {
    let mut body = b"{\"groups\":[".to_vec();
    for (index, group) in groups.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        body.extend_from_slice(b"{\"name\":\"");
        json::escaped(&mut body, &group.name);
        body.extend_from_slice(b"\",\"version\":");
        json::number(&mut body, group.version.0);
        body.extend_from_slice(b",\"active\":");
        json::number(&mut body, group.active.into());
        body.extend_from_slice(b",\"inactive\":");
        json::number(&mut body, group.inactive.into());
        body.push(b'}');
    }
    body.extend_from_slice(b"]}\n");
    body
}

fn head(version: GroupVersion, beaten: Option<Beaten>, manner: Manner) -> Answer {
    Answer {
        content_type: Some("application/json"),
        version: Some(version),
        session: beaten.map(|beaten| (beaten.id, beaten.timeout)),
        etag: Some(version.0),
        no_store: beaten.is_some(),
        close: manner.close,
        ..Answer::default()
    }
}

fn unchanged(version: GroupVersion, beaten: Option<Beaten>, manner: Manner) -> Shown {
    let mut bytes = Vec::new();
    let answer = Answer {
        status: 304,
        content_type: None,
        ..head(version, beaten, manner)
    };
    answer.write(&mut bytes, b"", manner.head_only);
    Shown {
        bytes,
        stream: None,
    }
}

/// Rendered at a time, so that a document of a million members holds nobody up.
pub(super) const PIECE_BYTES: usize = 64 * 1024;
/// Documents kept for the next who asks, and what they may take together.
const KEPT_MAX: usize = 4_096;
const KEPT_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Most members, or groups, on one page.
const PAGE_MAX: u64 = 1_000;
/// How long a client that is ahead of this server waits for it, milliseconds.
pub(super) const BEHIND_MS_MAX: u64 = 1_000;
