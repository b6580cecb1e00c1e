//! Annotations: which attribute speaks of what.

use rbuild_store::platform::Platform;

use crate::report::Failure;

/// What an annotation is about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Subject {
    /// The manifest of a platform.
    Manifest,
    /// The index's entry for that manifest.
    ManifestDescriptor,
    /// The index.
    Index,
    /// The entry for the index in an OCI layout.
    IndexDescriptor,
}

/// An annotation.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Annotation {
    /// What it is about.
    pub subject: Subject,
    /// Only for this platform; none means all.
    pub platform: Option<Platform>,
    /// Name.
    pub key: String,
    /// Value.
    pub value: String,
}

/// Reads `annotation[-SUBJECT][[PLATFORM]].KEY`.
///
/// # Errors
///
/// If it is not of that form.
pub fn parse(attribute: &str, value: &str) -> Result<Annotation, Failure> {
    let wrong = || {
        Failure::usage(format!("annotation `{attribute}`: expected annotation[-SUBJECT].KEY=VALUE"))
    };
    let (head, key) = match attribute.find(['.', '[']) {
        Some(at) if attribute[at..].starts_with('[') => {
            let (platform, key) = attribute[at + 1..].split_once("].").ok_or_else(wrong)?;
            let platform = platform
                .parse()
                .map_err(|error| Failure::usage(format!("annotation `{attribute}`: {error}")))?;
            ((&attribute[..at], Some(platform)), key)
        }
        Some(at) => ((&attribute[..at], None), &attribute[at + 1..]),
        None => return Err(wrong()),
    };
    let subject = match head.0 {
        "annotation" | "annotation-manifest" => Subject::Manifest,
        "annotation-manifest-descriptor" => Subject::ManifestDescriptor,
        "annotation-index" => Subject::Index,
        "annotation-index-descriptor" => Subject::IndexDescriptor,
        _ => return Err(wrong()),
    };
    if key.is_empty() {
        return Err(wrong());
    }
    Ok(Annotation { subject, platform: head.1, key: key.to_owned(), value: value.to_owned() })
}

/// The annotations about `subject` on `platform`, in order.
pub fn about<'a>(
    all: &'a [Annotation],
    subject: Subject,
    platform: Option<&'a Platform>,
) -> impl Iterator<Item = (String, String)> + 'a {
    all.iter()
        .filter(move |it| {
            it.subject == subject && it.platform.as_ref().is_none_or(|only| Some(only) == platform)
        })
        .map(|it| (it.key.clone(), it.value.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let one = parse("annotation.org.x", "v").unwrap();
        assert_eq!((one.subject, one.key.as_str()), (Subject::Manifest, "org.x"));
        let two = parse("annotation-index[linux/arm64].a.b", "v").unwrap();
        assert_eq!((two.subject, two.key.as_str()), (Subject::Index, "a.b"));
        assert!(two.platform.is_some());
        assert!(parse("annotation-thing.x", "v").is_err());
        assert!(parse("annotation.", "v").is_err());
    }
}
