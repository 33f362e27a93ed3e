//! Redis: a session is a key with a time to live; RESP, version 2.
//!
//! ```text
//! *3\r\n$6\r\nEXPIRE\r\n$3\r\nkey\r\n$2\r\n10\r\n   a question: so many words, each with its length
//! +OK\r\n  :1\r\n  -ERR why\r\n                     answers: a word, a number, a refusal
//! ```

use super::{Frame, Op, Says, Sessions, Setting, Speech, find};
use anyhow::{Context, Result};
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// How it is set up.
pub(super) const TERMS: &str = "create: SET key EX, append-only file with `appendfsync always`; beat: EXPIRE, \
     and then without any file, since with one each EXPIRE would be logged; count: DBSIZE";

/// Where it is installed.
pub(super) fn program() -> Option<PathBuf> {
    find(&["/usr/bin/redis-server", "/usr/local/bin/redis-server"])
}

/// The command that starts it.
pub(super) fn command(
    address: SocketAddr,
    dir: &Path,
    setting: Setting,
) -> Result<(PathBuf, Vec<String>)> {
    let program = program().context("redis-server is not installed")?;
    let append = if setting == Setting::Durable {
        "yes"
    } else {
        "no"
    };
    let (port, ip) = (address.port().to_string(), address.ip().to_string());
    let dir = dir.display().to_string();
    let flags = [
        ("--port", port.as_str()),
        ("--bind", &ip),
        ("--dir", &dir),
        ("--save", ""),
        ("--appendonly", append),
        ("--appendfsync", "always"),
        // It takes 127.0.0.1 alone for loopback, and refuses our other sources there.
        ("--protected-mode", "no"),
        ("--maxclients", "20000"),
        ("--tcp-backlog", "4096"),
        ("--loglevel", "warning"),
    ];
    let args = flags
        .iter()
        .flat_map(|(f, v)| [(*f).to_owned(), (*v).to_owned()]);
    Ok((program, args.collect()))
}

/// See the module's doc.
pub(super) struct Resp {
    sessions: Sessions,
    key: Vec<u8>,
    timeout: String,
}

impl Resp {
    pub(super) fn new(sessions: Sessions) -> Resp {
        let timeout = sessions.timeout_s.to_string();
        Resp {
            sessions,
            key: Vec::new(),
            timeout,
        }
    }
}

impl Speech for Resp {
    fn steps(&self, op: Op) -> u8 {
        u8::from(matches!(op, Op::Create | Op::Beat | Op::Count))
    }

    fn ask(&mut self, _: u32, op: Op, _: u8, session: u32, out: &mut Vec<u8>) {
        self.key.clear();
        self.sessions.push(&mut self.key, session);
        let timeout = self.timeout.as_bytes();
        match op {
            Op::Create => words(out, &[b"SET", &self.key, b"1", b"EX", timeout]),
            Op::Beat => words(out, &[b"EXPIRE", &self.key, timeout]),
            Op::Count => words(out, &[b"DBSIZE"]),
            Op::Hello | Op::Prepare => {}
        }
    }

    fn frame(
        &mut self,
        _: u32,
        awaited: Option<Op>,
        input: &[u8],
        _: &mut Vec<u8>,
    ) -> Result<Option<Frame>, String> {
        let Some(lf) = input.iter().position(|b| *b == b'\n') else {
            return Ok(None);
        };
        let line = input[..lf].strip_suffix(b"\r").ok_or("a line without CR")?;
        let number = || -> Option<u64> { std::str::from_utf8(&line[1..]).ok()?.parse().ok() };
        let says = match (awaited, line.first()) {
            (Some(Op::Create), Some(b'+')) => Says::Yes(0),
            (Some(Op::Beat), Some(b':')) if number() == Some(1) => Says::Yes(0),
            (Some(Op::Count), Some(b':')) => number().map_or(Says::No, Says::Yes),
            (Some(_), Some(b':' | b'+')) => Says::No,
            (_, Some(b'-')) => return Err(String::from_utf8_lossy(line).into_owned()),
            _ => return Err("not RESP".to_owned()),
        };
        Ok(Some(Frame { len: lf + 1, says }))
    }
}

fn words(out: &mut Vec<u8>, words: &[&[u8]]) {
    // Writing to memory does not fail.
    let _ = write!(out, "*{}\r\n", words.len());
    for word in words {
        let _ = write!(out, "${}\r\n", word.len());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(awaited: Op, input: &[u8]) -> Result<Option<Says>, String> {
        let mut resp = Resp::new(Sessions::new(10));
        let frame = resp.frame(0, Some(awaited), input, &mut Vec::new())?;
        Ok(frame.map(|f| f.says))
    }

    #[test]
    fn a_question_is_words_with_their_lengths() {
        let mut out = Vec::new();
        words(&mut out, &[b"EXPIRE", b"key", b"10"]);
        assert_eq!(out, b"*3\r\n$6\r\nEXPIRE\r\n$3\r\nkey\r\n$2\r\n10\r\n");
        let mut resp = Resp::new(Sessions::new(10));
        out.clear();
        resp.ask(0, Op::Create, 0, 3, &mut out);
        let text = String::from_utf8(out).unwrap();
        assert!(
            text.starts_with("*5\r\n$3\r\nSET\r\n$35\r\nload-00003/"),
            "{text}"
        );
        assert!(
            text.ends_with("\r\n$1\r\n1\r\n$2\r\nEX\r\n$2\r\n10\r\n"),
            "{text}"
        );
    }

    #[test]
    fn answers_are_read_and_refusals_told_apart() {
        assert_eq!(read(Op::Create, b"+OK\r\n"), Ok(Some(Says::Yes(0))));
        let said = read(Op::Create, b"-ERR max number of clients reached\r\n");
        assert!(said.unwrap_err().contains("max number of clients"));
        assert_eq!(read(Op::Beat, b":1\r\n"), Ok(Some(Says::Yes(0))));
        assert_eq!(
            read(Op::Beat, b":0\r\n"),
            Ok(Some(Says::No)),
            "the key is gone"
        );
        assert_eq!(
            read(Op::Count, b":15000\r\n:1\r\n"),
            Ok(Some(Says::Yes(15_000)))
        );
        assert_eq!(read(Op::Count, b":1500"), Ok(None));
        assert!(read(Op::Beat, b"HTTP\r\n").is_err());
        assert!(read(Op::Beat, b":1\n").is_err());
    }
}
