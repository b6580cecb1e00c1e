//! Images by name: from the store, from a registry, from an OCI layout.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rbuild_frontend::gateway::{GatewayError, GatewayErrorKind, ResolvedImage};
use rbuild_solver::session::{ImageLayer, Progress, SessionError, SessionErrorKind};
use rbuild_store::blobs::BlobWriter;
use rbuild_store::descriptor::Descriptor;
use rbuild_store::digest::{BlobId, DiffId};
use rbuild_store::image::config::ImageConfig;
use rbuild_store::image::manifest::{Document, Manifest};
use rbuild_store::image::source::{Source, document};
use rbuild_store::local::Store;
use rbuild_store::oci_layout::OciLayout;
use rbuild_store::platform::Platform;
use rbuild_store::reference::Reference;
use rbuild_store::registry::config::ConfigPaths;
use rbuild_store::registry::credentials::CredentialEnvironment;
use rbuild_store::registry::{
    Credentials, ErrorKind, Hosts, NetworkSettings, Proxies, Registry, RegistryError, Resolve,
    RetryPolicy,
};

use super::registry_error;
use crate::env::Env;

/// Largest manifest or configuration, in bytes.
const MAX_DOCUMENT: u64 = 4 << 20;

/// Deepest index in an index.
const MAX_DEPTH: usize = 4;

/// Where an image's blobs are.
#[derive(Clone, Debug)]
pub enum Origin {
    /// In the store.
    Store,
    /// In a registry.
    Registry(Reference),
    /// In an OCI layout.
    Layout(PathBuf),
}

/// An image that was found.
#[derive(Clone, Debug)]
pub struct Known {
    /// Identifier of the source operation, with the digest.
    pub pinned: String,
    /// Its configuration.
    pub config: ImageConfig,
    /// Its layers, lowest first.
    pub layers: Vec<ImageLayer>,
    /// Where its blobs are.
    pub origin: Origin,
}

/// How images are found.
#[derive(Debug)]
pub struct Images {
    store: Arc<Store>,
    env: Env,
    /// Whether registries are asked even for images that the store has.
    pull: bool,
    registry: OnceLock<Registry>,
    known: Mutex<BTreeMap<(String, Platform), Arc<Known>>>,
}

/// Why an image was not found.
#[derive(Clone, Debug)]
pub struct NotFound {
    /// Whose fault it is, and what to do.
    pub error: SessionError,
    /// Whether it does not exist, as opposed to could not be asked for.
    pub missing: bool,
}

impl From<SessionError> for NotFound {
    fn from(error: SessionError) -> Self {
        Self { error, missing: false }
    }
}

impl From<NotFound> for GatewayError {
    fn from(error: NotFound) -> Self {
        let kind = match (error.missing, error.error.kind) {
            (true, _) => GatewayErrorKind::NotFound,
            (false, SessionErrorKind::Host) => GatewayErrorKind::Host,
            (false, SessionErrorKind::User | SessionErrorKind::Remote) => GatewayErrorKind::Remote,
        };
        Self { kind, text: error.error.text, hint: error.error.hint }
    }
}

impl Images {
    /// Nothing is read or asked yet.
    pub fn new(store: Arc<Store>, env: Env, pull: bool) -> Self {
        Self { store, env, pull, registry: OnceLock::new(), known: Mutex::default() }
    }

    /// The registries, with the user's configuration and credentials.
    ///
    /// # Errors
    ///
    /// If a configuration file is wrong.
    pub fn registry(&self) -> Result<&Registry, SessionError> {
        if let Some(registry) = self.registry.get() {
            return Ok(registry);
        }
        let registry = connect(&self.env).map_err(|error| registry_error(&error))?;
        Ok(self.registry.get_or_init(|| registry))
    }

    /// Finds the image that `reference` names, for `platform`.
    ///
    /// # Errors
    ///
    /// If there is none, or nobody could be asked.
    pub async fn resolve(
        &self,
        reference: &str,
        platform: &Platform,
    ) -> Result<ResolvedImage, NotFound> {
        let known = match reference.split_once("://") {
            Some(("oci-layout", place)) => self.in_layout(place, platform)?,
            Some(("docker-image", name)) => self.by_name(name, platform).await?,
            Some(_) | None => self.by_name(reference, platform).await?,
        };
        let config = known.config.clone();
        let found = Platform {
            os: config.os.clone(),
            architecture: config.architecture.clone(),
            variant: config.variant.clone().unwrap_or_default(),
            os_version: config.os_version.clone().unwrap_or_default(),
        };
        let resolved = ResolvedImage { pinned: known.pinned.clone(), config, platform: found };
        let mut all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert((known.pinned.clone(), platform.clone()), Arc::new(known));
        Ok(resolved)
    }

