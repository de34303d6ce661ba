//! Volumes of the policy `Recycle`.

use super::*;

fn put_volume(cluster: &Cluster, source: &str) {
    let json = format!(
        r#"{{"apiVersion":"v1","kind":"PersistentVolume","metadata":{{"name":"v","annotations":{{"pv.kubernetes.io/bound-by-controller":"yes"}}}},
            "spec":{{"accessModes":["ReadWriteOnce"],"capacity":{{"storage":"3Gi"}},"persistentVolumeReclaimPolicy":"Recycle",{source},
            "claimRef":{{"namespace":"ns","name":"gone","uid":"gone-1"}}}},"status":{{"phase":"Bound"}}}}"#
    );
    cluster.put(&resources::PERSISTENT_VOLUMES, &json);
}

fn phase(cluster: &Cluster) -> String {
    let value = cluster.value(&resources::PERSISTENT_VOLUMES, "v");
    value.str_at(&["status", "phase"]).unwrap_or_default().to_owned()
}

fn scrubber(cluster: &Cluster) -> Option<Arc<Object>> {
    cluster.server.get(&resources::PODS, &ObjectKey::new("default", "recycler-for-v"))
}

fn end(cluster: &Cluster, phase: &str) {
    let key = ObjectKey::new("default", "recycler-for-v");
    cluster.server.edit(&resources::PODS, &key, |pod| pod.set(&["status", "phase"], phase));
}

#[tokio::test(start_paused = true)]
async fn a_pod_scrubs_the_volume() {
    let cluster = Cluster::start();
    put_volume(&cluster, r#""hostPath":{"path":"/data"}"#);
    eventually("a pod is made", || scrubber(&cluster).is_some()).await;
    let pod = scrubber(&cluster).unwrap().to_value();
    assert_eq!(pod.i64_at(&["spec", "activeDeadlineSeconds"]), Some(90));
    assert_eq!(pod.items_at(&["spec", "volumes"])[0].str_at(&["hostPath", "path"]), Some("/data"));
    assert_eq!(phase(&cluster), "Released");
    // It fails: another comes, not at once, and later each time.
    end(&cluster, "Failed");
    eventually("the volume has failed", || phase(&cluster) == "Failed").await;
    let message = "Recycle failed: failed to recycle volume: pod failed, pod.Status.Message unknown";
    eventually("it is told", || cluster.events("VolumeFailedRecycle") == [message]).await;
    let env = cluster.server.client().env().clone();
    let begun = env.monotonic();
    for _ in 0..6 {
        eventually("another is made", || scrubber(&cluster).is_some_and(|pod| !pod.is_deleting())).await;
        end(&cluster, "Failed");
        eventually("it goes", || scrubber(&cluster).is_none()).await;
    }
    assert!(env.monotonic() - begun > Duration::from_secs(30));
    eventually("another is made", || scrubber(&cluster).is_some()).await;
    end(&cluster, "Succeeded");
    eventually("it may be claimed again", || phase(&cluster) == "Available").await;
    let value = cluster.value(&resources::PERSISTENT_VOLUMES, "v");
    assert!(value.at(&["spec", "claimRef"]).is_none());
    eventually("the pod goes", || scrubber(&cluster).is_none()).await;
    eventually("it is told", || cluster.events("VolumeRecycled") == ["Volume recycled"]).await;
    cluster.settles().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_used_or_cannot_be_scrubbed_is_left() {
    let cluster = Cluster::start();
    let user = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p","namespace":"ns"},"spec":{"nodeName":"n","volumes":[{"name":"d","persistentVolumeClaim":{"claimName":"gone"}}]},
        "status":{"phase":"Running"}}"#;
    cluster.put(&resources::NODES, &node("n"));
    let _beats = cluster.heartbeat(&["n"]);
    cluster.put(&resources::PODS, user);
    sleep(1).await;
    put_volume(&cluster, r#""nfs":{"server":"s","path":"/"}"#);
    let told = || cluster.events("VolumeFailedRecycle");
    eventually("it is told", || told().contains(&"Volume is used by pods: ns/p".to_owned())).await;
    assert!(scrubber(&cluster).is_none());
    cluster.server.remove(&resources::PODS, &key("p"));
    eventually("a pod is made", || scrubber(&cluster).is_some()).await;
    assert_eq!(scrubber(&cluster).unwrap().to_value().i64_at(&["spec", "activeDeadlineSeconds"]), Some(300));

    let cluster = Cluster::start();
    put_volume(&cluster, r#""local":{"path":"/data"}"#);
    eventually("it has failed", || phase(&cluster) == "Failed").await;
    eventually("it is told", || cluster.events("VolumeFailedRecycle") == ["No recycler plugin found for the volume!"])
        .await;
    cluster.settles().await;
}
