//! A plugin's instance, called.

use std::{fmt, ptr, sync::Arc};

use super::{
    Library, event,
    frame::{Frame, Output, Shared},
    table::TABLE,
};
use crate::{
    Agent, Answer, Level,
    abi::types as raw,
    host::{Event, Services},
};

/// What a call brought.
#[derive(Debug, Clone, PartialEq)]
pub enum Returned {
    /// The answer.
    Answer(Answer),
    /// The verdict was put off; [`Services::complete`] will get it with this token.
    Deferred(u64),
}

/// How a call went wrong. Never a denial.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallFault {
    /// The plugin says that it failed.
    #[error("{0}")]
    Failed(String),
    /// It panicked, and the panic was caught.
    #[error("panicked: {0}")]
    Panicked(String),
    /// What it handed over is no answer.
    #[error("bad return: {0}")]
    BadReturn(String),
}

/// An instance of a plugin. Dropped, it is destroyed; whoever drops it has said
/// [`shutdown`](Self::shutdown) before, and no call is running.
pub struct Instance {
    library: Library,
    instance: raw::Instance,
    shared: Arc<Shared>,
}

// SAFETY: the type behind the pointer is a `Plugin`, hence `Send` and `Sync`.
unsafe impl Send for Instance {}
// SAFETY: as above.
unsafe impl Sync for Instance {}

impl Instance {
    pub(super) fn create(
        library: Library,
        config: &str,
        services: Arc<dyn Services>,
    ) -> Result<Self, CallFault> {
        if config.len() > raw::MAX_BYTES {
            return Err(CallFault::Failed("the configuration is too long".into()));
        }
        let mut created = Self {
            library,
            instance: ptr::null_mut(),
            shared: Shared::new(Arc::clone(&services), library.needs()),
        };
        let mut instance = ptr::null_mut();
        let output = created.ask(None, &services, |call| {
            let config = raw::Slice::of(config.as_bytes());
            // SAFETY: the library passed its checks and is never unloaded, here and below; all
            // that is handed in outlives the call.
            unsafe { (library.functions().create)(config, call, &raw mut instance) }
        });
        output?;
        created.instance = instance;
        if instance.is_null() {
            return Err(CallFault::BadReturn("it made nothing".into()));
        }
        Ok(created)
    }

    /// What it is an instance of.
    #[must_use]
    pub const fn library(&self) -> &Library {
        &self.library
    }

    /// Asks about an event. `services` are this call's.
    ///
    /// # Errors
    /// [`CallFault`].
    pub fn call(&self, event: &Event, services: &Arc<dyn Services>) -> Result<Returned, CallFault> {
        if !self.library.points().contains(event.point()) {
            return Ok(Returned::Answer(Answer::CONTINUE));
        }
        let output = self.ask(Some(event), services, |call| {
            // SAFETY: as in `create`; the instance came from there.
            unsafe { (self.library.functions().call)(self.instance, call) }
        })?;
        let answer = output.answer.unwrap_or_default();
        match output.deferred {
            None => Ok(Returned::Answer(answer)),
            Some(token) if answer.is_continue() => Ok(Returned::Deferred(token)),
            Some(_) => Err(CallFault::BadReturn("it both answered and deferred".into())),
        }
    }

    /// Tells it that a timer has run out.
    ///
    /// # Errors
    /// [`CallFault`].
    pub fn timer(&self, tag: u64, services: &Arc<dyn Services>) -> Result<(), CallFault> {
        self.ask(None, services, |call| {
            // SAFETY: as in `call`.
            unsafe { (self.library.functions().timer)(self.instance, tag, call) }
        })
        .map(drop)
    }

    /// Tells it that no call will come any more.
    ///
    /// # Errors
    /// [`CallFault`].
    pub fn shutdown(&self, services: &Arc<dyn Services>) -> Result<(), CallFault> {
        self.ask(None, services, |call| {
            // SAFETY: as in `call`.
            unsafe { (self.library.functions().shutdown)(self.instance, call) }
        })
        .map(drop)
    }

    /// Makes the call that `enter` goes into, and sees to what comes of it.
    #[inline]
    fn ask(
        &self,
        event: Option<&Event>,
        services: &Arc<dyn Services>,
        enter: impl FnOnce(&raw::Call) -> i32,
    ) -> Result<Output, CallFault> {
        let frame = Frame::new(&self.shared, services, event);
        let agent = |agent: Option<&Arc<Agent>>| agent.map_or(ptr::null(), Arc::as_ptr).cast();
        let call = raw::Call {
            size: size_of::<raw::Call>(),
            table: &raw const TABLE,
            context: frame.as_context(),
            point: event.map_or(raw::NO_POINT, |event| event.point() as u32),
            flags: self.library.flags(),
            agent: agent(event.and_then(Event::agent)),
            other: agent(event.and_then(event::other)),
        };
        let status = enter(&call);
        let mut output = frame.into_output();
        let why = output.failure.take();
        let why = || why.unwrap_or_else(|| "it does not say why".into());
        match (status, output.bad.take()) {
            (raw::DONE, None) => Ok(output),
            (raw::FAILED, _) => Err(CallFault::Failed(why())),
            (raw::PANICKED, _) => Err(CallFault::Panicked(why())),
            (_, Some(bad)) => Err(CallFault::BadReturn(bad)),
            (status, None) => Err(CallFault::BadReturn(format!("it returned status {status}"))),
        }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if self.instance.is_null() {
            return;
        }
        let services = Arc::clone(self.shared.services());
        let ended = self.ask(None, &services, |call| {
            // SAFETY: as in `call`, and nothing uses the instance any more.
            unsafe { (self.library.functions().destroy)(self.instance, call) }
        });
        if let Err(fault) = ended {
            services.log(Level::Error, &format!("while it was dropped: {fault}"));
        }
    }
}

impl fmt::Debug for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Instance").field("library", &self.library.name()).finish_non_exhaustive()
    }
}
