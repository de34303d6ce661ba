//! Checks the expressions of admission policies against the schemas of the kinds they match, and tells what is wrong in their status; the
//! API server itself takes objects as they come. Upstream: pkg/controller/validatingadmissionpolicystatus, apiserver
//! pkg/admission/plugin/policy/validating/typechecking.go.

use std::collections::BTreeSet;

use apimachinery::{GroupVersion, ObjectKey, Value};
use cel::admission::Declarations;
use cel::{Decl, Type};
use client::{Controller, IgnoreNotFound, Informer, ReconcileContext, ReconcileError, Requeue, Resource, Watch};

use crate::Setup;

const POLICIES: Resource = Resource::cluster("admissionregistration.k8s.io", "v1", "validatingadmissionpolicies");
const DEFINITIONS: Resource = Resource::cluster("apiextensions.k8s.io", "v1", "customresourcedefinitions");

/// Who applies the status.
const MANAGER: &str = "validatingadmissionpolicy-status";
/// The most kinds that one rule is checked against. Upstream: `maxTypesToCheck`.
const MAX_KINDS: usize = 10;

pub(crate) struct ValidatingAdmissionPolicyStatus {
    policies: Informer,
    definitions: Informer,
}

/// A kind and its schema.
struct Known {
    group: String,
    version: String,
    kind: String,
    decl: Decl,
}

impl ValidatingAdmissionPolicyStatus {
    pub(crate) fn new(setup: &Setup<'_>) -> Self {
        ValidatingAdmissionPolicyStatus {
            policies: setup.informers.of(&POLICIES),
            definitions: setup.informers.of(&DEFINITIONS),
        }
    }

    fn definitions(&self) -> Vec<Value> {
        self.definitions.list("").iter().map(|definition| definition.to_value()).collect()
    }
}

/// What `status.typeChecking.expressionWarnings` should be.
fn warnings(policy: &Value, definitions: &[Value]) -> Vec<Value> {
    let kinds = kinds(policy, definitions);
    let params = policy.at(&["spec", "paramKind"]).and_then(|kind| {
        let Ok(version) = kind.str_at(&["apiVersion"])?.parse::<GroupVersion>();
        by_kind(&version, kind.str_at(&["kind"])?, definitions)
    });
    let mut out = Vec::new();
    for (i, validation) in policy.items_at(&["spec", "validations"]).iter().enumerate() {
        for field in ["expression", "messageExpression"] {
            let Some(expression) = validation.str_at(&[field]).filter(|expression| !expression.is_empty()) else {
                continue;
            };
            let found: Vec<String> =
                kinds.iter().filter_map(|kind| mistake(policy, kind, params.as_ref(), expression)).collect();
            if !found.is_empty() {
                let mut warning = Value::object();
                warning.set(&["fieldRef"], format!("spec.validations[{i}].{field}"));
                warning.set(&["warning"], found.join("\n"));
                out.push(warning);
            }
        }
    }
    out
}

/// What is wrong with an expression about objects of a kind.
fn mistake(policy: &Value, kind: &Known, params: Option<&Decl>, expression: &str) -> Option<String> {
    let mut declared = Declarations {
        object: Some(kind.decl.clone()),
        params: params.map(|params| Some(params.clone())),
        authorizer: true,
        variables: Vec::new(),
    };
    for variable in policy.items_at(&["spec", "variables"]) {
        let written = variable.str_at(&["expression"]).unwrap_or_default();
        let compiled = declared.environment().compile(written, &[]);
        let ty = compiled.map_or(Type::Dyn, |program| program.output().clone());
        declared.variables.push((variable.str_at(&["name"]).unwrap_or_default().to_owned(), ty));
    }
    let error = declared.environment().compile(expression, &[]).err()?;
    Some(format!("{}/{}, Kind={}: {error}\n", kind.group, kind.version, kind.kind))
}

/// The kinds that a policy's rules name outright, sorted.
fn kinds(policy: &Value, definitions: &[Value]) -> Vec<Known> {
    let mut names: BTreeSet<(String, String, String)> = BTreeSet::new();
    'all: for rule in policy.items_at(&["spec", "matchConstraints", "resourceRules"]) {
        let list = |key: &str| -> Vec<&str> {
            let mut list: Vec<&str> = rule.items_at(&[key]).iter().filter_map(Value::as_str).collect();
            list.sort_unstable();
            list
        };
        let (groups, versions) = (list("apiGroups"), list("apiVersions"));
        if groups.iter().chain(&versions).any(|text| text.contains('*')) {
            continue;
        }
        let mut count = 0;
        for group in &groups {
            for version in &versions {
                for resource in list("resources").into_iter().filter(|resource| !resource.contains(['*', '/'])) {
                    let Some(kind) = kind_of(group, version, resource, definitions) else { continue };
                    names.insert(((*group).to_owned(), (*version).to_owned(), kind));
                    count += 1;
                    if count == MAX_KINDS {
                        break 'all;
                    }
                }
            }
        }
    }
    let known = names.into_iter().filter_map(|(group, version, kind)| {
        let decl = by_kind(&GroupVersion::new(group.as_str(), version.as_str()), &kind, definitions)?;
        Some(Known { group, version, kind, decl })
    });
    known.collect()
}

fn kind_of(group: &str, version: &str, resource: &str, definitions: &[Value]) -> Option<String> {
    if let Some(kind) = api::resource(group, version, resource) {
        return Some(kind.kind.to_owned());
    }
    let names = |definition: &&Value| {
        definition.str_at(&["spec", "group"]) == Some(group)
            && definition.str_at(&["spec", "names", "plural"]) == Some(resource)
            && version_of(definition, version).is_some()
    };
    definitions.iter().find(names)?.str_at(&["spec", "names", "kind"]).map(str::to_owned)
}

