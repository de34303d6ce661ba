//! What the commands show, ask, and write for other programs, on one cluster.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

use linux::netlink::Netlink;
use serde_json::Value;
use testkit::image::{Image, Layer, Packing, docker_save, oci_layout, pack};
use testkit::machine::{Machine, Said};
use testkit::terminal::Terminal;

use crate::support::{SOON, netlink};

/// A person's machine: two kubeconfig files with clusters of others, and a network card without an IPv4 address.
struct Person {
    machine: Machine,
    files: [PathBuf; 2],
}

impl Person {
    fn new() -> Person {
        let machine = Machine::new("commands", env!("CARGO_BIN_EXE_oxikube"));
        netlink(&machine, async |netlink: Netlink| {
            netlink.add_dummy("card").await?;
            netlink.add_address(netlink.link("card").await?.index, "fd00:1::1/64".parse().expect("a network")).await
        });
        let files = ["alpha", "beta"].map(|name| {
            let path = machine.folder().join(name);
            let current = if name == "alpha" { "alpha" } else { "" };
            let text = format!(
                "# {name}'s own words\napiVersion: v1\nkind: Config\ncurrent-context: \"{current}\"\nclusters:\n- name: {name}\n  cluster: {{server: 'https://192.0.2.1:1'}}\nusers:\n- name: {name}\n  user: {{token: secret-{name}}}\ncontexts:\n- name: {name}\n  context: {{cluster: {name}, user: {name}, namespace: of-{name}}}\npreferences: {{}}\n"
            );
            fs::write(&path, text).unwrap();
            path
        });
        Person { machine, files }
    }

    fn oxikube_command(&self, args: &str) -> std::process::Command {
        let mut command = self.machine.oxikube_command(args);
        command.env("KUBECONFIG", std::env::join_paths(&self.files).unwrap());
        command
    }

    fn oxikube(&self, args: &str) -> Said {
        self.machine.run(self.oxikube_command(args))
    }

    fn kubectl(&self, args: &str) -> Said {
        let mut command = self.machine.kubectl_command(args);
        command.env("KUBECONFIG", std::env::join_paths(&self.files).unwrap());
        self.machine.run(command)
    }
}

#[test]
fn commands_say_what_they_do() {
    let person = Person::new();
    let config = || person.kubectl("config view --raw").ok();
    let before = config();
    shown_at_a_terminal(&person);
    merged(&person);
    status(&person);
    images(&person);
    asked_before_deleting(&person);
    // Only ours went, and what was current before is again.
    assert_eq!(config(), before);
    plain_and_elsewhere(&person);
    assert_eq!(config(), before);
}

/// One line per step, rewritten when it is done.
fn shown_at_a_terminal(person: &Person) {
    let start = Terminal::start(&person.machine, person.oxikube_command("start")).unwrap();
    let said = start.end().unwrap();
    assert_eq!(said.code, Some(0), "{said:?}");
    let lines: Vec<&str> = said.out.lines().collect();
    let (last, steps) = lines.split_last().unwrap();
    assert!(last.starts_with(&format!("cluster {} is ready: https://", person.machine.name())), "{said:?}");
    for step in ["store", "API server", "container runtime", "node", "DNS from a pod"] {
        let line =
            steps.iter().find(|line| line.contains(&format!("✓ {step} ("))).unwrap_or_else(|| panic!("{said:?}"));
        assert!(line.starts_with(&format!("  … {step}\r\x1b[K  ✓ {step} (")) && line.ends_with(" s)"), "{line:?}");
    }
    let said = person.oxikube("start");
    assert!(said.out.starts_with(&format!("cluster {} runs already (pid ", person.machine.name())), "{said:?}");
    assert_eq!((said.code, said.out.lines().count(), said.err.as_str()), (Some(0), 1, ""));
}

fn merged(person: &Person) {
    let name = person.machine.name();
    assert_eq!(person.kubectl("config current-context").ok().trim(), name);
    let contexts = person.kubectl("config get-contexts -o name").ok();
    let mut contexts: Vec<&str> = contexts.lines().collect();
    contexts.sort_unstable();
    assert_eq!(contexts, ["alpha", "beta", name]);
    let view = |context: &str, path: &str| {
        person.kubectl(&format!("config view --raw --minify --context {context} -o jsonpath={path}")).ok()
    };
    for other in ["alpha", "beta"] {
        assert_eq!(view(other, "{.clusters[0].cluster.server}"), "https://192.0.2.1:1");
        assert_eq!(view(other, "{.users[0].user.token}"), format!("secret-{other}"));
        assert_eq!(view(other, "{.contexts[0].context.namespace}"), format!("of-{other}"));
    }
    // With no other address than one of IPv6, the node has one of its own.
    assert!(view(name, "{.clusters[0].cluster.server}").starts_with("https://10."));
    person.kubectl("get nodes").ok();
    assert!(!fs::read_to_string(&person.files[1]).unwrap().contains(name), "new entries are the first file's");
}

