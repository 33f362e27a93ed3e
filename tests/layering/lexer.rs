//! Rust source to tokens, as much as the layering rules need: comments and the insides of
//! literals are gone, each token knows its line, and paths come out whole.

/// One token that survives: a word, or a sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    /// An identifier or keyword; `r#type` is `type`.
    Word(String),
    /// `::`
    PathSep,
    /// Any other sign, one character each.
    Sign(char),
    /// A literal or a lifetime, whatever it says.
    Literal,
}

/// A token and the line it begins on, counted from 1.
#[derive(Clone, Debug)]
pub(crate) struct Placed {
    pub(crate) token: Token,
    pub(crate) line: usize,
}

impl Placed {
    pub(crate) fn word(&self) -> Option<&str> {
        match &self.token {
            Token::Word(word) => Some(word),
            _ => None,
        }
    }

    pub(crate) fn is(&self, sign: char) -> bool {
        self.token == Token::Sign(sign)
    }
}

/// The tokens of `source`.
pub(crate) fn tokens(source: &str) -> Vec<Placed> {
    let mut lexer = Lexer {
        chars: source.chars().collect(),
        at: 0,
        line: 1,
        found: Vec::new(),
    };
    while lexer.at < lexer.chars.len() {
        lexer.step();
    }
    lexer.found
}

struct Lexer {
    chars: Vec<char>,
    at: usize,
    line: usize,
    found: Vec<Placed>,
}

impl Lexer {
    fn peek(&self, ahead: usize) -> char {
        self.chars.get(self.at + ahead).copied().unwrap_or('\0')
    }

    fn advance(&mut self) {
        if self.peek(0) == '\n' {
            self.line += 1;
        }
        self.at += 1;
    }

    fn push(&mut self, token: Token, line: usize) {
        self.found.push(Placed { token, line });
    }

    fn step(&mut self) {
        let line = self.line;
        match (self.peek(0), self.peek(1)) {
            (c, _) if c.is_whitespace() => self.advance(),
            ('/', '/') => self.skip_while(|c| c != '\n'),
            ('/', '*') => self.block_comment(),
            ('"', _) => self.string(),
            ('\'', _) => self.quote(),
            (':', ':') => {
                self.at += 2;
                self.push(Token::PathSep, line);
            }
            (c, _) if c.is_ascii_digit() => {
                // A suffix or a hex digit belongs to it; a range's dots do not matter.
                self.skip_while(|c| c.is_alphanumeric() || c == '_');
                self.push(Token::Literal, line);
            }
            (c, _) if c.is_alphabetic() || c == '_' => self.word(),
            (c, _) => {
                self.advance();
                self.push(Token::Sign(c), line);
            }
        }
    }

    fn skip_while(&mut self, keep: impl Fn(char) -> bool) {
        while self.at < self.chars.len() && keep(self.peek(0)) {
            self.advance();
        }
    }

    fn block_comment(&mut self) {
        let mut depth = 0;
        while self.at < self.chars.len() {
            let pair = (self.peek(0), self.peek(1));
            let step = match pair {
                ('/', '*') => 1,
                ('*', '/') => -1,
                _ => 0,
            };
            self.advance();
            if step != 0 {
                self.advance();
                depth += step;
            }
            if depth == 0 {
                return;
            }
        }
    }

    /// A string with escapes; one that spans lines leaves a token on each of them, for they
    /// are lines of code.
    fn string(&mut self) {
        self.push(Token::Literal, self.line);
        self.advance();
        while self.at < self.chars.len() && self.peek(0) != '"' {
            if self.peek(0) == '\\' {
                self.advance();
            }
            self.advance_in_literal();
        }
        self.advance();
    }

    fn advance_in_literal(&mut self) {
        let before = self.line;
        self.advance();
        if self.line != before {
            self.push(Token::Literal, self.line);
        }
    }

    fn raw_string(&mut self) {
        self.push(Token::Literal, self.line);
        let mut hashes = 0;
        while self.peek(0) == '#' {
            hashes += 1;
            self.advance();
        }
        self.advance();
        while self.at < self.chars.len() {
            let closes = self.peek(0) == '"' && (1..=hashes).all(|n| self.peek(n) == '#');
            self.advance_in_literal();
            if closes {
                self.at += hashes;
                return;
            }
        }
    }

