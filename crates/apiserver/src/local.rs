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
}
