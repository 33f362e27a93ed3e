//! What a proposal costs the core of a leader, by followers and by proposals in flight.
//!
//! One proposal: propose, hand out one write and a message for each follower, take the report of
//! the sync and an acknowledgement from each, commit, hand out the delivery and the commits. In
//! `batched`, one report and one acknowledgement from each follower stand for 64 proposals, as
//! they do under load.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use systole::time::Millis;
use systole::types::{Epoch, ServerId, Zxid};
use systole::zab::{
    Body, Boot, Ensemble, Envelope, Message, Notification, Peer, Persisted, Phase, Plants, Ready,
    Settings, Stance, Summary, Tenure, Timing, Vote, Write,
};

const NOW: Millis = Millis(0);

/// An established leader, and the other ends of its links.
struct Leader {
    peer: Peer,
    ready: Ready,
    followers: Vec<(ServerId, u64)>,
    payload: Arc<[u8]>,
    last: Zxid,
}

impl Leader {
    fn new(followers: u32) -> Leader {
        let voters: Vec<ServerId> = (1..=followers + 1).map(ServerId).collect();
        let id = ServerId(followers + 1);
        let settings = Settings {
            ensemble: Ensemble::new(1, &voters, &[]),
            timing: Timing::DEFAULT,
            plants: Plants::NONE,
            ..Settings::alone(id)
        };
        let boot = Boot {
            accepted_epoch: Epoch(1),
            current_epoch: Epoch(1),
            history: Summary::default(),
            snapshot: None,
            delivered: Zxid::ZERO,
            nonce: 1,
        };
        let mut leader = Leader {
            peer: Peer::new(settings, boot),
            ready: Ready::default(),
            followers: (1..=followers).map(|id| (ServerId(id), 0)).collect(),
            payload: Arc::from([7_u8; 64]),
            last: Zxid::ZERO,
        };
        leader.peer.start(NOW);
        let vote = Vote {
            epoch: Epoch(1),
            zxid: Zxid::ZERO,
            leader: id,
        };
        for at in 0..leader.followers.len() {
            let vote = Message::Vote(Notification {
                stance: Stance::Looking,
                round: 1,
                vote,
                holds_data: true,
                ensemble: 1,
            });
            leader.peer.on_message(NOW, leader.followers[at].0, vote);
        }
        // With nobody connected the first quorum decides.
        leader.say_all(|| Body::FollowerInfo {
            accepted_epoch: Epoch(1),
            holds_data: true,
            ensemble: 1,
        });
        leader.settle();
        leader.say_all(|| Body::AckEpoch {
            current_epoch: Epoch(1),
            promises: true,
            history: Summary::default(),
        });
        leader.settle();
        leader.say_all(|| Body::AckNewLeader { epoch: Epoch(2) });
        leader.settle();
        assert_eq!(leader.peer.phase(), Phase::Leading);
        leader
    }

    /// Every follower says this.
    fn say_all(&mut self, body: impl Fn() -> Body) {
        for (id, seq) in &mut self.followers {
            let message = Message::Link {
                tenure: Tenure {
                    boot: u64::from(id.0),
                    attempt: 1,
                },
                seq: *seq,
                body: body(),
            };
            *seq += 1;
            self.peer.on_message(NOW, *id, message);
        }
    }

    /// Makes everything durable that is asked for.
    fn settle(&mut self) {
        loop {
            self.peer.ready(&mut self.ready);
            if self.ready.is_empty() {
                return;
            }
            for write in self.ready.writes.drain(..) {
                let persisted = match write {
                    Write::AcceptedEpoch(epoch) => Persisted::AcceptedEpoch(epoch),
                    Write::CurrentEpoch(epoch) => Persisted::CurrentEpoch(epoch),
                    Write::Append(entry) => Persisted::Log(entry.zxid),
                    other => panic!("a leader was told to {other:?}"),
                };
                self.peer.on_persisted(NOW, persisted);
            }
        }
    }

    fn propose(&mut self, count: usize) {
        for _ in 0..count {
            let proposed = self.peer.propose(NOW, Arc::clone(&self.payload));
            self.last = proposed.expect("there is room");
            self.peer.ready(&mut self.ready);
            let sent: &[Envelope] = black_box(&self.ready.messages);
            assert_eq!(sent.len(), self.followers.len());
        }
    }

    /// Everything up to `zxid` is durable everywhere.
    fn acknowledge(&mut self, zxid: Zxid) {
        self.peer.on_persisted(NOW, Persisted::Log(zxid));
        self.peer.ready(&mut self.ready);
        self.say_all(|| Body::Ack { zxid });
        self.peer.ready(&mut self.ready);
        assert_eq!(self.peer.committed(), zxid);
    }
}

fn broadcast(c: &mut Criterion) {
    for followers in [2, 4, 6] {
        let mut group = c.benchmark_group(format!("broadcast/{followers}_followers"));
        group.throughput(Throughput::Elements(1));
        group.bench_function("alone", |b| {
            let mut leader = Leader::new(followers);
            b.iter(|| {
                leader.propose(1);
                leader.acknowledge(leader.last);
            });
        });
        group.throughput(Throughput::Elements(64));
        for in_flight in [0, 10_000, 90_000] {
            let id = BenchmarkId::new("batched", format!("{in_flight}_in_flight"));
            group.bench_function(id, |b| {
                let mut leader = Leader::new(followers);
                leader.propose(in_flight);
                b.iter(|| {
                    leader.propose(64);
                    let counter = leader.last.counter - in_flight as u64;
                    leader.acknowledge(Zxid::new(leader.last.epoch, counter));
                });
            });
        }
        group.finish();
    }
}

criterion_group!(benches, broadcast);
criterion_main!(benches);
