//! When a port-forward ends, and when it does not.

use std::io::{Read, Write};

use testkit::machine::Machine;
use testkit::traffic::Forward;

use crate::support::{SOON, jsonpath, load_images, started};

const POD: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: echo}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: oxikube.local/busybox:1
    command: [sh, -c, 'trap "exit 0" TERM; nc -ll -p 9000 -e cat & wait']
    readinessProbe: {tcpSocket: {port: 9000}, periodSeconds: 1}
"#;

#[test]
fn a_port_forward_lives_as_long_as_its_pod() {
    let machine = started("forwards");
    load_images(&machine);
    for websockets in [true, false] {
        machine.kubectl_with("create -f -", POD).ok();
        machine.kubectl("wait --for=condition=Ready pod/echo --timeout=60s").ok();
        let mut command = machine.kubectl_command("port-forward --address=127.0.0.1 pod/echo :9000");
        command.env("KUBECTL_PORT_FORWARD_WEBSOCKETS", websockets.to_string());
        let forward = Forward::start(&machine, command, 1).unwrap();
        echoes(&machine, &forward).unwrap();

        // The container is another one, the pod's network is the same.
        machine.kubectl("exec echo -- kill 1");
        machine.eventually("a restart", SOON, || {
            (jsonpath(&machine, "pod echo", "{.status.containerStatuses[0].restartCount}") == "1").then_some(())
        });
        machine.eventually_or("an echo", SOON, || echoes(&machine, &forward).map_err(|error| error.to_string()));

        // Nobody asks for anything: the end comes by itself, also for the connection that is open.
        let mut open = forward.connect(&machine, 0).unwrap();
        machine.kubectl("delete pod echo").ok();
        let (code, said) = forward.wait().unwrap();
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("lost connection to pod"), "{said}");
        assert_eq!(open.read(&mut [0]).unwrap_or_default(), 0);
    }
}

fn echoes(machine: &Machine, forward: &Forward) -> std::io::Result<()> {
    let mut stream = forward.connect(machine, 0)?;
    stream.write_all(b"hello")?;
    let mut back = [0; 5];
    stream.read_exact(&mut back)?;
    assert_eq!(&back, b"hello");
    Ok(())
}
