//! Why a kubelet could not be built, or ended.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// What can go wrong with the kubelet as a whole; a pod's troubles are events and statuses.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot listen on {address}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("cannot make {}", path.display())]
    Folder { path: PathBuf, source: io::Error },
    #[error("the runtime's endpoint cannot be used")]
    Endpoint(#[from] cri::ConnectError),
    #[error("the server's TLS cannot be set up")]
    Tls(#[from] streams::TlsError),
    #[error("the clients' authority cannot be used")]
    Authority(#[from] pki::PkiError),
    #[error("the node has no address")]
    NoAddress,
    #[error("no control groups")]
    Cgroups(#[source] io::Error),
    #[error("the machine cannot be examined")]
    Machine(#[source] io::Error),
    #[error("serving failed")]
    Serve(#[source] io::Error),
    #[error("the runtime failed to {action}")]
    Runtime { action: &'static str, source: Box<tonic::Status> },
    #[error("pods cannot be cleaned up")]
    CleanUp(#[source] io::Error),
}

/// An error of the runtime, as upstream's components print it.
pub(crate) fn rpc_text(status: &tonic::Status) -> String {
    format!("rpc error: code = {} desc = {}", code_name(status.code()), status.message())
}

fn code_name(code: tonic::Code) -> &'static str {
    use tonic::Code;
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "Canceled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}
