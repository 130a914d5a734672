//! Images read by the library itself, as an operator has set it up and for a user.

use std::future::Future;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use inlay::source::{
    Access, Credentials, CredentialsError, Location, Login, Settings, Source, SourceError, Token,
    TokenRequest,
};
use oci_spec::image::Descriptor;

/// Above all manifests and configs here.
pub const LIMIT: u64 = 1 << 20;

/// Reads by way of what an operator has set.
#[derive(Debug)]
pub struct Reader {
    runtime: tokio::runtime::Runtime,
    /// What it reads by.
    pub access: Access,
}

/// A user with a login, who notes for which hosts it was asked.
#[derive(Debug)]
pub struct User {
    login: Option<Login>,
    /// The token that its client fetches.
    token: Option<Token>,
    token_requests: Mutex<Vec<TokenRequest>>,
    asked: Mutex<Vec<String>>,
}

// === impl Reader ===

impl Reader {
    /// With these settings.
    pub fn new(settings: Settings) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build();
        Self {
            runtime: runtime.unwrap(),
            access: Access::new(settings).unwrap(),
        }
    }

    /// Waits for something.
    pub fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// Opens a location for a user without a login.
    pub fn open(&self, location: &str) -> Result<Box<dyn Source>, SourceError> {
        self.open_as(location, User::new(None))
    }

    /// Opens a location for a user.
    pub fn open_as(
        &self,
        location: &str,
        user: Arc<dyn Credentials>,
    ) -> Result<Box<dyn Source>, SourceError> {
        let location: Location = location.parse().unwrap();
        self.wait(self.access.open(&location, None, user))
    }

    /// What it says that is wrong with a location.
    pub fn refusal(&self, location: &str) -> SourceError {
        self.refusal_as(location, User::new(None))
    }

    /// The same for a user.
    pub fn refusal_as(&self, location: &str, user: Arc<dyn Credentials>) -> SourceError {
        match self.open_as(location, user) {
            Err(err) => err,
            Ok(source) => self.wait(source.root(LIMIT)).unwrap_err(),
        }
    }

    /// A part of a blob.
    pub fn part(
        &self,
        source: &dyn Source,
        of: &Descriptor,
        range: Range<u64>,
    ) -> Result<Vec<u8>, SourceError> {
        self.wait(async {
            let chunks: Vec<Bytes> = source.read(of, range).await?.try_collect().await?;
            Ok(chunks.concat())
        })
    }
}

// === impl User ===

impl User {
    /// One with this login.
    pub fn new(login: Option<Login>) -> Arc<Self> {
        Self::with(login, None)
    }

    /// One whose client fetches this token.
    pub fn with_token(token: &str) -> Arc<Self> {
        Self::with(None, Some(Token(token.to_owned())))
    }

    fn with(login: Option<Login>, token: Option<Token>) -> Arc<Self> {
        Arc::new(Self {
            login,
            token,
            token_requests: Mutex::default(),
            asked: Mutex::default(),
        })
    }

    /// One with a password.
    pub fn with_password(username: &str, secret: &str) -> Arc<Self> {
        Self::new(Some(Login::Password {
            username: username.to_owned(),
            secret: secret.to_owned(),
        }))
    }

    /// The requests for a token so far.
    pub fn token_requests(&self) -> Vec<TokenRequest> {
        self.token_requests.lock().unwrap().clone()
    }

    /// The hosts so far.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

#[tonic::async_trait]
impl Credentials for User {
    async fn token(&self, request: &TokenRequest) -> Result<Option<Token>, CredentialsError> {
        self.token_requests.lock().unwrap().push(request.clone());
        Ok(self.token.clone())
    }

    async fn of(&self, host: &str) -> Result<Option<Login>, CredentialsError> {
        self.asked.lock().unwrap().push(host.to_owned());
        Ok(self.login.clone())
    }
}
