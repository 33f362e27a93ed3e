//! The group document: the JSON that clients see, written piece by piece.
//!
//! ```text
//! {"config":null,
//!  "endpoints":["tracker1.example.com:8640"],
//!  "active_members":[{"db1.example.com":"db1 config"}],
//!  "inactive_members":[{"db2.example.com":{"opaque":"metadata"}}]}
//! ```
//!
//! without the line breaks. A page and the brief form for a joiner end in
//! `"active_count":N,"inactive_count":N,"truncated":true` besides, where `truncated` says
//! that members are left out after those shown (a page), or at all (the brief form).
//!
//! A config that is a JSON object or array stands there byte for byte as it was written;
//! any other is a string.

mod targets;

use std::fmt;
use std::sync::Arc;

use super::JOIN_DOCUMENT_MEMBERS_MAX;
use super::members::{Cursor, Entry};
use super::record::{ConfigView, Group};
use crate::json;
use crate::types::GroupVersion;

/// A group as it was when the handle was taken, and how far it is written.
///
/// The handle shares the state's memory and may go to another thread; the state goes on
/// meanwhile and copies what it changes. Cost of a piece: linear in its bytes, plus, for the
/// inactive ones, a scan over the members of the group or page.
#[derive(Clone)]
pub struct Document {
    group: Arc<Group>,
    form: Form,
    stage: Stage,
    cursor: Cursor,
    /// Members passed in this stage, of either kind.
    passed: u64,
    /// Whether the next member of this stage is the first, and has no comma before it.
    first: bool,
}

#[derive(Clone)]
enum Form {
    Full,
    /// At most `limit` members after `after`.
    Page {
        after: Option<Box<[u8]>>,
        limit: u64,
    },
    /// One member and the counts.
    Brief {
        member: Box<[u8]>,
    },
    /// For Prometheus; see [`Document::targets`].
    Targets {
        port: Option<u16>,
    },
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Head,
    Active,
    Inactive,
    Tail,
    Done,
}

impl fmt::Debug for Document {
    /// The group's name and version; not the members, which may be a million.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = String::from_utf8_lossy(&self.group.name);
        write!(f, "Document({name}, {})", self.group.version)
    }
}

impl Document {
    pub(super) fn new(group: Arc<Group>) -> Document {
        Document {
            group,
            form: Form::Full,
            stage: Stage::Head,
            cursor: Cursor::default(),
            passed: 0,
            first: true,
        }
    }

    /// The same group, `limit` members of it in order of the names, from the first after
    /// `after`: the active and the inactive among them.
    #[must_use]
    pub fn page(self, after: Option<&[u8]>, limit: u64) -> Document {
        let after = after.map(Box::from);
        Document {
            form: Form::Page { after, limit },
            ..self
        }
    }

    /// The same group as the answer to the join of `member`: whole up to
    /// [`JOIN_DOCUMENT_MEMBERS_MAX`] members, beyond that with the joiner alone.
    #[must_use]
    pub fn for_joiner(self, member: &[u8]) -> Document {
        if self.group.len() <= JOIN_DOCUMENT_MEMBERS_MAX {
            return self;
        }
        let member = Box::from(member);
        Document {
            form: Form::Brief { member },
            ..self
        }
    }

    /// The group's version: the document's `ETag`.
    #[must_use]
    pub fn version(&self) -> GroupVersion {
        self.group.version
    }

    /// The group's name.
    #[must_use]
    pub fn group(&self) -> &[u8] {
        &self.group.name
    }

    /// Active and inactive members of the whole group.
    #[must_use]
    pub fn counts(&self) -> (u32, u32) {
        (self.group.active, self.group.inactive)
    }

