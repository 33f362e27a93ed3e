//! Histories for the tests of the invariants: a few servers, told step by step, with the usual
//! ways as one call.

use super::tree::Node;
use super::{Checker, Ghost, Invariant, Violation};
use crate::sim::observe::{Boot, Observation, Said, Stop, fold};
use crate::types::{Epoch, ServerId, Zxid};
use crate::zab::Phase;

/// A checker and what tells it.
pub(super) struct Script {
    checker: Checker,
    now_us: u64,
}

/// The zxid `counter` of `epoch`.
pub(super) fn at(epoch: u64, counter: u64) -> Zxid {
    Zxid::new(Epoch(epoch), counter)
}

/// The hash that stands for the payload of `zxid`.
pub(super) fn hash(zxid: Zxid) -> u64 {
    fold(7, zxid, 7)
}

fn id(server: u32) -> ServerId {
    ServerId(server)
}

impl Script {
    /// Servers 1 to `voters`, started on empty disks.
    pub(super) fn of(voters: u32) -> Script {
        Script::with_observers(voters, 0)
    }

    /// The same with observers after the voters.
    pub(super) fn with_observers(voters: u32, observers: u32) -> Script {
        let ids: Vec<ServerId> = (1..=voters + observers).map(ServerId).collect();
        let (voting, observing) = ids.split_at(voters as usize);
        let mut script = Script {
            checker: Checker::new(voting, observing),
            now_us: 0,
        };
        for server in ids {
            script.start(server.0);
        }
        script
    }

    /// Three servers; 1 leads epoch 1, and 1:1 and 1:2 are delivered everywhere.
    pub(super) fn settled() -> Script {
        let mut script = Script::of(3);
        script.elect(1, 1, &[2, 3]);
        script.write(at(1, 1), 1, &[2, 3]);
        script.write(at(1, 2), 1, &[2, 3]);
        script
    }

    /// Something is seen and found right.
    #[track_caller]
    pub(super) fn see(&mut self, seen: Observation) {
        let judged = self.look(seen);
        assert_eq!(judged, Ok(()), "{seen:?}");
    }

    /// Something is seen and refused because of `invariant`.
    #[track_caller]
    pub(super) fn refused(&mut self, invariant: Invariant, seen: Observation) {
        let violation = self.look(seen).expect_err("it is refused");
        assert_eq!(violation.invariant, invariant, "{violation}");
        assert_eq!(violation.at_us, self.now_us);
    }

    /// Something becomes true that an invariant would refuse, for the others to meet.
    pub(super) fn force(&mut self, seen: Observation) {
        let server = super::subject(&seen).unwrap();
        let at = self.checker.ghost.index(server).unwrap();
        self.checker.ghost.apply(at, &seen);
    }

    fn look(&mut self, seen: Observation) -> Result<(), Violation> {
        self.now_us += 1;
        self.checker.observe(self.now_us, &seen)
    }

    /// Something is seen at the same instant as what came before, and found right.
    #[track_caller]
    pub(super) fn see_at_once(&mut self, seen: Observation) {
        assert_eq!(self.checker.observe(self.now_us, &seen), Ok(()));
    }

    pub(super) fn ghost(&self) -> &Ghost {
        self.checker.ghost()
    }

    fn node(&self, zxid: Zxid) -> Node {
        self.ghost().tree().find(zxid).unwrap()
    }

    /// The end of a server's log.
    pub(super) fn tip(&self, server: u32) -> Zxid {
        let ghost = self.ghost();
        let at = ghost.index(id(server)).unwrap();
        ghost.tree().zxid(ghost.servers()[at].tip)
    }

    /// The digest of the history up to `zxid`.
    pub(super) fn digest(&self, zxid: Zxid) -> u64 {
        self.ghost().tree().digest(self.node(zxid))
    }

    /// What the disk of a server holds: it starts with that, all that was appended included.
    pub(super) fn boot(&self, server: u32) -> Boot {
        let ghost = self.ghost();
        let disk = &ghost.servers()[ghost.index(id(server)).unwrap()];
        let zxid = |node| ghost.tree().zxid(node);
        Boot {
            accepted: disk.accepted,
            current: disk.current,
            begins_after: Zxid::ZERO,
            last: zxid(disk.tip),
            snapshot: Some(zxid(disk.snapshot)).filter(|&zxid| zxid != Zxid::ZERO),
            applied: zxid(disk.snapshot),
            digest: ghost.tree().digest(disk.snapshot),
        }
    }

    pub(super) fn start(&mut self, server: u32) {
        let boot = self.boot(server);
        self.see(started(server, boot));
    }

    pub(super) fn stop(&mut self, server: u32) {
        let how = Stop::PowerLost;
        let server = id(server);
        self.see(Observation::Stopped { server, how });
    }

    pub(super) fn accept(&mut self, server: u32, epoch: u64) {
        self.see(accepted(server, epoch));
    }

