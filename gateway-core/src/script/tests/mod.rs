//! Policy tests: every `fn test_*` of a file, with fabricated events and a virtual clock.
//!
//! A test calls the hooks and helpers of its policy by their names and looks at what they answer.
//! Each has a gateway of its own in memory: fresh state, a clock that stands until it is moved.
//! Tests lie in the script itself or beside it in `NAME.test.rhai`. Called by `conexus test`.

mod fabricate;
mod functions;
mod policy;
mod world;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use rhai::{Dynamic, EvalAltResult};

#[cfg(test)]
pub(super) use self::fabricate::for_unit_tests;
use self::policy::Policy;
pub(super) use self::world::World;
use super::{
    bind::to_json,
    fault::{ScriptError, Trace},
    instance::{Extra, Instance, Keep},
    meter::LOAD_TIME,
    scripts::{Script, Scripts},
};

type Config = serde_json::Map<String, serde_json::Value>;

/// The end of the names of files that have tests only.
const BESIDE: &str = ".test.rhai";
/// The constant that is the policy's configuration in tests.
const TEST_CONFIG: &str = "TEST_CONFIG";

/// What came of one test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestReport {
    /// `test_members_may_register`.
    pub name: String,
    /// Whether it held.
    pub outcome: Outcome,
    /// How long it took.
    pub duration: Duration,
    /// What the policy and the test logged, `info: …`.
    pub log: Vec<String>,
}

/// Whether a test held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It did.
    Passed,
    /// It did not; says why, with file, line and column first.
    Failed(String),
}

/// The scripts and test files of a folder and the folders in it, in order, without modules.
///
/// # Errors
/// A folder cannot be read.
pub fn files(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut entries = std::fs::read_dir(folder)?
        .map(|entry| Ok(entry?.path()))
        .collect::<std::io::Result<Vec<_>>>()?;
    entries.sort();
    for path in entries {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with('.') {
            continue;
        }
        if path.is_dir() && name != "lib" {
            found.extend(files(&path)?);
        } else if name.ends_with(".rhai") {
            found.push(path);
        }
    }
    Ok(found)
}

/// Runs the tests of a file: `NAME.test.rhai`, whose policy is `NAME.rhai` beside it, or a script
/// with tests in it. None where it has none. Also compiles what it does not run.
///
/// # Errors
/// [`ScriptError`]: the file or its policy is no script.
pub fn run_tests(scripts: &Scripts, file: &Path) -> Result<Vec<TestReport>, ScriptError> {
    let tests = scripts.compile_file(file)?;
    let folder = file.parent().unwrap_or(Path::new(""));
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let (policy, keep): (_, Option<Keep>) = match name.strip_suffix(BESIDE) {
        Some(name) => (scripts.compile_file(&folder.join(format!("{name}.rhai")))?, None),
        None => (tests.clone(), Some(|name| name.starts_with("test_"))),
    };
    let names = tests.tests();
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let config = test_config(&tests, folder)?;
    let suite = Suite { tests, policy, config, folder: folder.to_owned(), keep };
    names.into_iter().map(|name| suite.run(name)).collect()
}

struct Suite {
    tests: Arc<Script>,
    policy: Arc<Script>,
    config: Config,
    folder: PathBuf,
    keep: Option<Keep>,
}

impl Suite {
    fn run(&self, name: String) -> Result<TestReport, ScriptError> {
        let began = Instant::now();
        let deadline = began + LOAD_TIME * 5;
        let world = World::new();
        let builders = functions::module(&world);
        let policy =
            Policy::load(&self.policy, &self.config, &self.folder, &builders, &world, deadline)?;
        let instance = Instance::load(
            &self.tests,
            &self.config,
            Extra { functions: vec![builders, policy.module()], keep: self.keep },
        )?;
        let run = || instance.function(&name, Vec::new(), world.services(None), deadline);
        let outcome = match catch_unwind(AssertUnwindSafe(run)) {
            Ok(Ok(_)) => Outcome::Passed,
            Ok(Err(error)) => failed(*error, instance.source(), &name),
            Err(_) => Outcome::Failed(format!("{}: {name} panicked", instance.source())),
        };
        policy.unload();
        Ok(TestReport { name, outcome, duration: began.elapsed(), log: world.log() })
    }
}

fn failed(error: EvalAltResult, file: &str, name: &str) -> Outcome {
    Outcome::Failed(Trace::of(error, file, name).into_text())
}

/// The value of `const TEST_CONFIG`, wherever it stands; without one nothing is configured.
fn test_config(tests: &Script, folder: &Path) -> Result<Config, ScriptError> {
    match Instance::constant(tests, TEST_CONFIG)? {
        None => Ok(Config::new()),
        Some(value) => as_config(&value, folder).map_err(|text| {
            super::ScriptFault::new(tests.name(), rhai::Position::NONE, text).into()
        }),
    }
}

/// A map as a configuration. Paths in it start at the folder of the tests.
fn as_config(value: &Dynamic, folder: &Path) -> Result<Config, String> {
    let json = to_json(value).map_err(|error| error.to_string())?;
    match serde_json::from_str(&json) {
        Ok(serde_json::Value::Object(mut config)) => {
            make_absolute(&mut config, folder);
            Ok(config)
        }
        _ => Err(format!("a configuration is a map: #{{ … }}, not {}", value.type_name())),
    }
}

/// As the gateway does with what its own files say.
fn make_absolute(config: &mut Config, folder: &Path) {
    for (key, value) in config.iter_mut() {
        match value {
            serde_json::Value::Object(inner) => make_absolute(inner, folder),
            serde_json::Value::String(path) if key == "file" || key.ends_with("_file") => {
                *path = folder.join(&*path).display().to_string();
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod unit;
