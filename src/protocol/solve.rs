//! A solve request: what a build asks for that inlay may do, and the request without that.

use std::collections::HashMap;

use bytes::Bytes;
use prost::Message;
use thiserror::Error;

use super::imports::{self, Entry, Named, text};
use super::proto::control::{CacheOptions, CacheOptionsEntry, Exporter, SolveRequest};
use super::wire::{self, Edit, WireError};

/// The exporters that write an image config, by the names that BuildKit and Docker Engine give
/// them.
const IMAGE_EXPORTERS: [&str; 4] = ["image", "oci", "docker", "moby"];
/// The attributes by which an exporter chooses its layers' compression; cache exporters know the
/// same.
const COMPRESSION_ATTRS: [&str; 3] = ["compression", "compression-level", "force-compression"];
/// The older way to ask for inline cache, as a build argument.
const INLINE_CACHE_ARG: &str = "build-arg:BUILDKIT_INLINE_CACHE";
const INLINE: &str = "inline";
/// The attribute of a cache export by which its failure fails the build or does not.
const IGNORE_ERROR: &str = "ignore-error";
/// The most platforms of a build that are read. Go knows some 30.
const MAX_PLATFORMS: usize = 64;
/// The frontend's option with the platforms of a build.
const PLATFORM: &str = "platform";

