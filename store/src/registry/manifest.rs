//! What a manifest says that is needed to pull: configuration, layers, images per platform.
//!
//! The bytes themselves are kept by those who asked; here they are only read.

use serde::Deserialize;

use super::error::{ErrorKind, RegistryError, printable};
use crate::descriptor::Descriptor;
use crate::media_type;
use crate::platform::Platform;

/// Media types of Docker's first schema start like this.
const DOCKER_SCHEMA1: &str = "application/vnd.docker.distribution.manifest.v1+";
/// Most platforms that an error lists.
const MAX_LISTED: usize = 24;

/// The two kinds of manifests.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Manifest {
    Image { config: Box<Descriptor>, layers: Vec<Descriptor> },
    Index { manifests: Vec<Descriptor> },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    schema_version: Option<u32>,
    media_type: Option<String>,
    config: Option<serde_json::Value>,
    layers: Option<serde_json::Value>,
    manifests: Option<serde_json::Value>,
}

/// Reads a manifest that came with the header `content_type`, and tells its media type.
pub(crate) fn parse(
    bytes: &[u8],
    content_type: Option<&str>,
) -> Result<(String, Manifest), RegistryError> {
    let content_type =
        content_type.map(|it| it.split(';').next().unwrap_or(it).trim()).filter(|it| {
            !matches!(*it, "" | "application/json" | "text/plain" | "application/octet-stream")
        });
    let raw: Raw = serde_json::from_slice(bytes).map_err(|it| invalid(&it.to_string()))?;
    if content_type.is_some_and(|it| it.starts_with(DOCKER_SCHEMA1))
        || raw.schema_version == Some(1)
    {
        let detail = "the manifest is in Docker's old schema 1, which is not supported";
        return Err(RegistryError::new(ErrorKind::Unsupported, detail).with_hint(
            "push the image again with a tool of today, for instance `skopeo copy --format oci`",
        ));
    }
    // An answer that can be read both ways has been used to deceive (CVE-2021-41190).
    let is_index = match (raw.manifests.is_some(), raw.layers.is_some() || raw.config.is_some()) {
        (true, false) => true,
        (false, true) => false,
        (true, true) => return Err(invalid("it is both an image and an index")),
        (false, false) => return Err(invalid("it is neither an image nor an index")),
    };
    let guess = if is_index { media_type::OCI_INDEX } else { media_type::OCI_MANIFEST };
    let stated = raw.media_type.as_deref().filter(|it| !it.is_empty());
    let kind = stated.or(content_type).unwrap_or(guess);
    let known = match kind {
        media_type::OCI_INDEX | media_type::DOCKER_INDEX => is_index,
        media_type::OCI_MANIFEST | media_type::DOCKER_MANIFEST => !is_index,
        _ => {
            let detail = format!("media type `{}` is not that of an image", printable(kind));
            return Err(RegistryError::new(ErrorKind::Unsupported, detail));
        }
    };
    if !known {
        return Err(invalid("its media type contradicts its content"));
    }
    let manifest = if is_index {
        Manifest::Index { manifests: field("manifests", raw.manifests)? }
    } else {
        Manifest::Image {
            config: Box::new(field("config", raw.config)?),
            layers: field("layers", raw.layers)?,
        }
    };
    Ok((kind.to_owned(), manifest))
}

fn field<T: serde::de::DeserializeOwned>(
    name: &str,
    value: Option<serde_json::Value>,
) -> Result<T, RegistryError> {
    let value = value.ok_or_else(|| invalid(&format!("`{name}` is missing")))?;
    serde_json::from_value(value).map_err(|it| invalid(&format!("`{name}`: {it}")))
}

fn invalid(reason: &str) -> RegistryError {
    let detail = format!("the manifest makes no sense: {}", printable(reason));
    RegistryError::new(ErrorKind::Invalid, detail)
}

/// The image for `wanted` out of an index: of the best platform, the first.
pub(crate) fn select<'a>(
    manifests: &'a [Descriptor],
    wanted: &Platform,
) -> Result<&'a Descriptor, RegistryError> {
    let rank = |it: &Descriptor| it.platform.as_ref().and_then(|it| it.rank(wanted));
    let ranked = manifests.iter().filter_map(|it| Some((rank(it)?, it)));
    if let Some((_, found)) = ranked.min_by_key(|(rank, _)| *rank) {
        return Ok(found);
    }
    if let Some(found) = manifests.iter().find(|it| it.platform.is_none() && is_manifest(it)) {
        return Ok(found);
    }
    let mut listed: Vec<String> = Vec::new();
    for platform in manifests.iter().filter_map(|it| it.platform.as_ref()).map(Platform::normalized)
    {
        let text = platform.short();
        if platform.os != "unknown" && !listed.contains(&text) {
            listed.push(printable(&text));
        }
    }
    let detail = format!("no match for platform in manifest: there is no image for {wanted}");
    let error = RegistryError::new(ErrorKind::NoPlatform, detail);
    if listed.is_empty() {
        return Err(error.with_hint("the index lists no image at all"));
    }
    let more = if listed.len() > MAX_LISTED { ", …" } else { "" };
    listed.truncate(MAX_LISTED);
    Err(error.with_hint(format!("it exists for {}{more}", listed.join(", "))))
}

