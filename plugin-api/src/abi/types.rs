//! The types and numbers that both sides agree on.
//!
//! `Descriptor`, `Call` and `HostTable` may grow at their end within a major version, so they
//! begin with their size (the descriptor behind its magic). All others are fixed.

use std::{ffi::c_void, marker::PhantomData, ptr, time::Duration};

/// The first bytes of every descriptor, in every version.
pub const MAGIC: [u8; 8] = *b"CONEXUS\x01";

/// Incremented by a change that breaks plugins built before.
pub const MAJOR: u32 = 1;

/// Incremented by an addition.
pub const MINOR: u32 = 0;

/// The longest text, value or list of bytes that crosses.
pub const MAX_BYTES: usize = 16 * 1024 * 1024;

/// The most elements of a list that crosses.
pub const MAX_ITEMS: usize = 4096;

/// Stands for no time at all where a time is optional. Times are nanoseconds.
pub const NO_TIME: u64 = u64::MAX;

/// What a plugin's export returns. The members up to `layout` are the same in every version.
#[repr(C)]
#[derive(Debug)]
pub struct Descriptor {
    /// [`MAGIC`].
    pub magic: [u8; 8],
    /// Bytes of this structure as the plugin knows it.
    pub size: usize,
    /// [`MAJOR`] that the plugin was built for.
    pub major: u32,
    /// [`MINOR`] that the plugin was built for.
    pub minor: u32,
    /// [`LAYOUT`](super::LAYOUT) that the plugin was built for.
    pub layout: u64,
    /// Bits of [`PointSet`](crate::PointSet).
    pub points: u32,
    /// [`PANIC_UNWIND`], or anything else for a plugin that would take the gateway down.
    pub panic: u32,
    /// Bits of [`Capabilities`](crate::Capabilities).
    pub capabilities: u64,
    /// The plugin's crate.
    pub name: Slice,
    /// The plugin's version.
    pub version: Slice,
    /// The compiler, for people.
    pub rustc: Slice,
    /// The target triple, for people.
    pub target: Slice,
    /// Makes an instance from a configuration in JSON.
    pub create: Option<Create>,
    /// Ends an instance. Nothing is called on it afterwards.
    pub destroy: Option<Destroy>,
    /// Asks an instance about an event.
    pub call: Option<OnEvent>,
    /// Tells an instance that a timer has run out.
    pub timer: Option<OnTimer>,
    /// Tells an instance that no further event will come.
    pub shutdown: Option<Shutdown>,
}

// SAFETY: a descriptor is never changed, and its pointers lead to static text and code.
unsafe impl Sync for Descriptor {}

/// The one exported function, `conexus_plugin_` and the crate's name. Gives a static.
pub type Entry = extern "C" fn() -> *const Descriptor;
/// `config` is JSON. Writes an instance to `out` if it returns [`DONE`].
pub type Create = unsafe extern "C" fn(config: Slice, call: *const Call, out: *mut Instance) -> i32;
/// Drops an instance.
pub type Destroy = unsafe extern "C" fn(instance: Instance, call: *const Call) -> i32;
/// Asks about the event of `call`.
pub type OnEvent = unsafe extern "C" fn(instance: Instance, call: *const Call) -> i32;
/// A timer with this tag ran out.
pub type OnTimer = unsafe extern "C" fn(instance: Instance, tag: u64, call: *const Call) -> i32;
/// The last call but `destroy`.
pub type Shutdown = unsafe extern "C" fn(instance: Instance, call: *const Call) -> i32;

/// A plugin's instance; only the plugin knows what it points to.
pub type Instance = *mut c_void;

/// [`Descriptor::panic`]: panics unwind and are caught.
pub const PANIC_UNWIND: u32 = 1;
/// [`Descriptor::panic`]: panics abort the process.
pub const PANIC_ABORT: u32 = 2;

