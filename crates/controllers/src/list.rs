//! Every controller by upstream's name, and which of them run.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::{Setup, *};

/// One control loop: one line of the list. A name may have several.
struct Row {
    /// Upstream's name.
    name: &'static str,
    /// The service account, in `kube-system`, that it acts as; empty: the controller manager's own user.
    account: &'static str,
    start: Start,
}

type Start = fn(&Setup<'_>, &str) -> BoxFuture<'static, ()>;

macro_rules! row {
    ($name:expr, $account:expr, $new:expr) => {
        Row { name: $name, account: $account, start: |setup, account| setup.run(account, $new(setup)) }
    };
}

/// Runs only where devices have taints.
const DEVICE_TAINTS: &str = "device-taint-eviction-controller";

/// Every controller, with the service account that it acts as.
const ALL: &[Row] = &[
    row!("namespace-controller", "namespace-controller", namespace::Namespaces::new),
    row!("serviceaccount-controller", "service-account-controller", service_account::ServiceAccounts::new),
    row!("root-ca-certificate-publisher-controller", "root-ca-cert-publisher", root_ca::RootCa::new),
    row!("deployment-controller", "deployment-controller", deployment::Deployments::new),
    row!("replicaset-controller", "replicaset-controller", replica_set::ReplicaSets::new),
    row!(
        "replicationcontroller-controller",
        "replication-controller",
        replica_set::ReplicaSets::replication_controllers
    ),
    row!("statefulset-controller", "statefulset-controller", stateful_set::StatefulSets::new),
    row!("daemonset-controller", "daemon-set-controller", daemon_set::DaemonSets::new),
    row!("disruption-controller", "disruption-controller", disruption::Budgets::new),
    row!("disruption-controller", "disruption-controller", disruption::StaleTargets::new),
    row!(
        "horizontal-pod-autoscaler-controller",
        "horizontal-pod-autoscaler",
        horizontal_pod_autoscaler::Autoscalers::new
    ),
    row!("job-controller", "job-controller", job::Jobs::new),
    row!("job-controller", "job-controller", job::OrphanedPods::new),
    row!("cronjob-controller", "cronjob-controller", cron_job::CronJobs::new),
    row!("resourcequota-controller", "resourcequota-controller", resource_quota::ResourceQuotas::new),
    row!(
        "clusterrole-aggregation-controller",
        "clusterrole-aggregation-controller",
        cluster_role_aggregation::ClusterRoleAggregation::new
    ),
    row!("service-cidr-controller", "service-cidrs-controller", service_cidr::ServiceCidrs::new),
    row!("certificatesigningrequest-approving-controller", "certificate-controller", csr_approving::CsrApproving::new),
    row!("certificatesigningrequest-signing-controller", "certificate-controller", csr_signing::CsrSigning::new),
    row!("certificatesigningrequest-cleaner-controller", "certificate-controller", csr_cleaner::CsrCleaner::new),
    row!("serviceaccount-token-controller", "", service_account_token::ServiceAccountTokens::new),
    row!(
        "legacy-serviceaccount-token-cleaner-controller",
        "legacy-service-account-token-cleaner",
        legacy_token_cleaner::LegacyTokenCleaner::new
    ),
    row!("bootstrap-signer-controller", "bootstrap-signer", bootstrap_token::Signer::new),
    row!("token-cleaner-controller", "token-cleaner", bootstrap_token::TokenCleaner::new),
    row!("ttl-controller", "ttl-controller", node_ttl::NodeTtl::new),
    row!("ttl-after-finished-controller", "ttl-after-finished-controller", ttl_after_finished::TtlAfterFinished::new),
    row!("endpointslice-controller", "endpointslice-controller", endpoint_slice::EndpointSlices::new),
    row!(
        "endpointslice-mirroring-controller",
        "endpointslicemirroring-controller",
        endpoint_slice_mirroring::EndpointSliceMirroring::new
    ),
    row!("endpoints-controller", "endpoint-controller", endpoints::Endpoints::new),
    row!("node-lifecycle-controller", "node-controller", node_lifecycle::NodeLifecycle::new),
    row!("taint-eviction-controller", "node-controller", taint_eviction::TaintEviction::new),
    row!("pod-garbage-collector-controller", "pod-garbage-collector", pod_garbage::PodGarbage::new),
    row!("node-ipam-controller", "node-controller", node_ipam::NodeIpam::new),
    row!("persistentvolume-binder-controller", "persistent-volume-binder", persistent_volume::Binder::new),
    row!(
        "persistentvolumeclaim-protection-controller",
        "pvc-protection-controller",
        volume_protection::ClaimProtection::new
    ),
    row!(
        "persistentvolume-protection-controller",
        "pv-protection-controller",
        volume_protection::VolumeProtection::new
    ),
    row!(
        "volumeattributesclass-protection-controller",
        "volumeattributesclass-protection-controller",
        volume_protection::AttributesProtection::new
    ),
    row!("persistentvolume-attach-detach-controller", "attachdetach-controller", attach_detach::AttachDetach::new),
    row!("persistentvolume-expander-controller", "expand-controller", volume_expand::VolumeExpand::new),
    row!("ephemeral-volume-controller", "ephemeral-volume-controller", ephemeral_volume::EphemeralVolumes::new),
    row!("resourceclaim-controller", "resource-claim-controller", resource_claim::PodClaims::new),
    row!("resourceclaim-controller", "resource-claim-controller", resource_claim::ClaimUsers::new),
    row!(DEVICE_TAINTS, DEVICE_TAINTS, device_taint_eviction::DeviceTaintEviction::new),
    row!(
        "validatingadmissionpolicy-status-controller",
        "validatingadmissionpolicy-status-controller",
        validating_admission_policy_status::ValidatingAdmissionPolicyStatus::new
    ),
    Row {
        name: "garbage-collector-controller",
        account: "generic-garbage-collector",
        start: |setup, _| garbage_collector::run(setup).boxed(),
    },
];

/// Names of upstream's list behind which nothing runs here, such as those of cloud providers and those whose feature is off by
/// default at 1.35.
const NOTHING: &[&str] = &[
    "cloud-node-lifecycle-controller",
    "node-route-controller",
    "service-lb-controller",
    "kube-apiserver-serving-clustertrustbundle-publisher-controller",
    "podcertificaterequest-cleaner-controller",
    "selinux-warning-controller",
    "storage-version-migrator-controller",
    "storageversion-garbage-collector-controller",
];

/// Those that `*` does not stand for.
const OFF_BY_DEFAULT: [&str; 3] =
    ["bootstrap-signer-controller", "selinux-warning-controller", "token-cleaner-controller"];

/// Names from before, and today's.
const ALIASES: [(&str, &str); 42] = [
    ("attachdetach", "persistentvolume-attach-detach-controller"),
    ("bootstrapsigner", "bootstrap-signer-controller"),
    ("cloud-node-lifecycle", "cloud-node-lifecycle-controller"),
    ("clusterrole-aggregation", "clusterrole-aggregation-controller"),
    ("cronjob", "cronjob-controller"),
    ("csrapproving", "certificatesigningrequest-approving-controller"),
    ("csrcleaner", "certificatesigningrequest-cleaner-controller"),
    ("csrsigning", "certificatesigningrequest-signing-controller"),
    ("daemonset", "daemonset-controller"),
    ("deployment", "deployment-controller"),
    ("disruption", "disruption-controller"),
    ("endpoint", "endpoints-controller"),
    ("endpointslice", "endpointslice-controller"),
    ("endpointslicemirroring", "endpointslice-mirroring-controller"),
    ("ephemeral-volume", "ephemeral-volume-controller"),
    ("garbagecollector", "garbage-collector-controller"),
    ("horizontalpodautoscaling", "horizontal-pod-autoscaler-controller"),
    ("job", "job-controller"),
    ("legacy-service-account-token-cleaner", "legacy-serviceaccount-token-cleaner-controller"),
    ("namespace", "namespace-controller"),
    ("nodeipam", "node-ipam-controller"),
    ("nodelifecycle", "node-lifecycle-controller"),
    ("persistentvolume-binder", "persistentvolume-binder-controller"),
    ("persistentvolume-expander", "persistentvolume-expander-controller"),
    ("podgc", "pod-garbage-collector-controller"),
    ("pv-protection", "persistentvolume-protection-controller"),
    ("pvc-protection", "persistentvolumeclaim-protection-controller"),
    ("replicaset", "replicaset-controller"),
    ("replicationcontroller", "replicationcontroller-controller"),
    ("resource-claim-controller", "resourceclaim-controller"),
    ("resourcequota", "resourcequota-controller"),
    ("root-ca-cert-publisher", "root-ca-certificate-publisher-controller"),
    ("route", "node-route-controller"),
    ("service", "service-lb-controller"),
    ("serviceaccount", "serviceaccount-controller"),
    ("serviceaccount-token", "serviceaccount-token-controller"),
    ("statefulset", "statefulset-controller"),
    ("storage-version-gc", "storageversion-garbage-collector-controller"),
    ("svm", "storage-version-migrator-controller"),
    ("tokencleaner", "token-cleaner-controller"),
    ("ttl", "ttl-controller"),
    ("ttl-after-finished", "ttl-after-finished-controller"),
];

/// Names of controllers that upstream does not know, in the words in which it refuses them.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{}", said(.0))]
pub struct UnknownControllers(pub Vec<String>);

fn said(names: &[String]) -> String {
    let each: Vec<String> =
        names.iter().map(|name| format!("{name:?} is not in the list of known controllers")).collect();
    if let [one] = &*each { one.clone() } else { format!("[{}]", each.join(", ")) }
}

/// The service accounts, in `kube-system`, that controllers act as.
pub fn accounts() -> Vec<&'static str> {
    let mut accounts: Vec<&str> = ALL.iter().map(|row| row.account).filter(|account| !account.is_empty()).collect();
    accounts.sort_unstable();
    accounts.dedup();
    accounts
}

