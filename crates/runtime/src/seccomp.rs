//! System call filters: profiles compiled to programs that the shim's executor installs.
//!
//! A profile may answer differently per call, but one compiled filter knows one action besides its default. So each action gets a
//! filter of its own; the kernel runs all of them and takes the strictest answer, which is what the profile means.

mod default_profile;
mod numbers;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};

use linux::process::{Capabilities, FilterInstruction};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Where a container's profile comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// The runtime's own.
    RuntimeDefault,
    /// A file in OCI's form.
    Localhost(PathBuf),
}

/// Why a profile cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SeccompError {
    #[error("cannot load seccomp profile {path:?}")]
    Load { path: PathBuf, source: io::Error },
    #[error("decoding seccomp profile {path:?} failed: {message}")]
    Parse { path: PathBuf, message: String },
    #[error("seccomp profile: unsupported action {0:?}")]
    Action(String),
    #[error("seccomp profile: unsupported operator {0:?}")]
    Operator(String),
    #[error("seccomp profile: {0}")]
    Compile(String),
}

/// What to answer to system calls.
#[derive(Debug)]
struct Profile {
    default: SeccompAction,
    rules: Vec<Rule>,
}

#[derive(Debug)]
struct Rule {
    names: Vec<String>,
    action: SeccompAction,
    /// All must hold.
    arguments: Vec<Argument>,
}

impl Rule {
    fn allow(names: Vec<String>) -> Rule {
        Rule { names, action: SeccompAction::Allow, arguments: Vec::new() }
    }
}

#[derive(Clone, Debug)]
struct Argument {
    index: u8,
    value: u64,
    comparison: Comparison,
}

#[derive(Clone, Debug)]
enum Comparison {
    NotEqual,
    Less,
    LessOrEqual,
    Equal,
    GreaterOrEqual,
    Greater,
    MaskedEqual(u64),
}

/// The filters of `source` for a container with these capabilities, in the order to install them.
pub(crate) fn filters(
    source: &Source,
    capabilities: Capabilities,
) -> Result<Vec<Vec<FilterInstruction>>, SeccompError> {
    match source {
        Source::RuntimeDefault => compile(&default_profile::profile(capabilities)),
        Source::Localhost(path) => compile(&load(path)?),
    }
}

/// `source` in OCI's words, for a runtime that compiles it itself.
pub(crate) fn oci(source: &Source, capabilities: Capabilities) -> Result<Value, SeccompError> {
    match source {
        Source::RuntimeDefault => Ok(say(&default_profile::profile(capabilities))),
        Source::Localhost(path) => {
            let text = read(path)?;
            // Also what this runtime has no use for is passed on; that it is a profile is seen here.
            decode::<ProfileFile>(path, &text)?;
            decode(path, &text)
        }
    }
}

