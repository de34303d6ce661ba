//! Control groups: v1, hybrid (v1 controllers beside an empty v2 hierarchy) and v2 behind one face.
//!
//! A group is named by one path relative to every hierarchy's root; where the hierarchies are mounted is found once. Mounts
//! are left alone, and nothing is written outside the named groups, except that on v2 controllers are switched on in the
//! ancestors that a group needs them from.

mod devices;
mod limits;
mod usage;

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

pub use devices::{DeviceKind, DeviceRule};
pub use limits::Limits;
pub use usage::{CpuUsage, MemoryUsage, Usage};

use crate::mount;

/// Which interface controls resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// One hierarchy per controller.
    V1,
    /// One hierarchy.
    V2,
}

/// The hierarchies of this machine.
#[derive(Clone, Debug)]
pub struct Hierarchies {
    version: Version,
    /// v1: each controller (or named hierarchy) and its mount point. Empty on v2.
    controllers: Vec<(String, PathBuf)>,
    /// Where v2 is mounted.
    unified: Option<PathBuf>,
}

/// One group: the same path below every hierarchy.
#[derive(Clone, Debug)]
pub struct Group {
    hierarchies: Hierarchies,
    path: PathBuf,
}

impl Hierarchies {
    /// Finds the hierarchies below `/sys/fs/cgroup`.
    pub fn detect() -> io::Result<Hierarchies> {
        match Hierarchies::by_folders(Path::new("/sys/fs/cgroup"), &fs::read_to_string("/proc/self/cgroup")?)? {
            Some(found) => Ok(found),
            None => Hierarchies::by_mounts(),
        }
    }

    /// The usual layout, without a look at every mount of the machine, of which a node with many pods has many: each hierarchy in a
    /// folder that is called after its controllers. `membership` is `/proc/self/cgroup`.
    fn by_folders(root: &Path, membership: &str) -> io::Result<Option<Hierarchies>> {
        const V1: u64 = 0x0027_e0eb;
        const V2: u64 = 0x6367_7270;
        let kind = |path: &Path| rustix::fs::statfs(path).map(|found| found.f_type as u64);
        if kind(root)? == V2 {
            return Ok(Some(Hierarchies {
                version: Version::V2,
                controllers: Vec::new(),
                unified: Some(root.to_owned()),
            }));
        }
        let mut folders: Vec<PathBuf> = Vec::new();
        for entry in fs::read_dir(root)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            }
        }
        folders.sort();
        let (mut controllers, mut unified) = (Vec::new(), None);
        for folder in folders {
            match kind(&folder)? {
                V1 => match controllers_of(&folder, membership) {
                    Some(names) => controllers.extend(names.into_iter().map(|name| (name, folder.clone()))),
                    None => return Ok(None),
                },
                V2 => unified = Some(folder),
                _ => {}
            }
        }
        let resources = controllers.iter().any(|(name, _)| !name.starts_with("name="));
        Ok(resources.then_some(Hierarchies { version: Version::V1, controllers, unified }))
    }

    fn by_mounts() -> io::Result<Hierarchies> {
        let mounts = mount::mounts()?;
        let below = |mount: &&mount::MountPoint| mount.path.starts_with("/sys/fs/cgroup");
        let mut controllers: Vec<(String, PathBuf)> = Vec::new();
        for mount in mounts.iter().filter(|mount| mount.kind == "cgroup").filter(below) {
            for option in mount.options.split(',').filter(|option| *option != "rw" && *option != "ro") {
                let named = option.starts_with("name=");
                let known = ["xattr", "clone_children", "noprefix", "favordynmods"];
                if (named || !option.contains('=') && !known.contains(&option))
                    && !controllers.iter().any(|(name, _)| name == option)
                {
                    controllers.push((option.to_owned(), mount.path.clone()));
                }
            }
        }
        let unified = mounts.iter().filter(below).find(|mount| mount.kind == "cgroup2").map(|mount| mount.path.clone());
        let resources = controllers.iter().any(|(name, _)| !name.starts_with("name="));
        match (resources, &unified) {
            (true, _) => Ok(Hierarchies { version: Version::V1, controllers, unified }),
            (false, Some(_)) => Ok(Hierarchies { version: Version::V2, controllers: Vec::new(), unified }),
            (false, None) => Err(io::Error::other("no control groups are mounted below /sys/fs/cgroup")),
        }
    }

    /// Which interface controls resources; a hybrid machine counts as v1.
    pub fn version(&self) -> Version {
        self.version
    }

    /// v1's controllers with the folders they are mounted at; empty on v2.
    pub fn controllers(&self) -> &[(String, PathBuf)] {
        &self.controllers
    }

    /// Whether `controller` (v1's names: `memory`, `cpu`, `pids`, ...) can be used.
    pub fn has(&self, controller: &str) -> bool {
        match (self.version, &self.unified) {
            (Version::V1, _) => self.controllers.iter().any(|(name, _)| name == controller),
            (Version::V2, Some(root)) => {
                let available = fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
                available.split_whitespace().any(|name| name == controller)
            }
            (Version::V2, None) => false,
        }
    }

    /// The group at `path`, a relative path or an absolute one below the hierarchies' roots. Parts like `..` are refused.
    pub fn group(&self, path: impl AsRef<Path>) -> io::Result<Group> {
        let mut clean = PathBuf::new();
        for part in path.as_ref().components() {
            match part {
                Component::Normal(name) => clean.push(name),
                Component::RootDir | Component::CurDir => {}
                _ => return Err(io::Error::new(io::ErrorKind::InvalidInput, "control group path leaves its root")),
            }
        }
        if clean.as_os_str().is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "control group path is empty"));
        }
        Ok(Group { hierarchies: self.clone(), path: clean })
    }

    /// Every mounted hierarchy's folder, once each.
    fn roots(&self) -> Vec<&Path> {
        let mut roots: Vec<&Path> = Vec::new();
        for root in self.controllers.iter().map(|(_, root)| root).chain(self.unified.as_ref()) {
            if !roots.contains(&root.as_path()) {
                roots.push(root);
            }
        }
        roots
    }

    /// The folders in which groups are made: on a hybrid machine the v2 hierarchy controls nothing and is left out.
    fn used_roots(&self) -> Vec<&Path> {
        match self.version {
            Version::V2 => self.unified.iter().map(PathBuf::as_path).collect(),
            Version::V1 => self.roots().into_iter().filter(|root| Some(*root) != self.unified.as_deref()).collect(),
        }
    }
}

