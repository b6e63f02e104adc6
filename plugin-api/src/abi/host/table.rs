//! The functions that plugins call.
//!
//! Each checks what it is handed, and none lets a panic of the gateway out: unwinding into a
//! plugin would end the process.

use std::{
    ffi::c_void,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use super::{decode, event, frame::Frame};
use crate::{
    Agent, AgentFilter, Capabilities, Level, Refused, StateError, Value,
    abi::{types as raw, value},
};

/// Made once, valid forever.
pub(super) static TABLE: raw::HostTable = raw::HostTable {
    size: size_of::<raw::HostTable>(),
    retain,
    release,
    answer,
    fail,
    defer,
    complete,
    event_text,
    event_number,
    event_address,
    event_item,
    event_find,
    agent_retain,
    agent_release,
    agent_text,
    agent_number,
    agent_address,
    agent_item,
    agent_find,
    now_ms,
    generation,
    log,
    kv_get,
    kv_set,
    kv_delete,
    kv_incr,
    kv_cas,
    kv_expire,
    rate_limit,
    connection_get,
    connection_set,
    agent,
    agents,
    send,
    disconnect,
    metric,
    timer,
};

/// What a function is to return in place of [`raw::DONE`].
type Done = Result<(), i32>;

fn contained<T>(failed: T, run: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|payload| {
        // Its drop might panic in turn; the payload of that is left alone.
        if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
            std::mem::forget(again);
        }
        failed
    })
}

/// Runs it with the frame of a context.
///
/// # Safety
/// As [`Frame::of`] asks.
unsafe fn with(context: *const raw::Context, run: impl FnOnce(&Frame) -> Done) -> i32 {
    // SAFETY: the caller's promise.
    let Some(frame) = (unsafe { Frame::of(context) }) else { return raw::INVALID };
    contained(raw::INTERNAL, || run(frame).err().unwrap_or(raw::DONE))
}

/// Runs it with an agent.
///
/// # Safety
/// The pointer is null or leads to an agent.
unsafe fn with_agent(agent: *const raw::Agent, run: impl FnOnce(&Agent) -> Done) -> i32 {
    // SAFETY: the caller's promise.
    let Some(agent) = (unsafe { decode::checked(agent.cast::<Agent>()) }) else {
        return raw::INVALID;
    };
    contained(raw::INTERNAL, || run(agent).err().unwrap_or(raw::DONE))
}

/// Writes what there is.
///
/// # Safety
/// `out` is null, misaligned, or may be written.
unsafe fn write<T>(out: *mut T, found: Option<T>) -> Done {
    let found = found.ok_or(raw::ABSENT)?;
    if out.is_null() || !out.is_aligned() {
        return Err(raw::INVALID);
    }
    // SAFETY: neither null nor misaligned; the rest is the caller's promise.
    unsafe { out.write(found) };
    Ok(())
}

/// # Safety
/// As for [`raw::Slice::bytes`].
unsafe fn text<'a>(slice: raw::Slice) -> Result<&'a str, i32> {
    // SAFETY: the caller's promise.
    unsafe { slice.text() }.ok_or(raw::INVALID)
}

/// # Safety
/// As for [`raw::Slice::bytes`].
unsafe fn maybe_text(slice: raw::Slice) -> Result<Option<String>, i32> {
    if slice.data.is_null() {
        return Ok(None);
    }
    // SAFETY: the caller's promise.
    unsafe { text(slice) }.map(|text| Some(text.into()))
}

const fn view(text: &str) -> raw::Slice {
    raw::Slice::of(text.as_bytes())
}

fn pair((name, value): (&str, &str)) -> raw::Pair {
    raw::Pair { name: view(name), value: view(value) }
}

const fn maybe_time(nanos: u64) -> Option<Duration> {
    if nanos == raw::NO_TIME { None } else { Some(Duration::from_nanos(nanos)) }
}

const fn state(error: StateError) -> i32 {
    value::code(error)
}

const fn whether(yes: bool, otherwise: i32) -> Done {
    if yes { Ok(()) } else { Err(otherwise) }
}

