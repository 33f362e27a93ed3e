//! The `systole` command; all of it is in [`systole::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    systole::cli::run(std::env::args_os())
}
