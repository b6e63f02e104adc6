//! From the first state to the last, by farewell and without one.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use conexus_client::{ConnectError, ConnectionState, Identity, protocol::MessageType};
use tokio::sync::mpsc;

use crate::{builder, connect, connected, gateway::Gateway, messages, soon, states};

#[tokio::test]
async fn a_client_that_closes_goes_through_its_states_in_order() {
    let gateway = Gateway::start().await;
    let mut client = builder(&gateway).build().unwrap();
    assert_eq!(client.state(), ConnectionState::Disconnected);
    let mut states = states(&client);
    let mut watch = client.states();
    let mut peer = connect(&mut client, &gateway).await;
    let handle = client.handle();
    let farewell = async {
        assert_eq!(peer.receive().await.kind(), MessageType::Unregister);
        assert!(peer.ends().await, "a close frame follows");
    };
    soon(async { tokio::join!(client.close(), farewell) }).await;
    for expected in [
        ConnectionState::Connecting,
        ConnectionState::Connected,
        ConnectionState::Disconnecting,
        ConnectionState::Disconnected,
    ] {
        assert_eq!(states.next().await, expected);
    }
    assert_eq!(handle.state(), ConnectionState::Disconnected);
    soon(watch.wait_for(|state| *state == ConnectionState::Disconnected)).await.unwrap();
    assert!(
        handle
            .send(handle.did(), conexus_client::protocol::Offer { sdp: "x".into() })
            .await
            .is_err()
    );
}

#[tokio::test]
async fn async_state_handlers_hear_the_same() {
    let gateway = Gateway::start().await;
    let mut client = builder(&gateway).build().unwrap();
    let (sender, mut heard) = mpsc::unbounded_channel();
    client.on_state_async(move |state| {
        let sent = sender.send(state);
        async move { sent }
    });
    let _peer = connect(&mut client, &gateway).await;
    assert_eq!(soon(heard.recv()).await, Some(ConnectionState::Connecting));
    assert_eq!(soon(heard.recv()).await, Some(ConnectionState::Connected));
}

#[tokio::test]
async fn a_dropped_client_closes_its_socket_and_leaves_nothing_behind() {
    let gateway = Gateway::start().await;
    let (client, mut peer) = connected(&gateway).await;
    let handle = client.handle();
    let captured = Arc::new(());
    let alive: Weak<()> = Arc::downgrade(&captured);
    let own_handle = client.handle();
    client.on_message(move |_| {
        let _ = (&captured, &own_handle);
    });
    let mut stream = client.messages();
    drop(client);
    assert!(!peer.ends().await, "no farewell");
    assert!(alive.upgrade().is_none(), "a handler outlived its client");
    assert!(soon(stream.recv()).await.is_none());
    let mut states = handle.states();
    soon(states.wait_for(|state| *state == ConnectionState::Disconnected)).await.unwrap();
    assert!(handle.session().is_none());
    soon(handle.close()).await;
}

#[tokio::test]
async fn a_connect_that_is_given_up_leaves_no_connection() {
    let gateway = Gateway::start().await;
    let mut client = builder(&gateway).build().unwrap();
    let handle = client.handle();
    let mut peer = tokio::select! {
        _ = client.connect() => panic!("nobody registered it"),
        peer = gateway.accept(Some("ioap.v1.1")) => peer,
    };
    assert!(!peer.ends().await);
    assert_eq!(handle.state(), ConnectionState::Disconnected);
    // And the client is as good as new.
    let _peer = connect(&mut client, &gateway).await;
}

#[tokio::test]
async fn a_running_client_does_not_connect_twice() {
    let gateway = Gateway::start().await;
    let (mut client, _peer) = connected(&gateway).await;
    assert!(matches!(client.connect().await, Err(ConnectError::AlreadyRunning)));
    assert_eq!(client.state(), ConnectionState::Connected);
}

#[tokio::test]
async fn a_client_closed_by_its_handle_can_connect_again() {
    let gateway = Gateway::start().await;
    let (mut client, mut peer) = connected(&gateway).await;
    let mut heard = messages(&client);
    let handle = client.handle();
    soon(async { tokio::join!(handle.close(), peer.ends()) }).await;
    assert_eq!(client.state(), ConnectionState::Disconnected);
    let mut peer = connect(&mut client, &gateway).await;
    peer.deliver(&Identity::generate(), "again").await;
    assert_eq!(heard.next().await, "again");
}

#[tokio::test]
async fn a_handler_may_close_the_client() {
    let gateway = Gateway::start().await;
    let mut client = builder(&gateway).build().unwrap();
    let mut states = states(&client);
    let handle = client.handle();
    client.on_message_async(move |_| {
        let handle = handle.clone();
        async move { handle.close().await }
    });
    let mut peer = connect(&mut client, &gateway).await;
    peer.deliver(&Identity::generate(), "enough").await;
    assert!(peer.ends().await);
    assert_eq!(states.next().await, ConnectionState::Connecting);
    assert_eq!(states.next().await, ConnectionState::Connected);
    assert_eq!(states.next().await, ConnectionState::Disconnecting);
    assert_eq!(states.next().await, ConnectionState::Disconnected);
}

#[tokio::test]
async fn a_gateway_that_does_not_answer_the_farewell_is_not_waited_for_long() {
    let gateway = Gateway::start().await;
    let mut client = builder(&gateway).close_timeout(Duration::from_millis(50)).build().unwrap();
    let peer = connect(&mut client, &gateway).await;
    soon(client.close()).await;
    drop(peer);
}

#[tokio::test]
async fn messages_that_arrive_during_the_farewell_are_handled() {
    let gateway = Gateway::start().await;
    let (client, mut peer) = connected(&gateway).await;
    let mut heard = messages(&client);
    let script = async {
        assert_eq!(peer.receive().await.kind(), MessageType::Unregister);
        peer.deliver(&Identity::generate(), "last").await;
        peer.ends().await
    };
    soon(async { tokio::join!(client.close(), script) }).await;
    assert_eq!(heard.next().await, "last");
}
