//! Panics end where they began: caught, described, told to the gateway.

use std::{
    any::Any,
    cell::{Cell, RefCell},
    panic::{self, AssertUnwindSafe, catch_unwind},
    sync::Once,
};

thread_local! {
    /// How deep this thread is in calls of the gateway.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    /// Where the last panic within a call happened.
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs it; `Err` is what the panic said.
pub(super) fn contained<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    let _deeper = Deeper::enter();
    catch_unwind(AssertUnwindSafe(run)).map_err(|payload| {
        let text = describe(&*payload);
        // A payload may panic when it is dropped; the payload of that panic is left alone.
        if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
            std::mem::forget(again);
        }
        text
    })
}

fn describe(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let text = text.unwrap_or("a panic that says nothing");
    let place = PLACE.try_with(|place| place.try_borrow_mut().ok()?.take());
    match place.ok().flatten() {
        Some(place) => format!("{text}, at {place}"),
        None => text.to_owned(),
    }
}

/// Notes where a panic within a call happens, in place of a backtrace on stderr. Only for a
/// library with a standard library of its own: elsewhere the hook is the program's.
pub(super) fn note_places() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if DEPTH.try_with(Cell::get).unwrap_or(0) == 0 {
                return before(info);
            }
            let at = info.location().map(ToString::to_string);
            let _ = PLACE.try_with(|place| place.try_borrow_mut().map(|mut place| *place = at));
        }));
    });
}

struct Deeper;

impl Deeper {
    fn enter() -> Self {
        let _ = DEPTH.try_with(|depth| depth.set(depth.get().saturating_add(1)));
        Self
    }
}

impl Drop for Deeper {
    fn drop(&mut self) {
        let _ = DEPTH.try_with(|depth| depth.set(depth.get().saturating_sub(1)));
    }
}
