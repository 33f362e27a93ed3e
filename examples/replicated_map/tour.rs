//! What the example shows, step by step. It stops with an error where it is not as told.

use std::error::Error;
use std::path::Path;

use systole::types::ServerId;
use systole::zab::app::Completion;

use super::ensemble::{SERVERS, World};

/// Three servers below `dir`; `say` is told what happens.
pub(crate) fn tour(dir: &Path, mut say: impl FnMut(String)) -> Result<(), Box<dyn Error>> {
    let mut world = World::start(dir)?;
    let old = world.leader()?;
    say(format!("server {old} leads {} servers", SERVERS.len()));

    for id in SERVERS {
        let done = world.request(id, &format!("put from-{id} hello"))?;
        let Completion::Delivered { zxid, .. } = done else {
            return Err(format!("not delivered: {done:?}").into());
        };
        say(format!("server {id} put an entry: transaction {zxid}"));
    }

    let follower = another_than(old)?;
    let before = world.logged(old);
    let done = world.request(follower, "delete nothing")?;
    let Completion::Answered { answer, .. } = done else {
        return Err(format!("broadcast for nothing: {done:?}").into());
    };
    let answer = String::from_utf8(answer)?;
    check(
        world.logged(old) == before,
        "an answer leaves the log alone",
    )?;
    say(format!(
        "the leader answered without a transaction: {answer}"
    ));

    let open = world.begin(follower, "put under-way 1")?;
    world.kill(old)?;
    let Completion::HandedBack(back) = world.wait(follower, open)? else {
        return Err("a request outlived its leader".into());
    };
    let request = String::from_utf8_lossy(back.request()).into_owned();
    say(format!(
        "server {old} was killed; handed back: {request} ({:?})",
        back.fate
    ));

    let new = world.leader()?;
    check(new != old, "another server leads")?;
    // It may have happened or not: made again, it is so.
    world.request(new, &request)?;
    say(format!("server {new} leads; the request was made again"));

    world.restart(old)?;
    world.leader()?;
    for id in SERVERS {
        let entries = world.entries(id)?;
        let expected = ["from-1", "from-2", "from-3", "under-way"];
        check(entries.keys().eq(expected), "all have all")?;
        say(format!("server {id} reads {} entries", entries.len()));
    }
    Ok(())
}

fn another_than(id: ServerId) -> Result<ServerId, &'static str> {
    let mut others = SERVERS.into_iter().filter(|other| *other != id);
    others.next().ok_or("there are others")
}

fn check(holds: bool, what: &str) -> Result<(), String> {
    holds.then_some(()).ok_or_else(|| format!("not so: {what}"))
}
