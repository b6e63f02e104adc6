//! Spans of messages for OpenTelemetry: one from a message's arrival to its end.
//!
//! They are made of what the gateway knows of a message when it ends, not of the log's spans: so
//! none has to be kept for every message under way, whatever the level of the log. On a message's
//! way there is a share that is drawn and a bounded queue; a task of its own sends what is there,
//! and says once a minute at most that it cannot.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use opentelemetry::{
    InstrumentationScope, KeyValue, SpanId, TraceFlags, TraceId,
    trace::{SpanContext, SpanKind, Status, TraceState},
};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::{
    Resource,
    trace::{SpanData, SpanEvents, SpanExporter as _, SpanLinks},
};
use rand::Rng as _;
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    events::{Outcome, Passing, shown},
    trace::Traceparent,
};
use crate::{config::TelemetrySettings, core::Core, http_client};

/// Spans that may wait to be sent; further ones are dropped and counted.
const QUEUE: usize = 4096;
/// Spans in one request.
const BATCH: usize = 512;
/// A batch that does not fill is sent after this.
const LINGER: Duration = Duration::from_secs(1);
/// For one request.
const PATIENCE: Duration = Duration::from_secs(5);
/// What is left at the end of the gateway is sent within this, or dropped.
const LAST_PATIENCE: Duration = Duration::from_secs(3);
/// Between two lines of the log about spans that could not be sent.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// Where messages leave their spans.
#[derive(Debug)]
pub(super) struct Outlet {
    queue: mpsc::Sender<SpanData>,
    dropped: Arc<AtomicU64>,
    per_thousand: u64,
    scope: InstrumentationScope,
}

/// The task that sends them.
pub(crate) struct Export {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Export {
    /// Begins to send the spans of a gateway's messages, if its settings say where to.
    pub(crate) fn start(core: &Core) -> Option<Self> {
        let settings = &core.settings.telemetry;
        let endpoint = settings.otlp_endpoint.as_deref()?;
        let exporter = match exporter(endpoint, core) {
            Ok(exporter) => exporter,
            Err(error) => {
                warn!(endpoint, %error, "no spans are sent");
                return None;
            }
        };
        info!(endpoint, per_thousand = settings.otlp_per_thousand, "spans of messages are sent");
        let (queue, spans) = mpsc::channel(QUEUE);
        let (stop, dropped) = (CancellationToken::new(), Arc::default());
        let outlet = Outlet::new(settings, queue, Arc::clone(&dropped));
        core.router.telemetry.hub.export(outlet);
        let sender = Sender { exporter, dropped, failed: 0, complained: None };
        let task = tokio::spawn(sender.run(spans, stop.clone()));
        Some(Self { stop, task })
    }

    /// Sends what is left, for a while.
    pub(crate) async fn stop(mut self) {
        self.stop.cancel();
        if timeout(LAST_PATIENCE, &mut self.task).await.is_err() {
            warn!("the last spans could not be sent in time");
        }
    }
}

impl Drop for Export {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn exporter(endpoint: &str, core: &Core) -> Result<SpanExporter, Box<dyn std::error::Error>> {
    let client = http_client::client(PATIENCE)?;
    let mut exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(client)
        .with_endpoint(traces_url(endpoint))
        .with_timeout(PATIENCE)
        .build()?;
    let resource = Resource::builder().with_service_name("conexus").with_attributes([
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", core.node_id.clone()),
    ]);
    exporter.set_resource(&resource.build());
    Ok(exporter)
}

/// A URL without a path is that of a collector, whose path for spans the protocol fixes.
fn traces_url(endpoint: &str) -> String {
    match endpoint.split_once("://") {
        Some((_, rest)) if rest.trim_end_matches('/').contains('/') => endpoint.to_owned(),
        _ => format!("{}/v1/traces", endpoint.trim_end_matches('/')),
    }
}

impl Outlet {
    fn new(
        settings: &TelemetrySettings,
        queue: mpsc::Sender<SpanData>,
        dropped: Arc<AtomicU64>,
    ) -> Self {
        let scope = InstrumentationScope::builder("conexus").build();
        Self { queue, dropped, per_thousand: settings.otlp_per_thousand.into(), scope }
    }

