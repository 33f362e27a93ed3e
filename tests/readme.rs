//! Holds the README, and what docs/ says of the face of the program, to the program: their
//! examples run and print what they show, their tables are whole, and the README's test command
//! is the one that CI runs.

mod common;

use std::io::{BufRead, BufReader, Lines};
use std::net::TcpListener;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::Duration;

use common::{Setup, program, run_to_end, run_within, skipped, systole};
use systole::config::{KEYS, env_name};
use systole::http::Code;

fn text(name: &str) -> String {
    let path = format!("{}/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// The blocks that are marked so, in order: each a list of commands with what they print.
fn blocks(text: &str, mark: &str) -> Vec<Vec<(String, String)>> {
    let mut blocks = Vec::new();
    for block in text.split(&format!("```{mark}\n")).skip(1) {
        let block = block.split("```").next().expect("a block ends");
        let mut commands: Vec<(String, String)> = Vec::new();
        for line in block.lines() {
            if let Some(command) = line.strip_prefix("$ ") {
                commands.push((command.to_owned(), String::new()));
            } else {
                let (_, printed) = commands.last_mut().expect("a command comes first");
                printed.push_str(line);
                printed.push('\n');
            }
        }
        blocks.push(commands);
    }
    blocks
}

#[test]
fn the_first_two_commands_start_a_server_and_run_the_tests_that_ci_runs() {
    let readme = text("README.md");
    let first = blocks(&readme, "console").swap_remove(0);
    let command = |n: usize| {
        first[n]
            .0
            .split('#')
            .next()
            .expect("a command")
            .trim()
            .to_owned()
    };
    assert_eq!(first.len(), 2);
    assert_eq!(command(0), "cargo run --release");
    assert!(command(1).starts_with("cargo test"));
    for file in [".ci/run", "justfile"] {
        let calls = text(file).lines().any(|line| line.trim() == command(1));
        assert!(calls, "{file} does not call {:?}", command(1));
    }
}

#[test]
fn the_tour_prints_what_it_shows() {
    if Command::new("curl").arg("--version").output().is_err() {
        return skipped("there is no curl on this machine");
    }
    let server = Setup::new().flag("--advertise", "127.0.0.1:8640").start();
    let here = server.address().to_string();
    // Each goes on where the one before it ends.
    let documents = ["README.md", "docs/watching.md", "docs/commands.md"];
    let blocks = documents.map(|name| blocks(&text(name), "console"));
    for (name, blocks) in documents.iter().zip(blocks) {
        let mut script = "set -u\ncurl() { command curl --noproxy '*' \"$@\"; }\n".to_owned();
        script.push_str(&format!("systole() {{ '{}' \"$@\"; }}\n", program()));
        let mut expected = String::new();
        // The README's first block starts a server and runs the tests.
        let begins = usize::from(*name == documents[0]);
        for (command, printed) in blocks.into_iter().skip(begins).flatten() {
            script.push_str(&patient(&command).replace("localhost:8640", &here));
            script.push('\n');
            expected.push_str(&printed);
        }
        // What the beats that were killed leave behind must not hold the pipes open.
        script.push_str("wait 2>/dev/null\n");
        let ended = run_within(MINUTE, Command::new("bash").args(["-c", &script]));
        // Documents come without a line's end; curl's headers with a carriage return.
        let bare = |text: &str| text.replace(['\r', '\n'], "");
        assert_eq!(
            bare(&ended.stdout),
            bare(&expected),
            "{name}: stderr: {}",
            ended.stderr
        );
    }
}

/// An ensemble that `systole dev` has started.
struct Dev {
    child: Child,
    /// What it says.
    lines: Lines<BufReader<ChildStderr>>,
}

impl Dev {
    /// Waits for a line with this in it, and gives the line.
    fn says(&mut self, part: &str) -> String {
        let mut lines = self.lines.by_ref().map(|line| line.expect("UTF-8"));
        let line = lines.find(|line| line.contains(part));
        line.unwrap_or_else(|| panic!("it has ended and never said {part:?}"))
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        // It stops its servers when it is told to stop, and not when it is killed.
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.child.wait();
    }
}

/// The first of six ports in a row that nobody has.
fn six_ports() -> u16 {
    // Below those that the kernel gives to whoever asks for any, and elsewhere for each process.
    let start = 10_000 + (std::process::id() % 3_000) as u16 * 6;
    let mut rows = (start..start + 600).step_by(6);
    let free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let row = rows.find(|first| (*first..first + 6).all(free));
    row.expect("six free ports in a row")
}

#[test]
fn three_servers_show_a_member_that_expires_as_they_are_said_to() {
    if Command::new("curl").arg("--version").output().is_err() {
        return skipped("there is no curl on this machine");
    }
    let home = tempfile::tempdir().expect("a directory");
    let data = home.path().to_str().expect("UTF-8");
    let port = six_ports();
    let moved = |text: &str| {
        let text = text.replace("./systole-dev", data);
        (0..3).fold(text, |text, id| {
            let (told, here) = (8_640 + 2 * id, port + 2 * id);
            text.replace(&format!(":{told}"), &format!(":{here}"))
        })
    };
    let mut commands = blocks(&text("README.md"), "console three")
        .into_iter()
        .flatten();
    let (start, printed) = commands.next().expect("a first command");
    let args = start.strip_prefix("cargo run --release -- ");
    let mut command = systole();
    command.args(args.expect("it starts the program").split(' '));
    command.args(["--port", &port.to_string(), "--data-dir", data]);
    let mut child = command.stderr(Stdio::piped()).spawn().expect("the program");
    let lines = BufReader::new(child.stderr.take().expect("piped")).lines();
    let mut dev = Dev { child, lines };
    assert_eq!(dev.says("dev: "), moved(printed.trim_end()));
    for _ in 0..3 {
        dev.says(" is ready");
    }
    for (command, printed) in commands {
        let script = format!(
            "curl() {{ command curl --noproxy '*' \"$@\"; }}\n{}",
            moved(&command)
        );
        let ended = run_within(MINUTE, Command::new("bash").args(["-c", &script]));
        assert_eq!(ended.stdout, moved(&printed), "{command}: {}", ended.stderr);
    }
}

/// A command of the tour that leaves a busy machine twice the time.
fn patient(command: &str) -> String {
    [("sleep 6", "sleep 12"), ("-m 4", "-m 8"), ("-m 2", "-m 4")]
        .iter()
        .fold(command.to_owned(), |text, (time, twice)| {
            text.replace(time, twice)
        })
}

/// The lines below the one that `heading` is in the help, up to an empty one.
fn in_the_help(heading: &str) -> Vec<String> {
    let help = run_to_end(systole().arg("--help")).stdout;
    let below = help.lines().skip_while(|line| *line != heading).skip(1);
    let lines: Vec<String> = below
        .take_while(|line| !line.is_empty())
        .map(|line| line.trim().to_owned())
        .collect();
    assert!(lines.len() > 3, "nothing below {heading:?} in {help}");
    lines
}

#[test]
fn every_command_has_its_row_and_every_row_its_command() {
    let document = text("docs/commands.md");
    let first_word = |line: &str| line.split([' ', '`']).next().expect("a word").to_owned();
    let mut commands: Vec<String> = in_the_help("Commands:")
        .iter()
        .map(|line| first_word(line))
        .filter(|name| name != "help")
        .collect();
    let rows = document
        .lines()
        .filter_map(|line| line.strip_prefix("| `systole "));
    let mut shown: Vec<String> = rows.map(first_word).collect();
    commands.sort();
    shown.sort();
    shown.dedup();
    assert_eq!(shown, commands);
}

#[test]
fn the_exit_codes_are_those_of_the_help() {
    let document = text("docs/commands.md");
    for line in in_the_help("Exit codes:") {
        let (code, meaning) = line.split_once("  ").expect("a code and what it means");
        let row = format!("| {code} | {meaning} |");
        assert!(document.lines().any(|line| line == row), "no row {row}");
    }
}

#[test]
fn every_setting_has_its_row() {
    let document = text("docs/settings.md");
    for (key, default) in KEYS {
        let row = format!("| `--{key}` | `{}` |", env_name(key));
        let found = document.lines().find(|line| line.starts_with(&row));
        let found = found.unwrap_or_else(|| panic!("no row {row}"));
        if let Some(default) = default {
            assert!(found.contains(&format!("| `{default}` |")), "{found}");
        }
    }
}

#[test]
fn every_code_of_a_refusal_stands_beside_its_status() {
    let document = text("docs/http.md");
    for code in Code::ALL {
        let name = format!("`{}`", code.name());
        let status = code.status().to_string();
        let told = |line: &&str| line.starts_with('|') && line.contains(&name);
        let row = document
            .lines()
            .find(told)
            .unwrap_or_else(|| panic!("no row has {name}"));
        let statuses = row.split('|').nth(1).expect("a first column");
        assert!(statuses.contains(&status), "{name} is {status}: {row}");
    }
}

#[test]
fn what_the_documents_link_to_is_there() {
    let root = env!("CARGO_MANIFEST_DIR");
    for name in [
        "README.md",
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
    ] {
        for link in text(name).split("](").skip(1) {
            let target = link.split(')').next().expect("a link ends");
            if let Some(anchor) = target.strip_prefix('#') {
                let heading = |line: &str| {
                    let heading = line.trim_start_matches('#').trim().to_lowercase();
                    line.starts_with('#') && heading.replace(' ', "-") == anchor
                };
                assert!(text(name).lines().any(heading), "{name} links to {target}");
                continue;
            }
            let outside = target.starts_with("http");
            let there = std::path::Path::new(root).join(target).exists();
            assert!(outside || there, "{name} links to {target}");
        }
    }
}

/// What examples may take on a busy machine.
const MINUTE: Duration = Duration::from_secs(60);
