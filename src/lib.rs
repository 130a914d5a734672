//! Reproducible inline build cache for BuildKit.
//!
//! BuildKit can embed its build cache in the image it pushes. inlay is a server that proxies to an
//! unmodified buildkitd and makes this embedded cache a function of the build alone: the same build
//! always embeds the same cache. `docs/` of the repository has the mechanism and the format; this
//! page is the way of a build through the crate.
//!
//! # The way of a build
//! 1. [`proxy`] listens, and gives each client a connection of its own to the daemon. Every call
//!    is forwarded unread, except four methods that [`build`] reads. The HTTP/2 connection within a client's
//!    [`session`] is terminated, and its calls are proxied.
//! 2. `Control.Solve` begins a [`build::Build`]. [`protocol::solve`] reads what it asks for. If that
//!    is inline cache in an image, the request is forwarded without that, and the build is registered
//!    by its ref.
//! 3. If it imports cache from images, [`build::import`] reads each through a [`source`], checks it,
//!    and has the daemon import what was checked: from the image's own registry, from a registry of inlay's
//!    on a loopback address, or from a content store on the client's session.
//! 4. `LLBBridge.Return` has the build's result. [`protocol::result`] finds the images in it, and
//!    [`build::export`] gives them their cache: it has the daemon evaluate the result, and then solve
//!    the same definition once more, on a [`session`] of inlay's own, with an export of the cache to
//!    that session. The client's build is still open and its steps are shared, so nothing runs.
//! 5. [`cache::export`] reads what came, and [`cache::embed`] makes the cache of it and of the definition:
//!    [`cache::record`] checks the graph of records and brings it into canonical form, [`cache::llb`]
//!    compares them with the definition, and finds those of this build.
//! 6. [`cache::image`] puts the cache into the image's config, the result is forwarded, and the daemon
//!    exports an image that carries it.
//!
//! A client that solves a frontend or a definition by `Control.Solve` itself sends no `Return`. inlay
//! is its gateway client then, and the way is the same. [`daemon`] has the connections to the daemon
//! and inlay's own calls to it, and [`transport`] has HTTP/2 and the bytes below it.
//!
//! Whatever fails on this way, the image is built without cache and the user is told, unless they
//! said `ignore-error=false`.
//!
//! # The pure core
//! [`cache`] is functions of bytes: no I/O, no clock, no runtime, no log. With
//! `default-features = false` it is all there is, with the messages of LLB in [`protocol::proto`].
//! [`cache::embed::embed`] does the whole job: it takes an export and a definition, and returns the inline
//! cache with notes on it.
//!
//! `examples/` of the repository has a program for each job: read the cache of an image, list it,
//! embed it, strip it. `examples/image/` has what BuildKit v0.34.2 exported for a small build, its
//! definition, and the config of its image.
// Without the feature `server` these modules do not exist, so their links lead here.
#![cfg_attr(not(feature = "server"), doc = "")]
#![cfg_attr(not(feature = "server"), doc = "[`proxy`]: #the-pure-core")]
#![cfg_attr(not(feature = "server"), doc = "[`build`]: #the-pure-core")]
#![cfg_attr(not(feature = "server"), doc = "[`build::Build`]: #the-pure-core")]
#![cfg_attr(not(feature = "server"), doc = "[`build::import`]: #the-pure-core")]
#![cfg_attr(not(feature = "server"), doc = "[`build::export`]: #the-pure-core")]
#![cfg_attr(not(feature = "server"), doc = "[`session`]: #the-pure-core")]
#![cfg_attr(not(feature = "server"), doc = "[`source`]: #the-pure-core")]
#![cfg_attr(not(feature = "server"), doc = "[`daemon`]: #the-pure-core")]
#![cfg_attr(not(feature = "server"), doc = "[`transport`]: #the-pure-core")]
#![cfg_attr(not(feature = "server"), doc = "[`protocol::solve`]: #the-pure-core")]
#![cfg_attr(not(feature = "server"), doc = "[`protocol::result`]: #the-pure-core")]
#![warn(clippy::unwrap_used, clippy::expect_used)]

pub mod cache;
pub mod protocol;

#[cfg(feature = "server")]
pub mod build;
#[cfg(feature = "server")]
pub mod cli;
#[cfg(feature = "server")]
pub mod daemon;
#[cfg(feature = "server")]
pub mod proxy;
#[cfg(feature = "server")]
pub mod session;
#[cfg(feature = "server")]
pub mod source;
#[cfg(feature = "server")]
pub mod transport;
