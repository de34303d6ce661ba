//! `hostPath`: a path of the node itself.

use std::fs::{self, DirBuilder, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::HostPathVolumeSource;

use super::SetUpError;

/// Checks the path against the wanted type, making it first for the types that ask so.
pub(super) fn check(source: &HostPathVolumeSource) -> Result<PathBuf, SetUpError> {
    let path = Path::new(&source.path);
    let wanted = source.type_.as_deref().unwrap_or_default();
    match wanted {
        "DirectoryOrCreate" if !path.exists() => DirBuilder::new().recursive(true).mode(0o755).create(path)?,
        "FileOrCreate" if !path.exists() => {
            OpenOptions::new().write(true).create_new(true).mode(0o644).open(path)?;
        }
        _ => {}
    }
    let kind = fs::metadata(path).map(|metadata| metadata.file_type());
    let is = |test: fn(&fs::FileType) -> bool| kind.as_ref().is_ok_and(test);
    let (fits, expected) = match wanted {
        "" => (true, ""),
        "Directory" | "DirectoryOrCreate" => (is(fs::FileType::is_dir), "a directory"),
        "File" | "FileOrCreate" => (is(fs::FileType::is_file), "a file"),
        "Socket" => (is(FileTypeExt::is_socket), "a socket file"),
        "CharDevice" => (is(FileTypeExt::is_char_device), "a character device"),
        "BlockDevice" => (is(FileTypeExt::is_block_device), "a block device"),
        other => return Err(SetUpError::Unsupported(format!("hostPath with type {other}"))),
    };
    if fits { Ok(path.to_owned()) } else { Err(SetUpError::HostPathType { path: source.path.clone(), expected }) }
}
