//! The rules themselves: who may import whom, what a pure module may not name, and how long
//! things may be. Each takes source text and returns what it found, so that planted faults
//! can be fed to it.

use std::collections::{BTreeMap, BTreeSet};

use crate::lexer::{Path, Placed, paths, tokens};

/// Each top-level module and what it may import, lowest first. The picture of it is in
/// ARCHITECTURE.md; change both together and say why in the commit.
pub(crate) const TABLE: &[(&str, &[&str])] = &[
    ("types", &[]),
    ("time", &[]),
    ("json", &[]),
    // The lists of what can be planted, in all that the simulator tests.
    ("plant", &[]),
    ("group", &["types", "time", "json", "plant"]),
    ("session", &["types", "time"]),
    ("lease", &["types", "time", "plant"]),
    ("zab", &["types", "time", "plant"]),
    ("http", &["types", "time", "json"]),
    // What servers say to each other of beats, beside Zab.
    ("forward", &["types", "time"]),
    // What shards and core tell each other: values of the state machine, in batches.
    ("mail", &["types", "time", "group", "forward"]),
    ("metrics", &["types"]),
    ("config", &["types", "time"]),
    ("wire", &["types", "time", "zab", "forward"]),
    ("log", &["types"]),
    // It decides which shard is told what, in `mail`, and counts what it does.
    (
        "replica",
        &[
            "types", "time", "plant", "zab", "group", "lease", "forward", "mail", "metrics",
        ],
    ),
    (
        "shard",
        &[
            "types", "time", "json", "plant", "http", "session", "group", "forward", "mail",
            "metrics",
        ],
    ),
    (
        "sim",
        &[
            "types", "time", "json", "plant", "group", "session", "lease", "zab", "http",
            "forward", "mail", "metrics", "config", "wire", "log", "replica", "shard",
        ],
    ),
    (
        "runtime",
        &[
            "types", "time", "json", "group", "session", "lease", "zab", "http", "forward", "mail",
            "metrics", "config", "wire", "log", "replica", "shard",
        ],
    ),
    ("server", &["types", "config", "metrics", "runtime"]),
    // It shares no code with the server, so that programs that use it have little to read.
    ("client", &["types", "time"]),
    // `group`, `log` and `zab` for `systole log` and `systole snapshot`, which need no server.
    (
        "cli",
        &[
            "types", "time", "config", "group", "zab", "log", "server", "client",
        ],
    ),
    ("main", &["cli"]),
    ("lib", &[]),
    // The simulator's command line; `zab` for the names of what can be planted in it.
    ("bin", &["sim", "zab"]),
];

/// What the tests inside a module may import on top of its row: the simulated disk and world
/// are built to test what lies below them, and the shards' tests run them against a replica.
pub(crate) const TESTS_MAY_IMPORT: &[&str] = &["replica", "sim", "zab"];

/// Modules that are values and rules only: no I/O, no threads, no clock.
pub(crate) const PURE: &[&str] = &[
    "types", "time", "json", "plant", "group", "session", "lease", "zab", "http", "forward",
    "mail", "metrics", "config", "wire", "replica", "shard", "sim",
];

/// The same of a part of a module that as a whole is not pure: directories below `src/`.
const PURE_PARTS: &[&str] = &["client/core/"];

/// Path beginnings that a pure module must not name.
const IMPURE: &[&[&str]] = &[
    &["glommio"],
    &["flume"],
    &["rustix"],
    &["sd_notify"],
    &["libc"],
    &["memmap2"],
    &["signal_hook"],
    &["tracing"],
    &["ureq"],
    &["std", "env"],
    &["std", "fs"],
    &["std", "net"],
    &["std", "os"],
    &["std", "process"],
    &["std", "thread"],
];

/// Addresses are values; only sockets are not.
const ADDRESSES: &[&str] = &[
    "IpAddr",
    "Ipv4Addr",
    "Ipv6Addr",
    "SocketAddr",
    "SocketAddrV4",
    "SocketAddrV6",
];

/// Words that name a clock wherever they stand.
const CLOCKS: &[&str] = &["Instant", "SystemTime"];

/// Files that name a clock's type without reading a clock: the interval log of HdrHistogram
/// takes its start as a `SystemTime`, and it is made from a number there.
const CLOCK_TYPES: &[(&str, &str)] = &[("metrics.rs", "SystemTime")];

