//! Files that users name, on the machine of inlay: opened only below the folders that the operator
//! allows, and read in ranges.
//!
//! A path is resolved first, links and all, and has to lie below an allowed folder then. The file is
//! opened relative to that folder, which was opened at the start, by a call in which the kernel
//! follows no link and leaves no folder. So a part of the path that is swapped between the two steps
//! leads to an error, and to no file elsewhere.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};

use super::{ByteStream, SourceError};

/// How much of a file is read at once (bytes).
pub const CHUNK: u64 = 1 << 20;

/// Files by name, as an image layout has them.
pub trait Files: Send + Sync + std::fmt::Debug {
    /// The file of a name such as `blobs/sha256/…`, if there is one.
    ///
    /// # Errors
    /// Where it is no file, or cannot be opened.
    fn open(&self, name: &str) -> Result<Option<Extent>, SourceError>;
}

/// Folders below which files may be opened.
#[derive(Debug)]
pub struct Allowed {
    folders: Vec<Folder>,
    /// Their paths, as the operator named them and as they resolve.
    spelled: Vec<PathBuf>,
}

/// An open folder; its files are opened relative to it.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    file: File,
}

/// A part of an open file.
#[derive(Debug, Clone)]
pub struct Extent {
    /// Its name in errors.
    what: String,
    file: Arc<File>,
    start: u64,
    size: u64,
}

// === impl Allowed ===

impl Allowed {
    /// Opens the folders.
    ///
    /// # Errors
    /// Where one of them is no folder.
    pub fn new(paths: &[PathBuf]) -> Result<Self, SourceError> {
        let open = |path: &PathBuf| {
            let failed = |error| SourceError::Io {
                what: path.display().to_string(),
                error,
            };
            let path = path.canonicalize().map_err(failed)?;
            let file = File::open(&path).map_err(failed)?;
            if !file.metadata().map_err(failed)?.is_dir() {
                return Err(failed(io::ErrorKind::NotADirectory.into()));
            }
            Ok(Folder { path, file })
        };
        let folders = paths.iter().map(open).collect::<Result<Vec<_>, _>>()?;
        let resolved = folders.iter().map(|folder| &folder.path);
        Ok(Self {
            spelled: resolved.chain(paths).cloned().collect(),
            folders,
        })
    }

    /// A folder below one of these, or one of them.
    ///
    /// # Errors
    /// Where it is not below one, is missing, or cannot be opened.
    pub fn folder(&self, path: &Path) -> Result<Folder, SourceError> {
        let (file, path) = self.open(path, OFlags::DIRECTORY)?;
        Ok(Folder { path, file })
    }

    /// A file below one of these.
    ///
    /// # Errors
    /// Where it is not below one, is missing, or cannot be opened.
    pub fn file(&self, path: &Path) -> Result<Extent, SourceError> {
        let (file, path) = self.open(path, OFlags::empty())?;
        Extent::whole(path.display().to_string(), file)
    }

    fn open(&self, path: &Path, kind: OFlags) -> Result<(File, PathBuf), SourceError> {
        let what = path.display().to_string();
        let resolved = match path.canonicalize() {
            Ok(resolved) => resolved,
            // Errors reveal whether a path exists only below allowed folders.
            Err(error) if self.has_spelled(path) => return Err(failed(what, error)),
            Err(_) => return Err(SourceError::NotAllowed(what)),
        };
        let inside = self.folders.iter().find_map(|folder| {
            let rest = resolved.strip_prefix(&folder.path).ok()?;
            Some((folder, rest))
        });
        let Some((folder, rest)) = inside else {
            return Err(SourceError::NotAllowed(what));
        };
        let rest = if rest.as_os_str().is_empty() {
            Path::new(".")
        } else {
            rest
        };
        match folder.beneath(rest, kind, ResolveFlags::NO_SYMLINKS) {
            Ok(file) => Ok((file, resolved)),
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                Err(SourceError::Malformed {
                    what,
                    reason: "it is no folder".to_owned(),
                })
            }
            Err(error) => Err(failed(what, error)),
        }
    }

    /// Whether a path as it is spelled, without resolving links, lies below an allowed folder.
    fn has_spelled(&self, path: &Path) -> bool {
        let up = path
            .components()
            .any(|part| matches!(part, Component::ParentDir));
        !up && self.spelled.iter().any(|folder| path.starts_with(folder))
    }
}

