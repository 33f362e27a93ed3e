//! Faults planted on purpose: each takes away one line that a promise rests on.
//!
//! The simulator must find every one of them. Outside tests and the simulator a set of plants
//! has no bits, and every question is answered `false` at compile time.

/// The faults that have been planted in the leases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Plants {
    #[cfg(any(test, feature = "sim"))]
    bits: u32,
}

impl Plants {
    /// No faults.
    pub const NONE: Plants = Plants {
        #[cfg(any(test, feature = "sim"))]
        bits: 0,
    };

    /// Just this fault.
    #[cfg(any(test, feature = "sim"))]
    #[must_use]
    pub fn only(plant: Plant) -> Plants {
        Plants {
            bits: 1 << plant as u32,
        }
    }

    /// True if `plant` is among them.
    #[inline]
    #[must_use]
    pub fn has(self, plant: Plant) -> bool {
        #[cfg(any(test, feature = "sim"))]
        {
            self.bits & (1 << plant as u32) != 0
        }
        #[cfg(not(any(test, feature = "sim")))]
        {
            let _ = plant;
            false
        }
    }
}

macro_rules! plants {
    ($($(#[doc = $doc:literal])* $name:ident = $text:literal,)*) => {
        /// A guarding line that is taken away.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        pub enum Plant {
            $($(#[doc = $doc])* $name,)*
        }

        impl Plant {
            /// Every plant there is.
            pub const ALL: &[Plant] = &[$(Plant::$name,)*];

            /// Its name on the command line.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Plant::$name => $text,)*
                }
            }
        }
    };
}

plants! {
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

const _: () = assert!(Plant::ALL.len() <= 32, "a plant is a bit of a u32");
