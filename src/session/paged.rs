//! A vector that grows by pages and so never moves what it holds.

/// Items found by a 32-bit number, given out in order.
///
/// `Vec` would copy all of its items each time it doubles, and whoever came at that moment
/// would wait for it.
pub(super) struct Paged<T> {
    pages: Vec<Vec<T>>,
}

impl<T> Paged<T> {
    pub(super) fn new() -> Paged<T> {
        Paged { pages: Vec::new() }
    }

    /// Adds an item and returns its number.
    ///
    /// # Panics
    /// At 2³² items.
    pub(super) fn push(&mut self, item: T) -> u32 {
        if self
            .pages
            .last()
            .is_none_or(|page| page.len() == PAGE_ITEMS)
        {
            self.pages.push(Vec::with_capacity(PAGE_ITEMS));
        }
        let page = self.pages.len() - 1;
        let at = self.pages[page].len();
        self.pages[page].push(item);
        u32::try_from(page * PAGE_ITEMS + at).expect("fewer than 2^32 items")
    }

    #[inline]
    pub(super) fn at(&self, number: u32) -> &T {
        &self.pages[number as usize / PAGE_ITEMS][number as usize % PAGE_ITEMS]
    }

    #[inline]
    pub(super) fn at_mut(&mut self, number: u32) -> &mut T {
        &mut self.pages[number as usize / PAGE_ITEMS][number as usize % PAGE_ITEMS]
    }

    /// Bytes of the pages, not of what the items own elsewhere.
    pub(super) fn memory_bytes(&self) -> usize {
        self.pages.len() * PAGE_ITEMS * size_of::<T>()
    }
}

/// Items of a page.
const PAGE_ITEMS: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_keep_their_numbers_across_pages() {
        let mut all = Paged::new();
        for i in 0..2000 {
            assert_eq!(all.push(i), i);
        }
        *all.at_mut(1500) += 1;
        assert_eq!(
            (*all.at(511), *all.at(512), *all.at(1500)),
            (511, 512, 1501)
        );
        assert_eq!(all.memory_bytes(), 4 * PAGE_ITEMS * 4);
    }
}
