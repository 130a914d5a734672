//! The messages of `Control.Session`: `BytesMessage { bytes data = 1 }` in gRPC's
//! [framing](https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md), a flag byte (1:
//! compressed) and a big-endian length before each.
//!
//! No I/O. Messages are not buffered: their data comes out in the pieces in which it came in.

use bytes::{Buf as _, BufMut as _, Bytes};
use thiserror::Error;

use crate::protocol::MAX_MESSAGE;

/// The length of gRPC's prefix of a message: flag and length.
const PREFIX: usize = 5;
/// The key of the field `data`.
const DATA: u64 = 1 << 3 | LENGTH_DELIMITED;
const VARINT: u64 = 0;
const FIXED_64: u64 = 1;
const LENGTH_DELIMITED: u64 = 2;
const FIXED_32: u64 = 5;
/// The length of [`head`].
pub const HEAD: usize = PREFIX + 1 + LENGTH;
/// The bytes in which [`head`] writes the length of the data. Four hold lengths below 2^28.
const LENGTH: usize = 4;

/// Why bytes are no messages of a session.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum FramingError {
    /// A message is compressed, and the call's headers do not say so.
    #[error("a message of the session has flag {0} instead of 0")]
    Flag(u8),
    /// A message is larger than buildkitd and its clients take.
    #[error("a message of the session has {0} bytes, more than {MAX_MESSAGE}")]
    TooLarge(usize),
    /// A message is no `BytesMessage`.
    #[error("a message of the session is malformed: {0}")]
    Malformed(&'static str),
    /// The stream ends within a message.
    #[error("the session ends within a message")]
    Truncated,
}

/// Takes the data out of a stream of messages.
#[derive(Debug, Default)]
pub struct Decoder {
    state: State,
    /// The bytes of the message that are still to come.
    left: usize,
    /// Whether the message had its field `data`. By protobuf's rules a second one would replace the first,
    /// but the first was given out already.
    had_data: bool,
}

/// What the next byte is part of.
#[derive(Debug, Clone, Copy)]
enum State {
    /// gRPC's prefix, as far as it has come.
    Prefix { bytes: [u8; PREFIX], count: usize },
    /// A varint, as far as it has come.
    Number { of: Number, value: u64, bits: u32 },
    /// The data, of which this many bytes are still to come.
    Data(usize),
    /// A field that is not known, of which this many bytes are still to come.
    Unknown(usize),
}

/// What a varint is.
#[derive(Debug, Clone, Copy)]
enum Number {
    Key,
    DataLength,
    UnknownLength,
    Unknown,
}

/// What comes before `length` bytes of data in a message that has only these.
pub fn head(length: usize) -> [u8; HEAD] {
    debug_assert!(length < 1 << (7 * LENGTH));
    let mut head = [0; HEAD];
    let mut rest = &mut head[..];
    rest.put_u8(0);
    // Far below 4 GiB, by the assertion.
    rest.put_u32((1 + LENGTH + length) as u32);
    rest.put_u8(DATA as u8);
    for byte in 0..LENGTH {
        let more = if byte + 1 < LENGTH { 0x80 } else { 0 };
        rest.put_u8((length >> (7 * byte)) as u8 & 0x7f | more);
    }
    head
}

// === impl Decoder ===

impl Decoder {
    /// Takes the next piece of data out of `input`; `None` where it has no more.
    ///
    /// # Errors
    /// Where the bytes are no such messages.
    pub fn next(&mut self, input: &mut Bytes) -> Result<Option<Bytes>, FramingError> {
        while !input.is_empty() {
            match &mut self.state {
                State::Prefix { bytes, count } => {
                    bytes[*count] = input.get_u8();
                    *count += 1;
                    if *count == PREFIX {
                        let [flag, length @ ..] = *bytes;
                        let length = u32::from_be_bytes(length) as usize;
                        if flag != 0 {
                            return Err(FramingError::Flag(flag));
                        }
                        if length > MAX_MESSAGE {
                            return Err(FramingError::TooLarge(length));
                        }
                        (self.left, self.had_data) = (length, false);
                        self.next_field();
                    }
                }
                State::Number { of, value, bits } => {
                    let byte = input.get_u8();
                    // A varint has at most ten bytes, and of the last one a single bit.
                    if *bits == 63 && byte > 1 {
                        return Err(FramingError::Malformed("a number has more than 64 bits"));
                    }
                    *value |= u64::from(byte & 0x7f) << *bits;
                    *bits += 7;
                    self.left -= 1;
                    let (of, value) = (*of, *value);
                    if byte & 0x80 == 0 {
                        self.number(of, value)?;
                    } else if self.left == 0 {
                        return Err(FramingError::Malformed("it ends within a number"));
                    }
                }
                State::Data(rest) => {
                    let piece = input.split_to(input.len().min(*rest));
                    *rest -= piece.len();
                    self.left -= piece.len();
                    if *rest == 0 {
                        self.next_field();
                    }
                    return Ok(Some(piece));
                }
                State::Unknown(rest) => {
                    let skipped = input.len().min(*rest);
                    input.advance(skipped);
                    *rest -= skipped;
                    self.left -= skipped;
                    if *rest == 0 {
                        self.next_field();
                    }
                }
            }
        }
        Ok(None)
    }

    /// Says that the stream ends here.
    ///
    /// # Errors
    /// Where it ends within a message.
    pub fn finish(&self) -> Result<(), FramingError> {
        match self.state {
            State::Prefix { count: 0, .. } => Ok(()),
            _ => Err(FramingError::Truncated),
        }
    }

    fn next_field(&mut self) {
        self.state = if self.left == 0 {
            State::default()
        } else {
            State::number(Number::Key)
        };
    }

