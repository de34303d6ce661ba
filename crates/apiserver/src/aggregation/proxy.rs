//! Sends requests on to the servers behind this one. Upstream: kube-aggregator pkg/apiserver/handler_proxy.go.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::Status;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use http::header::{CONNECTION, HOST, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use http_body_util::{BodyExt, BodyStream, Full, Limited};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tracing::debug;

use super::Aggregation;
use super::resolve;
use super::route::{Route, Trust};
use crate::answer::{Answer, Content};
use crate::connect::{join_upgraded, passed_on};
use crate::identity::UserInfo;
use crate::server::Request;
use crate::strategy::Objects;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Documents of other servers that are read whole are no larger than this.
const MAX_DOCUMENT: usize = 32 << 20;
const USER: &str = "x-remote-user";
const UID: &str = "x-remote-uid";
const GROUPS: &str = "x-remote-group";
const EXTRA: &str = "x-remote-extra-";

/// Another server's answer, read whole.
pub(super) struct Document {
    pub code: u16,
    pub body: Bytes,
}

impl Aggregation {
    /// Sends the request on to whoever answers for its group version.
    pub(crate) async fn forward(
        &self,
        request: &Request<'_>,
        route: &Route,
        body: BoxFuture<'static, Result<Bytes, Status>>,
        upgrade: Option<hyper::upgrade::OnUpgrade>,
    ) -> Result<Answer, Status> {
        if !route.available {
            return Ok(unavailable("service unavailable"));
        }
        let wants_upgrade = request.headers.contains_key(UPGRADE);
        let reads = matches!(*request.method, Method::GET | Method::HEAD);
        let body = if reads || wants_upgrade { Bytes::new() } else { body.await? };
        let mut outgoing = http::Request::new(Full::new(body));
        *outgoing.method_mut() = request.method.clone();
        *outgoing.uri_mut() = request.target.parse().map_err(|_| Status::bad_request("the path is no path"))?;
        let headers = outgoing.headers_mut();
        *headers = passed_on(request.headers);
        if wants_upgrade {
            for name in [CONNECTION, UPGRADE] {
                headers.extend(request.headers.get_all(&name).iter().map(|value| (Some(name.clone()), value.clone())));
            }
        }
        identify(headers, &request.user);
        let endpoints = match resolve::endpoints(&*request.inner.registry, route) {
            Ok(endpoints) => endpoints,
            Err(_) => return Ok(unavailable("service unavailable")),
        };
        let told = |error: io::Error| Ok(unavailable(&format!("error trying to reach service: {error}")));
        let mut sender = match self.connect(route, &endpoints).await {
            Ok(sender) => sender,
            Err(error) => return told(error),
        };
        let mut response = match sender.send_request(addressed(outgoing, route)).await {
            Ok(response) => response,
            Err(error) => return told(io::Error::other(error)),
        };
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let Some(client) = upgrade else { return Err(Status::bad_request("Upgrade request required")) };
            let server = hyper::upgrade::on(&mut response);
            let mut answer = Answer::new(StatusCode::SWITCHING_PROTOCOLS, Content::Bytes(Bytes::new()));
            answer.headers = response.headers().clone();
            let speaks_frames = streams::remotecommand::is_upgrade(request.headers);
            self.env.spawn(join_upgraded(client, server, speaks_frames));
            return Ok(answer);
        }
        let (parts, incoming) = response.into_parts();
        let stream = BodyStream::new(incoming).filter_map(move |frame| {
            // The connection ends with the body.
            let _keep = &sender;
            let data = match frame {
                Ok(frame) => frame.into_data().ok().map(Ok),
                Err(error) => Some(Err(io::Error::other(error))),
            };
            std::future::ready(data)
        });
        Ok(Answer { code: parts.status, headers: passed_on(&parts.headers), content: Content::Stream(stream.boxed()) })
    }

    /// Reads a document of another server as the aggregator itself.
    pub(super) async fn read(
        &self,
        objects: &dyn Objects,
        route: &Route,
        path: &str,
        accept: &'static str,
    ) -> io::Result<Document> {
        let endpoints = resolve::endpoints(objects, route).map_err(|nowhere| io::Error::other(nowhere.message))?;
        let mut request = http::Request::get(path).body(Full::default()).map_err(io::Error::other)?;
        request.headers_mut().insert(http::header::ACCEPT, HeaderValue::from_static(accept));
        identify(request.headers_mut(), &UserInfo::authenticated("system:kube-aggregator", &["system:masters"]));
        let mut sender = self.connect(route, &endpoints).await?;
        let response = sender.send_request(addressed(request, route)).await.map_err(io::Error::other)?;
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, MAX_DOCUMENT).collect().await.map_err(io::Error::other)?.to_bytes();
        Ok(Document { code: parts.status.as_u16(), body })
    }

    /// A connection for one request, to any of the endpoints that is there.
    async fn connect(&self, route: &Route, endpoints: &[(String, u16)]) -> io::Result<SendRequest<Full<Bytes>>> {
        let config = self.client_config(&route.trust).map_err(|status| io::Error::other(status.message))?;
        let first = self.env.random_below(endpoints.len().max(1) as u64) as usize;
        let mut failure = io::Error::other("no endpoints");
        for at in 0..endpoints.len() {
            let (host, port) = &endpoints[(first + at) % endpoints.len()];
            let dial = async {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                stream.set_nodelay(true)?;
                let name = ServerName::try_from(route.host()).map_err(io::Error::other)?;
                TlsConnector::from(config.clone()).connect(name, stream).await
            };
            let stream = match self.env.timeout(CONNECT_TIMEOUT, dial).await {
                Some(Ok(stream)) => stream,
                Some(Err(error)) => {
                    failure = io::Error::new(error.kind(), format!("dial tcp {host}:{port}: {error}"));
                    continue;
                }
                None => {
                    failure = io::Error::other(format!("dial tcp {host}:{port}: i/o timeout"));
                    continue;
                }
            };
            let shaken = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
            let (sender, driver) = shaken.map_err(io::Error::other)?;
            self.env.spawn(async move {
                if let Err(error) = driver.with_upgrades().await {
                    debug!(%error, "a connection to an aggregated server ended");
                }
            });
            return Ok(sender);
        }
        Err(failure)
    }
}

