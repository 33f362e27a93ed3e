//! Scanning of byte runs: which bytes may stand where in a request head.

/// Length of the run of token characters `bytes` begins with (RFC 9110, 5.6.2).
#[inline]
pub(super) fn token_len(bytes: &[u8]) -> usize {
    run_len::<TOKEN>(bytes)
}

/// Length of the run of characters a request target is made of (RFC 3986, and bytes from
/// 0x80 on, which curl and others send unescaped; the names they spell must be UTF-8).
#[inline]
pub(super) fn target_len(bytes: &[u8]) -> usize {
    run_len::<TARGET>(bytes)
}

/// Length of the run of characters that, in a path, stand for themselves and part nothing: a
/// target's characters of ASCII without `/`, `%` and `?`.
#[inline]
pub(super) fn path_name_len(bytes: &[u8]) -> usize {
    run_len::<PATH_NAME>(bytes)
}

/// Lengths of the two names that the path of a usual heartbeat begins with, its first `/` left
/// out: up to a `/`, and from there to a space. `None` says nothing: the names may be long, or
/// hold the rare characters `|`, `}`, `~` and `{` (of which only `~` may stand in one).
///
/// Cost: the same for all names, and no branch that depends on their bytes.
#[inline]
pub(super) fn path_names(path: &[u8]) -> Option<(usize, usize)> {
    let chunks = path.first_chunk::<PATH_NAMES_BYTES>()?.as_chunks().0;
    let plain = chunks.iter().rev();
    let plain = plain.fold(0, |plain, chunk| plain << CHUNK_BYTES | plain_bits(chunk));
    let stops = !plain & ((1 << PATH_NAMES_BYTES) - 1);
    let after_first = stops & stops.wrapping_sub(1);
    if after_first == 0 {
        return None;
    }
    let slash = stops.trailing_zeros() as usize;
    let space = after_first.trailing_zeros() as usize;
    if path[slash] != b'/' || path[space] != b' ' {
        return None;
    }
    Some((slash, space - slash - 1))
}

/// A bit for each of these bytes that [`path_name_len`] passes, the first lowest; not for `~`.
///
/// A byte is lowered to zero if it is any of those that may not stand there, by the least of
/// what is left of it when each of them is taken away: arithmetic that is the same for all bytes,
/// which compilers do with all of them at once.
#[inline(always)]
fn plain_bits(chunk: &[u8; CHUNK_BYTES]) -> u64 {
    let mut plain = [0u8; CHUNK_BYTES];
    for (plain, &byte) in plain.iter_mut().zip(chunk) {
        // Two that differ in one bit go together.
        let printable = byte.saturating_sub(b' ').min(b'{'.saturating_sub(byte));
        let quotes = ((byte | 1) ^ b'#').min(byte ^ b'%').min(byte ^ b'`');
        let parts = ((byte | 0x10) ^ b'?').min((byte | 2) ^ b'>');
        let others = (byte | 2) ^ b'^';
        *plain = printable.min(quotes).min(parts).min(others).min(1);
    }
    // Each factor brings one byte's bit to its place in the highest byte.
    let gathered = |word: u64| word.wrapping_mul(0x0102_0408_1020_4080) >> 56;
    let both = u128::from_le_bytes(plain);
    gathered(both as u64) | gathered((both >> 64) as u64) << 8
}

/// Names that end within so many bytes of a path are found by [`path_names`].
const PATH_NAMES_BYTES: usize = 3 * CHUNK_BYTES;
const CHUNK_BYTES: usize = 16;

/// True if every byte may stand in a `Host` value: a name or address and a port.
#[inline]
pub(super) fn is_host(bytes: &[u8]) -> bool {
    run_len::<HOST>(bytes) == bytes.len()
}

/// Length of the run of field-value characters `bytes` begins with: everything but the
/// control characters, of which only the tab belongs to a value.
#[inline]
pub(super) fn value_len(bytes: &[u8]) -> usize {
    let mut from = 0;
    loop {
        from += find_with(&bytes[from..], |word| below(word, 0x20) | equal(word, 0x7f));
        match bytes.get(from) {
            Some(b'\t') => from += 1,
            _ => return from,
        }
    }
}

/// Where the first `needle` is; the length if it is nowhere.
#[inline]
pub(super) fn find(bytes: &[u8], needle: u8) -> usize {
    find_with(bytes, |word| equal(word, needle))
}

/// Where the first byte is that a plain name cannot hold, whichever way names are written:
/// a control character, `/`, `%`, or a byte from 0x80 on. The length if there is none.
#[inline]
pub(super) fn plain_name_len(bytes: &[u8]) -> usize {
    find_with(bytes, |word| {
        below(word, 0x20)
            | equal(word, b'/')
            | equal(word, b'%')
            | equal(word, 0x7f)
            | (word & HIGH)
    })
}

