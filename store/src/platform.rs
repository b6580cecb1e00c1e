//! Platforms: operating system, architecture, variant (containerd's normal form).

use serde::{Deserialize, Serialize};

/// A platform in normal form: `linux/amd64`, `linux/arm64`, `linux/arm/v7`.
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
