//! What a run leaves behind: a table for the reader, a dated folder for the record.

pub(crate) mod machine;
pub(crate) mod plot;
mod raw;

use crate::clock;
use crate::recorder::{Hist, Interval, Tag};
use crate::verify::{Fault, Faults};
use anyhow::{Context, Result};
use serde_json::{Map, Value, json};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// A run, told.
pub(crate) struct Report {
    topic: String,
    started: SystemTime,
    server: String,
    rows: Vec<(String, String)>,
    values: Map<String, Value>,
    latencies: Vec<(String, Hist)>,
    intervals: Vec<Interval>,
    faults: Faults,
    broken_off: Option<String>,
    notes: Vec<String>,
    files: Vec<(String, Vec<u8>)>,
    claims_missed: u32,
}

impl Report {
    /// An empty report about `topic` (a few letters and hyphens: it names the folder).
    pub(crate) fn new(topic: &str, started: SystemTime, server: &str) -> Report {
        Report {
            topic: topic.to_owned(),
            started,
            server: server.to_owned(),
            rows: Vec::new(),
            values: Map::new(),
            latencies: Vec::new(),
            intervals: Vec::new(),
            faults: Faults::default(),
            broken_off: None,
            notes: Vec::new(),
            files: Vec::new(),
            claims_missed: 0,
        }
    }

    /// Adds a line of the table, and the number behind it under `key`.
    pub(crate) fn figure(&mut self, key: &str, label: &str, text: String, value: impl Into<Value>) {
        self.rows.push((label.to_owned(), text));
        self.values.insert(key.to_owned(), value.into());
    }

    /// Says what was done: the table's first line.
    pub(crate) fn setup(&mut self, text: String) {
        self.rows.insert(0, ("load".to_owned(), text.clone()));
        self.values.insert("setup".to_owned(), text.into());
    }

    /// Adds data that the table does not show.
    pub(crate) fn data(&mut self, key: &str, value: Value) {
        self.values.insert(key.to_owned(), value);
    }

    /// Adds the latencies of these kinds, and their intervals.
    pub(crate) fn latencies(&mut self, intervals: &[Interval]) {
        self.intervals.extend_from_slice(intervals);
        for tag in Tag::ALL {
            let hist = crate::recorder::total(intervals, tag);
            if !hist.is_empty() {
                self.latencies.push((tag.name().to_owned(), hist));
            }
        }
    }

    /// Adds what the verification found.
    pub(crate) fn verdict(&mut self, faults: &Faults, broken_off: Option<&str>) {
        self.faults.merge(faults);
        if let Some(why) = broken_off {
            self.broken_off.get_or_insert_with(|| why.to_owned());
        }
    }

    /// Adds a sentence.
    pub(crate) fn note(&mut self, text: &str) {
        self.notes.push(text.to_owned());
    }

    /// Adds something that must hold, and whether it does. If it does not, the run was no success.
    pub(crate) fn claim(&mut self, key: &str, what: &str, measured: &str, holds: bool) {
        let verdict = if holds { "holds" } else { "DOES NOT HOLD" };
        self.figure(key, what, format!("{measured}: {verdict}"), holds);
        self.claims_missed += u32::from(!holds);
    }

    /// Adds a file to the folder.
    pub(crate) fn attach(&mut self, name: &str, content: impl Into<Vec<u8>>) {
        self.files.push((name.to_owned(), content.into()));
    }

    /// Adds a distribution to the folder, as percentile text, and the essence of it to the
    /// figures.
    pub(crate) fn distribution(&mut self, name: &str, hist: &Hist) {
        self.data(&format!("{name}_ns"), latency_json(hist));
        self.attach(&format!("{name}.hgrm"), raw::percentile_text(hist));
    }

    /// Whether nothing went wrong.
    pub(crate) fn is_clean(&self) -> bool {
        self.faults.total() == 0 && self.broken_off.is_none() && self.claims_missed == 0
    }

    /// The table on the terminal.
    pub(crate) fn text(&self) -> String {
        let mut out = String::new();
        let width = self
            .rows
            .iter()
            .map(|(label, _)| label.chars().count())
            .max()
            .unwrap_or(0);
        for (label, text) in &self.rows {
            let _ = writeln!(out, "{label:width$}  {text}");
        }
        if !self.latencies.is_empty() {
            let _ = writeln!(out, "\n{}", latency_table(&self.latencies));
        }
        for note in &self.notes {
            let _ = writeln!(out, "{note}");
        }
        out.push_str(&self.verdict_text());
        out
    }

