//! Faults planted on purpose: each takes away one line that something rests on.
//!
//! A line that guards a property is only tested if something fails without it. So each module
//! that has such lines lists them with [`plants!`](plants), and asks at each line whether it has
//! been taken away; the simulator must find every one of them. Outside tests and the simulator a
//! set of plants has no bits, and every question is answered `false` at compile time.

use std::marker::PhantomData;

/// The faults of one list that have been planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Plants<P> {
    #[cfg(any(test, feature = "sim"))]
    bits: u64,
    list: PhantomData<P>,
}

/// A fault of a list: a bit of its set.
pub trait Listed: Copy {
    /// Which bit, 0 to 63.
    fn bit(self) -> u32;
}

impl<P: Listed> Plants<P> {
    /// No faults.
    pub const NONE: Plants<P> = Plants {
        #[cfg(any(test, feature = "sim"))]
        bits: 0,
        list: PhantomData,
    };

    /// Just this fault.
    #[cfg(any(test, feature = "sim"))]
    #[must_use]
    pub fn only(plant: P) -> Plants<P> {
        Plants::NONE.and(plant)
    }

    /// These and another one: for a line that stands behind another, which must be gone too.
    #[cfg(any(test, feature = "sim"))]
    #[must_use]
    pub fn and(self, plant: P) -> Plants<P> {
        Plants {
            bits: self.bits | 1 << plant.bit(),
            list: PhantomData,
        }
    }

    /// True if `plant` is among them.
    #[inline]
    #[must_use]
    pub fn has(self, plant: P) -> bool {
        #[cfg(any(test, feature = "sim"))]
        {
            self.bits & (1 << plant.bit()) != 0
        }
        #[cfg(not(any(test, feature = "sim")))]
        {
            let _ = plant;
            false
        }
    }
}

impl<P: Listed> Default for Plants<P> {
    fn default() -> Plants<P> {
        Plants::NONE
    }
}

/// Makes a list of plants: an enum with `ALL`, `name` and `named`, of which there are sets.
macro_rules! plants {
    (
        $(#[doc = $about:literal])*
        $vis:vis enum $list:ident {
            $($(#[doc = $doc:literal])* $name:ident = $text:literal,)*
        }
    ) => {
        $(#[doc = $about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u32)]
        $vis enum $list {
            $($(#[doc = $doc])* $name,)*
        }

        impl $list {
            /// Every plant there is.
            $vis const ALL: &[$list] = &[$($list::$name,)*];

            /// Its name on the command line.
            #[must_use]
            $vis fn name(self) -> &'static str {
                match self {
                    $($list::$name => $text,)*
                }
            }

            /// The plant of this name.
            #[must_use]
            $vis fn named(name: &str) -> Option<$list> {
                $list::ALL.iter().copied().find(|plant| plant.name() == name)
            }
        }

        impl $crate::plant::Listed for $list {
            #[inline]
            fn bit(self) -> u32 {
                self as u32
            }
        }

        const _: () = assert!($list::ALL.len() <= 64, "a plant is a bit of a u64");
    };
}

pub(crate) use plants;

#[cfg(test)]
mod tests {
    use super::Plants;

    plants! {
        /// Two of them.
        enum Two {
            /// The first.
            One = "one",
            /// The second.
            Other = "the-other",
        }
    }

    #[test]
    fn a_set_has_what_was_put_into_it_and_nothing_else() {
        let none = Plants::<Two>::NONE;
        assert!(!none.has(Two::One) && !none.has(Two::Other));
        let other = Plants::only(Two::Other);
        assert!(!other.has(Two::One) && other.has(Two::Other));
        let both = other.and(Two::One);
        assert!(both.has(Two::One) && both.has(Two::Other));
        assert_eq!(Plants::<Two>::default(), none);
    }

    #[test]
    fn a_plant_is_found_by_its_name() {
        assert_eq!(Two::named("the-other"), Some(Two::Other));
        assert_eq!(Two::named("another"), None);
        let names: Vec<&str> = Two::ALL.iter().map(|plant| plant.name()).collect();
        assert_eq!(names, ["one", "the-other"]);
    }
}