/// Upstream answers in plain text.
fn unavailable(why: &str) -> Answer {
    Answer::text(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n"))
}

fn addressed(mut request: http::Request<Full<Bytes>>, route: &Route) -> http::Request<Full<Bytes>> {
    if let Ok(host) = HeaderValue::from_str(&format!("{}:{}", route.host(), route.port)) {
        request.headers_mut().insert(HOST, host);
    }
    request
}

/// Says who asks, as only the front proxy may.
fn identify(headers: &mut HeaderMap, user: &UserInfo) {
    let said: Vec<HeaderName> = headers.keys().filter(|name| name.as_str().starts_with("x-remote-")).cloned().collect();
    for name in said {
        headers.remove(name);
    }
    let mut add = |name: &str, value: &str| {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value)) {
            headers.append(name, value);
        }
    };
    add(USER, &user.name);
    if !user.uid.is_empty() {
        add(UID, &user.uid);
    }
    for group in &user.groups {
        add(GROUPS, group);
    }
    for (key, values) in &user.extra {
        for value in values {
            add(&format!("{EXTRA}{}", escape(key)), value);
        }
    }
}

/// Who a front proxy says asks; `None` if it says nobody. Upstream: apiserver pkg/authentication/request/headerrequest.
pub(crate) fn identified(headers: &HeaderMap) -> Option<UserInfo> {
    let texts = |name: &HeaderName| -> Vec<String> {
        headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).map(str::to_owned).collect()
    };
    let one = |name: &'static str| texts(&HeaderName::from_static(name)).into_iter().next().unwrap_or_default();
    let name = one(USER);
    if name.is_empty() {
        return None;
    }
    let extra = headers.keys().filter_map(|name| {
        let key = name.as_str().strip_prefix(EXTRA)?;
        Some((crate::request::decode(key), texts(name)))
    });
    let groups = texts(&HeaderName::from_static(GROUPS));
    Some(UserInfo { name, uid: one(UID), groups, extra: extra.collect() })
}

/// What cannot stand in the name of a header is percent-encoded.
fn escape(key: &str) -> String {
    let mut out = String::new();
    for byte in key.bytes() {
        match byte {
            b'%' => out.push_str("%25"),
            byte if byte.is_ascii_alphanumeric() || b"!#$&'*+-.^_`|~".contains(&byte) => out.push(byte as char),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

pub(super) fn client_config(trust: &Trust, leaf: &pki::Leaf) -> Result<Arc<ClientConfig>, Status> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(Status::internal)?;
    let builder = match trust {
        Trust::Anything => builder.dangerous().with_custom_certificate_verifier(Arc::new(pki::AnyServer(provider))),
        Trust::Bundle(bundle) => {
            let mut roots = RootCertStore::empty();
            for root in CertificateDer::pem_slice_iter(bundle) {
                let root = root.map_err(|error| Status::internal(format!("caBundle: {error}")))?;
                roots.add(root).map_err(Status::internal)?;
            }
            builder.with_root_certificates(roots)
        }
    };
    let (chain, key) = (leaf.chain().map_err(Status::internal)?, leaf.private_key().map_err(Status::internal)?);
    Ok(Arc::new(builder.with_client_auth_cert(chain, key).map_err(Status::internal)?))
}
