//! Registries that lie, stall and break, in this process.

mod auth;
mod pull;
mod push;
mod stream;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::config::Hosts;
use super::credentials::Credentials;
use super::{NetworkSettings, Proxies, Registry, RetryPolicy};
use crate::descriptor::Descriptor;
use crate::digest::{BlobId, Digest};
use crate::media_type;
use crate::platform::Platform;
use crate::reference::Reference;

/// A request as a server sees it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// What a server answers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// Bytes of the body after which the connection breaks.
    cut: Option<usize>,
}

pub(crate) fn reply(status: u16, body: impl Into<Vec<u8>>) -> Reply {
    Reply { status, body: body.into(), ..Reply::default() }
}

impl Reply {
    pub(crate) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    pub(crate) fn cut(mut self, after: usize) -> Self {
        self.cut = Some(after);
        self
    }
}

/// A server with a mind of its own.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    /// Starts a server whose answers `answer` makes of the request and its number, from 0.
    pub(crate) async fn start(
        answer: impl Fn(&Seen, usize) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let (log, answer) = (Arc::clone(&seen), Arc::new(answer));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&log), Arc::clone(&answer)));
            }
        });
        Self { address, seen }
    }

    /// `METHOD target`, a line each.
    pub(crate) fn log(&self) -> String {
        let line = |it: &Seen| format!("{} {}\n", it.method, it.target);
        let text: String = self.seen.lock().unwrap().iter().map(line).collect();
        text.replace(&self.address.to_string(), "HOST")
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub(crate) fn reference(&self, rest: &str) -> Reference {
        format!("{}/{rest}", self.address).parse().unwrap()
    }
}

async fn serve(
    mut stream: TcpStream,
    log: Arc<Mutex<Vec<Seen>>>,
    answer: Arc<impl Fn(&Seen, usize) -> Reply>,
) {
    let mut buffer = Vec::new();
    let end = loop {
        if let Some(end) = buffer.windows(4).position(|it| it == b"\r\n\r\n") {
            break end;
        }
        if stream.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
            return;
        }
    };
    let head = String::from_utf8(buffer[..end].to_vec()).unwrap();
    let mut lines = head.split("\r\n");
    let mut first = lines.next().unwrap().split(' ').map(str::to_owned);
    let (method, target) = (first.next().unwrap(), first.next().unwrap());
    let headers: BTreeMap<String, String> = lines
        .map(|it| it.split_once(": ").unwrap())
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let length = headers.get("content-length").map_or(0, |it| it.parse().unwrap());
    let in_chunks = headers.get("transfer-encoding").is_some_and(|it| it == "chunked");
    let mut body = buffer.split_off(end + 4);
    while if in_chunks { !body.ends_with(b"0\r\n\r\n") } else { body.len() < length } {
        if stream.read_buf(&mut body).await.unwrap_or(0) == 0 {
            return;
        }
    }
    let body = if in_chunks { joined(&body) } else { body };
    let seen = Seen { method, target, headers, body };
    let number = {
        let mut log = log.lock().unwrap();
        log.push(seen.clone());
        log.len() - 1
    };
    let reply = answer(&seen, number);
    let mut text = format!("HTTP/1.1 {} Status\r\nConnection: close\r\n", reply.status);
    let announced = reply.headers.iter().any(|(name, _)| name == "Content-Length");
    if !announced {
        write!(text, "Content-Length: {}\r\n", reply.body.len()).unwrap();
    }
    for (name, value) in &reply.headers {
        write!(text, "{name}: {value}\r\n").unwrap();
    }
    let mut bytes = (text + "\r\n").into_bytes();
    if seen.method != "HEAD" {
        bytes.extend(&reply.body[..reply.cut.unwrap_or(reply.body.len())]);
    }
    drop(stream.write_all(&bytes).await);
    drop(stream.shutdown().await);
}

/// The bytes of a body that came in chunks.
fn joined(mut chunks: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    loop {
        let end = chunks.windows(2).position(|it| it == b"\r\n").unwrap();
        let length = std::str::from_utf8(&chunks[..end]).unwrap();
        let length = usize::from_str_radix(length, 16).unwrap();
        if length == 0 {
            return all;
        }
        let start = end + 2;
        all.extend_from_slice(&chunks[start..start + length]);
        chunks = &chunks[start + length + 2..];
    }
}

/// A registry client without patience.
pub(crate) fn client(buildkit: &str, auths: &str) -> Registry {
    let mut hosts = Hosts::default();
    hosts.add_buildkit(buildkit).unwrap();
    let credentials = if auths.is_empty() {
        Credentials::default()
    } else {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), auths).unwrap();
        let (_, path) = file.keep().unwrap();
        Credentials::from_paths(vec![path])
    };
    Registry::new(hosts, credentials, network())
}

pub(crate) fn network() -> NetworkSettings {
    let retry = RetryPolicy { attempts: 3, base_delay: Duration::ZERO, max_delay: Duration::ZERO };
    NetworkSettings { user_agent: "test".to_owned(), proxies: Proxies::default(), retry }
}

pub(crate) fn id(bytes: &[u8]) -> BlobId {
    BlobId(Digest::of(bytes))
}

pub(crate) fn blob(bytes: &[u8]) -> Descriptor {
    Descriptor::new(media_type::OCI_LAYER, id(bytes), bytes.len() as u64)
}

pub(crate) fn amd64() -> Platform {
    Platform::new("linux", "amd64")
}

pub(crate) const CONFIG: &[u8] = br#"{"architecture":"amd64","os":"linux"}"#;

/// A manifest of an image with [`CONFIG`] and no layers.
pub(crate) fn manifest() -> Vec<u8> {
    let media_type = media_type::OCI_CONFIG;
    format!(
        r#"{{"schemaVersion":2,"config":{{"mediaType":"{media_type}","digest":"{}","size":{}}},"layers":[]}}"#,
        id(CONFIG),
        CONFIG.len()
    )
    .into_bytes()
}
