//! The scheduler as a program of its own, over TLS like upstream's: `run KUBECONFIG [CONFIGURATION]` (the latter as JSON).
//! `cargo xtask bench scheduler` compares the two.

use std::path::PathBuf;
use std::sync::Arc;

use client::{Client, Kubeconfig, Tls};
use env::Env;
use scheduler::{Config, Configuration};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().thread_stack_size(16 << 20).enable_all().build()?;
    runtime.block_on(async {
        let mut args = std::env::args().skip(1);
        let kubeconfig = PathBuf::from(args.next().ok_or("the first argument is a kubeconfig")?);
        let configuration = match args.next() {
            Some(path) => Configuration::parse(&serde_json::from_slice(&std::fs::read(path)?)?)?,
            None => Configuration::default(),
        };
        let env = Env::system();
        let access = Kubeconfig::load(&[kubeconfig])?.access(None)?;
        let client = Client::new(env.clone(), Arc::new(Tls::new(env.clone(), &access)?), "scheduler");
        scheduler::build(Config { env, client, configuration }).run().await;
        Ok(())
    })
}
