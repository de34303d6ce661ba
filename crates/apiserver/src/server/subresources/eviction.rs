//! Eviction: a deletion that asks, and that the pod's disruption budget may refuse. Upstream: registry/core/pod/storage eviction.go.

use std::sync::Arc;

use apimachinery::{GroupResource, Object, Selector, Status, Value};
use bytes::Bytes;
use http::StatusCode;

use super::set_condition;
use crate::answer::{Answer, Content};
use crate::registry::{Call, Change, DeleteOptions, Operation, Resource, Seen, WriteOptions, timestamp};
use crate::server::Request;
use crate::strategy::Objects;

const VIOLATION: &str = "Cannot evict pod as it would violate the pod's disruption budget.";
const CAUSE: &str = "DisruptionBudget";
/// How often an eviction is tried again when the pod changes meanwhile.
const ATTEMPTS: usize = 20;
/// More evictions than these are not let through before the controller has seen them.
const MAX_DISRUPTED: usize = 2000;
/// When to come again to a budget that nobody has counted yet.
const UNCOUNTED_RETRY: i32 = 10;

/// What the pod's budget says.
enum Verdict {
    /// There is none, or it allowed this eviction.
    Allowed,
    /// The pod is no loss as it is: it may go unless it changes. Names the budget.
    AsItIs(String),
}

impl Request<'_> {
    pub(super) async fn evict(&self, pods: &Resource, body: Bytes) -> Result<Answer, Status> {
        let options = WriteOptions::parse(&self.query, "CreateOptions")?;
        let eviction = self.body_of("policy", "v1", "Eviction", &body, &options)?;
        let name = eviction.str_at(&["metadata", "name"]).unwrap_or_default();
        if !name.is_empty() && name != self.info.name {
            return Err(Status::bad_request("name in URL does not match name in Eviction object"));
        }
        let empty = Value::object();
        let mut delete = DeleteOptions::read(eviction.get("deleteOptions").unwrap_or(&empty))?;
        delete.dry_run |= options.dry_run;
        let call = self.call(pods, &self.info.name, delete.dry_run);
        let judged = Seen { value: &eviction, managed: &[] };
        call.admission.validate(&call, Operation::Create, Some(judged), None).await?;
        // What follows is a change of the pod's status and its deletion.
        let call = Call { subresource: "", ..call };
        match self.delete_unguarded(&call, &delete).await? {
            None => {}
            Some(pod) => self.delete_guarded(&call, &delete, &pod).await?,
        }
        let mut status = Status::deleted(&Default::default(), "", "");
        (status.code, status.details) = (201, None);
        Ok(Answer::new(StatusCode::CREATED, Content::Status(status)))
    }

    /// Deletes a pod that no budget counts: one that ended, has not started or is going. Another is handed back.
    async fn delete_unguarded(&self, call: &Call<'_>, delete: &DeleteOptions) -> Result<Option<Arc<Object>>, Status> {
        let mut attempts = 1..=ATTEMPTS;
        loop {
            let pod = self.inner.registry.get(call.resource, &self.key(call.resource), call.name, "").await?;
            let phase = pod.to_value().str_at(&["status", "phase"]).unwrap_or_default().to_owned();
            let is_over = matches!(&*phase, "Succeeded" | "Failed") || pod.is_deleting();
            if !is_over && phase != "Pending" {
                return Ok(Some(pod));
            }
            let mut options = delete.clone();
            if !is_over && delete.resource_version.is_none() {
                // It might become ready meanwhile.
                options.resource_version = Some(pod.revision().to_string());
            }
            match mark_and_delete(call, &options).await {
                Err(status) if status.is_conflict() && delete.resource_version.is_none() => {
                    if attempts.next().is_none() {
                        return Err(status);
                    }
                }
                result => return result.map(|()| None),
            }
        }
    }

    async fn delete_guarded(&self, call: &Call<'_>, delete: &DeleteOptions, pod: &Arc<Object>) -> Result<(), Status> {
        match self.ask_budget(call, pod).await? {
            Verdict::Allowed => mark_and_delete(call, delete).await,
            Verdict::AsItIs(budget) => {
                let mut options = delete.clone();
                options.resource_version = Some(pod.revision().to_string());
                match mark_and_delete(call, &options).await {
                    // The pod changed: whoever asks again is judged anew.
                    Err(status) if status.is_conflict() && delete.resource_version.is_none() => Err(uncounted(&budget)),
                    result => result,
                }
            }
        }
    }

    async fn ask_budget(&self, call: &Call<'_>, pod: &Object) -> Result<Verdict, Status> {
        let budgets = Objects::list(call.registry, "policy", "poddisruptionbudgets", call.namespace);
        let mut guards = budgets.iter().filter(|budget| covers(budget, pod));
        let Some(budget) = guards.next() else { return Ok(Verdict::Allowed) };
        if guards.next().is_some() {
            let why =
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
            return Err(Status::new(500, apimachinery::Reason::Unknown, why));
        }
        let value = budget.to_value();
        if !is_ready(pod) {
            let always = value.str_at(&["spec", "unhealthyPodEvictionPolicy"]) == Some("AlwaysAllow");
            let count = |name: &str| value.i64_at(&["status", name]).unwrap_or_default();
            let desired = count("desiredHealthy");
            if always || count("currentHealthy") >= desired && desired > 0 {
                return Ok(Verdict::AsItIs(budget.name().to_owned()));
            }
        }
        let resource = call.registry.resource("policy", "v1", "poddisruptionbudgets");
        let resource = resource.ok_or_else(Status::path_not_found)?;
        let now = timestamp(call.registry.env.now());
        let edit = |budget: &mut Value| take_one(budget, pod.name(), &now);
        let call = Call { resource: &resource, name: budget.name(), subresource: "status", ..*call };
        call.update(&Change::Edit(&edit)).await?;
        Ok(Verdict::Allowed)
    }
}

