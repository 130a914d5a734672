//! A tar as files by name. Its headers are read once and indexed. File data is read from its place in the
//! tar when it is wanted.
//!
//! A tar that tools may read differently is refused: with a name twice, a name that leaves the archive, or
//! sparse files.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use tar::{EntryType, Header, PaxExtensions};

use super::SourceError;
use super::files::{Extent, Files};

const BLOCK: u64 = 512;
/// The most entries of an archive. An image has a few for each of at most 127 layers.
const MAX_ENTRIES: usize = 1 << 14;
/// The most headers of an archive. Some entries have several.
const MAX_HEADERS: usize = 4 * MAX_ENTRIES;
/// The longest name or extended header of one entry (bytes).
const MAX_EXTENSION: u64 = 1 << 16;
/// The most that all names have together (bytes).
const MAX_NAMES: usize = 16 << 20;
/// The most links that are followed for one name.
const MAX_LINKS: usize = 8;

/// The index of a tar.
#[derive(Debug)]
pub struct Archive {
    tar: Extent,
    entries: HashMap<String, Place>,
}

/// What an archive has under a name.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    /// A file's data: its first byte, and the byte behind its last.
    Data(u64, u64),
    /// Another name of the archive.
    Link(String),
    /// A directory, a device or another entry that is neither file nor link.
    Other,
}

/// What the headers before an entry's own header say.
#[derive(Debug, Default)]
struct Extensions {
    name: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    size: Option<u64>,
}

/// Reads headers one after the other.
#[derive(Debug)]
struct Walk<'a> {
    tar: &'a Extent,
    at: u64,
    headers: usize,
    names: usize,
}

// === impl Archive ===

impl Archive {
    /// Walks the headers. Blocks.
    ///
    /// # Errors
    /// Where it is no tar, is cut off, has too many entries, or may be read differently by other tools.
    pub fn index(tar: Extent) -> Result<Self, SourceError> {
        let mut walk = Walk {
            tar: &tar,
            at: 0,
            headers: 0,
            names: 0,
        };
        let mut entries = HashMap::new();
        while let Some((name, place)) = walk.entry()? {
            if let Place::Link(target) = &place {
                walk.names += target.len();
            }
            walk.names += name.len();
            if entries.len() >= MAX_ENTRIES || walk.names > MAX_NAMES {
                return Err(walk.malformed("it has too many entries".to_owned()));
            }
            match entries.entry(name) {
                Entry::Vacant(free) => {
                    free.insert(place);
                }
                // Directories come twice where tars were put together.
                Entry::Occupied(taken) if *taken.get() == Place::Other && place == Place::Other => {
                }
                Entry::Occupied(_) => {
                    let at = walk.at;
                    let reason = format!("it has an entry twice: the second ends at byte {at}");
                    return Err(walk.malformed(reason));
                }
            }
        }
        if entries.is_empty() {
            return Err(walk.malformed("it is empty".to_owned()));
        }
        Ok(Self { tar, entries })
    }
}

impl Files for Archive {
    fn open(&self, name: &str) -> Result<Option<Extent>, SourceError> {
        let what = format!("{name} in {}", self.tar.what());
        let malformed = |reason: &str| SourceError::Malformed {
            what: what.clone(),
            reason: reason.to_owned(),
        };
        let mut at = name;
        for _ in 0..=MAX_LINKS {
            match self.entries.get(at) {
                None if at == name => return Ok(None),
                None => return Err(malformed("it is a link to nothing")),
                Some(Place::Link(target)) => at = target,
                Some(Place::Other) => return Err(malformed("it is no file")),
                Some(Place::Data(start, end)) => {
                    let part = self.tar.part(what.clone(), *start..*end);
                    return part.map(Some).ok_or_else(|| malformed("it is cut off"));
                }
            }
        }
        Err(malformed("its links have no end"))
    }
}

// === impl Walk ===