    fn verdict_text(&self) -> String {
        let mut out = String::new();
        if let Some(why) = &self.broken_off {
            let _ = writeln!(out, "BROKEN OFF: {why}");
        }
        if self.faults.total() == 0 {
            let _ = writeln!(out, "faults: none");
            return out;
        }
        let _ = writeln!(out, "FAULTS: {}", self.faults.total());
        for fault in Fault::ALL {
            if self.faults.count(fault) > 0 {
                let _ = writeln!(
                    out,
                    "  {:24} {}",
                    fault.to_string(),
                    self.faults.count(fault)
                );
            }
        }
        let _ = writeln!(out, "the first of them:");
        for detail in self.faults.details() {
            let _ = writeln!(out, "  {detail}");
        }
        out
    }

    /// Writes the folder `<out>/<date>-<topic>`, or with a number after it if there is one
    /// already; returns its path.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub(crate) fn write(&self, out: &Path) -> Result<PathBuf> {
        let folder = fresh_folder(out, &clock::date_and_time(self.started).0, &self.topic)?;
        let put = |name: &str, text: &[u8]| {
            let path = folder.join(name);
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
        };
        for (name, hist) in &self.latencies {
            put(
                &format!("{name}.hgrm"),
                raw::percentile_text(hist).as_bytes(),
            )?;
        }
        if !self.intervals.is_empty() {
            put(
                "intervals.hlog",
                &raw::interval_log(&self.intervals, self.started)?,
            )?;
        }
        if !self.latencies.is_empty() {
            put(
                "latency.svg",
                plot::percentiles(&self.topic, &self.latencies)?.as_bytes(),
            )?;
        }
        for (name, content) in &self.files {
            put(name, content)?;
        }
        let json = serde_json::to_string_pretty(&self.json())?;
        put("summary.json", format!("{json}\n").as_bytes())?;
        put("summary.md", self.markdown().as_bytes())?;
        Ok(folder)
    }

    fn json(&self) -> Value {
        let (date, time) = clock::date_and_time(self.started);
        let latencies: Map<String, Value> = self
            .latencies
            .iter()
            .map(|(name, hist)| (name.clone(), latency_json(hist)))
            .collect();
        let faults: Map<String, Value> = Fault::ALL
            .iter()
            .map(|f| (f.to_string(), json!(self.faults.count(*f))))
            .collect();
        json!({
            "topic": self.topic,
            "started": format!("{date}T{time}Z"),
            "command": machine::command(),
            "machine": machine::facts(),
            "server": self.server,
            "figures": self.values,
            "latency_ns": latencies,
            "faults": faults,
            "fault_details": self.faults.details(),
            "broken_off": self.broken_off,
            "notes": self.notes,
        })
    }

    fn markdown(&self) -> String {
        let (date, time) = clock::date_and_time(self.started);
        let mut out = format!("# {}: {date}\n\n", self.topic);
        let _ = writeln!(
            out,
            "Started {date} {time} UTC.\n\n```\n{}\n```\n",
            machine::command()
        );
        let _ = writeln!(out, "| machine | |\n|---|---|");
        for (name, value) in machine::facts() {
            let _ = writeln!(out, "| {name} | {} |", value.as_str().unwrap_or_default());
        }
        let _ = writeln!(out, "| server | {} |\n", self.server);
        let _ = writeln!(out, "| figure | |\n|---|---|");
        for (label, text) in &self.rows {
            let _ = writeln!(out, "| {label} | {text} |");
        }
        if !self.latencies.is_empty() {
            let _ = writeln!(
                out,
                "\nLatencies, counted from when each request was due:\n"
            );
            let _ = writeln!(
                out,
                "```\n{}```\n\n![latency](latency.svg)",
                latency_table(&self.latencies)
            );
        }
        for note in &self.notes {
            let _ = writeln!(out, "\n{note}");
        }
        let _ = writeln!(out, "\n```\n{}```", self.verdict_text());
        out
    }
}

/// `12.3 µs`, `4.56 ms`, `7.89 s`.
pub(crate) fn time(ns: u64) -> String {
    let ns = ns as f64;
    match ns {
        n if n < 1e3 => format!("{n:.0} ns"),
        n if n < 1e6 => format!("{:.1} µs", n / 1e3),
        n if n < 1e9 => format!("{:.2} ms", n / 1e6),
        n => format!("{:.2} s", n / 1e9),
    }
}

