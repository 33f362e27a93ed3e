//! The one source of chance in a simulated world.

/// xoshiro256++ by Blackman and Vigna, seeded by splitmix64: the same seed gives the same
/// numbers, everywhere and for ever.
#[derive(Clone, Debug)]
pub struct Random([u64; 4]);

/// A length of time that is mostly near `min` and now and then up to `max`, µs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Never less.
    pub min: u64,
    /// Never as much.
    pub max: u64,
}

impl Span {
    /// From `min` to below `max`.
    ///
    /// # Panics
    /// If that is nothing.
    #[must_use]
    pub const fn new(min: u64, max: u64) -> Span {
        assert!(min < max, "an empty span");
        Span { min, max }
    }

    /// The span stretched.
    #[must_use]
    pub const fn times(self, factor: u64) -> Span {
        Span {
            min: self.min * factor,
            max: self.max * factor,
        }
    }
}

impl Random {
    /// The numbers of `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Random {
        let mut state = seed;
        Random(std::array::from_fn(|_| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        }))
    }

    /// Any number.
    pub fn any(&mut self) -> u64 {
        let s = &mut self.0;
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.any()) * u128::from(bound)) >> 64) as u64
    }

    /// A number from `min` to below `max`.
    pub fn between(&mut self, min: u64, max: u64) -> u64 {
        min + self.below(max - min)
    }

    /// True `per_million` times in a million.
    pub fn chance(&mut self, per_million: u32) -> bool {
        per_million > 0 && self.below(1_000_000) < u64::from(per_million)
    }

    /// A length of time; the product of two draws, so that short ones are the rule.
    pub fn span(&mut self, span: Span) -> u64 {
        let drawn = self.any();
        let skewed = ((drawn & 0xffff_ffff) * (drawn >> 32)) >> 32;
        span.min + (((span.max - span.min) * skewed) >> 32)
    }

    /// One of `items`, which are not none.
    pub fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len() as u64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_numbers_and_another_gives_others() {
        let draw = |seed| {
            let mut random = Random::new(seed);
            [random.any(), random.any(), random.any()]
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }

    #[test]
    fn draws_stay_within_their_bounds_and_reach_them() {
        let mut random = Random::new(7);
        let mut seen = [false; 5];
        let span = Span::new(10, 20);
        let mut low = 0;
        for _ in 0..1_000 {
            seen[random.below(5) as usize] = true;
            let drawn = random.span(span);
            assert!((10..20).contains(&drawn));
            low += usize::from(drawn < 13);
            assert!((3..9).contains(&random.between(3, 9)));
        }
        assert_eq!(seen, [true; 5]);
        assert!(low > 500, "short spans are the rule: {low} of 1000");
        let hits = (0..10_000).filter(|_| random.chance(250_000)).count();
        assert!((2_200..2_800).contains(&hits), "a quarter: {hits}");
        assert!(!random.chance(0));
    }
}
