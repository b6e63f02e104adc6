//! The accept loop: one task per connection, bounded in number and in patience.
//!
//! The order is what makes a flood cheap: an address that is over its limits is turned away before
//! there is a task. Where a proxy speaks for its clients, that is known from its PROXY header, or
//! later yet from a request's ([`ws`](super::ws)).

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::Router;
use conexus_plugin_api::host::Tls;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{Instant, sleep},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower_service::Service as _;
use tracing::{debug, info, warn};

use super::{
    Peer, Permit, Place, canonical,
    deadline::Deadline,
    handshake,
    proxies::Proxies,
    proxy_header::{self, HeaderFault},
    pulse::Pulse,
    refusal::Refusal,
    socket::Socket,
    trouble::Trouble,
};
use crate::{
    limits::Limits,
    pace::OncePerSecond,
    telemetry::sessions::Sessions,
    tls::{ServerTls, Side},
};

/// How long to wait after the system refused a connection (no file descriptor left, say): the
/// refusal would come back at once, so without a pause the loop would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long a connection may be used for requests, unless an answer puts that off. hyper bounds the wait for a request, not
/// the writing of a response that nobody reads.
pub(crate) const HTTP_LIFETIME: Duration = Duration::from_secs(60);

/// How many are told at once that they are refused. Under a flood the others are just dropped: an
/// answer would cost more than it is worth.
pub(crate) const REFUSALS: usize = 64;

/// How connections are served.
pub(crate) struct Serving {
    pub(crate) routes: Router,
    /// `limits.connections`; none where there is no limit.
    pub(crate) places: Option<Arc<Semaphore>>,
    /// What an address may have of connections.
    pub(crate) limits: Arc<Limits>,
    /// Who may speak for other addresses.
    pub(crate) proxies: Arc<Proxies>,
    /// Places for refusals that are being told.
    pub(crate) refusals: Arc<Semaphore>,
    /// How long it may take from a connection to its first request, and each request's head: a half
    /// handshake frees its socket.
    pub(crate) handshake_timeout: Duration,
    /// What connections are encrypted with, if they are.
    pub(crate) tls: Option<(Arc<ServerTls>, Side)>,
    /// Answered between two connections.
    pub(crate) pulse: Arc<Pulse>,
    pub(crate) tasks: TaskTracker,
    /// Where connections are counted.
    pub(crate) sessions: Arc<Sessions>,
    /// Stops accepting and ends all connections that are not sessions.
    pub(crate) stop: CancellationToken,
    /// How often it is said that connections are refused.
    pub(crate) refused: OncePerSecond,
}

/// Why a connection ended before its peer was done with it.
#[derive(Debug, thiserror::Error)]
enum Unserved {
    #[error(transparent)]
    Tls(handshake::Failed),
    #[error(transparent)]
    Http(hyper::Error),
    #[error(transparent)]
    Proxy(#[from] HeaderFault),
    #[error("no request in time (limits.handshake_timeout)")]
    NoRequest,
    #[error("open for too long")]
    TooLong,
}

/// How long a connection may be used: until `handshake_timeout` for its first request, with all that
/// comes before it, and then until its deadline.
#[derive(Clone)]
struct Patience {
    deadline: Deadline,
    /// Until when its requests may be answered, unless an answer puts that off.
    lifetime: Instant,
    has_asked: Arc<AtomicBool>,
}

impl Patience {
    fn begun(handshake_timeout: Duration) -> Self {
        let until = Instant::now() + handshake_timeout;
        let (deadline, lifetime) = (Deadline::at(until), until + HTTP_LIFETIME);
        Self { deadline, lifetime, has_asked: Arc::default() }
    }

    fn got_a_request(&self) {
        if !self.has_asked.swap(true, Relaxed) {
            self.deadline.put_off_until(self.lifetime);
        }
    }

