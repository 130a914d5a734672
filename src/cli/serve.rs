//! `inlay serve`.

use std::env;
use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::build::{Policy, RegistryImports, Router, Shared};
use crate::daemon::address::{DaemonAddress, ListenAddress};
use crate::proxy::Server;
use crate::source::{Access, Settings};

/// The variable with the daemon's address, which BuildKit's tools read, too.
const BUILDKIT_HOST: &str = "BUILDKIT_HOST";

/// Listen for BuildKit's clients and forward their calls to a daemon
#[derive(Debug, Args)]
#[command(after_help = "\
Then point a client at it, and ask for inline cache:
  buildctl --addr unix:///run/inlay/inlay.sock build … --export-cache type=inline
  docker buildx create --use --driver remote unix:///run/inlay/inlay.sock
  docker buildx build … --cache-to type=inline")]
pub struct Serve {
    /// Where to listen: unix:///PATH or tcp://HOST:PORT (loopback only); may be given several times
    #[arg(
        long,
        value_name = "ADDR",
        default_value = "unix:///run/inlay/inlay.sock"
    )]
    addr: Vec<ListenAddress>,
    /// The daemon: unix:///PATH, tcp://HOST:PORT, or docker:///PATH for Docker Engine's API socket
    /// [default: $BUILDKIT_HOST, else buildkitd's usual socket]
    // Not clap's `env`: for BuildKit's tools an empty variable is none, for clap it is a value.
    #[arg(long, value_name = "ADDR")]
    buildkitd: Option<DaemonAddress>,
    /// When inlay embeds the inline cache; otherwise, the daemon embeds its own
    #[arg(long, value_enum, value_name = "WHEN", default_value = "on-request")]
    inline_export: WhenInline,
    /// Who reads `type=registry` cache imports
    #[arg(long, value_enum, value_name = "WHO", default_value = "checked")]
    registry_imports: Registry,
    /// A folder on this machine below which image layouts and archives may be imported; may be given
    /// several times
    #[arg(long, value_name = "DIR")]
    allow_path: Vec<PathBuf>,
    /// containerd's socket, for imports of containerd:NAME; every user who may build can then read the images
    /// in the allowed namespaces
    #[cfg(feature = "containerd")]
    #[arg(long, value_name = "PATH")]
    containerd_address: Option<PathBuf>,
    /// A containerd namespace that may be imported from (Docker Engine's is moby); may be given several
    /// times, and the first one is for imports that name none
    #[cfg(feature = "containerd")]
    #[arg(long, value_name = "NAME", default_value = "default")]
    containerd_namespace: Vec<String>,
    /// A registry (HOST or HOST:PORT) that inlay speaks to without TLS, in addition to those on this
    /// machine; may be given several times
    #[arg(long, value_name = "HOST")]
    plain_http_registry: Vec<String>,
    /// A PEM file of CA certificates to trust for registries, in addition to the system's; may be given
    /// several times
    #[arg(long, value_name = "FILE")]
    registry_ca: Vec<PathBuf>,
    /// The timeout for the daemon's cache export of one image, in seconds; after that, the image is
    /// exported without inline cache
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    export_timeout: u64,
    /// How long inlay waits for running builds after SIGTERM or SIGINT, in seconds; a second signal ends
    /// them at once
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    grace: u64,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum WhenInline {
    /// In builds that ask for inline cache
    OnRequest,
    /// Never
    Never,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Registry {
    /// The daemon alone
    Daemon,
    /// inlay first; the daemon then reads what passed inlay's checks, and what inlay could not fetch;
    /// inlay serves caches that the daemon would not find in the image
    Checked,
    /// inlay alone; it serves them to the daemon, layers included, and leaves none to it
    Inlay,
}

// === impl Registry ===

impl From<Registry> for RegistryImports {
    fn from(registry: Registry) -> Self {
        match registry {
            Registry::Daemon => Self::Daemon,
            Registry::Checked => Self::Checked,
            Registry::Inlay => Self::Inlay,
        }
    }
}

// === impl Serve ===

impl Serve {
    /// Serves until a signal ends it.
    pub fn run(self) -> Result<(), Box<dyn Error>> {
        let daemon = match self.buildkitd {
            Some(daemon) => daemon,
            None => match env::var(BUILDKIT_HOST).ok().filter(|host| !host.is_empty()) {
                Some(host) => host
                    .parse()
                    .map_err(|err| format!("${BUILDKIT_HOST}: {err}"))?,
                None => usual_daemon()?,
            },
        };
        if let Some(listen) = self.addr.iter().find(|listen| is_same(listen, &daemon)) {
            return Err(format!(
                "inlay would be its own daemon: it is to listen on {listen}, and to forward to {daemon}; \
                 name buildkitd's own address with --buildkitd (${BUILDKIT_HOST} counts without it)"
            )
            .into());
        }
        let access = Access::new(Settings {
            allow_paths: self.allow_path,
            #[cfg(feature = "containerd")]
            containerd_address: self.containerd_address,
            #[cfg(feature = "containerd")]
            containerd_namespaces: self.containerd_namespace,
            plain_http_registries: self.plain_http_registry,
            registry_authorities: self.registry_ca,
            ..Settings::default()
        })?;
        let policy = Policy {
            exports: matches!(self.inline_export, WhenInline::OnRequest),
            export_timeout: Duration::from_secs(self.export_timeout),
            registry_imports: self.registry_imports.into(),
            access,
        };
        tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()?
            .block_on(async {
                raise_descriptor_limit();
                let (stop, now) = stop_on_signals()?;
                info!(buildkitd = %daemon, "proxying to");
                let server = Server::bind(&self.addr).await?;
                let router = Router::new(Shared::new(policy));
                let grace = Duration::from_secs(self.grace);
                server.run(router, Arc::new(daemon), stop, grace, now).await;
                info!("stopped");
                Ok(())
            })
    }
}

/// Whether a server that listens there is the daemon, however its path is written.
fn is_same(listen: &ListenAddress, daemon: &DaemonAddress) -> bool {
    match (listen, daemon) {
        (ListenAddress::Unix(ours), DaemonAddress::Unix(theirs)) => {
            let real = |path: &Path| {
                let folder = path.parent().and_then(|folder| folder.canonicalize().ok());
                Some(folder?.join(path.file_name()?))
            };
            ours == theirs || real(ours).is_some_and(|ours| Some(ours) == real(theirs))
        }
        (ListenAddress::Tcp(ours), DaemonAddress::Tcp(theirs)) => ours == theirs,
        _ => false,
    }
}

/// Raises the soft limit of descriptors to the hard one, as Go's programs do, since each client takes
/// two. The usual soft limit is low for the sake of programs that use `select`, and inlay starts no others.
fn raise_descriptor_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        if let Err(err) = setrlimit(Resource::Nofile, limit) {
            warn!("the limit of descriptors cannot be raised: {err}");
        }
    }
}

/// Two tokens: one that the first SIGTERM or SIGINT cancels, and one that the second cancels.
fn stop_on_signals() -> io::Result<(CancellationToken, CancellationToken)> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (stop, now) = (CancellationToken::new(), CancellationToken::new());
    let tokens = [
        (
            "no new connections, and running builds may end",
            stop.clone(),
        ),
        ("at once", now.clone()),
    ];
    tokio::spawn(async move {
        for (how, token) in tokens {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            info!("stopping: {how}");
            token.cancel();
        }
    });
    Ok((stop, now))
}

fn usual_daemon() -> Result<DaemonAddress, String> {
    let runtime_dir = env::var_os("XDG_RUNTIME_DIR");
    DaemonAddress::usual(runtime_dir.as_deref().map(Path::new), Path::exists).ok_or_else(|| {
        "no buildkitd found at its usual sockets; start one (https://github.com/moby/buildkit/releases has it, and \
         buildkitd listens there by itself), or name its address with --buildkitd or $BUILDKIT_HOST"
            .to_owned()
    })
}
