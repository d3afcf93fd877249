//! A bounded queue of fixed-size events, many producers and one consumer, made of nothing but atomics, so that it can lie
//! in memory that processes share and all-zero memory is a valid empty queue.
//!
//! It never waits and never allocates: a producer that finds it full is told so. (The algorithm is Dmitry Vyukov's
//! bounded queue; each cell carries the turn at which it may be written or read.)

use std::sync::atomic::{AtomicU64, Ordering};

/// Words of one event.
pub const WORDS: usize = 6;

/// One event: what it means is its producer's and consumer's affair.
pub type Event = [u64; WORDS];

/// Where a queue's positions are kept.
#[derive(Default)]
#[repr(C)]
pub struct Positions {
    tail: AtomicU64,
    head: AtomicU64,
}

/// A place for one event.
#[derive(Default)]
#[repr(C)]
pub struct Cell {
    /// How many times this cell has been written or emptied, counted so that zero means "empty, first turn".
    turn: AtomicU64,
    words: [AtomicU64; WORDS],
}

/// A view of a queue: positions and cells, wherever they lie. The number of cells must not change between views.
#[derive(Clone, Copy)]
pub struct Ring<'a> {
    positions: &'a Positions,
    cells: &'a [Cell],
}

/// The queue had no free cell.
#[derive(Debug, PartialEq, Eq)]
pub struct Full;

impl<'a> Ring<'a> {
    /// A view of the queue in `positions` and `cells` (at least one cell, or every push is refused).
    pub fn new(positions: &'a Positions, cells: &'a [Cell]) -> Self {
        Ring { positions, cells }
    }

    fn cell(&self, position: u64) -> (&'a Cell, u64) {
        let size = self.cells.len() as u64;
        (&self.cells[(position % size) as usize], position / size)
    }

    /// Adds an event. May be called by any number of processes at once.
    pub fn push(&self, event: &Event) -> Result<(), Full> {
        if self.cells.is_empty() {
            return Err(Full);
        }
        let mut position = self.positions.tail.load(Ordering::Relaxed);
        loop {
            let (cell, lap) = self.cell(position);
            // In lap n a cell is free at turn 2n, written at 2n+1.
            let turn = cell.turn.load(Ordering::Acquire);
            if turn == 2 * lap {
                match self.positions.tail.compare_exchange_weak(
                    position,
                    position + 1,
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                ) {
                    Ok(_) => {
                        for (word, value) in cell.words.iter().zip(event) {
                            word.store(*value, Ordering::Relaxed);
                        }
                        cell.turn.store(2 * lap + 1, Ordering::Release);
                        return Ok(());
                    }
                    Err(now) => position = now,
                }
            } else if turn < 2 * lap {
                return Err(Full);
            } else {
                position = self.positions.tail.load(Ordering::Relaxed);
            }
        }
    }

    /// Takes the oldest event. Only one process may consume.
    pub fn pop(&self) -> Option<Event> {
        if self.cells.is_empty() {
            return None;
        }
        let position = self.positions.head.load(Ordering::Relaxed);
        let (cell, lap) = self.cell(position);
        if cell.turn.load(Ordering::Acquire) != 2 * lap + 1 {
            return None;
        }
        let mut event = [0; WORDS];
        for (value, word) in event.iter_mut().zip(&cell.words) {
            *value = word.load(Ordering::Relaxed);
        }
        cell.turn.store(2 * (lap + 1), Ordering::Release);
        self.positions.head.store(position + 1, Ordering::Relaxed);
        Some(event)
    }

    /// Whether nothing waits to be taken.
    pub fn is_empty(&self) -> bool {
        if self.cells.is_empty() {
            return true;
        }
        let position = self.positions.head.load(Ordering::Relaxed);
        let (cell, lap) = self.cell(position);
        cell.turn.load(Ordering::Acquire) != 2 * lap + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells(n: usize) -> Vec<Cell> {
        (0..n).map(|_| Cell::default()).collect()
    }

    #[test]
    fn gives_back_in_order_and_refuses_when_full() {
        let (positions, cells) = (Positions::default(), cells(3));
        let ring = Ring::new(&positions, &cells);
        for lap in 0..5u64 {
            assert!(ring.is_empty());
            for i in 0..3 {
                assert_eq!(ring.push(&[lap * 3 + i; WORDS]), Ok(()));
            }
            assert_eq!(ring.push(&[99; WORDS]), Err(Full));
            for i in 0..3 {
                assert!(!ring.is_empty());
                assert_eq!(ring.pop(), Some([lap * 3 + i; WORDS]));
            }
            assert_eq!(ring.pop(), None);
        }
    }

    #[test]
    fn no_event_is_lost_torn_or_doubled_by_concurrent_producers() {
        const PRODUCERS: u64 = 4;
        const EACH: u64 = 20_000;
        let (positions, cells) = (Positions::default(), cells(64));
        let ring = Ring::new(&positions, &cells);
        let mut last = vec![0u64; PRODUCERS as usize];
        std::thread::scope(|scope| {
            for producer in 0..PRODUCERS {
                scope.spawn(move || {
                    for i in 1..=EACH {
                        let event = [producer, i, i ^ producer, i, i, i];
                        while ring.push(&event).is_err() {
                            std::thread::yield_now();
                        }
                    }
                });
            }
            let mut taken = 0;
            while taken < PRODUCERS * EACH {
                let Some(e) = ring.pop() else {
                    std::thread::yield_now();
                    continue;
                };
                assert_eq!((e[2], e[3], e[4], e[5]), (e[1] ^ e[0], e[1], e[1], e[1]));
                assert_eq!(e[1], last[e[0] as usize] + 1, "one producer's events stay in order");
                last[e[0] as usize] = e[1];
                taken += 1;
            }
        });
        assert_eq!(ring.pop(), None);
    }
}
