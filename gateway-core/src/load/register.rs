//! From nothing to a registered agent, and what each step of it took.
//!
//! On v1.1 REGISTERED says that it is done. v1 answers nothing, so there the agent sends itself an
//! OFFER behind the REGISTER: when that is answered, whatever with, the REGISTER before it has been
//! taken.

use std::time::{Duration, Instant};

use conexus_protocol::{
    Challenge, Draft, Envelope, Identity, MessageType, Register, Rules, Subprotocol,
};
use tokio::time::timeout;

use super::{
    message::{self, Refusal, Signing},
    opening::{Opening, UpgradeError},
    target::Target,
    wire::{Lost, Wire},
};

/// How long one agent's way from nothing to registered may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why an agent did not get in.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    #[error(transparent)]
    Upgrade(#[from] UpgradeError),
    #[error(transparent)]
    Lost(#[from] Lost),
    #[error("the server refused a registration: {0}")]
    Refused(Refusal),
    #[error("the server said something else than {0}")]
    OutOfTurn(MessageType),
    #[error("an agent was not registered within {0:?}")]
    Timeout(Duration),
}

/// A registered agent's connection.
pub(super) struct Registered {
    pub(super) wire: Wire,
    pub(super) took: Took,
}

/// What the steps took.
#[derive(Clone, Copy, Debug)]
pub(super) struct Took {
    /// TCP and the upgrade.
    pub(super) connect: Duration,
    /// From there to the answer to REGISTER; our own signing is part of it.
    pub(super) proof: Duration,
    /// The signing alone.
    pub(super) signing: Duration,
}

/// Connects and registers; the number tells which address it comes from.
pub(super) async fn register(
    target: &Target,
    number: usize,
    identity: &Identity,
) -> Result<Registered, SetupError> {
    timeout(PATIENCE, async {
        let begun = Instant::now();
        let mut opening = Opening::dial(target, number).await?;
        let connected = Instant::now();
        let signing = match target.protocol {
            Subprotocol::V1 => v1(&mut opening, identity).await?,
            Subprotocol::V1_1 => v1_1(&mut opening, target, identity).await?,
        };
        let proof = connected.elapsed();
        let took = Took { connect: connected - begun, proof, signing };
        Ok(Registered { wire: opening.into_wire(), took })
    })
    .await
    .unwrap_or(Err(SetupError::Timeout(PATIENCE)))
}

fn bare(identity: &Identity) -> Register {
    Register { public_key: identity.key().base58(), ..Register::default() }
}

async fn v1(opening: &mut Opening, identity: &Identity) -> Result<Duration, SetupError> {
    let begun = Instant::now();
    let register = Draft::new(identity.did(), bare(identity)).sign(identity);
    let signing = begun.elapsed();
    // Without a signature, for the proof to be the only one on the bill. Where they are required,
    // the refusal is the answer that is waited for.
    let knock = message::offer(identity, identity.did(), 0, 0, Signing::Unsigned);
    opening.send(&[&register, &knock]).await?;
    let id = message::id(&knock);
    loop {
        let text = opening.text().await?;
        if text.contains(id) {
            return Ok(signing);
        }
        if let Some(refusal) = Refusal::read(text.as_bytes()) {
            return Err(SetupError::Refused(refusal));
        }
    }
}

async fn v1_1(
    opening: &mut Opening,
    target: &Target,
    identity: &Identity,
) -> Result<Duration, SetupError> {
    let nonce = challenged(&opening.text().await?)?;
    let begun = Instant::now();
    let register =
        Register { nonce: Some(nonce), audience: Some(target.audience.clone()), ..bare(identity) };
    let text = Draft::new(identity.did(), register).sign(identity);
    let signing = begun.elapsed();
    opening.send(&[&text]).await?;
    let answer = opening.text().await?;
    match Envelope::parse(&answer, Rules::V1_1) {
        Ok(envelope) if envelope.kind == MessageType::Registered => Ok(signing),
        _ => Err(unexpected(&answer, MessageType::Registered)),
    }
}

fn challenged(text: &str) -> Result<String, SetupError> {
    let challenge = Envelope::parse(text, Rules::V1_1)
        .ok()
        .filter(|envelope| envelope.kind == MessageType::Challenge)
        .and_then(|envelope| envelope.payload::<Challenge>().ok());
    challenge.map(|it| it.nonce).ok_or_else(|| unexpected(text, MessageType::Challenge))
}

fn unexpected(text: &str, expected: MessageType) -> SetupError {
    match Refusal::read(text.as_bytes()) {
        Some(refusal) => SetupError::Refused(refusal),
        None => SetupError::OutOfTurn(expected),
    }
}
