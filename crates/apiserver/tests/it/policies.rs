//! ValidatingAdmissionPolicies, through the whole server.

use serde_json::{Value, json};

use crate::fixture::{Fixture, Reply};

const POLICIES: &str = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies";
const BINDINGS: &str = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// A server with one policy about config maps, bound with `actions`.
async fn bound(spec: Value, binding: Value) -> Fixture {
    let fixture = Fixture::start().await;
    let rule = json!({"apiGroups": [""], "apiVersions": ["v1"], "operations": ["*"], "resources": ["configmaps"]});
    let mut policy = json!({"metadata": {"name": "p"}, "spec": {"matchConstraints": {"resourceRules": [rule]}}});
    merge(&mut policy["spec"], spec);
    fixture.ok("POST", POLICIES, &policy.to_string()).await;
    let mut bound = json!({"metadata": {"name": "b"}, "spec": {"policyName": "p", "validationActions": ["Deny"]}});
    merge(&mut bound["spec"], binding);
    fixture.ok("POST", BINDINGS, &bound.to_string()).await;
    // The cache that admission reads has them by now.
    fixture.ok("GET", BINDINGS, "").await;
    fixture
}

fn merge(into: &mut Value, from: Value) {
    for (key, value) in from.as_object().unwrap() {
        into[key] = value.clone();
    }
}

async fn create(fixture: &Fixture, name: &str, data: Value) -> Reply {
    fixture.send("POST", MAPS, &json!({"metadata": {"name": name}, "data": data}).to_string()).await
}

fn denied(reply: &Reply, code: u16, why: &str) {
    let message = format!("ValidatingAdmissionPolicy 'p' with binding 'b' denied request: {why}");
    assert_eq!(
        (reply.code, reply.json["details"]["causes"][0]["message"].as_str()),
        (code, Some(&*message)),
        "{}",
        reply.text
    );
    assert!(reply.json["message"].as_str().unwrap().ends_with(&format!("is forbidden: {message}")), "{}", reply.text);
}

