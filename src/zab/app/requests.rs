//! The requests of this server that are not complete.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::ready::{Fate, HandedBack};
use super::{Refusal, RequestId, Row};
use crate::types::Zxid;

/// The requests of this server that are not complete, each in one of three places.
///
/// A request is *open* until its fate is decided, by a delivery, the leader's word, or the loss
/// of the leader. Decided by the leader's word, it is *due* at a transaction, and complete when
/// that is delivered; this no change of leader undoes, for the transaction is committed. A flush
/// that is due waits further for the open requests before it, and is *behind* them meanwhile.
pub(super) struct Requests {
    max: usize,
    newest: u64,
    open: Row<Open>,
    due: BTreeMap<(Zxid, RequestId), Word>,
    behind: BTreeSet<RequestId>,
}

/// A request whose fate is not decided.
pub(super) struct Open {
    pub(super) flush: bool,
    /// As it was sent.
    pub(super) payload: Arc<[u8]>,
}

/// The leader's word on a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// To a request: this is the answer.
    Answer(Vec<u8>),
    /// To a flush: here.
    Flushed,
}

impl Requests {
    pub(super) fn new(max: usize) -> Requests {
        Requests {
            max,
            newest: 0,
            open: Row::new(),
            due: BTreeMap::new(),
            behind: BTreeSet::new(),
        }
    }

    /// The id of the next request, if there is room for one.
    pub(super) fn next_id(&self) -> Result<RequestId, Refusal> {
        // One that is not decided while all after it are holds their room.
        let spread = self.open.span() >= SPAN_FACTOR_MAX * self.max;
        if self.len() >= self.max || spread {
            return Err(Refusal::Full);
        }
        Ok(RequestId(self.newest + 1))
    }

    /// Notes the next request, whose id is that of [`Requests::next_id`].
    pub(super) fn open(&mut self, id: RequestId, open: Open) {
        assert_eq!(id.0, self.newest + 1, "ids ascend by one");
        self.newest = id.0;
        self.open.push(id, open);
    }

    /// An open request.
    pub(super) fn get(&self, id: RequestId) -> Option<&Open> {
        self.open.get(id)
    }

    /// Takes an open request out, because its fate is decided and it is complete.
    pub(super) fn close(&mut self, id: RequestId) -> Option<Open> {
        self.open.remove(id)
    }

    /// The leader has said this of a request, and the request is complete when `at` is
    /// delivered. False if it is not open, or is not of the kind that gets this word.
    pub(super) fn decide(&mut self, id: RequestId, at: Zxid, word: Word) -> bool {
        let flushed = word == Word::Flushed;
        if self.open.get(id).is_none_or(|open| open.flush != flushed) {
            return false;
        }
        self.open.remove(id);
        self.due.insert((at, id), word);
        true
    }

    /// Takes out a request that is complete now that everything up to `applied` is delivered.
    pub(super) fn next_complete(&mut self, applied: Zxid) -> Option<(RequestId, Word)> {
        while let Some(first) = self.due.first_entry() {
            if first.key().0 > applied {
                break;
            }
            let ((_, id), word) = first.remove_entry();
            if word != Word::Flushed {
                return Some((id, word));
            }
            self.behind.insert(id);
        }
        let first = *self.behind.first()?;
        if self.open.oldest().is_some_and(|oldest| oldest < first) {
            return None;
        }
        self.behind.remove(&first);
        Some((first, Word::Flushed))
    }

    /// Takes out all open requests. Those in `unseen` no leader has looked at.
    pub(super) fn hand_back(&mut self, unseen: &BTreeSet<RequestId>) -> Vec<HandedBack> {
        let open = self.open.take();
        open.map(|(id, Open { flush, payload })| HandedBack {
            id,
            flush,
            fate: if flush || unseen.contains(&id) {
                Fate::NoEffect
            } else {
                Fate::Unknown
            },
            payload,
        })
        .collect()
    }

    /// How many are not complete.
    pub(super) fn len(&self) -> usize {
        self.open.len() + self.due.len() + self.behind.len()
    }
}

/// Requests that may have come and gone behind one that is still open, as a multiple of those
/// that may be open. A leader takes requests in their order, so this is met only behind one that
/// it never answers; more are refused until then.
const SPAN_FACTOR_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_is_never_answered_does_not_take_room_without_end() {
        let mut requests = Requests::new(10);
        let open_next = |requests: &mut Requests| {
            let id = requests.next_id()?;
            let payload = Arc::from(&b""[..]);
            requests.open(
                id,
                Open {
                    flush: false,
                    payload,
                },
            );
            Ok::<_, Refusal>(id)
        };
        let stuck = open_next(&mut requests).expect("there is room");
        for _ in 1..40 {
            let id = open_next(&mut requests).expect("there is room");
            requests.close(id);
        }
        assert_eq!(open_next(&mut requests), Err(Refusal::Full));
        requests.close(stuck);
        assert!(open_next(&mut requests).is_ok());
    }
}
