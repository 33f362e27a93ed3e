//! The fields of a frame: each one's writer and reader.

use std::sync::Arc;

use super::Malformed;
use crate::types::{Epoch, SessionId, Zxid};

pub(super) fn put_u32(value: u32, out: &mut Vec<u8>) {
    out.extend_from_slice(&value.to_be_bytes());
}

pub(super) fn put_u64(value: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(&value.to_be_bytes());
}

pub(super) fn put_flag(value: bool, out: &mut Vec<u8>) {
    out.push(u8::from(value));
}

pub(super) fn put_zxid(value: Zxid, out: &mut Vec<u8>) {
    out.extend_from_slice(&value.to_bytes());
}

pub(super) fn put_session(value: SessionId, out: &mut Vec<u8>) {
    out.extend_from_slice(&value.to_bytes());
}

pub(super) fn put_name(name: &[u8], out: &mut Vec<u8>) {
    out.push(u8::try_from(name.len()).expect("a name has at most 255 bytes"));
    out.extend_from_slice(name);
}

/// What is left to read of a frame's kind and body.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    /// Where that begins, from the beginning of the frame.
    offset: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8], offset: usize) -> Reader<'a> {
        Reader {
            rest: bytes,
            offset,
        }
    }

    pub(super) fn u8(&mut self) -> Result<u8, Malformed> {
        let [byte] = self.array()?;
        Ok(byte)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_be_bytes)
    }

    pub(super) fn flag(&mut self) -> Result<bool, Malformed> {
        let wrong = self.wrong("flag");
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(wrong),
        }
    }

    pub(super) fn epoch(&mut self) -> Result<Epoch, Malformed> {
        self.u64().map(Epoch)
    }

    pub(super) fn zxid(&mut self) -> Result<Zxid, Malformed> {
        self.array().map(Zxid::from_bytes)
    }

    pub(super) fn session(&mut self) -> Result<SessionId, Malformed> {
        self.array().map(SessionId::from_bytes)
    }

    pub(super) fn name(&mut self) -> Result<Box<[u8]>, Malformed> {
        let length = self.u8()?;
        self.take(usize::from(length)).map(Box::from)
    }

    /// `count` of what `read` reads, each of which takes at least `bytes_min` bytes: so that a
    /// count that cannot be true reserves no room.
    pub(super) fn list<T>(
        &mut self,
        count: usize,
        bytes_min: usize,
        read: impl Fn(&mut Reader<'a>) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, Malformed> {
        let mut list = Vec::with_capacity(count.min(self.rest.len() / bytes_min));
        for _ in 0..count {
            list.push(read(self)?);
        }
        Ok(list)
    }

    /// All that is left.
    pub(super) fn rest(&mut self) -> Arc<[u8]> {
        self.offset += self.rest.len();
        std::mem::take(&mut self.rest).into()
    }

    /// Checks that nothing is left.
    pub(super) fn end(&self) -> Result<(), Malformed> {
        if self.rest.is_empty() {
            return Ok(());
        }
        Err(Malformed::EndsLate {
            offset: self.offset,
        })
    }

    /// What to say if the next field has an impossible value.
    pub(super) fn wrong(&self, field: &'static str) -> Malformed {
        Malformed::Field {
            field,
            offset: self.offset,
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let taken = self.take(N)?;
        Ok(taken.try_into().expect("take gives as many as asked for"))
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let Some((taken, rest)) = self.rest.split_at_checked(count) else {
            return Err(Malformed::EndsEarly {
                offset: self.offset,
            });
        };
        self.rest = rest;
        self.offset += count;
        Ok(taken)
    }
}
