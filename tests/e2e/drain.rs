//! A gateway is drained while its agents talk, and another one takes them in: each is told 1012 and when
//! to come back, no message that was accepted is lost, and they come back over a time.
//!
//! The agents are the SDK's and know one URL; in between is a load balancer, which asks `/ready`. With
//! the size of the acceptance:
//!
//! `CROWD_AGENTS=5000 cargo nextest run --release -p conexus-gateway --test e2e drain:: --no-capture`

pub(crate) mod balancer;
pub(crate) mod ledger;

use std::{
    env,
    sync::Arc,
    time::{Duration, Instant},
};

use conexus_client::{Client, ClientError, ConnectionState, Identity, Message, protocol::Offer};
use futures_util::{StreamExt as _, stream};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tokio::task::JoinSet;

use self::{balancer::Balancer, ledger::Ledger};
use crate::support::{
    http,
    process::{Process, folder_with},
    until,
};

/// What all agents together send in a second.
const MESSAGES_PER_SECOND: u32 = 2000;

/// Registrations at once at the beginning.
const AT_ONCE: usize = 64;

const DELAY: Duration = Duration::from_millis(300);
const SPREAD: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(10);
const RATE: u32 = 1000;

/// Agents come back over this span; over more where there are more than so many a second.
const RETURN: Duration = Duration::from_secs(2);

fn agents() -> usize {
    env::var("CROWD_AGENTS").map_or(300, |count| count.parse().expect("CROWD_AGENTS"))
}

async fn gateway(folder: &std::path::Path, url: &str) -> Process {
    let settings = [
        format!("server.public_urls=[{url:?}]"),
        format!("server.drain_delay={}ms", DELAY.as_millis()),
        format!("server.drain_spread={}ms", SPREAD.as_millis()),
        format!("server.drain_timeout={}s", TIMEOUT.as_secs()),
        format!("server.reconnect_spread={}ms", RETURN.as_millis()),
        format!("server.reconnect_rate={RATE}"),
        // Room for what it does not take at once where the machine is busy.
        "limits.outbox_messages=4096".to_owned(),
        // A line for each of them says nothing here.
        "log.level=warn,conexus_gateway::gateway=info,conexus_gateway::admin=info,conexus_gateway::cli=info,conexus_gateway::drain=info".to_owned(),
        "log.format=human".to_owned(),
    ];
    let arguments: Vec<_> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
    Process::start(folder, &arguments).await
}

/// An agent of the SDK whose messages are in the ledger.
async fn agent(url: String, ledger: Arc<Ledger>) -> Client {
    let mut client = Client::builder(url, Identity::generate())
        .connect_timeout(Duration::from_secs(60))
        .build()
        .unwrap();
    let (delivered, refused, registered) = (Arc::clone(&ledger), Arc::clone(&ledger), ledger);
    client.on_message(move |message: &Message| delivered.delivered(&message.id));
    client.on_error(move |error| match error {
        ClientError::Refused(refusal) => {
            refused.refused(refusal.correlation_id.as_deref(), refusal.reason);
        }
        ClientError::ConnectionLost(loss) => refused.closed(loss.close()),
        ClientError::Attempt { .. } => refused.failed_attempt(),
        other => refused.fault(format!("{other:?}")),
    });
    client.on_state(move |state| {
        if state == ConnectionState::Connected {
            registered.registered();
        }
    });
    client.connect().await.unwrap();
    client
}

/// Sends to others until its first connection ends.
async fn talk(
    client: conexus_client::Handle,
    peers: Arc<[String]>,
    ledger: Arc<Ledger>,
    seed: u64,
) {
    let mut rng = StdRng::seed_from_u64(seed);
    let pause = Duration::from_secs(1) * u32::try_from(peers.len()).unwrap() / MESSAGES_PER_SECOND;
    let mut states = client.states();
    let talking = async {
        loop {
            tokio::time::sleep(pause.mul_f64(rng.random_range(0.5..1.5))).await;
            let to = peers[rng.random_range(0..peers.len())].clone();
            ledger.send();
            // What does not get out is about to be noticed.
            let _ = client.send(to, Offer { sdp: "v=0".into() }).await;
        }
    };
    tokio::select! {
        () = talking => {}
        _ = states.wait_for(|state| *state != ConnectionState::Connected) => {}
    }
}

