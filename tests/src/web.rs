//! A web server in the test's own process: pages that a test puts there, and the files of a folder.

use std::collections::BTreeMap;
use std::io::BufReader;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::http::{Request, Response};

/// A running server. It ends with this value.
#[derive(Debug)]
pub struct Web {
    address: String,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    pages: BTreeMap<String, Page>,
    /// Where anything else is looked for.
    folder: Option<PathBuf>,
    requests: Vec<String>,
    closed: bool,
}

#[derive(Debug)]
struct Page {
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl Web {
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
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if shared.lock().expect("no panic while locked").closed {
                    break;
                }
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || connection(&stream, &shared));
            }
        });
        Self { address, state }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while locked")
    }

    /// The address of a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Offers a page.
    pub fn put(&self, path: &str, headers: &[(&'static str, &str)], body: impl Into<Vec<u8>>) {
        let headers = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        self.state().pages.insert(path.to_owned(), Page { headers, body: body.into() });
    }

    /// Offers the files of a folder.
    pub fn serve(&self, folder: PathBuf) {
        self.state().folder = Some(folder);
    }

    /// What it was asked, and what it answered: `GET /a 200`.
    pub fn requests(&self) -> Vec<String> {
        self.state().requests.clone()
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        self.state().closed = true;
        // Wakes the listener, which then sees that it is over.
        drop(TcpStream::connect(&self.address));
    }
}

fn connection(stream: &TcpStream, state: &Mutex<State>) {
    let mut reader = BufReader::new(stream);
    while let Some(request) = Request::read(&mut reader) {
        let response = answer(&request, &mut state.lock().expect("no panic while locked"));
        let head = request.method == "HEAD";
        if response.write(&mut &*stream, head, usize::MAX).is_err() {
            return;
        }
    }
}

fn answer(request: &Request, state: &mut State) -> Response {
    let response = match (state.pages.get(&request.path), &state.folder) {
        (Some(Page { headers, body }), _) => {
            let etag =
                headers.iter().find(|(name, _)| *name == "etag").map(|(_, tag)| tag.as_str());
            let is_known = etag.is_some() && request.header("if-none-match") == etag;
            let is_moved = headers.iter().any(|(name, _)| *name == "location");
            let mut response = match (is_known, is_moved) {
                (true, _) => Response::status(304),
                (false, true) => Response::status(302),
                (false, false) => Response::status(200).body(body.clone()),
            };
            response.headers.clone_from(headers);
            response
        }
        (None, Some(folder)) => {
            let path = request.path.trim_start_matches('/');
            match std::fs::read(folder.join(path)) {
                Ok(bytes) => Response::status(200).body(bytes),
                Err(_) => Response::status(404),
            }
        }
        (None, None) => Response::status(404),
    };
    let line = format!("{} {} {}", request.method, request.path, response.status);
    state.requests.push(line);
    response
}
