//! The maximum of what could grow while a server runs: queues, buffers, batches, tables.
//!
//! A limit is a promise to the rest of the server: whoever fills the thing knows what happens
//! when it is full, and nobody waits in a queue without end. The defaults are for production;
//! tests shrink single fields to reach the edges.
//!
//! What belongs to a format or an algorithm is a constant beside it: names and configs in
//! `group` and `http`, the wheel in `session`, segments in `log`, turns of the loop in
//! `runtime::sockets`.

use crate::time::Millis;

/// Every maximum a server is wired with, and what happens when it is reached.
///
/// Names end in the unit. The relations between fields are proved for the defaults at
/// compile time, below; code that changes a field keeps them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a request's line and headers together. Longer: 431 and close.
    pub head_bytes_max: usize,
    /// Bytes of the request target alone: two names and `/config`, every byte escaped, and a
    /// cursor. Longer: 414 and close.
    pub target_bytes_max: usize,
    /// Header fields of one request. More: 431 and close.
    pub headers_max: usize,
    /// Bytes of any body, which only a batch of heartbeats comes near. Longer: 413 and close.
    pub body_bytes_max: usize,
    /// Answers of one connection that may be under way. At the limit the shard stops reading
    /// from that connection until one is given; nothing is refused.
    pub pipelined_max: usize,
    /// Clients of the server that may wait for groups to change: long polls and event streams
    /// together. At the limit one more is answered 503.
    pub watchers_max: u64,
    /// Bytes of answers that a connection has not taken yet. At the limit the shard stops
    /// reading from that connection until the client has drained them.
    pub output_bytes_max: usize,
    /// From the first byte of a request to its last. Slower: 408 and close.
    pub request_timeout: Millis,
    /// How long a connection may stay without a byte and without an answer under way before it
    /// is closed. A client that beats less often than this opens a connection for each beat
    /// and loses nothing but the handshake.
    pub idle_timeout: Millis,
    /// Descriptors kept back from connections: log, snapshots, rings, listeners. What
    /// `RLIMIT_NOFILE` leaves is shared among the shards.
    pub files_reserved: u64,
    /// Sessions on one shard. At the limit a join is answered 503.
    pub sessions_per_shard_max: u32,
    /// Questions of one shard to the core that may be unanswered. At the limit documents are
    /// refused with 503 and searches for a session wait; plain heartbeats do not pass here.
    pub asks_per_shard_max: usize,
    /// The same, from which on changes are refused with 503, so that a join is answered soon
    /// or refused at once: a core that does 100,000 a second has this many behind it in 80 ms.
    pub changes_per_shard_max: usize,
    /// Transactions that the core appends before it starts a sync. Bounds the wait of the
    /// first in the batch, not the throughput: the next batch fills while this one syncs.
    pub core_batch_max: usize,
    /// Messages that may wait for the core. A shard that finds the queue full keeps what it
    /// has to say for its next turn.
    pub core_mail_max: usize,
    /// Messages that may wait for a shard. At the limit the core waits until the shard has
    /// taken some: an outcome cannot be dropped, because someone was promised an answer.
    pub shard_mail_max: usize,
    /// Bytes that may wait for another server. At the limit the connection to it is dropped,
    /// and it comes again as one that was away.
    pub peer_queue_bytes_max: usize,
    /// Messages that may wait for another server; the same happens at the limit.
    pub peer_queue_frames_max: usize,
    /// Bytes logged since the last snapshot that make the core start the next one; a quarter of
    /// it while little is logged. With it the length of a replay is bounded.
    pub snapshot_log_bytes: u64,
    /// Snapshots kept, with the log that follows the oldest of them.
    pub snapshots_kept: usize,
    /// A turn of a shard's loop that comes later than this is a stall: the sockets are read
    /// before the wheel turns, and the gap is made good.
    pub stall_min: Millis,
}

impl Limits {
    /// The limits of a production server.
    pub const DEFAULT: Limits = Limits {
        head_bytes_max: 16 * KIB,
        target_bytes_max: 4 * KIB,
        headers_max: 64,
        body_bytes_max: MIB,
        pipelined_max: 128,
        watchers_max: 65_536,
        output_bytes_max: MIB,
        request_timeout: Millis::from_secs(10),
        idle_timeout: Millis::from_secs(300),
        files_reserved: 128,
        sessions_per_shard_max: 32_000_000,
        asks_per_shard_max: 65_536,
        changes_per_shard_max: 8_192,
        core_batch_max: 1_024,
        core_mail_max: 4_096,
        shard_mail_max: 4_096,
        peer_queue_bytes_max: 128 * MIB,
        peer_queue_frames_max: 1 << 20,
        snapshot_log_bytes: 64 * MIB as u64,
        snapshots_kept: 2,
        stall_min: Millis(50),
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
    // A connection that may not be read further must have had room for one whole request.
    assert!(limits.body_bytes_max <= limits.output_bytes_max);
    // A client that is sending must not look idle before it looks slow.
    assert!(limits.idle_timeout.0 > limits.request_timeout.0);
    // A connection alone must not be able to use up all questions of its shard.
    assert!(limits.pipelined_max < limits.changes_per_shard_max);
    // Changes must leave room for the searches of beats.
    assert!(limits.changes_per_shard_max < limits.asks_per_shard_max);
    // What follows the last snapshot is replayed at a start, at a microsecond or two for each
    // of about 64 bytes: a second's worth at most, unless the snapshots themselves are longer.
    assert!(limits.snapshot_log_bytes <= 64 * MIB as u64);
    // The newest snapshot may prove unreadable; the one before it must still be there.
    assert!(limits.snapshots_kept >= 2);
};
