//! Telling the processor what will be read soon.

/// Has the cache line at the start of `of` fetched, without waiting for it.
///
/// A load would do the same, but keep its place in the processor's window of instructions until
/// the line has come; behind some twenty of them nothing moves any more.
#[inline(always)]
pub(super) fn line<T>(of: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch is a hint: it reads nothing that the program could see, writes
        // nothing and cannot fault, whatever the address; and this one is that of a reference.
        unsafe { _mm_prefetch(std::ptr::from_ref(of).cast(), _MM_HINT_T0) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    std::hint::black_box(of);
}
