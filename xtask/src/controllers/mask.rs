//! What two runs cannot agree on, replaced: times, uids, addresses, random names, hashes.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::{Map, Value, json};

use super::scenario::Scenario;
use super::{requests, text};

/// The letters of random names and of hashes.
const LETTERS: &str = "bcdfghjklmnpqrstvwxz2456789";

pub struct Mask<'a> {
    /// What hashes of the namespace are called.
    pub hashes: &'a BTreeMap<String, String>,
    pub scenario: &'a Scenario,
}

impl Mask<'_> {
    /// All objects by kind and name, and events by what they tell.
    pub fn look(&self, objects: &[(&str, Value)]) -> Value {
        let mut seen: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        let mut events: BTreeMap<String, Value> = BTreeMap::new();
        for (kind, object) in objects {
            if *kind == "Event" {
                self.event(object, &mut events);
                continue;
            }
            let masked = self.object(kind, object.clone());
            seen.entry(format!("{kind}/{}", text(&masked, &["metadata", "name"]))).or_default().push(masked);
        }
        let mut all = Map::new();
        for (name, mut objects) in seen {
            if self.scenario.merged && name.starts_with("EndpointSlice/") {
                objects = merge(objects);
            }
            objects.sort_by_cached_key(Value::to_string);
            let several = objects.len() > 1;
            for (index, object) in objects.into_iter().enumerate() {
                all.insert(if several { format!("{name}#{index}") } else { name.clone() }, object);
            }
        }
        all.extend(events);
        all.into()
    }

    fn event(&self, event: &Value, events: &mut BTreeMap<String, Value>) {
        let component = text(event, &["source", "component"]);
        if component == "default-scheduler" {
            return;
        }
        let about = &event["involvedObject"];
        let message = self.text(text(event, &["message"]));
        let name = self.text(text(about, &["name"]));
        // From the tenth on they are combined; that shows in the count.
        let message = message.trim_start_matches("(combined from similar events): ");
        let key = format!("Event {}/{name} {}: {message}", text(about, &["kind"]), text(event, &["reason"]));
        let count = event["series"]["count"].as_i64().or(event["count"].as_i64()).unwrap_or(1);
        let entry = events.entry(key).or_insert_with(|| {
            json!({"type": event["type"], "component": component, "fieldPath": about["fieldPath"],
                "apiVersion": about["apiVersion"], "count": 0})
        });
        // How often something was tried that cannot succeed is chance, and beyond a few everything is.
        let reason = text(event, &["reason"]);
        let waits = matches!(
            reason,
            "WaitForFirstConsumer"
                | "ExternalProvisioning"
                | "FailedBinding"
                | "VolumeMismatch"
                | "ProvisioningFailed"
                | "FailedCreate"
                | "FailedResourceClaimCreation"
                | "FailedComputeMetricsReplicas"
                | "FailedGetScale"
                | "FailedAttachVolume"
                | "TaintManagerEviction"
                | "AmbiguousSelector"
                | "SelectorRequired"
                | "UnmanagedPods"
                | "CalculateExpectedPodCountFailed"
        );
        let waits = waits || reason.starts_with("FailedGet") && reason.ends_with("Metric");
        if waits {
            entry["count"] = "some".into();
            return;
        }
        entry["count"] = match &entry["count"] {
            Value::Number(so_far) if so_far.as_i64().unwrap_or(0) + count < 10 => {
                (so_far.as_i64().unwrap_or(0) + count).into()
            }
            _ => "many".into(),
        };
    }

    fn object(&self, kind: &str, mut object: Value) -> Value {
        if let Some(meta) = object["metadata"].as_object_mut() {
            let managed = meta.remove("managedFields");
            for gone in ["uid", "resourceVersion", "selfLink"] {
                meta.remove(gone);
            }
            // Into how many writes other changes are gathered is chance; who applies says the same each time.
            let applied = managed.iter().flat_map(|managed| managed.as_array().into_iter().flatten());
            let applied: Vec<Value> = applied.filter(|entry| entry["operation"] == "Apply").cloned().collect();
            if !applied.is_empty() {
                meta.insert("managedFields".to_owned(), applied.into());
            }
        }
        if ["Endpoints", "EndpointSlice"].contains(&kind)
            && let Some(meta) = object["metadata"].as_object_mut()
        {
            // Into how many writes changes are gathered is chance, and so whether the last one had a change of readiness in it.
            meta.remove("generation");
            let annotations = meta.get_mut("annotations").and_then(Value::as_object_mut);
            annotations.and_then(|annotations| annotations.remove("endpoints.kubernetes.io/last-change-trigger-time"));
            if meta.get("annotations").is_some_and(|annotations| annotations == &json!({})) {
                meta.remove("annotations");
            }
        }
        if kind == "Pod" && !self.scenario.places {
            for path in ["/spec/nodeName", "/status/hostIP", "/status/hostIPs"] {
                object.pointer_mut(path).into_iter().for_each(|value| *value = "<node>".into());
            }
        }
        if kind == "Secret" {
            let data = object["data"].as_object_mut().into_iter().flatten();
            data.filter(|(key, _)| *key != "namespace").for_each(|(_, value)| *value = "<secret>".into());
        }
        if kind == "CertificateSigningRequest" {
            object["spec"]["request"] = "<request>".into();
            object["spec"]["extra"] = "<certificate>".into();
            if let Some(certificate) = object["status"]["certificate"].as_str() {
                object["status"]["certificate"] = requests::told(certificate);
            }
        }
        if kind == "ConfigMap" && text(&object, &["metadata", "name"]) == "kube-root-ca.crt" {
            object["data"]["ca.crt"] = json!(object["data"]["ca.crt"].as_str().map(|pem| pem.contains("BEGIN")));
        }
        self.value("", object)
    }

    fn value(&self, key: &str, value: Value) -> Value {
        match value {
            Value::Object(mut members) => {
                // Whether the scheduler tried in vain before is chance, and that alone tells the generation.
                if key == "conditions" && members.get("type").is_some_and(|kind| kind == "PodScheduled") {
                    members.remove("observedGeneration");
                }
                let kept = members.into_iter().filter(|(key, _)| {
                    self.scenario.places
                        || !matches!(
                            key.as_str(),
                            "nodeName" | "zone" | "forNodes" | "topology.kubernetes.io/zone" | "matchFields"
                        )
                });
                kept.map(|(key, value)| (self.text(&key), self.value(&key, value)))
                    .collect::<BTreeMap<_, _>>()
                    .into_iter()
                    .collect::<Map<_, _>>()
                    .into()
            }
            Value::Array(items) => {
                let mut items: Vec<Value> = items.into_iter().map(|item| self.value(key, item)).collect();
                if matches!(
                    key,
                    "conditions"
                        | "ownerReferences"
                        | "finalizers"
                        | "endpoints"
                        | "addresses"
                        | "notReadyAddresses"
                        | "taints"
                        | "ports"
                        | "active"
                        | "subsets"
                        | "resourceClaimStatuses"
                ) {
                    items.sort_by_cached_key(|item| (text(item, &["type"]).to_owned(), item.to_string()));
                }
                Value::Array(items)
            }
            Value::Number(_) if key == "nodePort" => "<port>".into(),
            Value::String(text) => match key {
                "uid" | "resourceVersion" | "containerID" => "<uid>".into(),
                _ => self.text(&text).into(),
            },
            other => other,
        }
    }

    fn text(&self, text: &str) -> String {
        let mut out = String::new();
        // Other scenarios have nodes too.
        if let Some((count, rest)) = text.split_once(' ').filter(|(_, rest)| rest.starts_with("nodes are available: "))
        {
            let fit = count.split('/').next().unwrap_or_default();
            return format!("{fit}/<nodes> {}", self.text(rest));
        }
        // Upstream names them in any order.
        if let Some((said, names)) = text.split_once("are controlled by multiple HPAs: [") {
            let mut names: Vec<&str> = names.trim_end_matches(']').split(' ').collect();
            names.sort_unstable();
            return format!("{}are controlled by {}", self.text(said), names.join(" "));
        }
        // Words hang together by dashes; hashes and random ends are parts of them.
        let mut rest = text;
        while !rest.is_empty() {
            let word = rest.find(|c: char| !is_word(c)).unwrap_or(rest.len());
            out.push_str(&self.word(&rest[..word]));
            rest = &rest[word..];
            let other = rest.find(is_word).unwrap_or(rest.len());
            out.push_str(&rest[..other]);
            rest = &rest[other..];
        }
        out
    }

    /// A word with dashes, colons and dots in it.
    fn word(&self, word: &str) -> String {
        let trimmed = word.trim_end_matches(['.', ':', '-']);
        let end = &word[trimmed.len()..];
        if is_time(trimmed) {
            return format!("<time>{end}");
        }
        if is_uuid(trimmed) {
            return format!("<uid>{end}");
        }
        if is_address(trimmed) {
            return format!("<ip>{end}");
        }
        if self.scenario.alike
            && let Some(number) = trimmed.strip_prefix(&*self.scenario.name).and_then(|rest| rest.strip_prefix('-'))
            && number.bytes().all(|b| b.is_ascii_digit())
        {
            return format!("{}-#{end}", self.scenario.name);
        }
        let parts: Vec<String> = trimmed.split('-').enumerate().map(|(n, part)| self.part(part, n)).collect();
        format!("{}{end}", parts.join("-"))
    }

    fn part(&self, part: &str, n: usize) -> String {
        let (bare, dots) =
            part.split_once('.').map_or((part, ""), |_| part.split_at(part.find('.').unwrap_or(part.len())));
        if let Some(name) = self.hashes.get(bare) {
            return format!("{name}{dots}");
        }
        let random = |text: &str| text.chars().all(|c| LETTERS.contains(c));
        // Minutes since 1970, which CronJobs name their jobs after.
        if n > 0 && bare.len() == 8 && bare.bytes().all(|b| b.is_ascii_digit()) {
            return format!("<minute>{dots}");
        }
        if n > 0 && (5..=10).contains(&bare.len()) && bare.is_ascii() && random(bare) {
            return format!("*{dots}");
        }
        part.to_owned()
    }
}

