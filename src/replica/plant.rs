//! The lines of a replica that promises and answers rest on, each of which a plant takes away.

/// The faults that have been planted in a replica.
pub type Plants = crate::plant::Plants<Plant>;

crate::plant::plants! {
    /// A guarding line of a replica that is taken away.
    pub enum Plant {
        /// A session that has moved here has its timeout, and not what its owner may have promised.
        MovesWithoutGrace = "moves-without-grace",
        /// A session that a new run adopts has its timeout, and not what another server may have
        /// promised before it moved to the run before.
        AdoptsWithoutGrace = "adopts-without-grace",
        /// A session that comes and leaves in one batch is told as one that left and came.
        EndsBeforeDeals = "ends-before-deals",
        /// The expiry of a session is proposed in whatever term it has by then.
        ExpiresAnyTerm = "expires-any-term",
        /// A join that would change nothing is answered by what is applied here alone.
        JoinsFromOwnState = "joins-from-own-state",
        /// A new run of a server goes on under the number of the last one.
        KeepsIncarnation = "keeps-incarnation",
        /// An expiry of orphans that an earlier reign proposed settles one of the present reign.
        SettlesForAnyReign = "settles-for-any-reign",
        /// An expiry of orphans is proposed again after another leader may have granted a lease.
        ProposesOrphansAgain = "proposes-orphans-again",
        /// Sessions that are to move together are moved one by one.
        MovesOneByOne = "moves-one-by-one",
        /// A session stays with an owner that answers, though that may promise nothing.
        LeavesLapsed = "leaves-lapsed",
        /// What became of what was asked on a way that is lost is not asked of the same leader.
        WaitsForNewEpoch = "waits-for-new-epoch",
        /// What was asked of a leader that is lost is forgotten.
        ForgetsHandedBack = "forgets-handed-back",
        /// A beat is denied by what is applied here alone.
        DeniesUnasked = "denies-unasked",
        /// Each version of a group is shown as it is told, though a later one has been shown.
        ShowsOldVersions = "shows-old-versions",
    }
}
