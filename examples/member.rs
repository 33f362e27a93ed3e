//! A member of a group: joins, beats, joins again if it must, and leaves on Ctrl-C or SIGTERM.
//!
//! ```sh
//! cargo run --example member -- 127.0.0.1:8640,127.0.0.1:8642 database db1
//! ```

use std::sync::mpsc::{Receiver, channel};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use systole::client::{Client, Error, Event, Terms};
use systole::time::Millis;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [endpoints, group, member] = &args[..] else {
        return Err("usage: member HOST:PORT[,HOST:PORT…] GROUP MEMBER".into());
    };
    let (stop, stopped) = channel();
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    std::thread::spawn(move || signals.forever().try_for_each(|_| stop.send(())));
    let terms = Terms {
        timeout: Some(Millis::from_secs(10)),
        ..Terms::new(group, member)
    };
    live(endpoints, terms, &stopped, |line| println!("{line}"))?;
    Ok(())
}

/// Stays in the group until told to stop.
pub(crate) fn live(
    endpoints: &str,
    terms: Terms,
    stop: &Receiver<()>,
    mut say: impl FnMut(String) + Send + 'static,
) -> Result<(), Error> {
    let client = Client::new(endpoints.split(','))?;
    let member = client.keep(terms, move |event| match event {
        // Whatever this member writes elsewhere should carry the token: who has seen a greater
        // one knows that this member is not the newest of its name.
        Event::Joined { session, again, .. } => {
            let how = if again { "joined again" } else { "joined" };
            say(format!("{how} {session}"));
        }
        // From here on another may be in this member's place: work that only one may do stops.
        Event::Lapsed => say("lapsed".to_owned()),
        Event::Recovered => say("recovered".to_owned()),
        Event::Left => say("left".to_owned()),
        Event::Replaced(problem) | Event::Refused(problem) => say(format!("out: {problem}")),
        Event::Changed(_) | Event::Failed { .. } | Event::Ended(_) => {}
    })?;
    // The program's own work goes here; `member.is_promised()` tells whether it may be done.
    let _ = stop.recv();
    member.leave();
    Ok(())
}