/// Whether every one of `names`, as `--controllers` takes them, is known.
pub fn check_names(names: &[String]) -> Result<(), UnknownControllers> {
    let is_known = |name: &str| {
        name == "*"
            || ALL.iter().map(|row| row.name).chain(NOTHING.iter().copied()).any(|known| known == canonical(name))
    };
    let unknown = names.iter().map(|name| name.strip_prefix('-').unwrap_or(name)).filter(|name| !is_known(name));
    let unknown: Vec<String> = unknown.map(str::to_owned).collect();
    if unknown.is_empty() { Ok(()) } else { Err(UnknownControllers(unknown)) }
}

/// Which of upstream's controllers `names` asks for by name though there are none here.
pub fn absent(names: &[String]) -> Vec<&'static str> {
    NOTHING.iter().copied().filter(|known| names.iter().any(|name| canonical(name) == *known)).collect()
}

/// Everything that the configuration asks for, to be run.
pub(crate) fn enabled(setup: &Setup<'_>) -> Vec<BoxFuture<'static, ()>> {
    let wanted = ALL.iter().filter(|row| {
        is_enabled(&setup.config.controllers, row.name)
            && (row.name != DEVICE_TAINTS || setup.config.features.device_taints)
    });
    wanted.map(|row| (row.start)(setup, row.account)).collect()
}

fn is_enabled(asked: &[String], name: &str) -> bool {
    let mut all = false;
    for asked in asked {
        match asked.strip_prefix('-') {
            Some(not) if canonical(not) == name => return false,
            None if canonical(asked) == name => return true,
            None if asked == "*" => all = true,
            _ => {}
        }
    }
    all && !OFF_BY_DEFAULT.contains(&name)
}

fn canonical(name: &str) -> &str {
    let alias = ALIASES.iter().find(|(alias, _)| *alias == name);
    alias.map_or(name, |(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        text.split(',').map(str::to_owned).collect()
    }

    #[test]
    fn what_is_asked_for_runs() {
        let check = |asked: &str, name: &str, expect: bool| {
            assert_eq!(is_enabled(&names(asked), name), expect, "{asked} {name}");
        };
        check("*", "deployment-controller", true);
        check("*", "token-cleaner-controller", false);
        check("*,tokencleaner", "token-cleaner-controller", true);
        check("*,-deployment", "deployment-controller", false);
        check("*,-deployment-controller", "deployment-controller", false);
        check("-deployment,deployment", "deployment-controller", false);
        check("deployment,-deployment", "deployment-controller", true);
        check("job", "deployment-controller", false);
        check("job", "job-controller", true);
    }

    #[test]
    fn unknown_names_are_refused_in_upstreams_words() {
        let check = |asked: &str, expect: &str| {
            let said = check_names(&names(asked)).map_or_else(|error| error.to_string(), |()| String::new());
            assert_eq!(said, expect, "{asked}");
        };
        check("*,-ttl,service-lb-controller,bootstrapsigner", "");
        check("foo", r#""foo" is not in the list of known controllers"#);
        check(
            "foo,*,-bar",
            r#"["foo" is not in the list of known controllers, "bar" is not in the list of known controllers]"#,
        );
    }

    #[test]
    fn who_asks_for_what_is_not_here_is_told() {
        let check = |asked: &str, expect: &[&str]| assert_eq!(absent(&names(asked)), expect, "{asked}");
        check("*", &[]);
        check("*,-route,deployment", &[]);
        check("*,service,selinux-warning-controller", &["service-lb-controller", "selinux-warning-controller"]);
    }

    #[test]
    fn every_alias_and_exception_is_known() {
        let upstream = "bootstrap-signer-controller certificatesigningrequest-approving-controller certificatesigningrequest-cleaner-controller \
            certificatesigningrequest-signing-controller cloud-node-lifecycle-controller clusterrole-aggregation-controller cronjob-controller \
            daemonset-controller deployment-controller device-taint-eviction-controller disruption-controller endpoints-controller \
            endpointslice-controller endpointslice-mirroring-controller ephemeral-volume-controller garbage-collector-controller \
            horizontal-pod-autoscaler-controller job-controller kube-apiserver-serving-clustertrustbundle-publisher-controller \
            legacy-serviceaccount-token-cleaner-controller namespace-controller node-ipam-controller node-lifecycle-controller \
            node-route-controller persistentvolume-attach-detach-controller persistentvolume-binder-controller \
            persistentvolume-expander-controller persistentvolume-protection-controller persistentvolumeclaim-protection-controller \
            pod-garbage-collector-controller podcertificaterequest-cleaner-controller replicaset-controller \
            replicationcontroller-controller resourceclaim-controller resourcequota-controller \
            root-ca-certificate-publisher-controller selinux-warning-controller service-cidr-controller service-lb-controller \
            serviceaccount-controller serviceaccount-token-controller statefulset-controller storage-version-migrator-controller \
            storageversion-garbage-collector-controller taint-eviction-controller token-cleaner-controller \
            ttl-after-finished-controller ttl-controller validatingadmissionpolicy-status-controller \
            volumeattributesclass-protection-controller";
        let all = ALIASES.iter().map(|(alias, _)| *alias).chain(OFF_BY_DEFAULT).chain(upstream.split_whitespace());
        let all: Vec<String> = all.map(str::to_owned).collect();
        assert_eq!(check_names(&all), Ok(()));
    }
}
