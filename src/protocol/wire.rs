//! Edits encoded protobuf messages, by their
//! [wire format](https://protobuf.dev/programming-guides/encoding/). Fields that inlay does not know stay as
//! they are, byte for byte and in their order.

use std::borrow::Cow;

use thiserror::Error;

/// The highest number of a field.
const MAX_NUMBER: u32 = (1 << 29) - 1;

/// The deepest nesting of groups. prost has the same limit.
const MAX_GROUPS: usize = 100;

const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const LENGTH_DELIMITED: u64 = 2;
const START_GROUP: u64 = 3;
const END_GROUP: u64 = 4;
const FIXED32: u64 = 5;

/// Why bytes are no protobuf message.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum WireError {
    /// The message ends within a field.
    #[error("protobuf message ends within the field at byte {0}")]
    Truncated(usize),
    /// A variable-length number has more than 64 bits.
    #[error("protobuf number at byte {0} has more than 64 bits")]
    Overlong(usize),
    /// Groups are nested too deep.
    #[error("protobuf groups at byte {0} are more than {MAX_GROUPS} deep")]
    Depth(usize),
    /// A field number is out of range, a wire type is not in use, or a group ends that did not begin.
    #[error("protobuf key {key} at byte {at} is no field number with a wire type in use")]
    Key {
        /// Where the key stands.
        at: usize,
        /// The key as read.
        key: u64,
    },
}

/// One field of a message as it stands on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field<'a> {
    /// The field's number.
    pub number: u32,
    /// The whole field, key and length included.
    pub raw: &'a [u8],
    /// What a length-delimited field (string, bytes, message, map entry) holds; `None` for any
    /// other.
    pub value: Option<&'a [u8]>,
}

/// What becomes of a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// It stays as it is.
    Keep,
    /// It is dropped.
    Drop,
    /// Its value is replaced with this.
    Replace(Vec<u8>),
}

/// The fields of a message, in their order.
///
/// # Errors
/// An item is an error, and the last one, where the bytes are no protobuf message.
pub fn fields(message: &[u8]) -> impl Iterator<Item = Result<Field<'_>, WireError>> {
    let mut at = 0;
    let mut failed = false;
    std::iter::from_fn(move || {
        if failed || at == message.len() {
            return None;
        }
        let field = read_field(message, at);
        match &field {
            Ok(field) => at += field.raw.len(),
            Err(_) => failed = true,
        }
        Some(field)
    })
}

/// The message with each length-delimited field as `edit` says. All other fields stay.
///
/// # Errors
/// Where the bytes are no protobuf message, or where `edit` fails.
pub fn rewrite<E: From<WireError>>(
    message: &[u8],
    mut edit: impl FnMut(u32, &[u8]) -> Result<Edit, E>,
) -> Result<Vec<u8>, E> {
    let mut out = Vec::with_capacity(message.len());
    for field in fields(message) {
        let field = field?;
        match field
            .value
            .map_or(Ok(Edit::Keep), |value| edit(field.number, value))?
        {
            Edit::Keep => out.extend_from_slice(field.raw),
            Edit::Drop => {}
            Edit::Replace(value) => put(&mut out, field.number, &value),
        }
    }
    Ok(out)
}

/// Appends a length-delimited field.
pub fn put(out: &mut Vec<u8>, number: u32, value: &[u8]) {
    put_varint(out, u64::from(number) << 3 | LENGTH_DELIMITED);
    put_varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

/// Key and value of an entry of a map from strings to strings, bytes or messages. An absent one is empty.
///
/// # Errors
/// Where the bytes are no protobuf message.
pub fn map_entry(entry: &[u8]) -> Result<(Cow<'_, str>, &[u8]), WireError> {
    let (mut key, mut value): (&[u8], &[u8]) = (&[], &[]);
    for field in fields(entry) {
        let field = field?;
        match (field.number, field.value) {
            (1, Some(bytes)) => key = bytes,
            (2, Some(bytes)) => value = bytes,
            _ => {}
        }
    }
    Ok((String::from_utf8_lossy(key), value))
}

fn read_field(message: &[u8], start: usize) -> Result<Field<'_>, WireError> {
    let key = read_key(message, start)?;
    let (end, value) = match key.wire_type {
        START_GROUP => (end_of_group(message, start, &key)?, None),
        _ => read_value(message, start, &key)?,
    };
    Ok(Field {
        number: key.number,
        raw: &message[start..end],
        value,
    })
}

/// The end of the group that begins with `key` at `start`, behind its end key.
fn end_of_group(message: &[u8], start: usize, key: &Key) -> Result<usize, WireError> {
    let mut at = key.end;
    let mut open = vec![key.number];
    while let Some(innermost) = open.last() {
        if at == message.len() {
            return Err(WireError::Truncated(start));
        }
        let key = read_key(message, at)?;
        let ends = key.wire_type == END_GROUP && key.number == *innermost;
        if !ends && open.len() == MAX_GROUPS {
            return Err(WireError::Depth(start));
        }
        at = match key.wire_type {
            END_GROUP if ends => {
                open.pop();
                key.end
            }
            START_GROUP => {
                open.push(key.number);
                key.end
            }
            _ => read_value(message, at, &key)?.0,
        };
    }
    Ok(at)
}

