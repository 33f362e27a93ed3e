//! Counters and latency histograms as values, and their text forms.
//!
//! Every shard and the core own one set each and are its only writers, so a count is a plain
//! load and store; anybody may read. Histograms are recorded into privately and handed over
//! once a second ([`Latency::publish`]), so that recording takes no lock.

use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2Serializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};

/// A count or a level with one writer and any number of readers.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. Only the owner of the set may call it: two writers would lose counts.
    pub fn add(&self, n: u64) {
        // Not `fetch_add`: that locks the bus, and there is only one writer.
        self.0
            .store(self.0.load(Ordering::Relaxed) + n, Ordering::Relaxed);
    }

    /// Sets a level.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The present value.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Declares a set of counters with their Prometheus names, kinds and help texts.
macro_rules! counters {
    ($(#[$about:meta])* $name:ident { $($field:ident $kind:ident $metric:literal $help:literal,)* }) => {
        $(#[$about])*
        #[derive(Debug, Default)]
        pub struct $name {
            $(#[doc = $help] pub $field: Counter,)*
        }

        impl $name {
            /// Name, kind and help of each counter, in the order of the fields.
            pub const TABLE: &'static [(&'static str, &'static str, &'static str)] =
                &[$(($metric, stringify!($kind), $help),)*];

            fn values(&self) -> Vec<u64> {
                vec![$(self.$field.get(),)*]
            }
        }
    };
}

counters! {
    /// What one shard counts.
    ShardCounters {
        sessions gauge "systole_sessions" "Sessions this shard holds.",
        session_bytes gauge "systole_session_bytes" "Memory of this shard's session table, bytes.",
        connections gauge "systole_connections" "Open client connections.",
        accepted counter "systole_connections_accepted_total" "Client connections accepted.",
        refused counter "systole_connections_refused_total" "Client connections answered 503 for want of room.",
        requests counter "systole_requests_total" "Requests parsed, of any kind.",
        heartbeats counter "systole_heartbeats_total" "Heartbeats acknowledged: HEAD, GET and batch.",
        batches counter "systole_heartbeat_batches_total" "Batch heartbeat requests.",
        beat_misses counter "systole_heartbeat_misses_total" "Heartbeats for which this shard held no live session.",
        asks counter "systole_core_asks_total" "Requests handed to the Zab core.",
        overloads counter "systole_overload_refusals_total" "Requests answered 503 because the core's queue was full.",
        problems counter "systole_problem_answers_total" "Requests answered with an error.",
        expiries counter "systole_expiries_proposed_total" "Sessions whose deadline passed here.",
        claims counter "systole_session_claims_total" "Sessions asked for from the other shards.",
        handed_over counter "systole_sessions_handed_over_total" "Sessions given to another shard.",
        stalls counter "systole_stalls_total" "Times the shard was not run for longer than the stall limit.",
        stall_ms counter "systole_stall_seconds_total" "Time added to all deadlines to make stalls good, seconds.",
        turns counter "systole_loop_turns_total" "Turns of the event loop.",
        lease_lapsed gauge "systole_lease_lapsed" "1 while the server's lease has lapsed, so that this shard promises nothing.",
        lease_left_ms gauge "systole_lease_left_seconds" "How long the server's lease still runs, seconds; alone, always its full length.",
        lease_refusals counter "systole_lease_refusals_total" "Heartbeats and joins refused because the lease had lapsed.",
        forwarded counter "systole_forwarded_total" "Heartbeats acknowledged on the word of the server that owns the session.",
        watchers gauge "systole_watchers" "Clients that wait for a group to change: event streams and long polls.",
        watch_events counter "systole_watch_events_total" "Events sent to event streams, each counted once for each stream.",
        watch_snapshots counter "systole_watch_snapshots_total" "Event streams that were sent a snapshot: new ones, and those too old to be resumed.",
        watch_dropped counter "systole_watchers_dropped_total" "Event streams ended because their client read too slowly.",
        watch_refused counter "systole_watchers_refused_total" "Watchers refused because the server had as many as it may have.",
        forwarded_in counter "systole_heartbeats_forwarded_in_total" "Heartbeats that another server sent on, for sessions held here.",
    }
}

counters! {
    /// What the Zab core counts.
    CoreCounters {
        short_circuits counter "systole_short_circuits_total" "Changes answered without a transaction.",
        reads counter "systole_core_reads_total" "Reads answered from the applied state.",
        applied counter "systole_transactions_applied_total" "Transactions applied since the start.",
        expired counter "systole_sessions_expired_total" "Sessions expired.",
        created counter "systole_sessions_created_total" "Sessions created.",
        closed counter "systole_sessions_closed_total" "Sessions ended by their client.",
        log_bytes counter "systole_log_bytes_total" "Payload bytes appended to the log.",
        syncs counter "systole_log_syncs_total" "Log syncs completed.",
        snapshots counter "systole_snapshots_total" "Snapshots completed.",
        segments gauge "systole_log_segments" "Log segments on disk.",
        groups gauge "systole_groups" "Groups known.",
        members gauge "systole_members_active" "Members with a live session.",
        inactive gauge "systole_members_inactive" "Members known by their config only.",
        watched gauge "systole_groups_watched" "Groups whose events are kept because somebody watches them, or did lately.",
        in_flight gauge "systole_proposals_in_flight" "Transactions proposed and not yet committed.",
        moves counter "systole_moves_total" "Sessions moved to this server.",
        orphans counter "systole_orphans_expired_total" "Sessions of lost owners whose expiry this server proposed as the leader.",
        garbled counter "systole_garbled_messages_total" "Messages of other servers that could not be read.",
        turns counter "systole_core_turns_total" "Turns of the core's loop.",
    }
}

/// A latency histogram in nanoseconds: recorded privately, published now and then.
pub struct Latency {
    private: Histogram<u64>,
    public: Arc<Published>,
}

/// The readers' side of a [`Latency`].
pub struct Published {
    name: &'static str,
    total: Mutex<Histogram<u64>>,
}

impl Latency {
    /// An empty histogram called `name`, a word without spaces or commas.
    #[must_use]
    pub fn new(name: &'static str) -> Latency {
        let public = Arc::new(Published {
            name,
            total: Mutex::new(empty()),
        });
        Latency {
            private: empty(),
            public,
        }
    }

    /// Records `count` values of `ns` nanoseconds. Values beyond a minute count as a minute.
    pub fn record(&mut self, ns: u64, count: u64) {
        self.private
            .saturating_record_n(ns.min(LATENCY_NS_MAX), count);
    }

    /// Hands what was recorded since the last call to the readers.
    pub fn publish(&mut self) {
        if self.private.is_empty() {
            return;
        }
        let mut total = self
            .public
            .total
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // Both are built with the same bounds, so adding cannot fail.
        let _ = total.add(&self.private);
        self.private.reset();
    }

    /// The readers' side.
    #[must_use]
    pub fn published(&self) -> Arc<Published> {
        Arc::clone(&self.public)
    }
}

fn empty() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_NS_MAX, LATENCY_DIGITS).expect("the bounds are valid")
}

