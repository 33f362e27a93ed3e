//! The little of JSON that is written by hand: strings and numbers.
//!
//! Documents are rendered straight into byte buffers, piece by piece, which no
//! serialiser offers; what needs care is only the escaping, and it is here once for all.

/// Appends `text` as a JSON string, quotes included (RFC 8259, section 7).
///
/// Cost: one pass; runs that need no escape are copied whole.
pub fn string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    escape(out, text.as_bytes());
    out.push(b'"');
}

/// Like [`string`], from bytes that should be UTF-8: what is not becomes U+FFFD.
///
/// Names travel as bytes that were checked when they came in; this neither trusts that
/// check nor fails when it is wrong, because an answer must be valid JSON either way.
pub fn string_lossy(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    escaped(out, bytes);
    out.push(b'"');
}

/// Like [`string_lossy`], from bytes in parts; characters may be parted.
pub fn string_lossy_of<const N: usize>(out: &mut Vec<u8>, parts: [&[u8]; N]) {
    out.push(b'"');
    let begin = out.len();
    for part in parts {
        out.extend_from_slice(part);
    }
    if !is_plain(&out[begin..]) {
        let whole = out.split_off(begin);
        escaped(out, &whole);
    }
    out.push(b'"');
}

/// What [`string_lossy`] writes between the quotes: for strings put together of parts.
pub fn escaped(out: &mut Vec<u8>, bytes: &[u8]) {
    if is_plain(bytes) {
        out.extend_from_slice(bytes);
        return;
    }
    for chunk in bytes.utf8_chunks() {
        escape(out, chunk.valid().as_bytes());
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
}

/// Appends `value` in decimal.
pub fn number(out: &mut Vec<u8>, value: u64) {
    let (digits, len) = decimal(value);
    out.extend_from_slice(&digits[..len]);
}

/// `value` in decimal: its digits, zero bytes after them, and how many they are.
#[must_use]
#[inline]
pub fn decimal(value: u64) -> ([u8; U64_DIGITS_MAX], usize) {
    let Some((word, len)) = short_decimal(value) else {
        return long_decimal(value);
    };
    let mut digits = [0; U64_DIGITS_MAX];
    digits[..8].copy_from_slice(&word);
    (digits, len)
}

/// As [`decimal`], for what has up to eight digits: all at once, each in a byte of a word.
///
/// Nothing is written to memory in pieces and read back whole, which a processor waits for.
#[must_use]
#[inline]
pub const fn short_decimal(value: u64) -> Option<([u8; 8], usize)> {
    if value >= WORD_VALUES {
        return None;
    }
    // Parted by 10,000, 100 and 10, each time in all lanes; the first digits come to lie lowest.
    // The quotients are products with a reciprocal, exact for what a lane can hold.
    let halves = (value / 10_000) | ((value % 10_000) << 32);
    let hundreds = ((halves * 10_486) >> 20) & 0x0000_007f_0000_007f;
    let pairs = hundreds | (halves - hundreds * 100) << 16;
    let tens = ((pairs * 103) >> 10) & 0x000f_000f_000f_000f;
    let digits = tens | (pairs - tens * 10) << 8;
    // Zeros in front go, but for the last.
    let unused = (digits | 1 << 56).trailing_zeros() & !7;
    let text = (digits | 0x3030_3030_3030_3030) >> unused;
    Some((text.to_le_bytes(), 8 - unused as usize / 8))
}

/// As [`decimal`], for any number.
#[inline(never)]
fn long_decimal(mut value: u64) -> ([u8; U64_DIGITS_MAX], usize) {
    // Written from the end, then copied to the front as one piece of fixed length, which
    // is a few moves where a piece of varying length would be a call.
    let mut digits = [0; 2 * U64_DIGITS_MAX];
    let mut start = U64_DIGITS_MAX;
    while value >= 100 {
        start -= 2;
        digits[start..start + 2].copy_from_slice(&DIGIT_PAIRS[(value % 100) as usize]);
        value /= 100;
    }
    let [tens, ones] = DIGIT_PAIRS[value as usize];
    start -= 1;
    digits[start] = ones;
    if tens != b'0' {
        start -= 1;
        digits[start] = tens;
    }
    let mut front = [0; U64_DIGITS_MAX];
    front.copy_from_slice(&digits[start..start + U64_DIGITS_MAX]);
    (front, U64_DIGITS_MAX - start)
}

/// Numbers of up to eight digits are below this.
const WORD_VALUES: u64 = 100_000_000;

/// The two digits of each number below 100.
static DIGIT_PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[0; 2]; 100];
    let mut value = 0;
    while value < 100 {
        pairs[value] = [b'0' + (value / 10) as u8, b'0' + (value % 10) as u8];
        value += 1;
    }
    pairs
};

