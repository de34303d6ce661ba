//! Claims: who makes their volumes, where the data lies, and how long it lasts.

use std::fs;
use std::path::PathBuf;

use testkit::machine::Machine;
use testkit::terminal::Terminal;

use crate::support::{SOON, Step, every, jsonpath, load_images, started};

#[test]
fn data_outlives_pods_and_restarts() {
    let machine = started("claims");
    load_images(&machine);
    let steps: [Step; 6] = [
        ("the class", class),
        ("from the claim to the folder and back", life_of_a_claim),
        ("a volume that is kept", kept_volume),
        ("a claim grows", growing),
        ("a volume of one's own", chosen_volume),
        ("ephemeral volumes", ephemeral),
    ];
    every(&machine, &steps);
    visits(&machine);
}

fn class(machine: &Machine) {
    let row = machine.kubectl("get storageclass --no-headers").ok();
    let words: Vec<&str> = row.split_whitespace().take(6).collect();
    assert_eq!(words, ["oxikube-local", "(default)", "oxikube.io/local", "Delete", "WaitForFirstConsumer", "true"]);
    // Whoever deletes it has their way, also after a restart.
    let before = jsonpath(machine, "storageclass oxikube-local", "{.metadata.uid}");
    machine.kubectl("annotate storageclass oxikube-local mine=yes").ok();
    machine.oxikube("stop").ok();
    machine.oxikube("start").ok();
    assert_eq!(
        jsonpath(machine, "storageclass oxikube-local", "{.metadata.uid} {.metadata.annotations.mine}"),
        format!("{before} yes")
    );
}

fn claim(name: &str, more: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {{name: {name}}},
           spec: {{accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 1Gi}}}}{more}}}}}\n---\n"
    )
}

/// A pod that keeps the claim at /data.
fn pod(name: &str, claim: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{terminationGracePeriodSeconds: 1,
           containers: [{{name: main, image: 'oxikube.local/busybox:1', command: [sleep, '10000'], volumeMounts: [{{name: data, mountPath: /data}}]}}],
           volumes: [{{name: data, persistentVolumeClaim: {{claimName: {claim}}}}}]}}}}\n---\n"
    )
}

fn create(machine: &Machine, what: &str) {
    machine.kubectl_with("create -f -", what).ok();
}

fn is_ready(machine: &Machine, pod: &str) {
    machine.kubectl(&format!("wait --for=condition=Ready pod/{pod} --timeout=60s")).ok();
}

fn phase(machine: &Machine, what: &str) -> String {
    jsonpath(machine, what, "{.status.phase}")
}

fn shell(machine: &Machine, pod: &str, command: &str) {
    machine.kubectl_args(&["exec", pod, "--", "sh", "-c", command]).ok();
}

#[track_caller]
fn becomes(machine: &Machine, what: &str, expect: &str) {
    machine.eventually_or(&format!("{what} is {expect}"), SOON, || match phase(machine, what) {
        phase if phase == expect => Ok(()),
        phase => Err(phase),
    });
}

#[track_caller]
fn is_gone(machine: &Machine, what: &str) {
    machine.eventually(&format!("{what} is gone"), SOON, || {
        machine.kubectl(&format!("get {what} --ignore-not-found")).ok().is_empty().then_some(())
    });
}

#[track_caller]
fn told(machine: &Machine, object: &str, reason: &str) -> String {
    machine.eventually(&format!("{object}: {reason}"), SOON, || {
        let events = format!(
            "get events --field-selector involvedObject.name={object},reason={reason} -o jsonpath={{.items[*].message}}"
        );
        Some(machine.kubectl(&events).ok()).filter(|message| !message.is_empty())
    })
}

fn link(machine: &Machine, claim: &str) -> PathBuf {
    machine.data_dir().join("claims/default").join(claim)
}

fn life_of_a_claim(machine: &Machine) {
    create(machine, &claim("data", ""));
    assert_eq!(
        told(machine, "data", "WaitForFirstConsumer"),
        "waiting for first consumer to be created before binding"
    );
    assert_eq!(phase(machine, "pvc/data"), "Pending");
    assert!(!link(machine, "data").exists());
    create(machine, &pod("writer", "data"));
    is_ready(machine, "writer");
    becomes(machine, "pvc/data", "Bound");
    shell(machine, "writer", "echo kept > /data/file");
    let folder = fs::read_link(link(machine, "data")).unwrap();
    let volume = jsonpath(machine, "pvc data", "{.spec.volumeName}");
    assert_eq!(folder, machine.data_dir().join("volumes").join(&volume));
    assert_eq!(fs::read_to_string(folder.join("file")).unwrap(), "kept\n");
    let row = machine.kubectl(&format!("get pv {volume} --no-headers")).ok();
    let words: Vec<&str> = row.split_whitespace().take(7).collect();
    assert_eq!(words, [&*volume, "1Gi", "RWO", "Delete", "Bound", "default/data", "oxikube-local"]);
    // What is used stays, whoever deletes it.
    machine.kubectl("delete pvc data --wait=false").ok();
    machine.kubectl(&format!("delete pv {volume} --wait=false")).ok();
    let row = machine.kubectl("get pvc data --no-headers").ok();
    assert_eq!(row.split_whitespace().nth(1), Some("Terminating"));
    assert!(folder.join("file").exists());
    machine.kubectl("exec writer -- cat /data/file").ok();
    machine.kubectl("delete pod writer").ok();
    is_gone(machine, "pvc/data");
    is_gone(machine, &format!("pv/{volume}"));
    machine.eventually("the folder is gone", SOON, || (!folder.exists()).then_some(()));
    assert!(!link(machine, "data").is_symlink());
    // The next of its name begins empty.
    create(machine, &(claim("data", "") + &pod("reader", "data")));
    is_ready(machine, "reader");
    assert!(machine.kubectl("exec reader -- cat /data/file").failed().contains("No such file"));
    shell(machine, "reader", "echo again > /data/file");
    // Another pod finds what the first one left.
    machine.kubectl("delete pod reader").ok();
    create(machine, &pod("reader", "data"));
    is_ready(machine, "reader");
    assert_eq!(machine.kubectl("exec reader -- cat /data/file").ok(), "again\n");
    machine.kubectl("delete pod/reader pvc/data").ok();
}

