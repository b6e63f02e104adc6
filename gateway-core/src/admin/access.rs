//! Who asks, and what for: bearer tokens and their scopes.

use axum::http::{HeaderMap, Method, header};

use super::fault::Fault;
use crate::config::{AdminToken, AdminTokens, LOOPBACK, Scope, find_token};

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Caller {
    /// The token's name; none on loopback without tokens.
    pub(crate) name: Option<String>,
    pub(crate) scope: Scope,
    /// As what the configuration knows the token.
    token: Option<AdminToken>,
}

impl Caller {
    /// How the audit calls them.
    pub(crate) fn who(&self) -> &str {
        self.name.as_deref().unwrap_or(LOOPBACK)
    }

    /// Whether they would be let in again: their token is there yet, under whatever name, and is good
    /// for the same; or none is needed yet.
    pub(crate) fn counts(&self, tokens: &AdminTokens, open: bool) -> bool {
        match &self.token {
            Some(mine) => tokens.values().any(|token| token == mine),
            None => tokens.is_empty() && open,
        }
    }
}

/// What a method takes: whatever is not just a look may change something.
pub(crate) fn needed(method: &Method) -> Scope {
    match *method {
        Method::GET | Method::HEAD => Scope::Read,
        _ => Scope::Operate,
    }
}

/// Who asks, by the token that they present. `open` says that none is needed as
/// long as there are none.
pub(crate) fn identify(
    headers: &HeaderMap,
    tokens: &AdminTokens,
    open: bool,
) -> Result<Caller, Fault> {
    if tokens.is_empty() {
        return match open {
            true => Ok(Caller { name: None, scope: Scope::Operate, token: None }),
            // The last token was taken out of the configuration.
            false => Err(Fault::unauthorized("there is no token that counts here")),
        };
    }
    let presented =
        bearer(headers).ok_or_else(|| Fault::unauthorized("a bearer token is needed"))?;
    let found = find_token(tokens, presented);
    let (name, token) = found.ok_or_else(|| Fault::unauthorized("no such token"))?;
    Ok(Caller { name: Some(name.to_owned()), scope: token.scope, token: Some(token) })
}

/// Whether the caller may.
pub(crate) fn authorize(caller: &Caller, needed: Scope) -> Result<(), Fault> {
    if caller.scope >= needed {
        return Ok(());
    }
    Err(Fault::forbidden(format!("the scope {} is needed", needed.as_str())))
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_start())
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;

    use super::*;

    fn asked(authorization: Option<&str>) -> HeaderMap {
        let header = authorization.map(|value| (header::AUTHORIZATION, value.parse().unwrap()));
        header.into_iter().collect()
    }

    #[test]
    fn a_token_tells_who_asks_and_what_for() {
        let tokens = AdminTokens::from([
            ("board".to_owned(), AdminToken::of("look", Scope::Read)),
            ("ops".to_owned(), AdminToken::of("do", Scope::Operate)),
        ]);
        let known = |authorization| identify(&asked(Some(authorization)), &tokens, true).ok();
        let caller = |name: &str, scope| {
            let token = Some(tokens[name]);
            Some(Caller { name: Some(name.to_owned()), scope, token })
        };
        assert_eq!(known("Bearer look"), caller("board", Scope::Read));
        assert_eq!(known("bearer do"), caller("ops", Scope::Operate));
        for wrong in ["", "Bearer", "Bearer ", "Bearer wrong", "Basic do", "do"] {
            assert_eq!(known(wrong), None, "{wrong}");
        }
        // Also on loopback.
        let fault = identify(&asked(None), &tokens, true).unwrap_err();
        assert_eq!(fault.status, StatusCode::UNAUTHORIZED);
    }

    #[test]
    fn without_tokens_only_an_open_listener_lets_anybody_in() {
        let none = AdminTokens::new();
        let caller = identify(&asked(None), &none, true).unwrap();
        assert_eq!((caller.who(), caller.scope), ("loopback", Scope::Operate));
        assert!(identify(&asked(Some("Bearer x")), &none, false).is_err());
    }

    #[test]
    fn a_caller_counts_as_long_as_the_token_does() {
        let tokens = |name: &str, token, scope| {
            AdminTokens::from([(name.to_owned(), AdminToken::of(token, scope))])
        };
        let (none, before) = (AdminTokens::new(), tokens("board", "look", Scope::Read));
        let caller = identify(&asked(Some("Bearer look")), &before, true).unwrap();
        for (now, counts) in [
            (before, true),
            (tokens("screen", "look", Scope::Read), true),
            (tokens("board", "other", Scope::Read), false),
            (tokens("board", "look", Scope::Operate), false),
            (none.clone(), false),
        ] {
            assert_eq!(caller.counts(&now, true), counts, "{now:?}");
        }
        let nobody = identify(&asked(None), &none, true).unwrap();
        assert!(nobody.counts(&none, true));
        assert!(!nobody.counts(&tokens("board", "look", Scope::Read), true));
    }

    #[test]
    fn to_change_something_takes_more_than_to_look() {
        let reader = Caller { name: Some("board".into()), scope: Scope::Read, token: None };
        for (method, may) in [
            (Method::GET, true),
            (Method::HEAD, true),
            (Method::POST, false),
            (Method::PUT, false),
            (Method::DELETE, false),
            (Method::OPTIONS, false),
        ] {
            assert_eq!(authorize(&reader, needed(&method)).is_ok(), may, "{method}");
        }
    }
}
