//! A store with one image in it, and a worker that runs steps on it.

#![allow(dead_code, reason = "each test binary uses some of it")]

use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rbuild_solver::sandbox::network::Options;
use rbuild_solver::sandbox::rung::{Rung, Wanted};
use rbuild_solver::snapshot::{Driver, LayerStore, MapKey, Ownership};
use rbuild_solver::worker::client::{Exited, Worker};
use rbuild_solver::worker::launch::{Setup, Snapshotter};
use rbuild_solver::worker::proto::{
    ExecMount, ExecRequest, Failure, LayerId, MountSource, Network,
};
use rbuild_store::digest::{DiffId, Digest};
use rbuild_store::entry::{Entry, Kind};
use tar::EntryType::{Directory, Regular, Symlink};

pub(crate) struct Space {
    pub(crate) worker: Worker,
    pub(crate) base: LayerId,
    pub(crate) rung: Rung,
    path: PathBuf,
    _dir: Option<tempfile::TempDir>,
    next: AtomicU64,
}

/// What a step printed, and how it ended.
pub(crate) struct Ran {
    pub(crate) out: String,
    pub(crate) exited: Exited,
}

pub(crate) fn mount(dest: &str, source: MountSource) -> ExecMount {
    ExecMount { dest: dest.to_owned(), readonly: false, source }
}

/// A cache directory with this name.
pub(crate) fn cache(name: &str) -> MountSource {
    let (base, selector) = (Vec::new(), String::new());
    let dir = PathBuf::from("cache-mounts").join(name);
    MountSource::Cache { dir, base, selector, mode: 0o711, uid: 123, gid: 456 }
}

impl Space {
    pub(crate) async fn new(snapshotter: Snapshotter, rung: Rung) -> Result<Self, String> {
        Self::with_network(snapshotter, rung, Options::default()).await
    }

    pub(crate) async fn with_network(
        snapshotter: Snapshotter,
        rung: Rung,
        network: Options,
    ) -> Result<Self, String> {
        let found = ["/bin/busybox", "/usr/bin/busybox"].map(Path::new);
        let busybox = found.iter().find(|it| it.exists());
        let busybox = busybox.ok_or("no busybox on this machine (Debian: busybox-static)")?;
        let text = |error: std::io::Error| error.to_string();
        let dir = tempfile::tempdir().map_err(text)?;
        drop(rbuild_store::local::Store::open(dir.path()).map_err(|error| error.to_string())?);
        let (store, isolation) = (dir.path().to_owned(), Wanted::Only(rung));
        let worker = Worker::with(Setup { store, snapshotter, network, isolation, overlay: None });
        worker.isolation().await.map_err(|it| it.text)?;
        let tar = image(busybox).map_err(text)?;
        let diff_id = DiffId(Digest::of(&tar));
        let base = LayerId(diff_id.0.hex().into());
        let (reader, mut writer) = std::io::pipe().map_err(text)?;
        let writing = std::thread::spawn(move || writer.write_all(&tar));
        worker.unpack(base.clone(), reader.into(), diff_id).await.map_err(|it| it.text)?;
        writing.join().map_err(|_| "a panic")?.map_err(text)?;
        let (path, next) = (dir.path().to_owned(), AtomicU64::new(1));
        Ok(Self { worker, base, rung, path, _dir: Some(dir), next })
    }

