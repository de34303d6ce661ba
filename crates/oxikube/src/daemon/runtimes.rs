//! What components run on: threads of their own for API and control plane, for the node, and for the data path, so that none waits for
//! another's work.

use std::future::Future;

use tokio::runtime::{Builder, Runtime};

/// Pages that are not touched cost nothing; unoptimised builds touch many.
const STACK: usize = 16 << 20;

pub(super) struct Runtimes {
    /// The API server, controllers, scheduler, and commands.
    pub(super) api: Runtime,
    /// The container runtime and the kubelet.
    pub(super) node: Runtime,
    /// The rules of Services, and what feeds cluster DNS.
    pub(super) data: Runtime,
}

impl Runtimes {
    pub(super) fn new() -> std::io::Result<Runtimes> {
        let runtime = |name: &'static str, threads| {
            Builder::new_multi_thread()
                .worker_threads(threads)
                .thread_name(name)
                .thread_stack_size(STACK)
                .enable_all()
                .build()
        };
        Ok(Runtimes { api: runtime("api", 2)?, node: runtime("node", 2)?, data: runtime("data", 1)? })
    }
}

/// Polls `work` where it is awaited, but what it spawns, listens to and waits for belongs to `runtime`.
pub(super) async fn within<T>(runtime: &Runtime, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    std::future::poll_fn(|ctx| {
        let _entered = runtime.enter();
        work.as_mut().poll(ctx)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_spawned_runs_where_it_belongs() {
        let runtimes = Runtimes::new().unwrap();
        let env = env::Env::system();
        let thread = || std::thread::current().name().unwrap_or_default().to_owned();
        let spawned = runtimes.api.block_on(within(&runtimes.node, async {
            env.sleep(std::time::Duration::from_millis(1)).await;
            env.spawn(async move { thread() }).await.unwrap()
        }));
        assert_eq!(spawned, "node");
    }
}