    /// A learner accepts the epoch of a leader and tells it so.
    pub(super) fn promise(&mut self, server: u32, leader: u32, epoch: u64) {
        self.accept(server, epoch);
        let Boot { current, last, .. } = self.boot(server);
        let what = Said::AckEpoch {
            epoch: Epoch(epoch),
            current,
            promises: true,
            last,
        };
        self.see(said(server, leader, what));
    }

    /// A leader gets its epoch promised by some.
    pub(super) fn discover(&mut self, leader: u32, epoch: u64, by: &[u32]) {
        self.accept(leader, epoch);
        for &server in by {
            let info = Said::LeaderInfo {
                epoch: Epoch(epoch),
            };
            self.see(said(leader, server, info));
            self.promise(server, leader, epoch);
        }
    }

    /// The log of a server becomes that of another, synced.
    pub(super) fn catch_up(&mut self, server: u32, upto: Zxid) {
        let ghost = self.ghost();
        let (tree, target) = (ghost.tree(), self.node(upto));
        let tip = self.node(self.tip(server));
        let meet = tree.meet(tip, target);
        let mut missing = Vec::new();
        let mut node = target;
        while node != meet {
            missing.push(tree.zxid(node));
            node = tree.parent(node);
        }
        let meet_zxid = tree.zxid(meet);
        if meet != tip {
            self.see(truncating(server, meet_zxid));
            self.see(truncated(server, meet_zxid));
        }
        for &zxid in missing.iter().rev() {
            self.append(server, zxid);
        }
        if !missing.is_empty() {
            self.sync(server);
        }
    }

    /// A leader tells a learner of its history.
    pub(super) fn tell(&mut self, leader: u32, server: u32, epoch: u64, upto: Zxid) {
        let info = Said::LeaderInfo {
            epoch: Epoch(epoch),
        };
        self.see(said(leader, server, info));
        self.see(new_leader(leader, server, epoch, upto));
    }

    /// A learner makes the epoch current and acknowledges its history.
    pub(super) fn join(&mut self, server: u32, leader: u32, epoch: u64) {
        self.see(current(server, epoch));
        self.see(ack_new_leader(server, leader, epoch));
    }

    /// All of a leader's way up to the point where it may be established.
    pub(super) fn synchronize(&mut self, leader: u32, epoch: u64, with: &[u32]) {
        self.discover(leader, epoch, with);
        let upto = self.tip(leader);
        for &server in with {
            self.tell(leader, server, epoch, upto);
            self.catch_up(server, upto);
            self.join(server, leader, epoch);
        }
        self.see(current(leader, epoch));
    }

    /// The whole of an election that ends well, everything delivered at those who take part.
    pub(super) fn elect(&mut self, leader: u32, epoch: u64, with: &[u32]) {
        self.synchronize(leader, epoch, with);
        self.enter(leader, Phase::Leading);
        self.see(established(leader, epoch));
        let upto = self.tip(leader);
        self.commit(leader, upto);
        self.deliver_upto(leader, upto);
        for &server in with {
            let epoch = Epoch(epoch);
            self.see(said(leader, server, Said::UpToDate { epoch, upto }));
            self.enter(server, Phase::Following);
            self.commit(server, upto);
            self.deliver_upto(server, upto);
        }
    }

    pub(super) fn enter(&mut self, server: u32, phase: Phase) {
        let epoch = self.boot(server).current;
        let server = id(server);
        self.see(Observation::Entered {
            server,
            phase,
            epoch,
        });
    }

    pub(super) fn broadcast(&mut self, zxid: Zxid, leader: u32) {
        self.see(broadcast(leader, zxid));
    }

    /// A leader sends a transaction.
    pub(super) fn propose(&mut self, leader: u32, server: u32, zxid: Zxid) {
        let epoch = zxid.epoch;
        self.see(said(leader, server, Said::Proposal { epoch, zxid }));
    }

    pub(super) fn append(&mut self, server: u32, zxid: Zxid) {
        self.see(appended(server, zxid));
    }

    /// Everything appended is synced.
    pub(super) fn sync(&mut self, server: u32) {
        let upto = self.tip(server);
        self.see(durable(server, upto));
    }

    pub(super) fn ack(&mut self, server: u32, leader: u32, zxid: Zxid) {
        let epoch = self.boot(server).current;
        self.see(said(server, leader, Said::Ack { epoch, zxid }));
    }

    pub(super) fn commit(&mut self, server: u32, upto: Zxid) {
        self.see(committed(server, upto));
    }

    pub(super) fn deliver(&mut self, server: u32, zxid: Zxid) {
        let seen = self.delivered(server, zxid);
        self.see(seen);
    }

    /// A delivery as it ought to be.
    pub(super) fn delivered(&self, server: u32, zxid: Zxid) -> Observation {
        let found = self.ghost().tree().find(zxid);
        Observation::Delivered {
            server: id(server),
            zxid,
            hash: hash(zxid),
            digest: found.map_or(0, |node| self.ghost().tree().digest(node)),
        }
    }

