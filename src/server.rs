//! A stand-in until the server is merged.

use crate::config::Settings;

/// Why a server could not start or go on.
#[derive(Debug, thiserror::Error)]
#[error("the server is not merged into this branch")]
pub struct StartError;

/// Runs a server until it is told to stop.
///
/// # Errors
/// Always, for now.
pub fn run(_settings: Settings) -> Result<(), StartError> {
    Err(StartError)
}