/// True if a line feed, or a control character no head may hold, is among `bytes`: what
/// makes it worth looking again at a head that was well but incomplete.
#[inline]
pub(super) fn has_line_event(bytes: &[u8]) -> bool {
    bytes
        .iter()
        .any(|&b| (b < 0x20 && b != b'\t' && b != b'\r') || b == 0x7f)
}

/// Where the first byte is that `mark` flags; the length if there is none.
///
/// `mark` takes eight bytes, first in the lowest, and sets the top bit of flagged ones. It
/// may err above the lowest byte it flags rightly: a borrow travels upward only.
#[inline(always)]
fn find_with(bytes: &[u8], mark: impl Fn(u64) -> u64) -> usize {
    let (words, tail) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let marks = mark(u64::from_le_bytes(*word));
        if marks != 0 {
            return index * 8 + (marks.trailing_zeros() / 8) as usize;
        }
    }
    match bytes.last_chunk::<8>() {
        // The last word overlaps the one before, in which nothing was flagged.
        Some(last) => {
            let marks = mark(u64::from_le_bytes(*last));
            bytes.len() - 8 + (marks.trailing_zeros() / 8) as usize
        }
        None => {
            let marks = mark(short_word(tail));
            ((marks.trailing_zeros() / 8) as usize).min(tail.len())
        }
    }
}

/// Fewer than eight bytes as a word, zeros after them.
#[inline(always)]
fn short_word(bytes: &[u8]) -> u64 {
    match (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        // Where the two overlap they are equal.
        (Some(first), Some(last)) => {
            let shift = (bytes.len() - 4) * 8;
            u64::from(u32::from_le_bytes(*first)) | u64::from(u32::from_le_bytes(*last)) << shift
        }
        _ => bytes
            .iter()
            .rev()
            .fold(0, |word, &byte| word << 8 | u64::from(byte)),
    }
}

/// Flags the bytes less than `bound`, which is at most 0x80.
#[inline(always)]
const fn below(word: u64, bound: u8) -> u64 {
    word.wrapping_sub(ONES * bound as u64) & !word & HIGH
}

/// Flags the bytes equal to `byte`.
#[inline(always)]
const fn equal(word: u64, byte: u8) -> u64 {
    below(word ^ (ONES * byte as u64), 1)
}

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

const TOKEN: u8 = 1;
const TARGET: u8 = 2;
const HOST: u8 = 4;
const PATH_NAME: u8 = 8;

/// Which classes each byte belongs to.
static CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    mark_alphanumeric(&mut classes, TOKEN | TARGET | HOST | PATH_NAME);
    mark_all(&mut classes, b"!#$%&'*+-.^_`|~", TOKEN);
    // Unreserved, sub-delims, pct-encoded and the delimiters of path and query. `#` never
    // travels, and the remaining ones RFC 3986 wants escaped.
    mark_all(&mut classes, b"-._~!$&'()*+,;=:@[]", TARGET | PATH_NAME);
    mark_all(&mut classes, b"%/?", TARGET);
    // No comma: it would be two hosts joined by a proxy. No `@`: there is no user.
    mark_all(&mut classes, b"-._~!$&'()*+;=%:[]", HOST);
    let mut byte = 0x80;
    while byte < 256 {
        classes[byte] |= TARGET;
        byte += 1;
    }
    classes
};

const fn mark_alphanumeric(classes: &mut [u8; 256], class: u8) {
    let mut byte = 0;
    while byte < 128 {
        if (byte as u8).is_ascii_alphanumeric() {
            classes[byte] |= class;
        }
        byte += 1;
    }
}

const fn mark_all(classes: &mut [u8; 256], members: &[u8], class: u8) {
    let mut index = 0;
    while index < members.len() {
        classes[members[index] as usize] |= class;
        index += 1;
    }
}

/// Length of the run of bytes of a class that `bytes` begins with; by eights first, since
/// eight look-ups joined cost less than eight branches.
#[inline(always)]
fn run_len<const CLASS: u8>(bytes: &[u8]) -> usize {
    let class = |byte: &u8| CLASSES[usize::from(*byte)];
    let mut from = 0;
    for eight in bytes.as_chunks::<8>().0 {
        if eight.iter().map(class).fold(CLASS, |all, one| all & one) == 0 {
            break;
        }
        from += 8;
    }
    while bytes.get(from).is_some_and(|byte| class(byte) & CLASS != 0) {
        from += 1;
    }
    from
}