    /// Everything up to `upto` is delivered to a server, in order.
    pub(super) fn deliver_upto(&mut self, server: u32, upto: Zxid) {
        let ghost = self.ghost();
        let tree = ghost.tree();
        let applied = ghost.servers()[ghost.index(id(server)).unwrap()].applied;
        let mut missing = Vec::new();
        let mut node = self.node(upto);
        while node != applied {
            missing.push(tree.zxid(node));
            node = tree.parent(node);
        }
        for &zxid in missing.iter().rev() {
            self.deliver(server, zxid);
        }
    }

    /// A transaction goes its whole way.
    pub(super) fn write(&mut self, zxid: Zxid, leader: u32, followers: &[u32]) {
        self.broadcast(zxid, leader);
        self.append(leader, zxid);
        self.sync(leader);
        for &server in followers {
            self.propose(leader, server, zxid);
            self.append(server, zxid);
            self.sync(server);
            self.ack(server, leader, zxid);
        }
        self.commit(leader, zxid);
        self.deliver(leader, zxid);
        for &server in followers {
            let what = Said::Commit {
                epoch: zxid.epoch,
                upto: zxid,
            };
            self.see(said(leader, server, what));
            self.commit(server, zxid);
            self.deliver(server, zxid);
        }
    }

    /// A server writes a snapshot of its state as of `zxid`.
    pub(super) fn snapshot(&mut self, server: u32, zxid: Zxid) {
        let digest = self.digest(zxid);
        self.see(snapshotting(server, zxid, digest));
        self.see(snapshotted(server, zxid));
    }

    /// A server receives a snapshot.
    pub(super) fn install(&mut self, server: u32, zxid: Zxid) {
        let digest = self.digest(zxid);
        self.see(installing(server, zxid, digest));
        self.see(installed(server, zxid, digest));
        self.see(restored(server, zxid, digest));
    }
}

macro_rules! observations {
    ($($name:ident => $variant:ident { $($field:ident: $type:ty),* },)*) => {
        $(pub(super) fn $name(server: u32, $($field: $type),*) -> Observation {
            Observation::$variant { server: id(server), $($field: $field.into()),* }
        })*
    };
}

observations! {
    started => Started { boot: Boot },
    truncating => Truncating { to: Zxid },
    truncated => Truncated { to: Zxid },
    durable => Durable { upto: Zxid },
    committed => Committed { upto: Zxid },
    snapshotting => Snapshotting { zxid: Zxid, digest: u64 },
    snapshotted => Snapshotted { zxid: Zxid },
    installing => Installing { zxid: Zxid, digest: u64 },
    installed => Installed { zxid: Zxid, digest: u64 },
    restored => Restored { zxid: Zxid, digest: u64 },
    trimmed => Trimmed { begins_after: Zxid },
    wiped => Wiped {},
    set_aside => SetAside {},
}

pub(super) fn accepted(server: u32, epoch: u64) -> Observation {
    let (server, epoch) = (id(server), Epoch(epoch));
    Observation::AcceptedDurable { server, epoch }
}

pub(super) fn current(server: u32, epoch: u64) -> Observation {
    let (server, epoch) = (id(server), Epoch(epoch));
    Observation::CurrentDurable { server, epoch }
}

pub(super) fn established(server: u32, epoch: u64) -> Observation {
    let (server, epoch) = (id(server), Epoch(epoch));
    Observation::Established { server, epoch }
}

pub(super) fn deposed(server: u32, epoch: u64) -> Observation {
    let (server, epoch) = (id(server), Epoch(epoch));
    Observation::Deposed { server, epoch }
}

pub(super) fn broadcast(server: u32, zxid: Zxid) -> Observation {
    Observation::Broadcast {
        server: id(server),
        zxid,
        hash: hash(zxid),
    }
}

pub(super) fn appended(server: u32, zxid: Zxid) -> Observation {
    Observation::Appended {
        server: id(server),
        zxid,
        hash: hash(zxid),
    }
}

pub(super) fn said(from: u32, to: u32, what: Said) -> Observation {
    Observation::Sent {
        from: id(from),
        to: id(to),
        what,
    }
}

pub(super) fn new_leader(from: u32, to: u32, epoch: u64, upto: Zxid) -> Observation {
    let epoch = Epoch(epoch);
    said(from, to, Said::NewLeader { epoch, upto })
}

pub(super) fn ack_new_leader(from: u32, to: u32, epoch: u64) -> Observation {
    let epoch = Epoch(epoch);
    said(from, to, Said::AckNewLeader { epoch })
}

pub(super) fn ack(from: u32, to: u32, epoch: u64, zxid: Zxid) -> Observation {
    let epoch = Epoch(epoch);
    said(from, to, Said::Ack { epoch, zxid })
}

pub(super) fn commit(from: u32, to: u32, epoch: u64, upto: Zxid) -> Observation {
    let epoch = Epoch(epoch);
    said(from, to, Said::Commit { epoch, upto })
}
