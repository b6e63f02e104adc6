//! The policy under test, reached by the names of its functions.
//!
//! Tests run in an engine of their own; what they call of the policy goes through natives of the
//! same names, so that `set_config` can put another instance in its place.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use conexus_plugin_api::{Point, host::Event};
use parking_lot::Mutex;
use rhai::{Dynamic, EvalAltResult, Module, NativeCallContext, Shared};

use super::{Config, World, as_config};
use crate::script::{
    bind::{self, Bindings, VerdictValue},
    fault::ScriptError,
    instance::{Extra, Instance},
    scripts::Script,
};

type Evaluated<T> = Result<T, Box<EvalAltResult>>;

/// The most parameters of a function that a test can call.
const MAX_PARAMETERS: usize = 6;

pub(super) struct Policy(Arc<Inner>);

struct Inner {
    script: Arc<Script>,
    folder: PathBuf,
    builders: Shared<Module>,
    world: World,
    deadline: Instant,
    /// None once the test is over: its functions hold this, and it holds them.
    instance: Mutex<Option<Arc<Instance>>>,
}

impl Policy {
    pub(super) fn load(
        script: &Arc<Script>,
        config: &Config,
        folder: &Path,
        builders: &Shared<Module>,
        world: &World,
        deadline: Instant,
    ) -> Result<Self, ScriptError> {
        let inner = Inner {
            script: script.clone(),
            folder: folder.to_owned(),
            builders: builders.clone(),
            world: world.clone(),
            deadline,
            instance: Mutex::new(None),
        };
        inner.configure(config)?;
        Ok(Self(Arc::new(inner)))
    }

    pub(super) fn unload(&self) {
        *self.0.instance.lock() = None;
    }

    /// The policy's functions, and `set_config`.
    pub(super) fn module(&self) -> Shared<Module> {
        let mut bindings = Bindings::default();
        let inner = self.0.clone();
        bindings.function("set_config", move |config: Dynamic| -> Evaluated<()> {
            let config = as_config(&config, &inner.folder)?;
            inner.configure(&config).map_err(|error| error.to_string().into())
        });
        for (name, parameters) in self.0.script.functions() {
            proxy(&mut bindings, &self.0, &name, parameters);
        }
        bindings.into_module()
    }
}

/// A native of that name that calls the policy's function.
fn proxy(bindings: &mut Bindings, policy: &Arc<Inner>, name: &str, parameters: usize) {
    macro_rules! register {
        ($($argument:ident),*) => {{
            let (policy, called) = (policy.clone(), name.to_owned());
            bindings.function(
                name,
                move |context: NativeCallContext $(, $argument: Dynamic)*| -> Evaluated<Dynamic> {
                    policy.call(&context, &called, vec![$($argument),*])
                },
            );
        }};
    }
    match parameters {
        0 => register!(),
        1 => register!(a),
        2 => register!(a, b),
        3 => register!(a, b, c),
        4 => register!(a, b, c, d),
        5 => register!(a, b, c, d, e),
        MAX_PARAMETERS => register!(a, b, c, d, e, f),
        _ => {}
    }
}

impl Inner {
    fn configure(&self, config: &Config) -> Result<(), ScriptError> {
        let extra = Extra { functions: vec![self.builders.clone()], keep: None };
        let instance = Instance::load(&self.script, config, extra)?;
        *self.instance.lock() = Some(Arc::new(instance));
        Ok(())
    }

    fn call(
        &self,
        context: &NativeCallContext<'_>,
        name: &str,
        arguments: Vec<Dynamic>,
    ) -> Evaluated<Dynamic> {
        let instance = self.instance.lock().clone().ok_or("the test is over")?;
        let called = match Point::from_name(name) {
            Some(point) => self.hook(&instance, point, arguments.into_iter().next()),
            None => instance.function(name, arguments, self.world.services(None), self.deadline),
        };
        let position = context.call_position();
        called.map_err(|error| {
            let (name, source) = (name.to_owned(), instance.source().to_owned());
            EvalAltResult::ErrorInFunctionCall(name, source, error, position).into()
        })
    }

    /// As the gateway asks; what the answer means there is checked as well.
    fn hook(
        &self,
        instance: &Instance,
        point: Point,
        argument: Option<Dynamic>,
    ) -> Evaluated<Dynamic> {
        let event = match &argument {
            None => None,
            Some(argument) => Some(event(point, argument)?),
        };
        let about = event.as_ref().and_then(Event::agent).map(|agent| agent.did.as_str());
        let services = match point {
            Point::Connect => self.world.services_of_a_connection(),
            _ => self.world.services(about),
        };
        let argument = event.as_ref().and_then(bind::argument);
        let returned = instance.hook(point, argument, services, self.deadline)?;
        let answer = instance.meaning(point, returned)?;
        let mut verdicts: Vec<_> =
            answer.into_verdicts().into_iter().map(|v| Dynamic::from(VerdictValue(v))).collect();
        Ok(match verdicts.len() {
            0 => Dynamic::UNIT,
            1 => verdicts.remove(0),
            _ => verdicts.into(),
        })
    }
}

fn event(point: Point, argument: &Dynamic) -> Result<Event, String> {
    let events = bind::events_of(argument).unwrap_or_default();
    events.into_iter().find(|event| event.point() == point).ok_or_else(|| {
        format!("{point} is asked about an event of its own, not about {}", argument.type_name())
    })
}
