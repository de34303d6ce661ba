//! gRPC's health service, as a client. Upstream: pkg/probe/grpc.

use std::time::Duration;

use env::Env;
use tonic::Code;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Endpoint;

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckResponse {
    #[prost(enumeration = "ServingStatus", tag = "1")]
    status: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
enum ServingStatus {
    Unknown = 0,
    Serving = 1,
    NotServing = 2,
    ServiceUnknown = 3,
}

impl ServingStatus {
    fn word(self) -> &'static str {
        match self {
            ServingStatus::Unknown => "UNKNOWN",
            ServingStatus::Serving => "SERVING",
            ServingStatus::NotServing => "NOT_SERVING",
            ServingStatus::ServiceUnknown => "SERVICE_UNKNOWN",
        }
    }
}

/// Whether the service says that it serves.
pub(super) async fn check(env: &Env, host: &str, port: i32, service: String, limit: Duration) -> Result<(), String> {
    let authority = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let late = || {
        format!(
            "timeout: failed to connect service {authority:?} within {}s: context deadline exceeded",
            limit.as_secs()
        )
    };
    let call = async {
        let endpoint = Endpoint::from_shared(format!("http://{authority}")).map_err(|error| error.to_string())?;
        let endpoint = endpoint.user_agent("kube-probe/1.35").map_err(|error| error.to_string())?;
        let channel = endpoint.connect().await.map_err(|error| {
            let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            format!("error: health rpc probe failed: {source}")
        })?;
        let mut client = tonic::client::Grpc::new(channel);
        client.ready().await.map_err(|error| error.to_string())?;
        let path = PathAndQuery::from_static("/grpc.health.v1.Health/Check");
        let codec = tonic_prost::ProstCodec::<HealthCheckRequest, HealthCheckResponse>::default();
        let answer = client.unary(tonic::Request::new(HealthCheckRequest { service }), path, codec).await;
        let answer = answer.map_err(|status| match status.code() {
            Code::Unimplemented => {
                format!(
                    "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {}",
                    status.message()
                )
            }
            _ => format!("error: health rpc probe failed: {}", crate::error::rpc_text(&status)),
        })?;
        match answer.into_inner().status() {
            ServingStatus::Serving => Ok(()),
            other => Err(format!("service unhealthy (responded with {:?})", other.word())),
        }
    };
    env.timeout(limit, call).await.unwrap_or_else(|| Err(late()))
}
