//! What the registry answers.

use std::io::BufReader;
use std::net::{Shutdown, TcpStream};
use std::sync::Mutex;

use super::{Access, Fault, State};
use crate::http::{Request, Response};
use crate::image::digest;

/// The token that a bearer shows.
const TOKEN: &str = "the-token-of-the-tests";

/// Answers requests on a connection until it is closed.
pub(super) fn connection(stream: &TcpStream, state: &Mutex<State>, address: &str) {
    let mut reader = BufReader::new(stream);
    let mut writer = stream;
    while let Some(request) = Request::read(&mut reader) {
        let (fault, mut response) = {
            let mut state = state.lock().expect("no panic while locked");
            state.requests.push(format!("{} {}", request.method, request.path));
            (state.next_fault(&request.path), state.answer(&request, address))
        };
        let mut limit = usize::MAX;
        match fault {
            Some(Fault::HangUp) => break,
            Some(Fault::Status(status)) => {
                response = problem(status, "UNKNOWN", "the registry was told to refuse this");
            }
            Some(Fault::Circle) => {
                response = Response::status(307).with("location", request.path.clone());
            }
            Some(Fault::Truncate) => limit = response.body.len() / 2,
            Some(Fault::Corrupt) => {
                let middle = response.body.len() / 2;
                if let Some(byte) = response.body.get_mut(middle) {
                    *byte ^= 1;
                }
            }
            None => {}
        }
        if response.write(&mut writer, request.method == "HEAD", limit).is_err()
            || limit != usize::MAX
        {
            break;
        }
    }
    drop(stream.shutdown(Shutdown::Both));
}

fn problem(status: u16, code: &str, message: &str) -> Response {
    let body = serde_json::json!({ "errors": [{ "code": code, "message": message }] });
    Response::status(status)
        .with("content-type", "application/json")
        .body(body.to_string().into_bytes())
}

impl State {
    fn next_fault(&mut self, path: &str) -> Option<Fault> {
        let (_, fault, times) = self
            .faults
            .iter_mut()
            .find(|(part, _, times)| path.contains(part.as_str()) && *times > 0)?;
        *times -= 1;
        Some(*fault)
    }

    fn answer(&mut self, request: &Request, address: &str) -> Response {
        if request.path == "/token" {
            return self.token(request);
        }
        if let Some(refusal) = self.refusal(request, address) {
            return refusal;
        }
        let Some(rest) = request.path.strip_prefix("/v2/") else {
            return problem(404, "UNKNOWN", "no such place");
        };
        if rest.is_empty() {
            return Response::status(200).with("docker-distribution-api-version", "registry/2.0");
        }
        if let Some((repository, upload)) = rest.split_once("/blobs/uploads/") {
            return self.upload(request, repository, upload);
        }
        if let Some((_, name)) = rest.split_once("/blobs/") {
            return self.blob(request, name);
        }
        if let Some((repository, reference)) = rest.split_once("/manifests/") {
            return self.manifest(request, repository, reference);
        }
        problem(404, "UNKNOWN", "no such place")
    }

    fn refusal(&self, request: &Request, address: &str) -> Option<Response> {
        let given = request.header("authorization").unwrap_or_default();
        let challenge = match &self.access {
            Access::Open => return None,
            Access::Basic(name, password) if given == basic(name, password) => return None,
            Access::Bearer(..) if given == format!("Bearer {TOKEN}") => return None,
            Access::Basic(..) => "Basic realm=\"tests\"".to_owned(),
            Access::Bearer(..) => {
                let repository = request
                    .path
                    .strip_prefix("/v2/")
                    .and_then(|rest| rest.split('/').next())
                    .unwrap_or_default();
                format!(
                    "Bearer realm=\"http://{address}/token\",service=\"tests\",scope=\"repository:{repository}:pull,push\""
                )
            }
        };
        Some(
            problem(401, "UNAUTHORIZED", "authentication required")
                .with("www-authenticate", challenge),
        )
    }

