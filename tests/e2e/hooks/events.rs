//! Events out of thin air, and asking an engine about them.

use std::{collections::BTreeMap, future::Future, pin::Pin, sync::Arc, time::Duration};

use conexus_gateway::hooks::{Admission, Decision, Engine, Fallback, Passage, Policy, Ruling};
use conexus_plugin_api::{
    Agent, Metadata, Point,
    host::{Connect, Event, Expire, Register, Route, RouteParts, Text, Watch},
};
use conexus_protocol::{AgentKey, RefusalReason};

use crate::support::soon;

/// Where hooks decide.
pub(crate) const VERDICT_POINTS: [Point; 6] = [
    Point::Connect,
    Point::Register,
    Point::Route,
    Point::Undeliverable,
    Point::Watch,
    Point::Expire,
];

/// What was decided.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Ruled {
    Permission(Ruling<()>),
    Admission(Ruling<Admission>),
    Passage(Ruling<Passage>),
    Fallback(Ruling<Fallback>),
    Lease(Option<Duration>),
}

impl Ruled {
    /// Why it was refused, if it was.
    pub(crate) fn refusal(&self) -> Option<RefusalReason> {
        match self {
            Self::Permission(ruling) => ruling.as_ref().err(),
            Self::Admission(ruling) => ruling.as_ref().err(),
            Self::Passage(ruling) => ruling.as_ref().err(),
            Self::Fallback(ruling) => ruling.as_ref().err(),
            Self::Lease(_) => None,
        }
        .map(|denial| denial.reason)
    }
}

/// Asks, without waiting for an answer that takes its time.
pub(crate) fn ask(engine: &Engine, event: Event) -> Decision<Ruled> {
    fn meant<T: Send + 'static>(decision: Decision<T>, end: fn(T) -> Ruled) -> Decision<Ruled> {
        match decision {
            Decision::Now(answer) => Decision::Now(end(answer)),
            Decision::Later(answer) => {
                Decision::Later(Box::pin(async move { end(answer.await) }) as Later)
            }
        }
    }
    let judge = engine.judge();
    match event {
        Event::Connect(event) => meant(judge.on_connect(event), Ruled::Permission),
        Event::Register(event) => meant(judge.on_register(event), Ruled::Admission),
        Event::Route(event) => meant(judge.on_route(event), Ruled::Passage),
        Event::Undeliverable(event) => meant(judge.on_undeliverable(event), Ruled::Fallback),
        Event::Watch(event) => meant(judge.on_watch(event), Ruled::Permission),
        Event::Expire(event) => meant(judge.on_expire(event), Ruled::Lease),
        other => panic!("nothing is decided at {}", other.point()),
    }
}

type Later = Pin<Box<dyn Future<Output = Ruled> + Send>>;

/// Asks, and waits for the answer.
pub(crate) async fn decided(engine: &Engine, event: Event) -> Ruled {
    match ask(engine, event) {
        Decision::Now(ruled) => ruled,
        Decision::Later(ruled) => soon("a decision", ruled).await,
    }
}

/// An agent whose DID is a real one.
pub(crate) fn agent(number: u8) -> Agent {
    let key = [number.max(1); 32];
    Agent {
        did: AgentKey::from_bytes(key).did(),
        key,
        session: u64::from(number),
        address: ([127, 0, 0, number], 50_000).into(),
        subprotocol: "ioap.v1.1".into(),
        connected_at_ms: 0,
        metadata: Metadata::default(),
        labels: BTreeMap::new(),
        rate_class: None,
    }
}

/// A message as an agent would write it.
pub(crate) fn message(
    from: Agent,
    to: &Agent,
    present: bool,
    kind: &str,
    payload: &str,
    answers: Option<&str>,
) -> Route {
    let answering = answers.map_or_else(String::new, |id| format!(r#","correlation_id":"{id}""#));
    let text = format!(
        r#"{{"type":"{kind}","id":"1","from":"{}","to":"{}","payload":{payload}{answering}}}"#,
        from.did, to.did
    );
    let parts = RouteParts {
        from: Arc::new(from),
        target: present.then(|| Arc::new(to.clone())),
        to_key: to.key,
        kind: kind.to_owned().into(),
        to: &to.did,
        id: "1",
        correlation_id: answers,
        payload,
        trace: None,
        connection: None,
    };
    Route::new(Text::new(text), parts)
}

/// Something to decide about, the same each time.
pub(crate) fn at(point: Point) -> Event {
    let message =
        |present| Arc::new(message(agent(1), &agent(2), present, "OFFER", r#"{"sdp":"x"}"#, None));
    match point {
        Point::Connect => Event::Connect(Arc::new(Connect {
            address: ([127, 0, 0, 1], 50_000).into(),
            path: "/ws".into(),
            query: String::new(),
            headers: Vec::new(),
            tls: None,
            connection: None,
        })),
        Point::Register => Event::Register(Arc::new(Register {
            agent: Arc::new(agent(1)),
            credentials: None,
            renewal: false,
            connection: None,
        })),
        Point::Route => Event::Route(message(true)),
        Point::Undeliverable => Event::Undeliverable(message(false)),
        Point::Watch => Event::Watch(Arc::new(Watch {
            agent: Arc::new(agent(1)),
            did: agent(2).did,
            target: None,
            connection: None,
        })),
        Point::Expire => Event::Expire(Arc::new(Expire {
            agent: Arc::new(agent(1)),
            silent_ms: 1000,
            connection: None,
        })),
        other => panic!("nothing is decided at {other}"),
    }
}
