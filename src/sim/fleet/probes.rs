//! Counters of what is rare in the session world.

use super::super::probes::probes;

probes! {
    Probes of Probe:
    Lapsed = "a lease had lapsed when the next was granted",
    RefusedForLapse = "a beat or join was refused because the lease had lapsed",
    Unreachable = "a beat was refused because its owner could not be reached",
    Denied = "a client was told that its session is over",
    Joined = "a session was created",
    TakenOver = "a session was taken over by a join",
    Left = "a session was left",
    Expired = "a session expired by its own owner's word",
    Orphaned = "a session expired because its owner was lost",
    Moved = "a session moved to another server",
    Adopted = "a session was adopted by the next run of its owner",
    Retimed = "a session's timeout was changed while it lived",
    StaleExpiry = "an expiry came too late for its session",
    SentOn = "a beat was sent on and touched its session",
    OwnerWaits = "a beat was sent on and its owner could not say",
    OwnerLapsed = "a beat was sent on and its owner's lease had lapsed",
    NotHeld = "a beat was sent on to a server that did not hold its session",
    Settled = "a client had settled at another server",
    DealtWithGrace = "a shard was dealt a session that another owner may have promised",
    StateReplaced = "the state of a running server was replaced",
    Replayed = "the log was read for a replica",
    Paused = "a server was paused",
    Stopped = "a server was stopped",
    CutOff = "a server was cut off",
    Parted = "two servers did not hear each other",
    Broken = "the connections of a server broke",
    Stalled = "a shard had no turn",
    DiskSlow = "a disk was slow",
    WaysSlow = "messages were slow",
    Marooned = "a server was left with another one",
}
