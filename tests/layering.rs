//! Holds the house to its plan: imports go downward as the table says, pure modules name no
//! I/O and no clock, `unsafe` stays where it belongs, and nothing grows without end.

#[path = "layering/lexer.rs"]
mod lexer;
#[path = "layering/rules.rs"]
mod rules;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use rules::{Finding, PURE, Source, TABLE};

/// Every `.rs` file below `dir`, with its text; names with `/` and relative to `dir`.
fn rust_files(dir: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut open = vec![dir.to_path_buf()];
    while let Some(next) = open.pop() {
        let Ok(entries) = std::fs::read_dir(&next) else {
            continue;
        };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let name = path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned();
                found.push((name, std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The files of `src/`, those that are there for tests marked as such.
fn sources(files: &[(String, String)]) -> Vec<Source> {
    let for_tests = test_files(files);
    let each = files.iter().zip(for_tests);
    each.map(|((name, text), test)| Source::new(name, text, test))
        .collect()
}

/// For each file of `src/`, whether it is there for tests alone.
fn test_files(files: &[(String, String)]) -> Vec<bool> {
    let plain = files
        .iter()
        .map(|(name, text)| Source::new(name, text, false));
    let plain: Vec<Source> = plain.collect();
    let tests: Vec<Vec<String>> = plain.iter().flat_map(Source::test_files).collect();
    let is_test = |source: &Source| {
        source.is_named_for_tests() || tests.iter().any(|module| source.is_within(module))
    };
    plain.iter().map(is_test).collect()
}

fn assert_none(findings: Vec<Finding>) {
    let lines: Vec<String> = findings.iter().map(Finding::to_string).collect();
    assert!(lines.is_empty(), "\n{}\n", lines.join("\n"));
}

#[test]
fn imports_go_only_where_the_table_lets_them() {
    let sources = sources(&rust_files(&root().join("src")));
    assert!(sources.len() > 5, "the sources were found");
    assert_none(rules::forbidden_imports(&sources));
    assert_eq!(rules::circles(&sources), Vec::<String>::new());
}

#[test]
fn the_table_itself_goes_downward() {
    let mut known = BTreeSet::new();
    for (module, imports) in TABLE {
        for import in *imports {
            let below = known.contains(import);
            assert!(below, "{module} imports {import}, which is not below it");
        }
        known.insert(module);
    }
    assert!(PURE.iter().all(|module| known.contains(module)));
}

#[test]
fn pure_modules_name_no_io_no_threads_and_no_clock() {
    let sources = sources(&rust_files(&root().join("src")));
    assert_none(sources.iter().flat_map(rules::impurities).collect());
}

#[test]
fn unsafe_and_hidden_code_stay_out() {
    let sources = sources(&rust_files(&root().join("src")));
    assert_none(sources.iter().flat_map(rules::unsafe_code).collect());
    assert_none(sources.iter().flat_map(rules::hidden_code).collect());
}

#[test]
fn no_file_and_no_function_is_too_long() {
    let mut findings = Vec::new();
    for dir in [
        "src",
        "benches",
        "examples",
        "loadgen/src",
        "tests",
        "loadgen/tests",
    ] {
        let files = rust_files(&root().join(dir));
        for ((name, text), test) in files.iter().zip(test_files(&files)) {
            let test = test || dir.ends_with("tests");
            findings.extend(rules::too_long(&format!("{dir}/{name}"), text, test));
        }
    }
    assert_none(findings);
}

/// What the import rules say about one planted file.
fn imports_of(name: &str, text: &str) -> Vec<String> {
    let sources = sources(&[(name.to_owned(), text.to_owned())]);
    let findings = rules::forbidden_imports(&sources);
    findings.iter().map(Finding::to_string).collect()
}

fn impurities_of(name: &str, text: &str) -> Vec<String> {
    let findings = rules::impurities(&Source::new(name, text, false));
    findings.iter().map(Finding::to_string).collect()
}

#[test]
fn an_import_upward_is_found_however_it_is_written() {
    let ways = [
        "use crate::runtime::Clock;",
        "use crate::{types::Zxid, runtime};",
        "use crate::{types::{Epoch, Zxid}, runtime::{x as y}};",
        "pub use crate::runtime as r;",
        "fn f() { crate::runtime::now() }",
        "fn f() -> Vec<crate :: runtime :: T> {}",
        "use super::super::runtime;",
        "fn f() { super::super::runtime::now() }",
        "mod deep { use super::super::super::runtime::x; }",
        "mod deep { fn f() { super::super::super::runtime::x } }",
        "macro_rules! m { () => { $crate::runtime::now() } }",
        "type T = <crate::runtime::A as B>::C;",
    ];
    for way in ways {
        let found = imports_of("group/state.rs", &format!("// one\n{way}\n"));
        assert_eq!(
            found,
            ["src/group/state.rs:2: group may not import runtime"],
            "{way}"
        );
    }
}

#[test]
fn the_crate_root_may_not_be_opened_or_renamed() {
    for way in [
        "use crate::*;",
        "use crate as c;",
        "use super::super::*;",
        "use crate::{self as c};",
    ] {
        let found = imports_of("group/state.rs", way);
        assert_eq!(
            found,
            ["src/group/state.rs:1: group may not import *"],
            "{way}"
        );
    }
}

#[test]
fn allowed_imports_and_look_alikes_are_let_be() {
    let text = r##"
        //! crate::runtime in a comment /* crate::runtime */
        /* nested /* crate::runtime */ crate::runtime */
        use crate::types::Zxid;
        use super::txn::Txn;
        use super::*;
        use serde::runtime;
        mod tests { use super::super::txn; use super::*; }
        const A: &str = "crate::runtime \" crate::runtime";
        const B: &str = r#"crate::runtime " "#;
        const C: char = '"'; const D: u8 = b'\''; fn f<'a>(x: &'a str) {}
        use crate::group::txn;
    "##;
    assert_eq!(imports_of("group/state.rs", text), Vec::<String>::new());
    let above = imports_of("group/mod.rs", "use super::runtime;");
    assert_eq!(above, ["src/group/mod.rs:1: group may not import runtime"]);
    let above = imports_of("group.rs", "use super::runtime;");
    assert_eq!(above, ["src/group.rs:1: group may not import runtime"]);
}

#[test]
fn the_simulator_is_open_to_tests_and_only_to_them() {
    let with = |attribute| format!("{attribute} mod m {{ use crate::sim::disk; }}");
    assert_eq!(
        imports_of("log/mod.rs", &with("#[cfg(test)]")),
        Vec::<String>::new()
    );
    for attribute in ["", "#[cfg(not(test))]", "#[cfg(feature = \"sim\")]"] {
        let found = imports_of("log/mod.rs", &with(attribute));
        assert_eq!(
            found,
            ["src/log/mod.rs:1: log may not import sim"],
            "{attribute}"
        );
    }
    let files = [
        (
            "log/mod.rs".to_owned(),
            "#[cfg(test)]\nmod crashes;\nmod plain;".to_owned(),
        ),
        (
            "log/crashes.rs".to_owned(),
            "use crate::sim::disk;".to_owned(),
        ),
        (
            "log/plain.rs".to_owned(),
            "use crate::sim::disk;".to_owned(),
        ),
    ];
    let found = rules::forbidden_imports(&sources(&files));
    let found: Vec<String> = found.iter().map(Finding::to_string).collect();
    assert_eq!(found, ["src/log/plain.rs:1: log may not import sim"]);
}

#[test]
fn a_module_without_a_row_is_found() {
    let found = imports_of("novelty/mod.rs", "");
    assert!(found[0].contains("novelty has no row"), "{found:?}");
    let main = imports_of("main.rs", "fn main() { systole::runtime::go() }");
    assert_eq!(main, ["src/main.rs:1: main may not import runtime"]);
}

#[test]
fn a_circle_is_found_even_if_the_table_allowed_it() {
    let files = [
        ("a.rs".to_owned(), "use crate::b;".to_owned()),
        ("b.rs".to_owned(), "use crate::c;".to_owned()),
        ("c/mod.rs".to_owned(), "use crate::a;".to_owned()),
        ("d.rs".to_owned(), "use crate::a;".to_owned()),
    ];
    assert_eq!(rules::circles(&sources(&files)), ["a", "b", "c"]);
    assert!(rules::circles_of(&BTreeMap::new()).is_empty());
}

#[test]
fn io_in_a_pure_module_is_found_however_it_is_written() {
    let ways = [
        ("use glommio::LocalExecutor;", "glommio::LocalExecutor"),
        ("fn f(x: flume::Sender<u8>) {}", "flume::Sender"),
        ("use rustix::net;", "rustix::net"),
        ("use std::{fmt, fs};", "std::fs"),
        (
            "use std::net::{SocketAddr, TcpStream};",
            "std::net::TcpStream",
        ),
        ("fn f() { std::thread::spawn(g) }", "std::thread::spawn"),
        ("use std::time::{Duration, Instant};", "std::time::Instant"),
        ("use std::time::*;", "std::time::*"),
        ("use std as s;", "std::as"),
        ("fn f(now: SystemTime) {}", "SystemTime"),
    ];
    for (way, named) in ways {
        let found = impurities_of("session/wheel.rs", &format!("\n\n{way}"));
        let expected = format!("src/session/wheel.rs:3: session is pure and may not name {named}");
        assert_eq!(found, [expected], "{way}");
    }
}

#[test]
fn the_pure_part_of_a_module_is_held_to_it_and_the_rest_is_not() {
    let text = "fn f() { std::thread::park() }";
    assert_eq!(impurities_of("client/core/call.rs", text).len(), 1);
    assert!(impurities_of("client/member.rs", text).is_empty());
}

#[test]
fn values_that_only_sound_like_io_are_let_be() {
    let text = "use std::net::{IpAddr, SocketAddr}; use std::time::Duration; // std::fs
        fn f() { let fs = \"std::fs\"; instant(); self.thread.flume() }";
    assert_eq!(impurities_of("config.rs", text), Vec::<String>::new());
}

#[test]
fn a_crate_used_outside_the_module_that_owns_it_is_found() {
    let found = impurities_of("server.rs", "use glommio::timer;\nuse std::fs::File;");
    assert_eq!(
        found,
        [
            "src/server.rs:1: glommio::timer belongs to runtime alone",
            "src/server.rs:2: std::fs::File belongs to log and cli alone",
        ]
    );
    assert!(impurities_of("runtime/net.rs", "use glommio::timer;").is_empty());
    let test = "#[cfg(test)] mod tests { use std::fs; }";
    assert!(impurities_of("runtime/net.rs", test).is_empty());
}

#[test]
fn unsafe_is_found_outside_its_places() {
    let text = "// unsafe\nconst S: &str = \"unsafe\";\nfn f() { unsafe { g() } }";
    let lines = |name| -> Vec<usize> {
        let source = Source::new(name, text, false);
        rules::unsafe_code(&source).iter().map(|f| f.line).collect()
    };
    assert_eq!(lines("session/slots.rs"), [3]);
    assert_eq!(lines("runtime/net.rs"), [3]);
    assert!(lines("runtime/poller.rs").is_empty());
    assert!(lines("log/segment.rs").is_empty());
}

#[test]
fn code_from_elsewhere_is_found() {
    let text = "#[path = \"../x.rs\"]\nmod x;\ninclude!(\"y.rs\");\nlet path = 1;";
    let found = rules::hidden_code(&Source::new("group/mod.rs", text, false));
    assert_eq!(found.iter().map(|f| f.line).collect::<Vec<_>>(), [1, 3]);
    let beside = "#[cfg(test)]\n#[path = \"net_tests.rs\"]\nmod tests;";
    let found = rules::hidden_code(&Source::new("runtime/net.rs", beside, false));
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn length_counts_lines_of_code_and_not_comments() {
    let too_long = |text: &str| rules::too_long("src/a.rs", text, false);
    let body = |lines: usize| "    x();\n".repeat(lines);
    let function = |lines| format!("// head\nfn long() {{\n{}}}\n", body(lines));
    assert!(too_long(&function(70)).is_empty());
    let found = too_long(&function(71));
    assert_eq!(
        found[0].to_string(),
        "src/a.rs:2: fn long has 71 lines, over 70"
    );
    let commented = format!("fn f() {{\n{}\n{}}}\n", "    // why\n".repeat(50), body(60));
    assert!(too_long(&commented).is_empty());
    let test = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", function(160));
    assert!(too_long(&test).is_empty());
    assert_eq!(rules::too_long("a.rs", &function(161), true).len(), 1);
    let pointer = format!("fn f(g: fn(u8) -> [u8; 3]);\nstruct S {{\n{}}}\n", body(80));
    assert!(too_long(&pointer).is_empty());
    assert!(too_long(&"\n".repeat(900)).is_empty());
    assert_eq!(too_long(&"\n".repeat(901))[0].line, 1);
}