/// The end of the field at `start`, which is no group, and its value if it is length-delimited.
fn read_value<'a>(
    message: &'a [u8],
    start: usize,
    key: &Key,
) -> Result<(usize, Option<&'a [u8]>), WireError> {
    let end_after = |at: usize, length: u64| {
        usize::try_from(length)
            .ok()
            .and_then(|length| at.checked_add(length))
            .filter(|end| *end <= message.len())
            .ok_or(WireError::Truncated(start))
    };
    Ok(match key.wire_type {
        VARINT => (read_varint(message, key.end)?.1, None),
        FIXED64 => (end_after(key.end, 8)?, None),
        LENGTH_DELIMITED => {
            let (length, from) = read_varint(message, key.end)?;
            let end = end_after(from, length)?;
            (end, Some(&message[from..end]))
        }
        FIXED32 => (end_after(key.end, 4)?, None),
        // The end of a group that is not open, or a wire type that is not in use.
        _ => {
            return Err(WireError::Key {
                at: start,
                key: key.raw,
            });
        }
    })
}

/// The key at the start of a field: its number and wire type.
struct Key {
    raw: u64,
    number: u32,
    wire_type: u64,
    /// Where it ends.
    end: usize,
}

fn read_key(message: &[u8], start: usize) -> Result<Key, WireError> {
    let (raw, end) = read_varint(message, start)?;
    match u32::try_from(raw >> 3) {
        Ok(number @ 1..=MAX_NUMBER) => Ok(Key {
            raw,
            number,
            wire_type: raw & 7,
            end,
        }),
        _ => Err(WireError::Key {
            at: start,
            key: raw,
        }),
    }
}

fn read_varint(message: &[u8], start: usize) -> Result<(u64, usize), WireError> {
    let mut number = 0_u64;
    for (n, byte) in message[start..].iter().enumerate() {
        if n == 10 || (n == 9 && *byte > 1) {
            return Err(WireError::Overlong(start));
        }
        number |= u64::from(byte & 0x7f) << (7 * n);
        if byte & 0x80 == 0 {
            return Ok((number, start + n + 1));
        }
    }
    Err(WireError::Truncated(start))
}

fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        // The mask leaves seven bits.
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A varint (1), a fixed64 (2), a string (3), a fixed32 (4), a string (200) and a group (5) of a
    /// varint (1) and a group (6).
    const MESSAGE: &[u8] =
        b"\x08\x96\x01\x11AAAAAAAA\x1a\x03abc\x25BBBB\xc2\x0c\x01z\x2b\x08\x01\x33\x34\x2c";

    fn keep(_: u32, _: &[u8]) -> Result<Edit, WireError> {
        Ok(Edit::Keep)
    }

    #[test]
    fn reads_each_wire_type() {
        let fields: Result<Vec<_>, _> = fields(MESSAGE).collect();
        let fields: Vec<_> = fields
            .unwrap()
            .iter()
            .map(|f| (f.number, f.value))
            .collect();
        let expected: [(u32, Option<&[u8]>); 6] = [
            (1, None),
            (2, None),
            (3, Some(b"abc")),
            (4, None),
            (200, Some(b"z")),
            (5, None),
        ];
        assert_eq!(fields, expected);
    }

    #[test]
    fn an_edit_leaves_the_rest_as_it_is() {
        assert_eq!(rewrite(MESSAGE, keep).unwrap(), MESSAGE);
        let dropped = rewrite(MESSAGE, |number, _| {
            Ok::<_, WireError>(if number == 3 { Edit::Drop } else { Edit::Keep })
        });
        assert_eq!(
            dropped.unwrap(),
            b"\x08\x96\x01\x11AAAAAAAA\x25BBBB\xc2\x0c\x01z\x2b\x08\x01\x33\x34\x2c"
        );
        let long = vec![b'x'; 300];
        let replaced = rewrite(MESSAGE, |number, _| {
            Ok::<_, WireError>(if number == 200 {
                Edit::Replace(long.clone())
            } else {
                Edit::Keep
            })
        })
        .unwrap();
        let field = fields(&replaced).nth(4).unwrap().unwrap();
        assert_eq!((field.number, field.value), (200, Some(&long[..])));
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let refusal = |bytes: &[u8]| rewrite(bytes, keep).unwrap_err();
        assert_eq!(refusal(b"\x1a\x05abc"), WireError::Truncated(0));
        assert_eq!(refusal(b"\x08\x01\x11AAAA"), WireError::Truncated(2));
        assert_eq!(refusal(b"\x08\xff"), WireError::Truncated(1));
        assert_eq!(
            refusal(b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02"),
            WireError::Overlong(1)
        );
        assert_eq!(refusal(b"\x02\x00"), WireError::Key { at: 0, key: 2 });
        assert_eq!(refusal(b"\x0b\x14"), WireError::Key { at: 1, key: 20 });
        assert_eq!(refusal(b"\x0c"), WireError::Key { at: 0, key: 12 });
        assert_eq!(refusal(b"\x08\x01\x0b\x08\x01"), WireError::Truncated(2));
        // One more than the highest number; the decoders of messages refuse it as well.
        let key = 1 << 32;
        assert_eq!(
            refusal(b"\x80\x80\x80\x80\x10\x00"),
            WireError::Key { at: 0, key }
        );
        assert_eq!(
            refusal(b"\x1a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
            WireError::Truncated(0)
        );
    }

    #[test]
    fn groups_are_only_so_deep() {
        let nested = |depth| [vec![0x0b; depth], vec![0x0c; depth]].concat();
        assert_eq!(rewrite(&nested(MAX_GROUPS), keep), Ok(nested(MAX_GROUPS)));
        assert_eq!(
            rewrite(&nested(MAX_GROUPS + 1), keep),
            Err(WireError::Depth(0))
        );
    }

    #[test]
    fn map_entries_have_defaults() {
        assert_eq!(
            map_entry(b"\x0a\x01k\x12\x01v").unwrap(),
            ("k".into(), &b"v"[..])
        );
        assert_eq!(map_entry(b"").unwrap(), ("".into(), &b""[..]));
    }
}
