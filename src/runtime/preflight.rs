//! What the machine must offer, checked before anything is started.
//!
//! glommio finds out late and says little: with io_uring forbidden its executor thread
//! panics, with too little locked memory its join fails. So we ask first, and name the knob.

use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::io_uring::{io_uring_params, io_uring_setup};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::system::uname;
use rustix::thread::sched_getaffinity;

use crate::config::Shards;

/// Something the machine does not offer; the text says what, and how to mend it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unfit(pub String);

/// What the machine offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// The processors this process may run on, ascending; never empty.
    pub cpus: Vec<usize>,
    /// How many descriptors the process may have open.
    pub descriptors: u64,
}

/// Looks at the machine, raising the soft limit of descriptors to the hard one.
///
/// # Errors
/// [`Unfit`] if io_uring is refused, or too few descriptors may be opened, or too little memory
/// locked for a core and these shards, whose rings have `ring_depth` entries.
pub fn check(shards: Shards, ring_depth: u32) -> Result<Machine, Unfit> {
    let cpus = cpus();
    let limit = getrlimit(Resource::Memlock).current;
    check_memlock(limit, shards.count(cpus.len()), ring_depth, counts_rings())?;
    check_io_uring(probe_io_uring())?;
    let descriptors = raise_descriptors();
    if descriptors < DESCRIPTORS_MIN {
        return Err(Unfit(format!(
            "only {descriptors} file descriptors are allowed and systole needs {DESCRIPTORS_MIN}: \
             raise the limit with `ulimit -n` or LimitNOFILE= (tuning/descriptors.sh)"
        )));
    }
    Ok(Machine { cpus, descriptors })
}

fn cpus() -> Vec<usize> {
    let Ok(set) = sched_getaffinity(None) else {
        return vec![0];
    };
    let cpus: Vec<usize> = (0..CPUS_MAX).filter(|cpu| set.is_set(*cpu)).collect();
    if cpus.is_empty() { vec![0] } else { cpus }
}

fn raise_descriptors() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let wanted = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    // Refused or not, what holds now is read again below.
    let _ = setrlimit(Resource::Nofile, wanted);
    getrlimit(Resource::Nofile)
        .current
        .unwrap_or(u64::from(u32::MAX))
}

fn check_memlock(
    limit: Option<u64>,
    shards: usize,
    ring_depth: u32,
    counts_rings: bool,
) -> Result<(), Unfit> {
    let needed = locked_bytes(shards, ring_depth, counts_rings);
    match limit {
        Some(bytes) if bytes < needed => Err(Unfit(format!(
            "only {} KiB of memory may be locked and {} executors need {} KiB: raise the limit with \
             `ulimit -l` or LimitMEMLOCK= (tuning/memlock.sh)",
            bytes / 1024,
            shards + 1,
            needed.div_ceil(1024)
        ))),
        _ => Ok(()),
    }
}

/// What the limit of locked memory must allow: an executor for each shard and one for the core.
///
/// Where the kernel does not count rings, the buffers alone are locked; glommio goes on without
/// them when they do not fit, and they are not used here.
fn locked_bytes(shards: usize, ring_depth: u32, counts_rings: bool) -> u64 {
    let executors = shards as u64 + 1;
    let ring = ring_bytes(ring_depth) + IO_MEMORY_BYTES as u64;
    let rings = executors * RINGS_PER_EXECUTOR * ring;
    if counts_rings {
        rings.max(MEMLOCK_BYTES_MIN)
    } else {
        MEMLOCK_BYTES_MIN
    }
}

/// What the kernel allocates for a ring: one piece for both queues' indices and the
/// completions, one for the submissions, each of them a power of two of pages.
fn ring_bytes(depth: u32) -> u64 {
    let entries = u64::from(depth.next_power_of_two());
    let piece = |bytes: u64| bytes.div_ceil(PAGE_BYTES).next_power_of_two() * PAGE_BYTES;
    // There are twice as many completions, of 16 bytes, and an index of 4 for each submission.
    piece(RING_HEAD_BYTES + entries * (2 * 16 + 4)) + piece(entries * 64)
}

/// Whether this kernel counts rings against the limit of locked memory. Since 5.12 they are
/// part of a control group's memory instead; a kernel that we cannot read is taken for a new one.
fn counts_rings() -> bool {
    uname().release().to_str().is_ok_and(is_before_5_12)
}

fn is_before_5_12(release: &str) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let mut next = || numbers.next()?.parse::<u32>().ok();
    next().zip(next()).is_some_and(|version| version < (5, 12))
}

