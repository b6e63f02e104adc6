//! A look at all sessions and mailboxes: how much waits, and for whom too much.
//!
//! Taken shard by shard, in turns with the messages, once a second at most. What is named is
//! bounded; what is counted is not.

use std::time::Duration;

use super::{Presence, Shard};
use crate::{clock::Moment, mailbox::MailboxLimits, session::handle::SessionHandle};

/// The most agents that are named for each thing that can be wrong with one.
const NAMED: usize = 20;

/// A socket that takes nothing worth mentioning for so long is slow.
const SLOW_AFTER: Duration = Duration::from_secs(1);

/// What all sessions and mailboxes looked like.
#[derive(Clone, Debug, Default)]
pub(crate) struct Survey {
    /// What waits in all outboxes.
    pub(crate) outbox_messages: u64,
    pub(crate) outbox_bytes: u64,
    /// The most that waits in one of them.
    pub(crate) deepest: u64,
    /// How many agents do not take what is sent to them, and some of them.
    pub(crate) slow: u64,
    pub(crate) slow_readers: Vec<SlowReader>,
    /// What waits in all mailboxes.
    pub(crate) mailboxes: u64,
    pub(crate) mail: u64,
    pub(crate) mail_bytes: u64,
    /// Agents that are down in the directory of the cluster.
    pub(crate) put_down: u64,
    /// How many mailboxes have no room, and some of them.
    pub(crate) full: u64,
    pub(crate) full_mailboxes: Vec<FullMailbox>,
}

/// An agent that does not take what is sent to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SlowReader {
    pub(crate) did: String,
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
    pub(crate) stalled: Option<Moment>,
}

/// A mailbox without room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FullMailbox {
    /// As its agent spells itself, where its session is still known.
    pub(crate) did: String,
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
}

impl Survey {
    fn look_through(&mut self, shard: &Shard, now: Moment, limits: MailboxLimits) {
        for (key, slot) in shard {
            if let Some(owner) = &slot.owner {
                self.look_at(&owner.session, now);
            }
            let tenure = slot.tenure.as_ref();
            self.put_down += u64::from(tenure.is_some_and(|tenure| tenure.newest().is_some()));
            let (messages, bytes) = slot.mailbox.size();
            if messages == 0 {
                continue;
            }
            self.mailboxes += 1;
            self.mail += messages as u64;
            self.mail_bytes += bytes as u64;
            // Few messages fit into the last tenth.
            let is_full = messages >= limits.messages_per_agent
                || bytes >= limits.bytes_per_agent - limits.bytes_per_agent / 10;
            if is_full {
                self.full += 1;
                if self.full_mailboxes.len() < NAMED {
                    let known = slot.owner.as_ref().map(|owner| owner.session.agent.to_string());
                    let did = known.unwrap_or_else(|| key.did());
                    self.full_mailboxes.push(FullMailbox { did, messages, bytes });
                }
            }
        }
    }

    fn look_at(&mut self, session: &SessionHandle, now: Moment) {
        let depth = session.outbox.depth();
        self.outbox_messages += depth.messages as u64;
        self.outbox_bytes += depth.bytes as u64;
        self.deepest = self.deepest.max(depth.messages as u64);
        let stalled = session.stalled_since();
        let slow =
            depth.is_nearly_full || stalled.is_some_and(|since| since.until(now) >= SLOW_AFTER);
        if slow {
            self.slow += 1;
            if self.slow_readers.len() < NAMED {
                self.slow_readers.push(SlowReader {
                    did: session.agent.to_string(),
                    messages: depth.messages,
                    bytes: depth.bytes,
                    stalled,
                });
            }
        }
    }
}

impl Presence {
    /// Looks at all sessions and mailboxes; messages get their turn between any two shards.
    pub(crate) async fn survey(&self, now: Moment) -> Survey {
        let mut survey = Survey::default();
        for shard in &self.shards {
            survey.look_through(&shard.lock(), now, self.postroom.limits());
            tokio::task::yield_now().await;
        }
        survey
    }
}

#[cfg(test)]
mod tests {
    use conexus_protocol::{AgentKey, Identity, MessageType};

    use super::*;
    use crate::{
        presence::{Offered, Source},
        session::{
            handle::tests::session_of,
            outbox::{Arrival, Routed},
        },
    };

    const LIMITS: MailboxLimits = MailboxLimits {
        messages_per_agent: 2,
        bytes_per_agent: 1000,
        total_bytes: 1000,
        messages_per_sender: 8,
    };

    fn message(to: AgentKey) -> Routed {
        let sender = session_of(&Identity::generate());
        let arrival = Arrival { at: tokio::time::Instant::now(), number: 1 };
        Routed::new("0123456789".into(), to, MessageType::Offer, sender, arrival)
    }

    #[tokio::test]
    async fn who_does_not_read_is_named_and_so_is_a_mailbox_without_room() {
        let presence = Presence::new(LIMITS, crate::clock::Clock::start(), Default::default());
        let now = Moment::from_millis(5_000);
        let (quick, slow, stuck) =
            (Identity::generate(), Identity::generate(), Identity::generate());
        let sessions = [&quick, &slow, &stuck].map(session_of);
        for session in &sessions {
            presence.claim(session).await;
        }
        for _ in 0..7 {
            assert!(matches!(presence.offer(message(slow.key()), now), Offered::Queued));
        }
        sessions[2].note_stall(Some(Moment::from_millis(3_999)));
        let absent = Identity::generate();
        for _ in 0..2 {
            presence
                .hold(message(absent.key()), now.after(SLOW_AFTER), now, Source::Sender)
                .ok()
                .unwrap();
        }

        let survey = presence.survey(now).await;
        assert_eq!((survey.outbox_messages, survey.outbox_bytes, survey.deepest), (7, 70, 7));
        let mut names: Vec<_> = survey.slow_readers.iter().map(|slow| slow.did.as_str()).collect();
        names.sort_unstable();
        let mut expected = [slow.did(), stuck.did()];
        expected.sort_unstable();
        assert_eq!((survey.slow, names), (2, expected.to_vec()));
        assert_eq!((survey.mailboxes, survey.mail, survey.mail_bytes, survey.full), (1, 2, 20, 1));
        assert_eq!(survey.full_mailboxes[0].did, absent.did());
    }
}
