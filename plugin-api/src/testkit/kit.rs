//! One instance of a plugin, to be asked by tests.

use std::{fmt, marker::PhantomData, sync::Arc, time::Duration};

use super::TestHost;
use crate::{
    Answer, Capabilities, MAX_COPIES, Plugin, Point, StaticPlugin, Verdict,
    host::{
        CallFault, Connect, Delivered, Disconnect, Event, Expire, HookError, Instance, Library,
        Register, Registered, Replaced, Returned, Route, Services, Unregister, Watch,
    },
};

/// How long a verdict that was put off may take in a test.
const PATIENCE: Duration = Duration::from_secs(10);

/// An instance, made and called as a gateway does it. A gateway never drops one without
/// [`shutdown`](Self::shutdown); a test may.
pub struct Kit<P> {
    instance: Instance,
    host: TestHost,
    plugin: PhantomData<fn() -> P>,
}

impl<P: Plugin> Kit<P> {
    /// An instance with a host of its own.
    ///
    /// # Errors
    /// [`CallFault`]: the configuration does not fit, [`Plugin::new`] failed or panicked.
    pub fn new(config: serde_json::Value) -> Result<Self, CallFault> {
        Self::with_host(config, TestHost::new())
    }

    /// An instance with this host, which several may share.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_host(config: serde_json::Value, host: TestHost) -> Result<Self, CallFault> {
        let library = Library::linked(StaticPlugin::of::<P>(), Capabilities::ALL);
        let library = library.map_err(|mismatch| CallFault::Failed(mismatch.to_string()))?;
        let instance = library.instantiate(&config.to_string(), Arc::new(host.clone()))?;
        Ok(Self { instance, host, plugin: PhantomData })
    }

    /// What the plugin sees of the gateway, and did to it.
    #[must_use]
    pub const fn host(&self) -> &TestHost {
        &self.host
    }

    /// Asks about an event, and gives what the call returned.
    ///
    /// # Errors
    /// [`CallFault`]; a point that is missing in [`Plugin::POINTS`] is one too, since a gateway
    /// would not ask there.
    pub fn call(&self, event: &Event) -> Result<Returned, CallFault> {
        let point = event.point();
        if !P::POINTS.contains(point) {
            return Err(CallFault::BadReturn(format!("{point} is not in the plugin's POINTS")));
        }
        let services: Arc<dyn Services> = Arc::new(self.host.during(event));
        self.instance.call(event, &services)
    }

    /// Asks about an event; waits for a verdict that is put off, and checks that all verdicts are
    /// allowed there.
    ///
    /// # Errors
    /// [`CallFault`].
    pub fn ask(&self, event: &Event) -> Result<Answer, CallFault> {
        let answer = match self.call(event)? {
            Returned::Answer(answer) => answer,
            Returned::Deferred(token) => {
                let outcome = self.host.completion(token, PATIENCE);
                let never = || CallFault::Failed("the deferred verdict did not come".into());
                outcome.ok_or_else(never)?.map_err(CallFault::Failed)?
            }
        };
        check(event.point(), &answer).map_err(CallFault::BadReturn)?;
        Ok(answer)
    }

    /// Moves the clock, and runs the timers that are due on the way, in their order.
    ///
    /// # Errors
    /// [`CallFault`] of the first timer that fails; the clock then stands where it was due.
    pub fn advance(&self, mut time: Duration) -> Result<(), CallFault> {
        let services: Arc<dyn Services> = Arc::new(self.host.clone());
        while let Some(tag) = self.host.next_timer(&mut time) {
            self.instance.timer(tag, &services)?;
        }
        Ok(())
    }

    /// Shuts the instance down and drops it, and gives what became of it.
    ///
    /// # Errors
    /// [`CallFault`] of [`Plugin::shutdown`].
    pub fn shutdown(self) -> Result<(), CallFault> {
        let services: Arc<dyn Services> = Arc::new(self.host.clone());
        self.instance.shutdown(&services)
    }
}

fn check(point: Point, answer: &Answer) -> Result<(), String> {
    let verdicts = answer.verdicts();
    if let Some(verdict) = verdicts.iter().find(|verdict| !verdict.is_allowed_at(point)) {
        return Err(format!("{} means nothing at {point}", verdict.name()));
    }
    let copies = verdicts.iter().filter(|verdict| matches!(verdict, Verdict::Copy(_))).count();
    if copies > MAX_COPIES {
        return Err(format!("{copies} copies are more than {MAX_COPIES}"));
    }
    Ok(())
}

macro_rules! points {
    ($( $name:ident($Event:ident) -> $Result:ty = $Variant:ident, $ask:ident; )+) => {
        impl<P: Plugin> Kit<P> { $(
            #[doc = concat!("Asks at `on_", stringify!($name), "`.")]
            ///
            /// # Errors
            /// [`CallFault`].
            pub fn $name(&self, event: impl Into<$Event>) -> Result<$Result, CallFault> {
                self.$ask(&Event::$Variant(Arc::new(event.into())))
            }
        )+ }
    };
}

points! {
    connect(Connect) -> Answer = Connect, ask;
    register(Register) -> Answer = Register, ask;
    route(Route) -> Answer = Route, ask;
    undeliverable(Route) -> Answer = Undeliverable, ask;
    watch(Watch) -> Answer = Watch, ask;
    expire(Expire) -> Answer = Expire, ask;
    registered(Registered) -> () = Registered, tell;
    replaced(Replaced) -> () = Replaced, tell;
    delivered(Delivered) -> () = Delivered, tell;
    disconnect(Disconnect) -> () = Disconnect, tell;
    unregister(Unregister) -> () = Unregister, tell;
    hook_error(HookError) -> () = HookError, tell;
}

macro_rules! lifecycle {
    ($( $name:ident = $Variant:ident; )+) => {
        impl<P: Plugin> Kit<P> { $(
            #[doc = concat!("Tells it `on_", stringify!($name), "`.")]
            ///
            /// # Errors
            /// [`CallFault`].
            pub fn $name(&self) -> Result<(), CallFault> {
                self.tell(&Event::$Variant)
            }
        )+ }
    };
}

lifecycle! {
    start = Start;
    stop = Stop;
    reload = Reload;
    tick = Tick;
}

impl<P: Plugin> Kit<P> {
    fn tell(&self, event: &Event) -> Result<(), CallFault> {
        self.ask(event).map(drop)
    }
}

impl<P> fmt::Debug for Kit<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kit").field("instance", &self.instance).finish_non_exhaustive()
    }
}
