//! Tasks that end with their owner.

use tokio::task::JoinHandle;

/// Aborts its task when dropped.
pub struct TaskGuard(JoinHandle<()>);

impl TaskGuard {
    pub fn new(task: JoinHandle<()>) -> TaskGuard {
        TaskGuard(task)
    }

    pub fn is_finished(&self) -> bool {
        self.0.is_finished()
    }

    /// Waits until the task has ended by itself.
    pub async fn ended(&mut self) {
        if let Err(error) = (&mut self.0).await
            && error.is_panic()
        {
            tracing::error!(%error, "a task panicked");
        }
    }
}

impl Drop for TaskGuard {
    fn drop(&mut self) {
        self.0.abort();
    }
}
