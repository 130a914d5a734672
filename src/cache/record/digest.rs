//! Digests of content and of cache keys: their text form.
//!
//! The text form is `<algorithm>:<hex>`, as the OCI image specification defines it in
//! `descriptor.md`.

use std::{borrow::Cow, fmt, fmt::Write as _, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, de::Error as _};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

/// The algorithm that BuildKit writes for a key that must not match another build's.
const RANDOM: &str = "random";

/// A well formed digest, `<algorithm>:<hex>`. Ordered as its text is; a clone shares the text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(Arc<str>);

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(text: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(text)?;
        Self::parse(&text).map_err(D::Error::custom)
    }
}

// === impl Digest ===

impl Digest {
    /// Reads a digest: `sha256`, `sha384` or `sha512` with as many lower case hex digits as the
    /// algorithm gives, or BuildKit's `random` with any number of them.
    ///
    /// # Errors
    /// A [`DigestError`] that says what is wrong with `text`.
    pub fn parse(text: &str) -> Result<Self, DigestError> {
        if text.is_empty() {
            return Err(DigestError::Absent);
        }
        let malformed = |why| DigestError::Malformed { why };
        let (algorithm, hex) = text
            .split_once(':')
            .ok_or_else(|| malformed("it has no `:`"))?;
        let digits = match algorithm {
            "sha256" => Some(64),
            "sha384" => Some(96),
            "sha512" => Some(128),
            RANDOM => None,
            _ => return Err(malformed("its algorithm is unknown")),
        };
        if hex.is_empty() || digits.is_some_and(|digits| digits != hex.len()) {
            return Err(malformed("its length is not its algorithm's"));
        }
        if !hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(malformed("it is not lower case hexadecimal"));
        }
        Ok(Self(text.into()))
    }

    /// The `sha256` digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self::from_sha256(Sha256::digest(bytes).into())
    }

    /// The digest with this hash.
    pub fn from_sha256(hash: [u8; 32]) -> Self {
        let mut text = String::with_capacity("sha256:".len() + 64);
        text.push_str("sha256:");
        for byte in hash {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
        }
        Self(text.into())
    }

    /// The whole digest, as it was read.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is a `random:` key. BuildKit makes one for what it must not cache. It matches no other
    /// build, so it is left out of an embedded cache. It is never the digest of a blob.
    pub fn is_random(&self) -> bool {
        self.0
            .strip_prefix(RANDOM)
            .is_some_and(|rest| rest.starts_with(':'))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        Self::parse(text)
    }
}

/// Why a text is not a digest. It does not quote the text, which may be a secret of the document that it is
/// from.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DigestError {
    /// The text is empty, or the field is absent.
    #[error("the digest is absent")]
    Absent,
    /// It breaks the form.
    #[error("the text is not a digest: {why}")]
    Malformed {
        /// The rule that it breaks.
        why: &'static str,
    },
    /// A `random:` key stands where a blob's digest belongs.
    #[error("the digest is a key, not that of a blob")]
    NotABlob,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn well_formed_digests_are_read_as_they_are() {
        for (algorithm, digits) in [("sha256", 64), ("sha384", 96), ("sha512", 128)] {
            let text = format!("{algorithm}:{}", "0a".repeat(digits / 2));
            let digest = Digest::parse(&text).unwrap();
            assert_eq!(digest.to_string(), text);
            assert!(!digest.is_random());
        }
        assert!(Digest::parse("random:0a1b").unwrap().is_random());
    }

    #[test]
    fn bytes_have_the_digest_that_everybody_gives_them() {
        assert_eq!(
            Digest::of(b"abc").as_str(),
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn each_refusal_says_why() {
        let hex = "a".repeat(64);
        for (text, message) in [
            (String::new(), "the digest is absent".to_owned()),
            (
                "abc".into(),
                "the text is not a digest: it has no `:`".into(),
            ),
            (
                "md5:00".into(),
                "the text is not a digest: its algorithm is unknown".into(),
            ),
            (
                "sha256:00".into(),
                "the text is not a digest: its length is not its algorithm's".into(),
            ),
            (
                "random:".into(),
                "the text is not a digest: its length is not its algorithm's".into(),
            ),
            (
                format!("sha256:{}", hex.to_uppercase()),
                "the text is not a digest: it is not lower case hexadecimal".into(),
            ),
        ] {
            assert_eq!(Digest::parse(&text).unwrap_err().to_string(), message);
        }
    }
}
