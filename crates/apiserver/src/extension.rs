//! Custom resources: kinds that CustomResourceDefinitions define. They go through the same registry as the built-in ones.
//!
//! A [`Definition`] is a stored CustomResourceDefinition, read and compiled once for each change of it; [`Instances`] is the
//! strategy of its objects; [`controller`] writes the conditions of definitions and clears up after deleted ones.

mod check;
mod check_schema;
pub(crate) mod controller;
mod definition;
mod instances;
mod jsonpath;
mod openapi;
mod rows;
mod rules;
mod schema;
mod simple_path;

pub(crate) use check::{canonical, check_create, check_update};
pub(crate) use controller::mark_for_deletion;
pub(crate) use definition::{Column, Definition, Scale, Version};
pub(crate) use instances::{Instances, decode};
pub(crate) use openapi::published;
pub(crate) use rows::Rows;
pub(crate) use schema::metadata_error;

/// Group and plural of definitions.
pub(crate) const DEFINITIONS: (&str, &str) = ("apiextensions.k8s.io", "customresourcedefinitions");
