//! `--output`: where the result goes.

use std::path::PathBuf;

use rbuild_solver::worker::proto::Compression;
use rbuild_store::compress::{GZIP_LEVEL, ZSTD_LEVEL};

use super::spec;
use crate::report::Failure;

/// One destination.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Output {
    /// What is written.
    pub kind: OutputKind,
    /// Where it goes.
    pub dest: Dest,
    /// How layers are written.
    pub image: ImageOptions,
}

/// What is written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum OutputKind {
    /// An image in the store, under its names; pushed with `push=true`.
    Image {
        /// Whether it is pushed.
        push: bool,
    },
    /// An OCI layout, as a tar or a directory.
    Oci {
        /// Whether it is a tar.
        tar: bool,
    },
    /// An archive for `docker load`, which is also an OCI layout.
    Docker {
        /// Whether it is a tar.
        tar: bool,
    },
    /// The tree as a tar.
    Tar,
    /// The tree as files.
    Local,
    /// Nothing: the result is in the cache.
    CacheOnly,
}

/// Where it goes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Dest {
    /// Nowhere but the store.
    Store,
    /// Standard output.
    Stdout,
    /// A file or directory.
    Path(PathBuf),
}

/// How an image is written.
#[derive(Clone, Debug, Eq, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "each is an attribute of its own")]
pub struct ImageOptions {
    /// Names, in addition to `--tag`.
    pub names: Vec<String>,
    /// How new layers are compressed.
    pub compression: Compression,
    /// Whether layers of the base image are compressed again.
    pub force_compression: bool,
    /// Whether OCI media types are used; none means the kind's default.
    pub oci_mediatypes: Option<bool>,
    /// Whether times in layers are set back to `SOURCE_DATE_EPOCH`.
    pub rewrite_timestamp: bool,
    /// `annotation.*`, `annotation-manifest.*`, `annotation-index.*`, …: attribute to value.
    pub annotations: Vec<(String, String)>,
    /// Whether the push goes by digest only.
    pub push_by_digest: bool,
    /// Whether one platform's subdirectory is made even for one platform (`local`).
    pub platform_split: Option<bool>,
    /// Whether the registry is reached without verified TLS.
    pub insecure: bool,
    /// Whether names are kept in the store.
    pub store: bool,
    /// Whether the image is also named with its digest.
    pub name_canonical: bool,
    /// What the image is named with its digest besides.
    pub dangling_prefix: Option<String>,
    /// Whether that holds only for an image without other names.
    pub dangling_empty_only: bool,
    /// `source-date-epoch`: times of the image, in seconds, instead of the build's.
    pub epoch: Option<i64>,
}

impl Default for ImageOptions {
    fn default() -> Self {
        Self {
            names: Vec::new(),
            compression: Compression::Gzip(GZIP_LEVEL),
            force_compression: false,
            oci_mediatypes: None,
            rewrite_timestamp: false,
            annotations: Vec::new(),
            push_by_digest: false,
            platform_split: None,
            insecure: false,
            store: true,
            name_canonical: false,
            dangling_prefix: None,
            dangling_empty_only: false,
            epoch: None,
        }
    }
}

impl Output {
    /// An image in the store.
    pub fn image(push: bool) -> Self {
        Self { kind: OutputKind::Image { push }, dest: Dest::Store, image: ImageOptions::default() }
    }

    /// Whether files of the tree are written.
    pub const fn wants_files(&self) -> bool {
        matches!(self.kind, OutputKind::Tar | OutputKind::Local)
    }

    /// Whether layers must be written as blobs.
    pub const fn wants_layers(&self) -> bool {
        match self.kind {
            OutputKind::Image { .. } | OutputKind::Oci { .. } | OutputKind::Docker { .. } => true,
            OutputKind::Tar | OutputKind::Local | OutputKind::CacheOnly => false,
        }
    }
}

