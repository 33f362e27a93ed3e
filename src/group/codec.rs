//! Numbers and names as bytes: the primitives that transactions, leaves and snapshots share.
//!
//! A *varint* is LEB128: seven bits a byte, least significant first, the top bit set on all
//! but the last byte; a `u64` takes 1 to 10 bytes. Only the shortest form is accepted, so
//! that a value has exactly one encoding and equal states have equal bytes.

/// Bytes that cannot have been written by this program: damage, or a newer format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {offset}")]
pub struct Corrupt {
    /// How far into the transaction or snapshot the trouble was found.
    pub offset: u64,
    /// What was wrong there.
    pub what: &'static str,
}

/// Appends `value` as a varint.
pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends `name` behind its length in one byte.
///
/// # Panics
/// If the name is longer than 255 bytes: whoever let it in did not check it.
pub(super) fn put_name(out: &mut Vec<u8>, name: &[u8]) {
    let len = u8::try_from(name.len()).expect("names were checked to be at most 255 bytes");
    out.push(len);
    out.extend_from_slice(name);
}

/// Reads untrusted bytes from front to back; every method fails rather than panics.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes, at: 0 }
    }

    /// How many bytes have been read.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    pub(super) fn is_empty(&self) -> bool {
        self.left() == 0
    }

    /// How many bytes are yet to be read.
    pub(super) fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// The error that names the present place.
    pub(super) fn corrupt(&self, what: &'static str) -> Corrupt {
        Corrupt {
            offset: self.at as u64,
            what,
        }
    }

    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8], Corrupt> {
        let rest = &self.bytes[self.at..];
        if rest.len() < len {
            return Err(self.corrupt(ENDS_EARLY));
        }
        self.at += len;
        Ok(&rest[..len])
    }

    pub(super) fn byte(&mut self) -> Result<u8, Corrupt> {
        Ok(self.take(1)?[0])
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Corrupt> {
        let bytes = self.take(N)?;
        Ok(bytes.try_into().expect("`take` returned N bytes"))
    }

    pub(super) fn varint(&mut self) -> Result<u64, Corrupt> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            // The tenth byte holds bit 63 alone.
            if shift == 63 && byte > 1 {
                return Err(self.corrupt("a number beyond 64 bits"));
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                if byte == 0 && shift > 0 {
                    return Err(self.corrupt("a number written longer than needed"));
                }
                return Ok(value);
            }
        }
        Err(self.corrupt("a number beyond 64 bits"))
    }

    pub(super) fn varint_u32(&mut self) -> Result<u32, Corrupt> {
        let value = self.varint()?;
        u32::try_from(value).map_err(|_| self.corrupt("a number beyond 32 bits"))
    }

    /// A name as [`put_name`] writes it: 1 to 255 bytes of UTF-8.
    pub(super) fn name(&mut self) -> Result<&'a [u8], Corrupt> {
        let len = usize::from(self.byte()?);
        if len == 0 {
            return Err(self.corrupt("an empty name"));
        }
        let name = self.take(len)?;
        self.utf8(name, "a name that is not UTF-8")
    }

    /// A name, or nothing behind a length of 0.
    pub(super) fn name_or_none(&mut self) -> Result<&'a [u8], Corrupt> {
        let len = usize::from(self.byte()?);
        let name = self.take(len)?;
        self.utf8(name, "a name that is not UTF-8")
    }

    /// A length as a varint, at most `max`, then that many bytes of UTF-8.
    pub(super) fn text(&mut self, max: usize) -> Result<&'a [u8], Corrupt> {
        let len = self.varint()?;
        if len > max as u64 {
            return Err(self.corrupt("a text beyond its limit"));
        }
        let text = self.take(len as usize)?;
        self.utf8(text, "a text that is not UTF-8")
    }

    pub(super) fn utf8(&self, bytes: &'a [u8], what: &'static str) -> Result<&'a [u8], Corrupt> {
        match is_utf8(bytes) {
            true => Ok(bytes),
            false => Err(self.corrupt(what)),
        }
    }
}

/// True if `bytes` are UTF-8. Names mostly are ASCII, which is told ten times as fast.
pub(super) fn is_utf8(bytes: &[u8]) -> bool {
    bytes.is_ascii() || std::str::from_utf8(bytes).is_ok()
}

/// What [`Corrupt::what`] says when the bytes stop before the value does. The reader of a
/// snapshot in pieces waits for the next piece on this, and on this alone.
pub(super) const ENDS_EARLY: &str = "the bytes end early";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_varint_reads_back_and_its_longer_forms_are_refused() {
        for value in [
            0,
            1,
            127,
            128,
            300,
            u64::from(u32::MAX),
            u64::MAX - 1,
            u64::MAX,
        ] {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            let mut reader = Reader::new(&bytes);
            assert_eq!(reader.varint(), Ok(value));
            assert!(reader.is_empty());
            // The same value with one more byte of nothing.
            *bytes.last_mut().unwrap() |= 0x80;
            bytes.push(0);
            assert!(Reader::new(&bytes).varint().is_err(), "{value}");
        }
    }

    #[test]
    fn a_varint_beyond_64_bits_is_refused() {
        let mut bytes = [0xff; 10];
        bytes[9] = 2;
        assert!(Reader::new(&bytes).varint().is_err());
        assert!(Reader::new(&[0xff; 11]).varint().is_err());
        assert!(
            Reader::new(&[0xff, 0xff, 0xff, 0xff, 0x1f])
                .varint_u32()
                .is_err()
        );
    }

    #[test]
    fn names_are_one_to_255_bytes_of_utf8() {
        assert!(Reader::new(&[0]).name().is_err());
        assert!(Reader::new(&[1, 0xff]).name().is_err());
        assert_eq!(Reader::new(&[2, b'a']).name().unwrap_err().what, ENDS_EARLY);
        assert_eq!(Reader::new(&[1, b'a']).name(), Ok(&b"a"[..]));
    }

    #[test]
    fn a_text_is_bounded_before_it_is_read() {
        assert!(Reader::new(&[3, b'a', b'b', b'c']).text(2).is_err());
        assert_eq!(Reader::new(&[2, b'a', b'b']).text(2), Ok(&b"ab"[..]));
    }
}
