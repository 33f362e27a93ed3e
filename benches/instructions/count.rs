//! Counting by callgrind: this program again, once for each path, each in its own process.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

/// Instructions of one operation of a path. The profile is kept, for `callgrind_annotate`.
pub(crate) fn count(path: &'static str) -> Result<f64, String> {
    let profile = profile_of(path)?;
    let program = env::current_exe().map_err(|error| format!("this program: {error}"))?;
    let mut counted = Command::new("valgrind");
    counted
        .arg("--tool=callgrind")
        .arg(format!("--callgrind-out-file={}", profile.display()))
        // The function is generic, so its name has more before and behind it.
        .arg("--toggle-collect=*counted_work*")
        .arg(program)
        .args(["--drive", path])
        .stdin(Stdio::null());
    let output = counted.output().map_err(|error| {
        format!("valgrind cannot be run ({error}); on Debian: apt-get install valgrind")
    })?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(format!("{path}: {}\n{said}{error}", output.status));
    }
    let operations = said.trim().parse::<u32>();
    let operations = operations.map_err(|_| format!("{path}: says `{said}`"))?;
    let text = fs::read_to_string(&profile);
    let text = text.map_err(|error| format!("{}: {error}", profile.display()))?;
    match total(&text) {
        Some(instructions) if instructions > 0 && operations > 0 => {
            Ok(instructions as f64 / f64::from(operations))
        }
        _ => Err(format!("{path}: {} counts nothing", profile.display())),
    }
}

/// What a profile counts in all.
fn total(profile: &str) -> Option<u64> {
    let line = profile
        .lines()
        .find_map(|line| line.strip_prefix("totals: "))?;
    line.trim().parse().ok()
}

/// Beside the program, in the target directory.
fn profile_of(path: &str) -> Result<PathBuf, String> {
    let program = env::current_exe().map_err(|error| format!("this program: {error}"))?;
    let dir = program.parent().unwrap_or(Path::new(".")).join("callgrind");
    fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    Ok(dir.join(format!("{path}.out")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_ends_with_what_it_counts_in_all() {
        let profile = "version: 1\nevents: Ir\nfn=(1) main\n12 34\n\ntotals: 3357121\n";
        assert_eq!(total(profile), Some(3_357_121));
        assert_eq!(total("events: Ir\n"), None);
    }
}
