//! WebSocket frames as a client writes them (RFC 6455, 5.2), and as it should not.

/// Of a frame's first byte (RFC 6455, 5.2).
pub(crate) const FIN: u8 = 0x80;
pub(crate) const CONTINUATION: u8 = 0x0;
pub(crate) const TEXT: u8 = 0x1;
pub(crate) const BINARY: u8 = 0x2;
pub(crate) const CLOSE: u8 = 0x8;
pub(crate) const PING: u8 = 0x9;
pub(crate) const PONG: u8 = 0xa;

/// Of its second byte.
pub(crate) const MASKED: u8 = 0x80;

pub(crate) const MASK: [u8; 4] = [0x5a, 0x17, 0xc3, 0x88];

/// A client's frame that begins with `first`.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = claim(first, payload.len() as u64);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, key)| byte ^ key));
    bytes
}

/// The header of a client's frame, mask included, and nothing of its payload.
pub(crate) fn claim(first: u8, length: u64) -> Vec<u8> {
    let mut bytes = header(first, MASKED, length);
    bytes.extend(MASK);
    bytes
}

/// A frame's first two bytes and its length, in the shortest of the three ways to write it.
pub(crate) fn header(first: u8, masked: u8, length: u64) -> Vec<u8> {
    let mut bytes = vec![first];
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short @ ..126), _) => bytes.push(masked | short),
        (_, Ok(medium)) => {
            bytes.push(masked | 126);
            bytes.extend(medium.to_be_bytes());
        }
        _ => {
            bytes.push(masked | 127);
            bytes.extend(length.to_be_bytes());
        }
    }
    bytes
}

/// A message in as many fragments as there are parts, all of them text.
pub(crate) fn fragments(parts: &[&[u8]]) -> Vec<u8> {
    let last = parts.len() - 1;
    let fragment = |(n, part): (usize, &&[u8])| {
        let opcode = if n == 0 { TEXT } else { CONTINUATION };
        frame(opcode | if n == last { FIN } else { 0 }, part)
    };
    parts.iter().enumerate().flat_map(fragment).collect()
}
