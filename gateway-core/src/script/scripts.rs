//! From a name to a checked script: it and every module that it imports, read once.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::Arc,
};

use conexus_plugin_api::PointSet;
use rhai::{AST, ImmutableString, Position, Scope};
use serde_json::{Map as Config, Value as Json};

use super::{
    check::{Import, Outline, outline},
    engine::{self, MAX_MODULES},
    fault::{ScriptError, ScriptFault},
    instance::{Extra, Instance, ScriptHook},
    sources::{Source, locate, locate_module},
    tail::{self, Terminated},
};
use crate::{config::ScriptSettings, hooks::SourceFile};

/// What every script finds beside its own constants.
pub(super) const CONFIG: &str = "config";

/// The scripts folder, and the limits under which its scripts run.
#[derive(Debug, Clone)]
pub struct Scripts {
    settings: Arc<ScriptSettings>,
}

impl Scripts {
    /// Over the folder and with the limits of these settings.
    #[must_use]
    pub fn new(settings: &ScriptSettings) -> Self {
        Self { settings: Arc::new(settings.clone()) }
    }

    /// Reads and checks `NAME.rhai` of the scripts folder, as in `script:NAME`.
    ///
    /// # Errors
    /// [`ScriptError`]: everything that is wrong with it and its modules, each with its place.
    pub fn compile(&self, name: &str) -> Result<Arc<Script>, ScriptError> {
        let root = &self.settings.path;
        let path = locate(root, name)
            .map_err(|error| ScriptError::unreadable(&root.join(format!("{name}.rhai")), &error))?;
        self.compile_as(&path, &format!("{name}.rhai"))
    }

    /// Reads and checks a script wherever it lies. Its modules are those of the scripts folder.
    ///
    /// # Errors
    /// As for [`Self::compile`].
    pub fn compile_file(&self, path: &Path) -> Result<Arc<Script>, ScriptError> {
        let relative = path.strip_prefix(&self.settings.path).unwrap_or(path);
        self.compile_as(path, &relative.display().to_string())
    }

    /// Checks a text. `name` is for errors.
    ///
    /// # Errors
    /// As for [`Self::compile`].
    pub fn compile_text(&self, name: &str, text: &str) -> Result<Arc<Script>, ScriptError> {
        self.compile_source(Source { name: name.into(), text: text.into(), file: None })
    }

    /// The limits.
    #[must_use]
    pub fn settings(&self) -> &ScriptSettings {
        &self.settings
    }

    fn compile_as(&self, path: &Path, name: &str) -> Result<Arc<Script>, ScriptError> {
        let source =
            Source::read(path, name).map_err(|error| ScriptError::unreadable(path, &error))?;
        self.compile_source(source)
    }

    fn compile_source(&self, source: Source) -> Result<Arc<Script>, ScriptError> {
        let mut reading = Reading {
            scripts: self,
            units: Vec::new(),
            known: BTreeSet::new(),
            constants: BTreeMap::new(),
            chain: Vec::new(),
            faults: Vec::new(),
        };
        let name = source.name.clone();
        // A parser that gives up on a text may do it in any way.
        let main = catch_unwind(AssertUnwindSafe(|| reading.unit(source)))
            .map_err(|_| ScriptFault::new(&name, Position::NONE, "makes the parser panic"))?;
        let Reading { units: modules, faults, .. } = reading;
        ScriptError::all(faults)?;
        let main = main.ok_or_else(|| {
            ScriptFault::new("", Position::NONE, "a script without a text, and nobody said why")
        })?;
        let points = main.points;
        let mut files: Vec<_> =
            modules.iter().chain([&main]).filter_map(|unit| unit.source.file.clone()).collect();
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Arc::new(Script { scripts: self.clone(), main, modules, points, files }))
    }
}

/// One file's syntax tree, as it was first looked at.
#[derive(Debug)]
pub(super) struct Unit {
    pub(super) source: Source,
    pub(super) ast: AST,
    pub(super) terminated: Terminated,
    pub(super) imports: Vec<Import>,
    pub(super) constants: Vec<ImmutableString>,
    points: PointSet,
}

/// A script that passed every check which does not need its configuration.
#[derive(Debug)]
pub struct Script {
    scripts: Scripts,
    main: Unit,
    /// Each after those that it imports.
    modules: Vec<Unit>,
    points: PointSet,
    files: Vec<SourceFile>,
}