fn probe_io_uring() -> Result<(), Errno> {
    let mut params = io_uring_params::default();
    // SAFETY: the kernel reads and fills `params`, which lives until the call returns, and
    // hands back a descriptor that nobody else owns. No ring is mapped and none is used: the
    // descriptor is closed at once.
    let ring: Result<OwnedFd, Errno> = unsafe { io_uring_setup(1, &mut params) };
    ring.map(drop)
}

fn check_io_uring(outcome: Result<(), Errno>) -> Result<(), Unfit> {
    let advice = match outcome {
        Ok(()) => return Ok(()),
        Err(Errno::NOSYS) => "this kernel has no io_uring: systole needs Linux 5.8 or later",
        Err(Errno::PERM | Errno::ACCESS) => {
            "io_uring is forbidden here: allow it in the container's seccomp profile, and set \
             kernel.io_uring_disabled=0"
        }
        Err(Errno::NOMEM) => {
            "the kernel has no memory to lock for io_uring: raise `ulimit -l` or LimitMEMLOCK="
        }
        Err(error) => return Err(Unfit(format!("io_uring cannot be set up: {error}"))),
    };
    Err(Unfit(advice.to_owned()))
}

/// Locked memory an executor asks for its buffers, of which each ring is told; glommio's least.
pub(super) const IO_MEMORY_BYTES: usize = 64 * 1024;
/// glommio refuses to start an executor if the limit, whatever is used of it, is below.
const MEMLOCK_BYTES_MIN: u64 = 512 * 1024;
/// One to wait on, one for what is urgent, one that is polled.
const RINGS_PER_EXECUTOR: u64 = 3;
/// What precedes the completions, rounded up.
const RING_HEAD_BYTES: u64 = 512;
/// The pages that the kernel counts.
const PAGE_BYTES: u64 = 4096;
/// Enough for the log, the executors and a handful of clients.
const DESCRIPTORS_MIN: u64 = 64;
/// As many processors as the kernel's static set can name.
const CPUS_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_fit() {
        let machine = check(Shards::Auto, 256).unwrap();
        assert!(!machine.cpus.is_empty());
        assert!(machine.descriptors >= DESCRIPTORS_MIN);
    }

    #[test]
    fn too_little_locked_memory_names_the_limit() {
        let text = check_memlock(Some(64 * 1024), 1, 256, false).unwrap_err();
        let text = text.to_string();
        assert!(
            text.contains("64 KiB") && text.contains("512 KiB"),
            "{text}"
        );
        assert!(text.contains("ulimit -l"), "{text}");
        assert_eq!(check_memlock(None, 64, 4_096, true), Ok(()), "unlimited");
    }

    #[test]
    fn every_shard_and_the_core_lock_three_rings_and_their_buffers_where_they_are_counted() {
        // 256 entries: 9,728 bytes in 4 pages, and 16 KiB of submissions.
        assert_eq!(ring_bytes(256), 32 * 1024);
        assert_eq!(ring_bytes(129), ring_bytes(256));
        assert_eq!(ring_bytes(4_096), (256 + 256) * 1024);
        let executor = 3 * (32 + 64) * 1024;
        assert_eq!(locked_bytes(1, 256, true), 2 * executor);
        assert_eq!(locked_bytes(8, 256, true), 9 * executor);
        assert_eq!(
            check_memlock(Some(9 * executor), 8, 256, true),
            Ok(()),
            "exactly enough"
        );
        assert!(check_memlock(Some(9 * executor - 1), 8, 256, true).is_err());
        assert!(check_memlock(Some(9 * executor), 8, 4_096, true).is_err());
    }

    #[test]
    fn where_rings_are_not_counted_more_shards_need_no_higher_limit() {
        assert_eq!(check_memlock(Some(512 * 1024), 64, 4_096, false), Ok(()));
        assert!(check_memlock(Some(512 * 1024 - 1), 1, 64, false).is_err());
        assert_eq!(locked_bytes(1, 64, true), 512 * 1024, "glommio's least");
    }

    #[test]
    fn kernels_before_5_12_count_rings() {
        for (release, counts) in [
            ("5.8.0", true),
            ("5.11.22-generic", true),
            ("4.18.0-553.el8", true),
            ("5.12.0", false),
            ("6.1.0-18-amd64", false),
            ("10.0", false),
            ("something", false),
        ] {
            assert_eq!(is_before_5_12(release), counts, "{release}");
        }
    }

    #[test]
    fn a_refused_ring_ends_in_advice() {
        for (errno, advice) in [
            (Errno::PERM, "seccomp"),
            (Errno::NOSYS, "Linux 5.8"),
            (Errno::NOMEM, "ulimit -l"),
            (Errno::MFILE, "cannot be set up"),
        ] {
            let text = check_io_uring(Err(errno)).unwrap_err().to_string();
            assert!(text.contains(advice), "{errno:?}: {text}");
        }
    }
}
