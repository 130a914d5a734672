//! Finds where HTTP/2 frames begin in a stream of bytes (RFC 9113, sections 3.4, 4.1 and 6).

/// What a client's connection begins with, before any frame (bytes).
pub const PREFACE: usize = 24;
/// The head of a frame (bytes).
pub const HEAD: usize = 9;
/// A whole PING (bytes).
pub const PING: usize = HEAD + 8;

/// Types of frames.
pub const DATA: u8 = 0;
/// The first frame of a block of headers.
pub const HEADERS: u8 = 1;
/// The type of the first frame that a server sends.
pub const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING_TYPE: u8 = 6;
/// The end of a connection.
pub const GOAWAY: u8 = 7;
/// The next frame of a block of headers.
pub const CONTINUATION: u8 = 9;
/// The flag of the last frame of a block of headers.
pub const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

/// A position in a stream of frames: how far it has been read or written.
#[derive(Debug, Default)]
pub struct Place {
    head: [u8; HEAD],
    /// How much of the head has passed; none while there is a payload.
    of_head: usize,
    /// How much of the payload has not passed yet.
    payload: usize,
    /// Whether the next frame has to follow at once: it goes on with a block of headers, or it is
    /// the first of the connection.
    must_follow: bool,
}

/// A part of a frame that passes.
#[derive(Debug)]
pub enum Part<'a> {
    /// A whole head, with the type of the frame.
    Head(u8),
    /// The next bytes of a payload, and how many follow.
    Payload(&'a [u8], usize),
}

/// A PING.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ping {
    /// Whether it answers one.
    pub ack: bool,
    /// Opaque data, which the answer repeats.
    pub data: [u8; 8],
}

/// What a frame is, by its first bytes.
#[derive(Debug, PartialEq, Eq)]
pub enum Beginning {
    /// A whole PING.
    Ping(Ping),
    /// Too few bytes to tell.
    Unknown,
    /// Another frame.
    Other,
}

// === impl Place ===

impl Place {
    /// The start of what a client sends, before the preface.
    pub fn of_client() -> Self {
        Self {
            payload: PREFACE,
            must_follow: true,
            ..Self::default()
        }
    }

    /// The start of what a server sends.
    pub fn of_server() -> Self {
        Self {
            must_follow: true,
            ..Self::default()
        }
    }

    /// The least that has to pass before a frame may begin (bytes).
    pub fn to_frame(&self) -> usize {
        match self.of_head {
            0 => self.payload,
            passed => HEAD - passed,
        }
    }

    /// The least that has to pass before a frame may be inserted (bytes).
    pub fn to_gap(&self) -> usize {
        match self.to_frame() {
            0 if self.must_follow => HEAD,
            length => length,
        }
    }

    /// Moves on by `bytes`, and calls `part` for each part of a frame in them.
    pub fn pass(&mut self, mut bytes: &[u8], mut part: impl FnMut(Part<'_>)) {
        while !bytes.is_empty() {
            let length = if self.payload > 0 {
                let length = bytes.len().min(self.payload);
                self.payload -= length;
                part(Part::Payload(&bytes[..length], self.payload));
                length
            } else {
                let length = bytes.len().min(HEAD - self.of_head);
                self.head[self.of_head..][..length].copy_from_slice(&bytes[..length]);
                self.of_head += length;
                if self.of_head == HEAD {
                    let [high, middle, low, kind, flags, ..] = self.head;
                    self.payload = u32::from_be_bytes([0, high, middle, low]) as usize;
                    self.of_head = 0;
                    self.must_follow = matches!(kind, HEADERS | PUSH_PROMISE | CONTINUATION)
                        && flags & END_HEADERS == 0;
                    part(Part::Head(kind));
                }
                length
            };
            bytes = &bytes[length..];
        }
    }

    /// How many of `bytes` belong to the frame that they are in: to its head, or to its payload.
    pub fn step(&self, bytes: &[u8]) -> usize {
        let length = match self.to_frame() {
            0 => HEAD,
            length => length,
        };
        length.min(bytes.len())
    }
}

// === impl Ping ===

impl Ping {
    /// As it is on the wire.
    pub fn frame(self) -> [u8; PING] {
        let mut frame = [0; PING];
        frame[..HEAD].copy_from_slice(&[0, 0, 8, PING_TYPE, u8::from(self.ack), 0, 0, 0, 0]);
        frame[HEAD..].copy_from_slice(&self.data);
        frame
    }
}

// === impl Beginning ===

impl Beginning {
    /// How many bytes tell a ping from other frames: its length and type.
    pub const TOLD: usize = 4;

    /// Reads bytes that begin with a frame.
    pub fn of(bytes: &[u8]) -> Self {
        const LENGTH_AND_TYPE: [u8; Beginning::TOLD] = [0, 0, 8, PING_TYPE];
        let known = bytes.len().min(LENGTH_AND_TYPE.len());
        if bytes[..known] != LENGTH_AND_TYPE[..known] {
            return Self::Other;
        }
        match bytes.first_chunk::<PING>() {
            Some(&[_, _, _, _, flags, _, _, _, _, ref data @ ..]) => Self::Ping(Ping {
                ack: flags & ACK != 0,
                data: *data,
            }),
            None => Self::Unknown,
        }
    }
}

/// GOAWAY with a reason, as it is on the wire. Its last stream is the highest possible, so calls in flight
/// go on.
pub fn goaway(code: u32, debug: &[u8]) -> Vec<u8> {
    let mut frame = (8 + debug.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([GOAWAY, 0, 0, 0, 0, 0]);
    frame.extend((u32::MAX >> 1).to_be_bytes());
    frame.extend(code.to_be_bytes());
    frame.extend(debug);
    frame
}

#[cfg(test)]
pub(super) mod tests {
    use super::HEAD;

    /// The frames of a stream that is whole.
    pub(in super::super) fn frames_of(mut bytes: &[u8]) -> Vec<&[u8]> {
        let mut frames = Vec::new();
        while !bytes.is_empty() {
            let length = u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]]) as usize;
            let (frame, rest) = bytes.split_at(HEAD + length);
            frames.push(frame);
            bytes = rest;
        }
        frames
    }
}
