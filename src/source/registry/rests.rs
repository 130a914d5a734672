//! Blobs of a registry that ignores ranges, and sends the whole blob for each part of it.
//!
//! The daemon reads a blob in parts, from its start to its end. The stream behind a part is kept for
//! the read of the next part. Otherwise the registry would send the blob as many times as it has parts.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use oci_spec::image::Digest as OciDigest;

use crate::source::{ByteStream, SourceError};

/// The most rests that are kept: each holds a connection. The daemon pulls as many layers at a time.
const MAX_RESTS: usize = 4;

/// The rests of blobs of which a part was read.
#[derive(Clone, Default)]
pub struct Rests(Arc<Mutex<Vec<Rest>>>);

struct Rest {
    digest: OciDigest,
    at: u64,
    stream: ByteStream,
}

/// A part that is read.
struct Part {
    rests: Rests,
    digest: OciDigest,
    /// How many bytes are left to skip before it, and how many to return.
    skip: u64,
    left: u64,
    /// Where it ends. `None` if it ends with the blob.
    end: Option<u64>,
    stream: ByteStream,
}

// === impl Rests ===

impl Rests {
    fn lock(&self) -> MutexGuard<'_, Vec<Rest>> {
        // Each change is whole, so a panic elsewhere leaves them as they were.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The blob from `at` on, if the stream behind a part that ended there is kept. `None` also if that
    /// stream has ended or its connection broke.
    pub async fn take(&self, digest: &OciDigest, at: u64) -> Option<ByteStream> {
        let mut stream = {
            let mut rests = self.lock();
            let mut all = rests.iter();
            let found = all.position(|rest| rest.at == at && rest.digest == *digest)?;
            rests.remove(found).stream
        };
        let first = stream.next().await?.ok()?;
        Some(stream::iter([Ok(first)]).chain(stream).boxed())
    }

    /// The part `range` of a blob of that size. `stream` is the blob from `from` on, which is not behind the
    /// start of the range. If `stream` ends early, so does the part.
    pub fn part(
        &self,
        digest: &OciDigest,
        size: u64,
        range: Range<u64>,
        from: u64,
        stream: ByteStream,
    ) -> ByteStream {
        let part = Part {
            rests: self.clone(),
            digest: digest.clone(),
            skip: range.start - from,
            left: range.end - range.start,
            end: (range.end < size).then_some(range.end),
            stream,
        };
        stream::try_unfold(Some(part), |part| async {
            match part {
                Some(part) => part.next().await,
                None => Ok(None),
            }
        })
        .boxed()
    }
}

impl fmt::Debug for Rests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rests = self.lock();
        let rests = rests.iter().map(|rest| (&rest.digest, rest.at));
        f.debug_map().entries(rests).finish()
    }
}

// === impl Part ===

impl Part {
    /// Its next piece, and itself if there may be more.
    async fn next(mut self) -> Result<Option<(Bytes, Option<Self>)>, SourceError> {
        while let Some(mut chunk) = self.stream.try_next().await? {
            // All casts are within the chunk's length.
            let skipped = self.skip.min(chunk.len() as u64);
            self.skip -= skipped;
            let mut wanted = chunk.split_off(skipped as usize);
            let behind = wanted.split_off(self.left.min(wanted.len() as u64) as usize);
            self.left -= wanted.len() as u64;
            if self.left == 0 {
                self.keep(behind);
                return Ok(Some((wanted, None)));
            }
            if !wanted.is_empty() {
                return Ok(Some((wanted, Some(self))));
            }
        }
        Ok(None)
    }

    /// Keeps the stream behind it, for the next part.
    fn keep(self, behind: Bytes) {
        let Some(at) = self.end else {
            return;
        };
        let behind = stream::iter((!behind.is_empty()).then_some(Ok(behind)));
        let mut rests = self.rests.lock();
        if rests.len() == MAX_RESTS {
            rests.remove(0);
        }
        rests.push(Rest {
            digest: self.digest,
            at,
            stream: behind.chain(self.stream).boxed(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOB: &[u8] = b"0123456789";

    fn digest(number: u8) -> OciDigest {
        format!("sha256:{}", format!("{number:02}").repeat(32))
            .parse()
            .unwrap()
    }

    /// The blob in pieces of that length.
    fn pieces(length: usize) -> ByteStream {
        let pieces: Vec<_> = BLOB.chunks(length).map(Bytes::from_static).collect();
        stream::iter(pieces.into_iter().map(Ok)).boxed()
    }

    async fn all(part: ByteStream) -> Vec<u8> {
        let pieces: Vec<Bytes> = part.try_collect().await.unwrap();
        pieces.concat()
    }

    #[tokio::test]
    async fn parts_in_order_are_of_one_stream_however_both_are_cut() {
        for (piece, length) in (1..=11).flat_map(|piece| (1..=10).map(move |part| (piece, part))) {
            let rests = Rests::default();
            let mut stream = Some(pieces(piece));
            for start in (0..BLOB.len()).step_by(length) {
                let range = start as u64..(start + length).min(BLOB.len()) as u64;
                let rest = match stream.take() {
                    Some(stream) => stream,
                    None => rests.take(&digest(1), range.start).await.unwrap(),
                };
                let part = rests.part(&digest(1), 10, range.clone(), range.start, rest);
                let expected = &BLOB[start..range.end as usize];
                assert_eq!(all(part).await, expected, "{piece} {length}");
            }
            assert!(rests.lock().is_empty(), "nothing is behind the last part");
        }
    }

    #[tokio::test]
    async fn a_rest_is_for_who_goes_on_with_that_blob() {
        let rests = Rests::default();
        let part = |number, range| rests.part(&digest(number), 10, range, 0, pieces(3));
        assert_eq!(all(part(1, 2..5)).await, b"234");
        assert!(rests.take(&digest(1), 4).await.is_none());
        assert!(rests.take(&digest(2), 5).await.is_none());
        let rest = rests.take(&digest(1), 5).await.unwrap();
        assert_eq!(all(rest).await, b"56789");
        assert!(rests.take(&digest(1), 5).await.is_none(), "it is taken");
        // The last ones are kept.
        for number in 0..MAX_RESTS as u8 + 1 {
            all(part(number, 0..4)).await;
        }
        assert!(rests.take(&digest(0), 4).await.is_none());
        assert!(rests.take(&digest(1), 4).await.is_some());
    }

    #[tokio::test]
    async fn a_rest_that_broke_off_is_none() {
        let rests = Rests::default();
        let broken = SourceError::Missing("the rest".to_owned());
        let stream = stream::iter([Ok(Bytes::from_static(b"01")), Err(broken)]);
        let part = rests.part(&digest(1), 10, 0..2, 0, stream.boxed());
        assert_eq!(all(part).await, b"01");
        assert!(rests.take(&digest(1), 2).await.is_none());
        let short = rests.part(&digest(1), 20, 8..12, 0, pieces(3));
        assert_eq!(all(short).await, b"89", "for who counts");
    }
}
