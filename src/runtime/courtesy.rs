//! Executors that share a processor, and take turns on it that are shorter than the kernel's.
//!
//! With fewer processors than executors the core runs where a shard does. The kernel would let
//! each of them go on for its slice, and looks at the clock only with its tick: 4 ms on many
//! machines, for which the beats of the living would wait while a million of the dead are
//! buried. So both ask for short slices, which lets whoever wakes up run at once, and the core
//! offers the processor itself between two small pieces of its work, and once it has told a
//! shard something: that one would wait until the core's executor has put itself to rest.

use rustix::thread::sched_yield;

use super::clock;

/// Asks the kernel for short slices for this thread, and those it begins, and for a smaller
/// share than others have if it `yields`. Kernels before 6.12 know no slices and heed the share
/// alone, and one that refuses leaves everything as it is.
///
/// The share is for the core beside a shard: without it the kernel sees to it that each has half
/// of the processor, so the core is let go on for milliseconds after the shard had more.
pub(super) fn take_short_slices(yields: bool) {
    // Whoever started the server may have made it nicer, and only the system may undo that.
    let now = attributes();
    let attributes = SchedAttr {
        size: size_of::<SchedAttr>() as u32,
        nice: (now.nice + if yields { YIELDING_NICE } else { 0 }).min(NICE_MAX),
        runtime_ns: SLICE_NS,
        ..SchedAttr::default()
    };
    // SAFETY: the kernel reads `size` bytes of a structure that outlives the call and has the
    // layout that the system call documents; 0 is the calling thread, and no flags are given.
    unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
}

/// How this thread is scheduled; all zero if the kernel does not tell.
fn attributes() -> SchedAttr {
    let mut attributes = SchedAttr::default();
    let size = size_of::<SchedAttr>();
    // SAFETY: the kernel writes no more than `size` bytes to a structure that outlives the
    // call; 0 is the calling thread.
    unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, size, 0) };
    attributes
}

/// When a thread last offered its processor to others.
#[derive(Default)]
pub(super) struct Courtesy {
    offered_ns: u64,
}

impl Courtesy {
    /// Lets whoever waits for this processor have it, unless they had it a moment ago. Costs a
    /// system call if nobody waits.
    pub(super) fn give_way_in_time(&mut self) {
        if clock::now_ns().saturating_sub(self.offered_ns) >= STRETCH_NS {
            sched_yield();
            // What the others took is not this thread's.
            self.offered_ns = clock::now_ns();
        }
    }
}

/// `struct sched_attr` of `sched_setattr(2)`, in its first version. All zero is the ordinary
/// policy, at the ordinary priority.
#[derive(Default)]
#[repr(C)]
struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    /// For the ordinary policy the slice that is asked for.
    runtime_ns: u64,
    deadline_ns: u64,
    period_ns: u64,
}

/// How much nicer who yields is: its share is two fifths of that of another.
const YIELDING_NICE: i32 = 4;
/// The largest niceness there is.
const NICE_MAX: i32 = 19;
/// The shortest slice the kernel grants, nanoseconds.
const SLICE_NS: u64 = 100_000;
/// How long the core works before it offers its processor, nanoseconds.
const STRETCH_NS: u64 = 150_000;

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn a_thread_that_asks_for_short_slices_has_them_where_the_kernel_knows_slices() {
        let (before, after) = thread::spawn(|| {
            let before = attributes().runtime_ns;
            take_short_slices(false);
            (before, attributes().runtime_ns)
        })
        .join()
        .expect("no panic");
        // Before 6.12 there is nothing to be seen.
        let known = before != 0;
        assert_eq!(after, if known { SLICE_NS } else { 0 });
    }

    #[test]
    fn who_yields_asks_for_a_smaller_share() {
        let nice = |yields| {
            let ask = move || {
                let before = attributes().nice;
                take_short_slices(yields);
                attributes().nice - before
            };
            thread::spawn(ask).join().expect("no panic")
        };
        assert_eq!([nice(false), nice(true)], [0, YIELDING_NICE]);
    }

    #[test]
    fn the_processor_is_offered_once_in_a_stretch() {
        let mut courtesy = Courtesy::default();
        courtesy.give_way_in_time();
        let first = courtesy.offered_ns;
        assert!(first > 0);
        while clock::now_ns() < first + STRETCH_NS {}
        courtesy.give_way_in_time();
        assert!(courtesy.offered_ns >= first + STRETCH_NS);
        let mut again = Courtesy {
            offered_ns: u64::MAX,
        };
        again.give_way_in_time();
        assert_eq!(again.offered_ns, u64::MAX, "not so soon");
    }
}
