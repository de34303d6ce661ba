//! Certificates that live for seconds: whatever outlives them works on.

use std::fs;

use client::Kubeconfig;
use testkit::machine::Machine;

use crate::support::{SOON, jsonpath, load_images};

#[test]
fn every_certificate_is_renewed_while_the_daemon_runs() {
    let machine = Machine::new("renewal", env!("CARGO_BIN_EXE_oxikube"));
    let begin = env::Env::system().monotonic();
    machine.oxikube("start --certificate-lifetime 20s").ok();
    let kept = machine.folder().join(".kube/config");
    let old = machine.folder().join("old");
    fs::copy(&kept, &old).unwrap();
    let certificates = || {
        let names = ["admin", "apiserver", "apiserver-kubelet-client", "kubelet"];
        names.map(|name| fs::read_to_string(machine.data_dir().join(format!("pki/{name}.pem"))).unwrap())
    };
    let first = certificates();
    load_images(&machine);
    machine.kubectl("run one --image=oxikube.local/busybox:1 --command -- sleep 1000").ok();
    machine.kubectl("wait --for=condition=Ready pod/one --timeout=60s").ok();
    // The entry is edited where it is: what a person did to it stays.
    machine.kubectl(&format!("config set-context {} --namespace=kube-system", machine.name())).ok();

    let refused = format!("--kubeconfig={} get nodes", old.display());
    machine.eventually_or("the old certificate's end", SOON, || {
        let said = machine.kubectl(&refused);
        if said.err.contains("Unauthorized") { Ok(()) } else { Err(said.out + &said.err) }
    });
    println!("the first certificate ended after {:?}", env::Env::system().monotonic() - begin);
    // Each of those that the cluster began with has ended by now: server, admin, and both sides of what asks the kubelet.
    assert!(certificates().iter().zip(&first).all(|(now, first)| now != first));
    assert_eq!(jsonpath(&machine, "nodes", "{.items[*].status.conditions[?(@.type==\"Ready\")].status}"), "True");
    machine.kubectl("-n default logs one").ok();
    assert!(machine.kubectl("config view --minify").ok().contains("namespace: kube-system"));

    // Somebody's own credentials in the entry are left alone.
    machine.kubectl(&format!("config unset users.{}", machine.name())).ok();
    machine.kubectl(&format!("config set-credentials {} --token=mine", machine.name())).ok();
    let text = fs::read_to_string(&kept).unwrap();
    let log = machine.data_dir().join("log/daemon.log");
    machine.eventually("another renewal", SOON, || {
        fs::read_to_string(&log)
            .unwrap()
            .contains("the kubeconfig's entry is not this cluster's any more")
            .then_some(())
    });
    assert_eq!(fs::read_to_string(&kept).unwrap(), text);
    assert_eq!(Kubeconfig::load(&[kept]).unwrap().client_certificate(machine.name()), None);
}
