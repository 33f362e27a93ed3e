//! Names of groups and members as they stand in paths and batches.
//!
//! A name is 1–255 bytes of UTF-8 without control characters (C0, DEL, C1) and without
//! `/`, escaped or not. `.` and `..` are no names: clients resolve them as directories
//! before they send, so what they name could not be reached. `config` is no member name,
//! and groups whose name begins with `-` are kept for the server's own pages. Escapes are
//! resolved before any of this is looked at: `%63onfig` is `config`.

use std::fmt;

use super::scan;

/// Longest name in bytes, escapes resolved.
pub const NAME_BYTES_MAX: usize = 255;

/// Bytes of the longest name with every byte escaped.
const ESCAPED_NAME_BYTES_MAX: usize = NAME_BYTES_MAX * 3;

/// What is not a name, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameFault {
    /// There is nothing.
    Empty,
    /// More than [`NAME_BYTES_MAX`] bytes.
    TooLong,
    /// A `%` is not followed by two hex digits.
    Escape,
    /// The bytes are not UTF-8.
    NotUtf8,
    /// There is a control character.
    Control,
    /// There is a `/`.
    Slash,
    /// `.` or `..`.
    Dots,
    /// A member called `config`.
    Config,
    /// A group that begins with `-`.
    Reserved,
}

impl fmt::Display for NameFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NameFault::Empty => "is empty",
            NameFault::TooLong => "is longer than 255 bytes",
            NameFault::Escape => "holds a % that two hex digits do not follow",
            NameFault::NotUtf8 => "is not UTF-8",
            NameFault::Control => "holds a control character",
            NameFault::Slash => "holds a slash",
            NameFault::Dots => "is . or ..",
            NameFault::Config => "is config, which no member may be called",
            NameFault::Reserved => "begins with -, which is kept for the server's own pages",
        })
    }
}

/// Room for one name whose escapes are resolved.
pub(super) type NameBuffer = [u8; ESCAPED_NAME_BYTES_MAX];

/// An empty [`NameBuffer`].
pub(super) const NAME_BUFFER: NameBuffer = [0; ESCAPED_NAME_BYTES_MAX];

/// Resolves the escapes of one path segment and checks what any name must be. Borrows
/// from `raw` if there are none, else from `buffer`.
#[inline]
pub(super) fn segment<'a>(
    raw: &'a [u8],
    buffer: &'a mut NameBuffer,
) -> Result<&'a [u8], NameFault> {
    if scan::plain_name_len(raw) == raw.len() {
        return check_plain(raw).map(|()| raw);
    }
    if raw.len() > buffer.len() {
        return Err(NameFault::TooLong);
    }
    let room = &mut buffer[..raw.len()];
    room.copy_from_slice(raw);
    segment_in_place(room)
}

/// The same for bytes that may be overwritten: escapes only ever shrink.
pub(super) fn segment_in_place(raw: &mut [u8]) -> Result<&[u8], NameFault> {
    let len = unescape(raw)?;
    let name = &raw[..len];
    check_any(name)?;
    Ok(name)
}

/// What any name must be, its characters included; its escapes are resolved.
pub(super) fn check_any(name: &[u8]) -> Result<(), NameFault> {
    check_plain(name)?;
    let text = std::str::from_utf8(name).map_err(|_| NameFault::NotUtf8)?;
    for char in text.chars() {
        if char.is_control() {
            return Err(NameFault::Control);
        }
        if char == '/' {
            return Err(NameFault::Slash);
        }
    }
    Ok(())
}

/// What any name must be, beside its characters.
#[inline]
pub(super) fn check_plain(name: &[u8]) -> Result<(), NameFault> {
    match name {
        [] => Err(NameFault::Empty),
        [b'.'] | [b'.', b'.'] => Err(NameFault::Dots),
        _ if name.len() > NAME_BYTES_MAX => Err(NameFault::TooLong),
        _ => Ok(()),
    }
}

/// What a group's name must be, beside being a name.
#[inline]
pub(super) fn check_group(name: &[u8]) -> Result<(), NameFault> {
    if name.first() == Some(&b'-') {
        Err(NameFault::Reserved)
    } else {
        Ok(())
    }
}

/// What a member's name must be, beside being a name.
#[inline]
pub(super) fn check_member(name: &[u8]) -> Result<(), NameFault> {
    if name == b"config" {
        Err(NameFault::Config)
    } else {
        Ok(())
    }
}

/// What a group and its member must be, beside their characters.
#[inline]
pub(super) fn check_pair(group: &[u8], member: &[u8]) -> Result<(), NameFault> {
    check_plain(group)?;
    check_group(group)?;
    check_plain(member)?;
    check_member(member)
}

