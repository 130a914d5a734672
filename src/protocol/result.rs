//! A build's result as its client returns it: finds the images in it, and puts configs into its metadata.

use std::collections::HashMap;

use bytes::Bytes;
use thiserror::Error;

use super::proto::gateway::{Ref, Result as BuildResult, result};
use super::wire::{self, Edit, WireError};

/// The metadata key of an image config, or of all of them, each with `/<platform>` behind it.
const CONFIG_KEY: &str = "containerimage.config";

/// Why a result cannot be used.
#[derive(Debug, Error)]
pub enum ResultError {
    /// It is no result message.
    #[error("the build's result: {0}")]
    Decode(#[from] prost::DecodeError),
    /// It cannot be edited.
    #[error("the build's result: {0}")]
    Wire(#[from] WireError),
    /// The client is from before refs had definitions.
    #[error("the build's client is too old: its result has no definition")]
    NoDefinition,
}

/// One image of a result.
#[derive(Debug)]
pub struct Image<'a> {
    /// The id of its ref in the client's build.
    pub reference: &'a str,
    /// What was solved for it: an encoded `pb.Definition`.
    pub definition: &'a Bytes,
    /// The metadata key of its config.
    pub config_key: String,
    /// Its config; `None` where the exporter makes one up.
    pub config: Option<&'a Bytes>,
}

/// The images of a result that have content, sorted by the names of their platforms.
///
/// # Errors
/// Where a ref has no definition.
pub fn images(result: &BuildResult) -> Result<Vec<Image<'_>>, ResultError> {
    let mut refs: Vec<(String, &Ref)> = match &result.result {
        None => Vec::new(),
        Some(result::Result::Ref(one)) => vec![(only_config_key(result), one)],
        Some(result::Result::Refs(all)) => all
            .refs
            .iter()
            .map(|(platform, one)| (format!("{CONFIG_KEY}/{platform}"), one))
            .collect(),
        Some(result::Result::RefDeprecated(_) | result::Result::RefsDeprecated(_)) => {
            return Err(ResultError::NoDefinition);
        }
    };
    refs.retain(|(_, one)| !one.id.is_empty());
    refs.sort_by(|(a, _), (b, _)| a.cmp(b));
    let mut images = Vec::with_capacity(refs.len());
    for (config_key, Ref { id, def }) in refs {
        if def.is_empty() {
            return Err(ResultError::NoDefinition);
        }
        let config = result
            .metadata
            .get(&config_key)
            .or_else(|| result.metadata.get(CONFIG_KEY));
        let config = config.filter(|config| !config.is_empty());
        images.push(Image {
            reference: id,
            definition: def,
            config_key,
            config,
        });
    }
    Ok(images)
}

/// The metadata key of the config of a result with one ref. The exporter prefers a key with a platform, if
/// the result has one.
fn only_config_key(result: &BuildResult) -> String {
    let of_platform = |key: &&String| {
        let rest = key.strip_prefix(CONFIG_KEY);
        rest.is_some_and(|rest| rest.starts_with('/'))
    };
    let mut keys = result.metadata.keys().filter(of_platform);
    match (keys.next(), keys.next()) {
        (Some(key), None) => key.clone(),
        _ => CONFIG_KEY.to_owned(),
    }
}

impl Image<'_> {
    /// The digest of the vertex that made it: the only input of the definition's last operation.
    pub fn vertex(&self) -> Option<String> {
        const DEF: u32 = 1;
        const INPUTS: u32 = 1;
        const DIGEST: u32 = 1;
        let first = |message, number| {
            let mut fields = wire::fields(message).map_while(Result::ok);
            fields.find(|field| field.number == number)?.value
        };
        let defs = wire::fields(self.definition).map_while(Result::ok);
        let last = defs.filter(|field| field.number == DEF).last()?.value?;
        let digest = first(first(last, INPUTS)?, DIGEST)?;
        String::from_utf8(digest.to_vec()).ok()
    }
}

