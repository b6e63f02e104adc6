//! The functions behind a descriptor, one set per plugin type.

use super::{Call, Host, encode, panics, raw};
use crate::{Answer, Capabilities, Error, Outcome, Plugin, Point, abi::LAYOUT, event};

/// What only the plugin's own crate knows. Made by [`declare_plugin!`](crate::declare_plugin).
#[derive(Debug, Clone, Copy)]
pub struct About {
    /// The crate's name.
    pub name: &'static str,
    /// The crate's version.
    pub version: &'static str,
    /// Whether its panics unwind.
    pub unwinds: bool,
}

/// The descriptor of a plugin.
#[must_use]
pub const fn descriptor<P: Plugin>(about: About) -> raw::Descriptor {
    const fn text(text: &'static str) -> raw::Slice {
        raw::Slice::of(text.as_bytes())
    }
    let Capabilities(capabilities) = P::NEEDS;
    raw::Descriptor {
        magic: raw::MAGIC,
        size: size_of::<raw::Descriptor>(),
        major: raw::MAJOR,
        minor: raw::MINOR,
        layout: LAYOUT,
        points: P::POINTS.bits(),
        panic: if about.unwinds { raw::PANIC_UNWIND } else { raw::PANIC_ABORT },
        capabilities,
        name: text(about.name),
        version: text(about.version),
        rustc: text(env!("CONEXUS_RUSTC")),
        target: text(env!("CONEXUS_TARGET")),
        create: Some(create::<P>),
        destroy: Some(destroy::<P>),
        call: Some(call::<P>),
        timer: Some(timer::<P>),
        shutdown: Some(shutdown::<P>),
    }
}

unsafe extern "C" fn create<P: Plugin>(
    config: raw::Slice,
    call: *const raw::Call,
    out: *mut raw::Instance,
) -> i32 {
    // SAFETY: the gateway's promise, here and below: pointers are valid for the call.
    unsafe {
        guarded(call, |call| {
            if call.is_dynamic() {
                panics::note_places();
            }
            let config = config.text().ok_or("the configuration is no text")?;
            let mut config = serde_json::Deserializer::from_str(config);
            let config = serde_path_to_error::deserialize(&mut config).map_err(misfit)?;
            let plugin = P::new(config, Host::clone(call))?;
            *out = Box::into_raw(Box::new(plugin)).cast();
            Ok(Answer::CONTINUE)
        })
    }
}

/// What is wrong at which key. Line and column are those of a JSON text that no operator ever saw.
fn misfit(error: serde_path_to_error::Error<serde_json::Error>) -> Error {
    let path = error.path().to_string();
    let key = if path == "." { "config".to_owned() } else { format!("config.{path}") };
    let error = error.into_inner();
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    format!("{key}: {}", text.strip_suffix(place.as_str()).unwrap_or(&text)).into()
}

unsafe extern "C" fn destroy<P: Plugin>(instance: raw::Instance, call: *const raw::Call) -> i32 {
    // SAFETY: as in `create`; the instance is one that `create` gave, and this is its last use.
    unsafe {
        guarded(call, |_| {
            drop(Box::from_raw(instance.cast::<P>()));
            Ok(Answer::CONTINUE)
        })
    }
}

unsafe extern "C" fn call<P: Plugin>(instance: raw::Instance, call: *const raw::Call) -> i32 {
    // SAFETY: as in `create`; the instance is one that `create` gave and `destroy` did not take.
    unsafe { guarded(call, |call| dispatch(&*instance.cast::<P>(), call)) }
}

unsafe extern "C" fn timer<P: Plugin>(
    instance: raw::Instance,
    tag: u64,
    call: *const raw::Call,
) -> i32 {
    // SAFETY: as in `call`.
    unsafe { guarded(call, |call| done((*instance.cast::<P>()).on_timer(tag, call))) }
}

unsafe extern "C" fn shutdown<P: Plugin>(instance: raw::Instance, call: *const raw::Call) -> i32 {
    // SAFETY: as in `call`.
    unsafe {
        guarded(call, |_| {
            (*instance.cast::<P>()).shutdown();
            Ok(Answer::CONTINUE)
        })
    }
}

/// Runs it within a call, and tells the gateway how it ended.
///
/// # Safety
/// As [`Call::new`] asks.
unsafe fn guarded(call: *const raw::Call, run: impl FnOnce(&Call<'_>) -> Outcome) -> i32 {
    // SAFETY: the caller's promise.
    let Some(call) = (unsafe { Call::new(call) }) else { return raw::INVALID };
    // Errors are described inside as well: whatever the plugin wrote may panic.
    let ended = panics::contained(|| match run(&call) {
        Ok(answer) if answer.is_continue() => raw::DONE,
        Ok(answer) => encode::with_raw(&answer, |verdicts| call.answer(verdicts)),
        Err(error) => {
            call.fail(&encode::chain(&*error));
            raw::FAILED
        }
    });
    ended.unwrap_or_else(|panic| {
        call.fail(&panic);
        raw::PANICKED
    })
}

/// Asks the plugin what the gateway asks.
fn dispatch<P: Plugin>(plugin: &P, call: &Call<'_>) -> Outcome {
    let point = usize::try_from(call.point()).ok().and_then(Point::from_index);
    let Some(point) = point else { return Err("there is no such point".into()) };
    match point {
        Point::Connect => plugin.on_connect(&event::Connect::new(call)?, call),
        Point::Register => plugin.on_register(&event::Register::new(call)?, call),
        Point::Route => plugin.on_route(&event::Route::new(call)?, call),
        Point::Undeliverable => plugin.on_undeliverable(&event::Route::new(call)?, call),
        Point::Watch => plugin.on_watch(&event::Watch::new(call)?, call),
        Point::Expire => plugin.on_expire(&event::Expire::new(call)?, call),
        Point::Registered => done(plugin.on_registered(&event::Registered::new(call)?, call)),
        Point::Replaced => done(plugin.on_replaced(&event::Replaced::new(call)?, call)),
        Point::Delivered => done(plugin.on_delivered(&event::Delivered::new(call)?, call)),
        Point::Disconnect => done(plugin.on_disconnect(&event::Disconnect::new(call)?, call)),
        Point::Unregister => done(plugin.on_unregister(&event::Unregister::new(call)?, call)),
        Point::Start => done(plugin.on_start(call)),
        Point::Stop => done(plugin.on_stop(call)),
        Point::Reload => done(plugin.on_reload(call)),
        Point::Tick => done(plugin.on_tick(call)),
        Point::HookError => done(plugin.on_hook_error(&event::HookError::new(call)?, call)),
    }
}

fn done(result: Result<(), Error>) -> Outcome {
    result.map(|()| Answer::CONTINUE)
}
