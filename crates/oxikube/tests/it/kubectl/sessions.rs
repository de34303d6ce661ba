//! Logs, and what people type into containers.

use testkit::machine::Machine;
use testkit::terminal::{SIZE, Terminal};

use super::{has, prints, refuses};
use crate::support::{SOON, jsonpath};

/// `sleeper` says a line whenever asked; `shell` is a shell at a terminal, `cat` reads what it is given.
const PODS: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: sleeper, labels: {app: sleeper}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: oxikube.local/busybox:1
    command: [sh, -c, 'echo out; echo err >&2; mkfifo /say; trap "exit 0" TERM; exec 3<>/say; cat <&3 & wait']
  - name: side
    image: oxikube.local/busybox:1
    command: [sh, -c, 'if [ ! -e /d/once ]; then touch /d/once; echo first life; exit 3; fi; echo second life; exec sleep 10000']
    volumeMounts: [{name: d, mountPath: /d}]
  volumes: [{name: d, emptyDir: {}}]
---
apiVersion: v1
kind: Pod
metadata: {name: shell}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {name: main, image: 'oxikube.local/busybox:1', command: [sh], stdin: true, tty: true}
---
apiVersion: v1
kind: Pod
metadata: {name: cat}
spec:
  terminationGracePeriodSeconds: 1
  restartPolicy: Never
  containers:
  - {name: main, image: 'oxikube.local/busybox:1', command: [cat], stdin: true, stdinOnce: true}
"#;

pub fn begin(machine: &Machine) {
    machine.kubectl_with("create -f -", PODS).ok();
}

fn say(machine: &Machine, line: &str) {
    machine.kubectl_args(&["exec", "sleeper", "-c", "main", "--", "sh", "-c", &format!("echo {line} >/say")]).ok();
}

pub fn logs(machine: &Machine) {
    let restarts = r#"{.status.containerStatuses[?(@.name=="side")].restartCount}"#;
    machine.eventually("the other life of its neighbour", SOON, || {
        (jsonpath(machine, "pod sleeper", restarts) == "1").then_some(())
    });
    machine.kubectl("wait --for=condition=Ready pod/sleeper pod/shell pod/cat --timeout=60s").ok();
    has(
        machine,
        "describe pod sleeper",
        &["Started", "spec.containers{main}: Container started", "Restart Count:  1", "Last State:     Terminated"],
    );
    machine.eventually("both streams in the log", SOON, || {
        let logs = machine.kubectl("logs sleeper -c main").ok();
        (logs.contains("out\n") && logs.contains("err\n")).then_some(())
    });
    let follow = |args: &str| Terminal::start(machine, machine.kubectl_command(args)).unwrap();
    let all = follow("logs -f sleeper -c main");
    let late = follow("logs -f sleeper -c main --tail=0 --timestamps");
    all.until("out\r\n", SOON);
    // Whether the second one follows yet is not seen before a line comes.
    let mut said = 0;
    machine.eventually("a followed line", SOON, || {
        said += 1;
        say(machine, &format!("line{said}"));
        late.shows("line").then_some(())
    });
    say(machine, "last");
    all.until("line1\r\n", SOON);
    all.until("last\r\n", SOON);
    late.until("Z last\r\n", SOON);
    assert!(!late.shows("out"));
    all.kill().unwrap();
    late.kill().unwrap();
    prints(machine, "logs sleeper -c main --tail=1", "last\n");
    assert_eq!(machine.kubectl("logs sleeper -c main --tail=0").ok(), "");
    assert_eq!(machine.kubectl("logs sleeper -c main --limit-bytes=4").ok().len(), 4);
    assert_eq!(machine.kubectl("logs sleeper -c main --since=1h").ok().lines().count(), 3 + said);
    prints(machine, "logs sleeper -c side", "second life\n");
    prints(machine, "logs sleeper -c side --previous", "first life\n");
    refuses(
        machine,
        "logs sleeper -c main --previous",
        "previous terminated container \"main\" in pod \"sleeper\" not found",
    );
    refuses(machine, "logs sleeper -c none", "container none is not valid for pod sleeper");
    has(
        machine,
        "logs -l app=sleeper --all-containers --prefix",
        &["[pod/sleeper/side] second life\n", "[pod/sleeper/main] last\n"],
    );
}

