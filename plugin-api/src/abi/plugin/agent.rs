//! Agents as a plugin sees them: read in place, nothing is copied.

use std::{fmt, marker::PhantomData, net::SocketAddr};

use super::{raw, text, written};
use crate::abi::value;

/// An agent that an event is about. Reads go to the gateway's own data; nothing is copied.
///
/// ```
/// # use conexus_plugin_api::{AgentView, Route};
/// fn same_tier(event: &Route<'_>) -> bool {
///     let tier = |agent: AgentView<'_>| agent.label("tier").map(str::to_owned);
///     event.target().is_some_and(|target| tier(target) == tier(event.from()))
/// }
/// ```
#[derive(Clone, Copy)]
pub struct AgentView<'a> {
    table: &'static raw::HostTable,
    agent: *const raw::Agent,
    life: PhantomData<&'a raw::Agent>,
}

// SAFETY: an agent never changes, and the gateway counts its references atomically.
unsafe impl Send for AgentView<'_> {}
// SAFETY: as above.
unsafe impl Sync for AgentView<'_> {}

impl<'a> AgentView<'a> {
    /// The agent, unless the pointer is null.
    ///
    /// # Safety
    /// The pointer came from the gateway of this table and is valid for `'a`.
    pub(super) unsafe fn new(
        table: &'static raw::HostTable,
        agent: *const raw::Agent,
    ) -> Option<Self> {
        (!agent.is_null()).then_some(Self { table, agent, life: PhantomData })
    }

    fn text(self, which: u32) -> Option<&'a str> {
        // SAFETY: the agent is valid for 'a.
        let slice = written(raw::Slice::NONE, |out| unsafe {
            (self.table.agent_text)(self.agent, which, out)
        })?;
        // SAFETY: texts of an agent live as long as the agent.
        unsafe { text(slice) }
    }

    fn number(self, which: u32) -> u64 {
        // SAFETY: the agent is valid for 'a.
        written(0, |out| unsafe { (self.table.agent_number)(self.agent, which, out) })
            .unwrap_or_default()
    }

    fn find(self, list: u32, name: &str) -> Option<&'a str> {
        let name = raw::Slice::of(name.as_bytes());
        // SAFETY: the agent is valid for 'a.
        let slice = written(raw::Slice::NONE, |out| unsafe {
            (self.table.agent_find)(self.agent, list, name, out)
        })?;
        // SAFETY: texts of an agent live as long as the agent.
        unsafe { text(slice) }
    }

    fn items(self, list: u32) -> impl Iterator<Item = (&'a str, &'a str)> {
        (0..).map_while(move |index| {
            let none = raw::Pair { name: raw::Slice::NONE, value: raw::Slice::NONE };
            // SAFETY: the agent is valid for 'a.
            let pair = written(none, |out| unsafe {
                (self.table.agent_item)(self.agent, list, index, out)
            })?;
            // SAFETY: texts of an agent live as long as the agent.
            unsafe { Some((text(pair.name)?, text(pair.value).unwrap_or_default())) }
        })
    }

    /// Its DID as it spells it.
    #[must_use]
    pub fn did(self) -> &'a str {
        self.text(raw::AGENT_DID).unwrap_or_default()
    }

    /// Its public key in hexadecimal digits: the same for both spellings of its DID, so that what is
    /// kept or counted under it cannot be evaded by the other one.
    #[must_use]
    pub fn key_text(self) -> String {
        use std::fmt::Write as _;
        self.key().iter().fold(String::with_capacity(64), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }

    /// The 32 bytes of its public key: the same for both spellings of its DID.
    #[must_use]
    pub fn key(self) -> [u8; 32] {
        // SAFETY: the agent is valid for 'a.
        let slice = written(raw::Slice::NONE, |out| unsafe {
            (self.table.agent_text)(self.agent, raw::AGENT_KEY, out)
        });
        // SAFETY: bytes of an agent live as long as the agent.
        let bytes = slice.and_then(|slice| unsafe { slice.bytes() });
        bytes.and_then(|bytes| bytes.try_into().ok()).unwrap_or_default()
    }

    /// Tells its sessions apart for as long as the gateway runs; a greater one is newer.
    #[must_use]
    pub fn session(self) -> u64 {
        self.number(raw::AGENT_SESSION)
    }

    /// Where it connects from.
    #[must_use]
    pub fn address(self) -> SocketAddr {
        let none = raw::Address { family: 4, port: 0, scope: 0, ip: [0; 16] };
        // SAFETY: the agent is valid for 'a.
        let address = written(none, |out| unsafe { (self.table.agent_address)(self.agent, out) });
        value::socket_address(&address.unwrap_or(none))
    }

    /// `ioap.v1` or `ioap.v1.1`.
    #[must_use]
    pub fn subprotocol(self) -> &'a str {
        self.text(raw::AGENT_SUBPROTOCOL).unwrap_or_default()
    }

    /// When its session began, in Unix milliseconds.
    #[must_use]
    pub fn connected_at_ms(self) -> i64 {
        self.number(raw::AGENT_CONNECTED_AT_MS).cast_signed()
    }

    /// Its name for people.
    #[must_use]
    pub fn name(self) -> Option<&'a str> {
        self.text(raw::AGENT_NAME)
    }

    /// The class of rate limits it is in, where policy named one.
    #[must_use]
    pub fn rate_class(self) -> Option<&'a str> {
        self.text(raw::AGENT_RATE_CLASS)
    }

    /// What it can be asked to do.
    pub fn capabilities(self) -> impl Iterator<Item = &'a str> {
        self.items(raw::LIST_CAPABILITIES).map(|(capability, _)| capability)
    }

    /// Whether it can be asked to do this.
    #[must_use]
    pub fn has_capability(self, capability: &str) -> bool {
        self.find(raw::LIST_CAPABILITIES, capability).is_some()
    }

    /// What else it publishes, in the order of names.
    pub fn attributes(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.items(raw::LIST_ATTRIBUTES)
    }

    /// What it publishes under this name.
    #[must_use]
    pub fn attribute(self, name: &str) -> Option<&'a str> {
        self.find(raw::LIST_ATTRIBUTES, name)
    }

    /// What policy said of it, in the order of names.
    pub fn labels(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.items(raw::LIST_LABELS)
    }

    /// What policy said of it under this name.
    #[must_use]
    pub fn label(self, name: &str) -> Option<&'a str> {
        self.find(raw::LIST_LABELS, name)
    }

    /// The same agent, to be kept beyond the call. It stays as it is: later changes are those of
    /// a newer one.
    #[must_use]
    pub fn keep(self) -> AgentRef {
        // SAFETY: the agent is valid for 'a.
        unsafe { (self.table.agent_retain)(self.agent) };
        AgentRef { view: AgentView { table: self.table, agent: self.agent, life: PhantomData } }
    }
}

