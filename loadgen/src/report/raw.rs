//! The raw data: HdrHistogram's percentile text and its V2 interval log.

use crate::recorder::{Hist, INTERVAL_NS, Interval};
use anyhow::{Result, anyhow};
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};
use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

/// The percentile distribution in microseconds, in the layout HdrHistogram's tools read.
pub(super) fn percentile_text(hist: &Hist) -> String {
    let mut out = format!(
        "{:>12} {:>14} {:>10} {:>14}\n\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    );
    let mut below = 0;
    for step in hist.iter_quantiles(TICKS_PER_HALF) {
        below += step.count_since_last_iteration();
        let quantile = step.quantile_iterated_to();
        let value = step.value_iterated_to() as f64 / 1e3;
        if quantile < 1.0 {
            let inverse = 1.0 / (1.0 - quantile);
            let _ = writeln!(
                out,
                "{value:12.3} {quantile:14.12} {below:10} {inverse:14.2}"
            );
        } else {
            let _ = writeln!(
                out,
                "{value:12.3} {quantile:14.12} {below:10} {:>14}",
                "inf"
            );
        }
    }
    let (mean, deviation) = (hist.mean() / 1e3, hist.stdev() / 1e3);
    let max = hist.max() as f64 / 1e3;
    let _ = writeln!(
        out,
        "#[Mean    = {mean:12.3}, StdDeviation   = {deviation:12.3}]"
    );
    let _ = writeln!(
        out,
        "#[Max     = {max:12.3}, Total count    = {:12}]",
        hist.len()
    );
    let _ = writeln!(
        out,
        "#[Buckets = {:12}, SubBuckets     = {:12}]",
        hist.buckets(),
        SUB_BUCKETS
    );
    out
}

/// One line an interval and kind, values in nanoseconds, the maximum column in milliseconds.
pub(super) fn interval_log(intervals: &[Interval], started: SystemTime) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    let mut serializer = V2DeflateSerializer::new();
    let mut log = IntervalLogWriterBuilder::new()
        .add_comment("values are nanoseconds; the tag says of what")
        .with_start_time(started)
        .with_base_time(started)
        .with_max_value_divisor(1e6)
        .begin_log_with(&mut out, &mut serializer)?;
    for interval in intervals {
        let start = Duration::from_nanos(interval.index * INTERVAL_NS);
        let length = Duration::from_nanos(INTERVAL_NS);
        let tag = Tag::new(interval.tag.name());
        log.write_histogram(&interval.hist(), start, length, tag)
            .map_err(|e| anyhow!("interval log: {e:?}"))?;
    }
    Ok(out)
}

/// Of three significant digits, as all our histograms have.
const SUB_BUCKETS: u32 = 2_048;
/// Lines per halving of the distance to 100 %.
const TICKS_PER_HALF: u32 = 5;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recorder::{Recorder, Tag as Kind, total};
    use hdrhistogram::Histogram;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
    use hdrhistogram::serialization::{Deserializer, Serializer};

    fn intervals() -> Vec<Interval> {
        let mut recorder = Recorder::new(0);
        for i in 1..=1_000 {
            recorder.record(Kind::Beat, i * 1_000);
        }
        recorder.roll(INTERVAL_NS);
        recorder.record(Kind::Join, 7_000_000);
        recorder.finish()
    }

    #[test]
    fn the_interval_log_is_read_back_as_it_was_written() {
        let bytes = interval_log(&intervals(), SystemTime::UNIX_EPOCH).unwrap();
        let mut seen = Vec::new();
        for entry in IntervalLogIterator::new(&bytes) {
            if let Ok(LogEntry::Interval(line)) = entry {
                seen.push((
                    line.tag().unwrap().as_str().to_owned(),
                    line.start_timestamp(),
                ));
            }
        }
        assert_eq!(seen[0], ("beat".to_owned(), Duration::ZERO));
        assert_eq!(seen[1], ("join".to_owned(), Duration::from_secs(1)));
        assert_eq!(seen.len(), 2);
        let mut raw = Vec::new();
        let hist = intervals()[0].hist();
        V2DeflateSerializer::new()
            .serialize(&hist, &mut raw)
            .unwrap();
        let back: Histogram<u64> = Deserializer::new()
            .deserialize(&mut raw.as_slice())
            .unwrap();
        assert_eq!(back, hist);
    }

    #[test]
    fn the_percentile_text_ends_at_the_maximum() {
        let text = percentile_text(&total(&intervals(), Kind::Beat));
        assert!(text.starts_with("       Value     Percentile TotalCount 1/(1-Percentile)"));
        let last = text.lines().rfind(|l| !l.starts_with('#')).unwrap();
        assert!(
            last.contains("1.000000000000") && last.contains("1000"),
            "{last}"
        );
        assert!(text.contains("Total count    =         1000"));
    }
}
