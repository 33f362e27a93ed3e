//! The shard, the replica and the mail between them, in a world made for it.

mod beats;
mod client;
mod connections;
mod discovery;
mod ensemble;
mod expiry;
mod forwarded;
mod join_runs;
mod oracle;
mod overload;
mod polls;
mod random;
mod runs;
mod time;
mod watch;
mod watch_edges;
mod world;