/// The encoded result with these values in its metadata. Everything else stays.
///
/// # Errors
/// Where the bytes are no protobuf message.
pub fn with_metadata(
    result: &[u8],
    values: &HashMap<String, Vec<u8>>,
) -> Result<Vec<u8>, WireError> {
    const METADATA: u32 = 10;
    let mut out = wire::rewrite(result, |number, entry| {
        let replaced = number == METADATA && values.contains_key(&*wire::map_entry(entry)?.0);
        Ok::<_, WireError>(if replaced { Edit::Drop } else { Edit::Keep })
    })?;
    // Sorted, since the map's order is random.
    let mut values: Vec<_> = values.iter().collect();
    values.sort();
    for (key, value) in values {
        let mut entry = Vec::with_capacity(key.len() + value.len() + 8);
        wire::put(&mut entry, 1, key.as_bytes());
        wire::put(&mut entry, 2, value);
        wire::put(&mut out, METADATA, &entry);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::protocol::proto::gateway::RefMap;

    fn one(id: &str, def: &'static [u8]) -> Ref {
        Ref {
            id: id.to_owned(),
            def: Bytes::from_static(def),
        }
    }

    #[test]
    fn each_platform_has_its_config() {
        let refs = [
            ("linux/arm64", one("2", b"d")),
            ("linux/amd64", one("1", b"d")),
            ("empty", one("", b"")),
        ];
        let refs = refs.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
        let config = (
            "containerimage.config/linux/amd64".to_owned(),
            Bytes::from_static(b"{}"),
        );
        let result = BuildResult {
            result: Some(result::Result::Refs(RefMap { refs })),
            metadata: HashMap::from([config]),
        };
        let found: Vec<_> = images(&result)
            .unwrap()
            .iter()
            .map(|image| (image.reference, image.config.is_some()))
            .collect();
        assert_eq!(found, [("1", true), ("2", false)]);
    }

    #[test]
    fn one_image_may_have_its_config_by_its_platform() {
        let config_key = |keys: &[&str]| {
            let metadata = keys
                .iter()
                .map(|key| ((*key).to_owned(), Bytes::from_static(b"{}")));
            let result = BuildResult {
                result: Some(result::Result::Ref(one("1", b"d"))),
                metadata: metadata.collect(),
            };
            images(&result).unwrap()[0].config_key.clone()
        };
        let of_platform = "containerimage.config/linux/amd64";
        assert_eq!(config_key(&[]), CONFIG_KEY);
        assert_eq!(config_key(&[CONFIG_KEY]), CONFIG_KEY);
        assert_eq!(config_key(&[CONFIG_KEY, of_platform]), of_platform);
        assert_eq!(
            config_key(&[of_platform, "containerimage.config/linux/arm64"]),
            CONFIG_KEY
        );
    }

    #[test]
    fn a_result_without_definitions_is_refused() {
        let refusal = |result| {
            let result = BuildResult {
                result: Some(result),
                ..Default::default()
            };
            images(&result).map(|images| images.len()).unwrap_err()
        };
        assert!(matches!(
            refusal(result::Result::Ref(one("1", b""))),
            ResultError::NoDefinition
        ));
        let old = result::Result::RefDeprecated("1".to_owned());
        assert!(matches!(refusal(old), ResultError::NoDefinition));
    }

    #[test]
    fn metadata_is_replaced_and_the_rest_stays() {
        let metadata = [("a", "1"), ("b", "2")];
        let metadata = metadata.map(|(k, v)| (k.to_owned(), Bytes::from_static(v.as_bytes())));
        let result = BuildResult {
            result: Some(result::Result::Ref(one("1", b"d"))),
            metadata: HashMap::from(metadata),
        };
        let mut encoded = result.encode_to_vec();
        wire::put(&mut encoded, 12, b"attestations");
        let edited =
            with_metadata(&encoded, &HashMap::from([("b".to_owned(), b"3".to_vec())])).unwrap();
        let decoded = BuildResult::decode(&edited[..]).unwrap();
        assert_eq!(
            (&decoded.metadata["a"][..], &decoded.metadata["b"][..]),
            (&b"1"[..], &b"3"[..])
        );
        let kept =
            |field: &wire::Field<'_>| (field.number, field.value) == (12, Some(b"attestations"));
        assert!(
            wire::fields(&edited)
                .map(|field| field.unwrap())
                .any(|field| kept(&field))
        );
    }
}
