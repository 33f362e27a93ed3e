//! The strict reading of one request head.
//!
//! The verdict on a stream of bytes does not depend on how the network cut it: a head is
//! read from left to right, the first byte that is wrong decides, and every limit is a
//! position in the stream. What other servers forgive is refused here when two readers
//! could understand it differently, for that is how requests are smuggled past proxies:
//! lines end in CR LF and nothing else, bodies have a `Content-Length` and nothing else.

use super::headers::{Fields, Headers};
use super::problem::{Code, Problem};
use super::scan;

/// The head of a request, borrowed from the bytes it was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// What is to be done.
    pub method: Method,
    /// The target's path, as sent; begins with `/`.
    pub path: &'a [u8],
    /// The target's query without the `?`, as sent; empty if there is none.
    pub query: &'a [u8],
    /// Bytes from the start of the input to the end of the head.
    pub head_len: usize,
    /// Bytes of the body, which follow the head.
    pub body_len: usize,
    /// False if the connection ends after the answer: the client asked for it, or speaks
    /// HTTP/1.0.
    pub keep_alive: bool,
    /// True if the client waits for `100 Continue` before it sends the body.
    pub expect_continue: bool,
    /// The headers that matter.
    pub headers: Headers<'a>,
}

impl Request<'_> {
    /// Bytes of head and body together.
    #[must_use]
    pub fn total_len(&self) -> usize {
        self.head_len + self.body_len
    }

    /// True if the answer must not carry a body.
    #[must_use]
    pub fn head_only(&self) -> bool {
        self.method == Method::Head
    }
}

/// The methods that are known. Any other token is refused while parsing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// A heartbeat, or GET without the body.
    Head,
    /// Read.
    Get,
    /// Join or configure.
    Put,
    /// A batch.
    Post,
    /// Leave or remove.
    Delete,
    /// Known, and answered with 405 everywhere.
    Options,
    /// Known, and answered with 405 everywhere.
    Patch,
    /// Known, and answered with 405 everywhere.
    Trace,
}

/// How large a request may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the head, from the request line to the empty line; beyond: 431.
    pub head_bytes_max: usize,
    /// Bytes of the request target; beyond: 414.
    pub target_bytes_max: usize,
    /// Number of header fields; beyond: 431.
    pub headers_max: usize,
    /// Bytes of any body; beyond: 413.
    pub body_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            head_bytes_max: 16 * 1024,
            // Two names and `/config`, every byte of them escaped, and a cursor.
            target_bytes_max: 4 * 1024,
            headers_max: 64,
            body_bytes_max: 1024 * 1024,
        }
    }
}

/// What is remembered of a head that is not complete yet.
///
/// A head that comes byte by byte must not be read from its start at every byte. It is
/// read again only when a line has ended, when something came that no head may hold, or
/// when it has grown by [`REREAD_BYTES`]: at most `headers_max` + `head_bytes_max` /
/// `REREAD_BYTES` times in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that were there when the head was last read; 0 before the first time.
    read_len: usize,
    /// Bytes that were there at the last call.
    seen_len: usize,
}

impl Progress {
    /// Notes what is there now; true if another reading cannot tell anything new.
    #[inline]
    fn can_wait(&mut self, input: &[u8]) -> bool {
        if self.read_len == 0 || input.len() < self.seen_len {
            return false;
        }
        let fresh = &input[self.seen_len..];
        self.seen_len = input.len();
        input.len() - self.read_len < REREAD_BYTES && !scan::has_line_event(fresh)
    }

    /// True if the head was read between `earlier` and now.
    #[cfg(test)]
    pub(super) fn was_read_since(&self, earlier: &Progress) -> bool {
        self.read_len != earlier.read_len
    }
}

/// An incomplete head is read anew whenever it has grown by so many bytes, so that a line
/// without end is refused when it passes its limit and not much later.
const REREAD_BYTES: usize = 1024;

/// Reads the head of the request that `input` begins with; `None` if it is not complete.
///
/// The body, `body_len` bytes, follows the head and need not be there yet: who calls waits
/// for [`Request::total_len`] bytes before calling again. `progress` belongs to the
/// connection, is all zeros for a new request, and is reset when a head is complete.
///
/// Cost: one pass over the head, nothing allocated unless the request is refused.
///
/// # Errors
/// Every refusal says `close`: where the next request would begin is not known.
#[inline]
pub fn parse<'a>(
    input: &'a [u8],
    progress: &mut Progress,
    limits: &Limits,
) -> Result<Option<Request<'a>>, Problem> {
    if progress.can_wait(input) {
        return Ok(None);
    }
    // What lies beyond the limit is not looked at, or the verdict would depend on how much
    // of it has come.
    let view = &input[..input.len().min(limits.head_bytes_max)];
    match head(view, limits) {
        Ok(request) => {
            *progress = Progress::default();
            Ok(Some(request))
        }
        Err(Stop::More) if view.len() == limits.head_bytes_max => {
            Err(refusal(Code::HeadTooLarge, ""))
        }
        Err(Stop::More) => {
            *progress = Progress {
                read_len: input.len(),
                seen_len: input.len(),
            };
            Ok(None)
        }
        Err(Stop::Refused(code, detail)) => Err(refusal(code, detail)),
    }
}

