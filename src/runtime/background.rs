//! Threads for what blocks, beside the executors.

use std::{io, thread};

use rustix::process::getpid;
use rustix::thread::{sched_getaffinity, sched_setaffinity};
use thread_priority::{
    NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id,
};

/// How soon the work of a thread is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Urgency {
    /// Somebody waits for it.
    Waited,
    /// Whenever a processor has nothing else to do: an executor that wakes up on the same one
    /// has it at once, and not when this thread's time is up, half a millisecond later.
    Leisure,
}

/// Does `work` on a thread of its own.
///
/// # Errors
/// If the system refuses the thread.
pub(super) fn spawn(
    name: &str,
    urgency: Urgency,
    work: impl FnOnce() + Send + 'static,
) -> io::Result<()> {
    let body = move || {
        leave_the_core();
        if urgency == Urgency::Leisure {
            step_back();
        }
        work();
    };
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(body)
        .map(drop)
}

/// Lets this thread run wherever the process may. It was begun by an executor and is bound to that
/// one's processor, where it would take turns with it while others may be idle.
fn leave_the_core() {
    // The first thread's number is the process's, and nobody binds that thread. If it is refused
    // the thread is merely where it was.
    let _ = sched_getaffinity(Some(getpid())).and_then(|all| sched_setaffinity(None, &all));
}

/// Makes this thread the least pressing. If it is refused it is merely less polite.
fn step_back() {
    let policy = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
    let _ = set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, policy);
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use rustix::thread::CpuSet;
    use thread_priority::thread_schedule_policy;

    use super::*;

    fn on_a_thread<T: Send + 'static>(
        urgency: Urgency,
        look: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        let (tell, told) = mpsc::channel();
        let work = move || tell.send(look()).expect("the test waits");
        spawn("looks", urgency, work).expect("a thread");
        told.recv().expect("the thread tells")
    }

    fn bound() -> CpuSet {
        sched_getaffinity(None).expect("a thread may look at itself")
    }

    #[test]
    fn a_thread_that_a_bound_one_begins_may_run_wherever_the_process_may() {
        let all = bound();
        let (before, here, there) = thread::spawn(move || {
            let first = (0..CpuSet::MAX_CPU).find(|cpu| all.is_set(*cpu));
            let mut one = CpuSet::new();
            one.set(first.expect("a processor"));
            sched_setaffinity(None, &one).expect("one of those allowed");
            let inherited = thread::spawn(bound).join().expect("no panic");
            (inherited, one, on_a_thread(Urgency::Waited, bound))
        })
        .join()
        .expect("no panic");
        assert_eq!(before, here, "threads inherit what they are bound to");
        assert_eq!(there, all);
    }

    #[test]
    fn what_has_time_runs_when_nothing_else_would() {
        let own = || thread_schedule_policy().expect("one");
        let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
        assert_eq!(on_a_thread(Urgency::Leisure, own), idle);
        assert_eq!(on_a_thread(Urgency::Waited, own), own());
    }
}
