//! What is durable is reported in pieces.
//!
//! One sync may cover thousands of transactions. Reported at once they would be committed and
//! applied in one go, which takes milliseconds: the shards would hear of all of them together,
//! and whoever shares the core's processor would wait. A piece is true as well: what is durable
//! up to the last is so up to each before it.

use super::Pipeline;
use crate::runtime::clock;
use crate::types::Zxid;
use crate::zab::Persisted;

/// How far the log is durable, and how far that was reported.
#[derive(Clone, Copy, Debug)]
pub(super) struct Durable {
    synced: Zxid,
    reported: Zxid,
    /// All that is synced is reported. The two above do not tell: a log may be cut, and grow
    /// again to where it was.
    is_told: bool,
    /// How many transactions the next piece has.
    piece: u64,
    /// When the last piece was reported, while what comes of it is being done.
    began_ns: Option<u64>,
}

impl Durable {
    /// Everything up to `last` is known to be durable.
    pub(super) fn new(last: Zxid) -> Durable {
        Durable {
            synced: last,
            reported: last,
            is_told: true,
            piece: PIECE_MAX,
            began_ns: None,
        }
    }

    /// A sync has ended, after which everything up to `synced` is durable.
    pub(super) fn synced(&mut self, synced: Zxid) {
        self.synced = synced;
        self.is_told = false;
    }

    /// What was reported last has been carried out.
    pub(super) fn done(&mut self, now_ns: u64) {
        let Some(began_ns) = self.began_ns.take() else {
            return;
        };
        let took_ns = now_ns.saturating_sub(began_ns);
        if took_ns > PIECE_NS {
            self.piece = (self.piece / 2).max(1);
        } else if took_ns < PIECE_NS / 2 {
            self.piece = (self.piece * 2).min(PIECE_MAX);
        }
    }

    /// What is to be reported next. Within an epoch transactions are numbered without gaps; what
    /// reaches into another epoch is reported as a whole.
    fn next_piece(&mut self, now_ns: u64) -> Option<Zxid> {
        let piece = Zxid::new(self.reported.epoch, self.reported.counter + self.piece);
        let is_part = self.reported.epoch == self.synced.epoch && piece < self.synced;
        if self.is_told {
            return None;
        }
        self.began_ns = Some(now_ns);
        self.is_told = !is_part;
        self.reported = if is_part { piece } else { self.synced };
        Some(self.reported)
    }

    /// True if a part of what is durable was reported, and the next part is to follow.
    pub(super) fn goes_on(&self) -> bool {
        !self.is_told
    }

    /// All that is left to be reported.
    fn rest(&mut self) -> Option<Zxid> {
        let was_told = std::mem::replace(&mut self.is_told, true);
        self.reported = self.synced;
        (!was_told).then_some(self.synced)
    }
}

impl Pipeline {
    /// Reports some of what is durable and was not reported; false if there is no more.
    pub(super) fn report_durable(&mut self) -> bool {
        let Some(upto) = self.durable.next_piece(clock::now_ns()) else {
            return false;
        };
        self.replica
            .on_persisted(clock::now(), Persisted::Log(upto));
        true
    }

    /// Reports what was not reported yet, at once.
    pub(super) fn report_all_durable(&mut self) {
        if let Some(upto) = self.durable.rest() {
            self.replica
                .on_persisted(clock::now(), Persisted::Log(upto));
        }
    }
}

/// Transactions in a piece at most.
const PIECE_MAX: u64 = 64;
/// How long a piece may take before the next has fewer transactions, nanoseconds: there are
/// expiries of hundreds of sessions among them.
const PIECE_NS: u64 = 200_000;

#[cfg(test)]
mod tests {
    use glommio::LocalExecutor;

    use super::super::Limits;
    use super::super::tests::{alone, join};
    use super::*;
    use crate::mail::{Answer, Ask, Mail, Tell, What};
    use crate::types::Epoch;
    use crate::zab::Write;

    fn at(epoch: u64, counter: u64) -> Zxid {
        Zxid::new(Epoch(epoch), counter)
    }

    /// Reports everything, each piece taking so long.
    fn pieces(durable: &mut Durable, took_ns: u64) -> Vec<Zxid> {
        let mut now_ns = 0;
        let mut pieces = Vec::new();
        while let Some(piece) = durable.next_piece(now_ns) {
            pieces.push(piece);
            now_ns += took_ns;
            durable.done(now_ns);
        }
        pieces
    }

