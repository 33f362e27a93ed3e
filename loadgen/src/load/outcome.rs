//! What a thread shows while it runs and hands back at its end.

use crate::plan::Known;
use crate::recorder::Interval;
use crate::stalls::Stall;
use crate::verify::Faults;
use std::sync::atomic::AtomicU64;

/// Where a thread's run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub(crate) enum Phase {
    /// Opening connections.
    Opening,
    /// Joining.
    Joining,
    /// Beating, not yet counted.
    Warming,
    /// Beating, counted.
    Measuring,
    /// Renewing for the last time those who are to expire together.
    Dooming,
    /// Watching them expire.
    Expiring,
    /// Waiting for the last answers.
    Draining,
}

/// What a thread shows while it runs.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// The [`Phase`], as its number.
    pub(crate) phase: AtomicU64,
    /// Sessions joined.
    pub(crate) joined: AtomicU64,
    /// Beats answered.
    pub(crate) beats: AtomicU64,
    /// Faults.
    pub(crate) faults: AtomicU64,
    /// Members seen to be gone.
    pub(crate) gone: AtomicU64,
}

/// What a thread counted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    /// Joins answered 2xx, rejoins included.
    pub(crate) joins: u64,
    /// Rejoins among them.
    pub(crate) rejoins: u64,
    /// Beats answered 2xx, all told.
    pub(crate) beats: u64,
    /// Beats answered in the measured time.
    pub(crate) beats_measured: u64,
    /// Leaves answered.
    pub(crate) leaves: u64,
    /// Members that stopped beating.
    pub(crate) died: u64,
    /// Of those, seen to be gone.
    pub(crate) expired: u64,
    /// Beats the generator sent after the deadline, which the server rightly refused.
    pub(crate) late_by_us: u64,
    /// Answers checked.
    pub(crate) checked: u64,
    /// Connections that ended.
    pub(crate) disconnects: u64,
    /// Nanoseconds from the first join until all had joined.
    pub(crate) joining_ns: u64,
    /// Length of the measured time.
    pub(crate) measured_ns: u64,
    /// CPU time of the server in the measured time, and of this thread.
    pub(crate) cpu_ns: (u64, u64),
    /// Of the server's, ticks in user space and in the kernel.
    pub(crate) server_ticks: (u64, u64),
    /// CPU time of the server while joining.
    pub(crate) joining_cpu_ns: u64,
    /// A mass expiry: nanoseconds from the first deadline until the last was gone, and
    /// between the first and the last deadline.
    pub(crate) mass_ns: Option<(u64, u64)>,
    /// Bytes sent and received.
    pub(crate) bytes: (u64, u64),
}

/// What a thread hands back.
pub(crate) struct Outcome {
    /// Counters.
    pub(crate) counts: Counts,
    /// Faults.
    pub(crate) faults: Faults,
    /// Latencies.
    pub(crate) intervals: Vec<Interval>,
    /// Stretches of the measured time in which beats waited long.
    pub(crate) stalls: Vec<Stall>,
    /// The sessions as they stand, and the groups' versions.
    pub(crate) known: Known,
    /// Why the run ended before its end.
    pub(crate) broken_off: Option<String>,
}
