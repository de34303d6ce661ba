use std::os::unix::fs::{MetadataExt, PermissionsExt};

use serde_json::{Value as Json, json};

use super::*;

/// A kubelet's folder that is unmounted and removed at the end.
struct Root(tempfile::TempDir);

impl Root {
    fn new() -> Root {
        Root(tempfile::tempdir().unwrap())
    }

    fn set_up(&self, volume: Json, contents: &Contents) -> Result<Mounted, VolumeError> {
        self.set_up_with(volume, json!({}), contents)
    }

    fn set_up_with(&self, mut volume: Json, context: Json, contents: &Contents) -> Result<Mounted, VolumeError> {
        volume["name"] = json!("v");
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "ns", "uid": "u-1", "labels": {"app": "web"}},
            "spec": {"securityContext": context, "volumes": [volume], "containers": [{"name": "c"}]},
        }))
        .unwrap();
        let mut mounted = set_up(self.0.path(), &pod, &Situation::default(), contents)?;
        Ok(mounted.remove("v").unwrap())
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        tear_down(self.0.path(), "u-1").unwrap();
    }
}

fn contents() -> Contents {
    let config_map =
        serde_json::from_value(json!({"data": {"a": "1", "b": "2"}, "binaryData": {"c": "AAE="}})).unwrap();
    let secret = serde_json::from_value(json!({"data": {"p": "c2VjcmV0"}})).unwrap();
    Contents {
        config_maps: [("cm".to_owned(), config_map)].into(),
        secrets: [("s".to_owned(), secret)].into(),
        tokens: [(("v".to_owned(), "token".to_owned()), "jwt".to_owned())].into(),
        ..Contents::default()
    }
}

fn text(mounted: &Mounted, path: &str) -> String {
    fs::read_to_string(mounted.path.join(path)).unwrap()
}

fn mode(mounted: &Mounted, path: &str) -> u32 {
    fs::metadata(mounted.path.join(path)).unwrap().permissions().mode() & 0o7777
}

#[test]
fn config_maps_become_files() {
    let root = Root::new();
    let all = root.set_up(json!({"configMap": {"name": "cm"}}), &contents()).unwrap();
    assert_eq!((text(&all, "a").as_str(), text(&all, "b").as_str(), text(&all, "c").as_str()), ("1", "2", "\0\u{1}"));
    assert_eq!(mode(&all, "a"), 0o644);
    let items = json!({"configMap": {"name": "cm", "defaultMode": 0o400, "items":
        [{"key": "a", "path": "d/x"}, {"key": "b", "path": "y", "mode": 0o600}]}});
    let some = root.set_up(items, &contents()).unwrap();
    assert_eq!((text(&some, "d/x").as_str(), mode(&some, "d/x"), mode(&some, "y")), ("1", 0o400, 0o600));
    assert!(!some.path.join("a").exists());
}

#[test]
fn secrets_and_tokens_lie_in_memory() {
    let root = Root::new();
    let secret = root.set_up(json!({"secret": {"secretName": "s"}}), &contents()).unwrap();
    assert_eq!(text(&secret, "p"), "secret");
    assert!(linux::mount::is_mount_point(&secret.path).unwrap());
    let projected = json!({"projected": {"sources": [
        {"serviceAccountToken": {"path": "token"}},
        {"configMap": {"name": "cm", "items": [{"key": "a", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "ns", "fieldRef": {"fieldPath": "metadata.namespace"}}]}}]}});
    let mounted = root.set_up_with(projected, json!({"fsGroup": 4242, "runAsUser": 4243}), &contents()).unwrap();
    assert_eq!(
        (text(&mounted, "token").as_str(), text(&mounted, "ca.crt").as_str(), text(&mounted, "ns").as_str()),
        ("jwt", "1", "ns")
    );
    let token = fs::metadata(mounted.path.join("token")).unwrap();
    assert_eq!((token.uid(), token.gid(), token.mode() & 0o777), (4243, 4242, 0o640));
    tear_down(root.0.path(), "u-1").unwrap();
    assert!(!mounted.path.exists());
}

#[test]
fn missing_sources_are_named() {
    let root = Root::new();
    let check = |volume: Json, expect: &str| {
        let result = root.set_up(volume.clone(), &contents()).map_err(|error| error.to_string());
        let expect = format!("MountVolume.SetUp failed for volume \"v\" : {expect}");
        assert_eq!(result.err(), Some(expect), "{volume}");
    };
    check(json!({"configMap": {"name": "none"}}), "configmap \"none\" not found");
    check(json!({"secret": {"secretName": "none"}}), "secret \"none\" not found");
    check(
        json!({"configMap": {"name": "cm", "items": [{"key": "z", "path": "z"}]}}),
        "references non-existent config key: z",
    );
    check(
        json!({"hostPath": {"path": "/nowhere/at/all", "type": "Directory"}}),
        "hostPath type check failed: /nowhere/at/all is not a directory",
    );
    check(
        json!({"iscsi": {"iqn": "i", "lun": 0, "targetPortal": "p"}}),
        "this kubelet has no volumes of the kind iscsi",
    );
    let optional = root.set_up(json!({"configMap": {"name": "none", "optional": true}}), &contents()).unwrap();
    assert_eq!(
        fs::read_dir(optional.path)
            .unwrap()
            .filter(|e| !e.as_ref().unwrap().file_name().to_string_lossy().starts_with(".."))
            .count(),
        0
    );
}

#[test]
fn empty_dirs_are_for_everybody() {
    let root = Root::new();
    let disk = root.set_up(json!({"emptyDir": {}}), &contents()).unwrap();
    assert_eq!(fs::metadata(&disk.path).unwrap().mode() & 0o7777, 0o777);
    fs::write(disk.path.join("kept"), "1").unwrap();
    assert_eq!(text(&root.set_up(json!({"emptyDir": {}}), &contents()).unwrap(), "kept"), "1");
    tear_down(root.0.path(), "u-1").unwrap();
    let memory = root.set_up_with(
        json!({"emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}),
        json!({"fsGroup": 7}),
        &contents(),
    );
    let memory = memory.unwrap();
    assert!(linux::mount::is_mount_point(&memory.path).unwrap());
    assert_eq!(fs::metadata(&memory.path).unwrap().gid(), 7);
    assert!(fs::write(memory.path.join("big"), vec![0; 2 << 20]).is_err());
}

#[test]
fn host_paths_are_made_where_asked() {
    let folder = tempfile::tempdir().unwrap();
    let root = Root::new();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let check = |name: &str, kind: &str, fits: bool| {
        let volume = json!({"hostPath": {"path": path(name), "type": kind}});
        assert_eq!(root.set_up(volume, &contents()).is_ok(), fits, "{name} {kind}");
    };
    check("d", "Directory", false);
    check("d", "DirectoryOrCreate", true);
    check("d", "Directory", true);
    check("d", "File", false);
    check("f", "FileOrCreate", true);
    check("f", "File", true);
    check("f", "Socket", false);
    check("absent", "", true);
}
