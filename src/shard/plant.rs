//! The lines of a shard that its promises and answers rest on, each of which a plant takes away.

/// The faults that have been planted in a shard.
pub type Plants = crate::plant::Plants<Plant>;

crate::plant::plants! {
    /// A guarding line of a shard that is taken away.
    pub enum Plant {
        /// A beat or join is taken while the lease has lapsed.
        BeatsWhileLapsed = "beats-while-lapsed",
        /// A batch of beats is taken while the lease has lapsed.
        BatchesWhileLapsed = "batches-while-lapsed",
        /// A beat that another server has sent on is taken while the lease has lapsed.
        ForwardedWhileLapsed = "forwarded-while-lapsed",
        /// A beat that has looked for its session is taken though the lease has lapsed meanwhile.
        SearchesWhileLapsed = "searches-while-lapsed",
        /// A join is answered though the lease has lapsed while it was decided.
        JoinsWhileLapsed = "joins-while-lapsed",
        /// The time in which nothing could be promised counts against the sessions.
        CountsLapses = "counts-lapses",
        /// The time in which the shard was not run counts against the sessions.
        CountsStalls = "counts-stalls",
        /// A session whose expiry is proposed is touched.
        BeatsClosing = "beats-closing",
        /// A join is welcomed though its session is being ended, or is not here.
        WelcomesClosing = "welcomes-closing",
        /// Sessions that are due together are expired one by one.
        ExpiresOneByOne = "expires-one-by-one",
        /// The first beat that another server sends on tells that its client has settled there.
        SettlesAtOnce = "settles-at-once",
        /// A beat is answered from a state older than its client has seen.
        BeatsIgnoreFloor = "beats-ignore-floor",
        /// A document is shown that is older than its client has seen.
        DocumentsIgnoreFloor = "documents-ignore-floor",
        /// A client that is ahead of this shard is told that its session is another's.
        DeniesWhoIsAhead = "denies-who-is-ahead",
        /// What is heard of a session while it is between two shards is lost.
        ForgetsNewsOnTheWay = "forgets-news-on-the-way",
        /// A session that changes shards loses what it has beyond its timeout.
        LosesGraceOnTheWay = "loses-grace-on-the-way",
        /// A shorter timeout takes away what the owner before this one may have promised.
        ShortensGrace = "shortens-grace",
    }
}