fn status(person: &Person) {
    let text = person.oxikube("status").ok();
    let json: Value = serde_json::from_str(&person.oxikube("status -o json").ok()).unwrap();
    let pid = json["daemon"]["pid"].as_u64().unwrap();
    let program = fs::read_link(format!("/proc/{pid}/exe")).unwrap();
    assert_eq!(program.file_name(), PathBuf::from(env!("CARGO_BIN_EXE_oxikube")).file_name());
    let mut lines = text.lines();
    assert_eq!(lines.next().unwrap(), format!("daemon: pid {pid}"));
    let names: Vec<&str> = lines.filter_map(|line| Some(line.split_once(": ")?.0)).collect();
    for name in [
        "since",
        "memory",
        "node",
        "pods",
        "cluster",
        "server",
        "node address",
        "cluster DNS",
        "data",
        "log",
        "kubeconfig",
    ] {
        assert!(names.contains(&name), "no {name} in {text}");
    }
    assert!(json["daemon"]["memoryBytes"].as_u64().unwrap() > 1 << 20, "{json}");
    assert_eq!(json["node"]["ready"], true, "{json}");
    let said = person.oxikube("status -o xml");
    assert!(said.code == Some(1) && said.err.contains("unknown output format \"xml\""), "{said:?}");
    let mut command = person.machine.command(env!("CARGO_BIN_EXE_oxikube"));
    command.args(["status", "--name", "no-such-cluster"]);
    let said = person.machine.run(command);
    assert_eq!((said.code, said.err.as_str()), (Some(1), "oxikube: there is no cluster no-such-cluster\n"));
}

fn images(person: &Person) {
    let folder = person.machine.folder();
    let image = |word: &str| Image::new().layer(Layer::new().file("word", 0o644, word), Packing::Gzip).cmd(["/word"]);
    let mut files = Vec::new();
    let mut expect = String::new();
    for (form, packing) in
        [("docker", Packing::Plain), ("docker", Packing::Gzip), ("oci", Packing::Zstd), ("oci", Packing::Plain)]
    {
        let name = format!("example.com/{form}-{packing:?}:1").to_lowercase();
        let image = image(&name);
        let archive = if form == "docker" {
            docker_save(&[(name.as_str(), &image)])
        } else {
            oci_layout(&[(name.as_str(), &image)])
        };
        let path = folder.join(format!("{}.archive", files.len()));
        fs::write(&path, pack(&archive, packing)).unwrap();
        files.push(path.display().to_string());
        expect += &format!("loaded {name}\n");
    }
    assert_eq!(person.oxikube(&format!("image load {}", files.join(" "))).ok(), expect);
    let listed = person.oxikube("image ls").ok();
    assert!(listed.starts_with("REFERENCE "), "{listed}");
    assert!(expect.lines().all(|line| listed.contains(line.trim_start_matches("loaded "))), "{listed}");

    let good = docker_save(&[("example.com/bad:1", &image("bad"))]);
    let outside = Image::new().layer(Layer::new().file("../outside", 0o644, ""), Packing::Plain);
    let refused = [
        (good[..good.len() / 2].to_vec(), "failed to load image archive: "),
        (pack(&good, Packing::Zstd)[..100].to_vec(), "failed to load image archive: "),
        (docker_save(&[("example.com/bad:1", &image("bad").with_wrong_diff_id())]), "unexpected commit digest"),
        (docker_save(&[("example.com/bad:1", &outside)]), "leaves the root of the layer"),
        (b"no archive".to_vec(), "failed to load image archive: "),
    ];
    for (archive, part) in refused {
        let path = folder.join("bad.archive");
        fs::write(&path, archive).unwrap();
        let said = person.oxikube(&format!("image load {}", path.display()));
        assert!(said.code == Some(1) && said.err.lines().count() == 1 && said.err.contains(part), "{part}: {said:?}");
    }
    let said = person.oxikube("image load none.archive");
    assert!(said.code == Some(1) && said.err.contains("none.archive"), "{said:?}");
    assert_eq!(person.oxikube("image ls").ok(), listed, "nothing changed");
}

fn asked_before_deleting(person: &Person) {
    for answer in ["n\n", "", "what\n"] {
        let mut command = person.oxikube_command("delete");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = person.machine.spawn(command);
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), answer.as_bytes()).unwrap();
        let said: Said = child.wait_with_output().unwrap().into();
        assert_eq!((said.code, said.err.as_str()), (Some(1), "oxikube: nothing was deleted\n"), "{said:?}");
        assert!(said.out.contains("and all its data in") && said.out.contains("[y/N]"), "{said:?}");
    }
    person.oxikube("status").ok();
    let mut delete = Terminal::start(&person.machine, person.oxikube_command("delete")).unwrap();
    delete.until("[y/N]", SOON);
    delete.keys("y\r").unwrap();
    let said = delete.end().unwrap();
    assert!(said.code == Some(0) && said.out.contains("is deleted"), "{said:?}");
    assert!(person.oxikube("status").failed().contains("there is no cluster"));
}

/// Without a terminal, each step is a line of its own; `--kubeconfig` comes before `KUBECONFIG`.
fn plain_and_elsewhere(person: &Person) {
    let own = person.machine.folder().join("own");
    let before: Vec<String> = person.files.iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    let said = person.oxikube(&format!("start --kubeconfig {}", own.display()));
    let lines: Vec<&str> = said.out.lines().collect();
    assert!(said.code == Some(0) && said.err.is_empty() && !said.out.contains('\x1b') && lines.len() > 5, "{said:?}");
    let (_, steps) = lines.split_last().unwrap();
    assert!(steps.iter().all(|line| line.contains(": done in ") && line.ends_with(" s")), "{said:?}");
    person.machine.kubectl(&format!("--kubeconfig {} get nodes", own.display())).ok();
    let after: Vec<String> = person.files.iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    assert_eq!(after, before);
    person.oxikube("delete --yes").ok();
}
