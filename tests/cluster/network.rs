//! What lies between the servers.
//!
//! A [`Relay`](crate::relay::Relay) needs no rights, can be slow, and can break connections.
//! Network namespaces need root; there a cut is what it is on a wire: packets vanish, TCP backs
//! off, and new connections wait for an answer that does not come. Nobody's packets are
//! filtered for it: the sender is told a wrong hardware address of the receiver, for one
//! direction of one pair.

use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::time::Duration;

use crate::common::skipped;

/// The network between servers, which are counted from 0.
pub(crate) trait Network {
    /// Nothing gets from one server to the other; the way back stays as it is.
    fn cut(&self, from: usize, to: usize);

    /// Everything gets through at once.
    fn heal(&self);

    /// What one server says to another comes so much later, where that can be had.
    fn delay(&self, _from: usize, _to: usize, _delay: Duration) {}

    /// Breaks every connection between two servers, where that can be done; both may connect
    /// anew.
    fn sever(&self, _one: usize, _other: usize) {}
}

/// A namespace for each server, and a bridge that this process is on as well.
pub(crate) struct Namespaces {
    net: [u8; 2],
    count: usize,
}

impl Namespaces {
    /// Makes them; `None`, and said so, if this user may not.
    pub(crate) fn of(count: usize, net: [u8; 2]) -> Option<Namespaces> {
        let namespaces = Namespaces { net, count };
        if !namespaces.build() {
            skipped("this user may not make network namespaces");
            return None;
        }
        Some(namespaces)
    }

    /// The address of a server, or, beyond the last of them, of this process.
    pub(crate) fn address(&self, server: usize) -> IpAddr {
        let [a, b] = self.net;
        IpAddr::V4(Ipv4Addr::new(10, a, b, server as u8 + 1))
    }

    /// What a command is to begin with to run where a server is.
    pub(crate) fn wrap(&self, server: usize) -> Vec<String> {
        let words = ["ip", "netns", "exec"].map(str::to_owned);
        words.into_iter().chain([self.name(server)]).collect()
    }

    /// Of a namespace; the bridge and the cables are named alike.
    fn name(&self, server: usize) -> String {
        format!("sy{:02x}{:02x}-{server}", self.net[0], self.net[1])
    }

    fn bridge(&self) -> String {
        format!("sy{:02x}{:02x}", self.net[0], self.net[1])
    }

    fn build(&self) -> bool {
        let bridge = self.bridge();
        let own = format!("{}/24", self.address(self.count));
        let begun = ip(&["link", "add", &bridge, "type", "bridge"])
            && ip(&["addr", "add", &own, "dev", &bridge])
            && ip(&["link", "set", &bridge, "up"]);
        begun && (0..self.count).all(|server| self.build_one(server))
    }

    fn build_one(&self, server: usize) -> bool {
        let (name, bridge) = (self.name(server), self.bridge());
        let own = format!("{}/24", self.address(server));
        let mac = mac(server);
        let cable = ["link", "add", &name, "type", "veth", "peer", "name", "eth0"];
        ip(&["netns", "add", &name])
            && ip(&[&cable[..], &["address", &mac, "netns", &name]].concat())
            && ip(&["link", "set", &name, "master", &bridge, "up"])
            && ip(&["-n", &name, "addr", "add", &own, "dev", "eth0"])
            && ip(&["-n", &name, "link", "set", "eth0", "up"])
            && ip(&["-n", &name, "link", "set", "lo", "up"])
    }

    /// Tells one server where another is, for good.
    fn point(&self, from: usize, to: usize, mac: &str) {
        let (name, address) = (self.name(from), self.address(to).to_string());
        let told = ip(&[
            "-n",
            &name,
            "neigh",
            "replace",
            &address,
            "lladdr",
            mac,
            "nud",
            "permanent",
            "dev",
            "eth0",
        ]);
        assert!(told, "to change the way from {} to {}", from + 1, to + 1);
    }
}

impl Network for Namespaces {
    fn cut(&self, from: usize, to: usize) {
        self.point(from, to, NOBODY);
    }

    fn heal(&self) {
        for from in 0..self.count {
            for to in (0..self.count).filter(|&to| to != from) {
                self.point(from, to, &mac(to));
            }
        }
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for server in 0..self.count {
            // The cable ends with the namespace, which may not have been made.
            ip(&["netns", "delete", &self.name(server)]);
        }
        ip(&["link", "delete", &self.bridge()]);
    }
}

/// The hardware address of a server.
fn mac(server: usize) -> String {
    format!("02:00:00:00:01:{server:02x}")
}

/// A hardware address that nobody has.
const NOBODY: &str = "02:00:00:00:00:ff";

fn ip(args: &[&str]) -> bool {
    let output = Command::new("ip").args(args).output();
    output.is_ok_and(|output| output.status.success())
}
