//! `on_watch`: who may follow whom, and that nothing is said of those whom one may not follow.

use std::{sync::Arc, time::Duration};

use conexus_gateway::hooks::{Decision, Denial, Judge, Ruling};
use conexus_plugin_api::{Point, host};
use conexus_protocol::{ErrorCode, Identity, RefusalReason, Subprotocol};
use tokio::sync::mpsc;

use super::{absent, online, seen, watch, watched};
use crate::{
    hooks::setup::{Kept, Setup},
    support::{
        agent::Agent,
        bystanders::Bystanders,
        gateway::TestGateway,
        policy::{Changing, Closures},
        soon,
    },
};

fn deny_all() -> Closures {
    let denial = Denial { reason: RefusalReason::Denied, text: "none of your business".into() };
    Closures { watch: Some(Box::new(move |_| Err(denial.clone()))), ..Closures::default() }
}

#[tokio::test]
async fn each_agent_is_judged_with_what_is_known_of_both_and_the_denied_are_named_by_place() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let secret = Identity::generate();
    let hidden = secret.did().to_owned();
    let policy = Changing::new(Closures {
        watch: Some(Box::new(move |event| {
            let target = event.target.as_ref().map(|target| target.did.clone());
            tell.send((event.agent.did.clone(), event.did.clone(), target)).unwrap();
            if event.did == hidden { Err(RefusalReason::Denied.into()) } else { Ok(()) }
        })),
        ..Closures::default()
    });
    let gateway = TestGateway::start_with_policy(policy, |_| {}).await;
    let mut watcher = Agent::v1_1(&gateway).await;
    let here = Agent::v1(&gateway).await;
    let away = Identity::generate();
    let id = watch(&mut watcher, &[&here.did(), secret.did(), away.did()]).await;
    assert_eq!(seen(&mut watcher).await, online(&here.did()));
    let refusal = watcher.refusal().await;
    assert_eq!(refusal.correlation_id, Some(id));
    assert_eq!(refusal.code, ErrorCode::ConnectionRefused);
    assert_eq!(refusal.reason.as_deref(), Some("denied"));
    assert_eq!(refusal.member.as_deref(), Some("payload.dids[1]"));
    assert_eq!(seen(&mut watcher).await, absent(away.did()));
    let me = watcher.did();
    let asked = |did: &str, target: Option<&str>| (me.clone(), did.into(), target.map(Into::into));
    assert_eq!(told.recv().await, Some(asked(&here.did(), Some(&here.did()))));
    assert_eq!(told.recv().await, Some(asked(secret.did(), None)));
    assert_eq!(told.recv().await, Some(asked(away.did(), None)));
    assert_eq!(gateway.watches(), 2);
}

#[tokio::test]
async fn of_one_that_may_not_be_watched_nothing_is_said_be_it_there_or_not() {
    let policy = Changing::new(deny_all());
    let gateway = TestGateway::start_with_policy(policy.clone(), |_| {}).await;
    let mut watcher = Agent::v1_1(&gateway).await;
    let me = Identity::generate();
    let mut answers = Vec::new();
    for there in [false, true] {
        let agent = match there {
            true => Some(Agent::registered_as(&gateway, Subprotocol::V1, me.clone()).await),
            false => None,
        };
        watch(&mut watcher, &[me.did()]).await;
        let (refusal, words) = watcher.refusal_and_words().await;
        assert_eq!(words, "none of your business: payload.dids[0]");
        answers.push((refusal.code, refusal.reason, refusal.member));
        drop(agent);
        gateway.has_agents(1).await;
    }
    assert_eq!(answers[0], answers[1]);
    assert_eq!(gateway.watches(), 0);
    // Changes are not told either: that of one whom it may watch is the next thing that it reads.
    policy.change(Closures::default());
    let other = Identity::generate();
    assert_eq!(watched(&mut watcher, &[other.did()]).await, [absent(other.did())]);
    let agent = Agent::registered_as(&gateway, Subprotocol::V1, me.clone()).await;
    drop(agent);
    gateway.has_agents(1).await;
    let _other = Agent::registered_as(&gateway, Subprotocol::V1, other.clone()).await;
    assert_eq!(seen(&mut watcher).await, online(other.did()));
}

