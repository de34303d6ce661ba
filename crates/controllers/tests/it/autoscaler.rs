use super::deployment::{ROLLING, deployment};
use super::*;

const AUTOSCALERS: Resource = Resource::namespaced("autoscaling", "v2", "horizontalpodautoscalers");
const METRICS: Resource = Resource::namespaced("metrics.k8s.io", "v1beta1", "pods");

fn autoscaler(more: &str) -> String {
    format!(
        r#"{{"apiVersion":"autoscaling/v2","kind":"HorizontalPodAutoscaler","metadata":{{"name":"web","namespace":"ns"}},
        "spec":{{"scaleTargetRef":{{"apiVersion":"apps/v1","kind":"Deployment","name":"web"}},"minReplicas":2,"maxReplicas":6,
        "metrics":[{{"type":"Resource","resource":{{"name":"cpu","target":{{"type":"AverageValue","averageValue":"100m"}}}}}}]{more}}}}}"#
    )
}

impl Cluster {
    /// Every pod of the Deployment uses so much.
    fn use_cpu(&self, millis: i64) {
        let now = format!("{:.0}", self.server.client().env().now());
        for metrics in self.server.list(&METRICS) {
            self.server.remove(&METRICS, metrics.key());
        }
        for pod in self.server.list(&resources::PODS) {
            let metrics = format!(
                r#"{{"apiVersion":"metrics.k8s.io/v1beta1","kind":"PodMetrics","metadata":{{"name":"{}","namespace":"ns","labels":{{"app":"web"}}}},
                    "timestamp":"{now}","window":"30s","containers":[{{"name":"c","usage":{{"cpu":"{millis}m"}}}}]}}"#,
                pod.name()
            );
            self.server.put(&METRICS, &metrics);
        }
    }

    fn size(&self) -> i64 {
        self.value(&resources::DEPLOYMENTS, "web").i64_at(&["spec", "replicas"]).unwrap()
    }

    fn autoscaler_condition(&self, r#type: &str) -> (String, String) {
        let value = self.value(&AUTOSCALERS, "web");
        let conditions = value.items_at(&["status", "conditions"]);
        let found = conditions.iter().find(|condition| condition.str_at(&["type"]) == Some(r#type));
        let text = |name| found.and_then(|condition| condition.str_at(&[name])).unwrap_or_default().to_owned();
        (text("status"), text("reason"))
    }
}

fn start() -> (Cluster, Kubelet, TaskGuard) {
    let cluster = Cluster::start();
    for (resource, kind) in [(&AUTOSCALERS, "HorizontalPodAutoscaler"), (&METRICS, "PodMetrics")] {
        cluster.server.serve(resource, kind);
    }
    let (kubelet, alive) = (Kubelet::start(&cluster.server), cluster.put_node("n1"));
    (cluster, kubelet, alive)
}

#[tokio::test(start_paused = true)]
async fn a_size_follows_its_metric_within_bounds() {
    let (cluster, _kubelet, _alive) = start();
    cluster.put(&resources::DEPLOYMENTS, &deployment(1, ROLLING, "v1"));
    eventually("it runs", || cluster.complete()).await;
    cluster.put(&AUTOSCALERS, &autoscaler(""));
    eventually("the lower bound is kept", || cluster.size() == 2 && cluster.complete()).await;
    assert_eq!(
        cluster.events("SuccessfulRescale"),
        ["New size: 2; reason: Current number of replicas below Spec.MinReplicas"]
    );
    // Without metrics nothing happens, and it says why.
    sleep(60).await;
    assert_eq!(cluster.autoscaler_condition("ScalingActive"), ("False".into(), "FailedGetResourceMetric".into()));
    // Pods that started just now say nothing yet.
    sleep(400).await;
    cluster.use_cpu(200);
    eventually("it grows", || cluster.size() == 4).await;
    assert_eq!(cluster.autoscaler_condition("ScalingActive"), ("True".into(), "ValidMetricFound".into()));
    sleep(400).await;
    cluster.use_cpu(900);
    eventually("up to the bound", || cluster.size() == 6).await;
    sleep(60).await;
    assert_eq!((cluster.size(), cluster.autoscaler_condition("ScalingLimited").1), (6, "TooManyReplicas".to_owned()));
    sleep(400).await;
    // Down only after five minutes of little use.
    cluster.use_cpu(1);
    sleep(200).await;
    assert_eq!((cluster.size(), cluster.autoscaler_condition("AbleToScale").1), (6, "ScaleDownStabilized".to_owned()));
    sleep(200).await;
    assert_eq!(cluster.size(), 2);
    // Small changes are no reason.
    sleep(400).await;
    cluster.use_cpu(105);
    sleep(60).await;
    assert_eq!(cluster.size(), 2);
    let status = cluster.value(&AUTOSCALERS, "web");
    assert_eq!(
        status.items_at(&["status", "currentMetrics"])[0].str_at(&["resource", "current", "averageValue"]),
        Some("105m")
    );
}

#[tokio::test(start_paused = true)]
async fn what_has_no_scale_is_told_once_in_a_while() {
    let (cluster, _kubelet, _alive) = start();
    cluster.put(&AUTOSCALERS, &autoscaler(""));
    sleep(120).await;
    assert_eq!(cluster.autoscaler_condition("AbleToScale"), ("False".into(), "FailedGetScale".into()));
    assert!(!cluster.events("FailedGetScale").is_empty());
    cluster.server.forget_requests();
    sleep(600).await;
    let writes = cluster.server.writes().into_iter().filter(|write| !write.contains("/events")).count();
    assert_eq!(writes, 0);
    // Switched off by a size of zero.
    cluster.put(&resources::DEPLOYMENTS, &deployment(0, ROLLING, "v1"));
    sleep(60).await;
    assert_eq!(cluster.autoscaler_condition("ScalingActive"), ("False".into(), "ScalingDisabled".into()));
    assert_eq!(cluster.size(), 0);
}
