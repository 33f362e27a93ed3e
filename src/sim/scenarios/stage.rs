//! What the stories share: their beginnings, their words, and the end that all must come to.

use super::Faults;
use crate::sim::script::{Ensemble, Past};
use crate::types::{Epoch, ServerId, Zxid};
use crate::zab::{Body, Fault, Limits, Message, Notification, Stance, Vote};

/// `Err` with this sentence unless `holds`.
pub(super) fn ensure(holds: bool, otherwise: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise.into()) }
}

/// `voters` servers with empty disks that do not run.
pub(super) fn cast(voters: u32, faults: Faults) -> Ensemble {
    let ensemble = Ensemble::new(voters);
    ensemble.plants(faults.plants).neglect(faults.neglect)
}

/// Servers with these pasts, none of them running.
pub(super) fn with_pasts(faults: Faults, pasts: &[&Past]) -> Ensemble {
    let mut ensemble = cast(pasts.len() as u32, faults);
    for (id, past) in (1..).zip(pasts) {
        ensemble.put(id, past);
    }
    ensemble
}

/// Servers with these pasts and other maxima.
pub(super) fn with_limits(faults: Faults, pasts: &[&Past], limits: Limits) -> Ensemble {
    with_pasts(faults, pasts).limits(limits)
}

/// What the last recorded message from `from` to `to` would be followed by, if it said `body`.
///
/// # Errors
/// If none was recorded.
pub(super) fn next_message(
    ensemble: &Ensemble,
    from: u32,
    to: u32,
    body: Body,
) -> Result<Message, String> {
    let recorded = ensemble.record.iter().flatten().rev();
    let mut links = recorded.filter_map(|(a, b, message)| match message {
        Message::Link { tenure, seq, .. } if (*a, *b) == (from, to) => Some((*tenure, *seq)),
        _ => None,
    });
    let (tenure, seq) = links.next().ok_or("nothing was said")?;
    Ok(Message::Link {
        tenure,
        seq: seq + 1,
        body,
    })
}

/// Three servers, of which 3 leads epoch 1 and has committed `a`.
///
/// # Errors
/// If it does not come to that.
pub(super) fn three(faults: Faults) -> Result<Ensemble, String> {
    let mut ensemble = cast(3, faults);
    ensemble.start_all();
    say(&mut ensemble, 3, "a")?;
    ensemble.settle();
    ensure(ensemble.agreed() == ["a"], "a is not committed")?;
    Ok(ensemble)
}

/// Starts these servers, and lets them come to rest.
pub(super) fn start(ensemble: &mut Ensemble, ids: &[u32]) {
    for &id in ids {
        ensemble.start(id);
    }
    ensemble.settle();
}

/// Proposes where it must be possible.
///
/// # Errors
/// If it is not.
pub(super) fn say(ensemble: &mut Ensemble, id: u32, text: &str) -> Result<Zxid, String> {
    if !ensemble.leads(id) {
        return Err(format!("{id} does not lead"));
    }
    let proposed = ensemble.propose(id, text);
    proposed.map_err(|error| format!("{id} cannot propose {text}: {error}"))
}

/// A word of somebody that it follows `leader`, which may come long after it was said.
pub(super) fn word_of_following(leader: u32, epoch: u64) -> Message {
    let vote = Vote {
        epoch: Epoch(epoch),
        zxid: Zxid::new(Epoch(1), 1),
        leader: ServerId(leader),
    };
    Message::Vote(Notification {
        stance: Stance::Following,
        round: 1,
        vote,
        holds_data: true,
        ensemble: 1,
    })
}

/// Whatever happened: nothing impossible has been seen so far.
///
/// # Errors
/// What was seen.
pub(super) fn sound(ensemble: &Ensemble) -> Result<(), String> {
    match ensemble.problems.first() {
        Some(problem) => Err(problem.clone()),
        None => Ok(()),
    }
}

/// All servers run and reach each other again, and whatever happened before: in a while they
/// have a leader, commit something new, and all hold the same.
///
/// # Errors
/// What is otherwise.
pub(super) fn ends_well(ensemble: &mut Ensemble) -> Result<(), String> {
    heal(ensemble);
    let ids: Vec<u32> = ensemble.servers.keys().copied().collect();
    for _ in 0..8 {
        ensemble.pass(1_000);
        sound(ensemble)?;
    }
    let leader = ensemble.leader().ok_or("nobody leads in the end")?;
    say(ensemble, leader, "the end")?;
    ensemble.pass(1_000);
    sound(ensemble)?;
    let agreed = ensemble.agreed();
    let last = agreed.last().map(String::as_str);
    ensure(last == Some("the end"), "the end is not committed")?;
    for id in ids {
        if ensemble.delivered(id) != agreed {
            return Err(format!("server {id} has not delivered all in the end"));
        }
    }
    Ok(())
}

/// Everything works from now on, and who has ended is started again.
fn heal(ensemble: &mut Ensemble) {
    ensemble.withhold = None;
    ensemble.join_all();
    let ids: Vec<u32> = ensemble.servers.keys().copied().collect();
    for id in ids {
        let server = ensemble.server(id);
        let failed = server.fault == Some(Fault::WriteFailed);
        server.syncs = true;
        server.answers = true;
        if ensemble.server(id).disk.crashed() {
            ensemble.crash(id);
        } else if failed {
            ensemble.kill(id);
        }
        if !ensemble.runs(id) {
            ensemble.start(id);
        }
        if ensemble.runs(id) {
            while ensemble.answer(id) {}
        }
    }
    ensemble.settle();
}
