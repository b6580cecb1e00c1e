//! What this place allows, found out by doing it: one forked process for each question.
//!
//! ```text
//!  rbuild                      rbuild probe (one thread)             a child for each question
//!  ------                      -------------------------             -------------------------
//!  spawn, Ask ───────────────> forks them all at once ─────────────> does the thing
//!                              writes the maps of one <───────────── Unshared
//!                              collects  <────────────────────────── the call that was refused, and how
//!         <─────────────────── Answers
//! ```
//!
//! A refused call leaves a process in no state to ask the next question in, hence the children. The
//! answers are kept ([`mod@known`]) for as long as the facts around them stay the same. What they mean
//! for rungs ([`Answers::rung`]) is decided here, without any system call.

mod ask;
mod known;

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::ask::main;
pub(crate) use self::ask::{namespaces_apart, owners, suits};
pub use self::known::{forget, keep, kept, known, renew};
use super::refusal::Refusal;
use super::rung::{Rung, Wanted};
use crate::sandbox::host::{Facts, explain};
use crate::worker::wire::{self, WireError};

/// How long the answers may take; a build goes on without them then.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is asked.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub enum Question {
    /// A user namespace.
    UserNamespace,
    /// Giving it our own id.
    OneId,
    /// Giving it a range of ids.
    IdRange,
    /// A mount namespace in it, and a mount.
    Mounts,
    /// Namespaces for processes, messages and host name.
    Namespaces,
    /// A network namespace.
    NetworkNamespace,
    /// `pivot_root(2)`.
    PivotRoot,
    /// A `/proc` of a new pid namespace.
    FreshProc,
    /// A seccomp filter that asks another process.
    Listener,
    /// `chroot(2)`, without any namespace.
    Chroot,
    /// An overlay whose upper directory is in the store.
    Overlay,
    /// Files of the store that share their blocks.
    Reflink,
    /// Attributes of files of the store.
    Attributes,
    /// Links in the store, and names that differ in case.
    Names,
    /// Programs in the store that run.
    Programs,
    /// `/dev/fuse`.
    Fuse,
    /// An overlay by `fuse-overlayfs`, as good as the kernel's.
    FuseOverlayfs,
    /// `/dev/net/tun`.
    Tun,
    /// A cgroup that holds a step to its limits.
    Cgroup,
    /// The network that is built in.
    Embedded,
    /// The network of `pasta`.
    Pasta,
    /// The network of `slirp4netns`.
    Slirp4netns,
}

impl Question {
    /// What a build wants to know before it begins; what takes longest first.
    pub const OF_A_BUILD: [Self; 10] = [
        Self::IdRange,
        Self::Overlay,
        Self::UserNamespace,
        Self::OneId,
        Self::Mounts,
        Self::Namespaces,
        Self::Listener,
        Self::Chroot,
        Self::Names,
        Self::Programs,
    ];

    /// What people want to know, in the order in which it is shown.
    pub const ALL: [Self; 18] = [
        Self::UserNamespace,
        Self::OneId,
        Self::IdRange,
        Self::Mounts,
        Self::Namespaces,
        Self::NetworkNamespace,
        Self::PivotRoot,
        Self::FreshProc,
        Self::Listener,
        Self::Chroot,
        Self::Overlay,
        Self::Reflink,
        Self::Attributes,
        Self::Names,
        Self::Programs,
        Self::Fuse,
        Self::Tun,
        Self::Cgroup,
    ];

    /// What trees of steps need to be known about the store.
    const OF_TREES: [Self; 3] = [Self::Overlay, Self::Names, Self::Programs];

