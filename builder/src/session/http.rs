//! Http sources: one file in a directory of the store, kept for as long as the server says that it
//! did not change.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use rbuild_solver::session::{Progress, SessionError};
use rbuild_store::digest::Digest;
use rbuild_store::http::{Fetch, Fetched, Validators, Web, WebHead, file_name};
use rbuild_store::local::Store;
use serde::{Deserialize, Serialize};
use url::Url;

use super::registry_error;

/// Largest file that is fetched, in bytes.
const MAX_FILE: u64 = 64 << 30;

/// Permission bits of a file where none are given (BuildKit's).
const DEFAULT_MODE: u32 = 0o600;

/// A file that was fetched.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct HttpFile {
    /// Directory below the store's root that holds nothing else.
    pub dir: PathBuf,
    /// Name in the directory.
    pub name: String,
    /// Digest of its bytes.
    pub digest: Digest,
    etag: Option<String>,
    last_modified: Option<String>,
    /// The same in seconds.
    modified: Option<i64>,
}

impl HttpFile {
    /// When the server says that it was changed, in seconds.
    pub fn modified(&self) -> Option<i64> {
        self.modified
    }
}

/// Fetches `identifier`, or finds it as fetched before and unchanged.
///
/// # Errors
///
/// `User` if the URL or an attribute is wrong or the checksum differs, `Remote` if the server
/// refuses or cannot be reached, `Host` if the disk fails.
pub async fn fetch(
    web: &Web,
    identifier: &str,
    attrs: &BTreeMap<String, String>,
    store: &Store,
    progress: Progress<'_>,
) -> Result<HttpFile, SessionError> {
    let url = Url::parse(identifier)
        .map_err(|error| SessionError::user(format!("`{identifier}` is not a URL: {error}")))?;
    let checksum = checksum(attrs)?;
    let mode = mode(attrs)?;
    let key =
        Digest::of(serde_json::to_vec(&(identifier, attrs)).unwrap_or_default().as_slice()).hex();
    let downloads = store.layout().downloads();
    let note = downloads.join(format!("{key}.json"));
    let known: Option<HttpFile> = std::fs::read(&note)
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .filter(|it: &HttpFile| store.root().join(&it.dir).join(&it.name).is_file());
    if let (Some(known), Some(checksum)) = (&known, checksum)
        && known.digest == checksum
    {
        return Ok(known.clone());
    }
    let validators = known
        .as_ref()
        .map(|it| Validators { etag: it.etag.clone(), last_modified: it.last_modified.clone() });
    let question =
        Fetch { url: &url, headers: &[], known: validators.as_ref(), checksum, limit: MAX_FILE };
    let temporary =
        tempfile::Builder::new().prefix("http-").tempdir_in(super::scratch(store)?).map_err(
            |error| SessionError::disk("create a directory in", &store.layout().tmp(), &error),
        )?;
    let part = temporary.path().join(".part");
    let mut file = tokio::fs::File::create(&part)
        .await
        .map_err(|error| SessionError::disk("create", &part, &error))?;
    let shown = url.path().rsplit('/').next().unwrap_or_default().to_owned();
    let fetched = web
        .fetch(&question, &mut file, &|done, total| {
            progress(&shown, done, total.unwrap_or(0), Some(done) == total);
        })
        .await
        .map_err(|error| registry_error(&error))?;
    let (head, digest) = match (fetched, known) {
        (Fetched::NotModified, Some(known)) => return Ok(known),
        (Fetched::NotModified, None) => {
            return Err(SessionError::user(format!(
                "{identifier} answered that nothing changed, unasked"
            )));
        }
        (Fetched::File { head, digest, .. }, _) => (head, digest),
    };
    let wanted = attrs.get("http.filename").map(String::as_str);
    let name = file_name(wanted, Some(&head), &url);
    let finished = temporary.path().join(&name);
    std::fs::rename(&part, &finished)
        .map_err(|error| SessionError::disk("rename", &part, &error))?;
    set_metadata(&finished, mode, &head)?;
    let dir =
        PathBuf::from("downloads").join(Digest::of(format!("{key}{digest}").as_bytes()).hex());
    publish(temporary, &store.root().join(&dir))?;
    let result = HttpFile {
        dir,
        name,
        digest,
        etag: head.validators.etag,
        last_modified: head.validators.last_modified,
        modified: head.modified,
    };
    // Without the note the file is fetched again; nothing else depends on it.
    drop(std::fs::write(&note, serde_json::to_vec(&result).unwrap_or_default()));
    Ok(result)
}

fn checksum(attrs: &BTreeMap<String, String>) -> Result<Option<Digest>, SessionError> {
    let text = attrs.get("http.checksum").filter(|it| !it.is_empty());
    let parsed = text.map(|text| {
        text.parse().map_err(|error| {
            SessionError::user(format!("digest mismatch: checksum `{text}`: {error}"))
        })
    });
    parsed.transpose()
}

fn mode(attrs: &BTreeMap<String, String>) -> Result<u32, SessionError> {
    let Some(text) = attrs.get("http.perm") else { return Ok(DEFAULT_MODE) };
    let bits = u32::from_str_radix(text, 8)
        .map_err(|_| SessionError::user(format!("mode `{text}` is not octal")))?;
    Ok(bits & 0o7777)
}

fn prepared(directory: &Path) -> Result<&Path, SessionError> {
    std::fs::create_dir_all(directory)
        .map_err(|error| SessionError::disk("create", directory, &error))?;
    Ok(directory)
}

fn publish(temporary: tempfile::TempDir, directory: &Path) -> Result<(), SessionError> {
    if let Some(parent) = directory.parent() {
        prepared(parent)?;
    }
    match std::fs::rename(temporary.path(), directory) {
        Ok(()) => {
            // The name is taken: nothing is left to remove.
            drop(temporary.keep());
            Ok(())
        }
        Err(_) if directory.is_dir() => Ok(()),
        Err(error) => Err(SessionError::disk("rename into", directory, &error)),
    }
}

/// Mode and time of the file, which BuildKit takes from `Last-Modified`, or the epoch.
fn set_metadata(path: &Path, mode: u32, head: &WebHead) -> Result<(), SessionError> {
    let seconds = head.modified.and_then(|it| u64::try_from(it).ok()).unwrap_or(0);
    let time = UNIX_EPOCH + Duration::from_secs(seconds);
    std::fs::File::open(path)
        .and_then(|file| file.set_modified(time))
        .and_then(|()| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)))
        .map_err(|error| SessionError::disk("set mode and time of", path, &error))
}