/// A served version of a definition.
fn version_of<'d>(definition: &'d Value, name: &str) -> Option<&'d Value> {
    let mut versions = definition.items_at(&["spec", "versions"]).iter();
    versions.find(|version| version.str_at(&["name"]) == Some(name) && version.bool_at(&["served"]) == Some(true))
}

fn by_kind(version: &GroupVersion, kind: &str, definitions: &[Value]) -> Option<Decl> {
    if let Some(kind) = api::kind(&version.group, &version.version, kind) {
        return Some(Decl::from_schema(kind.ty()));
    }
    let defines = |definition: &&Value| {
        definition.str_at(&["spec", "group"]) == Some(&version.group)
            && definition.str_at(&["spec", "names", "kind"]) == Some(kind)
    };
    let definition = definitions.iter().find(defines)?;
    let schema = version_of(definition, &version.version)?.at(&["schema", "openAPIV3Schema"])?;
    Decl::from_structural(schema, kind, true)
}

impl Controller for ValidatingAdmissionPolicyStatus {
    fn name(&self) -> &'static str {
        "validatingadmissionpolicy-status-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![Watch::objects(self.policies.clone()), Watch::only(self.definitions.clone())]
    }

    async fn reconcile(&self, ctx: &ReconcileContext, key: &ObjectKey) -> Result<Requeue, ReconcileError> {
        let Some(policy) = self.policies.get(key) else { return Ok(Requeue::No) };
        let policy = policy.to_value();
        let generation = policy.i64_at(&["metadata", "generation"]).unwrap_or_default();
        if generation <= policy.i64_at(&["status", "observedGeneration"]).unwrap_or_default() {
            return Ok(Requeue::No);
        }
        let warnings = warnings(&policy, &self.definitions());
        let mut applied = Value::object();
        applied.set(&["apiVersion"], "admissionregistration.k8s.io/v1");
        applied.set(&["kind"], "ValidatingAdmissionPolicy");
        applied.set(&["metadata", "name"], &*key.name);
        applied.set(&["status", "observedGeneration"], generation);
        applied.set(&["status", "typeChecking"], Value::object());
        // What an earlier generation was warned of goes where nothing is said of it.
        if !warnings.is_empty() {
            applied.set(&["status", "typeChecking", "expressionWarnings"], Value::Array(warnings));
        }
        ctx.client().apply(&POLICIES, "status", &applied, MANAGER).await.ignore_not_found()?;
        Ok(Requeue::No)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(rule: &str, spec: &str, expect: &[(&str, &str)]) {
        let json = format!(r#"{{"spec":{{"matchConstraints":{{"resourceRules":[{rule}]}},{spec}}}}}"#);
        let policy = Value::parse(json.as_bytes()).unwrap();
        let definition = Value::parse(
            br#"{"spec":{"group":"example.com","names":{"kind":"Widget","plural":"widgets"},"versions":[{"name":"v1","served":true,
                "schema":{"openAPIV3Schema":{"type":"object","properties":{"spec":{"type":"object","properties":{"size":{"type":"integer"}}}}}}}]}}"#,
        )
        .unwrap();
        let found = warnings(&policy, &[definition]);
        let found: Vec<(&str, &str)> = found
            .iter()
            .map(|warning| (warning.str_at(&["fieldRef"]).unwrap(), warning.str_at(&["warning"]).unwrap()))
            .collect();
        assert_eq!(found, expect, "{json}");
    }

    #[test]
    fn expressions_are_checked_against_schemas() {
        let deployments = r#"{"apiGroups":["apps"],"apiVersions":["v1"],"resources":["deployments","*/scale"]}"#;
        check(
            deployments,
            r#""validations":[{"expression":"object.spec.replicas > 1 && object.metadata.creationTimestamp < timestamp('2030-01-01T00:00:00Z')"}]"#,
            &[],
        );
        check(
            deployments,
            r#""validations":[{"expression":"object.spec.replicas > '1'","messageExpression":"object.foo"}]"#,
            &[
                (
                    "spec.validations[0].expression",
                    "apps/v1, Kind=Deployment: ERROR: <input>:1:22: found no matching overload for '_>_' applied to '(int, string)'\n | object.spec.replicas > '1'\n | .....................^\n",
                ),
                (
                    "spec.validations[0].messageExpression",
                    "apps/v1, Kind=Deployment: ERROR: <input>:1:7: undefined field 'foo'\n | object.foo\n | ......^\n",
                ),
            ],
        );
        let widgets = r#"{"apiGroups":["example.com"],"apiVersions":["v1"],"resources":["widgets"]}"#;
        check(
            widgets,
            r#""variables":[{"name":"size","expression":"object.spec.size"}],"validations":[{"expression":"variables.size == 'x'"},{"expression":"object.metadata.name == 'a'"}]"#,
            &[(
                "spec.validations[0].expression",
                "example.com/v1, Kind=Widget: ERROR: <input>:1:16: found no matching overload for '_==_' applied to '(int, string)'\n | variables.size == 'x'\n | ...............^\n",
            )],
        );
        // What isn't named, or isn't known, isn't checked.
        check(
            r#"{"apiGroups":["*"],"apiVersions":["v1"],"resources":["pods"]}"#,
            r#""validations":[{"expression":"object.foo"}]"#,
            &[],
        );
        check(
            r#"{"apiGroups":["x"],"apiVersions":["v1"],"resources":["pods"]}"#,
            r#""validations":[{"expression":"object.foo"}]"#,
            &[],
        );
    }
}
