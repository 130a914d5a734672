//! Reads, embeds and removes the inline cache of an image config, and leaves its other bytes as they are.
//!
//! The config is edited as text: members are found in it, and cut out or inserted there. Everything else
//! stays in the form that it has. So an image whose cache is removed is the image that would have been
//! built without cache.
//!
//! The format: image configs are JSON objects (OCI image specification, `config.md`); the cache
//! is a top-level member of it with base64 text, as BuildKit reads it
//! (`cache/remotecache/import.go`). Here the member's name has to match exactly. Go ignores
//! its case when it reads into a struct, and the last match counts. That is the exact name, too: the exporter
//! writes members sorted by name, and capitals sort first.

use std::ops::Range;

use serde::de::IgnoredAny;
use thiserror::Error;

use crate::cache::JsonError;
use crate::cache::record::{Base64Error, base64};

/// The member that holds an inline cache.
pub const CACHE_KEY: &str = "moby.buildkit.cache.v0";

/// The member that was proposed for it at first (moby/buildkit issue 752).
pub const PROPOSED_KEY: &str = "moby.buildkit.buildcache";

/// The largest config, cache included, that callers read by default (bytes). No real image comes near.
pub const DEFAULT_LIMIT: usize = 8 << 20;

/// The records (JSON) that `config` carries, if it carries any. `limit` bounds its length.
///
/// As in Go, the last of several such members counts, and a `null` is no cache.
///
/// ```
/// use inlay::cache::image::config::{DEFAULT_LIMIT, cache_of};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let config = std::fs::read("examples/image/config.json")?;
/// let records = cache_of(&config, DEFAULT_LIMIT)?.expect("this image has a cache");
/// assert!(records.starts_with(br#"[{"digest":"sha256:"#));
/// assert_eq!(cache_of(br#"{"os":"linux"}"#, DEFAULT_LIMIT)?, None);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// A [`ConfigError`] where `config` is too long or not a JSON object, or the cache is not base64 text.
pub fn cache_of(config: &[u8], limit: usize) -> Result<Option<Vec<u8>>, ConfigError> {
    cache_under(CACHE_KEY, config, limit)
}

/// As [`cache_of`], for the member [`PROPOSED_KEY`].
///
/// # Errors
/// As [`cache_of`].
pub fn proposed_cache_of(config: &[u8], limit: usize) -> Result<Option<Vec<u8>>, ConfigError> {
    cache_under(PROPOSED_KEY, config, limit)
}

fn cache_under(
    key: &'static str,
    config: &[u8],
    limit: usize,
) -> Result<Option<Vec<u8>>, ConfigError> {
    let members = Members::of(config, limit)?;
    let Some(member) = members.filter(|m| m.is(key, config)).last() else {
        return Ok(None);
    };
    let text: Option<String> = serde_json::from_slice(&config[member.value])
        .map_err(|_| ConfigError::CacheNotText { key })?;
    let decoded = text.map(|text| base64::decode(&text)).transpose();
    decoded.map_err(|source| ConfigError::CacheNotBase64 { key, source })
}

/// `config` without the inline cache, whatever form that has, and otherwise byte for byte the same.
/// `limit` bounds its length.
///
/// ```
/// use inlay::cache::image::config::{DEFAULT_LIMIT, strip};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let config = br#"{"os":"linux", "moby.buildkit.cache.v0":"W10=", "author":"me"}"#;
/// assert_eq!(strip(config, DEFAULT_LIMIT)?, br#"{"os":"linux", "author":"me"}"#);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// A [`ConfigError`] where `config` is too long or no JSON object.
pub fn strip(config: &[u8], limit: usize) -> Result<Vec<u8>, ConfigError> {
    Ok(Stripped::of(config, limit)?.text)
}

/// `config` with the inline cache `cache` (base64) as its last member, in place of any that it
/// had; otherwise byte for byte the same, so that [`strip`] undoes it. `limit` bounds the length
/// of `config` and of what comes out.
///
/// ```
/// use inlay::cache::image::config::{DEFAULT_LIMIT, embed, strip};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let config = br#"{ "os": "linux" }"#;
/// let cached = embed(config, "W10=", DEFAULT_LIMIT)?;
/// assert_eq!(cached, br#"{ "os": "linux","moby.buildkit.cache.v0":"W10=" }"#);
/// assert_eq!(strip(&cached, DEFAULT_LIMIT)?, config);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// A [`ConfigError`] where `config` is no JSON object, `cache` is not base64, or one of the two
/// lengths exceeds `limit`.
pub fn embed(config: &[u8], cache: &str, limit: usize) -> Result<Vec<u8>, ConfigError> {
    // Encoded again: base64 that can be decoded may have line ends, which a JSON string may not.
    let cache = base64::decode(cache).map_err(|source| ConfigError::CacheNotBase64 {
        key: CACHE_KEY,
        source,
    })?;
    let cache = base64::encode(&cache);
    let Stripped {
        mut text,
        end,
        is_empty,
    } = Stripped::of(config, limit)?;
    let comma = if is_empty { "" } else { "," };
    let member = format!("{comma}\"{CACHE_KEY}\":\"{cache}\"");
    check_length(text.len() + member.len(), limit)?;
    text.splice(end..end, member.into_bytes());
    Ok(text)
}

