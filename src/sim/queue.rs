//! What will happen, in the order of time.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// Events by time; those of one instant in the order in which they were put in.
#[derive(Clone, Debug)]
pub struct Queue<E> {
    heap: BinaryHeap<Due<E>>,
    /// Counts what was put in: the tie-break that makes a run repeatable.
    put: u64,
}

#[derive(Clone, Copy, Debug)]
struct Due<E> {
    /// Time in the upper half, place of arrival in the lower: one comparison.
    key: u128,
    event: E,
}

impl<E: Copy> Queue<E> {
    /// Nothing will happen.
    #[must_use]
    pub fn new() -> Queue<E> {
        Queue {
            heap: BinaryHeap::new(),
            put: 0,
        }
    }

    /// `event` will happen at `time_us`.
    pub fn put(&mut self, time_us: u64, event: E) {
        let key = (u128::from(time_us) << 64) | u128::from(self.put);
        self.put += 1;
        self.heap.push(Due { key, event });
    }

    /// The next event and its time.
    pub fn take(&mut self) -> Option<(u64, E)> {
        let due = self.heap.pop()?;
        Some(((due.key >> 64) as u64, due.event))
    }

    /// The time of the next event.
    #[must_use]
    pub fn next_time(&self) -> Option<u64> {
        self.heap.peek().map(|due| (due.key >> 64) as u64)
    }

    /// How many events are due.
    #[must_use]
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// True if nothing will happen.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }
}

impl<E: Copy> Default for Queue<E> {
    fn default() -> Queue<E> {
        Queue::new()
    }
}

impl<E> PartialEq for Due<E> {
    fn eq(&self, other: &Due<E>) -> bool {
        self.key == other.key
    }
}

impl<E> Eq for Due<E> {}

impl<E> PartialOrd for Due<E> {
    fn partial_cmp(&self, other: &Due<E>) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Due<E> {
    /// Reversed: the heap's greatest is the earliest.
    fn cmp(&self, other: &Due<E>) -> Ordering {
        other.key.cmp(&self.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_in_time_and_those_of_one_instant_as_they_were_put() {
        let mut queue = Queue::new();
        for (time, event) in [(5, 'c'), (1, 'a'), (5, 'd'), (3, 'b'), (5, 'e')] {
            queue.put(time, event);
        }
        assert_eq!((queue.next_time(), queue.len()), (Some(1), 5));
        let order: String = std::iter::from_fn(|| queue.take())
            .map(|(_, e)| e)
            .collect();
        assert_eq!(order, "abcde");
        assert!(queue.is_empty());
    }
}
