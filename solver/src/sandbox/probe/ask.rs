//! `rbuild probe`: asks all questions at once, and tells the answers.

use std::fs;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;

use rbuild_store::local::Store;
use rustix::fs::{Gid, Mode, StatVfsMountFlags, Uid};
use rustix::mount::{MountFlags, MountPropagationFlags};
use rustix::process::Signal;
use rustix::thread::UnshareFlags;
use serde::{Deserialize, Serialize};

use super::{Answer, Answers, Ask, Question, unanswered};
use crate::sandbox::fuse::{self, Helper};
use crate::sandbox::give_ids::{own_ids, write_maps, write_single};
use crate::sandbox::network::{self, Backend};
use crate::sandbox::refusal::Refusal;
use crate::sandbox::sys::{self, Fork, Instruction, Listener};
use crate::sandbox::{cgroup, chroot, kernel, overlay};
use crate::worker::wire::{self, WireError};

/// From a child.
#[derive(Debug, Deserialize, Serialize)]
enum Say {
    /// It is in a user namespace and wants a range of ids.
    Unshared,
    /// It is done.
    Answer(Answer),
}

/// A child that works on a question.
struct Child {
    question: Question,
    pid: i32,
    socket: UnixStream,
}

/// The hidden command.
pub fn main() -> ExitCode {
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        // Nobody is told: the build goes on without answers.
        Err(_) => ExitCode::FAILURE,
    }
}

fn start() -> Result<(), WireError> {
    let socket = sys::take_stdin()?;
    let Some((ask, _)) = wire::receive::<Ask>(socket.as_fd())? else {
        return Ok(());
    };
    let store = Store::attach(ask.store).map_err(io::Error::other)?;
    let work = store.temp().dir().map_err(io::Error::other)?;
    let mut children = Vec::new();
    for question in ask.questions {
        children.push(Child::start(question, &store.layout().mnt(), &work)?);
    }
    let answers = children.iter().map(|it| (it.question, it.answer())).collect();
    wire::send(socket.as_fd(), &Answers(answers), &[])?;
    children.into_iter().for_each(Child::end);
    Ok(())
}

impl Child {
    fn start(question: Question, mount_point: &Path, work: &Path) -> io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        match sys::fork_single_threaded()? {
            Fork::Parent(pid) => Ok(Self { question, pid, socket: ours }),
            Fork::Child => {
                drop(ours);
                // If the parent is gone nobody reads the answer, and this ends all the same.
                let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
                let place = Place { mount_point, work, socket: &theirs };
                place.tell(place.answer(question));
                // Nothing of the parent's may be dropped here: its files would be removed.
                sys::end_now()
            }
        }
    }

    fn answer(&self) -> Answer {
        self.converse().unwrap_or_else(|_| Err(unanswered(self.question)))
    }

    fn end(self) {
        // It may have ended by itself.
        if let Some(pid) = rustix::process::Pid::from_raw(self.pid) {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
        drop(sys::wait_for(self.pid));
    }

    fn converse(&self) -> Result<Answer, WireError> {
        let lost = || WireError::Io(io::Error::from(io::ErrorKind::UnexpectedEof));
        let pid = u32::try_from(self.pid).map_err(|_| lost())?;
        loop {
            match wire::receive::<Say>(self.socket.as_fd())?.ok_or_else(lost)?.0 {
                Say::Unshared => {
                    if let Err(refusal) = write_maps(pid) {
                        return Ok(Err(refusal));
                    }
                    wire::send(self.socket.as_fd(), &(), &[])?;
                }
                Say::Answer(answer) => return Ok(answer),
            }
        }
    }
}

fn refused<E: Into<io::Error>>(call: &'static str) -> impl Fn(E) -> Refusal {
    move |error| Refusal::new(call, &error.into())
}

/// Where a child works.
struct Place<'a> {
    /// An empty directory to mount on.
    mount_point: &'a Path,
    /// A directory of unfinished work in the store.
    work: &'a Path,
    /// To the parent.
    socket: &'a UnixStream,
}

