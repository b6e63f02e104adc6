//! Gateways with one policy at `on_route`, and the message that they judge.

use std::{collections::BTreeMap, hint::black_box, path::Path, sync::Arc, time::Duration};

use conexus_gateway::{
    config::{Chain, ChainEntry, HookSettings, HookSource, Mode, Settings},
    hooks::{Decision, Engine, Policy as _},
};
use conexus_plugin_api::{
    Agent, CONTINUE, Call, DenyCode, Error, Host, Metadata, NoConfig, Outcome, Plugin, Point,
    PointSet, StaticPlugin, deny,
    host::{self, Connection, RouteParts, Text},
};

/// What a rate limit of the benchmark allows: more than it ever asks for, so that it always counts.
const RATE: (u32, Duration) = (1_000_000_000, Duration::from_secs(1));

/// Scripts by their names.
const SCRIPTS: [(&str, &str); 5] = [
    ("no_op", "fn on_route(event) { }"),
    (
        "three_conditions",
        r#"fn on_route(event) {
            if event.type == "OFFER"
                && event.bytes > 256
                && event.from.label("region") != event.target.label("region")
            {
                return deny("denied", "regions do not mix");
            }
        }"#,
    ),
    ("increment", r#"fn on_route(event) { if incr("messages") < 0 { return deny(); } }"#),
    (
        "rate_limit",
        r#"fn on_route(event) {
            if !rate_limit("messages", 1_000_000_000, "1s") { return deny("rate_limited"); }
        }"#,
    ),
    ("runaway", "fn on_route(event) { loop { } }"),
];

/// The same as plugins, linked into the benchmark.
const PLUGINS: [(&str, StaticPlugin); 4] = [
    ("no_op", StaticPlugin::of::<NoOp>()),
    ("three_conditions", StaticPlugin::of::<ThreeConditions>()),
    ("increment", StaticPlugin::of::<Increment>()),
    ("rate_limit", StaticPlugin::of::<RateLimit>()),
];

macro_rules! plugins {
    ($($Plugin:ident: |$event:ident, $call:ident| $body:block)+) => {$(
        struct $Plugin;

        impl Plugin for $Plugin {
            type Config = NoConfig;
            const POINTS: PointSet = PointSet::of(&[Point::Route]);

            fn new(_config: NoConfig, _host: Host) -> Result<Self, Error> {
                Ok(Self)
            }

            fn on_route(
                &self,
                $event: &conexus_plugin_api::Route<'_>,
                $call: &Call<'_>,
            ) -> Outcome {
                $body
            }
        }
    )+};
}

plugins! {
    NoOp: |_event, _call| { Ok(CONTINUE) }

    ThreeConditions: |event, _call| {
        if event.kind() == "OFFER"
            && event.text().len() > 256
            && event.from().label("region") != event.target().and_then(|it| it.label("region"))
        {
            return Ok(deny(DenyCode::Denied, "regions do not mix"));
        }
        Ok(CONTINUE)
    }

    Increment: |_event, call| {
        call.kv_incr("messages", 1, None)?;
        Ok(CONTINUE)
    }

    RateLimit: |_event, call| {
        call.rate_limit("messages", RATE.0, RATE.1)?;
        Ok(CONTINUE)
    }
}

/// A gateway whose chain at `on_route` has this one hook.
pub(crate) fn gateway(source: &str) -> Engine {
    gateway_with(source, |_| {})
}

/// The same with other settings.
pub(crate) fn gateway_with(source: &str, change: impl FnOnce(&mut Settings)) -> Engine {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in SCRIPTS {
        std::fs::write(folder.path().join(name).with_extension("rhai"), text).unwrap();
    }
    let mut settings = with_hook(source, folder.path());
    change(&mut settings);
    // Scripts are read at the start, and not again.
    Engine::start_with_linked(&settings, &PLUGINS).unwrap()
}

fn with_hook(source: &str, scripts: &Path) -> Settings {
    let mut settings = Settings::default();
    settings.scripts.path = scripts.to_owned();
    // Kept, but out of the reach of a thread that the machine gives no time for a while.
    settings.policy.budget = Duration::from_secs(10);
    let hook = HookSettings::new(HookSource::try_from(source.to_owned()).unwrap());
    settings.policies.hooks.insert("measured".into(), hook);
    let entry = ChainEntry {
        hook: "measured".into(),
        mode: Mode::Enforce,
        on_error: None,
        budget: None,
        warn: None,
    };
    settings.policies.chains.insert(Chain(Point::Route), vec![entry]);
    settings
}