impl fmt::Debug for AgentView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgentView")
            .field("did", &self.did())
            .field("session", &self.session())
            .finish_non_exhaustive()
    }
}

/// An agent to keep: as the gateway knew it when it was asked. Reads as [`AgentView`].
pub struct AgentRef {
    view: AgentView<'static>,
}

impl AgentRef {
    /// Takes over one reference.
    ///
    /// # Safety
    /// The pointer is null or came from the gateway of this table with a reference to give.
    pub(super) unsafe fn new(
        table: &'static raw::HostTable,
        agent: *const raw::Agent,
    ) -> Option<Self> {
        // SAFETY: with a reference of its own it lives until this is dropped.
        unsafe { AgentView::new(table, agent) }.map(|view| Self { view })
    }

    /// It, for as long as this is kept.
    #[must_use]
    pub const fn view(&self) -> AgentView<'_> {
        self.view
    }
}

macro_rules! as_in_the_view {
    ($( $name:ident($($arg:ident: $Arg:ty)?) -> $Result:ty; )+) => {
        impl AgentRef { $(
            #[doc = concat!("As [`AgentView::", stringify!($name), "`].")]
            pub fn $name(&self, $($arg: $Arg)?) -> $Result {
                self.view().$name($($arg)?)
            }
        )+ }
    };
}

as_in_the_view! {
    did() -> &str;
    key() -> [u8; 32];
    session() -> u64;
    address() -> SocketAddr;
    subprotocol() -> &str;
    connected_at_ms() -> i64;
    name() -> Option<&str>;
    rate_class() -> Option<&str>;
    has_capability(capability: &str) -> bool;
    capabilities() -> impl Iterator<Item = &str>;
    attributes() -> impl Iterator<Item = (&str, &str)>;
    labels() -> impl Iterator<Item = (&str, &str)>;
    attribute(name: &str) -> Option<&str>;
    label(name: &str) -> Option<&str>;
}

impl Clone for AgentRef {
    fn clone(&self) -> Self {
        self.view.keep()
    }
}

impl Drop for AgentRef {
    fn drop(&mut self) {
        // SAFETY: this held one reference, and nobody looks at it through this any more.
        unsafe { (self.view.table.agent_release)(self.view.agent) };
    }
}

impl fmt::Debug for AgentRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.view.fmt(f)
    }
}
