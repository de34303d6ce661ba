//! From one profile's lists of plugins to who is asked where. Upstream: framework/runtime NewFramework.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::{PluginSet, ProfileSpec, plugins};
use crate::framework::{Enabled, Plugin, Point, Profile};
use crate::plugins::Parts;

/// The points in the order in which upstream fills them, each with its plugins' type.
const TYPES: [(Point, &str); 12] = [
    (Point::PreFilter, "PreFilterPlugin"),
    (Point::Filter, "FilterPlugin"),
    (Point::PostFilter, "PostFilterPlugin"),
    (Point::Reserve, "ReservePlugin"),
    (Point::PreScore, "PreScorePlugin"),
    (Point::Score, "ScorePlugin"),
    (Point::PreBind, "PreBindPlugin"),
    (Point::Bind, "BindPlugin"),
    (Point::PostBind, "PostBindPlugin"),
    (Point::Permit, "PermitPlugin"),
    (Point::PreEnqueue, "PreEnqueuePlugin"),
    (Point::QueueSort, "QueueSortPlugin"),
];

/// Makes a profile's plugins. `ignored`: resources that extenders decide about alone.
pub(super) fn make(spec: &ProfileSpec, ignored: &[&str], parts: &Parts) -> Result<Profile, String> {
    let mut made: BTreeMap<&str, Arc<dyn Plugin>> = BTreeMap::new();
    for known in plugins::ALL {
        let given = spec.plugin_config.iter().find(|config| config.name == known.name);
        let mut args = given.map(|given| super::without_nulls(&given.args)).unwrap_or_default();
        if known.name == "NodeResourcesFit" && !ignored.is_empty() {
            ignore(&mut args, ignored);
        }
        let plugin = (known.make)(&args, parts);
        let plugin = plugin.map_err(|why| format!("initializing plugin {:?}: {why}", known.name))?;
        made.insert(known.name, plugin);
    }
    let none = PluginSet::default();
    let set = |point: &str| spec.plugins.get(point).unwrap_or(&none);
    for (point, kind) in TYPES {
        let (name, _) = Point::ALL.iter().find(|(_, known)| *known == point).expect("every point has a name");
        check(set(name), point, kind)?;
    }
    check_everywhere(set("multiPoint"))?;
    let points = Point::ALL.map(|(name, point)| enabled(set(name), set("multiPoint"), point, &made));
    let count = |point: Point| points[point as usize].len();
    let name = spec.name();
    if count(Point::QueueSort) != 1 {
        let count = count(Point::QueueSort);
        return Err(format!(
            "only one queue sort plugin required for profile with scheduler name {name:?}, but got {count}"
        ));
    }
    if count(Point::Bind) == 0 {
        return Err(format!("at least one bind plugin is needed for profile with scheduler name {name:?}"));
    }
    if points[Point::Score as usize].iter().any(|enabled| enabled.weight < 0) {
        return Err("total score of Score plugins could overflow".into());
    }
    let percentage = spec.percentage_of_nodes_to_score.map(|percentage| percentage as u32);
    Ok(Profile::new(name.to_owned(), points, percentage))
}

/// Adds resources to those that the plugin doesn't look at.
fn ignore(args: &mut Value, ignored: &[&str]) {
    if args.is_null() {
        *args = json!({});
    }
    let mut all: Vec<Value> = args["ignoredResources"].as_array().cloned().unwrap_or_default();
    all.extend(ignored.iter().map(|name| json!(name)));
    args["ignoredResources"] = all.into();
}

/// What is named at one point must be there, be able, and be named once.
fn check(set: &PluginSet, point: Point, kind: &str) -> Result<(), String> {
    for (i, choice) in set.enabled.iter().enumerate() {
        let name = &choice.name;
        let Some(known) = plugins::known(name) else { return Err(format!("{kind} {name:?} does not exist")) };
        if !known.points.contains(&point) {
            return Err(format!("plugin {name:?} does not extend {kind} plugin"));
        }
        if set.enabled[..i].iter().any(|other| other.name == *name) {
            return Err(format!("plugin {name:?} already registered as {kind:?}"));
        }
    }
    Ok(())
}

fn check_everywhere(set: &PluginSet) -> Result<(), String> {
    for (i, choice) in set.enabled.iter().enumerate() {
        let name = &choice.name;
        let Some(known) = plugins::known(name) else { return Err(format!("PreFilterPlugin {name:?} does not exist")) };
        if set.enabled[..i].iter().any(|other| other.name == *name) {
            let kind = TYPES.iter().find(|(point, _)| known.points.contains(point)).map_or("", |(_, kind)| kind);
            return Err(format!("plugin {name:?} already registered as {kind:?}"));
        }
    }
    Ok(())
}

/// Who is asked at a point: those named there that are also enabled everywhere, the others enabled everywhere, the others named there.
fn enabled(set: &PluginSet, multi: &PluginSet, point: Point, made: &BTreeMap<&str, Arc<dyn Plugin>>) -> Vec<Enabled> {
    let everywhere = everywhere(multi);
    let can = |name: &str| plugins::known(name).is_some_and(|known| known.points.contains(&point));
    let off = |name: &str| set.disabled.iter().any(|choice| choice.name == name || choice.name == "*");
    let mut chosen: Vec<(&str, i64)> = Vec::new();
    let mut choose = |name, weight| {
        if can(name) && !chosen.iter().any(|(known, _)| *known == name) {
            chosen.push((name, weight));
        }
    };
    for choice in set.enabled.iter().filter(|choice| everywhere.iter().any(|(name, _)| *name == choice.name)) {
        choose(&choice.name, choice.weight);
    }
    for (name, weight) in everywhere.iter().filter(|(name, _)| !off(name)) {
        choose(name, *weight);
    }
    for choice in &set.enabled {
        choose(&choice.name, choice.weight);
    }
    // No weight is one.
    let make = |(name, weight): (&str, i64)| Enabled {
        plugin: made[name].clone(),
        weight: if weight == 0 { 1 } else { weight },
    };
    chosen.into_iter().map(make).collect()
}

/// The defaults, as `multiPoint` changes them, with weights.
fn everywhere(set: &PluginSet) -> Vec<(&str, i64)> {
    let off = |name: &str| set.disabled.iter().any(|choice| choice.name == name || choice.name == "*");
    let chosen = |name: &str| set.enabled.iter().find(|choice| choice.name == name);
    let mut all: Vec<(&str, i64)> = Vec::new();
    for known in plugins::ALL.iter().filter(|known| !off(known.name)) {
        all.push((known.name, chosen(known.name).map_or(known.weight, |choice| choice.weight)));
    }
    for choice in &set.enabled {
        if !all.iter().any(|(name, _)| *name == choice.name) {
            all.push((&choice.name, choice.weight));
        }
    }
    all
}
