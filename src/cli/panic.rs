//! What is said when the server finds a bug of its own.
//!
//! Every panic ends the process (`panic = "abort"`): the executors that are left would serve
//! without the one that died. A log reader or a supervisor gets one plain line.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::Write;
use std::panic::PanicHookInfo;

/// Replaces the standard panic message for the whole process.
pub(super) fn install() {
    std::panic::set_hook(Box::new(|info| {
        let mut line = sentence(info);
        // Captures nothing unless RUST_BACKTRACE asks for it.
        let backtrace = Backtrace::capture();
        if backtrace.status() == BacktraceStatus::Captured {
            line.push_str(&format!("{backtrace}"));
        }
        // With stderr closed there is nobody left to tell.
        let _ = std::io::stderr().write_all(line.as_bytes());
    }));
}

fn sentence(info: &PanicHookInfo<'_>) -> String {
    let payload = info.payload();
    let what = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    // One line, whatever an assertion put between its two values.
    let what = what.split_whitespace().collect::<Vec<_>>().join(" ");
    let place = info
        .location()
        .map_or_else(String::new, |place| format!(" at {place}"));
    format!(
        "systole: stopped by a fault of its own{place}: {what}. What was answered is on disk; \
         please report this line, with RUST_BACKTRACE=1 if it happens again.\n"
    )
}
