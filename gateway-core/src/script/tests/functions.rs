//! What only tests can call: builders, the clock, assertions, what the policy did.

use conexus_plugin_api::host::Event;
use rhai::{Array, Dynamic, EvalAltResult, FnPtr, Map, Module, NativeCallContext, Shared};

use super::{World, fabricate, world::word};
use crate::script::bind::{self, AgentRef, Bindings, duration, instant_ms, parse_json};

type Evaluated<T> = Result<T, Box<EvalAltResult>>;

/// The functions of one test's world.
pub(super) fn module(world: &World) -> Shared<Module> {
    let mut bindings = Bindings::default();
    agents(&mut bindings, world);
    events(&mut bindings, world);
    clock(&mut bindings, world);
    done(&mut bindings, world);
    assertions(&mut bindings);
    bindings.into_module()
}

fn agents(bindings: &mut Bindings, world: &World) {
    let here = world.clone();
    bindings.function("test_agent", move || -> Evaluated<AgentRef> {
        Ok(AgentRef(fabricate::agent(&here, &Map::new())?))
    });
    let here = world.clone();
    bindings.function("test_agent", move |said: Map| -> Evaluated<AgentRef> {
        Ok(AgentRef(fabricate::agent(&here, &said)?))
    });
    let here = world.clone();
    bindings.function("test_did", move || here.next_did());
    let here = world.clone();
    bindings.function("add_agent", move |agent: AgentRef| {
        here.seen().agents.insert(agent.0.key, agent.0);
    });
    let here = world.clone();
    bindings.function("remove_agent", move |agent: AgentRef| {
        here.seen().agents.remove(&agent.0.key).is_some()
    });
}

fn events(bindings: &mut Bindings, world: &World) {
    type Make = fn(&World, &Map) -> fabricate::Made<Event>;
    let makers: [(&str, Make); 11] = [
        ("connect_event", fabricate::connect),
        ("register_event", fabricate::register),
        ("route_event", fabricate::route),
        ("watch_event", fabricate::watch),
        ("expire_event", fabricate::expire),
        ("registered_event", fabricate::registered),
        ("replaced_event", fabricate::replaced),
        ("delivered_event", fabricate::delivered),
        ("disconnect_event", fabricate::disconnect),
        ("unregister_event", fabricate::unregister),
        ("hook_error_event", fabricate::hook_error),
    ];
    for (name, make) in makers {
        let event = move |world: &World, said: &Map| -> Evaluated<Dynamic> {
            Ok(bind::argument(&make(world, said)?).unwrap_or(Dynamic::UNIT))
        };
        let here = world.clone();
        bindings.function(name, move || event(&here, &Map::new()));
        let here = world.clone();
        bindings.function(name, move |said: Map| event(&here, &said));
        // The agent it is about says all there is to most events.
        let here = world.clone();
        bindings.function(name, move |agent: AgentRef| {
            event(&here, &Map::from([("agent".into(), Dynamic::from(agent))]))
        });
    }
}

fn clock(bindings: &mut Bindings, world: &World) {
    let here = world.clone();
    bindings.function("advance", move |time: Dynamic| -> Evaluated<()> {
        let millis = i64::try_from(duration(&time)?.as_millis()).unwrap_or(i64::MAX);
        let now = &mut here.seen().now_ms;
        *now = now.saturating_add(millis);
        Ok(())
    });
    let here = world.clone();
    bindings.function("set_now", move |moment: Dynamic| -> Evaluated<()> {
        here.seen().now_ms = instant_ms(&moment)?;
        Ok(())
    });
}

fn done(bindings: &mut Bindings, world: &World) {
    let text = |text: &str| Dynamic::from(text.to_owned());
    let here = world.clone();
    bindings.function("sent", move || -> Evaluated<Array> {
        let seen = here.seen();
        let map = |(did, kind, payload): &(String, String, String)| {
            let payload = parse_json(payload)?;
            let map = [
                ("did".into(), text(did)),
                ("type".into(), text(kind)),
                ("payload".into(), payload),
            ];
            Ok(Dynamic::from(Map::from(map)))
        };
        seen.sent.iter().map(map).collect()
    });
    let here = world.clone();
    bindings.function("disconnected", move || -> Array {
        let map = |(did, reason): &(String, String)| {
            Dynamic::from(Map::from([("did".into(), text(did)), ("reason".into(), text(reason))]))
        };
        here.seen().disconnected.iter().map(map).collect()
    });
    let here = world.clone();
    bindings.function("metrics", move || -> Map {
        here.seen().metrics.iter().map(|(name, n)| (name.as_str().into(), (*n).into())).collect()
    });
    let here = world.clone();
    bindings.function("logged", move || -> Array {
        let map = |(level, line): &(_, String)| {
            let map = [("level".into(), text(word(*level))), ("text".into(), text(line))];
            Dynamic::from(Map::from(map))
        };
        here.seen().lines.iter().map(map).collect()
    });
}

fn assertions(bindings: &mut Bindings) {
    bindings.function("continues", |answer: Dynamic| answer.is_unit());
    bindings.function("assert", |holds: bool| check(holds, || "assert: it is false".to_owned()));
    bindings.function("assert", |holds: bool, text: &str| check(holds, || text.to_owned()));
    bindings.function("assert_eq", |c: NativeCallContext, left: Dynamic, right: Dynamic| {
        let equal = equal(&c, &left, &right)?;
        check(equal, || format!("assert_eq: {} is not {}", shown(&c, &left), shown(&c, &right)))
    });
    bindings.function("assert_ne", |c: NativeCallContext, left: Dynamic, right: Dynamic| {
        let equal = equal(&c, &left, &right)?;
        check(!equal, || format!("assert_ne: both are {}", shown(&c, &left)))
    });
    bindings.function("throws", |c: NativeCallContext, function: FnPtr| {
        match function.call_within_context::<Dynamic>(&c, ()) {
            Ok(_) => Dynamic::UNIT,
            Err(error) => Dynamic::from(bind_error(*error)),
        }
    });
}

/// The text of an error, without its place.
fn bind_error(error: EvalAltResult) -> String {
    crate::script::fault::Trace::of(error, "", "").into_reason()
}

fn check(holds: bool, text: impl FnOnce() -> String) -> Evaluated<()> {
    if holds { Ok(()) } else { Err(text().into()) }
}

fn equal(context: &NativeCallContext<'_>, left: &Dynamic, right: &Dynamic) -> Evaluated<bool> {
    if left.is_unit() || right.is_unit() {
        return Ok(left.is_unit() && right.is_unit());
    }
    context.call_native_fn("==", (left.clone(), right.clone()))
}

fn shown(context: &NativeCallContext<'_>, value: &Dynamic) -> String {
    context.call_native_fn("to_debug", (value.clone(),)).unwrap_or_else(|_| value.to_string())
}