/// Digits of `u64::MAX`.
pub const U64_DIGITS_MAX: usize = 20;

/// True if all is ASCII that stands in a JSON string as it is, as nearly all names are.
fn is_plain(bytes: &[u8]) -> bool {
    let Some(last) = bytes.last_chunk::<8>() else {
        return bytes.iter().all(|byte| is_plain_word([*byte; 8]));
    };
    let (words, _) = bytes.as_chunks::<8>();
    // The last eight bytes may have been looked at in part: that costs less than a loop.
    is_plain_word(*last) && words.iter().all(|word| is_plain_word(*word))
}

/// [`is_plain`], for eight bytes at once.
fn is_plain_word(word: [u8; 8]) -> bool {
    const EACH: u64 = u64::from_ne_bytes([1; 8]);
    const TOP_BITS: u64 = EACH << 7;
    let word = u64::from_ne_bytes(word);
    // Each of these sets the top bit of a byte that is below, or is, what is looked for, and
    // without one such byte, of none: only such a byte borrows from the next.
    let control = word.wrapping_sub(EACH * 0x20);
    let quote = (word ^ (EACH * u64::from(b'"'))).wrapping_sub(EACH);
    let backslash = (word ^ (EACH * u64::from(b'\\'))).wrapping_sub(EACH);
    (word | control | quote | backslash) & TOP_BITS == 0
}

/// Appends valid UTF-8 with what JSON forbids in a string escaped.
fn escape(out: &mut Vec<u8>, text: &[u8]) {
    let mut copied = 0;
    for (at, &byte) in text.iter().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.extend_from_slice(&text[copied..at]);
        copied = at + 1;
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => {
                out.extend_from_slice(b"\\u00");
                out.push(HEX[usize::from(byte >> 4)]);
                out.push(HEX[usize::from(byte & 15)]);
            }
        }
    }
    out.extend_from_slice(&text[copied..]);
}

const HEX: &[u8; 16] = b"0123456789abcdef";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn quotes_backslashes_and_controls_are_escaped() {
        let mut out = Vec::new();
        string(&mut out, "a\"b\\c\nd\u{1}\u{1f}é");
        assert_eq!(out, "\"a\\\"b\\\\c\\nd\\u0001\\u001fé\"".as_bytes());
    }

    #[test]
    fn bytes_that_are_not_utf8_become_the_replacement_character() {
        let mut out = Vec::new();
        string_lossy(&mut out, b"a\xff\"b\xc3");
        assert_eq!(out, "\"a\u{fffd}\\\"b\u{fffd}\"".as_bytes());
    }

    #[test]
    fn numbers_are_written_from_zero_to_the_largest() {
        for value in [
            0,
            7,
            10,
            99,
            100,
            101,
            999,
            1_000,
            12_345,
            100_000,
            u64::MAX,
        ] {
            let mut out = Vec::new();
            number(&mut out, value);
            assert_eq!(out, value.to_string().into_bytes());
        }
    }

    #[test]
    fn whatever_needs_an_escape_is_seen_wherever_it_stands() {
        for (byte, len) in (0..=255u8).flat_map(|byte| (1..20).map(move |len| (byte, len))) {
            let plain = (0x20..0x80).contains(&byte) && byte != b'"' && byte != b'\\';
            for at in 0..len {
                let mut text = vec![b'a'; len];
                text[at] = byte;
                assert_eq!(is_plain(&text), plain, "{byte} at {at} of {len}");
            }
        }
    }

    proptest! {
        #[test]
        fn every_string_reads_back_as_itself(text in any::<String>()) {
            let mut out = Vec::new();
            string(&mut out, &text);
            prop_assert_eq!(serde_json::from_slice::<String>(&out).expect("valid JSON"), text);
        }

        #[test]
        fn every_number_is_written_as_the_standard_library_writes_it(value: u64, shift in 0..64u32) {
            let mut out = Vec::new();
            number(&mut out, value >> shift);
            prop_assert_eq!(out, (value >> shift).to_string().into_bytes());
        }

        #[test]
        fn any_bytes_give_a_valid_string(bytes in any::<Vec<u8>>(), parted in any::<prop::sample::Index>()) {
            let (mut out, mut of_parts) = (Vec::new(), Vec::new());
            string_lossy(&mut out, &bytes);
            let (front, back) = bytes.split_at(parted.index(bytes.len() + 1));
            string_lossy_of(&mut of_parts, [front, back]);
            prop_assert_eq!(&of_parts, &out);
            let read = serde_json::from_slice::<String>(&out).expect("valid JSON");
            prop_assert_eq!(read, String::from_utf8_lossy(&bytes));
        }
    }
}
