//! Where we read another thing than BuildKit does, on purpose, and how a case shows it.

use std::collections::BTreeSet;

use inlay::cache::record::{DigestError, Link, ParseError, RecordSet};
use serde_json::Value;

use super::{
    generate::{Case, Textual},
    oracle::Answer,
};

/// Where we read another thing than BuildKit does, on purpose.
#[derive(Debug)]
pub enum Difference {
    /// Any text is a digest to BuildKit, and the absence of one.
    DigestForm,
    /// A fault in layers that no result names is not seen by BuildKit.
    UnnamedLayer,
    /// BuildKit has no place for a `random:` key, and so refuses what links to it. We read it,
    /// and select nothing that needs it.
    RandomSource,
    /// We skip dates, and BuildKit refuses what is none.
    Date,
    /// serde_json has no negative zero but of floating point.
    MinusZero,
    /// Go puts U+FFFD for what is not Unicode, and we refuse.
    NotUnicode,
    /// Of a field that comes twice the last counts for Go, or a mix of both, and we refuse.
    Twice,
}

impl Difference {
    /// The difference that the case shows, if it is one.
    pub fn of(case: &Case, theirs: &Answer, ours: &Result<RecordSet, ParseError>) -> Option<Self> {
        let accepted = theirs.error.is_empty();
        match ours {
            Ok(set) if !accepted => {
                let source_is_random = |link: &Link| set.records()[link.record].digest.is_random();
                let mut links = set.records().iter().flat_map(|r| r.inputs.iter().flatten());
                // The first link to it, or one after it was left out.
                let refused = theirs.error.starts_with("failed to add record")
                    && theirs.error.contains("invalid dependency type <nil>")
                    || theirs.error == "invalid looping record";
                if refused && links.any(source_is_random) {
                    return Some(Self::RandomSource);
                }
                let date = case.textual == Some(Textual::Unread)
                    && theirs.error.starts_with("parsing time ")
                    && theirs.error.contains("yesterday");
                date.then_some(Self::Date)
            }
            Err(error) if accepted => {
                let config: Value = serde_json::from_slice(&case.usual).unwrap_or_default();
                match error {
                    ParseError::RecordDigest { record, why } => {
                        Self::of_digest(&config["records"][record]["digest"], why)
                    }
                    ParseError::LayerDigest { layer, why } => {
                        Self::of_digest(&config["layers"][layer]["blob"], why)
                    }
                    ParseError::LayerParent { layer, .. } | ParseError::LayerLoop { layer } => {
                        (!named(&config).contains(layer)).then_some(Self::UnnamedLayer)
                    }
                    ParseError::Json(_) => match case.textual? {
                        Textual::MinusZero => Some(Self::MinusZero),
                        Textual::NotUnicode => Some(Self::NotUnicode),
                        Textual::Twice => Some(Self::Twice),
                        _ => None,
                    },
                    _ => None,
                }
            }
            _ => None,
        }
    }

    fn of_digest(field: &Value, why: &DigestError) -> Option<Self> {
        let text = field.as_str().unwrap_or_default();
        let (algorithm, hex) = text.split_once(':').unwrap_or_default();
        let digits = match algorithm {
            "sha256" => 64,
            "sha384" => 96,
            "sha512" => 128,
            _ => 0,
        };
        let lower_hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
        let well_formed = digits > 0 && hex.len() == digits && hex.chars().all(lower_hex);
        let right = match why {
            DigestError::Absent => text.is_empty(),
            DigestError::NotABlob => text.starts_with("random:"),
            DigestError::Malformed { .. } => !text.is_empty(),
        };
        (right && !well_formed).then_some(Self::DigestForm)
    }
}

/// The layers that BuildKit walks over: those of `layers` results, and what is below them.
fn named(config: &Value) -> BTreeSet<usize> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let layers = list(&config["layers"]);
    let records = list(&config["records"]);
    let number = |value: &Value| match value {
        Value::Null => Some(0),
        value => value.as_u64().map(|n| n as usize),
    };
    let mut named = BTreeSet::new();
    for top in records.iter().flat_map(|record| list(&record["layers"])) {
        let mut next = number(&top["layer"]);
        while let Some(layer) = next
            && layer < layers.len()
            && named.insert(layer)
        {
            next = number(&layers[layer]["parent"]);
        }
    }
    named
}
