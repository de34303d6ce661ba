//! Who asks.

use std::collections::BTreeMap;

/// An authenticated user. Upstream: user.Info.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserInfo {
    pub name: String,
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}

impl UserInfo {
    /// A user of the given groups and of `system:authenticated`.
    pub fn authenticated(name: &str, groups: &[&str]) -> UserInfo {
        let mut groups: Vec<String> = groups.iter().map(|group| (*group).to_owned()).collect();
        groups.push("system:authenticated".to_owned());
        UserInfo { name: name.to_owned(), groups, ..UserInfo::default() }
    }

    /// Whoever brings no credentials.
    pub fn anonymous() -> UserInfo {
        let groups = vec!["system:unauthenticated".to_owned()];
        UserInfo { name: "system:anonymous".to_owned(), groups, ..UserInfo::default() }
    }

    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|own| own == group)
    }
}
