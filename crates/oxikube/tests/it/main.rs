//! Whole clusters, driven by the commands and the real kubectl as a person drives them.

mod claims;
mod clients;
mod commands;
mod dns;
mod kubectl;
mod life;
mod lossless;
mod path;
mod pods;
mod renewal;
mod streams;
mod support;
