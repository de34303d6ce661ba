//! What goes through the API server to pods as a stream, by WebSocket and by SPDY: port-forward, exec, proxies.

mod ends;
mod much;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use testkit::machine::Machine;
use testkit::terminal::Terminal;

use crate::support::{SOON, Step, every, load_images, started};

/// One page is served to the pod itself only, the other to everybody.
const WEB: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: main
        image: oxikube.local/busybox:1
        command:
        - sh
        - -c
        - |
          mkdir -p /www/inner /own
          echo '<a href="/inner/">in</a>' >/www/index.html
          echo inner >/www/inner/index.html
          echo own >/own/index.html
          head -c 3000000 /dev/zero >/own/large
          httpd -p 127.0.0.1:8080 -h /own
          exec httpd -f -p 8081 -h /www
        readinessProbe: {httpGet: {port: 8081, path: /}}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: 8081}]
"#;

#[test]
fn streams_reach_pods() {
    let machine = started("streams");
    load_images(&machine);
    machine.kubectl_with("create -f -", WEB).ok();
    machine.kubectl("rollout status deployment/web --timeout=60s").ok();
    let steps: [Step; 4] = [
        ("port_forward", port_forward),
        ("refused_ports", refused_ports),
        ("exec_over_spdy", exec_over_spdy),
        ("proxies", proxies),
    ];
    every(&machine, &steps);
}

/// A program that goes on, and the port it says it listens on.
struct Serving {
    child: Child,
    port: u16,
}

impl Serving {
    /// Starts `command`; its first line names the port after the last `before`.
    fn start(machine: &Machine, mut command: Command, before: char) -> Serving {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = machine.spawn(command);
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let first = line.split(" -> ").next().unwrap_or_default().trim();
        let port = first.rsplit(before).next().and_then(|port| port.parse().ok());
        let port = port.unwrap_or_else(|| panic!("no port in {line:?}"));
        Serving { child, port }
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// What it said of its troubles.
    fn end(mut self) -> String {
        self.child.kill().unwrap();
        let output = self.child.stderr.take().map(std::io::read_to_string);
        self.child.wait().unwrap();
        output.transpose().unwrap().unwrap_or_default()
    }
}

fn forward(machine: &Machine, what: &str, websockets: bool) -> Serving {
    let mut command = machine.kubectl_command(&format!("port-forward --address=127.0.0.1 {what}"));
    command.env("KUBECTL_PORT_FORWARD_WEBSOCKETS", websockets.to_string());
    Serving::start(machine, command, ':')
}

fn port_forward(machine: &Machine) {
    for websockets in [true, false] {
        let own = forward(machine, "deployment/web :8080", websockets);
        for _ in 0..3 {
            assert!(machine.get(&own.url("/")).unwrap().ends_with("own\n"));
        }
        assert!(machine.get(&own.url("/large")).unwrap().len() >= 3_000_000);
        own.end();
        let service = forward(machine, "service/web :http", websockets);
        assert!(machine.get(&service.url("/inner/")).unwrap().ends_with("inner\n"));
        service.end();
    }
}

fn refused_ports(machine: &Machine) {
    for websockets in [true, false] {
        let nothing = forward(machine, "deployment/web :81", websockets);
        assert!(machine.get(&nothing.url("/")).map_or(true, |page| page.is_empty()));
        let said = nothing.end();
        assert!(said.contains("error forwarding port 81 to pod") && said.contains("refused"), "{said}");
    }
}

fn exec_over_spdy(machine: &Machine) {
    let spdy = |args: &str| {
        let mut command = machine.kubectl_command(args);
        command.env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", "false");
        command
    };
    let mut command = spdy("exec deployment/web -- sh -c");
    command.arg("echo out; echo err >&2; exit 7");
    let said = machine.run(command);
    assert_eq!((said.code, said.out.as_str()), (Some(7), "out\n"), "{}", said.err);
    assert!(said.err.starts_with("err\n") && said.err.contains("command terminated with exit code 7"), "{}", said.err);
    let said = machine.run(spdy("exec deployment/web -- head -c 3000000 /dev/zero"));
    assert_eq!((said.code, said.out.len()), (Some(0), 3_000_000));
    let mut command = spdy("exec -it deployment/web -- sh");
    command.env("TERM", "xterm");
    let mut shell = Terminal::start(machine, command).unwrap();
    shell.until("# ", SOON);
    shell.keys("echo $((20 + 3))\r").unwrap();
    shell.until("23\r\n", SOON);
    shell.keys("exit 5\r").unwrap();
    assert_eq!(shell.end().unwrap().code, Some(5));
}

fn proxies(machine: &Machine) {
    let proxy = Serving::start(machine, machine.kubectl_command("proxy --port=0"), ':');
    let service = "/api/v1/namespaces/default/services/http:web:http/proxy";
    let page = machine.get(&proxy.url(&format!("{service}/"))).unwrap();
    assert!(page.contains(&format!(r#"<a href="{service}/inner/">in</a>"#)), "{page}");
    assert!(machine.get(&proxy.url(&format!("{service}/inner/"))).unwrap().ends_with("inner\n"));
    let pods = machine.kubectl("get pods -l app=web -o name").ok();
    let pod = pods.trim().trim_start_matches("pod/");
    let page = machine.get(&proxy.url(&format!("/api/v1/namespaces/default/pods/{pod}:8081/proxy/inner/"))).unwrap();
    assert!(page.ends_with("inner\n"), "{page}");
    proxy.end();
    let explained = machine.kubectl("explain deployment.spec.strategy --output=plaintext-openapiv2").ok();
    assert!(explained.contains("rollingUpdate") && explained.contains("VERSION:"), "{explained}");
}