pub fn exec(machine: &Machine) {
    let exec = |args: &[&str]| machine.kubectl_args(&[&["exec", "sleeper", "-c", "main"], args].concat());
    let said = exec(&["--", "sh", "-c", "echo inside; echo wrong >&2; exit 7"]);
    assert_eq!((said.code, said.out.as_str()), (Some(7), "inside\n"));
    assert!(
        said.err.starts_with("wrong\n") && said.err.contains("command terminated with exit code 7"),
        "{}",
        said.err
    );
    assert_eq!(exec(&["--", "hostname"]).ok(), "sleeper\n");
    let said = exec(&["--", "none"]).failed();
    assert!(said.contains("\"none\""), "{said}");
    let long = "0123456789".repeat(4_000);
    assert_eq!(machine.kubectl_with("exec -i sleeper -c main -- cat", &long).ok(), long);
    refuses(machine, "exec nobody -- true", "pods \"nobody\" not found");

    // At a terminal: its size, what is typed, and the exit code.
    let shell = machine.kubectl_command("exec -it sleeper -c main -- sh");
    let mut shell = Terminal::start(machine, shell).unwrap();
    shell.until("# ", SOON);
    shell.keys("tty\r").unwrap();
    shell.until("/dev/pts/", SOON);
    has_the_size(machine, &mut shell);
    shell.keys("exit 9\r").unwrap();
    let said = shell.end().unwrap();
    assert_eq!(said.code, Some(9), "{said:?}");

    let file = machine.folder().join("copied");
    std::fs::write(&file, &long).unwrap();
    machine.kubectl(&format!("cp {} sleeper:/copied -c main", file.display())).ok();
    let back = machine.folder().join("back");
    machine.kubectl(&format!("cp sleeper:/copied {} -c main", back.display())).ok();
    assert_eq!(std::fs::read_to_string(back).unwrap(), long);
}

/// The size is told beside what is typed, and may come later.
fn has_the_size(machine: &Machine, shell: &mut Terminal) {
    machine.eventually("the terminal's size", SOON, || {
        shell.keys("stty size\r").unwrap();
        shell.shows(&format!("{} {}", SIZE.0, SIZE.1)).then_some(())
    });
}

/// The terminal of a container's own program, and its input.
pub fn attach(machine: &Machine) {
    let attach = machine.kubectl_command("attach -it shell");
    let mut shell = Terminal::start(machine, attach).unwrap();
    shell.until("If you don't see a command prompt, try pressing enter.", SOON);
    shell.keys("\recho $((6*7)) $((2+3))\r").unwrap();
    shell.until("42 5", SOON);
    has_the_size(machine, &mut shell);
    // It ends with the program, which starts again.
    shell.keys("exit\r").unwrap();
    shell.end().unwrap();
    machine.eventually("a restart", SOON, || {
        (jsonpath(machine, "pod shell", "{.status.containerStatuses[0].restartCount}") == "1").then_some(())
    });

    // Output as it comes, without input.
    let watcher = Terminal::start(machine, machine.kubectl_command("attach sleeper -c main")).unwrap();
    machine.eventually("a line", SOON, || {
        say(machine, "attached");
        watcher.shows("attached").then_some(())
    });
    watcher.kill().unwrap();

    // What comes in by a pipe goes through, and its end is the program's.
    assert_eq!(machine.kubectl_with("attach -i cat", "through\n").ok(), "through\n");
    machine
        .eventually("its end", SOON, || (jsonpath(machine, "pod cat", "{.status.phase}") == "Succeeded").then_some(()));
    prints(machine, "logs cat", "through\n");
    machine.kubectl("delete pod sleeper shell cat --wait=false").ok();
}

/// A pod for one command.
pub fn run(machine: &Machine) {
    let image = "--image=oxikube.local/busybox:1 --restart=Never";
    let said = machine.kubectl_with(&format!("run once --rm -i {image} -- sh -c cat"), "piped\n").ok();
    assert!(said.starts_with("piped\n") && said.contains("pod \"once\" deleted"), "{said}");
    let said = machine.kubectl_with(&format!("run fails -i --quiet {image} --command -- false"), "");
    assert_eq!(said.code, Some(1), "{said:?}");
    machine.kubectl("delete pod fails").ok();
    refuses(machine, "get pod once", "not found");
}