    /// A character literal or a lifetime.
    fn quote(&mut self) {
        let line = self.line;
        let lifetime = self.peek(1) != '\\' && self.peek(2) != '\'';
        self.advance();
        if lifetime {
            self.skip_while(|c| c.is_alphanumeric() || c == '_');
        } else {
            while self.at < self.chars.len() && self.peek(0) != '\'' {
                if self.peek(0) == '\\' {
                    self.advance();
                }
                self.advance();
            }
            self.advance();
        }
        self.push(Token::Literal, line);
    }

    fn word(&mut self) {
        let (start, line) = (self.at, self.line);
        self.skip_while(|c| c.is_alphanumeric() || c == '_');
        let word: String = self.chars[start..self.at].iter().collect();
        match (word.as_str(), self.peek(0), self.peek(1)) {
            ("b" | "c", '"', _) => self.string(),
            ("b", '\'', _) => self.quote(),
            ("r" | "br" | "cr", '"', _) | ("r" | "br" | "cr", '#', '"' | '#') => self.raw_string(),
            ("r", '#', _) => self.advance(), // r#type: the word itself follows
            _ => self.push(Token::Word(word), line),
        }
    }
}

/// A path as it is named somewhere, `use` trees spread out: `use a::{b, c::*}` gives `a::b`
/// and `a::c::*`. A renamed one ends in `as`, whatever the new name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Path {
    pub(crate) segments: Vec<String>,
    pub(crate) line: usize,
    /// Index of its first token.
    pub(crate) at: usize,
}

/// Every path in `tokens`, single words included.
pub(crate) fn paths(tokens: &[Placed]) -> Vec<Path> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        at = match tokens[at].word() {
            Some("use") => tree(tokens, at + 1, &[], &mut found),
            // `pub(crate)` says who may look in, and opens nothing.
            Some("pub") if shows_the_crate(&tokens[at + 1..]) => at + 4,
            Some(_) => plain(tokens, at, &mut found),
            None => at + 1,
        };
    }
    found
}

/// True if a `pub` before this goes on as `(crate)`.
fn shows_the_crate(tokens: &[Placed]) -> bool {
    let [open, word, close, ..] = tokens else {
        return false;
    };
    open.is('(') && word.word() == Some("crate") && close.is(')')
}

/// Reads one plain path from `at`; returns where it ends.
fn plain(tokens: &[Placed], at: usize, found: &mut Vec<Path>) -> usize {
    let mut segments = Vec::new();
    let mut next = at;
    while let Some(word) = tokens.get(next).and_then(Placed::word) {
        segments.push(word.to_owned());
        next += 1;
        let goes_on = tokens.get(next).is_some_and(|t| t.token == Token::PathSep)
            && tokens.get(next + 1).is_some_and(|t| t.word().is_some());
        if !goes_on {
            break;
        }
        next += 1;
    }
    let line = tokens[at].line;
    found.push(Path { segments, line, at });
    next
}

/// Reads one `use` tree from `at`, below `prefix`; returns where it ends.
fn tree(tokens: &[Placed], mut at: usize, prefix: &[String], found: &mut Vec<Path>) -> usize {
    let mut segments = prefix.to_vec();
    let first = at;
    while let Some(placed) = tokens.get(at) {
        match &placed.token {
            Token::Word(word) => segments.push(word.clone()),
            Token::PathSep => {}
            Token::Sign('*') => segments.push("*".to_owned()),
            Token::Sign('{') => {
                at += 1;
                while tokens.get(at).is_some_and(|t| !t.is('}')) {
                    at = tree(tokens, at, &segments, found);
                    if tokens.get(at).is_some_and(|t| t.is(',')) {
                        at += 1;
                    }
                }
                return at + 1;
            }
            _ => break,
        }
        if tokens[at].word() == Some("as") {
            at += 1; // and the new name, below
        }
        at += 1;
    }
    if segments.len() == prefix.len() {
        // Nothing to read here: step over it, so that every call gets on.
        return at.max(first + 1);
    }
    let line = tokens[first].line;
    found.push(Path {
        segments,
        line,
        at: first,
    });
    at
}
