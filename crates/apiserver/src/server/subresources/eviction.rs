//! Eviction: a deletion that asks. Disruption budgets do not hold it up yet, and the answer says so where one exists.

use apimachinery::{Selector, Status, Value};
use bytes::Bytes;
use http::StatusCode;

use crate::answer::{Answer, Content};
use crate::registry::{DeleteOptions, Resource, WriteOptions};
use crate::server::Request;
use crate::strategy::Objects;

impl Request<'_> {
    pub(super) async fn evict(&self, pods: &Resource, body: Bytes) -> Result<Answer, Status> {
        let options = WriteOptions::parse(&self.query, "CreateOptions")?;
        let eviction = self.body_of("policy", "v1", "Eviction", &body, &options)?;
        let name = eviction.str_at(&["metadata", "name"]).unwrap_or_default();
        if !name.is_empty() && name != self.info.name {
            return Err(Status::bad_request("name in URL does not match name in Eviction object"));
        }
        let empty = Value::object();
        let mut delete = DeleteOptions::read(eviction.get("deleteOptions").unwrap_or(&empty))?;
        delete.dry_run |= options.dry_run;
        let pod = self.inner.registry.get(pods, &self.key(pods), &self.info.name, "").await?;
        let budgets = Objects::list(&*self.inner.registry, "policy", "poddisruptionbudgets", &self.info.namespace);
        let guards = budgets.iter().any(|budget| {
            let budget = budget.to_value();
            Selector::from_label_selector(budget.at(&["spec", "selector"])).is_ok_and(|selector| selector.matches(&pod))
        });
        if guards {
            self.warn("PodDisruptionBudgets are stored, but evictions do not honour them yet");
        }
        let call = self.call(pods, &self.info.name, delete.dry_run);
        call.delete(&delete).await?;
        let mut status = Status::deleted(&Default::default(), "", "");
        (status.code, status.details) = (201, None);
        Ok(Answer::new(StatusCode::CREATED, Content::Status(status)))
    }
}
