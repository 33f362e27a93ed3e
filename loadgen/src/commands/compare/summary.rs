//! The comparison in one table that is short enough to be quoted, and where systole is not first.

use super::table::{markdown, none};
use crate::report::Report;
use crate::rivals::Who;

/// A column: what is compared, and each server's figure.
struct Column {
    what: &'static str,
    /// Whether less is better.
    low: bool,
    /// The figure, and how it is written.
    of: Vec<(Who, f64, String)>,
}

/// The columns so far.
#[derive(Default)]
pub(super) struct Summary {
    columns: Vec<Column>,
}

impl Summary {
    /// Adds a column in which less is better; who has no figure is left out.
    pub(super) fn less(&mut self, what: &'static str, of: Vec<(Who, f64, String)>) {
        let low = true;
        self.columns.push(Column { what, low, of });
    }

    /// Adds a column in which more is better.
    pub(super) fn more(&mut self, what: &'static str, of: Vec<(Who, f64, String)>) {
        let low = false;
        self.columns.push(Column { what, low, of });
    }

    /// Adds the table, and after it every column in which somebody else is first.
    pub(super) fn tell(&self, here: &[Who], report: &mut Report) {
        if self.columns.is_empty() {
            return;
        }
        let mut head = vec!["server"];
        head.extend(self.columns.iter().map(|c| c.what));
        let row = |who: &Who| {
            let cell = |c: &Column| {
                let found = c.of.iter().find(|(w, ..)| w == who);
                found.map_or_else(none, |(_, _, text)| text.clone())
            };
            let mut row = vec![who.to_string()];
            row.extend(self.columns.iter().map(cell));
            row
        };
        let rows: Vec<Vec<String>> = here.iter().map(row).collect();
        report.note(&markdown("In short, medians", &head, &rows));
        if here.contains(&Who::Systole) {
            report.note(&self.losses());
        }
    }

    /// Who is ahead of systole, and at what. The bound is nobody's rival: it does no work.
    fn losses(&self) -> String {
        let mut lost = Vec::new();
        for column in &self.columns {
            let Some((_, ours, said)) = column.of.iter().find(|(w, ..)| *w == Who::Systole) else {
                lost.push(format!("{}: systole has no figure", column.what));
                continue;
            };
            let rivals = column.of.iter().filter(|(who, ..)| *who != Who::Bound);
            let ahead = rivals.filter(|(_, f, _)| if column.low { f < ours } else { f > ours });
            let names: Vec<String> = ahead.map(|(who, _, t)| format!("{who} ({t})")).collect();
            if !names.is_empty() {
                let names = names.join(", ");
                lost.push(format!("{}: {names} before systole ({said})", column.what));
            }
        }
        if lost.is_empty() {
            "Systole is first in every column; the bound, which does no work, apart.".to_owned()
        } else {
            format!("Where systole is not first. {}.", lost.join("; "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(summary: &Summary) -> String {
        let mut report = Report::new("compare", std::time::SystemTime::UNIX_EPOCH, "x");
        summary.tell(&[Who::Systole, Who::Bound, Who::Redis], &mut report);
        report.text()
    }

    fn figures(of: &[(Who, f64)]) -> Vec<(Who, f64, String)> {
        of.iter().map(|(w, f)| (*w, *f, f.to_string())).collect()
    }

    #[test]
    fn the_table_has_a_row_a_server_and_names_every_loss() {
        let mut summary = Summary::default();
        let beats = [(Who::Systole, 4.5), (Who::Bound, 3.5), (Who::Redis, 9.5)];
        summary.less("beat, µs", figures(&beats));
        summary.less(
            "late, ms",
            figures(&[(Who::Systole, 4.5), (Who::Redis, 2.5)]),
        );
        summary.more(
            "created",
            figures(&[(Who::Systole, 9.5), (Who::Redis, 1.5)]),
        );
        let text = told(&summary);
        for part in [
            "| server | beat, µs | late, ms | created |",
            "| bound | 3.5 | – | – |",
            "Where systole is not first. late, ms: redis (2.5) before systole (4.5).",
        ] {
            assert!(text.contains(part), "no `{part}` in {text}");
        }
        summary.more("more", figures(&[(Who::Systole, 1.5), (Who::Redis, 2.5)]));
        assert!(told(&summary).contains("; more: redis (2.5) before systole (1.5)."));
    }

    #[test]
    fn to_be_first_everywhere_is_said_too_and_a_missing_figure_is_a_loss() {
        let mut summary = Summary::default();
        let beats = [(Who::Systole, 4.5), (Who::Bound, 3.5), (Who::Redis, 9.5)];
        summary.less("beat, µs", figures(&beats));
        assert!(told(&summary).contains("first in every column"));
        summary.less("late, ms", figures(&[(Who::Redis, 2.5)]));
        assert!(told(&summary).contains("late, ms: systole has no figure"));
    }
}