/// All slices as one, without what depends on how endpoints are shared out.
fn merge(slices: Vec<Value>) -> Vec<Value> {
    let endpoints = slices.iter().flat_map(|slice| slice["endpoints"].as_array().into_iter().flatten().cloned());
    let mut endpoints: Vec<Value> = endpoints.collect();
    endpoints.sort_by_cached_key(Value::to_string);
    let mut merged = slices.into_iter().next().unwrap_or_default();
    merged["endpoints"] = endpoints.into();
    vec![merged]
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | ':')
}

/// A moment; what follows of its zone is a word of its own.
fn is_time(word: &str) -> bool {
    let bytes = word.as_bytes();
    bytes.len() >= 19 && bytes[4] == b'-' && bytes[10] == b'T' && bytes[13] == b':'
}

fn is_uuid(word: &str) -> bool {
    let parts: Vec<&str> = word.split('-').collect();
    parts.len() == 5 && word.len() == 36 && parts.iter().all(|part| part.bytes().all(|b| b.is_ascii_hexdigit()))
}

fn is_address(word: &str) -> bool {
    match word.parse() {
        Ok(IpAddr::V4(address)) => matches!(address.octets()[0], 10 | 192),
        Ok(IpAddr::V6(address)) => address.octets()[0] == 0xfd,
        Err(_) => false,
    }
}

