//! {{name}}: what this plugin is for, in a sentence.

use conexus_plugin_api::{
    Call, DenyCode, Error, Host, Outcome, Plugin, Point, PointSet, Register, declare_plugin, deny,
    set,
};
use serde::Deserialize;

/// Lets in who has a capability.
pub struct {{Type}} {
    config: Config,
}

/// `[hook.NAME] config`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    capability: String,
}

impl Plugin for {{Type}} {
    type Config = Config;
    const POINTS: PointSet = PointSet::of(&[Point::Register]);

    fn new(config: Config, host: Host) -> Result<Self, Error> {
        if config.capability.is_empty() {
            return Err("capability must not be empty".into());
        }
        host.info(format!("lets in who has the capability {}", config.capability));
        Ok(Self { config })
    }

    fn on_register(&self, event: &Register<'_>, _: &Call<'_>) -> Outcome {
        if !event.agent().has_capability(&self.config.capability) {
            return Ok(deny(DenyCode::Denied, "the capability is missing"));
        }
        Ok(set().label("member", "yes").into())
    }
}

declare_plugin!({{Type}});

#[cfg(test)]
mod tests {
    use conexus_plugin_api::{
        Verdict,
        testkit::{Kit, agent, register},
    };
    use serde_json::json;

    use super::*;

    fn kit() -> Kit<{{Type}}> {
        Kit::new(json!({ "capability": "chat" })).unwrap()
    }

    #[test]
    fn members_are_let_in_and_labelled() {
        let member = agent("did:key:zMember").capability("chat").build();
        let answer = kit().register(register(&member)).unwrap();
        let [Verdict::Set(set)] = answer.verdicts() else { panic!("{answer:?}") };
        assert_eq!(set.labels["member"], "yes");
    }

    #[test]
    fn others_are_denied() {
        let stranger = agent("did:key:zStranger").build();
        let answer = kit().register(register(&stranger)).unwrap();
        assert!(matches!(answer.verdicts(), [Verdict::Deny { .. }]), "{answer:?}");
    }

    #[test]
    fn a_config_without_a_capability_is_refused() {
        assert!(Kit::<{{Type}}>::new(json!({ "capability": "" })).is_err());
    }
}