/// Crates and parts of `std` that belong to few modules.
const OWNED: &[(&[&str], &[&str])] = &[
    (&["glommio"], &["runtime"]),
    (&["flume"], &["runtime", "server"]),
    (&["memmap2"], &["log"]),
    // It writes to a socket that the environment names.
    (&["sd_notify"], &["runtime"]),
    (&["std", "fs"], &["log", "cli"]),
];

/// Files that may say `unsafe`: mapped memory, the borrowed descriptor of the poller, the length
/// of a thread's slices, and the question to the kernel whether it has io_uring.
const UNSAFE: &[&str] = &[
    "log/",
    "runtime/courtesy.rs",
    "runtime/backing.rs",
    "runtime/poller.rs",
    "runtime/preflight.rs",
    "session/prefetch.rs",
];

/// The longest file, in lines.
pub(crate) const FILE_LINES_MAX: usize = 900;

/// The longest body of a function, in lines of code: blank lines and comments are free.
pub(crate) const FUNCTION_LINES_MAX: usize = 70;

/// The same for tests, some of which are a table of cases and little else.
pub(crate) const TEST_LINES_MAX: usize = 160;

/// One finding: where, and a sentence.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    pub(crate) file: String,
    pub(crate) line: usize,
    pub(crate) what: String,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.what)
    }
}

/// One source file below `src/`.
pub(crate) struct Source {
    /// Path below `src/`, with `/`.
    name: String,
    module: Vec<String>,
    tokens: Vec<Placed>,
    paths: Vec<Path>,
    /// For each token: how many inline modules it is in, and whether one is for tests.
    places: Vec<Place>,
}

#[derive(Clone, Copy, Default)]
struct Place {
    depth: usize,
    test: bool,
}

impl Source {
    pub(crate) fn new(name: &str, text: &str, is_test_file: bool) -> Source {
        let tokens = tokens(text);
        let stem = name.strip_suffix(".rs").unwrap_or(name);
        let mut module: Vec<String> = stem.split('/').map(str::to_owned).collect();
        if module.len() > 1 && module.last().is_some_and(|last| last == "mod") {
            module.pop();
        }
        Source {
            name: name.to_owned(),
            module,
            paths: paths(&tokens),
            places: places(&tokens, is_test_file),
            tokens,
        }
    }

    /// The top-level module this file belongs to.
    pub(crate) fn top(&self) -> &str {
        &self.module[0]
    }

    /// How deep below the crate's root the file's own items are.
    fn depth(&self) -> usize {
        match self.module.as_slice() {
            [only] if only == "lib" || only == "main" => 0,
            deep => deep.len(),
        }
    }

    fn finding(&self, line: usize, what: String) -> Finding {
        Finding {
            file: format!("src/{}", self.name),
            line,
            what,
        }
    }

    /// Files that this one declares as `#[cfg(test)] mod name;`, as module paths.
    pub(crate) fn test_files(&self) -> Vec<Vec<String>> {
        let mut found = Vec::new();
        for (at, placed) in self.tokens.iter().enumerate() {
            let declares = placed.word() == Some("mod")
                && self.tokens.get(at + 2).is_some_and(|t| t.is(';'))
                && follows_cfg_test(&self.tokens, at);
            if let (true, Some(name)) = (declares, self.tokens.get(at + 1).and_then(Placed::word)) {
                let mut module = self.module[..self.depth()].to_vec();
                module.push(name.to_owned());
                found.push(module);
            }
        }
        found
    }

    /// True for `net_tests.rs`, the tests that stand beside `net.rs`.
    pub(crate) fn is_named_for_tests(&self) -> bool {
        self.name.ends_with("_tests.rs")
    }

    pub(crate) fn is_within(&self, module: &[String]) -> bool {
        self.module.starts_with(module)
    }

    /// What the file imports from the crate, as top-level modules: (line, name, in a test).
    fn imports(&self) -> Vec<(usize, String, bool)> {
        let mut found = Vec::new();
        for path in &self.paths {
            let place = self.places[path.at];
            if let Some(target) = self.top_of(&path.segments, place.depth) {
                found.push((path.line, target, place.test));
            }
        }
        found
    }