/// True if `input` begins like a HEAD request: how to tell, when a head was refused,
/// whether the answer may carry a body.
#[must_use]
pub fn begins_with_head_method(input: &[u8]) -> bool {
    input
        .strip_prefix(b"\r\n")
        .unwrap_or(input)
        .starts_with(b"HEAD ")
}

#[cold]
fn refusal(code: Code, detail: &'static str) -> Problem {
    Problem::new(code).detail(detail).closing()
}

/// The outcome of reading a part of a head.
pub(super) type Scan<T> = Result<T, Stop>;

/// Why reading stopped before the end of the head.
#[derive(Debug)]
pub(super) enum Stop {
    /// So far well, but there is no more.
    More,
    /// The request is refused, and the connection ends.
    Refused(Code, &'static str),
}

impl Stop {
    const fn malformed(detail: &'static str) -> Stop {
        Stop::Refused(Code::MalformedRequest, detail)
    }
}

#[inline]
fn head<'a>(input: &'a [u8], limits: &Limits) -> Scan<Request<'a>> {
    let at = skip_empty_line(input)?;
    let (method, at) = method(input, at)?;
    let (target, at) = target(input, at, limits)?;
    let (version, at) = version(input, at)?;
    let (path, query) = split_target(target)?;
    let (fields, head_len) = fields(input, at, limits)?;
    if version == Version::Http11 && !fields.host_given {
        return Err(Stop::Refused(Code::BadHost, "Host is missing"));
    }
    Ok(Request {
        method,
        path,
        query,
        head_len,
        body_len: fields.body_len.unwrap_or(0),
        keep_alive: version == Version::Http11 && !fields.close,
        // RFC 9110, 10.1.1: an expectation of an HTTP/1.0 client is ignored.
        expect_continue: version == Version::Http11 && fields.expect_continue,
        headers: fields.known,
    })
}

/// One empty line before the request is forgiven (RFC 9112, 2.2): old clients end a body
/// with one.
#[inline]
fn skip_empty_line(input: &[u8]) -> Scan<usize> {
    match input {
        [] | [b'\r'] => Err(Stop::More),
        [b'\r', b'\n', ..] => Ok(2),
        _ => Ok(0),
    }
}

#[inline]
fn method(input: &[u8], at: usize) -> Scan<(Method, usize)> {
    let rest = &input[at..];
    if rest.starts_with(b"HEAD ") {
        return Ok((Method::Head, at + 5));
    }
    let window = &rest[..rest.len().min(METHOD_BYTES_MAX + 1)];
    let len = scan::token_len(window);
    match window.get(len) {
        Some(b' ') if len > 0 => {}
        Some(_) => {
            return Err(Stop::malformed(
                "the request line does not begin with a method",
            ));
        }
        None if len > METHOD_BYTES_MAX => return Err(Stop::Refused(Code::UnknownMethod, "")),
        None => return Err(Stop::More),
    }
    let method = match &window[..len] {
        b"GET" => Method::Get,
        b"PUT" => Method::Put,
        b"POST" => Method::Post,
        b"DELETE" => Method::Delete,
        b"OPTIONS" => Method::Options,
        b"PATCH" => Method::Patch,
        b"TRACE" => Method::Trace,
        _ => return Err(Stop::Refused(Code::UnknownMethod, "")),
    };
    Ok((method, at + len + 1))
}

/// Longest method name that is waited for.
const METHOD_BYTES_MAX: usize = 20;

#[inline]
fn target<'a>(input: &'a [u8], at: usize, limits: &Limits) -> Scan<(&'a [u8], usize)> {
    let rest = &input[at..];
    let window = &rest[..rest.len().min(limits.target_bytes_max + 1)];
    let len = scan::target_len(window);
    // A path begins with a slash and a URL with a letter; anything else need not be waited for.
    if window
        .first()
        .is_some_and(|&byte| byte != b'/' && !byte.is_ascii_alphabetic())
    {
        return Err(Stop::malformed(
            "the request target is neither a path nor an http URL",
        ));
    }
    match window.get(len) {
        Some(b' ') if len > 0 => Ok((&window[..len], at + len + 1)),
        Some(_) => Err(Stop::malformed(
            "the request target holds a byte it must not",
        )),
        None if len > limits.target_bytes_max => Err(Stop::Refused(Code::TargetTooLong, "")),
        None => Err(Stop::More),
    }
}

