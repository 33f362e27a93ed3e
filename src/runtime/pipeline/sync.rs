//! Syncs of the log, one at a time, on a thread of their own.
//!
//! Not in the executor's ring: there a worker of the kernel's does the same, and the executor
//! enters the ring a dozen times to put itself to rest and to find out that it has ended. Nor on
//! the core itself: while a disk hangs, it has other servers and watchers to talk to.

use std::io;

use flume::{Receiver, Sender};

use super::{CoreFailure, Pipeline, ToCore, on_thread};
use crate::log::{FileFlush, SyncTicket};
use crate::metrics::Latency;
use crate::runtime::background::{self, Urgency};
use crate::runtime::clock;
use crate::types::Zxid;

/// What there is to know of syncs.
pub(super) struct Syncs {
    latency: Latency,
    /// To the thread; it ends when this is gone.
    tickets: Sender<SyncTicket<FileFlush>>,
    /// The thread's end, until it is started.
    thread: Option<Receiver<SyncTicket<FileFlush>>>,
    began_ns: u64,
}

impl Syncs {
    pub(super) fn new(latency: Latency) -> Syncs {
        // One sync is out at a time.
        let (tickets, taken) = flume::bounded(1);
        Syncs {
            latency,
            tickets,
            thread: Some(taken),
            began_ns: 0,
        }
    }

    /// Starts the thread that syncs, and reports each as [`ToCore::Synced`].
    ///
    /// # Errors
    /// If the system refuses the thread.
    pub(super) fn start(&mut self, reports: Sender<ToCore>) -> io::Result<()> {
        let Some(taken) = self.thread.take() else {
            return Ok(());
        };
        background::spawn("log-sync", Urgency::Waited, move || {
            for ticket in taken {
                let result = ticket.run();
                // The core is gone: what was synced is, all the same.
                let _ = reports.send(ToCore::Synced(ticket, result));
            }
        })
    }

    /// Shows what was measured.
    pub(super) fn publish(&mut self) {
        self.latency.publish();
    }
}

impl Pipeline {
    /// Starts a sync of what has been appended, unless one is out.
    pub(super) fn begin_sync(&mut self) {
        let Some(ticket) = self.log.begin_sync() else {
            return;
        };
        self.syncs.began_ns = clock::now_ns();
        // The thread has nothing else to do, and ends after this.
        let _ = self.syncs.tickets.send(ticket);
    }

    /// Takes back a ticket; the last durable transaction is returned.
    pub(super) fn end_sync(
        &mut self,
        ticket: SyncTicket<FileFlush>,
        result: io::Result<()>,
    ) -> Result<Zxid, CoreFailure> {
        let took_ns = clock::now_ns() - self.syncs.began_ns;
        self.syncs.latency.record(took_ns, 1);
        if took_ns >= SLOW_SYNC_NS {
            let took_ms = took_ns / 1_000_000;
            tracing::warn!("it took {took_ms} ms to sync the log: nothing was committed meanwhile");
        }
        let ended = self.log.end_sync(ticket, result);
        let durable = ended.map_err(|fatal| self.failed(fatal))?;
        self.counters.syncs.add(1);
        Ok(durable)
    }

    /// Has the next segment made on a thread of its own, ahead of its use.
    pub(super) fn prepare_segment(&mut self) {
        if let Some(job) = self.log.prepare_job() {
            on_thread("segment", Urgency::Waited, move || {
                // Whatever goes wrong shows when the segment is needed, and is told then.
                let _ = job.run();
            });
        }
    }
}

/// A sync that takes so long is worth a word: joins and expiries have waited for it.
const SLOW_SYNC_NS: u64 = 500_000_000;
