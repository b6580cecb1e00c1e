//! The build context and the Dockerfile, from wherever they come: made a directory and a text.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use rbuild_store::compress;
use rbuild_store::local::Store;

use crate::cli::request::{Context, DockerfileFrom, Request};
use crate::report::{Failure, Kind};
use crate::session::git::{self, GitSource};
use crate::session::images::Images;
use crate::session::{http, remote};

/// Largest Dockerfile, in bytes.
const MAX_DOCKERFILE: u64 = 16 << 20;

/// Largest archive read from standard input, in bytes.
const MAX_STDIN: u64 = 16 << 30;

/// What a build starts from.
#[derive(Debug)]
pub struct Prepared {
    /// The context's directory; none if there are no files.
    pub directory: Option<PathBuf>,
    /// Name of the Dockerfile as shown.
    pub name: String,
    /// Its bytes.
    pub dockerfile: Vec<u8>,
    /// `<Dockerfile>.dockerignore`, where the Dockerfile lies in a directory that has one.
    pub own_ignore: Option<Vec<u8>>,
    /// Removes an unpacked context when dropped.
    temporary: Option<tempfile::TempDir>,
}

/// Finds context and Dockerfile. `store` is where remote and unpacked contexts go.
///
/// # Errors
///
/// `User` or `Usage` if they do not exist or are not what they should be; `Remote` if they cannot
/// be fetched; `Host` if the disk fails.
pub async fn prepare(
    request: &Request,
    cwd: &Path,
    store: &Store,
    images: &Images,
) -> Result<Prepared, Failure> {
    match &request.context {
        Context::Directory(directory) => local(directory, &request.file, cwd),
        Context::Stdin => {
            let bytes = read_stdin()?;
            from_bytes(&bytes, &request.file, cwd, store)
        }
        Context::Remote(url) => match remote::parse(url) {
            remote::Remote::Git(identifier, mut attrs) => {
                if let Some(keep) = request.build_args.get("BUILDKIT_CONTEXT_KEEP_GIT_DIR") {
                    let keep = matches!(keep.as_str(), "1" | "t" | "T" | "true" | "TRUE" | "True");
                    attrs.insert("git.keepgitdir".to_owned(), keep.to_string());
                }
                from_git(&identifier, &attrs, &request.file, cwd, store).await
            }
            remote::Remote::Http(url) => {
                let web = images.registry()?.web();
                let fetched =
                    http::fetch(&web, &url, &BTreeMap::new(), store, &|_, _, _, _| {}).await?;
                let bytes =
                    read_limited(&store.root().join(fetched.dir).join(fetched.name), MAX_STDIN)?;
                from_bytes(&bytes, &request.file, cwd, store)
            }
        },
    }
}

fn local(directory: &Path, file: &DockerfileFrom, cwd: &Path) -> Result<Prepared, Failure> {
    let kind = directory.metadata().map_err(|error| {
        Failure::new(Kind::User, format!("cannot use {} as the build context: {error}", directory.display()))
            .hint("the last argument is the directory with the files that COPY and ADD read; `.` is the current one")
    })?;
    if !kind.is_dir() {
        return Err(Failure::new(
            Kind::User,
            format!("the build context {} is not a directory", directory.display()),
        ));
    }
    let path = match file {
        DockerfileFrom::Stdin => {
            return Ok(Prepared {
                directory: Some(directory.to_owned()),
                name: "Dockerfile".to_owned(),
                dockerfile: read_stdin()?,
                own_ignore: None,
                temporary: None,
            });
        }
        DockerfileFrom::Default => default_dockerfile(directory),
        DockerfileFrom::Path(path) => cwd.join(path),
    };
    with_dockerfile(directory, &path, None)
}

/// `Dockerfile`, or `dockerfile` where only that exists.
fn default_dockerfile(directory: &Path) -> PathBuf {
    let path = directory.join("Dockerfile");
    let lower = directory.join("dockerfile");
    if !path.exists() && lower.exists() { lower } else { path }
}

fn with_dockerfile(
    directory: &Path,
    path: &Path,
    temporary: Option<tempfile::TempDir>,
) -> Result<Prepared, Failure> {
    let dockerfile = read_limited(path, MAX_DOCKERFILE).map_err(|mut failure| {
        if !path.exists() {
            failure = Failure::new(
                Kind::User,
                format!(
                    "failed to read dockerfile: open {}: no such file or directory",
                    path.display()
                ),
            );
            let parent = path.parent().unwrap_or(directory);
            if let Some(similar) = similar_dockerfile(parent) {
                failure =
                    failure.hint(format!("there is {}: use -f", parent.join(similar).display()));
            } else {
                failure = failure.hint("-f names another file; the context is the last argument");
            }
        }
        failure
    })?;
    let mut ignore = path.as_os_str().to_owned();
    ignore.push(".dockerignore");
    let ignore = PathBuf::from(ignore);
    let own_ignore =
        if ignore.is_file() { Some(read_limited(&ignore, MAX_DOCKERFILE)?) } else { None };
    let name = path
        .file_name()
        .map_or_else(|| "Dockerfile".to_owned(), |it| it.to_string_lossy().into_owned());
    Ok(Prepared { directory: Some(directory.to_owned()), name, dockerfile, own_ignore, temporary })
}

