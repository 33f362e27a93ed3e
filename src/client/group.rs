//! A group: its document, its members, its configs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Deserialize;
use serde_json::Value;

use super::core::call::{Answer, Call, Verdict, group_path, member_path};
use super::{Client, Error, Terms, Watch, check_name};
use crate::time::Millis;
use crate::types::{GroupVersion, SessionId};

/// A group, by name. A clone shares how far it has seen.
#[derive(Clone, Debug)]
pub struct Group {
    client: Client,
    name: String,
    /// One more than the newest version that was seen; 0 if none was. Reads carry it, so that
    /// no server that is behind shows the past.
    seen: Arc<AtomicU64>,
}

/// The group's document.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// Its version.
    pub version: GroupVersion,
    /// The group's own config.
    pub config: Value,
    /// The servers.
    pub endpoints: Vec<String>,
    /// Members with a session, by name, each with its config.
    pub active: Vec<(String, Value)>,
    /// Members with a config alone.
    pub inactive: Vec<(String, Value)>,
    /// The whole as the server sent it.
    pub json: Vec<u8>,
}

/// What came of a join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// The session: a fencing token, greater than that of every earlier session.
    pub session: SessionId,
    /// Its timeout.
    pub timeout: Millis,
    /// The group's version.
    pub version: GroupVersion,
    /// The session is new; else the one that was there goes on.
    pub created: bool,
}

/// A config with its own version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tagged {
    /// The bytes, as they were stored.
    pub bytes: Vec<u8>,
    /// The entity tag, for [`Group::set_config`].
    pub etag: Option<String>,
}

/// What came of a batch of beats.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
pub struct Batch {
    /// How many sessions were renewed.
    pub renewed: u64,
    /// Those that were not.
    pub failed: Vec<Failure>,
}

/// A beat of a batch that renewed nothing.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub struct Failure {
    /// Its line, the first being 1.
    pub line: u64,
    /// `G/M`, if the line could be read.
    pub member: String,
    /// The status of the answer that a beat of its own would have had.
    pub status: u16,
    /// The code of that answer.
    pub code: String,
}

impl Group {
    pub(super) fn new(client: Client, name: &str) -> Result<Group, Error> {
        check_name(name)?;
        Ok(Group {
            client,
            name: name.to_owned(),
            seen: Arc::default(),
        })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The newest version that this handle has seen.
    #[must_use]
    pub fn seen(&self) -> Option<GroupVersion> {
        let above = self.seen.load(Ordering::Acquire);
        above.checked_sub(1).map(GroupVersion)
    }

    /// The group's document. Beats for nobody.
    ///
    /// # Errors
    /// `Refused` with status 404 if there is no such group; see [`Error`].
    pub fn get(&self) -> Result<Document, Error> {
        self.read(Call::new("GET", group_path(&self.name)))
    }

    /// The same, as of now: the server asks the leader first.
    ///
    /// # Errors
    /// As [`Group::get`].
    pub fn get_consistent(&self) -> Result<Document, Error> {
        self.read(Call::new(
            "GET",
            format!("{}?consistent", group_path(&self.name)),
        ))
    }

    /// The document once it is newer than `version`, or as it is after `wait`: a long poll.
    ///
    /// # Errors
    /// As [`Group::get`].
    pub fn get_after(&self, version: GroupVersion, wait: Millis) -> Result<Document, Error> {
        let path = group_path(&self.name);
        let target = format!("{path}?version={version}&wait={}ms", wait.0);
        // What is waited for is no lack of an answer.
        let patient = self
            .client
            .clone()
            .with_patience(self.client.patience + wait);
        let answer = done(patient.send(&Call::new("GET", target))?)?;
        self.document(answer)
    }

    /// Joins as `terms` say, whose group is of no account; beats are the caller's.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn join(&self, terms: &Terms) -> Result<Joined, Error> {
        check_name(&terms.member)?;
        let terms = Terms {
            group: self.name.clone(),
            ..terms.clone()
        };
        let call = terms.join().header("prefer", "return=minimal");
        let answer = done(self.client.send(&call)?)?;
        self.note(answer.version);
        Ok(Joined {
            session: answer.session.ok_or(Error::Strange("x-session-id"))?,
            timeout: answer
                .timeout
                .ok_or(Error::Strange("x-session-timeout-ms"))?,
            version: answer.version.ok_or(Error::Strange("x-group-version"))?,
            created: answer.status == 201,
        })
    }

    /// Beats once for `member`; refused with 409 if it is another session's than the one given.
    ///
    /// # Errors
    /// `Refused` with status 404 or 410: join again. See [`Error`].
    pub fn beat(&self, member: &str, session: Option<SessionId>) -> Result<GroupVersion, Error> {
        let answer = done(
            self.client
                .send(&self.of_session("HEAD", member, session)?)?,
        )?;
        self.note(answer.version);
        answer.version.ok_or(Error::Strange("x-group-version"))
    }

    /// Ends the session of `member`, if it is the one given.
    ///
    /// # Errors
    /// `Refused` with status 404 if it is not active, unless an attempt before that came to
    /// nothing may have ended it. See [`Error`].
    pub fn leave(&self, member: &str, session: Option<SessionId>) -> Result<(), Error> {
        let call = self.of_session("DELETE", member, session)?;
        let (answer, repeated) = self.client.send_telling(&call)?;
        match answer.status {
            404 | 410 if repeated && answer.verdict() == Verdict::Refused => Ok(()),
            _ => done(answer).map(drop),
        }
    }

