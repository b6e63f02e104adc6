//! Events as native types: a field costs what it takes to copy that field.

use std::sync::{Arc, OnceLock};

use conexus_plugin_api::host::{
    Connect, Delivered, Disconnect, Event, Expire, HookError, Register, Registered, Replaced,
    Route, Unregister, Watch,
};
use rhai::{Array, Dynamic, Map, NativeCallContext};

use super::{
    Bindings, Fallible,
    agents::{AgentRef, text_or_unit},
    ask,
    tls::TlsInfo,
    values::parse_json,
};
use crate::hooks::PUBLIC_HEADERS;

macro_rules! event_types {
    ($($Type:ident($Inner:ty) = $name:literal;)+) => {
        $(
            #[derive(Debug, Clone)]
            struct $Type(Arc<$Inner>);
        )+

        fn name_types(bindings: &mut Bindings) {
            $(
                bindings.named::<$Type>(concat!($name, " event"));
                bindings.function("to_string", |_event: &mut $Type| concat!($name, " event"));
                bindings.function("to_debug", |event: &mut $Type| {
                    let mut text = format!("{:?}", event.0);
                    text.truncate((0..=1000).rev().find(|n| text.is_char_boundary(*n)).unwrap_or(0));
                    text
                });
            )+
        }
    };
}

event_types! {
    ConnectEvent(Connect) = "connect";
    RegisterEvent(Register) = "register";
    RouteEvent(Routed) = "route";
    WatchEvent(Watch) = "watch";
    ExpireEvent(Expire) = "expire";
    RegisteredEvent(Registered) = "registered";
    ReplacedEvent(Replaced) = "replaced";
    DeliveredEvent(Delivered) = "delivered";
    DisconnectEvent(Disconnect) = "disconnect";
    UnregisterEvent(Unregister) = "unregister";
    HookErrorEvent(HookError) = "hook error";
}

/// A message, and its payload once somebody has asked for it.
#[derive(Debug)]
struct Routed {
    route: Arc<Route>,
    undeliverable: bool,
    payload: OnceLock<Dynamic>,
}

/// The event as the argument of its hook; none for a lifecycle's.
pub(crate) fn argument(event: &Event) -> Option<Dynamic> {
    let routed = |route: &Arc<Route>, undeliverable| {
        let routed = Routed { route: route.clone(), undeliverable, payload: OnceLock::new() };
        Dynamic::from(RouteEvent(Arc::new(routed)))
    };
    Some(match event {
        Event::Connect(event) => Dynamic::from(ConnectEvent(event.clone())),
        Event::Register(event) => Dynamic::from(RegisterEvent(event.clone())),
        Event::Route(event) => routed(event, false),
        Event::Undeliverable(event) => routed(event, true),
        Event::Watch(event) => Dynamic::from(WatchEvent(event.clone())),
        Event::Expire(event) => Dynamic::from(ExpireEvent(event.clone())),
        Event::Registered(event) => Dynamic::from(RegisteredEvent(event.clone())),
        Event::Replaced(event) => Dynamic::from(ReplacedEvent(event.clone())),
        Event::Delivered(event) => Dynamic::from(DeliveredEvent(event.clone())),
        Event::Disconnect(event) => Dynamic::from(DisconnectEvent(event.clone())),
        Event::Unregister(event) => Dynamic::from(UnregisterEvent(event.clone())),
        Event::HookError(event) => Dynamic::from(HookErrorEvent(event.clone())),
        Event::Start | Event::Stop | Event::Reload | Event::Tick => return None,
    })
}

/// The event that an argument was made of, for policy tests; route events stand for both points.
pub(crate) fn events_of(argument: &Dynamic) -> Option<Vec<Event>> {
    macro_rules! try_types {
        ($($Type:ident => $Variant:ident),+) => {$(
            if let Some(event) = argument.read_lock::<$Type>() {
                return Some(vec![Event::$Variant(event.0.clone())]);
            }
        )+};
    }
    try_types!(
        ConnectEvent => Connect, RegisterEvent => Register, WatchEvent => Watch,
        ExpireEvent => Expire, RegisteredEvent => Registered, ReplacedEvent => Replaced,
        DeliveredEvent => Delivered, DisconnectEvent => Disconnect, UnregisterEvent => Unregister,
        HookErrorEvent => HookError
    );
    let event = argument.read_lock::<RouteEvent>()?;
    let route = &event.0.route;
    Some(vec![Event::Route(route.clone()), Event::Undeliverable(route.clone())])
}

