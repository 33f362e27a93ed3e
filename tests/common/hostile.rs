//! Reads `tests/corpus/hostile.txt`; the file says what it means.
//!
//! To be included with `#[path]`: it knows neither the codec nor sockets.

/// One case of the corpus.
#[derive(Debug)]
pub(crate) struct Case {
    /// What it is about.
    pub(crate) name: String,
    /// What must become of it, answer by answer; empty if no answer comes.
    pub(crate) outcomes: Vec<Outcome>,
    /// What is sent.
    pub(crate) bytes: Vec<u8>,
}

/// What becomes of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// The status of the refusal; `None` if the request is taken.
    pub(crate) refusal: Option<u16>,
    /// True if the connection ends.
    pub(crate) close: bool,
}

/// All cases, in the order of the file.
///
/// # Panics
/// With the line's number, if the corpus is not as it says it is.
pub(crate) fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for (index, line) in include_str!("../corpus/hostile.txt").lines().enumerate() {
        let number = index + 1;
        if let Some(title) = line.strip_prefix("=== ") {
            let (name, outcomes) = title
                .rsplit_once(" | ")
                .unwrap_or_else(|| panic!("hostile.txt:{number}: no outcomes"));
            let outcomes = String::from_utf8(unescape(outcomes, number)).expect("UTF-8");
            let outcomes = outcomes.split_whitespace().filter(|word| *word != "wait");
            cases.push(Case {
                name: name.to_owned(),
                outcomes: outcomes.map(|word| outcome(word, number)).collect(),
                bytes: Vec::new(),
            });
        } else if !line.starts_with('#') && !line.is_empty() {
            let case = cases
                .last_mut()
                .unwrap_or_else(|| panic!("hostile.txt:{number}: no case"));
            case.bytes.extend(unescape(line, number));
        }
    }
    cases
}

fn outcome(word: &str, number: usize) -> Outcome {
    let (what, close) = match word.strip_suffix('!') {
        Some(what) => (what, true),
        None => (word, false),
    };
    let refusal = match what {
        "ok" => None,
        status => match status.parse() {
            Ok(status) => Some(status),
            Err(_) => panic!("hostile.txt:{number}: `{word}` is no outcome"),
        },
    };
    Outcome { refusal, close }
}

/// Resolves the escapes of one line.
fn unescape(line: &str, number: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = line;
    while let Some(at) = rest.find('\\') {
        out.extend(rest[..at].bytes());
        let escape = &rest[at + 1..];
        let (bytes, len) = resolve(escape, number);
        out.extend(bytes);
        rest = &escape[len..];
    }
    out.extend(rest.bytes());
    out
}

/// What the escape at the start of `text` stands for, and how long it is.
fn resolve(text: &str, number: usize) -> (Vec<u8>, usize) {
    let bad = || panic!("hostile.txt:{number}: bad escape `\\{text}`");
    match text.chars().next() {
        Some('r') => (vec![b'\r'], 1),
        Some('n') => (vec![b'\n'], 1),
        Some('t') => (vec![b'\t'], 1),
        Some('0') => (vec![0], 1),
        Some('\\') => (vec![b'\\'], 1),
        Some('x') => match text.get(1..3).map(|digits| u8::from_str_radix(digits, 16)) {
            Some(Ok(byte)) => (vec![byte], 3),
            _ => bad(),
        },
        Some('{') => {
            let Some((count, inner)) = text[1..].split_once('|') else {
                return bad();
            };
            let Some(len) = closing_brace(inner) else {
                return bad();
            };
            let Ok(times) = count.parse() else {
                return bad();
            };
            (
                unescape(&inner[..len], number).repeat(times),
                count.len() + len + 3,
            )
        }
        _ => bad(),
    }
}

/// Where the brace is that closes what was opened before `text`.
fn closing_brace(text: &str) -> Option<usize> {
    let mut depth = 0;
    text.char_indices().find_map(|(at, char)| {
        match char {
            '{' => depth += 1,
            '}' if depth == 0 => return Some(at),
            '}' => depth -= 1,
            _ => {}
        }
        None
    })
}
