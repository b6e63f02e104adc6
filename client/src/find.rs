//! Finding other agents: the gateway's `GET /agents`, page by page.
//!
//! It is asked over HTTP on a connection of its own, at the address and by the TLS settings of the
//! WebSocket, so it works before a client is connected, too.

use std::collections::BTreeMap;

use conexus_protocol::Metadata;
use futures_util::{Stream, stream};
use serde::{Deserialize, Deserializer};
use url::Url;

use crate::{Handle, HttpError};

/// Whom to look for: who has all that is asked for. Matches are exact.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AgentQuery {
    /// Publishes this capability.
    pub capability: Option<String>,
    /// Publishes this name.
    pub name: Option<String>,
    /// Has this label with this value, from the gateway's policy. The gateway's `http.agents_labels`
    /// must allow to search by it.
    pub label: Option<(String, String)>,
    /// At most so many on a page; the gateway has a bound of its own.
    pub limit: Option<usize>,
    /// Where to go on: [`AgentPage::next`] of the page before.
    pub cursor: Option<String>,
    /// The bearer token of a gateway whose list takes one. It is sent to a gateway over TLS or on
    /// loopback only.
    pub token: Option<String>,
}

/// An agent that is present, as the gateway's list shows it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct FoundAgent {
    /// Its DID, in the spelling that it registered with.
    pub did: String,
    /// Since when it is connected, as a timestamp.
    pub connected_at: String,
    /// When something came from it last, as a timestamp.
    pub last_activity: String,
    /// What it speaks, such as `ioap.v1.1`; not every gateway says.
    #[serde(default)]
    pub subprotocol: Option<String>,
    /// What it publishes about itself.
    #[serde(default, deserialize_with = "known_members")]
    pub metadata: Metadata,
}

/// Metadata of which a newer gateway may show more than we know.
fn known_members<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Metadata, D::Error> {
    #[derive(Deserialize)]
    struct Known {
        #[serde(default)]
        name: Option<String>,
        #[serde(default)]
        capabilities: Vec<String>,
        #[serde(default)]
        attributes: BTreeMap<String, String>,
    }
    let Known { name, capabilities, attributes } = Known::deserialize(deserializer)?;
    Ok(Metadata { name, capabilities, attributes })
}

/// A page of the list, in the order of the agents' keys.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct AgentPage {
    /// The agents on it.
    pub agents: Vec<FoundAgent>,
    /// How many there are on all pages.
    #[serde(default)]
    pub count: u64,
    /// The cursor of the next page; none on the last one.
    #[serde(default, rename = "next_cursor")]
    pub next: Option<String>,
}

/// Why nobody could be looked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FindError {
    /// The token would cross a network unencrypted.
    #[error("a token is sent over tls or loopback only")]
    TokenInTheClear,
    /// There is no answer, or it is no list of agents.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The gateway gives the same page again.
    #[error("the gateway repeats a page")]
    Endless,
}

/// Finding.
impl Handle {
    /// One page of the agents that are present and have what is asked for.
    ///
    /// Needs no registration, and no connection: it asks on one of its own, by the client's TLS
    /// settings, and for at most the builder's request timeout.
    ///
    /// # Errors
    ///
    /// [`FindError`].
    pub async fn find(&self, query: &AgentQuery) -> Result<AgentPage, FindError> {
        let config = &self.shared.config;
        let dialer = &config.dialer;
        if query.token.is_some() && !dialer.endpoint.is_private() {
            return Err(FindError::TokenInTheClear);
        }
        let url = asked(dialer.beside("agents"), query);
        Ok(dialer.get(&url, query.token.as_deref(), config.request_timeout).await?)
    }

    /// All of them, page by page as they are read. Whoever is there from the first page to the last
    /// is in it once. The query's `limit` is the size of a page; 0 leaves it to the gateway. Ends with the
    /// first error.
    pub fn find_all(
        &self,
        mut query: AgentQuery,
    ) -> impl Stream<Item = Result<FoundAgent, FindError>> + Send + use<> {
        query.limit = query.limit.filter(|limit| *limit > 0);
        let state = Some((self.clone(), query, Vec::new().into_iter(), false));
        stream::unfold(state, async |state| {
            let (handle, mut query, mut page, mut is_last) = state?;
            loop {
                if let Some(agent) = page.next() {
                    return Some((Ok(agent), Some((handle, query, page, is_last))));
                }
                if is_last {
                    return None;
                }
                match handle.find(&query).await {
                    Err(error) => return Some((Err(error), None)),
                    Ok(next) if next.next.is_some() && next.next == query.cursor => {
                        return Some((Err(FindError::Endless), None));
                    }
                    Ok(next) => {
                        page = next.agents.into_iter();
                        match next.next {
                            Some(cursor) => query.cursor = Some(cursor),
                            None => is_last = true,
                        }
                    }
                }
            }
        })
    }
}

/// The route with the question.
fn asked(mut url: Url, query: &AgentQuery) -> Url {
    let AgentQuery { capability, name, label, limit, cursor, token: _ } = query;
    let label = label.as_ref().map(|(name, value)| format!("{name}:{value}"));
    let limit = limit.map(|limit| limit.to_string());
    for (name, value) in [
        ("capability", capability),
        ("name", name),
        ("label", &label),
        ("limit", &limit),
        ("cursor", cursor),
    ] {
        if let Some(value) = value {
            url.query_pairs_mut().append_pair(name, value);
        }
    }
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_question_is_in_the_query() {
        let query = AgentQuery {
            capability: Some("sum up".into()),
            label: Some(("team".into(), "a&b".into())),
            limit: Some(5),
            ..AgentQuery::default()
        };
        let url = asked("ws://a/agents".parse().unwrap(), &query);
        assert_eq!(url.query(), Some("capability=sum+up&label=team%3Aa%26b&limit=5"));
        let url = asked("ws://a/agents".parse().unwrap(), &AgentQuery::default());
        assert_eq!(url.query(), None);
    }

    #[test]
    fn what_a_newer_gateway_shows_beside_what_is_known_is_left_out() {
        let page = r#"{"agents":[{"did":"d","connected_at":"c","last_activity":"l","new":1,
            "metadata":{"name":"n","colour":"red"}}],"count":1,"also":[]}"#;
        let page: AgentPage = serde_json::from_str(page).unwrap();
        assert_eq!(page.agents[0].metadata.name.as_deref(), Some("n"));
    }
}