    /// A message came to an end, or to a mailbox.
    pub(super) fn take(&self, message: &Passing<'_>, outcome: Outcome) {
        let made = message.sender.trace.id(message.number);
        // A sender that traces is found out by reading the text again, which a message that is not
        // drawn and has no such member need not wait for.
        if !self.draws(made.to_bytes()) && !message.text.contains("traceparent") {
            return;
        }
        let Some(envelope) = message.envelope() else { return };
        let given = Traceparent::of(&envelope);
        let is_drawn = given.map_or_else(|| self.draws(made.to_bytes()), |given| given.sampled);
        if !is_drawn {
            return;
        }
        let Ok(place) = self.queue.try_reserve() else {
            self.dropped.fetch_add(1, Relaxed);
            return;
        };
        let trace = given.map_or(made, |given| given.trace);
        let so_far = message.read_at.map(|read| read.elapsed());
        let (took, status) = match outcome {
            Outcome::Delivered(took) => (took, Status::Unset),
            Outcome::Held => (so_far, Status::Unset),
            Outcome::Refused(reason) => {
                (so_far, Status::error(reason.map_or("gone", |reason| reason.as_str())))
            }
        };
        let end_time = SystemTime::now();
        let start_time = took.and_then(|took| end_time.checked_sub(took)).unwrap_or(end_time);
        let mut attributes = vec![
            KeyValue::new("messaging.system", "conexus"),
            KeyValue::new("messaging.message.id", envelope.id.to_string()),
            KeyValue::new("messaging.message.body.size", as_i64(message.text.len())),
            KeyValue::new("conexus.from", message.sender.agent.as_str().to_owned()),
            KeyValue::new("conexus.to", shown(&envelope.to).to_owned()),
            KeyValue::new("conexus.session", message.sender.id.to_string()),
            KeyValue::new("conexus.outcome", outcome.as_str()),
        ];
        if let Outcome::Refused(Some(reason)) = outcome {
            attributes.push(KeyValue::new("conexus.reason", reason.as_str()));
        }
        place.send(SpanData {
            span_context: SpanContext::new(
                TraceId::from_bytes(trace.to_bytes()),
                SpanId::from_bytes(rand::rng().random_range(1..=u64::MAX).to_be_bytes()),
                TraceFlags::SAMPLED,
                false,
                TraceState::default(),
            ),
            parent_span_id: given.map_or(SpanId::INVALID, |given| SpanId::from_bytes(given.parent)),
            parent_span_is_remote: given.is_some(),
            span_kind: SpanKind::Server,
            name: message.kind.as_str().into(),
            start_time,
            end_time,
            attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status,
            instrumentation_scope: self.scope.clone(),
        });
    }

    /// By the half of a trace id that is random, so that others who go by it draw the same ones.
    fn draws(&self, trace: [u8; 16]) -> bool {
        let [.., a, b, c, d] = trace;
        (u64::from(u32::from_be_bytes([a, b, c, d])) * 1000) >> 32 < self.per_thousand
    }
}

fn as_i64(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

struct Sender {
    exporter: SpanExporter,
    dropped: Arc<AtomicU64>,
    failed: u64,
    complained: Option<Instant>,
}

impl Sender {
    async fn run(mut self, mut spans: mpsc::Receiver<SpanData>, stop: CancellationToken) {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                count = spans.recv_many(&mut batch, BATCH) => if count == 0 { return },
                // From here on what is left is all that there will be.
                () = stop.cancelled(), if !spans.is_closed() => {
                    spans.close();
                    continue;
                }
            }
            let deadline = Instant::now() + LINGER;
            while batch.len() < BATCH && !stop.is_cancelled() {
                let room = BATCH - batch.len();
                let more = spans.recv_many(&mut batch, room);
                tokio::select! {
                    more = timeout_at(deadline, more) => if !more.is_ok_and(|count| count > 0) { break },
                    () = stop.cancelled() => break,
                }
            }
            self.send(std::mem::take(&mut batch)).await;
        }
    }

    async fn send(&mut self, batch: Vec<SpanData>) {
        let count = batch.len() as u64;
        let error = match timeout(2 * PATIENCE, self.exporter.export(batch)).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some("no answer".to_owned()),
        };
        if error.is_some() {
            self.failed += count;
        }
        let lost = self.failed + self.dropped.load(Relaxed);
        let silent = self.complained.is_some_and(|last| last.elapsed() < COMPLAIN_EVERY);
        if lost == 0 || silent {
            return;
        }
        let (failed, dropped) = (std::mem::take(&mut self.failed), self.dropped.swap(0, Relaxed));
        self.complained = Some(Instant::now());
        warn!(failed, dropped, error, "spans were not sent");
    }
}

#[cfg(test)]
mod tests {
    use conexus_protocol::{MessageType, RefusalReason};

    use super::*;
    use crate::session::handle::tests::session;

    /// How long messages have been here.
    const BEFORE: Duration = Duration::from_millis(7);

