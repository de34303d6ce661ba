//! Ctrl-C: a run ends in order, its programs stopped and its results kept.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};

use anyhow::{Context, Result, bail};
use tokio::signal::unix::{SignalKind, signal};

/// Whether somebody asked for the end, and whom to tell.
#[derive(Clone)]
pub struct Stop(Arc<parking_lot::Mutex<State>>);

#[derive(Default)]
struct State {
    asked: bool,
    tell: Vec<Sender<()>>,
}

impl Stop {
    /// From now on SIGINT, SIGTERM and SIGHUP don't end this process but are told here.
    pub fn on_signals() -> Result<Stop> {
        let stop = Stop::new();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut signals = {
            let _context = runtime.enter();
            [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()]
                .into_iter()
                .map(|kind| signal(kind).context("taking signals"))
                .collect::<Result<Vec<_>>>()?
        };
        let teller = stop.clone();
        std::thread::Builder::new().name("signals".into()).spawn(move || {
            runtime.block_on(async {
                loop {
                    futures_util::future::select_all(signals.iter_mut().map(|signal| Box::pin(signal.recv()))).await;
                    teller.ask();
                }
            });
        })?;
        Ok(stop)
    }

    fn new() -> Stop {
        Stop(Arc::new(parking_lot::Mutex::new(State::default())))
    }

    fn ask(&self) {
        let mut state = self.0.lock();
        state.asked = true;
        state.tell.retain(|tell| tell.send(()).is_ok());
    }

    /// One message for each time that somebody asks, the first at once if it happened already.
    pub fn watch(&self) -> Receiver<()> {
        let (tell, told) = mpsc::channel();
        let mut state = self.0.lock();
        if state.asked {
            tell.send(()).ok();
        }
        state.tell.push(tell);
        told
    }

    /// Fails once somebody asked.
    pub fn check(&self) -> Result<()> {
        if self.0.lock().asked {
            bail!("stopped as asked");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_comes_late_is_told_too() {
        let stop = Stop::new();
        assert!(stop.check().is_ok());
        let early = stop.watch();
        stop.ask();
        assert!(early.try_recv().is_ok() && stop.watch().try_recv().is_ok());
        assert_eq!(stop.check().unwrap_err().to_string(), "stopped as asked");
    }
}