/// Hands a value to the plugin, if there is one.
///
/// # Safety
/// `take` and `receiver` belong together.
unsafe fn give(found: Option<&Value>, take: raw::TakeValue, receiver: *mut c_void) -> Done {
    let value = value::view(found.ok_or(raw::ABSENT)?);
    // SAFETY: the caller's promise; the value lives until this returns.
    unsafe { take(receiver, &raw const value) };
    Ok(())
}

/// What a refusal returns; its reason goes to the plugin.
///
/// # Safety
/// As for [`give`].
unsafe fn refused(refused: Refused, take: raw::TakeValue, receiver: *mut c_void) -> i32 {
    match refused {
        Refused::Absent => raw::ABSENT,
        Refused::Full => raw::FULL,
        Refused::Invalid(why) => {
            // SAFETY: the caller's promise.
            let _ = unsafe { give(Some(&Value::from(why)), take, receiver) };
            raw::REFUSED
        }
    }
}

// Below, all safety is the plugin's promise: contexts, agents and pointers to memory are those
// that the table's documentation asks for, and valid until the function returns.

unsafe extern "C" fn retain(context: *const raw::Context) -> *const raw::Context {
    // SAFETY: the plugin's promise.
    unsafe { Frame::retain(context) }
}

unsafe extern "C" fn release(context: *const raw::Context) {
    // SAFETY: the plugin's promise.
    contained((), || unsafe { Frame::release(context) });
}

unsafe extern "C" fn answer(
    context: *const raw::Context,
    verdicts: raw::List<raw::Verdict>,
) -> i32 {
    // SAFETY: the plugin's promise.
    unsafe {
        with(context, |frame| {
            let answer = decode::answer(verdicts);
            let noted = frame.with_output(|output| match answer {
                Ok(_) if output.answer.is_some() => Err("it answered twice".into()),
                Ok(answer) => {
                    output.answer = Some(answer);
                    Ok(())
                }
                Err(why) => Err(why),
            });
            let Err(why) = noted.ok_or(raw::REFUSED)? else { return Ok(()) };
            frame.with_output(|output| output.bad = Some(why));
            Err(raw::INVALID)
        })
    }
}

unsafe extern "C" fn fail(context: *const raw::Context, message: raw::Slice) -> i32 {
    // SAFETY: the plugin's promise.
    unsafe {
        with(context, |frame| {
            let message = decode::message(message);
            frame.with_output(|output| output.failure = Some(message)).ok_or(raw::REFUSED)
        })
    }
}

unsafe extern "C" fn defer(
    context: *const raw::Context,
    token: *mut u64,
    take: raw::TakeValue,
    receiver: *mut c_void,
) -> i32 {
    // SAFETY: the plugin's promise.
    unsafe {
        with(context, |frame| {
            let why_not = |why: &str| Refused::Invalid(why.into());
            let deferred = if !frame.needs().has(Capabilities::DEFER) {
                Err(why_not("the plugin does not declare that it needs to defer"))
            } else if frame.event().is_none() {
                Err(why_not("there is no event to decide about"))
            } else {
                frame.services().defer()
            };
            let deferred = deferred.map_err(|why| refused(why, take, receiver))?;
            frame.with_output(|output| output.deferred = Some(deferred)).ok_or(raw::REFUSED)?;
            write(token, Some(deferred))
        })
    }
}

unsafe extern "C" fn complete(
    context: *const raw::Context,
    token: u64,
    verdicts: raw::List<raw::Verdict>,
    error: raw::Slice,
) -> i32 {
    // SAFETY: the plugin's promise.
    unsafe {
        with(context, |frame| {
            let outcome = if error.data.is_null() {
                decode::answer(verdicts)
            } else {
                Err(decode::message(error))
            };
            whether(frame.services().complete(token, outcome), raw::NO)
        })
    }
}

unsafe extern "C" fn event_text(
    context: *const raw::Context,
    which: u32,
    out: *mut raw::Slice,
) -> i32 {
    // SAFETY: the plugin's promise.
    unsafe {
        with(context, |frame| {
            let event = frame.event().ok_or(raw::ABSENT)?;
            if event::is_secret(which) {
                frame.services().secret_read();
            }
            write(out, event::text(event, which).map(raw::Slice::of))
        })
    }
}

