//! Policies of the tests' own making: a judge made of closures, and a policy that changes its judge
//! while the gateway runs.

use std::{
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

use conexus_gateway::hooks::{
    Admission, Decision, Fallback, Judge, Passage, Policy, Ruling, World,
};
use conexus_plugin_api::{
    Point, PointKind,
    host::{Connect, Event, Expire, Register, Route, Watch},
};
use tokio::sync::mpsc;

use super::soon;

type Rule<E, R> = Option<Box<dyn Fn(&E) -> R + Send + Sync>>;

/// Asks for what there is a closure for.
#[derive(Default)]
pub(crate) struct Closures {
    pub(crate) connect: Rule<Connect, Ruling<()>>,
    pub(crate) register: Rule<Register, Ruling<Admission>>,
    pub(crate) route: Rule<Route, Ruling<Passage>>,
    pub(crate) undeliverable: Rule<Route, Ruling<Fallback>>,
    pub(crate) watch: Rule<Watch, Ruling<()>>,
    pub(crate) expire: Rule<Expire, Option<Duration>>,
    /// Is told all that happens.
    pub(crate) observer: Option<mpsc::UnboundedSender<Event>>,
}

fn decided<E, R>(rule: &Rule<E, R>, event: &E) -> Decision<R> {
    Decision::Now(rule.as_ref().expect("asked only for what it asks for")(event))
}

impl Judge for Closures {
    fn asks(&self, point: Point) -> bool {
        match point {
            Point::Connect => self.connect.is_some(),
            Point::Register => self.register.is_some(),
            Point::Route => self.route.is_some(),
            Point::Undeliverable => self.undeliverable.is_some(),
            Point::Watch => self.watch.is_some(),
            Point::Expire => self.expire.is_some(),
            other => other.kind() == PointKind::Observer && self.observer.is_some(),
        }
    }

    fn on_connect(self: Arc<Self>, event: Arc<Connect>) -> Decision<Ruling<()>> {
        decided(&self.connect, &event)
    }

    fn on_register(self: Arc<Self>, event: Arc<Register>) -> Decision<Ruling<Admission>> {
        decided(&self.register, &event)
    }

    fn on_route(self: Arc<Self>, event: Arc<Route>) -> Decision<Ruling<Passage>> {
        decided(&self.route, &event)
    }

    fn on_undeliverable(self: Arc<Self>, event: Arc<Route>) -> Decision<Ruling<Fallback>> {
        decided(&self.undeliverable, &event)
    }

    fn on_watch(self: Arc<Self>, event: Arc<Watch>) -> Decision<Ruling<()>> {
        decided(&self.watch, &event)
    }

    fn on_expire(self: Arc<Self>, event: Arc<Expire>) -> Decision<Option<Duration>> {
        decided(&self.expire, &event)
    }

    fn observe(self: Arc<Self>, event: Event) {
        let observer = self.observer.as_ref().expect("asked only for what it asks for");
        // Who no longer listens does not want to know.
        let _ = observer.send(event);
    }
}

/// A policy whose judge the test changes, and through which it reaches the gateway as hooks do.
#[derive(Clone)]
pub(crate) struct Changing(Arc<State>);

struct State {
    judge: Mutex<Arc<dyn Judge>>,
    world: Mutex<Option<Weak<dyn World>>>,
}

impl Changing {
    pub(crate) fn new(judge: impl Judge) -> Self {
        Self(Arc::new(State { judge: Mutex::new(Arc::new(judge)), world: Mutex::new(None) }))
    }

    pub(crate) fn change(&self, judge: impl Judge) {
        *self.0.judge.lock().unwrap() = Arc::new(judge);
    }

    pub(crate) fn world(&self) -> Arc<dyn World> {
        let world = self.0.world.lock().unwrap().clone();
        world.expect("a gateway that was started").upgrade().expect("a gateway that runs")
    }
}

impl Policy for Changing {
    fn judge(&self) -> Arc<dyn Judge> {
        Arc::clone(&self.0.judge.lock().unwrap())
    }

    fn serve(&self, world: Weak<dyn World>) {
        *self.0.world.lock().unwrap() = Some(world);
    }
}

/// What observers were told, in order.
pub(crate) struct Observed(mpsc::UnboundedReceiver<Event>);

/// Where to tell it, and where it comes out.
pub(crate) fn observer() -> (mpsc::UnboundedSender<Event>, Observed) {
    let (tell, told) = mpsc::unbounded_channel();
    (tell, Observed(told))
}

impl Observed {
    pub(crate) async fn event(&mut self) -> Event {
        soon("an event", self.0.recv()).await.expect("an observer")
    }

    /// The next event in a line: its point, the session it is about, and what tells it from others.
    pub(crate) async fn line(&mut self) -> String {
        line(&self.event().await)
    }

    pub(crate) async fn lines(&mut self, count: usize) -> Vec<String> {
        let mut lines = Vec::new();
        for _ in 0..count {
            lines.push(self.line().await);
        }
        lines
    }

    /// Nothing further was told so far.
    pub(crate) fn is_silent(&mut self) -> bool {
        self.0.try_recv().is_err()
    }
}

fn line(event: &Event) -> String {
    let session = event.agent().map_or(0, |agent| agent.session);
    let detail = match event {
        Event::Registered(event) if event.renewal => " renewal".to_owned(),
        Event::Disconnect(event) => match event.code {
            Some(code) => format!(" {} {code}", event.reason),
            None => format!(" {}", event.reason),
        },
        Event::Delivered(event) => format!(" to s{} {}", event.to.session, event.kind),
        _ => String::new(),
    };
    format!("{} s{session}{detail}", event.point())
}
