//! etcd: a session is a key with a lease; gRPC, as etcd's own clients speak it.

use super::grpc::{Brought, Connection, bytes, number, number_of};
use super::{Frame, Op, Says, Sessions, Speech, find};
use crate::client;
use crate::process;
use anyhow::{Context, Result};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// How it is set up.
pub(super) const TERMS: &str = "alone, as by default, syncing; gRPC by hand; beat: LeaseKeepAlive on one stream a connection \
     (not the HTTP gateway, which costs some four times as much); create: LeaseGrant, then Put with the lease; \
     count: Range with count_only";

/// Where it is installed.
pub(super) fn program() -> Option<PathBuf> {
    find(&["/usr/bin/etcd", "/usr/local/bin/etcd"])
}

/// The command that starts it.
pub(super) fn command(address: SocketAddr, dir: &Path) -> Result<(PathBuf, Vec<String>)> {
    let program = program().context("etcd is not installed")?;
    let clients = format!("http://{address}");
    let peers = format!("http://{}", process::free_address()?);
    let cluster = format!("default={peers}");
    let data = dir.join("data").display().to_string();
    let flags = [
        ("--data-dir", &data),
        ("--listen-client-urls", &clients),
        ("--advertise-client-urls", &clients),
        ("--listen-peer-urls", &peers),
        ("--initial-advertise-peer-urls", &peers),
        ("--initial-cluster", &cluster),
    ];
    let args = flags
        .iter()
        .flat_map(|(f, v)| [(*f).to_owned(), (*v).clone()]);
    let quiet = ["--logger", "zap", "--log-level", "error"].map(str::to_owned);
    Ok((program, args.chain(quiet).collect()))
}

/// Whether it has a leader: it listens before it does.
pub(super) fn is_ready(address: SocketAddr) -> bool {
    client::get(address, "/health")
        .is_ok_and(|(status, body)| status == 200 && body.windows(6).any(|w| w == b"\"true\""))
}

/// See the module's doc.
pub(super) struct Etcd {
    sessions: Sessions,
    connections: Vec<Connection>,
    message: Vec<u8>,
}

impl Etcd {
    pub(super) fn new(sessions: Sessions, connections: u32) -> Etcd {
        Etcd {
            sessions,
            connections: (0..connections).map(|_| Connection::default()).collect(),
            message: Vec::new(),
        }
    }
}

impl Speech for Etcd {
    fn steps(&self, op: Op) -> u8 {
        match op {
            Op::Create => 2,
            Op::Hello | Op::Beat | Op::Count => 1,
            Op::Prepare => 0,
        }
    }

    fn ask(&mut self, conn: u32, op: Op, step: u8, session: u32, out: &mut Vec<u8>) {
        let connection = &mut self.connections[conn as usize];
        let m = &mut self.message;
        m.clear();
        match (op, step) {
            (Op::Hello, _) => connection.hello(out),
            (Op::Beat, _) => {
                number(m, 1, lease(session));
                connection.send(out, "/etcdserverpb.Lease/LeaseKeepAlive", m);
            }
            (Op::Create, 0) => {
                number(m, 1, u64::from(self.sessions.timeout_s));
                number(m, 2, lease(session));
                connection.call(out, "/etcdserverpb.Lease/LeaseGrant", m);
            }
            (Op::Create, _) => {
                let mut key = Vec::new();
                self.sessions.push(&mut key, session);
                bytes(m, 1, &key);
                bytes(m, 2, b"1");
                number(m, 3, lease(session));
                connection.call(out, "/etcdserverpb.KV/Put", m);
            }
            (Op::Count, _) => {
                let stem = self.sessions.names.group_stem();
                // The end of the range: the stem with its hyphen raised by one.
                let end = format!("{}.", stem.trim_end_matches('-'));
                bytes(m, 1, stem.as_bytes());
                bytes(m, 2, end.as_bytes());
                number(m, 9, 1);
                connection.call(out, "/etcdserverpb.KV/Range", m);
            }
            (Op::Prepare, _) => {}
        }
    }

    fn frame(
        &mut self,
        conn: u32,
        awaited: Option<Op>,
        input: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<Frame>, String> {
        let Some((len, brought)) = self.connections[conn as usize].read(input, out)? else {
            return Ok(None);
        };
        let says = match (awaited, brought) {
            (Some(Op::Hello), Brought::Settings) => Says::Yes(0),
            // A lease that is gone has no time to live.
            (Some(Op::Beat), Brought::Message(m)) if number_of(&m, 3) > Some(0) => Says::Yes(0),
            (Some(Op::Create), Brought::Ended(Some(_))) => Says::Yes(0),
            (Some(Op::Count), Brought::Ended(Some(m))) => {
                number_of(&m, 4).map_or(Says::No, Says::Yes)
            }
            (_, Brought::Nothing | Brought::Settings) => Says::Aside,
            (_, Brought::Message(_) | Brought::Ended(_)) => Says::No,
        };
        Ok(Some(Frame { len, says }))
    }
}

/// A session's lease: chosen by us, which etcd allows; 0 would let it choose.
fn lease(session: u32) -> u64 {
    u64::from(session) + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(op: Op, step: u8) -> Vec<u8> {
        let mut out = Vec::new();
        Etcd::new(Sessions::new(10), 1).ask(0, op, step, 299, &mut out);
        out
    }

    fn has(hay: &[u8], needle: &[u8]) -> bool {
        hay.windows(needle.len()).any(|w| w == needle)
    }

    #[test]
    fn questions_are_calls_with_protobuf_in_them() {
        let grant = asked(Op::Create, 0);
        assert!(has(&grant, b"/etcdserverpb.Lease/LeaseGrant"));
        assert!(
            grant.ends_with(&[0, 0, 0, 0, 5, 8, 10, 16, 0xac, 2]),
            "{grant:?}"
        );
        let put = asked(Op::Create, 1);
        assert!(has(&put, b"\x0a\x23load-00099/") && put.ends_with(&[0x12, 1, b'1', 24, 0xac, 2]));
        let beat = asked(Op::Beat, 0);
        assert!(beat.ends_with(&[0, 0, 0, 0, 3, 8, 0xac, 2]), "{beat:?}");
        assert!(asked(Op::Count, 0).ends_with(b"\x0a\x05load-\x12\x05load.\x48\x01"));
    }

    #[test]
    fn a_lease_without_time_to_live_is_gone() {
        let answer = |ttl: &[u8]| {
            let mut message = vec![10, 2, 8, 1, 16, 1];
            message.extend_from_slice(ttl);
            let mut frame = vec![0, 0, 5 + message.len() as u8, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0];
            frame.push(message.len() as u8);
            frame.extend_from_slice(&message);
            frame
        };
        let says = |bytes: &[u8]| {
            let mut etcd = Etcd::new(Sessions::new(10), 1);
            etcd.ask(0, Op::Beat, 0, 0, &mut Vec::new());
            let frame = etcd.frame(0, Some(Op::Beat), bytes, &mut Vec::new());
            frame.unwrap().unwrap().says
        };
        assert_eq!(says(&answer(&[24, 10])), Says::Yes(0));
        assert_eq!(says(&answer(&[])), Says::No);
    }
}
