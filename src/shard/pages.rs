//! The server's own pages under `/-/`.

use std::sync::Arc;
use std::time::Duration;

use super::conn::{Class, ConnId};
use super::serve::{Manner, Step};
use super::{Place, Purpose, Shard, ui};
use crate::http::{self, Answer, Code, Problem, Route};
use crate::mail::{Answer as CoreAnswer, Cluster, What};
use crate::metrics::ShardCounters;
use crate::time::Millis;
use crate::{json, types::ServerId};

impl Shard {
    /// One of the server's own pages.
    pub(super) fn page(
        &mut self,
        conn: ConnId,
        route: &Route<'_>,
        manner: Manner,
        now: Millis,
        out: &mut Vec<u8>,
    ) -> Result<Step, Problem> {
        match route {
            Route::Livez => Ok(Self::plain(out, manner, TEXT, b"alive\n")),
            Route::Readyz => {
                self.must_promise(now)?;
                Ok(Self::plain(out, manner, TEXT, b"ready\n"))
            }
            Route::Metrics => {
                self.show_lease(now);
                let text = self.registry.prometheus();
                Ok(Self::plain(
                    out,
                    manner,
                    "text/plain; version=0.0.4",
                    text.as_bytes(),
                ))
            }
            Route::Histograms => {
                let uptime = Duration::from_millis(now.since(self.started).0);
                let log = self.registry.histograms(self.settings.started_s, uptime);
                Ok(Self::plain(out, manner, TEXT, &log))
            }
            Route::Cluster => self.park(conn, Class::Other, What::Cluster, |place| {
                Purpose::Cluster(place, manner)
            }),
            Route::OpenApi => Ok(Self::plain(out, manner, JSON, http::OPENAPI)),
            Route::Targets { group, port } => self.get_targets(conn, group, *port, manner),
            Route::Ui { file, known } => {
                ui::show(*file, *known, manner, out);
                Ok(Step::Done)
            }
            _ => Err(Problem::new(Code::NotImplemented)),
        }
    }

    /// The core has described the ensemble.
    pub(super) fn on_cluster(
        &mut self,
        place: Place,
        manner: Manner,
        answer: CoreAnswer,
        now: Millis,
    ) {
        let CoreAnswer::Cluster(cluster) = answer else {
            let problem = Problem::new(Code::Overloaded);
            return self.answer_problem(place, &problem, manner.head_only);
        };
        let held = self.lease.promises(now);
        let body = describe(&cluster, &self.registry.shards, held, self.settings.lease);
        let answer = Answer {
            content_type: Some(JSON),
            no_store: true,
            close: manner.close,
            ..Answer::default()
        };
        let mut bytes = Vec::new();
        answer.write(&mut bytes, &body, manner.head_only);
        self.answer(place, bytes);
    }
}

/// The cluster page. `held` tells whether this server may promise anything at present.
fn describe(
    cluster: &Cluster,
    shards: &[Arc<ShardCounters>],
    held: bool,
    lease: Millis,
) -> Vec<u8> {
    let leader = cluster
        .leader
        .map_or("null".to_owned(), |ServerId(id)| id.to_string());
    let mut body = format!(
        "{{\"id\":{},\"leader\":{leader},\"role\":\"{}\",\"epoch\":{},\"last_zxid\":\"{}\",\
         \"applied_zxid\":\"{}\",\"servers\":[",
        cluster.id, cluster.role, cluster.epoch, cluster.last_zxid, cluster.applied_zxid
    )
    .into_bytes();
    for (index, (id, endpoint, state)) in cluster.servers.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        body.extend_from_slice(format!("{{\"id\":{id},\"endpoint\":").as_bytes());
        json::string(&mut body, endpoint);
        body.extend_from_slice(format!(",\"state\":\"{state}\"}}").as_bytes());
    }
    let lease = format!(
        "],\"lease\":{{\"held\":{held},\"length_ms\":{}}},\"shards\":[",
        lease.0
    );
    body.extend_from_slice(lease.as_bytes());
    for (index, shard) in shards.iter().enumerate() {
        let comma = if index > 0 { "," } else { "" };
        let (sessions, connections) = (shard.sessions.get(), shard.connections.get());
        let heartbeats = shard.heartbeats.get();
        let text = format!(
            "{comma}{{\"shard\":{index},\"sessions\":{sessions},\"connections\":{connections},\
             \"heartbeats\":{heartbeats}}}"
        );
        body.extend_from_slice(text.as_bytes());
    }
    body.extend_from_slice(b"]}\n");
    body
}

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";
