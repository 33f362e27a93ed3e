//! Where clients reach the servers: agreed like everything else, so that every server shows the
//! same list, those that are down included.
//!
//! Each server writes its endpoint as the config of a member, named by its id, of a group that
//! no client can reach, because the names of clients' groups do not begin so.

use std::sync::Arc;

use super::Replica;
use super::requests::Who;
use crate::group::{Request, Require};
use crate::mail::Tell;
use crate::time::Millis;
use crate::types::ServerId;

impl Replica {
    /// Writes this server's endpoint, if it is not what the ensemble knows.
    pub(super) fn announce(&mut self, now: Millis) -> bool {
        if self.alone || self.announced || !self.stands() || self.own.settled().is_none() {
            return false;
        }
        self.announced = true;
        let own = self.settings.endpoint.as_bytes();
        let member = member_of(self.settings.id);
        let known = self.state().config(SERVERS, Some(&member));
        if known.is_some_and(|config| config.bytes == own) {
            return false;
        }
        let request = Request::SetConfig {
            group: SERVERS.into(),
            member: Some(member),
            bytes: own.into(),
            require: Require::Nothing,
        };
        self.submit_own(now, &request, Who::Endpoint);
        true
    }

    /// Where clients reach a server, as far as is known.
    pub(super) fn endpoint_of(&self, server: ServerId) -> Option<String> {
        if server == self.settings.id {
            return Some(self.settings.endpoint.clone());
        }
        let config = self.state().config(SERVERS, Some(&member_of(server)))?;
        Some(String::from_utf8_lossy(config.bytes).into_owned())
    }

    /// Looks at the servers' own group, and tells the shards what documents are to show if that has
    /// changed.
    pub(super) fn publish_endpoints(&mut self) {
        let own = self.state().document(SERVERS);
        self.own_group = own.map(|own| u64::from(own.counts().1));
        let ensemble = self.node.ensemble();
        let others = ensemble.others(self.settings.id);
        let mut servers: Vec<ServerId> = others.chain([self.settings.id]).collect();
        servers.sort_unstable();
        let known = servers.into_iter().filter_map(|id| self.endpoint_of(id));
        let endpoints: Arc<[String]> = known.collect();
        if endpoints == self.endpoints {
            return;
        }
        self.endpoints = Arc::clone(&endpoints);
        self.publisher
            .tell_all(|| Tell::Endpoints(Arc::clone(&endpoints)));
    }
}

fn member_of(server: ServerId) -> Box<[u8]> {
    server.to_string().into_bytes().into()
}

/// The group that holds the endpoints.
pub(super) const SERVERS: &[u8] = b"-servers";
