//! The service as hooks see it: cached, and behind its circuit.

use std::{num::NonZeroUsize, sync::Arc};

use conexus_plugin_api::{Answer, Error, Host, Point};

use crate::{
    cache::{Cache, Key},
    circuit::{Circuit, Permit},
    client::Client,
    config::{Config, Part},
    request::Request,
};

pub(crate) struct Service {
    client: Client,
    circuit: Arc<Circuit>,
    cache: Option<(Cache, Vec<Part>)>,
}

/// A question that only the service can answer.
pub(crate) struct Question {
    point: Point,
    body: Vec<u8>,
    key: Option<Key>,
    permit: Permit,
}

/// What is known before anybody is asked.
pub(crate) enum Begun {
    Known(Answer),
    Open(Question),
}

impl Service {
    pub(crate) fn new(config: &Config) -> Result<Self, Error> {
        let millis = |time: std::time::Duration| i64::try_from(time.as_millis());
        let client = Client::new(config, config.check()?)?;
        let circuit = Circuit::new(config.circuit.failures, millis(config.circuit.open)?);
        let cache = match &config.cache {
            Some(cache) => {
                let entries = NonZeroUsize::new(cache.entries).unwrap_or(NonZeroUsize::MIN);
                Some((Cache::new(entries, millis(cache.ttl)?), cache.key.clone()))
            }
            None => None,
        };
        Ok(Self { client, circuit, cache })
    }

    /// Looks whether the answer is known already; fails while the circuit is open.
    pub(crate) fn begin(&self, request: &Request, host: &Host) -> Result<Begun, Error> {
        let now_ms = host.now_ms();
        let mut key = None;
        if let Some((cache, parts)) = &self.cache {
            let of_this = request.key(parts);
            if let Some(answer) = cache.get(&of_this, now_ms) {
                host.metric("cached", 1)?;
                return Ok(Begun::Known(answer));
            }
            key = Some(of_this);
        }
        let Some(permit) = self.circuit.enter(now_ms) else {
            host.metric("rejected", 1)?;
            return Err("the service has failed too often; its circuit is open".into());
        };
        let (point, body) = (request.point, request.body());
        Ok(Begun::Open(Question { point, body, key, permit }))
    }

    /// Asks, which takes up to the timeout.
    pub(crate) fn finish(&self, question: Question, host: &Host) -> Result<Answer, Error> {
        let Question { point, body, key, permit } = question;
        host.metric("requests", 1)?;
        match self.client.ask(&body, point, host.now_ms()) {
            Ok(answer) => {
                if permit.succeeded() {
                    host.info("the service is back");
                }
                if let (Some((cache, _)), Some(key)) = (&self.cache, key) {
                    cache.put(key, answer.clone(), host.now_ms());
                }
                Ok(answer)
            }
            Err(failure) => {
                host.metric("failures", 1)?;
                if permit.failed(host.now_ms()) {
                    host.warn(format!("the service is left alone for a while: {failure}"));
                }
                Err(failure.into())
            }
        }
    }
}
