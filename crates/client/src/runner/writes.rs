//! What a reconcile wrote, and whether informers have seen it.

use apimachinery::ObjectKey;
use parking_lot::Mutex;

use crate::{Client, Error, Informer, ListOptions, Resource, Selection};

/// The writes of one reconcile.
#[derive(Default)]
pub(crate) struct WriteLog(Mutex<Vec<Write>>);

#[derive(Clone)]
struct Write {
    resource: Resource,
    key: ObjectKey,
    outcome: Outcome,
}

#[derive(Clone)]
enum Outcome {
    /// The object is as it should be at this revision.
    Revision(u64),
    /// The object with this uid (empty: the one that was there) is gone or going.
    Removed(String),
    /// Nobody knows: the server is to be asked.
    Unknown,
}

impl WriteLog {
    pub(crate) fn wrote(&self, resource: &Resource, key: &ObjectKey, revision: u64) {
        self.push(resource, key, Outcome::Revision(revision));
    }

    pub(crate) fn removed(&self, resource: &Resource, key: &ObjectKey, uid: &str) {
        self.push(resource, key, Outcome::Removed(uid.to_owned()));
    }

    pub(crate) fn unknown(&self, resource: &Resource, key: &ObjectKey) {
        self.push(resource, key, Outcome::Unknown);
    }

    fn push(&self, resource: &Resource, key: &ObjectKey, outcome: Outcome) {
        self.0.lock().push(Write { resource: resource.clone(), key: key.clone(), outcome });
    }

    /// Whether `informers` have seen everything.
    pub(crate) fn seen(&self, informers: &[Informer]) -> bool {
        self.0.lock().iter().all(|write| informers.iter().all(|informer| write.seen_by(informer)))
    }

    /// Waits until `informers` have seen everything.
    pub(crate) async fn wait(&self, informers: &[Informer]) {
        let writes = self.0.lock().clone();
        for write in writes {
            for informer in informers.iter().filter(|informer| write.concerns(informer)) {
                let write = match write.outcome {
                    // Whoever writes need not be allowed to read.
                    Outcome::Unknown => write.clarify(informer.client()).await,
                    _ => write.clone(),
                };
                match write.outcome {
                    Outcome::Revision(revision) if !write.seen_by(informer) => informer.wait_for(revision).await,
                    _ => informer.until(|informer| write.seen_by(informer)).await,
                }
            }
        }
    }
}

impl Write {
    fn concerns(&self, informer: &Informer) -> bool {
        let (resource, selection) = (informer.resource(), informer.selection());
        resource.plural == self.resource.plural
            && resource.group == self.resource.group
            && (selection.namespace.is_empty() || selection.namespace == self.key.namespace)
    }

    fn seen_by(&self, informer: &Informer) -> bool {
        !self.concerns(informer)
            || match &self.outcome {
                Outcome::Revision(revision) => self.revision_seen(informer, *revision),
                Outcome::Removed(uid) => self.removal_seen(informer, uid),
                Outcome::Unknown => false,
            }
    }

    fn revision_seen(&self, informer: &Informer, revision: u64) -> bool {
        // An update that changed nothing is answered with an older revision.
        informer.revision() >= revision || informer.get(&self.key).is_some_and(|object| object.revision() >= revision)
    }

    fn removal_seen(&self, informer: &Informer, uid: &str) -> bool {
        informer.get(&self.key).is_none_or(|object| object.is_deleting() || !uid.is_empty() && object.uid() != uid)
    }

    /// Asks the server what became of the write, until it says.
    async fn clarify(&self, client: &Client) -> Write {
        let mut backoff =
            crate::Backoff::new(std::time::Duration::from_millis(100), std::time::Duration::from_secs(10));
        loop {
            match self.ask(client).await {
                Ok(outcome) => return Write { outcome, ..self.clone() },
                Err(_) => client.env().sleep(backoff.next(client.env())).await,
            }
        }
    }

    async fn ask(&self, client: &Client) -> Result<Outcome, Error> {
        if !self.key.name.is_empty() {
            return Ok(match client.find(&self.resource, &self.key).await? {
                Some(object) => Outcome::Revision(object.revision()),
                None => Outcome::Removed(String::new()),
            });
        }
        // A name was to be generated: whatever is there now must have been seen.
        let selection = Selection::all().namespace(&*self.key.namespace);
        let list = client.list(&self.resource, &selection, &ListOptions::default()).await?;
        Ok(Outcome::Revision(list.items.iter().map(|object| object.revision()).max().unwrap_or_default()))
    }
}
