//! Platforms: how they are written, and their normal form.

use serde::Deserialize;

use crate::protocol::proto::pb;

/// What an image runs on (OCI image specification, `image-index.md`, `platform`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Platform {
    /// Processor architecture, in Go's terms (`amd64`).
    pub architecture: String,
    /// Operating system, in Go's terms (`linux`).
    pub os: String,
    /// Variant of the architecture (`v7`), or empty.
    pub variant: String,
    /// Version of the operating system, or empty.
    pub os_version: String,
    /// Features that the operating system must have.
    pub os_features: Vec<String>,
}

/// The architectures that may be written without an operating system, by Go's names.
const ARCHITECTURES: [&str; 14] = [
    "386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle", "ppc64",
    "ppc64le", "riscv64", "s390x", "wasm",
];

// === impl Platform ===

impl Platform {
    /// Reads a platform as BuildKit's clients write it: `linux/arm64`, `linux/arm/v7`, `arm64`. The
    /// operating system is Linux where none is named. `None` for any other text.
    pub fn parse(text: &str) -> Option<Self> {
        let parts: Vec<&str> = text.trim().split('/').collect();
        let (os, architecture, variant) = match parts[..] {
            [architecture] => ("linux", architecture, ""),
            [os, architecture] => (os, architecture, ""),
            [os, architecture, variant] => (os, architecture, variant),
            _ => return None,
        };
        // An operating system may have its version with it: `windows(10.0.17763)/amd64`.
        let os = os.split_once('(').map_or(os, |(os, _)| os);
        let (architecture, variant) = normalized(architecture, variant);
        let is_one = match parts.len() {
            1 => ARCHITECTURES.contains(&&*architecture),
            _ => !os.is_empty() && !architecture.is_empty(),
        };
        is_one.then(|| Self {
            os: os.to_ascii_lowercase(),
            architecture,
            variant,
            ..Default::default()
        })
    }
}

impl Platform {
    /// The same platform by its normal names, see [`normalized`].
    pub fn normal(&self) -> Self {
        let (architecture, variant) = normalized(&self.architecture, &self.variant);
        Self {
            architecture,
            variant,
            ..self.clone()
        }
    }

    /// Whether an image config is for this operating system and architecture. Variants are not compared.
    pub fn is_of_config(&self, config: &[u8]) -> bool {
        #[derive(Deserialize)]
        struct Config {
            os: String,
            architecture: String,
        }
        let own = self.normal();
        serde_json::from_slice(config).is_ok_and(|config: Config| {
            config.os == own.os && normalized(&config.architecture, "").0 == own.architecture
        })
    }
}

impl From<pb::Platform> for Platform {
    fn from(platform: pb::Platform) -> Self {
        let pb::Platform {
            architecture,
            os,
            variant,
            os_version,
            os_features,
        } = platform;
        Self {
            architecture,
            os,
            variant,
            os_version,
            os_features,
        }
    }
}

/// An architecture and its variant by their normal names (`normalizeArch` of containerd's
/// `platforms` v1.0).
pub fn normalized(architecture: &str, variant: &str) -> (String, String) {
    let (architecture, variant) = (
        architecture.to_ascii_lowercase(),
        variant.to_ascii_lowercase(),
    );
    let (architecture, variant) = match (&*architecture, &*variant) {
        ("i386", _) => ("386", ""),
        ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
        ("x86_64" | "x86-64", variant) => ("amd64", variant),
        ("aarch64" | "arm64", "8" | "v8" | "v8.0") => ("arm64", ""),
        ("aarch64" | "arm64", "9" | "9.0" | "v9.0") => ("arm64", "v9"),
        ("aarch64", variant) => ("arm64", variant),
        ("armhf", _) | ("arm", "" | "7") => ("arm", "v7"),
        ("armel", _) | ("arm", "6") => ("arm", "v6"),
        ("arm", "5") => ("arm", "v5"),
        ("arm", "8") => ("arm", "v8"),
        other => other,
    };
    (architecture.to_owned(), variant.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_are_read_as_clients_write_them() {
        for (text, os, architecture, variant) in [
            ("linux/x86_64", "linux", "amd64", ""),
            ("windows(10.0.1)/amd64", "windows", "amd64", ""),
            ("linux/arm/v7", "linux", "arm", "v7"),
            ("linux/arm/7", "linux", "arm", "v7"),
            ("linux/arm", "linux", "arm", "v7"),
            ("linux/armel", "linux", "arm", "v6"),
            ("linux/arm64/8", "linux", "arm64", ""),
            ("Linux/AMD64", "linux", "amd64", ""),
            ("linux/i386", "linux", "386", ""),
            ("linux/amd64/v3", "linux", "amd64", "v3"),
            (" aarch64 ", "linux", "arm64", ""),
            ("riscv64", "linux", "riscv64", ""),
        ] {
            let read = Platform::parse(text).unwrap();
            let read = (&*read.os, &*read.architecture, &*read.variant);
            assert_eq!(read, (os, architecture, variant), "{text}");
        }
        for text in ["linux", "", "/amd64", "linux/", "linux/arm/v7/x"] {
            assert!(Platform::parse(text).is_none(), "{text}");
        }
    }
}
