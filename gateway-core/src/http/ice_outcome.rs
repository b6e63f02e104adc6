//! `POST /ice/outcome`: an agent tells how it connected to another one, or that it did not.
//!
//! For operators who asked for it (`ice.outcomes`). Who tells is proven as at `GET /ice`, and nothing of it is
//! kept: an outcome is a few of WebRTC's words and a time, which are counted.

use axum::{
    Json,
    extract::{FromRequest as _, Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use std::time::Duration;

use super::{
    App, fault,
    ice::{Refusal, admit, no_store},
};
use crate::ice::outcomes::{CandidateKind, Outcome, Pair, Protocol};

/// What a body may have: a report has a fifth of it.
pub(super) const BODY_BYTES: usize = 1024;

/// Nobody looks for a way for longer.
const LONGEST: Duration = Duration::from_secs(600);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Report {
    outcome: Word,
    local: Option<CandidateKind>,
    remote: Option<CandidateKind>,
    transport: Option<Protocol>,
    duration_ms: u64,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Word {
    Connected,
    Failed,
}

pub(super) async fn report(State(app): State<App>, request: Request) -> Response {
    let ice = &app.core.ice;
    let settings = ice.settings();
    if !settings.outcomes {
        let text = "outcomes of ICE are not collected here (ice.outcomes)";
        return no_store(fault(StatusCode::NOT_FOUND, text));
    }
    let told = admit(&app.core, request.headers()).and_then(|session| {
        let now = app.core.clock.now();
        let turn = session.ice_outcomes.take(now, settings.requests_per_minute);
        turn.map_err(|wait| Refusal::TooOften(wait.as_secs() + 1))
    });
    let (word, response) = match told {
        Err(refusal) => (refusal.word(), refusal.into_response()),
        Ok(()) => match outcome(request).await {
            Err(malformed) => ("malformed", malformed),
            Ok(outcome) => {
                ice.outcomes.count(outcome);
                ("ok", StatusCode::NO_CONTENT.into_response())
            }
        },
    };
    ice.reports.count(word);
    no_store(response)
}

/// What the body says.
async fn outcome(request: Request) -> Result<Outcome, Response> {
    let body = Json::<Report>::from_request(request, &()).await;
    let Json(report) = body.map_err(|wrong| fault(wrong.status(), wrong.body_text()))?;
    report.outcome().map_err(|wrong| fault(StatusCode::UNPROCESSABLE_ENTITY, wrong))
}

impl Report {
    fn outcome(self) -> Result<Outcome, String> {
        let time = Duration::from_millis(self.duration_ms);
        if time > LONGEST {
            return Err(format!("duration_ms: at most {}", LONGEST.as_millis()));
        }
        let members = [
            ("local", self.local.is_some()),
            ("remote", self.remote.is_some()),
            ("transport", self.transport.is_some()),
        ];
        let which = |there: bool| members.iter().find(|(_, is)| *is == there).map(|(name, _)| name);
        match (self.outcome, self.local, self.remote, self.transport) {
            (Word::Connected, Some(local), Some(remote), Some(protocol)) => {
                Ok(Outcome::Connected(Pair { local, remote, protocol }, time))
            }
            (Word::Connected, ..) => {
                let missing = which(false).unwrap_or(&"local");
                Err(format!("{missing}: is missing, and is told of whoever is connected"))
            }
            (Word::Failed, None, None, None) => Ok(Outcome::Failed),
            (Word::Failed, ..) => {
                let there = which(true).unwrap_or(&"local");
                Err(format!("{there}: there is no pair of candidates where the outcome is failed"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Outcome, String> {
        serde_json::from_str::<Report>(text).map_err(|error| error.to_string())?.outcome()
    }

    #[test]
    fn a_report_is_taken_whole_or_not_at_all() {
        let pair = Pair {
            local: CandidateKind::Host,
            remote: CandidateKind::Srflx,
            protocol: Protocol::Udp,
        };
        let whole = r#""outcome":"connected","local":"host","remote":"srflx","transport":"udp""#;
        let read_whole = |time: &str| read(&format!(r#"{{{whole},"duration_ms":{time}}}"#));
        assert_eq!(read_whole("7"), Ok(Outcome::Connected(pair, Duration::from_millis(7))));
        assert_eq!(read(r#"{"outcome":"failed","duration_ms":0}"#), Ok(Outcome::Failed));
        assert!(read_whole("600001").unwrap_err().contains("duration_ms: at most 600000"));
        for time in ["-1", "1.5", "\"7\"", "null"] {
            assert!(read_whole(time).is_err(), "{time}");
        }
        for (text, said) in [
            (
                r#"{"outcome":"connected","local":"host","transport":"udp","duration_ms":1}"#,
                "remote: ",
            ),
            (
                r#"{"outcome":"connected","local":"host","remote":"host","duration_ms":1}"#,
                "transport: ",
            ),
            (r#"{"outcome":"failed","remote":"host","duration_ms":1}"#, "remote: "),
            (r#"{"outcome":"failed"}"#, "missing field `duration_ms`"),
            (r#"{"duration_ms":1}"#, "missing field `outcome`"),
            (r#"{"outcome":"failed","duration_ms":1,"peer":"did:key:z"}"#, "unknown field `peer`"),
            (
                r#"{"outcome":"failed","outcome":"failed","duration_ms":1}"#,
                "duplicate field `outcome`",
            ),
            (r#"{"outcome":"maybe","duration_ms":1}"#, "expected `connected` or `failed`"),
            (r#"{"outcome":"connected","local":"mine","duration_ms":1}"#, "unknown variant `mine`"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
