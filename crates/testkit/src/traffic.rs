//! Much data through the real kubectl, both ways, and what it costs the daemon.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use env::Env;
use sha2::Digest as _;

use crate::machine::Machine;

/// A pod whose programs give and take data: `cp` goes to `/d`, 9000 answers with the digest of what it is sent, 8080 serves `/d`.
pub const POD: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: traffic}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: oxikube.local/busybox:1
    command: [sh, -c, 'httpd -p 127.0.0.1:8080 -h /d; exec nc -ll -p 9000 -e sha256sum']
    readinessProbe: {tcpSocket: {port: 9000}, periodSeconds: 1}
    volumeMounts: [{name: d, mountPath: /d}]
  volumes: [{name: d, emptyDir: {}}]
"#;

/// One way that data went.
#[derive(Debug)]
pub struct Went {
    /// `cp to a pod` and so on.
    pub way: String,
    pub took: Duration,
    /// The digest at the other end was that of what was sent.
    pub unharmed: bool,
    /// By how much the daemon's memory grew while it went, in KiB.
    pub grown: u64,
}

/// Sends `mib` MiB to the pod and back by `kubectl cp`, and by `kubectl port-forward`, over WebSockets if so wanted or SPDY.
///
/// # Panics
/// If kubectl fails.
pub fn carry(machine: &Machine, mib: usize, websockets: bool) -> io::Result<Vec<Went>> {
    let file = machine.folder().join("much");
    let digest = make(&file, mib)?;
    let (back, name) = (machine.folder().join("back"), if websockets { "WebSockets" } else { "SPDY" });
    let kubectl = |args: String| {
        let mut command = machine.kubectl_command(&args);
        command.env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", websockets.to_string());
        command.env("KUBECTL_PORT_FORWARD_WEBSOCKETS", websockets.to_string());
        command
    };
    let ok = |args: String| machine.run(kubectl(args)).ok();
    let mut all = Vec::new();
    let mut went = |way: &str, go: &mut dyn FnMut() -> io::Result<String>| -> io::Result<()> {
        let daemon = daemon(machine)?;
        let before = Peak::begin(daemon)?;
        let (env, way) = (Env::system(), format!("{way} over {name}"));
        let began = env.monotonic();
        let arrived = go()?;
        all.push(Went { way, took: env.monotonic() - began, unharmed: arrived == digest, grown: before.grown()? });
        Ok(())
    };

    went("cp to a pod", &mut || {
        ok(format!("cp {} traffic:/d/much", file.display()));
        Ok(ok("exec traffic -- sha256sum /d/much".into()).split(' ').next().unwrap_or_default().to_owned())
    })?;
    went("cp from a pod", &mut || {
        ok(format!("cp traffic:/d/much {}", back.display()));
        let arrived = digest_of(&mut File::open(&back)?)?;
        fs::remove_file(&back)?;
        Ok(arrived)
    })?;
    let forward =
        Forward::start(machine, kubectl("port-forward --address=127.0.0.1 pod/traffic :9000 :8080".into()), 2)?;
    went("port-forward to a pod", &mut || {
        let mut stream = forward.connect(machine, 0)?;
        io::copy(&mut File::open(&file)?, &mut stream)?;
        stream.shutdown(Shutdown::Write)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer.split(' ').next().unwrap_or_default().to_owned())
    })?;
    went("port-forward from a pod", &mut || {
        let mut stream = BufReader::new(forward.connect(machine, 1)?);
        stream.get_mut().write_all(b"GET /much HTTP/1.0\r\n\r\n")?;
        let mut line = String::new();
        while stream.read_line(&mut line)? > 2 {
            line.clear();
        }
        digest_of(&mut stream)
    })?;
    forward.end()?;
    ok("exec traffic -- rm /d/much".into());
    fs::remove_file(&file)?;
    Ok(all)
}

