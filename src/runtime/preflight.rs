//! What the machine must offer, checked before anything is started.
//!
//! glommio finds out late and says little: with io_uring forbidden its executor thread
//! panics, with too little locked memory its join fails. So we ask first, and name the knob.

use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::io_uring::{io_uring_params, io_uring_setup};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::sched_getaffinity;

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
/// [`Unfit`] if io_uring is refused, or too little memory may be locked or too few
/// descriptors opened for `executors` executors.
pub fn check(executors: usize) -> Result<Machine, Unfit> {
    check_memlock(getrlimit(Resource::Memlock).current, executors)?;
    check_io_uring(probe_io_uring())?;
    let descriptors = raise_descriptors();
    if descriptors < DESCRIPTORS_MIN {
        return Err(Unfit(format!(
            "only {descriptors} file descriptors are allowed and systole needs {DESCRIPTORS_MIN}: \
             raise the limit with `ulimit -n` or LimitNOFILE= (tuning/descriptors.sh)"
        )));
    }
    Ok(Machine {
        cpus: cpus(),
        descriptors,
    })
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

fn check_memlock(limit: Option<u64>, executors: usize) -> Result<(), Unfit> {
    let needed = MEMLOCK_BYTES_PER_EXECUTOR * executors as u64;
    match limit {
        Some(bytes) if bytes < needed => Err(Unfit(format!(
            "only {} KiB of memory may be locked and {executors} executors need {} KiB: raise the \
             limit with `ulimit -l` or LimitMEMLOCK= (tuning/memlock.sh)",
            bytes / 1024,
            needed / 1024
        ))),
        _ => Ok(()),
    }
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

/// glommio refuses to start an executor with less.
const MEMLOCK_BYTES_PER_EXECUTOR: u64 = 512 * 1024;
/// Enough for the log, the executors and a handful of clients.
const DESCRIPTORS_MIN: u64 = 64;
/// As many processors as the kernel's static set can name.
const CPUS_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_fit() {
        let machine = check(2).unwrap();
        assert!(!machine.cpus.is_empty());
        assert!(machine.descriptors >= DESCRIPTORS_MIN);
    }

    #[test]
    fn too_little_locked_memory_names_the_limit() {
        let text = check_memlock(Some(64 * 1024), 2).unwrap_err().to_string();
        assert!(
            text.contains("64 KiB") && text.contains("1024 KiB"),
            "{text}"
        );
        assert!(text.contains("ulimit -l"), "{text}");
        assert_eq!(check_memlock(Some(1024 * 1024), 2), Ok(()));
        assert_eq!(check_memlock(None, 64), Ok(()), "unlimited");
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
