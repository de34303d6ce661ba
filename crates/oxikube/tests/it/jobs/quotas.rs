//! Quotas, and ranges of what containers may ask for.

use serde_json::Value;
use testkit::machine::Machine;

use super::IMAGE;
use crate::support::{SOON, jsonpath, until_pods_may_come};

pub fn a_quota(machine: &Machine) {
    machine.kubectl("create namespace limited").ok();
    until_pods_may_come(machine, "limited");
    machine.kubectl("-n limited create quota q --hard=pods=2,requests.cpu=1,count/configmaps=3").ok();
    let used = || jsonpath(machine, "-n limited quota q", "{.status.used.pods}/{.status.used.requests\\.cpu}");
    machine.eventually("it is counted", SOON, || (used() == "0/0").then_some(()));
    let pod = |name: &str, cpu: &str| {
        format!(
            r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"{name}","namespace":"limited"}},"spec":{{"terminationGracePeriodSeconds":0,
            "containers":[{{"name":"c","image":"{IMAGE}","command":["sleep","1000"]{cpu}}}]}}}}"#
        )
    };
    let asks = |cpu: &str| format!(r#","resources":{{"requests":{{"cpu":"{cpu}"}}}}"#);
    let said = machine.kubectl_with("create -f -", &pod("silent", "")).failed();
    let why = r#"pods "silent" is forbidden: failed quota: q: must specify requests.cpu for: c"#;
    assert!(said.contains(why), "{said}");
    machine.kubectl_with("create -f -", &pod("one", &asks("600m"))).ok();
    assert_eq!(used(), "1/600m");
    let said = machine.kubectl_with("create -f -", &pod("two", &asks("500m"))).failed();
    let why = r#"pods "two" is forbidden: exceeded quota: q, requested: requests.cpu=500m, used: requests.cpu=600m, limited: requests.cpu=1"#;
    assert!(said.contains(why), "{said}");
    machine.kubectl("-n limited delete pod one").ok();
    machine.eventually("it is given back", SOON, || (used() == "0/0").then_some(()));
    // Twenty at once: two fit.
    let names: Vec<String> = (0..20).map(|n| format!("race{n}")).collect();
    let made: usize = std::thread::scope(|scope| {
        let makes = |name: &String| {
            let body = pod(name, &asks("10m"));
            scope.spawn(move || usize::from(machine.kubectl_with("create -f -", &body).code == Some(0)))
        };
        let all: Vec<_> = names.iter().map(makes).collect();
        all.into_iter().map(|made| made.join().unwrap()).sum()
    });
    assert_eq!((made, used()), (2, "2/20m".to_owned()));
    machine.kubectl("delete namespace limited --wait=false").ok();
}

/// What the quotas of the namespace say is used, and how many of what they count there are; both at one revision.
fn counted(machine: &Machine) -> (Vec<u64>, u64) {
    let list = |path: &str| -> Value {
        serde_json::from_str(&machine.kubectl(&format!("get --raw /api/v1/namespaces/raced/{path}")).ok()).unwrap()
    };
    let quotas = list("resourcequotas");
    let revision = quotas["metadata"]["resourceVersion"].as_str().unwrap();
    let maps = list(&format!("configmaps?resourceVersion={revision}&resourceVersionMatch=Exact"));
    let used = quotas["items"].as_array().unwrap().iter().flat_map(|quota| quota["status"]["used"].as_object());
    let used = used.flat_map(|used| used.values()).map(|used| used.as_str().unwrap().parse().unwrap());
    (used.collect(), maps["items"].as_array().unwrap().len() as u64)
}