    /// What has to be allowed for a rung.
    const fn of(rung: Rung) -> &'static [Self] {
        match rung {
            Rung::Userns => &[Self::UserNamespace, Self::IdRange, Self::Mounts, Self::Namespaces],
            Rung::UsernsSingle => {
                &[Self::UserNamespace, Self::OneId, Self::Mounts, Self::Namespaces]
            }
            Rung::Chroot => &[Self::Chroot],
        }
    }

    /// Networks, in the order in which they are preferred.
    pub const NETWORKS: [Self; 3] = [Self::Embedded, Self::Pasta, Self::Slirp4netns];

    /// What takes long, and no build wants to know beforehand.
    pub const SLOW: [Self; 4] =
        [Self::Embedded, Self::Pasta, Self::Slirp4netns, Self::FuseOverlayfs];

    /// As data has it.
    pub const fn id(self) -> &'static str {
        match self {
            Self::UserNamespace => "user-namespace",
            Self::OneId => "one-id",
            Self::IdRange => "id-range",
            Self::Mounts => "mounts",
            Self::Namespaces => "namespaces",
            Self::NetworkNamespace => "network-namespace",
            Self::PivotRoot => "pivot-root",
            Self::FreshProc => "fresh-proc",
            Self::Listener => "listener",
            Self::Chroot => "chroot",
            Self::Overlay => "overlay",
            Self::Reflink => "reflink",
            Self::Attributes => "attributes",
            Self::Names => "names",
            Self::Programs => "programs",
            Self::Fuse => "fuse",
            Self::FuseOverlayfs => "fuse-overlayfs",
            Self::Tun => "tun",
            Self::Cgroup => "cgroup",
            Self::Embedded => "embedded",
            Self::Pasta => "pasta",
            Self::Slirp4netns => "slirp4netns",
        }
    }

    /// In words.
    pub const fn name(self) -> &'static str {
        match self {
            Self::UserNamespace => "user namespace",
            Self::OneId => "one id in it",
            Self::IdRange => "a range of ids in it",
            Self::Mounts => "mounts in it",
            Self::Namespaces => "pid, ipc and uts namespaces",
            Self::NetworkNamespace => "network namespace",
            Self::PivotRoot => "pivot_root",
            Self::FreshProc => "fresh /proc",
            Self::Listener => "answering system calls",
            Self::Chroot => "chroot without a namespace",
            Self::Overlay => "overlay in the store",
            Self::Reflink => "reflinks in the store",
            Self::Attributes => "user.* attributes in the store",
            Self::Names => "links and names in the store",
            Self::Programs => "programs in the store",
            Self::Fuse => "/dev/fuse",
            Self::FuseOverlayfs => "overlay by fuse-overlayfs",
            Self::Tun => "/dev/net/tun",
            Self::Cgroup => "limits by cgroup",
            Self::Embedded => "embedded network",
            Self::Pasta => "pasta",
            Self::Slirp4netns => "slirp4netns",
        }
    }
}

/// The answer to one question: what was refused, if something was.
pub type Answer = Result<(), Refusal>;

/// All answers.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Answers(Vec<(Question, Answer)>);

impl Answers {
    /// The answer to `question`.
    ///
    /// # Errors
    ///
    /// What was refused, which may be the question.
    pub fn get(&self, question: Question) -> Answer {
        let found = self.0.iter().find(|it| it.0 == question);
        found.map_or_else(|| Err(unanswered(question)), |it| it.1.clone())
    }

    /// Answers that refuse nothing.
    #[cfg(test)]
    fn refusing_nothing(questions: &[Question]) -> Self {
        Self(questions.iter().map(|it| (*it, Ok(()))).collect())
    }

    /// Each question with its answer, in the order in which they are shown.
    pub fn iter(&self) -> impl Iterator<Item = (Question, &Answer)> {
        self.0.iter().map(|it| (it.0, &it.1))
    }

    /// Whether an overlay can be made in the store, else why not, in words.
    ///
    /// # Errors
    ///
    /// What was refused.
    pub fn overlay(&self, facts: impl FnOnce() -> Facts) -> Result<(), String> {
        self.get(Question::Overlay).map_err(|refusal| {
            let explained = explain(refusal, &facts());
            let unknown = explained.cause.is_empty();
            if unknown { explained.refusal.to_string() } else { explained.cause }
        })
    }

    /// Whether trees of steps can be in the store, else what was refused. Overlays bring execution
    /// with them, whole trees have that of the file system.
    ///
    /// # Errors
    ///
    /// What was refused.
    pub fn suited(&self, overlay: bool) -> Answer {
        self.get(Question::Names)?;
        if overlay { Ok(()) } else { self.get(Question::Programs) }
    }

    /// Whether steps can be held in this way, else the first thing that it needs and was refused.
    ///
    /// # Errors
    ///
    /// What was refused.
    pub fn rung(&self, rung: Rung) -> Answer {
        Question::of(rung).iter().try_for_each(|it| self.get(*it))
    }

    /// Whether they tell which of the rungs that are wanted there is, and how trees are made there.
    fn decide(&self, wanted: Wanted) -> bool {
        let asked = |it: &Question| self.0.iter().any(|(known, _)| known == it);
        let best = wanted.rungs().find(|it| self.rung(*it).is_ok());
        let stronger = wanted.rungs().filter(|it| best.is_none_or(|best| *it <= best));
        stronger.flat_map(Question::of).chain(&Question::OF_TREES).all(asked)
    }

