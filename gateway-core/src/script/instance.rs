//! A script with its configuration: loaded once, called from many threads.

use std::{
    any::Any,
    collections::BTreeMap,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Instant,
};

use conexus_plugin_api::{
    Answer, Point, PointSet,
    host::{Event, Services},
};
use rhai::{
    AST, ASTNode, Caches, CallFnOptions, Dynamic, Engine, EvalAltResult, Expr, FnCallExpr,
    ImmutableString, Module, ModuleResolver, OptimizationLevel, Position, Scope, Shared, Stmt,
    StmtBlock, module_resolvers::DummyModuleResolver,
};
use serde_json::{Map as Config, Value as Json};

use super::{
    bind::{self, Call, Held},
    check::body,
    engine,
    fault::{BadVerdict, ScriptError, ScriptFault, Trace},
    meter::{self, LOAD_TIME},
    scripts::{CONFIG, Script, Unit},
    tail,
};
use crate::hooks::{CallContext, Hook, HookFault, Returned, SourceFile};

type Evaluated<T> = Result<T, Box<EvalAltResult>>;

/// A script that decides. Nothing of it changes after it was made.
pub struct ScriptHook {
    instance: Instance,
}

impl ScriptHook {
    pub(super) const fn new(instance: Instance) -> Self {
        Self { instance }
    }

    /// Every file that it was made from, lists of the configuration included.
    #[must_use]
    pub fn files(&self) -> &[SourceFile] {
        &self.instance.files
    }
}

impl fmt::Debug for ScriptHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ScriptHook").field(&self.instance.source).finish()
    }
}

impl Hook for ScriptHook {
    fn points(&self) -> PointSet {
        self.instance.points
    }

    fn call(&self, event: &Event, context: &CallContext) -> Result<Returned, HookFault> {
        let called = catch_unwind(AssertUnwindSafe(|| {
            self.instance.ask(event, context.services.clone(), context.deadline)
        }));
        called
            .unwrap_or_else(|panic| Err(HookFault::Panicked(panic_text(&*panic))))
            .map(Returned::Answer)
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "without a text".to_owned())
}

/// What a hook runs: the body of its function, without the call. (Rhai forgets where a call was
/// stopped as the error leaves the function; as statements of its own the body keeps the place.)
struct Body {
    parameter: Option<ImmutableString>,
    statements: Vec<Stmt>,
    /// Where the function begins.
    position: Position,
}

/// Whether a function of that name remains.
pub(super) type Keep = fn(&str) -> bool;

/// What policy tests add and leave out.
#[derive(Default)]
pub(super) struct Extra {
    /// More functions; of the same name, those of a later module are found first.
    pub(super) functions: Vec<Shared<Module>>,
    /// Which of the script's own functions remain.
    pub(super) keep: Option<Keep>,
}

/// A loaded script.
pub(super) struct Instance {
    engine: Engine,
    ast: AST,
    source: ImmutableString,
    bodies: BTreeMap<Point, Body>,
    points: PointSet,
    held: Arc<Held>,
    files: Vec<SourceFile>,
    max_operations: u64,
}

impl Instance {
    /// Loads a script.
    pub(super) fn load(
        script: &Script,
        config: &Config<String, Json>,
        extra: Extra,
    ) -> Result<Self, ScriptError> {
        let settings = script.scripts().settings();
        let (lists, list_files) = bind::configured(config)?;
        let held = Arc::new(Held { lines: lists.into_iter().collect(), ..Held::default() });
        let mut engine = engine::engine(settings);
        for module in extra.functions {
            engine.register_global_module(module);
        }
        let config = bind::from_json(&Json::Object(config.clone()));
        let mut named = Module::new();
        named.set_var(CONFIG, config.clone());
        engine.register_global_module(named.into());
        let mut loading = Loading {
            engine,
            modules: BTreeMap::new(),
            config,
            held: held.clone(),
            max_operations: settings.max_operations as u64,
        };
        for unit in script.modules() {
            let (ast, _) = loading.compile(unit)?;
            let module = loading.module(unit, &ast)?;
            loading.modules.insert(unit_path(unit), module.into());
        }
        let main = script.main();
        let (mut ast, constants) = loading.compile(main)?;
        if let Some(keep) = extra.keep {
            ast.retain_functions(|_, _, name, _| keep(name) || name.starts_with("anon$"));
        }
        let Loading { mut engine, modules, .. } = loading;
        for import in &main.imports {
            if let Some(module) = modules.get(import.path.as_str()) {
                engine.register_static_module(import.alias.clone(), module.clone());
            }
        }
        engine.set_module_resolver(DummyModuleResolver::new());
        let bodies = script
            .points()
            .iter()
            .map(|point| (point, Body::of(point, main, &ast, &engine, &constants)))
            .collect();
        let mut files = [script.files(), &list_files].concat();
        files.sort_by(|a, b| a.path.cmp(&b.path));
        files.dedup();
        Ok(Self {
            engine,
            source: main.source.name.as_ref().into(),
            ast,
            bodies,
            points: script.points(),
            held,
            files,
            max_operations: settings.max_operations as u64,
        })
    }

