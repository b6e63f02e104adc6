//! The hook: finds the token, asks [`verify`], keeps what came of it for the connection.

use std::sync::{Arc, PoisonError, RwLock};

use conexus_plugin_api::{
    Answer, CONTINUE, Call, Connect, DenyCode, Error, Host, Outcome, Plugin, Point, PointSet,
    Register, Set, Value, deny,
};

use crate::{
    config::{Config, Source, When},
    crypto,
    identity::Identity,
    keys::{KeyError, Keys},
    verify::{Refusal, verify},
};

/// Under which an [`Identity`] is kept for the connection.
const IDENTITY: &str = "identity";

/// See the crate's documentation.
pub struct JwtAuth {
    config: Config,
    source: Source,
    keys: RwLock<Arc<Keys>>,
}

impl Plugin for JwtAuth {
    type Config = Config;
    const POINTS: PointSet =
        PointSet::of(&[Point::Connect, Point::Register, Point::Reload, Point::Tick]);

    fn new(config: Config, _: Host) -> Result<Self, Error> {
        crypto::install();
        config.check()?;
        let source = config.source()?;
        let keys = Keys::read(&source, &config.algorithms)?;
        Ok(Self { config, source, keys: RwLock::new(Arc::new(keys)) })
    }

    fn on_connect(&self, event: &Connect<'_>, call: &Call<'_>) -> Outcome {
        if self.config.when == When::Register {
            return Ok(CONTINUE);
        }
        let token = bearer(event).or_else(|| self.parameter(event.query()));
        let Some(token) = token else {
            let required = self.config.when == When::Connect;
            return Ok(if required { refused(&Refusal::Missing, call) } else { CONTINUE });
        };
        match verify(&token, &self.keys(), &self.config, call.now_ms()) {
            Ok(identity) => {
                keep(&identity, call)?;
                Ok(CONTINUE)
            }
            Err(refusal) => Ok(refused(&refusal, call)),
        }
    }

    fn on_register(&self, event: &Register<'_>, call: &Call<'_>) -> Outcome {
        let now_ms = call.now_ms();
        let presented = match self.config.when {
            When::Connect => None,
            When::Register | When::Either => event.credentials().filter(|token| !token.is_empty()),
        };
        let found = match presented {
            Some(token) => verify(token, &self.keys(), &self.config, now_ms),
            None => kept(call)?.ok_or(Refusal::Missing),
        };
        let checked = found.and_then(|identity| {
            identity.check(&event.agent().key(), now_ms, self.config.subject)?;
            Ok(identity)
        });
        match checked {
            Ok(identity) => {
                if presented.is_some() {
                    keep(&identity, call)?;
                }
                Ok(told(identity))
            }
            Err(refusal) => Ok(refused(&refusal, call)),
        }
    }

    fn on_reload(&self, _: &Call<'_>) -> Result<(), Error> {
        Ok(self.read_keys()?)
    }

    fn on_tick(&self, _: &Call<'_>) -> Result<(), Error> {
        Ok(self.read_keys()?)
    }
}

impl JwtAuth {
    fn keys(&self) -> Arc<Keys> {
        Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the keys again; the old ones stay where that fails.
    fn read_keys(&self) -> Result<(), KeyError> {
        let keys = Arc::new(Keys::read(&self.source, &self.config.algorithms)?);
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
        Ok(())
    }

    fn parameter(&self, query: &str) -> Option<String> {
        let name = self.config.query.as_ref()?;
        let mut pairs = form_urlencoded::parse(query.as_bytes());
        let token = pairs.find(|(key, _)| key == name)?.1;
        (!token.is_empty()).then(|| token.into_owned())
    }
}

/// The token of `Authorization: Bearer …`; other schemes are somebody else's.
fn bearer(event: &Connect<'_>) -> Option<String> {
    let (scheme, token) = event.header("authorization")?.trim().split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then(|| token.to_owned())
}

fn kept(call: &Call<'_>) -> Result<Option<Identity>, Error> {
    let value = call.connection_get(IDENTITY)?;
    Ok(value.as_ref().and_then(Value::as_text).map(serde_json::from_str).transpose()?)
}

fn keep(identity: &Identity, call: &Call<'_>) -> Result<(), Error> {
    let json = serde_json::to_string(identity)?;
    Ok(call.connection_set(IDENTITY, Value::Json(json.into()))?)
}

fn told(identity: Identity) -> Answer {
    let Identity { labels, rate_class, .. } = identity;
    if labels.is_empty() && rate_class.is_none() {
        return CONTINUE;
    }
    Set { labels, rate_class, metadata: None }.into()
}

fn refused(refusal: &Refusal, call: &Call<'_>) -> Answer {
    call.debug(format!("refused: {refusal}"));
    deny(DenyCode::Denied, refusal.to_string())
}