unsafe extern "C" fn event_number(context: *const raw::Context, which: u32, out: *mut u64) -> i32 {
    // SAFETY: the plugin's promise.
    unsafe {
        with(context, |frame| {
            write(out, frame.event().and_then(|event| event::number(event, which)))
        })
    }
}

unsafe extern "C" fn event_address(context: *const raw::Context, out: *mut raw::Address) -> i32 {
    // SAFETY: the plugin's promise.
    unsafe {
        with(context, |frame| {
            let crate::host::Event::Connect(event) = frame.event().ok_or(raw::ABSENT)? else {
                return Err(raw::ABSENT);
            };
            write(out, Some(value::address(event.address)))
        })
    }
}

/// The headers, as a list that is read; whoever looks at them has seen a secret.
fn headers(frame: &Frame, list: u32) -> Result<&[(String, String)], i32> {
    let event = frame.event().filter(|_| list == raw::LIST_HEADERS).ok_or(raw::ABSENT)?;
    frame.services().secret_read();
    Ok(event::headers(event))
}

unsafe extern "C" fn event_item(
    context: *const raw::Context,
    list: u32,
    index: usize,
    out: *mut raw::Pair,
) -> i32 {
    // SAFETY: the plugin's promise.
    unsafe {
        with(context, |frame| {
            if let Some(names) = frame.event().and_then(|event| event::client_names(event, list)) {
                return write(out, names.get(index).map(|name| pair((name, ""))));
            }
            let header = headers(frame, list)?.get(index);
            write(out, header.map(|(name, value)| pair((name, value))))
        })
    }
}

unsafe extern "C" fn event_find(
    context: *const raw::Context,
    list: u32,
    name: raw::Slice,
    out: *mut raw::Slice,
) -> i32 {
    // SAFETY: the plugin's promise.
    unsafe {
        with(context, |frame| {
            let name = text(name)?;
            let mut headers = headers(frame, list)?.iter();
            let header = headers.find(|(known, _)| known.eq_ignore_ascii_case(name));
            write(out, header.map(|(_, value)| view(value)))
        })
    }
}

unsafe extern "C" fn agent_retain(agent: *const raw::Agent) {
    if !agent.is_null() {
        // SAFETY: every agent that plugins see is held by an `Arc`.
        unsafe { Arc::increment_strong_count(agent.cast::<Agent>()) };
    }
}

unsafe extern "C" fn agent_release(agent: *const raw::Agent) {
    if !agent.is_null() {
        // SAFETY: as above, and the plugin has a reference to give back.
        contained((), || unsafe { Arc::decrement_strong_count(agent.cast::<Agent>()) });
    }
}

unsafe extern "C" fn agent_text(agent: *const raw::Agent, which: u32, out: *mut raw::Slice) -> i32 {
    // SAFETY: the plugin's promise.
    unsafe {
        with_agent(agent, |agent| write(out, event::agent_text(agent, which).map(raw::Slice::of)))
    }
}

unsafe extern "C" fn agent_number(agent: *const raw::Agent, which: u32, out: *mut u64) -> i32 {
    // SAFETY: the plugin's promise.
    unsafe { with_agent(agent, |agent| write(out, event::agent_number(agent, which))) }
}

unsafe extern "C" fn agent_address(agent: *const raw::Agent, out: *mut raw::Address) -> i32 {
    // SAFETY: the plugin's promise.
    unsafe { with_agent(agent, |agent| write(out, Some(value::address(agent.address)))) }
}

unsafe extern "C" fn agent_item(
    agent: *const raw::Agent,
    list: u32,
    index: usize,
    out: *mut raw::Pair,
) -> i32 {
    // SAFETY: the plugin's promise.
    unsafe {
        with_agent(agent, |agent| write(out, event::agent_item(agent, list, index).map(pair)))
    }
}

