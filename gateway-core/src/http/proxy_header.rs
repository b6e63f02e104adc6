//! The PROXY protocol's header, in front of everything else on a connection: whom a proxy speaks for.
//!
//! Read to its last byte and not beyond, since what follows is TLS's or HTTP's. What it says is read
//! by the crate `proxy-header`. See
//! <https://www.haproxy.org/download/2.8/doc/proxy-protocol.txt>.

use std::{io, net::SocketAddr};

use proxy_header::{ParseConfig, Protocol, ProxyHeader};
use tokio::{io::AsyncReadExt as _, net::TcpStream};

/// How a header of version 2 begins; one of version 1 is longer than this, too.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// How a header of version 1 begins.
const V1: &[u8] = b"PROXY ";
/// The longest header of version 1, by the specification.
const V1_MOST: usize = 107;
/// The longest header of version 2 that is taken, after its first 16 bytes: addresses and what else
/// a proxy may tell of its client (certificates' names, say), of which nothing is kept.
const V2_MOST: usize = 4096;

/// Why there is no header.
#[derive(Debug, thiserror::Error)]
pub(super) enum HeaderFault {
    /// A bare look whether somebody listens, which many health checks are.
    #[error("the connection ended before its first byte")]
    Nothing,
    #[error("the connection ended within its PROXY header")]
    Socket(#[from] io::Error),
    #[error("no PROXY header")]
    Absent,
    #[error("a PROXY header of {0} bytes")]
    TooLong(usize),
    #[error("a faulty PROXY header: {0}")]
    Faulty(proxy_header::Error),
    #[error("a PROXY header for datagrams")]
    Datagrams,
}

/// Reads the header: the client's address, or none where the proxy speaks for itself (its health
/// check) or does not know.
pub(super) async fn read(stream: &mut TcpStream) -> Result<Option<SocketAddr>, HeaderFault> {
    let mut header = vec![0; SIGNATURE.len()];
    let begun = match stream.read(&mut header).await {
        Ok(0) | Err(_) => return Err(HeaderFault::Nothing),
        Ok(begun) => begun,
    };
    stream.read_exact(&mut header[begun..]).await?;
    if header == SIGNATURE {
        read_v2(stream, &mut header).await?;
    } else if header.starts_with(V1) {
        read_v1(stream, &mut header).await?;
    } else {
        return Err(HeaderFault::Absent);
    }
    parse(&header)
}

/// The rest of a line, whose length shows at its end.
async fn read_v1(stream: &mut TcpStream, header: &mut Vec<u8>) -> Result<(), HeaderFault> {
    let mut seen = [0; V1_MOST];
    while !header.ends_with(b"\n") {
        let left = V1_MOST - header.len();
        if left == 0 {
            return Err(HeaderFault::TooLong(header.len()));
        }
        // Looked at first, so that nothing behind the line is taken. What is no end of a line is
        // taken at once: otherwise it would be there to be looked at again without a wait.
        let count = stream.peek(&mut seen[..left]).await?;
        if count == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        let end = seen[..count].iter().position(|byte| *byte == b'\n');
        let (from, wanted) = (header.len(), end.map_or(count, |end| end + 1));
        header.resize(from + wanted, 0);
        stream.read_exact(&mut header[from..]).await?;
    }
    Ok(())
}

/// The rest of a header that says how long it is.
async fn read_v2(stream: &mut TcpStream, header: &mut Vec<u8>) -> Result<(), HeaderFault> {
    let mut fixed = [0; 4];
    stream.read_exact(&mut fixed).await?;
    header.extend(fixed);
    let [_, _, length @ ..] = fixed;
    let length = usize::from(u16::from_be_bytes(length));
    if length > V2_MOST {
        return Err(HeaderFault::TooLong(length));
    }
    let from = header.len();
    header.resize(from + length, 0);
    stream.read_exact(&mut header[from..]).await?;
    Ok(())
}

/// What a whole header says.
fn parse(header: &[u8]) -> Result<Option<SocketAddr>, HeaderFault> {
    let config = ParseConfig { include_tlvs: false, ..ParseConfig::default() };
    let (parsed, length) = ProxyHeader::parse(header, config).map_err(HeaderFault::Faulty)?;
    if length != header.len() {
        return Err(HeaderFault::Faulty(proxy_header::Error::Invalid));
    }
    match parsed.proxied_address() {
        None => Ok(None),
        Some(address) if address.protocol == Protocol::Datagram => Err(HeaderFault::Datagrams),
        Some(address) => Ok(Some(super::canonical(address.source))),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::{io::AsyncWriteExt as _, net::TcpListener};

    use super::*;

    /// What is read of these pieces, and what is left behind it.
    async fn read_of(pieces: &[&[u8]]) -> (Result<Option<SocketAddr>, String>, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let pieces: Vec<Vec<u8>> = pieces.iter().map(|piece| piece.to_vec()).collect();
        let writing = tokio::spawn(async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.set_nodelay(true).unwrap();
            for piece in pieces {
                // It may have been refused by then.
                let _ = stream.write_all(&piece).await;
                tokio::task::yield_now().await;
            }
        });
        let (mut stream, _) = listener.accept().await.unwrap();
        let read = read(&mut stream).await.map_err(|fault| fault.to_string());
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
        writing.await.unwrap();
        (read, rest)
    }

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        [SIGNATURE, &[0x20 | command, family][..], &length, body].concat()
    }