    /// The top-level module a path leads into, if it goes by way of the crate's root.
    fn top_of(&self, segments: &[String], inline_depth: usize) -> Option<String> {
        let supers = segments.iter().take_while(|s| *s == "super").count();
        let rest = match segments.first().map(String::as_str) {
            Some("crate") => &segments[1..],
            Some("systole") if self.name == "main.rs" => &segments[1..],
            Some("super") if supers >= self.depth() + inline_depth => &segments[supers..],
            _ => return None,
        };
        match rest.first().map(String::as_str) {
            // The root itself, renamed or opened: nobody could follow the paths below it.
            None | Some("as" | "self" | "*") => Some("*".to_owned()),
            Some(top) => Some(top.to_owned()),
        }
    }
}

/// Imports that the table does not allow, and modules that it does not know.
pub(crate) fn forbidden_imports(sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in sources {
        let top = source.top();
        let Some((_, allowed)) = TABLE.iter().find(|(name, _)| *name == top) else {
            let what = format!("the module {top} has no row in tests/layering/rules.rs");
            findings.push(source.finding(1, what));
            continue;
        };
        for (line, target, in_test) in source.imports() {
            let excused = in_test && TESTS_MAY_IMPORT.contains(&target.as_str());
            // A macro at the crate's root, or a function of lib.rs, is no module.
            if target == top || allowed.contains(&target.as_str()) || excused {
                continue;
            }
            findings.push(source.finding(line, format!("{top} may not import {target}")));
        }
    }
    findings
}

/// Circles among the imports that are really there, tests left out.
pub(crate) fn circles(sources: &[Source]) -> Vec<String> {
    let mut edges: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for source in sources {
        for (_, target, in_test) in source.imports() {
            if !in_test && target != source.top() {
                edges
                    .entry(source.top().to_owned())
                    .or_default()
                    .insert(target);
            }
        }
    }
    circles_of(&edges)
}

/// Modules that can reach themselves.
pub(crate) fn circles_of(edges: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let reaches_itself = |start: &String| {
        let mut seen = BTreeSet::new();
        let mut open = vec![start];
        while let Some(module) = open.pop() {
            for next in edges.get(module).into_iter().flatten() {
                if next == start {
                    return true;
                }
                if seen.insert(next) {
                    open.push(next);
                }
            }
        }
        false
    };
    edges
        .keys()
        .filter(|m| reaches_itself(m))
        .cloned()
        .collect()
}

/// I/O, threads and clocks named where they must not be.
pub(crate) fn impurities(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    let within = |part: &&str| source.name.starts_with(*part);
    let pure = PURE.contains(&source.top()) || PURE_PARTS.iter().any(within);
    for path in &source.paths {
        // A crate's name alone may be a variable's or a method's; what follows makes a path.
        let named = |prefix: &[&str]| {
            path.segments.len() > 1 && prefix.iter().eq(path.segments.iter().take(prefix.len()))
        };
        let text = path.segments.join("::");
        let mut found = |what: String| findings.push(source.finding(path.line, what));
        if pure {
            let address = named(&["std", "net"])
                && path
                    .segments
                    .get(2)
                    .is_some_and(|s| ADDRESSES.contains(&s.as_str()));
            let excused = |word: &str| CLOCK_TYPES.contains(&(source.name.as_str(), word));
            let clock = |s: &String| CLOCKS.contains(&s.as_str()) && !excused(s);
            let clock = path.segments.iter().any(clock) || named(&["std", "time", "*"]);
            let renamed = named(&["std", "as"]) || named(&["std", "*"]);
            if clock || renamed || (IMPURE.iter().any(|prefix| named(prefix)) && !address) {
                found(format!("{} is pure and may not name {text}", source.top()));
            }
            continue;
        }
        // A test may look at /proc or lay a file out; it is not part of the server.
        for (prefix, owners) in OWNED.iter().filter(|_| !source.places[path.at].test) {
            if named(prefix) && !owners.contains(&source.top()) {
                found(format!("{text} belongs to {} alone", owners.join(" and ")));
            }
        }
    }
    findings
}

/// `unsafe` outside the few files that may say it.
pub(crate) fn unsafe_code(source: &Source) -> Vec<Finding> {
    if UNSAFE
        .iter()
        .any(|allowed| source.name.starts_with(allowed))
    {
        return Vec::new();
    }
    let says = |t: &&Placed| t.word() == Some("unsafe");
    let lines = source.tokens.iter().filter(says).map(|t| t.line);
    let what = || "unsafe is for the files that UNSAFE lists".to_owned();
    lines.map(|line| source.finding(line, what())).collect()
}

