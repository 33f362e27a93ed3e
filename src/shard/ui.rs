//! The page at `/-/ui`. Its files are part of the program: nothing is read, nothing can be
//! missing, and nothing comes from elsewhere.

use super::serve::Manner;
use crate::http::{Answer, EtagList, UiFile};

/// Appends a file of the page, or that the client has it already (`known`).
///
/// It is answered in every phase of the server's life: the page itself says when the server is
/// not ready.
pub(super) fn show(file: UiFile, known: Option<EtagList<'_>>, manner: Manner, out: &mut Vec<u8>) {
    let Asset { kind, bytes, etag } = asset(file);
    let unchanged = known.is_some_and(|known| known.matches_weakly(*etag));
    let answer = Answer {
        status: if unchanged { 304 } else { 200 },
        content_type: (!unchanged).then_some(kind),
        etag: Some(*etag),
        page: true,
        close: manner.close,
        ..Answer::default()
    };
    answer.write(out, bytes, manner.head_only);
}

/// A file as it is sent.
struct Asset {
    /// `Content-Type`.
    kind: &'static str,
    bytes: &'static [u8],
    /// Changes when the bytes do.
    etag: u64,
}

impl Asset {
    const fn new(kind: &'static str, bytes: &'static [u8]) -> Asset {
        let etag = fingerprint(bytes);
        Asset { kind, bytes, etag }
    }
}

fn asset(file: UiFile) -> &'static Asset {
    match file {
        UiFile::Page => &PAGE,
        UiFile::Style => &STYLE,
        UiFile::Script => &SCRIPT,
        UiFile::Icon => &ICON,
    }
}

static PAGE: Asset = Asset::new(
    "text/html; charset=utf-8",
    include_bytes!("../ui/index.html"),
);
static STYLE: Asset = Asset::new("text/css; charset=utf-8", include_bytes!("../ui/style.css"));
static SCRIPT: Asset = Asset::new(
    "text/javascript; charset=utf-8",
    include_bytes!("../ui/app.js"),
);
static ICON: Asset = Asset::new("image/svg+xml", include_bytes!("../ui/icon.svg"));

/// The page is to stay small: it is sent by a shard between heartbeats.
const PAGE_BYTES_MAX: usize = 60 * 1024;
const _: () = assert!(
    PAGE.bytes.len() + STYLE.bytes.len() + SCRIPT.bytes.len() + ICON.bytes.len() < PAGE_BYTES_MAX
);

/// FNV-1a of 64 bits: tells one release's file from another's, and holds against nobody.
const fn fingerprint(bytes: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut at = 0;
    while at < bytes.len() {
        hash = (hash ^ bytes[at] as u64).wrapping_mul(0x0000_0100_0000_01b3);
        at += 1;
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fingerprint_is_the_published_one() {
        // The vectors of the FNV reference code.
        assert_eq!(fingerprint(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fingerprint(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fingerprint(b"foobar"), 0x8594_4171_f739_67e8);
    }
}