    /// Asks a hook.
    pub(super) fn ask(
        &self,
        event: &Event,
        services: Arc<dyn Services>,
        deadline: Instant,
    ) -> Result<Answer, HookFault> {
        let point = event.point();
        self.hook(point, bind::argument(event), services, deadline)
            .and_then(|returned| self.meaning(point, returned))
            .map_err(|error| Trace::of(*error, &self.source, point.name()).into_hook_fault())
    }

    /// What a hook's return value means; else what is wrong with it, at the hook's place.
    pub(super) fn meaning(&self, point: Point, returned: Dynamic) -> Evaluated<Answer> {
        bind::answer(point, returned).map_err(|text| {
            let position = self.bodies.get(&point).map_or(Position::NONE, |body| body.position);
            let thrown = Dynamic::from(BadVerdict(text));
            EvalAltResult::ErrorRuntime(thrown, position).into()
        })
    }

    pub(super) fn hook(
        &self,
        point: Point,
        argument: Option<Dynamic>,
        services: Arc<dyn Services>,
        deadline: Instant,
    ) -> Evaluated<Dynamic> {
        let Some(body) = self.bodies.get(&point) else { return Ok(Dynamic::UNIT) };
        let mut scope = Scope::new();
        if let Some((name, argument)) = body.parameter.clone().zip(argument) {
            scope.push_dynamic(name, argument);
        }
        let mut global = self.engine.new_global_runtime_state();
        global.lib.push(self.ast.shared_lib().clone());
        global.source = Some(self.source.clone());
        global.tag = Dynamic::from(Call { services: Some(services), held: self.held.clone() });
        meter::metered(self.max_operations, deadline, || {
            #[expect(deprecated, reason = "means volatile here; rhai is pinned to this version")]
            self.engine.eval_statements_raw(
                &mut global,
                &mut Caches::new(),
                &mut scope,
                &body.statements,
            )
        })
    }

    /// Calls any function, for policy tests.
    pub(super) fn function(
        &self,
        name: &str,
        arguments: Vec<Dynamic>,
        services: Arc<dyn Services>,
        deadline: Instant,
    ) -> Evaluated<Dynamic> {
        let call = Call { services: Some(services), held: self.held.clone() };
        let options = CallFnOptions::new().eval_ast(false).with_tag(Dynamic::from(call));
        meter::metered(self.max_operations, deadline, || {
            let scope = &mut Scope::new();
            self.engine.call_fn_with_options(options, scope, &self.ast, name, arguments)
        })
    }

    /// `allowlist.rhai`.
    pub(super) fn source(&self) -> &str {
        &self.source
    }

    /// The value of one top-level constant, for which nothing else of the script is run.
    pub(super) fn constant(script: &Script, name: &str) -> Result<Option<Dynamic>, ScriptError> {
        let main = script.main();
        let defined =
            main.ast.statements().iter().find(
                |statement| matches!(statement, Stmt::Var(parts, ..) if parts.0.name == name),
            );
        let Some(defined) = defined else { return Ok(None) };
        let mut only = AST::new([defined.clone()], main.ast.shared_lib().clone());
        only.set_source(&*main.source.name);
        let settings = script.scripts().settings();
        let mut loading = Loading {
            engine: engine::engine(settings),
            modules: BTreeMap::new(),
            config: Dynamic::UNIT,
            held: Arc::default(),
            max_operations: settings.max_operations as u64,
        };
        let mut scope = loading.scope();
        loading
            .run(|engine, scope| engine.run_ast_with_scope(scope, &only), &mut scope)
            .map_err(|error| ScriptError::run(&main.source.name, *error))?;
        Ok(scope.get(name).cloned())
    }
}

impl Body {
    fn of(point: Point, unit: &Unit, ast: &AST, engine: &Engine, constants: &Scope<'_>) -> Self {
        let function = ast.iter_fn_def().find(|function| function.name == point.name());
        let (parameter, start, end) =
            function.map_or((None, Position::NONE, Position::NONE), |function| {
                let body = &function.body;
                (function.params.first().cloned(), body.start_position(), body.end_position())
            });
        // As it was written; then optimized as the rest is.
        let mut written = body(&unit.ast, point.name(), usize::from(parameter.is_some()));
        tail::settle(engine, &mut written, end, &unit.terminated);
        // A block of their own, so that a `const` in them is local.
        let block = Stmt::Block(StmtBlock::new(written, start, end).into());
        let alone = AST::new([block], ast.shared_lib().clone());
        let optimized = engine.optimize_ast(constants, alone, OptimizationLevel::Simple);
        Self { parameter, statements: optimized.statements().to_vec(), position: start }
    }
}

