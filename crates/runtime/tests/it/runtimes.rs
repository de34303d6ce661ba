//! Every case, with each runtime that makes containers: the embedded one, and runc asked for by its RuntimeClass handler.
//!
//! What is not the same on runc, and why, stands here and nowhere else: cases that are not run with it at the end, words and
//! habits of its own in [`Runtime`].

use crate::support::Node;

/// What makes a node's containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runtime {
    Embedded,
    Runc,
}

impl Runtime {
    /// The name of the RuntimeClass handler.
    pub fn handler(self) -> &'static str {
        match self {
            Runtime::Embedded => "",
            Runtime::Runc => "runc",
        }
    }

    /// Why a folder cannot be executed: runc asks Go, and Go before 1.20 knew no other answer.
    pub fn folder_is_no_program(self) -> &'static str {
        match self {
            Runtime::Embedded => "exec: \"/etc\": is a directory",
            Runtime::Runc => "exec: \"/etc\": ",
        }
    }
}

macro_rules! cases {
    ($runtime:expr; $($module:ident: [$($case:ident,)*])*) => {
        $(mod $module {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $case() {
                crate::$module::$case(crate::support::Node::start($runtime).await).await
            })*
        })*
    };
}

macro_rules! both {
    ($($list:tt)*) => {
        mod embedded {
            cases! { crate::runtimes::Runtime::Embedded; $($list)* }
        }
        mod runc {
            cases! { crate::runtimes::Runtime::Runc; $($list)* }
        }
    };
}

both! {
    exec: [
        commands_answer_with_output_and_code,
        commands_that_fail_say_why,
        many_commands_at_once,
    ]
    images: [
        images_are_mounted_as_volumes,
    ]
    lifecycle: [
        a_container_lives_and_ends,
        ends_are_told_apart,
        stopping_asks_first_and_then_kills,
        a_program_that_cannot_be_executed_is_reported,
        requests_that_make_no_sense_are_refused,
        events_tell_a_containers_life,
        logs_go_on_in_a_new_file,
        lists_are_filtered,
        many_pods_at_once,
    ]
    resources: [
        limits_are_set_updated_and_measured,
        too_much_memory_is_told,
        groups_stay_below_the_scope,
    ]
    restart: [
        a_new_daemon_adopts_what_runs,
        shared_pids_survive_too,
        after_a_reboot_nothing_runs,
        half_made_things_are_cleared_away,
    ]
    sandbox: [
        containers_share_network_ipc_and_names,
        the_hosts_namespaces_can_be_used,
        processes_are_shared_when_wanted,
        stopping_and_removing_can_be_repeated,
        a_sandbox_whose_shim_dies_is_not_ready,
    ]
    security: [
        users_groups_and_capabilities,
        ambient_capabilities_reach_programs,
        seccomp_profiles_hold_for_containers_and_commands,
        roots_masks_and_mounts,
        propagation_goes_where_it_is_wanted,
        privileged_containers_may_everything,
        what_is_not_supported_says_so,
    ]
    streams: [
        commands_speak_over_websockets,
        terminals_have_sizes_and_end,
        containers_are_attached_to,
        containers_with_a_terminal,
        ports_are_forwarded,
        a_token_is_good_once,
    ]
}

/// What our own shim and its helpers cost: runc's processes are not ours.
mod embedded_only {
    cases! { crate::runtimes::Runtime::Embedded;
        cost: [
            starting_is_quick_and_shims_are_small,
        ]
    }
}

/// runc says itself what it runs.
#[tokio::test(flavor = "multi_thread")]
async fn the_handlers_program_makes_the_container() {
    let mut node = Node::start(Runtime::Runc).await;
    let sandbox = node.sandbox("handler").await;
    let id = node.run(&sandbox, crate::support::command("main", &["sleep", "1000"])).await;
    let state = |id: &str| {
        let mut runc = std::process::Command::new("runc");
        let output = runc.arg("--root").arg(node.scope.run("state")).args(["state", id]).output().unwrap();
        serde_json::from_slice::<serde_json::Value>(&output.stdout).ok()
    };
    assert_eq!(state(&id).unwrap()["status"], "running");
    let request = cri::v1::PodSandboxStatusRequest { pod_sandbox_id: sandbox.clone(), verbose: false };
    let status = node.client.runtime.pod_sandbox_status(request).await.unwrap().into_inner().status.unwrap();
    assert_eq!(status.runtime_handler, "runc");
    let request = cri::v1::RemoveContainerRequest { container_id: id.clone() };
    node.client.runtime.remove_container(request).await.unwrap();
    assert_eq!(state(&id), None);
    let status = node.client.runtime.status(cri::v1::StatusRequest::default()).await.unwrap().into_inner();
    let names: Vec<&str> = status.runtime_handlers.iter().map(|handler| handler.name.as_str()).collect();
    assert!(names.contains(&"") && names.contains(&"runc"), "{names:?}");
    let unknown = node.sandbox_config("unknown");
    let error = node.run_sandbox_with(unknown, "nosuch").await.unwrap_err();
    assert_eq!(error.message(), "failed to get sandbox runtime: no runtime for \"nosuch\" is configured");
    node.finish().await;
}
