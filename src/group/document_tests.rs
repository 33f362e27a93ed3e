//! Tests of `document.rs`.
