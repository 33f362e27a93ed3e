//! The machine and the command, as a reader who wants to repeat the run needs them.

use rustix::system::uname;
use serde_json::{Map, Value};
use std::fs;
use std::path::Path;

/// Processor, cores, memory, kernel.
pub(super) fn facts() -> Map<String, Value> {
    let field = |file: &str, name: &str| -> String {
        let text = fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find(|l| l.starts_with(name));
        let value = line.and_then(|l| l.split_once(':')).map(|(_, v)| v.trim());
        value.unwrap_or("unknown").to_owned()
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let mut facts = Map::new();
    facts.insert("cpu".into(), field("/proc/cpuinfo", "model name").into());
    facts.insert("cores".into(), cores.to_string().into());
    facts.insert("memory".into(), field("/proc/meminfo", "MemTotal").into());
    let kernel = uname().release().to_string_lossy().into_owned();
    facts.insert("kernel".into(), kernel.into());
    facts
}

/// The command that repeats the run, from the root of the repository.
pub(super) fn command() -> String {
    let here = std::env::current_dir().unwrap_or_default();
    let args = std::env::args().skip(1).map(|arg| relative(&arg, &here));
    let line: Vec<String> = args.collect();
    format!("cargo run --release -p loadgen -- {}", line.join(" "))
}

/// A path below the working directory is written from there: where somebody keeps the
/// repository is of no use to others.
fn relative(arg: &str, here: &Path) -> String {
    match Path::new(arg).strip_prefix(here) {
        Ok(rest) if !here.as_os_str().is_empty() => rest.display().to_string(),
        _ => arg.to_owned(),
    }
}

/// What a server program says of itself, and the commit of the sources around us.
pub(crate) fn describe_server(program: &Path) -> String {
    let version = first_line(program, &["--version"]).unwrap_or_else(|| "systole".to_owned());
    let git = ["describe", "--always", "--dirty", "--abbrev=10"];
    match first_line(Path::new("git"), &git) {
        Some(commit) => format!("{version}, commit {commit}"),
        None => version,
    }
}

/// The first line a program prints, on whichever of its two outputs, if it succeeds.
pub(crate) fn first_line(program: &Path, args: &[&str]) -> Option<String> {
    let output = std::process::Command::new(program)
        .args(args)
        .output()
        .ok()?;
    let text = String::from_utf8([output.stdout, output.stderr].concat()).ok()?;
    let line = text.lines().next()?.trim().to_owned();
    (output.status.success() && !line.is_empty()).then_some(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_below_the_working_directory_lose_it() {
        let here = Path::new("/somewhere/systole");
        assert_eq!(relative("/somewhere/systole/target/x", here), "target/x");
        assert_eq!(relative("--sessions", here), "--sessions");
        assert_eq!(relative("/elsewhere/x", here), "/elsewhere/x");
    }

    #[test]
    fn a_program_is_heard_on_both_outputs_if_it_succeeds() {
        let say = |what| first_line(Path::new("/bin/sh"), &["-c", what]);
        assert_eq!(say("echo one; echo two"), Some("one".to_owned()));
        assert_eq!(say("echo one >&2"), Some("one".to_owned()));
        assert_eq!(say("echo one; exit 3"), None);
        assert_eq!(say(":"), None);
    }

    #[test]
    fn the_machine_is_described() {
        let facts = facts();
        for name in ["cpu", "cores", "memory", "kernel"] {
            assert!(!facts[name].as_str().unwrap().is_empty(), "{name}");
        }
    }
}
