//! The requests of `conformance/parity`, against the answers that upstream's server gave to them.
//! `cargo xtask parity --record` writes those anew.

use std::fs;
use std::path::{Path, PathBuf};

use pki::CertificateSpec;
use testkit::parity::{Kept, Script, Server, differences, golden, replay, scripts};

use crate::fixture::Fixture;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../conformance/parity")
}

#[tokio::test(flavor = "multi_thread")]
async fn our_answers_are_upstreams() {
    let fixture = Fixture::start().await;
    let mut kept = Kept::parse(&fs::read_to_string(folder().join("kept.txt")).unwrap()).unwrap();
    let mut report = Vec::new();
    for script in scripts(&folder()).unwrap() {
        report.extend(compare(&fixture, &script, &mut kept).await);
    }
    assert!(report.is_empty(), "{} differences\n{}", report.len(), report.join("\n"));
}

async fn compare(fixture: &Fixture, script: &Script, kept: &mut Kept) -> Vec<String> {
    let path = folder().join("golden").join(format!("{}.txt", script.name));
    let theirs = golden::read(&fs::read_to_string(&path).unwrap_or_default()).unwrap();
    let server = Server {
        env: fixture.env.clone(),
        address: fixture.address,
        authority: fixture.pki.ca().certificate_pem().to_owned(),
        identity: Box::new(|user, group| {
            let leaf = fixture.pki.ca().issue(&CertificateSpec::client(user, group)).map_err(std::io::Error::other)?;
            Ok((leaf.certificate_pem().to_owned(), leaf.key_pem().to_owned()))
        }),
    };
    let ours = replay(&server, script).await.unwrap();
    let mut report = Vec::new();
    for (step, ours) in script.steps.iter().zip(&ours) {
        let name = format!("{}/{}", script.name, step.name);
        let Some(theirs) = theirs.get(&step.name) else {
            report.push(format!("{name} is not recorded: run cargo xtask parity --record"));
            continue;
        };
        let differences = differences(theirs, ours);
        report.extend(differences.iter().filter(|one| !kept.covers(&name, one)).map(|one| format!("{name}: {one}")));
    }
    report
}
