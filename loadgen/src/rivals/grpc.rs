//! As much HTTP/2 and gRPC as a load needs: a client that opens streams and sends messages.
//!
//! ```text
//! HTTP/2 frame: length 3, type 1, flags 1, stream 4, payload          (big-endian)
//! gRPC message, in DATA frames however cut: compressed 1 = 0, length 4, protobuf
//! ```
//!
//! Headers are sent as literals and those that come are not decoded: whether a call has
//! succeeded is told by its message, which a failed one does not have. Flow control towards
//! us is opened as wide as it goes at the start, which is enough for 2 GiB a connection.

/// One connection.
#[derive(Debug, Default)]
pub(super) struct Connection {
    /// Streams opened so far.
    opened: u32,
    /// The stream that stays open for many messages; 0 if there is none.
    lasting: u32,
    /// Bytes of a message whose rest has not come.
    message: Vec<u8>,
    /// A call's message, until the call ends.
    answer: Option<Vec<u8>>,
}

/// What a frame has brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Brought {
    /// Nothing that was asked for.
    Nothing,
    /// The server's settings: the connection stands.
    Settings,
    /// A message on the lasting stream.
    Message(Vec<u8>),
    /// A call has ended: with its message, or without one if it failed.
    Ended(Option<Vec<u8>>),
}

impl Connection {
    /// What a connection begins with; its answer is the server's settings.
    pub(super) fn hello(&mut self, out: &mut Vec<u8>) {
        *self = Connection::default();
        out.extend_from_slice(PREFACE);
        let mut settings = Vec::new();
        settings.extend_from_slice(&INITIAL_WINDOW.to_be_bytes());
        settings.extend_from_slice(&WINDOW_MAX.to_be_bytes());
        frame(out, SETTINGS, 0, 0, &settings);
        let more = WINDOW_MAX - WINDOW_DEFAULT;
        frame(out, WINDOW_UPDATE, 0, 0, &more.to_be_bytes());
    }

    /// A call with one message and one answer.
    pub(super) fn call(&mut self, out: &mut Vec<u8>, path: &str, message: &[u8]) {
        let stream = self.open(out, path);
        data(out, stream, END_STREAM, message);
    }

    /// A message on the stream to `path` that stays open; opens it if it is not.
    pub(super) fn send(&mut self, out: &mut Vec<u8>, path: &str, message: &[u8]) {
        if self.lasting == 0 {
            self.lasting = self.open(out, path);
        }
        data(out, self.lasting, 0, message);
    }

