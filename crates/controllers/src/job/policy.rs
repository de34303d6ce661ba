//! What failed pods and succeeded indexes mean for the Job, where it has policies for them. Upstream: pod_failure_policy.go,
//! success_policy.go.

use super::indexes::Indexes;
use super::pod::{JobPod, Member};
use super::view::{FailureRule, OnExitCodes, Spec};

/// What a failed pod means.
#[derive(Debug, PartialEq)]
pub(super) enum Verdict {
    /// It counts against the back-off limit.
    Count,
    /// It does not.
    Ignore,
    FailIndex,
    /// Why the whole Job fails.
    FailJob(String),
}

impl Verdict {
    pub(super) fn counts(&self) -> bool {
        *self != Verdict::Ignore
    }
}

/// The verdict of the first rule that matches a failed pod.
pub(super) fn judge(spec: &Spec, member: &Member) -> Verdict {
    let rules = spec.pod_failure_policy.iter().flat_map(|policy| &policy.rules).enumerate();
    for (i, rule) in rules {
        let Some(why) = matched(rule, member) else { continue };
        match rule.action.as_str() {
            "Ignore" => return Verdict::Ignore,
            "FailIndex" => return Verdict::FailIndex,
            "Count" => return Verdict::Count,
            "FailJob" => return Verdict::FailJob(format!("{why} matching FailJob rule at index {i}")),
            _ => {}
        }
    }
    Verdict::Count
}

/// What of the pod the rule matches, in words.
fn matched(rule: &FailureRule, member: &Member) -> Option<String> {
    let (pod, key) = (&member.pod, member.object.key());
    if let Some(codes) = &rule.on_exit_codes {
        let (container, code) = pod.ended.iter().find(|(container, code)| codes.match_code(container, *code))?;
        let (namespace, name) = (&key.namespace, &key.name);
        return Some(format!("Container {container} for pod {namespace}/{name} failed with exit code {code}"));
    }
    let condition = on_condition(rule, pod)?;
    Some(format!("Pod {}/{} has condition {condition}", key.namespace, key.name))
}

fn on_condition<'a>(rule: &FailureRule, pod: &'a JobPod) -> Option<&'a str> {
    let wanted = |r#type: &str, status: &str| {
        rule.on_pod_conditions.iter().any(|pattern| pattern.r#type == r#type && pattern.status == status)
    };
    pod.conditions.iter().find(|(r#type, status)| wanted(r#type, status)).map(|(r#type, _)| r#type.as_str())
}

impl OnExitCodes {
    fn match_code(&self, container: &str, code: i64) -> bool {
        if code == 0 || self.container_name.as_deref().is_some_and(|name| name != container) {
            return false;
        }
        match self.operator.as_str() {
            "In" => self.values.contains(&code),
            "NotIn" => !self.values.contains(&code),
            _ => false,
        }
    }
}

/// Whether the indexes that succeeded are enough, and why.
pub(super) fn succeeds(spec: &Spec, succeeded: &Indexes) -> Option<String> {
    let policy = spec.success_policy.as_ref().filter(|_| !succeeded.is_empty())?;
    let met = policy.rules.iter().position(|rule| {
        let enough = |number: i64| rule.succeeded_count.is_some_and(|count| number >= count);
        match &rule.succeeded_indexes {
            Some(indexes) => {
                let required = Indexes::parse(indexes, spec.completions.unwrap_or_default());
                let found = required.in_common(succeeded);
                !required.is_empty() && (found == required.total() || enough(found))
            }
            None => enough(succeeded.total()),
        }
    })?;
    Some(format!("Matched rules at index {met}"))
}
