//! The hook.

use std::sync::{Arc, PoisonError, RwLock};

use conexus_plugin_api::{
    CONTINUE, Call, Capabilities, Error, Host, Outcome, Plugin, Point, PointSet, Register, Route,
};

use crate::{
    config::Config,
    pool::Pool,
    request::Request,
    service::{Begun, Service},
};

/// See the crate's documentation.
pub struct Webhook {
    config: Config,
    host: Host,
    service: Arc<Service>,
    /// From on_start to shutdown.
    pool: RwLock<Option<Pool>>,
}

impl Plugin for Webhook {
    type Config = Config;
    const POINTS: PointSet = PointSet::of(&[Point::Register, Point::Route, Point::Start]);
    const NEEDS: Capabilities = Capabilities::DEFER.with(Capabilities::OUTSIDE);

    fn new(config: Config, host: Host) -> Result<Self, Error> {
        let service = Arc::new(Service::new(&config)?);
        Ok(Self { config, host, service, pool: RwLock::new(None) })
    }

    fn on_start(&self, _: &Call<'_>) -> Result<(), Error> {
        let Config { threads, queue, .. } = self.config;
        let pool = Pool::start(threads, queue, &self.service, &self.host)?;
        *self.pool.write().unwrap_or_else(PoisonError::into_inner) = Some(pool);
        Ok(())
    }

    fn on_register(&self, event: &Register<'_>, call: &Call<'_>) -> Outcome {
        match self.service.begin(&Request::register(event, &self.config), call)? {
            Begun::Known(answer) => Ok(answer),
            Begun::Open(question) => {
                let pool = self.pool.read().unwrap_or_else(PoisonError::into_inner);
                let pool = pool.as_ref().ok_or("the hook has not been started")?;
                if !pool.ask(question, call.defer()?) {
                    call.metric("rejected", 1)?;
                }
                Ok(CONTINUE)
            }
        }
    }

    /// Waits for the service: the hook has to be `blocking`.
    fn on_route(&self, event: &Route<'_>, call: &Call<'_>) -> Outcome {
        match self.service.begin(&Request::route(event, &self.config)?, call)? {
            Begun::Known(answer) => Ok(answer),
            Begun::Open(question) => self.service.finish(question, call),
        }
    }

    fn shutdown(&self) {
        let pool = self.pool.write().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(pool) = pool {
            pool.finish();
        }
    }
}
