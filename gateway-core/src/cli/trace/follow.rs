//! One agent, followed until Ctrl-C: each event a line. A stream that breaks is taken up again.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use reqwest::{
    Client, Response, StatusCode,
    header::{AUTHORIZATION, HeaderValue},
};
use serde::Deserialize as _;
use serde_json::{Map, Value};
use tokio::time::{sleep, timeout};
use url::Url;

use super::{Agent, Options, TraceError, event::Event, stream::Pieces};
use crate::{
    cli::{
        control::{self, ControlError},
        signals::Interrupt,
        terminal::harmless,
        tls_options::Shown,
    },
    config::Sources,
    http_client::direct_client,
};

/// For the beginning of the stream.
const PATIENCE: Duration = Duration::from_secs(10);
/// The gateway says every 15 s that it is still there.
const SILENCE: Duration = Duration::from_secs(45);
/// A stream has no end of its own.
const WITHOUT_END: Duration = Duration::from_secs(365 * 24 * 3600);
/// Between two attempts to take a broken stream up again.
const PAUSES: [Duration; 4] = [
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(3),
    Duration::from_secs(10),
];

pub(super) async fn follow(
    agent: &Agent,
    options: &Options,
    sources: &Sources,
) -> Result<ExitCode, TraceError> {
    let mut follower = Follower::new(agent, options, sources)?;
    let mut interrupt = Interrupt::catch().map_err(TraceError::Signals)?;
    tokio::select! {
        followed = follower.run() => followed,
        () = interrupt.came() => Ok(ExitCode::SUCCESS),
    }
}

struct Follower<'a> {
    client: Client,
    url: Url,
    token: Option<HeaderValue>,
    agent: &'a Agent,
    with: Option<&'a Agent>,
    as_json: bool,
    recording: Option<(PathBuf, File)>,
}

impl<'a> Follower<'a> {
    fn new(agent: &'a Agent, options: &'a Options, sources: &Sources) -> Result<Self, TraceError> {
        let base = options.admin.clone().map_or_else(|| control::configured(sources), Ok)?;
        let mut url = base.join("events").map_err(|_| ControlError::Url(base.clone()))?;
        url.query_pairs_mut()
            .append_pair("topics", "message,session")
            .append_pair("agent", &agent.did);
        let recording = match &options.record {
            None => None,
            Some(path) => {
                let file = append_to(path);
                let fault = |source| TraceError::File { path: path.clone(), source };
                Some((path.clone(), file.map_err(fault)?))
            }
        };
        Ok(Self {
            client: direct_client(WITHOUT_END, &options.trust.config(&Shown::default())?)
                .map_err(ControlError::from)?,
            url,
            token: control::token(options.token_file.as_deref(), sources)?,
            agent,
            with: options.with.as_ref(),
            as_json: options.json,
            recording,
        })
    }

    async fn run(&mut self) -> Result<ExitCode, TraceError> {
        // Who cannot be asked at first is not waited for.
        let mut stream = self.open().await?;
        note(&format!("following {}", self.agent.did))?;
        loop {
            self.read(&mut stream).await?;
            note("the stream has ended; trying to take it up again")?;
            stream = self.open_again().await?;
            note("following again; what happened in between is missing")?;
        }
    }

    async fn open_again(&self) -> Result<Response, TraceError> {
        let mut pauses = PAUSES.into_iter();
        let mut pause = PAUSES[0];
        loop {
            pause = pauses.next().unwrap_or(pause);
            sleep(pause).await;
            match self.open().await {
                Err(TraceError::Silent | TraceError::Control(ControlError::Request { .. })) => {}
                // As many listen as may: one of them may be what is left of this one.
                Err(TraceError::Control(ControlError::Status { status, .. }))
                    if status.is_server_error() => {}
                opened => return opened,
            }
        }
    }

