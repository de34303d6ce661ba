//! Who may do what: rbac, admission policies, disruption budgets, request priorities.

use super::row;
use crate::kind::{AGE, Cell, Column, Kind, NAME, at, computed, integer, status};

macro_rules! rbac {
    ($kind:literal, $resource:literal) => {
        row!("io.k8s.api.rbac.v1", "rbac.authorization.k8s.io", "v1", $kind, $resource)
    };
}

macro_rules! admission {
    ($kind:literal, $resource:literal) => {
        row!("io.k8s.api.admissionregistration.v1", "admissionregistration.k8s.io", "v1", $kind, $resource)
            .cluster()
            .categories(&["api-extensions"])
    };
}

macro_rules! flow {
    ($kind:literal, $resource:literal) => {
        row!("io.k8s.api.flowcontrol.v1", "flowcontrol.apiserver.k8s.io", "v1", $kind, $resource).cluster().unenforced()
    };
}

const BINDING_COLUMNS: &[Column] = &[
    NAME,
    computed("Role"),
    AGE,
    computed("Users").wide(),
    computed("Groups").wide(),
    computed("ServiceAccounts").wide(),
];

pub(super) static KINDS: &[Kind] = &[
    rbac!("ClusterRole", "clusterroles").cluster(),
    rbac!("ClusterRoleBinding", "clusterrolebindings").cluster().columns(BINDING_COLUMNS),
    rbac!("Role", "roles"),
    rbac!("RoleBinding", "rolebindings").columns(BINDING_COLUMNS),
    admission!("ValidatingAdmissionPolicy", "validatingadmissionpolicies")
        .with(&[status(("admissionregistration.k8s.io", "v1", "ValidatingAdmissionPolicy"))])
        .columns(&[
            NAME,
            Column::new("Validations", "integer", Cell::Count(&["spec", "validations"])),
            computed("ParamKind"),
            AGE,
        ]),
    admission!("ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings").columns(&[
        NAME,
        at("PolicyName", &["spec", "policyName"]),
        computed("ParamRef"),
        AGE,
    ]),
    row!("io.k8s.api.policy.v1", "policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets")
        .short(&["pdb"])
        .with(&[status(("policy", "v1", "PodDisruptionBudget"))])
        .columns(&[
            NAME,
            computed("Min Available"),
            computed("Max Unavailable"),
            integer("Allowed Disruptions", &["status", "disruptionsAllowed"]),
            AGE,
        ]),
    flow!("FlowSchema", "flowschemas").with(&[status(("flowcontrol.apiserver.k8s.io", "v1", "FlowSchema"))]).columns(
        &[
            NAME,
            at("PriorityLevel", &["spec", "priorityLevelConfiguration", "name"]),
            integer("MatchingPrecedence", &["spec", "matchingPrecedence"]),
            computed("DistinguisherMethod"),
            AGE,
            computed("MissingPL"),
        ],
    ),
    flow!("PriorityLevelConfiguration", "prioritylevelconfigurations")
        .with(&[status(("flowcontrol.apiserver.k8s.io", "v1", "PriorityLevelConfiguration"))])
        .columns(&[
            NAME,
            at("Type", &["spec", "type"]),
            computed("NominalConcurrencyShares"),
            computed("Queues"),
            computed("HandSize"),
            computed("QueueLengthLimit"),
            AGE,
        ]),
];
