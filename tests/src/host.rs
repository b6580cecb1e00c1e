//! What this machine can do, and who runs `rbuild` in the tests.
//!
//! A test that needs something names it first: `needs!(Ids, Program("podman"))`. Where it is missing the test says so
//! on standard error, is counted in the file that `RBUILD_SKIPS` names, and ends; with `RBUILD_DEMAND=all` it fails.

use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// What a test can need of the machine.
#[derive(Clone, Copy, Debug)]
pub enum Need {
    /// A program of this name.
    Program(&'static str),
    /// A user namespace with a range of ids: what a RUN step takes.
    Ids,
    /// To be root: for mounts and other users.
    Root,
    /// Debian's packages by network, or in a local copy.
    Debian,
    /// File systems by programs.
    Fuse,
}

/// Ends the test, loudly, unless the machine has everything that is named.
#[macro_export]
macro_rules! needs {
    ($($need:expr),+ $(,)?) => {{
        #[allow(unused_imports, reason = "not every test names every kind")]
        use $crate::host::Need::{Debian, Fuse, Ids, Program, Root};
        if $crate::host::lacks(&[$($need),+]) {
            return;
        }
    }};
}

/// Whether one of the needs is not met; then it has been said, and counted.
///
/// # Panics
///
/// With `RBUILD_DEMAND=all`, if one is not met.
pub fn lacks(needs: &[Need]) -> bool {
    let Some(reason) = needs.iter().find_map(|need| need.missing()) else { return false };
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test").to_owned();
    assert!(
        environment("RBUILD_DEMAND").as_deref() != Some("all"),
        "{test} may not be skipped: {reason}"
    );
    // Not through the print macros: the test harness would hide it.
    drop(writeln!(std::io::stderr(), "SKIPPED: {test}: {reason}"));
    if let Some(file) = environment("RBUILD_SKIPS") {
        let opened = std::fs::OpenOptions::new().append(true).create(true).open(&file);
        let written = opened.and_then(|mut file| writeln!(file, "{test}: {reason}"));
        written.unwrap_or_else(|error| panic!("could not write `{file}`: {error}"));
    }
    true
}

impl Need {
    /// Why it is not met.
    fn missing(self) -> Option<String> {
        match self {
            Self::Program(name) => {
                program(name).is_none().then(|| format!("`{name}` is not installed"))
            }
            Self::Ids => ids_missing(),
            Self::Root => (!is_root()).then(|| "only root can set it up".to_owned()),
            Self::Debian => debian_missing(),
            Self::Fuse => {
                let opened = std::fs::File::open("/dev/fuse");
                opened.err().map(|error| format!("/dev/fuse: {error}"))
            }
        }
    }
}

fn ids_missing() -> Option<String> {
    let runner = runner();
    if runner.uid == 0 {
        return None;
    }
    if program("newuidmap").is_none() {
        return Some("`newuidmap` is not installed".to_owned());
    }
    for file in ["/etc/subuid", "/etc/subgid"] {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let own = |line: &str| {
            line.split(':')
                .next()
                .is_some_and(|owner| owner == runner.name || owner == runner.uid.to_string())
        };
        if !text.lines().any(own) {
            return Some(format!("`{}` has no range in `{file}`", runner.name));
        }
    }
    None
}

fn debian_missing() -> Option<String> {
    static REACHED: OnceLock<Option<String>> = OnceLock::new();
    let reach = || {
        let Some(apt) = program("apt-get") else {
            return Some("this is no Debian machine".to_owned());
        };
        let folder = std::env::temp_dir().join(format!("rbuild-mirror-{}", std::process::id()));
        let downloaded = std::fs::create_dir_all(&folder).is_ok()
            && std::process::Command::new(apt)
                .args(["download", "hostname"])
                .current_dir(&folder)
                .output()
                .is_ok_and(|output| output.status.success());
        drop(std::fs::remove_dir_all(&folder));
        (!downloaded).then(|| "Debian's packages can not be reached".to_owned())
    };
    REACHED.get_or_init(reach).clone()
}

/// Who runs `rbuild`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct User {
    /// The name in the user database; the id if it has none.
    pub name: String,
    /// The user's id.
    pub uid: u32,
    /// The id of the user's own group.
    pub gid: u32,
}

/// The user whom the tests run `rbuild` as: ourselves, or who `RBUILD_TEST_USER` names.
///
/// # Panics
///
/// If that user is not in the user database.
pub fn runner() -> &'static User {
    static RUNNER: OnceLock<User> = OnceLock::new();
    RUNNER.get_or_init(|| match environment("RBUILD_TEST_USER").filter(|_| is_root()) {
        Some(name) => user(|line_name, _| line_name == name)
            .unwrap_or_else(|| panic!("there is no user `{name}`")),
        None => ourselves(),
    })
}

/// The user whom the test process belongs to.
pub fn ourselves() -> User {
    let own = std::fs::metadata("/proc/self").expect("/proc is mounted");
    let known = user(|_, uid| uid == own.uid());
    known.unwrap_or(User { name: own.uid().to_string(), uid: own.uid(), gid: own.gid() })
}

/// Whether the test process is root's.
pub fn is_root() -> bool {
    ourselves().uid == 0
}

fn user(wanted: impl Fn(&str, u32) -> bool) -> Option<User> {
    let text = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    text.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let (uid, gid) = (fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?);
        wanted(fields[0], uid).then(|| User { name: fields[0].to_owned(), uid, gid })
    })
}

/// Where a program is; system folders count too.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = environment("PATH").unwrap_or_default();
    let folders =
        path.split(':').chain(["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"]);
    folders.map(|folder| Path::new(folder).join(name)).find(|file| file.is_file())
}

/// A variable of the environment in which the tests run.
#[expect(clippy::disallowed_methods, reason = "the one place where the tests read it")]
pub fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
