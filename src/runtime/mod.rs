//! The only module that knows glommio: executors, sockets, the timer and the channels.

pub mod clock;
pub mod poller;
pub mod preflight;
pub mod sockets;
pub mod watchdog;