/// Why a config was refused.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// It is longer than the limit.
    #[error("the image config has {bytes} bytes, more than {limit}")]
    TooLarge {
        /// Its length.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// It is not JSON.
    #[error("the image config is not JSON: {0}")]
    NotJson(#[source] JsonError),
    /// It is JSON, but an array or a bare value.
    #[error("the image config is not a JSON object")]
    NotAnObject,
    /// The cache in it is not a string.
    #[error("`{key}` in the image config is not a string")]
    CacheNotText {
        /// Its member.
        key: &'static str,
    },
    /// The cache that it has, or that is to be embedded, is not base64.
    #[error("`{key}` of the image config is {source}")]
    CacheNotBase64 {
        /// Its member.
        key: &'static str,
        /// What is wrong.
        source: Base64Error,
    },
}

fn check_length(bytes: usize, limit: usize) -> Result<(), ConfigError> {
    if bytes > limit {
        return Err(ConfigError::TooLarge { bytes, limit });
    }
    Ok(())
}

/// A config with its cache cut out.
struct Stripped {
    text: Vec<u8>,
    /// Where in the text its last member ends, or its opening brace if it has no member.
    end: usize,
    is_empty: bool,
}

impl Stripped {
    /// Cuts each cache member, together with the text between it and the member before. [`embed`] adds
    /// the two together. If the first member is cut, the text behind it is cut instead.
    fn of(config: &[u8], limit: usize) -> Result<Self, ConfigError> {
        let members = Members::of(config, limit)?;
        let brace = members.at;
        let mut stripped = Self {
            text: config[..brace].to_vec(),
            end: brace,
            is_empty: true,
        };
        let mut before = brace..brace;
        for (number, member) in members.enumerate() {
            let gap = before.end..member.whole.start;
            if number == 0 {
                stripped.text.extend_from_slice(&config[gap.clone()]);
            }
            if !member.is(CACHE_KEY, config) {
                if !stripped.is_empty {
                    stripped.text.extend_from_slice(&config[gap]);
                }
                stripped
                    .text
                    .extend_from_slice(&config[member.whole.clone()]);
                stripped.end = stripped.text.len();
                stripped.is_empty = false;
            }
            before = member.whole;
        }
        stripped.text.extend_from_slice(&config[before.end..]);
        Ok(stripped)
    }
}

// === where the members of an object are in its text ===

/// A top-level member of a config.
struct Member {
    /// From its name to the end of its value.
    whole: Range<usize>,
    name: Range<usize>,
    value: Range<usize>,
}

impl Member {
    /// Whether its name is exactly `key`. `text` is the config that it is in.
    fn is(&self, key: &str, text: &[u8]) -> bool {
        serde_json::from_slice(&text[self.name.clone()]).is_ok_and(|name: String| name == key)
    }
}

/// The top-level members of a config, in order.
///
/// The text has been checked to be a JSON object, so this only finds where members end. On any other text
/// it would stop early; it cannot run past the end.
struct Members<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Members<'a> {
    /// The members of `config`; `at` is right behind its opening brace.
    fn of(config: &'a [u8], limit: usize) -> Result<Self, ConfigError> {
        check_length(config.len(), limit)?;
        serde_json::from_slice::<IgnoredAny>(config)
            .map_err(|err| ConfigError::NotJson(err.into()))?;
        let mut members = Self {
            text: config,
            at: 0,
        };
        members.skip_space();
        if members.peek() != Some(b'{') {
            return Err(ConfigError::NotAnObject);
        }
        members.at += 1;
        Ok(members)
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn skip_while(&mut self, skip: impl Fn(u8) -> bool) {
        while self.peek().is_some_and(&skip) {
            self.at += 1;
        }
    }

    fn skip_space(&mut self) {
        self.skip_while(is_space);
    }

    fn skip_string(&mut self) {
        self.at += 1;
        loop {
            self.skip_while(|b| b != b'"' && b != b'\\');
            match self.peek() {
                Some(b'\\') => self.at += 2,
                Some(_) => return self.at += 1,
                None => return,
            }
        }
    }

    fn skip_value(&mut self) {
        let mut depth = 0_usize;
        loop {
            match self.peek() {
                Some(b'"') => self.skip_string(),
                Some(b'{' | b'[') => {
                    depth += 1;
                    self.at += 1;
                }
                Some(b'}' | b']') => {
                    depth = depth.saturating_sub(1);
                    self.at += 1;
                }
                Some(b) if is_space(b) || matches!(b, b',' | b':') => self.at += 1,
                Some(_) => self.skip_while(|b| {
                    !is_space(b) && !matches!(b, b',' | b':' | b'"' | b'{' | b'}' | b'[' | b']')
                }),
                None => return,
            }
            if depth == 0 {
                return;
            }
        }
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

impl Iterator for Members<'_> {
    type Item = Member;

    fn next(&mut self) -> Option<Member> {
        self.skip_while(|b| is_space(b) || b == b',');
        let start = self.at;
        if self.peek() != Some(b'"') {
            return None;
        }
        self.skip_string();
        let name = start..self.at.min(self.text.len());
        self.skip_while(|b| is_space(b) || b == b':');
        let value = self.at;
        self.skip_value();
        let end = self.at.min(self.text.len());
        Some(Member {
            whole: start..end,
            name,
            value: value.min(end)..end,
        })
    }
}

#[cfg(test)]
mod tests;