/// A gateway without hooks.
pub(crate) fn gateway_without_hooks() -> Engine {
    Engine::start(&Settings::default()).unwrap()
}

/// An OFFER as a session holds it: its text, and who sends it to whom.
#[derive(Clone)]
pub(crate) struct Message {
    text: Arc<str>,
    payload: std::ops::Range<usize>,
    from: Arc<Agent>,
    target: Arc<Agent>,
    connection: Arc<Connection>,
}

const TO: &str = "did:key:z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK";
const ID: &str = "3f0a8b0e-6a44-4d0c-9a55-0b6d1c2e7f10";

impl Message {
    pub(crate) fn new() -> Self {
        let sdp = "v=0 o=- 4611731400430051336 2 IN IP4 127.0.0.1 s=- t=0 0 ".repeat(16);
        let payload = format!(r#"{{"sdp":"{sdp}"}}"#);
        let text = format!(
            r#"{{"type":"OFFER","from":"did:key:zSender","to":"{TO}","id":"{ID}","payload":{payload}}}"#
        );
        let start = text.find(&payload).unwrap();
        Self {
            payload: start..start + payload.len(),
            text: text.into(),
            from: agent(1),
            target: agent(2),
            connection: Arc::default(),
        }
    }

    /// Members of the text, as its parser finds them.
    pub(crate) fn parts(&self) -> [&str; 3] {
        let text = &*self.text;
        let part = |member: &str| text.find(member).map(|at| &text[at..at + member.len()]).unwrap();
        [part(TO), part(ID), &text[self.payload.clone()]]
    }

    /// The event, as the router makes it where a chain asks for one.
    pub(crate) fn event(&self, [to, id, payload]: [&str; 3]) -> Arc<host::Route> {
        let parts = RouteParts {
            from: Arc::clone(&self.from),
            target: Some(Arc::clone(&self.target)),
            to_key: self.target.key,
            kind: "OFFER".into(),
            to,
            id,
            correlation_id: None,
            payload,
            trace: None,
            connection: Some(Arc::clone(&self.connection)),
        };
        Arc::new(host::Route::new(Text::new(self.text.clone()), parts))
    }
}

fn agent(number: u8) -> Arc<Agent> {
    let labels = [("region", "eu"), ("team", "relay"), ("tier", "gold")];
    Arc::new(Agent {
        did: format!("did:key:z{number}"),
        key: [number; 32],
        session: number.into(),
        address: ([192, 0, 2, number], 40_000).into(),
        subprotocol: "ioap.v1.1".into(),
        connected_at_ms: 0,
        metadata: Metadata::default(),
        labels: BTreeMap::from(labels.map(|(name, value)| (name.into(), value.into()))),
        rate_class: None,
    })
}

/// A gateway that judges the same message over and over.
pub(crate) struct Judging {
    make: Box<dyn Fn() -> Arc<Engine> + Send>,
    pub(crate) engine: Arc<Engine>,
    event: Arc<host::Route>,
}

impl Judging {
    pub(crate) fn new(make: impl Fn() -> Arc<Engine> + Send + 'static) -> Self {
        let message = Message::new();
        let event = message.event(message.parts());
        let engine = make();
        let first = engine.judge().on_route(Arc::clone(&event));
        assert!(matches!(first, Decision::Now(Ok(_))), "the policy does not work: {first:?}");
        Self { engine, make: Box::new(make), event }
    }

    /// Judges it as the router does.
    pub(crate) fn judge(&mut self) {
        loop {
            match self.engine.judge().on_route(black_box(Arc::clone(&self.event))) {
                Decision::Now(ruling) => {
                    black_box(ruling).ok();
                    return;
                }
                // It was taken for slow, since the machine gave its thread no time for a while.
                Decision::Later(ruling) => {
                    drop(ruling);
                    self.engine = (self.make)();
                }
            }
        }
    }
}
