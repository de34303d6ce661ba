//! The API server: turns an HTTP request into an authorised, admitted store operation.

mod identity;
mod registry;
mod request;
pub mod strategy;

pub use identity::UserInfo;
