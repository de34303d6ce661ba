//! RBAC's policy rules: what they allow, and whether one set of them covers another.
//!
//! Upstream: pkg/apis/rbac/v1 evaluation_helpers, component-helpers auth/rbac/validation.

use std::fmt;

use apimachinery::{Map, Value};

use super::Attributes;

/// A rule of a Role or ClusterRole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rule {
    pub verbs: Vec<String>,
    pub groups: Vec<String>,
    pub resources: Vec<String>,
    /// Empty allows every name.
    pub names: Vec<String>,
    pub urls: Vec<String>,
}

impl Rule {
    /// From a role's `rules[i]`.
    pub(crate) fn read(value: &Value) -> Rule {
        let list = |key: &str| value.items_at(&[key]).iter().filter_map(Value::as_str).map(str::to_owned).collect();
        Rule {
            verbs: list("verbs"),
            groups: list("apiGroups"),
            resources: list("resources"),
            names: list("resourceNames"),
            urls: list("nonResourceURLs"),
        }
    }

    /// All rules of a role.
    pub(crate) fn read_all(role: &Value) -> Vec<Rule> {
        role.items_at(&["rules"]).iter().map(Rule::read).collect()
    }

    pub(crate) fn to_value(&self) -> Value {
        let mut map = Map::default();
        let mut put = |key: &'static str, list: &Vec<String>| {
            if !list.is_empty() {
                map.insert(key, list.clone());
            }
        };
        put("apiGroups", &self.groups);
        put("nonResourceURLs", &self.urls);
        put("resourceNames", &self.names);
        put("resources", &self.resources);
        map.insert("verbs", self.verbs.clone());
        map.into()
    }

    pub(crate) fn allows(&self, request: &Attributes<'_>) -> bool {
        if !has(&self.verbs, "*") && !has(&self.verbs, request.verb) {
            return false;
        }
        if !request.resource_request {
            return self.urls.iter().any(|url| url == "*" || url_covers(url, request.path));
        }
        let resource = |rule: &String| match request.subresource {
            _ if rule == "*" => true,
            "" => rule == request.resource,
            sub => match rule.split_once('/') {
                Some((resource, rest)) => rest == sub && (resource == "*" || resource == request.resource),
                None => false,
            },
        };
        (has(&self.groups, "*") || has(&self.groups, request.group))
            && self.resources.iter().any(resource)
            && (self.names.is_empty() || has(&self.names, request.name))
    }

    /// Whether this rule allows everything that `part`, one of [`Rule::parts`], allows.
    fn covers(&self, part: &Rule) -> bool {
        let all = |own: &[String], wanted: &[String]| has(own, "*") || wanted.iter().all(|one| has(own, one));
        let resource = |wanted: &String| {
            has(&self.resources, wanted)
                || wanted.split_once('/').is_some_and(|(_, sub)| has(&self.resources, &format!("*/{sub}")))
        };
        let names = match (self.names.is_empty(), part.names.is_empty()) {
            (true, _) => true,
            (false, true) => false,
            (false, false) => part.names.iter().all(|name| has(&self.names, name)),
        };
        all(&self.verbs, &part.verbs)
            && all(&self.groups, &part.groups)
            && (has(&self.resources, "*") || part.resources.iter().all(resource))
            && part.urls.iter().all(|url| self.urls.iter().any(|own| url_covers(own, url)))
            && names
    }

    /// The rule taken apart: one verb, and one resource of one group (of one name) or one URL, each.
    fn parts(&self) -> Vec<Rule> {
        let mut parts = Vec::new();
        let one = |text: &String| vec![text.clone()];
        let names: Vec<Vec<String>> =
            if self.names.is_empty() { vec![Vec::new()] } else { self.names.iter().map(one).collect() };
        for group in &self.groups {
            for resource in &self.resources {
                for verb in &self.verbs {
                    parts.extend(names.iter().map(|names| Rule {
                        verbs: one(verb),
                        groups: one(group),
                        resources: one(resource),
                        names: names.clone(),
                        urls: Vec::new(),
                    }));
                }
            }
        }
        for url in &self.urls {
            parts.extend(self.verbs.iter().map(|verb| Rule { verbs: one(verb), urls: one(url), ..Rule::default() }));
        }
        parts
    }
}

/// What `wanted` allows beyond `held`, those parts together that differ in their verbs alone.
pub(crate) fn missing(held: &[Rule], wanted: &[Rule]) -> Vec<Rule> {
    let mut missing: Vec<Rule> = Vec::new();
    for part in wanted.iter().flat_map(Rule::parts).filter(|part| !held.iter().any(|rule| rule.covers(part))) {
        let same = |rule: &&mut Rule| {
            part.urls.is_empty()
                && (&rule.groups, &rule.resources, &rule.names, &rule.urls)
                    == (&part.groups, &part.resources, &part.names, &part.urls)
        };
        match missing.iter_mut().find(same) {
            Some(rule) => rule.verbs.extend(part.verbs),
            None => missing.push(part),
        }
    }
    missing
}

