//! Which devices a group's processes may use: a list on v1, a small program on v2.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

/// Character or block device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    /// Either.
    Any,
    /// Character device.
    Character,
    /// Block device.
    Block,
}

/// Devices that may be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceRule {
    /// Character or block device.
    pub kind: DeviceKind,
    /// Major number; `None` is any.
    pub major: Option<u32>,
    /// Minor number; `None` is any.
    pub minor: Option<u32>,
    /// Some of `r`, `w`, `m` (read, write, make a device file).
    pub access: String,
}

impl DeviceRule {
    /// Everything.
    pub fn all() -> DeviceRule {
        DeviceRule { kind: DeviceKind::Any, major: None, minor: None, access: "rwm".to_owned() }
    }
}

/// Writes the rules to a v1 group.
pub(super) fn write_v1(folder: &Path, rules: &[DeviceRule]) -> io::Result<()> {
    fs::write(folder.join("devices.deny"), "a")?;
    for rule in rules {
        let kind = match rule.kind {
            DeviceKind::Any => 'a',
            DeviceKind::Character => 'c',
            DeviceKind::Block => 'b',
        };
        let number = |number: Option<u32>| number.map_or("*".to_owned(), |number| number.to_string());
        let line = format!("{kind} {}:{} {}", number(rule.major), number(rule.minor), rule.access);
        fs::write(folder.join("devices.allow"), line)?;
    }
    Ok(())
}

/// One instruction of the kernel's extended BPF.
#[derive(Clone, Copy)]
#[repr(C)]
struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

const LOAD_WORD: u8 = 0x61;
const JUMP_NOT_EQUAL: u8 = 0x55;
const JUMP_NOT_EQUAL_REGISTER: u8 = 0x5d;
const MOVE: u8 = 0xb7;
const MOVE_REGISTER: u8 = 0xbf;
const AND: u8 = 0x57;
const SHIFT_RIGHT: u8 = 0x77;
const EXIT: u8 = 0x95;

const fn instruction(code: u8, to: u8, from: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers: to | from << 4, offset, immediate }
}

/// The context holds three words: access (16 bits) above kind (16 bits), major, minor. Registers: 2 kind, 3 access, 4 major,
/// 5 minor. Answers 1 when a rule covers the whole access, else 0.
fn program(rules: &[DeviceRule]) -> Vec<Instruction> {
    let mut code = vec![
        instruction(LOAD_WORD, 2, 1, 0, 0),
        instruction(MOVE_REGISTER, 3, 2, 0, 0),
        instruction(AND, 2, 0, 0, 0xffff),
        instruction(SHIFT_RIGHT, 3, 0, 0, 16),
        instruction(LOAD_WORD, 4, 1, 4, 0),
        instruction(LOAD_WORD, 5, 1, 8, 0),
    ];
    for rule in rules {
        let mut tests = Vec::new();
        match rule.kind {
            DeviceKind::Any => {}
            DeviceKind::Block => tests.push(instruction(JUMP_NOT_EQUAL, 2, 0, 0, 1)),
            DeviceKind::Character => tests.push(instruction(JUMP_NOT_EQUAL, 2, 0, 0, 2)),
        }
        let bits = rule.access.chars().fold(0, |bits, access| {
            bits | match access {
                'm' => 1,
                'r' => 2,
                'w' => 4,
                _ => 0,
            }
        });
        if bits != 7 {
            tests.push(instruction(MOVE_REGISTER, 1, 3, 0, 0));
            tests.push(instruction(AND, 1, 0, 0, bits));
            tests.push(instruction(JUMP_NOT_EQUAL_REGISTER, 1, 3, 0, 0));
        }
        if let Some(major) = rule.major {
            tests.push(instruction(JUMP_NOT_EQUAL, 4, 0, 0, major as i32));
        }
        if let Some(minor) = rule.minor {
            tests.push(instruction(JUMP_NOT_EQUAL, 5, 0, 0, minor as i32));
        }
        let len = tests.len();
        for (at, test) in tests.iter_mut().enumerate() {
            if matches!(test.code, JUMP_NOT_EQUAL | JUMP_NOT_EQUAL_REGISTER) {
                // Over the remaining tests and the two instructions that allow.
                test.offset = (len - at - 1 + 2) as i16;
            }
        }
        code.extend(tests);
        code.extend([instruction(MOVE, 0, 0, 0, 1), instruction(EXIT, 0, 0, 0, 0)]);
    }
    code.extend([instruction(MOVE, 0, 0, 0, 0), instruction(EXIT, 0, 0, 0, 0)]);
    code
}

/// Attaches the rules' program to a v2 group; it goes with the group.
pub(super) fn attach_v2(folder: &Path, rules: &[DeviceRule]) -> io::Result<()> {
    const PROG_LOAD: libc::c_long = 5;
    const PROG_ATTACH: libc::c_long = 8;
    const CGROUP_DEVICE_PROGRAM: u32 = 15;
    const CGROUP_DEVICE_ATTACH: u32 = 6;
    const ALLOW_MULTI: u32 = 2;
    #[repr(C)]
    #[derive(Default)]
    struct Load {
        kind: u32,
        count: u32,
        instructions: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log: u64,
        kernel: u32,
        flags: u32,
        name: [u8; 16],
        interface: u32,
        attach: u32,
    }
    #[repr(C)]
    struct Attach {
        target: u32,
        program: u32,
        kind: u32,
        flags: u32,
        replace: u32,
    }
    // From the last allow-everything rule on, there is nothing to check.
    if rules.iter().any(|rule| rule == &DeviceRule::all()) {
        return Ok(());
    }
    let code = program(rules);
    let load = Load {
        kind: CGROUP_DEVICE_PROGRAM,
        count: code.len() as u32,
        instructions: code.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        attach: CGROUP_DEVICE_ATTACH,
        ..Load::default()
    };
    // SAFETY: `load` describes `code` and a constant string, all outliving the call.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, PROG_LOAD, &load, std::mem::size_of::<Load>()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just made this descriptor for us.
    let loaded = unsafe { OwnedFd::from_raw_fd(fd as i32) };
    let target = File::open(folder)?;
    let attach = Attach {
        target: target.as_raw_fd() as u32,
        program: loaded.as_raw_fd() as u32,
        kind: CGROUP_DEVICE_ATTACH,
        flags: ALLOW_MULTI,
        replace: 0,
    };
    // SAFETY: `attach` names two open descriptors and outlives the call.
    match unsafe { libc::syscall(libc::SYS_bpf, PROG_ATTACH, &attach, std::mem::size_of::<Attach>()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
