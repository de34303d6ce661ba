//! Ours against upstream's own types, for every kind: the same JSON, the same protobuf, the same words for what is wrong.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use api::protobuf;
use apimachinery::Value;
use apimachinery::schema::Type;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value as Json, json};

use crate::populate::{difference, every_kind, hollow, populated};

/// Asks Go; one answer for each question.
fn ask(questions: &[Json]) -> Vec<Json> {
    let oracle = testkit::peers::path("types");
    let mut child = Command::new(&oracle)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}", oracle.display()));
    let lines: String = questions.iter().map(|question| format!("{question}\n")).collect();
    let mut input = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || input.write_all(lines.as_bytes()).unwrap());
    let output = BufReader::new(child.stdout.take().unwrap());
    let answers = output.lines().map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect();
    writer.join().unwrap();
    assert!(child.wait().unwrap().success());
    answers
}

fn question(api_version: &str, kind: &str, json: &str) -> Json {
    json!({"apiVersion": api_version, "kind": kind, "json": json})
}

fn decoded(ty: Type<'static>, json: &str) -> Value {
    ty.decode(json.as_bytes()).unwrap().value
}

#[test]
fn every_kind_is_as_upstreams() {
    let mut questions = Vec::new();
    let mut cases = Vec::new();
    for (api_version, kind, ty) in every_kind() {
        let full = populated(ty, &api_version, &kind);
        let head = match ty.field("apiVersion") {
            Some(_) => json!({"apiVersion": api_version, "kind": kind}).to_string(),
            None => "{}".to_owned(),
        };
        for json in [full.to_string(), hollow(ty, &api_version, &kind).to_string(), head] {
            let ours = decoded(ty, &json);
            questions.push(question(&api_version, &kind, &json));
            cases.push((ty, format!("{api_version} {kind}"), ours.clone()));
            if let Ok(message) = protobuf::encode_as(ty, &ours) {
                questions.push(json!({"apiVersion": api_version, "kind": kind, "protobuf": STANDARD.encode(message)}));
                cases.push((ty, format!("{api_version} {kind} from protobuf"), ours));
            }
        }
    }
    let mut compared = 0;
    let mut wrong = Vec::new();
    for ((ty, name, ours), answer) in cases.into_iter().zip(ask(&questions)) {
        if answer["unknown"] == true {
            continue;
        }
        assert_eq!(answer.get("error").or(answer.get("problems")), None, "{name}");
        let theirs = Value::from(answer["json"].clone());
        wrong.extend(difference(&ours, &theirs, "").map(|difference| format!("{name}: {difference}")));
        if let Some(message) = answer["protobuf"].as_str() {
            let message = protobuf::decode_as(ty, &STANDARD.decode(message).unwrap()).unwrap();
            wrong.extend(difference(&message.value, &ours, "").map(|difference| format!("{name}, Go's: {difference}")));
        }
        compared += 1;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(compared > 700, "only {compared} were compared");
}

#[test]
fn wrong_bodies_are_told_in_the_same_words() {
    let cases: &[(&str, &str, &[&str])] = &[
        (
            "apps/v1",
            "Deployment",
            &[
                r#"{"spec":{"replicas":"3"}}"#,
                r#"{"spec":{"replicas":1.5}}"#,
                r#"{"spec":{"replicas":1.0}}"#,
                r#"{"spec":{"replicas":99999999999}}"#,
                r#"{"spec":{"strategy":{"rollingUpdate":{"maxSurge":1.5}}}}"#,
                r#"{"spec":{"strategy":{"rollingUpdate":{"maxSurge":true}}}}"#,
            ],
        ),
        (
            "v1",
            "Pod",
            &[
                r#"{"metadata":{"labels":{"a":1}}}"#,
                r#"{"metadata":{"labels":["a"]}}"#,
                r#"{"metadata":{"creationTimestamp":"soon"}}"#,
                r#"{"metadata":{"creationTimestamp":5}}"#,
                r#"{"metadata":"x"}"#,
                "[]",
                r#""x""#,
                "",
                r#"{"spec":"#,
                r#"{"spec":{"containers":[{"args":[1]}]}}"#,
                r#"{"spec":{"containers":[{"env":[{"name":"a","value":1}]}]}}"#,
                r#"{"spec":{"containers":{"name":1}}}"#,
                r#"{"spec":{"containers":[{"resources":{"limits":{"cpu":"one"}}}]}}"#,
                r#"{"spec":{"containers":[{"resources":{"limits":{"cpu":{}}}}]}}"#,
                r#"{"spec":{"containers":[{"resources":{"limits":["x"]}}]}}"#,
                r#"{"spec":{"restartPolicy":1}}"#,
                r#"{"spec":{"foo":1,"containers":[{"name":"a","name":"b","x":{"y":1}}]},"metadata":{"labels":{"a":"1","a":"2"}},"Kind":"x"}"#,
                r#"{"metadata":{"labels":{"a":null},"finalizers":[null]}}"#,
            ],
        ),
        ("v1", "Secret", &[r#"{"data":{"a":"?"}}"#, r#"{"data":{"a":1}}"#, r#"{"data":"x"}"#]),
        ("v1", "Service", &[r#"{"spec":{"ports":[{"targetPort":[]}]}}"#, r#"{"spec":{"selector":{"a":true}}}"#]),
        ("policy/v1", "PodDisruptionBudget", &[r#"{"spec":{"minAvailable":3000000000}}"#]),
    ];
    let asked = cases
        .iter()
        .flat_map(|(api_version, kind, bodies)| bodies.iter().map(move |body| (*api_version, *kind, *body)));
    let asked: Vec<_> = asked.collect();
    let questions: Vec<Json> =
        asked.iter().map(|(api_version, kind, body)| question(api_version, kind, body)).collect();
    for ((api_version, kind, body), answer) in asked.into_iter().zip(ask(&questions)) {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let ours = match api::type_of(group, version, kind).unwrap().decode(body.as_bytes()) {
            Err(error) => json!(error.to_string()),
            Ok(decoded) if decoded.problems.is_empty() => Json::Null,
            Ok(decoded) => json!(decoded.problems.iter().map(ToString::to_string).collect::<Vec<_>>()),
        };
        let theirs = answer.get("error").or(answer.get("problems")).cloned().unwrap_or_default();
        assert_eq!(ours, theirs, "{body}");
    }
}

#[test]
fn scalars_have_the_same_canonical_form() {
    // Go keeps a few odd spellings of whole numbers, such as `+5` and `007`, until something is done with them.
    let quantities = [
        "0",
        "1",
        "-1",
        "1.5",
        "0.5",
        ".5",
        "100m",
        "1000m",
        "1500m",
        "0.1m",
        "1n",
        "0.0000000001",
        "1k",
        "1000k",
        "1024",
        "1Ki",
        "1024Ki",
        "1.5Gi",
        "0.5Mi",
        "1536Mi",
        "1e3",
        "1e-3",
        "12e6",
        "1Ei",
        "8Ei",
        "1E",
        "123456789012345678901234567890",
        "9223372036854775807",
        "1.000",
        "1M",
        "1000M",
        "2500u",
        "3.14159265358979",
        "1.1Ki",
        "0.001",
        "100Ki",
        "",
        " 1",
        "1 ",
        "1mm",
        "m",
        "1KiB",
        "--1",
        "1,5",
        "0x10",
        "1e",
        "1.2.3",
        "1K",
    ];
    let times = [
        "2024-05-01T10:00:00Z",
        "2024-05-01T12:00:00+02:00",
        "2024-05-01T10:00:00.999Z",
        "1969-12-31T23:59:59Z",
        "0001-01-01T00:00:00Z",
        "2024-05-01T10:00:00.5+00:00",
        "2024-02-30T00:00:00Z",
        "2024-05-01T24:00:00Z",
        "2024-05-01t10:00:00z",
        "2024-05-01T10:00:60Z",
        "2024-05-01T10:00:00",
        "2024-05-01T10:00:00,5Z",
        "9999-12-31T23:59:59Z",
        "2024-5-1T10:00:00Z",
    ];
    let quantities = quantities.map(|text| json!({"spec": {"overhead": {"cpu": text}}}));
    let numbers =
        [json!(1), json!(0.1), json!(1e3), json!(-2.5)].map(|number| json!({"spec": {"overhead": {"cpu": number}}}));
    let times = times.map(|text| json!({"metadata": {"creationTimestamp": text}}));
    let bodies: Vec<String> = quantities.into_iter().chain(numbers).chain(times).map(|body| body.to_string()).collect();
    let questions: Vec<Json> = bodies.iter().map(|body| question("v1", "Pod", body)).collect();
    let ty = api::type_of("", "v1", "Pod").unwrap();
    let mut wrong = Vec::new();
    for (body, answer) in bodies.iter().zip(ask(&questions)) {
        let ours = ty.decode(body.as_bytes()).map(|decoded| decoded.value.to_string()).unwrap_or("refused".to_owned());
        let theirs = match answer.get("error") {
            Some(_) => "refused".to_owned(),
            None => Value::from(answer["json"].clone()).to_string(),
        };
        if ours != theirs {
            wrong.push(format!("{body}\n  ours   {ours}\n  theirs {theirs}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