    /// Appends the next piece to `out`; true if there is more to come.
    ///
    /// A piece ends with the first member that brings it to `budget_bytes`, so it may be
    /// longer by one member: 66 KiB, or six times that if it is a config all of control
    /// characters. Members that are passed over count for 16 bytes each, so a budget bounds
    /// the time too. The endpoints are used by the first piece alone.
    pub fn render_into<E: AsRef<str>>(
        &mut self,
        endpoints: &[E],
        out: &mut Vec<u8>,
        budget_bytes: usize,
    ) -> bool {
        if let Form::Targets { port } = self.form {
            return self.render_targets(port, out, budget_bytes);
        }
        let start = out.len();
        let mut passed_over = 0;
        while self.stage != Stage::Done {
            if out.len() - start + passed_over * PASSED_OVER_BYTES >= budget_bytes.max(1) {
                return true;
            }
            match self.stage {
                Stage::Head => {
                    self.head(endpoints, out);
                    self.enter(Stage::Active);
                }
                Stage::Active => match self.member(true, out) {
                    Step::Written => {}
                    Step::PassedOver => passed_over += 1,
                    Step::End => {
                        out.extend_from_slice(b"],\"inactive_members\":[");
                        self.enter(Stage::Inactive);
                    }
                },
                Stage::Inactive => match self.member(false, out) {
                    Step::Written => {}
                    Step::PassedOver => passed_over += 1,
                    Step::End => {
                        out.push(b']');
                        self.stage = Stage::Tail;
                    }
                },
                Stage::Tail => {
                    self.tail(out);
                    self.stage = Stage::Done;
                }
                Stage::Done => {}
            }
        }
        false
    }

    fn head<E: AsRef<str>>(&self, endpoints: &[E], out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"config\":");
        let config = self.group.config.as_deref();
        put_config(config.map(|config| config.view()), out);
        out.extend_from_slice(b",\"endpoints\":[");
        for (i, endpoint) in endpoints.iter().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            json::string(out, endpoint.as_ref());
        }
        out.extend_from_slice(b"],\"active_members\":[");
    }

    fn tail(&mut self, out: &mut Vec<u8>) {
        let truncated = match self.form {
            Form::Full | Form::Targets { .. } => {
                out.push(b'}');
                return;
            }
            Form::Page { .. } => self.group.members.read(&mut self.cursor).is_some(),
            Form::Brief { .. } => true,
        };
        let (active, inactive) = self.counts();
        let counts = format!(
            ",\"active_count\":{active},\"inactive_count\":{inactive},\"truncated\":{truncated}}}"
        );
        out.extend_from_slice(counts.as_bytes());
    }

    /// Begins a pass over the members.
    fn enter(&mut self, stage: Stage) {
        self.stage = stage;
        self.passed = 0;
        self.first = true;
        self.cursor = match &self.form {
            Form::Full | Form::Targets { .. } => Cursor::default(),
            Form::Page { after, .. } => self.group.members.cursor(after.as_deref()),
            Form::Brief { member } => self.group.members.cursor_at(member),
        };
    }

    /// Passes the next member of this pass, and writes it if it is as `active` says.
    fn member(&mut self, active: bool, out: &mut Vec<u8>) -> Step {
        let limit = match &self.form {
            // A pass for which there is nobody is not made.
            Form::Full if active && self.group.active == 0 => 0,
            Form::Full if !active && self.group.inactive == 0 => 0,
            Form::Full | Form::Targets { .. } => u64::MAX,
            Form::Page { limit, .. } => *limit,
            Form::Brief { .. } => 1,
        };
        if self.passed >= limit {
            return Step::End;
        }
        let Some(entry) = self.group.members.read(&mut self.cursor) else {
            return Step::End;
        };
        self.passed += 1;
        if entry.is_active() != active {
            return Step::PassedOver;
        }
        if matches!(&self.form, Form::Brief { member } if !entry.name.is(member)) {
            return Step::End;
        }
        put_member(&entry, &mut self.first, out);
        Step::Written
    }
}

/// What became of a member in a pass.
enum Step {
    Written,
    PassedOver,
    /// There is none left.
    End,
}

/// Appends one member, `{"name":config}`.
fn put_member(entry: &Entry<'_>, first: &mut bool, out: &mut Vec<u8>) {
    if !std::mem::take(first) {
        out.push(b',');
    }
    out.push(b'{');
    json::string_lossy_of(out, entry.name.parts());
    out.push(b':');
    put_config(entry.config(), out);
    out.push(b'}');
}

pub(super) fn put_config(config: Option<ConfigView<'_>>, out: &mut Vec<u8>) {
    match config {
        None => out.extend_from_slice(b"null"),
        Some(config) if config.json => out.extend_from_slice(config.bytes),
        Some(config) => json::string_lossy(out, config.bytes),
    }
}

/// What a member that is passed over counts against the budget of a piece.
const PASSED_OVER_BYTES: usize = 16;

#[cfg(test)]
#[path = "document_tests.rs"]
mod tests;
