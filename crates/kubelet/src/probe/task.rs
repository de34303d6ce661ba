//! One probe of one container, over all its instances.

use std::sync::Arc;
use std::time::Duration;

use client::{EventType, ObjectReference};
use k8s_openapi::api::core::v1::{Container, Probe};
use tokio::sync::{Notify, watch};

use super::check::{Checked, check};
use super::{Instance, Kind, Outcome, Verdicts, View};
use crate::context::Context;

/// How often a probe that could not be carried out is tried in a row.
const TRIES: usize = 3;

pub(super) struct Task {
    pub(super) ctx: Arc<Context>,
    pub(super) poke: Arc<Notify>,
    pub(super) verdicts: Verdicts,
    pub(super) view: watch::Receiver<View>,
    pub(super) container: Container,
    pub(super) kind: Kind,
    pub(super) probe: Probe,
    pub(super) about: ObjectReference,
}

fn seconds(given: Option<i32>, default: u64) -> Duration {
    Duration::from_secs(given.and_then(|given| u64::try_from(given).ok()).unwrap_or(default))
}

impl Task {
    pub(super) async fn run(mut self) {
        let mut done: Option<String> = None;
        loop {
            let (name, kind) = (self.container.name.clone(), self.kind);
            let wanted = |view: &View| {
                let instance = view.running.get(&name)?;
                let due = Some(&instance.id) != done.as_ref() && (kind == Kind::Startup || instance.started);
                (due && !(view.deleting && kind != Kind::Readiness)).then(|| instance.clone())
            };
            let found = self.view.wait_for(|view| wanted(view).is_some()).await.map(|view| wanted(&view));
            let Ok(found) = found else { return };
            let Some(instance) = found else { continue };
            self.probe_instance(&instance).await;
            done = Some(instance.id);
        }
    }

    /// Probes one instance until it is gone, or there is nothing more to find out about it.
    async fn probe_instance(&mut self, instance: &Instance) {
        let env = self.ctx.env.clone();
        let key = (instance.id.clone(), self.kind);
        let known = *self.verdicts.lock().entry(key).or_insert(self.kind.initially());
        if self.kind == Kind::Startup && known == Outcome::Success {
            return;
        }
        let period = seconds(self.probe.period_seconds, 10).max(Duration::from_secs(1));
        let mut next = env.monotonic() + self.initial_delay(instance);
        // While a container starts its runtime knows only about when: it is right a moment later.
        while !self.gone_before(&instance.id, next).await {
            let left = self.initial_delay(instance);
            if left.is_zero() {
                break;
            }
            next = env.monotonic() + left;
        }
        let mut streak = (Outcome::Unknown, 0);
        loop {
            if self.gone_before(&instance.id, next).await {
                return;
            }
            next = env.monotonic() + period;
            let outcome = self.probe_once(instance).await;
            streak = if streak.0 == outcome { (outcome, streak.1 + 1) } else { (outcome, 1) };
            let threshold = match outcome {
                Outcome::Success => self.probe.success_threshold.unwrap_or(1),
                _ => self.probe.failure_threshold.unwrap_or(3),
            };
            if streak.1 < threshold.max(1) {
                continue;
            }
            if self.is_gone(&instance.id) {
                return;
            }
            self.set(&instance.id, outcome);
            match (self.kind, outcome) {
                (Kind::Startup, Outcome::Success) => return,
                // It will be restarted: until then there is nothing to find out.
                (Kind::Startup | Kind::Liveness, Outcome::Failure) => return,
                _ => {}
            }
        }
    }

    /// What is left of the time that the instance has before its first probe.
    fn initial_delay(&self, instance: &Instance) -> Duration {
        let since = self.view.borrow().running.get(&self.container.name).map_or(instance.since, |known| known.since);
        let run_for = Duration::try_from(self.ctx.env.now().duration_since(since)).unwrap_or_default();
        seconds(self.probe.initial_delay_seconds, 0).saturating_sub(run_for)
    }

    fn set(&self, id: &str, outcome: Outcome) {
        let before = self.verdicts.lock().insert((id.to_owned(), self.kind), outcome);
        if before != Some(outcome) {
            self.poke.notify_one();
        }
    }

    fn is_gone(&self, id: &str) -> bool {
        let view = self.view.borrow();
        let runs = view.running.get(&self.container.name).is_some_and(|instance| instance.id == id);
        !runs || view.deleting && self.kind != Kind::Readiness
    }

    /// Waits until `at`; whether the instance went away before.
    async fn gone_before(&mut self, id: &str, at: tokio::time::Instant) -> bool {
        let env = self.ctx.env.clone();
        loop {
            if self.is_gone(id) {
                return true;
            }
            tokio::select! {
                () = env.sleep_until(at) => return false,
                changed = self.view.changed() => {
                    if changed.is_err() {
                        return true;
                    }
                }
            }
        }
    }

    async fn probe_once(&self, instance: &Instance) -> Outcome {
        let ip = self.view.borrow().ip;
        let limit = seconds(self.probe.timeout_seconds, 1).max(Duration::from_secs(1));
        let mut checked = Checked::Error(String::new());
        for _ in 0..TRIES {
            checked = Box::pin(check(&self.ctx, &self.container, &self.probe, &instance.id, ip, limit)).await;
            if !matches!(checked, Checked::Error(_)) {
                break;
            }
        }
        let word = self.kind.word();
        let event = |reason, message: String| {
            self.ctx.recorder.event(self.about.clone(), EventType::Warning, reason, message);
        };
        match checked {
            Checked::Success => Outcome::Success,
            Checked::Warning(message) => {
                event("ProbeWarning", format!("{word} probe warning: {message}"));
                Outcome::Success
            }
            // A container that is gone meanwhile has not failed.
            _ if self.is_gone(&instance.id) => Outcome::Failure,
            Checked::Failure(message) => {
                event("Unhealthy", format!("{word} probe failed: {message}"));
                Outcome::Failure
            }
            Checked::Error(message) => {
                event("Unhealthy", format!("{word} probe errored and resulted in unknown state: {message}"));
                Outcome::Failure
            }
        }
    }
}
