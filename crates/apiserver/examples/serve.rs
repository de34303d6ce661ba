//! An API server alone, with its store in memory, to try clients against:
//! `cargo run -p apiserver --example serve -- /tmp/alone` writes `/tmp/alone/kubeconfig` and serves until it is interrupted.

use std::path::PathBuf;
use std::sync::Arc;

use apiserver::{Config, Settings};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use env::Env;
use pki::{CertificateSpec, ClusterPki};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().with_max_level(tracing_subscriber::filter::LevelFilter::INFO).init();
    let folder = PathBuf::from(std::env::args().nth(1).ok_or("the argument is a folder to write to")?);
    std::fs::create_dir_all(&folder)?;
    let env = Env::system();
    let pki = Arc::new(ClusterPki::load_or_create(&folder, &env)?);
    let store = store::Embedded::in_memory(&env)?;
    let config = Config {
        env,
        store,
        pki: pki.clone(),
        bind: vec!["127.0.0.1:0".parse()?],
        names: Vec::new(),
        settings: Settings::new("192.0.2.1".parse()?),
    };
    let server = apiserver::build(config).await?;
    let admin = pki.certificate("admin", &CertificateSpec::client("kubernetes-admin", "system:masters"))?;
    let encode = |pem: &str| STANDARD.encode(pem);
    let kubeconfig = serde_json::json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "alone",
        "clusters": [{ "name": "alone", "cluster": {
            "server": format!("https://{}", server.addresses()[0]),
            "certificate-authority-data": encode(pki.ca().certificate_pem()),
        } }],
        "users": [{ "name": "admin", "user": {
            "client-certificate-data": encode(admin.certificate_pem()),
            "client-key-data": encode(admin.key_pem()),
        } }],
        "contexts": [{ "name": "alone", "context": { "cluster": "alone", "user": "admin" } }],
    });
    std::fs::write(folder.join("kubeconfig"), kubeconfig.to_string())?;
    let interrupted = async { drop(tokio::signal::ctrl_c().await) };
    server.run(interrupted).await?;
    Ok(())
}
