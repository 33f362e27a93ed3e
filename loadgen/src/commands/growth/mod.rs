//! `growth`: how costs and latencies grow.
//!
//! Each curve is measured with the means of the target it extends, stored as figures and drawn
//! as an SVG. Points are measured in rising order; costs are medians of some rounds.

mod batch;
mod load;
mod size;

use super::conclude;
use crate::cli::{Curve, Growth};
use crate::clock;
use crate::commands::own::Home;
use crate::names::Names;
use crate::recorder::Hist;
use crate::report::plot::{Axes, Series, curves};
use crate::report::{Report, count};
use anyhow::{Result, ensure};
use serde_json::json;
use std::fmt::Write as _;

/// Runs `growth`. True if nothing went wrong.
///
/// # Errors
/// If a server cannot be started or a measurement cannot be done.
pub(crate) fn growth(flags: &Growth) -> Result<bool> {
    let mut flags = flags.clone();
    flags.own.server_cpu = flags.own.server_cpu.or(Some(0));
    flags.own.load_cpu = flags.own.load_cpu.or(Some(1));
    ensure!(
        flags.own.data_dir.is_none(),
        "every point wants a server with empty data: --data-dir cannot be given"
    );
    if flags.ten_million {
        flags.sizes.push(10_000_000);
    }
    flags.sizes.sort_unstable();
    flags.sizes.dedup();
    let describe = Home::new(&flags.own)?.describe();
    let mut report = Report::new("growth", clock::wall(), &describe);
    let wanted = |curve| flags.only.is_empty() || flags.only.contains(&curve);
    if [Curve::Beat, Curve::Memory, Curve::Restart]
        .into_iter()
        .any(wanted)
    {
        size::filled(&flags, &wanted, &mut report)?;
    }
    if wanted(Curve::Batch) {
        batch::beats(&flags, &mut report)?;
    }
    if wanted(Curve::Expiry) {
        size::expiry(&flags, &mut report)?;
    }
    if wanted(Curve::Shards) {
        load::shards(&flags, &mut report)?;
    }
    if wanted(Curve::Joins) {
        load::joins(&flags, &mut report)?;
    }
    if wanted(Curve::Saturation) {
        load::saturation(&flags, &mut report)?;
    }
    conclude(&report, flags.own.out.as_deref())
}

/// Stores curves: as a table, as numbers, and drawn.
fn draw(report: &mut Report, name: &str, axes: &Axes, series: &[Series]) -> Result<()> {
    let mut table = format!("## {}\n\n| {} |", axes.title, axes.x);
    for (label, _) in series {
        let _ = write!(table, " {label} |");
    }
    table.push_str("\n|---|");
    table.push_str(&"---|".repeat(series.len()));
    let places = series.first().map_or(&[][..], |(_, points)| points);
    for (i, (x, _)) in places.iter().enumerate() {
        let _ = write!(table, "\n| {} |", count(*x as u64));
        for (_, points) in series {
            let value = points.get(i).map(|(_, y)| figure(*y));
            let _ = write!(table, " {} |", value.unwrap_or_default());
        }
    }
    let _ = write!(table, "\n\nIn {}. ![{name}]({name}.svg)", axes.y);
    eprintln!("{table}");
    report.note(&table);
    let data: Vec<_> = series
        .iter()
        .map(|(label, points)| json!({ "name": label, "points": points }))
        .collect();
    report.data(name, json!({ "x": axes.x, "y": axes.y, "series": data }));
    report.attach(&format!("{name}.svg"), curves(axes, series)?);
    Ok(())
}

/// Four digits that count.
fn figure(value: f64) -> String {
    let decimals = (3 - value.abs().max(1e-3).log10().floor() as i32).clamp(0, 4) as usize;
    format!("{value:.decimals$}")
}

/// Adds a point to each quantile's curve, in milliseconds.
fn add_quantiles(series: &mut [Series; 3], x: f64, hist: &Hist) {
    for (place, q) in [0.5, 0.99, 0.999].into_iter().enumerate() {
        let ms = hist.value_at_quantile(q) as f64 / 1e6;
        series[place].1.push((x, ms));
    }
}

/// Empty curves of these names.
fn named<const N: usize>(names: [&str; N]) -> [Series; N] {
    names.map(|name| (name.to_owned(), Vec::new()))
}

/// The middle one.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}

fn names() -> Names {
    Names::new("load", 100, 24, 1, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_keep_four_digits() {
        assert_eq!(figure(3.911_11), "3.911");
        assert_eq!(figure(150.52), "150.5");
        assert_eq!(figure(215_776.4), "215776");
        assert_eq!(figure(0.0), "0.0000");
    }

    #[test]
    fn curves_are_a_table_numbers_and_a_drawing() {
        let mut report = Report::new("growth", std::time::SystemTime::UNIX_EPOCH, "x");
        let axes = Axes {
            title: "Cost",
            x: "sessions",
            y: "µs",
        };
        let mut series = named(["a", "b"]);
        series[0].1.extend([(10.0, 1.5), (100.0, 2.5)]);
        series[1].1.push((10.0, 7.0));
        draw(&mut report, "cost", &axes, &series).unwrap();
        let text = report.text();
        assert!(
            text.contains("| 10 | 1.500 | 7.000 |\n| 100 | 2.500 |  |"),
            "{text}"
        );
        let dir = crate::process::TempDir::new().unwrap();
        let folder = report.write(dir.path()).unwrap();
        let json = std::fs::read_to_string(folder.join("summary.json")).unwrap();
        assert!(json.contains("\"points\""));
        assert!(folder.join("cost.svg").is_file());
    }
}
