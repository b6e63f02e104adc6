//! Which agents a search finds.

use conexus_plugin_api::AgentFilter;
use regex::{Regex, RegexBuilder};

use crate::{admin::fault::Fault, session::handle::SessionHandle};

/// The longest text to search for, in bytes.
const MAX_SEARCH: usize = 256;

/// Looks at an agent without making texts of it: there may be many.
pub(super) struct Search {
    filter: AgentFilter,
    text: Option<Regex>,
    /// Whether the text could be part of an address.
    may_be_address: bool,
}

impl Search {
    /// `text` is sought in everything, whatever its case; name and capability must be just so.
    pub(super) fn new(
        text: Option<&str>,
        name: Option<String>,
        capability: Option<String>,
    ) -> Result<Self, Fault> {
        let text = text.filter(|text| !text.is_empty());
        if text.is_some_and(|text| text.len() > MAX_SEARCH) {
            return Err(Fault::bad_request(format!("search: longer than {MAX_SEARCH} bytes")));
        }
        let of_address = |char: char| char.is_ascii_hexdigit() || ".:[]".contains(char);
        let compiled = text
            .map(|text| RegexBuilder::new(&regex::escape(text)).case_insensitive(true).build())
            .transpose()
            .map_err(|_| Fault::bad_request("search: cannot be searched for"))?;
        Ok(Self {
            filter: AgentFilter { name, capability, ..AgentFilter::default() },
            may_be_address: text.is_some_and(|text| text.chars().all(of_address)),
            text: compiled,
        })
    }

    /// Whether nobody is left out.
    pub(super) fn wants_everybody(&self) -> bool {
        self.text.is_none() && self.filter == AgentFilter::default()
    }

    pub(super) fn wants(&self, session: &SessionHandle) -> bool {
        let facts = session.facts();
        if !self.filter.wants(&facts) {
            return false;
        }
        let Some(text) = &self.text else { return true };
        let metadata = &facts.metadata;
        text.is_match(session.agent.as_str())
            || metadata.name.as_ref().is_some_and(|name| text.is_match(name))
            || metadata.capabilities.iter().any(|capability| text.is_match(capability))
            || facts.labels.values().any(|value| text.is_match(value))
            || self.may_be_address && text.is_match(&facts.address.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::session::handle::tests::session;

    #[test]
    fn a_text_is_sought_in_all_that_tells_agents_apart() {
        let session = session();
        let mut facts = (*session.facts()).clone();
        facts.metadata.name = Some("Übersetzer (a+b)".into());
        facts.metadata.capabilities = vec!["translate:de".into()];
        facts.labels.insert("team".into(), "Blue".into());
        session.set_facts(Arc::new(facts));
        let did = session.agent.to_string();
        for (text, found) in [
            ("übersetzer", true),
            ("(A+B)", true),
            ("a.b", false),
            ("TRANSLATE", true),
            ("blue", true),
            ("team", false),
            ("127.0.0.1:1", true),
            (&did[12..], true),
            ("", true),
            ("nobody", false),
        ] {
            let search = Search::new(Some(text), None, None).unwrap();
            assert_eq!(search.wants(&session), found, "{text}");
        }
        let named = |name: &str| Search::new(None, Some(name.into()), None).unwrap();
        assert!(named("Übersetzer (a+b)").wants(&session));
        assert!(!named("übersetzer").wants(&session));
        assert!(Search::new(Some(&"x".repeat(257)), None, None).is_err());
    }
}
