//! Replicas together: sessions, leases and beats between servers.

mod leases;
mod sessions;
mod world;
