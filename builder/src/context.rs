//! The build context and the Dockerfile, from wherever they come.
//!
//! A context that is not a directory here becomes a source of the graph, as in BuildKit: archives
//! are unpacked by the build itself, with owners and links, and ignore files mean nothing in them.
//! Only the Dockerfile is read here.

pub mod archive;

use std::io::{BufReader, Read, Write as _};
use std::path::{Path, PathBuf};

use rbuild_frontend::options::MainContext;
use rbuild_solver::llb::op::SourceOp;
use rbuild_store::local::Store;

use crate::cli::remote::{self, CONTEXT_FILE};
use crate::cli::request::{Context, DockerfileFrom, Request};
use crate::report::{Failure, Kind};
use crate::session::remote::Remotes;

/// Largest Dockerfile, in bytes.
const MAX_DOCKERFILE: u64 = 16 << 20;

/// Largest archive read from standard input, in bytes.
const MAX_STDIN: u64 = 64 << 30;

/// What a build starts from.
#[derive(Debug)]
pub struct Prepared {
    /// What the graph starts from.
    pub main: MainContext,
    /// The directory behind `local://context`; none if there are no files.
    pub directory: Option<PathBuf>,
    /// The Dockerfile.
    pub definition: Definition,
    /// Removes what was read from standard input when dropped.
    _temporary: Option<tempfile::TempDir>,
}

/// A Dockerfile.
#[derive(Clone, Debug)]
pub struct Definition {
    /// Its name as shown.
    pub name: String,
    /// Its bytes.
    pub text: Vec<u8>,
    /// `<Dockerfile>.dockerignore` beside it.
    pub ignore: Option<Vec<u8>>,
}

impl Definition {
    /// One that lies in no directory.
    fn alone(text: Vec<u8>) -> Self {
        Self { name: "Dockerfile".to_owned(), text, ignore: None }
    }
}

/// Finds context and Dockerfile. `store` is where standard input goes.
///
/// # Errors
///
/// `User` or `Usage` if they do not exist or are not what they should be; `Remote` if they cannot
/// be fetched; `Host` if the disk fails.
pub async fn prepare(
    request: &Request,
    cwd: &Path,
    store: &Store,
    remotes: &Remotes,
) -> Result<Prepared, Failure> {
    if let Context::Directory(directory) = &request.context {
        check_directory(directory)?;
    }
    let own = outside(request, cwd, remotes).await?;
    match &request.context {
        Context::Directory(directory) => Ok(Prepared {
            main: MainContext::Local,
            directory: Some(directory.clone()),
            definition: match own {
                Some(definition) => definition,
                None => read_definition(&default_dockerfile(directory))?,
            },
            _temporary: None,
        }),
        Context::Stdin => from_stdin(&request.file, own, store),
        Context::Remote(url) => {
            let op = remote::source(url).map_err(|text| Failure::new(Kind::User, text))?;
            if op.identifier.starts_with("git://") {
                from_git(op, request, own, remotes).await
            } else {
                from_web(op, &request.file, own, remotes).await
            }
        }
    }
}

/// The Dockerfile, if it is not one of the context.
async fn outside(
    request: &Request,
    cwd: &Path,
    remotes: &Remotes,
) -> Result<Option<Definition>, Failure> {
    let path = match &request.file {
        DockerfileFrom::Default => return Ok(None),
        DockerfileFrom::Stdin => {
            let text = limited(std::io::stdin().lock())
                .map_err(|error| Failure::host("read standard input", &error))?;
            return Ok(Some(Definition::alone(text)));
        }
        DockerfileFrom::Path(path) => path,
    };
    if remote::is_url(path) {
        let op = remote::source(path).map_err(|text| Failure::new(Kind::User, text))?;
        let fetched = remotes.http(&op.identifier, &op.attrs, &|_, _, _, _| {}).await?;
        let file = remotes.store.root().join(fetched.dir).join(fetched.name);
        return Ok(Some(Definition::alone(read_file(&file)?)));
    }
    let is_here = match &request.context {
        Context::Directory(_) => true,
        Context::Remote(_) => Path::new(path).is_absolute(),
        Context::Stdin => false,
    };
    if is_here { read_definition(&cwd.join(path)).map(Some) } else { Ok(None) }
}

