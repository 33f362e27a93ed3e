//! A strict HTTP/1.1 codec over byte slices: it neither reads nor sends nor waits.
//!
//! ```text
//! bytes ─ parse ─▶ Request ─ route ─▶ Route ─(the shard decides)─▶ respond ─▶ bytes
//!             ╲               ╲
//!              ╲── Problem ────╲── Problem ──────────────────────▶ respond
//! ```
//!
//! How to serve a connection with it:
//!
//! 1. [`parse()`] the bytes at hand. `None`: read more, and answer 408 if it takes too long.
//! 2. [`route()`] the request as soon as the head is there. If the body is not, and the
//!    client expects it, send [`CONTINUE`] once; then wait for [`Request::total_len`] bytes.
//! 3. Answer, drop the request's bytes, go on with the next; all answers of one read leave
//!    with one send. After an answer to a request that is not `keep_alive`, or a
//!    [`Problem`] that says `close`, stop reading requests and close.
//!
//! Strict means: whatever two readers could understand differently is refused, so that no
//! request can be smuggled through a proxy. The one generosity is an empty line before a
//! request.
//!
//! Names are as `name.rs` says: 1–255 bytes of UTF-8 with neither control characters nor
//! `/`; not `.` or `..`; no member is called `config`, no group begins with `-`.

mod batch;
mod etag;
mod familiar;
mod headers;
mod name;
mod openapi;
mod parse;
mod plain_join;
mod problem;
mod query;
mod respond;
mod route;
mod scan;
#[cfg(test)]
mod tests;

pub use batch::{Line, Names, Report, likely_beats, names, packed};
pub use etag::EtagList;
pub use familiar::{Familiar, FamiliarBeat, FamiliarJoins, SeenBeat};
pub use headers::Headers;
pub use name::{NAME_BYTES_MAX, NameFault};
pub use openapi::OPENAPI;
pub use parse::{Limits, Method, Progress, Request, begins_with_head_method, parse};
pub use plain_join::{PlainJoin, PlainJoins};
pub use problem::{Code, Problem};
pub use query::duration;
pub use respond::{Answer, BeatAnswer, CONTINUE, LAST_CHUNK, Length, piece};
pub use route::{CONFIG_BYTES_MAX, Page, Route, Scratch, UiFile, config_text, route};
