//! The API server: turns an HTTP request into an authorised, admitted store operation.

pub mod strategy;