    /// The config of the group, or of a member.
    ///
    /// # Errors
    /// `Refused` with status 404 if there is none. See [`Error`].
    pub fn config(&self, member: Option<&str>) -> Result<Tagged, Error> {
        let answer = self
            .client
            .send(&Call::new("GET", self.config_path(member)?))?;
        let Answer { body, etag, .. } = done(answer)?;
        Ok(Tagged { bytes: body, etag })
    }

    /// Stores the config of the group or of a member; only if it still has this tag, if one is
    /// given.
    ///
    /// # Errors
    /// `Refused` with status 412 if the tag does not hold. See [`Error`].
    pub fn set_config(
        &self,
        member: Option<&str>,
        bytes: Vec<u8>,
        only_if: Option<&str>,
    ) -> Result<(), Error> {
        let mut call = Call::new("PUT", self.config_path(member)?).body(bytes);
        if let Some(etag) = only_if {
            call = call.header("if-match", etag);
        }
        done(self.client.send(&call)?).map(drop)
    }

    /// Removes the config of the group or of a member.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn delete_config(&self, member: Option<&str>) -> Result<(), Error> {
        let call = Call::new("DELETE", self.config_path(member)?);
        done(self.client.send(&call)?).map(drop)
    }

    /// Watches the group: what happens in it, as it happens.
    #[must_use]
    pub fn watch(&self) -> Watch {
        Watch::new(self.client.clone(), &self.name)
    }

    fn read(&self, mut call: Call) -> Result<Document, Error> {
        if let Some(version) = self.seen() {
            call = call.header("x-group-version", version);
        }
        let answer = done(self.client.send(&call)?)?;
        self.document(answer)
    }

    fn document(&self, answer: Answer) -> Result<Document, Error> {
        self.note(answer.version);
        let version = answer.version.ok_or(Error::Strange("x-group-version"))?;
        Document::new(version, answer.body)
    }

    fn note(&self, version: Option<GroupVersion>) {
        if let Some(GroupVersion(version)) = version {
            self.seen
                .fetch_max(version.saturating_add(1), Ordering::AcqRel);
        }
    }

    fn of_session(
        &self,
        method: &'static str,
        member: &str,
        session: Option<SessionId>,
    ) -> Result<Call, Error> {
        check_name(member)?;
        let call = Call::new(method, member_path(&self.name, member));
        Ok(match session {
            Some(session) => call.header("x-session-id", session),
            None => call,
        })
    }

    fn config_path(&self, member: Option<&str>) -> Result<String, Error> {
        let path = match member {
            None => group_path(&self.name),
            Some(member) => {
                check_name(member)?;
                member_path(&self.name, member)
            }
        };
        Ok(format!("{path}/config"))
    }
}

impl Client {
    /// Beats for many members of any groups at once, each `(group, member)`. At most 1 MiB of
    /// names, slashes and line ends.
    ///
    /// # Errors
    /// See [`Error`]; beats that renew nothing are in the answer.
    pub fn beat_many<'a>(
        &self,
        members: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Batch, Error> {
        let mut lines = String::new();
        for (group, member) in members {
            check_name(group)?;
            check_name(member)?;
            // A line is a path without its first slash.
            lines.push_str(&member_path(group, member)[1..]);
            lines.push('\n');
        }
        let call = Call::new("POST", "/-/heartbeats").body(lines.into_bytes());
        let answer = done(self.send(&call)?)?;
        serde_json::from_slice(&answer.body).map_err(|_| Error::Strange("the failures"))
    }
}

impl Document {
    /// Reads a document.
    ///
    /// # Errors
    /// `Strange` if it is none.
    pub fn new(version: GroupVersion, json: Vec<u8>) -> Result<Document, Error> {
        #[derive(Deserialize)]
        struct Body {
            config: Value,
            endpoints: Vec<String>,
            active_members: Vec<serde_json::Map<String, Value>>,
            inactive_members: Vec<serde_json::Map<String, Value>>,
        }
        let body: Body =
            serde_json::from_slice(&json).map_err(|_| Error::Strange("a group's document"))?;
        Ok(Document {
            version,
            config: body.config,
            endpoints: body.endpoints,
            active: body.active_members.into_iter().flatten().collect(),
            inactive: body.inactive_members.into_iter().flatten().collect(),
            json,
        })
    }
}

/// The answer, unless it is a refusal.
pub(super) fn done(answer: Answer) -> Result<Answer, Error> {
    match answer.verdict() {
        Verdict::Done => Ok(answer),
        _ => Err(Error::Refused(answer.problem())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_read_with_its_members_in_order() {
        let json =
            br#"{"config":null,"endpoints":["a:1"],"active_members":[{"x":null},{"y":{"p":1}}],
            "inactive_members":[{"z":"text"}]}"#;
        let document = Document::new(GroupVersion(3), json.to_vec()).unwrap();
        let names: Vec<&str> = document.active.iter().map(|(name, _)| &**name).collect();
        assert_eq!(names, ["x", "y"]);
        assert_eq!(document.active[1].1["p"], 1);
        assert_eq!(document.inactive, [("z".to_owned(), Value::from("text"))]);
        let bad = Document::new(GroupVersion(3), b"<html>".to_vec());
        assert_eq!(bad, Err(Error::Strange("a group's document")));
    }
}
