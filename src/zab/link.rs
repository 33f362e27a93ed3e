//! One end of the way between a leader and a learner.

use super::core::Core;
use super::message::{Body, Envelope, Message, Tenure};
use super::plant::{Plant, Plants};
use crate::types::ServerId;

/// One end of one tenure: numbers what is said and checks the numbers of what is heard.
///
/// The broadcast needs links that neither lose nor reorder. A transport that keeps its order
/// until it breaks gives that within a connection, but nothing across two; here the pair of
/// tenure and number makes any breach visible to the receiver.
#[derive(Clone, Hash)]
pub(super) struct Link {
    pub(super) peer: ServerId,
    pub(super) tenure: Tenure,
    said: u64,
    heard: u64,
}

/// What a number says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// It is the next one.
    Next,
    /// It was heard before.
    Again,
    /// Something before it was lost: nothing said in this tenure can be relied on any more.
    Gap,
}

impl Link {
    pub(super) fn new(peer: ServerId, tenure: Tenure) -> Link {
        Link {
            peer,
            tenure,
            said: 0,
            heard: 0,
        }
    }

    /// Says `body` to the other end.
    pub(super) fn say(&mut self, core: &mut Core, body: Body) {
        self.say_in(&mut core.ready.messages, body);
    }

    /// Says `body` to the other end, among `messages`.
    pub(super) fn say_in(&mut self, messages: &mut Vec<Envelope>, body: Body) {
        messages.push(Envelope {
            to: self.peer,
            message: Message::Link {
                tenure: self.tenure,
                seq: self.said,
                body,
            },
        });
        self.said += 1;
    }

    /// Takes note of a message of this tenure with the number `seq`.
    pub(super) fn hear(&mut self, seq: u64, plants: Plants) -> Heard {
        if plants.has(Plant::TakesAnySeq) {
            return Heard::Next;
        }
        match seq.cmp(&self.heard) {
            std::cmp::Ordering::Less => Heard::Again,
            std::cmp::Ordering::Equal => {
                self.heard += 1;
                Heard::Next
            }
            std::cmp::Ordering::Greater => Heard::Gap,
        }
    }
}