impl Place<'_> {
    fn tell(&self, answer: Answer) {
        drop(wire::send(self.socket.as_fd(), &Say::Answer(answer), &[]));
    }

    fn answer(&self, question: Question) -> Answer {
        match question {
            Question::UserNamespace => new_user_namespace(),
            Question::OneId => one_id(),
            Question::IdRange => self.range(),
            Question::Mounts => self.mounted(),
            Question::Namespaces => namespaces(),
            Question::NetworkNamespace => {
                one_id()?;
                sys::unshare(UnshareFlags::NEWNET).map_err(refused("unshare(CLONE_NEWNET)"))
            }
            Question::PivotRoot => self.pivot(),
            Question::FreshProc => self.fresh_proc(),
            Question::Listener => listener(),
            Question::Chroot => chroot::allowed_in(self.work),
            Question::Overlay => self.overlay(),
            Question::Reflink => self.reflink(),
            Question::Attributes => self.attributes(),
            Question::Names => names(self.work),
            Question::Programs => programs(self.work),
            Question::Fuse => opens("/dev/fuse"),
            Question::FuseOverlayfs => self.overlay_by_helper(),
            Question::Tun => opens("/dev/net/tun"),
            Question::Cgroup => cgroup::works().map_err(|error| {
                let detail = crate::causes::chain(&error);
                Refusal { call: "a cgroup".to_owned(), errno: 0, detail }
            }),
            Question::Embedded => network(Backend::Embedded),
            Question::Pasta => network(Backend::Pasta),
            Question::Slirp4netns => network(Backend::Slirp4netns),
        }
    }

    fn range(&self) -> Answer {
        new_user_namespace()?;
        let lost = |_| unanswered(Question::IdRange);
        wire::send(self.socket.as_fd(), &Say::Unshared, &[]).map_err(lost)?;
        wire::receive::<()>(self.socket.as_fd()).map(drop).map_err(lost)?;
        let root = nix::unistd::Uid::from_raw(0);
        nix::unistd::setresuid(root, root, root).map_err(refused("setresuid(0)"))?;
        owners(self.work)
    }

    fn mounted(&self) -> Answer {
        mount_namespace()?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        rustix::mount::mount("tmpfs", self.mount_point, "tmpfs", flags, c"mode=0755")
            .map_err(refused("mount(2) of a tmpfs"))
    }

    fn pivot(&self) -> Answer {
        self.mounted()?;
        rustix::process::chdir(self.mount_point).map_err(refused("chdir(2)"))?;
        rustix::process::pivot_root(".", ".").map_err(refused("pivot_root(2)"))
    }

    /// The first process of a new pid namespace is the one to ask: its `/proc` it would be.
    fn fresh_proc(&self) -> Answer {
        mount_namespace()?;
        sys::unshare(UnshareFlags::NEWPID).map_err(refused("unshare(CLONE_NEWPID)"))?;
        match sys::fork_single_threaded().map_err(refused("fork(2)"))? {
            Fork::Child => {
                self.tell(kernel::fresh_proc().map_err(|error| refusal_of(&error)));
                sys::end_now()
            }
            Fork::Parent(pid) => {
                drop(sys::wait_for(pid));
                // The child has told already; the first answer counts.
                Err(unanswered(Question::FreshProc))
            }
        }
    }

    fn overlay(&self) -> Answer {
        mount_namespace()?;
        rustix::process::umask(Mode::from_raw_mode(0o022));
        let (works, tried) = overlay::works_in(&self.work.join("overlay"));
        // Its mount goes with this process, its directory with the parent's.
        std::mem::forget(tried);
        works.map_err(|detail| {
            let call = "an overlay in the store".to_owned();
            Refusal { call, errno: 0, detail }
        })
    }

    fn overlay_by_helper(&self) -> Answer {
        mount_namespace()?;
        rustix::process::umask(Mode::from_raw_mode(0o022));
        let refused = |detail| Err(Refusal { call: fuse::CALL.to_owned(), errno: 0, detail });
        match fuse::works_in(&self.work.join("fuse")) {
            Ok(Helper { flaw: None, .. }) => Ok(()),
            Ok(Helper { flaw: Some(flaw), .. }) => refused(flaw.to_owned()),
            Err(why) => refused(why),
        }
    }

    fn reflink(&self) -> Answer {
        let file = |name| {
            let options = fs::File::options().create(true).truncate(true).write(true).clone();
            options.clone().read(true).open(self.work.join(name)).map_err(refused("open(2)"))
        };
        let (from, to) = (file("from")?, file("to")?);
        rustix::io::write(&from, &[1; 4096]).map_err(refused("write(2)"))?;
        rustix::fs::ioctl_ficlone(&to, &from).map_err(refused("ioctl(FICLONE)"))
    }

    fn attributes(&self) -> Answer {
        let path = self.work.join("attributes");
        fs::write(&path, "").map_err(refused("write(2)"))?;
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(&path, "user.rbuild", b"x", flags)
            .map_err(refused("setxattr(user.rbuild)"))
    }
}

fn new_user_namespace() -> Answer {
    sys::unshare(UnshareFlags::NEWUSER).map_err(refused("unshare(CLONE_NEWUSER)"))
}

/// Enters a user namespace as its root and only id.
fn one_id() -> Answer {
    let ids = own_ids();
    new_user_namespace()?;
    write_single("self", ids).map(drop)
}