    /// Reads the first frame; returns its length and what it has brought. What must be said back
    /// goes into `out`.
    ///
    /// # Errors
    /// If the server ends a stream or the connection, or breaks the protocol.
    pub(super) fn read(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<(usize, Brought)>, String> {
        let Some((head, rest)) = input.split_at_checked(HEAD) else {
            return Ok(None);
        };
        let len = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        if len > FRAME_BYTES_MAX {
            return Err(format!("a frame of {len} bytes"));
        }
        let Some(payload) = rest.get(..len) else {
            return Ok(None);
        };
        let (kind, flags) = (head[3], head[4]);
        let stream = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
        let brought = match kind {
            SETTINGS if flags & ACK == 0 => {
                frame(out, SETTINGS, ACK, 0, &[]);
                Brought::Settings
            }
            PING if flags & ACK == 0 => {
                frame(out, PING, ACK, 0, payload);
                Brought::Nothing
            }
            DATA => self.data(stream, flags, payload)?,
            HEADERS if flags & END_STREAM != 0 => self.ended(stream)?,
            RST_STREAM => return Err("the server ended a stream".to_owned()),
            GOAWAY => return Err("the server ended the connection".to_owned()),
            HEADERS | SETTINGS | PING | WINDOW_UPDATE | CONTINUATION => Brought::Nothing,
            kind => return Err(format!("a frame of type {kind}")),
        };
        Ok(Some((HEAD + len, brought)))
    }

    fn open(&mut self, out: &mut Vec<u8>, path: &str) -> u32 {
        let stream = 2 * self.opened + 1;
        self.opened += 1;
        // Method POST and scheme http stand in the static table.
        let mut block = vec![0x83, 0x86];
        literal(&mut block, &[0x04], path);
        literal(&mut block, &[0x01], "localhost");
        for (name, value) in [("content-type", "application/grpc"), ("te", "trailers")] {
            let mut start = vec![0x00, name.len() as u8];
            start.extend_from_slice(name.as_bytes());
            literal(&mut block, &start, value);
        }
        frame(out, HEADERS, END_HEADERS, stream, &block);
        stream
    }

    fn data(&mut self, stream: u32, flags: u8, payload: &[u8]) -> Result<Brought, String> {
        if flags & PADDED != 0 {
            return Err("padded data".to_owned());
        }
        self.message.extend_from_slice(payload);
        if self.message.len() < PREFIX {
            return Ok(Brought::Nothing);
        }
        let len = self.message[1..PREFIX].try_into().expect("four bytes");
        let whole = PREFIX + u32::from_be_bytes(len) as usize;
        if self.message.len() < whole {
            return Ok(Brought::Nothing);
        }
        if self.message.len() > whole {
            return Err("a frame that holds more than the end of a message".to_owned());
        }
        let message = self.message.split_off(PREFIX);
        self.message.clear();
        if stream == self.lasting {
            return Ok(Brought::Message(message));
        }
        self.answer = Some(message);
        Ok(Brought::Nothing)
    }

    fn ended(&mut self, stream: u32) -> Result<Brought, String> {
        if stream == self.lasting {
            return Err("the server ended the lasting stream".to_owned());
        }
        Ok(Brought::Ended(self.answer.take()))
    }
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

fn data(out: &mut Vec<u8>, stream: u32, flags: u8, message: &[u8]) {
    let mut payload = vec![0];
    payload.extend_from_slice(&(message.len() as u32).to_be_bytes());
    payload.extend_from_slice(message);
    frame(out, DATA, flags, stream, &payload);
}

/// A header that is not put into the table, without Huffman's code.
fn literal(block: &mut Vec<u8>, start: &[u8], value: &str) {
    assert!(value.len() < 127, "its length fits one byte");
    block.extend_from_slice(start);
    block.push(value.len() as u8);
    block.extend_from_slice(value.as_bytes());
}

/// Appends a protobuf field that is a number.
pub(super) fn number(out: &mut Vec<u8>, field: u8, value: u64) {
    out.push(field << 3);
    varint(out, value);
}

/// Appends a protobuf field that is bytes.
pub(super) fn bytes(out: &mut Vec<u8>, field: u8, value: &[u8]) {
    out.push(field << 3 | 2);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

/// The number that field `wanted` of a message holds; 0, as protobuf has it, if it is not there.
/// `None` if the message makes no sense.
pub(super) fn number_of(mut message: &[u8], wanted: u64) -> Option<u64> {
    let mut found = 0;
    while !message.is_empty() {
        let key = take_varint(&mut message)?;
        match key & 7 {
            0 => {
                let value = take_varint(&mut message)?;
                if key >> 3 == wanted {
                    found = value;
                }
            }
            2 => {
                let len = take_varint(&mut message)? as usize;
                message = message.get(len..)?;
            }
            _ => return None,
        }
    }
    Some(found)
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn take_varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = message.split_first()?;
        *message = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
/// The setting of how much a stream may send us.
const INITIAL_WINDOW: u16 = 4;
const WINDOW_DEFAULT: u32 = 65_535;
const WINDOW_MAX: u32 = (1 << 31) - 1;
/// Length of a frame's head.
const HEAD: usize = 9;
/// Length of what stands before a message.
const PREFIX: usize = 5;
/// The longest frame that may be sent to who has not allowed longer ones.
const FRAME_BYTES_MAX: usize = 16_384;

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads all frames of `input`, cut at every place; what they have brought must not differ.
    fn read_all(connection: impl Fn() -> Connection, input: &[u8]) -> Vec<Brought> {
        let mut first = None;
        for cut in 0..=input.len() {
            let mut c = connection();
            let (mut brought, mut at) = (Vec::new(), 0);
            for end in [cut, input.len()] {
                while let Some((len, b)) = c.read(&input[at..end], &mut Vec::new()).unwrap() {
                    at += len;
                    brought.push(b);
                }
            }
            assert_eq!(at, input.len());
            let first = first.get_or_insert_with(|| brought.clone());
            assert_eq!(*first, brought, "cut at {cut}");
        }
        first.unwrap()
    }

    #[test]
    fn a_connection_begins_as_the_protocol_says() {
        let mut out = Vec::new();
        Connection::default().hello(&mut out);
        let rest = out.strip_prefix(PREFACE).unwrap();
        assert_eq!(rest[..9], [0, 0, 6, 4, 0, 0, 0, 0, 0]);
        assert_eq!(rest[9..15], [0, 4, 127, 255, 255, 255]);
        assert_eq!(rest[15..], [0, 0, 4, 8, 0, 0, 0, 0, 0, 127, 255, 0, 0]);
    }

    #[test]
    fn a_call_is_headers_and_one_message() {
        let (mut c, mut out) = (Connection::default(), Vec::new());
        c.call(&mut out, "/a.B/C", &[8, 1]);
        let block = b"\x83\x86\x04\x06/a.B/C\x01\x09localhost\
            \x00\x0ccontent-type\x10application/grpc\x00\x02te\x08trailers";
        assert_eq!(out[..9], [0, 0, block.len() as u8, 1, 4, 0, 0, 0, 1]);
        assert_eq!(out[9..9 + block.len()], block[..]);
        assert_eq!(
            out[9 + block.len()..],
            [0, 0, 7, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 2, 8, 1]
        );
        out.clear();
        c.call(&mut out, "/a.B/C", &[]);
        assert_eq!(out[8], 3, "the next stream");
    }

    #[test]
    fn messages_are_put_together_however_they_are_cut() {
        let mut input = Vec::new();
        frame(&mut input, SETTINGS, 0, 0, &[]);
        frame(&mut input, HEADERS, END_HEADERS, 1, &[0x88]);
        frame(&mut input, DATA, 0, 1, &[0, 0, 0, 0, 3]);
        frame(&mut input, DATA, 0, 1, &[16, 7]);
        frame(&mut input, DATA, 0, 1, &[0]);
        frame(&mut input, PING, 0, 0, &[1; 8]);
        data(&mut input, 1, 0, &[]);
        let lasting = || {
            let mut c = Connection::default();
            c.send(&mut Vec::new(), "/x", &[]);
            c
        };
        use Brought::{Message, Nothing, Settings};
        assert_eq!(
            read_all(lasting, &input),
            [
                Settings,
                Nothing,
                Nothing,
                Nothing,
                Message(vec![16, 7, 0]),
                Nothing,
                Message(vec![])
            ]
        );
    }

    #[test]
    fn a_call_ends_with_its_message_or_has_failed() {
        let mut input = Vec::new();
        data(&mut input, 1, 0, &[8, 5]);
        frame(&mut input, HEADERS, END_HEADERS | END_STREAM, 1, &[]);
        frame(&mut input, HEADERS, END_HEADERS | END_STREAM, 3, &[]);
        use Brought::{Ended, Nothing};
        assert_eq!(
            read_all(Connection::default, &input),
            [Nothing, Ended(Some(vec![8, 5])), Ended(None)]
        );
    }

    #[test]
    fn settings_and_pings_are_acknowledged() {
        let (mut input, mut out) = (Vec::new(), Vec::new());
        frame(&mut input, PING, 0, 0, &[7; 8]);
        Connection::default().read(&input, &mut out).unwrap();
        let mut want = Vec::new();
        frame(&mut want, PING, ACK, 0, &[7; 8]);
        assert_eq!(out, want);
        assert_eq!(
            Connection::default().read(&want, &mut out).unwrap(),
            Some((17, Brought::Nothing))
        );
        assert_eq!(out, want, "an acknowledgement is not acknowledged");
    }

    #[test]
    fn what_ends_or_is_no_http2_is_an_error() {
        for kind in [RST_STREAM, GOAWAY, 99] {
            let mut input = Vec::new();
            frame(&mut input, kind, 0, 1, &[0; 8]);
            assert!(
                Connection::default().read(&input, &mut Vec::new()).is_err(),
                "{kind}"
            );
        }
        let text = b"HTTP/1.1 400 Bad Request";
        assert!(Connection::default().read(text, &mut Vec::new()).is_err());
    }

    #[test]
    fn protobuf_numbers_are_written_and_found() {
        let mut out = Vec::new();
        bytes(&mut out, 1, b"header");
        number(&mut out, 2, 300);
        number(&mut out, 3, u64::MAX);
        assert_eq!(out[8..11], [0x10, 0xac, 0x02]);
        assert_eq!(number_of(&out, 2), Some(300));
        assert_eq!(number_of(&out, 3), Some(u64::MAX));
        assert_eq!(number_of(&out, 4), Some(0));
        assert_eq!(number_of(&out[..out.len() - 1], 4), None);
    }
}