/// Reads one `--output`: a directory, `-`, or attributes.
///
/// # Errors
///
/// If an attribute is unknown, contradictory or missing; the text names it.
pub fn parse(text: &str) -> Result<Output, Failure> {
    const FLAG: &str = "--output";
    if !text.contains('=') {
        let (kind, dest) = match text {
            "" => return Err(Failure::usage("--output needs a value")),
            "-" => (OutputKind::Tar, Dest::Stdout),
            "image" | "registry" => (OutputKind::Image { push: text == "registry" }, Dest::Store),
            "oci" => (OutputKind::Oci { tar: true }, Dest::Stdout),
            "docker" => (OutputKind::Docker { tar: true }, Dest::Stdout),
            "tar" => (OutputKind::Tar, Dest::Stdout),
            "cacheonly" => (OutputKind::CacheOnly, Dest::Store),
            path => (OutputKind::Local, Dest::Path(PathBuf::from(path))),
        };
        return Ok(Output { kind, dest, image: ImageOptions::default() });
    }
    let mut reader = Reader::default();
    for (key, value) in spec::pairs(FLAG, text)? {
        reader.attribute(&key, value)?;
    }
    reader.finish(text)
}

/// Attributes that each kind has, besides `type`, `dest` and `source-date-epoch`.
const OF_IMAGES: &[&str] = &[
    "name",
    "compression",
    "compression-level",
    "force-compression",
    "oci-mediatypes",
    "rewrite-timestamp",
    "annotation*",
];
const OF_STORE: &[&str] = &[
    "push",
    "push-by-digest",
    "registry.insecure",
    "store",
    "name-canonical",
    "dangling-name-prefix",
    "danging-name-empty-only",
];
const OF_ARCHIVES: &[&str] = &["tar"];
const OF_LOCAL: &[&str] = &["platform-split", "mode"];

/// Attributes of BuildKit that are not supported unless they are false, with the reason.
const REFUSED: &[(&str, &str)] = &[
    ("unpack", "layers are unpacked when something needs them"),
    ("prefer-nondist-layers", "layers are always distributable"),
    ("oci-artifact", "there are no attestations"),
    ("attestation-inline", "there are no attestations"),
    ("attestation-prefix", "there are no attestations"),
];

/// Attributes read so far.
#[derive(Default)]
struct Reader {
    /// Those that were given, and are not switched off.
    given: Vec<String>,
    kind: Option<String>,
    dest: Option<String>,
    push: bool,
    tar: Option<bool>,
    compression: Option<String>,
    level: Option<String>,
    image: ImageOptions,
}

impl Reader {
    fn attribute(&mut self, key: &str, value: Option<String>) -> Result<(), Failure> {
        let flag = format!("--output {key}");
        let truth = |value: &Option<String>| {
            value.as_deref().map_or(Ok(true), |it| spec::boolean(&flag, it))
        };
        let text = |value: Option<String>| {
            value.ok_or_else(|| Failure::usage(format!("{flag} needs a value")))
        };
        // What is switched off means nothing anywhere.
        let matters = [OF_ARCHIVES, OF_LOCAL].concat().contains(&key);
        if matters || truth(&value).ok() != Some(false) {
            self.given.push(key.to_owned());
        }
        match key {
            "type" => self.kind = Some(text(value)?),
            "dest" => self.dest = Some(text(value)?),
            "name" => self
                .image
                .names
                .extend(text(value)?.split(',').filter(|it| !it.is_empty()).map(str::to_owned)),
            "push" => self.push = truth(&value)?,
            "push-by-digest" => self.image.push_by_digest = truth(&value)?,
            "tar" => self.tar = Some(truth(&value)?),
            "compression" => self.compression = Some(text(value)?),
            "compression-level" => self.level = Some(text(value)?),
            "force-compression" => self.image.force_compression = truth(&value)?,
            "oci-mediatypes" => self.image.oci_mediatypes = Some(truth(&value)?),
            "rewrite-timestamp" => self.image.rewrite_timestamp = truth(&value)?,
            "platform-split" => self.image.platform_split = Some(truth(&value)?),
            "registry.insecure" => self.image.insecure = truth(&value)?,
            "store" => self.image.store = truth(&value)?,
            "name-canonical" => self.image.name_canonical = truth(&value)?,
            "dangling-name-prefix" => self.image.dangling_prefix = Some(text(value)?),
            "danging-name-empty-only" => self.image.dangling_empty_only = truth(&value)?,
            "source-date-epoch" => self.image.epoch = epoch(&text(value)?)?,
            "mode" => match text(value)?.trim().to_lowercase().as_str() {
                "" | "copy" => {}
                other => {
                    return Err(Failure::usage(format!("{flag}={other} is not supported"))
                        .hint("files that were there before stay: mode=copy"));
                }
            },
            _ if key.starts_with("annotation") => {
                self.image.annotations.push((key.to_owned(), text(value)?));
            }
            _ => return unsupported(key, truth(&value).is_ok_and(|it| !it)),
        }
        Ok(())
    }

