//! The hook: counts each message towards all limits of its sender, or towards none.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use conexus_plugin_api::{
    AgentView, CONTINUE, Call, DenyCode, Error, Host, Outcome, Plugin, Point, PointSet, Route, deny,
};
use conexus_protocol::AgentKey;

use crate::{
    config::Config,
    limit::{Limit, words},
};

/// Entries stay a little longer than their window, so that none begins anew within it.
const GRACE: Duration = Duration::from_secs(5);

/// See the crate's documentation.
pub struct Quota {
    default: Vec<Limit>,
    classes: BTreeMap<String, Vec<Limit>>,
    class_label: Option<String>,
    types: Option<BTreeSet<String>>,
}

impl Plugin for Quota {
    type Config = Config;
    const POINTS: PointSet = PointSet::of(&[Point::Route]);

    fn new(config: Config, _: Host) -> Result<Self, Error> {
        config.check()?;
        let Config { default, classes, class_label, types, warn_at } = config;
        let classes = classes.into_iter().map(|(name, limits)| (name, limits.list(warn_at)));
        Ok(Self { default: default.list(warn_at), classes: classes.collect(), class_label, types })
    }

    fn on_route(&self, event: &Route<'_>, call: &Call<'_>) -> Outcome {
        let limits = self.limits(event.from());
        let counts = self.types.as_ref().is_none_or(|types| types.contains(event.kind()));
        if limits.is_empty() || !counts {
            return Ok(CONTINUE);
        }
        let agent = AgentKey::from_bytes(event.from().key()).base58();
        let (now_ms, bytes) = (call.now_ms(), event.text().len());
        let mut crossed = Vec::new();
        for (nth, limit) in limits.iter().enumerate() {
            let amount = limit.amount(bytes);
            let ttl = limit.left(now_ms) + GRACE;
            let counted = call.kv_incr(&limit.key(&agent, now_ms), amount, Some(ttl));
            if let Ok(sum) = counted
                && sum <= limit.max
            {
                if limit.crosses(amount, sum) {
                    crossed.push((limit, sum));
                }
                continue;
            }
            // What is refused, or cannot be judged, uses nothing up.
            let done = if counted.is_ok() { nth + 1 } else { nth };
            for limit in &limits[..done] {
                call.kv_incr(&limit.key(&agent, now_ms), -limit.amount(bytes), Some(ttl))?;
            }
            counted?;
            call.metric("denied", 1)?;
            let reset = words(limit.left(now_ms));
            let reason = format!("quota {limit} of {} used up, resets in {reset}", limit.max);
            return Ok(deny(DenyCode::RateLimited, reason));
        }
        for (limit, sum) in crossed {
            let did = event.from().did();
            call.warn(format!("{did} has used {sum} of {} of its {limit}", limit.max));
            call.metric("warned", 1)?;
        }
        Ok(CONTINUE)
    }
}

impl Quota {
    /// The limits of an agent's class.
    fn limits(&self, agent: AgentView<'_>) -> &[Limit] {
        let class = match &self.class_label {
            Some(label) => agent.label(label),
            None => agent.rate_class(),
        };
        class.and_then(|class| self.classes.get(class)).unwrap_or(&self.default)
    }
}
