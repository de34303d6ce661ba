//! Probes and lifecycle handlers.

use apimachinery::Value;
use apimachinery::validation::http_header_name;

use super::super::field::{Errors, Path, Report, has, int, items, member, text};

/// Which of the three sorts of probe.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    Liveness,
    Readiness,
    Startup,
}

/// All probes and the lifecycle of a container that may have them.
pub(super) fn of_container(container: &Value, grace: Option<i64>, path: &Path<'_>, errors: &mut Errors) {
    if let Some(lifecycle) = member(container, "lifecycle") {
        let path = path.child("lifecycle");
        for key in ["postStart", "preStop"] {
            if let Some(value) = member(lifecycle, key) {
                handler(value, &["exec", "httpGet", "tcpSocket", "sleep"], grace, &path.child(key), errors);
            }
        }
    }
    for (key, sort) in
        [("livenessProbe", Sort::Liveness), ("readinessProbe", Sort::Readiness), ("startupProbe", Sort::Startup)]
    {
        if let Some(value) = member(container, key) {
            probe(value, sort, grace, &path.child(key), errors);
        }
    }
    if let Some(signal) = container.str_at(&["lifecycle", "stopSignal"]).filter(|signal| !signal.starts_with("SIG")) {
        let path = path.child("lifecycle");
        errors.invalid(&path.child("stopSignal"), signal, "must be a valid signal");
    }
}

fn probe(probe: &Value, sort: Sort, grace: Option<i64>, path: &Path<'_>, errors: &mut Errors) {
    handler(probe, &["exec", "httpGet", "tcpSocket", "grpc"], grace, path, errors);
    for key in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"] {
        errors.non_negative(path, probe, key);
    }
    let own_grace = probe.i64_at(&["terminationGracePeriodSeconds"]);
    if let Some(seconds) = own_grace.filter(|seconds| *seconds <= 0) {
        errors.invalid(&path.child("terminationGracePeriodSeconds"), seconds, "must be greater than 0");
    }
    match sort {
        Sort::Readiness => {
            if let Some(seconds) = own_grace {
                let why = "must not be set for readinessProbes";
                errors.invalid(&path.child("terminationGracePeriodSeconds"), seconds, why);
            }
        }
        Sort::Liveness | Sort::Startup if int(probe, "successThreshold") != 1 => {
            errors.invalid(&path.child("successThreshold"), int(probe, "successThreshold"), "must be 1");
        }
        Sort::Liveness | Sort::Startup => {}
    }
}

fn handler(handler: &Value, kinds: &[&str], grace: Option<i64>, path: &Path<'_>, errors: &mut Errors) {
    let mut found = false;
    for kind in kinds.iter().filter(|kind| has(handler, kind)) {
        let path = path.child(kind);
        if found {
            errors.forbidden(&path, "may not specify more than 1 handler type");
            continue;
        }
        found = true;
        let Some(action) = member(handler, kind) else { continue };
        match *kind {
            "exec" if items(action, "command").is_empty() => errors.required(&path.child("command"), ""),
            "exec" => {}
            "httpGet" => http(action, &path, errors),
            "sleep" => {
                let seconds = int(action, "seconds");
                if let Some(grace) = grace.filter(|grace| seconds < 0 || seconds > *grace) {
                    let why = format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
                    errors.invalid(&path, seconds, why);
                }
            }
            _ => errors.port_or_name(&path.child("port"), member(action, "port")),
        }
    }
    if !found {
        errors.required(path, "must specify a handler type");
    }
}

fn http(action: &Value, path: &Path<'_>, errors: &mut Errors) {
    errors.needs(path, action, "path");
    errors.port_or_name(&path.child("port"), member(action, "port"));
    errors.one_of(&path.child("scheme"), text(action, "scheme"), &["HTTP", "HTTPS"]);
    for header in items(action, "httpHeaders") {
        let name = text(header, "name");
        errors.problems(&path.child("httpHeaders"), name, http_header_name(name));
    }
}
