//! The tree itself, as files or as a tar.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;

use super::{Exporter, Product};
use crate::cli::output::{Dest, Output};
use crate::report::Failure;

impl Exporter {
    /// The tree as files of the user.
    pub(super) async fn local(&self, output: &Output, products: &[Product]) -> Result<(), Failure> {
        let Dest::Path(dest) = &output.dest else {
            return Err(Failure::usage("--output type=local needs dest=DIRECTORY"));
        };
        let split = output.image.platform_split.unwrap_or(true)
            && (products.len() > 1 || self.multi_platform);
        if !split && products.len() > 1 {
            return Err(Failure::usage(
                "--output platform-split=false: several platforms would overwrite each other",
            ));
        }
        let task = self.events.task("exporting to client directory");
        let work = async {
            for product in products {
                let directory = if split {
                    dest.join(product.platform.to_string().replace('/', "_"))
                } else {
                    dest.clone()
                };
                let opened = open_directory(&directory)?;
                self.layers.chain_on_disk(&product.chain).await?;
                self.worker
                    .export_dir(product.chain.clone(), opened)
                    .await
                    .map_err(rbuild_solver::solve::SolveError::from)?;
            }
            task.done_part("copying files");
            Ok::<_, Failure>(())
        };
        let result = work.await;
        task.end(result)
    }

    /// The tree as a tar.
    pub(super) async fn tar(&self, output: &Output, products: &[Product]) -> Result<(), Failure> {
        let [product] = products else {
            return Err(Failure::usage("--output type=tar holds one platform")
                .hint("use type=oci for several"));
        };
        let task = self.events.task("exporting to client tarball");
        let work = async {
            self.layers.chain_on_disk(&product.chain).await?;
            let clamp = product.epoch.filter(|_| output.image.rewrite_timestamp);
            let (out, finish) = open_file(&output.dest)?;
            self.worker
                .export_tar(product.chain.clone(), out, clamp)
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
