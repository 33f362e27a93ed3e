//! The lines of the state machine that ownership rests on, each of which a plant takes away.

/// The faults that have been planted in a state machine.
pub type Plants = crate::plant::Plants<Plant>;

crate::plant::plants! {
    /// A guarding line of the state machine that is taken away.
    pub enum Plant {
        /// An expiry ends a session whatever its term is by now.
        EndsAnyTerm = "ends-any-term",
        /// A session is moved whatever its term is by now.
        MovesAnyTerm = "moves-any-term",
    }
}