/// `lib/nets.rhai` is imported as `lib/nets`.
fn unit_path(unit: &Unit) -> String {
    unit.source.name.trim_end_matches(".rhai").to_owned()
}

struct Loading {
    engine: Engine,
    modules: BTreeMap<String, Shared<Module>>,
    config: Dynamic,
    held: Arc<Held>,
    max_operations: u64,
}

impl Loading {
    /// Runs the top level once; then compiles with its constants in place of their names.
    fn compile(&mut self, unit: &Unit) -> Result<(AST, Scope<'static>), ScriptError> {
        let name = &unit.source.name;
        let mut first = unit.ast.clone();
        first.set_source(name.as_ref());
        let mut ran = self.scope();
        self.run(|engine, scope| engine.run_ast_with_scope(scope, &first), &mut ran)
            .map_err(|error| ScriptError::run(name, *error))?;
        let (mut constants, mut named) = (self.scope(), Module::new());
        for constant in &unit.constants {
            if let Some(value) = ran.get(constant) {
                constants.push_constant_dynamic(constant.clone(), value.clone());
                named.set_var(constant.clone(), value.clone());
            }
        }
        // Where Rhai does not put the value in place, it finds it by its name.
        self.engine.register_global_module(named.into());
        let mut ast = self
            .engine
            .compile_with_scope(&constants, &*unit.source.text)
            .map_err(|error| ScriptError::parse(name, &error))?;
        ast.set_source(name.as_ref());
        self.patterns(unit, &ast)?;
        Ok((ast, constants))
    }

    /// A module that scripts import. Its functions keep what it imports itself.
    fn module(&mut self, unit: &Unit, ast: &AST) -> Result<Module, ScriptError> {
        let mut scope = self.scope();
        let made = self.run(
            |engine, scope| {
                let scope = std::mem::take(scope);
                Module::eval_ast_as_new(scope, ast, engine)
            },
            &mut scope,
        );
        made.map_err(|error| ScriptError::run(&unit.source.name, *error))
    }

    fn scope(&self) -> Scope<'static> {
        let mut scope = Scope::new();
        scope.push_constant_dynamic(CONFIG, self.config.clone());
        scope
    }

    fn run<T>(
        &mut self,
        run: impl FnOnce(&Engine, &mut Scope<'static>) -> Evaluated<T>,
        scope: &mut Scope<'static>,
    ) -> Evaluated<T> {
        self.engine.set_module_resolver(Loaded(self.modules.clone()));
        let call = Call { services: None, held: self.held.clone() };
        self.engine.set_default_tag(Dynamic::from(call));
        let deadline = Instant::now() + LOAD_TIME;
        let engine = &self.engine;
        let caught = catch_unwind(AssertUnwindSafe(|| {
            meter::metered(self.max_operations, deadline, || run(engine, scope))
        }));
        caught.unwrap_or_else(|panic| Err(format!("panicked: {}", panic_text(&*panic)).into()))
    }

    /// Compiles the regular expressions that are written out, so that a wrong one is found now.
    fn patterns(&self, unit: &Unit, ast: &AST) -> Result<(), ScriptError> {
        let mut faults = Vec::new();
        ast.walk(&mut |path| {
            let written = match path.last() {
                Some(ASTNode::Expr(Expr::FnCall(call, _))) => pattern(call, 1),
                Some(ASTNode::Stmt(Stmt::FnCall(call, _))) => pattern(call, 1),
                Some(ASTNode::Expr(Expr::MethodCall(call, _))) => pattern(call, 0),
                _ => None,
            };
            if let Some((text, position)) = written
                && let Err(error) = bind::compile_pattern(text)
            {
                faults.push(ScriptFault::new(&unit.source.name, position, error));
            }
            true
        });
        ScriptError::all(faults)
    }
}

fn pattern(call: &FnCallExpr, at: usize) -> Option<(&str, Position)> {
    match call.args.get(at) {
        Some(Expr::StringConstant(text, position)) if call.name == "regex" => {
            Some((text, *position))
        }
        _ => None,
    }
}

/// Modules by the path that imports name, all of them loaded before.
struct Loaded(BTreeMap<String, Shared<Module>>);

impl ModuleResolver for Loaded {
    fn resolve(
        &self,
        _engine: &Engine,
        _source: Option<&str>,
        path: &str,
        position: Position,
    ) -> Evaluated<Shared<Module>> {
        let module = self.0.get(path).cloned();
        module.ok_or_else(|| EvalAltResult::ErrorModuleNotFound(path.into(), position).into())
    }
}
