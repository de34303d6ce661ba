//! The lines that a starting daemon writes and that `start` shows.

use std::io::{IsTerminal, Write};

use serde::{Deserialize, Serialize};

/// One line, as JSON, from the daemon's standard output to the `start` that launched it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "event")]
pub enum Progress {
    /// `start` now waits for this.
    Waiting { step: String },
    /// That step is done.
    Done { step: String, millis: u64 },
    /// Something works less well than it could.
    Warning { message: String },
    /// The cluster works; nothing follows.
    Ready,
    /// The daemon gives up and rolls back; nothing follows.
    Failed { message: String },
}

/// The daemon's end: writes each event at once; a reader who has gone is no error.
pub fn report(event: &Progress) {
    let mut line = serde_json::to_vec(event).expect("progress events have only string keys");
    line.push(b'\n');
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(&line).and_then(|()| out.flush());
}

/// The command's end: on a terminal a waiting step is rewritten when it is done, elsewhere each is a line of its own.
pub struct Display {
    terminal: bool,
}

impl Display {
    pub fn new() -> Display {
        Display { terminal: std::io::stdout().is_terminal() }
    }

    /// Shows one event. [`Progress::Failed`] is left to the caller, who ends with it.
    pub fn show(&self, event: &Progress) {
        let mut out = std::io::stdout().lock();
        let written = match event {
            Progress::Waiting { step } if self.terminal => write!(out, "  … {step}"),
            Progress::Waiting { .. } | Progress::Failed { .. } => Ok(()),
            Progress::Done { step, millis } if self.terminal => {
                writeln!(out, "\r\x1b[K  ✓ {step} ({})", seconds(*millis))
            }
            Progress::Done { step, millis } => writeln!(out, "{step}: done in {}", seconds(*millis)),
            Progress::Warning { message } if self.terminal => writeln!(out, "\r\x1b[K  ! {message}"),
            Progress::Warning { message } => writeln!(out, "warning: {message}"),
            Progress::Ready => Ok(()),
        };
        // A closed terminal doesn't stop the cluster.
        let _ = written.and_then(|()| out.flush());
    }
}

impl Default for Display {
    fn default() -> Display {
        Display::new()
    }
}

fn seconds(millis: u64) -> String {
    format!("{:.2} s", millis as f64 / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_go_over_the_pipe() {
        let event = Progress::Done { step: "node".into(), millis: 120 };
        let line = serde_json::to_string(&event).unwrap();
        assert_eq!(line, r#"{"event":"done","step":"node","millis":120}"#);
        assert_eq!(serde_json::from_str::<Progress>(&line).unwrap(), event);
    }
}