/// Why a solve request cannot be read.
#[derive(Debug, Error)]
pub enum PlanError {
    /// It is no solve request.
    #[error("solve request: {0}")]
    Decode(#[from] prost::DecodeError),
}

/// What a build asks for that inlay may do.
#[derive(Debug)]
pub struct Plan {
    /// The build's ref, which ties its calls together.
    pub build: String,
    /// The client's session, or nothing.
    pub session: String,
    /// The frontend or definition that the request names. `None` for a gateway client, which solves by calls.
    pub direct: Option<Direct>,
    /// The inline cache that it asks for.
    pub inline: Option<Inline>,
    /// The caches that it imports, of any kind.
    pub imports: Vec<Entry>,
    /// How many more imports it names in a form that cannot be read.
    pub unreadable_imports: usize,
    /// The platforms that it is for, by name (`linux/amd64`), if it says so.
    pub platforms: Vec<String>,
    /// The terms on which the build is solved.
    pub terms: Terms,
}

/// How an image should get its inline cache.
#[derive(Debug)]
pub struct Inline {
    /// The user wants the build to fail if its cache cannot be had: an entry says `ignore-error=false`.
    pub required: bool,
    /// The attributes by which a cache export compresses layers as the image export does.
    pub compression: HashMap<String, String>,
}

/// The frontend or definition that a solve request names itself.
#[derive(Debug)]
pub struct Direct {
    /// An encoded `pb.Definition`, for plain LLB.
    pub definition: Option<Vec<u8>>,
    /// The name of a frontend, or nothing.
    pub frontend: String,
    /// The frontend's options.
    pub frontend_attrs: HashMap<String, Bytes>,
    /// Encoded `pb.Definition`s that the frontend takes as inputs.
    pub frontend_inputs: HashMap<String, Vec<u8>>,
    /// The caches to import.
    pub imports: Vec<CacheOptionsEntry>,
}

/// The terms on which the client solves. inlay uses the same in its own solves of the build's definitions.
#[derive(Debug, Clone, Default)]
pub struct Terms {
    /// What the build is allowed to do.
    pub entitlements: Vec<String>,
    /// An encoded source policy.
    pub source_policy: Vec<u8>,
    /// The session that is asked for policies of sources, or nothing.
    pub source_policy_session: String,
    /// The version of BuildKit's behaviour that the build asks for; 0 is the current one.
    pub compatibility_version: i64,
    /// Whether steps reach the network through a proxy only.
    pub proxy_network: bool,
}

// === impl Plan ===

impl Plan {
    /// Reads an encoded solve request.
    ///
    /// # Errors
    /// Where the message is no solve request.
    pub fn read(message: &[u8]) -> Result<Self, PlanError> {
        let mut request = SolveRequest::decode(message)?;
        let inline = inline(&request);
        let Named {
            entries: imports,
            unreadable: unreadable_imports,
        } = imports::of_solve(&request);
        let platforms = text(&request.frontend_attrs, PLATFORM).unwrap_or_default();
        let platforms = platforms.split(',');
        let platforms = platforms.filter(|name| !name.is_empty());
        let platforms = platforms.take(MAX_PLATFORMS).map(str::to_owned).collect();
        let cache = request.cache.take().unwrap_or_default();
        let is_direct = request.definition.is_some() || !request.frontend.is_empty();
        Ok(Self {
            build: request.r#ref,
            session: request.session,
            direct: is_direct.then(|| {
                let mut direct = Direct {
                    definition: request.definition.map(Into::into),
                    frontend: request.frontend,
                    frontend_attrs: request.frontend_attrs,
                    frontend_inputs: request
                        .frontend_inputs
                        .into_iter()
                        .map(|(k, v)| (k, v.into()))
                        .collect(),
                    imports: all_imports(cache),
                };
                direct.use_built_in_frontend();
                direct
            }),
            inline,
            imports,
            unreadable_imports,
            platforms,
            terms: Terms {
                entitlements: request.entitlements,
                source_policy: request.source_policy.into(),
                source_policy_session: request.source_policy_session,
                compatibility_version: request.compatibility_version,
                proxy_network: request.proxy_network,
            },
        })
    }
}

/// The inline cache that a request asks for, if it exports an image.
fn inline(request: &SolveRequest) -> Option<Inline> {
    let exports = request.cache.iter().flat_map(|cache| &cache.exports);
    let asked: Vec<_> = exports.filter(|export| export.r#type == INLINE).collect();
    let by_argument = text(&request.frontend_attrs, INLINE_CACHE_ARG).is_some_and(is_true);
    if asked.is_empty() && !by_argument {
        return None;
    }
    // An exporter that the client's session names later is an image or does not look at the config.
    let image = image_exporter(request)?;
    // BuildKit keeps the first of several entries. A client adds one beside its user's, as buildx does
    // for the build argument, so what any of them says counts.
    let is_required = |entry: &&CacheOptionsEntry| {
        let ignore = entry.attrs.get(IGNORE_ERROR);
        ignore.and_then(|ignore| parse_bool(ignore)) == Some(false)
    };
    let compression = COMPRESSION_ATTRS
        .iter()
        .filter_map(|attr| Some(((*attr).to_owned(), image.get(*attr)?.clone())))
        .collect();
    Some(Inline {
        required: asked.iter().any(is_required),
        compression,
    })
}

// === impl Direct ===

impl Direct {
    /// `gateway.v0` with the source `dockerfile.v0` means the frontend that is built in. A solve
    /// request knows that, unless the Dockerfile's image comes as a named context; a gateway call
    /// does not.
    fn use_built_in_frontend(&mut self) {
        const SOURCE: &str = "source";
        const BUILT_IN: &str = "dockerfile.v0";
        const CONTEXT: &str = "context:dockerfile.v0";
        let is_named = |key: &String| {
            let rest = key.strip_prefix(CONTEXT);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
        };
        if self.frontend == "gateway.v0"
            && text(&self.frontend_attrs, SOURCE) == Some(BUILT_IN)
            && !self.frontend_attrs.keys().any(is_named)
        {
            self.frontend = BUILT_IN.to_owned();
            self.frontend_attrs.remove(SOURCE);
        }
    }
}

/// The attributes of the first exporter that writes an image.
fn image_exporter(request: &SolveRequest) -> Option<HashMap<String, String>> {
    let is_image = |kind: &String| IMAGE_EXPORTERS.contains(&kind.as_str());
    let named = request
        .exporters
        .iter()
        .find(|exporter| is_image(&exporter.r#type));
    if let Some(Exporter { attrs, .. }) = named {
        return Some(attrs.clone());
    }
    if request.exporters.is_empty() && is_image(&request.exporter_deprecated) {
        return Some(request.exporter_attrs_deprecated.clone());
    }
    request.enable_session_exporter.then(HashMap::new)
}

/// All imports. Those in the deprecated field come last, as in buildkitd.
fn all_imports(cache: CacheOptions) -> Vec<CacheOptionsEntry> {
    let deprecated = cache
        .import_refs_deprecated
        .into_iter()
        .map(|reference| CacheOptionsEntry {
            r#type: "registry".to_owned(),
            attrs: HashMap::from([("ref".to_owned(), reference)]),
        });
    cache.imports.into_iter().chain(deprecated).collect()
}

/// The request to forward: without `inline` among its cache exports if `embeds`, and without its frontend
/// and definition if `drives`.
///
/// # Errors
/// Where the message is no solve request.
pub fn forwarded(message: &[u8], embeds: bool, drives: bool) -> Result<Vec<u8>, WireError> {
    const DEFINITION: u32 = 2;
    const FRONTEND: u32 = 6;
    const CACHE: u32 = 8;
    const CACHE_EXPORTS: u32 = 4;
    wire::rewrite(message, |number, value| {
        Ok(match number {
            DEFINITION | FRONTEND if drives => Edit::Drop,
            CACHE if embeds => Edit::Replace(wire::rewrite(value, |number, export| {
                let drop = number == CACHE_EXPORTS
                    && CacheOptionsEntry::decode(export)
                        .is_ok_and(|export| export.r#type == INLINE);
                Ok::<_, WireError>(if drop { Edit::Drop } else { Edit::Keep })
            })?),
            _ => Edit::Keep,
        })
    })
}

fn is_true(value: &str) -> bool {
    parse_bool(value) == Some(true)
}

/// A boolean as Go's `strconv.ParseBool` reads it, as BuildKit does.
fn parse_bool(value: &str) -> Option<bool> {
    match value {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kind: &str, attrs: &[(&str, &str)]) -> CacheOptionsEntry {
        let attrs = attrs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        CacheOptionsEntry {
            r#type: kind.to_owned(),
            attrs,
        }
    }

    fn exporter(kind: &str, attrs: &[(&str, &str)]) -> Exporter {
        let CacheOptionsEntry { r#type, attrs } = entry(kind, attrs);
        Exporter { r#type, attrs }
    }

    fn request(exporters: Vec<Exporter>, exports: Vec<CacheOptionsEntry>) -> SolveRequest {
        SolveRequest {
            r#ref: "ref".to_owned(),
            exporters,
            cache: Some(CacheOptions {
                exports,
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    fn plan(request: &SolveRequest) -> Plan {
        Plan::read(&request.encode_to_vec()).unwrap()
    }

    fn is_inline(request: &SolveRequest) -> bool {
        plan(request).inline.is_some()
    }

    #[test]
    fn only_an_image_that_asks_gets_a_cache() {
        let inline = || vec![entry("inline", &[])];
        let image = || vec![exporter("image", &[])];
        assert!(is_inline(&request(image(), inline())));
        let two = vec![exporter("local", &[]), exporter("oci", &[])];
        assert!(is_inline(&request(two, inline())));
        assert!(!is_inline(&request(image(), vec![entry("registry", &[])])));
        assert!(!is_inline(&request(vec![exporter("tar", &[])], inline())));
        assert!(!is_inline(&request(vec![], inline())));

        let mut old = request(vec![], inline());
        old.exporter_deprecated = "docker".to_owned();
        assert!(is_inline(&old));
        let mut session = request(vec![], inline());
        session.enable_session_exporter = true;
        assert!(is_inline(&session));
        let mut argument = request(vec![exporter("moby", &[])], vec![]);
        let attrs = &mut argument.frontend_attrs;
        attrs.insert(INLINE_CACHE_ARG.to_owned(), "1".into());
        assert!(is_inline(&argument));
        let attrs = &mut argument.frontend_attrs;
        attrs.insert(INLINE_CACHE_ARG.to_owned(), "0".into());
        assert!(!is_inline(&argument));
    }

    #[test]
    fn the_request_loses_inline_and_keeps_what_nobody_knows() {
        let attrs = [("compression", "zstd"), ("name", "x")];
        let exports = vec![
            entry("inline", &[("ignore-error", "false")]),
            entry("registry", &[("ref", "r")]),
        ];
        let mut message = request(vec![exporter("image", &attrs)], exports).encode_to_vec();
        wire::put(&mut message, 900, b"unknown");
        let plan = Plan::read(&message).unwrap();
        let inline = plan.inline.unwrap();
        assert!(inline.required);
        assert_eq!(
            inline.compression,
            HashMap::from([("compression".to_owned(), "zstd".to_owned())])
        );
        assert!(plan.direct.is_none());
        let request = forwarded(&message, true, false).unwrap();
        let sent = SolveRequest::decode(&request[..]).unwrap();
        assert_eq!(
            sent.cache.unwrap().exports,
            vec![entry("registry", &[("ref", "r")])]
        );
        let last = wire::fields(&request).last().unwrap().unwrap();
        assert_eq!((last.number, last.value), (900, Some(&b"unknown"[..])));
    }

    #[test]
    fn several_inline_entries_are_one() {
        let attrs: [&[(&str, &str)]; 3] = [
            &[],
            &[("ignore-error", "true")],
            &[("ignore-error", "false")],
        ];
        for (first, second) in [(0, 0), (0, 1), (0, 2), (2, 0), (1, 2), (2, 1)] {
            let exports = vec![
                entry("inline", attrs[first]),
                entry("registry", &[("ref", "r")]),
                entry("inline", attrs[second]),
            ];
            let request = request(vec![exporter("image", &[])], exports);
            let inline = plan(&request).inline.unwrap();
            let said = first == 2 || second == 2;
            assert_eq!(inline.required, said, "{first} and {second}");
            let sent = forwarded(&request.encode_to_vec(), true, false).unwrap();
            let sent = SolveRequest::decode(&sent[..]).unwrap();
            let exports = sent.cache.unwrap().exports;
            assert_eq!(exports, vec![entry("registry", &[("ref", "r")])]);
        }
    }

    #[test]
    fn a_direct_solve_is_taken_out() {
        let mut direct = request(vec![exporter("image", &[])], vec![entry("inline", &[])]);
        direct.frontend = "dockerfile.v0".to_owned();
        direct
            .frontend_attrs
            .insert("filename".to_owned(), "Dockerfile".into());
        direct
            .cache
            .as_mut()
            .unwrap()
            .import_refs_deprecated
            .push("old".to_owned());
        let plan = plan(&direct);
        let request = forwarded(&direct.encode_to_vec(), true, true).unwrap();
        let sent = SolveRequest::decode(&request[..]).unwrap();
        assert_eq!((sent.frontend.as_str(), sent.definition), ("", None));
        assert_eq!(sent.frontend_attrs, direct.frontend_attrs);
        let taken = plan.direct.unwrap();
        assert_eq!(taken.frontend, "dockerfile.v0");
        assert_eq!(taken.imports, vec![entry("registry", &[("ref", "old")])]);
    }

    #[test]
    fn the_built_in_frontend_is_found_behind_the_gateway() {
        let taken = |attrs: &[(&str, &str)]| {
            let mut direct = request(vec![exporter("image", &[])], vec![entry("inline", &[])]);
            direct.frontend = "gateway.v0".to_owned();
            let attrs = attrs
                .iter()
                .map(|(k, v)| ((*k).to_owned(), Bytes::from((*v).to_owned())));
            direct.frontend_attrs = attrs.collect();
            let direct = plan(&direct).direct.unwrap();
            (direct.frontend, direct.frontend_attrs.len())
        };
        let source = ("source", "dockerfile.v0");
        assert_eq!(taken(&[source]), ("dockerfile.v0".to_owned(), 0));
        assert_eq!(
            taken(&[("source", "docker/dockerfile")]),
            ("gateway.v0".to_owned(), 1)
        );
        let named = ("context:dockerfile.v0::linux/amd64", "x");
        assert_eq!(taken(&[source, named]), ("gateway.v0".to_owned(), 2));
    }

    #[test]
    fn imports_of_images_are_planned() {
        let mut importing = request(vec![exporter("local", &[])], vec![]);
        let cache = importing.cache.as_mut().unwrap();
        cache.imports = vec![
            entry("inline", &[("ref", "oci:/images/a")]),
            entry("registry", &[("ref", "a")]),
            entry("gha", &[]),
        ];
        let attrs = &mut importing.frontend_attrs;
        attrs.insert("platform".to_owned(), "linux/arm64,linux/amd64".into());
        let planned = plan(&importing);
        assert!(planned.inline.is_none());
        let images = planned.imports.iter().filter_map(Entry::image);
        assert_eq!(images.collect::<Vec<_>>(), ["oci:/images/a", "a"]);
        assert_eq!(planned.platforms, ["linux/arm64", "linux/amd64"]);
    }

    /// As `buildctl --opt build-arg:A=...` sends it, and as the daemon reads it.
    #[test]
    fn an_option_may_be_no_utf_8() {
        let mut direct = request(vec![exporter("image", &[])], vec![entry("inline", &[])]);
        direct.frontend = "dockerfile.v0".to_owned();
        let argument = ("build-arg:A".to_owned(), Bytes::from_static(b"\xff"));
        direct.frontend_attrs.extend([argument.clone()]);
        let plan = plan(&direct);
        assert!(plan.inline.is_some());
        let taken = plan.direct.unwrap().frontend_attrs;
        assert_eq!(taken, HashMap::from([argument]));
    }

    #[test]
    fn what_is_no_solve_request_is_an_error() {
        assert!(matches!(Plan::read(b"\x0a\xff"), Err(PlanError::Decode(_))));
    }
}