impl Walk<'_> {
    fn malformed(&self, reason: String) -> SourceError {
        SourceError::Malformed {
            what: self.tar.what().to_owned(),
            reason,
        }
    }

    /// The next entry with the extensions before it, or none at the end.
    fn entry(&mut self) -> Result<Option<(String, Place)>, SourceError> {
        let mut before = Extensions::default();
        while let Some(header) = self.header()? {
            let size = header
                .entry_size()
                .map_err(|_| self.malformed("the size of an entry is none".to_owned()))?;
            match header.entry_type() {
                EntryType::GNULongName => before.name = Some(self.long_name(size)?),
                EntryType::GNULongLink => before.target = Some(self.long_name(size)?),
                EntryType::XHeader => self.extended(size, &mut before)?,
                EntryType::XGlobalHeader => {
                    self.take(size)?;
                }
                kind => return self.own(kind, &header, size, before).map(Some),
            }
        }
        Ok(None)
    }

    /// The next header, or none at the end.
    fn header(&mut self) -> Result<Option<Header>, SourceError> {
        if self.at == self.tar.size() {
            return Ok(None);
        }
        self.headers += 1;
        if self.headers > MAX_HEADERS {
            return Err(self.malformed("it has too many headers".to_owned()));
        }
        let mut header = Header::new_old();
        if self.tar.size() - self.at < BLOCK {
            return Err(self.malformed("it is no tar, or cut off".to_owned()));
        }
        self.tar.read_at(header.as_mut_bytes(), self.at)?;
        self.at += BLOCK;
        let bytes = header.as_bytes();
        if bytes.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        // The sum counts its own eight bytes as spaces.
        let sum: u32 = bytes.iter().map(|byte| u32::from(*byte)).sum();
        let own: u32 = bytes[148..156].iter().map(|byte| u32::from(*byte)).sum();
        if header.cksum().ok() != Some(sum - own + 8 * u32::from(b' ')) {
            let reason = if self.at == BLOCK {
                "it is no tar; a compressed one has to be unpacked first"
            } else {
                "a header has a wrong checksum"
            };
            return Err(self.malformed(reason.to_owned()));
        }
        Ok(Some(header))
    }

    /// Skips the data of an entry, and returns where it is.
    fn take(&mut self, size: u64) -> Result<(u64, u64), SourceError> {
        let start = self.at;
        let end = start
            .checked_add(size)
            .filter(|end| *end <= self.tar.size());
        let end = end.ok_or_else(|| self.malformed("it is cut off".to_owned()))?;
        // Its padding may be missing at the very end.
        self.at = end.next_multiple_of(BLOCK).min(self.tar.size());
        Ok((start, end))
    }

    fn extension(&mut self, size: u64) -> Result<Vec<u8>, SourceError> {
        if size > MAX_EXTENSION {
            return Err(self.malformed(format!("a name has more than {MAX_EXTENSION} bytes")));
        }
        let (start, _) = self.take(size)?;
        // Within the limit.
        let mut data = vec![0; size as usize];
        self.tar.read_at(&mut data, start)?;
        Ok(data)
    }

    fn long_name(&mut self, size: u64) -> Result<Vec<u8>, SourceError> {
        let mut name = self.extension(size)?;
        while name.last() == Some(&0) {
            name.pop();
        }
        Ok(name)
    }

    fn extended(&mut self, size: u64, before: &mut Extensions) -> Result<(), SourceError> {
        let data = self.extension(size)?;
        for record in PaxExtensions::new(&data) {
            let record =
                record.map_err(|_| self.malformed("an extended header is none".to_owned()))?;
            let value = record.value_bytes();
            match record.key_bytes() {
                b"path" => before.name = Some(value.to_vec()),
                b"linkpath" => before.target = Some(value.to_vec()),
                b"size" => {
                    let size = std::str::from_utf8(value)
                        .ok()
                        .and_then(|size| size.parse().ok());
                    let size = size.ok_or_else(|| self.malformed("a size is none".to_owned()))?;
                    before.size = Some(size);
                }
                key if key.starts_with(b"GNU.sparse.") => return Err(self.sparse()),
                _ => {}
            }
        }
        Ok(())
    }

    fn sparse(&self) -> SourceError {
        self.malformed("it has sparse files".to_owned())
    }

    fn own(
        &mut self,
        kind: EntryType,
        header: &Header,
        size: u64,
        before: Extensions,
    ) -> Result<(String, Place), SourceError> {
        let raw = before
            .name
            .unwrap_or_else(|| header.path_bytes().into_owned());
        let name = self.name(&raw, "")?;
        let (start, end) = match kind {
            // Whatever size these give, they have no data.
            EntryType::Link | EntryType::Symlink | EntryType::Directory => (self.at, self.at),
            _ => self.take(before.size.unwrap_or(size))?,
        };
        let target = || {
            let header = header.link_name_bytes().map(std::borrow::Cow::into_owned);
            before.target.or(header).unwrap_or_default()
        };
        let place = match kind {
            EntryType::Regular | EntryType::Continuous => Place::Data(start, end),
            // A symlink's target is relative to its folder, a hard link's to the archive.
            EntryType::Symlink => {
                let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
                Place::Link(self.name(&target(), folder)?)
            }
            EntryType::Link => Place::Link(self.name(&target(), "")?),
            EntryType::GNUSparse => return Err(self.sparse()),
            _ => Place::Other,
        };
        Ok((name, place))
    }

    /// A name within the archive, in one spelling.
    fn name(&self, raw: &[u8], folder: &str) -> Result<String, SourceError> {
        // Before byte `at` is the header with the name.
        let at = self.at;
        let wrong = |reason: &str| self.malformed(format!("its entry before byte {at} {reason}"));
        let name = std::str::from_utf8(raw).map_err(|_| wrong("has a name that is no text"))?;
        if name.starts_with('/') {
            return Err(wrong("leaves it"));
        }
        let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
        for part in name.split('/') {
            match part {
                "" | "." => {}
                ".." => {
                    parts.pop().ok_or_else(|| wrong("leaves it"))?;
                }
                part => parts.push(part),
            }
        }
        Ok(parts.join("/"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::files::Allowed;
    use tar::Builder;

    fn index(tar: &[u8]) -> Result<Archive, SourceError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap().join("a.tar");
        std::fs::write(&path, tar).unwrap();
        let allowed = Allowed::new(&[dir.path().to_owned()]).unwrap();
        Archive::index(allowed.file(&path)?)
    }

    fn header(kind: EntryType, size: u64) -> Header {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(size);
        header
    }

    /// A name as it stands: the builder refuses bad ones.
    fn entry(tar: &mut Builder<Vec<u8>>, kind: EntryType, name: &str, target: &str, data: &[u8]) {
        let mut header = header(kind, data.len() as u64);
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
        header.set_cksum();
        tar.append(&header, data).unwrap();
    }

    fn read(archive: &Archive, name: &str) -> Result<Option<Vec<u8>>, SourceError> {
        archive
            .open(name)?
            .map(|file| Ok(file.bytes(1 << 20)?.to_vec()))
            .transpose()
    }

    fn refusal(tar: &[u8]) -> String {
        match index(tar).unwrap_err() {
            SourceError::Malformed { reason, .. } => reason,
            err => panic!("{err}"),
        }
    }

    #[test]
    fn files_are_found_by_any_kind_of_name_and_through_links() {
        use EntryType as Kind;
        let mut tar = Builder::new(Vec::new());
        let long = format!("{}/x", "d".repeat(150));
        entry(&mut tar, Kind::Directory, "./a/", "", b"");
        entry(&mut tar, Kind::Directory, "a", "", b"");
        entry(&mut tar, Kind::Regular, "./a/b", "", b"text");
        tar.append_data(&mut header(Kind::Regular, 4), &long, &b"long"[..])
            .unwrap();
        tar.append_pax_extensions([("path", &b"pax/x"[..]), ("size", b"3")])
            .unwrap();
        entry(&mut tar, Kind::Regular, "cut", "", b"pax");
        entry(&mut tar, Kind::Symlink, "c/d", "../a/b", b"");
        entry(&mut tar, Kind::Symlink, "e", "c/d", b"");
        entry(&mut tar, Kind::Link, "f", "a/b", b"");
        entry(&mut tar, Kind::Symlink, "nothing", "absent", b"");
        entry(&mut tar, Kind::Symlink, "loop", "loop", b"");
        let archive = index(&tar.into_inner().unwrap()).unwrap();
        for (name, data) in [
            ("a/b", "text"),
            (&long, "long"),
            ("pax/x", "pax"),
            ("c/d", "text"),
            ("e", "text"),
            ("f", "text"),
        ] {
            assert_eq!(
                read(&archive, name).unwrap().unwrap(),
                data.as_bytes(),
                "{name}"
            );
        }
        assert_eq!(read(&archive, "cut").unwrap(), None);
        for (name, said) in [
            ("a", "it is no file"),
            ("nothing", "a link to nothing"),
            ("loop", "no end"),
        ] {
            let refusal = read(&archive, name).unwrap_err().to_string();
            assert!(refusal.contains(said), "{refusal}");
        }
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        use EntryType as Kind;
        let one = |kind, name: &str, target: &str| {
            let mut tar = Builder::new(Vec::new());
            entry(&mut tar, Kind::Regular, "a", "", b"1");
            entry(&mut tar, kind, name, target, b"");
            refusal(&tar.into_inner().unwrap())
        };
        assert!(one(Kind::Regular, "./a", "").contains("twice"));
        assert!(one(Kind::Directory, "a", "").contains("twice"));
        assert!(one(Kind::Regular, "../b", "").contains("leaves it"));
        assert!(one(Kind::Regular, "/b", "").contains("leaves it"));
        assert!(one(Kind::Symlink, "b", "../../c").contains("leaves it"));
        assert!(one(Kind::Symlink, "b", "/etc/passwd").contains("leaves it"));
        assert!(one(Kind::GNUSparse, "b", "").contains("sparse"));
        let mut tar = Builder::new(Vec::new());
        tar.append_pax_extensions([("GNU.sparse.size", &b"9"[..])])
            .unwrap();
        entry(&mut tar, Kind::Regular, "a", "", b"1");
        assert!(refusal(&tar.into_inner().unwrap()).contains("sparse"));
    }

    #[test]
    fn what_is_cut_off_or_too_large_is_refused() {
        use EntryType as Kind;
        let mut whole = Builder::new(Vec::new());
        entry(&mut whole, Kind::Regular, "a", "", &[1; 1000]);
        let whole = whole.into_inner().unwrap();
        // Without the two blocks of zeros at the end, and without the padding, it is whole.
        for length in [512 + 1000, 512 + 1024, 512 + 1024 + 512] {
            let archive = index(&whole[..length]).unwrap();
            assert_eq!(read(&archive, "a").unwrap().unwrap(), [1; 1000]);
        }
        for length in [1, 511, 513, 512 + 999, 512 + 1025] {
            let refusal = refusal(&whole[..length]);
            assert!(refusal.contains("cut off"), "{length}: {refusal}");
        }
        assert!(refusal(b"").contains("empty"));
        assert!(refusal(&[b'x'; 1024]).contains("no tar"));
        let mut flipped = whole.clone();
        flipped[0] = b'b';
        assert!(refusal(&flipped).contains("no tar"));

        let mut huge = header(Kind::Regular, 1 << 40);
        huge.set_path("a").unwrap();
        huge.set_cksum();
        assert!(refusal(huge.as_bytes()).contains("cut off"));
        let mut huge = header(Kind::Regular, u64::MAX - 10);
        huge.set_path("a").unwrap();
        huge.set_cksum();
        assert!(refusal(huge.as_bytes()).contains("cut off"));

        let mut name = header(Kind::GNULongName, MAX_EXTENSION + 1);
        name.set_cksum();
        let mut tar = name.as_bytes().to_vec();
        tar.resize(
            512 + (MAX_EXTENSION as usize + 1).next_multiple_of(512),
            b'x',
        );
        assert!(refusal(&tar).contains("a name has more than"));

        let mut many = Builder::new(Vec::new());
        for number in 0..=MAX_ENTRIES {
            entry(&mut many, Kind::Regular, &number.to_string(), "", b"");
        }
        assert!(refusal(&many.into_inner().unwrap()).contains("too many entries"));
        let mut none = header(Kind::XGlobalHeader, 0);
        none.set_cksum();
        assert!(refusal(&none.as_bytes().repeat(MAX_HEADERS + 1)).contains("too many headers"));
    }
}
