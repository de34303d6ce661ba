//! A disk without space: writes are refused, everything else goes on, and with space again so do writes.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use client::{Client, ListOptions, Selection, WatchEvent, WatchOptions, resources};
use futures_util::StreamExt;
use linux::mount::TmpfsFlags;
use parking_lot::Mutex;
use serde_json::json;
use testkit::machine::Machine;

use crate::support::{SOON, jsonpath, load_images, with_client};

/// A machine whose folder, with all that a cluster keeps, is a small disk.
struct Small {
    machine: Option<Machine>,
    folder: PathBuf,
}

impl Small {
    fn new(name: &str, options: &str) -> Small {
        let machine = Machine::new(name, env!("CARGO_BIN_EXE_oxikube"));
        let folder = machine.folder().to_owned();
        linux::mount::tmpfs(&folder, TmpfsFlags::Programs, options).unwrap();
        Small { machine: Some(machine), folder }
    }

    fn machine(&self) -> &Machine {
        self.machine.as_ref().unwrap()
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // Its cluster is deleted while the disk is there.
        drop(self.machine.take());
        let _ = linux::mount::unmount_all(&self.folder);
        let _ = std::fs::remove_dir(&self.folder);
    }
}

/// Says a number ten times a second.
const TALKER: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: talker}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: oxikube.local/busybox:1
    command: [sh, -c, "n=0; while true; do n=$((n+1)); echo line $n of many; sleep 0.1; done"]
"#;

#[test]
fn a_full_disk_refuses_writes_and_nothing_else() {
    let small = Small::new("full", "size=160m,mode=755");
    let machine = small.machine();
    machine.oxikube("start").ok();
    load_images(machine);
    machine.kubectl_with("create -f -", TALKER).ok();
    machine.kubectl("wait --for=condition=Ready pod/talker --timeout=60s").ok();
    let identity = || {
        let pid: serde_json::Value = serde_json::from_str(&machine.oxikube("status -o json").ok()).unwrap();
        let container = "{.status.containerStatuses[0].containerID} {.status.containerStatuses[0].restartCount}";
        format!("{} {}", pid["daemon"]["pid"], jsonpath(machine, "pod talker", container))
    };
    let before = identity();
    let ballast = machine.folder().join("ballast");

    with_client(machine, async |client| {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let options = WatchOptions { send_initial_events: true, ..WatchOptions::default() };
        let mut events = client.watch(&resources::CONFIG_MAPS, &ours(), &options).await.unwrap();
        let names = seen.clone();
        let _watching = client::TaskGuard::new(client.env().spawn(async move {
            while let Some(event) = events.next().await {
                if let WatchEvent::Added(object) = event {
                    names.lock().push(object.name().to_owned());
                }
            }
        }));
        let mut written = Vec::new();
        write(&client, &mut written).await.unwrap();

        fill(&ballast);
        // The store's file has room of its own.
        let refused = loop {
            match write(&client, &mut written).await {
                Ok(()) => assert!(written.len() < 1000, "the disk takes everything"),
                Err(error) => break error,
            }
        };
        let status = refused.status().unwrap_or_else(|| panic!("{refused:?}"));
        assert_eq!((status.code, status.message.as_str()), (503, "no space left for the store"));

        // Reads, the watch, the daemon and the pod go on.
        let list = client.list(&resources::CONFIG_MAPS, &ours(), &ListOptions::default()).await.unwrap();
        assert_eq!(list.items.len(), written.len());
        assert_eq!(identity(), before);
        assert_eq!(machine.kubectl("exec talker -- echo here").ok(), "here\n");

        let lines = || last_line(machine);
        let said = lines();
        std::fs::remove_file(&ballast).unwrap();
        let deadline = client.env().monotonic() + SOON;
        while let Err(error) = write(&client, &mut written).await {
            assert!(client.env().monotonic() < deadline, "{error:?}");
            client.env().sleep(Duration::from_millis(100)).await;
        }
        machine.eventually("another line in the log", SOON, || (lines() > said).then_some(()));
        machine.eventually_or("the watch tells every write", SOON, || {
            let seen = seen.lock();
            if *seen == written { Ok(()) } else { Err(format!("{} of {}", seen.len(), written.len())) }
        });
    });
    assert_eq!(identity(), before);
    assert_eq!(jsonpath(machine, "nodes", "{.items[0].status.conditions[?(@.type==\"Ready\")].status}"), "True");
    machine.kubectl("delete pod talker --timeout=60s").ok();
    machine.oxikube("delete --yes").ok();
}

fn ours() -> Selection {
    Selection::all().namespace("default").labels("written=yes")
}

/// Creates a ConfigMap; its name joins `written` once it was acknowledged.
async fn write(client: &Client, written: &mut Vec<String>) -> Result<(), client::Error> {
    let name = format!("written-{}", written.len());
    let body = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "default", "labels": {"written": "yes"}},
        "data": {"text": "x".repeat(100_000)},
    });
    client.create(&resources::CONFIG_MAPS, &body.into()).await?;
    written.push(name);
    Ok(())
}

/// Leaves no byte free.
fn fill(path: &Path) {
    let mut file = File::create(path).unwrap();
    let chunk = vec![1; 1 << 20];
    for length in [chunk.len(), 4096, 1] {
        while file.write_all(&chunk[..length]).is_ok() {}
    }
}

/// The number in the talker's last whole line.
fn last_line(machine: &Machine) -> u64 {
    let said = machine.kubectl("logs talker --tail=20").ok();
    let mut numbers =
        said.lines().filter_map(|line| line.strip_prefix("line ")?.strip_suffix(" of many")?.parse().ok());
    numbers.next_back().unwrap_or(0)
}