/// A file whose name resembles a Dockerfile's, for a hint.
fn similar_dockerfile(directory: &Path) -> Option<String> {
    let mut names: Vec<String> = std::fs::read_dir(directory)
        .ok()?
        .filter_map(|it| it.ok()?.file_name().into_string().ok())
        .filter(|name| {
            let lower = name.to_lowercase();
            (lower.contains("docker") || lower.contains("containerfile"))
                && !lower.contains("ignore")
                && !lower.contains("compose")
        })
        .collect();
    names.sort_unstable();
    names.into_iter().next()
}

fn read_limited(path: &Path, limit: u64) -> Result<Vec<u8>, Failure> {
    let read = || {
        let mut bytes = Vec::new();
        std::fs::File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().map_err(|error: std::io::Error| {
        Failure::host(&format!("read {}", path.display()), &error)
    })?;
    if bytes.len() as u64 > limit {
        return Err(Failure::new(
            Kind::User,
            format!("{} is larger than {limit} bytes", path.display()),
        ));
    }
    Ok(bytes)
}

fn read_stdin() -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    std::io::stdin()
        .lock()
        .take(MAX_STDIN)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::host("read standard input", &error))?;
    Ok(bytes)
}

/// Whether bytes are a tar, compressed or not.
fn is_archive(bytes: &[u8]) -> bool {
    const MAGIC_OFFSET: usize = 257;
    compress::Format::detect(bytes) != compress::Format::Plain
        || bytes.get(MAGIC_OFFSET..).is_some_and(|it| it.starts_with(b"ustar"))
}

/// An archive is unpacked and is the context; anything else is a Dockerfile without a context.
fn from_bytes(
    bytes: &[u8],
    file: &DockerfileFrom,
    cwd: &Path,
    store: &Store,
) -> Result<Prepared, Failure> {
    if !is_archive(bytes) {
        if let DockerfileFrom::Path(path) = file {
            return Err(Failure::usage(format!(
                "-f {path} cannot be used: the context is itself a Dockerfile"
            )));
        }
        return Ok(Prepared {
            directory: None,
            name: "Dockerfile".to_owned(),
            dockerfile: bytes.to_vec(),
            own_ignore: None,
            temporary: None,
        });
    }
    let temporary = tempfile::Builder::new()
        .prefix("context-")
        .tempdir_in(store.temp().dir()?)
        .map_err(|error| Failure::host("create a directory for the context", &error))?;
    let (_, reader) = compress::decoder(bytes)
        .map_err(|error| Failure::host("read the context archive", &error))?;
    let mut archive = tar::Archive::new(reader);
    archive.set_preserve_permissions(true);
    archive.set_preserve_mtime(true);
    let unpacked = archive.entries().and_then(|entries| {
        for entry in entries {
            // Leaves out what would end up elsewhere.
            entry?.unpack_in(temporary.path())?;
        }
        Ok(())
    });
    unpacked.map_err(|error| {
        Failure::new(Kind::User, format!("the context is not a readable archive: {error}"))
    })?;
    let directory = temporary.path().to_owned();
    in_tree(&directory, file, cwd, Some(temporary))
}

async fn from_git(
    identifier: &str,
    attrs: &BTreeMap<String, String>,
    file: &DockerfileFrom,
    cwd: &Path,
    store: &Store,
) -> Result<Prepared, Failure> {
    let source = GitSource::parse(identifier, attrs);
    let (directory, _) = git::fetch(&source, store, None).await.map_err(Failure::from)?;
    in_tree(&store.root().join(directory), file, cwd, None)
}

/// The Dockerfile of a context that was fetched: its path is one of the context.
fn in_tree(
    directory: &Path,
    file: &DockerfileFrom,
    cwd: &Path,
    temporary: Option<tempfile::TempDir>,
) -> Result<Prepared, Failure> {
    let path = match file {
        DockerfileFrom::Stdin => {
            let mut prepared = local(directory, file, cwd)?;
            prepared.temporary = temporary;
            return Ok(prepared);
        }
        DockerfileFrom::Default => default_dockerfile(directory),
        DockerfileFrom::Path(path) => directory.join(path.trim_start_matches('/')),
    };
    let real = path.canonicalize().unwrap_or_else(|_| path.clone());
    let root = directory.canonicalize().unwrap_or_else(|_| directory.to_owned());
    if path.exists() && !real.starts_with(&root) {
        return Err(Failure::new(
            Kind::User,
            format!("the Dockerfile {} is outside of the context", path.display()),
        ));
    }
    with_dockerfile(directory, &path, temporary)
}
