//! Errors of JSON documents that are safe to tell to anyone.

use serde_json::error::Category;
use thiserror::Error;

/// Why a JSON document cannot be read. serde's own words for a value of another form quote the value,
/// which may be somebody's secret: a document may be a file, or the answer of an internal service.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{0}")]
pub struct JsonError(String);

// === impl JsonError ===

impl JsonError {
    /// Keeps the error's own words, which must quote nothing but names that are known.
    pub(super) fn in_own_words(err: &serde_json::Error) -> Self {
        Self(err.to_string())
    }
}

impl From<serde_json::Error> for JsonError {
    fn from(err: serde_json::Error) -> Self {
        match err.classify() {
            Category::Data => Self(format!(
                "a value is not of the form that it should have at line {} column {}",
                err.line(),
                err.column()
            )),
            Category::Syntax | Category::Eof | Category::Io => Self::in_own_words(&err),
        }
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
        assert_eq!(
            error::<Vec<u8>>("[1"),
            "EOF while parsing a list at line 1 column 2"
        );
    }
}