    fn number(&mut self, of: Number, value: u64) -> Result<(), FramingError> {
        match of {
            Number::Key => return self.field(value),
            Number::Unknown => self.next_field(),
            Number::DataLength | Number::UnknownLength => {
                let length = usize::try_from(value).unwrap_or(usize::MAX);
                if length > self.left {
                    return Err(FramingError::Malformed("a field is longer than it"));
                }
                self.state = match of {
                    Number::DataLength => State::Data(length),
                    _ => State::Unknown(length),
                };
                if length == 0 {
                    self.next_field();
                }
            }
        }
        Ok(())
    }

    fn field(&mut self, key: u64) -> Result<(), FramingError> {
        if key == DATA {
            if self.had_data {
                return Err(FramingError::Malformed("it has its data twice"));
            }
            self.had_data = true;
        }
        self.state = match key & 7 {
            _ if key >> 3 == 0 => return Err(FramingError::Malformed("a field has number 0")),
            VARINT => State::number(Number::Unknown),
            FIXED_64 => State::Unknown(8),
            FIXED_32 => State::Unknown(4),
            LENGTH_DELIMITED if key == DATA => State::number(Number::DataLength),
            LENGTH_DELIMITED => State::number(Number::UnknownLength),
            _ => return Err(FramingError::Malformed("a field has no wire type in use")),
        };
        let rest = match self.state {
            State::Unknown(rest) => rest,
            _ => 1,
        };
        if rest > self.left {
            return Err(FramingError::Malformed("it ends within a field"));
        }
        Ok(())
    }
}

// === impl State ===

impl State {
    fn number(of: Number) -> Self {
        Self::Number {
            of,
            value: 0,
            bits: 0,
        }
    }
}

impl Default for State {
    fn default() -> Self {
        Self::Prefix {
            bytes: [0; PREFIX],
            count: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The data of a stream that comes in pieces of a size, and how it ends.
    fn decode(stream: &[u8], size: usize) -> Result<Vec<u8>, FramingError> {
        let mut decoder = Decoder::default();
        let mut data = Vec::new();
        for piece in stream.chunks(size) {
            let mut input = Bytes::copy_from_slice(piece);
            while let Some(piece) = decoder.next(&mut input)? {
                data.extend_from_slice(&piece);
            }
        }
        decoder.finish()?;
        Ok(data)
    }

    /// The same, in pieces of any size.
    fn decode_all(stream: &[u8]) -> Result<Vec<u8>, FramingError> {
        let decoded = decode(stream, usize::MAX);
        for size in 1..stream.len().min(20) {
            assert_eq!(decode(stream, size), decoded, "in pieces of {size}");
        }
        decoded
    }

    fn framed(message: &[u8]) -> Vec<u8> {
        let length = u32::try_from(message.len()).unwrap();
        [&[0], &length.to_be_bytes()[..], message].concat()
    }

    #[test]
    fn a_head_makes_a_message() {
        for length in [0, 1, 127, 128, 300, 70_000, 2_097_152] {
            let data = vec![7; length];
            let message = [&head(length)[..], &data].concat();
            assert_eq!(decode(&message, 4096), Ok(data), "{length}");
            // And prost reads it.
            let read: crate::protocol::proto::control::BytesMessage =
                prost::Message::decode(&message[PREFIX..]).unwrap();
            assert_eq!(read.data.len(), length);
        }
    }

    #[test]
    fn fields_that_are_not_known_and_empty_messages_are_skipped() {
        let message = [
            8, 200, 1, // 1 as a number, not the data
            0x1d, 1, 2, 3, 4, // 3, of 32 bits
            0x21, 1, 2, 3, 4, 5, 6, 7, 8, // 4, of 64 bits
            0x0a, 2, b'a', b'b', // the data
            0x12, 3, 9, 9, 9, // 2, of three bytes
            0x12, 0, // and of none
        ];
        let stream = [
            framed(&message),
            framed(&[]),
            framed(&[0x0a, 0]),
            framed(&[0x0a, 1, b'c']),
        ];
        assert_eq!(decode_all(&stream.concat()).unwrap(), b"abc");
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let malformed = |message: &[u8]| match decode_all(&framed(message)) {
            Err(FramingError::Malformed(what)) => what,
            other => panic!("{other:?}"),
        };
        assert_eq!(
            malformed(&[0x0a, 1, 1, 0x0a, 1, 1]),
            "it has its data twice"
        );
        assert_eq!(malformed(&[0x0a, 5, 1]), "a field is longer than it");
        assert_eq!(
            malformed(&[0x12, 0xff, 0xff, 0xff, 0xff, 0x0f]),
            "a field is longer than it"
        );
        assert_eq!(malformed(&[0x0a]), "it ends within a field");
        assert_eq!(malformed(&[0x1d, 1, 2]), "it ends within a field");
        assert_eq!(malformed(&[0x08, 0x80]), "it ends within a number");
        let overlong = [&[0x08][..], &[0x80; 9], &[2]].concat();
        assert_eq!(malformed(&overlong), "a number has more than 64 bits");
        assert_eq!(malformed(&[0x02, 1, 1]), "a field has number 0");
        assert_eq!(malformed(&[0x0b, 1]), "a field has no wire type in use");
        assert_eq!(decode_all(&[1, 0, 0, 0, 0]), Err(FramingError::Flag(1)));
        let large = [0, 1, 0, 0, 1];
        assert_eq!(
            decode_all(&large),
            Err(FramingError::TooLarge(MAX_MESSAGE + 1))
        );
        let whole = framed(&[0x0a, 3, 1, 2, 3]);
        for end in 1..whole.len() {
            assert_eq!(
                decode_all(&whole[..end]),
                Err(FramingError::Truncated),
                "{end}"
            );
        }
    }
}