/// The controllers of the v1 hierarchy in `folder`, if its name tells them.
fn controllers_of(folder: &Path, membership: &str) -> Option<Vec<String>> {
    let name = folder.file_name()?.to_str()?;
    let sorted = |list: &str| {
        let mut names: Vec<String> = list.split(',').map(str::to_owned).collect();
        names.sort();
        names
    };
    let wanted = [sorted(name), vec![format!("name={name}")]];
    let lists = membership.lines().filter_map(|line| line.split(':').nth(1));
    lists.map(sorted).find(|list| wanted.contains(list))
}

impl Group {
    /// The path below every hierarchy's root, without a leading slash.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The group's folder in the hierarchy of `controller`.
    pub fn folder(&self, controller: &str) -> Option<PathBuf> {
        let root = match self.hierarchies.version {
            Version::V2 => self.hierarchies.unified.as_deref(),
            Version::V1 => {
                self.hierarchies.controllers.iter().find(|(name, _)| name == controller).map(|(_, root)| root.as_path())
            }
        };
        root.map(|root| root.join(&self.path))
    }

    /// The group `name` below this one.
    pub fn child(&self, name: &str) -> io::Result<Group> {
        self.hierarchies.group(self.path.join(name))
    }

    /// Makes the group and its ancestors in every hierarchy, ready to take processes.
    pub fn create(&self) -> io::Result<()> {
        for root in self.hierarchies.used_roots() {
            match self.hierarchies.version {
                Version::V1 => fs::create_dir_all(root.join(&self.path))?,
                Version::V2 => self.create_unified(root)?,
            }
        }
        if self.hierarchies.version == Version::V1
            && let Some((_, root)) = self.hierarchies.controllers.iter().find(|(name, _)| name == "cpuset")
        {
            self.inherit_cpuset(root)?;
        }
        Ok(())
    }