/// `#[path]` and `include!`, which would take code out of sight of these rules. The tests of
/// a long file may stand beside it by `#[path]`: they are in sight.
pub(crate) fn hidden_code(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (at, placed) in source.tokens.iter().enumerate() {
        let next = |n: usize, sign| source.tokens.get(at + n).is_some_and(|t| t.is(sign));
        let hides = match placed.word() {
            Some("path") if at > 0 && source.tokens[at - 1].is('[') && next(1, '=') => {
                let rest = source.tokens[at..].iter();
                let module = rest.take_while(|t| t.word() != Some("mod")).count();
                !follows_cfg_test(&source.tokens, at + module)
            }
            Some("include") => next(1, '!'),
            _ => false,
        };
        if hides {
            findings.push(source.finding(placed.line, "code from elsewhere".to_owned()));
        }
    }
    findings
}

/// Files and functions over their length; `name` as it is to be shown.
pub(crate) fn too_long(name: &str, text: &str, is_test_file: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut found = |line, what| {
        findings.push(Finding {
            file: name.to_owned(),
            line,
            what,
        });
    };
    let lines = text.lines().count();
    if lines > FILE_LINES_MAX {
        found(1, format!("{lines} lines, over {FILE_LINES_MAX}"));
    }
    let tokens = tokens(text);
    let places = places(&tokens, is_test_file);
    for at in 0..tokens.len() {
        let Some((function, open, close)) = function_at(&tokens, at) else {
            continue;
        };
        let body = tokens[open + 1..close].iter().map(|t| t.line);
        let count = body.collect::<BTreeSet<usize>>().len();
        let max = if places[at].test {
            TEST_LINES_MAX
        } else {
            FUNCTION_LINES_MAX
        };
        if count > max {
            let what = format!("fn {function} has {count} lines, over {max}");
            found(tokens[at].line, what);
        }
    }
    findings
}

/// If a function with a body begins at `at`: its name and the indexes of the body's braces.
fn function_at(tokens: &[Placed], at: usize) -> Option<(&str, usize, usize)> {
    if tokens[at].word() != Some("fn") {
        return None;
    }
    let name = tokens.get(at + 1)?.word()?;
    let mut nested = 0_usize;
    for (index, token) in tokens.iter().enumerate().skip(at + 2) {
        match &token.token {
            crate::lexer::Token::Sign('(' | '[') => nested += 1,
            crate::lexer::Token::Sign(')' | ']') => nested = nested.saturating_sub(1),
            crate::lexer::Token::Sign('{') if nested == 0 => {
                return Some((name, index, closing_brace(tokens, index)));
            }
            crate::lexer::Token::Sign(';') if nested == 0 => return None,
            _ => {}
        }
    }
    None
}

/// The index of the brace that closes the one at `open`.
fn closing_brace(tokens: &[Placed], open: usize) -> usize {
    let mut depth = 0_usize;
    for (index, token) in tokens.iter().enumerate().skip(open) {
        depth += usize::from(token.is('{'));
        if token.is('}') {
            depth -= 1;
            if depth == 0 {
                return index;
            }
        }
    }
    tokens.len() - 1
}

/// Whether `#[cfg(test)]`, or a `cfg` that asks for it among others, stands before `at`.
fn follows_cfg_test(tokens: &[Placed], at: usize) -> bool {
    let before = tokens[..at].iter().rev();
    let attribute: Vec<&Placed> = before
        .take_while(|t| !t.is(';') && !t.is('{') && !t.is('}'))
        .collect();
    let has = |word| attribute.iter().any(|t| t.word() == Some(word));
    has("cfg") && has("test") && !has("not")
}

/// The inline modules around each token.
fn places(tokens: &[Placed], is_test_file: bool) -> Vec<Place> {
    let mut places = vec![
        Place {
            depth: 0,
            test: is_test_file
        };
        tokens.len()
    ];
    for at in 0..tokens.len() {
        let opens = tokens[at].word() == Some("mod")
            && tokens.get(at + 1).is_some_and(|t| t.word().is_some())
            && tokens.get(at + 2).is_some_and(|t| t.is('{'));
        if !opens {
            continue;
        }
        let test = follows_cfg_test(tokens, at);
        for place in &mut places[at + 2..=closing_brace(tokens, at + 2)] {
            place.depth += 1;
            place.test |= test;
        }
    }
    places
}
