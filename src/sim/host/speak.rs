//! Sending, and what a message binds its sender to.

use super::super::links::Speaker;
use super::super::observe::{Observation, Said};
use super::super::probes::Probe;
use super::super::stage::Stage;
use super::Host;
use crate::types::Epoch;
use crate::zab::{Body, Message, Ready};

impl Host {
    /// Hands the messages of a [`Ready`] to the network.
    pub(super) fn send_all(&mut self, stage: &mut Stage, ready: &mut Ready) {
        let Some(server) = &self.server else {
            return;
        };
        let from = self.id();
        let epochs = (server.peer.accepted_epoch(), server.peer.current_epoch());
        let speaker = Speaker {
            id: from,
            run: self.run,
            absent_us: self.absent_at,
        };
        for envelope in ready.messages.drain(..) {
            let (now, to) = (stage.now, envelope.to);
            let kept = stage.links.said(now, speaker, to, &envelope.message);
            stage.judge.check(now, kept);
            if let Some(probe) = probe_of(&envelope.message) {
                stage.probes.hit(probe);
            }
            if let Some(what) = said(&envelope.message, epochs) {
                stage.see(Observation::Sent {
                    from,
                    to: envelope.to,
                    what,
                });
            }
            stage.send(from, envelope.to, envelope.message);
        }
    }
}

fn probe_of(message: &Message) -> Option<Probe> {
    let Message::Link { body, .. } = message else {
        return None;
    };
    match body {
        Body::Diff { .. } => Some(Probe::LearnerDiff),
        Body::Trunc { .. } => Some(Probe::LearnerTrunc),
        Body::Snap { .. } => Some(Probe::LearnerSnap),
        Body::Inform(_) => Some(Probe::Informed),
        _ => None,
    }
}

/// What a message says as far as it binds its sender, whose accepted and current epoch are
/// given.
fn said(message: &Message, (accepted, epoch): (Epoch, Epoch)) -> Option<Said> {
    let body = match message {
        Message::Vote(notification) => {
            return Some(Said::Vote {
                vote: notification.vote,
                round: notification.round,
                holds_data: notification.holds_data,
            });
        }
        Message::Link { body, .. } => body,
    };
    Some(match *body {
        Body::LeaderInfo { epoch, .. } => Said::LeaderInfo { epoch },
        Body::AckEpoch {
            current_epoch,
            promises,
            ref history,
        } => Said::AckEpoch {
            epoch: accepted,
            current: current_epoch,
            promises,
            last: history.ends.last().copied().unwrap_or(history.base),
        },
        Body::NewLeader { epoch, upto } => Said::NewLeader { epoch, upto },
        Body::AckNewLeader { epoch } => Said::AckNewLeader { epoch },
        Body::UpToDate { committed } => Said::UpToDate {
            epoch,
            upto: committed,
        },
        Body::Proposal(ref entry) => Said::Proposal {
            epoch,
            zxid: entry.zxid,
        },
        Body::Ack { zxid } => Said::Ack { epoch, zxid },
        Body::Commit { upto } => Said::Commit { epoch, upto },
        Body::Inform(ref entry) => Said::Inform {
            epoch,
            zxid: entry.zxid,
        },
        Body::Pong { round, loyal } => Said::Pong {
            epoch,
            round,
            loyal,
        },
        Body::FollowerInfo { .. }
        | Body::Diff { .. }
        | Body::Trunc { .. }
        | Body::Snap { .. }
        | Body::SnapPiece { .. }
        | Body::Ping { .. }
        | Body::Payload(_)
        | Body::Close => return None,
    })
}
