//! The config that an image gets when its build gave none.
//!
//! BuildKit's image exporter makes one up where a result has no `containerimage.config`
//! (`defaultImageConfig` in `exporter/containerimage/writer.go`). To embed a cache there must be
//! a config to embed it in, so this is the same one: the image is then the one that there would
//! be without us. Knows nothing of how the platform was found.

use serde::Serialize;

use super::platform::Platform;

/// Where BuildKit has commands looked for, unless an image says otherwise
/// (`DefaultPathEnvUnix` in `util/system`).
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The default config for `platform`, which is taken as it is: give it a normal one, as
/// daemons list their workers' (an `amd64` has no `v1`, an `arm64` no `v8`).
///
/// Layers, history and date are left for the exporter, which fills them in in any config
/// (`patchImageConfig`) and in doing so writes all of it anew, sorted by name.
pub fn default_config(platform: &Platform) -> Vec<u8> {
    let image = ImageConfig {
        architecture: &platform.architecture,
        os: &platform.os,
        os_version: &platform.os_version,
        os_features: &platform.os_features,
        variant: &platform.variant,
        config: RunConfig {
            // Windows keeps its search path elsewhere, and an image must not override it.
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
    /// Go writes the list that was never filled as `null`.
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
