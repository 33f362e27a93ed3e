//! The only module that knows glommio: executors, sockets, the timer and the channels.

mod background;
pub mod backing;
pub mod clock;
mod courtesy;
mod gathered;
pub mod launch;
pub mod mailbox;
pub mod notify;
pub mod pipeline;
pub mod poller;
pub mod post;
pub mod preflight;
pub mod recover;
pub mod shard;
pub mod sockets;
pub mod transport;
pub mod watchdog;
