//! A machine of a test's own: a network namespace, a home folder, and clusters that are gone when the test ends.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use linux::netns::NetNs;

/// Programs started here see no network but their own.
pub struct Machine {
    name: String,
    folder: tempfile::TempDir,
    namespace: NetNs,
    oxikube: PathBuf,
    kubectl: PathBuf,
}

/// What a command said.
#[derive(Debug)]
pub struct Said {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Said {
    /// Standard output of a command that succeeded.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{}{}", self.out, self.err);
        self.out
    }

    /// Both outputs of a command that failed.
    #[track_caller]
    pub fn failed(self) -> String {
        assert_ne!(self.code, Some(0), "{}{}", self.out, self.err);
        self.out + &self.err
    }
}

impl From<Output> for Said {
    fn from(output: Output) -> Said {
        Said {
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Machine {
    /// A machine with loopback up, whose cluster is called `name` (which no other test may use) and run by the program `oxikube`.
    ///
    /// # Panics
    /// Without the real kubectl (`cargo xtask peers kubectl` builds it), and where namespaces can't be made.
    pub fn new(name: &str, oxikube: &str) -> Machine {
        let namespace = NetNs::unpinned().expect("network namespaces can be made as root");
        let machine = Machine {
            name: format!("{name}-{}", std::process::id()),
            folder: tempfile::tempdir().expect("a temporary folder"),
            namespace,
            oxikube: oxikube.into(),
            kubectl: crate::peers::path("kubectl"),
        };
        machine.namespace.run(loopback_up).expect("entering the namespace").expect("bringing loopback up");
        machine
    }

    /// The cluster's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A folder of the test's own.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn namespace(&self) -> &NetNs {
        &self.namespace
    }

    /// A command that runs on this machine once given to [`Machine::run`] or [`Machine::spawn`].
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        command.env("HOME", self.folder.path()).env_remove("KUBECONFIG").current_dir(self.folder.path());
        command.stdin(Stdio::null());
        command
    }

    /// Runs to the end.
    pub fn run(&self, mut command: Command) -> Said {
        let shown = format!("{command:?}");
        let output = self.namespace.run(|| command.output()).expect("entering the namespace");
        output.unwrap_or_else(|error| panic!("{shown}: {error}")).into()
    }

    /// Starts, for commands that go on.
    pub fn spawn(&self, mut command: Command) -> Child {
        self.namespace.run(|| command.spawn()).expect("entering the namespace").expect("starting a program")
    }

    /// `oxikube ARGS --name NAME --data-dir ...`, words split at spaces.
    pub fn oxikube(&self, args: &str) -> Said {
        self.run(self.oxikube_command(args))
    }

    pub fn oxikube_command(&self, args: &str) -> Command {
        let mut command = self.command(&self.oxikube);
        command.args(args.split_whitespace()).args(["--name", &self.name]).arg("--data-dir").arg(self.data_dir());
        command
    }

    /// Where the cluster keeps its data.
    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The real kubectl, words split at spaces.
    pub fn kubectl(&self, args: &str) -> Said {
        self.kubectl_args(&args.split_whitespace().collect::<Vec<_>>())
    }

    pub fn kubectl_args(&self, args: &[&str]) -> Said {
        let mut command = self.command(&self.kubectl);
        command.args(args);
        self.run(command)
    }

    /// The real kubectl, not started yet.
    pub fn kubectl_command(&self, args: &str) -> Command {
        let mut command = self.command(&self.kubectl);
        command.args(args.split_whitespace());
        command
    }

    /// The real kubectl with `input` on its standard input.
    pub fn kubectl_with(&self, args: &str, input: &str) -> Said {
        use std::io::Write;
        let mut command = self.command(&self.kubectl);
        command.args(args.split_whitespace()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.spawn(command);
        let mut stdin = child.stdin.take().expect("its standard input is a pipe");
        stdin.write_all(input.as_bytes()).expect("kubectl reads its input");
        drop(stdin);
        child.wait_with_output().expect("waiting for kubectl").into()
    }

    /// The body of a page, fetched on this machine.
    pub fn get(&self, url: &str) -> io::Result<String> {
        self.namespace.run(|| fetch(url)).map_err(io::Error::other)?
    }

    /// Waits until `condition` gives a value; panics with `what` after `limit`.
    #[track_caller]
    pub fn eventually<T>(&self, what: &str, limit: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
        self.eventually_or(what, limit, || condition().ok_or_else(String::new))
    }

    /// Waits until `condition` succeeds; panics with `what` and its last error after `limit`.
    #[track_caller]
    pub fn eventually_or<T>(&self, what: &str, limit: Duration, mut condition: impl FnMut() -> Result<T, String>) -> T {
        let env = env::Env::system();
        let deadline = env.monotonic() + limit;
        loop {
            match condition() {
                Ok(value) => return value,
                Err(error) => assert!(env.monotonic() < deadline, "{what}: not within {limit:?}: {error}"),
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.data_dir().join("log/daemon.log")).unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(60).collect();
            eprintln!("--- the daemon's log ends with\n{}", tail.into_iter().rev().collect::<Vec<_>>().join("\n"));
        }
        if Path::new("/run/oxikube").join(&self.name).exists() {
            let said = self.oxikube("delete --yes");
            if said.code != Some(0) {
                eprintln!("deleting cluster {}: {}{}", self.name, said.out, said.err);
            }
        }
    }
}

fn loopback_up() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (netlink, driver) = linux::netlink::Netlink::open().map_err(io::Error::other)?;
        let driver = env::Env::system().spawn(driver);
        let up = netlink.set_up(1).await.map_err(io::Error::other);
        driver.abort();
        up
    })
}

/// A plain HTTP/1.0 request, for pages on this machine.
fn fetch(url: &str) -> io::Result<String> {
    use std::io::{Read, Write};
    let rest = url.strip_prefix("http://").ok_or_else(|| io::Error::other("only http"))?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let address = host.parse().map_err(io::Error::other)?;
    let mut stream = std::net::TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    write!(stream, "GET /{path} HTTP/1.0\r\nHost: {host}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let code = head.split_whitespace().nth(1).unwrap_or_default();
    if code != "200" {
        return Err(io::Error::other(format!("{code}: {body}")));
    }
    Ok(body.to_owned())
}
