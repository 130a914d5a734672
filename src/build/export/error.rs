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

/// The largest result with its cache (bytes). The message that carries it has other fields, too.
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
    /// The daemon exports no records. It found the steps by keys that exist only within the session,
    /// where an earlier build of the same session had them.
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

// === impl ExportError ===

impl ExportError {
    /// What the log says of it. The daemon's own words are for the user alone: they may have the command
    /// line of a step, with the values of build arguments, or a URL.
    pub fn logged(&self) -> String {
        match self {
            Self::Build(status) => format!("the build failed: {:?}", status.code()),
            Self::Evaluate(status) => format!("evaluating the result: {:?}", status.code()),
            Self::Solve(status) => format!("exporting the cache: {:?}", status.code()),
            Self::Workers(status) => format!("asking for the platform: {:?}", status.code()),
            Self::Session(SessionError::Refused(status)) => {
                format!("opening a session: {:?}", status.code())
            }
            Self::Session(SessionError::Call(_))
            | Self::SourcesChanged
            | Self::Result(_)
            | Self::TimedOut(_)
            | Self::NoRecords
            | Self::Exported(_)
            | Self::ImageCache(_)
            | Self::TooLarge(_)
            | Self::Computation(_)
            | Self::Config(_) => self.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_has_none_of_the_daemons_words() {
        let status = || Status::unknown("process \"curl -u secret\" did not complete");
        for err in [
            ExportError::Build(status()),
            ExportError::Evaluate(status()),
            ExportError::Solve(status()),
            ExportError::Workers(status()),
            ExportError::Session(SessionError::Refused(status())),
        ] {
            assert!(err.to_string().contains("secret"), "{err}");
            assert!(!err.logged().contains("secret"), "{}", err.logged());
        }
    }
}
