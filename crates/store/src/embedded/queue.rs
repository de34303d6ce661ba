//! What waits for the writer.

use std::collections::VecDeque;

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use super::record::RecordId;
use crate::{Committed, Error, Revision, Txn};

pub(super) enum Request {
    Commit {
        txn: Txn,
        done: oneshot::Sender<Result<Committed, Refusal>>,
    },
    Compact {
        revision: Revision,
        done: oneshot::Sender<Result<(), Error>>,
    },
    /// A reader met an I/O error on this generation of the open file.
    Recover {
        generation: u64,
        done: std::sync::mpsc::Sender<()>,
    },
    /// Answered with whether it was done.
    Defragment {
        only_if_worth: bool,
        done: oneshot::Sender<Result<bool, Error>>,
    },
}

/// Why a transaction did not happen. The one who waits for it reads the value behind a conflict, not the writer.
pub(super) enum Refusal {
    Conflict { compare: usize, current: Option<RecordId> },
    Error(Error),
}

impl Request {
    fn size(&self) -> usize {
        match self {
            Request::Commit { txn, .. } => txn.size() + 256,
            _ => 0,
        }
    }
}

/// The requests in order of arrival, capped by their bytes.
pub(super) struct Queue {
    state: Mutex<State>,
    arrived: Condvar,
    max_bytes: usize,
}

#[derive(Default)]
struct State {
    requests: VecDeque<Request>,
    bytes: usize,
    closed: bool,
}

/// The most that one group commit takes.
const BATCH_REQUESTS: usize = 1024;
const BATCH_BYTES: usize = 4 << 20;

impl Queue {
    pub(super) fn new(max_bytes: usize) -> Queue {
        Queue { state: Mutex::default(), arrived: Condvar::new(), max_bytes }
    }

    pub(super) fn push(&self, request: Request) -> Result<(), Error> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(Error::Closed);
        }
        let size = request.size();
        if state.bytes + size > self.max_bytes && !state.requests.is_empty() {
            return Err(Error::Overloaded);
        }
        state.bytes += size;
        state.requests.push_back(request);
        drop(state);
        self.arrived.notify_one();
        Ok(())
    }

    /// The next requests, waiting for one; `None` when closed and all are taken.
    pub(super) fn take(&self) -> Option<Vec<Request>> {
        let mut state = self.state.lock();
        while state.requests.is_empty() {
            if state.closed {
                return None;
            }
            self.arrived.wait(&mut state);
        }
        Some(state.drain())
    }

    /// The next requests, maybe none.
    pub(super) fn try_take(&self) -> Vec<Request> {
        self.state.lock().drain()
    }

    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.arrived.notify_all();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state.lock().closed
    }
}

impl State {
    fn drain(&mut self) -> Vec<Request> {
        let mut taken = 0;
        let mut count = 0;
        for request in self.requests.iter().take(BATCH_REQUESTS) {
            taken += request.size();
            count += 1;
            if taken >= BATCH_BYTES {
                break;
            }
        }
        self.bytes -= taken;
        self.requests.drain(..count).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(bytes: usize) -> Request {
        Request::Commit { txn: Txn::new().put("k", vec![0; bytes]), done: oneshot::channel().0 }
    }

    #[test]
    fn what_waits_is_capped_by_its_bytes() {
        let queue = Queue::new(10_000);
        // One request always fits, else it never would.
        queue.push(write(20_000)).unwrap();
        assert!(matches!(queue.push(write(1)), Err(Error::Overloaded)));
        assert_eq!(queue.try_take().len(), 1);
        queue.push(write(4_000)).unwrap();
        queue.push(write(4_000)).unwrap();
        assert!(matches!(queue.push(write(4_000)), Err(Error::Overloaded)));
        assert_eq!(queue.try_take().len(), 2);
        queue.push(write(4_000)).unwrap();
        queue.close();
        assert!(matches!(queue.push(write(1)), Err(Error::Closed)));
        assert_eq!(queue.take().map(|requests| requests.len()), Some(1));
        assert!(queue.take().is_none());
    }

    #[test]
    fn a_batch_is_capped_too() {
        let queue = Queue::new(64 << 20);
        for _ in 0..10 {
            queue.push(write(1 << 20)).unwrap();
        }
        assert_eq!(queue.try_take().len(), 4);
        assert_eq!(queue.try_take().len(), 4);
        assert_eq!(queue.try_take().len(), 2);
        assert_eq!(queue.try_take().len(), 0);
    }
}
