//! The build process's handle on the worker: asynchronous, started on first use.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, mpsc};
use std::time::Duration;

use rbuild_store::digest::{DiffId, Digest};
use tokio::sync::{OnceCell, oneshot};

use super::contents::ContentList;
pub use super::execution::{Execution, Exited};
pub use super::isolation::Isolation;
use super::isolation::{explained, foresee};
use super::launch::{self, LaunchError, Launched, Setup, Snapshotter};
use super::proto::{
    Answer, Chain, Compression, ExecRequest, Failure, FailureKind, LayerId, Request, Root, Sealed,
};
use super::serve::{self, Numbered};
use super::wire;
use crate::sandbox::host::Explained;
use crate::sandbox::network;
use crate::sandbox::probe::{self, Answers};
use crate::sandbox::rung::{Rung, Wanted};
use crate::snapshot::{Driver, LayerStore, MapKey, Ownership};

/// A worker, or where no namespace can be had, an engine in this process that does everything but
/// run steps. Cheap to clone; all clones share one worker.
#[derive(Clone, Debug)]
pub struct Worker(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    setup: Setup,
    known: OnceLock<Option<Answers>>,
    /// Whether it was started before anybody needed it.
    ahead: AtomicBool,
    engine: OnceCell<Engine>,
    next: AtomicU64,
    /// Disconnected when the worker has closed its end, having removed what it had unfinished.
    ended: Mutex<Option<mpsc::Receiver<()>>>,
}

/// How long a worker may take to tidy up; the next build removes what it has not managed.
const TIDYING: Duration = Duration::from_secs(1);

impl Drop for Inner {
    fn drop(&mut self) {
        // The last asker: this ends the worker.
        drop(self.engine.take());
        let ended = self.ended.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(ended) = ended.take() {
            // Either way it is over.
            let _ = ended.recv_timeout(TIDYING);
        }
    }
}

#[derive(Debug)]
enum Engine {
    Process { requests: mpsc::Sender<Outgoing>, waiting: Waiting, isolation: Isolation },
    Here { layers: Arc<LayerStore>, refused: Vec<(Rung, Explained)> },
}

pub(super) type Waiting = Arc<Mutex<Option<BTreeMap<u64, oneshot::Sender<Answer>>>>>;

pub(super) struct Outgoing {
    pub(super) message: Numbered<Request>,
    pub(super) fds: Vec<OwnedFd>,
}

impl Worker {
    /// A worker for the store at `store` (absolute, there already). Nothing is started.
    pub fn new(store: impl Into<PathBuf>, snapshotter: Snapshotter) -> Self {
        Self::with_network(store, snapshotter, network::Options::default())
    }

    /// As [`Self::new`], with what is to be known about the network of steps.
    pub fn with_network(
        store: impl Into<PathBuf>,
        snapshotter: Snapshotter,
        network: network::Options,
    ) -> Self {
        let (store, isolation, overlay) = (store.into(), Wanted::Auto, None);
        Self::with(Setup { store, snapshotter, network, isolation, overlay })
    }

    /// A worker that is set up like this. A rung that is wanted and that the host refuses is an
    /// error of whatever is asked first.
    pub fn with(setup: Setup) -> Self {
        let (engine, next, ended) = (OnceCell::new(), AtomicU64::new(1), Mutex::default());
        let (known, ahead) = (OnceLock::new(), AtomicBool::new(false));
        Self(Arc::new(Inner { setup, known, ahead, engine, next, ended }))
    }

    /// Starts the worker, which is sure to be needed, within the caller's runtime. It finds out what
    /// the place allows.
    pub fn start_ahead(&self) {
        self.0.ahead.store(true, Ordering::Relaxed);
        let worker = self.clone();
        // Who needs it hears what is wrong.
        tokio::spawn(async move { drop(worker.engine().await) });
    }

    /// Which isolation was asked for.
    pub fn wanted(&self) -> Wanted {
        self.0.setup.isolation
    }

    /// What the place allows, as far as that is known or quickly asked: looked up once. May block.
    pub fn known(&self) -> Option<&Answers> {
        let Setup { store, isolation, .. } = &self.0.setup;
        self.0.known.get_or_init(|| probe::known(store, *isolation)).as_ref()
    }

