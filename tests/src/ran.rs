//! A run of `rbuild`: while it lasts, and what it said.
#![expect(clippy::return_self_not_must_use, reason = "an assertion may be the last word of a test")]

use std::io::{BufRead as _, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long one run may take: a run that hangs must not hang the tests.
const LIMIT: Duration = Duration::from_mins(4);

/// A run that has not ended yet. It is killed when this value goes.
#[derive(Debug)]
pub struct Running {
    shown: String,
    child: Child,
    stdout: Option<JoinHandle<Vec<u8>>>,
    stderr: Receiver<String>,
    said: String,
    /// Tells the guard that nothing is left to kill.
    ended: Option<Sender<()>>,
}

impl Running {
    /// Starts a command.
    ///
    /// # Panics
    ///
    /// If it can not be started.
    pub fn start(command: &mut Command) -> Self {
        let shown = format!("{command:?}");
        let started = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = started.unwrap_or_else(|error| panic!("could not start {shown}: {error}"));
        let stdout = child.stdout.take().map(|pipe| std::thread::spawn(move || all(pipe)));
        let (lines, stderr) = channel();
        let pipe = child.stderr.take().expect("piped above");
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
                if lines.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                    break;
                }
            }
        });
        let (ended, guard) = channel::<()>();
        let id = child.id();
        std::thread::spawn(move || {
            if guard.recv_timeout(LIMIT) == Err(RecvTimeoutError::Timeout) {
                signal(id, "KILL");
            }
        });
        Self { shown, child, stdout, stderr, said: String::new(), ended: Some(ended) }
    }

    /// Waits until a line on standard error contains `text`.
    ///
    /// # Panics
    ///
    /// If the run ends without.
    #[track_caller]
    pub fn until(&mut self, text: &str) -> &mut Self {
        while let Ok(line) = self.stderr.recv_timeout(LIMIT) {
            self.said.push_str(&line);
            self.said.push('\n');
            if line.contains(text) {
                return self;
            }
        }
        panic!("{} never said `{text}`, but:\n{}", self.shown, self.said);
    }

    /// Sends a signal: `INT`, `KILL`, …
    pub fn signal(&mut self, name: &str) {
        signal(self.child.id(), name);
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the end.
    ///
    /// # Panics
    ///
    /// If it can not be waited for.
    pub fn wait(mut self) -> Ran {
        for line in &self.stderr {
            self.said.push_str(&line);
            self.said.push('\n');
        }
        let stdout = self
            .stdout
            .take()
            .map(|thread| thread.join().expect("reading does not panic"))
            .unwrap_or_default();
        let status = self.child.wait().expect("our own child");
        self.ended.take();
        Ran {
            shown: std::mem::take(&mut self.shown),
            code: status.code(),
            stdout,
            stderr: std::mem::take(&mut self.said),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.ended.is_some() {
            drop(self.child.kill());
            drop(self.child.wait());
        }
    }
}

fn all(mut pipe: impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    drop(pipe.read_to_end(&mut bytes));
    bytes
}

fn signal(id: u32, name: &str) {
    drop(
        Command::new("kill")
            .args([format!("-{name}"), id.to_string()])
            .stderr(Stdio::null())
            .status(),
    );
}

/// What a run said, and how it ended.
#[derive(Debug)]
pub struct Ran {
    shown: String,
    /// The exit code; none after a signal.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: String,
}

impl Ran {
    /// It succeeded.
    #[track_caller]
    pub fn success(self) -> Self {
        self.ended(0)
    }

    /// It ended with this exit code.
    #[track_caller]
    pub fn ended(self, code: i32) -> Self {
        assert!(self.code == Some(code), "expected exit code {code}\n{}", self.story());
        self
    }

    /// It said this on standard error.
    #[track_caller]
    pub fn says(self, text: &str) -> Self {
        assert!(self.stderr.contains(text), "expected to read `{text}`\n{}", self.story());
        self
    }

    /// It said what to do.
    #[track_caller]
    pub fn says_a_way_out(self) -> Self {
        let marks = ["hint: ", "help: ", "use a newer rbuild"];
        assert!(
            marks.iter().any(|mark| self.stderr.contains(mark)),
            "expected to read a way out\n{}",
            self.story()
        );
        self
    }

    /// It did not say this on standard error.
    #[track_caller]
    pub fn keeps_quiet_about(self, text: &str) -> Self {
        assert!(!self.stderr.contains(text), "expected not to read `{text}`\n{}", self.story());
        self
    }

    /// A step whose name contains `text` ran and was done.
    #[track_caller]
    pub fn ran(self, text: &str) -> Self {
        let outcome = self.outcome(text);
        assert!(
            outcome.starts_with("DONE"),
            "expected `{text}` to have run, but it is `{outcome}`\n{}",
            self.story()
        );
        self
    }

    /// A step whose name contains `text` was cached.
    #[track_caller]
    pub fn cached(self, text: &str) -> Self {
        let outcome = self.outcome(text);
        assert!(
            outcome == "CACHED",
            "expected `{text}` to be cached, but it is `{outcome}`\n{}",
            self.story()
        );
        self
    }

    /// How a step whose name contains `text` ended: `DONE 0.1s`, `CACHED`, `ERROR: …`; empty if there was none.
    pub fn outcome(&self, text: &str) -> String {
        let number = |line: &str| line.split(' ').next().map(|number| format!("{number} "));
        let Some(number) = self
            .stderr
            .lines()
            .find(|line| line.starts_with('#') && line.contains(text))
            .and_then(number)
        else {
            return String::new();
        };
        let ends = ["DONE", "CACHED", "ERROR", "CANCELED"];
        let own = |line: &&str| {
            line.strip_prefix(&number)
                .is_some_and(|rest| ends.iter().any(|end| rest.starts_with(end)))
        };
        let end = self.stderr.lines().rfind(own);
        end.and_then(|line| line.strip_prefix(&number)).unwrap_or_default().to_owned()
    }

    /// Standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Everything, for the message of a failed test.
    pub fn story(&self) -> String {
        let code =
            self.code.map_or_else(|| "a signal".to_owned(), |code| format!("exit code {code}"));
        format!(
            "{}\nended with {code}; stdout:\n{}\nstderr:\n{}",
            self.shown,
            self.text(),
            self.stderr
        )
    }
}