fn say(profile: &Profile) -> Value {
    let rules = profile.rules.iter().map(|rule| {
        let mut said = said(&rule.action, "errnoRet", "action");
        said["names"] = rule.names.clone().into();
        if !rule.arguments.is_empty() {
            said["args"] = rule.arguments.iter().map(Argument::said).collect::<Vec<Value>>().into();
        }
        said
    });
    let rules: Vec<Value> = rules.collect();
    let mut oci = said(&profile.default, "defaultErrnoRet", "defaultAction");
    oci["syscalls"] = rules.into();
    if cfg!(target_arch = "x86_64") {
        oci["architectures"] = json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]);
    } else if cfg!(target_arch = "aarch64") {
        oci["architectures"] = json!(["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]);
    }
    oci
}

/// An action and its number under the names of its place.
fn said(action: &SeccompAction, number_key: &str, key: &str) -> Value {
    let (name, number) = match action {
        SeccompAction::Allow => ("SCMP_ACT_ALLOW", None),
        SeccompAction::Errno(number) => ("SCMP_ACT_ERRNO", Some(*number)),
        SeccompAction::KillThread => ("SCMP_ACT_KILL_THREAD", None),
        SeccompAction::KillProcess => ("SCMP_ACT_KILL_PROCESS", None),
        SeccompAction::Trap => ("SCMP_ACT_TRAP", None),
        SeccompAction::Trace(number) => ("SCMP_ACT_TRACE", Some(*number)),
        SeccompAction::Log => ("SCMP_ACT_LOG", None),
    };
    let mut oci = json!({ key: name });
    if let Some(number) = number {
        oci[number_key] = number.into();
    }
    oci
}

impl Argument {
    fn said(&self) -> Value {
        let (op, value, value_two) = match self.comparison {
            Comparison::NotEqual => ("SCMP_CMP_NE", self.value, 0),
            Comparison::Less => ("SCMP_CMP_LT", self.value, 0),
            Comparison::LessOrEqual => ("SCMP_CMP_LE", self.value, 0),
            Comparison::Equal => ("SCMP_CMP_EQ", self.value, 0),
            Comparison::GreaterOrEqual => ("SCMP_CMP_GE", self.value, 0),
            Comparison::Greater => ("SCMP_CMP_GT", self.value, 0),
            Comparison::MaskedEqual(mask) => ("SCMP_CMP_MASKED_EQ", mask, self.value),
        };
        json!({"index": self.index, "op": op, "value": value, "valueTwo": value_two})
    }
}

fn compile(profile: &Profile) -> Result<Vec<Vec<FilterInstruction>>, SeccompError> {
    let numbers: HashMap<&str, i64> = numbers::NUMBERS
        .split_whitespace()
        .filter_map(|entry| entry.split_once(':'))
        .filter_map(|(name, number)| Some((name, number.parse().ok()?)))
        .collect();
    let mut programs = Vec::new();
    if profile.default != SeccompAction::Allow {
        // What any other filter decides about has to pass this one.
        programs.push(program(profile.rules.iter(), profile.default.clone(), SeccompAction::Allow, &numbers)?);
    }
    let mut actions: Vec<&SeccompAction> = Vec::new();
    for rule in &profile.rules {
        if rule.action != SeccompAction::Allow && rule.action != profile.default && !actions.contains(&&rule.action) {
            actions.push(&rule.action);
        }
    }
    for action in actions {
        let rules = profile.rules.iter().filter(|rule| rule.action == *action);
        programs.push(program(rules, SeccompAction::Allow, action.clone(), &numbers)?);
    }
    if let Some(first) = programs.first_mut() {
        first.splice(0..0, refuse_x32());
    }
    Ok(programs)
}

/// The second numbering of x86's calls would pass a profile that names what it forbids.
fn refuse_x32() -> Vec<FilterInstruction> {
    if !cfg!(target_arch = "x86_64") {
        return Vec::new();
    }
    const LOAD: u16 = 0x20;
    const JUMP_IF_BITS: u16 = 0x45;
    const RETURN: u16 = 0x06;
    const X32: u32 = 0x4000_0000;
    let refuse = u32::from(SeccompAction::Errno(libc::ENOSYS as u32));
    // Calls of other architectures, whose numbers mean something else, are left to the next check.
    vec![
        FilterInstruction { code: LOAD, jt: 0, jf: 0, k: 0 },
        FilterInstruction { code: JUMP_IF_BITS, jt: 0, jf: 1, k: X32 },
        FilterInstruction { code: RETURN, jt: 0, jf: 0, k: refuse },
    ]
}

fn program<'a>(
    rules: impl Iterator<Item = &'a Rule>,
    default: SeccompAction,
    action: SeccompAction,
    numbers: &HashMap<&str, i64>,
) -> Result<Vec<FilterInstruction>, SeccompError> {
    // No conditions: always.
    let mut calls: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    let mut always = Vec::new();
    for rule in rules.filter(|rule| rule.action != default) {
        for number in rule.names.iter().filter_map(|name| numbers.get(name.as_str())) {
            let chain = calls.entry(*number).or_default();
            if rule.arguments.is_empty() {
                always.push(*number);
            } else {
                let conditions = rule.arguments.iter().map(condition).collect::<Result<Vec<_>, _>>()?;
                chain.push(SeccompRule::new(conditions).map_err(|error| SeccompError::Compile(error.to_string()))?);
            }
        }
    }
    for number in always {
        calls.insert(number, Vec::new());
    }
    let compile = || -> Result<BpfProgram, seccompiler::BackendError> {
        let architecture = std::env::consts::ARCH.try_into()?;
        SeccompFilter::new(calls, default, action, architecture)?.try_into()
    };
    let program = compile().map_err(|error| SeccompError::Compile(error.to_string()))?;
    Ok(program.iter().map(|step| FilterInstruction { code: step.code, jt: step.jt, jf: step.jf, k: step.k }).collect())
}