    /// Refuses attributes that mean nothing for this kind of output.
    fn check_meant(&self, kind: OutputKind) -> Result<(), Failure> {
        let (name, meant) = match kind {
            OutputKind::Image { .. } => ("image", [OF_IMAGES, OF_STORE].concat()),
            OutputKind::Oci { .. } => ("oci", [OF_IMAGES, OF_ARCHIVES].concat()),
            OutputKind::Docker { .. } => ("docker", [OF_IMAGES, OF_ARCHIVES].concat()),
            OutputKind::Tar => ("tar", Vec::new()),
            OutputKind::CacheOnly => ("cacheonly", Vec::new()),
            OutputKind::Local => ("local", OF_LOCAL.to_vec()),
        };
        let known = [OF_IMAGES, OF_STORE, OF_ARCHIVES, OF_LOCAL].concat();
        let is = |list: &[&str], key: &str| {
            let whole = if key.starts_with("annotation") { "annotation*" } else { key };
            list.contains(&whole)
        };
        let other = self.given.iter().find(|it| is(&known, it) && !is(&meant, it));
        match other {
            Some(key) => Err(Failure::usage(format!("--output: type={name} has no `{key}`"))
                .hint(format!("it has: type, dest, source-date-epoch, {}", meant.join(", ")))),
            None => Ok(()),
        }
    }

    fn finish(mut self, spec_text: &str) -> Result<Output, Failure> {
        let kind = self
            .kind
            .as_deref()
            .ok_or_else(|| Failure::usage(format!("--output `{spec_text}`: type= is missing")))?;
        let kind = match kind {
            "image" => OutputKind::Image { push: self.push },
            "registry" => OutputKind::Image { push: true },
            "oci" => OutputKind::Oci { tar: self.tar.unwrap_or(true) },
            "docker" => OutputKind::Docker { tar: self.tar.unwrap_or(true) },
            "tar" => OutputKind::Tar,
            "local" => OutputKind::Local,
            "cacheonly" => OutputKind::CacheOnly,
            other => {
                return Err(Failure::usage(format!("--output: there is no type `{other}`"))
                    .hint("types: image, registry, oci, docker, tar, local, cacheonly"));
            }
        };
        self.check_meant(kind)?;
        self.image.compression = self.compression()?;
        let dest = match (kind, self.dest.as_deref()) {
            (OutputKind::Image { .. } | OutputKind::CacheOnly, None) => Dest::Store,
            (OutputKind::Image { .. } | OutputKind::CacheOnly, Some(_)) => {
                return Err(Failure::usage(format!(
                    "--output `{spec_text}`: this type has no dest"
                )));
            }
            (OutputKind::Local, None) => {
                return Err(Failure::usage("--output type=local needs dest=DIRECTORY"));
            }
            (
                OutputKind::Local
                | OutputKind::Oci { tar: false }
                | OutputKind::Docker { tar: false },
                Some("-") | None,
            ) => {
                return Err(Failure::usage(
                    "--output: a directory cannot be written to standard output: give dest=DIRECTORY",
                ));
            }
            (_, Some("-") | None) => Dest::Stdout,
            (_, Some("")) => return Err(Failure::usage("--output: dest is empty")),
            (_, Some(path)) => Dest::Path(PathBuf::from(path)),
        };
        Ok(Output { kind, dest, image: self.image })
    }

