//! Syncs of the log, one at a time, through the executor's ring.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use glommio::io::BufferedFile;
use glommio::{GlommioError, spawn_local};

use super::{CoreFailure, Pipeline, ToCore, on_thread};
use crate::log::{FileFlush, SyncTicket};
use crate::metrics::Latency;
use crate::runtime::background::Urgency;
use crate::runtime::clock;
use crate::types::Zxid;

/// What there is to know of syncs.
pub(super) struct Syncs {
    latency: Latency,
    files: Files,
    began_ns: u64,
}

/// Segments open for syncing, by path: the one in use, and perhaps the one before.
type Files = Rc<RefCell<HashMap<Arc<Path>, Rc<BufferedFile>>>>;

impl Syncs {
    pub(super) fn new(latency: Latency) -> Syncs {
        Syncs {
            latency,
            files: Files::default(),
            began_ns: 0,
        }
    }

    /// Shows what was measured.
    pub(super) fn publish(&mut self) {
        self.latency.publish();
    }

    /// The log was cut or replaced: a segment of the same name may be another file now.
    pub(super) fn forget_files(&mut self) {
        self.files.borrow_mut().clear();
    }
}

impl Pipeline {
    /// Starts a sync of what has been appended, unless one is out.
    pub(super) fn begin_sync(&mut self) {
        let Some(ticket) = self.log.begin_sync() else {
            return;
        };
        self.syncs.began_ns = clock::now_ns();
        let (files, reports) = (Rc::clone(&self.syncs.files), self.ways.reports.clone());
        spawn_local(async move {
            let result = sync_all(&files, &ticket).await;
            let _ = reports.send_async(ToCore::Synced(ticket, result)).await;
        })
        .detach();
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

/// Syncs the segments of `ticket` through the ring, keeping their descriptors for the next
/// sync and letting go of those it does without.
async fn sync_all(files: &Files, ticket: &SyncTicket<FileFlush>) -> io::Result<()> {
    let mut used = HashMap::new();
    for flush in &ticket.flushes {
        let path = Arc::clone(flush.path());
        let known = files.borrow().get(&path).cloned();
        let file = match known {
            Some(file) => file,
            // A descriptor to sync with needs no right to write.
            None => Rc::new(BufferedFile::open(&*path).await.map_err(plain)?),
        };
        file.fdatasync().await.map_err(plain)?;
        used.insert(path, file);
    }
    files.replace(used);
    Ok(())
}

/// The system's error without what glommio knows of the operation: the log says, in a
/// sentence, what was being done.
fn plain(error: GlommioError<()>) -> io::Error {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => error.into(),
    }
}

/// A sync that takes so long is worth a word: joins and expiries have waited for it.
const SLOW_SYNC_NS: u64 = 500_000_000;
