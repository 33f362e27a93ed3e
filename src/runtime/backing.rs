//! What the system is asked to put behind the memory that the sessions lie in, and when.
//!
//! Huge pages, for the sake of the TLB ([`ask_for_huge_pages`]). And those early: whoever touches
//! one first has the kernel clear it, which takes a fifth of a millisecond, and six in a virtual
//! machine that gives free memory back to its hypervisor and gets it again 4 KiB at a time
//! (tuning/page-reporting.sh). A shard would stand still for as long at every 32,768 joins or so.
//! So it tells a thread of each stretch before the first session comes into it ([`Provider`]).

use std::io;

use flume::{Receiver, Sender};
use rustix::mm::{Advice, madvise};
use rustix::param::page_size;

use super::background::{self, Urgency};

/// Asks for huge pages behind `memory`; the kernel may do as it likes.
///
/// On most machines `transparent_hugepage` is set to `madvise`, so whoever does not ask gets
/// none (tuning/hugepages.sh).
pub fn ask_for_huge_pages(memory: &[u8]) {
    let Some(whole) = Stretch::of(memory).whole(HUGE_BYTES) else {
        return;
    };
    // SAFETY: the range lies within `memory`, which is borrowed and so stays mapped for the
    // call. This advice changes neither the contents nor the protection of the pages, only
    // how the kernel backs them, so nobody who reads or writes them can tell.
    let advised = unsafe { madvise(whole.pointer(), whole.bytes, Advice::LinuxHugepage) };
    if let Err(error) = advised {
        tracing::debug!("no huge pages for the sessions: {error}");
    }
}

/// The way to the thread that has memory backed.
#[derive(Clone)]
pub(super) struct Provider(Sender<Stretch>);

impl Provider {
    /// Starts the thread. It ends with the last clone of what is returned.
    ///
    /// # Errors
    /// If the system refuses the thread.
    pub(super) fn start() -> io::Result<Provider> {
        let (sender, stretches) = flume::bounded(STRETCHES_MAX);
        // Not at leisure: it holds a lock of the process's memory meanwhile, which a shard that
        // allocates may have to wait for.
        background::spawn("memory", Urgency::Waited, move || provide(&stretches))?;
        Ok(Provider(sender))
    }

    /// Has `memory` backed soon, unless the thread is behind with much else: then whoever writes
    /// to it first waits, as if nobody had asked.
    pub(super) fn provide(&self, memory: &[u8]) {
        let _ = self.0.try_send(Stretch::of(memory));
    }
}

fn provide(stretches: &Receiver<Stretch>) {
    for stretch in stretches {
        if let Err(error) = stretch.populate() {
            // Kernels before 5.14 know no such advice.
            tracing::debug!("no memory for sessions to come: {error}");
        }
    }
}

/// Some memory, by its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stretch {
    address: usize,
    bytes: usize,
}

impl Stretch {
    fn of(memory: &[u8]) -> Stretch {
        Stretch {
            address: memory.as_ptr().expose_provenance(),
            bytes: memory.len(),
        }
    }

    /// The whole pages of so many bytes within; `None` if there are none.
    fn whole(self, page_bytes: usize) -> Option<Stretch> {
        let address = self.address.next_multiple_of(page_bytes);
        let end = (self.address + self.bytes) / page_bytes * page_bytes;
        let bytes = end.checked_sub(address).filter(|bytes| *bytes > 0)?;
        Some(Stretch { address, bytes })
    }

    fn pointer(self) -> *mut core::ffi::c_void {
        std::ptr::with_exposed_provenance_mut(self.address)
    }

    /// Has the kernel back all of it now, as a write to each page would.
    fn populate(self) -> io::Result<()> {
        let Some(whole) = self.whole(page_size()) else {
            return Ok(());
        };
        // SAFETY: the advice changes no contents, whoever reads or writes the pages meanwhile,
        // and no protection. The memory may have been given back since it was told of: then the
        // kernel backs what else is there now, or says that nothing is.
        unsafe { madvise(whole.pointer(), whole.bytes, Advice::LinuxPopulateWrite) }?;
        Ok(())
    }
}

/// A huge page on the machines this runs on.
const HUGE_BYTES: usize = 2 << 20;
/// Stretches that may wait for the thread: two for each of many shards.
const STRETCHES_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use std::thread;

    use super::super::clock;
    use super::*;

    /// How many of the whole pages of `memory` are backed.
    fn backed(memory: &[u8]) -> (usize, usize) {
        let whole = Stretch::of(memory).whole(page_size()).expect("a page");
        let mut seen = vec![0_u8; whole.bytes / page_size()];
        // SAFETY: the range is borrowed, and `seen` has a byte for each of its pages.
        let result = unsafe { libc::mincore(whole.pointer(), whole.bytes, seen.as_mut_ptr()) };
        assert_eq!(result, 0, "{}", io::Error::last_os_error());
        (
            seen.iter().filter(|page| **page & 1 == 1).count(),
            seen.len(),
        )
    }

    #[test]
    fn asking_for_huge_pages_changes_no_byte_and_takes_any_length() {
        for bytes in [0, 1, HUGE_BYTES - 1, 3 * HUGE_BYTES + 5] {
            let memory = vec![7_u8; bytes];
            ask_for_huge_pages(&memory);
            assert!(memory.iter().all(|byte| *byte == 7));
        }
    }

    #[test]
    fn whole_pages_lie_within() {
        let whole = |address, bytes| {
            let whole = Stretch { address, bytes }.whole(4096)?;
            Some((whole.address, whole.bytes))
        };
        assert_eq!(whole(4096, 8192), Some((4096, 8192)));
        assert_eq!(whole(4095, 8192), Some((4096, 4096)));
        assert_eq!(whole(4097, 8192), Some((8192, 4096)));
        assert_eq!(whole(4097, 4096), None);
        assert_eq!(whole(1, 0), None);
    }

    #[test]
    fn what_is_populated_is_backed_and_keeps_its_contents() {
        let mut memory = vec![0_u8; 8 << 20];
        memory[1 << 20] = 7;
        let (before, pages) = backed(&memory);
        assert!(before < pages, "{before} of {pages}");
        Stretch::of(&memory).populate().expect("memory");
        assert_eq!(backed(&memory), (pages, pages));
        assert_eq!(memory.iter().map(|byte| u64::from(*byte)).sum::<u64>(), 7);
    }

    #[test]
    fn the_thread_backs_what_it_is_told_of() {
        let provider = Provider::start().expect("a thread");
        let memory = vec![0_u8; 8 << 20];
        provider.provide(&memory[..1 << 20]);
        provider.provide(&memory[(1 << 20) - page_size()..]);
        let patient_until = clock::now_ns() + 60_000_000_000;
        let (mut found, mut pages) = backed(&memory);
        while found < pages && clock::now_ns() < patient_until {
            thread::yield_now();
            (found, pages) = backed(&memory);
        }
        assert_eq!(found, pages);
    }
}
