//! `systole status`: what each server says of itself.

use std::thread;

use clap::Args;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Reach;
use super::table::Table;
use crate::cli::{Failure, UNAVAILABLE};
use crate::client::{Call, Client};

/// The flags of `status`.
#[derive(Args)]
pub(in crate::cli) struct Flags {
    #[command(flatten)]
    reach: Reach,
}

/// A server's page about itself.
#[derive(Deserialize)]
struct Cluster {
    id: u64,
    leader: Option<u64>,
    role: String,
    epoch: u64,
    applied_zxid: String,
    servers: Vec<Server>,
    lease: Lease,
    shards: Vec<Shard>,
}

#[derive(Deserialize)]
struct Server {
    endpoint: String,
}

#[derive(Deserialize)]
struct Lease {
    held: bool,
}

#[derive(Deserialize)]
struct Shard {
    sessions: u64,
}

/// What came of asking one server.
struct Row {
    endpoint: String,
    /// What it said, as it said it and as it is read; or why there is nothing.
    said: Result<(Value, Cluster), String>,
}

impl Row {
    fn serves(&self) -> bool {
        self.said
            .as_ref()
            .is_ok_and(|(_, cluster)| cluster.lease.held)
    }
}

pub(super) fn run(flags: &Flags) -> Result<(), Failure> {
    let client = flags.reach.client()?;
    let mut rows = ask(&client, client.given().to_vec());
    let mut others: Vec<String> = Vec::new();
    for (_, cluster) in rows.iter().filter_map(|row| row.said.as_ref().ok()) {
        for Server { endpoint } in &cluster.servers {
            let known = rows.iter().any(|row| row.endpoint == *endpoint);
            if !endpoint.is_empty() && !known && !others.contains(endpoint) {
                others.push(endpoint.clone());
            }
        }
    }
    rows.extend(ask(&client, others));
    let output = flags.reach.output();
    if output.is_json() {
        output.either(|| rows.iter().map(value).collect(), "")?;
    } else {
        let head = [
            "ENDPOINT", "ID", "ROLE", "LEADER", "EPOCH", "APPLIED", "SESSIONS", "STATE",
        ];
        let mut table = Table::new(&head);
        rows.iter().for_each(|row| table.row(cells(row)));
        output.table("", &table)?;
    }
    let failing = rows.iter().filter(|row| !row.serves()).count();
    match failing {
        0 => Ok(()),
        _ => Err(Failure {
            sentence: format!(
                "{failing} of {} servers cannot serve at present",
                rows.len()
            ),
            code: UNAVAILABLE,
        }),
    }
}

/// Asks all of them at a time: one that is silent does not hold up the others.
fn ask(client: &Client, endpoints: Vec<String>) -> Vec<Row> {
    thread::scope(|scope| {
        let asked: Vec<_> = endpoints
            .into_iter()
            .map(|endpoint| scope.spawn(move || ask_one(client, endpoint)))
            .collect();
        let rows = asked.into_iter();
        // A panic has ended the process.
        rows.filter_map(|row| row.join().ok()).collect()
    })
}

fn ask_one(client: &Client, endpoint: String) -> Row {
    let answer = client.send_to(&endpoint, &Call::new("GET", "/-/cluster"));
    let said = match answer {
        Err(crate::client::Error::Unreachable { why, .. }) => Err(why),
        Err(error) => Err(error.to_string()),
        Ok(answer) if answer.status != 200 => Err(answer.problem().to_string()),
        Ok(answer) => {
            let value: Result<Value, _> = serde_json::from_slice(&answer.body);
            let cluster = serde_json::from_slice(&answer.body);
            match (value, cluster) {
                (Ok(value), Ok(cluster)) => Ok((value, cluster)),
                _ => Err("its page is not that of a systole".to_owned()),
            }
        }
    };
    Row { endpoint, said }
}

fn value(row: &Row) -> Value {
    match &row.said {
        Ok((said, _)) => json!({"endpoint": row.endpoint, "serves": row.serves(), "cluster": said}),
        Err(why) => json!({"endpoint": row.endpoint, "serves": false, "error": why}),
    }
}

fn cells(row: &Row) -> Vec<String> {
    let endpoint = row.endpoint.clone();
    match &row.said {
        Err(why) => {
            let nothing = std::iter::repeat_n("-".to_owned(), 6);
            let cells = std::iter::once(endpoint).chain(nothing);
            cells.chain([why.clone()]).collect()
        }
        Ok((_, cluster)) => {
            let leader = cluster.leader.map_or("-".to_owned(), |id| id.to_string());
            let sessions: u64 = cluster.shards.iter().map(|shard| shard.sessions).sum();
            let state = if row.serves() {
                "serves"
            } else {
                "cannot promise"
            };
            vec![
                endpoint,
                cluster.id.to_string(),
                cluster.role.clone(),
                leader,
                cluster.epoch.to_string(),
                cluster.applied_zxid.clone(),
                sessions.to_string(),
                state.to_owned(),
            ]
        }
    }
}