    async fn by_name(&self, name: &str, platform: &Platform) -> Result<Known, NotFound> {
        let reference: Reference = name.parse().map_err(|error| {
            SessionError::user(format!("`{name}` is not an image name: {error}"))
        })?;
        let reference = reference.or_latest();
        if !self.pull
            && let Some(tag) =
                self.store.db().map_err(host)?.tag(&reference.to_string()).map_err(host)?
            && let Some(known) = self.in_store(&reference, &tag.target, platform)
        {
            return Ok(known);
        }
        self.in_registry(&reference, platform).await
    }

    /// An image that was built here under this name. One for another platform does not count.
    fn in_store(
        &self,
        reference: &Reference,
        top: &Descriptor,
        platform: &Platform,
    ) -> Option<Known> {
        let blobs = self.store.blobs();
        let (_, manifest) = select(blobs, top, platform, 0)?;
        let config: ImageConfig =
            serde_json::from_slice(&blobs.read(&manifest.config.digest, MAX_DOCUMENT).ok()?)
                .ok()?;
        let layers = layers(&manifest.layers, &config).ok()?;
        let whole =
            layers.iter().all(|layer| blobs.size(&layer.blob).is_ok_and(|size| size.is_some()));
        let pinned = format!("docker-image://{}", reference.clone().with_digest(top.digest.0));
        whole.then_some(Known { pinned, config, layers, origin: Origin::Store })
    }

    async fn in_registry(
        &self,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<Known, NotFound> {
        let db = self.store.db().map_err(host)?;
        let (name, shown) = (reference.to_string(), platform.to_string());
        let last_known = db.resolved(&name, &shown).map_err(host)?.map(|row| BlobId(row.digest));
        let local = |id: &BlobId| self.store.blobs().read(id, MAX_DOCUMENT).ok();
        let question = Resolve { reference, platform, last_known, local: &local };
        let resolved = self.registry()?.resolve(question).await.map_err(|error| NotFound {
            missing: matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NoPlatform),
            error: registry_error(&error),
        })?;
        for bytes in resolved.index.iter().chain([&resolved.manifest_bytes, &resolved.config_bytes])
        {
            self.store.blobs().put(bytes).map_err(host)?;
        }
        if last_known != Some(resolved.top.digest) {
            db.put_resolved(&name, &shown, &resolved.top.digest.0, self.env.now).map_err(host)?;
        }
        let config: ImageConfig =
            serde_json::from_slice(&resolved.config_bytes).map_err(|error| {
                SessionError::remote(format!("the configuration of {name} cannot be read: {error}"))
            })?;
        let layers = layers(&resolved.layers, &config)
            .map_err(|why| SessionError::remote(format!("{name}: {why}")))?;
        let pinned =
            format!("docker-image://{}", reference.clone().with_digest(resolved.top.digest.0));
        Ok(Known { pinned, config, layers, origin: Origin::Registry(reference.clone()) })
    }

    /// An image of an OCI layout: `PATH[:TAG][@DIGEST]`.
    fn in_layout(&self, place: &str, platform: &Platform) -> Result<Known, NotFound> {
        let (rest, digest) =
            place.split_once('@').map_or((place, None), |(rest, digest)| (rest, Some(digest)));
        let (path, tag) = match rest.rsplit_once(':') {
            Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
            Some(_) | None => (rest, None),
        };
        let dir = self.env.cwd.join(path);
        let wrong = |error: &dyn std::error::Error| NotFound {
            missing: true,
            error: SessionError::user(error.to_string()),
        };
        let layout = OciLayout::open(&dir).map_err(|error| wrong(&error))?;
        let top = layout.find(digest.or(tag)).map_err(|error| wrong(&error))?;
        let found = select(&layout, &top, platform, 0);
        let (descriptor, manifest) = found.ok_or_else(|| NotFound {
            missing: true,
            error: SessionError::user(format!(
                "the OCI layout {} has no image for {platform}",
                dir.display()
            )),
        })?;
        let config = layout.read(&manifest.config, MAX_DOCUMENT).map_err(|error| wrong(&error))?;
        let config: ImageConfig = serde_json::from_slice(&config).map_err(|error| wrong(&error))?;
        let layers = layers(&manifest.layers, &config).map_err(SessionError::user)?;
        let pinned = format!("oci-layout://{}@{}", dir.display(), descriptor.digest);
        Ok(Known { pinned, config, layers, origin: Origin::Layout(dir) })
    }

    /// An image that was resolved in this build.
    pub fn known(&self, pinned: &str) -> Option<Arc<Known>> {
        let all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().find(|((it, _), _)| it == pinned).map(|(_, known)| Arc::clone(known))
    }

    /// The layers of an image that a graph names.
    ///
    /// # Errors
    ///
    /// If it was not resolved before and cannot be found.
    pub async fn layers(
        &self,
        identifier: &str,
        platform: Option<&Platform>,
    ) -> Result<Vec<ImageLayer>, SessionError> {
        let find = || {
            let all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            let exact = platform.and_then(|it| all.get(&(identifier.to_owned(), it.clone())));
            exact
                .or_else(|| {
                    all.iter().find(|((it, _), _)| it == identifier).map(|(_, known)| known)
                })
                .cloned()
        };
        if let Some(known) = find() {
            return Ok(known.layers.clone());
        }
        let platform = platform.cloned().unwrap_or_else(host_platform);
        self.resolve(identifier, &platform).await.map_err(|it| it.error)?;
        Ok(find().map(|known| known.layers.clone()).unwrap_or_default())
    }

