//! Errors of JSON documents that are safe to tell to anyone.

use serde_json::error::Category;
use thiserror::Error;

/// The beginnings of serde's messages that quote no value. They quote names of fields that inlay knows.
const QUOTE_NOTHING: [&str; 2] = ["missing field ", "duplicate field "];

/// Why a JSON document cannot be read. It quotes no value of the document, which may be a secret: a
/// document may be any file, or the answer of an internal service. serde's own messages quote values that
/// have a wrong type.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{0}")]
pub struct JsonError(String);

// === impl JsonError ===

impl JsonError {
    /// Keeps serde's message, which must quote only names that inlay knows.
    pub(super) fn in_own_words(err: &serde_json::Error) -> Self {
        Self(err.to_string())
    }
}

impl From<serde_json::Error> for JsonError {
    fn from(err: serde_json::Error) -> Self {
        let whole = Self::in_own_words(&err);
        let quotes_nothing = QUOTE_NOTHING.iter().any(|begin| whole.0.starts_with(begin));
        if err.classify() != Category::Data || quotes_nothing {
            return whole;
        }
        let (line, column) = (err.line(), err.column());
        Self(format!(
            "a value is not of the form that it should have at line {line} column {column}"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error<T: serde::de::DeserializeOwned + std::fmt::Debug>(document: &str) -> String {
        let err = serde_json::from_str::<T>(document).unwrap_err();
        JsonError::from(err).to_string()
    }

    #[test]
    fn nothing_of_the_document_is_quoted() {
        for document in [
            r#""secret""#,
            r#"["secret"]"#,
            "[1,\n\"secret\"]",
            "{\"secret\":1}",
        ] {
            let said = error::<Vec<u8>>(document);
            assert!(!said.contains("secret"), "{said}");
        }
        assert_eq!(
            error::<Vec<u8>>("[1,\n\"secret\"]"),
            "a value is not of the form that it should have at line 2 column 8"
        );
        assert!(!error::<Vec<u8>>("secret").contains("secret"));
        #[derive(Debug, serde::Deserialize)]
        #[expect(dead_code, reason = "it is never read")]
        struct Known {
            name: u8,
        }
        let twice = error::<Known>(r#"{"name":1,"name":2,"other":"secret"}"#);
        assert!(
            twice.starts_with("duplicate field `name` at line 1"),
            "{twice}"
        );
        let missing = error::<Known>(r#"{"other":"secret"}"#);
        assert!(
            missing.starts_with("missing field `name` at line 1"),
            "{missing}"
        );
        assert_eq!(
            error::<Vec<u8>>("[1"),
            "EOF while parsing a list at line 1 column 2"
        );
    }
}