/// Everything a page of metrics is made from.
#[derive(Default, Clone)]
pub struct Registry {
    /// One set for each shard, in the order of the shards.
    pub shards: Vec<Arc<ShardCounters>>,
    /// The core's set.
    pub core: Arc<CoreCounters>,
    /// Every histogram. Several may have the same name; they are added up.
    pub latencies: Vec<Arc<Published>>,
}

impl Registry {
    /// The Prometheus text form, version 0.0.4.
    #[must_use]
    pub fn prometheus(&self) -> String {
        let mut text = String::with_capacity(16 * 1024);
        let by_shard: Vec<Vec<u64>> = self.shards.iter().map(|set| set.values()).collect();
        for (row, (name, kind, help)) in ShardCounters::TABLE.iter().enumerate() {
            head(&mut text, name, kind, help);
            for (shard, values) in by_shard.iter().enumerate() {
                let value = Shown(name, values[row]);
                let _ = writeln!(text, "{name}{{shard=\"{shard}\"}} {value}");
            }
        }
        for ((name, kind, help), value) in CoreCounters::TABLE.iter().zip(self.core.values()) {
            head(&mut text, name, kind, help);
            let _ = writeln!(text, "{name} {}", Shown(name, value));
        }
        for (name, histogram) in self.merged() {
            let name = format!("systole_{name}_seconds");
            head(
                &mut text,
                &name,
                "summary",
                "Latency measured inside the server, seconds.",
            );
            for quantile in [0.5, 0.9, 0.99, 0.999, 0.9999] {
                let seconds = histogram.value_at_quantile(quantile) as f64 / 1e9;
                let _ = writeln!(text, "{name}{{quantile=\"{quantile}\"}} {seconds}");
            }
            let sum = histogram.mean() * histogram.len() as f64 / 1e9;
            let _ = writeln!(text, "{name}_sum {sum}\n{name}_count {}", histogram.len());
        }
        text
    }