#[tokio::test]
async fn validations_deny_with_their_message() {
    let validations = json!([
        {"expression": "object == null || !has(object.data) || !has(object.data.bad)", "message": " no bad data "},
        {"expression": "request.operation != 'DELETE' || oldObject.metadata.name != 'kept'", "reason": "Forbidden"},
        {"expression": "variables.size < 3", "messageExpression": "'too many: ' + string(variables.size)"},
    ]);
    let variables = json!([{"name": "size", "expression": "object == null ? 0 : object.?data.orValue({}).size()"}]);
    let fixture = bound(json!({"validations": validations, "variables": variables}), json!({})).await;
    denied(&create(&fixture, "x", json!({"bad": "1"})).await, 422, "no bad data");
    denied(&create(&fixture, "x", json!({"a": "1", "b": "2", "c": "3"})).await, 422, "too many: 3");
    assert_eq!(create(&fixture, "kept", json!({"a": "1"})).await.code, 201);
    let reply = fixture.send("DELETE", &format!("{MAPS}/kept"), "").await;
    denied(&reply, 403, "failed expression: request.operation != 'DELETE' || oldObject.metadata.name != 'kept'");
    // Others are not concerned.
    fixture.ok("POST", "/api/v1/namespaces/default/secrets", r#"{"metadata":{"name":"s"}}"#).await;
    fixture.ok("DELETE", &format!("{BINDINGS}/b"), "").await;
    fixture.ok("GET", BINDINGS, "").await;
    assert_eq!(create(&fixture, "x", json!({"bad": "1"})).await.code, 201);
}

#[tokio::test]
async fn failures_deny_unless_ignored() {
    let validations = json!([{"expression": "object.data.missing == 'x'"}]);
    let fixture = bound(json!({"validations": validations}), json!({})).await;
    let why = "expression 'object.data.missing == 'x'' resulted in error: no such key: missing";
    denied(&create(&fixture, "x", json!({"a": "1"})).await, 422, why);
    let fixture = bound(json!({"validations": validations, "failurePolicy": "Ignore"}), json!({})).await;
    assert_eq!(create(&fixture, "x", json!({"a": "1"})).await.code, 201);
    // A program that costs too much is a failure too.
    let list = format!("[{}]", vec!["0"; 120].join(","));
    let expression = format!("{list}.all(a, {list}.all(b, {list}.all(c, a + b + c == 0)))");
    let fixture = bound(json!({"validations": [{"expression": expression}]}), json!({})).await;
    let reply = create(&fixture, "x", json!({})).await;
    assert!(reply.text.contains("operation cancelled: actual cost limit exceeded"), "{}", reply.text);
}

#[tokio::test]
async fn conditions_and_selectors_leave_out() {
    let conditions = json!([{"name": "not-admin", "expression": "request.userInfo.username != 'carol'"}]);
    let validations = json!([{"expression": "false"}]);
    let spec = json!({"validations": validations, "matchConditions": conditions});
    let selector = json!({"matchLabels": {"checked": "yes"}});
    let fixture = bound(spec, json!({"matchResources": {"objectSelector": selector}})).await;
    assert_eq!(create(&fixture, "x", json!({})).await.code, 201);
    let labelled = json!({"metadata": {"name": "y", "labels": {"checked": "yes"}}}).to_string();
    denied(&fixture.send("POST", MAPS, &labelled).await, 422, "failed expression: false");
    let carol = [("impersonate-user", "carol"), ("impersonate-group", "system:masters")];
    let reply = fixture.send_as("POST", MAPS, "application/json", labelled.as_bytes(), &carol).await;
    assert_eq!(reply.code, 201, "{}", reply.text);
}

#[tokio::test]
async fn warnings_are_told() {
    let fixture =
        bound(json!({"validations": [{"expression": "false"}]}), json!({"validationActions": ["Warn", "Audit"]})).await;
    let reply = create(&fixture, "x", json!({})).await;
    assert_eq!(reply.code, 201);
    let told = reply.headers.get("warning").unwrap().to_str().unwrap();
    let text = "Validation failed for ValidatingAdmissionPolicy 'p' with binding 'b': failed expression: false";
    assert_eq!(told, format!("299 - \"{text}\""));
}

#[tokio::test]
async fn params_come_from_the_binding() {
    let expression = "object.metadata.name.startsWith(params.metadata.labels.prefix)";
    let kind = json!({"apiVersion": "v1", "kind": "Secret"});
    let spec = json!({"paramKind": kind, "validations": [{"expression": expression}]});
    let reference = json!({"paramRef": {"name": "limits", "namespace": "default", "parameterNotFoundAction": "Deny"}});
    let fixture = bound(spec, reference).await;
    let reply = create(&fixture, "x", json!({})).await;
    denied(
        &reply,
        422,
        "failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction",
    );
    let secret = json!({"metadata": {"name": "limits", "labels": {"prefix": "ok"}}});
    fixture.ok("POST", "/api/v1/namespaces/default/secrets", &secret.to_string()).await;
    fixture.ok("GET", "/api/v1/namespaces/default/secrets/limits", "").await;
    let reply = create(&fixture, "ok-1", json!({})).await;
    assert_eq!(reply.code, 201, "{}", reply.text);
    denied(&create(&fixture, "x", json!({})).await, 422, &format!("failed expression: {expression}"));
}

#[tokio::test]
async fn the_authorizer_and_the_namespace_are_there() {
    let check = "authorizer.group('').resource('secrets').namespace('default').check('get').allowed()";
    let namespace = "namespaceObject.metadata.name == request.namespace";
    let own = "authorizer.requestResource.check('create').allowed()";
    let validations = json!([{"expression": check}, {"expression": namespace}, {"expression": own}]);
    let fixture = bound(json!({"validations": validations}), json!({})).await;
    assert_eq!(create(&fixture, "x", json!({})).await.code, 201);
}

#[tokio::test]
async fn equivalent_resources_match_in_the_version_of_the_rule() {
    let rule =
        json!({"apiGroups": ["autoscaling"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["*"]});
    let spec = json!({
        "matchConstraints": {"resourceRules": [rule]},
        "validations": [{"expression": "object.spec.targetCPUUtilizationPercentage == 50 && request.kind.version == 'v1' && request.requestKind.version == 'v2'"}],
    });
    let fixture = bound(spec, json!({})).await;
    let create = async |name: &str, percent: u8| {
        let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"});
        let metric = json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": percent}}});
        let body = json!({"metadata": {"name": name}, "spec": {"maxReplicas": 2, "scaleTargetRef": target, "metrics": [metric]}});
        fixture
            .send("POST", "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers", &body.to_string())
            .await
    };
    let reply = create("x", 50).await;
    assert_eq!(reply.code, 201, "{}", reply.text);
    assert_eq!(create("y", 60).await.code, 422);
}

#[tokio::test]
async fn mistakes_are_refused() {
    let fixture = Fixture::start().await;
    let rule = json!({"apiGroups": [""], "apiVersions": ["v1"], "operations": ["*"], "resources": ["configmaps"]});
    let check = async |change: Value, expect: &str| {
        let mut policy = json!({"metadata": {"name": "p"}, "spec": {"matchConstraints": {"resourceRules": [rule]}, "validations": [{"expression": "true"}]}});
        merge(&mut policy["spec"], change);
        let reply = fixture.send("POST", POLICIES, &policy.to_string()).await;
        assert_eq!(reply.code, 422, "{}", reply.text);
        let message = reply.json["message"].as_str().unwrap();
        assert!(message.contains(expect), "{message}");
    };
    let of = |expression: &str| json!({"validations": [{"expression": expression}]});
    check(of("1"), "spec.validations[0].expression: Invalid value: \"1\": must evaluate to bool").await;
    check(of("object.x"), "must evaluate to bool").await;
    check(
        of("foo"),
        "compilation failed: ERROR: <input>:1:1: undeclared reference to 'foo' (in container '')\n | foo\n | ^",
    )
    .await;
    check(of("params.x == 1"), "undeclared reference to 'params'").await;
    check(of("request.foo == 1"), "undefined field 'foo'").await;
    check(json!({"matchConstraints": null}), "spec.matchConstraints: Required value").await;
    check(
        json!({"validations": []}),
        "spec.validations: Required value: validations or auditAnnotations must contain at least one item",
    )
    .await;
    check(
        json!({"variables": [{"name": "a.b", "expression": "1"}]}),
        "spec.variables[0].name: Invalid value: \"a.b\": must be a valid CEL identifier",
    )
    .await;
}

#[tokio::test]
async fn expressions_see_whole_objects() {
    let managers = |object: &str| format!("string({object} == null ? 0 : {object}.metadata.managedFields.size())");
    let message = format!("request.operation + ' ' + {} + {}", managers("object"), managers("oldObject"));
    let validations = json!([{"expression": "false", "messageExpression": message}]);
    let selector = json!({"matchLabels": {"checked": "yes"}});
    let spec = json!({"validations": validations});
    let fixture = bound(spec, json!({"matchResources": {"objectSelector": selector}})).await;
    assert_eq!(create(&fixture, "x", json!({"a": "1"})).await.code, 201);
    let target = format!("{MAPS}/x?fieldManager=second");
    let checked = json!({"metadata": {"labels": {"checked": "yes"}}}).to_string();
    denied(&fixture.send("PATCH", &target, &checked).await, 422, "UPDATE 21");
    let labelled = json!({"metadata": {"name": "y", "labels": {"checked": "yes"}}}).to_string();
    denied(&fixture.send("POST", MAPS, &labelled).await, 422, "CREATE 10");
    fixture.ok("DELETE", &format!("{BINDINGS}/b"), "").await;
    fixture.ok("GET", BINDINGS, "").await;
    fixture.ok("PATCH", &target, &checked).await;
    let binding = json!({"metadata": {"name": "b"}, "spec": {"policyName": "p", "validationActions": ["Deny"]}});
    fixture.ok("POST", BINDINGS, &binding.to_string()).await;
    fixture.ok("GET", BINDINGS, "").await;
    denied(&fixture.send("DELETE", &format!("{MAPS}/x"), "").await, 422, "DELETE 02");
}
