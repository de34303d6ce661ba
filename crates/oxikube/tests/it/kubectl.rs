//! The real kubectl's commands on one cluster, as people use them.

mod cascades;
mod reading;
mod refusals;
mod rollouts;
mod sessions;
mod statuses;
mod verbs;
mod writing;

use testkit::machine::Machine;

use crate::support::{Step, every, load_images, started};

#[test]
fn kubectl_does_what_people_do_with_it() {
    let machine = started("kubectl");
    load_images(&machine);
    sessions::begin(&machine);
    reading::begin(&machine);
    let steps: [Step; 24] = [
        ("reading::about_the_cluster", reading::about_the_cluster),
        ("reading::forms", reading::forms),
        ("reading::watching", reading::watching),
        ("reading::waiting", reading::waiting),
        ("writing::imperative", writing::imperative),
        ("writing::applying", writing::applying),
        ("writing::changing", writing::changing),
        ("writing::editing", writing::editing),
        ("writing::deleting", writing::deleting),
        ("refusals::all", refusals::all),
        ("refusals::too_large", refusals::too_large),
        ("statuses::all", statuses::all),
        ("sessions::logs", sessions::logs),
        ("sessions::exec", sessions::exec),
        ("sessions::attach", sessions::attach),
        ("sessions::run", sessions::run),
        ("rollouts::revisions", rollouts::revisions),
        ("rollouts::exposed", rollouts::exposed),
        ("cascades::all", cascades::all),
        ("verbs::all", verbs::all),
        ("verbs::access", verbs::access),
        ("verbs::applying", verbs::applying),
        ("verbs::debugging", verbs::debugging),
        ("verbs::draining", verbs::draining),
    ];
    every(&machine, &steps);
}

/// Runs kubectl, words split at spaces, and compares what it prints.
#[track_caller]
fn prints(machine: &Machine, args: &str, expect: &str) {
    prints_args(machine, &args.split_whitespace().collect::<Vec<_>>(), expect);
}

#[track_caller]
fn prints_args(machine: &Machine, args: &[&str], expect: &str) {
    assert_eq!(machine.kubectl_args(args).ok(), expect, "kubectl {args:?}");
}

/// Runs kubectl and looks for all `parts` in what it prints.
#[track_caller]
fn has(machine: &Machine, args: &str, parts: &[&str]) {
    let out = machine.kubectl(args).ok();
    let missing: Vec<_> = parts.iter().filter(|part| !out.contains(**part)).collect();
    assert!(missing.is_empty(), "kubectl {args}: no {missing:?} in\n{out}");
}

/// Runs kubectl, which must fail and say `part`.
#[track_caller]
fn refuses(machine: &Machine, args: &str, part: &str) {
    let said = machine.kubectl(args).failed();
    assert!(said.contains(part), "kubectl {args}: {said}");
}
