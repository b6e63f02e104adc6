//! What the functions of the table know: of one call, or of an instance.

use std::{cell::RefCell, ptr, sync::Arc};

use crate::{
    Answer, Capabilities,
    abi::types as raw,
    host::{Event, Services},
};

/// What is behind a [`raw::Context`].
#[repr(C)]
pub(super) struct Frame {
    services: *const dyn Services,
    /// The instance's; null in the instance's own.
    shared: *const Shared,
    event: *const Event,
    needs: Capabilities,
    /// What comes of the call; none in the instance's own, which belongs to no call.
    output: Option<RefCell<Output>>,
}

/// What a call has brought.
#[derive(Default)]
pub(super) struct Output {
    pub(super) answer: Option<Answer>,
    pub(super) failure: Option<String>,
    /// What was handed in and is not valid.
    pub(super) bad: Option<String>,
    pub(super) deferred: Option<u64>,
}

/// An instance's own context: it lives until the last handle of the plugin is gone.
#[repr(C)]
pub(super) struct Shared {
    // First: a pointer to the one is a pointer to the other.
    frame: Frame,
    services: Arc<dyn Services>,
}

// SAFETY: nothing of it changes, and services may be used from any thread.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    pub(super) fn new(services: Arc<dyn Services>, needs: Capabilities) -> Arc<Self> {
        let frame = Frame {
            services: Arc::as_ptr(&services),
            shared: ptr::null(),
            event: ptr::null(),
            needs,
            output: None,
        };
        Arc::new(Self { frame, services })
    }

    pub(super) fn services(&self) -> &Arc<dyn Services> {
        &self.services
    }
}

impl Frame {
    /// Of one call, for as long as all of these live.
    pub(super) fn new(
        shared: &Arc<Shared>,
        services: &Arc<dyn Services>,
        event: Option<&Event>,
    ) -> Self {
        Self {
            services: Arc::as_ptr(services),
            shared: Arc::as_ptr(shared),
            event: event.map_or(ptr::null(), ptr::from_ref),
            needs: shared.frame.needs,
            output: Some(RefCell::default()),
        }
    }

    pub(super) fn as_context(&self) -> *const raw::Context {
        ptr::from_ref(self).cast()
    }

    pub(super) fn into_output(self) -> Output {
        self.output.map(RefCell::into_inner).unwrap_or_default()
    }

    /// The frame of a context.
    ///
    /// # Safety
    /// The pointer is null, or a context that is valid for `'a`: that of a call that has not
    /// ended, or one that `retain` gave and `release` has not taken.
    pub(super) unsafe fn of<'a>(context: *const raw::Context) -> Option<&'a Self> {
        // SAFETY: the caller's promise.
        unsafe { context.cast::<Self>().as_ref() }
    }

    pub(super) fn services(&self) -> &dyn Services {
        // SAFETY: whoever made the frame keeps the services for as long as it lives.
        unsafe { &*self.services }
    }

    pub(super) fn event(&self) -> Option<&Event> {
        // SAFETY: as for the services.
        unsafe { self.event.as_ref() }
    }

    pub(super) const fn needs(&self) -> Capabilities {
        self.needs
    }

    /// Changes what comes of the call; `None` where there is no call.
    pub(super) fn with_output<T>(&self, change: impl FnOnce(&mut Output) -> T) -> Option<T> {
        let mut output = self.output.as_ref()?.try_borrow_mut().ok()?;
        Some(change(&mut output))
    }

    /// One reference more to the instance's own context; null for null.
    ///
    /// # Safety
    /// As for [`Self::of`].
    pub(super) unsafe fn retain(context: *const raw::Context) -> *const raw::Context {
        // SAFETY: the caller's promise.
        let Some(frame) = (unsafe { Self::of(context) }) else { return ptr::null() };
        let own = frame.shared.is_null();
        let shared: *const Shared = if own { context.cast() } else { frame.shared };
        // SAFETY: a frame without a `shared` lies at the start of one, which an `Arc` holds.
        unsafe { Arc::increment_strong_count(shared) };
        shared.cast()
    }

    /// Takes one reference to the instance's own context back.
    ///
    /// # Safety
    /// `context` is null, or one that `retain` gave, with a reference left to take.
    pub(super) unsafe fn release(context: *const raw::Context) {
        // SAFETY: the caller's promise.
        let of_call = unsafe { Self::of(context) }.is_none_or(|frame| !frame.shared.is_null());
        if !of_call {
            // SAFETY: it is no call's, so it is that of a `Shared`; the rest is the caller's
            // promise.
            unsafe { Arc::decrement_strong_count(context.cast::<Shared>()) };
        }
    }
}
