//! Starting programs: each command is shown before it runs, and a failure names it.

use std::ffi::OsStr;
use std::fmt;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Why a task ended early.
#[derive(Debug)]
pub(crate) struct Failure {
    text: String,
    code: u8,
}

impl Failure {
    /// Something that was tried did not work.
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), code: 1 }
    }

    /// The task was called in a way that it does not know.
    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self { text: text.into(), code: 2 }
    }

    /// The exit code for the shell.
    pub(crate) fn code(&self) -> u8 {
        self.code
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What a task returns.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

/// Prints a headline, so that a long log can be skimmed.
pub(crate) fn headline(text: &str) {
    println!("\n==> {text}");
}

/// The command as a person would type it.
fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(quoted).collect();
    words.join(" ")
}

fn quoted(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.into_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

/// Runs a command with our own output; any status but 0 is a failure.
pub(crate) fn run(command: &mut Command) -> Outcome {
    println!("$ {}", shown(command));
    let status = command
        .status()
        .map_err(|error| Failure::new(format!("could not start `{}`: {error}", shown(command))))?;
    if status.success() {
        Ok(())
    } else {
        Err(Failure::new(format!("`{}` ended with {status}", shown(command))))
    }
}

/// Runs a command, passes its standard output on line by line, and hands every line to `see` as well.
///
/// Answers whether the command succeeded: its caller has more to say before it fails.
pub(crate) fn run_seeing(command: &mut Command, mut see: impl FnMut(&str)) -> Outcome<bool> {
    println!("$ {}", shown(command));
    let started = command.stdout(Stdio::piped()).spawn();
    let mut child = started
        .map_err(|error| Failure::new(format!("could not start `{}`: {error}", shown(command))))?;
    let mut out = std::io::stdout();
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line);
            // A closed standard output is no reason to stop the tests.
            drop(writeln!(out, "{line}"));
            see(&line);
        }
    }
    let status = child
        .wait()
        .map_err(|error| Failure::new(format!("could not wait for a command: {error}")))?;
    Ok(status.success())
}

/// Runs a command quietly and answers whether it succeeded.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Runs a command and returns its standard output without the end of its last line.
pub(crate) fn output(command: &mut Command) -> Outcome<String> {
    let result = command.stdin(Stdio::null()).output();
    let result = result
        .map_err(|error| Failure::new(format!("could not start `{}`: {error}", shown(command))))?;
    if result.status.success() {
        Ok(String::from_utf8_lossy(&result.stdout).trim_end().to_owned())
    } else {
        let said = String::from_utf8_lossy(&result.stderr);
        Err(Failure::new(format!(
            "`{}` ended with {}: {}",
            shown(command),
            result.status,
            said.trim_end()
        )))
    }
}

/// Where a program is, looking in the system folders too, which an ordinary user's search path leaves out; a whole path
/// stays what it is.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(system)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

/// The command that starts cargo: the one that started us.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// The root of the project.
pub(crate) fn root() -> &'static Path {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.ancestors().nth(2).expect("xtask lies in tests/xtask")
}

/// Writes a file, and the folders above it.
pub(crate) fn write(path: &Path, content: impl AsRef<[u8]>) -> Outcome {
    let parent = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent)
        .and_then(|()| std::fs::write(path, content))
        .map_err(|error| Failure::new(format!("could not write `{}`: {error}", path.display())))
}

/// Removes a folder and all in it, if it is there.
pub(crate) fn remove_dir(path: &Path) -> Outcome {
    match std::fs::remove_dir_all(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Failure::new(format!("could not remove `{}`: {error}", path.display()))),
    }
}
