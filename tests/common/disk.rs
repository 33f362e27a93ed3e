//! A file system that is small enough to be full soon. It needs the right to mount.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::skipped;

/// A tmpfs of a given size, unmounted when dropped.
pub(crate) struct SmallDisk {
    dir: TempDir,
}

impl SmallDisk {
    /// One of so many megabytes; `None`, and said so, if this user may not have it.
    pub(crate) fn of(megabytes: u32) -> Option<SmallDisk> {
        let dir = tempfile::tempdir().expect("a directory");
        let options = format!("size={megabytes}m");
        let mounted = mount(&["-t", "tmpfs", "-o", &options, "systole-test"], dir.path());
        if !mounted {
            skipped("this user may not mount a tmpfs");
            return None;
        }
        Some(SmallDisk { dir })
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn resize(&self, megabytes: u32) {
        let options = format!("remount,size={megabytes}m");
        assert!(
            mount(&["-o", &options], self.dir.path()),
            "to resize the tmpfs"
        );
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: the server may not be gone yet.
        let _ = Command::new("umount")
            .arg("-l")
            .arg(self.dir.path())
            .output();
    }
}

fn mount(args: &[&str], dir: &Path) -> bool {
    let output = Command::new("mount").args(args).arg(dir).output();
    output.is_ok_and(|output| output.status.success())
}
