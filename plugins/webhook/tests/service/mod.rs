//! A service that answers as a test wants.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc::{Receiver, Sender, channel},
    },
    thread::{self, JoinHandle},
};

use serde_json::Value;

/// What it answers.
#[derive(Clone)]
pub(crate) enum Reply {
    Json(Value),
    Status(u16),
    /// Bytes as they are, headers included.
    Raw(Vec<u8>),
    /// Nothing, until the test is over.
    Silence,
}

/// What it was asked.
pub(crate) struct Asked {
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Asked {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        &self.headers.iter().find(|(key, _)| key == name).unwrap().1
    }
}

/// A service on a port of its own. It ends when it is dropped.
pub(crate) struct Service {
    address: SocketAddr,
    reply: Arc<Mutex<Reply>>,
    asked: Receiver<Asked>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Service {
    pub(crate) fn new(reply: Reply) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let (reply, over) = (Arc::new(Mutex::new(reply)), Arc::new(AtomicBool::new(false)));
        let (sender, asked) = channel();
        let state = (Arc::clone(&reply), Arc::clone(&over));
        let thread = thread::spawn(move || serve(&listener, &state.0, &state.1, &sender));
        Self { address, reply, asked, over, thread: Some(thread) }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/policy", self.address)
    }

    pub(crate) fn answer(&self, reply: Reply) {
        *self.reply.lock().unwrap() = reply;
    }

    /// What was asked since the last time, without waiting.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.try_iter().collect()
    }

    /// The next question, once it comes.
    pub(crate) fn next(&self) -> Asked {
        self.asked.recv().unwrap()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.over.store(true, Relaxed);
        // Wakes it from its wait for a connection.
        let _ = TcpStream::connect(self.address);
        let _ = self.thread.take().unwrap().join();
    }
}

fn serve(listener: &TcpListener, reply: &Mutex<Reply>, over: &AtomicBool, asked: &Sender<Asked>) {
    // Connections that are answered with silence stay open.
    let mut silent = Vec::new();
    for stream in listener.incoming() {
        if over.load(Relaxed) {
            return;
        }
        let mut stream = stream.unwrap();
        let Some(question) = read(&stream) else { continue };
        let reply = reply.lock().unwrap().clone();
        let _ = asked.send(question);
        let bytes = match reply {
            Reply::Json(json) => response(200, &json.to_string()),
            Reply::Status(status) => response(status, ""),
            Reply::Raw(bytes) => bytes,
            Reply::Silence => {
                silent.push(stream);
                continue;
            }
        };
        let _ = stream.write_all(&bytes);
    }
}

fn response(status: u16, body: &str) -> Vec<u8> {
    let length = body.len();
    let head = format!("HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {length}");
    format!("{head}\r\nlocation: /elsewhere\r\n\r\n{body}").into_bytes()
}

fn read(stream: &TcpStream) -> Option<Asked> {
    let mut reader = BufReader::new(stream);
    let mut headers = Vec::new();
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.push((name.to_lowercase(), value.to_owned()));
    }
    let length = headers.iter().find(|(name, _)| name == "content-length")?.1.parse().ok()?;
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Asked { headers, body })
}
