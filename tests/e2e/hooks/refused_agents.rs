//! What agents see of a hook that fails: a refusal or nothing, and only who it was asked about.

use std::sync::Arc;

use conexus_gateway::{config::FailMode, hooks::Engine};
use conexus_plugin_api::Point;
use conexus_protocol::{ErrorCode, Identity, Metadata, Subprotocol};
use serde_json::json;

use super::setup::{Kept, Setup, faults};
use crate::support::{
    agent::{Agent, Refusal},
    bystanders::Bystanders,
    gateway::TestGateway,
    http, until,
};

/// A short lease for who asks for it; held messages and further leases.
const GRANT: &str = r#"
    fn on_register(e) { if e.agent.name == "brief" { extend("100ms") } }
    fn on_route(e) { if e.target != () { hold(5) } }
    fn on_undeliverable(e) { hold(5) }
    fn on_expire(e) { extend(300) }
"#;

/// A gateway whose policy has `grant` at every point, and two agents that talk whatever happens.
struct Stage {
    engine: Arc<Engine>,
    gateway: TestGateway,
    bystanders: Bystanders,
    native: bool,
}

impl Stage {
    fn setup(native: bool) -> Setup {
        let mut setup = Setup::new();
        setup.script("grant", GRANT);
        if native {
            setup.probe("faulty", json!({ "act": "error" }));
        } else {
            let points = ["connect", "register", "route", "undeliverable", "expire"];
            let text = points.map(|point| format!("fn on_{point}(e) {{ throw \"broken\" }}\n"));
            setup.script("faulty", &text.concat());
        }
        for point in [Point::Register, Point::Route, Point::Undeliverable, Point::Expire] {
            setup.at(point, "grant");
        }
        setup
    }

    async fn set(native: bool) -> Self {
        let engine = Self::setup(native).engine();
        let gateway = TestGateway::start_with_policy(Kept(engine.clone()), |_| {}).await;
        let bystanders = Bystanders::register(&gateway).await;
        Self { engine, gateway, bystanders, native }
    }

    /// From now on the hook fails at this point.
    fn fail_at(&self, point: Point, mode: FailMode) {
        let mut setup = Self::setup(self.native);
        setup.at(point, "faulty").on_error = Some(mode);
        self.engine.reload(&setup.settings).unwrap();
    }

    /// It fails no more, and nothing has happened to the others.
    async fn calm(&mut self) {
        self.engine.reload(&Self::setup(self.native).settings).unwrap();
        self.bystanders.exchange().await;
    }

    async fn failed_once(&self, point: Point) {
        let place = usize::from(point != Point::Connect);
        until("the failure to be counted", || faults(&self.engine, point, place, "error") == 1)
            .await;
    }
}

fn is_policy_error(refusal: &Refusal) {
    assert_eq!(refusal.code, ErrorCode::InternalError);
    assert_eq!(refusal.reason.as_deref(), Some("policy_error"));
}

async fn connecting(stage: &Stage, closed: bool) {
    if closed {
        let (status, body) = http::refused_upgrade(stage.gateway.addr, "/ws").await;
        assert_eq!((status, body["error"].as_str()), (403, Some("refused by policy")));
    } else {
        Agent::v1_1(&stage.gateway).await;
    }
}

async fn registering(stage: &Stage, closed: bool) {
    let mut agent = Agent::connect(&stage.gateway, Subprotocol::V1_1).await;
    if !closed {
        agent.register().await;
        return;
    }
    let (id, text) = agent.sign(&agent.did(), agent.registration());
    agent.send(text).await;
    let refusal = agent.refusal().await;
    assert_eq!(refusal.correlation_id, Some(id));
    is_policy_error(&refusal);
    assert_eq!(agent.close().await.0, 4007);
}

async fn routing(stage: &Stage, closed: bool, a: &mut Agent, b: &mut Agent) {
    let (id, text) = a.send_offer(&b.did(), "x").await;
    if closed {
        let refusal = a.refusal().await;
        assert_eq!(refusal.correlation_id, Some(id));
        is_policy_error(&refusal);
        a.ping().await;
    } else {
        assert_eq!(b.text().await, text);
    }
    stage.failed_once(Point::Route).await;
}

async fn missing(stage: &Stage, closed: bool, a: &mut Agent) {
    let absent = Identity::generate();
    let (id, text) = a.send_offer(absent.did(), "x").await;
    if closed {
        let refusal = a.refusal().await;
        assert_eq!(refusal.correlation_id, Some(id));
        is_policy_error(&refusal);
        return;
    }
    // Held, as the hook before said.
    a.ping().await;
    let mut late = Agent::connect_as(&stage.gateway, Subprotocol::V1_1, absent).await;
    late.register().await;
    assert_eq!(late.text().await, text);
}

async fn lapsing(stage: &Stage, closed: bool) {
    let mut agent = Agent::connect(&stage.gateway, Subprotocol::V1_1).await;
    let name = Metadata { name: Some("brief".to_owned()), ..Metadata::default() };
    agent.register_with(agent.with_metadata(name)).await;
    stage.failed_once(Point::Expire).await;
    if closed {
        assert_eq!(agent.refusal().await.code, ErrorCode::Timeout);
        assert_eq!(agent.close().await.0, 4004);
    } else {
        agent.ping().await;
    }
}

async fn outcomes(native: bool) {
    let mut stage = Stage::set(native).await;
    let (mut a, mut b) = (Agent::v1(&stage.gateway).await, Agent::v1_1(&stage.gateway).await);
    for (mode, closed) in [(FailMode::Closed, true), (FailMode::Open, false)] {
        for point in
            [Point::Connect, Point::Register, Point::Route, Point::Undeliverable, Point::Expire]
        {
            stage.fail_at(point, mode);
            match point {
                Point::Connect => connecting(&stage, closed).await,
                Point::Register => registering(&stage, closed).await,
                Point::Route => routing(&stage, closed, &mut a, &mut b).await,
                Point::Undeliverable => missing(&stage, closed, &mut a).await,
                _ => lapsing(&stage, closed).await,
            }
            stage.failed_once(point).await;
            stage.calm().await;
        }
    }
    let messages = stage.gateway.settled().await;
    assert_eq!(messages.refused, 2, "one on its way, one undeliverable");
}

#[tokio::test]
async fn who_a_failing_script_is_asked_about_is_refused_or_let_pass_and_nobody_else() {
    outcomes(false).await;
}

#[tokio::test]
async fn who_a_failing_plugin_is_asked_about_is_refused_or_let_pass_and_nobody_else() {
    outcomes(true).await;
}
