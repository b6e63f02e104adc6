//! The cryptography of the modes that have one, on ed25519-dalek itself.
//!
//! Nothing of the gateway's own protocol crate, so that what is gained there is seen.

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};

use super::frame;

/// Bytes of an Ed25519 key, before them the multicodec of one.
const DID_BYTES: usize = 34;

/// Somebody's key, decompressed.
pub(crate) struct Key(VerifyingKey);

impl Key {
    /// From `did:key:z…`.
    pub(crate) fn of(did: &str) -> Option<Self> {
        let mut bytes = [0; DID_BYTES];
        let base58 = did.strip_prefix("did:key:z")?;
        if bs58::decode(base58).onto(&mut bytes[..]).ok()? != DID_BYTES {
            return None;
        }
        let key = bytes.strip_prefix(&[0xed, 0x01])?.try_into().ok()?;
        VerifyingKey::from_bytes(key).ok().map(Self)
    }

    /// Whether the message is signed by it, strictly.
    pub(crate) fn signed(&self, text: &str) -> bool {
        let Some(([head, tail], base64)) = frame::signed(text) else { return false };
        let mut signature = [0; 66]; // what the decoder wants for 88 characters
        let Ok(Signature::BYTE_SIZE) = STANDARD.decode_slice(base64, &mut signature) else {
            return false;
        };
        let Some(signature) = signature.first_chunk() else { return false };
        let message = [head, tail].concat();
        self.0.verify_strict(message.as_bytes(), &Signature::from_bytes(signature)).is_ok()
    }
}

/// What the sender of a message is told that does not verify. Nobody looks for a signature in it.
pub(crate) fn refusal(text: &str) -> String {
    let answered = frame::id(text).unwrap_or_default();
    format!(
        r#"{{"correlation_id":"{answered}","payload":{{"code":"INVALID_SIGNATURE"}},"type":"ERROR"}}"#
    )
}

/// The relay's own voice in a registration on `ioap.v1.1`.
pub(crate) struct Gateway {
    key: SigningKey,
    did: String,
    /// The time is not what is measured.
    time: String,
}

impl Gateway {
    pub(crate) fn generate() -> Self {
        let key = SigningKey::from_bytes(&rand::random());
        let did = [&[0xed, 0x01], key.verifying_key().as_bytes().as_slice()].concat();
        let did = format!("did:key:z{}", bs58::encode(did).into_string());
        Self { key, did, time: jiff::Timestamp::now().to_string() }
    }

    /// A signed CHALLENGE with a fresh nonce.
    pub(crate) fn challenge(&self) -> String {
        let nonce = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
        let payload = format!(r#"{{"expires_in_ms":10000,"nonce":"{nonce}"}}"#);
        self.message("", &payload, "CHALLENGE", &self.did)
    }

    /// A signed REGISTERED.
    pub(crate) fn registered(&self, register: &str, did: &str) -> String {
        let answered = frame::id(register).unwrap_or_default();
        let correlation = format!(r#""correlation_id":"{answered}","#);
        let payload = format!(
            r#"{{"heartbeat_ms":100000,"max_message_bytes":65536,"node_id":"relay","presence_timeout_ms":300000,"relay":["OFFER"],"server_time":"{}","session_id":"1"}}"#,
            self.time
        );
        self.message(&correlation, &payload, "REGISTERED", did)
    }

    fn message(&self, correlation: &str, payload: &str, kind: &str, to: &str) -> String {
        let Self { key, did, time } = self;
        let head = format!(r#"{{{correlation}"from":"{did}","id":"1","payload":{payload},"#);
        let tail = format!(r#""timestamp":"{time}","to":"{to}","type":"{kind}","version":"1.0"}}"#);
        let signature = key.sign([&*head, &*tail].concat().as_bytes());
        format!(r#"{head}"signature":"{}",{tail}"#, STANDARD.encode(signature.to_bytes()))
    }
}
