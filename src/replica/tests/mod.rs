//! Replicas together: sessions, leases, beats between servers, and who watches what.

mod leases;
mod sessions;
mod watches;
mod world;
