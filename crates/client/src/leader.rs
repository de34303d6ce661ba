//! Leader election: at most one of several processes does something, by holding a Lease.
//!
//! Upstream: client-go tools/leaderelection.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::{Object, ObjectKey, Value};
use jiff::Timestamp;
use tokio::time::Instant;

use crate::{Client, Error, resources};

/// How a lease is held.
#[derive(Clone, Debug)]
pub struct LeaderElection {
    pub lease: ObjectKey,
    /// Distinct for each process.
    pub identity: String,
    /// How long a holder is left alone that does not renew.
    pub lease_duration: Duration,
    /// How long the holder tries to renew before it gives up; shorter than the lease, so that a term ends before the next begins.
    pub renew_deadline: Duration,
    pub retry_period: Duration,
}

impl LeaderElection {
    /// With upstream's durations: 15 s, 10 s, 2 s.
    pub fn new(lease: ObjectKey, identity: impl Into<String>) -> LeaderElection {
        LeaderElection {
            lease,
            identity: identity.into(),
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
        }
    }

    /// Runs `term` whenever this process is the leader; a term is dropped when the lease can't be renewed, and begins anew once
    /// the lease is won again. Ends when a term ends by itself (the lease is released then). Dropping this drops the term
    /// at once and leaves the lease to expire; see [`LeaderElection::release`].
    pub async fn run<F: Future<Output = ()>>(&self, client: &Client, mut term: impl FnMut() -> F) {
        let mut elector = Elector { election: self, client, observed: None };
        loop {
            let renewed = elector.acquire().await;
            tracing::info!(lease = %self.lease, identity = self.identity, "became leader");
            tokio::select! {
                biased;
                () = elector.renew(renewed) => tracing::warn!(lease = %self.lease, "lost leadership"),
                () = term() => return self.release(client).await,
            }
        }
    }

    /// Gives the lease up if this process holds it, so that another need not wait for it to expire.
    pub async fn release(&self, client: &Client) {
        let release = async {
            let Some(lease) = client.find(&resources::LEASES, &self.lease).await? else { return Ok::<(), Error>(()) };
            let mut value = lease.to_value();
            if value.str_at(&["spec", "holderIdentity"]) != Some(&self.identity) {
                return Ok(());
            }
            let now = micros(client.env().now());
            value.set(&["spec", "holderIdentity"], "");
            value.set(&["spec", "leaseDurationSeconds"], 1);
            value.set(&["spec", "acquireTime"], &now);
            value.set(&["spec", "renewTime"], now);
            client.update(&resources::LEASES, &value).await.map(drop)
        };
        if let Some(Err(error)) = client.env().timeout(self.renew_deadline, release).await {
            tracing::debug!(error = &error as &dyn std::error::Error, "lease not released");
        }
    }
}

struct Elector<'a> {
    election: &'a LeaderElection,
    client: &'a Client,
    /// The lease as last seen, and when it was first seen like this.
    observed: Option<(Arc<Object>, Instant)>,
}

impl Elector<'_> {
    /// Returns since when the lease is ours.
    async fn acquire(&mut self) -> Instant {
        loop {
            if let Some(since) = self.attempt().await {
                return since;
            }
            let env = self.client.env();
            env.sleep(env.jitter(self.election.retry_period, 1.2)).await;
        }
    }

    /// Renews until that fails for too long.
    async fn renew(&mut self, mut renewed: Instant) {
        let env = self.client.env().clone();
        loop {
            env.sleep(self.election.retry_period).await;
            let left = (renewed + self.election.renew_deadline).saturating_duration_since(env.monotonic());
            let attempt = env.timeout(left, self.attempt()).await;
            match attempt {
                Some(Some(since)) => renewed = since,
                _ if env.monotonic() >= renewed + self.election.renew_deadline => return,
                Some(None) if self.held_by_another() => return,
                _ => {}
            }
        }
    }

    fn held_by_another(&self) -> bool {
        let holder = self.observed.as_ref().map(|(lease, _)| holder(lease)).unwrap_or_default();
        !holder.is_empty() && holder != self.election.identity
    }

    /// One attempt to win or renew. The time returned lies before the request: the lease is ours at least from then on.
    async fn attempt(&mut self) -> Option<Instant> {
        let began = self.client.env().monotonic();
        match self.try_once(began).await {
            Ok(held) => held.then_some(began),
            Err(error) => {
                tracing::debug!(lease = %self.election.lease, error = &error as &dyn std::error::Error, "lease not held");
                None
            }
        }
    }

    async fn try_once(&mut self, now: Instant) -> Result<bool, Error> {
        let Some(lease) = self.client.find(&resources::LEASES, &self.election.lease).await? else {
            let body = self.lease_body(0, None);
            let created = self.client.create(&resources::LEASES, &body).await?;
            self.observed = Some((created, now));
            return Ok(true);
        };
        if self.observed.as_ref().is_none_or(|(known, _)| known.revision() != lease.revision()) {
            self.observed = Some((lease.clone(), now));
        }
        let since = self.observed.as_ref().map_or(now, |(_, since)| *since);
        let value = lease.to_value();
        let holder = holder(&lease);
        let ours = holder == self.election.identity;
        let seconds = value.i64_at(&["spec", "leaseDurationSeconds"]).unwrap_or_default().max(0) as u64;
        if !ours && !holder.is_empty() && now < since + Duration::from_secs(seconds) {
            return Ok(false);
        }
        let transitions = value.i64_at(&["spec", "leaseTransitions"]).unwrap_or_default();
        let acquired = value.str_at(&["spec", "acquireTime"]).filter(|_| ours);
        let body = self.lease_body(if ours { transitions } else { transitions + 1 }, acquired);
        let mut updated = value.clone();
        updated.set(&["spec"], body.get("spec").cloned().unwrap_or_default());
        let updated = self.client.update(&resources::LEASES, &updated).await?;
        self.observed = Some((updated, now));
        Ok(true)
    }

    fn lease_body(&self, transitions: i64, acquired: Option<&str>) -> Value {
        let now = micros(self.client.env().now());
        let mut body = Value::object();
        body.set(&["apiVersion"], "coordination.k8s.io/v1");
        body.set(&["kind"], "Lease");
        body.set(&["metadata", "name"], &self.election.lease.name);
        body.set(&["metadata", "namespace"], &self.election.lease.namespace);
        body.set(&["spec", "holderIdentity"], &self.election.identity);
        body.set(&["spec", "leaseDurationSeconds"], self.election.lease_duration.as_secs() as i64);
        body.set(&["spec", "leaseTransitions"], transitions);
        body.set(&["spec", "acquireTime"], acquired.unwrap_or(&now));
        body.set(&["spec", "renewTime"], now);
        body
    }
}

fn holder(lease: &Object) -> String {
    lease.to_value().str_at(&["spec", "holderIdentity"]).unwrap_or_default().to_owned()
}

/// As a `MicroTime` is written.
fn micros(at: Timestamp) -> String {
    format!("{at:.6}")
}
