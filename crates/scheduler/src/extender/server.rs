//! How an extender is reached: HTTP or HTTPS, with certificates from the configuration. Upstream: extender.go makeTransport, send.

use std::time::Duration;

use base64::Engine;
use bytes::{Bytes, BytesMut};
use client::{Body, Request, Response, Tls, TlsConfig, Transport, TransportError};
use env::Env;
use futures_util::StreamExt;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Method, StatusCode};
use serde_json::Value;

use crate::config::fields::duration;
use crate::config::{ExtenderSpec, ExtenderTls};

/// How long an answer may take unless the configuration says otherwise.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Answers longer than this are refused.
const MAX_ANSWER: usize = 64 << 20;
/// Where a system keeps the authorities that it trusts.
const SYSTEM_ROOTS: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

pub(super) struct Server {
    env: Env,
    /// Without a slash at the end.
    url: String,
    timeout: Duration,
    transport: Tls,
}

/// What it takes to connect.
pub(super) fn access(spec: &ExtenderSpec) -> Result<TlsConfig, String> {
    let none = ExtenderTls::default();
    let tls = spec.tls_config.as_ref().unwrap_or(&none);
    let ca = given(&tls.ca_data, &tls.ca_file)?;
    let certificate = given(&tls.cert_data, &tls.cert_file)?;
    let key = given(&tls.key_data, &tls.key_file)?;
    // As upstream does it: HTTPS without an authority believes anybody.
    let insecure = tls.insecure || spec.enable_https && ca.is_none();
    if insecure && ca.is_some() {
        return Err("specifying a root certificates file with the insecure flag is not allowed".into());
    }
    let identity = match (certificate, key) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        _ => return Err("tls: both a certificate and its key are needed".into()),
    };
    let config = TlsConfig {
        server: spec.url_prefix.trim_end_matches('/').to_owned(),
        ca: match ca {
            Some(ca) => ca,
            None => SYSTEM_ROOTS.iter().find_map(|path| std::fs::read(path).ok()).unwrap_or_default(),
        },
        insecure,
        server_name: (!tls.server_name.is_empty()).then(|| tls.server_name.clone()),
        identity,
        token: None,
    };
    // What is no certificate is told now, also of a server without TLS.
    let probe = TlsConfig { server: "https://localhost".into(), ..config.clone() };
    let unused = spec.tls_config.is_none() && !spec.enable_https && !config.server.starts_with("https:");
    if !unused {
        Tls::new(Env::system(), &probe).map_err(|error| match error {
            client::TlsError::NoAuthority => {
                "unable to load root certificates: unable to parse bytes as PEM block".to_owned()
            }
            error => chain(&error),
        })?;
    }
    Ok(config)
}

/// Data as base64, or else the file's content; `None`: neither is given.
fn given(data: &str, file: &str) -> Result<Option<Vec<u8>>, String> {
    if !data.is_empty() {
        let decoded = base64::engine::general_purpose::STANDARD.decode(data);
        return decoded.map(Some).map_err(|error| error.to_string());
    }
    if file.is_empty() {
        return Ok(None);
    }
    let missing = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => format!("open {file}: no such file or directory"),
        _ => format!("open {file}: {error}"),
    };
    std::fs::read(file).map(Some).map_err(missing)
}

impl Server {
    pub fn new(env: Env, spec: &ExtenderSpec) -> Result<Server, String> {
        let config = access(spec)?;
        let timeout = duration(&spec.http_timeout).filter(|timeout| !timeout.is_zero()).unwrap_or(TIMEOUT);
        let transport = Tls::new(env.clone(), &config).map_err(|error| chain(&error))?;
        Ok(Server { env, url: config.server, timeout, transport })
    }

    /// Posts `body` and returns what is answered.
    pub async fn ask(&self, verb: &str, body: &Value) -> Result<Value, String> {
        let url = format!("{}/{verb}", self.url);
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let body = Bytes::from(body.to_string());
        let request = Request { method: Method::POST, target: format!("/{verb}"), headers, body };
        let exchange = async {
            let answer =
                self.transport.send(request).await.map_err(|error| format!("Post {url:?}: {}", told(&error)))?;
            let code = answer.code;
            if code != StatusCode::OK {
                return Err(format!("failed {verb} with extender at URL {url}, code {}", code.as_u16()));
            }
            let bytes = collect(answer).await.map_err(|error| format!("Post {url:?}: {error}"))?;
            // Go's decoder reads one value and leaves the rest.
            let mut values = serde_json::Deserializer::from_slice(&bytes).into_iter::<Value>();
            values.next().unwrap_or(Ok(Value::Null)).map_err(|error| error.to_string())
        };
        let late =
            || Err(format!("Post {url:?}: context deadline exceeded (Client.Timeout exceeded while awaiting headers)"));
        self.env.timeout(self.timeout, exchange).await.unwrap_or_else(late)
    }
}

async fn collect(answer: Response) -> std::io::Result<Bytes> {
    let mut stream = match answer.body {
        Body::Stream(stream) => stream,
        Body::Bytes(bytes) => return Ok(bytes),
        _ => return Ok(Bytes::new()),
    };
    let mut all = BytesMut::new();
    while let Some(chunk) = stream.next().await {
        all.extend_from_slice(&chunk?);
        if all.len() > MAX_ANSWER {
            return Err(std::io::Error::other(format!("the answer has more than {MAX_ANSWER} bytes")));
        }
    }
    Ok(all.freeze())
}

/// What Go would say of it, where that is known.
fn told(error: &TransportError) -> String {
    let TransportError::Connect { server, source } = error else { return chain(error) };
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(source);
    while let Some(error) = cause {
        let io = error.downcast_ref::<std::io::Error>();
        if io.is_some_and(|io| io.kind() == std::io::ErrorKind::ConnectionRefused && io.raw_os_error().is_some()) {
            let address = server.split("//").nth(1).unwrap_or(server).split('/').next().unwrap_or_default();
            return format!("dial tcp {address}: connect: connection refused");
        }
        cause = match io.and_then(std::io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    chain(source)
}

/// An error and its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}