    async fn open(&self) -> Result<Response, TraceError> {
        let mut request = self.client.get(self.url.clone());
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, token);
        }
        let url = self.shown();
        let response = match timeout(PATIENCE, request.send()).await {
            Ok(Ok(response)) => response,
            Ok(Err(source)) => return Err(ControlError::Request { url, source }.into()),
            Err(_) => return Err(TraceError::Silent),
        };
        let status = response.status();
        if status == StatusCode::OK {
            return Ok(response);
        }
        let text = timeout(PATIENCE, response.text()).await;
        let text = text.ok().and_then(Result::ok).unwrap_or_default();
        let error = serde_json::from_str::<Value>(&text).ok();
        let error = error.as_ref().and_then(|error| error["error"].as_str()).unwrap_or(&text);
        let text = harmless(error.trim()).chars().take(500).collect();
        Err(ControlError::Status { url, status, text }.into())
    }

    /// The URL without what was asked.
    fn shown(&self) -> Url {
        let mut url = self.url.clone();
        url.set_query(None);
        url
    }

    /// Reads until the stream ends, which is no error.
    async fn read(&mut self, stream: &mut Response) -> Result<(), TraceError> {
        let mut pieces = Pieces::default();
        while let Ok(Ok(Some(piece))) = timeout(SILENCE, stream.chunk()).await {
            pieces.take(&piece, |topic, data| self.tell(topic, data))?;
        }
        Ok(())
    }

    fn tell(&mut self, topic: &str, data: &str) -> Result<(), TraceError> {
        let Ok(members) = serde_json::from_str::<Map<String, Value>>(data) else {
            return Err(TraceError::Stream("an event that is no JSON object"));
        };
        let mut event = Map::from_iter([("topic".to_owned(), Value::from(topic))]);
        event.extend(members);
        // A newer gateway may tell of more than this one knows.
        let Ok(known) = Event::deserialize(&event) else { return Ok(()) };
        if self.with.is_some_and(|with| !known.is_between(self.agent.key, with.key)) {
            return Ok(());
        }
        let json = escaped(&Value::Object(event).to_string());
        if let Some((path, file)) = &mut self.recording {
            let fault = |source| TraceError::File { path: path.clone(), source };
            file.write_all(format!("{json}\n").as_bytes()).map_err(fault)?;
        }
        let line = if self.as_json { json } else { known.line(self.agent.key) };
        let mut out = io::stdout().lock();
        writeln!(out, "{line}")?;
        out.flush()?;
        Ok(())
    }
}

/// The same JSON without what a terminal would obey.
fn escaped(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for char in json.chars() {
        match harmless(char.encode_utf8(&mut [0; 4])) {
            same if same.starts_with(char) => text.push(char),
            _ => text.push_str(&format!("\\u{:04x}", u32::from(char))),
        }
    }
    text
}

/// For its owner's eyes: it tells who talks to whom.
fn append_to(path: &std::path::Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

/// The lines are for what happens.
fn note(text: &str) -> io::Result<()> {
    writeln!(io::stderr(), "{text}")
}

#[cfg(test)]
mod tests {
    use conexus_protocol::Identity;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;
    use crate::cli::tls_options::Trust;

    fn follower(agent: &Agent, admin: std::net::SocketAddr) -> Follower<'_> {
        Follower {
            client: direct_client(
                WITHOUT_END,
                &Trust::default().config(&Shown::default()).unwrap(),
            )
            .unwrap(),
            url: format!("http://{admin}/events").parse().unwrap(),
            token: None,
            agent,
            with: None,
            as_json: false,
            recording: None,
        }
    }

    /// Takes the first request and says nothing, and answers all further ones.
    async fn silent_at_first(listener: TcpListener) {
        let mut taken = Vec::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            if !taken.is_empty() {
                let _ = stream.read(&mut [0; 1024]).await;
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
            }
            taken.push(stream);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_gateway_that_does_not_answer_is_asked_again() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(silent_at_first(listener));
        let identity = Identity::generate();
        let agent = Agent { did: identity.did().to_owned(), key: identity.key() };
        let opened = follower(&agent, address).open_again().await;
        assert_eq!(opened.unwrap().status(), StatusCode::OK);
        serving.abort();
    }
}