    /// How steps are held. Starts the worker only where that is not known without.
    ///
    /// # Errors
    ///
    /// If the worker cannot be started for a reason other than a missing permission.
    pub async fn isolation(&self) -> Result<Isolation, Failure> {
        let ahead = self.0.ahead.load(Ordering::Relaxed);
        if ahead {
            // Then it is known.
            self.engine().await?;
        }
        if ahead || self.0.engine.get().is_none() {
            let worker = self.clone();
            let foresee = move || foresee(&worker.0.setup, worker.known()?);
            if let Ok(Some(isolation)) = tokio::task::spawn_blocking(foresee).await {
                return Ok(isolation);
            }
        }
        let isolation = match self.engine().await? {
            Engine::Process { isolation, .. } => isolation.clone(),
            Engine::Here { refused, .. } => return Ok(Isolation::none(refused.clone())),
        };
        let (worker, found) = (self.clone(), isolation.clone());
        let in_store = move || Some(found.in_store(&worker.0.setup, worker.known()?));
        let in_store = tokio::task::spawn_blocking(in_store).await;
        Ok(in_store.ok().flatten().unwrap_or(isolation))
    }

    /// Unpacks a layer from a stream of blob bytes; yields the bytes of its files.
    ///
    /// # Errors
    ///
    /// If the stream is not what `diff_id` promises, or the disk refuses.
    pub async fn unpack(
        &self,
        layer: LayerId,
        stream: OwnedFd,
        diff_id: DiffId,
    ) -> Result<u64, Failure> {
        let request = Request::Unpack { layer, stream: 0, diff_id, below: Chain::new() };
        let answer = self.request(request, vec![stream]).await?;
        let Answer::Unpacked { size } = answer else {
            return Err(unexpected(&answer));
        };
        Ok(size)
    }

    /// Puts a planned layer on disk. `Root::Fd` numbers index `fds`.
    ///
    /// # Errors
    ///
    /// If a content cannot be read, or the disk refuses.
    pub async fn materialise(
        &self,
        layer: LayerId,
        roots: Vec<Root>,
        contents: ContentList,
        fds: Vec<OwnedFd>,
    ) -> Result<(), Failure> {
        done(&self.request(Request::Materialise { layer, roots, contents }, fds).await?)
    }

    /// Writes a layer as a blob. `Root::Fd` numbers index `fds`.
    ///
    /// # Errors
    ///
    /// As [`Self::materialise`].
    pub async fn seal(
        &self,
        layer: LayerId,
        planned: (Vec<Root>, ContentList),
        compression: Compression,
        clamp_mtime: Option<i64>,
        fds: Vec<OwnedFd>,
    ) -> Result<Sealed, Failure> {
        let (roots, contents) = planned;
        let request =
            Request::Seal { layer, roots, contents, compression, clamp_mtime, blob: None };
        let answer = self.request(request, fds).await?;
        let Answer::Sealed(sealed) = answer else {
            return Err(unexpected(&answer));
        };
        Ok(sealed)
    }

    /// Digests of files' contents, in the order asked.
    ///
    /// # Errors
    ///
    /// If one is not a regular file of its layer.
    pub async fn hash_files(&self, files: Vec<(LayerId, Vec<u8>)>) -> Result<Vec<Digest>, Failure> {
        let answer = self.request(Request::HashFiles { files }, Vec::new()).await?;
        let Answer::Hashes(hashes) = answer else {
            return Err(unexpected(&answer));
        };
        Ok(hashes)
    }

    /// The bytes of one file.
    ///
    /// # Errors
    ///
    /// If it is not a regular file of the layer, or larger than `limit`.
    pub async fn read_file(
        &self,
        layer: LayerId,
        path: Vec<u8>,
        limit: u64,
    ) -> Result<Vec<u8>, Failure> {
        let answer = self.request(Request::ReadFile { layer, path, limit }, Vec::new()).await?;
        let Answer::Bytes(bytes) = answer else {
            return Err(unexpected(&answer));
        };
        Ok(bytes)
    }

