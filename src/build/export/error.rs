//! Why a result gets no cache.

use std::time::Duration;

use thiserror::Error;
use tonic::Status;

use crate::cache::embed::ImageCacheError;
use crate::cache::export::ExportedError;
use crate::cache::image::config::ConfigError;
use crate::protocol::MAX_MESSAGE;
use crate::protocol::result::ResultError;
use crate::session::SessionError;

/// How large a result may be with its cache (bytes): the message that carries it has other fields,
/// too.
pub const MAX_RESULT: usize = MAX_MESSAGE - (4 << 10);

/// Why a result gets no cache.
#[derive(Debug, Error)]
pub enum ExportError {
    /// The build itself fails.
    #[error("the build failed: {}", .0.message())]
    Build(Status),
    /// Whether the build fails cannot be told.
    #[error("evaluating the result: {}", .0.message())]
    Evaluate(Status),
    /// What was solved is not what the definitions say.
    #[error("its frontend replaces sources by a policy of its own")]
    SourcesChanged,
    /// The result cannot be read.
    #[error(transparent)]
    Result(#[from] ResultError),
    /// There is no session to export to.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The daemon takes too long.
    #[error("the daemon did not export the cache within {} s", .0.as_secs())]
    TimedOut(Duration),
    /// The daemon does not export the cache.
    #[error("exporting the cache: {}", .0.message())]
    Solve(Status),
    /// The daemon exports no cache of steps. It finds steps that an earlier build in the same session
    /// had by keys that are that session's alone.
    #[error("the daemon has no keys of its steps that mean anything to another build")]
    NoRecords,
    /// The daemon does not say what platform it has.
    #[error("asking for the daemon's platform: {}", .0.message())]
    Workers(Status),
    /// What the daemon exported cannot be read.
    #[error(transparent)]
    Exported(#[from] ExportedError),
    /// No cache can be made of it.
    #[error(transparent)]
    ImageCache(#[from] ImageCacheError),
    /// The daemon would not take the result.
    #[error("with it the build's result has {0} bytes, and the daemon takes {MAX_RESULT}")]
    TooLarge(usize),
    /// inlay stops, or has a defect.
    #[error("computing the cache broke off: {0}")]
    Computation(#[from] tokio::task::JoinError),
    /// The image config cannot hold it.
    #[error("image config: {0}")]
    Config(#[from] ConfigError),
}