    /// The space of another process, with a worker of one's own.
    pub(crate) fn again(store: &Path, base: &str, rung: Rung) -> Self {
        let worker = Worker::with(Setup {
            store: store.to_owned(),
            snapshotter: Snapshotter::Auto,
            network: Options::default(),
            isolation: Wanted::Only(rung),
            overlay: None,
        });
        let (path, next) = (store.to_owned(), AtomicU64::new(1 << 32));
        Self { worker, base: LayerId(base.into()), rung, path, _dir: None, next }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Files of subordinate ids cannot be removed from outside.
    pub(crate) async fn close(&self) {
        let dirs = ["layers", "trees", "cache-mounts"].map(Into::into).to_vec();
        self.worker.remove(dirs).await.expect("removes");
    }

    pub(crate) fn request(&self, script: &str) -> ExecRequest {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let root = MountSource::Tree {
            chain: vec![self.base.clone()],
            selector: String::new(),
            commit: Some(LayerId(format!("{number:032x}").into())),
        };
        ExecRequest {
            args: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
            env: vec!["PATH=/bin:/sbin".to_owned()],
            cwd: "/".to_owned(),
            user: String::new(),
            hostname: "buildkitsandbox".to_owned(),
            extra_hosts: Vec::new(),
            resolv_conf: None,
            resources: rbuild_solver::sandbox::resources::Resources::default(),
            ulimits: Vec::new(),
            shm_size: 0,
            network: Network::Default,
            insecure: false,
            another: false,
            mounts: vec![mount("/", root)],
            remove_stub_parents: true,
            stdout: 0,
            stderr: 1,
        }
    }

    pub(crate) async fn ask_with(
        &self,
        request: ExecRequest,
        more: Vec<OwnedFd>,
    ) -> Result<Ran, Failure> {
        let (mut reader, writer) = std::io::pipe().expect("a pipe");
        let mut fds = vec![writer.try_clone().expect("a descriptor").into(), writer.into()];
        fds.extend(more);
        let reading = tokio::task::spawn_blocking(move || {
            let mut out = String::new();
            reader.read_to_string(&mut out).map(|_| out)
        });
        let exited = self.worker.exec(request, fds).await?.wait().await?;
        let out = reading.await.expect("no panic").expect("text");
        Ok(Ran { out, exited })
    }

    pub(crate) async fn ask(&self, request: ExecRequest) -> Result<Ran, String> {
        self.ask_with(request, Vec::new()).await.map_err(|it| it.text)
    }

    pub(crate) async fn run(&self, script: &str) -> Result<Ran, String> {
        self.ask(self.request(script)).await
    }

    pub(crate) async fn refused(&self, request: ExecRequest) -> Result<Failure, String> {
        match self.ask_with(request, Vec::new()).await {
            Ok(ran) => Err(format!("it ran: {}", ran.out)),
            Err(failure) => Ok(failure),
        }
    }

    /// Owners and modes of what a step left.
    pub(crate) fn owners(&self, ran: &Ran) -> Result<String, String> {
        let plain = (MapKey::none(), Ownership::Recorded, Driver::Plain);
        let layers = LayerStore::open(self.path(), plain.0, plain.1, plain.2);
        let layers = layers.map_err(|error| error.to_string())?;
        let committed = ran.exited.layers.first().ok_or("nothing was committed")?;
        let listing = layers.listing(&committed.layer).map_err(|error| error.to_string())?;
        let line = |entry: &Entry| {
            let kind = match entry.kind {
                Kind::File { size, .. } => format!("file {size}"),
                Kind::Dir { .. } => "dir".to_owned(),
                Kind::Symlink { .. } => "link".to_owned(),
                Kind::Hardlink { .. } => "hard link".to_owned(),
                Kind::Char { major, minor } => format!("char {major} {minor}"),
                Kind::Block { major, minor } => format!("block {major} {minor}"),
                Kind::Fifo => "fifo".to_owned(),
                Kind::Whiteout => "gone".to_owned(),
            };
            let path = String::from_utf8_lossy(&entry.path).into_owned();
            format!("{path} {}:{} {:o} {kind}\n", entry.uid, entry.gid, entry.mode)
        };
        Ok(listing.entries().iter().map(line).collect())
    }

    /// Paths of the layer that a step left.
    pub(crate) fn left(&self, ran: &Ran) -> Result<String, String> {
        let plain = (MapKey::none(), Ownership::Recorded, Driver::Plain);
        let layers = LayerStore::open(self.path(), plain.0, plain.1, plain.2);
        let layers = layers.map_err(|error| error.to_string())?;
        let committed = ran.exited.layers.first().ok_or("nothing was committed")?;
        let listing = layers.listing(&committed.layer).map_err(|error| error.to_string())?;
        let path = |path: &[u8]| String::from_utf8_lossy(path).into_owned();
        let paths: Vec<_> = listing.entries().iter().map(|it| path(&it.path)).collect();
        Ok(paths.join(" ").trim().to_owned())
    }
}

/// Whether a new `/proc` can be mounted here: not where parts of the old one are hidden.
pub(crate) fn fresh_proc() -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    !mounts.lines().any(|it| it.split(' ').nth(1).is_some_and(|at| at.starts_with("/proc/")))
}

/// A root with busybox, some users, and the directories that every step mounts on.
fn image(busybox: &Path) -> std::io::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut add = |path: &str, kind, mode, link: Option<&str>, data: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(data.len() as u64);
        header.set_mtime(1_000_000_000);
        header.set_uid(0);
        header.set_gid(0);
        match link {
            Some(link) => tar.append_link(&mut header, path, link),
            None => tar.append_data(&mut header, path, data),
        }
    };
    for dir in ["bin/", "etc/", "proc/", "sys/", "dev/", "home/", "home/app/"] {
        add(dir, Directory, 0o755, None, b"")?;
    }
    add("tmp/", Directory, 0o1777, None, b"")?;
    add("bin/busybox", Regular, 0o755, None, &std::fs::read(busybox)?)?;
    let applets = "sh cat ls id env echo grep chown mount unshare sleep hostname readlink stat head \
                   touch rm mkdir wc cut true kill pwd ip nc sort find ln chmod dd cp mv mknod mkfifo su \
                   setpriv chroot test tar";
    for applet in applets.split_whitespace() {
        add(&format!("bin/{applet}"), Symlink, 0o777, Some("busybox"), b"")?;
    }
    let passwd = b"root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001:App:/home/app:/bin/sh\n";
    add("etc/passwd", Regular, 0o644, None, passwd)?;
    add("etc/group", Regular, 0o644, None, b"root:x:0:\nwheel:x:10:root,app\napp:x:1001:\n")?;
    tar.into_inner()
}
