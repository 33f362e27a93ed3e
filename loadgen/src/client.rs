//! A blocking client for single questions, such as whether the server is ready.

use crate::reply;
use anyhow::{Context, Result, bail};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Asks for `path`; returns the status and the body.
///
/// # Errors
/// If there is no whole answer within two seconds.
pub(crate) fn get(address: SocketAddr, path: &str) -> Result<(u16, Vec<u8>)> {
    let mut stream = TcpStream::connect_timeout(&address, LIMIT).context("connect")?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: systole\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut got = Vec::new();
    let mut piece = [0; 16 * 1024];
    loop {
        if let Some(head) = reply::parse(&got, false).map_err(|e| anyhow::anyhow!("{e}"))?
            && got.len() >= head.total_len()
        {
            return Ok((head.status, got[head.head_len..head.total_len()].to_vec()));
        }
        match stream.read(&mut piece)? {
            0 => bail!("the server closed the connection before its answer was whole"),
            n => got.extend_from_slice(&piece[..n]),
        }
    }
}

const LIMIT: Duration = Duration::from_secs(2);