impl Script {
    /// `allowlist.rhai`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.main.source.name
    }

    /// The points that it has functions for.
    #[must_use]
    pub const fn points(&self) -> PointSet {
        self.points
    }

    /// The script and its modules as they were read.
    #[must_use]
    pub fn files(&self) -> &[SourceFile] {
        &self.files
    }

    /// The names of its `test_*` functions, in the order of their lines.
    #[must_use]
    pub fn tests(&self) -> Vec<String> {
        let mut tests: Vec<_> = self
            .main
            .ast
            .iter_fn_def()
            .filter(|function| function.name.starts_with("test_"))
            .map(|function| (function.body.start_position(), function.name.to_string()))
            .collect();
        tests.sort();
        tests.into_iter().map(|(_, name)| name).collect()
    }

    /// Its functions with their numbers of parameters, without closures.
    pub(super) fn functions(&self) -> Vec<(String, usize)> {
        let named = self.main.ast.iter_fn_def().filter(|it| !it.name.starts_with("anon$"));
        named.map(|function| (function.name.to_string(), function.params.len())).collect()
    }

    /// Runs the top level with this configuration, and compiles what the hooks will run. Also reads
    /// the lists that the configuration names.
    ///
    /// # Errors
    /// [`ScriptError`]: no function of it is a hook, the top level failed, or a list cannot be read.
    pub fn instantiate(&self, config: &Config<String, Json>) -> Result<ScriptHook, ScriptError> {
        if self.points.is_empty() {
            let text = "no function of it is a hook (on_connect, on_register, on_route, …)";
            return Err(ScriptFault::new(self.name(), Position::NONE, text).into());
        }
        Ok(ScriptHook::new(Instance::load(self, config, Extra::default())?))
    }

    pub(super) const fn scripts(&self) -> &Scripts {
        &self.scripts
    }

    pub(super) const fn main(&self) -> &Unit {
        &self.main
    }

    pub(super) fn modules(&self) -> &[Unit] {
        &self.modules
    }
}

/// Reading a script and what it imports, depth first.
struct Reading<'a> {
    scripts: &'a Scripts,
    units: Vec<Unit>,
    known: BTreeSet<String>,
    /// Constants by name, each with the file that has it.
    constants: BTreeMap<ImmutableString, Arc<str>>,
    /// What is being read, from the script to the module at hand.
    chain: Vec<String>,
    faults: Vec<ScriptFault>,
}

impl Reading<'_> {
    fn unit(&mut self, source: Source) -> Option<Unit> {
        let mut parser = engine::parser(&self.scripts.settings);
        let (parsed, terminated) = tail::compile(&mut parser, &source.text);
        let ast = match parsed {
            Ok(ast) => ast,
            Err(error) => {
                self.faults.extend_from_slice(ScriptError::parse(&source.name, &error).faults());
                return None;
            }
        };
        let Outline { imports, constants, points, faults } = outline(&source, &ast, &[CONFIG]);
        let sound = faults.is_empty();
        self.faults.extend(faults);
        for import in &imports {
            self.import(&source, import);
        }
        for (name, position) in &constants {
            self.unique(&source, name, *position);
        }
        let constants: Vec<_> = constants.into_keys().collect();
        if sound {
            self.names(&source, &constants);
        }
        Some(Unit { source, ast, terminated, imports, constants, points: PointSet::of(&points) })
    }

    /// At run time Rhai finds constants by their names alone, whatever file a function is in.
    fn unique(&mut self, source: &Source, name: &ImmutableString, position: Position) {
        if let Some(other) = self.constants.insert(name.clone(), source.name.clone()) {
            let text = format!("{name} is a constant of {other} as well; choose another name");
            self.faults.push(ScriptFault::new(&source.name, position, text));
        }
    }

    /// Whether every variable is defined somewhere.
    fn names(&mut self, source: &Source, constants: &[ImmutableString]) {
        let mut strict = engine::parser(&self.scripts.settings);
        strict.set_strict_variables(true);
        let mut scope = Scope::new();
        scope.push_constant(CONFIG, ());
        for name in constants {
            scope.push_constant(name.clone(), ());
        }
        if let Err(error) = strict.compile_with_scope(&scope, &*source.text) {
            self.faults.extend_from_slice(ScriptError::parse(&source.name, &error).faults());
        }
    }

    fn import(&mut self, from: &Source, import: &Import) {
        let path = import.path.as_str();
        let fault = |text: String| ScriptFault::new(&from.name, import.position, text);
        if self.chain.iter().any(|reading| reading == path) {
            let circle = self.chain.join(" imports ");
            return self.faults.push(fault(format!("{circle} imports {path}: a circle")));
        }
        if self.known.contains(path) {
            return;
        }
        if self.known.len() >= MAX_MODULES {
            return self.faults.push(fault(format!("more than {MAX_MODULES} modules")));
        }
        self.known.insert(path.to_owned());
        match self.module(path) {
            Ok(source) => {
                self.chain.push(path.to_owned());
                let unit = self.unit(source);
                self.chain.pop();
                self.units.extend(unit);
            }
            Err(error) => self.faults.push(fault(format!("cannot import {path:?}: {error}"))),
        }
    }

    fn module(&self, path: &str) -> io::Result<Source> {
        let file = locate_module(&self.scripts.settings.path, path)?;
        Source::read(&file, &format!("{path}.rhai"))
    }
}