// What functions return, on both sides.
/// Done; in a plugin's call: what was handed to `answer`, or else `continue`.
pub const DONE: i32 = 0;
/// There is no such thing: no value, no such agent.
pub const ABSENT: i32 = 1;
/// A condition does not hold: over the limit, another value than expected, nobody waits.
pub const NO: i32 = 2;
/// The plugin failed; it said why to `fail`.
pub const FAILED: i32 = 3;
/// The plugin panicked; it said why to `fail`.
pub const PANICKED: i32 = 4;
/// What was handed in is not valid: a null pointer, a wild length, no UTF-8, an unknown kind.
pub const INVALID: i32 = 5;
/// Not here, or not now.
pub const REFUSED: i32 = 6;
/// The gateway itself failed.
pub const INTERNAL: i32 = 7;
/// No room. [`StateError::Full`](crate::StateError::Full), [`Refused::Full`](crate::Refused::Full).
pub const FULL: i32 = 16;
/// [`StateError::TooLong`](crate::StateError::TooLong).
pub const TOO_LONG: i32 = 17;
/// [`StateError::NotANumber`](crate::StateError::NotANumber).
pub const NOT_A_NUMBER: i32 = 18;
/// [`StateError::Overflow`](crate::StateError::Overflow).
pub const OVERFLOW: i32 = 19;
/// [`StateError::BadRate`](crate::StateError::BadRate).
pub const BAD_RATE: i32 = 20;
/// [`StateError::NoConnection`](crate::StateError::NoConnection).
pub const NO_CONNECTION: i32 = 21;
/// [`StateError::Unavailable`](crate::StateError::Unavailable).
pub const UNAVAILABLE: i32 = 22;

/// Bytes, mostly UTF-8, that the receiver may read during the call and no longer. A null pointer
/// stands for none at all.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Slice {
    /// The first byte.
    pub data: *const u8,
    /// How many.
    pub len: usize,
}

impl Slice {
    /// None at all, which is not the same as an empty text.
    pub const NONE: Self = Self { data: ptr::null(), len: 0 };

    /// A view of these bytes.
    #[must_use]
    pub const fn of(bytes: &[u8]) -> Self {
        Self { data: bytes.as_ptr(), len: bytes.len() }
    }

    /// A view of this text, or none.
    #[must_use]
    pub fn maybe(text: Option<&str>) -> Self {
        text.map_or(Self::NONE, |text| Self::of(text.as_bytes()))
    }

    /// The bytes; `None` for a null pointer and for a length over [`MAX_BYTES`].
    ///
    /// # Safety
    /// A pointer that is not null must lead to `len` bytes that stay as they are for `'a`.
    #[must_use]
    pub unsafe fn bytes<'a>(self) -> Option<&'a [u8]> {
        if self.data.is_null() || self.len > MAX_BYTES {
            return None;
        }
        // SAFETY: not null and of a sane length, the rest is the caller's promise.
        Some(unsafe { std::slice::from_raw_parts(self.data, self.len) })
    }

    /// The text; `None` also for what is not UTF-8.
    ///
    /// # Safety
    /// As for [`Self::bytes`].
    #[must_use]
    pub unsafe fn text<'a>(self) -> Option<&'a str> {
        // SAFETY: the caller's promise.
        unsafe { self.bytes() }.and_then(|bytes| std::str::from_utf8(bytes).ok())
    }
}

/// A list, under the same rules as [`Slice`].
#[repr(C)]
#[derive(Debug)]
pub struct List<T> {
    /// The first element.
    pub data: *const T,
    /// How many.
    pub len: usize,
}

impl<T> Clone for List<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for List<T> {}

impl<T> List<T> {
    /// A view of these.
    #[must_use]
    pub const fn of(items: &[T]) -> Self {
        Self { data: items.as_ptr(), len: items.len() }
    }

