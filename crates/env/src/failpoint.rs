//! Named places where a test may make the program fail or die.

use std::collections::HashMap;
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

/// What an armed failpoint does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailAction {
    /// Return [`FailpointError`].
    Error,
    /// Return [`FailpointError`] the next time only.
    ErrorOnce,
    /// End the process at once, as `kill -9` does.
    Kill,
}

/// An armed failpoint was hit.
#[derive(Debug, thiserror::Error)]
#[error("failpoint {0}")]
pub struct FailpointError(pub &'static str);

impl From<FailpointError> for std::io::Error {
    fn from(error: FailpointError) -> Self {
        std::io::Error::other(error)
    }
}

#[derive(Default)]
pub(crate) struct Failpoints {
    any: AtomicBool,
    armed: Mutex<Armed>,
}

#[derive(Default)]
struct Armed {
    /// The action, and how often the point is passed before.
    points: HashMap<String, (FailAction, u32)>,
    /// A file that gets a line with the process and the name for each that is passed.
    trace: Option<PathBuf>,
}

impl Failpoints {
    /// Reads `name=kill,name=error,name=error-once`, each with `@n` for the n-th time, and `trace=FILE`; anything else is ignored.
    pub(crate) fn configure(&self, spec: &str) {
        for (name, action) in spec.split(',').filter_map(|part| part.split_once('=')) {
            if name == "trace" {
                self.armed.lock().trace = Some(action.into());
                self.any.store(true, Ordering::Release);
                continue;
            }
            let (action, time) = action.split_once('@').unwrap_or((action, "1"));
            let Some(before) = time.parse::<u32>().ok().and_then(|time| time.checked_sub(1)) else { continue };
            match action {
                "kill" => self.arm_after(name, Some(FailAction::Kill), before),
                "error-once" => self.arm_after(name, Some(FailAction::ErrorOnce), before),
                "error" => self.arm_after(name, Some(FailAction::Error), before),
                _ => {}
            }
        }
    }

    pub(crate) fn arm(&self, name: &str, action: Option<FailAction>) {
        self.arm_after(name, action, 0);
    }

    fn arm_after(&self, name: &str, action: Option<FailAction>, before: u32) {
        let mut armed = self.armed.lock();
        match action {
            Some(action) => armed.points.insert(name.to_owned(), (action, before)),
            None => armed.points.remove(name),
        };
        self.any.store(!armed.points.is_empty() || armed.trace.is_some(), Ordering::Release);
    }

    pub(crate) fn hit(&self, name: &'static str) -> Result<(), FailpointError> {
        if !self.any.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut armed = self.armed.lock();
        if let Some(path) = &armed.trace {
            let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
            // Who traces sees what is missing.
            let _ = file.and_then(|mut file| file.write_all(format!("{} {name}\n", std::process::id()).as_bytes()));
        }
        let Some((action, before)) = armed.points.get_mut(name) else { return Ok(()) };
        if *before > 0 {
            *before -= 1;
            return Ok(());
        }
        match *action {
            FailAction::Error => Err(FailpointError(name)),
            FailAction::ErrorOnce => {
                armed.points.remove(name);
                Err(FailpointError(name))
            }
            FailAction::Kill => {
                let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
                std::process::abort()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_armed_failpoint_fails_until_disarmed() {
        let points = Failpoints::default();
        assert!(points.hit("x").is_ok());
        points.configure("x=error,y=nonsense");
        assert!(points.hit("x").is_err());
        assert!(points.hit("y").is_ok());
        points.arm("x", None);
        assert!(points.hit("x").is_ok());
        points.configure("x=error-once");
        assert!(points.hit("x").is_err());
        assert!(points.hit("x").is_ok());
    }

    #[test]
    fn the_n_th_time_is_meant() {
        let points = Failpoints::default();
        points.configure("x=error-once@3,y=error@0,z=error@x");
        let failed: Vec<bool> = (0..5).map(|_| points.hit("x").is_err()).collect();
        assert_eq!(failed, [false, false, true, false, false]);
        assert!(points.hit("y").is_ok() && points.hit("z").is_ok());
    }

    #[test]
    fn what_is_passed_is_traced() {
        let points = Failpoints::default();
        let file = tempfile::NamedTempFile::new().unwrap();
        points.configure(&format!("trace={}", file.path().display()));
        for name in ["a", "b", "a"] {
            points.hit(name).unwrap();
        }
        let lines = ["a", "b", "a"].map(|name| format!("{} {name}\n", std::process::id()));
        assert_eq!(std::fs::read_to_string(file.path()).unwrap(), lines.concat());
    }
}