    /// Those of a worker on `rung` that works, and makes overlays in a store that suits it.
    pub(crate) fn of_worker(rung: Rung) -> Self {
        let found = Question::of(rung).iter().chain(&Question::OF_TREES);
        Self(found.map(|it| (*it, Ok(()))).collect())
    }
}

fn unanswered(question: Question) -> Refusal {
    let detail = "the process that was to find out did not answer".to_owned();
    Refusal { call: question.name().to_owned(), errno: 0, detail }
}

/// What the probing process is asked.
#[derive(Debug, Deserialize, Serialize)]
struct Ask {
    /// Root of the store.
    store: PathBuf,
    /// What.
    questions: Vec<Question>,
}

/// Asks `questions` now. The store is there already, and this process has it open.
///
/// # Errors
///
/// If there are no answers.
pub fn ask(store: &Path, questions: &[Question]) -> Result<Answers, WireError> {
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_read_timeout(Some(PATIENCE))?;
    // With our environment: newuidmap is looked for along `PATH`.
    let mut child = Command::new("/proc/self/exe")
        .arg("probe")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let ask = Ask { store: store.to_owned(), questions: questions.to_owned() };
    let answers =
        wire::send(ours.as_fd(), &ask, &[]).and_then(|()| wire::receive::<Answers>(ours.as_fd()));
    // It ends by itself; what is slow about that is the end of namespaces.
    drop(std::thread::Builder::new().spawn(move || drop(child.wait())));
    let missing = || io::Error::from(io::ErrorKind::UnexpectedEof);
    Ok(answers?.ok_or_else(missing)?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(refused: &[(Question, &str)]) -> Answers {
        let answer = |question| {
            let found = refused.iter().find(|it| it.0 == question);
            found.map_or(Ok(()), |(_, call)| {
                Err(Refusal { call: (*call).to_owned(), errno: libc::EPERM, detail: String::new() })
            })
        };
        Answers(Question::ALL.map(|it| (it, answer(it))).to_vec())
    }

    #[track_caller]
    fn check(refused: &[(Question, &str)], userns: &str, single: &str) {
        let answers = answers(refused);
        let call = |rung| answers.rung(rung).err().map_or_else(String::new, |it| it.call);
        assert_eq!((&*call(Rung::Userns), &*call(Rung::UsernsSingle)), (userns, single));
    }

    #[test]
    fn what_rungs_need() {
        use Question::{
            FreshProc, IdRange, Mounts, NetworkNamespace, OneId, Overlay, UserNamespace,
        };
        check(&[], "", "");
        check(&[(FreshProc, "proc"), (NetworkNamespace, "net"), (Overlay, "overlay")], "", "");
        check(&[(IdRange, "newuidmap")], "newuidmap", "");
        check(&[(OneId, "uid_map")], "", "uid_map");
        check(&[(Mounts, "mount"), (IdRange, "newuidmap")], "newuidmap", "mount");
        check(&[(UserNamespace, "unshare"), (Mounts, "mount")], "unshare", "unshare");
    }

    #[test]
    fn what_trees_need() {
        use Question::{Names, Programs};
        let suited = |refused: &[_], overlay| answers(refused).suited(overlay).is_ok();
        assert!(suited(&[], true) && suited(&[], false));
        assert!(suited(&[(Programs, "x")], true) && !suited(&[(Programs, "x")], false));
        assert!(!suited(&[(Names, "x")], true));
    }

    #[test]
    fn what_decides() {
        use Question::{IdRange, Namespaces};
        let decides = |answers: &Answers, wanted| answers.decide(wanted);
        let (auto, single) = (Wanted::Auto, Wanted::Only(Rung::UsernsSingle));
        let of_worker = Answers::of_worker(Rung::Userns);
        assert!(decides(&of_worker, auto) && !decides(&of_worker, single));
        assert!(!decides(&Answers::of_worker(Rung::UsernsSingle), auto));
        assert!(decides(&Answers::of_worker(Rung::UsernsSingle), single));
        // With a refusal the rungs below count, too.
        let refused = answers(&[(IdRange, "x"), (Namespaces, "x")]);
        assert!(decides(&refused, auto) && decides(&refused, single));
        let asked = |it: &(Question, Answer)| it.0 != Question::Chroot;
        let fewer = Answers(refused.0.into_iter().filter(asked).collect());
        assert!(!decides(&fewer, auto) && decides(&fewer, single));
        assert!(!decides(&Answers::default(), auto));
    }

    #[test]
    fn a_question_without_an_answer_is_refused() {
        assert!(Answers::default().rung(Rung::UsernsSingle).is_err());
    }
}
