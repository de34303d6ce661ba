//! Turns an HTTP request into an authorised, admitted store operation.
