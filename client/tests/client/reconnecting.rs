//! Coming back after the connection is lost, and knowing when not to.

use std::time::{Duration, Instant};

use conexus_client::protocol::Offer;
use conexus_client::{Client, ClientError, ConnectionState, Identity, Loss};
use futures_util::SinkExt;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::{Bytes, Message as Frame};

use crate::{builder, connect, connected, errors, gateway::Gateway, messages, quick, soon, states};

#[tokio::test]
async fn a_lost_connection_is_made_and_registered_again() {
    let gateway = Gateway::start().await;
    let mut client = builder(&gateway).build().unwrap();
    let (mut states, mut errors, mut heard) = (states(&client), errors(&client), messages(&client));
    let mut peer = connect(&mut client, &gateway).await;
    let first = peer.register.take().unwrap();
    drop(peer);
    let mut peer = gateway.register().await;
    assert!(errors.next().await.starts_with("the connection is lost"));
    for expected in [
        ConnectionState::Connecting,
        ConnectionState::Connected,
        ConnectionState::Disconnected,
        ConnectionState::Connecting,
        ConnectionState::Connected,
    ] {
        assert_eq!(states.next().await, expected);
    }
    let again = peer.register.as_ref().unwrap();
    assert_eq!(again.from, first.from);
    assert_ne!(again.id, first.id);
    peer.deliver(&Identity::generate(), "after").await;
    assert_eq!(heard.next().await, "after");
    client.send(client.did(), conexus_client::protocol::Offer { sdp: "x".into() }).await.unwrap();
    peer.receive().await;
}

#[tokio::test]
async fn it_goes_on_until_an_attempt_succeeds() {
    let gateway = Gateway::start().await;
    let (client, peer) = connected(&gateway).await;
    let mut errors = errors(&client);
    drop(peer);
    for attempt in 1..=3 {
        drop(gateway.accept_tcp().await);
        if attempt == 1 {
            assert!(errors.next().await.starts_with("the connection is lost"));
        }
        let error = errors.next().await;
        assert!(error.starts_with(&format!("attempt {attempt} to connect failed")), "{error}");
    }
    let _peer = gateway.register().await;
    let mut states = client.states();
    soon(states.wait_for(|state| *state == ConnectionState::Connected)).await.unwrap();
}

#[tokio::test]
async fn when_no_attempts_are_left_the_state_is_error_and_everyone_knows() {
    let gateway = Gateway::start().await;
    let mut client = builder(&gateway).reconnect(quick(2)).build().unwrap();
    let (mut errors, mut states) = (errors(&client), states(&client));
    let mut stream = client.messages();
    let peer = connect(&mut client, &gateway).await;
    drop((peer, gateway));
    assert!(errors.next().await.starts_with("the connection is lost"));
    assert!(errors.next().await.starts_with("attempt 1 to connect failed"));
    assert!(errors.next().await.starts_with("attempt 2 to connect failed"));
    assert_eq!(errors.next().await, "gave up after 2 attempts to connect");
    for expected in [
        ConnectionState::Connecting,
        ConnectionState::Connected,
        ConnectionState::Disconnected,
        ConnectionState::Connecting,
        ConnectionState::Disconnected,
        ConnectionState::Connecting,
        ConnectionState::Error,
    ] {
        assert_eq!(states.next().await, expected);
    }
    assert!(soon(stream.recv()).await.is_none(), "the stream ends");
}

#[tokio::test]
async fn without_a_policy_a_lost_connection_is_the_end() {
    let gateway = Gateway::start().await;
    let mut client = builder(&gateway).no_reconnect().build().unwrap();
    let peer = connect(&mut client, &gateway).await;
    drop(peer);
    let mut states = client.states();
    soon(states.wait_for(|state| *state == ConnectionState::Error)).await.unwrap();
    // The way back is the user's.
    let _peer = connect(&mut client, &gateway).await;
}

#[tokio::test]
async fn final_close_codes_end_it_at_once() {
    for code in [4001, 4003, 4007, 4009] {
        let gateway = Gateway::start().await;
        let mut client = builder(&gateway).build().unwrap();
        let (mut states, mut errors) = (states(&client), errors(&client));
        let mut peer = connect(&mut client, &gateway).await;
        peer.close(code, "final").await;
        assert!(errors.next().await.contains(&format!("closed with {code}")));
        assert_eq!(states.next().await, ConnectionState::Connecting);
        assert_eq!(states.next().await, ConnectionState::Connected);
        assert_eq!(states.next().await, ConnectionState::Error, "after {code}");
    }
}

#[tokio::test]
async fn other_close_codes_lead_to_another_attempt() {
    let gateway = Gateway::start().await;
    let (client, mut peer) = connected(&gateway).await;
    for code in [1000, 1001, 1011, 4004, 4005] {
        peer.close(code, "").await;
        peer = gateway.register().await;
    }
    drop(client);
}

