//! A gateway in this process, on a free port, ended with the test.

use std::{future::Future, net::SocketAddr, sync::Arc};

use conexus_gateway::{
    Messages, Taps,
    config::Settings,
    gateway::{Gateway, Watch},
    hooks::{EmptyChain, Fixed, Policy},
    tls::ServerTls,
};
use conexus_protocol::Identity;
use serde_json::Value;
use tokio::{sync::oneshot, task::JoinHandle};

use super::{backplane, http, soon, until};

/// A running gateway. Dropping it ends it at once, [`stop`](Self::stop) gracefully.
pub(crate) struct TestGateway {
    pub(crate) addr: SocketAddr,
    pub(crate) did: String,
    url: String,
    tls: Option<Arc<ServerTls>>,
    watch: Watch,
    shutdown: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl TestGateway {
    /// With the built-in defaults.
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// With the defaults changed as the test needs.
    pub(crate) async fn start_with(change: impl FnOnce(&mut Settings)) -> Self {
        Self::start_with_policy(Fixed(Arc::new(EmptyChain)), change).await
    }

    /// With somebody who decides.
    pub(crate) async fn start_with_policy(
        policy: impl Policy,
        change: impl FnOnce(&mut Settings),
    ) -> Self {
        let mut settings = Settings::default();
        settings.server.listen = ([127, 0, 0, 1], 0).into();
        settings.admin.enabled = false;
        let clustered = backplane::join(&mut settings);
        change(&mut settings);
        let gateway =
            Gateway::bind_with_policy(Arc::new(settings), Identity::generate(), Arc::new(policy))
                .await
                .unwrap();
        let (shutdown, stopping) = oneshot::channel();
        let gateway = Self {
            addr: gateway.local_addr(),
            did: gateway.did().to_owned(),
            url: gateway.url(),
            tls: gateway.tls(),
            watch: gateway.watch(),
            shutdown: Some(shutdown),
            task: tokio::spawn(gateway.run(async {
                let _ = stopping.await;
            })),
        };
        if clustered {
            // Whoever is not there is unknown only to who can ask.
            until("it to be in its cluster", || gateway.watch.is_in_cluster()).await;
        }
        gateway
    }

    /// The URL that agents dial.
    pub(crate) fn url(&self) -> String {
        self.url.clone()
    }

    /// Asks it to stop gracefully, without waiting for it.
    pub(crate) fn begin_stop(&mut self) {
        if let Some(shutdown) = self.shutdown.take() {
            let _ = shutdown.send(());
        }
    }

    /// Waits for its end.
    pub(crate) async fn ended(&mut self) {
        soon("the gateway to stop", &mut self.task).await.unwrap();
    }

    /// Stops it gracefully and waits for its end.
    pub(crate) async fn stop(&mut self) {
        self.begin_stop();
        self.ended().await;
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, Value) {
        http::get(self.addr, path, &[]).await
    }

    /// The counters as `/health` shows them.
    pub(crate) async fn messages(&self) -> Messages {
        let (status, health) = self.get("/health").await;
        assert_eq!(status, 200);
        let shown = |name: &str| health["messages"][name].as_u64().unwrap();
        Messages {
            received: shown("received"),
            delivered: shown("delivered"),
            refused: shown("refused"),
            held: shown("held"),
        }
    }

    /// The counters as they are, also after the end.
    pub(crate) fn counters(&self) -> Messages {
        self.watch.messages()
    }

    /// How many watches there are.
    pub(crate) fn watches(&self) -> u64 {
        self.watch.watches()
    }

    /// What became of copies.
    pub(crate) fn taps(&self) -> Taps {
        self.watch.taps()
    }

    /// The counters once every message has come to its end.
    pub(crate) async fn settled(&self) -> Messages {
        let balanced = |m: Messages| m.received == m.delivered + m.refused + m.held;
        until("the accounting to balance", || balanced(self.watch.messages())).await;
        let messages = match self.url.starts_with("wss") {
            false => self.messages().await,
            true => self.counters(),
        };
        assert!(balanced(messages), "{messages:?}");
        messages
    }

    /// How many TLS handshakes failed for this reason.
    pub(crate) fn tls_failures(&self, reason: &str) -> u64 {
        self.watch.tls_failures(reason)
    }

    /// How many connections are open.
    pub(crate) fn connections(&self) -> u64 {
        self.watch.connections()
    }

    /// The certificate in use.
    pub(crate) fn tls(&self) -> Arc<ServerTls> {
        Arc::clone(self.tls.as_ref().expect("it speaks TLS"))
    }

    /// Waits until as many agents are present.
    pub(crate) async fn has_agents(&self, count: usize) {
        until(&format!("{count} agents to be present"), || self.watch.agents() == count).await;
    }
}

impl Drop for TestGateway {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Something that runs until its owner is dropped.
#[derive(Debug)]
pub(crate) struct Background(JoinHandle<()>);

impl Background {
    pub(crate) fn spawn(future: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(future))
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.0.abort();
    }
}
