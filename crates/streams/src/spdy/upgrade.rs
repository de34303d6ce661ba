//! How a request becomes a SPDY connection. Upstream: apimachinery pkg/util/httpstream Handshake, spdy/upgrade.go.

use std::io;

use env::Env;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::Connection;

/// What `Upgrade` asks for.
pub const NAME: &str = "SPDY/3.1";
/// The protocol that is spoken on the streams: the client's wishes, the server's choice.
pub static PROTOCOL_VERSION: HeaderName = HeaderName::from_static("x-stream-protocol-version");
static ACCEPTED_VERSIONS: HeaderName = HeaderName::from_static("x-accepted-stream-protocol-versions");

/// A request that asked for SPDY, and what it is answered.
pub struct Upgrade {
    /// The 101 to send; the rest happens on the connection afterwards.
    pub response: Response<()>,
    /// What both sides speak on the streams.
    pub protocol: &'static str,
    on_upgrade: OnUpgrade,
}

/// Why a request is not upgraded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Handshake {
    #[error("unable to upgrade: missing upgrade headers in request")]
    NotAsked,
    #[error("unable to upgrade: header X-Stream-Protocol-Version does not exist in request with {0} headers")]
    NoProtocol(usize),
    #[error("unable to upgrade: unable to negotiate protocol: client supports [{}], server accepts [{}]", .asked.join(" "), .accepted.join(" "))]
    Protocol { asked: Vec<String>, accepted: Vec<&'static str> },
}

impl Handshake {
    /// The refusal to send.
    pub fn response(&self) -> Response<String> {
        let mut response = Response::new(format!("{self}\n"));
        *response.status_mut() = StatusCode::BAD_REQUEST;
        if let Handshake::Protocol { accepted, .. } = self {
            *response.status_mut() = StatusCode::FORBIDDEN;
            for protocol in accepted {
                response.headers_mut().append(&ACCEPTED_VERSIONS, HeaderValue::from_static(protocol));
            }
        }
        response
    }
}

/// Whether a request asks for SPDY.
pub fn is_upgrade(headers: &HeaderMap) -> bool {
    let says = |name: HeaderName, what: &str| {
        let mut values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
        values.any(|value| value.to_ascii_lowercase().contains(what))
    };
    says(header::CONNECTION, "upgrade") && says(header::UPGRADE, "spdy/3.1")
}

/// Prepares the answer to a request for SPDY in the first of the client's protocols that is `supported`.
pub fn upgrade<B>(request: &mut Request<B>, supported: &[&'static str]) -> Result<Upgrade, Handshake> {
    let headers = request.headers();
    let values = headers.get_all(&PROTOCOL_VERSION).into_iter().filter_map(|value| value.to_str().ok());
    let wanted = values.flat_map(|value| value.split(',')).map(str::trim).filter(|wanted| !wanted.is_empty());
    let asked: Vec<String> = wanted.map(str::to_owned).collect();
    if asked.is_empty() {
        return Err(Handshake::NoProtocol(headers.len()));
    }
    let known = |wanted: &String| supported.iter().copied().find(|supported| supported == wanted);
    let Some(protocol) = asked.iter().find_map(known) else {
        return Err(Handshake::Protocol { asked, accepted: supported.to_vec() });
    };
    if !is_upgrade(headers) {
        return Err(Handshake::NotAsked);
    }
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let answer = [(header::CONNECTION, "Upgrade"), (header::UPGRADE, NAME), (PROTOCOL_VERSION.clone(), protocol)];
    response.headers_mut().extend(answer.map(|(name, value)| (name, HeaderValue::from_static(value))));
    Ok(Upgrade { response, protocol, on_upgrade: hyper::upgrade::on(request) })
}

impl Upgrade {
    /// The connection, once the response has been sent.
    pub async fn connection(self, env: &Env) -> io::Result<Connection> {
        let upgraded = self.on_upgrade.await.map_err(io::Error::other)?;
        Ok(Connection::server(env, TokioIo::new(upgraded)))
    }
}
