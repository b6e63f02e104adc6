//! Where hooks' code comes from: scripts, plugins in files, plugins that are linked in.

use std::{
    env::consts::{DLL_PREFIX, DLL_SUFFIX},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use conexus_plugin_api::{
    Capabilities, PointSet, StaticPlugin,
    host::{self, CallFault, Event, Services},
};
use parking_lot::Mutex;

use super::{
    facilities::Facilities,
    generation::{Code, Loader},
    hook::{CallContext, Hook, HookFault, Returned},
    instance::SourceFile,
    secrets::Secrets,
};
use crate::{
    config::{HookSettings, HookSource, PluginSettings, ScriptSettings, Settings},
    plugin_host::{Bounds, Libraries, LoadedLibrary, NativeHook, PluginSource, linked},
    script::{
        Scripts,
        tests::{Outcome, run_tests},
    },
};

/// See the [module](self).
pub(crate) struct StockLoader {
    libraries: Libraries,
    /// Made anew when the limits of scripts change.
    scripts: Mutex<(ScriptSettings, Scripts)>,
}

impl StockLoader {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self::with_linked(settings, &[])
    }

    /// Knows these plugins as well, under these names; one that is named like one of the
    /// gateway's own takes its place.
    pub(crate) fn with_linked(settings: &Settings, linked: &[(&str, StaticPlugin)]) -> Self {
        let bounds = Bounds { libraries: settings.policy.libraries, ..Bounds::default() };
        let scripts = Scripts::new(&settings.scripts);
        let linked = [linked, &linked::plugins()].concat();
        Self {
            libraries: Libraries::new(&linked, Capabilities::ALL, bounds, None),
            scripts: Mutex::new((settings.scripts.clone(), scripts)),
        }
    }

    fn script(&self, name: &str, hook: &HookSettings, settings: &Settings) -> Result<Code, String> {
        let scripts = {
            let mut scripts = self.scripts.lock();
            if scripts.0 != settings.scripts {
                *scripts = (settings.scripts.clone(), Scripts::new(&settings.scripts));
            }
            scripts.1.clone()
        };
        let script = scripts.compile(name).map_err(|error| error.to_string())?;
        let path = settings.scripts.path.join(format!("{name}.rhai"));
        let config = hook.config.clone().into_iter().collect();
        Ok(Code {
            files: script.files().to_vec(),
            native: false,
            make: Box::new(move |_| {
                let hook = script.instantiate(&config).map_err(|error| error.to_string())?;
                self_test(&scripts, &path)?;
                Ok(Arc::new(hook) as Arc<dyn Hook>)
            }),
        })
    }

    fn plugin(&self, name: &str, hook: &HookSettings, settings: &Settings) -> Result<Code, String> {
        let source = match settings.policies.plugins.get(name) {
            Some(plugin) => file_source(name, plugin),
            None => PluginSource::Linked(name),
        };
        let library = self.libraries.load(&source).map_err(|error| error.to_string())?;
        let file = |path: &Path, sha256: &str| SourceFile {
            path: path.to_owned(),
            sha256: sha256.to_owned(),
        };
        // The file that the settings name, which may be another one of the same content.
        let files = match (&source, library.path().zip(library.sha256())) {
            (PluginSource::File { path, crate_name: Some(name), .. }, Some((_, sha256)))
                if path.is_dir() =>
            {
                let name = name.replace('-', "_");
                vec![file(&path.join(format!("{DLL_PREFIX}{name}{DLL_SUFFIX}")), sha256)]
            }
            (PluginSource::File { path, .. }, Some((_, sha256))) => vec![file(path, sha256)],
            (_, Some((path, sha256))) => vec![file(path, sha256)],
            _ => Vec::new(),
        };
        let config = serde_json::Value::Object(hook.config.clone());
        let secrets = Secrets::of(hook);
        Ok(Code {
            files,
            native: true,
            make: Box::new(move |facilities| native(&library, &config, secrets, facilities)),
        })
    }
}

impl Loader for StockLoader {
    fn load(&self, hook: &HookSettings, settings: &Settings) -> Result<Code, String> {
        match &hook.source {
            HookSource::Script(name) => self.script(name, hook, settings),
            HookSource::Plugin(name) => self.plugin(name, hook, settings),
        }
    }
}

/// Runs the tests that a script brings along.
fn self_test(scripts: &Scripts, path: &Path) -> Result<(), String> {
    let reports = run_tests(scripts, path).map_err(|error| error.to_string())?;
    let failed = reports.into_iter().filter_map(|report| match report.outcome {
        Outcome::Passed => None,
        Outcome::Failed(why) => Some(format!("its test {} failed: {why}", report.name)),
    });
    let failed: Vec<_> = failed.collect();
    if failed.is_empty() { Ok(()) } else { Err(failed.join("; ")) }
}

fn file_source<'a>(name: &'a str, plugin: &'a PluginSettings) -> PluginSource<'a> {
    let in_folder = plugin.path.is_dir().then_some(name);
    PluginSource::File {
        path: &plugin.path,
        crate_name: plugin.crate_name.as_deref().or(in_folder),
        sha256: plugin.sha256.as_deref(),
    }
}

fn native(
    library: &Arc<LoadedLibrary>,
    config: &serde_json::Value,
    secrets: Secrets,
    facilities: &Arc<Facilities>,
) -> Result<Arc<dyn Hook>, String> {
    let services = Arc::clone(facilities) as Arc<dyn Services>;
    let instance = NativeHook::new(library, Some(config), Arc::clone(&services))
        .map_err(|fault| HookFault::from(fault).to_string())?;
    Ok(Arc::new(Native { instance, is_shut_down: AtomicBool::new(false), secrets, services }))
}

/// A native instance.
struct Native {
    instance: NativeHook,
    is_shut_down: AtomicBool,
    secrets: Secrets,
    services: Arc<dyn Services>,
}

impl Hook for Native {
    fn points(&self) -> PointSet {
        self.instance.points()
    }

    fn call(&self, event: &Event, context: &CallContext) -> Result<Returned, HookFault> {
        Ok(match self.instance.call(event, &context.services)? {
            host::Returned::Answer(answer) => Returned::Answer(answer),
            host::Returned::Deferred(token) => Returned::Deferred(token),
        })
    }

    fn on_timer(&self, tag: u64, context: &CallContext) -> Result<(), HookFault> {
        Ok(self.instance.timer(tag, &context.services)?)
    }

    fn shut_down(&self) {
        if self.is_shut_down.swap(true, SeqCst) {
            return;
        }
        if let Err(fault) = self.instance.shutdown(&self.services) {
            let fault = self.secrets.hide_in(fault.into(), None);
            tracing::warn!(kind = fault.kind(), %fault, "a plugin's shutdown failed");
        }
    }

    fn is_replayable(&self) -> bool {
        self.instance.is_replayable()
    }
}

impl From<CallFault> for HookFault {
    fn from(fault: CallFault) -> Self {
        match fault {
            CallFault::Failed(text) => Self::Failed(text),
            CallFault::Panicked(text) => Self::Panicked(text),
            CallFault::BadReturn(text) => Self::BadReturn(text),
        }
    }
}
