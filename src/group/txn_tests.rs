//! Tests of `txn.rs`.
