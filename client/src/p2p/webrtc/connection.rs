//! One connection of the stack.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use ::webrtc::peer_connection::{PeerConnection, RTCSessionDescription};
use conexus_protocol::IceCandidate;
use futures_util::future::BoxFuture;
use rtc::{
    data_channel::RTCDataChannelInit,
    peer_connection::{configuration::RTCOfferOptions, transport::RTCIceCandidateInit},
};
use tokio::runtime::Handle;

use super::{
    channel::{Common, StackChannel},
    events::Listener,
    failed, path,
};
use crate::p2p::transport::{
    Connection, PathStats, RawChannel, RawChannelOptions, Reliability, TransportError,
};

/// Candidates of the other side's that count for one description. Each is sent to from each own address, so that
/// this bounds what a peer can have sent to others.
const MAX_CANDIDATES: usize = 48;
/// The largest candidate in bytes.
const MAX_CANDIDATE: usize = 1024;
/// The largest description in bytes; one with channels alone has some hundred, beside its candidates.
const MAX_DESCRIPTION: usize = 64 * 1024;
/// What a side takes that does not say (RFC 8841, section 6.1), and the most that the stack sends.
const DEFAULT_MESSAGE_SIZE: usize = 65_536;

pub(super) struct StackConnection {
    stack: Arc<dyn PeerConnection>,
    listener: Arc<Listener>,
    control: Arc<StackChannel>,
    max_message_size: AtomicUsize,
    /// The other side's, of its newest description.
    candidates: AtomicUsize,
    runtime: Handle,
}

impl StackConnection {
    pub(super) async fn new(
        stack: Arc<dyn PeerConnection>,
        listener: Arc<Listener>,
    ) -> Result<Self, TransportError> {
        let options = RawChannelOptions {
            ordered: true,
            reliability: None,
            protocol: "ioap.v1.1".to_owned(),
            negotiated: Some(0),
        };
        let control = match open(&*stack, "conexus".to_owned(), options, &listener.common).await {
            Ok(control) => Arc::new(control),
            Err(error) => {
                let _ = stack.close().await;
                return Err(error);
            }
        };
        listener.controlled_by(control.native());
        let (max_message_size, candidates) =
            (AtomicUsize::new(DEFAULT_MESSAGE_SIZE), AtomicUsize::new(0));
        let runtime = Handle::current();
        Ok(Self { stack, listener, control, max_message_size, candidates, runtime })
    }

    /// Applies an own description, and returns its text.
    async fn describe(
        &self,
        what: &'static str,
        description: RTCSessionDescription,
    ) -> Result<String, TransportError> {
        let sdp = description.sdp.clone();
        self.listener.describes(&sdp);
        let applied = self.stack.set_local_description(description).await;
        applied.map_err(|error| failed(what, error))?;
        Ok(sdp)
    }

    /// Applies the other side's.
    async fn described(
        &self,
        what: &'static str,
        sdp: String,
        read: fn(String) -> ::webrtc::error::Result<RTCSessionDescription>,
    ) -> Result<(), TransportError> {
        let candidates = sdp.lines().filter(|line| line.starts_with("a=candidate:")).count();
        if sdp.len() > MAX_DESCRIPTION || candidates > MAX_CANDIDATES {
            return Err(failed(what, "the description is too large"));
        }
        let description = read(sdp).map_err(|error| failed(what, error))?;
        self.candidates.store(candidates, Ordering::Relaxed);
        self.max_message_size.store(max_message_size(&description.sdp), Ordering::Relaxed);
        let applied = self.stack.set_remote_description(description).await;
        applied.map_err(|error| failed(what, error))
    }
}

async fn open(
    stack: &dyn PeerConnection,
    label: String,
    options: RawChannelOptions,
    common: &Arc<Common>,
) -> Result<StackChannel, TransportError> {
    let (max_retransmits, max_packet_life_time) = match options.reliability {
        None => (None, None),
        Some(Reliability::MaxRetransmits(times)) => (Some(times), None),
        Some(Reliability::MaxLifetime(time)) => {
            (None, Some(u16::try_from(time.as_millis()).unwrap_or(u16::MAX)))
        }
    };
    let init = RTCDataChannelInit {
        ordered: options.ordered,
        max_packet_life_time,
        max_retransmits,
        protocol: options.protocol.clone(),
        negotiated: options.negotiated,
    };
    let native = stack.create_data_channel(&label, Some(init)).await;
    let native = native.map_err(|error| failed("open a channel", error))?;
    Ok(StackChannel::ours(native, label, options, common).await)
}