    /// The histograms: a V2 interval log with one tagged line each, and below it, as comment
    /// lines that readers of such logs skip, the percentile table of each in microseconds.
    ///
    /// `started_s` is when the server started, in seconds since 1970; `uptime` how long ago.
    #[must_use]
    pub fn histograms(&self, started_s: u32, uptime: Duration) -> Vec<u8> {
        let merged = self.merged();
        let mut log = Vec::new();
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::from(started_s));
        let mut serializer = V2Serializer::new();
        // Writing into memory does not fail.
        if let Ok(mut writer) = IntervalLogWriterBuilder::new()
            .add_comment("systole latencies since the start, nanoseconds")
            .with_start_time(start)
            .begin_log_with(&mut log, &mut serializer)
        {
            for (name, histogram) in &merged {
                let tag = Tag::new(name);
                let _ = writer.write_histogram(histogram, Duration::ZERO, uptime, tag);
            }
        }
        let mut table = String::new();
        for (name, histogram) in &merged {
            percentiles(&mut table, name, histogram);
        }
        log.extend_from_slice(table.as_bytes());
        log
    }

    /// The published histograms, those of one name added up, in order of first appearance.
    fn merged(&self) -> Vec<(&'static str, Histogram<u64>)> {
        let mut merged: Vec<(&'static str, Histogram<u64>)> = Vec::new();
        for published in &self.latencies {
            let total = published
                .total
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            match merged.iter_mut().find(|(name, _)| *name == published.name) {
                Some((_, sum)) => {
                    let _ = sum.add(&*total);
                }
                None => merged.push((published.name, total.clone())),
            }
        }
        merged
    }
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

/// The usual percentile table, each line a comment.
fn percentiles(text: &mut String, name: &str, histogram: &Histogram<u64>) {
    let _ = writeln!(text, "# {name}, microseconds");
    let _ = writeln!(
        text,
        "#{:>12} {:>14} {:>12}",
        "Value", "Percentile", "TotalCount"
    );
    for at in histogram.iter_quantiles(2) {
        let value = at.value_iterated_to() as f64 / 1e3;
        let quantile = at.quantile_iterated_to();
        let count = histogram.count_between(0, at.value_iterated_to());
        let _ = writeln!(text, "#{value:>12.3} {quantile:>14.9} {count:>12}");
    }
    let _ = writeln!(
        text,
        "#[Mean = {:.3}, StdDeviation = {:.3}]\n#[Max = {:.3}, Total count = {}]",
        histogram.mean() / 1e3,
        histogram.stdev() / 1e3,
        histogram.max() as f64 / 1e3,
        histogram.len()
    );
}

/// A value as it is shown under its name: Prometheus wants times in seconds, and we count
/// them in milliseconds.
struct Shown<'a>(&'a str, u64);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shown(name, value) = *self;
        if name.trim_end_matches("_total").ends_with("_seconds") {
            write!(f, "{}.{:03}", value / 1_000, value % 1_000)
        } else {
            write!(f, "{value}")
        }
    }
}

