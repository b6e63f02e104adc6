//! WebSocket frames as a client writes them, and their headers as it reads them (RFC 6455, 5.2).
//!
//! By hand, because a generator writes the same masked bytes over and over and looks at hardly
//! anything of what it reads. `skim` and `wire` are built on it.

/// Of a frame's first byte: the last fragment of its message.
const FIN: u8 = 0x80;

/// Of its first byte: extensions, of which none is ever negotiated here.
const RESERVED: u8 = 0x70;

/// Of its second byte.
const MASKED: u8 = 0x80;

/// What a frame is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Opcode {
    Text = 0x1,
    Binary = 0x2,
    Close = 0x8,
    Ping = 0x9,
    Pong = 0xa,
}

/// What cannot be a frame of a server that keeps to what was negotiated.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Broken {
    #[error("a frame with reserved bits")]
    Reserved,
    #[error("a masked frame")]
    Masked,
    #[error("a fragmented message")]
    Fragmented,
    #[error("a frame of unknown type")]
    Opcode,
    #[error("a control frame over 125 bytes")]
    LongControl,
}

/// A server's frame: what it is, and how long its payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Header {
    pub(super) opcode: Opcode,
    pub(super) length: u64,
}

impl Header {
    /// Reads a header and says how many bytes it has; `None` while there are too few.
    pub(super) fn read(bytes: &[u8]) -> Result<Option<(Self, usize)>, Broken> {
        let [first, second, rest @ ..] = bytes else { return Ok(None) };
        if first & RESERVED != 0 {
            return Err(Broken::Reserved);
        }
        if second & MASKED != 0 {
            return Err(Broken::Masked);
        }
        if first & FIN == 0 {
            return Err(Broken::Fragmented);
        }
        let opcode = match first & 0x0f {
            0x1 => Opcode::Text,
            0x2 => Opcode::Binary,
            0x8 => Opcode::Close,
            0x9 => Opcode::Ping,
            0xa => Opcode::Pong,
            _ => return Err(Broken::Opcode),
        };
        let (length, header) = match second {
            126 => match rest.first_chunk() {
                Some(length) => (u16::from_be_bytes(*length).into(), 4),
                None => return Ok(None),
            },
            127 => match rest.first_chunk() {
                Some(length) => (u64::from_be_bytes(*length), 10),
                None => return Ok(None),
            },
            short => (u64::from(*short), 2),
        };
        if length > 125 && !matches!(opcode, Opcode::Text | Opcode::Binary) {
            return Err(Broken::LongControl);
        }
        Ok(Some((Self { opcode, length }, header)))
    }
}

/// A client's frame, under a random mask.
pub(super) fn masked(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mask: [u8; 4] = rand::random();
    let mut bytes = Vec::with_capacity(payload.len() + 14);
    bytes.push(FIN | opcode as u8);
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(short @ ..126), _) => bytes.push(MASKED | short),
        (_, Ok(medium)) => {
            bytes.push(MASKED | 126);
            bytes.extend(medium.to_be_bytes());
        }
        _ => {
            bytes.push(MASKED | 127);
            bytes.extend((payload.len() as u64).to_be_bytes());
        }
    }
    bytes.extend(mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
    bytes
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A server's frame.
    pub(in crate::load) fn unmasked(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![FIN | opcode as u8];
        match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
            (Ok(short @ ..126), _) => bytes.push(short),
            (_, Ok(medium)) => {
                bytes.push(126);
                bytes.extend(medium.to_be_bytes());
            }
            _ => {
                bytes.push(127);
                bytes.extend((payload.len() as u64).to_be_bytes());
            }
        }
        bytes.extend(payload);
        bytes
    }

    #[test]
    fn lengths_are_written_in_the_shortest_way_and_read_in_all() {
        for (length, header) in [(0, 2), (125, 2), (126, 4), (65_535, 4), (65_536, 10)] {
            let payload = vec![b'x'; length];
            assert_eq!(masked(Opcode::Text, &payload).len(), header + 4 + length);
            let frame = unmasked(Opcode::Text, &payload);
            let expected = Header { opcode: Opcode::Text, length: length as u64 };
            assert_eq!(Header::read(&frame), Ok(Some((expected, header))));
            for short in 0..header {
                assert_eq!(Header::read(&frame[..short]), Ok(None), "{length}, {short}");
            }
        }
    }

    #[test]
    fn a_mask_comes_off_again() {
        let frame = masked(Opcode::Ping, b"payload");
        let (mask, payload) = frame[2..].split_first_chunk::<4>().unwrap();
        let plain: Vec<u8> = payload.iter().zip(mask.iter().cycle()).map(|(b, k)| b ^ k).collect();
        assert_eq!((frame[0], frame[1], &*plain), (0x89, 0x87, &b"payload"[..]));
    }

    #[test]
    fn what_no_server_may_send_is_told_apart() {
        for (bytes, broken) in [
            ([0xc1, 0], Broken::Reserved),
            ([0x81, 0x80], Broken::Masked),
            ([0x01, 0], Broken::Fragmented),
            ([0x00, 0], Broken::Fragmented),
            ([0x83, 0], Broken::Opcode),
        ] {
            assert_eq!(Header::read(&bytes), Err(broken), "{bytes:x?}");
        }
        assert_eq!(Header::read(&[0x89, 126, 0, 126]), Err(Broken::LongControl));
    }
}