    fn outlet(per_thousand: u32) -> (Outlet, mpsc::Receiver<SpanData>) {
        let settings =
            TelemetrySettings { otlp_per_thousand: per_thousand, ..TelemetrySettings::default() };
        let (queue, spans) = mpsc::channel(4);
        (Outlet::new(&settings, queue, Arc::default()), spans)
    }

    fn text(traceparent: &str) -> String {
        format!(
            r#"{{"from":"a","id":"7","payload":{{"sdp":""}},"signature":"","to":"b","traceparent":"{traceparent}","type":"OFFER"}}"#
        )
    }

    fn take(outlet: &Outlet, text: &str, number: u64, outcome: Outcome) -> [u8; 16] {
        let sender = session();
        let (kind, to) = (MessageType::Offer, None);
        let read_at = Some(Instant::now() - BEFORE);
        outlet.take(&Passing { kind, text, sender: &sender, number, to, read_at }, outcome);
        sender.trace.id(number).to_bytes()
    }

    #[test]
    fn a_span_goes_on_with_its_senders_trace_or_begins_one() {
        let (outlet, mut spans) = outlet(1000);
        let traced = text("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
        take(&outlet, &traced, 1, Outcome::Delivered(Some(Duration::from_micros(5))));
        let span = spans.try_recv().unwrap();
        let trace = span.span_context.trace_id().to_string();
        assert_eq!(trace, "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(span.parent_span_id.to_string(), "00f067aa0ba902b7");
        assert!(span.parent_span_is_remote && span.span_context.is_valid());
        let took = span.end_time.duration_since(span.start_time).unwrap();
        assert_eq!((took, &*span.name), (Duration::from_micros(5), "OFFER"));

        let denied = Outcome::Refused(Some(RefusalReason::Denied));
        let made = take(&outlet, &text("nonsense"), 3, denied);
        let span = spans.try_recv().unwrap();
        assert_eq!(span.span_context.trace_id().to_bytes(), made);
        assert_eq!((span.parent_span_id, span.status), (SpanId::INVALID, Status::error("denied")));
    }

    #[test]
    fn a_sender_that_traces_chooses_itself() {
        let parent = |flags: &str| {
            text(&format!("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-{flags}"))
        };
        let (none, mut spans) = outlet(0);
        take(&none, &parent("01"), 1, Outcome::Held);
        take(&none, &text(""), 1, Outcome::Held);
        assert!(spans.try_recv().is_ok() && spans.try_recv().is_err());
        let (all, mut spans) = outlet(1000);
        take(&all, &parent("00"), 1, Outcome::Held);
        assert!(spans.try_recv().is_err());
    }

    #[test]
    fn a_share_is_about_that_share_and_the_queue_is_bounded() {
        let (outlet, _spans) = outlet(250);
        let sender = session();
        let drawn = (0..10_000).filter(|n| outlet.draws(sender.trace.id(*n).to_bytes())).count();
        assert!((2200..2800).contains(&drawn), "{drawn}");
        for _ in 0..6 {
            let traced = text("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
            take(&outlet, &traced, 1, Outcome::Held);
        }
        assert_eq!(outlet.dropped.load(Relaxed), 2);
    }

    #[test]
    fn the_span_of_what_was_refused_or_held_begins_when_it_was_read() {
        let (outlet, mut spans) = outlet(1000);
        for outcome in [Outcome::Held, Outcome::Refused(Some(RefusalReason::Denied))] {
            take(&outlet, &text(""), 1, outcome);
            let span = spans.try_recv().unwrap();
            assert!(span.end_time.duration_since(span.start_time).unwrap() >= BEFORE);
        }
    }

    #[test]
    fn whom_a_message_is_for_is_cut_where_that_is_nobody() {
        let (outlet, mut spans) = outlet(1000);
        let long = text("").replace(r#""to":"b""#, &format!(r#""to":"{}""#, "é".repeat(9_000)));
        take(&outlet, &long, 1, Outcome::Refused(Some(RefusalReason::UnknownAgent)));
        let attributes = spans.try_recv().unwrap().attributes;
        let to = attributes.iter().find(|attribute| attribute.key.as_str() == "conexus.to");
        assert_eq!(to.unwrap().value.as_str(), "é".repeat(64));
    }

    #[test]
    fn a_collectors_url_gets_the_path_that_the_protocol_fixes() {
        for (endpoint, url) in [
            ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
            ("http://127.0.0.1:4318/", "http://127.0.0.1:4318/v1/traces"),
            ("https://a.example/otlp/traces", "https://a.example/otlp/traces"),
        ] {
            assert_eq!(traces_url(endpoint), url);
        }
    }
}