/// The largest message that a description's side takes.
fn max_message_size(sdp: &str) -> usize {
    let told = sdp.lines().find_map(|line| line.strip_prefix("a=max-message-size:"));
    match told.and_then(|size| size.trim().parse().ok()) {
        // Of any size.
        None | Some(0) => DEFAULT_MESSAGE_SIZE,
        Some(size) => DEFAULT_MESSAGE_SIZE.min(size),
    }
}

impl Connection for StackConnection {
    fn offer(&self, restart: bool) -> BoxFuture<'_, Result<String, TransportError>> {
        Box::pin(async move {
            let what = "make an offer";
            let options = RTCOfferOptions { ice_restart: restart };
            let offer = self.stack.create_offer(Some(options)).await;
            self.describe(what, offer.map_err(|error| failed(what, error))?).await
        })
    }

    fn answer(&self, sdp: String) -> BoxFuture<'_, Result<String, TransportError>> {
        Box::pin(async move {
            self.described("take an offer", sdp, RTCSessionDescription::offer).await?;
            let what = "answer an offer";
            let answer = self.stack.create_answer(None).await;
            self.describe(what, answer.map_err(|error| failed(what, error))?).await
        })
    }

    fn answered(&self, sdp: String) -> BoxFuture<'_, Result<(), TransportError>> {
        Box::pin(self.described("take an answer", sdp, RTCSessionDescription::answer))
    }

    fn rollback(&self) -> BoxFuture<'_, Result<(), TransportError>> {
        Box::pin(async move {
            let what = "take an offer back";
            let rollback =
                RTCSessionDescription::rollback(None).map_err(|error| failed(what, error))?;
            let applied = self.stack.set_local_description(rollback).await;
            applied.map_err(|error| failed(what, error))
        })
    }

    fn add_candidate(&self, candidate: IceCandidate) -> BoxFuture<'_, Result<(), TransportError>> {
        let candidate = RTCIceCandidateInit {
            candidate: candidate.candidate,
            sdp_mid: candidate.sdp_mid,
            sdp_mline_index: candidate.sdp_mline_index.and_then(|index| u16::try_from(index).ok()),
            ..Default::default()
        };
        Box::pin(async move {
            let what = "take a candidate";
            if candidate.candidate.len() > MAX_CANDIDATE {
                return Err(failed(what, "it is too long"));
            }
            if !candidate.candidate.is_empty()
                && self.candidates.fetch_add(1, Ordering::Relaxed) >= MAX_CANDIDATES
            {
                return Err(failed(what, "there are too many"));
            }
            let added = self.stack.add_ice_candidate(candidate).await;
            added.map_err(|error| failed(what, error))
        })
    }

    fn control(&self) -> Arc<dyn RawChannel> {
        self.control.clone()
    }

    fn open_channel(
        &self,
        label: String,
        options: RawChannelOptions,
    ) -> BoxFuture<'_, Result<Arc<dyn RawChannel>, TransportError>> {
        Box::pin(async move {
            // The stack loses what it is to open while SCTP begins.
            if !self.control.opened().await {
                return Err(failed("open a channel", "the connection has ended"));
            }
            let common = &self.listener.common;
            if options.negotiated.is_none() && common.settling.is_recent() {
                let path = path::of(&*self.stack).await;
                common.settling.done(path.and_then(|path| path.round_trip)).await;
            }
            let channel = open(&*self.stack, label, options, common).await?;
            Ok(Arc::new(channel) as Arc<dyn RawChannel>)
        })
    }

    fn path(&self) -> BoxFuture<'_, Option<PathStats>> {
        Box::pin(path::of(&*self.stack))
    }

    fn max_message_size(&self) -> usize {
        self.max_message_size.load(Ordering::Relaxed)
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.listener.common.ended.cancel();
            if let Err(error) = self.stack.close().await {
                tracing::debug!(%error, "a connection to a peer did not close in order");
            }
        })
    }
}

impl Drop for StackConnection {
    fn drop(&mut self) {
        self.listener.common.ended.cancel();
        let stack = self.stack.clone();
        self.runtime.spawn(async move {
            let _ = stack.close().await;
        });
    }
}

impl fmt::Debug for StackConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StackConnection").field("control", &self.control).finish_non_exhaustive()
    }
}
