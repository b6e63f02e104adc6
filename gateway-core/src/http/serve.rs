//! The accept loop: one task per connection, bounded in number and in patience.
//!
//! The order is what makes a flood cheap: an address that is over its limits is turned away before
//! there is a task. Where a proxy speaks for its clients, that is known from its PROXY header, or
//! later yet from a request's ([`ws`](super::ws)).

use std::{io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use axum::Router;
use conexus_plugin_api::host::Tls;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::io::Errno;
use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::sleep,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower_service::Service as _;
use tracing::{debug, info, warn};

use super::{
    Peer, Permit, Place, canonical,
    handshake::{self, Failed},
    patience::{Patience, Unserved},
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
    pub(crate) said: Said,
}

/// How often it is said that connections are refused: for each reason anew, so that a flood of one
/// kind does not hide another.
#[derive(Debug, Default)]
pub(crate) struct Said {
    /// For a limit. The upgrade says so, too, behind a proxy.
    pub(crate) limits: Arc<OncePerSecond>,
    tls: OncePerSecond,
    /// For a trusted proxy's PROXY header, or for having none.
    proxies: OncePerSecond,
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

/// Whether it is the accepted connection that failed, on its way here: `accept(2)` passes the errors
/// of the network on. Not `EPERM`, which a system that forbids the call would give each time.
fn is_the_peers(error: &io::Error) -> bool {
    let of_protocol = [Errno::PROTO, Errno::NOPROTOOPT, Errno::OPNOTSUPP, Errno::HOSTDOWN];
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
            | io::ErrorKind::TimedOut
    ) || of_protocol.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
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
        let peer =
            Peer { address, via: None, permit, deadline, tls: None, lacks_certificate: false };
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
                        // While it is told it takes nobody's place.
                        drop(peer);
                        self.refuse(stream, client, Refusal::Address(excess));
                        return Ok(());
                    }
                }
            }
            (peer.address, peer.via) = (client, Some(peer.address));
        }
        let socket = match &self.tls {
            None => Socket::Plain(stream),
            Some((tls, side)) => {
                let (config, certificate_required) = tls.config(*side);
                let (socket, described) = self.shake(config, stream).await?;
                peer.lacks_certificate = certificate_required && described.client.is_none();
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
            if let Failed::Handshake { word, .. } = failed {
                self.sessions.tls.failures.count(word);
            }
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
        let ending = patience.clone();
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
        async move {
            let mut served = pin!(served);
            tokio::select! {
                served = served.as_mut() => return served.map_err(Unserved::Http),
                may_answer = ending.over() => {
                    if !may_answer {
                        return Err(Unserved::NoRequest);
                    }
                }
            }
            // A proxy's connection serves many: it is not torn from under the request of one of them.
            served.as_mut().graceful_shutdown();
            served.await.map_err(Unserved::Http)
        }
    }

    fn refuse(&self, stream: TcpStream, peer: SocketAddr, refusal: Refusal) {
        self.count(peer, refusal);
        if self.tls.is_some() {
            // It would not understand an answer in the clear, and a handshake costs what is to be spared.
            return;
        }
        let Ok(place) = Arc::clone(&self.refusals).try_acquire_owned() else { return };
        self.tasks.spawn(async move {
            let _place = place;
            refusal.tell(stream).await;
        });
    }

    fn count(&self, peer: SocketAddr, refusal: Refusal) {
        self.sessions.connections_refused.count(refusal.reason());
        if let Some(kept_back) = self.said.limits.due() {
            info!(%peer, limit = refusal.key(), kept_back, "connection refused");
        }
    }

    /// Why a connection did not come to an end of its own.
    fn note(&self, peer: SocketAddr, error: &Unserved) {
        let refused_for = &self.sessions.connections_refused;
        match error {
            Unserved::NoRequest => refused_for.count("timeout"),
            Unserved::Tls(Failed::Nothing) => {}
            Unserved::Tls(failed) => {
                refused_for.count("tls");
                if let Some(kept_back) = self.said.tls.due() {
                    info!(%peer, %failed, kept_back, "connection refused");
                }
                return;
            }
            // Somebody looks whether the port is open.
            Unserved::Proxy(HeaderFault::Nothing) => {}
            Unserved::Proxy(fault) => {
                refused_for.count("proxy_header");
                // A proxy that is trusted and does not do as it is expected to is its operator's matter.
                if let Some(kept_back) = self.said.proxies.due() {
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
    use axum::{
        body::Body,
        extract::Extension,
        http::{StatusCode, header},
        routing::get,
    };
    use futures_util::stream;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpSocket,
        time::Instant,
    };

    use super::{
        super::patience::{GRACE, HTTP_LIFETIME},
        *,
    };

    fn serving(routes: Router, stop: &CancellationToken) -> Arc<Serving> {
        Arc::new(Serving {
            routes,
            places: None,
            refusals: Arc::new(Semaphore::new(1)),
            handshake_timeout: Duration::from_secs(10),
            tls: None,
            pulse: Arc::default(),
            tasks: TaskTracker::new(),
            sessions: Arc::default(),
            limits: Arc::default(),
            proxies: Arc::default(),
            stop: stop.clone(),
            said: Said::default(),
        })
    }

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
        let routes = Router::new().route("/large", get(large)).route("/frames", get(frames));
        let stop = CancellationToken::new();
        let serving = serving(routes, &stop);
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let mut stream = socket.connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").repeat(times);
        stream.write_all(request.as_bytes()).await.unwrap();
        let (accepted, peer) = listener.accept().await.unwrap();
        let begun = Instant::now();
        serving.connection(accepted, peer);
        serving.tasks.close();
        serving.tasks.wait().await;
        begun.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn who_never_reads_loses_the_place_and_a_stream_that_gets_on_keeps_it() {
        let usual = Duration::from_secs(10) + HTTP_LIFETIME + GRACE;
        assert_eq!(lasts("/large", 20).await.as_secs(), usual.as_secs());
        // Its last frame but one put it off last.
        let stream = Duration::from_secs(61 * 15) + HTTP_LIFETIME + GRACE;
        assert_eq!(lasts("/frames", 1).await.as_secs(), stream.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_under_way_when_time_is_over_is_answered_and_the_connection_ended() {
        let wait = || sleep(Duration::from_secs(10) + HTTP_LIFETIME + GRACE / 2);
        let slow = async move || {
            wait().await;
            "at last"
        };
        let upgrade = async move |mut request: axum::extract::Request| {
            let upgrading = hyper::upgrade::on(&mut request);
            wait().await;
            tokio::spawn(async move {
                let mut upgraded = TokioIo::new(upgrading.await.unwrap());
                upgraded.write_all(b"beyond").await.unwrap();
            });
            let switch = [(header::CONNECTION, "upgrade"), (header::UPGRADE, "x")];
            (StatusCode::SWITCHING_PROTOCOLS, switch)
        };
        for (path, head, rest) in
            [("/slow", "HTTP/1.1 200", "at last"), ("/upgrade", "HTTP/1.1 101", "beyond")]
        {
            let routes = Router::new().route("/slow", get(slow)).route("/upgrade", get(upgrade));
            let stop = CancellationToken::new();
            let serving = serving(routes, &stop);
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let mut stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (accepted, peer) = listener.accept().await.unwrap();
            serving.connection(accepted, peer);
            let request = format!(
                "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"
            );
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with(head) && answer.ends_with(rest), "{answer}");
        }
    }

    #[test]
    fn what_the_network_did_to_a_connection_is_no_trouble_of_the_listeners() {
        let errors = [Errno::PROTO, Errno::NETUNREACH, Errno::HOSTUNREACH, Errno::CONNABORTED];
        for errno in errors {
            assert!(is_the_peers(&errno.into()), "{errno}");
        }
        for errno in [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::PERM] {
            assert!(!is_the_peers(&errno.into()), "{errno}");
        }
    }
}
