//! Rollouts, scaling and a daemon that dies, under a steady load: not one request is lost.

pub mod load;

use testkit::machine::Machine;

use self::load::{Load, Lost};
use crate::support::{SOON, Step, jsonpath, kill_daemon, load_images, started};

/// Each connection to 9000 is served by a shell of its own, request after request; 8080 closes after each. `preStop` leaves everybody
/// the time to hear that the pod goes.
const WEB: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: programs}
data:
  serve: |
    #!/bin/sh
    while IFS= read -r line; do
      [ "$line" = "$(printf '\r')" ] || continue
      printf 'HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s' ${#HOSTNAME} $HOSTNAME
    done
  ask: |
    #!/bin/sh
    while sleep 0.05; do
      said=$(wget -q -O - http://web/ 2>&1) || echo "$(date +%T) lost: $said" >>/lost
      echo asked >>/asked
    done
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 20
      containers:
      - name: main
        image: oxikube.local/busybox:1
        command: [sh, -c, 'mkdir /www; hostname >/www/index.html; httpd -p 8080 -h /www; exec nc -ll -p 9000 -e /programs/serve']
        readinessProbe: {httpGet: {port: 8080, path: /}, periodSeconds: 1}
        lifecycle: {preStop: {sleep: {seconds: 3}}}
        volumeMounts: [{name: programs, mountPath: /programs}]
      volumes: [{name: programs, configMap: {name: programs, defaultMode: 0755}}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: NodePort
  selector: {app: web}
  ports:
  - {name: once, port: 80, targetPort: 8080}
  - {name: kept, port: 9000}
---
apiVersion: v1
kind: Pod
metadata: {name: asks}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: oxikube.local/busybox:1
    command: [sh, /programs/ask]
    readinessProbe: {exec: {command: [test, -e, /asked]}, periodSeconds: 1}
    volumeMounts: [{name: programs, mountPath: /programs}]
  volumes: [{name: programs, configMap: {name: programs}}]
"#;

#[test]
fn no_request_is_lost() {
    let machine = started("lossless");
    load_images(&machine);
    machine.kubectl_with("create -f -", WEB).ok();
    rolled_out(&machine);
    let [cluster, once, kept] = ["{.spec.clusterIP}", "{.spec.ports[0].nodePort}", "{.spec.ports[1].nodePort}"]
        .map(|path| jsonpath(&machine, "service web", path));
    let node = jsonpath(&machine, "nodes", "{.items[0].status.addresses[?(@.type==\"InternalIP\")].address}");
    machine.kubectl("wait --for=condition=Ready pod/asks --timeout=60s").ok();
    let loads = [
        Load::once(&machine, &format!("{cluster}:80")),
        Load::once(&machine, &format!("{node}:{once}")),
        Load::once(&machine, &format!("127.0.0.1:{once}")),
        Load::kept(&machine, &format!("{cluster}:9000")),
        Load::kept(&machine, &format!("{node}:{kept}")),
    ];
    let asked_in_pod = || machine.kubectl("exec asks -- cat /asked").ok().lines().count();
    let steps: [Step; 6] = [
        ("rollout restart", restart),
        ("up", |machine| scale(machine, 6)),
        ("down", |machine| scale(machine, 2)),
        ("the daemon dies", |machine| {
            kill_daemon(machine);
            machine.oxikube("start").ok();
        }),
        ("rollout restart of a daemon that adopted its pods", restart),
        ("the daemon dies during a rollout", |machine| {
            machine.kubectl("rollout restart deployment/web").ok();
            kill_daemon(machine);
            machine.oxikube("start").ok();
            rolled_out(machine);
        }),
    ];
    let mut lost: Vec<(&str, Lost)> = Vec::new();
    for (what, step) in steps {
        let before = asked_in_pod();
        step(&machine);
        // Whatever the step left behind shows.
        machine.eventually("more requests", SOON, || (asked_in_pod() > before + 20).then_some(()));
        lost.extend(loads.iter().flat_map(Load::lost).map(|lost| (what, lost)));
    }
    let in_pod = machine.kubectl("exec asks -- cat /lost");
    let asked: Vec<usize> = loads.into_iter().map(Load::end).collect();
    println!("{asked:?} requests from the node, {} from a pod", asked_in_pod());
    assert!(lost.is_empty(), "{lost:#?}");
    assert_ne!(in_pod.code, Some(0), "{}", in_pod.out);
    assert!(asked.iter().all(|asked| *asked > 400), "{asked:?}");
}

fn rolled_out(machine: &Machine) {
    machine.kubectl("rollout status deployment/web --timeout=120s").ok();
    // The old ones too have ended.
    let wanted = jsonpath(machine, "deployment web", "{.spec.replicas}");
    machine.eventually_or("only the pods that are wanted", SOON, || {
        let pods = jsonpath(machine, "pods -l app=web", "{.items[*].metadata.name}");
        if pods.split_whitespace().count().to_string() == wanted { Ok(()) } else { Err(pods) }
    });
}

fn restart(machine: &Machine) {
    machine.kubectl("rollout restart deployment/web").ok();
    rolled_out(machine);
}

fn scale(machine: &Machine, replicas: u32) {
    machine.kubectl(&format!("scale deployment/web --replicas={replicas}")).ok();
    rolled_out(machine);
}