    /// Switches on, in each ancestor, the controllers its own parent gives it, so that they reach this group.
    fn create_unified(&self, root: &Path) -> io::Result<()> {
        let mut folder = root.to_path_buf();
        for part in self.path.components() {
            let available = fs::read_to_string(folder.join("cgroup.controllers"))?;
            let on = fs::read_to_string(folder.join("cgroup.subtree_control"))?;
            for controller in ["cpuset", "cpu", "io", "memory", "hugetlb", "pids"] {
                let listed = |list: &str| list.split_whitespace().any(|name| name == controller);
                if listed(&available) && !listed(&on) {
                    // Refused where processes live in an inner group that isn't ours; limits then fail where they are set.
                    let _ = fs::write(folder.join("cgroup.subtree_control"), format!("+{controller}"));
                }
            }
            folder.push(part);
            match fs::create_dir(&folder) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// A new v1 cpuset is empty and takes no process until it has processors and memory nodes. Where a group has them, so have those
    /// above it.
    fn inherit_cpuset(&self, root: &Path) -> io::Result<()> {
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let mut empty = Vec::new();
            let mut value = String::new();
            for part in self.path.ancestors() {
                let path = root.join(part).join(file);
                value = fs::read_to_string(&path)?.trim().to_owned();
                if !value.is_empty() {
                    break;
                }
                empty.push(path);
            }
            for path in empty.iter().rev() {
                fs::write(path, &value)?;
            }
        }
        Ok(())
    }

    /// Whether the group exists in any hierarchy.
    pub fn exists(&self) -> bool {
        self.hierarchies.roots().iter().any(|root| root.join(&self.path).exists())
    }

    /// Moves the process into the group.
    pub fn add(&self, pid: i32) -> io::Result<()> {
        for root in self.hierarchies.used_roots() {
            fs::write(root.join(&self.path).join("cgroup.procs"), pid.to_string())?;
        }
        Ok(())
    }

    /// The processes in the group and the groups below it.
    pub fn processes(&self) -> io::Result<Vec<i32>> {
        let Some(folder) = self.process_folder() else { return Ok(Vec::new()) };
        let mut pids = Vec::new();
        for folder in tree(&folder)? {
            match fs::read_to_string(folder.join("cgroup.procs")) {
                Ok(list) => pids.extend(list.lines().filter_map(|line| line.parse::<i32>().ok())),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                // A group that is being removed.
                Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(pids)
    }

    /// A hierarchy whose process lists speak for all: the freezer or the pids controller, or v2.
    fn process_folder(&self) -> Option<PathBuf> {
        ["freezer", "pids", "memory", "cpu"].iter().find_map(|controller| self.folder(controller))
    }

    /// Kills every process in the group and below it; none can escape by forking. They may not be gone yet on return.
    pub fn kill(&self) -> io::Result<()> {
        match self.hierarchies.version {
            Version::V2 => match self.folder("").map(|folder| fs::write(folder.join("cgroup.kill"), "1")) {
                None | Some(Ok(())) => return Ok(()),
                Some(Err(error)) if error.kind() == io::ErrorKind::NotFound && !self.exists() => return Ok(()),
                // Linux before 5.14.
                Some(Err(_)) => self.signal_all()?,
            },
            Version::V1 => {
                let state =
                    self.folder("freezer").map(|folder| folder.join("freezer.state")).filter(|state| state.exists());
                if let Some(state) = &state {
                    let _ = fs::write(state, "FROZEN");
                }
                let result = self.signal_all();
                if let Some(state) = &state {
                    let _ = fs::write(state, "THAWED");
                }
                result?;
            }
        }
        Ok(())
    }

    fn signal_all(&self) -> io::Result<()> {
        for pid in self.processes()? {
            if let Some(pid) = rustix::process::Pid::from_raw(pid) {
                match rustix::process::kill_process(pid, rustix::process::Signal::KILL) {
                    Ok(()) | Err(rustix::io::Errno::SRCH) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }

    /// Removes the group and those below it in every hierarchy; succeeds when there is none. The kernel needs a moment to let
    /// go of a group whose last process just ended, hence a few tries within about a tenth of a second. May block.
    pub fn remove(&self) -> io::Result<()> {
        for root in self.hierarchies.roots() {
            for folder in tree(&root.join(&self.path))?.iter().rev() {
                remove_folder(folder)?;
            }
        }
        Ok(())
    }

    /// Removes the group's folders where they are empty, and tells whether all are gone.
    pub fn remove_if_empty(&self) -> io::Result<bool> {
        let mut gone = true;
        for root in self.hierarchies.roots() {
            match fs::remove_dir(root.join(&self.path)) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => gone = false,
                Err(error) => return Err(error),
            }
        }
        Ok(gone)
    }

    /// How many processes of the group the kernel killed for want of memory; 0 when that cannot be told.
    pub fn oom_kills(&self) -> u64 {
        let Some(folder) = self.folder("memory") else { return 0 };
        let file = match self.hierarchies.version {
            Version::V1 => "memory.oom_control",
            Version::V2 => "memory.events",
        };
        let text = fs::read_to_string(folder.join(file)).unwrap_or_default();
        text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok()).unwrap_or(0)
    }

    /// Allows the group's processes only the devices of `rules`. On v2 by a program attached to the group; on v1 through the
    /// devices controller.
    pub fn allow_devices(&self, rules: &[DeviceRule]) -> io::Result<()> {
        match (self.hierarchies.version, self.folder("devices")) {
            (_, None) => Ok(()),
            (Version::V1, Some(folder)) => devices::write_v1(&folder, rules),
            (Version::V2, Some(folder)) => devices::attach_v2(&folder, rules),
        }
    }
}

/// `folder` and every folder below it, parents first; empty when it does not exist.
fn tree(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut folders = Vec::new();
    let mut left = vec![folder.to_path_buf()];
    while let Some(folder) = left.pop() {
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                left.push(entry.path());
            }
        }
        folders.push(folder);
    }
    Ok(folders)
}

fn remove_folder(folder: &Path) -> io::Result<()> {
    let mut pause = Duration::from_millis(1);
    loop {
        match fs::remove_dir(folder) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && pause < Duration::from_millis(100) => {
                std::thread::sleep(pause);
                pause *= 2;
            }
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests;
