//! Asks the kernel for huge pages where the sessions lie.

use rustix::mm::{Advice, madvise};

/// Asks for huge pages behind `memory`; the kernel may do as it likes.
///
/// On most machines `transparent_hugepage` is set to `madvise`, so whoever does not ask gets
/// none (tuning/hugepages.sh).
pub fn ask(memory: &[u8]) {
    let start = memory.as_ptr().addr();
    let first = start.next_multiple_of(HUGE_BYTES);
    let end = (start + memory.len()) / HUGE_BYTES * HUGE_BYTES;
    if first >= end {
        return;
    }
    let inside = &memory[first - start..end - start];
    let pointer = inside.as_ptr().cast_mut().cast();
    // SAFETY: the range lies within `memory`, which is borrowed and so stays mapped for the
    // call. This advice changes neither the contents nor the protection of the pages, only
    // how the kernel backs them, so nobody who reads or writes them can tell.
    let advised = unsafe { madvise(pointer, inside.len(), Advice::LinuxHugepage) };
    if let Err(error) = advised {
        tracing::debug!("no huge pages for the sessions: {error}");
    }
}

/// A huge page on the machines this runs on.
const HUGE_BYTES: usize = 2 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asking_changes_no_byte_and_takes_any_length() {
        for bytes in [0, 1, HUGE_BYTES - 1, 3 * HUGE_BYTES + 5] {
            let memory = vec![7_u8; bytes];
            ask(&memory);
            assert!(memory.iter().all(|byte| *byte == 7));
        }
    }
}