fn condition(argument: &Argument) -> Result<SeccompCondition, SeccompError> {
    let operator = match argument.comparison {
        Comparison::NotEqual => SeccompCmpOp::Ne,
        Comparison::Less => SeccompCmpOp::Lt,
        Comparison::LessOrEqual => SeccompCmpOp::Le,
        Comparison::Equal => SeccompCmpOp::Eq,
        Comparison::GreaterOrEqual => SeccompCmpOp::Ge,
        Comparison::Greater => SeccompCmpOp::Gt,
        Comparison::MaskedEqual(mask) => SeccompCmpOp::MaskedEq(mask),
    };
    SeccompCondition::new(argument.index, SeccompCmpArgLen::Qword, operator, argument.value)
        .map_err(|error| SeccompError::Compile(error.to_string()))
}

/// A profile file, as OCI's runtime specification and docker write it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ProfileFile {
    default_action: String,
    default_errno_ret: Option<u32>,
    #[serde(default)]
    syscalls: Vec<RuleFile>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RuleFile {
    #[serde(default)]
    names: Vec<String>,
    action: String,
    errno_ret: Option<u32>,
    #[serde(default)]
    args: Option<Vec<ArgumentFile>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArgumentFile {
    index: u8,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

fn load(path: &Path) -> Result<Profile, SeccompError> {
    parse(decode(path, &read(path)?)?)
}

fn read(path: &Path) -> Result<Vec<u8>, SeccompError> {
    std::fs::read(path).map_err(|source| SeccompError::Load { path: path.to_owned(), source })
}

fn decode<T: DeserializeOwned>(path: &Path, text: &[u8]) -> Result<T, SeccompError> {
    serde_json::from_slice(text)
        .map_err(|error| SeccompError::Parse { path: path.to_owned(), message: error.to_string() })
}

fn parse(file: ProfileFile) -> Result<Profile, SeccompError> {
    let mut rules = Vec::new();
    for rule in file.syscalls {
        let arguments = rule.args.unwrap_or_default().into_iter().map(|argument| {
            let (value, comparison) = match argument.op.as_str() {
                "SCMP_CMP_NE" => (argument.value, Comparison::NotEqual),
                "SCMP_CMP_LT" => (argument.value, Comparison::Less),
                "SCMP_CMP_LE" => (argument.value, Comparison::LessOrEqual),
                "SCMP_CMP_EQ" => (argument.value, Comparison::Equal),
                "SCMP_CMP_GE" => (argument.value, Comparison::GreaterOrEqual),
                "SCMP_CMP_GT" => (argument.value, Comparison::Greater),
                "SCMP_CMP_MASKED_EQ" => (argument.value_two, Comparison::MaskedEqual(argument.value)),
                other => return Err(SeccompError::Operator(other.to_owned())),
            };
            Ok(Argument { index: argument.index, value, comparison })
        });
        let arguments = arguments.collect::<Result<_, _>>()?;
        rules.push(Rule { names: rule.names, action: action(&rule.action, rule.errno_ret)?, arguments });
    }
    Ok(Profile { default: action(&file.default_action, file.default_errno_ret)?, rules })
}

fn action(name: &str, number: Option<u32>) -> Result<SeccompAction, SeccompError> {
    Ok(match name {
        "SCMP_ACT_ALLOW" => SeccompAction::Allow,
        "SCMP_ACT_ERRNO" => SeccompAction::Errno(number.unwrap_or(libc::EPERM as u32)),
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => SeccompAction::KillThread,
        "SCMP_ACT_KILL_PROCESS" => SeccompAction::KillProcess,
        "SCMP_ACT_TRAP" => SeccompAction::Trap,
        "SCMP_ACT_TRACE" => SeccompAction::Trace(number.unwrap_or(libc::EPERM as u32)),
        "SCMP_ACT_LOG" => SeccompAction::Log,
        other => return Err(SeccompError::Action(other.to_owned())),
    })
}

#[cfg(test)]
mod tests;
