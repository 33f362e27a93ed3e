//! A server that cannot start says what is in the way in one sentence, and how to mend it;
//! and never a word of a panic.

mod common;

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use common::{Ended, Setup, program, run_to_end, skipped, systole};

fn serve(args: &[&str]) -> Ended {
    run_to_end(systole().arg("serve").args(args))
}

fn with_dir(dir: &Path, args: &[&str]) -> Ended {
    let dir = dir.to_str().expect("a UTF-8 path");
    serve(&[&["--data-dir", dir], args].concat())
}

#[test]
fn a_server_with_no_trouble_says_one_line_and_serves() {
    let mut server = Setup::new().start();
    let line = &server.ready_line;
    let dir = server.dir().to_str().expect("a UTF-8 path");
    for part in [&server.address().to_string(), dir, "ensemble", "shard"] {
        assert!(line.contains(part), "{part:?} is not in {line:?}");
    }
    server.client().ask("GET", "/-/livez").expect(200);
    server.client().ask("GET", "/-/readyz").expect(200);
    assert_eq!(server.stop().code(), Some(0));
    assert!(!server.stderr().contains("WARN"), "{}", server.stderr());
}

/// `name` and slice of each thread of the process, if the kernel shows slices.
fn slices(pid: u32) -> Vec<(String, Option<u64>)> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
    let look = |path: &Path| {
        let name = std::fs::read_to_string(path.join("comm")).ok()?;
        let told = std::fs::read_to_string(path.join("sched")).unwrap_or_default();
        let line = told.lines().find(|line| line.starts_with("se.slice"));
        let slice = line.and_then(|line| line.rsplit(' ').next()?.parse().ok());
        Some((name.trim().to_owned(), slice))
    };
    tasks
        .filter_map(|task| look(&task.expect("a task").path()))
        .collect()
}

#[test]
fn executors_take_short_turns_on_their_processors() {
    let server = Setup::new().start();
    let release = rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let mut number = || numbers.next().and_then(|n| n.parse::<u32>().ok());
    let own = slices(std::process::id());
    if (number(), number()) < (Some(6), Some(12)) || own.iter().all(|(_, slice)| slice.is_none()) {
        return skipped("this kernel lets nobody choose a slice, or does not show it");
    }
    let threads = slices(server.id());
    let slice_of = |name: &str| {
        let found = threads.iter().find(|(thread, _)| thread == name);
        found.and_then(|(_, slice)| *slice)
    };
    for executor in ["shard-0", "core"] {
        assert_eq!(slice_of(executor), Some(100_000), "{executor}: {threads:?}");
    }
}

#[test]
fn a_wrong_flag_value_or_file_is_a_usage_error() {
    serve(&["--lisen", "x"]).expect_sentence(2, &["--lisen", "--listen"]);
    serve(&["--listen", "nowhere"]).expect_sentence(2, &["--listen", "nowhere"]);
    serve(&["--default-timeout", "10"]).expect_sentence(2, &["did you mean 10s?"]);
    serve(&["--ensemble", "2=a:1,3=b:1"]).expect_sentence(2, &["--id is 1", "one of them"]);
    serve(&["--config", "/no/such/file"]).expect_sentence(2, &["/no/such/file"]);

    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("systole.toml");
    std::fs::write(&file, "id = 1\nlisen = \"127.0.0.1:1\"\n").expect("to write");
    let name = file.to_str().expect("a UTF-8 path");
    let place = format!("{name}:2");
    serve(&["--config", name]).expect_sentence(2, &[&place, "lisen", "did you mean listen?"]);

    let ended = run_to_end(systole().env("SYSTOLE_SHARDS", "many"));
    ended.expect_sentence(2, &["SYSTOLE_SHARDS", "many"]);
}

#[test]
fn a_port_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("its address").to_string();
    let dir = tempfile::tempdir().expect("a directory");
    let ended = with_dir(dir.path(), &["--listen", &address]);
    ended.expect_sentence(1, &[&address, "in use", "--listen"]);
}

#[test]
fn a_port_in_use_by_another_systole_is_in_use_all_the_same() {
    // Both would share the port through SO_REUSEPORT, and each get half of the clients.
    let first = Setup::new().start();
    let address = first.address().to_string();
    let dir = tempfile::tempdir().expect("a directory");
    let ended = with_dir(dir.path(), &["--listen", &address]);
    ended.expect_sentence(1, &[&address, "in use"]);
    first.client().ask("GET", "/-/livez").expect(200);
}

#[test]
fn an_address_of_another_machine_is_named() {
    let dir = tempfile::tempdir().expect("a directory");
    // 192.0.2.0/24 is for documentation: no machine has it.
    let ended = with_dir(dir.path(), &["--listen", "192.0.2.1:8640"]);
    ended.expect_sentence(1, &["192.0.2.1:8640"]);
}

#[test]
fn a_data_directory_that_cannot_be_one_is_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("file");
    std::fs::write(&file, "not a directory").expect("to write");
    let name = file.to_str().expect("a UTF-8 path");
    with_dir(&file, &["--listen", "127.0.0.1:0"]).expect_sentence(1, &[name]);
    let below = file.join("below");
    with_dir(&below, &["--listen", "127.0.0.1:0"]).expect_sentence(1, &[name]);
    // Read-only even for root.
    let kernel = Path::new("/proc/sys/systole");
    with_dir(kernel, &["--listen", "127.0.0.1:0"]).expect_sentence(1, &["/proc/sys/systole"]);
}

#[test]
fn a_second_server_on_the_same_directory_is_refused_and_the_first_serves_on() {
    let first = Setup::new().start();
    first.client().ask("PUT", "/g/m?timeout=1h").expect(201);
    let ended = with_dir(first.dir(), &["--listen", "127.0.0.1:0"]);
    ended.expect_sentence(1, &[first.dir().to_str().expect("a UTF-8 path"), "in use"]);
    first.client().ask("PUT", "/g/n?timeout=1h").expect(201);
}

#[test]
fn too_little_locked_memory_is_named_with_the_way_to_raise_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut command = Command::new("sh");
    command.args([
        "-c",
        "ulimit -l 64 || exit 77; exec \"$0\" \"$@\"",
        program(),
    ]);
    command
        .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(dir.path());
    let ended = run_to_end(&mut command);
    if ended.code == Some(77) {
        return skipped("the shell cannot lower the limit of locked memory");
    }
    ended.expect_sentence(1, &["locked", "ulimit -l"]);
}

#[test]
fn looking_into_a_log_that_is_not_there_is_a_usage_error() {
    for what in ["dump", "verify"] {
        let ended = run_to_end(systole().args(["log", what, "/no/such/dir"]));
        ended.expect_sentence(2, &["/no/such/dir"]);
    }
}

#[test]
fn the_log_of_a_stopped_server_verifies_and_shows_its_transactions() {
    let mut server = Setup::new().start();
    server
        .client()
        .ask("PUT", "/orders/web-1?timeout=1h")
        .expect(201);
    server.stop();
    let dir = server.dir().to_str().expect("a UTF-8 path");
    let dump = run_to_end(systole().args(["log", "dump", dir]));
    assert_eq!(dump.code, Some(0), "{}", dump.stderr);
    assert!(dump.stdout.contains("web-1"), "{}", dump.stdout);
    let verify = run_to_end(systole().args(["log", "verify", dir]));
    assert_eq!(verify.code, Some(0), "{}", verify.stderr);
    assert!(!verify.stdout.is_empty());
}