    /// Writes a merged tree below the open directory `dest`; with `mtime`, everything is from that
    /// second. Returns the device nodes that the host refused, in words.
    ///
    /// # Errors
    ///
    /// If the disk refuses.
    pub async fn export_dir(
        &self,
        chain: Chain,
        dest: OwnedFd,
        mtime: Option<i64>,
    ) -> Result<Vec<String>, Failure> {
        let answer = self.request(Request::ExportDir { chain, dest: 0, mtime }, vec![dest]).await?;
        let Answer::Exported { left_out } = answer else { return Err(unexpected(&answer)) };
        Ok(left_out)
    }

    /// Writes merged trees as a tar to `dest`, each in its directory.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub async fn export_tar(
        &self,
        trees: Vec<(String, Chain)>,
        dest: OwnedFd,
        mtime: Option<i64>,
    ) -> Result<(), Failure> {
        done(&self.request(Request::ExportTar { trees, dest: 0, mtime }, vec![dest]).await?)
    }

    /// Removes paths below the store's root, whoever owns them.
    ///
    /// # Errors
    ///
    /// If one cannot be removed.
    pub async fn remove(&self, paths: Vec<PathBuf>) -> Result<(), Failure> {
        done(&self.request(Request::Remove { paths }, Vec::new()).await?)
    }

    /// Starts a step. The descriptor numbers of `request` index `fds`.
    ///
    /// # Errors
    ///
    /// If nothing can run here; the text says why and what would help.
    pub async fn exec(
        &self,
        request: ExecRequest,
        fds: Vec<OwnedFd>,
    ) -> Result<Execution, Failure> {
        match self.engine().await? {
            Engine::Process { requests, waiting, .. } => {
                let number = self.next();
                let body = Request::Exec(Box::new(request));
                let answer = send(requests, waiting, Numbered { number, body }, fds)?;
                Ok(Execution { number, requests: Some(requests.clone()), answer })
            }
            Engine::Here { refused, .. } => {
                let why = refused.first().map(|it| it.1.to_string()).unwrap_or_default();
                let text = format!("RUN cannot be contained here: {why}");
                Err(Failure { kind: FailureKind::Host, text })
            }
        }
    }

    /// Asks anything but `Exec`; see [`Self::exec`].
    ///
    /// # Errors
    ///
    /// As the worker says.
    pub async fn request(&self, request: Request, fds: Vec<OwnedFd>) -> Result<Answer, Failure> {
        let answer = match self.engine().await? {
            Engine::Process { requests, waiting, .. } => {
                let message = Numbered { number: self.next(), body: request };
                send(requests, waiting, message, fds)?.await.map_err(|_| lost())?
            }
            Engine::Here { layers, .. } => {
                let layers = Arc::clone(layers);
                let work = move || serve::answer(&layers, request, &fds);
                let result = tokio::task::spawn_blocking(work).await;
                result.map_err(|error| bug(error.to_string()))?.unwrap_or_else(Answer::Failed)
            }
        };
        if let Answer::Failed(failure) = answer { Err(failure) } else { Ok(answer) }
    }

    fn next(&self) -> u64 {
        self.0.next.fetch_add(1, Ordering::Relaxed)
    }

    async fn engine(&self) -> Result<&Engine, Failure> {
        self.0.engine.get_or_try_init(|| self.0.start()).await
    }
}

fn send(
    requests: &mpsc::Sender<Outgoing>,
    waiting: &Waiting,
    message: Numbered<Request>,
    fds: Vec<OwnedFd>,
) -> Result<oneshot::Receiver<Answer>, Failure> {
    let (sender, receiver) = oneshot::channel();
    match waiting.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
        Some(waiting) => waiting.insert(message.number, sender),
        None => return Err(lost()),
    };
    requests.send(Outgoing { message, fds }).map_err(|_| lost())?;
    Ok(receiver)
}

impl Inner {
    /// Starts the worker, or where the host does not allow one, an engine without steps.
    async fn start(&self) -> Result<Engine, Failure> {
        let (end, ended) = mpsc::channel();
        let (engine, found) = start(self.setup.clone(), end).await?;
        if let Some(found) = found {
            // What was known before led here: it says the same.
            drop(self.known.set(Some(found)));
        }
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(ended);
        Ok(engine)
    }
}

