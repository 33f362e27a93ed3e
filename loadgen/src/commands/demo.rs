//! `demo`: everything in a minute, on a server of its own.

use super::own::Home;
use super::{conclude, restart, tell};
use crate::churn::Shares;
use crate::cli::Demo;
use crate::clock::{self, MILLI, SECOND};
use crate::names::Names;
use crate::plan::{Load, Plan};
use crate::report::{Report, count, time};
use crate::run;
use anyhow::{Result, ensure};

/// Runs `demo`. True if nothing went wrong.
///
/// # Errors
/// If the server cannot be started or the run cannot be done.
pub(crate) fn demo(flags: &Demo) -> Result<bool> {
    ensure!(
        (1_000..=200_000).contains(&flags.sessions),
        "the demo takes 1,000 to 200,000 sessions; `beat` takes more"
    );
    let home = Home::new(&flags.own)?;
    let (server, ready_ns) = home.start()?;
    println!(
        "started a systole on {}: ready after {}",
        home.address,
        time(ready_ns)
    );
    let n = u64::from(flags.sessions);
    println!(
        "joining {} members of 50 groups; each beats once a second, its timeout is 3 s.\n\
         For 12 s: 2 % of them die, 2 % leave, 2 % leave and come back …",
        count(n)
    );
    let names = Names::new("load", 50, 24, 1, 0);
    let plan = Plan {
        timeout_ns: 3 * SECOND,
        load: Load::Open {
            interval_ns: SECOND,
            block: 0,
        },
        duration_ns: 12 * SECOND,
        warmup_ns: 500 * MILLI,
        shares: Shares {
            die: 0.02,
            leave: 0.02,
            rejoin: 0.02,
        },
        server_pid: Some(server.pid()),
        ..Plan::joins(names.clone(), flags.sessions, 32)
    };
    let done = run::run(&home.target(), vec![plan], flags.own.load_cpu)?;
    let mut report = Report::new("demo", done.started, &home.describe());
    tell(&mut report, &done);
    let mut known = done.into_known();
    let living = known.standing.living();
    println!("kill -9, then a start on the same data; every member must still be there …");
    server.kill();
    let (server, back_ns) = home.start()?;
    known.restarted(clock::now());
    let (_, checked) = restart::verify(&home, names, 3 * SECOND, known, flags.own.load_cpu)?;
    report.verdict(&checked.faults, checked.broken_off.as_deref());
    report.figure("ready_ns", "ready after kill -9", time(back_ns), back_ns);
    report.figure("came_back", "members that came back", count(living), living);
    drop(server);
    println!();
    conclude(&report, flags.own.out.as_deref())
}
