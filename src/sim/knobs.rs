//! Stand-ins for knobs of the disk.
use super::disk::SimDisk;
impl SimDisk {
    /// Power is lost in the k-th event from now.
    pub fn crash_in(&self, _: u64) {}
    /// The k-th event from now fails.
    pub fn fail_in(&self, _: u64) {}
    /// Limits the bytes of all files.
    pub fn set_capacity(&self, _: Option<u64>) {}
    /// Bytes of all files.
    pub fn used(&self) -> u64 {
        0
    }
    /// Ends all plans.
    pub fn relieve(&self) {}
}