    fn compression(&self) -> Result<Compression, Failure> {
        let level = |default: i32, range: std::ops::RangeInclusive<i32>| match &self.level {
            None => Ok(default),
            Some(text) => text.parse().ok().filter(|it| range.contains(it)).ok_or_else(|| {
                Failure::usage(format!(
                    "--output: compression-level `{text}` is not a number from {} to {}",
                    range.start(),
                    range.end()
                ))
            }),
        };
        match self.compression.as_deref() {
            None | Some("gzip") => {
                Ok(Compression::Gzip(level(GZIP_LEVEL.cast_signed(), 0..=9)?.cast_unsigned()))
            }
            Some("zstd") => Ok(Compression::Zstd(level(ZSTD_LEVEL, 0..=22)?)),
            Some("uncompressed") => Ok(Compression::None),
            Some("estargz") => Err(Failure::usage(
                "--output: compression=estargz is not supported: use gzip or zstd",
            )),
            Some(other) => {
                Err(Failure::usage(format!("--output: there is no compression `{other}`"))
                    .hint("compressions: gzip, zstd, uncompressed"))
            }
        }
    }
}

/// Refuses an attribute, unless it is one of BuildKit's that is switched off.
fn unsupported(key: &str, is_off: bool) -> Result<(), Failure> {
    match REFUSED.iter().find(|(name, _)| *name == key) {
        Some(_) if is_off => Ok(()),
        Some((_, reason)) => {
            Err(Failure::usage(format!("--output: `{key}` is not supported: {reason}")))
        }
        None => {
            let known = [OF_IMAGES, OF_STORE, OF_ARCHIVES, OF_LOCAL].concat().join(", ");
            Err(Failure::usage(format!("--output: `{key}` is not supported"))
                .hint(format!("known attributes: type, dest, source-date-epoch, {known}")))
        }
    }
}

/// Seconds; an empty text is none.
fn epoch(text: &str) -> Result<Option<i64>, Failure> {
    let wrong = |_| Failure::usage(format!("--output: invalid source-date-epoch: {text}"));
    if text.is_empty() { Ok(None) } else { text.parse().map(Some).map_err(wrong) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes() {
        assert_eq!(parse("out").unwrap().kind, OutputKind::Local);
        assert_eq!(parse("-").unwrap().dest, Dest::Stdout);
        let oci = parse("type=oci,dest=a.tar,compression=zstd,compression-level=9").unwrap();
        assert_eq!(oci.image.compression, Compression::Zstd(9));
        assert_eq!(oci.dest, Dest::Path("a.tar".into()));
        assert_eq!(parse("type=registry").unwrap().kind, OutputKind::Image { push: true });
        let image = parse("type=image,unpack=false,store=false,name-canonical=true").unwrap().image;
        assert!(!image.store && image.name_canonical);
        assert_eq!(parse("type=tar,source-date-epoch=5").unwrap().image.epoch, Some(5));
    }

    #[test]
    fn nothing_unknown_is_accepted() {
        for (text, word) in [
            ("type=oci,colour=red", "colour"),
            ("type=ocl,dest=x", "ocl"),
            ("dest=x", "type="),
            ("type=local", "dest"),
            ("type=oci,compression=estargz,dest=x", "estargz"),
            ("type=oci,compression-level=11,dest=x", "11"),
            ("type=image,unpack=true", "`unpack` is not supported"),
            ("type=local,dest=x,mode=delete", "mode=delete is not supported"),
            ("type=local,dest=x,compression=zstd", "type=local has no `compression`"),
            ("type=oci,push=true", "type=oci has no `push`"),
            ("type=image,tar=false", "type=image has no `tar`"),
            ("type=tar,platform-split=false", "type=tar has no `platform-split`"),
            ("type=cacheonly,dest=x", "has no dest"),
            ("type=oci,source-date-epoch=soon", "invalid source-date-epoch: soon"),
            ("type=oci,attestation-inline=true", "there are no attestations"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.text.contains(word), "{text}: {error}");
        }
    }
}