async fn start(setup: Setup, end: mpsc::Sender<()>) -> Result<(Engine, Option<Answers>), Failure> {
    let (tell, told) = oneshot::channel();
    let given = setup.clone();
    // A thread of its own: the worker dies when the thread that started it does.
    let work = move || host_worker(&given, tell, end);
    std::thread::Builder::new()
        .name("worker".to_owned())
        .spawn(work)
        .map_err(|error| bug(error.to_string()))?;
    match told.await.map_err(|_| lost())? {
        Ok(started) => Ok(started),
        Err(LaunchError::Refused(refused)) => {
            let refused = explained(refused);
            if let (Wanted::Only(rung), Some((_, why))) = (setup.isolation, refused.first()) {
                let text = format!("--isolation={} is not possible here: {why}", rung.name());
                return Err(Failure { kind: FailureKind::Host, text });
            }
            // Also as root: what is recorded here must not be taken for real owners by a worker.
            let key = MapKey::none();
            let layers = LayerStore::open(&setup.store, key, Ownership::Recorded, Driver::Plain);
            let layers = Arc::new(layers.map_err(|error| error.to_failure())?);
            Ok((Engine::Here { layers, refused }, None))
        }
        Err(error @ (LaunchError::Spawn(_) | LaunchError::Lost(_))) => {
            let text = crate::causes::chain(&error);
            Err(Failure { kind: FailureKind::Host, text })
        }
    }
}

/// Starts the worker and stays until it has ended.
fn host_worker(
    setup: &Setup,
    tell: oneshot::Sender<Result<(Engine, Option<Answers>), LaunchError>>,
    end: mpsc::Sender<()>,
) {
    crate::sandbox::limits::raise_open_files();
    let launched = match launch::launch(setup) {
        Ok(launched) => launched,
        Err(error) => {
            drop(tell.send(Err(error)));
            return;
        }
    };
    let isolation = Isolation::of(&launched);
    let Launched { mut child, socket, found, .. } = launched;
    let waiting: Waiting = Arc::new(Mutex::new(Some(BTreeMap::new())));
    let (requests, outgoing) = mpsc::channel();
    let engine = Engine::Process { requests, waiting: Arc::clone(&waiting), isolation };
    if let Ok(writer) = socket.try_clone() {
        let written = std::thread::Builder::new()
            .name("worker-requests".to_owned())
            .spawn(move || write_requests(&writer, &outgoing));
        if written.is_ok() && tell.send(Ok((engine, found.clone()))).is_ok() {
            if let Some(found) = found {
                probe::keep(&setup.store, found);
            }
            read_answers(&socket, &waiting);
        }
    }
    // Whoever still waits hears that there will be no answer.
    waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
    drop((socket, end));
    drop(child.wait());
}

/// Sends requests until nobody can ask any more, then closes that direction, which ends the worker.
fn write_requests(socket: &UnixStream, outgoing: &mpsc::Receiver<Outgoing>) {
    while let Ok(Outgoing { message, fds }) = outgoing.recv() {
        let borrowed: Vec<_> = fds.iter().map(OwnedFd::as_fd).collect();
        if wire::send(socket.as_fd(), &message, &borrowed).is_err() {
            break;
        }
    }
    drop(socket.shutdown(std::net::Shutdown::Write));
}

fn read_answers(socket: &UnixStream, waiting: &Waiting) {
    while let Ok(Some((answer, _))) = wire::receive::<Numbered<Answer>>(socket.as_fd()) {
        let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = waiting.as_mut().and_then(|it| it.remove(&answer.number)) {
            // Nobody waits any more: the asker was dropped.
            drop(sender.send(answer.body));
        }
    }
}

/// Opens a file or directory for a request.
///
/// # Errors
///
/// If it cannot be opened.
pub fn open(path: &Path) -> Result<OwnedFd, Failure> {
    File::open(path).map(OwnedFd::from).map_err(|error| Failure {
        kind: FailureKind::Host,
        text: format!("cannot open `{}`: {error}", path.display()),
    })
}

fn done(answer: &Answer) -> Result<(), Failure> {
    if matches!(answer, Answer::Done) { Ok(()) } else { Err(unexpected(answer)) }
}

pub(super) fn unexpected(answer: &Answer) -> Failure {
    bug(format!("the worker answered something else: {answer:?}"))
}

fn bug(text: String) -> Failure {
    Failure { kind: FailureKind::Bug, text }
}

pub(super) fn lost() -> Failure {
    Failure { kind: FailureKind::Host, text: "the worker process ended unexpectedly".to_owned() }
}
