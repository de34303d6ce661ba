//! Sends a script to a server.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use env::Env;
use http::Request;
use serde_json::Value;

use super::mask::Mask;
use super::wire::{Connection, Reply};
use super::{Answer, Script, Step, Who};

/// How long an effect may take that `@until` waits for.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(50);

/// A certificate and its key, PEM.
pub type Identity = (String, String);
/// Gives a user of a group a certificate.
type Issue<'a> = dyn Fn(&str, &str) -> io::Result<Identity> + 'a;

/// A server that serves, and how to be somebody there.
pub struct Server<'a> {
    pub env: Env,
    pub address: SocketAddr,
    /// The authority of its certificate, PEM.
    pub authority: String,
    /// A certificate for a user and a group.
    pub identity: Box<Issue<'a>>,
}

/// Sends every request of `script`, in a namespace of its own, and returns the masked answers in order.
pub async fn replay(server: &Server<'_>, script: &Script) -> io::Result<Vec<Answer>> {
    let mut session = Session {
        server,
        connections: BTreeMap::new(),
        captured: BTreeMap::from([("ns".to_owned(), format!("parity-{}", script.name))]),
        sent: String::new(),
    };
    session.prepare().await?;
    let mut answers = Vec::with_capacity(script.steps.len());
    for step in &script.steps {
        let answer = session.play(step).await;
        answers.push(answer.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", step.name)))?);
    }
    Ok(answers)
}

/// The code and the text of a `GET` by an administrator.
pub async fn get(server: &Server<'_>, path: &str) -> io::Result<(u16, String)> {
    let (certificate, key) = (server.identity)("kubernetes-admin", "system:masters")?;
    let shown = Some((certificate.as_str(), key.as_str()));
    let mut connection = Connection::open(&server.env, server.address, &server.authority, shown).await?;
    let request = Request::builder().uri(path).header("Host", server.address.to_string()).body(Bytes::new());
    let reply = connection.send(request.map_err(io::Error::other)?).await?;
    Ok((reply.code, String::from_utf8_lossy(&reply.body).into_owned()))
}

struct Session<'a> {
    server: &'a Server<'a>,
    connections: BTreeMap<Who, Connection>,
    captured: BTreeMap<String, String>,
    /// All that was sent: what stands there was not made up by the server.
    sent: String,
}

impl Session<'_> {
    /// The namespace and its default service account, which a controller would make.
    async fn prepare(&mut self) -> io::Result<()> {
        let account = "/api/v1/namespaces/${ns}/serviceaccounts";
        for (target, name) in [("/api/v1/namespaces", "${ns}"), (account, "default")] {
            let step = Step {
                name: "prepare".to_owned(),
                method: "POST".to_owned(),
                target: target.to_owned(),
                headers: vec![("Content-Type".to_owned(), "application/json".to_owned())],
                body: format!(r#"{{"metadata":{{"name":"{name}"}}}}"#),
                ..Step::default()
            };
            let answer = self.play(&step).await?;
            if answer.code != 201 {
                return Err(io::Error::other(format!("{target}: {} {}", answer.code, answer.body)));
            }
        }
        Ok(())
    }

    async fn play(&mut self, step: &Step) -> io::Result<Answer> {
        let target = self.filled(&step.target);
        let who = match &step.who {
            Who::User { name, group } => Who::User { name: self.filled(name), group: group.clone() },
            other => other.clone(),
        };
        let body = self.filled(&step.body);
        let headers: Vec<(String, String)> =
            step.headers.iter().map(|(key, value)| (key.clone(), self.filled(value))).collect();
        self.sent.push_str(&format!("{target}\n{headers:?}\n{body}\n"));
        let bytes: Bytes = match step.base64 {
            true => STANDARD.decode(body.replace(['\n', ' '], "")).map_err(io::Error::other)?.into(),
            false => body.into(),
        };
        let deadline = self.server.env.monotonic() + PATIENCE;
        let reply = loop {
            let mut request = Request::builder().method(step.method.as_str()).uri(&target);
            for (key, value) in &headers {
                request = request.header(key, value);
            }
            if !headers.iter().any(|(key, _)| key.eq_ignore_ascii_case("accept")) {
                request = request.header("Accept", "application/json");
            }
            let request = request.header("Host", self.server.address.to_string()).body(bytes.clone());
            let reply = self.connection(&who).await?.send(request.map_err(io::Error::other)?).await?;
            let done = step.until.is_none_or(|code| code == reply.code);
            if done || self.server.env.monotonic() >= deadline {
                break reply;
            }
            self.server.env.sleep(PAUSE).await;
        };
        let answer = self.read(reply);
        self.capture(step, &answer);
        Ok(Mask { captured: &self.captured, sent: &self.sent, server: self.server.address }.answer(answer))
    }

    async fn connection(&mut self, who: &Who) -> io::Result<&mut Connection> {
        let server = self.server;
        self.connections.retain(|_, connection| !connection.is_closed());
        match self.connections.entry(who.clone()) {
            Entry::Occupied(open) => Ok(open.into_mut()),
            Entry::Vacant(vacant) => {
                let identity = match who {
                    Who::Nobody => None,
                    Who::Admin => Some((server.identity)("kubernetes-admin", "system:masters")?),
                    Who::User { name, group } => Some((server.identity)(name, group)?),
                };
                let shown = identity.as_ref().map(|(certificate, key)| (certificate.as_str(), key.as_str()));
                let connection = Connection::open(&server.env, server.address, &server.authority, shown).await?;
                Ok(vacant.insert(connection))
            }
        }
    }

    fn filled(&self, text: &str) -> String {
        let fill = |text: String, (name, value): (&String, &String)| text.replace(&format!("${{{name}}}"), value);
        self.captured.iter().fold(text.to_owned(), fill)
    }

    fn read(&self, reply: Reply) -> Answer {
        let Reply { code, headers, body } = reply;
        let headers = headers.keys().map(|name| {
            let values: Vec<_> =
                headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
            (name.as_str().to_owned(), values.join("\n"))
        });
        let headers: BTreeMap<String, String> = headers.collect();
        let yaml = headers.get("content-type").is_some_and(|media| media.starts_with("application/yaml"));
        Answer { code, body: read_body(&body, yaml), headers }
    }

    fn capture(&mut self, step: &Step, answer: &Answer) {
        for (name, path) in &step.captures {
            let found = path.iter().try_fold(&answer.body, |value, key| match value {
                Value::Array(items) => items.get(key.parse::<usize>().ok()?),
                other => other.get(key),
            });
            let value = match found {
                Some(Value::String(text)) => text.clone(),
                Some(other) => other.to_string(),
                None => "nothing-captured".to_owned(),
            };
            self.captured.insert(name.clone(), value);
        }
    }
}

fn read_body(body: &[u8], yaml: bool) -> Value {
    if yaml {
        return serde_yaml_ng::from_slice(body).unwrap_or(Value::Null);
    }
    if let Ok(value) = serde_json::from_slice::<Value>(body) {
        // One event is a stream too.
        let event = value.get("type").is_some() && value.get("object").is_some();
        return if event { Value::Array(vec![value]) } else { value };
    }
    let events: Result<Vec<Value>, _> = serde_json::Deserializer::from_slice(body).into_iter().collect();
    match events {
        Ok(events) if !events.is_empty() => Value::Array(events),
        _ => match std::str::from_utf8(body) {
            Ok(text) => Value::String(text.to_owned()),
            Err(_) => Value::String("<bytes>".to_owned()),
        },
    }
}
