//! The lines of the leases that a promise rests on, each of which a plant takes away.

/// The faults that have been planted in the leases.
pub type Plants = crate::plant::Plants<Plant>;

crate::plant::plants! {
    /// A guarding line of the leases that is taken away.
    pub enum Plant {
        /// A renewal is granted without asking a quorum whether this server still leads.
        GrantWithoutRound = "grant-without-round",
        /// A round proves renewals that came after it had begun.
        GrantByEarlierRound = "grant-by-earlier-round",
        /// A grant counts before the owner has applied what was committed when it was given.
        GrantWithoutApplied = "grant-without-applied",
        /// A lease is granted while expiries of the owner's sessions are undecided.
        GrantDuringExpiry = "grant-during-expiry",
        /// A leader does not wait for what was promised before it was established.
        ForgetsEstablishment = "forgets-establishment",
        /// A leader expires the sessions of an owner although it has renewed meanwhile.
        ForgetsRenewals = "forgets-renewals",
        /// Sessions that have just come to an owner have no time of their own there.
        ForgetsAssigned = "forgets-assigned",
        /// What the leader remembers of an earlier run of a server is lost when the next one speaks.
        ForgetsEarlierRuns = "forgets-earlier-runs",
        /// A grant counts from the newest renewal that was sent, not from its own.
        CountsFromNewest = "counts-from-newest",
        /// An orphan is given its timeout, and not the rest of its owner's lease.
        OrphansWithoutLease = "orphans-without-lease",
        /// Clocks are taken to run alike.
        OrphansWithoutDrift = "orphans-without-drift",
    }
}
