//! What the operator allows to be read. Opens a location as a source.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::sync::OnceCell;

use super::archive::Archive;
#[cfg(feature = "containerd")]
use super::containerd::Stores;
use super::docker_archive::DockerArchive;
use super::files::{Allowed, blocking};
use super::layout::Layout;
use super::registry::{Client, RegistryImage, host, is_local};
use super::{Credentials, Location, Source, SourceError};

/// What an operator can set.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The folders below which layouts and archives may be read. None by default.
    pub allow_paths: Vec<PathBuf>,
    /// containerd's socket. None by default: with one, every user who may build can read its images.
    #[cfg(feature = "containerd")]
    pub containerd_address: Option<PathBuf>,
    /// The namespaces of containerd that may be read. The first one is used where a build names none.
    #[cfg(feature = "containerd")]
    pub containerd_namespaces: Vec<String>,
    /// Registries, by host and port, that are spoken to without TLS. Registries on this machine always are,
    /// as in BuildKit.
    pub plain_http_registries: Vec<String>,
    /// PEM files of certificates to trust for registries, beside the system's.
    pub registry_authorities: Vec<PathBuf>,
    /// How long a registry or containerd may send nothing.
    pub timeout: Duration,
}

/// What may be read, and the clients to read it with.
#[derive(Debug)]
pub struct Access {
    allowed: Arc<Allowed>,
    #[cfg(feature = "containerd")]
    containerd: Stores,
    plain_http_registries: Vec<String>,
    authorities: Vec<CertificateDer<'static>>,
    timeout: Duration,
    /// Made when first needed: each reads the system's certificates.
    registries: OnceCell<Client>,
    local_registries: OnceCell<Client>,
}

// === impl Settings ===

impl Default for Settings {
    fn default() -> Self {
        Self {
            allow_paths: Vec::new(),
            #[cfg(feature = "containerd")]
            containerd_address: None,
            #[cfg(feature = "containerd")]
            containerd_namespaces: vec!["default".to_owned()],
            plain_http_registries: Vec::new(),
            registry_authorities: Vec::new(),
            timeout: Duration::from_secs(60),
        }
    }
}

// === impl Access ===

impl Access {
    /// Opens the folders and reads the certificates. Blocks.
    ///
    /// # Errors
    /// Where a folder cannot be opened, or a file has no certificate.
    pub fn new(settings: Settings) -> Result<Self, SourceError> {
        let mut authorities = Vec::new();
        for path in &settings.registry_authorities {
            authorities.extend(certificates(path)?);
        }
        Ok(Self {
            allowed: Arc::new(Allowed::new(&settings.allow_paths)?),
            #[cfg(feature = "containerd")]
            containerd: Stores {
                address: settings.containerd_address,
                namespaces: settings.containerd_namespaces,
                timeout: settings.timeout,
            },
            plain_http_registries: settings.plain_http_registries,
            authorities,
            timeout: settings.timeout,
            registries: OnceCell::new(),
            local_registries: OnceCell::new(),
        })
    }

    /// Opens the image at a location. `namespace` is containerd's; the first one that is allowed is the
    /// default. `credentials` are used when a registry asks for a login.
    ///
    /// # Errors
    /// Where it may not be read, is missing, or is no image. A registry is not asked yet: the source does
    /// that when it is read.
    pub async fn open(
        &self,
        location: &Location,
        #[cfg_attr(not(feature = "containerd"), expect(unused_variables))] namespace: Option<&str>,
        credentials: Arc<dyn Credentials>,
    ) -> Result<Box<dyn Source>, SourceError> {
        let what = location.to_string();
        let allowed = Arc::clone(&self.allowed);
        match location.clone() {
            Location::Registry(reference) => {
                let host = host(&reference);
                let local = is_local(host);
                let clients = if local {
                    &self.local_registries
                } else {
                    &self.registries
                };
                let make = || async { Client::new(&self.authorities, self.timeout, local) };
                let client = clients.get_or_try_init(make).await?.clone();
                let plain = local || self.plain_http_registries.iter().any(|plain| plain == host);
                let image = RegistryImage::new(client, reference, plain, credentials)?;
                Ok(Box::new(image))
            }
            #[cfg(feature = "containerd")]
            Location::Containerd(name) => {
                let image = self.containerd.open(namespace, &name, what).await?;
                Ok(Box::new(image))
            }
            #[cfg(not(feature = "containerd"))]
            Location::Containerd(_) => Err(SourceError::Closed {
                what,
                reason: "this inlay is built without its feature containerd",
            }),
            Location::OciLayout { path, pick } => {
                let open = move || Layout::open(Arc::new(allowed.folder(&path)?), &pick, &what);
                Ok(Box::new(blocking(open).await?))
            }
            Location::OciArchive { path, pick } => {
                let open = move || {
                    let archive = Archive::index(allowed.file(&path)?)?;
                    Layout::open(Arc::new(archive), &pick, &what)
                };
                Ok(Box::new(blocking(open).await?))
            }
            Location::DockerArchive { path, pick } => {
                let open = move || {
                    let archive = Archive::index(allowed.file(&path)?)?;
                    DockerArchive::open(&archive, &pick, &what)
                };
                Ok(Box::new(blocking(open).await?))
            }
        }
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, SourceError> {
    let what = path.display().to_string();
    let pem = fs::read(path).map_err(|error| SourceError::Io {
        what: what.clone(),
        error,
    })?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match found.map_err(|err| err.to_string()) {
        Ok(found) if !found.is_empty() => Ok(found),
        other => Err(SourceError::Malformed {
            what,
            reason: match other {
                Ok(_) => "it has no certificate".to_owned(),
                Err(reason) => reason,
            },
        }),
    }
}
