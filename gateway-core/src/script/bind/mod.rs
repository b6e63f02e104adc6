//! What scripts see: native types for events, and functions that ask the gateway.
//!
//! A function finds its call's surroundings in the tag that Rhai hands on: no lock, no global.

mod agents;
mod events;
mod lines;
mod network;
mod state;
mod text;
mod time;
mod tls;
mod values;
mod verdicts;

use std::{collections::BTreeMap, sync::Arc};

use conexus_plugin_api::host::Services;
use rhai::{
    EvalAltResult, FuncRegistration, Module, NativeCallContext, RhaiNativeFunc, Shared, Variant,
};

pub(super) use self::{
    agents::AgentRef,
    events::{argument, events_of},
    lines::{Lines, configured},
    text::{Patterns, compile_pattern},
    time::{duration, instant_ms},
    values::{from_json, parse_json, to_json},
    verdicts::{VerdictValue, answer},
};

/// What a host function that may fail gives.
pub(super) type Fallible<T> = Result<T, Box<EvalAltResult>>;

/// What an instance holds beside its code.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// The lists that its configuration names, by their key: `file`, `lists.vip_file`.
    pub(super) lines: BTreeMap<String, Lines>,
    /// Compiled regular expressions.
    pub(super) patterns: Patterns,
}

/// One call's surroundings, as the tag of its evaluation.
#[derive(Clone)]
pub(super) struct Call {
    /// None while a script is loaded.
    pub(super) services: Option<Arc<dyn Services>>,
    pub(super) held: Arc<Held>,
}

/// Asks the gateway something on behalf of the script.
fn ask<T>(
    context: &NativeCallContext<'_>,
    question: impl FnOnce(&dyn Services) -> Fallible<T>,
) -> Fallible<T> {
    with_call(context, |call| match &call.services {
        Some(services) => question(&**services),
        None => Err(format!(
            "{}() asks the gateway, and there is none to ask while the script is loaded",
            context.fn_name()
        )
        .into()),
    })
}

fn with_call<T>(
    context: &NativeCallContext<'_>,
    body: impl FnOnce(&Call) -> Fallible<T>,
) -> Fallible<T> {
    let call = context.tag().and_then(|tag| tag.read_lock::<Call>());
    match call {
        Some(call) => body(&call),
        None => Err("the call has no surroundings".into()),
    }
}

/// Registers everything.
pub(super) fn all(bindings: &mut Bindings) {
    agents::bind(bindings);
    events::bind(bindings);
    lines::bind(bindings);
    network::bind(bindings);
    state::bind(bindings);
    text::bind(bindings);
    time::bind(bindings);
    tls::bind(bindings);
    verdicts::bind(bindings);
    #[cfg(test)]
    bindings
        .function("panic_for_a_test", |_anything: rhai::Dynamic| -> () { panic!("for a test") });
}

/// A module in the making.
#[derive(Default)]
pub(super) struct Bindings(Module);

impl Bindings {
    /// A function, also callable as a method of its first argument.
    pub(super) fn function<A: 'static, const N: usize, const X: bool, R, const F: bool>(
        &mut self,
        name: &str,
        function: impl RhaiNativeFunc<A, N, X, R, F> + Send + Sync + 'static,
    ) where
        R: Variant + Clone,
    {
        FuncRegistration::new(name)
            .in_global_namespace()
            .with_volatility(true)
            .set_into_module(&mut self.0, function);
    }

    /// A field that can be read.
    pub(super) fn field<A: 'static, const N: usize, const X: bool, R, const F: bool>(
        &mut self,
        name: &'static str,
        getter: impl RhaiNativeFunc<A, N, X, R, F> + Send + Sync + 'static,
    ) where
        R: Variant + Clone,
    {
        FuncRegistration::new_getter(name)
            .with_volatility(true)
            .set_into_module(&mut self.0, getter);
    }

    /// What a type is called in errors and by `type_of`.
    pub(super) fn named<T>(&mut self, name: &'static str) {
        self.0.set_custom_type::<T>(name);
    }

    /// The module itself, for what is seldom.
    pub(super) fn module(&mut self) -> &mut Module {
        &mut self.0
    }

    pub(super) fn into_module(mut self) -> Shared<Module> {
        self.0.build_index();
        self.0.into()
    }
}
