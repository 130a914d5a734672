//! The messages of a client's session, as they come from either side: any bytes, in any pieces. The
//! first byte says in which pieces.

use bytes::{Buf as _, Bytes};
use inlay::protocol::proto::control::BytesMessage;
use inlay::session::framing::{Decoder, FramingError, head};
use prost::Message as _;

/// Holds the target's properties against one input.
pub fn check(input: &[u8]) {
    let Some((&cut, stream)) = input.split_first() else {
        return;
    };
    let whole = decode(stream, usize::MAX);
    assert_eq!(decode(stream, usize::from(cut) + 1), whole);
    assert_eq!(decode(stream, 1), whole);
    if let Ok(data) = &whole {
        assert!(reference(stream).is_none_or(|known| known == *data));
    }

    // What is made here is read here, behind whatever was read before.
    let message = [&head(stream.len())[..], stream].concat();
    assert_eq!(
        decode(&message, usize::from(cut) + 1).expect("a message"),
        stream
    );
    if whole.is_ok() {
        let both = [stream, &message].concat();
        let read = decode(&both, 7).expect("messages");
        assert!(reference(&both).is_none_or(|known| known == read));
    }
}

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

/// The same by prost, message by message. It refuses a field of a known number and another type, which
/// Go's reader and this one skip.
fn reference(mut stream: &[u8]) -> Option<Vec<u8>> {
    let mut data = Vec::new();
    while !stream.is_empty() {
        let (flag, length) = (stream.get_u8(), stream.get_u32());
        assert_eq!(flag, 0);
        let message = stream.get(..length as usize)?;
        stream.advance(message.len());
        data.extend_from_slice(&BytesMessage::decode(message).ok()?.data);
    }
    Some(data)
}
