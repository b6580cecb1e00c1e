//! The tree itself, as files or as a tar.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;

use rbuild_solver::tree::view::View;
use rbuild_store::platform::Platform;

use super::{Exporter, Product};
use crate::cli::output::{Dest, Output};
use crate::report::{Failure, Kind};

/// Name of the directory that a platform's tree is in where there are several.
fn directory_of(product: &Product) -> String {
    product.platform.to_string().replace('/', "_")
}

impl Exporter {
    /// The tree as files of the user.
    pub(super) async fn local(&self, output: &Output, products: &[Product]) -> Result<(), Failure> {
        let Dest::Path(dest) = &output.dest else {
            return Err(Failure::usage("--output type=local needs dest=DIRECTORY"));
        };
        let split = output.image.platform_split.unwrap_or(self.multi_platform);
        let task = self.events.task("exporting to client directory");
        let work = async {
            if !split {
                self.check_apart(products).await?;
            }
            for product in products {
                let (directory, part) = if split {
                    (
                        dest.join(directory_of(product)),
                        format!("copying files {}", product.platform),
                    )
                } else {
                    (dest.clone(), "copying files".to_owned())
                };
                let opened = open_directory(&directory)?;
                self.layers.chain_on_disk(&product.chain).await?;
                let left_out = self
                    .worker
                    .export_dir(product.chain.clone(), opened, product.epoch)
                    .await
                    .map_err(rbuild_solver::solve::SolveError::from)?;
                if !left_out.is_empty() {
                    task.warn(format!(
                        "left out of {}, because this host lets only root make device nodes: {} (type=tar and images have them)",
                        directory.display(),
                        left_out.join(", ")
                    ));
                }
                task.done_part(&part);
            }
            Ok::<_, Failure>(())
        };
        let result = work.await;
        task.end(result)
    }

    /// Refuses trees of several platforms that have the same files: they go to one directory.
    async fn check_apart(&self, products: &[Product]) -> Result<(), Failure> {
        let mut seen: BTreeMap<Vec<u8>, &Platform> = BTreeMap::new();
        for product in products.iter().filter(|_| products.len() > 1) {
            let view = View::new(self.layers.listings(&product.chain).await?);
            let mut twice = None;
            view.walk(&view.root(), &mut |node| {
                if !node.is_dir()
                    && twice.is_none()
                    && let Some(other) = seen.insert(node.path().to_vec(), &product.platform)
                {
                    twice = Some((node.path().to_vec(), other));
                }
                true
            });
            if let Some((path, other)) = twice {
                let (path, platform) = (String::from_utf8_lossy(&path), &product.platform);
                return Err(Failure::new(
                    Kind::User,
                    format!("cannot overwrite {path} from {other} with {platform} when split option is disabled"),
                )
                .hint("without platform-split=false each platform gets a directory of its own"));
            }
        }
        Ok(())
    }

    /// The tree as a tar; those of several platforms in a directory each.
    pub(super) async fn tar(&self, output: &Output, products: &[Product]) -> Result<(), Failure> {
        let task = self.events.task("exporting to client tarball");
        let work = async {
            let mut trees = Vec::with_capacity(products.len());
            for product in products {
                self.layers.chain_on_disk(&product.chain).await?;
                let directory =
                    if self.multi_platform { directory_of(product) } else { String::new() };
                trees.push((directory, product.chain.clone()));
            }
            let epoch = products.first().and_then(|product| product.epoch);
            let (out, finish) = open_file(&output.dest)?;
            self.worker
                .export_tar(trees, out, epoch)
                .await
                .map_err(rbuild_solver::solve::SolveError::from)?;
            if let Some((temporary, path)) = finish {
                temporary.persist(&path).map_err(|error| {
                    Failure::host(&format!("rename into {}", path.display()), &error.error)
                })?;
            }
            task.done_part("sending tarball");
            Ok::<_, Failure>(())
        };
        let result = work.await;
        task.end(result)
    }
}

fn open_directory(path: &Path) -> Result<OwnedFd, Failure> {
    std::fs::create_dir_all(path)
        .and_then(|()| File::open(path))
        .map(OwnedFd::from)
        .map_err(|error| Failure::host(&format!("create the directory {}", path.display()), &error))
}

/// A file that is still to be given its name.
type Unnamed = (tempfile::NamedTempFile, std::path::PathBuf);

/// Where the tar goes: a file beside its destination, which gets its name at the end; or what is
/// there already and no regular file, or standard output.
fn open_file(dest: &Dest) -> Result<(OwnedFd, Option<Unnamed>), Failure> {
    let path = match dest {
        Dest::Stdout | Dest::Store => {
            let out = rustix::io::dup(std::io::stdout());
            return Ok((
                out.map_err(|error| {
                    Failure::host("use standard output", &std::io::Error::from(error))
                })?,
                None,
            ));
        }
        Dest::Path(path) => path,
    };
    let cannot =
        |error: std::io::Error| Failure::host(&format!("create {}", path.display()), &error);
    if path.metadata().is_ok_and(|it| !it.is_file()) {
        let file = File::options().write(true).open(path).map_err(cannot)?;
        return Ok((file.into(), None));
    }
    let directory = path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let temporary = tempfile::Builder::new()
        .prefix(".rbuild-")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .tempfile_in(directory)
        .map_err(cannot)?;
    let file = temporary.as_file().try_clone().map_err(cannot)?;
    Ok((file.into(), Some((temporary, path.clone()))))
}
