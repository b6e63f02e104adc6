//! The hook: one line for each event that it is told.

use std::sync::{PoisonError, RwLock};

use conexus_plugin_api::{
    CONTINUE, Call, Capabilities, Connect, Delivered, Disconnect, Error, Expire, HookError, Host,
    Outcome, Plugin, Point, PointSet, Register, Registered, Replaced, Route, Unregister, Watch,
};

use crate::{
    config::Config,
    file::LogFile,
    queue::queue,
    record::{Record, described},
    writer::Writer,
};

/// See the crate's documentation.
pub struct AuditLog {
    config: Config,
    host: Host,
    /// From on_start to shutdown.
    writer: RwLock<Option<Writer>>,
}

impl AuditLog {
    fn log(&self, record: Record, call: &Call<'_>) -> Result<(), Error> {
        let writer = self.writer.read().unwrap_or_else(PoisonError::into_inner);
        let writer = writer.as_ref().ok_or("the audit log has not been started")?;
        if !writer.push(record.line()) {
            call.metric("dropped", 1)?;
        }
        Ok(())
    }

    fn route(&self, point: Point, event: &Route<'_>, call: &Call<'_>) -> Outcome {
        let record = Record::new(point, call).message(event, self.config.payload);
        self.log(record, call)?;
        Ok(CONTINUE)
    }
}

impl Plugin for AuditLog {
    type Config = Config;
    const POINTS: PointSet = PointSet::of(&[
        Point::Connect,
        Point::Register,
        Point::Route,
        Point::Undeliverable,
        Point::Watch,
        Point::Expire,
        Point::Registered,
        Point::Replaced,
        Point::Delivered,
        Point::Disconnect,
        Point::Unregister,
        Point::HookError,
        Point::Start,
    ]);
    // It asks nothing; but what is replayed has happened once, and is not to be written again.
    const NEEDS: Capabilities = Capabilities::OUTSIDE;

    fn new(config: Config, host: Host) -> Result<Self, Error> {
        config.check()?;
        Ok(Self { config, host, writer: RwLock::new(None) })
    }

    fn on_start(&self, _: &Call<'_>) -> Result<(), Error> {
        let Config { path, max_bytes, keep, fsync, queue: lines, queue_bytes, .. } = &self.config;
        let file = LogFile::open(path, max_bytes.as_u64(), *keep, *fsync)
            .map_err(|error| format!("`path` {}: {error}", path.display()))?;
        let bytes = usize::try_from(queue_bytes.as_u64()).unwrap_or(usize::MAX);
        let writer = Writer::start(file, queue(*lines, bytes), self.host.clone())?;
        *self.writer.write().unwrap_or_else(PoisonError::into_inner) = Some(writer);
        Ok(())
    }

    fn on_connect(&self, event: &Connect<'_>, call: &Call<'_>) -> Outcome {
        let record = Record::new(Point::Connect, call)
            .with("address", event.address().to_string())
            .with("path", event.path());
        self.log(record, call)?;
        Ok(CONTINUE)
    }

    fn on_register(&self, event: &Register<'_>, call: &Call<'_>) -> Outcome {
        let record = Record::new(Point::Register, call);
        self.log(record.agent(event.agent()).with("renewal", event.renewal()), call)?;
        Ok(CONTINUE)
    }

    fn on_route(&self, event: &Route<'_>, call: &Call<'_>) -> Outcome {
        self.route(Point::Route, event, call)
    }

    fn on_undeliverable(&self, event: &Route<'_>, call: &Call<'_>) -> Outcome {
        self.route(Point::Undeliverable, event, call)
    }

    fn on_watch(&self, event: &Watch<'_>, call: &Call<'_>) -> Outcome {
        let record = Record::new(Point::Watch, call);
        self.log(record.agent(event.agent()).with("watched", event.did()), call)?;
        Ok(CONTINUE)
    }

    fn on_expire(&self, event: &Expire<'_>, call: &Call<'_>) -> Outcome {
        let record = Record::new(Point::Expire, call);
        self.log(record.agent(event.agent()).with("silent_ms", event.silent_ms()), call)?;
        Ok(CONTINUE)
    }

    fn on_registered(&self, event: &Registered<'_>, call: &Call<'_>) -> Result<(), Error> {
        let record = Record::new(Point::Registered, call);
        self.log(record.agent(event.agent()).with("renewal", event.renewal()), call)
    }

    fn on_replaced(&self, event: &Replaced<'_>, call: &Call<'_>) -> Result<(), Error> {
        self.log(Record::new(Point::Replaced, call).agent(event.agent()), call)
    }

    fn on_delivered(&self, event: &Delivered<'_>, call: &Call<'_>) -> Result<(), Error> {
        let record = Record::new(Point::Delivered, call)
            .agent(event.from())
            .with("to", described(event.to()))
            .with("type", event.kind())
            .with("bytes", event.bytes());
        self.log(record, call)
    }

    fn on_disconnect(&self, event: &Disconnect<'_>, call: &Call<'_>) -> Result<(), Error> {
        let record = Record::new(Point::Disconnect, call)
            .agent(event.agent())
            .with("reason", event.reason())
            .with("code", event.code())
            .with("lasted_ms", event.lasted_ms())
            .with("epoch", event.epoch());
        self.log(record, call)
    }

    fn on_unregister(&self, event: &Unregister<'_>, call: &Call<'_>) -> Result<(), Error> {
        self.log(Record::new(Point::Unregister, call).agent(event.agent()), call)
    }

    fn on_hook_error(&self, event: &HookError<'_>, call: &Call<'_>) -> Result<(), Error> {
        let record = Record::new(Point::HookError, call)
            .with("hook", event.hook())
            .with("at_point", event.point())
            .with("kind", event.kind())
            .with("message", event.message())
            .with("about", event.about());
        self.log(record, call)
    }

    fn shutdown(&self) {
        let writer = self.writer.write().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer {
            writer.finish();
        }
    }
}
