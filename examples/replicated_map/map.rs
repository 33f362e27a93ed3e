//! A map of strings, as an application that can be replicated. It knows nothing of servers.

use std::collections::BTreeMap;

use systole::types::Zxid;
use systole::zab::app::{
    Application, Content, Damaged, HandedBack, Origin, Preprocessed, Snapshot,
};

/// The map, and at the leader the keys that transactions in flight will change.
///
/// A request is `put KEY VALUE` or `delete KEY`, and so is a transaction: both say what the entry
/// is to be, whatever it was, so that one more application changes nothing.
#[derive(Default)]
pub(crate) struct Map {
    pub(crate) entries: BTreeMap<String, String>,
    in_flight: Vec<String>,
}

impl Application for Map {
    /// What the entry was before.
    type Outcome = Option<String>;
    type Snapshot = Saved;

    fn preprocess(&mut self, _origin: Origin, request: &[u8]) -> Preprocessed {
        let Some((key, value)) = parse(request) else {
            return Preprocessed::Answer(b"not understood".to_vec());
        };
        // What is in flight may change the entry, so only an idle one allows an answer.
        let idle = !self.in_flight.iter().any(|other| other == key);
        if idle && self.entries.get(key).map(String::as_str) == value {
            return Preprocessed::Answer(b"it is so already".to_vec());
        }
        self.in_flight.push(key.to_owned());
        Preprocessed::Transaction(request.to_vec())
    }

    fn withdraw(&mut self, txn: &[u8]) {
        self.land(txn);
    }

    fn deliver(&mut self, _zxid: Zxid, txn: &[u8], _origin: Origin) -> Option<String> {
        self.land(txn);
        match parse(txn)? {
            (key, Some(value)) => self.entries.insert(key.to_owned(), value.to_owned()),
            (key, None) => self.entries.remove(key),
        }
    }

    fn recovering(&mut self, _handed_back: &[HandedBack]) {
        self.in_flight.clear();
    }

    /// One entry a line, in order of the keys: the same bytes for the same map.
    fn save(&self) -> Saved {
        let line = |(key, value): (&String, &String)| format!("{key} {value}\n");
        let lines: String = self.entries.iter().map(line).collect();
        Saved(lines.into_bytes())
    }

    fn restore(&mut self, content: &mut dyn Content) -> Result<(), Damaged> {
        let mut bytes = Vec::new();
        while let Some(piece) = content.next_piece()? {
            bytes.extend_from_slice(piece);
        }
        let text = String::from_utf8(bytes).map_err(|error| Damaged(error.to_string()))?;
        let entry = |line: &str| {
            let (key, value) = line.split_once(' ')?;
            Some((key.to_owned(), value.to_owned()))
        };
        let entries: Option<_> = text.lines().map(entry).collect();
        self.entries = entries.ok_or_else(|| Damaged("a line without a value".to_owned()))?;
        self.in_flight.clear();
        Ok(())
    }
}

impl Map {
    /// A transaction is no longer in flight.
    fn land(&mut self, txn: &[u8]) {
        let key = parse(txn).map(|(key, _)| key);
        if let Some(at) = self
            .in_flight
            .iter()
            .position(|other| Some(other.as_str()) == key)
        {
            self.in_flight.remove(at);
        }
    }
}

/// The key, and what its value is to be.
fn parse(request: &[u8]) -> Option<(&str, Option<&str>)> {
    let mut words = std::str::from_utf8(request).ok()?.split(' ');
    match (words.next()?, words.next()?, words.next(), words.next()) {
        ("put", key, Some(value), None) => Some((key, Some(value))),
        ("delete", key, None, None) => Some((key, None)),
        _ => None,
    }
}

/// The map as bytes that are not written yet.
pub(crate) struct Saved(Vec<u8>);

impl Snapshot for Saved {
    fn write_into(&mut self, out: &mut Vec<u8>, bytes_max: usize) -> bool {
        let rest = self.0.split_off(self.0.len().min(bytes_max));
        out.append(&mut self.0);
        self.0 = rest;
        !self.0.is_empty()
    }
}
