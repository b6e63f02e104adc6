//! What policy knows of a session's agent: made of its proof, completed by what policy says of it.
//!
//! The facts are a snapshot that is replaced as a whole, at each renewal of the registration;
//! events carry the one that held when they were made.

use std::{sync::Arc, time::Duration};

use conexus_plugin_api::Agent;
use conexus_protocol::{AgentId, Metadata};
use tracing::warn;

use super::{Connection, handle::SessionId};
use crate::{clock::Moment, config::Settings, core::Core, hooks::Admission};

/// An agent that has proven its key and is not registered yet.
pub(crate) fn proven(
    core: &Core,
    session: SessionId,
    agent: &AgentId,
    metadata: Metadata,
    connection: &Connection,
    now: Moment,
) -> Arc<Agent> {
    Arc::new(Agent {
        did: agent.as_str().to_owned(),
        key: *agent.key().as_bytes(),
        session: session.0,
        address: connection.peer,
        subprotocol: connection.subprotocol.as_str().to_owned(),
        connected_at_ms: core.clock.wall(now).as_unix_millis(),
        metadata: public(metadata),
        labels: Default::default(),
        rate_class: None,
    })
}

/// A registered agent that wants to publish this from now on.
pub(crate) fn renewed(present: &Agent, metadata: Metadata) -> Arc<Agent> {
    Arc::new(Agent { metadata: public(metadata), ..present.clone() })
}

/// The agent as policy admits it. What the settings do not allow is left out, with a warning: the
/// agent is not to suffer for a fault of policy's.
pub(crate) fn admitted(
    settings: &Settings,
    mut agent: Arc<Agent>,
    admission: Admission,
) -> Arc<Agent> {
    let Admission { labels, lease: _, rate_class, metadata } = admission;
    let facts = Arc::make_mut(&mut agent);
    facts.labels = labels;
    facts.rate_class = rate_class.map(|(name, _)| name);
    if let Some(metadata) = metadata {
        let (bytes, most) = (metadata.json_len(), settings.limits.metadata_bytes);
        if bytes <= most {
            facts.metadata = public(metadata);
        } else {
            warn!(agent = %facts.did, bytes, "policy's metadata is over limits.metadata_bytes");
        }
    }
    agent
}

/// How long the lease is that a registration brings.
pub(crate) fn lease(settings: &Settings, admission: &Admission) -> Duration {
    let presence = &settings.presence;
    admission.lease.map_or(presence.timeout, |lease| lease.min(presence.max_extension))
}

fn public(metadata: Metadata) -> conexus_plugin_api::Metadata {
    let Metadata { name, capabilities, attributes } = metadata;
    conexus_plugin_api::Metadata { name, capabilities, attributes }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::RateClass, session::handle::tests::session};

    #[test]
    fn what_the_settings_do_not_allow_leaves_the_agent_as_it_is() {
        let mut settings = Settings::default();
        settings.limits.metadata_bytes = 20;
        let named = |name: &str| Metadata { name: Some(name.into()), ..Metadata::default() };
        let agent = renewed(&session().facts(), named("own"));

        let admission = Admission {
            labels: [("a".to_owned(), "b".to_owned())].into(),
            metadata: Some(named("far longer than that")),
            ..Admission::default()
        };
        let facts = admitted(&settings, Arc::clone(&agent), admission);
        assert_eq!(facts.metadata.name.as_deref(), Some("own"));
        assert_eq!((&facts.rate_class, facts.labels["a"].as_str()), (&None, "b"));

        let admission = Admission {
            rate_class: Some(("slow".into(), RateClass::default())),
            metadata: Some(named("new")),
            ..Admission::default()
        };
        let facts = admitted(&settings, facts, admission);
        assert_eq!(facts.metadata.name.as_deref(), Some("new"));
        assert_eq!(facts.rate_class.as_deref(), Some("slow"));
        assert!(facts.labels.is_empty(), "labels are replaced as a whole");
        assert_eq!(agent.metadata.name.as_deref(), Some("own"), "a snapshot stays as it was");
    }

    #[test]
    fn the_lease_of_a_registration_is_capped() {
        let mut settings = Settings::default();
        settings.presence.max_extension = Duration::from_secs(600);
        let lease_of =
            |asked| lease(&settings, &Admission { lease: asked, ..Admission::default() });
        assert_eq!(lease_of(None), settings.presence.timeout);
        assert_eq!(lease_of(Some(Duration::from_secs(9))), Duration::from_secs(9));
        assert_eq!(lease_of(Some(Duration::from_secs(6000))), Duration::from_secs(600));
    }
}