/// The longest latency told apart: a minute, in nanoseconds.
const LATENCY_NS_MAX: u64 = 60_000_000_000;

/// Significant decimal digits kept by every histogram.
const LATENCY_DIGITS: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    fn registry() -> (Registry, Latency) {
        let latency = Latency::new("heartbeat");
        let registry = Registry {
            shards: vec![Arc::default(), Arc::default()],
            core: Arc::default(),
            latencies: vec![latency.published()],
        };
        (registry, latency)
    }

    #[test]
    fn counts_appear_by_shard_in_the_prometheus_text() {
        let (registry, mut latency) = registry();
        registry.shards[1].heartbeats.add(41);
        registry.shards[1].heartbeats.add(1);
        registry.core.members.set(7);
        latency.record(2_000_000, 3);
        latency.publish();
        let text = registry.prometheus();
        assert!(text.contains("systole_heartbeats_total{shard=\"0\"} 0\n"));
        assert!(text.contains("systole_heartbeats_total{shard=\"1\"} 42\n"));
        assert!(text.contains("# TYPE systole_members_active gauge\nsystole_members_active 7\n"));
        assert!(text.contains("systole_heartbeat_seconds_count 3\n"));
    }

    #[test]
    fn times_are_shown_in_seconds() {
        let (registry, _) = registry();
        registry.shards[0].lease_left_ms.set(2_050);
        registry.shards[0].stall_ms.set(7);
        let text = registry.prometheus();
        assert!(text.contains("systole_lease_left_seconds{shard=\"0\"} 2.050\n"));
        assert!(text.contains("systole_stall_seconds_total{shard=\"0\"} 0.007\n"));
    }

    #[test]
    fn no_two_metrics_share_a_name() {
        let tables = ShardCounters::TABLE.iter().chain(CoreCounters::TABLE);
        let mut names: Vec<_> = tables.map(|(name, ..)| name).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn what_is_recorded_is_seen_once_it_is_published_and_once_only() {
        let (registry, mut latency) = registry();
        latency.record(1_000, 5);
        assert_eq!(registry.merged()[0].1.len(), 0);
        latency.publish();
        latency.publish();
        assert_eq!(registry.merged()[0].1.len(), 5);
    }

    #[test]
    fn the_interval_log_reads_back_to_what_was_recorded() {
        let (registry, mut latency) = registry();
        latency.record(5_000, 2);
        latency.record(u64::MAX, 1);
        latency.publish();
        let log = registry.histograms(1_800_000_000, Duration::from_secs(9));
        let text = String::from_utf8(log.clone()).unwrap();
        assert!(text.contains("Total count = 3"), "{text}");
        let mut read = 0;
        for entry in IntervalLogIterator::new(&log) {
            let Ok(LogEntry::Interval(interval)) = entry else {
                continue;
            };
            let bytes = base64(interval.encoded_histogram());
            let histogram: Histogram<u64> =
                Deserializer::new().deserialize(&mut &bytes[..]).unwrap();
            assert_eq!(interval.tag().unwrap().as_str(), "heartbeat");
            assert_eq!(histogram.len(), 3);
            assert_eq!(histogram.count_at(5_000), 2);
            read += 1;
        }
        assert_eq!(read, 1);
    }

    /// Decodes standard base64, for the test alone.
    fn base64(text: &str) -> Vec<u8> {
        let value = |b: u8| match b {
            b'A'..=b'Z' => b - b'A',
            b'a'..=b'z' => b - b'a' + 26,
            b'0'..=b'9' => b - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => 0,
        };
        let mut bytes = Vec::new();
        for four in text.as_bytes().chunks(4) {
            let word = four
                .iter()
                .fold(0_u32, |word, b| (word << 6) | u32::from(value(*b)));
            let padding = four.iter().filter(|b| **b == b'=').count();
            bytes.extend_from_slice(&word.to_be_bytes()[1..4 - padding]);
        }
        bytes
    }
}
