//! ZooKeeper: a session is a connection's, and its node is ephemeral; jute, big-endian.
//!
//! ```text
//! every frame: length 4, then
//! connect   version 4 = 0, last zxid 8, timeout ms 4, session 8 = 0, password 4 + 16, read-only 1
//! answer    version 4, timeout ms 4, session 8, password 4 + n, read-only 1
//! request   xid 4, type 4, body     (a ping is xid -2, type 11, no body)
//! answer    xid 4, zxid 8, error 4, body
//! ```

use super::{Frame, Op, Says, Sessions, Speech, find};
use crate::report::machine::first_line;
use anyhow::{Context, Result};
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How it is set up.
pub(super) const TERMS: &str = "alone, Netty instead of its default NIO, `forceSync` as by default, -Xmx1000m as by default, \
     accept backlog 4096; a session is a connection's, so it holds as many sessions as there are \
     connections; create: connect, createSession, ephemeral node; beat: ping; count: exists";

/// Where it is installed.
pub(super) fn program() -> Option<PathBuf> {
    find(&[JAR])?;
    find(&["/usr/bin/java", "/usr/local/bin/java"])
}

/// What the package's database says.
pub(super) fn version() -> String {
    let ask = Path::new("/usr/bin/dpkg-query");
    let form = "--showformat=zookeeper ${Version}\\n";
    first_line(ask, &["--show", form, "zookeeper"])
        .unwrap_or_else(|| "zookeeper, version unknown".to_owned())
}

/// The command that starts it, with its configuration in `dir`.
pub(super) fn command(address: SocketAddr, dir: &Path) -> Result<(PathBuf, Vec<String>)> {
    let program = program().context("zookeeper or java is not installed")?;
    let file = dir.join("zoo.cfg");
    fs::write(&file, configuration(address, dir))?;
    let class_path: Vec<String> = CLASSES
        .iter()
        .map(|c| format!("/usr/share/java/{c}.jar"))
        .collect();
    let args = vec![
        "-Xmx1000m".to_owned(),
        "-Dzookeeper.serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory"
            .to_owned(),
        "-cp".to_owned(),
        class_path.join(":"),
        "org.apache.zookeeper.server.quorum.QuorumPeerMain".to_owned(),
        file.display().to_string(),
    ];
    Ok((program, args))
}

fn configuration(address: SocketAddr, dir: &Path) -> String {
    format!(
        "tickTime=2000\ndataDir={}/data\nclientPort={}\nclientPortAddress={}\nmaxClientCnxns=0\n\
         clientPortListenBacklog=4096\nadmin.enableServer=false\nmaxSessionTimeout=86400000\n\
         4lw.commands.whitelist=srvr\n",
        dir.display(),
        address.port(),
        address.ip()
    )
}

/// Whether it takes sessions: it listens before it does, and calls itself well.
pub(super) fn is_ready(address: SocketAddr) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"srvr")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.contains("Mode: standalone"))
}

/// See the module's doc.
pub(super) struct Jute {
    sessions: Sessions,
}

impl Jute {
    pub(super) fn new(sessions: Sessions) -> Jute {
        Jute { sessions }
    }

    fn connect(&self, out: &mut Vec<u8>) {
        framed(out, |out| {
            out.extend_from_slice(&0_i32.to_be_bytes());
            out.extend_from_slice(&0_i64.to_be_bytes());
            out.extend_from_slice(&(self.sessions.timeout_s * 1_000).to_be_bytes());
            out.extend_from_slice(&0_i64.to_be_bytes());
            buffer(out, &[0; 16]);
            out.push(0);
        });
    }
}

impl Speech for Jute {
    fn steps(&self, op: Op) -> u8 {
        match op {
            Op::Create => 2,
            Op::Hello | Op::Prepare | Op::Beat | Op::Count => 1,
        }
    }

