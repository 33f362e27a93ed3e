//! The API as a document for programs.

/// The OpenAPI 3.1 document of everything the server answers: each path, method, parameter,
/// header and refusal. `tests/openapi.rs` holds it to the routes and to the codes.
pub const OPENAPI: &[u8] = include_bytes!("openapi.json");