/// Waits for longer than [`soon`]: of thousands.
async fn all<T>(what: &str, event: impl Future<Output = T>) -> T {
    let patience =
        Duration::from_secs(60) + Duration::from_millis(20) * u32::try_from(agents()).unwrap();
    match tokio::time::timeout(patience, event).await {
        Ok(outcome) => outcome,
        Err(_) => panic!("waited {patience:?} for {what}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_of_a_drained_gateway_move_to_another_and_no_accepted_message_is_lost() {
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let count = agents();
    let balancer = Balancer::listen().await;
    let url = balancer.url();
    let (here, there) = (folder_with(&[]), folder_with(&[]));
    let first = gateway(here.path(), &url).await;
    let second = gateway(there.path(), &url).await;
    balancer.serve(vec![first.addr, second.addr]);

    let ledger = Arc::new(Ledger::default());
    let connecting = stream::iter(0..count).map(|_| agent(url.clone(), Arc::clone(&ledger)));
    let clients: Vec<_> =
        all("everybody to register", connecting.buffer_unordered(AT_ONCE).collect()).await;
    let peers: Arc<[String]> = clients.iter().map(|client| client.did().to_owned()).collect();
    let mut talks = JoinSet::new();
    for (seed, client) in (0..).zip(&clients) {
        talks.spawn(talk(client.handle(), Arc::clone(&peers), Arc::clone(&ledger), seed));
    }
    let much = u64::try_from(3 * count).unwrap();
    all("some traffic", async { until("", || ledger.delivered_so_far() > much).await }).await;

    let began = Instant::now();
    first.signal("TERM").await;
    all("everybody to stop talking", talks.join_all()).await;
    let mut first = first;
    let status = all("the first gateway to end", first.wait()).await;
    let took = began.elapsed();
    assert_eq!(status.code(), Some(0));
    assert!(took < DELAY + TIMEOUT + Duration::from_secs(5), "{took:?}");
    assert!(took >= DELAY + SPREAD, "{took:?}");

    // Everybody is back, at the other one.
    for client in &clients {
        let mut states = client.states();
        let back = states.wait_for(|state| *state == ConnectionState::Connected);
        all("an agent to be back", back).await.unwrap();
    }
    let (_, health) = http::get(second.addr, "/health", &[]).await;
    assert_eq!(health["connected_agents"].as_u64(), Some(u64::try_from(count).unwrap()));

    let end = first.logged("stopped").await;
    let counted = |name: &str| -> u64 {
        let value = end.split(&format!("{name}=")).nth(1).unwrap();
        value.split(' ').next().unwrap().parse().unwrap()
    };
    let seen = ledger.summary();
    println!("{count} agents, drained in {took:?}: {end}");
    println!(
        "seen: sent {}, delivered {}, refused {} {:?}, failed attempts {}",
        seen.sent, seen.delivered, seen.refused, seen.refused_by_reason, seen.failed_attempts
    );
    assert_eq!(seen.faults, [""; 0]);
    let (received, delivered, refused) =
        (counted("received"), counted("delivered"), counted("refused"));
    assert_eq!((received, counted("held")), (delivered + refused, 0));
    assert_eq!(seen.delivered, delivered, "what the gateway calls delivered has arrived");
    assert!(seen.refused <= refused, "a sender that has gone already is not told");
    assert!(received <= seen.sent, "nothing comes from nowhere");
    // Each was told to go, once, and when to come back.
    assert_eq!(seen.hints.len(), count);
    let span = RETURN.max(Duration::from_secs(1) * u32::try_from(count).unwrap() / RATE);
    let hints_within = |from: f64, to: f64| {
        let (from, to) = (span.mul_f64(from).as_millis(), span.mul_f64(to).as_millis());
        seen.hints.iter().filter(|hint| (from..=to).contains(&hint.as_millis())).count()
    };
    assert_eq!(hints_within(0.0, 1.0), count);
    for quarter in 0..4 {
        let from = f64::from(quarter) / 4.0;
        let share = hints_within(from, from + 0.25);
        assert!((count / 8..count / 2).contains(&share), "{share} of {count} at {from}");
    }
    let back: Vec<_> = seen.registered.iter().filter(|at| **at > began).copied().collect();
    assert_eq!(back.len(), count, "each came back once");
    let whole = show_registrations(back);
    assert!(whole >= span / 2, "they came back over {whole:?} of {span:?}");
    drop(clients);
    assert!(second.stop().await.success());
}

/// When agents registered at the second gateway, by tenths of a second; how long it took in all.
fn show_registrations(mut times: Vec<Instant>) -> Duration {
    times.sort_unstable();
    let (first, last) = (times[0], *times.last().unwrap());
    let tenth = |at: &Instant| usize::try_from((*at - first).as_millis() / 100).unwrap();
    let mut tenths = vec![0_u32; 10.max(1 + tenth(&last))];
    times.iter().for_each(|at| tenths[tenth(at)] += 1);
    let busiest = tenths.windows(10).map(|second| second.iter().sum::<u32>()).max();
    println!("registrations at the second gateway by 100 ms: {tenths:?}");
    println!("in its busiest second: {}", busiest.unwrap());
    last - first
}
