//! The cluster's entry in the user's kubeconfig.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use client::{Before, ClusterEntry, Kubeconfig};

use crate::settings::write_atomically;
use crate::{Args, Settings};

/// What the entry's files in the data folder are called; the daemon writes them before it is ready.
const CA: &str = "pki/ca.crt";
const ADMIN: &str = "pki/admin.pem";
/// What was in the kubeconfig before, so that `delete` can put it back.
const BEFORE: &str = "kubeconfig-before.json";

/// The files to write to: `--kubeconfig`, else those of `KUBECONFIG`, else the one in the home folder.
pub(crate) fn paths(args: &Args) -> Result<Vec<PathBuf>> {
    let paths = Kubeconfig::locate(args.kubeconfig.as_deref())?;
    paths.iter().map(|path| Ok(std::path::absolute(path)?)).collect()
}

/// Fails where the kubeconfig can't be read: nothing must be started that couldn't be told.
pub(crate) fn check(settings: &Settings) -> Result<()> {
    Kubeconfig::load(&settings.kubeconfig).map(drop).map_err(Into::into)
}

/// The context's name.
pub(crate) fn context(settings: &Settings) -> &str {
    &settings.name
}

/// Writes cluster, user and context, and makes it current.
pub(crate) fn write(settings: &Settings, env: &env::Env) -> Result<()> {
    let entry = entry(settings)?;
    let mut remembered = Ok(());
    let again = Kubeconfig::edit(&settings.kubeconfig, |config| {
        let again = config.has_context(&entry.name);
        let before = config.upsert(&entry);
        if !again {
            // Before it is written: whoever dies in between knows what to put back.
            remembered = remember(settings, &before);
        }
        again
    })?;
    remembered?;
    env.crashpoint("kubeconfig.written");
    // Told once: a second start finds its own entry there.
    match again.then(|| recall(settings)).transpose()?.flatten() {
        Some(before) => remember(settings, &before),
        None => Ok(()),
    }
}

/// Writes the entry if there is none of this cluster.
pub(crate) fn ensure(settings: &Settings, env: &env::Env) -> Result<()> {
    let config = Kubeconfig::load(&settings.kubeconfig)?;
    match config.cluster_server(&settings.name) {
        Some(server) if server == settings.server() => Ok(()),
        _ => write(settings, env),
    }
}

/// Writes the certificate that the daemon renewed into the entry, where that is still the cluster's own: it names the same server, and
/// `issued` says of the certificate (PEM) in it that the cluster's authority issued it to the same user. Tells whether it is.
pub fn renew(settings: &Settings, issued: impl Fn(&str) -> bool) -> Result<bool> {
    let entry = entry(settings)?;
    let ours = |config: &Kubeconfig| {
        let certificate = config.client_certificate(&entry.name);
        config.cluster_server(&entry.name) == Some(&entry.server)
            && certificate.is_some_and(|pem| issued(&String::from_utf8_lossy(&pem)))
    };
    // Somebody else's is not even locked.
    if !ours(&Kubeconfig::load(&settings.kubeconfig)?) {
        return Ok(false);
    }
    let renewed = Kubeconfig::edit(&settings.kubeconfig, |config| {
        let ours = ours(config);
        if ours {
            config.renew(&entry);
        }
        ours
    });
    Ok(renewed?)
}

/// Takes the entry away again.
pub(crate) fn remove(settings: &Settings) -> Result<()> {
    let before = recall(settings)?.unwrap_or_default();
    Kubeconfig::edit(&settings.kubeconfig, |config| {
        // Another cluster may have taken the name since.
        if config.cluster_server(&settings.name).is_some_and(|server| server == settings.server()) {
            config.remove(&settings.name, &before);
        }
    })
    .map_err(Into::into)
}

fn entry(settings: &Settings) -> Result<ClusterEntry> {
    let read = |name: &str| {
        let path = settings.data_dir.join(name);
        fs::read(&path).with_context(|| format!("reading {}", path.display()))
    };
    let admin = read(ADMIN)?;
    Ok(ClusterEntry {
        name: settings.name.clone(),
        server: settings.server(),
        ca: read(CA)?,
        client_certificate: section(&admin, "CERTIFICATE"),
        client_key: section(&admin, "PRIVATE KEY"),
    })
}

/// In the data folder for good, and in the run folder in case somebody removes the data.
fn remember(settings: &Settings, before: &Before) -> Result<()> {
    let json = serde_json::to_vec(before)?;
    let mut folders = [&settings.data_dir, &settings.run_dir].into_iter();
    folders
        .try_for_each(|folder| write_atomically(&folder.join(BEFORE), &json))
        .context("remembering what was in the kubeconfig before")
}

fn recall(settings: &Settings) -> Result<Option<Before>> {
    let mut folders = [&settings.data_dir, &settings.run_dir].into_iter();
    let json = folders.find_map(|folder| fs::read(folder.join(BEFORE)).ok());
    json.map(|json| serde_json::from_slice(&json).context("reading what was in the kubeconfig before")).transpose()
}