    fn token(&self, request: &Request) -> Response {
        let Access::Bearer(name, password) = &self.access else {
            return problem(404, "UNKNOWN", "no tokens here");
        };
        if request.header("authorization") == Some(&basic(name, password)) {
            let body =
                serde_json::json!({ "token": TOKEN, "access_token": TOKEN, "expires_in": 300 });
            return Response::status(200)
                .with("content-type", "application/json")
                .body(body.to_string().into_bytes());
        }
        problem(401, "UNAUTHORIZED", "incorrect username or password")
            .with("www-authenticate", "Basic realm=\"tests\"")
    }

    fn upload(&mut self, request: &Request, repository: &str, upload: &str) -> Response {
        let id = upload.parse::<u64>().unwrap_or(self.begun + 1);
        let location = format!("/v2/{repository}/blobs/uploads/{id}");
        match request.method.as_str() {
            "POST" => {
                if let Some(known) =
                    request.parameter("mount").filter(|name| self.blobs.contains_key(*name))
                {
                    return Response::status(201)
                        .with("location", format!("/v2/{repository}/blobs/{known}"));
                }
                if request.parameter("digest").is_some() {
                    return self.close_upload(request, repository, Vec::new());
                }
                self.begun = id;
                self.uploads.insert(id, Vec::new());
            }
            "DELETE" => {
                self.uploads.remove(&id);
                return Response::status(204);
            }
            "PATCH" => self.uploads.entry(id).or_default().extend(&request.body),
            "PUT" => {
                let started = self.uploads.remove(&id).unwrap_or_default();
                return self.close_upload(request, repository, started);
            }
            _ => return problem(405, "UNSUPPORTED", "not for uploads"),
        }
        let end = self.uploads.get(&id).map_or(0, Vec::len).saturating_sub(1);
        Response::status(202).with("location", location).with("range", format!("0-{end}"))
    }

    fn close_upload(
        &mut self,
        request: &Request,
        repository: &str,
        mut bytes: Vec<u8>,
    ) -> Response {
        bytes.extend(&request.body);
        let name = digest(&bytes);
        if request.parameter("digest") != Some(&name) {
            return problem(400, "DIGEST_INVALID", "the content has another digest");
        }
        self.blobs.insert(name.clone(), bytes);
        Response::status(201)
            .with("location", format!("/v2/{repository}/blobs/{name}"))
            .with("docker-content-digest", name)
    }

    fn blob(&self, request: &Request, name: &str) -> Response {
        let Some(bytes) = self.blobs.get(name) else {
            return problem(404, "BLOB_UNKNOWN", "blob unknown to registry");
        };
        let from = request.header("range").and_then(|range| {
            range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok()
        });
        let response = match from.filter(|from| *from > 0 && *from < bytes.len()) {
            Some(from) => {
                let range = format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len());
                Response::status(206).with("content-range", range).body(bytes[from..].to_vec())
            }
            None => Response::status(200).body(bytes.clone()),
        };
        response
            .with("content-type", "application/octet-stream")
            .with("docker-content-digest", name)
    }

    fn manifest(&mut self, request: &Request, repository: &str, reference: &str) -> Response {
        if request.method == "PUT" {
            let media_type = request.header("content-type").unwrap_or_default().to_owned();
            let name = digest(&request.body);
            for reference in [reference.to_owned(), name.clone()] {
                self.manifests.insert(
                    (repository.to_owned(), reference),
                    (media_type.clone(), request.body.clone()),
                );
            }
            return Response::status(201).with("docker-content-digest", name);
        }
        match self.manifests.get(&(repository.to_owned(), reference.to_owned())) {
            Some((media_type, bytes)) => Response::status(200)
                .with("content-type", media_type.clone())
                .with("docker-content-digest", digest(bytes))
                .body(bytes.clone()),
            None => problem(404, "MANIFEST_UNKNOWN", "manifest unknown"),
        }
    }
}

/// The header of basic authentication.
fn basic(name: &str, password: &str) -> String {
    format!("Basic {}", base64(format!("{name}:{password}").as_bytes()))
}

/// Base64 with padding, as credential files and headers have it.
pub fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().fold(0u32, |group, byte| group << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for position in 0..4 {
            let letter = LETTERS[(group >> (18 - 6 * position) & 63) as usize];
            text.push(if position <= chunk.len() { char::from(letter) } else { '=' });
        }
    }
    text
}
