//! How two agents come to one connection: which OFFER counts, which ANSWER, and who gives way.
//!
//! Nothing here does I/O: `session` asks what to do with each message, does it, and says so. A connection
//! is named by its first OFFER's id. Where both offer at once the agent with the smaller key gives way.

use conexus_protocol::{IceCandidate, Timestamp};

/// Candidates that count for one description.
const MAX_CANDIDATES: usize = 256;

/// An OFFER of the other side's.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Offered {
    pub(crate) id: String,
    /// The connection that it restarts; none for a first OFFER.
    pub(crate) restarts: Option<String>,
    pub(crate) written: Timestamp,
    pub(crate) sdp: String,
}

/// What to do with an OFFER.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum OnOffer {
    /// Begin a connection with it, in place of any that there is, and answer.
    Begin(Offered),
    /// Answer it within the connection, after taking back an OFFER of our own where `rollback` says so.
    Restart { offer: Offered, rollback: bool },
    /// Say ERROR, `unknown_connection`, to this id.
    Unknown(String),
    /// Nothing.
    Ignore,
}

/// What an ERROR about this connection means.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum OnRefusal {
    /// Ours did not get there; then theirs is the one.
    Begin(Offered),
    /// What was going on has come to nothing.
    Refused,
    /// It is about something that is over.
    Ignore,
}

/// How the one connection with an agent stands.
#[derive(Debug)]
pub(crate) struct Negotiation {
    /// Whether ours is the smaller key.
    gives_way: bool,
    connection: Option<String>,
    initiator: bool,
    /// When the first OFFER of the connection was written.
    written: Option<Timestamp>,
    /// The same of the latest connection whose OFFER was answered: an older OFFER is not for it.
    begun: Option<Timestamp>,
    /// Our OFFER that waits for its ANSWER.
    offer: Option<String>,
    /// Their first OFFER, which came while ours was under way, and what followed it.
    aside: Option<(Offered, Candidates)>,
    /// The id of our newest ANSWER.
    answer: Option<String>,
    candidates: Candidates,
}

impl Negotiation {
    /// Nothing yet; `gives_way` says whether our key is the smaller one.
    pub(crate) fn new(gives_way: bool) -> Self {
        Self {
            gives_way,
            connection: None,
            initiator: false,
            written: None,
            begun: None,
            offer: None,
            aside: None,
            answer: None,
            candidates: Candidates::default(),
        }
    }

    /// The id of the connection, if one has begun.
    pub(crate) fn connection(&self) -> Option<&str> {
        self.connection.as_deref()
    }

    /// Whether the connection is by our OFFER.
    pub(crate) fn is_initiator(&self) -> bool {
        self.initiator
    }

    /// Whether a first OFFER of ours waits for its ANSWER.
    pub(crate) fn is_offering(&self) -> bool {
        self.offer.is_some() && self.offer == self.connection
    }

    /// Whether any OFFER of ours waits for its ANSWER.
    pub(crate) fn is_waiting(&self) -> bool {
        self.offer.is_some()
    }

    /// When the first OFFER of the connection that stands was written.
    pub(crate) fn begun(&self) -> Option<Timestamp> {
        self.begun
    }

    /// The ids that an ERROR about this connection may name.
    pub(crate) fn names(&self) -> [Option<String>; 3] {
        [self.connection.clone(), self.offer.clone(), self.answer.clone()]
    }

    /// Whether a first OFFER written then is for this agent as it is now.
    pub(crate) fn is_newer(&self, written: Timestamp) -> bool {
        self.begun.is_none_or(|begun| written >= begun)
    }

    /// We begin a connection with our own first OFFER, whose description is yet to be made.
    pub(crate) fn begin_ours(&mut self, id: String, written: Timestamp) {
        self.begin(id.clone(), written, true);
        self.offer = Some(id);
    }

    /// We seek the way anew by an OFFER of that id.
    pub(crate) fn restart_ours(&mut self, id: String) {
        self.offer = Some(id);
    }

