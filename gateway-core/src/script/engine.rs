//! The language: Rhai without anything that reaches out, under limits.

use std::sync::LazyLock;

use rhai::{
    Engine, EvalAltResult, ImmutableString, Module, NativeCallContext, OptimizationLevel, Position,
    Shared,
    module_resolvers::DummyModuleResolver,
    packages::{Package, StandardPackage},
};

use super::{
    bind::{self, Bindings},
    meter, tail,
};
use crate::config::ScriptSettings;

/// The most functions of one file.
const MAX_FUNCTIONS: usize = 1000;
/// The most modules that a script imports, directly or not.
pub(super) const MAX_MODULES: usize = 64;

/// What only reaches the outside, or nothing: refused where a script names it.
pub(super) const LEFT_OUT: [(&str, &str); 3] = [
    ("eval", "a policy says what it does; nothing is evaluated that was not checked at load"),
    ("sleep", "a hook that waits holds up whoever it judges"),
    ("timestamp", "use now_ms(), which a test can set and a replay repeats"),
];

static LANGUAGE: LazyLock<StandardPackage> = LazyLock::new(StandardPackage::new);
static HOST: LazyLock<Shared<Module>> = LazyLock::new(|| {
    let mut bindings = Bindings::default();
    bind::all(&mut bindings);
    tamed(&mut bindings);
    tail::bind(&mut bindings);
    bindings.into_module()
});

/// An engine for one instance. The libraries in it are shared by all.
pub(super) fn engine(limits: &ScriptSettings) -> Engine {
    let mut engine = Engine::new_raw();
    // Interned strings are kept behind a lock that every call would take.
    engine.set_max_strings_interned(0);
    engine.set_module_resolver(DummyModuleResolver::new());
    LANGUAGE.register_into_engine(&mut engine);
    engine.register_global_module(HOST.clone());
    engine.disable_symbol("eval");
    engine.set_strict_variables(true);
    engine.set_optimization_level(OptimizationLevel::Simple);
    engine.on_progress(meter::tick);
    engine.set_max_call_levels(limits.max_call_levels);
    engine.set_max_expr_depths(limits.max_expression_depth, limits.max_expression_depth);
    engine.set_max_string_size(limits.max_string_bytes);
    engine.set_max_array_size(limits.max_array_size);
    engine.set_max_map_size(limits.max_map_size);
    engine.set_max_variables(limits.max_variables);
    engine.set_max_functions(MAX_FUNCTIONS);
    engine.set_max_modules(MAX_MODULES);
    engine
}

/// An engine that parses without judging names, for a first look at a script.
pub(super) fn parser(limits: &ScriptSettings) -> Engine {
    let mut engine = engine(limits);
    engine.set_strict_variables(false);
    engine.set_optimization_level(OptimizationLevel::None);
    engine
}

type Refusable<T> = Result<T, Box<EvalAltResult>>;

/// Library functions that could do in one operation what no limit would notice in time.
fn tamed(bindings: &mut Bindings) {
    fn replaced(
        context: &NativeCallContext,
        text: &mut ImmutableString,
        old: &str,
        new: &str,
    ) -> Refusable<()> {
        let most = context.engine().max_string_size();
        let times = if new.len() > old.len() { text.matches(old).count() } else { 0 };
        let longer = times.saturating_mul(new.len().saturating_sub(old.len()));
        if most > 0 && text.len().saturating_add(longer) > most {
            return Err(too_long());
        }
        *text = text.replace(old, new).into();
        Ok(())
    }
    type Text = ImmutableString;
    bindings.function("replace", |c: NativeCallContext, t: &mut Text, old: &str, new: &str| {
        replaced(&c, t, old, new)
    });
    bindings.function("replace", |c: NativeCallContext, t: &mut Text, old: &str, new: char| {
        replaced(&c, t, old, new.encode_utf8(&mut [0; 4]))
    });
    bindings.function("replace", |c: NativeCallContext, t: &mut Text, old: char, new: &str| {
        replaced(&c, t, old.encode_utf8(&mut [0; 4]), new)
    });
    bindings.function("replace", |c: NativeCallContext, t: &mut Text, old: char, new: char| {
        replaced(&c, t, old.encode_utf8(&mut [0; 4]), new.encode_utf8(&mut [0; 4]))
    });
    // For whoever gets at them by way of a function pointer.
    bindings.function("timestamp", || -> Refusable<()> { Err(LEFT_OUT[2].1.into()) });
    bindings.function("sleep", |_seconds: i64| -> Refusable<()> { Err(LEFT_OUT[1].1.into()) });
    bindings.function("sleep", |_seconds: f64| -> Refusable<()> { Err(LEFT_OUT[1].1.into()) });
}

fn too_long() -> Box<EvalAltResult> {
    EvalAltResult::ErrorDataTooLarge("Length of string".to_owned(), Position::NONE).into()
}