/// The versions that are spoken.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    Http10,
    Http11,
}

#[inline]
fn version(input: &[u8], at: usize) -> Scan<(Version, usize)> {
    let rest = &input[at..];
    if rest.starts_with(b"HTTP/1.1\r\n") {
        return Ok((Version::Http11, at + 10));
    }
    let version = other_version(rest)?;
    Ok((version, at + 10))
}

/// The version of a request line that does not end as nearly all do.
#[cold]
fn other_version(rest: &[u8]) -> Scan<Version> {
    for (index, &byte) in rest.iter().take(8).enumerate() {
        let well = match index {
            5 | 7 => byte.is_ascii_digit(),
            _ => byte == b"HTTP/1.1"[index],
        };
        if !well {
            return Err(Stop::malformed(
                "the request line does not end in an HTTP version",
            ));
        }
    }
    let Some((name, end)) = rest.split_at_checked(8) else {
        return Err(Stop::More);
    };
    let version = match name {
        b"HTTP/1.1" => Version::Http11,
        b"HTTP/1.0" => Version::Http10,
        _ => return Err(Stop::Refused(Code::UnsupportedVersion, "")),
    };
    line_end(end).map(|()| version)
}

/// Checks that `rest` begins with CR LF.
#[inline]
fn line_end(rest: &[u8]) -> Scan<()> {
    match rest {
        [b'\r', b'\n', ..] => Ok(()),
        [] | [b'\r'] => Err(Stop::More),
        [b'\n', ..] => Err(Stop::malformed("a line ends in LF without CR")),
        [b'\r', ..] => Err(Stop::malformed("a CR is not followed by LF")),
        _ => Err(Stop::malformed(
            "a line holds a control character, or does not end where it must",
        )),
    }
}

/// Reads the header fields; gives them and the length of the head.
#[inline]
fn fields<'a>(input: &'a [u8], mut at: usize, limits: &Limits) -> Scan<(Fields<'a>, usize)> {
    let mut fields = Fields::default();
    let mut count = 0;
    loop {
        let rest = &input[at..];
        let name_len = scan::token_len(rest);
        match rest.get(name_len) {
            Some(b':') if name_len > 0 => {}
            Some(_) if name_len == 0 => return end_of_head(rest).map(|()| (fields, at + 2)),
            Some(_) => return Err(Stop::malformed("a header name is not followed by a colon")),
            None => return Err(Stop::More),
        }
        if count == limits.headers_max {
            return Err(Stop::Refused(Code::TooManyHeaders, ""));
        }
        count += 1;
        let value = &rest[name_len + 1..];
        let value_len = scan::value_len(value);
        line_end(&value[value_len..])?;
        fields.take(
            &rest[..name_len],
            scan::trimmed(&value[..value_len]),
            limits,
        )?;
        at += name_len + 1 + value_len + 2;
    }
}

/// A line without a name is the empty line that ends the head, or it is wrong.
#[inline]
fn end_of_head(rest: &[u8]) -> Scan<()> {
    match rest.first() {
        Some(b' ' | b'\t') => Err(Stop::malformed("a header is continued on the next line")),
        Some(b':') => Err(Stop::malformed("a header has no name")),
        _ => line_end(rest),
    }
}

/// Parts the target into path and query; of an absolute one, cuts scheme and authority.
#[inline]
fn split_target(target: &[u8]) -> Scan<(&[u8], &[u8])> {
    let local = if target[0] == b'/' {
        target
    } else {
        absolute_form(target)?
    };
    let path_len = scan::find(local, b'?');
    let query = local.get(path_len + 1..).unwrap_or_default();
    let path = &local[..path_len];
    Ok((if path.is_empty() { b"/" } else { path }, query))
}

/// What follows scheme and authority in `http://host:port/path` (RFC 9112, 3.2.2, demands
/// that servers take this). There are no virtual hosts, so whose authority it is does not
/// matter; `Host` is still wanted.
#[cold]
fn absolute_form(target: &[u8]) -> Scan<&[u8]> {
    let after_scheme = [&b"http://"[..], b"https://"].iter().find_map(|scheme| {
        let (start, rest) = target.split_at_checked(scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then_some(rest)
    });
    let Some(rest) = after_scheme else {
        return Err(Stop::malformed(
            "the request target is neither a path nor an http URL",
        ));
    };
    let end = rest
        .iter()
        .position(|&b| b == b'/' || b == b'?')
        .unwrap_or(rest.len());
    if end == 0 || !scan::is_host(&rest[..end]) {
        return Err(Stop::malformed(
            "the request target's authority is not a host",
        ));
    }
    Ok(&rest[end..])
}
