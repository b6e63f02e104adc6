//! The key-value state, counters, rate limits, and values of a connection.

use std::time::Duration;

use conexus_plugin_api::host::Level;
use rhai::{Dynamic, ImmutableString, NativeCallContext};

use super::{
    Bindings, Fallible, ask,
    time::duration,
    values::{from_state, state_error, to_state},
};

type Context<'a> = NativeCallContext<'a>;

/// `()` means for good.
fn ttl(value: &Dynamic) -> Fallible<Option<Duration>> {
    if value.is_unit() {
        return Ok(None);
    }
    let ttl = duration(value)?;
    if ttl.is_zero() {
        return Err("a time to live is above zero".into());
    }
    Ok(Some(ttl))
}

fn kv_set(context: &Context<'_>, key: &str, value: &Dynamic, time: &Dynamic) -> Fallible<()> {
    let (value, ttl) = (to_state(value)?, ttl(time)?);
    ask(context, |services| services.kv_set(key, value, ttl).map_err(state_error))
}

fn incr(context: &Context<'_>, key: &str, by: i64, time: &Dynamic) -> Fallible<i64> {
    let ttl = ttl(time)?;
    ask(context, |services| services.kv_incr(key, by, ttl).map_err(state_error))
}

fn kv_cas(
    context: &Context<'_>,
    key: &str,
    expected: &Dynamic,
    value: &Dynamic,
    time: &Dynamic,
) -> Fallible<bool> {
    let expected = if expected.is_unit() { None } else { Some(to_state(expected)?) };
    let (value, ttl) = (to_state(value)?, ttl(time)?);
    ask(context, |services| {
        services.kv_cas(key, expected.as_ref(), value, ttl).map_err(state_error)
    })
}

fn rate_limit(context: &Context<'_>, key: &str, count: i64, per: &Dynamic) -> Fallible<bool> {
    let count = u32::try_from(count).map_err(|_| format!("{count} is no number of times"))?;
    let per = duration(per)?;
    ask(context, |services| services.rate_limit(key, count, per).map_err(state_error))
}

fn level(name: &str) -> Fallible<Level> {
    match name {
        "trace" => Ok(Level::Trace),
        "debug" => Ok(Level::Debug),
        "info" => Ok(Level::Info),
        "warn" => Ok(Level::Warn),
        "error" => Ok(Level::Error),
        _ => Err(format!("there is no level {name:?}: trace, debug, info, warn, error").into()),
    }
}

fn log(context: &Context<'_>, level: Level, text: &str) -> Fallible<()> {
    ask(context, |services| {
        services.log(level, text);
        Ok(())
    })
}

pub(super) fn bind(bindings: &mut Bindings) {
    key_values(bindings);
    bindings.function("rate_limit", |c: Context, key: &str, count: i64, per: Dynamic| {
        rate_limit(&c, key, count, &per)
    });
    bindings.function("conn_get", |c: Context, key: &str| {
        from_state(ask(&c, |services| services.connection_get(key).map_err(state_error))?)
    });
    bindings.function("conn_set", |c: Context, key: &str, value: Dynamic| {
        let value = if value.is_unit() { None } else { Some(to_state(&value)?) };
        ask(&c, |services| services.connection_set(key, value).map_err(state_error))
    });
    bindings.function("metric", |c: Context, name: &str| metric(&c, name, 1));
    bindings.function("metric", |c: Context, name: &str, add: i64| metric(&c, name, add));
    logging(bindings);
}

fn metric(context: &Context<'_>, name: &str, add: i64) -> Fallible<()> {
    ask(context, |services| services.metric(name, add).map_err(state_error))
}

fn key_values(bindings: &mut Bindings) {
    bindings.function("kv_get", |c: Context, key: &str| {
        from_state(ask(&c, |services| services.kv_get(key).map_err(state_error))?)
    });
    bindings.function("kv_set", |c: Context, key: &str, value: Dynamic| {
        kv_set(&c, key, &value, &Dynamic::UNIT)
    });
    bindings.function("kv_set", |c: Context, key: &str, value: Dynamic, ttl: Dynamic| {
        kv_set(&c, key, &value, &ttl)
    });
    bindings.function("kv_delete", |c: Context, key: &str| {
        ask(&c, |services| services.kv_delete(key).map_err(state_error))
    });
    bindings.function("incr", |c: Context, key: &str| incr(&c, key, 1, &Dynamic::UNIT));
    bindings.function("incr", |c: Context, key: &str, by: i64| incr(&c, key, by, &Dynamic::UNIT));
    bindings
        .function("incr", |c: Context, key: &str, by: i64, ttl: Dynamic| incr(&c, key, by, &ttl));
    bindings.function("kv_cas", |c: Context, key: &str, expected: Dynamic, value: Dynamic| {
        kv_cas(&c, key, &expected, &value, &Dynamic::UNIT)
    });
    bindings.function(
        "kv_cas",
        |c: Context, key: &str, expected: Dynamic, value: Dynamic, ttl: Dynamic| {
            kv_cas(&c, key, &expected, &value, &ttl)
        },
    );
    bindings.function("kv_expire", |c: Context, key: &str, time: Dynamic| {
        let ttl = ttl(&time)?;
        ask(&c, |services| services.kv_expire(key, ttl).map_err(state_error))
    });
}

/// `print` and `debug` are Rhai's own; here they go where `log` goes. Rhai prefers a function for
/// the very type, so each type that it has one for gets ours.
fn logging(bindings: &mut Bindings) {
    bindings.function("log", |c: Context, text: &str| log(&c, Level::Info, text));
    bindings.function("log", |c: Context, name: &str, text: &str| log(&c, level(name)?, text));
    macro_rules! printing {
        ($($kind:ty),+) => {$(
            bindings.function("print", |c: Context, item: $kind| {
                log(&c, Level::Info, &Dynamic::from(item).to_string())?;
                Ok::<_, Box<rhai::EvalAltResult>>(ImmutableString::new())
            });
            bindings.function("debug", |c: Context, item: $kind| {
                let (file, place) = (c.call_source().unwrap_or_default().to_owned(), c.call_position());
                let text = format!("{file}:{place:?}: {:?}", Dynamic::from(item));
                log(&c, Level::Debug, &text)?;
                Ok::<_, Box<rhai::EvalAltResult>>(ImmutableString::new())
            });
        )+};
    }
    printing!(
        Dynamic,
        ImmutableString,
        i64,
        f64,
        bool,
        char,
        (),
        rhai::Array,
        rhai::Map,
        rhai::FnPtr
    );
}