unsafe extern "C" fn agent_find(
    agent: *const raw::Agent,
    list: u32,
    name: raw::Slice,
    out: *mut raw::Slice,
) -> i32 {
    // SAFETY: the plugin's promise.
    unsafe {
        with_agent(agent, |agent| write(out, event::agent_find(agent, list, text(name)?).map(view)))
    }
}

unsafe extern "C" fn now_ms(context: *const raw::Context) -> i64 {
    // SAFETY: the plugin's promise.
    let frame = unsafe { Frame::of(context) };
    frame.map_or(0, |frame| contained(0, || frame.services().now_ms()))
}

unsafe extern "C" fn generation(context: *const raw::Context) -> u64 {
    // SAFETY: the plugin's promise.
    let frame = unsafe { Frame::of(context) };
    frame.map_or(0, |frame| contained(0, || frame.services().generation()))
}

unsafe extern "C" fn log(context: *const raw::Context, level: u32, line: raw::Slice) -> i32 {
    const LEVELS: [Level; 5] = [Level::Trace, Level::Debug, Level::Info, Level::Warn, Level::Error];
    // SAFETY: the plugin's promise.
    unsafe {
        with(context, |frame| {
            let level = usize::try_from(level).ok().and_then(|level| LEVELS.get(level).copied());
            frame.services().log(level.ok_or(raw::INVALID)?, text(line)?);
            Ok(())
        })
    }
}

unsafe extern "C" fn kv_get(
    context: *const raw::Context,
    key: raw::Slice,
    take: raw::TakeValue,
    receiver: *mut c_void,
) -> i32 {
    // SAFETY: the plugin's promise.
    unsafe {
        with(context, |frame| {
            let found = frame.services().kv_get(text(key)?).map_err(state)?;
            give(found.as_ref(), take, receiver)
        })
    }
}

unsafe extern "C" fn kv_set(
    context: *const raw::Context,
    key: raw::Slice,
    value: *const raw::Value,
    ttl: u64,
) -> i32 {
    // SAFETY: the plugin's promise.
    unsafe {
        with(context, |frame| {
            let value = value::read(value).ok_or(raw::INVALID)?;
            frame.services().kv_set(text(key)?, value, maybe_time(ttl)).map_err(state)
        })
    }
}

unsafe extern "C" fn kv_delete(context: *const raw::Context, key: raw::Slice) -> i32 {
    // SAFETY: the plugin's promise.
    unsafe {
        with(context, |frame| {
            whether(frame.services().kv_delete(text(key)?).map_err(state)?, raw::ABSENT)
        })
    }
}

unsafe extern "C" fn kv_incr(
    context: *const raw::Context,
    key: raw::Slice,
    by: i64,
    ttl: u64,
    sum: *mut i64,
) -> i32 {
    // SAFETY: the plugin's promise.
    unsafe {
        with(context, |frame| {
            let new = frame.services().kv_incr(text(key)?, by, maybe_time(ttl)).map_err(state)?;
            write(sum, Some(new))
        })
    }
}

unsafe extern "C" fn kv_cas(
    context: *const raw::Context,
    key: raw::Slice,
    expected: *const raw::Value,
    value: *const raw::Value,
    ttl: u64,
) -> i32 {
    // SAFETY: the plugin's promise.
    unsafe {
        with(context, |frame| {
            let expected = match expected.is_null() {
                true => None,
                false => Some(value::read(expected).ok_or(raw::INVALID)?),
            };
            let value = value::read(value).ok_or(raw::INVALID)?;
            let services = frame.services();
            let did = services.kv_cas(text(key)?, expected.as_ref(), value, maybe_time(ttl));
            whether(did.map_err(state)?, raw::NO)
        })
    }
}

unsafe extern "C" fn kv_expire(context: *const raw::Context, key: raw::Slice, ttl: u64) -> i32 {
    // SAFETY: the plugin's promise.
    unsafe {
        with(context, |frame| {
            let there = frame.services().kv_expire(text(key)?, maybe_time(ttl)).map_err(state)?;
            whether(there, raw::ABSENT)
        })
    }
}

