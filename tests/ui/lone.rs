//! A server whose ensemble is not there: it answers, and is not ready.

use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::common::{Client, poll, systole};

/// One of three servers, without the other two; killed when dropped.
pub(crate) struct Lone {
    child: Child,
    pub(crate) address: SocketAddr,
    _dir: TempDir,
}

impl Lone {
    pub(crate) fn start() -> Lone {
        let dir = tempfile::tempdir().expect("a directory");
        let [address, own, second, third] = free_addresses();
        let child = systole()
            .args(["serve", "--listen", &address.to_string()])
            .args(["--ensemble", &format!("1={own},2={second},3={third}")])
            .arg("--data-dir")
            .arg(dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the server's program");
        let lone = Lone {
            child,
            address,
            _dir: dir,
        };
        let time = Duration::from_secs(30);
        poll(time, "a server that answers", || {
            Client::try_connect(address, time).ok()
        });
        lone
    }
}

impl Drop for Lone {
    fn drop(&mut self) {
        // It may have ended before.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Addresses that nobody had when they were asked for, all different.
fn free_addresses() -> [SocketAddr; 4] {
    let held = [(); 4].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    held.map(|held| held.local_addr().expect("its address"))
}
