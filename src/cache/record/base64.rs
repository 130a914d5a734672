//! The text form of a Go `[]byte` in JSON: standard base64, padded.
//!
//! It is read and written as by Go's `encoding/json`, with which BuildKit writes the records into an image
//! config.

use base64::{
    Engine as _,
    alphabet::STANDARD,
    engine::{GeneralPurpose, GeneralPurposeConfig},
};
use thiserror::Error;

/// Accepts unused bits in the last character, as Go does. Otherwise inlay would refuse text that BuildKit
/// reads.
const ENGINE: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
);

/// The text is not padded base64 of the standard alphabet. The error does not quote it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Base64Error {
    /// A character does not belong there.
    #[error("not base64 at character {0}")]
    Character(usize),
    /// It ends within a group, or its padding is not what its length asks for.
    #[error("not base64: its length or its padding is wrong")]
    Padding,
}

impl From<base64::DecodeError> for Base64Error {
    fn from(err: base64::DecodeError) -> Self {
        match err {
            base64::DecodeError::InvalidByte(at, _)
            | base64::DecodeError::InvalidLastSymbol { offset: at, .. } => Self::Character(at + 1),
            base64::DecodeError::InvalidLength(_) | base64::DecodeError::InvalidPadding => {
                Self::Padding
            }
        }
    }
}

/// Writes `bytes` as Go does.
pub fn encode(bytes: &[u8]) -> String {
    ENGINE.encode(bytes)
}

/// Decodes what Go decodes: line ends within the text are ignored.
///
/// # Errors
/// A [`Base64Error`] where `text` is not base64.
pub fn decode(text: &str) -> Result<Vec<u8>, Base64Error> {
    if text.contains(['\r', '\n']) {
        return Ok(ENGINE.decode(text.replace(['\r', '\n'], ""))?);
    }
    Ok(ENGINE.decode(text)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_go_reads() {
        assert_eq!(encode(b"[{}]"), "W3t9XQ==");
        for text in ["W3t9XQ==", "W3t9\nXQ==\r\n", "W3t9XR=="] {
            assert_eq!(decode(text).unwrap(), b"[{}]", "{text:?}");
        }
        for text in ["W3t9XQ", "W3t9XQ=", "W3t9 XQ==", "W3t9XQ==x", "W3t_"] {
            assert!(decode(text).is_err(), "{text:?}");
        }
    }
}
