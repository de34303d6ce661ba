//! How many requests may be in the server at once. Upstream: maxinflight filter.

use std::sync::Arc;

use apimachinery::Status;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::identity::UserInfo;
use crate::request::RequestInfo;

const READS: usize = 400;
const WRITES: usize = 200;

pub(super) struct Limits {
    reads: Arc<Semaphore>,
    writes: Arc<Semaphore>,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { reads: Arc::new(Semaphore::new(READS)), writes: Arc::new(Semaphore::new(WRITES)) }
    }
}

impl Limits {
    /// A place for the request while the permit lives; streams and administrators need none.
    pub(super) fn enter(
        &self,
        user: &UserInfo,
        info: &RequestInfo,
        long_running: bool,
    ) -> Result<Option<OwnedSemaphorePermit>, Status> {
        if long_running || user.is_in("system:masters") {
            return Ok(None);
        }
        let pool = if matches!(&*info.verb, "get" | "list" | "watch" | "head") { &self.reads } else { &self.writes };
        let busy = |_| Status::too_many_requests("Too many requests, please try again later.", 1);
        pool.clone().try_acquire_owned().map(Some).map_err(busy)
    }
}
