//! Transactions in words, for whoever reads a log.

use std::fmt::Write;

use super::request::Require;
use super::txn::{AdoptTxn, JoinTxn, LapseTxn, Target, Text, Txn};

/// One line about a transaction, for `systole log dump`. Says so if the bytes are none.
#[must_use]
pub fn describe(bytes: &[u8]) -> String {
    match Txn::decode(bytes) {
        Ok(txn) => txn.describe(),
        Err(corrupt) => format!("not a transaction: {corrupt}"),
    }
}

impl Txn<'_> {
    fn describe(&self) -> String {
        let mut line = String::new();
        // Writing to a string cannot fail; `let _` says that nothing is lost by not asking.
        let _ = match self {
            Txn::Genesis { birth_s } => write!(line, "genesis birth_s={birth_s}"),
            Txn::Join(join) => join.describe(&mut line),
            Txn::Leave {
                group,
                member,
                session,
            } => {
                line = format!("leave {}/{}", text(group), text(member));
                session.map_or(Ok(()), |id| write!(line, " session={id}"))
            }
            Txn::SetConfig {
                target,
                config,
                require,
            } => write!(
                line,
                "set-config {} {}{}",
                target.describe(),
                config.describe(),
                describe_require(require)
            ),
            Txn::DeleteConfig { target, require } => {
                let require = describe_require(require);
                write!(line, "delete-config {}{require}", target.describe())
            }
            Txn::DeleteGroup { group } => write!(line, "delete-group {}", text(group)),
            Txn::Expire(lapses) => {
                line = format!("expire {}", lapses.len());
                describe_lapses(lapses, &mut line)
            }
            Txn::Move { to, lapses } => {
                line = format!("move {} to={}/{}", lapses.len(), to.0, to.1.0);
                describe_lapses(lapses, &mut line)
            }
            Txn::Adopt(adopt) => adopt.describe(&mut line),
        };
        line
    }
}

impl JoinTxn<'_> {
    fn describe(&self, line: &mut String) -> std::fmt::Result {
        write!(line, "join {}/{}", text(self.group), text(self.member))?;
        write!(line, " timeout_ms={}", self.timeout.0)?;
        line.push_str(if self.keep_timeout { " or kept" } else { "" });
        write!(line, " owner={}/{}", self.owner, self.incarnation.0)?;
        line.push_str(if self.takeover { " takeover" } else { "" });
        line.push_str(if self.only_if_absent {
            " if-absent"
        } else {
            ""
        });
        match self.config {
            Some(config) => write!(line, " {}", config.describe()),
            None => Ok(()),
        }
    }
}

impl AdoptTxn<'_> {
    fn describe(&self, line: &mut String) -> std::fmt::Result {
        write!(line, "adopt by={}/{}", self.server, self.incarnation.0)?;
        if let Some((group, member)) = self.after {
            write!(line, " after={}/{}", text(group), text(member))?;
        }
        write!(line, " limit={}", self.limit)
    }
}

fn describe_lapses(lapses: &[LapseTxn<'_>], line: &mut String) -> std::fmt::Result {
    for l in lapses.iter().take(DESCRIBED_LAPSES_MAX) {
        let (group, member) = (text(l.group), text(l.member));
        write!(line, " {group}/{member}={}@{}", l.id, l.term.0)?;
    }
    match lapses.len().saturating_sub(DESCRIBED_LAPSES_MAX) {
        0 => Ok(()),
        more => write!(line, " and {more} more"),
    }
}

impl Target<'_> {
    fn describe(&self) -> String {
        match self.member {
            Some(member) => format!("{}/{}", text(self.group), text(member)),
            None => text(self.group),
        }
    }
}

impl Text<'_> {
    fn describe(&self) -> String {
        let form = if self.json { "json" } else { "text" };
        format!("config={form}:{}B", self.bytes.len())
    }
}

fn describe_require(require: &Require) -> String {
    match require {
        Require::Nothing => String::new(),
        Require::Exists => " if-exists".to_owned(),
        Require::Absent => " if-absent".to_owned(),
        Require::OneOf(versions) => format!(" if-version={versions:?}"),
    }
}

/// A name as it may be printed on one line of a terminal.
fn text(name: &[u8]) -> String {
    String::from_utf8_lossy(name).escape_debug().to_string()
}

/// How many sessions of an expiry or a move [`describe`] names.
const DESCRIBED_LAPSES_MAX: usize = 8;
