//! One call, and the verdict that it may put off.

use std::{marker::PhantomData, mem::ManuallyDrop, net::SocketAddr, ops::Deref};

use super::{
    AgentView, Host,
    host::{done, obeyed, take_value, taken},
    raw, text, written,
};
use crate::{Answer, Error, Refused, StateError, Value, abi::value};

/// The gateway during one call: everything that [`Host`] has, and what belongs to the call alone.
///
/// What is read here is noted, so that a recorded decision can be replayed; the time stands still;
/// [`generation`](Host::generation) is the one that judges the event. It stays on its thread;
/// `call.clone()` gives a [`Host`] to take elsewhere.
pub struct Call<'a> {
    // Never dropped: it has no reference to give.
    host: ManuallyDrop<Host>,
    call: &'a raw::Call,
    stays: PhantomData<*const ()>,
}

impl Deref for Call<'_> {
    type Target = Host;

    fn deref(&self) -> &Host {
        &self.host
    }
}

impl<'a> Call<'a> {
    /// The call, unless it is one that this crate cannot read.
    ///
    /// # Safety
    /// The pointer is null or comes from a gateway and is valid for `'a`.
    pub(super) unsafe fn new(call: *const raw::Call) -> Option<Self> {
        // SAFETY: not null, and otherwise the caller's promise. The table lives forever.
        let (call, table) = unsafe {
            let call = call.as_ref()?;
            (call, call.table.as_ref()?)
        };
        if call.size < size_of::<raw::Call>() || table.size < size_of::<raw::HostTable>() {
            return None;
        }
        // SAFETY: both are the gateway's; the host is never dropped, and is lent no longer than
        // the call.
        let host = ManuallyDrop::new(unsafe { Host::new(table, call.context) });
        Some(Self { host, call, stays: PhantomData })
    }

    /// A value that this plugin keeps for the connection that the event is about.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn connection_get(&self, key: &str) -> Result<Option<Value>, StateError> {
        let key = raw::Slice::of(key.as_bytes());
        // SAFETY: the context is valid during the call, here and below; the receiver is what
        // `take_value` expects.
        taken(|receiver| unsafe {
            (self.table().connection_get)(self.context(), key, take_value, receiver)
        })
    }

    /// Sets a value for the connection that the event is about; it goes with the connection.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn connection_set(&self, key: &str, value: impl Into<Value>) -> Result<(), StateError> {
        self.connection_put(key, Some(&value.into()))
    }

    /// Removes a value of the connection that the event is about.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn connection_remove(&self, key: &str) -> Result<(), StateError> {
        self.connection_put(key, None)
    }

    fn connection_put(&self, key: &str, value: Option<&Value>) -> Result<(), StateError> {
        let key = raw::Slice::of(key.as_bytes());
        let value = value.map(value::view);
        let value = value.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        // SAFETY: as in `connection_get`.
        done(unsafe { (self.table().connection_set)(self.context(), key, value) })
    }

    /// Puts this call's verdict off: what is given to [`Deferred::complete`], from any thread and
    /// under the hook's time limit, counts in its place. The call itself then returns
    /// [`CONTINUE`](crate::CONTINUE). At on_connect and on_register, once; needs
    /// [`Capabilities::DEFER`](crate::Capabilities::DEFER).
    ///
    /// # Errors
    /// [`Refused`].
    pub fn defer(&self) -> Result<Deferred, Refused> {
        let mut token = 0;
        // SAFETY: as in `connection_get`.
        obeyed(|receiver| unsafe {
            (self.table().defer)(self.context(), &raw mut token, take_value, receiver)
        })?;
        Ok(Deferred { host: Host::clone(self), token, open: true })
    }

    /// Hands the answer over; what the call is to return.
    pub(super) fn answer(&self, verdicts: raw::List<raw::Verdict>) -> i32 {
        // SAFETY: as in `connection_get`; the verdicts are valid until this returns.
        unsafe { (self.table().answer)(self.context(), verdicts) }
    }

    pub(super) fn fail(&self, message: &str) {
        let message = raw::Slice::of(message.as_bytes());
        // SAFETY: as in `connection_get`.
        unsafe { (self.table().fail)(self.context(), message) };
    }

    pub(super) const fn is_dynamic(&self) -> bool {
        self.call.flags & raw::DYNAMIC != 0
    }

    pub(super) const fn point(&self) -> u32 {
        self.call.point
    }

    pub(crate) fn agent(&self) -> Option<AgentView<'a>> {
        // SAFETY: the agents of a call are valid as long as the call.
        unsafe { AgentView::new(self.table(), self.call.agent) }
    }

    pub(crate) fn other(&self) -> Option<AgentView<'a>> {
        // SAFETY: as above.
        unsafe { AgentView::new(self.table(), self.call.other) }
    }

    pub(crate) fn text(&self, which: u32) -> Option<&'a str> {
        // SAFETY: as in `connection_get`; texts of an event are valid as long as the call.
        unsafe {
            let slice = written(raw::Slice::NONE, |out| {
                (self.table().event_text)(self.context(), which, out)
            })?;
            text(slice)
        }
    }

    pub(crate) fn bytes(&self, which: u32) -> Option<&'a [u8]> {
        // SAFETY: as in `text`.
        unsafe {
            written(raw::Slice::NONE, |out| (self.table().event_text)(self.context(), which, out))?
                .bytes()
        }
    }

    pub(crate) fn number(&self, which: u32) -> Option<u64> {
        // SAFETY: as in `connection_get`.
        written(0, |out| unsafe { (self.table().event_number)(self.context(), which, out) })
    }

    pub(crate) fn address(&self) -> Option<SocketAddr> {
        let none = raw::Address { family: 4, port: 0, scope: 0, ip: [0; 16] };
        // SAFETY: as in `connection_get`.
        let address =
            written(none, |out| unsafe { (self.table().event_address)(self.context(), out) });
        address.as_ref().map(value::socket_address)
    }

    pub(crate) fn item(&self, list: u32, index: usize) -> Option<(&'a str, &'a str)> {
        let none = raw::Pair { name: raw::Slice::NONE, value: raw::Slice::NONE };
        // SAFETY: as in `text`.
        unsafe {
            let pair =
                written(none, |out| (self.table().event_item)(self.context(), list, index, out))?;
            Some((text(pair.name)?, text(pair.value).unwrap_or_default()))
        }
    }

    pub(crate) fn find(&self, list: u32, name: &str) -> Option<&'a str> {
        let name = raw::Slice::of(name.as_bytes());
        // SAFETY: as in `text`.
        unsafe {
            let slice = written(raw::Slice::NONE, |out| {
                (self.table().event_find)(self.context(), list, name, out)
            })?;
            text(slice)
        }
    }
}