fn covers(budget: &Object, pod: &Object) -> bool {
    let budget = budget.to_value();
    Selector::from_label_selector(budget.at(&["spec", "selector"])).is_ok_and(|selector| selector.matches(pod))
}

fn is_ready(pod: &Object) -> bool {
    let pod = pod.to_value();
    let mut conditions = pod.items_at(&["status", "conditions"]).iter();
    conditions.any(|known| known.str_at(&["type"]) == Some("Ready") && known.str_at(&["status"]) == Some("True"))
}

/// Notes in the pod's status why it goes, and deletes it; both only where the preconditions hold.
async fn mark_and_delete(call: &Call<'_>, options: &DeleteOptions) -> Result<(), Status> {
    let mut options = options.clone();
    if !options.dry_run {
        let now = timestamp(call.registry.env.now());
        let edit = |pod: &mut Value| {
            check_preconditions(&options, pod, call.name)?;
            mark(pod, &now);
            Ok(())
        };
        let (marked, _) = Call { subresource: "status", ..*call }.update(&Change::Edit(&edit)).await?;
        if options.resource_version.is_some() {
            options.resource_version = Some(marked.revision().to_string());
        }
    }
    call.delete(&options).await.map(drop)
}

fn check_preconditions(options: &DeleteOptions, pod: &Value, name: &str) -> Result<(), Status> {
    let own = |key: &str| pod.str_at(&["metadata", key]).unwrap_or_default();
    // Upstream names the kind here and not the resource.
    let conflict = |why: String| Err(Status::conflict(&GroupResource::new("", "Pod"), name, &why));
    let (uid, revision) = (own("uid"), own("resourceVersion"));
    match (options.uid.as_deref(), options.resource_version.as_deref()) {
        (Some(wanted), _) if !wanted.is_empty() && wanted != uid => conflict(format!(
            "the UID in the precondition ({wanted}) does not match the UID in record ({uid}). The object might have been deleted \
             and then recreated"
        )),
        (_, Some(wanted)) if !wanted.is_empty() && wanted != revision => conflict(format!(
            "the ResourceVersion in the precondition ({wanted}) does not match the ResourceVersion in record ({revision}). The \
             object might have been modified"
        )),
        _ => Ok(()),
    }
}

fn mark(pod: &mut Value, now: &str) {
    set_condition(pod, "DisruptionTarget", "True", now);
    let mut conditions = pod.items_at(&["status", "conditions"]).to_vec();
    for condition in conditions.iter_mut().filter(|known| known.str_at(&["type"]) == Some("DisruptionTarget")) {
        condition.set(&["reason"], "EvictionByEvictionAPI");
        condition.set(&["message"], "Eviction API: evicting");
    }
    pod.set(&["status", "conditions"], conditions);
}

/// Takes one disruption of those that the budget allows and notes the pod, so that the controller counts it as gone.
fn take_one(budget: &mut Value, pod: &str, now: &str) -> Result<(), Status> {
    let name = budget.str_at(&["metadata", "name"]).unwrap_or_default().to_owned();
    let count = |name: &str| budget.i64_at(&["status", name]).unwrap_or_default();
    if count("observedGeneration") < budget.i64_at(&["metadata", "generation"]).unwrap_or_default() {
        return Err(uncounted(&name));
    }
    let forbidden =
        |why: &str| Err(Status::forbidden(&GroupResource::new("policy", "poddisruptionbudget"), &name, why));
    let allowed = count("disruptionsAllowed");
    if allowed < 0 {
        return forbidden("pdb disruptions allowed is negative");
    }
    let disrupted = budget.at(&["status", "disruptedPods"]).and_then(Value::as_object).map_or(0, |pods| pods.len());
    if disrupted > MAX_DISRUPTED {
        return forbidden("DisruptedPods map too big - too many evictions not confirmed by PDB controller");
    }
    if allowed == 0 {
        return Err(Status::too_many_requests(VIOLATION, 0).with_cause(CAUSE, why_not(budget, &name), ""));
    }
    budget.set(&["status", "disruptionsAllowed"], allowed - 1);
    budget.set(&["status", "disruptedPods", pod], now);
    if allowed == 1 {
        forbid_more(budget, now);
    }
    Ok(())
}

