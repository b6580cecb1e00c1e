//! What a manifest says that is needed to pull: configuration, layers, images per platform.
//!
//! The bytes themselves are kept by those who asked; here they are only read.

use super::error::{ErrorKind, RegistryError, printable};
use crate::descriptor::Descriptor;
use crate::image::manifest::{Document, Index, Shape};
use crate::media_type;
use crate::platform::Platform;

/// Media types of Docker's first schema start like this.
const DOCKER_SCHEMA1: &str = "application/vnd.docker.distribution.manifest.v1+";
/// Most platforms that an error lists.
const MAX_LISTED: usize = 24;

/// Reads a manifest that came with the header `content_type`, and tells its media type.
pub(crate) fn parse(
    bytes: &[u8],
    content_type: Option<&str>,
) -> Result<(String, Document), RegistryError> {
    let content_type =
        content_type.map(|it| it.split(';').next().unwrap_or(it).trim()).filter(|it| {
            !matches!(*it, "" | "application/json" | "text/plain" | "application/octet-stream")
        });
    let shape = Shape::of(bytes).map_err(|it| invalid(&it))?;
    if content_type.is_some_and(|it| it.starts_with(DOCKER_SCHEMA1)) || shape.schema_version == 1 {
        let detail = "the manifest is in Docker's old schema 1, which is not supported";
        return Err(RegistryError::new(ErrorKind::Unsupported, detail).with_hint(
            "push the image again with a tool of today, for instance `skopeo copy --format oci`",
        ));
    }
    let is_index = shape.is_index().map_err(|it| invalid(&it))?;
    let guess = if is_index { media_type::OCI_INDEX } else { media_type::OCI_MANIFEST };
    let stated = Some(shape.media_type.as_str()).filter(|it| !it.is_empty());
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
    let document = Document::of_kind(bytes, is_index).map_err(|it| invalid(&it))?;
    Ok((kind.to_owned(), document))
}

fn invalid(reason: &str) -> RegistryError {
    let detail = format!("the manifest makes no sense: {}", printable(reason));
    RegistryError::new(ErrorKind::Invalid, detail)
}

/// The image for `wanted` out of an index: of the best platform, the first.
pub(crate) fn select<'a>(
    index: &'a Index,
    wanted: &Platform,
) -> Result<&'a Descriptor, RegistryError> {
    if let Some(found) = index.select(wanted) {
        return Ok(found);
    }
    let detail = format!("no match for platform in manifest: there is no image for {wanted}");
    let error = RegistryError::new(ErrorKind::NoPlatform, detail);
    let mut listed: Vec<String> = index.platforms().iter().map(|it| printable(it)).collect();
    if listed.is_empty() {
        return Err(error.with_hint("the index lists no image at all"));
    }
    let more = if listed.len() > MAX_LISTED { ", …" } else { "" };
    listed.truncate(MAX_LISTED);
    Err(error.with_hint(format!("it exists for {}{more}", listed.join(", "))))
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
            &expect!["the manifest makes no sense: missing field `config` at line 1 column 13"],
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
                "the manifest makes no sense: expected a digest that starts with `sha256:` at line 1 column 27"
            ],
        );
    }

    #[test]
    fn the_body_goes_before_the_header() {
        let text = format!(r#"{{"mediaType":"{}","manifests":[]}}"#, media_type::DOCKER_INDEX);
        let (kind, manifest) = parse(text.as_bytes(), Some(media_type::OCI_INDEX)).unwrap();
        assert_eq!(kind, media_type::DOCKER_INDEX);
        assert!(matches!(manifest, Document::Index(index) if index.manifests.is_empty()));
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
        let index = Index::new(media_type::Family::Oci, index(platforms));
        let text = match select(&index, &wanted.parse().unwrap()) {
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
