//! A blocking client for single questions, such as whether the server is ready.

use crate::reply::{self, Reply};
use anyhow::{Context, Result, bail};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Asks for `path`; returns the status and the body.
///
/// # Errors
/// If there is no whole answer within two seconds.
pub(crate) fn get(address: SocketAddr, path: &str) -> Result<(u16, Vec<u8>)> {
    ask(address, "GET", path, b"", LIMIT)
}

/// Asks one question over a connection of its own; returns the status and the body.
///
/// # Errors
/// If the server is silent for `limit`, or sends no whole answer.
pub(crate) fn ask(
    address: SocketAddr,
    method: &str,
    path: &str,
    body: &[u8],
    limit: Duration,
) -> Result<(u16, Vec<u8>)> {
    let mut request = format!(
        "{method} {path} HTTP/1.1\r\nHost: systole\r\nConnection: close\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body);
    let mut answers = exchange(address, &request, 1, limit)?;
    let (head, body) = answers.pop().context("one answer")?;
    Ok((head.status, body))
}

/// Sends `requests`, which hold `count` of them, at once, and reads an answer to each. None may
/// be a HEAD.
///
/// # Errors
/// As for [`ask`].
pub(crate) fn exchange(
    address: SocketAddr,
    requests: &[u8],
    count: usize,
    limit: Duration,
) -> Result<Vec<(Reply, Vec<u8>)>> {
    let mut stream = TcpStream::connect_timeout(&address, limit).context("connect")?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    stream.set_nodelay(true)?;
    stream.write_all(requests)?;
    let mut got = Vec::new();
    let mut answers = Vec::new();
    let mut piece = [0; 16 * 1024];
    loop {
        while let Some(head) = reply::parse(&got, false).map_err(|e| anyhow::anyhow!("{e}"))?
            && got.len() >= head.total_len()
        {
            answers.push((head, got[head.head_len..head.total_len()].to_vec()));
            got.drain(..head.total_len());
            if answers.len() == count {
                return Ok(answers);
            }
        }
        match stream.read(&mut piece)? {
            0 => bail!("the server closed the connection before its answer was whole"),
            n => got.extend_from_slice(&piece[..n]),
        }
    }
}

/// The sum of a server's counter over all shards.
///
/// # Errors
/// If the server does not answer.
pub(crate) fn metric(server: SocketAddr, name: &str) -> Result<f64> {
    let (_, body) = get(server, "/-/metrics")?;
    Ok(sum_of(&String::from_utf8_lossy(&body), name))
}

fn sum_of(text: &str, name: &str) -> f64 {
    let lines = text.lines().filter_map(|line| line.strip_prefix(name));
    let values = lines
        .filter(|rest| rest.starts_with(['{', ' ']))
        .filter_map(|rest| rest.rsplit(' ').next()?.parse::<f64>().ok());
    values.sum()
}

/// How long a question waits for its answer.
const LIMIT: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_summed_over_its_shards_and_over_no_other() {
        let text = "# HELP a_total x\na_total{shard=\"0\"} 2\na_total{shard=\"1\"} 3\na_totals 9\n";
        assert_eq!(sum_of(text, "a_total"), 5.0);
        assert_eq!(sum_of("b_total 7\n", "b_total"), 7.0);
    }
}
