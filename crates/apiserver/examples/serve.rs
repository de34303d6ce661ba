//! An API server alone, with its store in memory, to try clients against:
//! `cargo run -p apiserver --example serve -- /tmp/alone` writes `/tmp/alone/kubeconfig` and serves until it is interrupted.
//!
//! `cargo xtask parity` compares it with upstream's: given an address to listen on (and further names for the certificate), it
//! prints the address when it is ready and also ends with its standard input. `SERVICE_CIDRS` names other ranges of service addresses, separated by
//! commas.

use std::path::PathBuf;
use std::sync::Arc;

use apiserver::{Config, Settings};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use env::Env;
use pki::{CertificateSpec, ClusterPki};
use tokio::io::AsyncReadExt;

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(tracing_subscriber::filter::LevelFilter::INFO)
        .init();
    // Unoptimised futures are large.
    let runtime = tokio::runtime::Builder::new_multi_thread().thread_stack_size(16 << 20).enable_all().build()?;
    // Not on this thread: waking one that isn't the runtime's costs more.
    runtime.block_on(runtime.spawn(serve()))?
}

async fn serve() -> Result<(), Failure> {
    let mut args = std::env::args().skip(1).collect::<Vec<_>>().into_iter();
    let folder = PathBuf::from(args.next().ok_or("the first argument is a folder to write to")?);
    let address = args.next();
    std::fs::create_dir_all(&folder)?;
    let env = Env::system();
    let pki = Arc::new(ClusterPki::load_or_create(&folder, &env)?);
    let store = store::Embedded::in_memory(&env)?;
    let mut settings = Settings::new("192.0.2.1".parse()?);
    if let Ok(cidrs) = std::env::var("SERVICE_CIDRS") {
        settings.service_cidrs = cidrs.split(',').map(str::to_owned).collect();
    }
    let config = Config {
        env,
        store,
        pki: pki.clone(),
        bind: vec![address.as_deref().unwrap_or("127.0.0.1:0").parse()?],
        names: args.collect(),
        settings,
    };
    let server = apiserver::build(config).await?;
    let listening = server.addresses()[0];
    let admin = pki.certificate("admin", &CertificateSpec::client("kubernetes-admin", "system:masters"))?;
    let encode = |pem: &str| STANDARD.encode(pem);
    let kubeconfig = serde_json::json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "alone",
        "clusters": [{ "name": "alone", "cluster": {
            "server": format!("https://{listening}"),
            "certificate-authority-data": encode(pki.ca().certificate_pem()),
        } }],
        "users": [{ "name": "admin", "user": {
            "client-certificate-data": encode(admin.certificate_pem()),
            "client-key-data": encode(admin.key_pem()),
        } }],
        "contexts": [{ "name": "alone", "context": { "cluster": "alone", "user": "admin" } }],
    });
    std::fs::write(folder.join("kubeconfig"), kubeconfig.to_string())?;
    let mut ready = server.ready();
    let ended = async {
        if ready.wait_for(|ready| *ready).await.is_ok() {
            println!("{listening}");
        }
        let interrupted = tokio::signal::ctrl_c();
        if address.is_none() {
            return drop(interrupted.await);
        }
        let (mut input, mut sink) = (tokio::io::stdin(), Vec::new());
        tokio::select! {
            _ = interrupted => {}
            _ = input.read_to_end(&mut sink) => {}
        }
    };
    Ok(server.run(ended).await?)
}