    /// An OFFER arrived.
    pub(crate) fn offered(&mut self, offer: Offered) -> OnOffer {
        if offer.restarts.is_some() {
            return self.offered_restart(offer);
        }
        if self.is_offering() && !self.gives_way {
            self.aside = Some((offer, Candidates::default()));
            return OnOffer::Ignore;
        }
        if !self.is_newer(offer.written) {
            return OnOffer::Ignore;
        }
        self.begin(offer.id.clone(), offer.written, false);
        OnOffer::Begin(offer)
    }

    fn offered_restart(&mut self, offer: Offered) -> OnOffer {
        // A connection that our own first OFFER is about to make is not one that they can know.
        if offer.restarts != self.connection || self.is_offering() {
            return OnOffer::Unknown(offer.id);
        }
        let crosses = self.offer.is_some();
        if crosses && !self.gives_way {
            return OnOffer::Ignore;
        }
        self.offer = None;
        self.candidates.renew();
        OnOffer::Restart { offer, rollback: crosses }
    }

    /// Theirs is answered by a message of that id. What came before and waited can be applied now.
    pub(crate) fn answered_theirs(&mut self, answer: String) -> Vec<IceCandidate> {
        self.answer = Some(answer);
        self.begun = self.written;
        self.candidates.described()
    }

    /// An ANSWER arrived; whether it is the one that we wait for. It counts once.
    pub(crate) fn answered(&mut self, correlation_id: Option<&str>) -> bool {
        if self.offer.is_none() || self.offer.as_deref() != correlation_id {
            return false;
        }
        self.offer = None;
        self.aside = None;
        self.begun = self.written;
        self.candidates.renew();
        true
    }

    /// The ANSWER is applied. What came before and waited can be, now.
    pub(crate) fn described(&mut self) -> Vec<IceCandidate> {
        self.candidates.described()
    }

    /// A candidate arrived; told back if it can be applied now.
    pub(crate) fn candidate(
        &mut self,
        correlation_id: Option<&str>,
        candidate: IceCandidate,
    ) -> Option<IceCandidate> {
        if let Some((offer, candidates)) = &mut self.aside
            && correlation_id == Some(&offer.id)
        {
            // Never applicable: it waits with its OFFER.
            return candidates.arrived(candidate);
        }
        // Foreign agents may name no connection: then it is for the one that there is.
        let is_ours = correlation_id.is_none() || correlation_id == self.connection();
        if !is_ours || self.connection.is_none() {
            return None;
        }
        self.candidates.arrived(candidate)
    }

    /// An ERROR arrived that names this id.
    pub(crate) fn refused(&mut self, correlation_id: Option<&str>) -> OnRefusal {
        let concerns = correlation_id.is_some()
            && self.names().iter().any(|name| name.as_deref() == correlation_id);
        if !concerns {
            return OnRefusal::Ignore;
        }
        let was_first = self.is_offering();
        self.offer = None;
        match self.aside.take() {
            Some((offer, candidates)) if was_first => {
                self.begin(offer.id.clone(), offer.written, false);
                self.candidates = candidates;
                OnRefusal::Begin(offer)
            }
            _ => OnRefusal::Refused,
        }
    }

    fn begin(&mut self, id: String, written: Timestamp, initiator: bool) {
        self.connection = Some(id);
        self.initiator = initiator;
        self.written = Some(written);
        self.offer = None;
        self.aside = None;
        self.answer = None;
        self.candidates = Candidates::default();
    }
}

/// The other side's candidates: those that came before their description could be applied wait, in order.
#[derive(Debug, Default)]
struct Candidates {
    early: Vec<IceCandidate>,
    count: usize,
    is_described: bool,
}

impl Candidates {
    fn arrived(&mut self, candidate: IceCandidate) -> Option<IceCandidate> {
        if self.count >= MAX_CANDIDATES {
            return None;
        }
        self.count += 1;
        if self.is_described {
            return Some(candidate);
        }
        self.early.push(candidate);
        None
    }

    /// Another description is about to be applied, which may bring as many.
    fn renew(&mut self) {
        self.count = self.early.len();
        self.is_described = false;
    }

    fn described(&mut self) -> Vec<IceCandidate> {
        self.is_described = true;
        std::mem::take(&mut self.early)
    }
}

#[cfg(test)]
#[path = "negotiation_tests.rs"]
mod tests;