    fn ask(&mut self, _: u32, op: Op, step: u8, session: u32, out: &mut Vec<u8>) {
        match (op, step) {
            (Op::Hello, _) | (Op::Create, 0) => self.connect(out),
            (Op::Prepare, _) => create(out, PARENT.as_bytes(), 0),
            (Op::Create, _) => {
                let mut path = PARENT.as_bytes().to_vec();
                path.push(b'/');
                self.sessions.names.push_member(&mut path, session);
                create(out, &path, EPHEMERAL);
            }
            (Op::Beat, _) => framed(out, |out| request(out, XID_PING, TYPE_PING)),
            (Op::Count, _) => framed(out, |out| {
                request(out, XID, TYPE_EXISTS);
                buffer(out, PARENT.as_bytes());
                out.push(0);
            }),
        }
    }

    fn frame(
        &mut self,
        _: u32,
        awaited: Option<Op>,
        input: &[u8],
        _: &mut Vec<u8>,
    ) -> Result<Option<Frame>, String> {
        let Some(body_len) = int(input, 0) else {
            return Ok(None);
        };
        if !(0..=FRAME_BYTES_MAX).contains(&body_len) {
            return Err(format!("a frame of {body_len} bytes"));
        }
        let len = 4 + body_len as usize;
        let Some(body) = input.get(4..len) else {
            return Ok(None);
        };
        // A connect's answer has a header of its own: it begins with version 0, as no xid does.
        let says = match (int(body, 0), awaited) {
            (Some(0), Some(Op::Hello | Op::Create)) => {
                let granted = int(body, 4).is_some_and(|timeout_ms| timeout_ms > 0);
                if granted { Says::Yes(0) } else { Says::No }
            }
            (Some(XID_PING), Some(Op::Beat)) => Says::Yes(0),
            (Some(XID), Some(Op::Prepare | Op::Create)) if int(body, 12) == Some(0) => Says::Yes(0),
            (Some(XID), Some(Op::Count)) if int(body, 12) == Some(0) => {
                let children = int(body, REPLY_HEADER + STAT_CHILDREN);
                children.map_or(Says::No, |n| Says::Yes(n as u64))
            }
            (Some(XID), _) => Says::No,
            (Some(XID_PING), _) => Says::Aside,
            (xid, _) => return Err(format!("xid {xid:?}, which was not asked")),
        };
        Ok(Some(Frame { len, says }))
    }
}

/// Writes a frame with its length before it.
fn framed(out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    body(out);
    let len = (out.len() - at - 4) as u32;
    out[at..at + 4].copy_from_slice(&len.to_be_bytes());
}

fn create(out: &mut Vec<u8>, path: &[u8], flags: i32) {
    framed(out, |out| {
        request(out, XID, TYPE_CREATE);
        buffer(out, path);
        buffer(out, b"");
        // One entry: whoever it is may do everything.
        out.extend_from_slice(&1_i32.to_be_bytes());
        out.extend_from_slice(&31_i32.to_be_bytes());
        buffer(out, b"world");
        buffer(out, b"anyone");
        out.extend_from_slice(&flags.to_be_bytes());
    });
}

fn request(out: &mut Vec<u8>, xid: i32, kind: i32) {
    out.extend_from_slice(&xid.to_be_bytes());
    out.extend_from_slice(&kind.to_be_bytes());
}

fn buffer(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
    out.extend_from_slice(bytes);
}

fn int(bytes: &[u8], at: usize) -> Option<i32> {
    let four = bytes.get(at..at + 4)?;
    Some(i32::from_be_bytes(four.try_into().ok()?))
}