/// Many make and delete what three quotas count: none is exceeded at any time, none counts less than there is, and in the end all are right.
pub fn a_race_for_several_quotas(machine: &Machine) {
    machine.kubectl("create namespace raced").ok();
    let hard = ["count/configmaps=17", "configmaps=18", "configmaps=17,count/configmaps=20"];
    for (name, hard) in ["a", "b", "c"].into_iter().zip(hard) {
        machine.kubectl(&format!("-n raced create quota {name} --hard={hard}")).ok();
    }
    let becomes = |what: &str, count: u64| {
        machine.eventually_or(what, SOON, || match counted(machine) {
            (used, there) if used == [count; 4] && there == count => Ok(()),
            other => Err(format!("{other:?}")),
        });
    };
    // The cluster's certificate is one of them.
    becomes("what is there is counted", 1);
    let create = |name: &str| machine.kubectl(&format!("-n raced create configmap {name}"));
    let names: Vec<String> = (0..50).map(|n| format!("m{n}")).collect();
    let made: Vec<&str> = std::thread::scope(|scope| {
        let make = |name| (create(name).code == Some(0)).then_some(name);
        let makers: Vec<_> = names.iter().map(|name| scope.spawn(move || make(name))).collect();
        makers.into_iter().filter_map(|maker| maker.join().unwrap()).collect()
    });
    assert_eq!((made.len(), counted(machine)), (16, (vec![17; 4], 17)));
    // Each is replaced by another as soon as there is room, which each of the others wants too.
    std::thread::scope(|scope| {
        let replace = |own: &[&str]| {
            for name in own {
                machine.kubectl(&format!("-n raced delete configmap {name}")).ok();
                machine.eventually_or("there is room again", SOON, || match create(&format!("again-{name}")) {
                    said if said.code == Some(0) => Ok(()),
                    said if said.err.contains("exceeded quota: ") => Err(said.err),
                    said => panic!("{said:?}"),
                });
            }
        };
        let replacers: Vec<_> = made.chunks(4).map(|own| scope.spawn(move || replace(own))).collect();
        let mut looks = 0;
        while looks < 3 || !replacers.iter().all(|replacer| replacer.is_finished()) {
            let (used, there) = counted(machine);
            assert!(used.iter().all(|used| (there..=17).contains(used)), "{there} are there, {used:?} are counted");
            looks += 1;
        }
    });
    becomes("the counts are right", 17);
    machine.kubectl("-n raced delete configmap --all").ok();
    // Its controller makes the certificate's again.
    becomes("all is given back", 1);
    machine.kubectl("delete namespace raced --wait=false").ok();
}

pub fn a_limit_range(machine: &Machine) {
    machine.kubectl("create namespace ranged").ok();
    until_pods_may_come(machine, "ranged");
    let range = r#"{"apiVersion":"v1","kind":"LimitRange","metadata":{"name":"r","namespace":"ranged"},"spec":{"limits":[{"type":"Container",
        "default":{"cpu":"200m","memory":"64Mi"},"defaultRequest":{"cpu":"100m"},"max":{"cpu":"500m"}}]}}"#;
    machine.kubectl_with("apply -f -", range).ok();
    let pod = |name: &str, cpu: &str| {
        format!(
            r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"{name}","namespace":"ranged"}},"spec":{{"containers":[{{"name":"c","image":"{IMAGE}",
            "resources":{{{cpu}}}}}]}}}}"#
        )
    };
    machine.kubectl_with("create -f -", &pod("plain", "")).ok();
    let resources = jsonpath(machine, "-n ranged pod plain", "{.spec.containers[0].resources}");
    assert_eq!(resources, r#"{"limits":{"cpu":"200m","memory":"64Mi"},"requests":{"cpu":"100m","memory":"64Mi"}}"#);
    let note = jsonpath(machine, "-n ranged pod plain", r"{.metadata.annotations.kubernetes\.io/limit-ranger}");
    assert_eq!(note, "LimitRanger plugin set: cpu, memory request for container c; cpu, memory limit for container c");
    let said = machine.kubectl_with("create -f -", &pod("large", r#""limits":{"cpu":"2"}"#)).failed();
    let why = r#"pods "large" is forbidden: maximum cpu usage per Container is 500m, but limit is 2"#;
    assert!(said.contains(why), "{said}");
    machine.kubectl("delete namespace ranged --wait=false").ok();
}
