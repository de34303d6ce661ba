//! Whether a pod would get an answer from cluster DNS: asked from a pod's network namespace, through the service address.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use cluster::Settings;
use env::Env;
use linux::netns::NetNs;
use runtime::network::{PodNetwork, SandboxNetwork};

const SANDBOX: &str = "dns-check";
/// The name that every cluster has.
const NAME: &str = "kubernetes.default.svc.cluster.local.";

/// Returns when the answer came; the caller limits the time.
pub(super) async fn answers(env: &Env, settings: &Settings, network: Arc<dyn PodNetwork>) -> Result<()> {
    let pin = settings.scope().run("dns-check.net");
    // Left by a daemon that died here.
    network.teardown(SANDBOX).await.context("removing an earlier check's network")?;
    linux::netns::delete(&pin)?;
    let namespace = NetNs::create(&pin)?;
    let outcome = async {
        let request = SandboxNetwork {
            sandbox_id: SANDBOX.into(),
            netns: pin.clone(),
            pod_namespace: "kube-system".into(),
            pod_name: SANDBOX.into(),
            pod_uid: SANDBOX.into(),
            ports: Vec::new(),
        };
        network.setup(&request).await.context("making the check's network")?;
        let server = SocketAddr::new(settings.dns_ip(), 53);
        ask(env, namespace, server).await
    };
    let outcome = outcome.await;
    network.teardown(SANDBOX).await.context("removing the check's network")?;
    linux::netns::delete(&pin)?;
    outcome
}

/// Asks until there is an answer: the Service's rules and the server's records come within moments.
async fn ask(env: &Env, namespace: NetNs, server: SocketAddr) -> Result<()> {
    let mut pause = Duration::from_millis(5);
    loop {
        let namespace = namespace.clone();
        let asked =
            tokio::task::spawn_blocking(move || namespace.run(|| dns::ask(server, NAME, Duration::from_millis(500))));
        match asked.await.context("asking DNS")?? {
            Ok(_) => return Ok(()),
            Err(error) => tracing::debug!(%error, "cluster DNS does not answer yet"),
        }
        env.sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(200));
    }
}
