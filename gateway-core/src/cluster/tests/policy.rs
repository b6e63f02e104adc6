//! Policy decides on the sender's node, and knows of the target there.

use std::{sync::Arc, time::Duration};

use conexus_plugin_api::{
    Point,
    host::{Event, Route},
};
use conexus_protocol::{AgentKey, Draft, Envelope, Identity, MessageType, Offer, Rules};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::node::{Node, quiet, settings, takes, until};
use crate::{
    cluster::memory::MemoryEngine,
    hooks::{Decision, Fallback, Fixed, Judge, Passage, Ruling, Way},
    session::{handle::SessionHandle, outbox::Arrival},
};

/// Does as told, and notes what it was asked.
#[derive(Default)]
struct Told {
    passage: Mutex<Passage>,
    fallback: Mutex<Fallback>,
    notes: Mutex<Vec<String>>,
}

impl Told {
    fn notes(&self) -> Vec<String> {
        std::mem::take(&mut self.notes.lock())
    }

    fn note(&self, what: &str, target: Option<&str>) {
        self.notes.lock().push(format!("{what} {}", target.unwrap_or("nobody")));
    }
}

impl Judge for Told {
    fn asks(&self, point: Point) -> bool {
        matches!(point, Point::Route | Point::Undeliverable | Point::Delivered)
    }

    fn on_route(self: Arc<Self>, event: Arc<Route>) -> Decision<Ruling<Passage>> {
        self.note("route", event.target.as_ref().map(|agent| agent.did.as_str()));
        Decision::Now(Ok(self.passage.lock().clone()))
    }

    fn on_undeliverable(self: Arc<Self>, event: Arc<Route>) -> Decision<Ruling<Fallback>> {
        self.note("undeliverable", event.target.as_ref().map(|agent| agent.did.as_str()));
        let fallback = *self.fallback.lock();
        // It takes a moment: the others of its lane wait behind it.
        Decision::Later(Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(1)).await;
            Ok(fallback)
        }))
    }

    fn observe(self: Arc<Self>, event: Event) {
        if let Event::Delivered(delivered) = event {
            self.note("delivered", Some(&delivered.to.did));
        }
    }
}

struct World {
    engine: MemoryEngine,
    a: Node,
    b: Node,
    told: Arc<Told>,
    sender: Arc<SessionHandle>,
    me: Identity,
}

impl World {
    async fn new() -> Self {
        let (engine, told) = (MemoryEngine::new(), Arc::new(Told::default()));
        let policy = Arc::new(Fixed(Arc::clone(&told)));
        let a = Node::start_with(&engine, settings(), policy).await;
        let b = Node::start(&engine).await;
        let me = Identity::generate();
        let sender = a.comes(&me).await;
        Self { engine, a, b, told, sender, me }
    }

    /// Sends a message that policy judges; its text.
    async fn sends(&self, to: &Identity, sdp: &str) -> String {
        let text = Draft::new(to.did(), Offer { sdp: sdp.to_owned() }).sign(&self.me);
        let envelope = Envelope::parse(&text, Rules::V1_STRICT).unwrap();
        let router = &self.a.router;
        router.telemetry.messages.received(MessageType::Offer);
        let arrival = Arrival { at: Instant::now(), number: self.sender.count_sent() };
        let now = router.clock.now();
        let (sender, key) = (&self.sender, to.key());
        let text: Arc<str> = text.as_str().into();
        let rest = router.route_judged(sender, Arc::clone(&text), key, &envelope, arrival, now);
        if let Some(rest) = rest {
            rest.await;
        }
        text.to_string()
    }

    fn passes(&self, way: Way, copies: Vec<AgentKey>) {
        *self.told.passage.lock() = Passage { way, copies };
    }
}

#[tokio::test(start_paused = true)]
async fn policy_knows_a_target_on_another_node_and_is_told_of_the_delivery() {
    let world = World::new().await;
    let (me, other) = (Identity::generate(), Identity::generate());
    let (target, second) = (world.b.comes(&me).await, world.b.comes(&other).await);
    let sent = world.sends(&me, "1").await;
    quiet().await;
    assert_eq!(takes(&target), [sent]);
    quiet().await;
    let notes = [format!("route {}", me.did()), format!("delivered {}", me.did())];
    assert_eq!(world.told.notes(), notes);

    // Another one gets it, and its copy goes to the first.
    world.passes(Way::Redirect(other.key()), vec![me.key()]);
    let sent = world.sends(&me, "2").await;
    quiet().await;
    assert_eq!((takes(&second), takes(&target)), (vec![sent.clone()], vec![sent]));
    quiet().await;
    let notes = [format!("route {}", me.did()), format!("delivered {}", other.did())];
    assert_eq!(world.told.notes(), notes);
    assert!(world.a.is_even());
    assert_eq!(world.b.router.telemetry.messages.taps().delivered, 1);
}

#[tokio::test(start_paused = true)]
async fn policy_is_asked_about_absent_targets_in_their_order() {
    let world = World::new().await;
    let me = Identity::generate();
    *world.told.fallback.lock() = Fallback::Hold(Duration::from_secs(30));
    let mut sent = Vec::new();
    for sdp in ["1", "2", "3"] {
        sent.push(world.sends(&me, sdp).await);
    }
    until(|| world.a.counts().held == 3).await;
    let asked = world.told.notes();
    assert_eq!(asked.iter().filter(|note| *note == "route nobody").count(), 3);
    assert_eq!(asked.iter().filter(|note| *note == "undeliverable nobody").count(), 3);
    let target = world.b.comes(&me).await;
    until(|| !target.outbox.is_empty()).await;
    assert_eq!(takes(&target), sent);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_policy_holds_is_held_without_another_question() {
    let world = World::new().await;
    let me = Identity::generate();
    world.passes(Way::Hold(Duration::from_secs(30)), Vec::new());
    let sent = world.sends(&me, "1").await;
    until(|| world.a.counts().held == 1).await;
    assert_eq!(world.told.notes(), ["route nobody"]);
    // It is somewhere by now: it is not held at all.
    let target = world.b.comes(&me).await;
    let more = world.sends(&me, "2").await;
    quiet().await;
    assert_eq!(takes(&target), [sent, more]);
}

#[tokio::test(start_paused = true)]
async fn without_the_engine_policy_is_not_asked_about_who_is_not_here() {
    let world = World::new().await;
    let me = Identity::generate();
    world.engine.set_away(true);
    quiet().await;
    world.sends(&me, "1").await;
    quiet().await;
    assert_eq!(world.told.notes(), ["route nobody"]);
    assert_eq!(world.a.refused("node_unreachable"), 1);
}

#[tokio::test(start_paused = true)]
async fn whoever_policy_sends_a_message_to_instead_may_be_on_another_node() {
    let world = World::new().await;
    let (absent, deputy) = (Identity::generate(), Identity::generate());
    let target = world.b.comes(&deputy).await;
    *world.told.fallback.lock() = Fallback::Redirect(deputy.key());
    let sent = world.sends(&absent, "1").await;
    until(|| !target.outbox.is_empty()).await;
    assert_eq!(takes(&target), [sent]);
    // It is nobody's turn after that.
    world.b.leaves(&target).await;
    world.sends(&absent, "2").await;
    until(|| world.a.refused("unknown_agent") == 1).await;
    assert!(world.a.is_even());
}