impl std::fmt::Debug for Call<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Call").field("point", &self.call.point).finish_non_exhaustive()
    }
}

/// A verdict that was put off. Dropped without [`complete`](Self::complete) it fails the hook, so
/// that nobody waits for what cannot come.
#[derive(Debug)]
#[must_use = "dropping it fails the hook"]
pub struct Deferred {
    host: Host,
    token: u64,
    open: bool,
}

impl Deferred {
    /// Gives the verdict; `Err` fails the hook. False when nobody waits for it any more: its time
    /// was up, or the agent is gone.
    ///
    /// ```
    /// # use conexus_plugin_api::{CONTINUE, Call, DenyCode, Outcome, Register, allow, deny};
    /// # fn look_up(did: &str) -> bool { true }
    /// fn on_register(event: &Register<'_>, call: &Call<'_>) -> Outcome {
    ///     let (deferred, did) = (call.defer()?, event.agent().did().to_owned());
    ///     std::thread::spawn(move || {
    ///         let known = look_up(&did);
    ///         deferred.complete(Ok(if known { allow() } else { deny(DenyCode::Denied, "") }))
    ///     });
    ///     Ok(CONTINUE)
    /// }
    /// ```
    pub fn complete(mut self, outcome: Result<Answer, Error>) -> bool {
        self.open = false;
        self.host.complete(self.token, outcome)
    }

    /// The number under which [`Host::complete`] takes the verdict. From here on it is the
    /// plugin's duty that it comes; the hook's time limit bounds the wait.
    #[must_use]
    pub fn into_token(mut self) -> u64 {
        self.open = false;
        self.token
    }
}

impl Drop for Deferred {
    fn drop(&mut self) {
        if self.open {
            self.host.complete(self.token, Err("the deferred verdict was dropped".into()));
        }
    }
}
