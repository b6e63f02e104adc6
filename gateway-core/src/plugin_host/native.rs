//! An instance of a native plugin, for the chain.

use std::sync::Arc;

use conexus_plugin_api::{
    Capabilities, PointSet,
    host::{CallFault, Event, Instance, Returned, Services},
};

use super::LoadedLibrary;

/// An instance, and the library that it is of. Dropped, it is destroyed.
#[derive(Debug)]
pub struct NativeHook {
    // Before the library, which it needs.
    instance: Instance,
    library: Arc<LoadedLibrary>,
}

impl NativeHook {
    /// Makes an instance. `config` is its table in the configuration, none being an empty one;
    /// `services` are what it may ask outside of calls.
    ///
    /// # Errors
    /// [`CallFault`]: the plugin refuses the configuration, or panicked.
    pub fn new(
        library: &Arc<LoadedLibrary>,
        config: Option<&serde_json::Value>,
        services: Arc<dyn Services>,
    ) -> Result<Self, CallFault> {
        let config = config.map_or_else(|| "{}".into(), serde_json::Value::to_string);
        let instance = library.library().instantiate(&config, services)?;
        Ok(Self { instance, library: Arc::clone(library) })
    }

    /// What it is of.
    #[must_use]
    pub const fn library(&self) -> &Arc<LoadedLibrary> {
        &self.library
    }

    /// Where it has something to say.
    #[must_use]
    pub fn points(&self) -> PointSet {
        self.library.library().points()
    }

    /// Whether its answers follow from the event and the gateway's answers alone.
    #[must_use]
    pub fn is_replayable(&self) -> bool {
        !self.library.library().needs().has(Capabilities::OUTSIDE)
    }

    /// Asks about an event. Runs as long as the plugin does, on this thread.
    ///
    /// # Errors
    /// [`CallFault`].
    pub fn call(&self, event: &Event, services: &Arc<dyn Services>) -> Result<Returned, CallFault> {
        self.instance.call(event, services)
    }

    /// Tells it that a timer has run out.
    ///
    /// # Errors
    /// [`CallFault`].
    pub fn timer(&self, tag: u64, services: &Arc<dyn Services>) -> Result<(), CallFault> {
        self.instance.timer(tag, services)
    }

    /// Tells it, once, that all calls have ended and none will come.
    ///
    /// # Errors
    /// [`CallFault`].
    pub fn shutdown(&self, services: &Arc<dyn Services>) -> Result<(), CallFault> {
        self.instance.shutdown(services)
    }
}
