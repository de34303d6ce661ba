//! Answers that come through a proxy, made to lead through it again. Upstream: apimachinery pkg/util/proxy/transport.go.

use std::io::{Read, Write};

use apimachinery::Status;
use bytes::Bytes;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use futures_util::StreamExt;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, LOCATION};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::html;
use super::target::{Target, split_proxy};
use crate::answer::{Answer, Content};
use crate::server::Request;

/// Pages larger than this pass as they are.
const MAX_PAGE: usize = 8 << 20;
/// What a pod says of other sites is not what the API server says.
const CORS: [&str; 4] = [
    "access-control-allow-credentials",
    "access-control-allow-headers",
    "access-control-allow-methods",
    "access-control-allow-origin",
];

/// Rewrites what one request is answered.
pub(super) struct Rewriter {
    /// What leads to the proxied place: `/api/v1/namespaces/NS/pods/NAME/proxy`.
    prefix: String,
    /// The path within the proxied place.
    path: String,
    /// Whom we ask, and whom the client believes to ask.
    hosts: [String; 2],
}

/// A client that asks for the root without its slash would take relative links wrongly: it is sent there.
pub(super) fn to_root(target: &str) -> Option<Answer> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    if !split_proxy(path).1.is_empty() {
        return None;
    }
    let query = if query.is_empty() { String::new() } else { format!("?{query}") };
    let answer = Answer::new(StatusCode::MOVED_PERMANENTLY, Content::Bytes(Bytes::new()));
    Some(answer.with(LOCATION, &format!("{path}/{query}")))
}

impl Rewriter {
    pub(super) fn new(request: &Request<'_>, target: &Target) -> Rewriter {
        let path = request.target.split('?').next().unwrap_or_default();
        let (prefix, rest) = split_proxy(path);
        let asked = request.headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        Rewriter { prefix: prefix.to_owned(), path: rest.to_owned(), hosts: [target.authority(), asked.to_owned()] }
    }

    /// Tells the proxied server how it was reached.
    pub(super) fn announce(&self, headers: &mut HeaderMap) {
        if let Ok(uri) = HeaderValue::from_str(&format!("{}{}", self.prefix, self.path)) {
            headers.insert(HeaderName::from_static("x-forwarded-uri"), uri);
        }
    }

    pub(super) async fn rewrite(&self, mut answer: Answer) -> Result<Answer, Status> {
        for name in CORS {
            answer.headers.remove(name);
        }
        if let Some(location) = answer.headers.get(LOCATION).and_then(|value| value.to_str().ok()) {
            let location = self.url(location);
            return Ok(answer.with(LOCATION, &location));
        }
        let media = answer.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let is_page = media.split(';').next().is_some_and(|media| media.trim() == "text/html");
        let encoding = answer.headers.get(CONTENT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let packed = match encoding {
            "" => false,
            "gzip" => true,
            _ => return Ok(answer),
        };
        let Content::Stream(mut stream) = answer.content else { return Ok(answer) };
        if !is_page {
            answer.content = Content::Stream(stream);
            return Ok(answer);
        }
        let mut page = Vec::new();
        while let Some(chunk) = stream.next().await {
            page.extend_from_slice(&chunk.map_err(Status::internal)?);
            if page.len() > MAX_PAGE {
                let read = futures_util::stream::once(std::future::ready(Ok(Bytes::from(page))));
                answer.content = Content::Stream(read.chain(stream).boxed());
                return Ok(answer);
            }
        }
        answer.headers.remove(CONTENT_LENGTH);
        answer.content = Content::Bytes(self.page(page, packed).into());
        Ok(answer)
    }

    fn page(&self, page: Vec<u8>, packed: bool) -> Vec<u8> {
        if !packed {
            return html::rewrite(&page, |url| self.url(url));
        }
        let mut plain = Vec::new();
        let unpacked = GzDecoder::new(page.as_slice()).take(MAX_PAGE as u64).read_to_end(&mut plain);
        if unpacked.is_err() || plain.len() == MAX_PAGE {
            return page;
        }
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        let written = encoder.write_all(&html::rewrite(&plain, |url| self.url(url)));
        written.and_then(|()| encoder.finish()).unwrap_or(page)
    }

    /// A link to the proxied server leads through the proxy; others stay as they are.
    fn url(&self, url: &str) -> String {
        let (host, rest) = match url.split_once("://") {
            Some((scheme, rest)) if scheme.bytes().all(|byte| byte.is_ascii_alphanumeric()) => {
                rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()))
            }
            _ => match url.strip_prefix("//") {
                Some(rest) => rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len())),
                None => ("", url),
            },
        };
        if !rest.starts_with('/') || !host.is_empty() && !self.hosts.iter().any(|known| known == host) {
            return url.to_owned();
        }
        match rest.starts_with(&self.prefix) {
            true => rest.to_owned(),
            false => format!("{}{rest}", self.prefix),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lead_through_the_proxy() {
        let rewriter = Rewriter {
            prefix: "/api/v1/nodes/n/proxy".to_owned(),
            path: "/x".to_owned(),
            hosts: ["10.0.0.1:80".to_owned(), "localhost:8001".to_owned()],
        };
        let check = |url: &str, expect: &str| assert_eq!(rewriter.url(url), expect, "{url}");
        check("/a/b?c=d", "/api/v1/nodes/n/proxy/a/b?c=d");
        check("/", "/api/v1/nodes/n/proxy/");
        check("a/b", "a/b");
        check("", "");
        check("#top", "#top");
        check("http://10.0.0.1:80/a/", "/api/v1/nodes/n/proxy/a/");
        check("http://localhost:8001/a", "/api/v1/nodes/n/proxy/a");
        check("//localhost:8001/a", "/api/v1/nodes/n/proxy/a");
        check("https://example.org/a", "https://example.org/a");
        check("/api/v1/nodes/n/proxy/a", "/api/v1/nodes/n/proxy/a");
        check("mailto:a@b", "mailto:a@b");
        let page = br#"<a href="/x">/x</a>"#.to_vec();
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(&page).unwrap();
        let packed = rewriter.page(encoder.finish().unwrap(), true);
        let mut text = String::new();
        GzDecoder::new(packed.as_slice()).read_to_string(&mut text).unwrap();
        assert_eq!(text, r#"<a href="/api/v1/nodes/n/proxy/x">/x</a>"#);
    }

    #[test]
    fn the_root_has_a_slash() {
        let check = |target: &str, expect: Option<&str>| {
            let answer = to_root(target);
            let location = answer.as_ref().map(|answer| answer.headers[LOCATION].to_str().unwrap());
            assert_eq!(location, expect, "{target}");
        };
        check("/api/v1/nodes/n/proxy", Some("/api/v1/nodes/n/proxy/"));
        check("/api/v1/namespaces/a/pods/p/proxy?x=1", Some("/api/v1/namespaces/a/pods/p/proxy/?x=1"));
        check("/api/v1/namespaces/a/pods/p/proxy/", None);
        check("/api/v1/namespaces/a/pods/p/proxy/x", None);
    }
}