fn mount_namespace() -> Answer {
    one_id()?;
    sys::unshare(UnshareFlags::NEWNS).map_err(refused("unshare(CLONE_NEWNS)"))?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private).map_err(refused("mount(MS_PRIVATE)"))
}

/// Whether files in `work` can belong to others: not so where a server decides about owners.
pub(crate) fn owners(work: &Path) -> Answer {
    let call = "chown(2) in the store";
    let path = work.join("owned");
    fs::write(&path, "").map_err(refused("write(2)"))?;
    let (user, group) = (Uid::from_raw(1), Gid::from_raw(1));
    rustix::fs::chown(&path, Some(user), Some(group)).map_err(refused(call))?;
    let found = rustix::fs::stat(&path).map_err(refused(call))?;
    if (found.st_uid, found.st_gid) == (1, 1) {
        return Ok(());
    }
    let detail = "the file has another owner than it was given".to_owned();
    Err(Refusal { call: call.to_owned(), errno: 0, detail })
}

/// Whether trees of steps can be in `work`.
pub(crate) fn suits(work: &Path) -> bool {
    names(work).is_ok() && programs(work).is_ok()
}

fn names(work: &Path) -> Answer {
    let path = |name: &str| work.join(name);
    rustix::fs::symlink("target", path("link")).map_err(refused("symlink(2) in the store"))?;
    fs::write(path("case"), "").map_err(refused("write(2)"))?;
    if path("CASE").exists() {
        let detail = "names that differ in case are one".to_owned();
        return Err(Refusal { call: "names in the store".to_owned(), errno: 0, detail });
    }
    Ok(())
}

fn programs(work: &Path) -> Answer {
    let found = rustix::fs::statvfs(work).map_err(refused("statvfs(2) of the store"))?;
    if found.f_flag.contains(StatVfsMountFlags::NOEXEC) {
        let detail = "its file system is mounted noexec".to_owned();
        return Err(Refusal { call: "programs in the store".to_owned(), errno: 0, detail });
    }
    Ok(())
}

/// Asks for what a step's process will do, in a child: in the caller it could not be undone. The
/// caller has one thread, and is root of a user namespace.
pub(crate) fn namespaces_apart() -> Answer {
    let io = |error: io::Error| Refusal::new("fork(2)", &error);
    let (ours, theirs) = UnixStream::pair().map_err(io)?;
    match sys::fork_single_threaded().map_err(io)? {
        Fork::Child => {
            // If nobody reads it, nobody wants to know.
            drop(wire::send(theirs.as_fd(), &step_namespaces(), &[]));
            sys::end_now()
        }
        Fork::Parent(pid) => {
            drop(theirs);
            let answer = wire::receive::<Answer>(ours.as_fd());
            drop(sys::wait_for(pid));
            let answer = answer.ok().flatten().map(|it| it.0);
            answer.unwrap_or_else(|| Err(unanswered(Question::Namespaces)))
        }
    }
}

fn namespaces() -> Answer {
    one_id()?;
    step_namespaces()
}

fn step_namespaces() -> Answer {
    sys::unshare(UnshareFlags::NEWPID).map_err(refused("unshare(CLONE_NEWPID)"))?;
    sys::unshare(UnshareFlags::NEWIPC).map_err(refused("unshare(CLONE_NEWIPC)"))?;
    sys::unshare(UnshareFlags::NEWUTS).map_err(refused("unshare(CLONE_NEWUTS)"))
}

fn listener() -> Answer {
    rustix::thread::set_no_new_privs(true).map_err(refused("prctl(PR_SET_NO_NEW_PRIVS)"))?;
    // One that lets every call pass: who listens is the question, not to what.
    let code = u16::try_from(libc::BPF_RET | libc::BPF_K).unwrap_or_default();
    let pass = Instruction { code, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW };
    sys::install_filter(&[pass], Listener::New)
        .map_err(refused("seccomp(SECCOMP_FILTER_FLAG_NEW_LISTENER)"))
        .map(drop)
}

fn opens(device: &'static str) -> Answer {
    let open = fs::File::options().read(true).write(true).open(device);
    open.map(drop).map_err(|error| Refusal::new(format!("opening {device}"), &error))
}

fn network(backend: Backend) -> Answer {
    one_id()?;
    let options = network::Options { backend, ..network::Options::default() };
    network::Networks::new(options).works().map_err(|detail| Refusal {
        call: "a network".to_owned(),
        errno: 0,
        detail,
    })
}

/// The number inside of a kernel error, and its words.
fn refusal_of(error: &crate::sandbox::apply::KernelError) -> Refusal {
    let source = std::error::Error::source(error).and_then(|it| it.downcast_ref::<io::Error>());
    let errno = source.and_then(io::Error::raw_os_error).unwrap_or(0);
    Refusal { call: "mount(2) of proc".to_owned(), errno, detail: String::new() }
}
