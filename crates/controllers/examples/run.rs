//! The controllers as a program of their own, over TLS like upstream's: `run KUBECONFIG FOLDER`, where the folder has the cluster's keys, from
//! which each controller's service account gets a certificate, and `CONTROLLERS` may say which controllers, as `--controllers` does.
//! `cargo xtask controllers-diff` and `bench controllers` compare the two.

use std::path::PathBuf;
use std::sync::Arc;

use client::{Client, Kubeconfig, Tls, TlsConfig};
use controllers::Config;
use env::Env;
use pki::{CertificateSpec, ClusterPki};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env();
    let filter = filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).with_env_filter(filter).init();
    let runtime = tokio::runtime::Builder::new_multi_thread().thread_stack_size(16 << 20).enable_all().build()?;
    runtime.block_on(run())
}

async fn run() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1).map(PathBuf::from);
    let (Some(kubeconfig), Some(folder)) = (args.next(), args.next()) else {
        return Err("usage: run KUBECONFIG FOLDER".into());
    };
    let env = Env::system();
    let access = Kubeconfig::load(&[kubeconfig])?.access(None)?;
    let pki = Arc::new(ClusterPki::load_or_create(&folder, &env)?);
    let keys = pki.clone();
    let client = move |user: &str, group: &str| -> Result<Client, Box<dyn std::error::Error>> {
        let leaf = keys.ca().issue(&CertificateSpec::client(user, group))?;
        let identity = Some((leaf.certificate_pem().into(), leaf.key_pem().into()));
        let access = TlsConfig { identity, token: None, ..access.clone() };
        Ok(Client::new(env.clone(), Arc::new(Tls::new(env.clone(), &access)?), "kube-controller-manager"))
    };
    let mut config = Config::new(client("system:kube-controller-manager", "")?, pki.ca().certificate_pem().into());
    config.pki = Some(pki);
    if let Ok(controllers) = std::env::var("CONTROLLERS") {
        config.controllers = controllers.split(',').map(str::to_owned).collect();
    }
    config.accounts = Some(Arc::new(move |account| {
        let user = format!("system:serviceaccount:kube-system:{account}");
        client(&user, "system:serviceaccounts").expect("keys that issued one certificate issue another")
    }));
    controllers::build(config)?.run(std::future::pending()).await;
    Ok(())
}
