//! Platforms: operating system, architecture, variant (containerd's normal form).
//!
//! A text is parsed as people write it (`arm64`, `linux/aarch64`, `linux/arm/v7`);
//! [`Platform::normalized`] gives the one form that is compared and printed.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest text that is looked at, in bytes.
const MAX_TEXT_BYTES: usize = 256;

/// Operating systems that may stand alone for a platform.
const KNOWN_OS: &[&str] = &[
    "aix",
    "android",
    "darwin",
    "dragonfly",
    "freebsd",
    "hurd",
    "illumos",
    "ios",
    "js",
    "linux",
    "nacl",
    "netbsd",
    "openbsd",
    "plan9",
    "solaris",
    "windows",
    "zos",
];

/// Architectures that may stand alone for a platform.
const KNOWN_ARCH: &[&str] = &[
    "386",
    "amd64",
    "amd64p32",
    "arm",
    "armbe",
    "arm64",
    "arm64be",
    "ppc64",
    "ppc64le",
    "loong64",
    "mips",
    "mipsle",
    "mips64",
    "mips64le",
    "mips64p32",
    "mips64p32le",
    "ppc",
    "riscv",
    "riscv64",
    "s390",
    "s390x",
    "sparc",
    "sparc64",
    "wasm",
];

/// A platform: `linux/amd64`, `linux/arm64`, `linux/arm/v7`.
#[derive(Clone, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Platform {
    /// `linux`.
    pub os: String,
    /// `amd64`, in Go's terms.
    pub architecture: String,
    /// `v7`; empty where the architecture has none or it is the default.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub variant: String,
    /// Windows only.
    #[serde(default, rename = "os.version", skip_serializing_if = "String::is_empty")]
    pub os_version: String,
}

/// Why a text is no platform.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ParsePlatformError {
    /// A part is empty or has a character that none may have.
    #[error("`{part}` is an invalid component of platform `{text}`")]
    Component {
        /// The text, shortened.
        text: String,
        /// The part.
        part: String,
    },
    /// One word that is neither.
    #[error("`{0}`: unknown operating system or architecture")]
    Unknown(String),
    /// More than three parts, or longer than any platform.
    #[error("`{0}`: cannot parse platform specifier (expected os/architecture[/variant])")]
    Shape(String),
}

impl Platform {
    /// A platform without variant.
    pub fn new(os: &str, architecture: &str) -> Self {
        Self { os: os.to_owned(), architecture: architecture.to_owned(), ..Self::default() }
    }

    /// The one form of equal platforms: lower case, Go's names, default variants left out (but
    /// `v7` of `arm` written).
    #[must_use]
    pub fn normalized(&self) -> Self {
        let (architecture, variant) = normalize_arch(&self.architecture, &self.variant);
        Self {
            os: normalize_os(&self.os),
            architecture,
            variant,
            os_version: self.os_version.clone(),
        }
    }

    /// The platform of a machine, in normal form, from the words that Rust or `uname` has for it:
    /// `linux`, `x86_64`.
    pub fn host(os: &str, architecture: &str) -> Self {
        Self::new(os, architecture).normalized()
    }

    /// `os/architecture[/variant]`, without the version that [`fmt::Display`] adds.
    pub fn short(&self) -> String {
        let mut text = format!("{}/{}", self.os, self.architecture);
        if !self.variant.is_empty() {
            text.push('/');
            text.push_str(&self.variant);
        }
        text
    }

    /// How well an image for `self` runs where `wanted` is asked for: smaller is better, 0 is
    /// exact, none is not at all. Both sides are brought to normal form first.
    ///
    /// `arm/v7` also runs `v6` and `v5`, `arm64` also 32-bit `arm` from `v8` down, `amd64/v3` also
    /// `v2`, plain `amd64` and `386` (containerd's order of preference).
    pub fn rank(&self, wanted: &Self) -> Option<usize> {
        let (offered, wanted) = (self.normalized(), wanted.normalized());
        if offered.os != wanted.os || !version_matches(&offered, &wanted) {
            return None;
        }
        wanted.runs().iter().position(|(architecture, variant)| {
            *architecture == offered.architecture && *variant == offered.variant
        })
    }

