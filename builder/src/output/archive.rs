//! OCI layouts and archives for `docker load`.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use rbuild_store::archive::{DockerImage, write_docker, write_oci};
use rbuild_store::blobs::Blobs;
use rbuild_store::descriptor::{CONTAINERD_IMAGE_NAME, Descriptor, REF_NAME};
use rbuild_store::image::error::ImageError;
use rbuild_store::oci_layout;
use rbuild_store::reference::Reference;

use super::image::Assembled;
use super::{Exporter, Product, Response};
use crate::cli::output::{Dest, Output};
use crate::report::{Failure, Kind};

impl Exporter {
    /// An OCI layout, or an archive for `docker load`.
    pub(super) async fn archive(
        &self,
        output: &Output,
        tar: bool,
        docker: bool,
        products: &[Product],
        response: &mut Response,
    ) -> Result<(), Failure> {
        if docker && products.len() > 1 {
            return Err(Failure::usage("--output type=docker holds one platform")
                .hint("use type=oci for several"));
        }
        let names = self.names(&output.image)?;
        let what = if docker {
            "exporting to docker image format"
        } else {
            "exporting to oci image format"
        };
        let task = self.events.task(what);
        let work = async {
            let image = self.assemble(&output.image, products, !docker).await?;
            task.done_part("exporting layers");
            task.done_part(&format!("exporting manifest {}", image.top.descriptor.digest));
            self.fetch_all(&image).await?;
            let roots = roots(&image, &names);
            let docker_image = docker.then(|| DockerImage {
                manifest: image.images.first().map_or_else(
                    || image.top.descriptor.clone(),
                    |it| it.manifest.descriptor.clone(),
                ),
                tags: names.iter().map(Reference::familiar).collect(),
            });
            let (store, dest) = (std::sync::Arc::clone(&self.store), output.dest.clone());
            let write = move || write(store.blobs(), &dest, tar, &roots, docker_image.as_ref());
            let written = tokio::task::spawn_blocking(write).await;
            written.unwrap_or_else(|error| Err(Failure::new(Kind::Bug, error.to_string())))?;
            task.done_part("sending tarball");
            Ok::<_, Failure>(image)
        };
        let image = work.await;
        let image = task.end(image)?;
        Self::note(&image, &names, response);
        Ok(())
    }
}

/// Entries of the layout's index: one for each name, or one without.
fn roots(image: &Assembled, names: &[Reference]) -> Vec<Descriptor> {
    let mut plain = image.top.descriptor.clone();
    plain.annotations.clone_from(&image.entry_annotations);
    if names.is_empty() {
        return vec![plain];
    }
    names
        .iter()
        .map(|name| {
            let mut entry = plain.clone();
            entry.annotations.insert(CONTAINERD_IMAGE_NAME.to_owned(), name.to_string());
            entry
                .annotations
                .insert(REF_NAME.to_owned(), name.tag().unwrap_or("latest").to_owned());
            entry
        })
        .collect()
}

fn write(
    blobs: &Blobs,
    dest: &Dest,
    tar: bool,
    roots: &[Descriptor],
    docker: Option<&DockerImage>,
) -> Result<(), Failure> {
    match dest {
        Dest::Path(path) if !tar => {
            oci_layout::write_dir(path, blobs, roots).map_err(|error| failed(&error))
        }
        Dest::Path(path) => to_file(path, |out| write_tar(out, blobs, roots, docker)),
        Dest::Stdout | Dest::Store => {
            let mut out = io::stdout().lock();
            write_tar(&mut out, blobs, roots, docker)
        }
    }
}

fn write_tar(
    out: &mut dyn Write,
    blobs: &Blobs,
    roots: &[Descriptor],
    docker: Option<&DockerImage>,
) -> Result<(), Failure> {
    let written = match docker {
        Some(image) => write_docker(out, blobs, roots, std::slice::from_ref(image)),
        None => write_oci(out, blobs, roots),
    };
    let out = written.map_err(|error| failed(&error))?;
    out.flush().map_err(|error| Failure::host("write the archive", &error))
}

fn failed(error: &ImageError) -> Failure {
    Failure::new(Kind::Host, crate::report::chain(error))
}

/// Writes a file that appears only when it is whole. What is not a regular file (a pipe, a device)
/// is written directly.
pub fn to_file(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let cannot = |action: &str, error: io::Error| {
        Failure::host(&format!("{action} {}", path.display()), &error)
    };
    if path.metadata().is_ok_and(|it| !it.is_file()) {
        let mut out =
            File::options().write(true).open(path).map_err(|error| cannot("write", error))?;
        return write(&mut out);
    }
    let directory = path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let temporary = tempfile::Builder::new()
        .prefix(".rbuild-")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .tempfile_in(directory)
        .map_err(|error| cannot("create a file beside", error))?;
    let mut out = BufWriter::with_capacity(1 << 20, temporary);
    write(&mut out)?;
    let temporary = out.into_inner().map_err(|error| cannot("write", error.into_error()))?;
    temporary.persist(path).map_err(|error| cannot("rename into", error.error))?;
    Ok(())
}
