//! Tables, plots and raw data of a comparison.

use crate::recorder::{self, Hist};
use crate::report::plot::{self, Bar};
use crate::report::{Report, time};
use crate::rivals::Who;
use anyhow::Result;
use std::fmt::Write as _;

/// What the rounds measured of one server at one kind of work.
pub(super) struct Cell {
    /// Whose.
    pub(super) who: Who,
    /// The server's CPU time for each operation, by round.
    pub(super) us: Vec<f64>,
    /// Operations a second, by round.
    pub(super) per_s: Vec<f64>,
    /// How long each took, over all rounds.
    pub(super) hist: Hist,
}

impl Cell {
    pub(super) fn new(who: Who) -> Cell {
        Cell {
            who,
            us: Vec::new(),
            per_s: Vec::new(),
            hist: recorder::empty(),
        }
    }

    /// Adds a round.
    pub(super) fn add(&mut self, took: &crate::rivals::crew::Took) {
        self.us.push(took.cpu_us());
        self.per_s.push(took.per_s());
        self.hist += &took.hist;
    }

    /// Median and spread of the CPU time.
    pub(super) fn cpu(&self) -> Option<Spread> {
        Spread::of(&self.us)
    }
}

/// Of each server that has one, the median of some rounds, for the table in short.
pub(super) fn medians(
    cells: &[Cell],
    rounds: fn(&Cell) -> &[f64],
    written: fn(f64) -> String,
) -> Vec<(Who, f64, String)> {
    let median = |cell: &Cell| {
        let Spread { median, .. } = Spread::of(rounds(cell))?;
        Some((cell.who, median, written(median)))
    };
    cells.iter().filter_map(median).collect()
}

/// Of each server that has one, a quantile of how long it took, likewise.
pub(super) fn quantile_each(cells: &[Cell], q: f64) -> Vec<(Who, f64, String)> {
    let with = cells.iter().filter(|cell| !cell.hist.is_empty());
    let each = with.map(|cell| (cell.who, cell.hist.value_at_quantile(q)));
    each.map(|(who, ns)| (who, ns as f64, time(ns))).collect()
}

/// Lowest, middle and highest of some rounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Spread {
    pub(super) low: f64,
    pub(super) median: f64,
    pub(super) high: f64,
}

impl Spread {
    /// Of no round there is none.
    pub(super) fn of(rounds: &[f64]) -> Option<Spread> {
        let mut sorted = rounds.to_vec();
        sorted.sort_by(f64::total_cmp);
        Some(Spread {
            low: *sorted.first()?,
            median: sorted[sorted.len() / 2],
            high: *sorted.last()?,
        })
    }

    /// `3.90 (3.71–4.22)`.
    pub(super) fn text(self, decimals: usize) -> String {
        let Spread { low, median, high } = self;
        format!("{median:.decimals$} ({low:.decimals$}–{high:.decimals$})")
    }
}

/// One server's value over another's, round by round.
pub(super) fn ratio(of: &Cell, to: &Cell) -> Option<Spread> {
    let each = of.us.iter().zip(&to.us).map(|(a, b)| a / b);
    Spread::of(&each.collect::<Vec<f64>>())
}

/// A table in Markdown: the head, then the rows.
pub(super) fn markdown(title: &str, head: &[&str], rows: &[Vec<String>]) -> String {
    let mut out = format!("## {title}\n\n| {} |\n|", head.join(" | "));
    out.push_str(&"---|".repeat(head.len()));
    for row in rows {
        let _ = write!(out, "\n| {} |", row.join(" | "));
    }
    out
}

/// What a cell has to say where there is none.
pub(super) fn none() -> String {
    "–".to_owned()
}

/// p50, p99 and the longest.
pub(super) fn quantiles(hist: &Hist) -> [String; 3] {
    if hist.is_empty() {
        return [none(), none(), none()];
    }
    let at = |q| time(hist.value_at_quantile(q));
    [at(0.5), at(0.99), time(hist.max())]
}

/// Stores the cells of one kind of work: every round, every distribution, two plots.
pub(super) fn store(report: &mut Report, work: &str, unit: &str, cells: &[Cell]) -> Result<()> {
    let mut bars = Vec::new();
    let mut curves = Vec::new();
    for cell in cells.iter().filter(|c| !c.hist.is_empty()) {
        let key = format!("{work}_{}", cell.who);
        report.data(&format!("{key}_us_each"), cell.us.clone().into());
        report.data(&format!("{key}_per_s_each"), cell.per_s.clone().into());
        report.distribution(&key, &cell.hist);
        curves.push((cell.who.to_string(), cell.hist.clone()));
        if let Some(cpu) = cell.cpu() {
            bars.push(Bar {
                label: cell.who.to_string(),
                low: cpu.low,
                middle: cpu.median,
                high: cpu.high,
            });
        }
    }
    if !curves.is_empty() {
        report.attach(&format!("{work}.svg"), plot::percentiles(work, &curves)?);
    }
    if !bars.is_empty() {
        report.attach(&format!("{work}-cpu.svg"), plot::bars(work, unit, &bars)?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_the_middle_round_and_the_outermost_ones() {
        let spread = Spread::of(&[3.0, 1.0, 2.0]).unwrap();
        assert_eq!(spread.text(1), "2.0 (1.0–3.0)");
        assert_eq!(Spread::of(&[]), None);
    }

    #[test]
    fn ratios_are_taken_within_the_round() {
        let (mut a, mut b) = (Cell::new(Who::Systole), Cell::new(Who::Bound));
        a.us = vec![4.0, 20.0, 6.0];
        b.us = vec![2.0, 10.0, 2.0];
        assert_eq!(ratio(&a, &b).unwrap().text(0), "2 (2–3)");
    }

    #[test]
    fn a_table_is_markdown() {
        let rows = [vec!["x".to_owned(), none()]];
        assert_eq!(
            markdown("t", &["a", "b"], &rows),
            "## t\n\n| a | b |\n|---|---|\n| x | – |"
        );
    }
}