    /// Architectures and variants in normal form that run here, best first.
    fn runs(&self) -> Vec<(String, String)> {
        let mut all = vec![(self.architecture.clone(), self.variant.clone())];
        let (major, minor) = variant_numbers(&self.variant);
        let mut add = |architecture: &str, variant: String| {
            all.push((architecture.to_owned(), variant));
        };
        match (self.architecture.as_str(), major) {
            ("amd64", level) => {
                (2..level).rev().for_each(|lower| add("amd64", format!("v{lower}")));
                if level > 1 {
                    add("amd64", String::new());
                }
                add("386", String::new());
            }
            ("arm", level) => (5..level).rev().for_each(|lower| add("arm", format!("v{lower}"))),
            ("arm64", level) => {
                // Armv9.n contains Armv8.(n + 5).
                let minor_of_8 = if level == 9 { minor + 6 } else { minor };
                if level == 9 {
                    (1..minor).rev().for_each(|lower| add("arm64", format!("v9.{lower}")));
                    if minor > 0 {
                        add("arm64", "v9".to_owned());
                    }
                }
                (1..minor_of_8).rev().for_each(|lower| add("arm64", format!("v8.{lower}")));
                if !self.variant.is_empty() {
                    add("arm64", String::new());
                }
                (5..=8).rev().for_each(|lower| add("arm", format!("v{lower}")));
            }
            (_, _) => {}
        }
        all
    }
}

/// The numbers of `v9.2`; zero for what is not there. Larger ones than any architecture has are
/// none, so that a hostile index cannot make long lists.
fn variant_numbers(variant: &str) -> (u8, u8) {
    let number = |text: &str| text.parse().ok().filter(|number| *number < 32).unwrap_or(0);
    let text = variant.strip_prefix('v').unwrap_or_default();
    match text.split_once('.') {
        Some((major, minor)) => (number(major), number(minor)),
        None => (number(text), 0),
    }
}

/// Windows: an image for a build of the system runs where no build is asked for, or the same one.
fn version_matches(offered: &Platform, wanted: &Platform) -> bool {
    let build = |version: &str| version.split('.').take(3).collect::<Vec<_>>().join(".");
    wanted.os_version.is_empty()
        || offered.os_version.is_empty()
        || build(&offered.os_version) == build(&wanted.os_version)
}

/// `linux/arm/v7`, `windows(10.0.1)/amd64`.
impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.os)?;
        if !self.os_version.is_empty() {
            write!(f, "({})", self.os_version)?;
        }
        write!(f, "/{}", self.architecture)?;
        if !self.variant.is_empty() {
            write!(f, "/{}", self.variant)?;
        }
        Ok(())
    }
}

/// Parses as containerd does: one word may be an operating system or an architecture, of which the
/// other half is this machine's.
impl FromStr for Platform {
    type Err = ParsePlatformError;

    fn from_str(text: &str) -> Result<Self, ParsePlatformError> {
        let shown = || text.chars().take(MAX_TEXT_BYTES).collect::<String>();
        if text.len() > MAX_TEXT_BYTES {
            return Err(ParsePlatformError::Shape(shown()));
        }
        let parts: Vec<&str> = text.split('/').collect();
        let bad = |part: &str| ParsePlatformError::Component {
            text: text.to_owned(),
            part: part.to_owned(),
        };
        let (os, os_version) = match parts[0].split_once('(') {
            Some((os, rest)) => (os, rest.strip_suffix(')').ok_or_else(|| bad(parts[0]))?),
            None => (parts[0], ""),
        };
        if let Some(part) = [os].iter().chain(&parts[1..]).find(|part| !is_component(part)) {
            return Err(bad(part));
        }
        let os_version = os_version.to_owned();
        match *parts {
            [_] => alone(os, os_version).ok_or_else(|| ParsePlatformError::Unknown(shown())),
            [_, arch] => {
                let (architecture, mut variant) = normalize_arch(arch, "");
                if architecture == "arm" && variant == "v7" {
                    variant.clear();
                }
                Ok(Self { os: normalize_os(os), architecture, variant, os_version })
            }
            [_, arch, variant] => {
                let (architecture, mut variant) = normalize_arch(arch, variant);
                if architecture == "arm64" && variant.is_empty() {
                    "v8".clone_into(&mut variant);
                }
                Ok(Self { os: normalize_os(os), architecture, variant, os_version })
            }
            _ => Err(ParsePlatformError::Shape(shown())),
        }
    }
}

