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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_so_many_are_let_in() {
        let limits = Limits::default();
        let alice = UserInfo::authenticated("alice", &[]);
        let admin = UserInfo::authenticated("admin", &["system:masters"]);
        let info = |verb: &str| RequestInfo { verb: verb.to_owned(), ..RequestInfo::default() };
        let held: Vec<_> = (0..WRITES).map(|_| limits.enter(&alice, &info("create"), false).unwrap()).collect();
        let refused = limits.enter(&alice, &info("patch"), false).unwrap_err();
        assert_eq!((refused.code, refused.details.map(|details| details.retry_after_seconds)), (429, Some(1)));
        assert!(limits.enter(&alice, &info("list"), false).is_ok());
        assert!(limits.enter(&admin, &info("create"), false).is_ok());
        assert!(limits.enter(&alice, &info("create"), true).is_ok());
        drop(held);
        assert!(limits.enter(&alice, &info("create"), false).is_ok());
    }
}