unsafe extern "C" fn rate_limit(
    context: *const raw::Context,
    key: raw::Slice,
    count: u32,
    per: u64,
) -> i32 {
    // SAFETY: the plugin's promise.
    unsafe {
        with(context, |frame| {
            let per = Duration::from_nanos(per);
            let within = frame.services().rate_limit(text(key)?, count, per).map_err(state)?;
            whether(within, raw::NO)
        })
    }
}

unsafe extern "C" fn connection_get(
    context: *const raw::Context,
    key: raw::Slice,
    take: raw::TakeValue,
    receiver: *mut c_void,
) -> i32 {
    // SAFETY: the plugin's promise.
    unsafe {
        with(context, |frame| {
            let found = frame.services().connection_get(text(key)?).map_err(state)?;
            give(found.as_ref(), take, receiver)
        })
    }
}

unsafe extern "C" fn connection_set(
    context: *const raw::Context,
    key: raw::Slice,
    value: *const raw::Value,
) -> i32 {
    // SAFETY: the plugin's promise.
    unsafe {
        with(context, |frame| {
            let value = match value.is_null() {
                true => None,
                false => Some(value::read(value).ok_or(raw::INVALID)?),
            };
            frame.services().connection_set(text(key)?, value).map_err(state)
        })
    }
}

unsafe extern "C" fn agent(
    context: *const raw::Context,
    did: raw::Slice,
    take: raw::TakeAgent,
    receiver: *mut c_void,
) -> i32 {
    // SAFETY: the plugin's promise.
    unsafe {
        with(context, |frame| {
            let agent = frame.services().agent(text(did)?).map_err(state)?.ok_or(raw::ABSENT)?;
            take(receiver, Arc::into_raw(agent).cast());
            Ok(())
        })
    }
}

unsafe extern "C" fn agents(
    context: *const raw::Context,
    filter: *const raw::Filter,
    take: raw::TakeAgent,
    receiver: *mut c_void,
) -> i32 {
    // SAFETY: the plugin's promise.
    unsafe {
        with(context, |frame| {
            let raw = decode::checked(filter).ok_or(raw::INVALID)?;
            let filter = AgentFilter {
                capability: maybe_text(raw.capability)?,
                name: maybe_text(raw.name)?,
                label: maybe_text(raw.label.name)?.zip(maybe_text(raw.label.value)?),
                limit: raw.limit,
            };
            for agent in frame.services().agents(&filter).map_err(state)? {
                take(receiver, Arc::into_raw(agent).cast());
            }
            Ok(())
        })
    }
}

unsafe extern "C" fn send(
    context: *const raw::Context,
    did: raw::Slice,
    kind: raw::Slice,
    payload: raw::Slice,
    take: raw::TakeValue,
    receiver: *mut c_void,
) -> i32 {
    // SAFETY: the plugin's promise.
    unsafe {
        with(context, |frame| {
            let sent = frame.services().send(text(did)?, text(kind)?, text(payload)?);
            sent.map_err(|why| refused(why, take, receiver))
        })
    }
}

unsafe extern "C" fn disconnect(
    context: *const raw::Context,
    did: raw::Slice,
    reason: raw::Slice,
) -> i32 {
    // SAFETY: the plugin's promise.
    unsafe {
        with(context, |frame| {
            whether(frame.services().disconnect(text(did)?, text(reason)?), raw::ABSENT)
        })
    }
}

unsafe extern "C" fn metric(context: *const raw::Context, name: raw::Slice, add: i64) -> i32 {
    // SAFETY: the plugin's promise.
    unsafe { with(context, |frame| frame.services().metric(text(name)?, add).map_err(state)) }
}

unsafe extern "C" fn timer(
    context: *const raw::Context,
    after: u64,
    tag: u64,
    take: raw::TakeValue,
    receiver: *mut c_void,
) -> i32 {
    // SAFETY: the plugin's promise.
    unsafe {
        with(context, |frame| {
            let begun = if frame.needs().has(Capabilities::TIMER) {
                frame.services().timer(Duration::from_nanos(after), tag)
            } else {
                Err(Refused::Invalid("the plugin does not declare that it needs timers".into()))
            };
            begun.map_err(|why| refused(why, take, receiver))
        })
    }
}