/// Adds what the object's hash is called, in order of appearance.
pub fn note_hash(hashes: &mut BTreeMap<String, String>, object: &Value) {
    for label in ["pod-template-hash", "controller-revision-hash", "controller.kubernetes.io/hash"] {
        let value = text(object, &["metadata", "labels", label]);
        // Pods of a StatefulSet carry the revision's whole name.
        let Some(hash) = value.rsplit('-').next().filter(|hash| !hash.is_empty()) else { continue };
        if !hashes.contains_key(hash) {
            let name = format!("<hash{}>", hashes.len() + 1);
            hashes.insert(hash.to_owned(), name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_random_is_masked() {
        let hashes = BTreeMap::from([("6c9f7b5d4".to_owned(), "<hash1>".to_owned())]);
        let mask =
            Mask { hashes: &hashes, scenario: &Scenario { name: "node-x".into(), alike: true, ..Scenario::default() } };
        let check = |given: &str, expect: &str| assert_eq!(mask.text(given), expect, "{given}");
        check("Created pod: web-6c9f7b5d4-x2vbq", "Created pod: web-<hash1>-*");
        check("Scaled up replica set web-6c9f7b5d4 from 0 to 3", "Scaled up replica set web-<hash1> from 0 to 3");
        check("2026-01-01T00:00:00Z", "<time>");
        check("2026-01-01T01:00:00+01:00", "<time>+01:00");
        check("at 10.128.0.7: x", "at <ip>: x");
        check("min-ready pods", "min-ready pods");
        check("0/8 nodes are available: 8 are full.", "0/<nodes> nodes are available: 8 are full.");
        check("nightly-29384756", "nightly-<minute>");
        let both = "pods by selector app=web are controlled by";
        check(&format!("{both} multiple HPAs: [ns/b ns/a]"), "pods by selector app=web are controlled by ns/a ns/b");
        check("node-x-12 of web-12, fd00:10::1:2", "node-x-# of web-12, <ip>");
        check("0f3b2a5c-1111-4222-8333-944455556666", "<uid>");
    }
}