    const V4_BODY: [u8; 12] = [192, 0, 2, 7, 10, 0, 0, 1, 0x12, 0x34, 0x1f, 0x40];

    #[tokio::test]
    async fn headers_of_both_versions_are_read_and_not_a_byte_more() {
        let v4 = Some("192.0.2.7:4660".parse().unwrap());
        let v6_body = [
            &[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5][..],
            &[0; 16],
            &[0, 80, 0, 81],
        ];
        let with_more = [&V4_BODY[..], &[0x04, 0, 3, 1, 2, 3]].concat();
        for (header, expected) in [
            (b"PROXY TCP4 192.0.2.7 10.0.0.1 4660 8000\r\n".to_vec(), v4),
            (
                b"PROXY TCP6 2001:db8::5 ::1 80 81\r\n".to_vec(),
                Some("[2001:db8::5]:80".parse().unwrap()),
            ),
            (b"PROXY TCP6 ::ffff:192.0.2.7 ::1 4660 81\r\n".to_vec(), v4),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN some words\r\n".to_vec(), None),
            (v2(1, 0x11, &V4_BODY), v4),
            (v2(1, 0x11, &with_more), v4),
            (v2(1, 0x21, &v6_body.concat()), Some("[2001:db8::5]:80".parse().unwrap())),
            (v2(0, 0x00, &[]), None),
            (v2(0, 0x11, &V4_BODY), None),
            (v2(1, 0x00, &[1, 2, 3]), None),
            (v2(1, 0x31, &[0; 216]), None),
        ] {
            let told = String::from_utf8_lossy(&header).into_owned();
            // All at once with what follows, byte by byte, and cut in two anywhere.
            let all = [&header[..], b"GET /"].concat();
            assert_eq!(read_of(&[&all]).await, (Ok(expected), b"GET /".to_vec()), "{told:?}");
            let bytes: Vec<_> = all.chunks(1).collect();
            assert_eq!(read_of(&bytes).await, (Ok(expected), b"GET /".to_vec()), "{told:?}");
            let (first, second) = all.split_at(header.len() - 1);
            assert_eq!(read_of(&[first, second]).await.0, Ok(expected), "{told:?}");
        }
    }

    #[tokio::test]
    async fn what_is_no_header_is_refused_with_its_fault() {
        let long = [b"PROXY UNKNOWN ", &[b'x'; 200][..], b"\r\n"].concat();
        for (said, expected) in [
            (&b"GET /ws HTTP/1.1\r\nHost: x\r\n\r\n"[..], "no PROXY header"),
            (b"PROXYTCP4 1.2.3.4", "no PROXY header"),
            (b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03\0\0\0", "no PROXY header"),
            (b"", "the connection ended before its first byte"),
            (b"P", "the connection ended within its PROXY header"),
            (b"PROXY TC", "the connection ended within its PROXY header"),
            (b"PROXY TCP4 192.0.2.7 10.0.0.1 4660", "the connection ended within its PROXY header"),
            (
                b"PROXY TCP4 192.0.2.700 10.0.0.1 4660 8000\r\n",
                "a faulty PROXY header: invalid PROXY header",
            ),
            (
                b"PROXY TCP4 192.0.2.7 10.0.0.1 66000 8000\r\n",
                "a faulty PROXY header: invalid PROXY header",
            ),
            (
                b"PROXY UDP4 192.0.2.7 10.0.0.1 46 80\r\n",
                "a faulty PROXY header: invalid PROXY header",
            ),
            (b"PROXY TCP4 192.0.2.7 10.0.0.1 46 80\n", "a faulty PROXY header: buffer too short"),
            (&long, "a PROXY header of 107 bytes"),
            (&v2(1, 0x12, &V4_BODY), "a PROXY header for datagrams"),
            (&v2(2, 0x11, &V4_BODY), "a faulty PROXY header: invalid PROXY header"),
            (&v2(1, 0x11, &V4_BODY[..11]), "a faulty PROXY header: buffer too short"),
            (&v2(1, 0x11, &[0; 5000]), "a PROXY header of 5000 bytes"),
        ] {
            let told = String::from_utf8_lossy(said).into_owned();
            assert_eq!(read_of(&[said]).await.0, Err(expected.to_owned()), "{told:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange_to_be_judged(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes);
            let _ = parse(&[SIGNATURE, &bytes[..]].concat());
            let _ = parse(&[V1, &bytes[..]].concat());
        }

        #[test]
        fn what_a_proxy_writes_is_what_is_read(
            address in any::<SocketAddr>(), v4 in any::<bool>(), port in any::<u16>(),
        ) {
            let source = match (v4, address) {
                (true, SocketAddr::V6(_)) => SocketAddr::from(([192, 0, 2, 1], port)),
                (_, address) => SocketAddr::new(address.ip(), address.port()),
            };
            let proxied = proxy_header::ProxiedAddress::stream(source, source);
            let header = ProxyHeader::with_address(proxied);
            for version in [1, 2] {
                let mut bytes = Vec::new();
                match version {
                    1 => header.encode_v1(&mut bytes).unwrap(),
                    _ => header.encode_v2(&mut bytes).unwrap(),
                }
                let read = parse(&bytes).unwrap().unwrap();
                prop_assert_eq!(read, super::super::canonical(source));
            }
        }
    }
}
