//! The images of `examples/visits`, made from Debian packages of this machine.

use std::io;
use std::path::{Path, PathBuf};

use crate::image::{Image, Layer, Packing, busybox_layer, programs_layer};

/// An image with its name and the name of its archive.
pub struct Named {
    /// `visits-frontend`
    pub file: &'static str,
    /// `oxikube.local/visits-frontend:1`
    pub reference: &'static str,
    pub image: Image,
}

/// Where the example's manifests and programs are.
pub fn visits() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/visits")
}

/// The images of the example, and a plain busybox. Needs the packages `busybox-static` and `redis-server`.
pub fn visits_images() -> io::Result<Vec<Named>> {
    let busybox = busybox_layer()?;
    let base = || Image::new().layer(busybox.clone(), Packing::Gzip).env(["PATH=/bin:/usr/bin"]);
    let program = |name: &str| std::fs::read(visits().join("frontend").join(name));

    let pages = Layer::new()
        .file("bin/start", 0o755, program("start")?)
        .owner(65534, 65534)
        .dir("www", 0o755)
        .dir("www/cgi-bin", 0o755)
        .file("www/cgi-bin/index.cgi", 0o755, program("index.cgi")?)
        .file("www/healthz", 0o644, "ok\n");
    let frontend = base()
        .layer(pages, Packing::Gzip)
        .user("65534:65534")
        .set("ExposedPorts", serde_json::json!({ "8080/tcp": {} }))
        .cmd(["start"]);

    let folders = Layer::new().dir("usr", 0o755).dir("usr/bin", 0o755);
    let programs =
        ["redis-server", "redis-cli"].map(|name| (PathBuf::from("/usr/bin").join(name), format!("usr/bin/{name}")));
    let programs: Vec<(&Path, &str)> =
        programs.iter().map(|(path, target)| (path.as_path(), target.as_str())).collect();
    let server = programs_layer(folders, &programs)?.owner(999, 999).dir("data", 0o755);
    let redis = base()
        .layer(server, Packing::Gzip)
        .user("999:999")
        .set("WorkingDir", serde_json::json!("/data"))
        .set("ExposedPorts", serde_json::json!({ "6379/tcp": {} }))
        .entrypoint(["redis-server", "--bind", "*", "--protected-mode", "no", "--save", ""]);

    let named = |file, reference, image| Named { file, reference, image };
    Ok(vec![
        named("busybox", "oxikube.local/busybox:1", base().cmd(["sh"])),
        named("visits-frontend", "oxikube.local/visits-frontend:1", frontend),
        named("redis", "oxikube.local/redis:7", redis),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_files_give_the_same_images() {
        let (images, again) = (visits_images().unwrap(), visits_images().unwrap());
        let ids = |images: &[Named]| images.iter().map(|named| named.image.id()).collect::<Vec<_>>();
        assert_eq!(images.len(), 3);
        assert_eq!(ids(&images), ids(&again));
        let base = images[0].image.layer_digests()[0].clone();
        assert!(images.iter().all(|named| named.image.layer_digests()[0] == base), "all stand on one layer");
    }
}
