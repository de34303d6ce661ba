use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;

fn entry(name: &str) -> ClusterEntry {
    ClusterEntry {
        name: name.into(),
        server: "https://127.0.0.1:6443".into(),
        ca: b"CA".to_vec(),
        client_certificate: b"CERT".to_vec(),
        client_key: b"KEY".to_vec(),
    }
}

const OTHERS: &str = "\
apiVersion: v1
kind: Config
x-extra: [1, two]
current-context: work
clusters:
- name: work
  cluster: {server: 'https://work', proxy-url: 'http://p', certificate-authority: ca.pem}
contexts:
- name: work
  context: {cluster: work, user: me, namespace: ns}
users:
- name: me
  user: {exec: {command: login}, token: t}
";

#[test]
fn nothing_of_others_is_lost_and_all_is_restored() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config");
    fs::write(&path, OTHERS).unwrap();
    fs::write(folder.path().join("ca.pem"), "WORK").unwrap();
    let paths = [path.clone()];
    let before = Kubeconfig::edit(&paths, |config| config.upsert(&entry("oxikube"))).unwrap();
    assert_eq!(before, Before { current_context: Some("work".into()), ..Before::default() });
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let config = Kubeconfig::load(&paths).unwrap();
    assert_eq!(config.current_context(), Some("oxikube"));
    let access = config.access(None).unwrap();
    assert_eq!((access.server.as_str(), &*access.ca), ("https://127.0.0.1:6443", &b"CA"[..]));
    assert_eq!(access.identity.unwrap().1, b"KEY");
    assert_eq!(config.access(Some("work")).unwrap().ca, b"WORK");
    assert_eq!((config.namespace(Some("work")), config.namespace(None)), ("ns".into(), "default".into()));

    let again = Kubeconfig::edit(&paths, |config| config.upsert(&entry("oxikube"))).unwrap();
    assert_eq!(again.current_context, None, "its own name is not what was before");
    Kubeconfig::edit(&paths, |config| config.remove("oxikube", &before)).unwrap();
    let parse = |text: &str| serde_yaml_ng::from_str::<Yaml>(text).unwrap();
    assert_eq!(parse(&fs::read_to_string(&path).unwrap()), parse(OTHERS));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "no lock and no copy is left");
}

#[test]
fn what_was_created_goes_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(".kube/config");
    let paths = [path.clone()];
    let before = Kubeconfig::edit(&paths, |config| config.upsert(&entry("a"))).unwrap();
    assert_eq!(before.created.as_ref(), Some(&path));
    Kubeconfig::edit(&paths, |config| config.upsert(&entry("b"))).unwrap();
    Kubeconfig::edit(&paths, |config| config.remove("a", &before)).unwrap();
    assert_eq!(Kubeconfig::load(&paths).unwrap().current_context(), Some("b"), "another's entry keeps the file");
    Kubeconfig::edit(&paths, |config| config.remove("b", &before)).unwrap();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_renewal_changes_only_the_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let paths = [folder.path().join("config")];
    fs::write(&paths[0], OTHERS).unwrap();
    Kubeconfig::edit(&paths, |config| config.upsert(&entry("a"))).unwrap();
    Kubeconfig::edit(&paths, |config| config.set_current_context("work")).unwrap();
    let fresh = ClusterEntry { client_certificate: b"FRESH".to_vec(), ..entry("a") };
    Kubeconfig::edit(&paths, |config| config.renew(&fresh)).unwrap();
    let config = Kubeconfig::load(&paths).unwrap();
    assert_eq!(config.client_certificate("a").as_deref(), Some(&b"FRESH"[..]));
    assert_eq!((config.client_certificate("me"), config.current_context()), (None, Some("work")));
}

#[test]
fn of_several_files_each_entry_stays_in_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let paths = [folder.path().join("missing"), folder.path().join("one"), folder.path().join("two")];
    fs::write(&paths[1], "contexts: []\n").unwrap();
    fs::write(&paths[2], format!("{OTHERS}- name: oxikube\n  user: {{keep: me, client-key-data: b2xk}}\n")).unwrap();
    let before = Kubeconfig::edit(&paths, |config| config.upsert(&entry("oxikube"))).unwrap();
    assert_eq!(before.current_context.as_deref(), Some("work"));
    let read = |path: &PathBuf| serde_yaml_ng::from_str::<Yaml>(&fs::read_to_string(path).unwrap()).unwrap();
    assert!(!paths[0].exists());
    assert_eq!(read(&paths[1])["clusters"][0]["name"], "oxikube");
    let two = read(&paths[2]);
    assert_eq!(two["users"][1]["user"]["keep"], "me");
    assert_eq!(two["users"][1]["user"]["client-key-data"], "S0VZ");
    assert_eq!(two["current-context"], "oxikube", "where a current context was");
}

#[test]
fn what_is_wrong_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config");
    let check = |text: &str, context: Option<&str>, expect: &str| {
        fs::write(&path, text).unwrap();
        let error =
            Kubeconfig::load(std::slice::from_ref(&path)).and_then(|config| config.access(context)).unwrap_err();
        assert!(error.to_string().contains(expect), "{error}");
    };
    check("", None, "no current context");
    check("a: [", None, "is not YAML");
    check("- a", None, "is no mapping");
    check("current-context: x", None, "no context \"x\"");
    check("contexts: [{name: x, context: {cluster: c}}]", Some("x"), "no cluster \"c\"");
    check(
        "{contexts: [{name: x, context: {cluster: c}}], clusters: [{name: c, cluster: {certificate-authority-data: '?'}}]}",
        Some("x"),
        "is not base64",
    );
    fs::write(folder.path().join("config.lock"), "").unwrap();
    let locked = Kubeconfig::edit(&[path], |_| ()).unwrap_err();
    assert!(matches!(locked, KubeconfigError::Locked { .. }));
}