/// `1,234,567`.
pub(crate) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, d) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(d);
    }
    out
}

fn latency_table(latencies: &[(String, Hist)]) -> String {
    let width = latencies.iter().map(|(n, _)| n.len()).max().unwrap_or(0);
    let mut out = format!("{:width$}  {:>13}", "latency", "count");
    for (name, _) in QUANTILES {
        let _ = write!(out, "  {name:>9}");
    }
    out.push_str("        max\n");
    for (name, hist) in latencies {
        let _ = write!(out, "{name:width$}  {:>13}", count(hist.len()));
        for (_, q) in QUANTILES {
            let _ = write!(out, "  {:>9}", time(hist.value_at_quantile(q)));
        }
        let _ = writeln!(out, "  {:>9}", time(hist.max()));
    }
    out
}

fn latency_json(hist: &Hist) -> Value {
    let mut map = Map::new();
    map.insert("count".into(), json!(hist.len()));
    map.insert("mean".into(), json!(hist.mean()));
    for (name, q) in QUANTILES {
        map.insert(name.into(), json!(hist.value_at_quantile(q)));
    }
    map.insert("max".into(), json!(hist.max()));
    Value::Object(map)
}

fn fresh_folder(out: &Path, date: &str, topic: &str) -> Result<PathBuf> {
    fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    for attempt in 1..=FOLDERS_MAX {
        let name = match attempt {
            1 => format!("{date}-{topic}"),
            n => format!("{date}-{topic}-{n}"),
        };
        let folder = out.join(name);
        match fs::create_dir(&folder) {
            Ok(()) => return Ok(folder),
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e).with_context(|| format!("cannot make {}", folder.display())),
        }
    }
    anyhow::bail!(
        "{FOLDERS_MAX} results about {topic} today already; tidy up {}",
        out.display()
    )
}

/// The quantiles reported.
const QUANTILES: [(&str, f64); 5] = [
    ("p50", 0.5),
    ("p90", 0.9),
    ("p99", 0.99),
    ("p99.9", 0.999),
    ("p99.99", 0.9999),
];
/// Folders of one topic and day.
const FOLDERS_MAX: u32 = 1_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::TempDir;
    use crate::recorder::Recorder;

    fn report() -> Report {
        let mut recorder = Recorder::new(0);
        for ns in [5_000, 10_000, 2_000_000] {
            recorder.record(Tag::Beat, ns);
        }
        let mut report = Report::new("check", SystemTime::UNIX_EPOCH, "systole 0");
        report.figure("beats", "beats", count(1_234), 1_234);
        report.latencies(&recorder.finish());
        report
    }

    #[test]
    fn the_folder_holds_raw_data_summary_and_plot() {
        let dir = TempDir::new().unwrap();
        let folder = report().write(dir.path()).unwrap();
        assert!(folder.ends_with("1970-01-01-check"));
        let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
        assert!(read("beat.hgrm").contains("#[Mean"));
        assert!(read("intervals.hlog").contains("Tag=beat,"));
        assert!(read("latency.svg").starts_with("<svg"));
        let json: Value = serde_json::from_str(&read("summary.json")).unwrap();
        assert_eq!(json["figures"]["beats"], 1_234);
        assert_eq!(json["latency_ns"]["beat"]["count"], 3);
        let text = read("summary.md");
        assert!(
            text.contains("| beats | 1,234 |") && text.contains("faults: none"),
            "{text}"
        );
        assert!(text.contains("cargo run --release -p loadgen --"));
    }

    #[test]
    fn an_earlier_result_is_never_overwritten() {
        let dir = TempDir::new().unwrap();
        report().write(dir.path()).unwrap();
        let second = report().write(dir.path()).unwrap();
        assert!(second.ends_with("1970-01-01-check-2"));
    }

    #[test]
    fn times_and_counts_are_readable() {
        assert_eq!(time(999), "999 ns");
        assert_eq!(time(12_345), "12.3 µs");
        assert_eq!(time(1_500_000), "1.50 ms");
        assert_eq!(time(2_000_000_000), "2.00 s");
        assert_eq!(count(0), "0");
        assert_eq!(count(123), "123");
        assert_eq!(count(1_234_567), "1,234,567");
    }

    #[test]
    fn what_broke_a_run_off_is_said_and_not_clean() {
        let mut r = report();
        assert!(r.is_clean());
        r.verdict(&Faults::default(), Some("no server"));
        assert!(!r.is_clean());
        assert!(r.text().contains("BROKEN OFF: no server"));
    }
}