fn check_directory(directory: &Path) -> Result<(), Failure> {
    let kind = directory.metadata().map_err(|error| {
        Failure::new(Kind::User, format!("cannot use {} as the build context: {error}", directory.display()))
            .hint("the last argument is the directory with the files that COPY and ADD read; `.` is the current one")
    })?;
    if kind.is_dir() {
        return Ok(());
    }
    let text = format!("the build context {} is not a directory", directory.display());
    Err(Failure::new(Kind::User, text))
}

/// Standard input: an archive is the context, anything else a Dockerfile without one.
fn from_stdin(
    file: &DockerfileFrom,
    own: Option<Definition>,
    store: &Store,
) -> Result<Prepared, Failure> {
    let failed = |error| Failure::host("read standard input", &error);
    let mut input = std::io::stdin().lock();
    let mut start = Vec::new();
    input.by_ref().take(archive::START_BYTES).read_to_end(&mut start).map_err(failed)?;
    let mut input = start.chain(input);
    if !archive::is_archive(input.get_ref().0) {
        if *file != DockerfileFrom::Default {
            return Err(Failure::usage(
                "ambiguous Dockerfile source: both stdin and flag correspond to Dockerfiles",
            )
            .hint(
                "-f - takes the Dockerfile from standard input and leaves the context as it is",
            ));
        }
        return Ok(Prepared {
            main: MainContext::Local,
            directory: None,
            definition: Definition::alone(limited(input).map_err(failed)?),
            _temporary: None,
        });
    }
    let temporary = tempfile::Builder::new()
        .prefix("context-")
        .tempdir_in(store.temp().dir()?)
        .map_err(|error| Failure::host("create a directory for the context", &error))?;
    let path = temporary.path().join(CONTEXT_FILE);
    let written = std::fs::File::create(&path).and_then(|mut file| {
        let copied = std::io::copy(&mut input.by_ref().take(MAX_STDIN + 1), &mut file)?;
        file.flush()?;
        Ok(copied)
    });
    let written = written.map_err(|error| Failure::host("keep the context", &error))?;
    if written > MAX_STDIN {
        let text = format!("the context on standard input is larger than {MAX_STDIN} bytes");
        return Err(Failure::new(Kind::User, text));
    }
    Ok(Prepared {
        main: MainContext::Source {
            identifier: "local://context".to_owned(),
            attrs: std::collections::BTreeMap::new(),
            unpack: true,
        },
        directory: Some(temporary.path().to_owned()),
        definition: match own {
            Some(definition) => definition,
            None => in_archive(&path, file)?,
        },
        _temporary: Some(temporary),
    })
}

/// A repository.
async fn from_git(
    mut op: SourceOp,
    request: &Request,
    own: Option<Definition>,
    remotes: &Remotes,
) -> Result<Prepared, Failure> {
    if let Some(keep) = request.build_args.get("BUILDKIT_CONTEXT_KEEP_GIT_DIR")
        && matches!(keep.as_str(), "1" | "t" | "T" | "true" | "TRUE" | "True")
    {
        op.attrs.insert("git.keepgitdir".to_owned(), "true".to_owned());
    }
    if request.build_args.get("SOURCE_DATE_EPOCH").is_some_and(|it| !it.is_empty()) {
        op.attrs.entry("git.mtime".to_owned()).or_insert_with(|| "commit".to_owned());
    }
    let definition = if let Some(definition) = own {
        definition
    } else {
        let fetched = remotes.git(&op.identifier, &op.attrs).await?;
        in_tree(&remotes.store.root().join(fetched.dir), &request.file)?
    };
    Ok(remote_context(op, false, definition))
}