/// The budget's condition once it allows no more.
fn forbid_more(budget: &mut Value, now: &str) {
    let generation = budget.i64_at(&["status", "observedGeneration"]).unwrap_or_default();
    let mut conditions = budget.items_at(&["status", "conditions"]).to_vec();
    let known = conditions.iter().position(|known| known.str_at(&["type"]) == Some("DisruptionAllowed"));
    let at = known.unwrap_or_else(|| {
        conditions.push(Value::object());
        conditions.len() - 1
    });
    let condition = &mut conditions[at];
    condition.set(&["type"], "DisruptionAllowed");
    if condition.str_at(&["status"]) != Some("False") {
        condition.set(&["status"], "False");
        condition.set(&["lastTransitionTime"], now);
    }
    condition.set(&["reason"], "InsufficientPods");
    condition.set(&["message"], "");
    if generation > 0 {
        condition.set(&["observedGeneration"], generation);
    }
    budget.set(&["status", "conditions"], conditions);
}

fn uncounted(budget: &str) -> Status {
    let why = format!("The disruption budget {budget} is still being processed by the server.");
    Status::too_many_requests(VIOLATION, UNCOUNTED_RETRY).with_cause(CAUSE, why, "")
}

fn why_not(budget: &Value, name: &str) -> String {
    let count = |name: &str| budget.i64_at(&["status", name]).unwrap_or_default();
    let conditions = budget.items_at(&["status", "conditions"]);
    let condition = conditions.iter().find(|known| known.str_at(&["type"]) == Some("DisruptionAllowed"));
    let text = |key: &str| condition.and_then(|condition| condition.str_at(&[key])).unwrap_or_default();
    let tells = text("status") == "False" && !text("message").is_empty();
    let (reason, message) = (text("reason"), text("message"));
    let (desired, current) = (count("desiredHealthy"), count("currentHealthy"));
    if tells && reason == "SyncFailed" {
        format!("The disruption budget {name} does not allow evicting pods currently because it failed sync: {message}")
    } else if current <= desired {
        format!("The disruption budget {name} needs {desired} healthy pods and has {current} currently")
    } else if tells {
        format!("The disruption budget {name} does not allow evicting pods currently ({reason}): {message}")
    } else {
        format!("The disruption budget {name} does not allow evicting pods currently")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-01-01T00:00:00Z";

    fn budget(status: &str) -> Value {
        let json = format!(r#"{{"metadata":{{"name":"b","generation":2}},"status":{status}}}"#);
        Value::parse(json.as_bytes()).unwrap()
    }

    #[test]
    fn a_disruption_is_taken() {
        let mut two =
            budget(r#"{"observedGeneration":2,"disruptionsAllowed":2,"currentHealthy":3,"desiredHealthy":1}"#);
        take_one(&mut two, "a", NOW).unwrap();
        assert_eq!(two.i64_at(&["status", "disruptionsAllowed"]), Some(1));
        assert_eq!(two.str_at(&["status", "disruptedPods", "a"]), Some(NOW));
        assert!(two.items_at(&["status", "conditions"]).is_empty());
        take_one(&mut two, "b", NOW).unwrap();
        let condition = &two.items_at(&["status", "conditions"])[0];
        assert_eq!(condition.str_at(&["reason"]), Some("InsufficientPods"));
        let refused = take_one(&mut two, "c", NOW).unwrap_err();
        assert_eq!((refused.code, refused.message.as_str()), (429, VIOLATION));
    }

    #[test]
    fn refusals_say_why() {
        let check = |status: &str, code: u16, retry: i32, why: &str| {
            let refused = take_one(&mut budget(status), "a", NOW).unwrap_err();
            let details = refused.details.unwrap();
            assert_eq!((refused.code, details.retry_after_seconds), (code, retry), "{status}");
            let told = details.causes.first().map_or(refused.message, |cause| cause.message.clone());
            assert!(told.contains(why), "{told}");
        };
        check(
            r#"{"observedGeneration":1,"disruptionsAllowed":1}"#,
            429,
            10,
            "The disruption budget b is still being processed",
        );
        check(
            r#"{"observedGeneration":2,"disruptionsAllowed":0,"currentHealthy":1,"desiredHealthy":1}"#,
            429,
            0,
            "The disruption budget b needs 1 healthy pods and has 1 currently",
        );
        let failed = r#"{"observedGeneration":2,"disruptionsAllowed":0,"conditions":
            [{"type":"DisruptionAllowed","status":"False","reason":"SyncFailed","message":"oh"}]}"#;
        check(failed, 429, 0, "because it failed sync: oh");
        check(
            r#"{"observedGeneration":2,"disruptionsAllowed":0,"currentHealthy":2,"desiredHealthy":1}"#,
            429,
            0,
            "does not allow evicting pods currently",
        );
        check(r#"{"observedGeneration":2,"disruptionsAllowed":-1}"#, 403, 0, "pdb disruptions allowed is negative");
    }
}
