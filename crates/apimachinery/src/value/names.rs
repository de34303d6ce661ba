//! Names that most objects are made of, so that a key of a map mostly costs no allocation: not when it is read, copied or dropped.

use std::borrow::Cow;
use std::sync::LazyLock;

use super::Key;

/// `name` as a key.
pub(crate) fn key(name: &str) -> Key {
    match TABLE[slot(name.as_bytes())] {
        known if known == name => Cow::Borrowed(known),
        _ => Cow::Owned(name.to_owned()),
    }
}

const SLOTS: usize = 2048;

/// Of some thousand numbers the one that gives nearly every name a place of its own.
const MIXER: u64 = 0x0561_fcdd_227f_81c1;

/// Each name where its hash puts it; of two for one place the first stays.
static TABLE: LazyLock<Box<[&'static str; SLOTS]>> = LazyLock::new(|| {
    let mut table = Box::new([""; SLOTS]);
    for name in NAMES.split_ascii_whitespace() {
        let known = &mut table[slot(name.as_bytes())];
        if known.is_empty() {
            *known = name;
        }
    }
    table
});

/// Its ends and its length tell nearly every name from the others, and are read at once.
fn slot(name: &[u8]) -> usize {
    let (head, tail) = match (name.first_chunk(), name.last_chunk()) {
        (Some(head), Some(tail)) => (u64::from_le_bytes(*head), u64::from_le_bytes(*tail)),
        _ => match (name.first_chunk(), name.last_chunk()) {
            (Some(head), Some(tail)) => (u32::from_le_bytes(*head).into(), u32::from_le_bytes(*tail).into()),
            _ => name.iter().fold((0, 0), |(head, _), byte| (head << 8 | u64::from(*byte), 0)),
        },
    };
    let mixed = head.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ tail.rotate_left(29) ^ name.len() as u64;
    (mixed.wrapping_mul(MIXER) >> 48) as usize % SLOTS
}

/// Of what is written most: metadata, pods, what makes them, nodes, leases, events, endpoints.
const NAMES: &str = "
    apiVersion kind metadata spec status data stringData binaryData type items
    annotations creationTimestamp deletionGracePeriodSeconds deletionTimestamp finalizers generateName generation labels
    managedFields name namespace ownerReferences resourceVersion selfLink uid
    fieldsType fieldsV1 manager operation subresource time controller blockOwnerDeletion
    app pod-template-hash k8s-app controller-revision-hash
    activeDeadlineSeconds affinity automountServiceAccountToken containers dnsConfig dnsPolicy enableServiceLinks ephemeralContainers
    hostAliases hostIPC hostNetwork hostPID hostUsers hostname imagePullSecrets initContainers nodeName nodeSelector os overhead
    preemptionPolicy priority priorityClassName readinessGates resourceClaims restartPolicy runtimeClassName schedulerName
    schedulingGates securityContext serviceAccount serviceAccountName setHostnameAsFQDN shareProcessNamespace subdomain
    terminationGracePeriodSeconds tolerations topologySpreadConstraints volumes
    args command env envFrom image imagePullPolicy lifecycle livenessProbe ports readinessProbe resizePolicy resources startupProbe
    stdin stdinOnce terminationMessagePath terminationMessagePolicy tty volumeDevices volumeMounts workingDir
    value valueFrom configMapKeyRef fieldRef fieldPath resourceFieldRef secretKeyRef optional key operator effect tolerationSeconds
    values matchExpressions matchLabels
    containerPort hostIP hostPort protocol limits requests claims cpu memory ephemeral-storage
    mountPath mountPropagation readOnly recursiveReadOnly subPath subPathExpr
    configMap defaultMode downwardAPI emptyDir ephemeral hostPath path persistentVolumeClaim claimName projected secret secretName
    sources serviceAccountToken expirationSeconds audience mode medium sizeLimit
    httpGet tcpSocket exec grpc host port scheme httpHeaders failureThreshold initialDelaySeconds periodSeconds successThreshold
    timeoutSeconds preStop postStart service
    allowPrivilegeEscalation capabilities add drop privileged procMount readOnlyRootFilesystem runAsGroup runAsNonRoot runAsUser
    seLinuxOptions seccompProfile localhostProfile fsGroup fsGroupChangePolicy supplementalGroups sysctls
    conditions lastHeartbeatTime lastProbeTime lastTransitionTime lastUpdateTime message reason observedGeneration
    containerStatuses initContainerStatuses ephemeralContainerStatuses containerID imageID lastState ready restartCount started
    startedAt finishedAt exitCode signal state running terminated waiting allocatedResources
    hostIPs ip nominatedNodeName phase podIP podIPs qosClass startTime resize
    replicas selector template strategy rollingUpdate maxSurge maxUnavailable minReadySeconds progressDeadlineSeconds
    revisionHistoryLimit availableReplicas fullyLabeledReplicas readyReplicas unavailableReplicas updatedReplicas
    terminatingReplicas collisionCount currentReplicas currentRevision updateRevision podManagementPolicy serviceName
    updateStrategy volumeClaimTemplates partition paused revision
    backoffLimit completionMode completions parallelism suspend ttlSecondsAfterFinished active succeeded failed completionTime
    acquireTime holderIdentity leaseDurationSeconds leaseTransitions renewTime
    action count eventTime firstTimestamp lastTimestamp involvedObject related reportingComponent reportingInstance series source
    component lastObservedTime regarding note deprecatedCount deprecatedSource deprecatedFirstTimestamp deprecatedLastTimestamp
    addressType endpoints addresses serving terminating nodeInfo targetRef zone hints appProtocol
    address allocatable capacity images names sizeBytes daemonEndpoints kubeletEndpoint Port podCIDR podCIDRs providerID taints
    unschedulable volumesAttached volumesInUse pods architecture bootID containerRuntimeVersion kernelVersion kubeProxyVersion
    kubeletVersion machineID operatingSystem osImage systemUUID
    clusterIP clusterIPs externalIPs externalTrafficPolicy internalTrafficPolicy ipFamilies ipFamilyPolicy loadBalancer nodePort
    sessionAffinity targetPort publishNotReadyAddresses
    accessModes storageClassName volumeMode volumeName storage claimRef persistentVolumeReclaimPolicy csi driver volumeHandle
    target apiGroup roleRef rules subjects verbs apiGroups
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_names_are_borrowed_and_all_are_kept() {
        for (name, known) in [("metadata", true), ("fieldsV1", true), ("", true), ("never-heard-of", false)] {
            let key = key(name);
            assert_eq!((&*key, matches!(key, Cow::Borrowed(_))), (name, known));
        }
        let names = NAMES.split_ascii_whitespace();
        let missed = names.filter(|name| matches!(key(name), Cow::Owned(_))).count();
        assert!(missed < 20, "{missed} names share places with others");
    }
}