    /// Brings a layer's blob into the store, verified.
    ///
    /// # Errors
    ///
    /// If it cannot be had or is not what its digest says.
    pub async fn fetch_blob(
        &self,
        identifier: &str,
        layer: &ImageLayer,
        into: BlobWriter,
        progress: Progress<'_>,
    ) -> Result<(), SessionError> {
        let Some(known) = self.known(identifier) else {
            return Err(SessionError::user(format!("{identifier} was not resolved")));
        };
        let descriptor = Descriptor::new(&layer.media_type, layer.blob, layer.size);
        match &known.origin {
            Origin::Store => Err(SessionError {
                kind: SessionErrorKind::Host,
                text: format!("blob {} of {identifier} is not in the store any more", layer.blob),
                hint: None,
            }),
            Origin::Layout(dir) => {
                let dir = dir.clone();
                let copy = move || OciLayout::open(dir)?.copy_blob(into, &descriptor);
                let copied = tokio::task::spawn_blocking(copy)
                    .await
                    .map_err(|error| SessionError::user(error.to_string()))?;
                copied.map_err(|error| SessionError::remote(crate::report::chain(&error)))
            }
            Origin::Registry(reference) => {
                let download = self.registry()?.download(reference, &descriptor);
                let (id, size) = (descriptor.digest.to_string(), descriptor.size);
                let saved = match download {
                    Ok(download) => {
                        download.save(into, |done, all| progress(&id, done, all, false)).await
                    }
                    Err(error) => Err(error),
                };
                saved.map_err(|error| registry_error(&error))?;
                progress(&id, size, size, true);
                Ok(())
            }
        }
    }
}

/// The manifest for `platform` that `top` leads to.
fn select(
    source: &dyn Source,
    top: &Descriptor,
    platform: &Platform,
    depth: usize,
) -> Option<(Descriptor, Manifest)> {
    match document(source, top).ok()? {
        Document::Manifest(manifest) => Some((top.clone(), manifest)),
        Document::Index(index) if depth < MAX_DEPTH => {
            select(source, index.select(platform)?, platform, depth + 1)
        }
        Document::Index(_) => None,
    }
}

/// The layers of a manifest with the diff ids of the configuration.
fn layers(descriptors: &[Descriptor], config: &ImageConfig) -> Result<Vec<ImageLayer>, String> {
    let diff_ids: &[DiffId] = &config.rootfs.diff_ids;
    if descriptors.len() != diff_ids.len() {
        return Err(format!(
            "the manifest has {} layers, the configuration {}",
            descriptors.len(),
            diff_ids.len()
        ));
    }
    let pairs = descriptors.iter().zip(diff_ids);
    Ok(pairs
        .map(|(it, &diff_id)| ImageLayer {
            diff_id,
            blob: it.digest,
            size: it.size,
            media_type: it.media_type.clone(),
        })
        .collect())
}

/// The platform of this machine.
pub fn host_platform() -> Platform {
    Platform::host(std::env::consts::OS, std::env::consts::ARCH)
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err takes")]
fn host(error: rbuild_store::error::StoreError) -> NotFound {
    SessionError { kind: SessionErrorKind::Host, text: crate::report::chain(&error), hint: None }
        .into()
}

/// Registries as this user's files and environment describe them.
fn connect(env: &Env) -> Result<Registry, RegistryError> {
    let path = |name: &str| env.var(name).map(|it| env.cwd.join(it));
    let config = path("XDG_CONFIG_HOME").or_else(|| env.home().map(|it| it.join(".config")));
    let hosts = Hosts::load(&ConfigPaths {
        buildkit: path("RBUILD_MIRRORS"),
        containers: path("CONTAINERS_REGISTRIES_CONF"),
        ..ConfigPaths::standard(config.as_deref())
    })?;
    let credentials = Credentials::from_paths(
        CredentialEnvironment {
            registry_auth_file: path("REGISTRY_AUTH_FILE"),
            docker_config: path("DOCKER_CONFIG"),
            runtime_dir: path("XDG_RUNTIME_DIR"),
            config_home: path("XDG_CONFIG_HOME"),
            home: env.home(),
        }
        .paths(),
    );
    let variable =
        |name: &str| env.var(name).or_else(|| env.var(&name.to_uppercase())).map(str::to_owned);
    let network = NetworkSettings {
        user_agent: concat!("rbuild/", env!("CARGO_PKG_VERSION")).to_owned(),
        proxies: Proxies {
            http: variable("http_proxy"),
            https: variable("https_proxy"),
            all: variable("all_proxy"),
            no_proxy: variable("no_proxy"),
        },
        retry: RetryPolicy::NORMAL,
    };
    Ok(Registry::new(hosts, credentials, network))
}