impl fmt::Display for Rule {
    /// As refused escalations name it: `{APIGroups:["apps"], Resources:["deployments"], Verbs:["get" "list"]}`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = [
            ("APIGroups", &self.groups),
            ("Resources", &self.resources),
            ("NonResourceURLs", &self.urls),
            ("ResourceNames", &self.names),
            ("Verbs", &self.verbs),
        ];
        let parts: Vec<String> = named
            .into_iter()
            .filter(|(_, list)| !list.is_empty())
            .map(|(name, list)| format!("{name}:{}", quoted(list)))
            .collect();
        write!(f, "{{{}}}", parts.join(", "))
    }
}

/// Texts as Go prints a list of them with `%q`: `["a" "b"]`.
pub(crate) fn quoted(texts: &[String]) -> String {
    format!("[{}]", texts.iter().map(|text| format!("{text:?}")).collect::<Vec<_>>().join(" "))
}

fn has(set: &[String], wanted: &str) -> bool {
    set.iter().any(|one| one == wanted)
}

fn url_covers(own: &str, url: &str) -> bool {
    own == url || (own.ends_with('*') && url.starts_with(own.trim_end_matches('*')))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::UserInfo;

    /// `verbs groups resources [names]`, or `verbs url urls`; lists with commas.
    fn rule(text: &str) -> Rule {
        let mut words = text.split(' ').map(|word| word.split(',').map(|w| w.replace('-', "")).collect::<Vec<_>>());
        let verbs = words.next().unwrap();
        let groups = words.next().unwrap();
        if groups == ["url"] {
            return Rule { verbs, urls: words.next().unwrap(), ..Rule::default() };
        }
        Rule {
            verbs,
            groups,
            resources: words.next().unwrap(),
            names: words.next().unwrap_or_default(),
            urls: Vec::new(),
        }
    }

    #[test]
    fn rules_allow() {
        let user = UserInfo::authenticated("u", &[]);
        let check = |text: &str, verb: &str, group: &str, resource: &str, name: &str, expect: bool| {
            let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
            let request = Attributes { subresource, name, ..Attributes::resource(&user, verb, group, resource) };
            assert_eq!(rule(text).allows(&request), expect, "{text}: {request:?}");
        };
        check("get - pods", "get", "", "pods", "", true);
        check("get - pods", "list", "", "pods", "", false);
        check("get - pods", "get", "apps", "pods", "", false);
        check("get - pods", "get", "", "pods/log", "", false);
        check("get - pods/log", "get", "", "pods/log", "", true);
        check("get - */log", "get", "", "pods/log", "", true);
        check("get - */log", "get", "", "pods", "", false);
        check("* * *", "get", "apps", "x/y", "n", true);
        check("get - pods a,b", "get", "", "pods", "b", true);
        check("get - pods a,b", "get", "", "pods", "c", false);
        check("get - pods a,b", "get", "", "pods", "", false);
        check("get url *", "get", "", "pods", "", false);
        for (text, path, expect) in [
            ("get url /healthz", "/healthz", true),
            ("get url /healthz", "/healthz/x", false),
            ("get url /api/*", "/api/v1", true),
            ("get url /api/*", "/apis", false),
            ("get url *", "/x", true),
            ("* * *", "/x", false),
            ("put url *", "/x", false),
        ] {
            assert_eq!(rule(text).allows(&Attributes::path(&user, "get", path)), expect, "{text} {path}");
        }
    }

    #[test]
    fn sets_cover() {
        let check = |held: &[&str], wanted: &[&str], expect: &[&str]| {
            let rules = |texts: &[&str]| texts.iter().map(|text| rule(text)).collect::<Vec<_>>();
            let found: Vec<String> = missing(&rules(held), &rules(wanted)).iter().map(Rule::to_string).collect();
            assert_eq!(found, expect);
        };
        check(&["get v1 builds"], &["get v1 builds"], &[]);
        check(&["get v1 */scale"], &["get v1 foo/scale"], &[]);
        check(&["delete v1 a", "delete v1 b", "update v1 a,b"], &["delete,update v1 a,b"], &[]);
        check(
            &["delete,update v1 a", "delete v1 b"],
            &["delete,update v1 a,b"],
            &[r#"{APIGroups:["v1"], Resources:["b"], Verbs:["update"]}"#],
        );
        check(&["get * roles"], &["get a,b roles"], &[]);
        check(&["get a roles"], &["get * roles"], &[r#"{APIGroups:["*"], Resources:["roles"], Verbs:["get"]}"#]);
        check(&["get - pods x"], &["get - pods x"], &[]);
        check(&["get - pods x"], &["get - pods"], &[r#"{APIGroups:[""], Resources:["pods"], Verbs:["get"]}"#]);
        check(
            &[],
            &["get,list - pods x"],
            &[r#"{APIGroups:[""], Resources:["pods"], ResourceNames:["x"], Verbs:["get" "list"]}"#],
        );
        check(&["get url /a/*"], &["get url /a/b,/c"], &[r#"{NonResourceURLs:["/c"], Verbs:["get"]}"#]);
        check(&["* * *"], &["get url /"], &[r#"{NonResourceURLs:["/"], Verbs:["get"]}"#]);
    }

    #[test]
    fn rules_go_round() {
        let read = rule("get,list - pods x");
        assert_eq!(Rule::read(&read.to_value()), read);
        assert_eq!(rule("get url /a").to_value().to_string(), r#"{"nonResourceURLs":["/a"],"verbs":["get"]}"#);
    }
}
