//! A registry in the test's own process. It does what the distribution specification says, remembers what it was
//! asked, and can be told to refuse, to lie and to break off.

mod serve;

pub use serve::base64;

use std::collections::BTreeMap;
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::image::{Image, MANIFEST, digest};

/// What it does instead of its duty, for requests whose path contains a text.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    /// Answers with this status and a text of its own.
    Status(u16),
    /// Breaks off in the middle of the body, although the header promises all of it.
    Truncate,
    /// Changes one byte in the middle.
    Corrupt,
    /// Closes the connection without an answer.
    HangUp,
    /// Redirects to the same place.
    Circle,
}

/// Whom it lets in.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Access {
    /// Everybody.
    #[default]
    Open,
    /// Who sends this name and password with each request.
    Basic(String, String),
    /// Who shows a token, given for this name and password.
    Bearer(String, String),
}

/// A running registry. It ends with this value.
#[derive(Debug)]
pub struct Registry {
    address: String,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    blobs: BTreeMap<String, Vec<u8>>,
    /// By repository and tag or digest: media type and bytes.
    manifests: BTreeMap<(String, String), (String, Vec<u8>)>,
    uploads: BTreeMap<u64, Vec<u8>>,
    /// Uploads that were begun.
    begun: u64,
    /// By part of the path: what to do, and how often still.
    faults: Vec<(String, Fault, usize)>,
    access: Access,
    requests: Vec<String>,
    closed: bool,
}

impl Registry {
    /// Starts one on a free port of the loopback address.
    ///
    /// # Panics
    ///
    /// If there is none.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address").to_string();
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        let own = address.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if shared.lock().expect("no panic while locked").closed {
                    break;
                }
                let (shared, own) = (Arc::clone(&shared), own.clone());
                std::thread::spawn(move || serve::connection(&stream, &shared, &own));
            }
        });
        Self { address, state }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while locked")
    }

    /// Host and port, as in the name of an image.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Offers an image.
    pub fn put(&self, repository: &str, tag: &str, image: &Image) {
        let mut state = self.state();
        state.blobs.extend(image.blobs.clone());
        for reference in [tag.to_owned(), image.digest()] {
            state.manifests.insert(
                (repository.to_owned(), reference),
                (MANIFEST.to_owned(), image.manifest.clone()),
            );
        }
    }

    /// The image that was pushed under a name.
    ///
    /// # Panics
    ///
    /// If there is none, or it is incomplete.
    #[track_caller]
    pub fn image(&self, repository: &str, tag: &str) -> Image {
        let state = self.state();
        let found = state.manifests.get(&(repository.to_owned(), tag.to_owned()));
        let (_, manifest) = found.unwrap_or_else(|| panic!("nobody has pushed {repository}:{tag}"));
        Image::from_blobs(&digest(manifest), |name| {
            let manifests = state.manifests.values().map(|(_, bytes)| bytes);
            state
                .blobs
                .get(name)
                .or_else(|| manifests.into_iter().find(|bytes| digest(bytes) == name))
                .cloned()
        })
    }

    /// From now on, and until told otherwise, does this for requests whose path contains `part`.
    pub fn fault(&self, part: &str, fault: Fault) {
        self.fault_times(part, fault, usize::MAX);
    }

    /// Does this for the next so many requests whose path contains `part`.
    pub fn fault_times(&self, part: &str, fault: Fault, times: usize) {
        self.state().faults.push((part.to_owned(), fault, times));
    }

    /// Does its duty again.
    pub fn repent(&self) {
        self.state().faults.clear();
    }

    /// Lets in whom `access` says.
    pub fn guard(&self, access: Access) {
        self.state().access = access;
    }

    /// What it was asked: `GET /v2/busybox/manifests/1`.
    pub fn requests(&self) -> Vec<String> {
        self.state().requests.clone()
    }

    /// Forgets what it was asked.
    pub fn forget(&self) {
        self.state().requests.clear();
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.state().closed = true;
        // Wakes the listener, which then sees that it is over.
        drop(TcpStream::connect(&self.address));
    }
}
