//! Counters of rare things: a simulation that never reaches them proves nothing about them.

/// Makes a list of probes, and the counts of how often each was reached.
macro_rules! probes {
    ($counts:ident of $probe:ident: $($name:ident = $text:literal,)*) => {
        /// A rare thing.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[expect(missing_docs, reason = "each is described by its name on the command line")]
        #[repr(usize)]
        pub enum $probe {
            $($name,)*
        }

        impl $probe {
            /// Every probe.
            pub const ALL: &[$probe] = &[$($probe::$name,)*];

            /// Its name on the command line.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $($probe::$name => $text,)*
                }
            }
        }

        /// How often each thing was reached.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $counts([u64; $probe::ALL.len()]);

        impl $counts {
            /// Nothing was reached.
            #[must_use]
            pub fn new() -> $counts {
                $counts([0; $probe::ALL.len()])
            }

            /// Takes note that `probe` was reached.
            #[inline]
            pub fn hit(&mut self, probe: $probe) {
                self.0[probe as usize] += 1;
            }

            /// How often `probe` was reached.
            #[must_use]
            pub fn count(&self, probe: $probe) -> u64 {
                self.0[probe as usize]
            }

            /// Adds the counts of another run.
            pub fn add(&mut self, other: &$counts) {
                for (mine, theirs) in self.0.iter_mut().zip(other.0) {
                    *mine += theirs;
                }
            }

            /// Those never reached.
            pub fn unfired(&self) -> impl Iterator<Item = $probe> + '_ {
                $probe::ALL
                    .iter()
                    .copied()
                    .filter(|&probe| self.count(probe) == 0)
            }
        }

        impl Default for $counts {
            fn default() -> $counts {
                $counts::new()
            }
        }
    };
}

pub(crate) use probes;

probes! {
    Probes of Probe:
    Established = "a leader was established",
    DeposedLeading = "an established leader stepped down",
    FailedDiscovery = "discovery failed and the server looked anew",
    FailedSynchronization = "synchronization failed and the server looked anew",
    FollowerLost = "a follower lost its leader",
    Observing = "an observer followed",
    LearnerDiff = "a learner was continued by Diff",
    LearnerTrunc = "a learner was cut by Trunc",
    LearnerSnap = "a learner was sent a snapshot",
    SnapInPieces = "a snapshot took several pieces",
    LogRead = "a learner was fed from the disk",
    ReadGone = "what a learner needed was trimmed away",
    ReplayedLog = "committed transactions were replayed from the log",
    Informed = "an observer was informed",
    CutFollower = "a log was cut",
    CutAcrossEpochs = "a cut reached into an earlier epoch",
    InstallOverHistory = "a snapshot took the place of a history",
    BlankAdmitted = "a server that lost its data was led again",
    ProposalRefused = "a proposal was refused: too many in flight",
    ProposalForwarded = "a follower's request was proposed by the leader",
    NoQuorum = "a leader had no quorum behind it any more",
    InitLimit = "a leader was not established in time",
    MoreRecentFollower = "a leader met a voter with a more recent history",
    NewerEpoch = "a leader met a voter that accepted a newer epoch",
    LeaderSilent = "a follower did not hear its leader for too long",
    LeaderLost = "a follower's transport lost the leader",
    LeaderLooks = "a follower's leader looked for a leader itself",
    Closed = "a follower was let go",
    Gap = "a follower was not sent everything",
    BarrierPassed = "a barrier was passed",
    BarrierLost = "a barrier was lost with its leader",
    Abdicated = "a leader with a stuck disk stepped down",
    NewEpochByCounter = "an epoch ended because its counter was used up",
    SnapshotDuringCommits = "commits went on while a snapshot was written",
    Trimmed = "a log was trimmed",
    DiskOutlivesRun = "a server was stopped with its disk at work",
    FellInFlight = "a leader fell with proposals in flight",
    PhaseChange = "a server went on to another phase",
    TornTail = "a torn tail was cut off at a start",
    UnsyncedSurvived = "transactions that were never synced survived a loss of power",
    CrashInWrite = "power was lost inside a write",
    CrashInCut = "power was lost while a log was cut",
    CrashInInstall = "power was lost while a snapshot was installed",
    CrashLooking = "a server was stopped while looking",
    CrashDiscovery = "a server was stopped in discovery",
    CrashSynchronization = "a server was stopped in synchronization",
    CrashFollowing = "a follower was stopped",
    CrashLeading = "an established leader was stopped",
    Killed = "a process was killed",
    PowerLost = "a server lost power",
    AllCrashed = "all servers lost power at once",
    Wiped = "a disk was wiped",
    FlipUnnoticed = "a bit flip looked like a torn tail",
    Flipped = "a bit was flipped",
    SetAside = "a damaged log was set aside",
    DiskError = "a disk error fenced a server",
    DiskFull = "a full disk fenced a server",
    StartFailed = "a start failed on its disk and was tried again",
    DiskSlow = "a disk was slow",
    DiskStuck = "a disk was stuck",
    Paused = "a server was paused",
    OneWayCut = "a way was cut in one direction",
    Isolated = "a server was cut off",
    Partitioned = "the ensemble was split",
    Bridged = "two halves saw each other over one bridge",
    Ringed = "servers saw only their neighbours",
    Flapped = "a link flapped",
    ConnectionReset = "a connection was reset",
    MessageLost = "a message was lost on a connection",
    MessageRepeated = "a message was repeated",
    MessageReordered = "a message overtook another of its connection",
    MessageLate = "a message of an old connection was delivered",
    MessageHeld = "messages were held by a stalled link and delivered later",
    NoticeLost = "a server was not told that its connection is gone",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_reached_in_either_run_counts() {
        let (mut one, mut other) = (Probes::new(), Probes::new());
        one.hit(Probe::Wiped);
        other.hit(Probe::Wiped);
        other.hit(Probe::Paused);
        one.add(&other);
        assert_eq!(one.count(Probe::Wiped), 2);
        assert_eq!(one.count(Probe::Paused), 1);
        assert_eq!(one.unfired().count(), Probe::ALL.len() - 2);
    }
}
