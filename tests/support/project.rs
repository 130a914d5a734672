//! Build contexts.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use super::Peers;

/// A step on [`Project::base`] that fails, and `comments` lines of 53 bytes behind it.
pub fn failing(comments: usize) -> String {
    let comment = "# A comment of fifty bytes, with the end of the line\n";
    let step = "FROM scratch\nADD rootfs.tar /\nRUN echo before; exit 7\n";
    step.to_owned() + &comment.repeat(comments)
}

/// Two stages on [`Project::base`] and a file `source.txt`; the same bytes whenever it is built.
pub const STAGES: &str = "\
FROM scratch AS base
ADD rootfs.tar /

FROM base AS build
COPY source.txt /src/
RUN tr a-z A-Z </src/source.txt >/out.txt
RUN wc -c </out.txt >/count.txt

FROM base
COPY --from=build /out.txt /count.txt /app/
RUN cat /app/* >/all.txt
";

/// A directory with a Dockerfile and what it needs.
#[derive(Debug)]
pub struct Project {
    dir: TempDir,
}

impl Project {
    /// An empty one.
    pub fn new() -> Self {
        Self {
            dir: tempfile::Builder::new()
                .prefix("inlay-project-")
                .tempdir()
                .expect("a temporary directory"),
        }
    }

    /// With the base image as `rootfs.tar`, for `ADD rootfs.tar /`.
    pub fn base(self) -> Self {
        let tar = Peers::locate().rootfs_tar();
        fs::copy(&tar, self.path().join("rootfs.tar")).expect("rootfs.tar is copied");
        self
    }

    /// With a shell as `sh`, for images that have nothing else.
    pub fn shell(self) -> Self {
        let busybox = Peers::locate().busybox();
        fs::copy(&busybox, self.path().join("sh")).expect("busybox is copied");
        self
    }

    /// With this Dockerfile.
    pub fn dockerfile(self, text: &str) -> Self {
        self.file("Dockerfile", text)
    }

    /// With this file; its directories are made.
    pub fn file(self, path: &str, contents: impl AsRef<[u8]>) -> Self {
        self.write(path, contents);
        self
    }

    /// Writes a file between two builds.
    pub fn write(&self, path: &str, contents: impl AsRef<[u8]>) {
        let path = self.path().join(path);
        fs::create_dir_all(path.parent().expect("a file is in a directory"))
            .expect("directories are made");
        fs::write(path, contents).expect("the file is written");
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }
}
