//! The checked-in table of instruction counts, and what is said of a difference.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::{fs, io};

use serde::Deserialize;

/// What was counted, by path.
pub(crate) type Counts = Vec<(&'static str, f64)>;

/// `instructions.toml`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Table {
    /// The compiler that the counts were made with: another one makes other instructions.
    pub(crate) compiler: String,
    /// By the path's name.
    pub(crate) path: BTreeMap<String, Entry>,
}

/// One path.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entry {
    /// Instructions of one operation.
    pub(crate) instructions: f64,
    /// Why it was changed last.
    pub(crate) reason: String,
}

/// How a path stands to its entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It costs what it did.
    Same,
    /// It costs more.
    Grew,
    /// It costs less, and the table is to say so: or it might grow again unnoticed.
    Shrank,
    /// The table does not know it.
    New,
    /// It is in the table and is no more.
    Gone,
}

/// What the table and a count say of one path.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Line {
    name: String,
    was: Option<f64>,
    is: Option<f64>,
    pub(crate) verdict: Verdict,
}

impl Table {
    /// Reads the table; one that is not there is empty.
    pub(crate) fn read(place: &str) -> Result<Table, String> {
        match fs::read_to_string(place) {
            Ok(text) => Table::parse(&text).map_err(|error| format!("{place}: {error}")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Table::default()),
            Err(error) => Err(format!("{place}: {error}")),
        }
    }

    fn parse(text: &str) -> Result<Table, toml::de::Error> {
        toml::from_str(text)
    }

    /// Each path that was counted or is in the table.
    pub(crate) fn compare(&self, counts: &Counts) -> Vec<Line> {
        let mut lines: Vec<Line> = Vec::new();
        for &(name, is) in counts {
            let was = self.path.get(name).map(|entry| entry.instructions);
            lines.push(Line {
                name: name.to_owned(),
                was,
                is: Some(is),
                verdict: was.map_or(Verdict::New, |was| verdict(was, is)),
            });
        }
        for (name, entry) in &self.path {
            if !counts.iter().any(|(counted, _)| counted == name) {
                lines.push(Line {
                    name: name.clone(),
                    was: Some(entry.instructions),
                    is: None,
                    verdict: Verdict::Gone,
                });
            }
        }
        lines
    }

    /// The table with these counts. An entry that says the same within the tolerance stays as it
    /// is, reason and all, so that a difference shows what was meant.
    pub(crate) fn rewritten(&self, counts: &Counts, compiler: &str, reason: &str) -> Table {
        let anew = self.compiler != compiler;
        let entry = |&(name, is): &(&'static str, f64)| {
            let old = self
                .path
                .get(name)
                .filter(|old| !anew && verdict(old.instructions, is) == Verdict::Same);
            let new = || Entry {
                instructions: is,
                reason: reason.to_owned(),
            };
            (name.to_owned(), old.cloned().unwrap_or_else(new))
        };
        Table {
            compiler: compiler.to_owned(),
            path: counts.iter().map(entry).collect(),
        }
    }

    /// The file's text.
    pub(crate) fn text(&self) -> String {
        let mut text = String::from(HEAD);
        let string = |value: &str| toml::Value::from(value).to_string();
        let _ = writeln!(text, "compiler = {}", string(&self.compiler));
        for (name, entry) in &self.path {
            let Entry {
                instructions,
                reason,
            } = entry;
            let _ = write!(
                text,
                "\n[path.{name}]\ninstructions = {instructions:.1}\nreason = {}\n",
                string(reason)
            );
        }
        text
    }
}

impl Line {
    /// For people.
    pub(crate) fn text(&self) -> String {
        let number =
            |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.1}"));
        let change = match (self.was, self.is) {
            (Some(was), Some(is)) => format!("{:+.2} %", (is / was - 1.0) * 100.0),
            _ => String::new(),
        };
        let said = match self.verdict {
            Verdict::Same => "",
            Verdict::Grew => "GREW: make it cheaper, or --write the table with a reason",
            Verdict::Shrank => "shrank: --write the table, or it may grow back unnoticed",
            Verdict::New => "not in the table: --write it",
            Verdict::Gone => "in the table and not counted: --write it",
        };
        format!(
            "{:<20} {:>10} {:>10} {:>9}  {said}",
            self.name,
            number(self.was),
            number(self.is),
            change
        )
        .trim_end()
        .to_owned()
    }
}

fn verdict(was: f64, is: f64) -> Verdict {
    if is > was * (1.0 + TOLERANCE) {
        Verdict::Grew
    } else if is < was * (1.0 - TOLERANCE) {
        Verdict::Shrank
    } else {
        Verdict::Same
    }
}

/// By how much a path may differ from the table.
const TOLERANCE: f64 = 0.03;

const HEAD: &str = "\
# Instructions of one operation, counted by callgrind; see benches/instructions/main.rs.
# Written by:  cargo run --release --features sim --bin instructions -- --write REASON
";

#[cfg(test)]
mod tests {
    use super::*;

    fn table(entries: &[(&str, f64)]) -> Table {
        let entry = |&(name, instructions): &(&str, f64)| {
            let reason = format!("why \"{name}\"");
            let entry = Entry {
                instructions,
                reason,
            };
            (name.to_owned(), entry)
        };
        Table {
            compiler: "rustc 1".to_owned(),
            path: entries.iter().map(entry).collect(),
        }
    }

    fn verdicts(table: &Table, counts: &Counts) -> Vec<Verdict> {
        let lines = table.compare(counts);
        lines.iter().map(|line| line.verdict).collect()
    }

    #[test]
    fn what_differs_by_more_than_three_percent_is_told() {
        let table = table(&[("beat", 1_000.0)]);
        for (is, verdict) in [
            (1_029.0, Verdict::Same),
            (1_031.0, Verdict::Grew),
            (971.0, Verdict::Same),
            (969.0, Verdict::Shrank),
        ] {
            assert_eq!(verdicts(&table, &vec![("beat", is)]), [verdict], "{is}");
        }
    }

    #[test]
    fn a_path_is_in_the_table_and_counted_or_it_is_told() {
        let counts = vec![("join", 5.0)];
        let table = table(&[("beat", 1.0)]);
        assert_eq!(verdicts(&table, &counts), [Verdict::New, Verdict::Gone]);
        let written = table.rewritten(&counts, "rustc 1", "reason");
        assert_eq!(verdicts(&written, &counts), [Verdict::Same]);
    }

    #[test]
    fn the_table_reads_back_as_it_was_written() {
        let table = table(&[("beat", 1_000.5), ("batch-ids", 2.0)]);
        assert_eq!(Table::parse(&table.text()).as_ref(), Ok(&table));
    }

    #[test]
    fn an_entry_that_says_the_same_keeps_its_reason() {
        let table = table(&[("beat", 1_000.0), ("join", 1_000.0)]);
        let counts = vec![("beat", 1_010.0), ("join", 1_050.0)];
        let written = table.rewritten(&counts, "rustc 1", "new");
        assert_eq!(written.path["beat"], table.path["beat"]);
        assert_eq!(written.path["join"].instructions, 1_050.0);
        assert_eq!(written.path["join"].reason, "new");
        let anew = table.rewritten(&counts, "rustc 2", "new");
        assert_eq!(anew.path["beat"].instructions, 1_010.0, "another compiler");
    }
}
