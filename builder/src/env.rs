//! The only reader of the environment, the clock and the terminal.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

/// What the process was started with, read once.
#[derive(Clone, Debug)]
pub struct Env {
    /// Environment variables that are UTF-8.
    pub vars: BTreeMap<String, String>,
    /// Current directory.
    pub cwd: PathBuf,
    /// Seconds since the epoch.
    pub now: i64,
    /// Whether standard error is a terminal.
    pub stderr_is_terminal: bool,
    /// Whether standard input is a terminal.
    pub stdin_is_terminal: bool,
}

impl Env {
    /// Reads it all.
    ///
    /// # Errors
    ///
    /// If the current directory is gone.
    #[expect(clippy::disallowed_methods, reason = "this is the place that may")]
    pub fn read() -> std::io::Result<Self> {
        Ok(Self {
            vars: std::env::vars_os()
                .filter_map(|(name, value)| {
                    Some((name.into_string().ok()?, value.into_string().ok()?))
                })
                .collect(),
            cwd: std::env::current_dir()?,
            now: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |it| i64::try_from(it.as_secs()).unwrap_or(i64::MAX)),
            stderr_is_terminal: std::io::stderr().is_terminal(),
            stdin_is_terminal: std::io::stdin().is_terminal(),
        })
    }

    /// A variable that is set and not empty.
    pub fn var(&self, name: &str) -> Option<&str> {
        self.vars.get(name).map(String::as_str).filter(|it| !it.is_empty())
    }

    /// Whether standard error is a terminal that can be drawn on.
    pub fn stderr_can_be_drawn_on(&self) -> bool {
        self.stderr_is_terminal && self.var("TERM").is_some_and(|it| it != "dumb")
    }

    /// Home directory.
    pub fn home(&self) -> Option<PathBuf> {
        self.var("HOME").map(PathBuf::from)
    }

    /// Where the user's data is: `$XDG_DATA_HOME`, `~/.local/share`.
    pub fn data_dir(&self) -> Option<PathBuf> {
        match self.var("XDG_DATA_HOME") {
            Some(data) => Some(PathBuf::from(data)),
            None => Some(self.home()?.join(".local/share")),
        }
    }
}

/// Columns and rows of the terminal that standard error is; those of a usual one if it does not say.
pub fn terminal_size() -> (u16, u16) {
    match rustix::termios::tcgetwinsize(std::io::stderr()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col, size.ws_row),
        Ok(_) | Err(_) => (80, 24),
    }
}
