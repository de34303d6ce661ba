use std::collections::HashSet;

use apimachinery::Value;

use super::*;
use crate::Cell;

#[test]
fn every_row_is_consistent() {
    let mut resources = HashSet::new();
    let mut paths = HashSet::new();
    for row in kinds() {
        let at = format!("{} {}", row.api_version(), row.kind);
        assert!(resources.insert(row.gvr()), "{at}: resource twice");
        assert_eq!(row.ty().name(), row.type_name, "{at}");
        assert_eq!(type_of(row.group, row.version, row.kind).unwrap().id(), row.ty().id(), "{at}");
        assert!(row.ty().field("metadata").is_some() && row.ty().field("apiVersion").is_some(), "{at}");
        assert_eq!(row.list_ty().is_some(), row.has_verb("list"), "{at}");
        assert_eq!(row.list_kind.is_empty(), !row.has_verb("list"), "{at}");
        if let Some(storage) = row.storage {
            assert!(row.has_verb("watch") && row.has_verb("create"), "{at}");
            assert!(paths.insert((storage.path, row.group, row.version)), "{at}: path twice");
            let hub = row.hub();
            assert_eq!((hub.group, hub.version), (storage.group, storage.version), "{at}: no row for its hub");
        }
        for subresource in row.subresources {
            assert!(subresource.ty().is_some(), "{at}: {} has no type", subresource.name);
        }
        let has_status = row.ty().field("status").is_some() && row.storage.is_some();
        assert_eq!(row.subresource("status").is_some(), has_status, "{at}");
        for field in row.selectable {
            assert!(row.ty().walk(field.path).is_some(), "{at}: {} is nowhere", field.label);
        }
        for column in row.columns {
            let path = match column.cell {
                Cell::At(path) | Cell::Count(path) | Cell::Labels(path) | Cell::Selector(path) => path,
                Cell::ContainerNames(path) | Cell::ContainerImages(path) => path,
                Cell::Name | Cell::Age | Cell::Created | Cell::Computed => continue,
            };
            assert!(row.ty().walk(path).is_some(), "{at}: column {} is nowhere", column.name);
        }
    }
    assert_eq!(kinds().len(), 66);
}

#[test]
fn every_group_version_has_rows() {
    for group in groups() {
        for version in group.versions {
            let has = kinds().iter().any(|row| row.group == group.name && row.version == version.name);
            assert!(has, "{}/{}", group.name, version.name);
            assert!(type_of(group.name, version.name, "DeleteOptions").is_some());
        }
    }
    assert!(type_of("nothing.io", "v1", "DeleteOptions").is_none());
    assert!(type_of("policy", "v1", "Eviction").is_some());
    assert!(type_of("autoscaling", "v1", "Scale").is_some());
    assert!(type_of("", "v1", "List").is_some());
}

#[test]
fn rows_are_found() {
    let names =
        |name: &str| named(name).map(|row| format!("{} {}", row.api_version(), row.resource)).collect::<Vec<_>>();
    assert_eq!(names("po"), ["v1 pods"]);
    assert_eq!(names("Deployment"), ["apps/v1 deployments"]);
    assert_eq!(names("ev"), ["v1 events", "events.k8s.io/v1 events"]);
    assert_eq!(names("hpa"), ["autoscaling/v2 horizontalpodautoscalers", "autoscaling/v1 horizontalpodautoscalers"]);
    assert_eq!(names("crd"), ["apiextensions.k8s.io/v1 customresourcedefinitions"]);
    assert_eq!(names("crontabs"), [""; 0]);
    let prefix = |group: &str, name: &str| resource(group, "v1", name).unwrap().prefix().unwrap();
    assert_eq!(prefix("", "nodes"), "/registry/minions/");
    assert_eq!(prefix("", "services"), "/registry/services/specs/");
    assert_eq!(prefix("apps", "deployments"), "/registry/deployments/");
    assert_eq!(prefix("networking.k8s.io", "ingresses"), "/registry/ingress/");
    assert_eq!(kind("events.k8s.io", "v1", "Event").unwrap().hub().api_version(), "v1");
}

#[test]
fn selectable_fields_have_zero_values() {
    let check = |resource_name: &str, json: &str, expect: &[(&str, &str)]| {
        let value = Value::parse(json.as_bytes()).unwrap();
        let fields = resource("", "v1", resource_name).unwrap().field_values(&value);
        let fields: Vec<(&str, &str)> = fields.iter().map(|(label, value)| (*label, value.as_str())).collect();
        assert_eq!(fields, expect);
    };
    check("nodes", "{}", &[("spec.unschedulable", "false")]);
    check("nodes", r#"{"spec":{"unschedulable":true}}"#, &[("spec.unschedulable", "true")]);
    check("replicationcontrollers", "{}", &[("status.replicas", "0")]);
    check("secrets", r#"{"type":"Opaque"}"#, &[("type", "Opaque")]);
}

#[test]
fn an_event_comes_from_its_component_or_its_controller() {
    let check = |json: &str, expect: &str| {
        let value = Value::parse(json.as_bytes()).unwrap();
        let fields = resource("", "v1", "events").unwrap().field_values(&value);
        assert_eq!(fields.iter().find(|(label, _)| *label == "source").unwrap().1, expect);
    };
    check("{}", "");
    check(r#"{"reportingComponent":"r"}"#, "r");
    check(r#"{"source":{"component":"c"},"reportingComponent":"r"}"#, "c");
}
