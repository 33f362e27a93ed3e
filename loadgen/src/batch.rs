//! Batches of heartbeats on their way, and what their answers say.

use crate::names::{Names, batch_begin, batch_end};
use crate::verify::Session;
use serde_json::Value;

/// The sessions of each batch that awaits its answer.
#[derive(Debug, Default)]
pub(crate) struct Batches {
    held: Vec<Vec<u32>>,
    free: Vec<u32>,
}

impl Batches {
    /// An empty batch to be filled, and its number.
    pub(crate) fn take(&mut self) -> (u32, Vec<u32>) {
        match self.free.pop() {
            Some(number) => (number, std::mem::take(&mut self.held[number as usize])),
            None => {
                self.held.push(Vec::new());
                (self.held.len() as u32 - 1, Vec::new())
            }
        }
    }

    /// Keeps the sessions of a batch that was sent.
    pub(crate) fn keep(&mut self, number: u32, sessions: Vec<u32>) {
        self.held[number as usize] = sessions;
    }

    /// The sessions of a batch that was answered or lost; hand them back to
    /// [`Batches::recycle`].
    pub(crate) fn answered(&mut self, number: u32) -> Vec<u32> {
        std::mem::take(&mut self.held[number as usize])
    }

    /// Makes the number and the memory available again.
    pub(crate) fn recycle(&mut self, number: u32, mut sessions: Vec<u32>) {
        sessions.clear();
        self.held[number as usize] = sessions;
        self.free.push(number);
    }
}

/// Appends the request for `batch` to `out`.
pub(crate) fn write(
    out: &mut Vec<u8>,
    names: &Names,
    sessions: &[Session],
    batch: &[u32],
    packed: bool,
) {
    let length_at = batch_begin(out, packed);
    for session in batch {
        if packed {
            out.extend_from_slice(&sessions[*session as usize].id.to_be_bytes());
        } else {
            names.push_group(out, *session);
            out.push(b'/');
            names.push_member(out, *session);
            out.push(b'\n');
        }
    }
    batch_end(out, length_at);
}

/// Sessions a batch may hold: the body is at most 1 MiB.
pub(crate) fn size_max(packed: bool, name_bytes: usize, group_bytes: usize) -> usize {
    let each = if packed {
        16
    } else {
        name_bytes + group_bytes + 2
    };
    (1 << 20) / each
}

/// The failures an answer lists: (line counted from 0, status). `None` if it is not the JSON
/// the contract promises.
pub(crate) fn failures(body: &[u8]) -> Option<Vec<(usize, u16)>> {
    let document: Value = serde_json::from_slice(body).ok()?;
    let list = match &document {
        Value::Array(list) => list,
        Value::Object(fields) => fields.values().find_map(Value::as_array)?,
        _ => return None,
    };
    list.iter()
        .map(|failure| {
            let line = failure
                .get("line")
                .or_else(|| failure.get("index"))?
                .as_u64()?;
            let status = failure.get("status").and_then(Value::as_u64).unwrap_or(404);
            Some(((line as usize).checked_sub(1)?, status as u16))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_found_by_their_line() {
        assert_eq!(failures(br#"{"failed":[]}"#), Some(vec![]));
        assert_eq!(failures(br#"{"beats":12,"failed":[]}"#), Some(vec![]));
        let two = br#"{"failed":[{"line":3,"member":"g/m","status":404},{"line":1,"status":410}]}"#;
        assert_eq!(failures(two), Some(vec![(2, 404), (0, 410)]));
        assert_eq!(failures(b"fine"), None);
        assert_eq!(failures(br#"{"failed":[{"line":0}]}"#), None);
    }

    #[test]
    fn both_kinds_of_body_name_every_session() {
        let names = Names::new("t", 1, 24, 0, 0);
        let sessions = vec![
            Session {
                id: 0x0102,
                ..Session::default()
            };
            3
        ];
        let mut out = Vec::new();
        write(&mut out, &names, &sessions, &[0, 2], true);
        assert!(out.ends_with(&0x0102_u128.to_be_bytes()));
        let mut out = Vec::new();
        write(&mut out, &names, &sessions, &[0, 2], false);
        let text = String::from_utf8(out).unwrap();
        let body = text.split("\r\n\r\n").nth(1).unwrap();
        assert_eq!(body, format!("{}\n{}\n", names.label(0), names.label(2)));
    }

    #[test]
    fn numbers_and_memory_are_used_again() {
        let mut b = Batches::default();
        let (first, mut list) = b.take();
        list.push(7);
        b.keep(first, list);
        let (second, _) = b.take();
        assert_ne!(first, second);
        let list = b.answered(first);
        assert_eq!(list, [7]);
        b.recycle(first, list);
        let (again, empty) = b.take();
        assert_eq!((again, empty.len()), (first, 0));
    }

    #[test]
    fn a_full_batch_is_a_mebibyte() {
        assert_eq!(size_max(true, 24, 10), 65_536);
        assert!(size_max(false, 24, 10) * 36 <= 1 << 20);
    }
}
