//! The maximum of everything that could grow: queues, buffers, batches, tables.
//!
//! A limit is a promise to the rest of the server: whoever fills the thing knows what happens
//! when it is full, and nobody waits in a queue without end. The defaults are for production;
//! tests shrink single fields to reach the edges.

use crate::time::Millis;

/// Every maximum, with what happens when it is reached.
///
/// Names end in the unit. The relations between fields are proved for the defaults at
/// compile time, below; code that changes a field keeps them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a request's line and headers together. Longer: 431 and close.
    pub head_bytes_max: usize,
    /// Bytes of the request target alone. Longer: 414 and close.
    pub target_bytes_max: usize,
    /// Header fields of one request. More: 431 and close.
    pub headers_max: usize,
    /// Bytes of a body that is a config. Longer: 413, and close if the body was not read.
    pub config_bytes_max: usize,
    /// Bytes of the body of `POST /-/heartbeats`. Longer: 413 and close.
    pub batch_bytes_max: usize,
    /// Requests of one connection that wait for the core. At the limit the shard stops
    /// reading from that connection until one is answered; nothing is refused.
    pub pipelined_max: usize,
    /// Bytes of answers that a connection has not taken yet. At the limit the shard stops
    /// reading from that connection until the client has drained them.
    pub output_bytes_max: usize,
    /// Bytes of one document that a shard renders before it turns to other connections.
    pub render_bytes_max: usize,
    /// How long a connection may stay without a byte and without an outstanding request
    /// before it is closed. A client that beats less often than this opens a connection for
    /// each beat and loses nothing but the handshake.
    pub idle_timeout: Millis,
    /// From the first byte of a request to its last. Slower: 408 and close.
    pub request_timeout: Millis,
    /// How long a connection may refuse to take a pending answer before it is cut.
    pub write_timeout: Millis,
    /// How long a request may wait for the core before it is answered 503 (its transaction
    /// may still commit: the client asks again).
    pub core_timeout: Millis,
    /// From SIGTERM to the moment at which unanswered connections are cut.
    pub drain_timeout: Millis,
    /// Length of the queue of connections that the kernel has accepted and we have not. A
    /// storm of reconnects overflows a short one and each loser waits a second; the kernel
    /// caps this at `net.core.somaxconn`.
    pub backlog: u32,
    /// Descriptors kept back from connections: log, snapshots, rings, listeners. What
    /// `RLIMIT_NOFILE` leaves is shared among the shards; a connection too many is accepted
    /// and closed at once, so that it does not hang in the backlog.
    pub files_reserved: u32,
    /// Sessions on one shard. At the limit a join is answered 503.
    pub sessions_per_shard_max: usize,
    /// Groups of the ensemble. At the limit a change that would create one is answered 507.
    pub groups_max: usize,
    /// Members of one group, active and inactive. At the limit as for groups.
    pub members_per_group_max: usize,
    /// Requests queued from all shards to the core. A shard that finds the queue full
    /// answers 503 to writes; heartbeats do not pass here.
    pub core_queue_max: usize,
    /// Requests that the core takes from the queue before it appends what it has and starts
    /// the sync. Bounds the latency of the first in the batch, not the throughput.
    pub core_batch_max: usize,
    /// Outcomes queued from the core to one shard. At the limit the core sends to the other
    /// shards first and stops taking requests until this one has drained: it cannot drop an
    /// outcome, because someone was promised an answer.
    pub reply_queue_max: usize,
    /// Outcomes in one message from the core to a shard.
    pub reply_batch_max: usize,
    /// Sessions that one expiry transaction ends. The rest follows in the next one.
    pub expire_batch_max: usize,
    /// Wheel entries a shard looks at before it reads its sockets again.
    pub wheel_entries_max: usize,
    /// Socket events a shard handles before it looks at its queues and its wheel again.
    pub events_max: usize,
    /// Bytes of one log segment; preallocated, so this much must be free on the disk.
    pub segment_bytes: usize,
    /// Bytes logged since the last snapshot that make the core start the next one.
    pub snapshot_log_bytes: u64,
    /// Snapshots kept, with the log that follows the oldest of them.
    pub snapshots_kept: usize,
    /// Entries on one page of a listing, and members shown in the answer to a join; a larger
    /// `limit` is lowered to this.
    pub page_max: usize,
    /// A shard's loop that was away for longer than this reads its sockets before it turns
    /// the wheel, and makes good the gap.
    pub stall_min: Millis,
    /// A loop that shows no progress for this long while it has work is taken for hung, and
    /// the process aborts: a server that hangs is worse than one that restarts.
    pub watchdog_timeout: Millis,
}

impl Limits {
    /// The limits of a production server.
    pub const DEFAULT: Limits = Limits {
        head_bytes_max: 16 * KIB,
        target_bytes_max: 8 * KIB,
        headers_max: 64,
        config_bytes_max: 64 * KIB,
        batch_bytes_max: MIB,
        pipelined_max: 128,
        output_bytes_max: MIB,
        render_bytes_max: 256 * KIB,
        idle_timeout: Millis::from_secs(300),
        request_timeout: Millis::from_secs(10),
        write_timeout: Millis::from_secs(30),
        core_timeout: Millis::from_secs(10),
        drain_timeout: Millis::from_secs(5),
        backlog: 8_192,
        files_reserved: 128,
        sessions_per_shard_max: 32_000_000,
        groups_max: 4_000_000,
        members_per_group_max: 16_000_000,
        core_queue_max: 65_536,
        core_batch_max: 4_096,
        reply_queue_max: 1_024,
        reply_batch_max: 4_096,
        expire_batch_max: 4_096,
        wheel_entries_max: 16_384,
        events_max: 128,
        segment_bytes: 64 * MIB,
        snapshot_log_bytes: 256 * MIB as u64,
        snapshots_kept: 2,
        page_max: 1_000,
        stall_min: Millis(750),
        watchdog_timeout: Millis::from_secs(10),
    };
}

impl Default for Limits {
    fn default() -> Limits {
        Limits::DEFAULT
    }
}

const KIB: usize = 1_024;
const MIB: usize = 1_024 * KIB;

// The relations that the code relies on, proved for the defaults.
const _: () = {
    let limits = Limits::DEFAULT;
    // A target that is refused as too long must have been read as part of a head.
    assert!(limits.target_bytes_max < limits.head_bytes_max);
    // A join may carry the longest config, and both travel in one read buffer.
    assert!(limits.config_bytes_max <= limits.batch_bytes_max);
    // One rendered piece must fit what a connection may buffer.
    assert!(limits.render_bytes_max < limits.output_bytes_max);
    // A batch must come from the queue, and its transactions must fit one segment even if
    // each carries a config of the longest kind.
    assert!(limits.core_batch_max <= limits.core_queue_max);
    assert!(limits.config_bytes_max + limits.head_bytes_max < limits.segment_bytes);
    // An expiry transaction names each session: group and member of 255 bytes, id and term.
    assert!(limits.expire_batch_max * (2 * 256 + 32) < limits.segment_bytes);
    // A snapshot is worth its cost only after several segments.
    assert!(limits.snapshot_log_bytes > limits.segment_bytes as u64);
    // The newest snapshot may prove unreadable; the one before it must still be there.
    assert!(limits.snapshots_kept >= 2);
    // A client that is being served must not look idle.
    assert!(limits.idle_timeout.0 > limits.request_timeout.0);
    assert!(limits.idle_timeout.0 > limits.core_timeout.0);
    // A stall is made good long before it is taken for a hang.
    assert!(limits.stall_min.0 * 4 < limits.watchdog_timeout.0);
};
