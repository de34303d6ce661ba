//! A small HTTP client for probes and hooks. Upstream: pkg/probe/http.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use env::Env;
use http::header::{ACCEPT, CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, LOCATION, USER_AGENT};
use http::{Request, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::HTTPGetAction;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use super::check::connect;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    secure: bool,
    host: String,
    port: u16,
    /// Path and query.
    path: String,
    headers: Vec<(String, String)>,
}

/// What was answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) body: String,
}

/// Redirects to the same host that are followed.
const MAX_REDIRECTS: usize = 10;
const LONGEST: usize = 10 * 1024;

impl Target {
    pub(crate) fn new(get: &HTTPGetAction, host: &str, port: u16) -> Target {
        let path = get.path.as_deref().unwrap_or_default();
        let headers = get.http_headers.iter().flatten().map(|header| (header.name.clone(), header.value.clone()));
        Target {
            secure: get.scheme.as_deref().is_some_and(|scheme| scheme.eq_ignore_ascii_case("https")),
            host: host.to_owned(),
            port,
            path: if path.starts_with('/') { path.to_owned() } else { format!("/{path}") },
            headers: headers.collect(),
        }
    }

    fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    fn url(&self) -> String {
        format!("{}://{}{}", if self.secure { "https" } else { "http" }, self.authority(), self.path)
    }

    /// Where a redirect leads, if it stays on the host.
    fn redirected(&self, location: &str) -> Option<Target> {
        if location.starts_with('/') && !location.starts_with("//") {
            return Some(Target { path: location.to_owned(), ..self.clone() });
        }
        let uri: Uri = location.parse().ok()?;
        let secure = uri.scheme_str()? == "https";
        let host = uri.host()?.trim_matches(['[', ']']);
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        (host == self.host).then(|| Target { secure, port, path, ..self.clone() })
    }
}

/// Asks, following redirects; errors in upstream's words.
pub(crate) async fn get(env: &Env, target: &Target, agent: &str, limit: Duration) -> Result<Answer, String> {
    let failed = |error: String| format!("Get {:?}: {error}", target.url());
    let late = || failed("context deadline exceeded (Client.Timeout exceeded while awaiting headers)".to_owned());
    let follow = async {
        let mut target = target.clone();
        for _ in 0..=MAX_REDIRECTS {
            let (answer, location) = get_once(env, &target, agent, limit).await.map_err(failed)?;
            let next = location.filter(|_| (300..400).contains(&answer.code)).and_then(|to| target.redirected(&to));
            match next {
                Some(next) => target = next,
                None => return Ok(answer),
            }
        }
        Err(failed("stopped after 10 redirects".to_owned()))
    };
    env.timeout(limit, follow).await.unwrap_or_else(|| Err(late()))
}

async fn get_once(
    env: &Env,
    target: &Target,
    agent: &str,
    limit: Duration,
) -> Result<(Answer, Option<String>), String> {
    let stream = connect(env, &target.host, target.port, limit).await?;
    if !target.secure {
        return exchange(env, stream, target, agent).await;
    }
    let name = ServerName::try_from(target.host.clone()).map_err(|error| error.to_string())?;
    let connector = TlsConnector::from(trusting()?);
    let stream = connector.connect(name, stream).await.map_err(|error| error.to_string())?;
    exchange(env, stream, target, agent).await
}

async fn exchange(
    env: &Env,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    target: &Target,
    agent: &str,
) -> Result<(Answer, Option<String>), String> {
    let text = |error: hyper::Error| match std::error::Error::source(&error) {
        Some(source) => source.to_string(),
        None if error.is_incomplete_message() => "EOF".to_owned(),
        None => error.to_string(),
    };
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(text)?;
    let _connection = client::TaskGuard::new(env.spawn(async move {
        // What goes wrong with it, the request tells.
        let _ = connection.await;
    }));
    let mut request = Request::get(&target.path).body(Empty::<Bytes>::new()).map_err(|error| error.to_string())?;
    *request.headers_mut() = headers(target, agent);
    let answer = sender.send_request(request).await.map_err(text)?;
    let location = answer.headers().get(LOCATION).and_then(|to| to.to_str().ok()).map(str::to_owned);
    let code = answer.status().as_u16();
    // A longer body is cut; whether it arrives at all does not matter.
    let body = Limited::new(answer.into_body(), LONGEST).collect().await;
    let body = body.map(|body| String::from_utf8_lossy(&body.to_bytes()).into_owned()).unwrap_or_default();
    Ok((Answer { code, body }, location))
}

fn headers(target: &Target, agent: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let own = [
        (HOST, target.authority()),
        (USER_AGENT, agent.to_owned()),
        (ACCEPT, "*/*".to_owned()),
        (CONNECTION, "close".to_owned()),
    ];
    for (name, value) in own {
        headers.extend(HeaderValue::from_str(&value).ok().map(|value| (name, value)));
    }
    let mut given = HeaderMap::new();
    for (name, value) in &target.headers {
        let pair = (name.parse::<HeaderName>(), HeaderValue::from_str(value));
        if let (Ok(name), Ok(value)) = pair {
            // An empty Accept or User-Agent takes the usual one away.
            headers.remove(&name);
            if !(value.is_empty() && (name == ACCEPT || name == USER_AGENT)) {
                given.append(name, value);
            }
        }
    }
    headers.extend(given);
    headers
}

/// Probes trust any certificate, as upstream's do.
fn trusting() -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(pki::AnyServer(provider)))
        .with_no_client_auth();
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests;