/// A `kubectl port-forward` and the ports that it listens on.
pub struct Forward {
    child: Child,
    ports: Vec<u16>,
    /// It ends when nobody reads what it says.
    _says: Option<BufReader<ChildStdout>>,
}

impl Forward {
    /// Starts `command`, which announces `n` ports.
    pub fn start(machine: &Machine, mut command: Command, n: usize) -> io::Result<Forward> {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = machine.spawn(command);
        let mut says = child.stdout.take().map(BufReader::new);
        let lines = says.as_mut().into_iter().flat_map(BufRead::lines).take(n);
        let port = |line: String| line.split(" -> ").next()?.rsplit(':').next()?.parse().ok();
        let ports: Vec<u16> = lines.map_while(Result::ok).filter_map(port).collect();
        let forward = Forward { child, ports, _says: says };
        if forward.ports.len() == n {
            return Ok(forward);
        }
        Err(io::Error::other(format!("only ports {:?}: {}", forward.ports.clone(), forward.end()?)))
    }

    /// A connection through the `nth` port.
    pub fn connect(&self, machine: &Machine, nth: usize) -> io::Result<TcpStream> {
        let address = SocketAddr::from(([127, 0, 0, 1], self.ports[nth]));
        let stream = machine.namespace().run(|| TcpStream::connect(address)).map_err(io::Error::other)??;
        stream.set_read_timeout(Some(Duration::from_secs(120)))?;
        Ok(stream)
    }

    /// Waits until kubectl ends by itself; what it said of its troubles.
    pub fn wait(mut self) -> io::Result<(Option<i32>, String)> {
        let code = self.child.wait()?.code();
        Ok((code, self.child.stderr.take().map(io::read_to_string).transpose()?.unwrap_or_default()))
    }

    /// Ends it; what it said of its troubles.
    pub fn end(mut self) -> io::Result<String> {
        self.child.kill()?;
        self.wait().map(|(_, said)| said)
    }
}

/// The daemon of the machine's cluster.
fn daemon(machine: &Machine) -> io::Result<i32> {
    let control = UnixStream::connect(Path::new("/run/oxikube").join(machine.name()).join("control.sock"))?;
    Ok(rustix::net::sockopt::socket_peercred(&control)?.pid.as_raw_nonzero().get())
}

/// How far a process' memory grows.
struct Peak {
    process: i32,
    before: u64,
}

impl Peak {
    fn begin(process: i32) -> io::Result<Peak> {
        // Forgets the highest so far.
        fs::write(format!("/proc/{process}/clear_refs"), "5")?;
        Ok(Peak { process, before: kib(process, "VmRSS:")? })
    }

    fn grown(&self) -> io::Result<u64> {
        Ok(kib(self.process, "VmHWM:")?.saturating_sub(self.before))
    }
}

fn kib(process: i32, field: &str) -> io::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let value =
        status.lines().find_map(|line| line.strip_prefix(field)?.trim().strip_suffix("kB")?.trim().parse().ok());
    value.ok_or_else(|| io::Error::other(format!("no {field} of process {process}")))
}

/// Bytes that no two MiB have in common, nor compress; returns their digest.
fn make(path: &Path, mib: usize) -> io::Result<String> {
    let (mut file, mut hash) = (File::create(path)?, sha2::Sha256::new());
    let mut block = vec![0; 1 << 20];
    Env::system().secret(&mut block);
    for number in 0..mib as u64 {
        // Each differs from the one before in every page.
        block.chunks_mut(4096).for_each(|page| page[..8].copy_from_slice(&number.to_le_bytes()));
        block.rotate_left(1);
        hash.update(&block);
        file.write_all(&block)?;
    }
    Ok(hex(&hash.finalize()))
}

fn digest_of(from: &mut impl Read) -> io::Result<String> {
    let (mut hash, mut chunk) = (sha2::Sha256::new(), vec![0; 1 << 17]);
    loop {
        match from.read(&mut chunk)? {
            0 => return Ok(hex(&hash.finalize())),
            size => hash.update(&chunk[..size]),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
