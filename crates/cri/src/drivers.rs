//! How drivers of devices make themselves known to a kubelet, and what it asks of them.

mod held;

use std::future::Future;
use std::io;
use std::path::Path;

use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::client::Grpc;
use tonic::transport::{self, Channel};
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

/// The messages, clients and server traits of `pluginregistration`.
#[allow(missing_docs, clippy::all)]
pub mod registration {
    tonic::include_proto!("pluginregistration");
}

/// The messages, clients and server traits of `k8s.io.kubelet.pkg.apis.dra.v1`.
#[allow(missing_docs, clippy::all)]
pub mod dra {
    tonic::include_proto!("k8s.io.kubelet.pkg.apis.dra.v1");
}

/// A version of the service, whose messages all versions share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    V1,
    V1beta1,
}

impl Service {
    /// The service that a driver names so.
    pub fn named(name: &str) -> Option<Service> {
        match name {
            "v1.DRAPlugin" => Some(Service::V1),
            "v1beta1.DRAPlugin" => Some(Service::V1beta1),
            _ => None,
        }
    }

    fn prepare(self) -> PathAndQuery {
        PathAndQuery::from_static(match self {
            Service::V1 => "/k8s.io.kubelet.pkg.apis.dra.v1.DRAPlugin/NodePrepareResources",
            Service::V1beta1 => "/k8s.io.kubelet.pkg.apis.dra.v1beta1.DRAPlugin/NodePrepareResources",
        })
    }

    fn unprepare(self) -> PathAndQuery {
        PathAndQuery::from_static(match self {
            Service::V1 => "/k8s.io.kubelet.pkg.apis.dra.v1.DRAPlugin/NodeUnprepareResources",
            Service::V1beta1 => "/k8s.io.kubelet.pkg.apis.dra.v1beta1.DRAPlugin/NodeUnprepareResources",
        })
    }
}

/// A driver; clones share the connection, which is made when it is first needed and again after a loss.
#[derive(Clone, Debug)]
pub struct Driver {
    service: Service,
    channel: Channel,
}

impl Driver {
    /// The driver behind the socket; needs to be called within a tokio runtime.
    pub fn at(socket: &Path, service: Service) -> Driver {
        Driver { service, channel: crate::channel(socket.to_path_buf()) }
    }

    /// Connects at once; the future that comes with the driver is ready when this connection has ended. A call after that makes another one.
    pub async fn connect(
        socket: &Path,
        service: Service,
    ) -> Result<(Driver, impl Future<Output = ()> + Send + use<>), transport::Error> {
        let (mut holder, ended) = held::pair();
        let socket = socket.to_path_buf();
        let connector = tower::service_fn(move |_| {
            let (socket, holder) = (socket.clone(), holder.take());
            async move { Ok::<_, io::Error>(TokioIo::new(held::Held::new(UnixStream::connect(socket).await?, holder))) }
        });
        let channel = crate::endpoint().connect_with_connector(connector).await?;
        Ok((Driver { service, channel }, ended))
    }

    /// Makes the claims' devices ready for containers.
    pub async fn prepare(&self, claims: Vec<dra::Claim>) -> Result<dra::NodePrepareResourcesResponse, Status> {
        self.call(dra::NodePrepareResourcesRequest { claims }, self.service.prepare()).await
    }

    /// Takes back what [`Driver::prepare`] did.
    pub async fn unprepare(&self, claims: Vec<dra::Claim>) -> Result<dra::NodeUnprepareResourcesResponse, Status> {
        self.call(dra::NodeUnprepareResourcesRequest { claims }, self.service.unprepare()).await
    }

    fn call<A, B>(&self, request: A, path: PathAndQuery) -> impl Future<Output = Result<B, Status>> + Send + use<A, B>
    where
        A: prost::Message + 'static,
        B: prost::Message + Default + 'static,
    {
        let mut grpc = Grpc::new(self.channel.clone());
        async move {
            grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
            let codec = ProstCodec::<A, B>::default();
            Ok(grpc.unary(Request::new(request), path, codec).await?.into_inner())
        }
    }
}

/// The registering end of a driver.
pub fn registering(socket: &Path) -> registration::registration_client::RegistrationClient<Channel> {
    registration::registration_client::RegistrationClient::new(crate::channel(socket.to_path_buf()))
}
