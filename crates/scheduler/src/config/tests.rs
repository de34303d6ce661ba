use serde_json::json;

use super::*;
use crate::framework::Point;

fn names(profile: &Profile, point: Point) -> Vec<(&'static str, i64)> {
    profile.at(point).iter().map(|enabled| (enabled.plugin.name(), enabled.weight)).collect()
}

fn profile(spec: Value) -> Profile {
    let value = json!({"apiVersion": API_VERSION, "kind": KIND, "profiles": [spec]});
    Configuration::parse(&value).unwrap().profiles(&Parts::default()).unwrap().remove(0)
}

#[test]
fn the_defaults_are_upstreams() {
    let scores = names(&plugins::default_profile(), Point::Score);
    assert_eq!(
        scores,
        [
            ("TaintToleration", 3),
            ("NodeAffinity", 2),
            ("NodeResourcesFit", 1),
            ("VolumeBinding", 1),
            ("PodTopologySpread", 2),
            ("InterPodAffinity", 2),
            ("DynamicResources", 2),
            ("NodeResourcesBalancedAllocation", 1),
            ("ImageLocality", 1),
        ]
    );
}

#[test]
fn plugins_are_chosen_and_weighed() {
    let chosen = profile(
        json!({"plugins": {"score": {"disabled": [{"name": "*"}], "enabled": [{"name": "ImageLocality", "weight": 5}]}}}),
    );
    assert_eq!(names(&chosen, Point::Score), [("ImageLocality", 5)]);
    let few = json!([{"name": "PrioritySort"}, {"name": "DefaultBinder"}, {"name": "NodeAffinity", "weight": 7}]);
    let chosen = profile(json!({"plugins": {"multiPoint": {"disabled": [{"name": "*"}], "enabled": few}}}));
    assert_eq!(names(&chosen, Point::Score), [("NodeAffinity", 7)]);
    assert_eq!(names(&chosen, Point::PostFilter), []);
    let chosen = profile(json!({"plugins": {"filter": {"disabled": [{"name": "NodePorts"}]}}}));
    assert!(!names(&chosen, Point::Filter).iter().any(|(name, _)| *name == "NodePorts"));
    let chosen = profile(
        json!({"plugins": {"score": {"disabled": [{"name": "*"}], "enabled": [{"name": "NodeAffinity", "weight": 0}]}}}),
    );
    assert_eq!(names(&chosen, Point::Score), [("NodeAffinity", 1)]);
}

#[test]
fn files_are_read() {
    let text = r#"
apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
parallelism: null
leaderElection: {leaderElect: true, leaseDuration: 1m30s, resourceName: mine}
profiles:
- schedulerName: default-scheduler
- schedulerName: packs
  percentageOfNodesToScore: 7
  pluginConfig:
  - name: NodeResourcesFit
    args:
      apiVersion: kubescheduler.config.k8s.io/v1
      kind: NodeResourcesFitArgs
      scoringStrategy: {type: MostAllocated, resources: [{name: cpu, weight: 1}]}
  - {name: Unknown, args: {whatever: 1}}
extenders:
- {urlPrefix: "http://127.0.0.1:1/x/", filterVerb: filter, httpTimeout: 150ms, managedResources: [{name: a.io/x, ignoredByScheduler: true}]}
"#;
    let configuration = Configuration::from_yaml(text).unwrap();
    let profiles = configuration.profiles(&Parts::default()).unwrap();
    let told: Vec<_> = profiles.iter().map(|profile| (profile.name.as_str(), profile.percentage)).collect();
    assert_eq!(told, [("default-scheduler", None), ("packs", Some(7))]);
    let election = configuration.election("me".into()).unwrap();
    assert_eq!(
        (election.lease.to_string(), election.lease_duration, election.renew_deadline),
        ("kube-system/mine".into(), Duration::from_secs(90), Duration::from_secs(10))
    );
    assert_eq!(fields::duration(&configuration.extenders[0].http_timeout), Some(Duration::from_millis(150)));
    assert!(Configuration::from_yaml(" \n").unwrap().election("me".into()).is_none());
}

