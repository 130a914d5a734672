//! A unix socket to listen on. It replaces a stale socket, never a live one, and has its mode from the start.

use std::fs::{self, DirBuilder, File, Metadata, Permissions, TryLockError};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::os::unix::fs::{
    DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

use super::bind::BindError;
use crate::daemon::address::ListenAddress;

/// Who may connect: the owner and the group, as with buildkitd's.
const MODE: u32 = 0o660;
/// The mode of the lock file.
const LOCK_MODE: u32 = 0o600;
/// The mode of parent folders that are created. The umask can take bits away.
const PARENT_MODE: u32 = 0o755;
/// How long a connection may take before the server counts as live and busy.
const MAX_CONNECT: Duration = Duration::from_secs(1);

/// A listener and its socket file, which is removed when this is dropped.
#[derive(Debug)]
pub struct UnixSocket {
    /// The listener.
    pub listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the file, which tell it from a file that has replaced it.
    id: (u64, u64),
    /// Locked as long as the socket exists, so that no other inlay listens there.
    _lock: File,
}

// === impl UnixSocket ===

impl UnixSocket {
    /// Listens.
    ///
    /// # Errors
    /// Where another server is live at the path, something that is no socket is there, or the
    /// system refuses.
    pub async fn bind(address: &ListenAddress, path: &Path) -> Result<Self, BindError> {
        let failed = |source| BindError::Listen {
            address: address.clone(),
            source,
        };
        if let Some(dir) = path.parent() {
            let mut parents = DirBuilder::new();
            parents.recursive(true).mode(PARENT_MODE);
            parents.create(dir).map_err(failed)?;
        }
        let lock = lock(address, &lock_path(path))?;
        check_stale(address, path).await?;

        // The socket is made in a folder that only its owner can enter, gets its mode there, and is renamed
        // to its path. The folder's name is short, since a socket's path may have only some 100 bytes. The
        // lock is held, so a folder that exists was left by a process that was killed.
        let dir = path.with_file_name(short_name(path));
        let made = dir.join("s");
        let _ = fs::remove_file(&made);
        let _ = fs::remove_dir(&dir);
        DirBuilder::new().mode(0o700).create(&dir).map_err(failed)?;
        let made = make(&made, path);
        let removed = fs::remove_dir(&dir);
        let (listener, id) = made.map_err(failed)?;
        removed.map_err(failed)?;
        Ok(Self {
            listener,
            path: path.to_owned(),
            id,
            _lock: lock,
        })
    }
}

impl Drop for UnixSocket {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|file| id(&file) == self.id) {
            // An error means that it is gone already, or cannot be removed.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Opens the lock file, which only its owner can open, and locks it. Another user of the folder may have put
/// anything there, so links are not followed, and opening does not wait.
fn lock(address: &ListenAddress, path: &Path) -> Result<File, BindError> {
    let failed = |source: io::Error| BindError::Lock {
        address: address.clone(),
        path: path.to_owned(),
        source,
    };
    let flags =
        OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = rustix::fs::open(path, flags, Mode::from_raw_mode(LOCK_MODE));
    let lock = File::from(opened.map_err(|err| failed(err.into()))?);
    let metadata = lock.metadata().map_err(failed)?;
    if !metadata.is_file() || metadata.nlink() > 1 {
        return Err(failed(io::Error::other("it is no file of its own")));
    }
    // Any user who can open the file can lock it.
    lock.set_permissions(Permissions::from_mode(LOCK_MODE))
        .map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(BindError::Live(address.clone())),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

/// The path of a socket's lock file.
fn lock_path(path: &Path) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(".lock");
    path.into()
}

/// The name of the folder in which the socket of a path is made.
fn short_name(path: &Path) -> String {
    let mut hasher = DefaultHasher::new();
    path.file_name().hash(&mut hasher);
    format!(".{:06x}", hasher.finish() & 0xff_ffff)
}

fn make(at: &Path, path: &Path) -> io::Result<(UnixListener, (u64, u64))> {
    let listener = UnixListener::bind(at)?;
    let placed = fs::set_permissions(at, Permissions::from_mode(MODE))
        .and_then(|()| fs::symlink_metadata(at))
        .and_then(|file| fs::rename(at, path).map(|()| id(&file)));
    match placed {
        Ok(id) => Ok((listener, id)),
        Err(err) => {
            let _ = fs::remove_file(at);
            Err(err)
        }
    }
}

/// Checks that the path is free, or has a socket that a server left behind.
async fn check_stale(address: &ListenAddress, path: &Path) -> Result<(), BindError> {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    if !metadata.file_type().is_socket() {
        return Err(BindError::NoSocket(address.clone()));
    }
    match timeout(MAX_CONNECT, UnixStream::connect(path)).await {
        Ok(Err(err)) if err.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Ok(Err(source)) => Err(BindError::Listen {
            address: address.clone(),
            source,
        }),
        Ok(Ok(_)) | Err(_) => Err(BindError::Live(address.clone())),
    }
}

fn id(file: &Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}