/// Resolves `%XX` in place; gives the length that is left.
pub(super) fn unescape(bytes: &mut [u8]) -> Result<usize, NameFault> {
    let mut read = 0;
    let mut written = 0;
    while read < bytes.len() {
        let byte = match bytes[read..] {
            [b'%', high, low, ..] => {
                read += 2;
                hex_pair(high, low).ok_or(NameFault::Escape)?
            }
            [b'%', ..] => return Err(NameFault::Escape),
            _ => bytes[read],
        };
        bytes[written] = byte;
        read += 1;
        written += 1;
    }
    Ok(written)
}

fn hex_pair(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(high)? << 4 | digit(low)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(raw: &[u8]) -> Result<Vec<u8>, NameFault> {
        let mut buffer = NAME_BUFFER;
        segment(raw, &mut buffer).map(<[u8]>::to_vec)
    }

    #[test]
    fn a_plain_name_is_borrowed_and_an_escaped_one_resolved() {
        let raw = b"db1.example.com";
        let mut buffer = NAME_BUFFER;
        let name = segment(raw, &mut buffer).expect("a name");
        assert_eq!(name.as_ptr(), raw.as_ptr());
        assert_eq!(read(b"a%20b%C3%a9"), Ok("a bé".into()));
        assert_eq!(read("bé".as_bytes()), Ok("bé".into()));
        assert_eq!(
            read(b"a+b"),
            Ok(b"a+b".to_vec()),
            "a plus is a plus in a path"
        );
        assert_eq!(read(b"%2e%2e%2e"), Ok(b"...".to_vec()));
    }

    #[test]
    fn what_is_no_name_is_refused_with_its_reason() {
        let cases: [(&[u8], NameFault); 18] = [
            (b"", NameFault::Empty),
            (b".", NameFault::Dots),
            (b"..", NameFault::Dots),
            (b"%2e%2E", NameFault::Dots),
            (b"a%2Fb", NameFault::Slash),
            (b"a/b", NameFault::Slash),
            (b"a%", NameFault::Escape),
            (b"a%4", NameFault::Escape),
            (b"%zz", NameFault::Escape),
            (b"%+4", NameFault::Escape),
            (b"%00", NameFault::Control),
            (b"%0a", NameFault::Control),
            (b"\x01", NameFault::Control),
            (b"%7f", NameFault::Control),
            (b"%C2%85", NameFault::Control),
            (b"%ff", NameFault::NotUtf8),
            (b"%C3", NameFault::NotUtf8),
            (b"%ed%a0%80", NameFault::NotUtf8),
        ];
        for (raw, fault) in cases {
            assert_eq!(read(raw), Err(fault), "{:?}", String::from_utf8_lossy(raw));
        }
        assert_eq!(check_member(b"config"), Err(NameFault::Config));
        assert_eq!(check_group(b"-x"), Err(NameFault::Reserved));
        assert_eq!(check_member(b"-x"), Ok(()));
        assert_eq!(check_group(b"config"), Ok(()));
    }

    #[test]
    fn a_name_has_at_most_255_bytes_after_its_escapes_are_resolved() {
        assert_eq!(read(&[b'x'; 255]).map(|name| name.len()), Ok(255));
        assert_eq!(read(&[b'x'; 256]), Err(NameFault::TooLong));
        assert_eq!(read(&b"%78".repeat(255)).map(|name| name.len()), Ok(255));
        assert_eq!(read(&b"%78".repeat(256)), Err(NameFault::TooLong));
        assert_eq!(read(&b"%".repeat(766)), Err(NameFault::TooLong));
        let mut long = b"%78".to_vec();
        long.extend([b'x'; 255]);
        assert_eq!(read(&long), Err(NameFault::TooLong));
    }

    proptest! {
        #[test]
        fn every_valid_name_survives_full_escaping(name in "[^/\\p{Cc}]{1,60}") {
            prop_assume!(name != "." && name != ".." && name.len() <= 255);
            let escaped: String = name.bytes().map(|b| format!("%{b:02X}")).collect();
            prop_assert_eq!(read(escaped.as_bytes()), Ok(name.into_bytes()));
        }

        #[test]
        fn whatever_is_accepted_is_a_valid_name(raw in any::<Vec<u8>>()) {
            if let Ok(name) = read(&raw) {
                let text = String::from_utf8(name).expect("names are UTF-8");
                prop_assert!((1..=255).contains(&text.len()));
                prop_assert!(!text.chars().any(|c| c.is_control() || c == '/'));
            }
        }
    }
}
