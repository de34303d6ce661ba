//! The scheduler as a program of its own, over TLS like upstream's: `run KUBECONFIG [CONFIGURATION]`. Told to end, it says how long attempts took.
//! `cargo xtask bench scheduler` compares the two.

use std::path::PathBuf;
use std::sync::Arc;

use client::{Client, Kubeconfig, TaskGuard, Tls};
use env::Env;
use scheduler::{Config, Configuration};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().thread_stack_size(16 << 20).enable_all().build()?;
    runtime.block_on(async {
        let mut args = std::env::args().skip(1);
        let kubeconfig = PathBuf::from(args.next().ok_or("the first argument is a kubeconfig")?);
        let configuration = match args.next() {
            Some(path) => Configuration::from_yaml(&std::fs::read_to_string(path)?)?,
            None => Configuration::default(),
        };
        let env = Env::system();
        let access = Kubeconfig::load(&[kubeconfig])?.access(None)?;
        let client = Client::new(env.clone(), Arc::new(Tls::new(env.clone(), &access)?), "scheduler");
        let scheduler = scheduler::build(Config { env: env.clone(), client, configuration });
        let attempts = scheduler.attempts();
        // As a task among those it wakes, which need no other thread then.
        let running = TaskGuard::new(env.spawn(scheduler.run()));
        let mut told = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        told.recv().await;
        drop(running);
        let micros = |part| attempts.quantile(part).as_micros();
        eprintln!(r#"{{"attempts":{},"p50_us":{},"p99_us":{}}}"#, attempts.count(), micros(0.5), micros(0.99));
        Ok(())
    })
}
