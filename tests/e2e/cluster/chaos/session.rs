//! A connection of an agent's, from nothing to registered, by somebody who is never surprised.

use std::{
    net::SocketAddr,
    task::{Context, Poll},
    time::Duration,
};

use conexus_protocol::{
    Challenge, Draft, Envelope, Identity, MessageType, Payload, Register, Rules, Unregister,
};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::tungstenite::Message;

use crate::support::agent::{Socket, dial_over};

/// How long somebody waits to be registered before they try elsewhere.
const PATIENCE: Duration = Duration::from_secs(3);

/// See the [module](self).
pub(super) struct Session {
    pub(super) number: u32,
    pub(super) node: usize,
    /// It said that it goes, and says no more.
    pub(super) is_leaving: bool,
    socket: Socket,
}

/// What a connection says.
#[derive(Debug)]
pub(super) enum Heard {
    Text(String),
    /// It is over, by this code where there is one.
    End(Option<u16>),
}

/// What came of a connection that was to be opened.
pub(super) enum Opened {
    Session(Box<Session>),
    /// Nobody answered, or it ended.
    Failed,
    /// It was given up after a REGISTER was sent: nobody knows whether it counted.
    GivenUp,
}

impl Session {
    /// Connects and registers.
    pub(super) async fn open(
        number: u32,
        (node, addr): (usize, SocketAddr),
        me: Identity,
    ) -> Opened {
        let connecting = timeout(PATIENCE, connect(addr));
        let Ok(Some((mut socket, nonce))) = connecting.await else { return Opened::Failed };
        let register = Register {
            public_key: me.key().base58(),
            nonce: Some(nonce),
            audience: Some(format!("ws://{addr}/ws")),
            metadata: None,
            credentials: None,
        };
        let text = Draft::new(me.did(), register).sign(&me);
        let registering = async {
            socket.send(Message::text(text)).await.ok()?;
            let text = text_of(&mut socket).await?;
            (kind(&text)? == MessageType::Registered).then_some(())
        };
        match timeout(PATIENCE, registering).await {
            Ok(Some(())) => {
                Opened::Session(Box::new(Self { number, node, is_leaving: false, socket }))
            }
            Ok(None) => Opened::Failed,
            Err(_) => Opened::GivenUp,
        }
    }

    /// Whether it could be handed to the system.
    pub(super) async fn send(&mut self, text: String) -> bool {
        matches!(timeout(PATIENCE, self.socket.send(Message::text(text))).await, Ok(Ok(())))
    }

    pub(super) async fn unregister(&mut self, me: &Identity) -> bool {
        self.is_leaving = true;
        let payload: Payload = Unregister { reason: None }.into();
        self.send(Draft::new("the gateway", payload).sign(me)).await
    }

    pub(super) async fn close(&mut self) -> bool {
        self.is_leaving = true;
        matches!(timeout(PATIENCE, self.socket.close(None)).await, Ok(Ok(())))
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Heard> {
        loop {
            return Poll::Ready(match std::task::ready!(self.socket.poll_next_unpin(cx)) {
                Some(Ok(Message::Text(text))) => Heard::Text(text.to_string()),
                Some(Ok(Message::Close(close))) => Heard::End(close.map(|it| it.code.into())),
                Some(Ok(_)) => continue,
                Some(Err(_)) | None => Heard::End(None),
            });
        }
    }
}

async fn connect(addr: SocketAddr) -> Option<(Socket, String)> {
    let stream = TcpStream::connect(addr).await.ok()?;
    let _ = stream.set_nodelay(true);
    let (mut socket, _) = dial_over(stream, &["ioap.v1.1"], &[]).await.ok()?;
    let text = text_of(&mut socket).await?;
    let challenge = Envelope::parse(&text, Rules::V1_1).ok()?.payload::<Challenge>().ok()?;
    Some((socket, challenge.nonce))
}

async fn text_of(socket: &mut Socket) -> Option<String> {
    loop {
        match socket.next().await? {
            Ok(Message::Text(text)) => return Some(text.to_string()),
            Ok(Message::Ping(_) | Message::Pong(_)) => {}
            _ => return None,
        }
    }
}

fn kind(text: &str) -> Option<MessageType> {
    Some(Envelope::parse(text, Rules::V1_1).ok()?.kind)
}
