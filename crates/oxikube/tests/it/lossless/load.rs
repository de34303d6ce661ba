//! Clients on the node: twenty requests a second each, by a connection each or by one that is kept.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use env::Env;
use linux::netns::NetNs;
use parking_lot::{Condvar, Mutex};
use testkit::machine::Machine;

const PAUSE: Duration = Duration::from_millis(50);
/// A packet that was dropped is sent again and again until then.
const PATIENCE: Duration = Duration::from_secs(15);

/// A request without an answer: whose, when, and why.
pub type Lost = String;

/// A client that goes on until it is told to end.
pub struct Load {
    shared: Arc<Shared>,
    thread: JoinHandle<usize>,
}

#[derive(Default)]
struct Shared {
    lost: Mutex<Vec<Lost>>,
    ended: Mutex<bool>,
    end: Condvar,
}

impl Load {
    /// A connection for each request.
    pub fn once(machine: &Machine, address: &str) -> Load {
        Load::start(machine, address, "once", |address| {
            let mut stream = connect(address)?;
            stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            let good = answer.starts_with("HTTP/1.") && answer.contains(" 200 ") && answer.contains("web-");
            if good { Ok(()) } else { Err(io::Error::other(format!("answered {answer:?}"))) }
        })
    }

    /// One connection for as long as the server keeps it. As with every client that keeps connections, a server that closes
    /// between two requests makes it ask once more, by a new one.
    pub fn kept(machine: &Machine, address: &str) -> Load {
        let mut kept: Option<BufReader<TcpStream>> = None;
        Load::start(machine, address, "kept", move |address| {
            if let Some(mut stream) = kept.take() {
                match ask(&mut stream) {
                    Ok(true) => {
                        kept = Some(stream);
                        return Ok(());
                    }
                    Ok(false) => {}
                    Err(error) => return Err(error),
                }
            }
            let mut stream = BufReader::new(connect(address)?);
            if !ask(&mut stream)? {
                return Err(io::Error::other("a new connection was closed"));
            }
            kept = Some(stream);
            Ok(())
        })
    }

    fn start(
        machine: &Machine,
        address: &str,
        kind: &str,
        mut request: impl FnMut(SocketAddr) -> io::Result<()> + Send + 'static,
    ) -> Load {
        let (shared, client) = (Arc::new(Shared::default()), format!("{kind} to {address}"));
        let (namespace, address): (NetNs, SocketAddr) = (machine.namespace().clone(), address.parse().unwrap());
        let told = shared.clone();
        let load = move || {
            let (env, mut asked) = (Env::system(), 0);
            loop {
                asked += 1;
                if let Err(error) = request(address) {
                    told.lost.lock().push(format!("{client} at {}: {error}", env.now()));
                }
                let mut ended = told.ended.lock();
                if !*ended {
                    told.end.wait_for(&mut ended, PAUSE);
                }
                if *ended {
                    return asked;
                }
            }
        };
        let thread = std::thread::Builder::new().name("load".into());
        let thread = thread.spawn(move || namespace.run(load).unwrap()).unwrap();
        Load { shared, thread }
    }

    /// What was lost since the last time.
    pub fn lost(&self) -> Vec<Lost> {
        std::mem::take(&mut self.shared.lost.lock())
    }

    /// Ends it and tells how often it asked.
    pub fn end(self) -> usize {
        *self.shared.ended.lock() = true;
        self.shared.end.notify_all();
        self.thread.join().unwrap()
    }
}

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Whether there was an answer; there is none when the connection ended before its first byte.
fn ask(stream: &mut BufReader<TcpStream>) -> io::Result<bool> {
    if stream.get_mut().write_all(b"GET / HTTP/1.1\r\nHost: web\r\n\r\n").is_err() {
        return Ok(false);
    }
    let mut head = String::new();
    match stream.read_line(&mut head) {
        Ok(0) => return Ok(false),
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(false),
        read => drop(read?),
    }
    let mut length = 0;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        match line.trim_end().split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.parse().unwrap_or(0),
            Some(_) => {}
            None => break,
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    if head.contains(" 200 ") && body.starts_with(b"web-") {
        return Ok(true);
    }
    Err(io::Error::other(format!("answered {head:?} {body:?}")))
}
