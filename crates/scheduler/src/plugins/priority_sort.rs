//! More important pods are tried first; the queue itself breaks ties by arrival.

use crate::framework::Plugin;
use crate::pod::PodInfo;

pub struct PrioritySort;

impl Plugin for PrioritySort {
    fn name(&self) -> &'static str {
        "PrioritySort"
    }

    fn queue_sort(&self) -> Option<fn(&PodInfo) -> i64> {
        Some(|pod| i64::from(pod.priority))
    }
}
