//! The in-process edge: no TLS and no credentials, but the same authorisation and admission as for anyone.

use std::sync::Arc;

use apimachinery::Status;
use client::{Response, Transport, TransportError};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::body::MAX_BYTES;
use crate::identity::UserInfo;
use crate::server::{Credentials, Inbound, Server};

/// A transport into the server of this process, as the user that the binary vouches for.
#[derive(Clone)]
pub struct Local {
    server: Server,
    user: Arc<UserInfo>,
}

impl Local {
    pub(crate) fn new(server: Server, user: UserInfo) -> Local {
        Local { server, user: Arc::new(user) }
    }
}

impl Transport for Local {
    fn send(&self, request: client::Request) -> BoxFuture<'static, Result<Response, TransportError>> {
        let server = self.server.clone();
        let body = match request.body {
            body if body.len() > MAX_BYTES => Err(Status::too_large(format!("limit is {MAX_BYTES}"))),
            body => Ok(body),
        };
        let inbound = Inbound {
            method: request.method,
            target: request.target,
            headers: request.headers,
            body: std::future::ready(body).boxed(),
            credentials: Credentials::Local(self.user.clone()),
            upgrade: None,
        };
        async move {
            if server.inner().registry.is_stopping() {
                return Err(TransportError::Stopping);
            }
            Ok(server.handle(inbound).await.into())
        }
        .boxed()
    }

    fn shares_objects(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use env::Env;
    use http::{HeaderMap, Method};

    use super::*;
    use crate::answer::{Answer, Content};
    use crate::{Config, Settings};

    /// What is rare has room of its own, taken when it is needed.
    const LARGE: usize = 12 << 10;
    const MAPS: &str = "/api/v1/namespaces/default/configmaps";

    /// Has a server answer one request.
    async fn asked(method: Method, target: &str, body: BoxFuture<'static, Result<Bytes, Status>>) -> (Local, Answer) {
        let folder = tempfile::tempdir().unwrap();
        let env = Env::system();
        let config = Config {
            env: env.clone(),
            store: store::Embedded::in_memory(&env).unwrap(),
            pki: Arc::new(pki::ClusterPki::load_or_create(folder.path(), &env).unwrap()),
            bind: vec!["127.0.0.1:0".parse().unwrap()],
            names: Vec::new(),
            settings: Settings::new("192.0.2.1".parse().unwrap()),
        };
        let server = crate::build(config).await.unwrap();
        let local = server.local(UserInfo::authenticated("admin", &["system:masters"]));
        let mut ready = server.ready();
        let _task = Aborted(env.spawn(async move { server.run(std::future::pending()).await }));
        ready.wait_for(|ready| *ready).await.unwrap();
        let inbound = Inbound {
            method,
            target: target.to_owned(),
            headers: HeaderMap::new(),
            body,
            credentials: Credentials::Local(local.user.clone()),
            upgrade: None,
        };
        let answering = local.server.handle(inbound);
        assert!(size_of_val(&answering) < LARGE, "every request takes {} bytes", size_of_val(&answering));
        let answer = answering.await;
        // The server lives whatever became of that.
        let get = client::Request {
            method: Method::GET,
            target: MAPS.to_owned(),
            headers: HeaderMap::new(),
            body: Default::default(),
        };
        assert_eq!(local.send(get).await.unwrap().code, 200);
        (local, answer)
    }

    struct Aborted(tokio::task::JoinHandle<std::io::Result<()>>);

    impl Drop for Aborted {
        fn drop(&mut self) {
            self.0.abort();
        }
    }

    fn status(answer: Answer) -> (u16, String, String) {
        match answer.content {
            Content::Status(status) => (answer.code.as_u16(), status.reason.as_str().to_owned(), status.message),
            _ => panic!("no status"),
        }
    }

    #[tokio::test]
    async fn a_panic_is_an_answer() {
        let (_, answer) = asked(Method::POST, MAPS, async { panic!("as tests do") }.boxed()).await;
        let (code, reason, message) = status(answer);
        assert_eq!((code, reason.as_str()), (500, "InternalError"));
        assert!(message.contains("This request caused apiserver to panic. Look in the logs for details."), "{message}");
    }

    #[tokio::test]
    async fn a_request_has_its_time() {
        let never = || std::future::pending().boxed();
        let begun = Env::system().monotonic();
        let (_, answer) = asked(Method::POST, &format!("{MAPS}?timeout=100ms"), never()).await;
        let (code, reason, message) = status(answer);
        assert_eq!((code, reason.as_str()), (504, "Timeout"));
        assert!(message.contains("request did not complete within requested timeout"), "{message}");
        assert!(begun.elapsed() < Duration::from_secs(60));
        let (_, answer) = asked(Method::POST, &format!("{MAPS}?timeout=soon"), never()).await;
        let expect = r#"invalid timeout specified in the request URL - time: invalid duration "soon""#;
        assert_eq!(status(answer), (400, "BadRequest".to_owned(), expect.to_owned()));
    }
}
