//! Answers questions: the cluster's from the zone, others from the servers the node uses.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use hickory_proto::op::{Header, HeaderCounts, Metadata, ResponseCode};
use hickory_proto::rr::{LowerName, Name, RData, Record, RecordType};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_server::net::runtime::Time;
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;
use parking_lot::RwLock;

use crate::zone::{Found, Zone};

/// Shared by all sockets; clones share what they answer from.
#[derive(Clone)]
pub(crate) struct Handler {
    zone: Arc<RwLock<Zone>>,
    forward: Arc<RwLock<Forward>>,
}

/// The node's name servers, and what asks them.
#[derive(Default)]
struct Forward {
    servers: Vec<IpAddr>,
    /// `None` where the node has no name servers.
    resolver: Option<Arc<TokioResolver>>,
}

/// What to send back.
struct Reply {
    code: ResponseCode,
    answers: Vec<Record>,
    authority: Option<Record>,
    ours: bool,
}

impl Handler {
    pub(crate) fn new(zone: Zone) -> Handler {
        Handler { zone: Arc::new(RwLock::new(zone)), forward: Arc::default() }
    }

    /// What is answered for the cluster.
    pub(crate) fn zone(&self) -> &RwLock<Zone> {
        &self.zone
    }

    /// Reads the servers to forward to; a missing or empty file means that there are none.
    pub(crate) fn forward_as(&self, resolv_conf: &Path) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let servers = name_servers(&std::fs::read_to_string(resolv_conf).unwrap_or_default());
        if self.forward.read().servers == servers {
            return Ok(());
        }
        let resolver = match servers.is_empty() {
            true => None,
            false => {
                let servers = servers.iter().copied().map(NameServerConfig::udp_and_tcp).collect();
                let config = ResolverConfig::from_parts(None, Vec::new(), servers);
                let builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
                Some(Arc::new(builder.build()?))
            }
        };
        *self.forward.write() = Forward { servers, resolver };
        Ok(())
    }

    async fn reply(&self, name: &LowerName, kind: RecordType) -> Reply {
        let (found, soa) = {
            let zone = self.zone.read();
            (zone.find(name, kind), zone.soa().clone())
        };
        match found {
            Found::Records(mut answers) => {
                if let Some(target) = answers.first().and_then(cname).filter(|_| kind != RecordType::CNAME) {
                    answers.extend(self.chase(target, kind).await);
                }
                let authority = answers.is_empty().then_some(soa);
                Reply { code: ResponseCode::NoError, answers, authority, ours: true }
            }
            Found::NoSuchName => {
                Reply { code: ResponseCode::NXDomain, answers: Vec::new(), authority: Some(soa), ours: true }
            }
            Found::Elsewhere => {
                let (code, answers) = self.ask_others(name.clone().into(), kind).await;
                Reply { code, answers, authority: None, ours: false }
            }
        }
    }

    /// The records behind a name that one of ours stands for: another of ours, or somebody else's.
    async fn chase(&self, target: Name, kind: RecordType) -> Vec<Record> {
        let found = self.zone.read().find(&LowerName::from(&target), kind);
        match found {
            Found::Records(records) => records,
            Found::NoSuchName => Vec::new(),
            Found::Elsewhere => self.ask_others(target, kind).await.1,
        }
    }

    async fn ask_others(&self, name: Name, kind: RecordType) -> (ResponseCode, Vec<Record>) {
        let resolver = self.forward.read().resolver.clone();
        let Some(forward) = resolver else { return (ResponseCode::ServFail, Vec::new()) };
        match forward.lookup(name, kind).await {
            Ok(lookup) => (ResponseCode::NoError, lookup.answers().to_vec()),
            Err(error) if error.is_nx_domain() => (ResponseCode::NXDomain, Vec::new()),
            Err(error) if error.is_no_records_found() => (ResponseCode::NoError, Vec::new()),
            Err(error) => {
                tracing::debug!(%error, "forwarding a question");
                (ResponseCode::ServFail, Vec::new())
            }
        }
    }
}

#[async_trait::async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(&self, request: &Request, mut responder: R) -> ResponseInfo {
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.recursion_available = true;
        let builder = MessageResponseBuilder::from_message_request(request);
        let reply = match request.request_info() {
            Ok(info) => self.reply(info.query.name(), info.query.query_type()).await,
            Err(_) => Reply { code: ResponseCode::FormErr, answers: Vec::new(), authority: None, ours: false },
        };
        metadata.response_code = reply.code;
        metadata.authoritative = reply.ours;
        let response = builder.build(metadata, &reply.answers, &[], &reply.authority, &[]);
        responder.send_response(response).await.unwrap_or_else(|error| {
            // The asker has gone, most likely.
            tracing::debug!(%error, "answering a question");
            Header { metadata, counts: HeaderCounts::default() }.into()
        })
    }
}

fn cname(record: &Record) -> Option<Name> {
    if let RData::CNAME(target) = &record.data { Some(target.0.clone()) } else { None }
}

/// The `nameserver` lines of a resolv.conf.
fn name_servers(text: &str) -> Vec<IpAddr> {
    let lines = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    lines.filter_map(|rest| rest.split_whitespace().next()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_are_read() {
        let text = "# a comment\nsearch a b\nnameserver 192.0.2.1\n nameserver\t2001:db8::1 # x\nnameserver nonsense\n";
        let found: Vec<String> = name_servers(text).iter().map(|ip| ip.to_string()).collect();
        assert_eq!(found, ["192.0.2.1", "2001:db8::1"]);
    }
}
