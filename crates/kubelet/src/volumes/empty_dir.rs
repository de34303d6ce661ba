//! `emptyDir`: a folder that lives as long as its pod, on disk or in memory.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use k8s_openapi::api::core::v1::EmptyDirVolumeSource;

use super::SetUpError;

pub(super) fn set_up(path: &Path, source: &EmptyDirVolumeSource, group: Option<u32>) -> Result<(), SetUpError> {
    let fresh = !path.exists();
    fs::create_dir_all(path)?;
    match source.medium.as_deref() {
        None | Some("") => {}
        Some("Memory") => {
            if !linux::mount::is_mount_point(path)? {
                let limit = source.size_limit.as_ref().map(rules::parse_quantity).filter(|limit| !limit.is_zero());
                let size = limit.map(|limit| format!(",size={}", limit.value())).unwrap_or_default();
                linux::mount::tmpfs(path, linux::mount::TmpfsFlags::Programs, &format!("mode=1777{size}"))?;
            }
        }
        Some(other) => return Err(SetUpError::Unsupported(format!("emptyDir with medium {other}"))),
    }
    if fresh {
        if group.is_some() {
            chown(path, None, group)?;
        }
        // Any user may write; a group's files stay the group's.
        let mode = if group.is_some() { 0o2777 } else { 0o777 };
        fs::set_permissions(path, Permissions::from_mode(mode))?;
    }
    Ok(())
}
