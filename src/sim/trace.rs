//! Messages in a line, for traces.

use std::fmt;

use crate::zab::{Body, Message};

/// Shows a message on one short line.
pub struct Line<'a>(pub &'a Message);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Message::Vote(notification) => write!(
                f,
                "Vote {:?} round {} for {} ({}, {}){}",
                notification.stance,
                notification.round,
                notification.vote.leader,
                notification.vote.epoch,
                notification.vote.zxid,
                if notification.holds_data {
                    ""
                } else {
                    ", blank"
                },
            ),
            Message::Link { tenure, seq, body } => {
                write!(f, "[{:04x}.{} {seq}] ", tenure.boot as u16, tenure.attempt)?;
                show_body(f, body)
            }
        }
    }
}

fn show_body(f: &mut fmt::Formatter<'_>, body: &Body) -> fmt::Result {
    match body {
        Body::FollowerInfo {
            accepted_epoch,
            holds_data,
            ..
        } => {
            let blank = if *holds_data { "" } else { ", blank" };
            write!(f, "FollowerInfo accepted {accepted_epoch}{blank}")
        }
        Body::LeaderInfo { epoch, .. } => write!(f, "LeaderInfo {epoch}"),
        Body::AckEpoch {
            current_epoch,
            promises,
            history,
        } => {
            let promises = if *promises {
                "promises"
            } else {
                "does not promise"
            };
            write!(
                f,
                "AckEpoch {promises}, current {current_epoch}, history {}",
                history.base
            )?;
            history
                .ends
                .iter()
                .try_for_each(|end| write!(f, " .. {end}"))
        }
        Body::Diff { after } => write!(f, "Diff after {after}"),
        Body::Trunc { to } => write!(f, "Trunc to {to}"),
        Body::Snap { zxid } => write!(f, "Snap {zxid}"),
        Body::SnapPiece { bytes, last } => {
            let last = if *last { ", the last" } else { "" };
            write!(f, "SnapPiece {} bytes{last}", bytes.len())
        }
        Body::Proposal(entry) => write!(f, "Proposal {}", entry.zxid),
        Body::NewLeader { epoch, upto } => write!(f, "NewLeader {epoch} upto {upto}"),
        Body::AckNewLeader { epoch } => write!(f, "AckNewLeader {epoch}"),
        Body::UpToDate { committed } => write!(f, "UpToDate {committed}"),
        Body::Ack { zxid } => write!(f, "Ack {zxid}"),
        Body::Commit { upto } => write!(f, "Commit {upto}"),
        Body::Inform(entry) => write!(f, "Inform {}", entry.zxid),
        Body::Ping { round } => write!(f, "Ping {round}"),
        Body::Pong { round, loyal } => {
            let loyal = if *loyal { "" } else { ", disloyal" };
            write!(f, "Pong {round}{loyal}")
        }
        Body::Payload(bytes) => write!(f, "Payload {} bytes", bytes.len()),
        Body::Close => write!(f, "Close"),
    }
}
