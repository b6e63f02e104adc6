//! Where an instance keeps its state: on this node, or in what the cluster shares.
//!
//! Both are asked the same, and are apart: equal names in both are two namespaces. `until` is when
//! the call ends, which matters where an answer has to be waited for.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use conexus_plugin_api::host::{StateError, Value};

use super::facilities::Surroundings;
use crate::{
    cluster::backplane::{StateOperation, StateReply},
    state::{Namespace, gcra::Rate},
};

type Done<T> = Result<T, StateError>;
type Until = Option<Instant>;

/// An engine that answers something else than what it was asked is of no use.
const SENSELESS: StateError = StateError::Unavailable;

/// See the [module](self).
pub(crate) enum Keep {
    Node(Namespace),
    Cluster(Arc<str>),
}

impl Keep {
    pub(crate) fn get(
        &self,
        around: &Surroundings,
        until: Until,
        key: &str,
    ) -> Done<Option<Value>> {
        let namespace = match self {
            Self::Node(namespace) => return namespace.get(around.clock.now_ms(), key),
            Self::Cluster(namespace) => namespace,
        };
        match around.reach.state(until, namespace, key, StateOperation::Get)? {
            StateReply::Value(value) => Ok(value),
            _ => Err(SENSELESS),
        }
    }

    pub(crate) fn set(
        &self,
        around: &Surroundings,
        until: Until,
        key: &str,
        value: Value,
        ttl: Option<Duration>,
    ) -> Done<()> {
        let namespace = match self {
            Self::Node(namespace) => return namespace.set(around.clock.now_ms(), key, value, ttl),
            Self::Cluster(namespace) => namespace,
        };
        match around.reach.state(until, namespace, key, StateOperation::Set { value, ttl })? {
            StateReply::Done => Ok(()),
            _ => Err(SENSELESS),
        }
    }

    pub(crate) fn delete(&self, around: &Surroundings, until: Until, key: &str) -> Done<bool> {
        match self {
            Self::Node(namespace) => namespace.delete(around.clock.now_ms(), key),
            Self::Cluster(namespace) => {
                flag(around.reach.state(until, namespace, key, StateOperation::Delete))
            }
        }
    }

    pub(crate) fn incr(
        &self,
        around: &Surroundings,
        until: Until,
        key: &str,
        by: i64,
        ttl: Option<Duration>,
    ) -> Done<i64> {
        let namespace = match self {
            Self::Node(namespace) => return namespace.incr(around.clock.now_ms(), key, by, ttl),
            Self::Cluster(namespace) => namespace,
        };
        match around.reach.state(until, namespace, key, StateOperation::Incr { by, ttl })? {
            StateReply::Number(sum) => Ok(sum),
            _ => Err(SENSELESS),
        }
    }

    pub(crate) fn cas(
        &self,
        around: &Surroundings,
        until: Until,
        key: &str,
        expected: Option<&Value>,
        value: Value,
        ttl: Option<Duration>,
    ) -> Done<bool> {
        match self {
            Self::Node(namespace) => {
                namespace.cas(around.clock.now_ms(), key, expected, value, ttl)
            }
            Self::Cluster(namespace) => {
                let expected = expected.cloned();
                let operation = StateOperation::Cas { expected, value, ttl };
                flag(around.reach.state(until, namespace, key, operation))
            }
        }
    }

    pub(crate) fn expire(
        &self,
        around: &Surroundings,
        until: Until,
        key: &str,
        ttl: Option<Duration>,
    ) -> Done<bool> {
        match self {
            Self::Node(namespace) => namespace.expire(around.clock.now_ms(), key, ttl),
            Self::Cluster(namespace) => {
                flag(around.reach.state(until, namespace, key, StateOperation::Expire { ttl }))
            }
        }
    }

    pub(crate) fn rate_limit(
        &self,
        around: &Surroundings,
        until: Until,
        key: &str,
        count: u32,
        per: Duration,
    ) -> Done<bool> {
        match self {
            Self::Node(namespace) => namespace.rate_limit(around.clock.now_ms(), key, count, per),
            Self::Cluster(namespace) => {
                Rate::new(count, per).ok_or(StateError::BadRate)?;
                let operation = StateOperation::RateLimit { count, per };
                flag(around.reach.state(until, namespace, key, operation))
            }
        }
    }
}

fn flag(reply: Done<StateReply>) -> Done<bool> {
    match reply? {
        StateReply::Flag(is) => Ok(is),
        _ => Err(SENSELESS),
    }
}
