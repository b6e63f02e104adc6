//! The control channel of one connection: signed texts both ways.
//!
//! What is to be said goes through one queue, so that a caller who gives up cannot leave half a message
//! behind. What is heard is verified and taken one after the other, and while it is not taken the other
//! side waits.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until},
};

use super::{Channel, ChannelError, ChannelMessage};

/// Messages that wait to be sent.
const MAX_UNSAID: usize = 1024;

/// What arrives for a negotiated channel in the moment in which the other side's stack opens it may be lost
/// there, so nothing is said until that is over (docs/webrtc.md, "Channels").
const SETTLES: Duration = Duration::from_millis(20);

/// A signed text to send.
#[derive(Debug)]
pub(crate) struct Saying {
    pub(crate) text: String,
    pub(crate) said: Option<oneshot::Sender<Result<(), ChannelError>>>,
}

/// What happens to a control channel.
#[derive(Debug)]
pub(crate) enum ControlEvent {
    Opened,
    /// It has ended; orderly where there is no error.
    Ended(Option<ChannelError>),
}

/// Takes what is heard.
pub(crate) type Ear = Arc<dyn Fn(ChannelMessage) + Send + Sync>;

/// Where to put what is to be said, what happens, and the task that does it.
pub(crate) fn serve(
    channel: Channel,
    ear: Ear,
) -> (mpsc::Sender<Saying>, mpsc::Receiver<ControlEvent>, impl Future<Output = ()> + Send + 'static)
{
    let (sayings, queue) = mpsc::channel(MAX_UNSAID);
    let (events, happens) = mpsc::channel(2);
    let run = async move {
        if let Err(error) = channel.opened().await {
            tracing::debug!(%error, "a control channel did not open");
            return;
        }
        let _ = events.send(ControlEvent::Opened).await;
        let heard = hear(&channel, &ear);
        let spoken = speak(&channel, queue);
        let end = tokio::select! {
            end = heard => end,
            // All that was to be said is, and its sender closes.
            () = spoken => {
                channel.close().await;
                None
            }
        };
        let _ = events.send(ControlEvent::Ended(end)).await;
    };
    (sayings, happens, run)
}

async fn hear(channel: &Channel, ear: &Ear) -> Option<ChannelError> {
    loop {
        match channel.recv().await {
            Some(Ok(message)) => ear(message),
            Some(Err(error)) => return Some(error),
            None => return None,
        }
    }
}

async fn speak(channel: &Channel, mut queue: mpsc::Receiver<Saying>) {
    let settled = Instant::now() + SETTLES;
    while let Some(Saying { text, said }) = queue.recv().await {
        sleep_until(settled).await;
        let outcome = channel.send(text).await;
        match said {
            // Fails when the caller does not wait any more.
            Some(said) => drop(said.send(outcome)),
            None => {
                if let Err(error) = outcome {
                    tracing::debug!(%error, "an answer was not sent");
                }
            }
        }
    }
}
