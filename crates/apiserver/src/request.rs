//! What a request is about: its path, its query and its verb. Upstream: apiserver pkg/endpoints/request.

use std::borrow::Cow;

use apimachinery::Status;
use http::Method;

/// A request taken apart; knows neither resources that exist nor who asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RequestInfo {
    pub path: String,
    /// Whether the path names a resource; else it is discovery, health or the like.
    pub is_resource: bool,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`; the lower-case method otherwise.
    pub verb: String,
    pub group: String,
    pub version: String,
    /// For requests about a namespace, its name.
    pub namespace: String,
    pub resource: String,
    pub subresource: String,
    pub name: String,
    /// What follows the subresource: the path of a proxy.
    pub rest: String,
}

/// Decoded query parameters, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Query(Vec<(String, String)>);

impl RequestInfo {
    /// Takes a request apart; `target` is path and query.
    pub(crate) fn parse(method: &Method, target: &str) -> (RequestInfo, Query) {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let query = Query::parse(query);
        let mut info =
            RequestInfo { path: path.to_owned(), verb: method.as_str().to_lowercase(), ..Default::default() };
        let parts: Vec<Cow<'_, str>> = path.split('/').filter(|part| !part.is_empty()).map(decoded).collect();
        let mut parts = parts.iter().map(|part| &**part);
        match parts.next() {
            Some("api") => {}
            Some("apis") => match parts.next() {
                Some(group) => info.group = group.to_owned(),
                None => return (info, query),
            },
            _ => return (info, query),
        }
        let Some(version) = parts.next() else { return (info, query) };
        info.version = version.to_owned();
        let mut parts: Vec<&str> = parts.collect();
        if parts.is_empty() {
            return (info, query);
        }
        info.is_resource = true;
        let watch_prefix = parts[0] == "watch" && parts.len() > 1;
        if watch_prefix {
            parts.remove(0);
        }
        info.read_resource(&parts);
        info.verb = verb(method, &info, &query, watch_prefix);
        if info.name.is_empty() && matches!(&*info.verb, "list" | "watch" | "deletecollection") {
            let selector = apimachinery::FieldSelector::parse(query.get("fieldSelector")).unwrap_or_default();
            info.name = selector.exact("metadata.name").unwrap_or_default().to_owned();
        }
        (info, query)
    }

    fn read_resource(&mut self, parts: &[&str]) {
        let parts = match parts {
            ["namespaces", namespace, rest @ ..] => {
                self.namespace = (*namespace).to_owned();
                match rest {
                    [] | ["status" | "finalize", ..] => parts,
                    rest => rest,
                }
            }
            parts => parts,
        };
        let mut parts = parts.iter();
        let mut next = || parts.next().copied().unwrap_or_default().to_owned();
        self.resource = next();
        self.name = next();
        self.subresource = next();
        self.rest = parts.copied().collect::<Vec<_>>().join("/");
    }

    /// Whether the request lasts as long as its client likes.
    pub(crate) fn is_long_running(&self) -> bool {
        self.verb == "watch" || matches!(&*self.subresource, "attach" | "exec" | "log" | "portforward" | "proxy")
    }
}

fn verb(method: &Method, info: &RequestInfo, query: &Query, watch_prefix: bool) -> String {
    let one = !info.name.is_empty();
    let watching = watch_prefix || query.flag("watch").unwrap_or_default();
    match (method.as_str(), one) {
        ("GET" | "HEAD", _) if watch_prefix => "watch",
        ("GET" | "HEAD", true) => "get",
        ("GET" | "HEAD", false) if watching => "watch",
        ("GET" | "HEAD", false) => "list",
        ("POST", _) => "create",
        ("PUT", _) => "update",
        ("PATCH", _) => "patch",
        ("DELETE", true) => "delete",
        ("DELETE", false) => "deletecollection",
        _ => "",
    }
    .to_owned()
}

impl Query {
    pub(crate) fn parse(text: &str) -> Query {
        let pairs = text.split('&').filter(|pair| !pair.is_empty());
        Query(
            pairs
                .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
                .map(|(k, v)| (decode_plus(k), decode_plus(v)))
                .collect(),
        )
    }

    /// The first value; empty when there is none.
    pub(crate) fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str()).unwrap_or_default()
    }

    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        self.0.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str()).collect()
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(key, _)| key == name)
    }

    /// A boolean as upstream reads them: present and neither `false` nor `0`.
    pub(crate) fn flag(&self, name: &str) -> Result<bool, Status> {
        Ok(self.has(name) && !matches!(&*self.get(name).to_ascii_lowercase(), "false" | "0"))
    }

    pub(crate) fn number(&self, name: &str) -> Result<Option<i64>, Status> {
        match self.get(name) {
            "" => Ok(None),
            text => text
                .parse()
                .map(Some)
                .map_err(|_| Status::bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax"))),
        }
    }
}

/// Undoes percent encoding, of which most texts have none.
fn decoded(text: &str) -> Cow<'_, str> {
    if text.contains('%') { Cow::Owned(decode(text)) } else { Cow::Borrowed(text) }
}

/// Undoes percent encoding; what is not UTF-8 afterwards is replaced.
pub(crate) fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        match (first, tail) {
            (b'%', [high, low, after @ ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                let digit = |c: u8| (c as char).to_digit(16).unwrap_or_default() as u8;
                bytes.push(digit(*high) << 4 | digit(*low));
                rest = after;
            }
            (byte, _) => {
                bytes.push(*byte);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

fn decode_plus(text: &str) -> String {
    if text.contains('+') { decode(&text.replace('+', " ")) } else { decoded(text).into_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_taken_apart() {
        let check = |method: Method, target: &str, expect: &str| {
            let (info, _) = RequestInfo::parse(&method, target);
            let shown = if info.is_resource {
                format!(
                    "{} {}/{} ns={} {}/{}/{}/{}",
                    info.verb,
                    info.group,
                    info.version,
                    info.namespace,
                    info.resource,
                    info.name,
                    info.subresource,
                    info.rest
                )
            } else {
                format!("{} {}", info.verb, info.path)
            };
            assert_eq!(shown, expect, "{target}");
        };
        check(Method::GET, "/api/v1/pods", "list /v1 ns= pods///");
        check(Method::GET, "/api/v1/namespaces/a/pods?watch=1", "watch /v1 ns=a pods///");
        check(
            Method::GET,
            "/api/v1/namespaces/a/pods?watch=true&fieldSelector=metadata.name%3Dx",
            "watch /v1 ns=a pods/x//",
        );
        check(Method::GET, "/api/v1/namespaces/a", "get /v1 ns=a namespaces/a//");
        check(Method::PUT, "/api/v1/namespaces/a/finalize", "update /v1 ns=a namespaces/a/finalize/");
        check(Method::GET, "/apis/apps/v1/namespaces/a/deployments/d/scale", "get apps/v1 ns=a deployments/d/scale/");
        check(Method::DELETE, "/apis/apps/v1/namespaces/a/deployments", "deletecollection apps/v1 ns=a deployments///");
        check(Method::GET, "/api/v1/nodes/n/proxy/a/b", "get /v1 ns= nodes/n/proxy/a/b");
        check(Method::GET, "/api/v1/watch/namespaces/a/pods", "watch /v1 ns=a pods///");
        check(Method::GET, "/apis/apps/v1", "get /apis/apps/v1");
        check(Method::GET, "/healthz", "get /healthz");
    }

    #[test]
    fn queries_are_decoded() {
        let query = Query::parse("labelSelector=app%3Dweb+x&limit=5&dryRun=All&dryRun=x&watch");
        assert_eq!(query.get("labelSelector"), "app=web x");
        assert_eq!(query.number("limit"), Ok(Some(5)));
        assert_eq!(query.all("dryRun"), ["All", "x"]);
        assert_eq!(query.flag("watch"), Ok(true));
        assert!(Query::parse("limit=x").number("limit").is_err());
    }
}
