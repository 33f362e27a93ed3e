//! Messages, writes and standings as a trace shows them.

use std::fmt::Write as _;

use crate::zab::{Body, Message, Stance, Standing, Write};

/// A message as a trace shows it.
pub(super) fn describe(message: &Message) -> String {
    let body = match message {
        Message::Vote(said) => {
            let stance = match said.stance {
                Stance::Looking => "looking for",
                Stance::Following => "following",
                Stance::Leading => "leading as",
            };
            let data = if said.holds_data {
                ""
            } else {
                ", without data"
            };
            return format!(
                "Vote(round {}, {stance} {} with epoch {} and {}{data})",
                said.round, said.vote.leader, said.vote.epoch, said.vote.zxid
            );
        }
        Message::Link { body, .. } => body,
    };
    match body {
        Body::FollowerInfo { accepted_epoch, .. } => {
            format!("FollowerInfo(accepted {accepted_epoch})")
        }
        Body::LeaderInfo { epoch, .. } => format!("LeaderInfo(epoch {epoch})"),
        Body::AckEpoch {
            current_epoch,
            promises,
            history,
        } => {
            let mut text = format!("AckEpoch(current {current_epoch}, base {}", history.base);
            for end in &history.ends {
                let _ = write!(text, ", {end}");
            }
            text + if *promises { ")" } else { ", no promise)" }
        }
        Body::Diff { after } => format!("Diff(after {after})"),
        Body::Trunc { to } => format!("Trunc(to {to})"),
        Body::Snap { zxid } => format!("Snap({zxid})"),
        Body::SnapPiece { bytes, last } => {
            let end = if *last { ", the last" } else { "" };
            format!("SnapPiece({} bytes{end})", bytes.len())
        }
        Body::Proposal(entry) => format!("Proposal({})", entry.zxid),
        Body::NewLeader { epoch, upto } => format!("NewLeader(epoch {epoch}, upto {upto})"),
        Body::AckNewLeader { epoch } => format!("AckNewLeader(epoch {epoch})"),
        Body::UpToDate { committed } => format!("UpToDate(committed {committed})"),
        Body::Ack { zxid } => format!("Ack({zxid})"),
        Body::Commit { upto } => format!("Commit(upto {upto})"),
        Body::Inform(entry) => format!("Inform({})", entry.zxid),
        Body::Ping { round } => format!("Ping({round})"),
        Body::Pong { round, loyal } => {
            format!("Pong({round}{})", if *loyal { ", loyal" } else { "" })
        }
        Body::Payload(bytes) => format!("Payload({} bytes)", bytes.len()),
        Body::Close => "Close".into(),
    }
}

pub(super) fn describe_write(write: &Write) -> String {
    match write {
        Write::AcceptedEpoch(epoch) => format!("accepted epoch {epoch}"),
        Write::CurrentEpoch(epoch) => format!("current epoch {epoch}"),
        Write::Truncate(to) => format!("the cut after {to}"),
        Write::SnapshotBegin(zxid) => format!("the beginning of the snapshot {zxid}"),
        Write::SnapshotPiece(bytes) => format!("{} bytes of the snapshot", bytes.len()),
        Write::SnapshotEnd(zxid) => format!("the snapshot {zxid} in place of its history"),
        Write::Append(entry) => format!("transaction {}", entry.zxid),
    }
}

pub(super) fn describe_standing(standing: &Standing) -> String {
    match standing {
        Standing::Recovering => "has no leader".into(),
        Standing::Following { leader, epoch } => format!("follows {leader} in epoch {epoch}"),
        Standing::Leading { epoch, active } => {
            let active: Vec<String> = active.iter().map(ToString::to_string).collect();
            format!("leads epoch {epoch} with {}", active.join(" "))
        }
    }
}
