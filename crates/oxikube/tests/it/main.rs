//! Whole clusters, driven by the commands and the real kubectl as a person drives them.

mod apply;
mod autoscaling;
mod claims;
mod clients;
mod commands;
mod crash;
mod devices;
mod dns;
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
mod survey;
mod tutorial;
