//! What a plugin is asked about: views of the gateway's own data, read where they are.
//!
//! An event is valid for its call. Texts and agents borrow from it; [`AgentView::keep`] keeps an
//! agent for longer.

use std::net::SocketAddr;

use crate::{AgentView, Call, Error, Tls, abi};

macro_rules! events {
    ($( $(#[doc = $doc:literal])+ $Event:ident $(, $agent:ident: $agent_doc:literal)?; )+) => { $(
        $(#[doc = $doc])+
        #[derive(Debug)]
        pub struct $Event<'a> {
            call: &'a Call<'a>,
            $($agent: AgentView<'a>,)?
        }

        impl<'a> $Event<'a> {
            /// The event of a call; an error where it has not the agent that it is about, which
            /// no gateway does.
            pub(crate) fn new(call: &'a Call<'a>) -> Result<Self, Error> {
                Ok(Self {
                    call,
                    $($agent: call.agent().ok_or(concat!("no ", stringify!($agent)))?,)?
                })
            }

            $(
                #[doc = $agent_doc]
                #[must_use]
                pub const fn $agent(&self) -> AgentView<'a> {
                    self.$agent
                }
            )?

            #[allow(dead_code, reason = "not every event has texts")]
            fn text_of(&self, which: u32) -> &'a str {
                self.call.text(which).unwrap_or_default()
            }

            #[allow(dead_code, reason = "not every event has numbers")]
            fn number_of(&self, which: u32) -> u64 {
                self.call.number(which).unwrap_or_default()
            }
        }
    )+ };
}

events! {
    /// Somebody asks for a WebSocket: no agent is known yet.
    Connect;
    /// A proof is valid, nothing is stored yet.
    Register, agent: "Who wants to register. At a renewal its labels are those it has already.";
    /// A message on its way, at `on_route` and `on_undeliverable`.
    Route, from: "The sender as it is registered.";
    /// An agent wants to follow another's presence.
    Watch, agent: "Who wants to follow.";
    /// An agent's lease ran out.
    Expire, agent: "Whose.";
    /// An agent is registered.
    Registered, agent: "As it is known from now on.";
    /// A newer session of the same key took over; `on_disconnect` of the older one follows.
    Replaced, agent: "As it was known on the older session.";
    /// The kernel has a message's last byte.
    Delivered, from: "The sender.";
    /// A registered session ended.
    Disconnect, agent: "As it was known.";
    /// An agent said UNREGISTER; `on_disconnect` follows.
    Unregister, agent: "As it was known.";
    /// Another hook failed.
    HookError;
}

impl<'a> Connect<'a> {
    /// Where from.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.call.address().unwrap_or_else(|| ([0, 0, 0, 0], 0).into())
    }

    /// The request's path.
    #[must_use]
    pub fn path(&self) -> &'a str {
        self.text_of(abi::EVENT_PATH)
    }

    /// The request's query, without the question mark; empty where there is none.
    #[must_use]
    pub fn query(&self) -> &'a str {
        self.text_of(abi::EVENT_QUERY)
    }

    /// How it is encrypted; none where it is not.
    #[must_use]
    pub fn tls(&self) -> Option<Tls<'a>> {
        Tls::of(self.call)
    }

    /// The first header of that name, in whatever case. Headers are not recorded: a decision that
    /// looks at one cannot be replayed.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&'a str> {
        self.call.find(abi::LIST_HEADERS, name)
    }

    /// All headers in order, names in lower case; what is not UTF-8 is replaced. As for
    /// [`Self::header`].
    pub fn headers(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        (0..).map_while(|index| self.call.item(abi::LIST_HEADERS, index))
    }
}

impl<'a> Register<'a> {
    /// What it presents to policy alone: never stored, shown, logged or recorded. A decision that
    /// looks at it cannot be replayed.
    #[must_use]
    pub fn credentials(&self) -> Option<&'a str> {
        self.call.text(abi::EVENT_CREDENTIALS)
    }

    /// Whether it is registered on this very session already.
    #[must_use]
    pub fn renewal(&self) -> bool {
        self.number_of(abi::EVENT_RENEWAL) != 0
    }
}

