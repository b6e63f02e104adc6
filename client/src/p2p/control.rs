//! The control channel of one connection: signed texts both ways.
//!
//! What is to be said is handed to the channel by whoever says it, where nobody else does; else it waits in a queue,
//! whose task says one thing after the other. What is heard is verified and taken one after the other, and while
//! it is not taken the other side waits.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot},
    task::consume_budget,
    time::sleep,
};

use super::{Channel, ChannelError, ChannelMessage, channel::WeakChannel};

/// Messages that wait to be sent.
const MAX_UNSAID: usize = 1024;

/// What arrives for a negotiated channel in the moment in which the other side's stack opens it may be lost
/// there, so nothing is said until that is over (docs/webrtc.md, "Channels").
const SETTLES: Duration = Duration::from_millis(20);

/// A signed text to send.
#[derive(Debug)]
struct Saying {
    text: String,
    said: Option<oneshot::Sender<Result<(), ChannelError>>>,
}

/// Why something was not said.
#[derive(Debug)]
pub(crate) enum Unsaid {
    /// The channel has ended; of what nobody waits for also that too much waits already.
    Closed,
    /// It ended while this waited.
    Lost,
    /// The channel did not take it.
    Refused(ChannelError),
}

/// Where to put what is to be said. With the last of them the channel ends, once all is said.
#[derive(Clone)]
pub(crate) struct Control {
    queue: mpsc::Sender<Saying>,
    channel: WeakChannel,
    has_settled: Arc<AtomicBool>,
}

impl Control {
    /// Sends a signed text; returns when it is handed over, which waits while too much is unsent.
    ///
    /// A caller that gives up cannot leave half a message behind.
    pub(crate) async fn say(&self, text: String) -> Result<(), Unsaid> {
        let text = match self.channel.upgrade().filter(|_| self.is_free()) {
            None => text,
            Some(channel) => match channel.send_at_once(text).await {
                Ok(sent) => {
                    // Whoever says much has others' turn come, too.
                    consume_budget().await;
                    return sent.map_err(Unsaid::Refused);
                }
                Err(text) => text,
            },
        };
        let (said, handed_over) = oneshot::channel();
        let saying = Saying { text, said: Some(said) };
        self.queue.send(saying).await.map_err(|_| Unsaid::Closed)?;
        match handed_over.await {
            Ok(sent) => sent.map_err(Unsaid::Refused),
            Err(_) => Err(Unsaid::Lost),
        }
    }

    /// Sends what nobody waits for; not where there is no room for it.
    pub(crate) fn say_later(&self, text: String) -> Result<(), Unsaid> {
        self.queue.try_send(Saying { text, said: None }).map_err(|_| Unsaid::Closed)
    }

    /// Whether nothing waits.
    fn is_free(&self) -> bool {
        let is_empty = self.queue.capacity() == self.queue.max_capacity();
        is_empty && self.has_settled.load(Ordering::Relaxed)
    }
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
) -> (Control, mpsc::Receiver<ControlEvent>, impl Future<Output = ()> + Send + 'static) {
    let (queue, sayings) = mpsc::channel(MAX_UNSAID);
    let (events, happens) = mpsc::channel(2);
    let has_settled = Arc::new(AtomicBool::new(false));
    let control =
        Control { queue, channel: channel.downgrade(), has_settled: Arc::clone(&has_settled) };
    let run = async move {
        if let Err(error) = channel.opened().await {
            tracing::debug!(%error, "a control channel did not open");
            return;
        }
        let _ = events.send(ControlEvent::Opened).await;
        let heard = hear(&channel, &ear);
        let spoken = async {
            sleep(SETTLES).await;
            has_settled.store(true, Ordering::Relaxed);
            speak(&channel, sayings).await;
        };
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
    (control, happens, run)
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

async fn speak(channel: &Channel, mut sayings: mpsc::Receiver<Saying>) {
    while let Some(Saying { text, said }) = sayings.recv().await {
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

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::time::timeout;

    use super::*;
    use crate::p2p::webrtc::tests::pair::{End, PATIENCE, connected};

    /// A control channel that is served, and the raw other end.
    async fn served() -> (Control, mpsc::Receiver<ControlEvent>, Channel, [End; 2]) {
        let (from, to) = connected().await;
        let (control, mut happens, run) =
            serve(Channel::control(&from.connection), Arc::new(|_| ()));
        tokio::spawn(run);
        let other = Channel::control(&to.connection);
        other.opened().await.unwrap();
        let opened = timeout(PATIENCE, happens.recv()).await.unwrap();
        assert!(matches!(opened, Some(ControlEvent::Opened)));
        (control, happens, other, [from, to])
    }

    async fn heard(channel: &Channel) -> Option<String> {
        let message = timeout(PATIENCE, channel.recv()).await.expect("a message in time")?;
        Some(message.unwrap().as_text().unwrap().to_owned())
    }

    #[tokio::test]
    async fn what_waits_is_said_before_what_need_not_wait() {
        let (control, mut happens, other, _ends) = served().await;
        // Nothing is said at once on a channel that has just opened.
        control.say_later("1".into()).unwrap();
        control.say("2".into()).await.unwrap();
        assert!(control.is_free());
        control.say("3".into()).await.unwrap();
        control.say_later("4".into()).unwrap();
        assert!(!control.is_free());
        control.say("5".into()).await.unwrap();
        for number in 1..=5 {
            assert_eq!(heard(&other).await, Some(number.to_string()));
        }
        // All that was said arrives before the end.
        control.say_later("6".into()).unwrap();
        drop(control);
        assert_eq!(heard(&other).await.as_deref(), Some("6"));
        assert_eq!(heard(&other).await, None);
        let ended = timeout(PATIENCE, happens.recv()).await.unwrap();
        assert!(matches!(ended, Some(ControlEvent::Ended(None))), "{ended:?}");
    }

    #[tokio::test]
    async fn who_gives_up_leaves_no_half_a_message_behind() {
        let (control, _happens, other, _ends) = served().await;
        control.say("settled".into()).await.unwrap();
        assert_eq!(heard(&other).await.as_deref(), Some("settled"));
        let large = "x".repeat(500_000);
        assert!(control.say(large.clone()).now_or_never().is_none(), "it takes many pieces");
        control.say("next".into()).await.unwrap();
        assert!(heard(&other).await == Some(large));
        assert_eq!(heard(&other).await.as_deref(), Some("next"));
    }

    #[tokio::test]
    async fn nothing_is_said_after_the_end() {
        let (control, mut happens, other, _ends) = served().await;
        // A close, too, can be lost in the moment of the opening.
        control.say("settled".into()).await.unwrap();
        assert_eq!(heard(&other).await.as_deref(), Some("settled"));
        other.close().await;
        let ended = timeout(PATIENCE, happens.recv()).await.unwrap();
        assert!(matches!(ended, Some(ControlEvent::Ended(None))), "{ended:?}");
        let late = timeout(PATIENCE, control.say("late".into())).await.unwrap();
        assert!(matches!(late, Err(Unsaid::Closed | Unsaid::Refused(_))), "{late:?}");
    }
}
