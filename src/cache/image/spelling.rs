//! Checks the names of members in a JSON document against those that BuildKit reads.
//!
//! Go ignores the case of a member's name, and if two members match a field, the last one counts. So one
//! document can have one meaning for inlay and another for BuildKit. Such a document is refused, and so
//! is one with longer lists than any image has.

use std::borrow::Cow;

use serde::Deserialize as _;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::config::CACHE_KEY;
use crate::cache::JsonError;
use crate::cache::record::is_same_to_go;

/// The most elements that a list may have. No image has as many layers, or lines of history.
const MAX_ELEMENTS: usize = 10_000;

/// What BuildKit reads of a value.
#[derive(Debug, Clone, Copy)]
pub enum Shape {
    /// A value that is not checked: it has no fields that BuildKit reads by name.
    Any,
    /// Elements.
    List(&'static Self),
    /// Fields of these names.
    Object(&'static [(&'static str, Self)]),
}

/// A manifest or an index, as in the OCI image specification.
pub const MANIFEST: Shape = Shape::Object(&[
    ("schemaVersion", Shape::Any),
    ("mediaType", Shape::Any),
    ("artifactType", Shape::Any),
    ("config", DESCRIPTOR),
    ("layers", Shape::List(&DESCRIPTOR)),
    ("manifests", Shape::List(&DESCRIPTOR)),
    ("annotations", Shape::Any),
]);

const DESCRIPTOR: Shape = Shape::Object(&[
    ("mediaType", Shape::Any),
    ("digest", Shape::Any),
    ("size", Shape::Any),
    ("urls", Shape::Any),
    ("annotations", Shape::Any),
    ("data", Shape::Any),
    ("artifactType", Shape::Any),
    (
        "platform",
        Shape::Object(&[
            ("architecture", Shape::Any),
            ("os", Shape::Any),
            ("os.version", Shape::Any),
            ("os.features", Shape::Any),
            ("variant", Shape::Any),
        ]),
    ),
]);

/// What BuildKit's importer reads of an image config.
pub const CONFIG: Shape = Shape::Object(&[
    (
        "rootfs",
        Shape::Object(&[("diff_ids", Shape::List(&Shape::Any))]),
    ),
    (
        "history",
        Shape::List(&Shape::Object(&[
            ("created", Shape::Any),
            ("created_by", Shape::Any),
            ("empty_layer", Shape::Any),
        ])),
    ),
    (CACHE_KEY, Shape::Any),
]);

/// Checks the names and the lengths of lists in `document`.
///
/// # Errors
/// Where it is not JSON, has a name that Go reads as another one of `shape`, or too long a list.
pub fn check(document: &[u8], shape: &Shape) -> Result<(), JsonError> {
    let mut reader = serde_json::Deserializer::from_slice(document);
    let read = shape.deserialize(&mut reader).and_then(|()| reader.end());
    // Every type of value is accepted, so errors are those below, or about broken JSON.
    read.map_err(|err| JsonError::in_own_words(&err))
}

// === impl Shape ===

impl<'de> DeserializeSeed<'de> for &Shape {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, value: D) -> Result<(), D::Error> {
        match self {
            Shape::Any => IgnoredAny::deserialize(value).map(|_| ()),
            Shape::List(_) | Shape::Object(_) => value.deserialize_any(self),
        }
    }
}

/// Accepts values of any type. Whoever reads the document afterwards refuses a wrong one.
impl<'de> Visitor<'de> for &Shape {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let fields = match self {
            Shape::Object(fields) => *fields,
            Shape::List(_) | Shape::Any => &[],
        };
        while let Some(name) = members.next_key::<Cow<'_, str>>()? {
            if let Some((_, shape)) = fields.iter().find(|(field, _)| *field == name) {
                members.next_value_seed(shape)?;
            } else if let Some((field, _)) =
                fields.iter().find(|(field, _)| is_same_to_go(field, &name))
            {
                return Err(A::Error::custom(format_args!(
                    "it has {name:?}, which BuildKit reads as {field:?}"
                )));
            } else {
                members.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        let element = match self {
            Shape::List(element) => element,
            Shape::Object(_) | Shape::Any => &Shape::Any,
        };
        let mut count = 0;
        while elements.next_element_seed(element)?.is_some() {
            count += 1;
            if count > MAX_ELEMENTS {
                return Err(A::Error::custom(format_args!(
                    "it has a list of more than {MAX_ELEMENTS} elements"
                )));
            }
        }
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(document: &str, shape: &Shape) -> String {
        match check(document.as_bytes(), shape) {
            Ok(()) => String::new(),
            Err(err) => err.to_string(),
        }
    }

    #[test]
    fn a_name_that_go_reads_as_another_is_refused_wherever_buildkit_looks() {
        for (document, name) in [
            (r#"{"config":{},"Config":{}}"#, "Config"),
            (r#"{"Layers":[]}"#, "Layers"),
            (r#"{"LAYER\u017f":[]}"#, "LAYER\u{17f}"),
            (r#"{"config":{"digest":"a","Digest":"b"}}"#, "Digest"),
            (r#"{"layers":[{"size":1},{"sIze":1}]}"#, "sIze"),
            (r#"{"manifests":[{"platform":{"OS":"linux"}}]}"#, "OS"),
        ] {
            let said = refusal(document, &MANIFEST);
            assert!(
                said.contains(&format!("{name:?}, which")),
                "{document}: {said}"
            );
        }
        for document in [
            r#"{"rootfs":{"Diff_IDs":[]}}"#,
            r#"{"history":[{"Empty_layer":true}]}"#,
            r#"{"moby.build\u212ait.cache.v0":""}"#,
        ] {
            assert!(refusal(document, &CONFIG).contains("which BuildKit reads"));
        }
    }

    #[test]
    fn what_buildkit_does_not_read_may_have_any_name() {
        for document in [
            r#"{"config":{"annotations":{"Digest":"x"}},"x":{"Layers":[]},"annotations":{"SIZE":""}}"#,
            r#"{"layers":[null,1,-1,1.5,true,"a",[{"Size":1}]],"config":null,"manifests":{"a":{}}}"#,
        ] {
            assert_eq!(refusal(document, &MANIFEST), "");
        }
        assert_eq!(
            refusal(r#"{"config":{"History":1},"history":null}"#, &CONFIG),
            ""
        );
    }

    #[test]
    fn lists_have_an_end() {
        let listing = |count: usize| format!(r#"{{"history":[{}{{}}]}}"#, "{},".repeat(count - 1));
        assert_eq!(refusal(&listing(MAX_ELEMENTS), &CONFIG), "");
        assert!(refusal(&listing(MAX_ELEMENTS + 1), &CONFIG).contains("more than 10000"));
        assert!(refusal(r#"{"history":[{}"#, &CONFIG).contains("EOF"));
        assert!(refusal("{}{}", &CONFIG).contains("trailing"));
    }
}
