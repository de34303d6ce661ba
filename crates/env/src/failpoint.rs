//! Named places where a test may make the program fail or die.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

/// What an armed failpoint does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailAction {
    /// Return [`FailpointError`].
    Error,
    /// Return [`FailpointError`] the next time only.
    ErrorOnce,
    /// End the process at once, as `kill -9` would.
    Abort,
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
    armed: Mutex<HashMap<String, FailAction>>,
}

impl Failpoints {
    /// Reads `name=abort,name=error`; anything else is ignored.
    pub(crate) fn configure(&self, spec: &str) {
        for (name, action) in spec.split(',').filter_map(|part| part.split_once('=')) {
            match action {
                "abort" => self.arm(name, Some(FailAction::Abort)),
                "error-once" => self.arm(name, Some(FailAction::ErrorOnce)),
                "error" => self.arm(name, Some(FailAction::Error)),
                _ => {}
            }
        }
    }

    pub(crate) fn arm(&self, name: &str, action: Option<FailAction>) {
        let mut armed = self.armed.lock();
        match action {
            Some(action) => armed.insert(name.to_owned(), action),
            None => armed.remove(name),
        };
        self.any.store(!armed.is_empty(), Ordering::Release);
    }

    pub(crate) fn hit(&self, name: &'static str) -> Result<(), FailpointError> {
        if !self.any.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut armed = self.armed.lock();
        match armed.get(name) {
            None => Ok(()),
            Some(FailAction::Error) => Err(FailpointError(name)),
            Some(FailAction::ErrorOnce) => {
                armed.remove(name);
                Err(FailpointError(name))
            }
            Some(FailAction::Abort) => std::process::abort(),
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
}