fn payload(event: &RouteEvent) -> Fallible<Dynamic> {
    if let Some(payload) = event.0.payload.get() {
        return Ok(payload.clone());
    }
    let parsed = parse_json(event.0.route.payload())?;
    Ok(event.0.payload.get_or_init(|| parsed).clone())
}

/// What a hook looks at now is left out of the decision log.
fn note_secret(context: &NativeCallContext<'_>) -> Fallible<()> {
    ask(context, |services| {
        services.secret_read();
        Ok(())
    })
}

fn header(context: &NativeCallContext<'_>, event: &ConnectEvent, name: &str) -> Fallible<Dynamic> {
    let name = name.to_ascii_lowercase();
    if !PUBLIC_HEADERS.contains(&name.as_str()) {
        note_secret(context)?;
    }
    let value = event.0.headers.iter().find(|(known, _)| *known == name);
    Ok(text_or_unit(value.map(|(_, value)| value.as_str())))
}

fn headers(context: &NativeCallContext<'_>, event: &ConnectEvent) -> Fallible<Array> {
    note_secret(context)?;
    let entry = |(name, value): &(String, String)| {
        let entry =
            [("name".into(), name.as_str().into()), ("value".into(), value.as_str().into())];
        Dynamic::from(Map::from(entry))
    };
    Ok(event.0.headers.iter().map(entry).collect())
}

fn query<'a>(context: &NativeCallContext<'_>, event: &'a ConnectEvent) -> Fallible<&'a str> {
    note_secret(context)?;
    Ok(&event.0.query)
}

fn query_param(
    context: &NativeCallContext<'_>,
    event: &ConnectEvent,
    name: &str,
) -> Fallible<Dynamic> {
    let mut pairs = url::form_urlencoded::parse(query(context, event)?.as_bytes());
    Ok(text_or_unit(pairs.find(|(key, _)| key == name).map(|(_, value)| value).as_deref()))
}

fn whole(number: impl TryInto<i64>) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}

#[allow(clippy::cast_precision_loss, reason = "2^53 milliseconds are 285,000 years")]
fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}

fn connect(bindings: &mut Bindings) {
    bindings.field("address", |e: &mut ConnectEvent| e.0.address.to_string());
    bindings.field("ip", |e: &mut ConnectEvent| e.0.address.ip().to_canonical().to_string());
    bindings.field("port", |e: &mut ConnectEvent| i64::from(e.0.address.port()));
    bindings.field("path", |e: &mut ConnectEvent| e.0.path.clone());
    bindings.field("tls", |e: &mut ConnectEvent| {
        e.0.tls.as_ref().map_or(Dynamic::UNIT, |tls| Dynamic::from(TlsInfo(tls.clone())))
    });
    bindings.field("query", |c: NativeCallContext, e: &mut ConnectEvent| {
        query(&c, e).map(str::to_owned)
    });
    bindings.function("query_param", |c: NativeCallContext, e: &mut ConnectEvent, name: &str| {
        query_param(&c, e, name)
    });
    bindings.function("header", |c: NativeCallContext, e: &mut ConnectEvent, name: &str| {
        header(&c, e, name)
    });
    bindings.field("headers", |c: NativeCallContext, e: &mut ConnectEvent| headers(&c, e));
}

fn register(bindings: &mut Bindings) {
    bindings.field("agent", |e: &mut RegisterEvent| AgentRef(e.0.agent.clone()));
    bindings.field("renewal", |e: &mut RegisterEvent| e.0.renewal);
    bindings.field("credentials", |c: NativeCallContext, e: &mut RegisterEvent| {
        ask(&c, |services| {
            services.secret_read();
            Ok(text_or_unit(e.0.credentials.as_deref()))
        })
    });
}

