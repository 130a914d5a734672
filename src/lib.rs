//! Reproducible inline build cache for BuildKit.
//!
//! BuildKit can embed its build cache in the image it pushes. inlay is a server in front of an
//! unmodified buildkitd that makes this embedded cache a function of the build alone: two builds
//! whose images are equal without it are equal with it. `docs/` of the repository has the mechanism
//! and the format; this page is the way of a build through the crate.
//!
//! # The way of a build
//! 1. [`control`] listens and pipes every call between a client and the daemon, but for a few. The
//!    client's own [`session`] is carried on, call by call.
//! 2. `Control.Solve` begins a build. [`plan`] reads what it asks for. If that is inline cache in
//!    an image, the request goes on without that wish, and the build is known by its ref.
//! 3. If it imports cache from images, [`import`] reads each through a [`source`], checks it, and
//!    has the daemon import what was checked: from where it is, or from a content store that is
//!    offered on the client's session.
//! 4. `LLBBridge.Return` hands over the build's result. [`result`] finds the images in it, and
//!    [`export`] gives them their cache: it has the daemon evaluate the result, and then solve the
//!    same definition once more, on a [`session`] of inlay's own, with an export of the cache to
//!    that session. The client's build is still open and its steps are shared, so nothing runs.
//! 5. [`exported`] reads what came. [`image_cache`] makes the cache of it: [`record`] checks the
//!    graph of records and brings it into canonical form, [`llb`] lays the definition over it and
//!    tells the records of this build from those of the daemon's past.
//! 6. [`image`] puts the cache into the image's config, the result goes on, and the daemon exports
//!    an image that carries it.
//!
//! A client that solves a frontend or a definition by `Control.Solve` itself has no `Return`;
//! [`control`] is its gateway client then, and the way is the same.
//!
//! Whatever fails on this way, the image is built without cache and the user is told, unless they
//! said `ignore-error=false`.
//!
//! # The pure core
//! [`record`], [`image`] and [`llb`] are functions of bytes: no I/O, no clock, no runtime. With
//! `default-features = false` they are all there is.
//!
//! ```
//! use inlay::image::config;
//! use inlay::record::{Limits, RecordSet, select};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // What a daemon exports as `type=local`: layers, and records that are keys of steps.
//! let exported = std::fs::read("examples/image/cache.json")?;
//! let set = RecordSet::parse(&exported, &Limits::default())?;
//! let cache = select(&set)?;
//! assert_eq!((cache.records().len(), cache.layers()), (9, 3));
//!
//! let image = br#"{"architecture":"amd64","os":"linux"}"#;
//! let cached = config::embed(image, &cache.encode(), config::DEFAULT_LIMIT)?;
//! assert_eq!(config::strip(&cached, config::DEFAULT_LIMIT)?, image);
//! # Ok(())
//! # }
//! ```
//!
//! `examples/` of the repository has a program for each job: read the cache of an image, list it,
//! embed it, strip it. `examples/image/` has what BuildKit v0.34.2 exported for a small build, and
//! the config of its image.
// Without the server its modules are not there to be linked to.
#![cfg_attr(not(feature = "server"), doc = "")]
#![cfg_attr(not(feature = "server"), doc = "[`control`]: #the-pure-core")]
#![cfg_attr(not(feature = "server"), doc = "[`plan`]: #the-pure-core")]
#![cfg_attr(not(feature = "server"), doc = "[`result`]: #the-pure-core")]
#![cfg_attr(not(feature = "server"), doc = "[`export`]: #the-pure-core")]
#![cfg_attr(not(feature = "server"), doc = "[`session`]: #the-pure-core")]
#![cfg_attr(not(feature = "server"), doc = "[`exported`]: #the-pure-core")]
#![cfg_attr(not(feature = "server"), doc = "[`image_cache`]: #the-pure-core")]
#![cfg_attr(not(feature = "server"), doc = "[`import`]: #the-pure-core")]
#![cfg_attr(not(feature = "server"), doc = "[`source`]: #the-pure-core")]
#![warn(clippy::unwrap_used, clippy::expect_used)]

pub mod image;
pub mod llb;
pub mod proto;
pub mod record;

#[cfg(feature = "server")]
pub mod address;
#[cfg(feature = "server")]
pub mod cli;
#[cfg(feature = "server")]
pub mod control;
#[cfg(feature = "server")]
pub mod daemon;
#[cfg(feature = "server")]
pub mod export;
#[cfg(feature = "server")]
pub mod exported;
#[cfg(feature = "server")]
pub mod image_cache;
#[cfg(feature = "server")]
pub mod import;
#[cfg(feature = "server")]
pub mod plan;
#[cfg(feature = "server")]
pub mod progress;
#[cfg(feature = "server")]
pub mod recall;
#[cfg(feature = "server")]
pub mod relay;
#[cfg(feature = "server")]
pub mod result;
#[cfg(feature = "server")]
pub mod session;
#[cfg(feature = "server")]
pub mod source;
#[cfg(feature = "server")]
pub mod wire;