    #[test]
    fn all_that_is_durable_is_reported_in_order_and_nothing_beyond() {
        let mut durable = Durable::new(at(3, 10));
        assert_eq!(pieces(&mut durable, 1), [], "what was known is not news");
        durable.synced(at(3, 11));
        assert_eq!(pieces(&mut durable, 1), [at(3, 11)]);
        durable.synced(at(3, 11 + 2 * PIECE_MAX));
        let reported = [at(3, 11 + PIECE_MAX), at(3, 11 + 2 * PIECE_MAX)];
        assert_eq!(pieces(&mut durable, 1), reported);
        assert_eq!(pieces(&mut durable, 1), []);
    }

    #[test]
    fn what_reaches_into_another_epoch_is_reported_as_a_whole() {
        let mut durable = Durable::new(at(3, 10));
        durable.synced(at(4, 5_000));
        assert_eq!(pieces(&mut durable, 1), [at(4, 5_000)]);
    }

    #[test]
    fn pieces_that_take_long_become_smaller_and_grow_again_when_they_do_not() {
        let mut durable = Durable::new(at(1, 0));
        durable.synced(at(1, 2 * PIECE_MAX));
        let slow = pieces(&mut durable, PIECE_NS + 1);
        let half = PIECE_MAX / 2;
        let shown = [PIECE_MAX, PIECE_MAX + half, PIECE_MAX + half + half / 2];
        assert_eq!(slow[..3], shown.map(|counter| at(1, counter)));
        let from = at(1, 2 * PIECE_MAX).counter;
        durable.piece = 1;
        durable.synced(at(1, from + 7));
        let grown = [1, 3, 7].map(|more| at(1, from + more));
        assert_eq!(pieces(&mut durable, PIECE_NS / 2 - 1), grown);
        durable.synced(at(1, from + 8));
        pieces(&mut durable, 1_000 * PIECE_NS);
        for _ in 0..10 {
            durable.began_ns = Some(0);
            durable.done(1_000 * PIECE_NS);
        }
        durable.synced(at(1, from + 10));
        assert_eq!(pieces(&mut durable, 1)[0], at(1, from + 9), "never none");
    }

    #[test]
    fn a_log_that_was_cut_and_grew_again_to_where_it_was_is_reported_again() {
        let mut durable = Durable::new(at(2, 10));
        durable.synced(at(2, 10));
        assert_eq!(pieces(&mut durable, 1), [at(2, 10)]);
        durable.synced(at(2, 8));
        assert_eq!(pieces(&mut durable, 1), [at(2, 8)]);
    }

    #[test]
    fn before_a_log_is_cut_what_it_was_has_been_reported() {
        let dir = tempfile::tempdir().unwrap();
        LocalExecutor::default().run(async move {
            let mut core = alone(dir.path(), |_| {});
            let last = core.pipeline.log.last();
            core.pipeline.durable.synced(last);
            core.pipeline.durable.is_told = false;
            core.pipeline
                .writes
                .add(&mut vec![Write::SnapshotBegin(at(9, 9))]);
            core.pipeline.write_all().unwrap();
            assert_eq!(core.pipeline.durable.next_piece(0), None);
        });
    }

    #[test]
    fn what_one_sync_covers_is_told_in_pieces() {
        let dir = tempfile::tempdir().unwrap();
        let count = 8 * PIECE_MAX;
        LocalExecutor::default().run(async move {
            let core = alone(dir.path(), |limits: &mut Limits| limits.batch_max = 1 << 20);
            let asks = (0..count).map(|token| {
                let what = What::Change {
                    request: join(&format!("m-{token}")),
                    document: false,
                    fresh: false,
                };
                Ask { token, what }
            });
            let mails = core.answers_to(asks.collect()).await;
            let answers = |mail: &Mail| match mail {
                Mail::Core { tells, .. } => tells
                    .iter()
                    .filter(|tell| {
                        matches!(
                            tell,
                            Tell::Answer {
                                answer: Answer::Joined { .. },
                                ..
                            }
                        )
                    })
                    .count() as u64,
                _ => 0,
            };
            let answers: Vec<u64> = mails.iter().map(answers).collect();
            assert_eq!(answers.iter().sum::<u64>(), count);
            assert!(answers.iter().all(|some| *some <= PIECE_MAX), "{answers:?}");
            let mores: Vec<bool> = mails
                .iter()
                .zip(&answers)
                .filter(|(_, count)| **count > 0)
                .map(|(mail, _)| matches!(mail, Mail::Core { more: true, .. }))
                .collect();
            let (last, others) = mores.split_last().unwrap();
            assert!(!last, "nothing comes after it");
            assert!(others.iter().any(|more| *more), "{mores:?}");
        });
    }
}