#[tokio::test]
async fn a_final_verdict_while_reconnecting_ends_it() {
    let gateway = Gateway::start().await;
    let (client, peer) = connected(&gateway).await;
    drop(peer);
    let mut peer = gateway.accept(Some("ioap.v1.1")).await;
    peer.challenge().await;
    peer.receive_register().await;
    peer.close(4007, "denied").await;
    let mut states = client.states();
    soon(states.wait_for(|state| *state == ConnectionState::Error)).await.unwrap();
}

#[tokio::test]
async fn a_restarting_gateway_says_when_to_return() {
    let gateway = Gateway::start().await;
    let (client, mut peer) = connected(&gateway).await;
    let closed = Instant::now();
    // Ten times as long as the longest delay of the policy.
    peer.close(1012, "reconnect_in=200").await;
    let _peer = gateway.register().await;
    assert!(closed.elapsed() >= Duration::from_millis(200));
    drop(client);
}

#[tokio::test]
async fn a_silent_gateway_is_pinged_and_then_given_up() {
    let gateway = Gateway::start().await;
    let mut client = builder(&gateway).heartbeat(Duration::from_millis(40)).build().unwrap();
    let (sender, mut losses) = mpsc::unbounded_channel();
    client.on_error(move |error| {
        if let ClientError::ConnectionLost(loss) = error {
            let silent =
                matches!(loss, Loss::Silent(after) if *after == Duration::from_millis(100));
            sender.send(silent).unwrap();
        }
    });
    let mut peer = connect(&mut client, &gateway).await;
    let ping = peer.receive().await;
    assert_eq!(ping.kind(), conexus_client::protocol::MessageType::Ping);
    assert!(soon(losses.recv()).await.unwrap(), "lost for another reason");
    let _peer = gateway.register().await;
}

#[tokio::test]
async fn a_gateway_that_talks_but_does_not_read_is_given_up() {
    let gateway = Gateway::start().await;
    let mut client = builder(&gateway).heartbeat(Duration::from_millis(100)).build().unwrap();
    let mut errors = errors(&client);
    let mut peer = connect(&mut client, &gateway).await;
    let talk = async {
        while peer.socket.send(Frame::Pong(Bytes::new())).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let flood = async {
        let offer = Offer { sdp: "x".repeat(60_000) };
        while client.send(client.did(), offer.clone()).await.is_ok() {}
        errors.next().await
    };
    let lost = soon(async {
        tokio::select! { lost = flood => lost, () = talk => panic!("the gateway was cut off first") }
    });
    assert!(lost.await.contains("took nothing off the socket for 250ms"));
}

#[tokio::test]
async fn a_gateway_that_answers_pings_is_kept() {
    use conexus_client::protocol::{Draft, Payload, Pong};
    let gateway = Gateway::start().await;
    let mut client = builder(&gateway).heartbeat(Duration::from_millis(200)).build().unwrap();
    let mut errors = errors(&client);
    let mut peer = connect(&mut client, &gateway).await;
    for _ in 0..5 {
        let ping = peer.receive().await;
        let pong = Draft::new(peer.agent(), Payload::Pong(Pong { sequence: None }));
        peer.send(pong.in_reply_to(&*ping.id)).await;
    }
    assert_eq!(client.state(), ConnectionState::Connected);
    drop(client);
    assert!(errors.0.recv().await.is_none(), "no error, and no PONG among the messages");
}

#[tokio::test]
async fn closing_interrupts_the_wait_for_the_next_attempt() {
    let gateway = Gateway::start().await;
    let policy = conexus_client::ReconnectPolicy {
        initial: Duration::from_secs(3600),
        max: Duration::from_secs(3600),
        ..quick(5)
    };
    let mut client = builder(&gateway).reconnect(policy).build().unwrap();
    let mut states = states(&client);
    let peer = connect(&mut client, &gateway).await;
    drop(peer);
    while states.next().await != ConnectionState::Disconnected {}
    soon(client.close()).await;
    assert_eq!(states.next().await, ConnectionState::Disconnecting);
    assert_eq!(states.next().await, ConnectionState::Disconnected);
}

#[tokio::test]
async fn closing_interrupts_an_attempt() {
    let gateway = Gateway::start().await;
    let (client, peer) = connected(&gateway).await;
    drop(peer);
    let stuck = gateway.accept_tcp().await;
    soon(client.close()).await;
    drop(stuck);
}

#[tokio::test]
async fn a_stable_session_starts_the_count_of_attempts_anew() {
    let gateway = Gateway::start().await;
    let policy = conexus_client::ReconnectPolicy { stable_after: Duration::ZERO, ..quick(1) };
    let mut client: Client = builder(&gateway).reconnect(policy).build().unwrap();
    let mut peer = connect(&mut client, &gateway).await;
    for _ in 0..4 {
        drop(peer);
        peer = gateway.register().await;
    }
    drop(peer);
}