fn is_manifest(descriptor: &Descriptor) -> bool {
    media_type::MANIFESTS.contains(&descriptor.media_type.as_str())
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;
    use crate::digest::{BlobId, Digest};

    #[track_caller]
    fn refused(text: &str, content_type: Option<&str>, want: &Expect) {
        want.assert_eq(&parse(text.as_bytes(), content_type).unwrap_err().to_string());
    }

    #[test]
    fn refuses_what_is_not_an_image() {
        refused(
            "{",
            None,
            &expect!["the manifest makes no sense: EOF while parsing an object at line 1 column 1"],
        );
        refused(
            "{}",
            None,
            &expect!["the manifest makes no sense: it is neither an image nor an index"],
        );
        refused(
            r#"{"schemaVersion":1,"fsLayers":[]}"#,
            None,
            &expect!["the manifest is in Docker's old schema 1, which is not supported"],
        );
        refused(
            "{}",
            Some("application/vnd.docker.distribution.manifest.v1+prettyjws"),
            &expect!["the manifest is in Docker's old schema 1, which is not supported"],
        );
        refused(
            r#"{"manifests":[],"layers":[]}"#,
            None,
            &expect!["the manifest makes no sense: it is both an image and an index"],
        );
        refused(
            r#"{"manifests":[]}"#,
            Some(media_type::OCI_MANIFEST),
            &expect!["the manifest makes no sense: its media type contradicts its content"],
        );
        refused(
            r#"{"layers":[]}"#,
            None,
            &expect!["the manifest makes no sense: `config` is missing"],
        );
        refused(
            r#"{"layers":[],"mediaType":"text/x"}"#,
            None,
            &expect!["media type `text/x` is not that of an image"],
        );
        refused(
            r#"{"config":{"digest":"md5:1","size":1},"layers":[]}"#,
            Some("application/json"),
            &expect![
                "the manifest makes no sense: `config`: expected a digest that starts with `sha256:`"
            ],
        );
    }

    #[test]
    fn the_body_goes_before_the_header() {
        let text = format!(r#"{{"mediaType":"{}","manifests":[]}}"#, media_type::DOCKER_INDEX);
        let (kind, manifest) = parse(text.as_bytes(), Some(media_type::OCI_INDEX)).unwrap();
        assert_eq!(kind, media_type::DOCKER_INDEX);
        assert_eq!(manifest, Manifest::Index { manifests: Vec::new() });
    }

    fn index(platforms: &str) -> Vec<Descriptor> {
        platforms
            .split_whitespace()
            .map(|text| {
                let mut it = Descriptor::new(
                    media_type::OCI_MANIFEST,
                    BlobId(Digest::of(text.as_bytes())),
                    1,
                );
                let mut parts = text.split('/').map(str::to_owned);
                it.platform = Some(Platform {
                    os: parts.next().unwrap(),
                    architecture: parts.next().unwrap(),
                    variant: parts.next().unwrap_or_default(),
                    os_version: String::new(),
                });
                it
            })
            .collect()
    }

    #[track_caller]
    fn check(platforms: &str, wanted: &str, want: &str) {
        let manifests = index(platforms);
        let text = match select(&manifests, &wanted.parse().unwrap()) {
            Ok(it) => it.platform.as_ref().unwrap().short(),
            Err(error) => format!("{error}; {}", error.hint().unwrap_or_default()),
        };
        assert_eq!(text, want);
    }

    #[test]
    fn selects_the_best_platform() {
        let all = "unknown/unknown linux/386 linux/arm/v6 linux/arm/v7 linux/arm64/v8 linux/amd64";
        check(all, "linux/amd64", "linux/amd64");
        check(all, "linux/arm64", "linux/arm64/v8");
        check(all, "linux/arm/v7", "linux/arm/v7");
        check(all, "linux/arm/v6", "linux/arm/v6");
        check(all, "linux/amd64/v3", "linux/amd64");
        check("linux/amd64 linux/amd64/v2", "linux/amd64/v3", "linux/amd64/v2");
        check("linux/386", "linux/amd64", "linux/386");
        check(
            all,
            "linux/s390x",
            "no match for platform in manifest: there is no image for linux/s390x; \
             it exists for linux/386, linux/arm/v6, linux/arm/v7, linux/arm64, linux/amd64",
        );
        check(
            "",
            "linux/amd64",
            "no match for platform in manifest: there is no image for linux/amd64; \
             the index lists no image at all",
        );
    }
}
