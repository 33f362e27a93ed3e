//! Guards the costs of the hot paths: instructions of one operation, against a table.
//!
//! ```text
//! cargo run --release --features sim --bin instructions
//! cargo run --release --features sim --bin instructions -- --write "why it costs that now"
//! callgrind_annotate target/release/callgrind/join.out
//! ```
//!
//! Times on a machine that others use differ from run to run by more than most changes do.
//! Instructions do not: the paths run on one thread, without sockets, at a time that stands
//! still, with seeds and names that are always the same, on the processor that valgrind shows
//! to programs, which is the same on every machine. So they are the same to the last one from
//! run to run, and differ with what the program is built of: code, compiler, C library.
//!
//! Exits with 1 if a path differs from `benches/instructions.toml` by more than 3 % either way.
//! What a change costs on purpose is written there, with the reason. It needs valgrind.
//!
//! It is a program, built with the simulator's feature, because the simulator's build has then
//! compiled all of it but these files. A few of the instructions are that feature's own.

mod count;
#[path = "../lone/mod.rs"]
mod lone;
mod paths;
mod table;

use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::{env, fs, process, thread};

use clap::Parser;

use paths::PATHS;
use table::{Counts, Table, Verdict};

/// Counts the instructions of the hot paths and compares them with the table.
#[derive(Parser)]
#[command(name = "instructions")]
struct Args {
    /// Writes the table, with the reason for what has changed.
    #[arg(long, value_name = "REASON", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    write: Option<String>,
    /// Goes along one path and says how many operations that were: what callgrind runs.
    #[arg(long, value_name = "PATH", conflicts_with = "write")]
    drive: Option<String>,
    /// Where the table is.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions.toml"))]
    table: String,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let done = match &args.drive {
        Some(path) => drive(path).map(|()| true),
        None => judge(&args),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(sentence) => {
            eprintln!("instructions: {sentence}");
            ExitCode::from(2)
        }
    }
}

/// Counts, compares or writes; true if the table says what was counted.
fn judge(args: &Args) -> Result<bool, String> {
    let old = Table::read(&args.table)?;
    let compiler = compiler()?;
    let counts = count_all()?;
    println!("{:<20} {:>10} {:>10} {:>9}", "path", "table", "now", "");
    let lines = old.compare(&counts);
    lines.iter().for_each(|line| println!("{}", line.text()));
    if let Some(reason) = &args.write {
        let text = old.rewritten(&counts, &compiler, reason).text();
        fs::write(&args.table, text).map_err(|error| format!("{}: {error}", args.table))?;
        println!("wrote {}", args.table);
        return Ok(true);
    }
    let same = lines.iter().all(|line| line.verdict == Verdict::Same);
    if !same && old.compiler != compiler {
        println!(
            "the table was made with {}, this with {compiler}",
            old.compiler
        );
    }
    Ok(same)
}

/// Each path in a process of its own, as many at a time as there are processors: counts do not
/// mind.
fn count_all() -> Result<Counts, String> {
    let at_a_time = thread::available_parallelism().map_or(1, |count| count.get());
    let mut counts = Counts::new();
    for paths in PATHS.chunks(at_a_time) {
        let counted = thread::scope(|scope| {
            let counting = paths
                .iter()
                .map(|path| scope.spawn(|| count::count(path.name)));
            let counting: Vec<_> = counting.collect();
            let counted = counting.into_iter().map(|one| one.join());
            counted.collect::<Vec<_>>()
        });
        for (path, counted) in paths.iter().zip(counted) {
            let counted = counted.map_err(|_| format!("{}: the count was given up", path.name))?;
            counts.push((path.name, counted?));
        }
    }
    Ok(counts)
}

fn drive(name: &str) -> Result<(), String> {
    let path = PATHS.iter().find(|path| path.name == name);
    let path = path.ok_or_else(|| format!("there is no path `{name}`"))?;
    let dir = scratch().map_err(|error| format!("a scratch directory: {error}"))?;
    let operations = path.run(&dir);
    fs::remove_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    println!("{operations}");
    Ok(())
}

/// A directory for the log, removed when the path has been gone.
fn scratch() -> std::io::Result<PathBuf> {
    let dir = env::temp_dir().join(format!("systole-instructions-{}", process::id()));
    fs::create_dir(&dir)?;
    Ok(dir)
}

fn compiler() -> Result<String, String> {
    let rustc = env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let output = Command::new(rustc).arg("-V").output();
    let output = output.map_err(|error| format!("rustc -V: {error}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
