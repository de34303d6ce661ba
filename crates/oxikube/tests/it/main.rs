//! Whole clusters, driven by the commands and the real kubectl as a person drives them.

mod apply;
mod autoscaling;
mod claims;
mod clients;
mod commands;
mod crash;
mod devices;
mod dns;
#[allow(dead_code, reason = "the kubelet's own tests use more of it")]
#[path = "../../../kubelet/tests/it/fake_driver.rs"]
mod fake_driver;
mod full_disk;
mod helm;
mod identity;
mod jobs;
mod kubectl;
mod life;
mod lossless;
mod path;
mod pods;
mod renewal;
mod scheduling;
mod sets;
mod streams;
mod support;
mod tutorial;
