//! `GET /-/sd/prometheus`: a group's active members, for Prometheus to find (`http_sd`).
//!
//! Prometheus goes on with the targets it has when it is refused, and drops them when the list
//! is empty. So a server that is not in service refuses, and a group that does not exist has
//! no members: whoever removes a group wants nobody scraped for it any more, and a group may
//! be watched before its first member joins.

use super::conn::{Class, ConnId, Response};
use super::document::Rendered;
use super::serve::{Manner, Step};
use super::{Place, Purpose, Shard};
use crate::http::{Answer, Code, Problem};
use crate::mail::{Answer as CoreAnswer, What};

/// The members of a group, asked of the core.
pub(super) struct TargetsJob {
    place: Place,
    port: Option<u16>,
    manner: Manner,
}

impl Shard {
    /// Asks the core for the members of `group`; those without a port get `port`.
    pub(super) fn get_targets(
        &mut self,
        conn: ConnId,
        group: &[u8],
        port: Option<u16>,
        manner: Manner,
    ) -> Result<Step, Problem> {
        self.must_serve()?;
        let what = What::Document {
            group: group.into(),
            consistent: false,
        };
        self.park(conn, Class::Other, what, |place| {
            Purpose::Targets(TargetsJob {
                place,
                port,
                manner,
            })
        })
    }

    /// The core has given the group, or knows of none. Nothing is kept for the next who asks:
    /// that is a minute away.
    pub(super) fn on_targets(&mut self, job: TargetsJob, answer: CoreAnswer) {
        let TargetsJob {
            place,
            port,
            manner,
        } = job;
        let document = match answer {
            CoreAnswer::Document(document) => document,
            _ => {
                let problem = Problem::new(Code::Overloaded);
                return self.answer_problem(place, &problem, manner.head_only);
            }
        };
        let version = document.as_ref().map(|document| document.version());
        // To a client that is ahead of this server, a group it does not know is one of those
        // that it has not seen yet.
        if manner.floor > version {
            let mut problem = Problem::new(Code::Behind);
            problem.version = version;
            return self.answer_problem(place, &problem, manner.head_only);
        }
        let answer = Answer {
            content_type: Some("application/json"),
            version,
            no_store: true,
            close: manner.close,
            ..Answer::default()
        };
        let Some(document) = document else {
            let mut bytes = Vec::new();
            answer.write(&mut bytes, b"[]", manner.head_only);
            return self.answer(place, bytes);
        };
        let rendered = Rendered::new(document.targets(port));
        let shown = self
            .documents
            .show(rendered, answer, &self.endpoints, manner);
        self.answer(
            place,
            Response {
                bytes: shown.bytes,
                stream: shown.stream,
            },
        );
    }
}
