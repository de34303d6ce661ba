//! Rules and transactions as text, for goldens and for comparing what was sent with what the kernel has.

use std::fmt::Write;

use super::batch::Batch;
use super::set::{Data, Element, Verdict, read_element, read_verdict};
use super::{DELCHAIN, DELRULE, DELSETELEM, DELTABLE, NEWCHAIN, NEWRULE, NEWSET, NEWSETELEM, NEWTABLE};
use crate::netfilter::{attributes, find, find_string, find_u32, find_u64, split};

impl std::fmt::Display for Batch {
    /// One line per change; the same lines whatever the messages they are packed in.
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (kind, _, body) in split(&self.messages.bytes) {
            let name = |attribute| find_string(body, attribute).unwrap_or_default();
            let elements = || attributes(find(body, 3).unwrap_or(&[])).filter_map(|(_, bytes)| read_element(bytes));
            match kind & 0xff {
                NEWTABLE if kind != 0x10 => writeln!(out, "add table {}", name(1))?,
                DELTABLE => writeln!(out, "delete table {}", name(1))?,
                NEWCHAIN => match base(body) {
                    Some(base) => writeln!(out, "add chain {} {base}", name(3))?,
                    None => writeln!(out, "add chain {}", name(3))?,
                },
                DELCHAIN => writeln!(out, "delete chain {}", name(3))?,
                NEWRULE => writeln!(out, "add rule {}: {}", name(2), rule(find(body, 4).unwrap_or(&[])))?,
                DELRULE => writeln!(out, "flush chain {}", name(2))?,
                NEWSET => writeln!(out, "add set {} flags {:#x}", name(2), find_u32(body, 3).unwrap_or(0))?,
                NEWSETELEM => elements().try_for_each(|element| writeln!(out, "add {}: {element}", name(2)))?,
                DELSETELEM => elements().try_for_each(|element| writeln!(out, "delete {}: {element}", name(2)))?,
                _ => {}
            }
        }
        Ok(())
    }
}

impl std::fmt::Display for Element {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(&hex(self.key.bytes()))?;
        if let Some(last) = &self.last {
            write!(out, "-{}", hex(last.bytes()))?;
        }
        match &self.data {
            Data::None => Ok(()),
            Data::Value(value) => write!(out, " = {}", hex(value.bytes())),
            Data::Verdict(verdict) => write!(out, " = {verdict}"),
        }
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Verdict::Accept => out.write_str("accept"),
            Verdict::Drop => out.write_str("drop"),
            Verdict::Return => out.write_str("return"),
            Verdict::Jump(chain) => write!(out, "jump {chain}"),
            Verdict::Goto(chain) => write!(out, "goto {chain}"),
        }
    }
}

/// A base chain's place, from a chain message; `None` for other chains.
pub(crate) fn base(chain: &[u8]) -> Option<String> {
    let hook = find(chain, 4)?;
    let names = ["prerouting", "input", "forward", "output", "postrouting"];
    let name = names.get(find_u32(hook, 1)? as usize)?;
    Some(format!("type {} hook {name} priority {}", find_string(chain, 7)?, find_u32(hook, 2)? as i32))
}

/// A rule's expressions, from its list of them.
pub(crate) fn rule(expressions: &[u8]) -> String {
    let mut text = String::new();
    for (_, expression) in attributes(expressions) {
        let name = find_string(expression, 1).unwrap_or_default();
        let separator = if text.is_empty() { "" } else { "; " };
        let _ = write!(text, "{separator}{}", one(&name, find(expression, 2).unwrap_or(&[])).unwrap_or(name));
    }
    text
}

fn one(name: &str, body: &[u8]) -> Option<String> {
    let number = |attribute| find_u32(body, attribute);
    let register = |attribute| number(attribute).map(self::register);
    let value = |attribute| Some(hex(find(find(body, attribute)?, 1)?));
    let text = |attribute| find_string(body, attribute);
    Some(match name {
        "payload" => {
            let base = ["link", "network", "transport"].get(number(2)? as usize)?;
            format!("{} = {base}[{}+{}]", register(1)?, number(3)?, number(4)?)
        }
        "meta" => match register(1) {
            Some(to) => format!("{to} = meta {}", meta(number(2)?)),
            None => format!("meta {} = {}", meta(number(2)?), register(3)?),
        },
        "ct" => format!("{} = ct {}", register(1)?, if number(2)? == 0 { "state" } else { "status" }),
        "fib" => format!("{} = fib {} type", register(1)?, if number(3)? == 1 { "saddr" } else { "daddr" }),
        "immediate" => match find(find(body, 2)?, 2) {
            Some(verdict) => read_verdict(verdict)?.to_string(),
            None => format!("{} = {}", register(1)?, value(2)?),
        },
        "cmp" => format!("{} {} {}", register(1)?, if number(2)? == 0 { "==" } else { "!=" }, value(3)?),
        "bitwise" => format!("{} = {} & {} ^ {}", register(2)?, register(1)?, value(4)?, value(5)?),
        "lookup" => match number(3) {
            Some(0) => format!("@{}[{}]", text(1)?, register(2)?),
            Some(to) => format!("{} = @{}[{}]", self::register(to), text(1)?, register(2)?),
            None => format!("{} in @{}", register(2)?, text(1)?),
        },
        "numgen" => format!("{} = random {} from {}", register(1)?, number(2)?, number(4).unwrap_or(0)),
        "nat" => format!("dnat {} : {}", register(3)?, register(5)?),
        "masq" => "masquerade".to_owned(),
        "dynset" => {
            let (set, key, value) = (text(1)?, register(4)?, register(5)?);
            match find_u64(body, 6).filter(|_| number(3) == Some(1)) {
                Some(life) => format!("update @{set}[{key}] = {value} for {life} ms"),
                None => format!("delete @{set}[{key}]"),
            }
        }
        "reject" => format!("reject {}", find(body, 2)?.first()?),
        _ => return None,
    })
}

/// The kernel names registers of four bytes 8 to 23, and those of sixteen bytes, when it lists them, 1 to 4.
fn register(number: u32) -> String {
    match number {
        0 => "verdict".to_owned(),
        1..=4 => format!("r{}", (number - 1) * 4),
        _ => format!("r{}", number - 8),
    }
}

fn meta(key: u32) -> &'static str {
    match key {
        3 => "mark",
        4 => "iif",
        16 => "l4proto",
        _ => "other",
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
