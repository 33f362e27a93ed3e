//! nginx: a web server that answers every beat with `return 204`. It knows no sessions.

use super::find;
use anyhow::{Context, Result};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// How it is set up.
pub(super) const TERMS: &str =
    "one worker, no access log, `return 204`; knows no sessions; beat: the same HEAD";

/// Where it is installed.
pub(super) fn program() -> Option<PathBuf> {
    find(&["/usr/sbin/nginx", "/usr/local/sbin/nginx", "/usr/bin/nginx"])
}

/// The command that starts it, with its configuration in `dir`.
pub(super) fn command(address: SocketAddr, dir: &Path) -> Result<(PathBuf, Vec<String>)> {
    let program = program().context("nginx is not installed")?;
    let file = dir.join("nginx.conf");
    fs::write(&file, configuration(address, dir))?;
    let text = |p: &Path| p.display().to_string();
    let args = vec![
        "-p".to_owned(),
        text(dir),
        "-e".to_owned(),
        text(&dir.join("nginx.log")),
        "-c".to_owned(),
        text(&file),
    ];
    Ok((program, args))
}

/// One process, so that its CPU time is all in one place; nothing written to disk.
fn configuration(address: SocketAddr, dir: &Path) -> String {
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|kind| format!("    {kind}_temp_path {}/{kind};\n", dir.display()))
        .collect();
    format!(
        "daemon off;\nmaster_process off;\nworker_rlimit_nofile 40000;\npid {dir}/nginx.pid;\n\
         events {{ worker_connections 30000; multi_accept on; }}\n\
         http {{\n{temporary}    access_log off;\n    keepalive_requests 1000000000;\n    \
         keepalive_timeout 1h;\n    tcp_nodelay on;\n    \
         server {{ listen {address} backlog=4096; location / {{ return 204; }} }}\n}}\n",
        dir = dir.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_keeps_connections_and_stays_in_its_directory() {
        let text = configuration("127.0.0.1:81".parse().unwrap(), Path::new("/d"));
        for part in [
            "listen 127.0.0.1:81 ",
            "return 204",
            "keepalive_requests 1000000000",
            "pid /d/",
            "client_body_temp_path /d/",
        ] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
    }
}