fn failed(what: String, error: io::Error) -> SourceError {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => SourceError::Missing(what),
        _ => SourceError::Io { what, error },
    }
}

// === impl Folder ===

impl Folder {
    fn beneath(&self, path: &Path, kind: OFlags, resolve: ResolveFlags) -> io::Result<File> {
        // Without `NONBLOCK`, opening a pipe would wait for its other end.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | kind;
        let file = openat2(
            &self.file,
            path,
            flags,
            Mode::empty(),
            ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | resolve,
        )?;
        Ok(file.into())
    }
}

impl Files for Folder {
    fn open(&self, name: &str) -> Result<Option<Extent>, SourceError> {
        let what = format!("{name} in {}", self.path.display());
        // Links may point to other files of the same folder.
        match self.beneath(Path::new(name), OFlags::empty(), ResolveFlags::empty()) {
            Ok(file) => Extent::whole(what, file).map(Some),
            Err(error) => match failed(what, error) {
                SourceError::Missing(_) => Ok(None),
                error => Err(error),
            },
        }
    }
}

// === impl Extent ===

impl Extent {
    fn whole(what: String, file: File) -> Result<Self, SourceError> {
        let metadata = file.metadata().map_err(|error| SourceError::Io {
            what: what.clone(),
            error,
        })?;
        if !metadata.is_file() {
            return Err(SourceError::Malformed {
                what,
                reason: "it is no file".to_owned(),
            });
        }
        Ok(Self {
            what,
            file: Arc::new(file),
            start: 0,
            size: metadata.len(),
        })
    }

    /// A part of it. `None` where the range exceeds it.
    pub fn part(&self, what: String, range: Range<u64>) -> Option<Self> {
        (range.start <= range.end && range.end <= self.size).then(|| Self {
            what,
            file: Arc::clone(&self.file),
            start: self.start + range.start,
            size: range.end - range.start,
        })
    }

    /// How many bytes it has.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Checks that it has this many bytes.
    ///
    /// # Errors
    /// Where it has more or fewer.
    pub fn expect_size(&self, size: u64) -> Result<(), SourceError> {
        if self.size == size {
            return Ok(());
        }
        Err(SourceError::Malformed {
            what: self.what.clone(),
            reason: format!("it has {} bytes, not {size}", self.size),
        })
    }

    /// Its name in errors.
    pub fn what(&self) -> &str {
        &self.what
    }

    /// Fills the buffer with its bytes from `at` on. Blocks.
    ///
    /// # Errors
    /// Where it is shorter, or cannot be read.
    pub fn read_at(&self, buffer: &mut [u8], at: u64) -> Result<(), SourceError> {
        let end = at.saturating_add(buffer.len() as u64);
        let read = if end > self.size {
            Err(io::ErrorKind::UnexpectedEof.into())
        } else {
            self.file.read_exact_at(buffer, self.start + at)
        };
        read.map_err(|error| SourceError::Io {
            what: self.what.clone(),
            error,
        })
    }

    /// All of it. Blocks.
    ///
    /// # Errors
    /// Where it is larger than `limit` bytes, or cannot be read.
    pub fn bytes(&self, limit: u64) -> Result<Bytes, SourceError> {
        let too_large = || SourceError::TooLarge {
            what: self.what.clone(),
            limit,
        };
        if self.size > limit {
            return Err(too_large());
        }
        let mut data = vec![0; usize::try_from(self.size).map_err(|_| too_large())?];
        self.read_at(&mut data, 0)?;
        Ok(data.into())
    }

    /// A range of it, each chunk read when it is wanted.
    pub fn stream(self, range: Range<u64>) -> ByteStream {
        let rest = stream::try_unfold((self, range), |(extent, range)| async move {
            let end = range.end.min(range.start.saturating_add(CHUNK));
            if range.start >= end {
                return Ok(None);
            }
            let at = range.start;
            let (chunk, extent) = blocking(move || {
                // At most a chunk.
                let mut data = vec![0; (end - at) as usize];
                extent.read_at(&mut data, at)?;
                Ok((Bytes::from(data), extent))
            })
            .await?;
            Ok(Some((chunk, (extent, end..range.end))))
        });
        rest.boxed()
    }
}