/// A platform of one word.
fn alone(word: &str, os_version: String) -> Option<Platform> {
    let os = normalize_os(word);
    if KNOWN_OS.contains(&os.as_str()) {
        let (architecture, mut variant) = normalize_arch(std::env::consts::ARCH, "");
        if architecture == "arm" && variant == "v7" {
            variant.clear();
        }
        return Some(Platform { os, architecture, variant, os_version });
    }
    let (architecture, mut variant) = normalize_arch(word, "");
    if architecture == "arm" && variant == "v7" {
        variant.clear();
    }
    KNOWN_ARCH.contains(&architecture.as_str()).then(|| Platform {
        os: "linux".to_owned(),
        architecture,
        variant,
        os_version,
    })
}

fn is_component(part: &str) -> bool {
    !part.is_empty()
        && part.bytes().all(|it| it.is_ascii_alphanumeric() || matches!(it, b'_' | b'.' | b'-'))
}

fn normalize_os(os: &str) -> String {
    let os = os.to_ascii_lowercase();
    if os == "macos" { "darwin".to_owned() } else { os }
}

fn normalize_arch(architecture: &str, variant: &str) -> (String, String) {
    let architecture = architecture.to_ascii_lowercase();
    let variant = variant.to_ascii_lowercase();
    let (architecture, variant) = match (architecture.as_str(), variant.as_str()) {
        ("i386", _) => ("386", ""),
        ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
        ("x86_64" | "x86-64" | "amd64", variant) => ("amd64", variant),
        ("aarch64" | "arm64", "8" | "v8") => ("arm64", ""),
        ("aarch64" | "arm64", "9" | "9.0" | "v9.0") => ("arm64", "v9"),
        ("aarch64" | "arm64", variant) => ("arm64", variant),
        ("armhf", _) => ("arm", "v7"),
        ("armel", _) => ("arm", "v6"),
        ("arm", "" | "7") => ("arm", "v7"),
        ("arm", "5") => ("arm", "v5"),
        ("arm", "6") => ("arm", "v6"),
        ("arm", "8") => ("arm", "v8"),
        (architecture, variant) => (architecture, variant),
    };
    (architecture.to_owned(), variant.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, parsed: &str, normalized: &str) {
        let platform: Platform = text.parse().expect("a platform");
        assert_eq!(platform.to_string(), parsed);
        assert_eq!(platform.normalized().to_string(), normalized);
    }

    #[test]
    fn forms() {
        check("linux/amd64", "linux/amd64", "linux/amd64");
        check("Linux/x86_64", "linux/amd64", "linux/amd64");
        check("arm64", "linux/arm64", "linux/arm64");
        check("linux/arm64/v8", "linux/arm64/v8", "linux/arm64");
        check("linux/aarch64", "linux/arm64", "linux/arm64");
        check("linux/arm", "linux/arm", "linux/arm/v7");
        check("linux/arm/v6", "linux/arm/v6", "linux/arm/v6");
        check("armhf", "linux/arm", "linux/arm/v7");
        check("linux/i386", "linux/386", "linux/386");
        check("linux/amd64/v2", "linux/amd64/v2", "linux/amd64/v2");
        check("macos/arm64", "darwin/arm64", "darwin/arm64");
        check("windows(10.0.1)/amd64", "windows(10.0.1)/amd64", "windows(10.0.1)/amd64");
    }

    #[test]
    fn refusals() {
        for text in ["", "/", "linux/", "a/b/c/d", "nonsense", "linux/a*", "windows(1/amd64"] {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
    }

    #[test]
    fn preference() {
        let rank = |offered: &str, wanted: &str| {
            let parse = |text: &str| text.parse::<Platform>().expect("platform");
            parse(offered).rank(&parse(wanted))
        };
        assert_eq!(rank("linux/amd64", "linux/amd64"), Some(0));
        assert_eq!(rank("linux/amd64", "linux/amd64/v3"), Some(2));
        assert_eq!(rank("linux/amd64/v3", "linux/amd64"), None);
        assert_eq!(rank("linux/386", "linux/amd64"), Some(1));
        assert_eq!(rank("linux/arm64/v8.2", "linux/arm64/v9"), Some(4));
        assert_eq!(rank("linux/arm64/v8.6", "linux/arm64/v9"), None);
        assert_eq!(rank("linux/arm/v6", "linux/arm/v7"), Some(1));
        assert_eq!(rank("linux/arm/v7", "linux/arm/v6"), None);
        assert_eq!(rank("linux/arm/v7", "linux/arm64"), Some(2));
        assert_eq!(rank("linux/arm64/v8", "linux/arm64"), Some(0));
        assert_eq!(rank("windows/amd64", "linux/amd64"), None);
        assert_eq!(rank("windows(10.0.17763.1)/amd64", "windows(10.0.17763.9)/amd64"), Some(0));
    }
}