/// What upstream's scheduler says of the same files, but for its own places in source code.
#[test]
fn every_mistake_is_told() {
    let check = |text: &str, expect: &str| {
        let text = format!("apiVersion: {API_VERSION}\nkind: {KIND}\n{text}\n");
        let error = Configuration::from_yaml(&text).unwrap_err();
        assert_eq!(together(&error.0), expect, "{text}");
    };
    let profile =
        |what: &str| format!("initializing profiles: creating profile for scheduler name default-scheduler: {what}");
    check(
        "colour: red\nparallelism: 3\nprofiles: [{plugins: {score: {foo: 1}}, bar: 2}]",
        r#"strict decoding error: unknown field "colour", unknown field "profiles[0].bar", unknown field "profiles[0].plugins.score.foo""#,
    );
    check("parallelism: 3\nparallelism: 4", r#"strict decoding error: key "parallelism" already set in map"#);
    let types = "json: cannot unmarshal";
    check(
        "parallelism: a",
        &format!("{types} string into Go struct field KubeSchedulerConfiguration.parallelism of type int32"),
    );
    check(
        "profiles: {}",
        &format!(
            "{types} object into Go struct field KubeSchedulerConfiguration.profiles of type []v1.KubeSchedulerProfile"
        ),
    );
    check(
        "profiles: [{schedulerName: 1}]",
        &format!("{types} number into Go struct field KubeSchedulerProfile.profiles.schedulerName of type string"),
    );
    check(
        "profiles: [{plugins: {score: {enabled: [{name: NodeAffinity, weight: 922337203685477580}]}}}]",
        &format!(
            "{types} number 922337203685477580 into Go struct field Plugin.profiles.plugins.score.enabled.weight of type int32"
        ),
    );
    check(
        "extenders: [{httpTimeout: 5}]",
        &format!("{types} number into Go struct field Extender.extenders.httpTimeout of type string"),
    );
    check("extenders: [{httpTimeout: x}]", r#"time: invalid duration "x""#);
    check(
        "parallelism: 0\npercentageOfNodesToScore: 101\npodInitialBackoffSeconds: 0\npodMaxBackoffSeconds: 0",
        "[parallelism: Invalid value: 0: should be an integer value greater than zero, percentageOfNodesToScore: Invalid value: 101: not in valid range [0-100], podInitialBackoffSeconds: Invalid value: 0: must be greater than 0]",
    );
    check(
        "podMaxBackoffSeconds: 0",
        "podMaxBackoffSeconds: Invalid value: 0: must be greater than or equal to PodInitialBackoffSeconds",
    );
    check(
        "profiles: [{schedulerName: a},{schedulerName: a},{}]",
        "[profiles[1].schedulerName: Duplicate value: \"a\", as profiles[0] is called, profiles[2].schedulerName: Required value]",
    );
    check("profiles: [{schedulerName: \"\"}]", "profiles[0].schedulerName: Required value");
    check(
        "profiles: [{percentageOfNodesToScore: 101}]",
        "profiles[0].percentageOfNodesToScore: Invalid value: 101: not in valid range [0-100]",
    );
    check("profiles: [{plugins: {score: {enabled: [{name: Best}]}}}]", &profile("ScorePlugin \"Best\" does not exist"));
    check(
        "profiles: [{plugins: {multiPoint: {enabled: [{name: Best}]}}}]",
        &profile("PreFilterPlugin \"Best\" does not exist"),
    );
    check(
        "profiles: [{plugins: {filter: {enabled: [{name: ImageLocality}]}}}]",
        &profile("plugin \"ImageLocality\" does not extend FilterPlugin plugin"),
    );
    check(
        "profiles: [{plugins: {score: {enabled: [{name: NodeAffinity},{name: NodeAffinity}]}}}]",
        &profile("plugin \"NodeAffinity\" already registered as \"ScorePlugin\""),
    );
    check(
        "profiles: [{plugins: {multiPoint: {enabled: [{name: NodeAffinity},{name: NodeAffinity}]}}}]",
        &profile("plugin \"NodeAffinity\" already registered as \"PreFilterPlugin\""),
    );
    check(
        "profiles: [{plugins: {bind: {disabled: [{name: \"*\"}]}}}]",
        &profile("at least one bind plugin is needed for profile with scheduler name \"default-scheduler\""),
    );
    check(
        "profiles: [{plugins: {queueSort: {disabled: [{name: \"*\"}]}}}]",
        &profile(
            "only one queue sort plugin required for profile with scheduler name \"default-scheduler\", but got 0",
        ),
    );
    check(
        "profiles: [{plugins: {score: {enabled: [{name: NodeAffinity, weight: -3}]}}}]",
        &profile("total score of Score plugins could overflow"),
    );
    check(
        "profiles: [{schedulerName: a, plugins: {queueSort: {disabled: [{name: \"*\"}], enabled: [{name: PrioritySort}]}}},{schedulerName: b}]",
        "profiles[1].plugins.queueSort: Invalid value: {\"Enabled\":null,\"Disabled\":null}: must be the same for all profiles",
    );
}

#[test]
fn mistakes_in_arguments_are_told() {
    let check = |text: &str, expect: &str| {
        let text = format!("apiVersion: {API_VERSION}\nkind: {KIND}\nprofiles: [{{pluginConfig: [{text}]}}]\n");
        let error = Configuration::from_yaml(&text).unwrap_err();
        let args = "profiles[0].pluginConfig[0].args.";
        assert_eq!(together(&error.0), expect.replace('@', args), "{text}");
    };
    check(
        "{name: InterPodAffinity, args: {hardPodAffinityWeight: 101}}",
        "@hardPodAffinityWeight: Invalid value: 101: not in valid range [0, 100]",
    );
    check(
        "{name: InterPodAffinity, args: {hard: 101}}",
        "strict decoding error: decoding .profiles[0].pluginConfig[0]: strict decoding error: decoding args for plugin InterPodAffinity: strict decoding error: unknown field \"hard\"",
    );
    check(
        "{name: InterPodAffinity, args: {hardPodAffinityWeight: x}}",
        "decoding .profiles[0].pluginConfig[0]: decoding args for plugin InterPodAffinity: json: cannot unmarshal string into Go struct field InterPodAffinityArgs.hardPodAffinityWeight of type int32",
    );
    check(
        "{name: InterPodAffinity, args: {kind: NodeAffinityArgs, apiVersion: kubescheduler.config.k8s.io/v1}}",
        "decoding .profiles[0].pluginConfig[0]: args for plugin InterPodAffinity were not of type InterPodAffinityArgs.kubescheduler.config.k8s.io, got NodeAffinityArgs.kubescheduler.config.k8s.io",
    );
    check(
        "{name: InterPodAffinity},{name: InterPodAffinity}",
        "profiles[0].pluginConfig[1]: Duplicate value: \"InterPodAffinity\"",
    );
    check(
        "{name: NodeResourcesFit, args: {scoringStrategy: {type: Best, resources: [{name: cpu, weight: 101},{name: m, weight: 0}]}, ignoredResourceGroups: [a/b]}}",
        "[@ignoredResourceGroups[0]: Invalid value: \"a/b\": resource group name can't contain '/', @scoringStrategy.type: Unsupported value: \"Best\": supported values: \"LeastAllocated\", \"MostAllocated\", \"RequestedToCapacityRatio\", @scoringStrategy.resources[0].weight: Invalid value: 101: resource weight of cpu not in valid range (0, 100]]",
    );
    check(
        "{name: NodeResourcesFit, args: {scoringStrategy: {type: RequestedToCapacityRatio}}}",
        "@scoringStrategy.requestedToCapacityRatio: Required value: must be specified when type is RequestedToCapacityRatio",
    );
    let shape = "@scoringStrategy.requestedToCapacityRatio.shape";
    check(
        "{name: NodeResourcesFit, args: {scoringStrategy: {type: RequestedToCapacityRatio, requestedToCapacityRatio: {shape: [{utilization: 10, score: 11},{utilization: 5, score: 1},{utilization: 101, score: -1}]}}}}",
        &format!(
            "[{shape}[1].utilization: Invalid value: 5: values must be sorted in increasing order, {shape}[0].score: Invalid value: 11: not in valid range [0, 10], {shape}[2].utilization: Invalid value: 101: not in valid range [0, 100], {shape}[2].score: Invalid value: -1: not in valid range [0, 10]]"
        ),
    );
    check(
        "{name: DefaultPreemption, args: {minCandidateNodesPercentage: 101, minCandidateNodesAbsolute: -1}}",
        "[@minCandidateNodesPercentage: Invalid value: 101: not in valid range [0, 100], @minCandidateNodesAbsolute: Invalid value: -1: not in valid range [0, inf)]",
    );
    check(
        "{name: DefaultPreemption, args: {minCandidateNodesPercentage: 0, minCandidateNodesAbsolute: 0}}",
        "[@minCandidateNodesPercentage: Invalid value: 0: cannot be zero at the same time as minCandidateNodesAbsolute, @minCandidateNodesAbsolute: Invalid value: 0: cannot be zero at the same time as minCandidateNodesPercentage]",
    );
    check(
        "{name: PodTopologySpread, args: {defaultConstraints: [{maxSkew: 1}]}}",
        "[@defaultingType: Invalid value: \"System\": when .defaultConstraints are not empty, @defaultConstraints[0].topologyKey: Required value: can not be empty, @defaultConstraints[0].whenUnsatisfiable: Required value: can not be empty]",
    );
    check(
        "{name: PodTopologySpread, args: {defaultingType: List, defaultConstraints: [{maxSkew: 0, whenUnsatisfiable: x, labelSelector: {}},{topologyKey: a, whenUnsatisfiable: DoNotSchedule, maxSkew: 1},{topologyKey: a, whenUnsatisfiable: DoNotSchedule, maxSkew: 1}]}}",
        "[@defaultConstraints[0].maxSkew: Invalid value: 0: not in valid range (0, inf), @defaultConstraints[0].topologyKey: Required value: can not be empty, @defaultConstraints[0].whenUnsatisfiable: Unsupported value: \"x\": supported values: \"DoNotSchedule\", \"ScheduleAnyway\", @defaultConstraints[0].labelSelector: Forbidden: constraint must not define a selector, as they deduced for each pod, @defaultConstraints[2]: Duplicate value: \"{a, DoNotSchedule}\"]",
    );
    check(
        "{name: PodTopologySpread, args: {defaultingType: Foo}}",
        "@defaultingType: Unsupported value: \"Foo\": supported values: \"System\", \"List\"",
    );
    check(
        "{name: NodeResourcesBalancedAllocation, args: {resources: [{name: cpu, weight: 2},{name: cpu, weight: 1}]}}",
        "[@resources[0].weight: Invalid value: 2: must be 1, @resources[1].name: Duplicate value: \"cpu\"]",
    );
    check(
        "{name: VolumeBinding, args: {bindTimeoutSeconds: -1, shape: []}}",
        "[@bindTimeoutSeconds: Invalid value: -1: invalid BindTimeoutSeconds, should not be a negative value, @shape: Invalid value: []: unexpected field `shape`, remove it or turn on the feature gate StorageCapacityScoring]",
    );
    check(
        "{name: NodeAffinity, args: {addedAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: a, operator: Foo}]}]}}}}",
        "@addedAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].operator: Unsupported value: \"Foo\": supported values: \"In\", \"NotIn\", \"Exists\", \"DoesNotExist\", \"Gt\", \"Lt\"",
    );
    check(
        "{name: DynamicResources, args: {filterTimeout: -1s, bindingTimeout: 1ms}}",
        "[@filterTimeout: Invalid value: \"-1s\": must be zero or positive, @bindingTimeout: Forbidden: DRADeviceBindingConditions or DRAResourceClaimDeviceStatus feature gate is disabled]",
    );
}

#[test]
fn mistakes_in_extenders_and_election_are_told() {
    let check = |text: &str, expect: &str| {
        let text = format!("apiVersion: {API_VERSION}\nkind: {KIND}\n{text}\n");
        let error = Configuration::from_yaml(&text).unwrap_err();
        assert_eq!(together(&error.0), expect, "{text}");
    };
    check(
        "extenders: [{urlPrefix: \"http://a\", prioritizeVerb: p},{bindVerb: b},{bindVerb: c, managedResources: [{name: cpu},{name: a.io/x},{name: a.io/x}]}]",
        "[extenders[0].weight: Invalid value: 0: must have a positive weight applied to it, extenders[2].managedResources[0].name: Invalid value: \"cpu\": is an invalid extended resource name, extenders[2].managedResources[2].name: Invalid value: \"a.io/x\": duplicate extender managed resource name, extenders: Invalid value: \"found 2 extenders implementing bind\": only one extender can implement bind]",
    );
    let tls =
        |what: &str| format!("extenders: [{{urlPrefix: \"https://a\", enableHTTPS: true, tlsConfig: {{{what}}}}}]");
    check(
        &tls("insecure: true, caData: aGVsbG8="),
        "couldn't build extenders: specifying a root certificates file with the insecure flag is not allowed",
    );
    check(&tls("caFile: /nope"), "couldn't build extenders: open /nope: no such file or directory");
    check(&tls("caData: \"!!\""), "illegal base64 data at input byte 0");
    check(
        &tls("caData: aGVsbG8="),
        "couldn't build extenders: unable to load root certificates: unable to parse bytes as PEM block",
    );
    check(&tls("certFile: /nope"), "couldn't build extenders: open /nope: no such file or directory");
    check(
        "leaderElection: {leaderElect: true, leaseDuration: -1s, renewDeadline: -2s, retryPeriod: -3s}",
        "[leaderElection.leaseDuration: Invalid value: \"-1s\": must be greater than zero, leaderElection.renewDeadline: Invalid value: \"-2s\": must be greater than zero, leaderElection.retryPeriod: Invalid value: \"-3s\": must be greater than zero]",
    );
    check(
        "leaderElection: {leaderElect: true, leaseDuration: 1s, resourceLock: endpoints}",
        "[leaderElection.leaseDuration: Invalid value: \"1s\": must be greater than `RenewDeadline`, leaderElection.resourceLock: Invalid value: \"endpoints\": resourceLock value must be \"leases\"]",
    );
}

#[test]
fn what_is_no_such_file_is_told() {
    let check = |text: &str, expect: &str| {
        let error = Configuration::from_yaml(text).unwrap_err().to_string();
        assert!(error.contains(expect), "{error}");
    };
    check("parallelism: 1", "Object 'Kind' is missing in");
    check("apiVersion: v1\nkind: Pod", "no kind \"Pod\" is registered for version \"v1\"");
    check("- a", "cannot unmarshal array");
    check("{", "couldn't get version/kind; json parse error");
}