impl<'a> Route<'a> {
    /// The target, where it is present.
    #[must_use]
    pub fn target(&self) -> Option<AgentView<'a>> {
        self.call.other()
    }

    /// The target's DID as the sender wrote it.
    #[must_use]
    pub fn to(&self) -> &'a str {
        self.text_of(abi::EVENT_TO)
    }

    /// The 32 bytes of the target's key, whatever the spelling.
    #[must_use]
    pub fn to_key(&self) -> [u8; 32] {
        let bytes = self.call.bytes(abi::EVENT_TO_KEY);
        bytes.and_then(|bytes| bytes.try_into().ok()).unwrap_or_default()
    }

    /// The message's id.
    #[must_use]
    pub fn id(&self) -> &'a str {
        self.text_of(abi::EVENT_ID)
    }

    /// Its type: `OFFER`.
    #[must_use]
    pub fn kind(&self) -> &'a str {
        self.text_of(abi::EVENT_KIND)
    }

    /// The whole message as received.
    #[must_use]
    pub fn text(&self) -> &'a str {
        self.call.text(abi::EVENT_TEXT).unwrap_or_default()
    }

    /// The payload's JSON object as received; not parsed unless somebody does.
    #[must_use]
    pub fn payload(&self) -> &'a str {
        self.text_of(abi::EVENT_PAYLOAD)
    }

    /// The id being answered.
    #[must_use]
    pub fn correlation_id(&self) -> Option<&'a str> {
        self.call.text(abi::EVENT_CORRELATION)
    }
}

impl<'a> Watch<'a> {
    /// Whom, as written.
    #[must_use]
    pub fn did(&self) -> &'a str {
        self.text_of(abi::EVENT_TO)
    }

    /// Whom, where it is present.
    #[must_use]
    pub fn target(&self) -> Option<AgentView<'a>> {
        self.call.other()
    }
}

impl Expire<'_> {
    /// How long it has been silent, in milliseconds.
    #[must_use]
    pub fn silent_ms(&self) -> u64 {
        self.number_of(abi::EVENT_SILENT_MS)
    }
}

impl Registered<'_> {
    /// Whether it was registered on this very session already.
    #[must_use]
    pub fn renewal(&self) -> bool {
        self.number_of(abi::EVENT_RENEWAL) != 0
    }
}

impl<'a> Delivered<'a> {
    /// Who got it: after a redirect not the one that the message names.
    #[must_use]
    pub fn to(&self) -> AgentView<'a> {
        self.call.other().unwrap_or(self.from)
    }

    /// Its type: `OFFER`.
    #[must_use]
    pub fn kind(&self) -> &'a str {
        self.text_of(abi::EVENT_KIND)
    }

    /// Bytes of its text.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.number_of(abi::EVENT_BYTES)
    }
}

impl<'a> Disconnect<'a> {
    /// Why: `closed`, `unregistered`, `replaced`, `expired`, `denied`, `removed`, `bad_messages`,
    /// `rate_limited`, `too_slow`, `stopping`, `broken`, `node_lost`.
    #[must_use]
    pub fn reason(&self) -> &'a str {
        self.text_of(abi::EVENT_REASON)
    }

    /// The close code: the gateway's, or the agent's where it closed.
    #[must_use]
    pub fn code(&self) -> Option<u16> {
        self.call.number(abi::EVENT_CODE).and_then(|code| u16::try_from(code).ok())
    }

    /// How long the session lasted, in milliseconds.
    #[must_use]
    pub fn lasted_ms(&self) -> u64 {
        self.number_of(abi::EVENT_LASTED_MS)
    }

    /// When the agent had registered by the clock that the nodes of a cluster share, in microseconds since
    /// 1970: of two sessions of an agent's the one with the greater number is the newer one. None without
    /// a cluster, and where the session was never put down there.
    #[must_use]
    pub fn epoch(&self) -> Option<u64> {
        self.call.number(abi::EVENT_EPOCH)
    }
}

impl<'a> HookError<'a> {
    /// The instance that failed.
    #[must_use]
    pub fn hook(&self) -> &'a str {
        self.text_of(abi::EVENT_HOOK)
    }

    /// Where: `on_route`.
    #[must_use]
    pub fn point(&self) -> &'a str {
        self.text_of(abi::EVENT_POINT)
    }

    /// How: `error`, `panic`, `timeout`, `bad_return`, `overload`, `overrun`, `quarantined`.
    #[must_use]
    pub fn kind(&self) -> &'a str {
        self.text_of(abi::EVENT_KIND)
    }

    /// What is known of it.
    #[must_use]
    pub fn message(&self) -> &'a str {
        self.text_of(abi::EVENT_MESSAGE)
    }

    /// The DID of the agent that the call was about, if it was about one.
    #[must_use]
    pub fn about(&self) -> Option<&'a str> {
        self.call.text(abi::EVENT_ABOUT)
    }
}