    /// The elements; `None` for a null or misaligned pointer and for more than [`MAX_ITEMS`].
    ///
    /// # Safety
    /// A pointer that passes must lead to `len` elements that stay as they are for `'a`.
    #[must_use]
    pub unsafe fn items<'a>(self) -> Option<&'a [T]> {
        if self.len == 0 {
            return Some(&[]);
        }
        if self.data.is_null() || !self.data.is_aligned() || self.len > MAX_ITEMS {
            return None;
        }
        // SAFETY: not null, aligned and of a sane length, the rest is the caller's promise.
        Some(unsafe { std::slice::from_raw_parts(self.data, self.len) })
    }
}

/// A name and its value.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Pair {
    /// The name.
    pub name: Slice,
    /// The value.
    pub value: Slice,
}

/// What a plugin is called with. Valid for the call, on the thread of the call.
#[repr(C)]
#[derive(Debug)]
pub struct Call {
    /// Bytes of this structure as the gateway knows it.
    pub size: usize,
    /// What the gateway offers.
    pub table: *const HostTable,
    /// To be handed back to the table's functions.
    pub context: *const Context,
    /// The number of the point; [`NO_POINT`] in `create`, `timer`, `shutdown` and `destroy`.
    pub point: u32,
    /// [`DYNAMIC`].
    pub flags: u32,
    /// The agent that the event is about, the sender of a message; or null.
    pub agent: *const Agent,
    /// The other agent: a message's or watcher's target, who got a delivery; or null.
    pub other: *const Agent,
}

/// [`Call::point`] where no event is about.
pub const NO_POINT: u32 = u32::MAX;
/// [`Call::flags`]: the plugin is a library of its own, with a standard library of its own.
pub const DYNAMIC: u32 = 1;

/// What the gateway knows of a call, or of an instance. Opaque.
#[repr(C)]
#[derive(Debug)]
pub struct Context {
    opaque: [u8; 0],
    not_ours: PhantomData<(*mut u8, std::marker::PhantomPinned)>,
}

/// An agent. Opaque, reference counted.
#[repr(C)]
#[derive(Debug)]
pub struct Agent {
    opaque: [u8; 0],
    not_ours: PhantomData<(*mut u8, std::marker::PhantomPinned)>,
}

/// A value of the state.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Value {
    /// [`VALUE_INT`] and so on.
    pub kind: u32,
    /// The number.
    pub int: i64,
    /// The text or bytes.
    pub bytes: Slice,
}

/// [`Value::int`].
pub const VALUE_INT: u32 = 1;
/// Text in [`Value::bytes`].
pub const VALUE_TEXT: u32 = 2;
/// JSON in [`Value::bytes`].
pub const VALUE_JSON: u32 = 3;
/// [`Value::bytes`].
pub const VALUE_BYTES: u32 = 4;

/// One verdict.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Verdict {
    /// [`VERDICT_ALLOW`] and so on.
    pub kind: u32,
    /// Of a denial: the index into [`DenyCode::ALL`](crate::DenyCode::ALL).
    pub code: u32,
    /// The reason of a denial; the DID of a redirect or copy.
    pub text: Slice,
    /// How long to hold or extend, in nanoseconds.
    pub nanos: u64,
    /// What to set.
    pub set: *const Set,
}

/// [`Verdict::Allow`](crate::Verdict::Allow).
pub const VERDICT_ALLOW: u32 = 1;
/// [`Verdict::Deny`](crate::Verdict::Deny).
pub const VERDICT_DENY: u32 = 2;
/// [`Verdict::Redirect`](crate::Verdict::Redirect).
pub const VERDICT_REDIRECT: u32 = 3;
/// [`Verdict::Copy`](crate::Verdict::Copy).
pub const VERDICT_COPY: u32 = 4;
/// [`Verdict::Hold`](crate::Verdict::Hold).
pub const VERDICT_HOLD: u32 = 5;
/// [`Verdict::Extend`](crate::Verdict::Extend).
pub const VERDICT_EXTEND: u32 = 6;
/// [`Verdict::Set`](crate::Verdict::Set).
pub const VERDICT_SET: u32 = 7;

