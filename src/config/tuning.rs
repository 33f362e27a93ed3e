//! Settings that change what the same work costs, and nothing that is promised.
//!
//! They are keys of the `[tuning]` table of the `--config` file, and environment variables; they
//! have no flags, for the defaults are meant to be right. `tuning/` measures each of them.

use super::{ConfigError, Given, Limits, value};

/// How a server uses its machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// How long the core waits for more after the first question of a batch, microseconds, if
    /// no sync is out; at most [`BATCH_WINDOW_US_MAX`]. With 0 a batch is what comes in while
    /// the sync before it lasts.
    pub batch_window_us: u32,
    /// How long a thread that has just had something to do looks for more before it sleeps,
    /// microseconds; at most [`BUSY_POLL_US_MAX`]. It uses up its core meanwhile.
    pub busy_poll_us: u32,
    /// Whether the kernel is asked for huge pages where the sessions lie.
    pub huge_pages: bool,
    /// Entries of an executor's ring, [`RING_DEPTH_MIN`] to [`RING_DEPTH_MAX`].
    pub ring_depth: u32,
    /// MiB of a log segment, [`SEGMENT_MIB_MIN`] to [`SEGMENT_MIB_MAX`]. Counts for segments
    /// that are made from now on.
    pub segment_mib: u32,
    /// KiB the kernel may keep of a client's connection in each direction,
    /// [`SOCKET_BUFFER_KIB_MIN`] to [`SOCKET_BUFFER_KIB_MAX`]; 0 leaves it to the kernel.
    pub socket_buffer_kib: u32,
}

impl Tuning {
    /// Bytes of a log segment; preallocated, so this much must be free on the disk.
    #[must_use]
    pub fn segment_bytes(&self) -> u32 {
        self.segment_mib << 20
    }

    /// Reads every value with `find`, which looks a setting up by its name.
    ///
    /// # Errors
    /// The first value that is wrong.
    pub(super) fn read(find: impl Fn(&'static str) -> Given) -> Result<Tuning, ConfigError> {
        let within = |key, least: u32, most: u32| {
            find(key).read(|text| value::whole_number(text, least, most))
        };
        Ok(Tuning {
            batch_window_us: within("tuning.batch-window-us", 0, BATCH_WINDOW_US_MAX)?,
            busy_poll_us: within("tuning.busy-poll-us", 0, BUSY_POLL_US_MAX)?,
            huge_pages: find("tuning.huge-pages").read(value::on_or_off)?,
            ring_depth: within("tuning.ring-depth", RING_DEPTH_MIN, RING_DEPTH_MAX)?,
            segment_mib: within("tuning.segment-mib", SEGMENT_MIB_MIN, SEGMENT_MIB_MAX)?,
            socket_buffer_kib: find("tuning.socket-buffer-kib").read(|text| match text {
                "0" => Ok(0),
                _ => value::whole_number(text, SOCKET_BUFFER_KIB_MIN, SOCKET_BUFFER_KIB_MAX)
                    .map_err(|why| format!("{why}, or 0 to leave it to the kernel")),
            })?,
        })
    }
}

/// Every setting of the table and its default.
pub const TUNING_KEYS: [(&str, Option<&str>); 6] = [
    ("tuning.batch-window-us", Some("0")),
    ("tuning.busy-poll-us", Some("0")),
    ("tuning.huge-pages", Some("on")),
    ("tuning.ring-depth", Some("256")),
    ("tuning.segment-mib", Some("64")),
    ("tuning.socket-buffer-kib", Some("0")),
];

/// The longest batch window. The core hears no other server meanwhile, and a ping that waits
/// so long still comes in time.
pub const BATCH_WINDOW_US_MAX: u32 = 5_000;
/// The longest busy polling: past a millisecond the sleep costs nothing beside the wait.
pub const BUSY_POLL_US_MAX: u32 = 1_000;
/// The fewest entries of a ring: a timer and the waits for 15 other servers.
pub const RING_DEPTH_MIN: u32 = 64;
/// The most entries of a ring.
pub const RING_DEPTH_MAX: u32 = 4_096;
/// The shortest segment: what is logged between two snapshots fits a few.
pub const SEGMENT_MIB_MIN: u32 = 32;
/// The longest segment that the log takes.
pub const SEGMENT_MIB_MAX: u32 = 1_024;
const _: () = {
    let limits = Limits::DEFAULT;
    let segment = (SEGMENT_MIB_MIN as usize) << 20;
    // A batch of the longest transactions, each with a config of 64 KiB, may need several
    // segments; one transaction must fit one.
    assert!(segment > 16 * limits.body_bytes_max);
};
/// The smallest buffer of a connection: a request's head and half as much again.
pub const SOCKET_BUFFER_KIB_MIN: u32 = 24;
/// The largest buffer of a connection.
pub const SOCKET_BUFFER_KIB_MAX: u32 = 16_384;
