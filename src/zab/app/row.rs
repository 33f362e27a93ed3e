//! Values by ids that ascend.

use std::collections::VecDeque;
use std::fmt;

use super::RequestId;

/// Values by request ids that are given out one after the other and mostly come back in that
/// order: a place in a row in place of a search in a map. It takes room for every id from the
/// oldest that is here to the newest, see [`Row::span`].
///
/// Invariant: the first place, if there is one, holds a value.
pub struct Row<T> {
    /// The id of the first place.
    first: u64,
    places: VecDeque<Option<T>>,
    len: usize,
}

impl<T> Row<T> {
    /// A row of nothing.
    #[must_use]
    pub fn new() -> Row<T> {
        Row {
            first: 0,
            places: VecDeque::new(),
            len: 0,
        }
    }

    /// Adds a value at the end.
    ///
    /// # Panics
    /// If its id is not above all before it that are still here.
    pub fn push(&mut self, id: RequestId, value: T) {
        if self.places.is_empty() {
            self.first = id.0;
        }
        let at = id.0.checked_sub(self.first).map(|at| at as usize);
        let at = at.filter(|at| *at >= self.places.len());
        let at = at.unwrap_or_else(|| panic!("{id:?} does not follow the row"));
        self.places.resize_with(at, || None);
        self.places.push_back(Some(value));
        self.len += 1;
    }

    /// The value of an id.
    #[must_use]
    pub fn get(&self, id: RequestId) -> Option<&T> {
        let at = id.0.checked_sub(self.first)?;
        self.places.get(at as usize)?.as_ref()
    }

    /// Takes a value out.
    pub fn remove(&mut self, id: RequestId) -> Option<T> {
        let at = id.0.checked_sub(self.first)?;
        let value = self.places.get_mut(at as usize)?.take()?;
        self.len -= 1;
        while let Some(None) = self.places.front() {
            self.places.pop_front();
            self.first += 1;
        }
        Some(value)
    }

    /// The oldest id that is here.
    #[must_use]
    pub fn oldest(&self) -> Option<RequestId> {
        (self.len > 0).then_some(RequestId(self.first))
    }

    /// All values, oldest first.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.places.iter_mut().flatten()
    }

    /// Takes out all values, oldest first.
    pub fn take(&mut self) -> impl Iterator<Item = (RequestId, T)> + use<T> {
        self.len = 0;
        let places = std::mem::take(&mut self.places);
        let ids = self.first..;
        let all = ids.zip(places);
        all.filter_map(|(id, value)| Some((RequestId(id), value?)))
    }

    /// How many values are here.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// True if none is here.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// For how many values it takes room: whoever adds to it bounds this.
    #[must_use]
    pub fn span(&self) -> usize {
        self.places.len()
    }
}

impl<T> Default for Row<T> {
    fn default() -> Row<T> {
        Row::new()
    }
}

impl<T> fmt::Debug for Row<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Row { first, len, .. } = self;
        write!(f, "Row({len} from {first})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(ids: &[u64]) -> Row<u64> {
        let mut row = Row::new();
        ids.iter().for_each(|&id| row.push(RequestId(id), id * 10));
        row
    }

    #[test]
    fn a_value_is_found_by_its_id_until_it_is_taken_out() {
        let mut row = row(&[3, 4, 7]);
        assert_eq!((row.len(), row.span()), (3, 5));
        for id in [0, 2, 5, 6, 8, u64::MAX] {
            assert_eq!(row.get(RequestId(id)), None, "{id}");
            assert_eq!(row.remove(RequestId(id)), None, "{id}");
        }
        for id in [4, 3, 7] {
            assert_eq!(row.get(RequestId(id)), Some(&(id * 10)));
            assert_eq!(row.remove(RequestId(id)), Some(id * 10));
            assert_eq!(row.remove(RequestId(id)), None, "only once");
        }
        assert!(row.is_empty());
    }

    #[test]
    fn the_room_of_the_oldest_is_given_back_and_no_other() {
        let mut row = row(&[1, 2, 3, 4]);
        row.remove(RequestId(2));
        assert_eq!((row.oldest(), row.span()), (Some(RequestId(1)), 4));
        row.remove(RequestId(1));
        assert_eq!((row.oldest(), row.span()), (Some(RequestId(3)), 2));
        row.remove(RequestId(4));
        row.remove(RequestId(3));
        assert_eq!((row.oldest(), row.span()), (None, 0));
        row.push(RequestId(900), 9_000);
        assert_eq!((row.oldest(), row.span()), (Some(RequestId(900)), 1));
    }

    #[test]
    fn all_are_taken_out_oldest_first() {
        let mut row = row(&[5, 6, 8]);
        row.values_mut().for_each(|value| *value += 1);
        row.remove(RequestId(6));
        let all: Vec<_> = row.take().collect();
        assert_eq!(all, [(RequestId(5), 51), (RequestId(8), 81)]);
        assert_eq!((row.len(), row.oldest()), (0, None));
        assert_eq!(row.get(RequestId(5)), None);
    }

    #[test]
    #[should_panic(expected = "does not follow")]
    fn an_id_is_not_given_out_twice() {
        row(&[5, 6]).push(RequestId(6), 0);
    }

    #[test]
    #[should_panic(expected = "does not follow")]
    fn an_id_below_the_row_does_not_follow() {
        row(&[5, 6]).push(RequestId(4), 0);
    }
}