/// [`Set`](crate::Set).
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Set {
    /// Labels.
    pub labels: List<Pair>,
    /// The rate class, or none.
    pub rate_class: Slice,
    /// Metadata, or null.
    pub metadata: *const Metadata,
}

/// [`Metadata`](crate::Metadata).
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Metadata {
    /// The name, or none.
    pub name: Slice,
    /// Capabilities.
    pub capabilities: List<Slice>,
    /// Attributes.
    pub attributes: List<Pair>,
}

/// [`AgentFilter`](crate::AgentFilter).
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Filter {
    /// Has this capability, or none.
    pub capability: Slice,
    /// Has this name, or none.
    pub name: Slice,
    /// Has a label of this name with this value, or none twice.
    pub label: Pair,
    /// At most so many; 0 for as many as the gateway gives.
    pub limit: usize,
}

/// An address: IP and port.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Address {
    /// 4 or 6.
    pub family: u16,
    /// The port.
    pub port: u16,
    /// The zone of a link-local IPv6 address.
    pub scope: u32,
    /// The IP in network order; IPv4 has the first four bytes.
    pub ip: [u8; 16],
}

// What can be read of an event as text, number or address.
/// The path of an upgrade request.
pub const EVENT_PATH: u32 = 1;
/// The query of an upgrade request.
pub const EVENT_QUERY: u32 = 2;
/// What a registering agent presents to policy.
pub const EVENT_CREDENTIALS: u32 = 3;
/// The target's DID as written: of a message, of a watch.
pub const EVENT_TO: u32 = 4;
/// A message's id.
pub const EVENT_ID: u32 = 5;
/// A message's type; what kind of error a hook had.
pub const EVENT_KIND: u32 = 6;
/// A message's text.
pub const EVENT_TEXT: u32 = 7;
/// A message's payload.
pub const EVENT_PAYLOAD: u32 = 8;
/// The id that a message answers.
pub const EVENT_CORRELATION: u32 = 9;
/// Why a session ended.
pub const EVENT_REASON: u32 = 10;
/// Which hook failed.
pub const EVENT_HOOK: u32 = 11;
/// At which point a hook failed.
pub const EVENT_POINT: u32 = 12;
/// What is known of a hook's error.
pub const EVENT_MESSAGE: u32 = 13;
/// The DID of the agent that a hook's error is about.
pub const EVENT_ABOUT: u32 = 14;
/// The version of TLS, of an upgrade request over it.
pub const EVENT_TLS_VERSION: u32 = 15;
/// The distinguished name of a client's certificate.
pub const EVENT_CLIENT_SUBJECT: u32 = 16;
/// The common name of a client's certificate.
pub const EVENT_CLIENT_COMMON_NAME: u32 = 17;
/// The distinguished name of the authority of a client's certificate.
pub const EVENT_CLIENT_ISSUER: u32 = 18;
/// The serial number of a client's certificate, in hexadecimal.
pub const EVENT_CLIENT_SERIAL: u32 = 19;
/// The SHA-256 of a client's certificate, in hexadecimal.
pub const EVENT_CLIENT_FINGERPRINT: u32 = 20;
/// Number: 1 for a renewal.
pub const EVENT_RENEWAL: u32 = 32;
/// Number: milliseconds of silence.
pub const EVENT_SILENT_MS: u32 = 33;
/// Number: bytes of a delivered message.
pub const EVENT_BYTES: u32 = 34;
/// Number: the close code.
pub const EVENT_CODE: u32 = 35;
/// Number: milliseconds that a session lasted.
pub const EVENT_LASTED_MS: u32 = 36;
/// Number: until when a client's certificate is valid, in Unix milliseconds (as an `i64`).
pub const EVENT_CLIENT_NOT_AFTER_MS: u32 = 37;
/// Number: when a session had registered by the clock of a cluster, in Unix microseconds.
pub const EVENT_EPOCH: u32 = 38;
/// The 32 bytes of the target's key, as bytes.
pub const EVENT_TO_KEY: u32 = 48;

