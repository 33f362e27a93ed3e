//! Ensembles of real server processes, and what may happen to them: each test harms one in its
//! own way while clients beat, and holds every answer against what was promised before.
//!
//! | file | about |
//! |---|---|
//! | `ensemble` | starting, killing, holding servers; what they say of themselves |
//! | `network`, `relay` | what is between them, which can be cut, slowed and broken |
//! | `caller`, `member`, `watcher`, `listener` | clients |
//! | `ledger` | what clients were promised, and the judgement |
//! | `registers`, `history` | clients whose answers some order must explain |
//! | `faults`, `watching` | one fault, one promise |
//! | `chaos` | random faults for as long as one likes |

#[path = "../common/mod.rs"]
mod common;

mod caller;
mod chaos;
mod ensemble;
mod faults;
mod history;
mod ledger;
mod listener;
mod member;
mod network;
mod registers;
mod relay;
mod watcher;
mod watching;
