//! Many agents at once: nothing is lost, doubled or out of order, whoever comes and goes meanwhile.
//!
//! `CROWD_AGENTS`, `CROWD_MESSAGES` (of each agent), `CROWD_SECONDS` (send for that long, at a
//! walking pace) and `CROWD_SEED` (as printed) make the crowd larger, or the same again:
//! `CROWD_AGENTS=1000 CROWD_SECONDS=60 cargo nextest run --release -p conexus-gateway --test e2e
//! crowd::the_fate --no-capture`.

mod ledger;
mod member;
mod places;

use std::{
    env,
    sync::Arc,
    time::{Duration, Instant},
};

use conexus_protocol::{Identity, Subprotocol};
use tokio::task::JoinSet;

use self::{
    ledger::{Ledger, Open},
    member::{Habit, live},
};
use crate::support::{agent::Agent, backplane, gateway::TestGateway};

/// Agents that never come.
const ABSENT: usize = 5;

/// What the members of a crowd share.
struct Crowd {
    gateway: TestGateway,
    ledger: Arc<Ledger>,
    members: Vec<Identity>,
    absent: Vec<Identity>,
    /// How many messages each member sends, unless it is to send for a time.
    messages: usize,
    until: Option<Instant>,
    seed: u64,
}

fn setting(name: &str) -> Option<u64> {
    env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name}: {value}")))
}

fn count(name: &str, default: usize) -> usize {
    setting(name).map_or(default, |value| usize::try_from(value).unwrap())
}

impl Crowd {
    async fn gather(hold: Duration) -> Self {
        let seed = setting("CROWD_SEED").unwrap_or_else(rand::random);
        println!("CROWD_SEED={seed}");
        let _ = rlimit::increase_nofile_limit(u64::MAX);
        let gateway = TestGateway::start_with(|s| s.mailbox.hold = hold).await;
        let identities = |count| (0..count).map(|_| Identity::generate()).collect::<Vec<_>>();
        let members = identities(count("CROWD_AGENTS", 200));
        let habits = (0..members.len()).map(Habit::of).collect();
        Self {
            gateway,
            ledger: Arc::new(Ledger::new(habits, !hold.is_zero())),
            members,
            absent: identities(ABSENT),
            messages: count("CROWD_MESSAGES", 50),
            until: setting("CROWD_SECONDS").map(|s| Instant::now() + Duration::from_secs(s)),
            seed,
        }
    }
}

/// Lets a crowd live, and compares what its members saw with what the gateway counted.
async fn account_for_all(hold: Duration) {
    let started = Instant::now();
    let crowd = Arc::new(Crowd::gather(hold).await);
    let mut lives = JoinSet::new();
    for me in 0..crowd.members.len() {
        lives.spawn(live(Arc::clone(&crowd), me));
    }
    let sessions = lives.join_all().await;
    let mut crowd = Arc::into_inner(crowd).expect("nobody else holds it");

    let counted = crowd.gateway.settled().await;
    let seen = crowd.ledger.summary();
    println!("{counted:?}, {seen:?}, {:?}", started.elapsed());
    assert_eq!(seen.faults, [""; 0]);
    let Open { sure, crashing, absent } = seen.open;
    assert_eq!(sure, 0, "every message to somebody who reads has its end");
    assert_eq!(counted.received, seen.sent);
    // In a cluster the directory is asked for absent ones, and who sent to a full mailbox may not be there
    // any more to be told.
    let not_held = absent - counted.held;
    assert!(not_held == 0 || backplane::is_on(), "{not_held}");
    // The kernel took some for agents that crashed, and some were refused to a session that had
    // ended. Of these and no others, nobody heard.
    let unheard = (counted.delivered - seen.delivered) + (counted.refused - seen.refused);
    assert_eq!(unheard, crashing + not_held);
    assert!(seen.delivered > seen.sent / 2, "most agents were there");
    crowd.gateway.has_agents(crowd.members.len()).await;

    // At the end what was held comes back to everyone who is still the session that sent it.
    crowd.gateway.begin_stop();
    for session in sessions {
        assert_eq!(session.ended().await, Some(1012));
    }
    crowd.gateway.ended().await;
    let ledger = &crowd.ledger;
    assert_eq!(ledger.summary().faults, [""; 0]);
    assert_eq!(ledger.open_of_steady_members(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fate_of_every_message_is_known_without_mailboxes() {
    account_for_all(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fate_of_every_message_is_known_with_mailboxes() {
    account_for_all(Duration::from_secs(3600)).await;
}

/// A takeover and the end of the older connection at the same moment, in every order.
#[tokio::test(flavor = "multi_thread")]
async fn agents_that_crash_while_they_are_taken_over_are_counted_once() {
    let gateway = Arc::new(TestGateway::start().await);
    let mut lives = JoinSet::new();
    for _ in 0..20 {
        let gateway = Arc::clone(&gateway);
        lives.spawn(async move {
            let me = Identity::generate();
            let mut agent = Agent::registered_as(&gateway, Subprotocol::V1_1, me.clone()).await;
            for _ in 0..30 {
                let mut newer = Agent::connect_as(&gateway, Subprotocol::V1_1, me.clone()).await;
                let (_, register) = newer.sign(me.did(), newer.registration());
                newer.send(register).await;
                drop(std::mem::replace(&mut agent, newer));
                assert!(agent.text().await.contains("REGISTERED"));
            }
            agent
        });
    }
    let agents = lives.join_all().await;
    gateway.has_agents(agents.len()).await;
    let (_, listed) = gateway.get("/agents").await;
    assert_eq!(listed["count"], agents.len());
    drop(agents);
    gateway.has_agents(0).await;
}
