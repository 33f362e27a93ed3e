//! The log under every fault: what was reported durable is read back, byte for byte.

mod aside;
mod backup;
mod crash;
mod damage;
mod faults;
mod files;
mod flips;
mod guards;
mod inspect;
mod install;
mod world;
