//! Where a result goes: images into the store, registries and archives, trees into files.

mod ahead;
mod annotations;
mod archive;
mod image;
mod origin;
mod push;
mod tree;

use std::sync::Arc;

use rbuild_solver::solve::{EventSink, Layers, SealOptions};
use rbuild_solver::worker::client::Worker;
use rbuild_solver::worker::proto::Chain;
use rbuild_store::digest::BlobId;
use rbuild_store::image::config::ImageConfig;
use rbuild_store::local::Store;
use rbuild_store::platform::Platform;
use rbuild_store::reference::Reference;
use serde_json::{Map, Value, json};

pub use self::ahead::Ahead;
pub use self::origin::of_layers;
pub use self::push::push_stored;
use crate::cli::output::{ImageOptions, Output, OutputKind};
use crate::report::Failure;
use crate::session::images::Images;

/// What was built for one platform.
#[derive(Clone, Debug)]
pub struct Product {
    /// Its platform.
    pub platform: Platform,
    /// Its tree.
    pub chain: Chain,
    /// What each layer of the tree comes from, in words.
    pub origins: Vec<String>,
    /// Its configuration, without layers.
    pub config: ImageConfig,
    /// `SOURCE_DATE_EPOCH` in seconds, if there is one.
    pub epoch: Option<i64>,
}

/// What outputs work with.
#[derive(Debug)]
pub struct Exporter {
    /// Where blobs are.
    pub store: Arc<Store>,
    /// The build's layers.
    pub layers: Arc<Layers>,
    /// Who reads files.
    pub worker: Worker,
    /// Registries, and where base images came from.
    pub images: Arc<Images>,
    /// Layers that are on their way to registries already.
    pub ahead: Option<Arc<Ahead>>,
    /// Where progress goes.
    pub events: EventSink,
    /// Names of the image.
    pub tags: Vec<Reference>,
    /// Annotations of the command line.
    pub annotations: Vec<(String, String)>,
    /// Whether the result is an index even for one platform.
    pub multi_platform: bool,
    /// Seconds since the epoch.
    pub now: i64,
}

/// What is told about a build: BuildKit's exporter response.
#[derive(Clone, Debug, Default)]
pub struct Response {
    /// Digest of the manifest or index, where an image was made.
    pub digest: Option<BlobId>,
    /// Digest of the configuration, where there is one platform.
    pub config: Option<BlobId>,
    /// The document for `--metadata-file`.
    pub metadata: Map<String, Value>,
}

/// How layers of a result become blobs for `options`.
pub fn seal_options(options: &ImageOptions, epoch: Option<i64>) -> SealOptions {
    SealOptions {
        compression: options.compression,
        clamp_mtime: epoch.filter(|_| options.rewrite_timestamp),
    }
}

impl Exporter {
    /// Writes all outputs, one after the other: they share layers and registries.
    ///
    /// # Errors
    ///
    /// The first failure; outputs before it are written.
    pub async fn write(
        &self,
        outputs: &[Output],
        products: &[Product],
    ) -> Result<Response, Failure> {
        let mut response = Response::default();
        for output in outputs {
            let dated = output.image.epoch.map(|epoch| image::dated(products, epoch));
            let products = dated.as_deref().unwrap_or(products);
            match output.kind {
                OutputKind::Image { push } => {
                    self.image(output, push, products, &mut response).await?;
                }
                OutputKind::Oci { tar } => {
                    self.archive(output, tar, false, products, &mut response).await?;
                }
                OutputKind::Docker { tar } => {
                    self.archive(output, tar, true, products, &mut response).await?;
                }
                OutputKind::Tar => self.tar(output, products).await?,
                OutputKind::Local => self.local(output, products).await?,
                OutputKind::CacheOnly => {}
            }
        }
        Ok(response)
    }

    /// All names that an output gives the image.
    fn names(&self, options: &ImageOptions) -> Result<Vec<Reference>, Failure> {
        names(&self.tags, options)
    }

    /// Notes what was made.
    fn note(image: &image::Assembled, names: &[Reference], response: &mut Response) {
        response.digest = Some(image.top.descriptor.digest);
        response
            .metadata
            .insert("containerimage.digest".to_owned(), json!(image.top.descriptor.digest));
        if let [only] = image.images.as_slice() {
            response.config = Some(only.config.descriptor.digest);
            response.metadata.insert(
                "containerimage.config.digest".to_owned(),
                json!(only.config.descriptor.digest),
            );
        }
        response
            .metadata
            .insert("containerimage.descriptor".to_owned(), json!(image.top.descriptor));
        if !names.is_empty() {
            let joined: Vec<String> = names.iter().map(ToString::to_string).collect();
            response.metadata.insert("image.name".to_owned(), json!(joined.join(",")));
        }
    }
}

/// The names `tags` and those of an output.
///
/// # Errors
///
/// One is not a name, or has a digest.
pub fn names(tags: &[Reference], options: &ImageOptions) -> Result<Vec<Reference>, Failure> {
    let mut names = tags.to_vec();
    for name in &options.names {
        names.push(parse_name("--output name", name)?);
    }
    Ok(names)
}

/// Reads the name of an image; without a tag it is `latest`.
///
/// # Errors
///
/// If it is not a name, or has a digest.
pub fn parse_name(flag: &str, name: &str) -> Result<Reference, Failure> {
    let reference: Reference = name
        .parse()
        .map_err(|error| Failure::usage(format!("{flag} `{name}`: invalid tag: {error}")))?;
    let reference = reference.or_latest();
    if reference.digest().is_some() {
        return Err(Failure::usage(format!(
            "{flag} `{name}`: a name that is given cannot have a digest"
        )));
    }
    Ok(reference)
}