/// All PEM blocks with this label.
fn section(pem: &[u8], label: &str) -> Vec<u8> {
    let text = String::from_utf8_lossy(pem);
    let (begin, end) = (format!("-----BEGIN {label}-----"), format!("-----END {label}-----"));
    let mut out = String::new();
    let mut rest = text.as_ref();
    while let Some(at) = rest.find(&begin) {
        rest = &rest[at..];
        let Some(stop) = rest.find(&end) else { break };
        out.push_str(&rest[..stop + end.len()]);
        out.push('\n');
        rest = &rest[stop + end.len()..];
    }
    out.into_bytes()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::Start;
    use crate::settings::NodeAddress;

    /// A cluster whose daemon has written its certificates.
    struct Cluster {
        folder: tempfile::TempDir,
        settings: Settings,
    }

    impl Cluster {
        fn new() -> Cluster {
            let folder = tempfile::tempdir().unwrap();
            let args = Args::parse_from(["oxikube", "start", "--name", "kubeconfig-of-test"]);
            let node = NodeAddress { ip: "192.0.2.1".parse().unwrap(), name: "n".into() };
            let kubeconfig = vec![folder.path().join("home/.kube/config")];
            let mut settings = Settings::choose(&args, &Start::default(), node, kubeconfig).unwrap();
            settings.data_dir = folder.path().join("data");
            settings.run_dir = folder.path().join("run");
            fs::create_dir_all(settings.data_dir.join("pki")).unwrap();
            fs::create_dir_all(&settings.run_dir).unwrap();
            fs::create_dir_all(folder.path().join("home")).unwrap();
            fs::write(settings.data_dir.join(CA), "CA").unwrap();
            let cluster = Cluster { folder, settings };
            cluster.issue("first");
            cluster
        }

        fn issue(&self, certificate: &str) {
            fs::write(self.settings.data_dir.join(ADMIN), pem(certificate)).unwrap();
        }

        fn config(&self) -> Kubeconfig {
            Kubeconfig::load(&self.settings.kubeconfig).unwrap()
        }

        fn certificate(&self) -> String {
            String::from_utf8(self.config().client_certificate(&self.settings.name).unwrap()).unwrap()
        }

        fn home(&self) -> usize {
            fs::read_dir(self.folder.path().join("home")).unwrap().count()
        }
    }

    fn pem(certificate: &str) -> String {
        format!(
            "-----BEGIN CERTIFICATE-----\n{certificate}\n-----END CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----\nk\n-----END PRIVATE KEY-----\n"
        )
    }

    #[test]
    fn pem_blocks_are_taken_by_label() {
        let pem = pem("a");
        let pem = pem.as_bytes();
        assert_eq!(section(pem, "PRIVATE KEY"), b"-----BEGIN PRIVATE KEY-----\nk\n-----END PRIVATE KEY-----\n");
        assert_eq!(section(pem, "NOTHING"), b"");
    }

    #[test]
    fn a_file_of_ours_goes_with_the_entry_even_without_the_data() {
        let cluster = Cluster::new();
        for spoil in [false, true] {
            cluster.issue("first");
            write(&cluster.settings, &env::Env::system()).unwrap();
            // A second start does not forget that the file is ours; nor does a reboot.
            write(&cluster.settings, &env::Env::system()).unwrap();
            fs::remove_file(cluster.settings.run_dir.join(BEFORE)).unwrap();
            write(&cluster.settings, &env::Env::system()).unwrap();
            assert_eq!(cluster.home(), 1);
            if spoil {
                fs::remove_dir_all(&cluster.settings.data_dir).unwrap();
            }
            remove(&cluster.settings).unwrap();
            assert_eq!(cluster.home(), 0, "data gone: {spoil}");
        }
    }

    #[test]
    fn only_our_own_entry_is_renewed() {
        let cluster = Cluster::new();
        let ours = |pem: &str| pem.contains("first") || pem.contains("second");
        assert!(!renew(&cluster.settings, ours).unwrap(), "there is none");
        assert_eq!(cluster.home(), 0);
        write(&cluster.settings, &env::Env::system()).unwrap();
        cluster.issue("second");
        assert!(renew(&cluster.settings, ours).unwrap());
        assert!(cluster.certificate().contains("second"));
        // Somebody's own credentials stay, as does an entry that leads elsewhere.
        assert!(!renew(&cluster.settings, |_| false).unwrap());
        cluster.issue("first");
        let elsewhere = Settings { api_port: 1, ..cluster.settings.clone() };
        assert!(!renew(&elsewhere, ours).unwrap());
        assert!(cluster.certificate().contains("second"));
        assert_eq!(cluster.config().current_context(), Some("kubeconfig-of-test"));
    }
}