fn kept_volume(machine: &Machine) {
    create(machine, &(claim("keep", "") + &pod("keeper", "keep")));
    is_ready(machine, "keeper");
    shell(machine, "keeper", "echo kept > /data/file");
    let volume = jsonpath(machine, "pvc keep", "{.spec.volumeName}");
    machine
        .kubectl_args(&["patch", "pv", &volume, "-p", r#"{"spec":{"persistentVolumeReclaimPolicy":"Retain"}}"#])
        .ok();
    machine.kubectl("delete pod/keeper pvc/keep").ok();
    becomes(machine, &format!("pv/{volume}"), "Released");
    let folder = machine.data_dir().join("volumes").join(&volume);
    assert_eq!(fs::read_to_string(folder.join("file")).unwrap(), "kept\n");
    // A released volume is nobody's until a person says so.
    create(machine, &(claim("next", &format!(", volumeName: {volume}")) + &pod("next", "next")));
    told(machine, "next", "FailedBinding");
    assert_eq!(phase(machine, "pvc/next"), "Pending");
    machine
        .kubectl_args(&["patch", "pv", &volume, "--type=json", "-p", r#"[{"op":"remove","path":"/spec/claimRef"}]"#])
        .ok();
    becomes(machine, "pvc/next", "Bound");
    is_ready(machine, "next");
    assert_eq!(machine.kubectl("exec next -- cat /data/file").ok(), "kept\n");
    machine
        .kubectl_args(&["patch", "pv", &volume, "-p", r#"{"spec":{"persistentVolumeReclaimPolicy":"Delete"}}"#])
        .ok();
    machine.kubectl("delete pod/next pvc/next").ok();
    is_gone(machine, &format!("pv/{volume}"));
    machine.eventually("the folder is gone", SOON, || (!folder.exists()).then_some(()));
}

fn growing(machine: &Machine) {
    create(machine, &claim("grow", ""));
    let patch = |size: &str| {
        let patch = format!(r#"{{"spec":{{"resources":{{"requests":{{"storage":"{size}"}}}}}}}}"#);
        machine.kubectl_args(&["patch", "pvc", "grow", "-p", &patch])
    };
    assert!(patch("2Gi").failed().contains("spec is immutable after creation except resources.requests"));
    create(machine, &pod("grower", "grow"));
    is_ready(machine, "grower");
    patch("3Gi").ok();
    machine.eventually_or("it has grown", SOON, || match jsonpath(machine, "pvc grow", "{.status.capacity.storage}") {
        size if size == "3Gi" => Ok(()),
        size => Err(size),
    });
    let volume = jsonpath(machine, "pvc grow", "{.spec.volumeName}");
    assert_eq!(jsonpath(machine, &format!("pv {volume}"), "{.spec.capacity.storage}"), "3Gi");
    assert!(patch("1Gi").failed().contains("field can not be less than status.capacity"));
    machine.kubectl("delete pod/grower pvc/grow").ok();
}

fn chosen_volume(machine: &Machine) {
    let folder = machine.folder().join("mine");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("file"), "mine\n").unwrap();
    let volume = |name: &str, label: &str, size: &str| {
        format!(
            "{{apiVersion: v1, kind: PersistentVolume, metadata: {{name: {name}, labels: {{disk: {label}}}}},
               spec: {{capacity: {{storage: {size}}}, accessModes: [ReadWriteOnce], hostPath: {{path: '{}'}}}}}}\n---\n",
            folder.display()
        )
    };
    create(machine, &(volume("mine", "good", "5Gi") + &volume("other", "bad", "1Gi")));
    becomes(machine, "pv/mine", "Available");
    let chosen = ", storageClassName: '', selector: {matchLabels: {disk: good}}";
    create(machine, &(claim("chosen", chosen) + &pod("chooser", "chosen")));
    is_ready(machine, "chooser");
    assert_eq!(jsonpath(machine, "pvc chosen", "{.spec.volumeName} {.status.capacity.storage}"), "mine 5Gi");
    assert_eq!(machine.kubectl("exec chooser -- cat /data/file").ok(), "mine\n");
    machine.kubectl("delete pod/chooser pvc/chosen").ok();
    becomes(machine, "pv/mine", "Released");
    assert_eq!(phase(machine, "pv/other"), "Available");
    machine.kubectl("delete pv mine other").ok();
    assert!(folder.join("file").exists());
}

fn ephemeral(machine: &Machine) {
    let pod = "{apiVersion: v1, kind: Pod, metadata: {name: scratch}, spec: {terminationGracePeriodSeconds: 1,
        containers: [{name: main, image: 'oxikube.local/busybox:1', command: [sleep, '10000'], volumeMounts: [{name: data, mountPath: /data}]}],
        volumes: [{name: data, ephemeral: {volumeClaimTemplate: {spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}}}]}}";
    create(machine, pod);
    is_ready(machine, "scratch");
    becomes(machine, "pvc/scratch-data", "Bound");
    let folder = fs::read_link(link(machine, "scratch-data")).unwrap();
    assert!(folder.exists());
    machine.kubectl("delete pod scratch").ok();
    is_gone(machine, "pvc/scratch-data");
    machine.eventually("the folder is gone", SOON, || (!folder.exists()).then_some(()));
}

/// The count of the example survives everything but its claim's end; then `delete` asks, and keeps the volume when told to.
fn visits(machine: &Machine) {
    let manifests = testkit::example::visits();
    let apply = || {
        machine.kubectl(&format!("apply -f {}", manifests.display())).ok();
        ready(machine);
    };
    apply();
    let first = count(machine);
    assert_eq!(count(machine), first + 1);
    machine.kubectl("delete pod -l component=redis").ok();
    ready(machine);
    let second = count(machine);
    assert!(second > first + 1, "{second} after {first}");
    machine.kubectl("delete deployment redis").ok();
    apply();
    let third = count(machine);
    assert!(third > second, "{third} after {second}");
    machine.oxikube("stop").ok();
    machine.oxikube("start").ok();
    ready(machine);
    let last = count(machine);
    assert!(last > third, "{last} after {third}");
    let folder = fs::read_link(link(machine, "redis-data")).unwrap();

    // One yes is not enough where there is data.
    let said = machine.run({
        let mut command = machine.command("sh");
        let delete = machine.oxikube_command("delete");
        let words: Vec<String> = std::iter::once(delete.get_program())
            .chain(delete.get_args())
            .map(|word| word.to_string_lossy().into_owned())
            .collect();
        command.args(["-c", &format!("echo y | {}", words.join(" "))]);
        command
    });
    assert!(said.out.contains("The volume of default/redis-data holds data."), "{}", said.out);
    assert!(said.failed().contains("nothing was deleted"));
    let mut terminal = Terminal::start(machine, machine.oxikube_command("delete")).unwrap();
    terminal.until("[y/N]", SOON);
    terminal.keys("y\r").unwrap();
    terminal.until("Delete it too (--keep-volumes keeps it)? [y/N]", SOON);
    terminal.keys("n\r").unwrap();
    assert_ne!(terminal.end().unwrap().code, Some(0));
    assert_eq!(count(machine), last + 1);

    let said = machine.oxikube("delete --yes --keep-volumes").ok();
    assert!(said.contains("its volumes are in"), "{said}");
    let kept: Vec<_> = fs::read_dir(machine.data_dir()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(kept.len(), 2, "{kept:?}");
    // A new cluster starts beside it, and leaves it alone; a person gives it to a claim again.
    machine.oxikube("start").ok();
    load_images(machine);
    assert!(folder.join("appendonlydir").exists());
    let node = jsonpath(machine, "nodes", "{.items[0].metadata.name}");
    create(
        machine,
        &format!(
            "{{apiVersion: v1, kind: PersistentVolume, metadata: {{name: rescued}}, spec: {{capacity: {{storage: 2Gi}}, accessModes: [ReadWriteOnce],
               storageClassName: oxikube-local, local: {{path: '{}'}}, claimRef: {{namespace: default, name: redis-data}},
               nodeAffinity: {{required: {{nodeSelectorTerms: [{{matchExpressions: [{{key: kubernetes.io/hostname, operator: In, values: [{node}]}}]}}]}}}}}}}}",
            folder.display()
        ),
    );
    apply();
    assert!(count(machine) > last + 1);
    machine.oxikube("delete --yes").ok();
    assert!(!folder.exists());
}

fn ready(machine: &Machine) {
    for name in ["redis", "frontend"] {
        machine.kubectl(&format!("rollout status deployment/{name} --timeout=60s")).ok();
    }
}

/// The page's count of its visits.
fn count(machine: &Machine) -> u64 {
    machine.eventually_or("the page", SOON, || {
        let body = machine.get("http://127.0.0.1:30080/").map_err(|error| error.to_string())?;
        let rest = body.split_once("visits: ").map(|(_, rest)| rest).ok_or_else(|| body.clone())?;
        rest.split(' ').next().and_then(|count| count.parse().ok()).ok_or_else(|| body.clone())
    })
}