/// A file of a web server: an archive, or a Dockerfile that is the only file of its context.
async fn from_web(
    op: SourceOp,
    file: &DockerfileFrom,
    own: Option<Definition>,
    remotes: &Remotes,
) -> Result<Prepared, Failure> {
    let fetched = remotes.http(&op.identifier, &op.attrs, &|_, _, _, _| {}).await?;
    let path = remotes.store.root().join(fetched.dir).join(fetched.name);
    let mut start = Vec::new();
    std::fs::File::open(&path)
        .and_then(|file| file.take(archive::START_BYTES).read_to_end(&mut start))
        .map_err(|error| Failure::host(&format!("read {}", path.display()), &error))?;
    let is_archive = archive::is_archive(&start);
    let definition = match own {
        Some(definition) => definition,
        None if is_archive => in_archive(&path, file)?,
        None => Definition::alone(read_file(&path)?),
    };
    Ok(remote_context(op, is_archive, definition))
}

fn remote_context(op: SourceOp, unpack: bool, definition: Definition) -> Prepared {
    let main = MainContext::Source { identifier: op.identifier, attrs: op.attrs, unpack };
    Prepared { main, directory: None, definition, _temporary: None }
}

/// `Dockerfile`, or `dockerfile` where only that exists.
fn default_dockerfile(directory: &Path) -> PathBuf {
    let path = directory.join("Dockerfile");
    let lower = directory.join("dockerfile");
    if !path.exists() && lower.exists() { lower } else { path }
}

/// The Dockerfile of a context that was fetched: it must lie there.
fn in_tree(directory: &Path, file: &DockerfileFrom) -> Result<Definition, Failure> {
    let path = match file {
        DockerfileFrom::Default | DockerfileFrom::Stdin => default_dockerfile(directory),
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
    if !path.exists() {
        return Err(missing(path.strip_prefix(directory).unwrap_or(&path), None));
    }
    Ok(Definition { ignore: None, ..read_definition(&path)? })
}

/// The Dockerfile of a context that is an archive.
fn in_archive(archive: &Path, file: &DockerfileFrom) -> Result<Definition, Failure> {
    let names = match file {
        DockerfileFrom::Path(path) => vec![path.as_str()],
        DockerfileFrom::Default | DockerfileFrom::Stdin => vec!["Dockerfile", "dockerfile"],
    };
    let text = archive::read(archive, &names, MAX_DOCKERFILE)?;
    let text = text.ok_or_else(|| missing(Path::new(names[0]), None))?;
    let name = Path::new(names[0]).file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(Definition { name, text, ignore: None })
}

/// A Dockerfile on this machine, and the ignore file beside it.
fn read_definition(path: &Path) -> Result<Definition, Failure> {
    if !path.exists() {
        return Err(missing(path, path.parent()));
    }
    let mut ignore = path.as_os_str().to_owned();
    ignore.push(".dockerignore");
    let ignore = PathBuf::from(ignore);
    let name = path
        .file_name()
        .map_or_else(|| "Dockerfile".to_owned(), |it| it.to_string_lossy().into_owned());
    Ok(Definition {
        name,
        text: read_file(path)?,
        ignore: if ignore.is_file() { Some(read_file(&ignore)?) } else { None },
    })
}

/// There is no Dockerfile; `beside` is where a similar one may be.
fn missing(path: &Path, beside: Option<&Path>) -> Failure {
    let shown = path.display();
    let text = format!("failed to read dockerfile: open {shown}: no such file or directory");
    let similar = beside.and_then(|dir| Some(dir.join(similar_dockerfile(dir)?)));
    Failure::new(Kind::User, text).hint(match similar {
        Some(similar) => format!("there is {}: use -f", similar.display()),
        None => "-f names another file; the context is the last argument".to_owned(),
    })
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

fn read_file(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::File::open(path)
        .and_then(|file| limited(BufReader::new(file)))
        .map_err(|error| Failure::host(&format!("read {}", path.display()), &error))
}

/// All bytes, if they are no more than a Dockerfile may have.
fn limited(from: impl Read) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(MAX_DOCKERFILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_DOCKERFILE {
        let text = format!("a Dockerfile has at most {MAX_DOCKERFILE} bytes");
        return Err(std::io::Error::other(text));
    }
    Ok(bytes)
}