// What can be read of an agent.
/// Its DID.
pub const AGENT_DID: u32 = 1;
/// Its subprotocol.
pub const AGENT_SUBPROTOCOL: u32 = 2;
/// Its name.
pub const AGENT_NAME: u32 = 3;
/// Its class of rate limits.
pub const AGENT_RATE_CLASS: u32 = 4;
/// The 32 bytes of its key, as bytes.
pub const AGENT_KEY: u32 = 5;
/// Number: its session.
pub const AGENT_SESSION: u32 = 32;
/// Number: when it connected, in Unix milliseconds (as an `i64`).
pub const AGENT_CONNECTED_AT_MS: u32 = 33;

// Lists of names, or of names and values.
/// Of an agent; names only.
pub const LIST_CAPABILITIES: u32 = 1;
/// Of an agent.
pub const LIST_ATTRIBUTES: u32 = 2;
/// Of an agent.
pub const LIST_LABELS: u32 = 3;
/// Of an upgrade request. Names may come again.
pub const LIST_HEADERS: u32 = 4;
/// Host names of a client's certificate; names only.
pub const LIST_CLIENT_DNS_NAMES: u32 = 5;
/// URIs of a client's certificate; names only.
pub const LIST_CLIENT_URIS: u32 = 6;
/// E-mail addresses of a client's certificate; names only.
pub const LIST_CLIENT_EMAILS: u32 = 7;

/// Takes a value that is valid until it returns.
pub type TakeValue = unsafe extern "C" fn(receiver: *mut c_void, value: *const Value);
/// Takes an agent together with one count of its references.
pub type TakeAgent = unsafe extern "C" fn(receiver: *mut c_void, agent: *const Agent);