    /// Ends what takes too long.
    async fn bounds(
        self,
        served: impl Future<Output = Result<(), Unserved>>,
    ) -> Result<(), Unserved> {
        tokio::select! {
            served = served => match served {
                // hyper has been as patient, to the millisecond.
                Err(Unserved::Http(error)) if error.is_timeout() && !self.has_asked.load(Relaxed) => {
                    Err(Unserved::NoRequest)
                }
                served => served,
            },
            () = self.deadline.passed() => Err(match self.has_asked.load(Relaxed) {
                false => Unserved::NoRequest,
                true => Unserved::TooLong,
            }),
        }
    }
}

/// Accepts until stopped.
pub(crate) async fn serve(listener: TcpListener, serving: Serving) {
    let serving = Arc::new(serving);
    let mut trouble = Trouble::default();
    loop {
        let accepted = tokio::select! {
            () = serving.stop.cancelled() => return,
            () = serving.pulse.asked() => {
                serving.pulse.beat();
                continue;
            }
            () = trouble.over() => {
                trouble.end();
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                trouble.accepted();
                serving.connection(stream, canonical(peer));
            }
            Err(error) if is_the_peers(&error) => {
                debug!(%error, "connection failed while accepted")
            }
            Err(error) => {
                serving.sessions.accept_failed();
                trouble.failed(&error);
                // Whoever waits in the listener's backlog is accepted as soon as it can be.
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn is_the_peers(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    )
}

/// A handshake under way: one that is given up was too slow, unless all are.
struct Unfinished<'a> {
    serving: &'a Serving,
    is_over: bool,
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if !self.is_over && !self.serving.stop.is_cancelled() {
            self.serving.sessions.tls.failures.count("timeout");
        }
    }
}

impl Serving {
    fn connection(self: &Arc<Self>, stream: TcpStream, address: SocketAddr) {
        let is_proxy = self.proxies.trusts(address.ip());
        // A proxy's address stands for many.
        let of_address = if is_proxy { Ok(None) } else { self.limits.connect(address.ip()) };
        let of_address = match of_address {
            Ok(place) => place,
            Err(excess) => return self.refuse(stream, address, Refusal::Address(excess)),
        };
        let place = match &self.places {
            None => None,
            Some(places) => match Arc::clone(places).try_acquire_owned() {
                Ok(place) => Some(place),
                Err(_) => return self.refuse(stream, address, Refusal::Full),
            },
        };
        let place = Arc::new(Place { _permit: place, _open: self.sessions.connection_opened() });
        // Signaling is small messages that somebody waits for.
        let _ = stream.set_nodelay(true);
        let permit = Permit { _place: place, _of_address: of_address.map(Arc::new) };
        let patience = Patience::begun(self.handshake_timeout);
        let deadline = patience.deadline.clone();
        let peer = Peer { address, via: None, permit, deadline, tls: None };
        let serving = Arc::clone(self);
        // Boxed here, since a task is moved several times before it runs.
        self.tasks.spawn(Box::pin(async move {
            let served = serving.begin(stream, peer, is_proxy, patience.clone());
            let served = serving.stop.run_until_cancelled(patience.bounds(served)).await;
            if let Some(Err(error)) = served {
                serving.note(address, &error);
            }
        }));
    }

    /// All that a connection is before it is a session, in order.
    async fn begin(
        &self,
        mut stream: TcpStream,
        mut peer: Peer,
        is_proxy: bool,
        patience: Patience,
    ) -> Result<(), Unserved> {
        if is_proxy
            && self.proxies.speak_first()
            && let Some(client) = proxy_header::read(&mut stream).await?
        {
            if !self.proxies.trusts(client.ip()) {
                match self.limits.connect(client.ip()) {
                    Ok(place) => peer.permit = peer.permit.of_address(place),
                    Err(excess) => {
                        let refusal = Refusal::Address(excess);
                        self.count(client, refusal);
                        refusal.tell(stream).await;
                        return Ok(());
                    }
                }
            }
            (peer.address, peer.via) = (client, Some(peer.address));
        }
        let socket = match &self.tls {
            None => Socket::Plain(stream),
            Some((tls, side)) => {
                let (socket, described) = self.shake(tls.config(*side), stream).await?;
                peer.tls = Some(described);
                socket
            }
        };
        self.serve_http(socket, peer, patience).await
    }

    /// The TLS handshake, counted however it ends.
    async fn shake(
        &self,
        config: Arc<ServerConfig>,
        stream: TcpStream,
    ) -> Result<(Socket, Arc<Tls>), Unserved> {
        let mut unfinished = Unfinished { serving: self, is_over: false };
        // Boxed, since it is large and over soon.
        let shaken = Box::pin(handshake::shake(config, stream, &self.sessions)).await;
        unfinished.is_over = true;
        shaken.map_err(|failed| {
            self.sessions.tls.failures.count(failed.word);
            Unserved::Tls(failed)
        })
    }

    /// Answers the requests on a connection, until it becomes a session, which is no part of this:
    /// it ends with the upgrade.
    fn serve_http(
        &self,
        socket: Socket,
        peer: Peer,
        patience: Patience,
    ) -> impl Future<Output = Result<(), Unserved>> + use<> {
        let routes = self.routes.clone();
        let service = service_fn(move |mut request: hyper::Request<Incoming>| {
            patience.got_a_request();
            request.extensions_mut().insert(peer.clone());
            routes.clone().call(request)
        });
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.handshake_timeout)
            .max_buf_size(16 * 1024)
            .serve_connection(TokioIo::new(socket), service)
            .with_upgrades();
        async move { served.await.map_err(Unserved::Http) }
    }

    fn refuse(&self, stream: TcpStream, peer: SocketAddr, refusal: Refusal) {
        self.count(peer, refusal);
        let Ok(place) = Arc::clone(&self.refusals).try_acquire_owned() else { return };
        self.tasks.spawn(async move {
            let _place = place;
            refusal.tell(stream).await;
        });
    }

    fn count(&self, peer: SocketAddr, refusal: Refusal) {
        self.sessions.connections_refused.count(refusal.reason());
        if let Some(kept_back) = self.refused.due() {
            info!(%peer, limit = refusal.key(), kept_back, "connection refused");
        }
    }

    /// Why a connection did not come to an end of its own.
    fn note(&self, peer: SocketAddr, error: &Unserved) {
        let refused_for = &self.sessions.connections_refused;
        match error {
            Unserved::NoRequest => refused_for.count("timeout"),
            Unserved::Tls(failed) => {
                refused_for.count("tls");
                if let Some(kept_back) = self.refused.due() {
                    info!(%peer, %failed, kept_back, "connection refused");
                }
                return;
            }
            Unserved::Proxy(fault) => {
                refused_for.count("proxy_header");
                // A proxy that is trusted and does not do as it is expected to is its operator's matter.
                if let Some(kept_back) = self.refused.due() {
                    warn!(proxy = %peer, %fault, kept_back, "connection refused");
                }
                return;
            }
            Unserved::Http(_) | Unserved::TooLong => {}
        }
        debug!(%peer, %error, "connection ended");
    }
}

#[cfg(test)]
mod tests {
    use axum::{body::Body, extract::Extension, routing::get};
    use futures_util::stream;
    use tokio::{io::AsyncWriteExt as _, net::TcpSocket};

