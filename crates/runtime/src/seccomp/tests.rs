use super::*;

/// The answer of `filters` to a call: a small machine for the instructions that occur.
fn answer(filters: &[Vec<FilterInstruction>], call: &str, arguments: &[u64]) -> u32 {
    let number = numbers::NUMBERS.split_whitespace().find_map(|entry| {
        let (name, number) = entry.split_once(':')?;
        (name == call).then(|| number.parse::<u32>().unwrap())
    });
    answer_number(filters, number.unwrap(), arguments)
}

fn answer_number(filters: &[Vec<FilterInstruction>], number: u32, arguments: &[u64]) -> u32 {
    let architecture: u32 = if cfg!(target_arch = "x86_64") { 0xc000_003e } else { 0xc000_00b7 };
    let mut data = Vec::new();
    data.extend(number.to_ne_bytes());
    data.extend(architecture.to_ne_bytes());
    data.extend(0u64.to_ne_bytes());
    for index in 0..6 {
        data.extend(arguments.get(index).copied().unwrap_or(0).to_ne_bytes());
    }
    let run = |filter: &Vec<FilterInstruction>| {
        let (mut at, mut accumulator) = (0, 0u32);
        loop {
            let step = filter[at];
            at += 1;
            let mut jump = |holds: bool| at += if holds { step.jt } else { step.jf } as usize;
            match step.code {
                0x20 => accumulator = u32::from_ne_bytes(data[step.k as usize..][..4].try_into().unwrap()),
                0x54 => accumulator &= step.k,
                0x05 => at += step.k as usize,
                0x15 => jump(accumulator == step.k),
                0x25 => jump(accumulator > step.k),
                0x35 => jump(accumulator >= step.k),
                0x45 => jump(accumulator & step.k != 0),
                0x06 => return step.k,
                code => panic!("instruction {code:#x}"),
            }
        }
    };
    // The strictest answer is the smallest one as a signed number.
    filters.iter().map(run).min_by_key(|answer| (*answer & 0xffff_0000) as i32).unwrap_or(ALLOW)
}

const ALLOW: u32 = 0x7fff_0000;
const EPERM: u32 = 0x0005_0001;
const ENOSYS: u32 = 0x0005_0026;

#[test]
fn the_default_profile_answers_as_upstreams() {
    let filters = filters(&Source::RuntimeDefault, Capabilities::default()).unwrap();
    let check = |call: &str, arguments: &[u64], expect: u32| {
        assert_eq!(answer(&filters, call, arguments), expect, "{call} {arguments:x?}");
    };
    for call in ["read", "execve", "openat", "ptrace", "clone", "capset", "prctl", "fchmodat2"] {
        check(call, &[], ALLOW);
    }
    for call in ["mount", "keyctl", "bpf", "unshare", "reboot", "userfaultfd", "io_uring_setup", "setns"] {
        check(call, &[], EPERM);
    }
    check("clone3", &[], ENOSYS);
    check("clone", &[libc::CLONE_NEWUSER as u64], EPERM);
    check("clone", &[libc::CLONE_VM as u64], ALLOW);
    check("socket", &[libc::AF_INET as u64], ALLOW);
    check("socket", &[libc::AF_VSOCK as u64], EPERM);
    check("personality", &[0x20008], ALLOW);
    check("personality", &[7], EPERM);
    #[cfg(target_arch = "x86_64")]
    assert_eq!(answer_number(&filters, 0x4000_0000, &[]), ENOSYS);
}

#[test]
fn capabilities_open_calls() {
    let filters = filters(&Source::RuntimeDefault, Capabilities::named("SYS_ADMIN").unwrap()).unwrap();
    for call in ["mount", "clone3", "unshare", "bpf"] {
        assert_eq!(answer(&filters, call, &[u64::MAX]), ALLOW, "{call}");
    }
    assert_eq!(answer(&filters, "reboot", &[]), EPERM);
}

#[test]
fn profile_files_are_compiled() {
    let file = |text: &str| compile(&parse(serde_json::from_str(text).unwrap()).unwrap()).unwrap();
    let deny = file(
        r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86_64"],"syscalls":[
            {"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":38},
            {"names":["kill"],"action":"SCMP_ACT_KILL","args":[{"index":1,"value":9,"op":"SCMP_CMP_EQ"}]}]}"#,
    );
    assert_eq!(answer(&deny, "mkdirat", &[]), ENOSYS);
    assert_eq!(answer(&deny, "kill", &[1, 9]), 0);
    assert_eq!(answer(&deny, "kill", &[1, 15]), ALLOW);
    assert_eq!(answer(&deny, "read", &[]), ALLOW);
    let log = file(
        r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read","nosuchcall"],"action":"SCMP_ACT_ALLOW"},
            {"names":["write"],"action":"SCMP_ACT_LOG"}]}"#,
    );
    assert_eq!(answer(&log, "read", &[]), ALLOW);
    assert_eq!(answer(&log, "write", &[]), 0x7ffc_0000);
    assert_eq!(answer(&log, "close", &[]), EPERM);
    let bad: ProfileFile = serde_json::from_str(r#"{"defaultAction":"SCMP_ACT_WHAT"}"#).unwrap();
    assert!(parse(bad).is_err());
}

#[test]
fn what_is_said_in_ocis_words_means_the_same() {
    let profile = default_profile::profile(Capabilities::named("SYS_CHROOT").unwrap());
    let file: ProfileFile = serde_json::from_value(say(&profile)).unwrap();
    assert_eq!(compile(&parse(file).unwrap()).unwrap(), compile(&profile).unwrap());
}