/// `value` without the spaces and tabs around it.
#[inline]
pub(super) fn trimmed(value: &[u8]) -> &[u8] {
    // Nearly every value has one space before it and none after.
    let value = value.strip_prefix(b" ").unwrap_or(value);
    match (value.first(), value.last()) {
        (Some(b' ' | b'\t'), _) | (_, Some(b' ' | b'\t')) => value.trim_ascii(),
        _ => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn first(bytes: &[u8], is: impl Fn(u8) -> bool) -> usize {
        bytes.iter().position(|&b| is(b)).unwrap_or(bytes.len())
    }

    #[test]
    fn a_stop_in_any_place_of_a_word_or_tail_is_found() {
        for len in 0..40 {
            for at in 0..len {
                let mut bytes = vec![b'a'; len];
                bytes[at] = b'/';
                assert_eq!(plain_name_len(&bytes), at);
                assert_eq!(find(&bytes, b'/'), at);
            }
        }
    }

    #[test]
    fn every_byte_ends_a_name_of_a_usual_path_or_does_not_as_it_does_elsewhere() {
        for at in 0..PATH_NAMES_BYTES {
            for byte in 0..=255u8 {
                let mut path = [b'a'; PATH_NAMES_BYTES];
                path[at] = byte;
                let is_plain = path_name_len(&[byte]) == 1 && byte != b'~';
                let bits = path.as_chunks().0.iter().map(plain_bits);
                let bits: Vec<bool> = bits
                    .flat_map(|bits| (0..CHUNK_BYTES).map(move |at| bits >> at & 1 == 1))
                    .collect();
                for (place, bit) in bits.into_iter().enumerate() {
                    assert_eq!(bit, place != at || is_plain, "{byte} at {at}, bit {place}");
                }
            }
        }
    }

    #[test]
    fn the_names_of_a_usual_path_are_found_wherever_they_end() {
        for slash in 0..PATH_NAMES_BYTES - 1 {
            for space in slash + 1..PATH_NAMES_BYTES {
                let mut path = [b'a'; PATH_NAMES_BYTES];
                (path[slash], path[space]) = (b'/', b' ');
                assert_eq!(path_names(&path), Some((slash, space - slash - 1)));
                assert_eq!(path_names(&path[1..]), None, "too near the end");
                for end in [b'/', b'?', b'%', b'"'] {
                    path[space] = end;
                    assert_eq!(path_names(&path), None);
                }
                (path[slash], path[space]) = (b'?', b' ');
                assert_eq!(path_names(&path), None);
                path[slash] = b'a';
                assert_eq!(path_names(&path), None, "one name");
            }
        }
    }

    proptest! {
        #[test]
        fn the_names_of_a_usual_path_are_those_of_any(
            path in prop_oneof!["[a-c/ %~-]{48,60}", "[a-z]{0,20}/[a-z]{0,20}[ /~?][ -~é]{48}"],
        ) {
            let path = path.as_bytes();
            if let Some((group_len, member_len)) = path_names(path) {
                prop_assert_eq!(group_len, path_name_len(path));
                let (_, member) = path.split_at(group_len);
                prop_assert_eq!(member[0], b'/');
                prop_assert_eq!(member_len, path_name_len(&member[1..]));
                prop_assert_eq!(member[1 + member_len], b' ');
            }
        }

        #[test]
        fn scans_agree_with_their_definitions(
            bytes in prop_oneof![any::<Vec<u8>>(), "[ -~\t]{0,40}[\u{0}-\u{ff}]".prop_map(String::into_bytes)],
            needle in any::<u8>(),
        ) {
            prop_assert_eq!(token_len(&bytes), first(&bytes, |b| {
                !b.is_ascii_alphanumeric() && !b"!#$%&'*+-.^_`|~".contains(&b)
            }));
            prop_assert_eq!(target_len(&bytes), first(&bytes, |b| {
                b <= b' ' || b == 0x7f || b"\"#<>\\^`{|}".contains(&b)
            }));
            prop_assert_eq!(path_name_len(&bytes), first(&bytes, |b| {
                !(0x21..0x7f).contains(&b) || b"\"#<>\\^`{|}/%?".contains(&b)
            }));
            let value = &bytes[..value_len(&bytes)];
            prop_assert_eq!(trimmed(value), value.trim_ascii());
            prop_assert_eq!(find(&bytes, needle), first(&bytes, |b| b == needle));
            prop_assert_eq!(
                value_len(&bytes),
                first(&bytes, |b| (b < 0x20 && b != b'\t') || b == 0x7f)
            );
            prop_assert_eq!(
                plain_name_len(&bytes),
                first(&bytes, |b| !(0x20..0x7f).contains(&b) || b == b'/' || b == b'%')
            );
        }
    }
}
