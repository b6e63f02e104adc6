//! Where hooks' code comes from: scripts and native plugins.

use super::generation::{Code, Loader};
use crate::config::{HookSettings, HookSource, Settings};

/// See the [module](self).
pub(crate) struct StockLoader;

impl StockLoader {
    pub(crate) fn new(_settings: &Settings) -> std::io::Result<Self> {
        Ok(Self)
    }
}

impl Loader for StockLoader {
    fn load(&self, hook: &HookSettings, _settings: &Settings) -> Result<Code, String> {
        match &hook.source {
            HookSource::Script(name) => Err(format!("no script {name}")),
            HookSource::Plugin(name) => Err(format!("no plugin {name}")),
        }
    }
}
