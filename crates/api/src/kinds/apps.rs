//! What runs applications: apps, batch, autoscaling.

use super::row;
use crate::kind::{AGE, Cell, Column, Kind, NAME, SCALE, at, computed, field, integer, status, text};

const TEMPLATE: &[&str] = &["spec", "template", "spec"];
const NAMES: Column = text("Containers", Cell::ContainerNames(TEMPLATE)).wide();
const IMAGES: Column = text("Images", Cell::ContainerImages(TEMPLATE)).wide();
const SELECTOR: Column = text("Selector", Cell::Selector(&["spec", "selector"])).wide();

const CRON_TEMPLATE: &[&str] = &["spec", "jobTemplate", "spec", "template", "spec"];

macro_rules! apps {
    ($kind:literal, $resource:literal) => {
        row!("io.k8s.api.apps.v1", "apps", "v1", $kind, $resource)
    };
}

pub(super) static KINDS: &[Kind] = &[
    apps!("ControllerRevision", "controllerrevisions").columns(&[
        NAME,
        computed("Controller"),
        Column::new("Revision", "integer", Cell::At(&["revision"])),
        AGE,
    ]),
    apps!("DaemonSet", "daemonsets")
        .short(&["ds"])
        .categories(&["all"])
        .with(&[status(("apps", "v1", "DaemonSet"))])
        .columns(&[
            NAME,
            integer("Desired", &["status", "desiredNumberScheduled"]),
            integer("Current", &["status", "currentNumberScheduled"]),
            integer("Ready", &["status", "numberReady"]),
            integer("Up-to-date", &["status", "updatedNumberScheduled"]),
            integer("Available", &["status", "numberAvailable"]),
            text("Node Selector", Cell::Labels(&["spec", "template", "spec", "nodeSelector"])),
            AGE,
            NAMES,
            IMAGES,
            SELECTOR,
        ]),
    apps!("Deployment", "deployments")
        .short(&["deploy"])
        .categories(&["all"])
        .with(&[SCALE, status(("apps", "v1", "Deployment"))])
        .columns(&[
            NAME,
            computed("Ready"),
            integer("Up-to-date", &["status", "updatedReplicas"]),
            integer("Available", &["status", "availableReplicas"]),
            AGE,
            NAMES,
            IMAGES,
            SELECTOR,
        ]),
    apps!("ReplicaSet", "replicasets")
        .short(&["rs"])
        .categories(&["all"])
        .with(&[SCALE, status(("apps", "v1", "ReplicaSet"))])
        .fields(&[field("status.replicas", &["status", "replicas"])])
        .columns(&[
            NAME,
            integer("Desired", &["spec", "replicas"]),
            integer("Current", &["status", "replicas"]),
            integer("Ready", &["status", "readyReplicas"]),
            AGE,
            NAMES,
            IMAGES,
            SELECTOR,
        ]),
    apps!("StatefulSet", "statefulsets")
        .short(&["sts"])
        .categories(&["all"])
        .with(&[SCALE, status(("apps", "v1", "StatefulSet"))])
        .columns(&[NAME, computed("Ready"), AGE, NAMES, IMAGES]),
    row!("io.k8s.api.batch.v1", "batch", "v1", "CronJob", "cronjobs")
        .short(&["cj"])
        .categories(&["all"])
        .with(&[status(("batch", "v1", "CronJob"))])
        .columns(&[
            NAME,
            at("Schedule", &["spec", "schedule"]),
            computed("Timezone"),
            computed("Suspend"),
            Column::new("Active", "integer", Cell::Count(&["status", "active"])),
            computed("Last Schedule"),
            AGE,
            text("Containers", Cell::ContainerNames(CRON_TEMPLATE)).wide(),
            text("Images", Cell::ContainerImages(CRON_TEMPLATE)).wide(),
            text("Selector", Cell::Selector(&["spec", "jobTemplate", "spec", "selector"])).wide(),
        ]),
    row!("io.k8s.api.batch.v1", "batch", "v1", "Job", "jobs")
        .categories(&["all"])
        .with(&[status(("batch", "v1", "Job"))])
        .fields(&[field("status.successful", &["status", "succeeded"])])
        .columns(&[
            NAME,
            computed("Status"),
            computed("Completions"),
            computed("Duration"),
            AGE,
            NAMES,
            IMAGES,
            SELECTOR,
        ]),
    row!("io.k8s.api.autoscaling.v2", "autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers")
        .short(&["hpa"])
        .categories(&["all"])
        .with(&[status(("autoscaling", "v2", "HorizontalPodAutoscaler"))])
        .columns(AUTOSCALER_COLUMNS),
    row!("io.k8s.api.autoscaling.v1", "autoscaling", "v1", "HorizontalPodAutoscaler", "horizontalpodautoscalers")
        .short(&["hpa"])
        .categories(&["all"])
        .stored_as("autoscaling", "v2")
        .with(&[status(("autoscaling", "v1", "HorizontalPodAutoscaler"))])
        .columns(AUTOSCALER_COLUMNS),
];

const AUTOSCALER_COLUMNS: &[Column] = &[
    NAME,
    computed("Reference"),
    computed("Targets"),
    computed("MinPods"),
    at("MaxPods", &["spec", "maxReplicas"]),
    at("Replicas", &["status", "currentReplicas"]),
    AGE,
];