macro_rules! host_table {
    ($( $(#[doc = $doc:literal])+ $name:ident($($arg:ident: $Arg:ty),*) $(-> $Result:ty)?; )+) => {
        /// What the gateway offers. It lives as long as the process, and grows at its end.
        ///
        /// `context` is that of a call, or one that `retain` gave. Functions may be called from
        /// any thread, except where they say "in a call".
        #[repr(C)]
        #[derive(Debug)]
        pub struct HostTable {
            /// Bytes of this structure as the gateway knows it.
            pub size: usize,
            $( $(#[doc = $doc])+ pub $name: unsafe extern "C" fn($($arg: $Arg),*) $(-> $Result)?, )+
        }
        /// Where each function lies, and what it looks like.
        pub(super) const HOST_TABLE: &[(usize, &str)] = &[$(
            (
                std::mem::offset_of!(HostTable, $name),
                concat!(stringify!($name), $( ",", stringify!($Arg), )* $( stringify!($Result) )?),
            ),
        )+];
    };
}

host_table! {
    /// The context of the instance, which outlives calls and the instance; one reference more.
    retain(context: *const Context) -> *const Context;
    /// Gives one reference back that `retain` gave.
    release(context: *const Context);
    /// In a call, once: the verdicts. None at all, or no call of this, is `continue`.
    answer(context: *const Context, verdicts: List<Verdict>) -> i32;
    /// In a call: why it failed, for [`FAILED`] and [`PANICKED`].
    fail(context: *const Context, message: Slice) -> i32;
    /// In a call at on_connect or on_register, once: puts the verdict off. [`REFUSED`] says why to
    /// `take`, as text.
    defer(context: *const Context, token: *mut u64, take: TakeValue, receiver: *mut c_void) -> i32;
    /// Gives a verdict that was put off. A failure where `error` is not none.
    complete(context: *const Context, token: u64, verdicts: List<Verdict>, error: Slice) -> i32;

    /// In a call: an `EVENT_` text (or bytes).
    event_text(context: *const Context, which: u32, out: *mut Slice) -> i32;
    /// In a call: an `EVENT_` number.
    event_number(context: *const Context, which: u32, out: *mut u64) -> i32;
    /// In a call at on_connect: from where.
    event_address(context: *const Context, out: *mut Address) -> i32;
    /// In a call: the n-th of a `LIST_`.
    event_item(context: *const Context, list: u32, index: usize, out: *mut Pair) -> i32;
    /// In a call: the first value of a name in a `LIST_`.
    event_find(context: *const Context, list: u32, name: Slice, out: *mut Slice) -> i32;

    /// One reference more.
    agent_retain(agent: *const Agent);
    /// Gives one reference back.
    agent_release(agent: *const Agent);
    /// An `AGENT_` text (or bytes), valid as long as the agent.
    agent_text(agent: *const Agent, which: u32, out: *mut Slice) -> i32;
    /// An `AGENT_` number.
    agent_number(agent: *const Agent, which: u32, out: *mut u64) -> i32;
    /// Where it connects from.
    agent_address(agent: *const Agent, out: *mut Address) -> i32;
    /// The n-th of a `LIST_`.
    agent_item(agent: *const Agent, list: u32, index: usize, out: *mut Pair) -> i32;
    /// The value of a name in a `LIST_`.
    agent_find(agent: *const Agent, list: u32, name: Slice, out: *mut Slice) -> i32;

    /// The time in Unix milliseconds.
    now_ms(context: *const Context) -> i64;
    /// The generation.
    generation(context: *const Context) -> u64;
    /// A line for the log; levels from 0, trace, to 4, error.
    log(context: *const Context, level: u32, text: Slice) -> i32;
    /// Hands the value of a key to `take`.
    kv_get(context: *const Context, key: Slice, take: TakeValue, receiver: *mut c_void) -> i32;
    /// Sets a value.
    kv_set(context: *const Context, key: Slice, value: *const Value, ttl: u64) -> i32;
    /// Removes a value; [`ABSENT`] if there was none.
    kv_delete(context: *const Context, key: Slice) -> i32;
    /// Adds to a number.
    kv_incr(context: *const Context, key: Slice, by: i64, ttl: u64, sum: *mut i64) -> i32;
    /// Sets a value if the present one is `expected` (null: there is none); [`NO`] if it is not.
    kv_cas(context: *const Context, key: Slice, expected: *const Value, value: *const Value, ttl: u64) -> i32;
    /// Another time to live; [`ABSENT`] if there is no value.
    kv_expire(context: *const Context, key: Slice, ttl: u64) -> i32;
    /// Counts one; [`NO`] if that is over the limit.
    rate_limit(context: *const Context, key: Slice, count: u32, per: u64) -> i32;
    /// In a call: hands a value of the connection to `take`.
    connection_get(context: *const Context, key: Slice, take: TakeValue, receiver: *mut c_void) -> i32;
    /// In a call: sets a value of the connection; null removes it.
    connection_set(context: *const Context, key: Slice, value: *const Value) -> i32;
    /// Hands the agent of a DID to `take`.
    agent(context: *const Context, did: Slice, take: TakeAgent, receiver: *mut c_void) -> i32;
    /// Hands present agents to `take`, one after the other.
    agents(context: *const Context, filter: *const Filter, take: TakeAgent, receiver: *mut c_void) -> i32;
    /// Sends an agent a message; [`REFUSED`] says why to `take`, as text.
    send(context: *const Context, did: Slice, kind: Slice, payload: Slice, take: TakeValue, receiver: *mut c_void) -> i32;
    /// Ends an agent's session; [`ABSENT`] if there is none.
    disconnect(context: *const Context, did: Slice, reason: Slice) -> i32;
    /// Adds to a counter.
    metric(context: *const Context, name: Slice, add: i64) -> i32;
    /// Asks for a call of `timer`; [`REFUSED`] says why to `take`, as text.
    timer(context: *const Context, after: u64, tag: u64, take: TakeValue, receiver: *mut c_void) -> i32;
}

/// A time as it crosses.
pub(crate) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(NO_TIME).min(NO_TIME - 1)
}

/// An optional time as it crosses.
pub(crate) fn maybe_nanos(time: Option<Duration>) -> u64 {
    time.map_or(NO_TIME, nanos)
}
