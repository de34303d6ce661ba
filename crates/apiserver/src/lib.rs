//! The API server: turns an HTTP request into an authorised, admitted store operation.

mod registry;
mod request;
pub mod strategy;