/// Runs work that blocks on tokio's thread pool for that.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SourceError> + Send + 'static,
) -> Result<T, SourceError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| {
        Err(SourceError::Io {
            what: "files".to_owned(),
            error: io::Error::other(error),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn nothing_is_opened_outside_the_allowed_folders() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("in/sub")).unwrap();
        fs::create_dir_all(root.join("inner")).unwrap();
        for file in ["in/a", "in/sub/b", "inner/c", "out"] {
            fs::write(root.join(file), file).unwrap();
        }
        symlink("../out", root.join("in/leaves")).unwrap();
        symlink("a", root.join("in/stays")).unwrap();
        symlink(root.join("in"), root.join("link")).unwrap();
        let allowed = Allowed::new(&[root.join("link")]).unwrap();
        let read = |path: &str| {
            let file = allowed.file(&root.join(path))?;
            Ok::<_, SourceError>(String::from_utf8(file.bytes(100)?.to_vec()).unwrap())
        };
        for (path, text) in [
            ("in/a", "in/a"),
            ("link/sub/b", "in/sub/b"),
            ("in/stays", "in/a"),
            ("inner/../in/a", "in/a"),
        ] {
            assert_eq!(read(path).unwrap(), text, "{path}");
        }
        for path in [
            "out",
            "inner/c",
            "in/leaves",
            "in/../out",
            "absent",
            "in/../absent",
        ] {
            let refusal = read(path).unwrap_err();
            assert!(
                matches!(refusal, SourceError::NotAllowed(_)),
                "{path}: {refusal}"
            );
        }
        assert!(matches!(read("in/absent"), Err(SourceError::Missing(_))));
        assert!(matches!(read("link/absent"), Err(SourceError::Missing(_))));
        let folder = allowed.folder(&root.join("in/a")).unwrap_err().to_string();
        assert!(folder.ends_with("it is no folder"), "{folder}");
        assert!(matches!(read("in/a/b"), Err(SourceError::Missing(_))));
        assert!(matches!(read("in/sub"), Err(SourceError::Malformed { .. })));
        assert!(Allowed::new(&[root.join("out")]).is_err());
        assert!(Allowed::new(&[root.join("absent")]).is_err());
    }

    #[test]
    fn a_swapped_link_leads_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("in/sub")).unwrap();
        fs::write(root.join("secret"), "x").unwrap();
        let allowed = Allowed::new(&[root.join("in")]).unwrap();
        let folder = &allowed.folders[0];
        // As if the path had been resolved when these were no links yet.
        symlink("../..", root.join("in/sub/up")).unwrap();
        symlink(root.join("secret"), root.join("in/sub/away")).unwrap();
        for path in ["sub/up/secret", "sub/away", "../secret"] {
            let opened =
                folder.beneath(Path::new(path), OFlags::empty(), ResolveFlags::NO_SYMLINKS);
            assert!(opened.is_err(), "{path}");
            assert!(Files::open(folder, path).is_err(), "{path}");
        }
    }

    #[test]
    fn a_pipe_is_no_file_and_holds_nobody_up() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let made = std::process::Command::new("mkfifo")
            .arg(root.join("pipe"))
            .status();
        assert!(made.unwrap().success());
        let allowed = Allowed::new(std::slice::from_ref(&root)).unwrap();
        let refusal = allowed.file(&root.join("pipe")).unwrap_err().to_string();
        assert!(refusal.ends_with("it is no file"), "{refusal}");
    }

    #[tokio::test]
    async fn a_part_is_read_in_chunks_and_nothing_beyond_it() {
        use futures_util::TryStreamExt as _;
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let data: Vec<u8> = (0..3 * CHUNK).map(|at| (at % 251) as u8).collect();
        fs::write(root.join("a"), &data).unwrap();
        let file = Allowed::new(std::slice::from_ref(&root))
            .unwrap()
            .file(&root.join("a"))
            .unwrap();
        let part = file
            .part("part".to_owned(), 10..data.len() as u64 - 10)
            .unwrap();
        let range = 5..2 * CHUNK + 7;
        let read: Vec<Bytes> = part
            .clone()
            .stream(range.clone())
            .try_collect()
            .await
            .unwrap();
        assert_eq!(read.len(), 3);
        assert_eq!(read.concat(), data[15..10 + range.end as usize]);
        let beyond: Result<Vec<_>, _> = part.clone().stream(0..part.size() + 1).try_collect().await;
        assert!(beyond.is_err());
        assert!(file.part(String::new(), 0..data.len() as u64 + 1).is_none());
        assert!(
            part.bytes(10)
                .unwrap_err()
                .to_string()
                .contains("larger than 10 bytes")
        );
    }
}