/// Debian's archive.
const JAR: &str = "/usr/share/java/zookeeper.jar";
/// What Netty needs that ZooKeeper's own list of archives leaves out, and that list.
const CLASSES: [&str; 4] = [
    "zookeeper",
    "netty-codec",
    "netty-resolver",
    "netty-transport-native-unix-common",
];
/// The node all sessions' nodes are children of.
const PARENT: &str = "/load";
/// The node goes with its session.
const EPHEMERAL: i32 = 1;
const TYPE_CREATE: i32 = 1;
const TYPE_EXISTS: i32 = 3;
const TYPE_PING: i32 = 11;
const XID_PING: i32 = -2;
/// Of everything else: answers come in order.
const XID: i32 = 1;
/// Length of an answer's header.
const REPLY_HEADER: usize = 16;
/// Where a Stat has the number of children.
const STAT_CHILDREN: usize = 56;
/// No answer of ours is longer.
const FRAME_BYTES_MAX: i32 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(op: Op, step: u8) -> Vec<u8> {
        let mut out = Vec::new();
        Jute::new(Sessions::new(10)).ask(0, op, step, 7, &mut out);
        out
    }

    fn read(awaited: Op, input: &[u8]) -> Result<Option<Frame>, String> {
        Jute::new(Sessions::new(10)).frame(0, Some(awaited), input, &mut Vec::new())
    }

    fn answer(xid: i32, error: i32, body: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        framed(&mut out, |out| {
            out.extend_from_slice(&xid.to_be_bytes());
            out.extend_from_slice(&9_i64.to_be_bytes());
            out.extend_from_slice(&error.to_be_bytes());
            out.extend_from_slice(body);
        });
        out
    }

    #[test]
    fn questions_have_the_bytes_of_the_protocol() {
        assert_eq!(
            asked(Op::Beat, 0),
            [0, 0, 0, 8, 255, 255, 255, 254, 0, 0, 0, 11]
        );
        let connect = asked(Op::Create, 0);
        assert_eq!(connect.len(), 4 + 45);
        assert_eq!(connect[..4], [0, 0, 0, 45]);
        assert_eq!(connect[16..20], 10_000_u32.to_be_bytes(), "the timeout");
        assert_eq!(connect[28..32], [0, 0, 0, 16], "the password's length");
        let node = asked(Op::Create, 1);
        assert_eq!(node[..12], [0, 0, 0, 77, 0, 0, 0, 1, 0, 0, 0, 1]);
        assert!(node[16..].starts_with(b"/load/"));
        assert!(
            node.ends_with(b"\0\0\0\x05world\0\0\0\x06anyone\0\0\0\x01"),
            "{node:?}"
        );
    }

    #[test]
    fn a_session_is_granted_or_refused() {
        let mut granted = vec![0, 0, 0, 37, 0, 0, 0, 0, 0, 0, 39, 16];
        granted.resize(41, 0);
        assert_eq!(read(Op::Create, &granted[..40]), Ok(None));
        let frame = read(Op::Create, &granted).unwrap().unwrap();
        assert_eq!(
            frame,
            Frame {
                len: 41,
                says: Says::Yes(0)
            }
        );
        granted[8..12].fill(0);
        assert_eq!(read(Op::Hello, &granted).unwrap().unwrap().says, Says::No);
    }

    #[test]
    fn answers_are_read_and_refusals_told_apart() {
        let says = |op, bytes: &[u8]| read(op, bytes).unwrap().unwrap().says;
        assert_eq!(says(Op::Beat, &answer(-2, 0, b"")), Says::Yes(0));
        assert_eq!(
            says(Op::Create, &answer(1, 0, b"\0\0\0\x01/")),
            Says::Yes(0)
        );
        assert_eq!(
            says(Op::Create, &answer(1, -110, b"")),
            Says::No,
            "it exists"
        );
        let mut stat = [0; 68];
        stat[56..60].copy_from_slice(&15_000_i32.to_be_bytes());
        assert_eq!(says(Op::Count, &answer(1, 0, &stat)), Says::Yes(15_000));
        assert_eq!(
            says(Op::Count, &answer(1, -101, b"")),
            Says::No,
            "no such node"
        );
        assert!(read(Op::Beat, &answer(7, 0, b"")).is_err());
        assert!(read(Op::Beat, b"HTTP/1.1").is_err());
    }
}
