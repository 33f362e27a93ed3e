//! The lines of the protocol that a property rests on, each of which a plant takes away
//! (`sim --plant NAME`).

/// The faults that have been planted in the protocol.
pub type Plants = crate::plant::Plants<Plant>;

crate::plant::plants! {
    /// A guarding line of the protocol that is taken away.
    pub enum Plant {
        /// Half of the voters pass for a majority.
        HalfIsQuorum = "half-is-quorum",
        /// Observers' acknowledgements count.
        ObserversCount = "observers-count",
        /// A follower acknowledges what it has appended and not yet synced.
        AckBeforeDurable = "ack-before-durable",
        /// The leader counts itself before its own sync.
        LeaderAckBeforeDurable = "leader-ack-before-durable",
        /// NewLeader is acknowledged before the history is durable (ZOOKEEPER-3911, 4785).
        HistoryNotDurable = "history-not-durable",
        /// NewLeader is acknowledged before the current epoch is durable.
        CurrentEpochNotDurable = "current-epoch-not-durable",
        /// The current epoch is raised before the history is durable (ZOOKEEPER-4643).
        EpochBeforeHistory = "epoch-before-history",
        /// A transaction's acknowledgement overtakes that of NewLeader (ZOOKEEPER-4685).
        AckOvertakesNewLeader = "ack-overtakes-new-leader",
        /// The leader announces its epoch before it is durable.
        LeaderInfoBeforeDurable = "leader-info-before-durable",
        /// A follower accepts an epoch without making it durable first.
        AckEpochBeforeDurable = "ack-epoch-before-durable",
        /// A follower follows into an epoch below the one it accepted.
        FollowsLowerEpoch = "follows-lower-epoch",
        /// An epoch that was accepted before counts as a promise again.
        OldPromiseCounts = "old-promise-counts",
        /// The leader leads a follower whose history is more recent.
        LeadsMoreRecent = "leads-more-recent",
        /// The new epoch is the leader's own plus one, whatever the quorum accepted.
        EpochOfOwn = "epoch-of-own",
        /// The last common transaction is found by comparing ranges (ZOOKEEPER-1154, 2832).
        ComparesRanges = "compares-ranges",
        /// A longer history is not cut.
        KeepsSuffix = "keeps-suffix",
        /// A history is cut back to its beginning.
        CutsTooMuch = "cuts-too-much",
        /// Live proposals begin one after where the history ended.
        GapAtSwitch = "gap-at-switch",
        /// A learner takes whatever comes next for the next.
        TakesGaps = "takes-gaps",
        /// Messages of an earlier attempt to follow are taken for those of the present one.
        TakesOldTenure = "takes-old-tenure",
        /// A message is taken out of its place.
        TakesAnySeq = "takes-any-seq",
        /// A server without data votes like any other (ZOOKEEPER-261, 2325).
        BlankVotes = "blank-votes",
        /// A server without data is led, and counted, before the leader has made sure it still leads.
        BlankUnconfirmed = "blank-unconfirmed",
        /// The leader is established by the first acknowledgement of NewLeader.
        EstablishedByOne = "established-by-one",
        /// The election compares transactions before epochs.
        ZxidBeforeEpoch = "zxid-before-epoch",
        /// The election prefers the higher id, whatever its history.
        IdDecides = "id-decides",
        /// A leader commits what a quorum has acknowledged while it is not established.
        CommitsBeforeEstablished = "commits-before-established",
        /// A commit is told beyond what the learner has been sent.
        CommitBeyondSent = "commit-beyond-sent",
        /// A follower delivers what it is sent without waiting for the commit.
        DeliversUncommitted = "delivers-uncommitted",
        /// A leader without a quorum goes on.
        NeverStepsDown = "never-steps-down",
        /// A server whose disk is stuck goes on leading.
        IgnoresStuckDisk = "ignores-stuck-disk",
        /// After a failed write the server goes on as if nothing had been (etcd, PostgreSQL 2018).
        GoesOnAfterFault = "goes-on-after-fault",
        /// A barrier is passed without a round of pings.
        BarrierWithoutRound = "barrier-without-round",
        /// A snapshot older than the learner's committed history may replace it.
        SnapsBack = "snaps-back",
        /// A report about the disk from before a cut is believed.
        StaleDiskReport = "stale-disk-report",
        /// What is in the log at the start passes for committed.
        BootIsCommitted = "boot-is-committed",
        /// A leader that meets a newer epoch than its own leads on and announces its own, so that that
        /// server stays out.
        IgnoresNewerEpoch = "ignores-newer-epoch",
        /// The counter of an epoch is used up to its end, and then again.
        CounterWraps = "counter-wraps",
        /// A learner is sent all there is, whatever it has acknowledged.
        SendsUnbounded = "sends-unbounded",
        /// A follower that acknowledges nothing is kept.
        KeepsSlow = "keeps-slow",
        /// A learner whose synchronization makes no progress is kept.
        KeepsStuck = "keeps-stuck",
        /// What is sent of a history gives no more time for the rest.
        ProgressIsNothing = "progress-is-nothing",
        /// A snapshot that was received is not passed on.
        ForgetsInstalled = "forgets-installed",
        /// A server gives up what it has committed if its leader says so.
        ForgetsCommitted = "forgets-committed",
        /// An observer is told the epoch of a leader that may never be established.
        ObserversHearEarly = "observers-hear-early",
    }
}