    use super::*;

    /// How long a connection lasts that asks for this so often at once and never reads.
    async fn lasts(path: &str, times: usize) -> Duration {
        let frames = async |Extension(peer): Extension<Peer>| {
            Body::from_stream(stream::unfold((60_u32, peer), async |(left, peer)| {
                sleep(Duration::from_secs(15)).await;
                peer.deadline.put_off(HTTP_LIFETIME);
                // Then it neither ends nor gets on.
                if left == 0 {
                    std::future::pending::<()>().await;
                }
                Some((Ok::<_, io::Error>(":\n\n"), (left - 1, peer)))
            }))
        };
        let large = async || vec![0_u8; 1 << 20];
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tasks = TaskTracker::new();
        let stop = CancellationToken::new();
        let serving = Serving {
            routes: Router::new().route("/large", get(large)).route("/frames", get(frames)),
            places: None,
            refusals: Arc::new(Semaphore::new(1)),
            handshake_timeout: Duration::from_secs(10),
            tls: None,
            pulse: Arc::default(),
            tasks: tasks.clone(),
            sessions: Arc::default(),
            limits: Arc::default(),
            proxies: Arc::default(),
            stop: stop.clone(),
            refused: OncePerSecond::new(),
        };
        let serving = Arc::new(serving);
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let mut stream = socket.connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").repeat(times);
        stream.write_all(request.as_bytes()).await.unwrap();
        let (accepted, peer) = listener.accept().await.unwrap();
        let begun = Instant::now();
        serving.connection(accepted, peer);
        tasks.close();
        tasks.wait().await;
        begun.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn who_never_reads_loses_the_place_and_a_stream_that_gets_on_keeps_it() {
        let usual = Duration::from_secs(10) + HTTP_LIFETIME;
        assert_eq!(lasts("/large", 20).await.as_secs(), usual.as_secs());
        // Its last frame but one put it off last.
        let stream = Duration::from_secs(61 * 15) + HTTP_LIFETIME;
        assert_eq!(lasts("/frames", 1).await.as_secs(), stream.as_secs());
    }
}
