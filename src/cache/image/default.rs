//! The config of an image whose build result has none.
//!
//! BuildKit's image exporter makes a default config where a result has no `containerimage.config`
//! (`defaultImageConfig` in `exporter/containerimage/writer.go`). A cache is embedded in a config, so inlay
//! makes the same one. The image is then the same as without inlay, but for its cache.

use serde::Serialize;

use super::platform::Platform;

/// The search path for commands, unless an image has its own
/// (`DefaultPathEnvUnix` in `util/system`).
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The default config for `platform`. The platform is written as it is, so it has to be normalized, as
/// daemons list their workers' (an `amd64` has no `v1`, an `arm64` no `v8`).
///
/// The exporter adds layers, history and date to any config (`patchImageConfig`), and writes its members
/// sorted by name.
pub fn default_config(platform: &Platform) -> Vec<u8> {
    let image = ImageConfig {
        architecture: &platform.architecture,
        os: &platform.os,
        os_version: &platform.os_version,
        os_features: &platform.os_features,
        variant: &platform.variant,
        config: RunConfig {
            // Windows has its search path elsewhere, and an image must not override it.
            env: (platform.os != "windows").then_some([PATH]),
            working_dir: "/",
        },
        rootfs: RootFs {
            kind: "layers",
            diff_ids: None,
        },
    };
    #[expect(
        clippy::expect_used,
        reason = "serde_json fails on writers that fail, maps whose keys are no text and types \
                  that refuse; here are a `Vec<u8>`, no map and derived types"
    )]
    serde_json::to_vec(&image).expect("a plain config in memory")
}

/// The fields that are set, in the order in which Go writes them.
#[derive(Serialize)]
struct ImageConfig<'a> {
    architecture: &'a str,
    os: &'a str,
    #[serde(rename = "os.version", skip_serializing_if = "str::is_empty")]
    os_version: &'a str,
    #[serde(rename = "os.features", skip_serializing_if = "<[_]>::is_empty")]
    os_features: &'a [String],
    #[serde(skip_serializing_if = "str::is_empty")]
    variant: &'a str,
    config: RunConfig,
    rootfs: RootFs,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct RunConfig {
    #[serde(skip_serializing_if = "Option::is_none")]
    env: Option<[&'static str; 1]>,
    working_dir: &'static str,
}

#[derive(Serialize)]
struct RootFs {
    #[serde(rename = "type")]
    kind: &'static str,
    /// `null`, as Go writes a nil slice.
    diff_ids: Option<[&'static str; 0]>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Copied from what a Go program wrote with the types that BuildKit v0.34.2 uses.
    #[test]
    fn the_config_is_the_one_that_go_writes() {
        let linux = |architecture: &str, variant: &str| Platform {
            architecture: architecture.into(),
            os: "linux".into(),
            variant: variant.into(),
            ..Platform::default()
        };
        let windows = Platform {
            architecture: "amd64".into(),
            os: "windows".into(),
            os_version: "10.0.20348.1".into(),
            os_features: vec!["win32k".into(), "x".into()],
            ..Platform::default()
        };
        for (platform, config) in [
            (
                linux("amd64", ""),
                r#"{"architecture":"amd64","os":"linux","config":{"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],"WorkingDir":"/"},"rootfs":{"type":"layers","diff_ids":null}}"#,
            ),
            (
                linux("arm", "v7"),
                r#"{"architecture":"arm","os":"linux","variant":"v7","config":{"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],"WorkingDir":"/"},"rootfs":{"type":"layers","diff_ids":null}}"#,
            ),
            (
                windows,
                r#"{"architecture":"amd64","os":"windows","os.version":"10.0.20348.1","os.features":["win32k","x"],"config":{"WorkingDir":"/"},"rootfs":{"type":"layers","diff_ids":null}}"#,
            ),
        ] {
            assert_eq!(
                String::from_utf8(default_config(&platform)).unwrap(),
                config
            );
        }
    }
}