#[tokio::test]
async fn a_grant_lasts_until_the_agent_asks_again_and_is_denied() {
    let policy = Changing::new(Closures::default());
    let gateway = TestGateway::start_with_policy(policy.clone(), |_| {}).await;
    let mut watcher = Agent::v1_1(&gateway).await;
    let (me, other) = (Identity::generate(), Identity::generate());
    watched(&mut watcher, &[me.did(), other.did()]).await;
    policy.change(deny_all());
    let agent = Agent::registered_as(&gateway, Subprotocol::V1, me.clone()).await;
    assert_eq!(seen(&mut watcher).await, online(me.did()), "what one judge granted stays");
    watch(&mut watcher, &[me.did()]).await;
    assert_eq!(watcher.refusal().await.reason.as_deref(), Some("denied"));
    drop(agent);
    gateway.has_agents(1).await;
    assert_eq!(gateway.watches(), 1);
    let _other = Agent::registered_as(&gateway, Subprotocol::V1, other.clone()).await;
    assert_eq!(seen(&mut watcher).await, online(other.did()), "and nothing before it");
}

const SCRIPT: &str = r#"
fn on_register(event) {
    set(#{ labels: #{ team: event.agent.name } })
}
fn on_watch(event) {
    if event.agent.labels["team"] == "broken" { throw "no idea" }
    if event.target == () { return deny("denied", "unknown to you") }
    if event.target.labels["team"] != event.agent.labels["team"] {
        deny("denied", "another team's")
    }
}
"#;

async fn of_team(gateway: &TestGateway, team: &str) -> Agent {
    let mut agent = Agent::connect(gateway, Subprotocol::V1_1).await;
    let named = conexus_protocol::Metadata { name: Some(team.into()), ..Default::default() };
    let register = agent.with_metadata(named);
    agent.register_with(register).await;
    agent
}

#[tokio::test]
async fn a_script_decides_by_labels_and_one_that_fails_denies() {
    let mut setup = Setup::new();
    setup.script("teams", SCRIPT);
    setup.at(Point::Register, "teams");
    setup.at(Point::Watch, "teams");
    let engine = setup.engine();
    let gateway = TestGateway::start_with_policy(Kept(Arc::clone(&engine)), |_| {}).await;
    let mut red = of_team(&gateway, "red").await;
    let (other, blue) = (of_team(&gateway, "red").await, of_team(&gateway, "blue").await);
    watch(&mut red, &[&other.did(), &blue.did(), Identity::generate().did()]).await;
    assert_eq!(seen(&mut red).await, online(&other.did()));
    let (refusal, words) = red.refusal_and_words().await;
    assert_eq!(refusal.reason.as_deref(), Some("denied"));
    assert_eq!(words, "another team's: payload.dids[1]");
    let (refusal, words) = red.refusal_and_words().await;
    assert_eq!(refusal.member.as_deref(), Some("payload.dids[2]"));
    assert_eq!(words, "unknown to you: payload.dids[2]");

    let mut broken = of_team(&gateway, "broken").await;
    watch(&mut broken, &[&blue.did()]).await;
    let refusal = broken.refusal().await;
    assert_eq!(refusal.code, ErrorCode::InternalError);
    assert_eq!(refusal.reason.as_deref(), Some("policy_error"));
    assert_eq!(refusal.member.as_deref(), Some("payload.dids[0]"));
    assert_eq!(gateway.watches(), 1);
}

#[tokio::test]
async fn while_a_hook_takes_its_time_only_the_watcher_waits() {
    let mut setup = Setup::new();
    // On threads for blocking hooks, so that the answer comes later.
    setup.script("slow", "fn on_watch(event) { for i in 0..20000 { } }").blocking = true;
    setup.at(Point::Watch, "slow").budget = Some(Duration::from_secs(60));
    let engine = setup.engine();
    let gateway = TestGateway::start_with_policy(Kept(Arc::clone(&engine)), |_| {}).await;
    let mut bystanders = Bystanders::register(&gateway).await;
    let mut watcher = Agent::v1_1(&gateway).await;
    let dids: Vec<_> = (0..40).map(|_| Identity::generate().did().to_owned()).collect();
    let refs: Vec<_> = dids.iter().map(String::as_str).collect();
    watch(&mut watcher, &refs).await;
    // Behind the decision, as everything of this agent.
    let (_, marker) = watcher.offer(&watcher.did(), "marker");
    watcher.send(marker.clone()).await;
    bystanders.exchange().await;
    for did in &dids {
        assert_eq!(seen(&mut watcher).await, absent(did));
    }
    assert_eq!(watcher.text().await, marker);
    // One that leaves in the middle of it watches nobody afterwards.
    watch(&mut watcher, &refs).await;
    drop(watcher);
    soon("its end", gateway.has_agents(2)).await;
    crate::support::until("its watches to end", || gateway.watches() == 0).await;
}

/// Never comes to a verdict about who may follow whom; says so when it is asked.
struct Undecided(mpsc::UnboundedSender<()>);

impl Judge for Undecided {
    fn asks(&self, point: Point) -> bool {
        point == Point::Watch
    }

    fn on_watch(self: Arc<Self>, _: Arc<host::Watch>) -> Decision<Ruling<()>> {
        self.0.send(()).unwrap();
        Decision::Later(Box::pin(std::future::pending()))
    }
}

#[tokio::test]
async fn neither_the_next_session_of_the_key_nor_a_stop_waits_for_a_list_that_is_not_decided() {
    let (tell, mut asked) = mpsc::unbounded_channel();
    let policy = Changing::new(Undecided(tell));
    let mut gateway = TestGateway::start_with_policy(policy, |_| {}).await;
    let me = Identity::generate();
    let dids: Vec<_> = (0..40).map(|_| Identity::generate().did().to_owned()).collect();
    let dids: Vec<_> = dids.iter().map(String::as_str).collect();
    let registered = || Agent::registered_as(&gateway, Subprotocol::V1_1, me.clone());
    // Taken over, broken, and dismissed.
    let mut old = registered().await;
    watch(&mut old, &dids).await;
    asked.recv().await.unwrap();
    let mut new = soon("the takeover", registered()).await;
    assert_eq!(old.close().await.0, 4003);
    watch(&mut new, &dids).await;
    asked.recv().await.unwrap();
    drop(new);
    let mut last = soon("the return", registered()).await;
    watch(&mut last, &dids).await;
    asked.recv().await.unwrap();
    gateway.begin_stop();
    assert_eq!(last.close().await.0, 1012);
    soon("the stop", gateway.ended()).await;
    assert!(asked.try_recv().is_err(), "nobody was asked about the others");
}

#[tokio::test]
async fn a_list_takes_no_longer_than_a_lease() {
    const LEASE: Duration = Duration::from_millis(200);
    let policy = Changing::new(Closures {
        watch: Some(Box::new(|_| {
            std::thread::sleep(LEASE);
            Ok(())
        })),
        ..Closures::default()
    });
    let gateway = TestGateway::start_with_policy(policy, |s| s.presence.timeout = LEASE).await;
    let mut watcher = Agent::v1_1(&gateway).await;
    let dids: Vec<_> = (0..3).map(|_| Identity::generate().did().to_owned()).collect();
    let refs: Vec<_> = dids.iter().map(String::as_str).collect();
    watch(&mut watcher, &refs).await;
    assert_eq!(seen(&mut watcher).await, absent(&dids[0]));
    for place in 1..3 {
        let refusal = watcher.refusal().await;
        assert_eq!(refusal.reason.as_deref(), Some("policy_error"));
        assert_eq!(refusal.member, Some(format!("payload.dids[{place}]")));
    }
}
