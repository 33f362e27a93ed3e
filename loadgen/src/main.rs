//! Load generator and verifier for systole.
fn main() {}