fn route(bindings: &mut Bindings) {
    bindings.field("from", |e: &mut RouteEvent| AgentRef(e.0.route.from.clone()));
    bindings.field("target", |e: &mut RouteEvent| AgentRef::or_unit(e.0.route.target.as_ref()));
    bindings.field("to", |e: &mut RouteEvent| e.0.route.to().to_owned());
    bindings.field("id", |e: &mut RouteEvent| e.0.route.id().to_owned());
    bindings.field("type", |e: &mut RouteEvent| rhai::ImmutableString::from(&*e.0.route.kind));
    bindings.field("text", |e: &mut RouteEvent| e.0.route.text().to_owned());
    bindings.field("bytes", |e: &mut RouteEvent| whole(e.0.route.text().len()));
    bindings.field("payload", |e: &mut RouteEvent| payload(e));
    bindings.field("payload_text", |e: &mut RouteEvent| e.0.route.payload().to_owned());
    bindings.field("correlation_id", |e: &mut RouteEvent| text_or_unit(e.0.route.correlation_id()));
    bindings.field("undeliverable", |e: &mut RouteEvent| e.0.undeliverable);
}

fn others(bindings: &mut Bindings) {
    bindings.field("agent", |e: &mut WatchEvent| AgentRef(e.0.agent.clone()));
    bindings.field("did", |e: &mut WatchEvent| e.0.did.clone());
    bindings.field("target", |e: &mut WatchEvent| AgentRef::or_unit(e.0.target.as_ref()));

    bindings.field("agent", |e: &mut ExpireEvent| AgentRef(e.0.agent.clone()));
    bindings.field("silent", |e: &mut ExpireEvent| seconds(e.0.silent_ms));

    bindings.field("agent", |e: &mut RegisteredEvent| AgentRef(e.0.agent.clone()));
    bindings.field("renewal", |e: &mut RegisteredEvent| e.0.renewal);

    bindings.field("agent", |e: &mut ReplacedEvent| AgentRef(e.0.agent.clone()));

    bindings.field("from", |e: &mut DeliveredEvent| AgentRef(e.0.from.clone()));
    bindings.field("to", |e: &mut DeliveredEvent| AgentRef(e.0.to.clone()));
    bindings.field("type", |e: &mut DeliveredEvent| rhai::ImmutableString::from(&*e.0.kind));
    bindings.field("bytes", |e: &mut DeliveredEvent| whole(e.0.bytes));

    bindings.field("agent", |e: &mut DisconnectEvent| AgentRef(e.0.agent.clone()));
    bindings.field("reason", |e: &mut DisconnectEvent| rhai::ImmutableString::from(&*e.0.reason));
    bindings.field("code", |e: &mut DisconnectEvent| {
        e.0.code.map_or(Dynamic::UNIT, |code| i64::from(code).into())
    });
    bindings.field("lasted", |e: &mut DisconnectEvent| seconds(e.0.lasted_ms));
    bindings.field("epoch", |e: &mut DisconnectEvent| {
        let epoch = e.0.epoch.and_then(|epoch| i64::try_from(epoch).ok());
        epoch.map_or(Dynamic::UNIT, Into::into)
    });

    bindings.field("agent", |e: &mut UnregisterEvent| AgentRef(e.0.agent.clone()));

    bindings.field("hook", |e: &mut HookErrorEvent| e.0.hook.clone());
    bindings.field("point", |e: &mut HookErrorEvent| rhai::ImmutableString::from(&*e.0.point));
    bindings.field("kind", |e: &mut HookErrorEvent| rhai::ImmutableString::from(&*e.0.kind));
    bindings.field("message", |e: &mut HookErrorEvent| e.0.message.clone());
    bindings.field("agent", |e: &mut HookErrorEvent| text_or_unit(e.0.agent.as_deref()));
}

pub(super) fn bind(bindings: &mut Bindings) {
    name_types(bindings);
    connect(bindings);
    register(bindings);
    route(bindings);
    others(bindings);
}
