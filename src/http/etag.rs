//! Entity tags: a version in quotes, and the conditions clients make of them.

/// A list of entity tags from `If-Match` or `If-None-Match`, or `*`; checked when made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EtagList<'a>(&'a [u8]);

impl<'a> EtagList<'a> {
    /// Takes a header's value; `None` if it is neither `*` nor a list of entity tags
    /// (RFC 9110, 8.8.3; empty list elements are allowed, an empty list is not).
    #[must_use]
    pub fn parse(value: &'a [u8]) -> Option<EtagList<'a>> {
        if value == b"*" {
            return Some(EtagList(value));
        }
        let mut tags = Tags { rest: value };
        let mut count = 0;
        while let Some(tag) = tags.step() {
            tag.ok()?;
            count += 1;
        }
        (count > 0).then_some(EtagList(value))
    }

    /// The header's value as it was sent, to be parsed again later and elsewhere.
    #[must_use]
    pub fn as_bytes(&self) -> &'a [u8] {
        self.0
    }

    /// True for `*`: whatever there is.
    #[must_use]
    pub fn is_any(&self) -> bool {
        self.0 == b"*"
    }

    /// True if the list names `version`, or anything, comparing weakly: for
    /// `If-None-Match` on what exists.
    #[must_use]
    pub fn matches_weakly(&self, version: u64) -> bool {
        self.is_any() || self.tags().any(|tag| tag.version() == Some(version))
    }

    /// True if the list names `version`, or anything, comparing strongly: for `If-Match`
    /// on what exists. A weak tag never matches.
    #[must_use]
    pub fn matches_strongly(&self, version: u64) -> bool {
        self.is_any() || self.versions().any(|listed| listed == version)
    }

    /// The versions that would satisfy `If-Match`, for who must decide later and
    /// elsewhere. Tags that are weak or no version of ours can match nothing and are
    /// left out. Empty for `*`.
    pub fn versions(&self) -> impl Iterator<Item = u64> + use<'a> {
        self.tags()
            .filter(|tag| !tag.weak)
            .filter_map(|tag| tag.version())
    }

    fn tags(&self) -> impl Iterator<Item = Tag<'a>> + use<'a> {
        let mut tags = Tags {
            rest: if self.is_any() { b"" } else { self.0 },
        };
        std::iter::from_fn(move || tags.step()?.ok())
    }
}

/// One entity tag.
struct Tag<'a> {
    weak: bool,
    opaque: &'a [u8],
}

impl Tag<'_> {
    /// The version it stands for, if it is one we could have given out: digits without
    /// leading zeros.
    fn version(&self) -> Option<u64> {
        let plain = self.opaque == b"0" || self.opaque.first() != Some(&b'0');
        let digits = self.opaque.iter().all(u8::is_ascii_digit);
        let text = std::str::from_utf8(self.opaque).ok()?;
        if plain && digits {
            text.parse().ok()
        } else {
            None
        }
    }
}

/// The list is not one of entity tags.
struct NotATag;

/// Walks over a list; `step` gives `None` at its end.
struct Tags<'a> {
    rest: &'a [u8],
}

impl<'a> Tags<'a> {
    fn step(&mut self) -> Option<Result<Tag<'a>, NotATag>> {
        while let [b' ' | b'\t' | b',', rest @ ..] = self.rest {
            self.rest = rest;
        }
        if self.rest.is_empty() {
            return None;
        }
        Some(self.tag())
    }

    fn tag(&mut self) -> Result<Tag<'a>, NotATag> {
        let (weak, quoted) = match self.rest.strip_prefix(b"W/") {
            Some(quoted) => (true, quoted),
            None => (false, self.rest),
        };
        let open = quoted.strip_prefix(b"\"").ok_or(NotATag)?;
        let end = open.iter().position(|&b| b == b'"').ok_or(NotATag)?;
        let (opaque, after) = (&open[..end], &open[end + 1..]);
        // etagc excludes the space and the control characters.
        if opaque.iter().any(|&b| b <= b' ' || b == 0x7f) {
            return Err(NotATag);
        }
        let blank = after
            .iter()
            .take_while(|&&b| b == b' ' || b == b'\t')
            .count();
        match after.get(blank) {
            None | Some(b',') => {}
            Some(_) => return Err(NotATag),
        }
        self.rest = &after[blank..];
        Ok(Tag { weak, opaque })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_matches_what_it_names() {
        let list = EtagList::parse(b"\"1\", W/\"3\" ,,\"x\"").expect("a list");
        assert!(list.matches_strongly(1) && list.matches_weakly(1));
        assert!(!list.matches_strongly(3), "weak tags never match strongly");
        assert!(list.matches_weakly(3));
        assert!(!list.matches_weakly(2) && !list.matches_strongly(2));
        assert_eq!(list.versions().collect::<Vec<_>>(), [1]);
        assert!(!list.is_any());
    }

    #[test]
    fn a_star_matches_everything_and_names_nothing() {
        let any = EtagList::parse(b"*").expect("a star");
        assert!(any.is_any() && any.matches_strongly(9) && any.matches_weakly(0));
        assert_eq!(any.versions().count(), 0);
    }

    #[test]
    fn a_tag_is_a_version_only_as_we_write_it() {
        for text in [
            "\"01\"",
            "\"+1\"",
            "\"\"",
            "\"18446744073709551616\"",
            "\"1x\"",
        ] {
            let list = EtagList::parse(text.as_bytes()).expect("a tag");
            assert!(!list.matches_weakly(1), "{text}");
            assert_eq!(list.versions().count(), 0, "{text}");
        }
        assert!(
            EtagList::parse(b"\"0\"")
                .expect("a tag")
                .matches_strongly(0)
        );
        let top = EtagList::parse(b"\"18446744073709551615\"").expect("a tag");
        assert!(top.matches_strongly(u64::MAX));
    }

    #[test]
    fn what_is_no_list_of_tags_is_refused() {
        for text in [
            "",
            " ",
            ",",
            "1",
            "\"1",
            "1\"",
            "\"1\" \"2\"",
            "*, \"1\"",
            "w/\"1\"",
            "\"a b\"",
            "W/ \"1\"",
            "**",
        ] {
            assert_eq!(EtagList::parse(text.as_bytes()), None, "{text:?}");
        }
    }
}
