//! The gateway's HTTP routes, over one connection that is kept open.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

pub(crate) struct Client {
    address: SocketAddr,
    stream: BufReader<TcpStream>,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        Self { address, stream: BufReader::new(stream) }
    }

    /// The body of an answer of 200.
    pub(crate) fn get(&mut self, path: &str) -> String {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.address);
        self.stream.get_mut().write_all(request.as_bytes()).unwrap();
        let status = self.line();
        assert!(status.starts_with("HTTP/1.1 200 "), "{path}: {status}");
        let mut length = None;
        loop {
            let line = self.line().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().ok();
            }
        }
        let mut body = vec![0; length.expect("a length")];
        self.stream.read_exact(&mut body).unwrap();
        String::from_utf8(body).unwrap()
    }

    /// Asks for something that goes on, whose beginning was answered with 200, and hands what comes
    /// to `take` until the connection is [shut](Self::shutter).
    pub(crate) fn follow(mut self, path: &str, mut take: impl FnMut(&[u8])) {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.address);
        self.stream.get_mut().write_all(request.as_bytes()).unwrap();
        let status = self.line();
        assert!(status.starts_with("HTTP/1.1 200 "), "{path}: {status}");
        let mut buffer = [0; 16 * 1024];
        while let Ok(size @ 1..) = self.stream.read(&mut buffer) {
            take(&buffer[..size]);
        }
    }

    /// Another hold of the connection, to end it by.
    pub(crate) fn shutter(&self) -> TcpStream {
        self.stream.get_ref().try_clone().unwrap()
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }
}
