//! Ed25519: verifying what others signed, and signing as ourselves.
//!
//! Verification is strict (RFC 8032 with canonical S, no small-order points), because a
//! signature is a proof of origin only if there is one way to write it. `envelope` verifies,
//! `draft` signs.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _, KeypairBytes};
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};

use crate::did::{AgentId, AgentKey, DidError};

/// A decompressed public key, of large order.
#[derive(Clone)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    pub(crate) fn decompress(key: &AgentKey) -> Result<Self, DidError> {
        let point = VerifyingKey::from_bytes(key.as_bytes()).map_err(|_| DidError::NotAPoint)?;
        if point.is_weak() {
            return Err(DidError::WeakKey);
        }
        // One key, one name: a second encoding of a point would be a second agent.
        if !is_canonical(key.as_bytes()) {
            return Err(DidError::NotAPoint);
        }
        Ok(Self(point))
    }

    /// Verifies strictly.
    ///
    /// # Errors
    /// [`SignatureError::Mismatch`] where the signature is not this key's over these bytes.
    pub fn verify(&self, bytes: &[u8], signature: &SignatureBytes) -> Result<(), SignatureError> {
        self.0
            .verify_strict(bytes, &Signature::from_bytes(&signature.0))
            .map_err(|_| SignatureError::Mismatch)
    }
}

/// Whether a point of large order is encoded as RFC 8032 (section 5.1.2) does: `y` below the prime
/// 2^255 - 19. (The other freedom, the sign of `x` = 0, has only points of small order.)
fn is_canonical(encoded: &[u8; 32]) -> bool {
    let [lowest, middle @ .., highest] = encoded;
    *highest & 0x7f != 0x7f || middle.iter().any(|byte| *byte != 0xff) || *lowest < 0xed
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", AgentKey::from_bytes(self.0.to_bytes()).base58())
    }
}

/// The 64 bytes of a signature, of which nothing is known yet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SignatureBytes([u8; 64]);

impl SignatureBytes {
    /// Reads standard base64 with its padding, and nothing else: no other alphabet, no white
    /// space, no set bits beyond the last byte.
    ///
    /// # Errors
    /// [`SignatureError::Encoding`] for anything but the one spelling of 64 bytes.
    pub fn parse(base64: &str) -> Result<Self, SignatureError> {
        // 64 bytes are 88 characters; anything longer need not be decoded to be refused.
        if base64.len() != 88 {
            return Err(SignatureError::Encoding);
        }
        let bytes = STANDARD.decode(base64).map_err(|_| SignatureError::Encoding)?;
        bytes.try_into().map(Self).map_err(|_| SignatureError::Encoding)
    }

    pub(crate) const fn from_bytes(bytes: [u8; 64]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 64] {
        &self.0
    }
}

impl fmt::Debug for SignatureBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SignatureBytes({})", STANDARD.encode(self.0))
    }
}

/// Why a signature does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignatureError {
    /// Not the standard base64 of 64 bytes.
    #[error("signature is not the base64 of 64 bytes")]
    Encoding,
    /// Not this key's signature over these bytes.
    #[error("signature does not match")]
    Mismatch,
}

/// A key pair with its DID. Each clone wipes its copy of the private half when it is dropped.
#[derive(Clone)]
pub struct Identity {
    signing: SigningKey,
    id: AgentId,
}

impl Identity {
    /// A fresh key pair.
    #[must_use]
    pub fn generate() -> Self {
        Self::from_signing(SigningKey::from_bytes(&rand::random()))
    }

    /// The key pair of an RFC 8032 private key (seed).
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self::from_signing(SigningKey::from_bytes(seed))
    }

    fn from_signing(signing: SigningKey) -> Self {
        let public = signing.verifying_key();
        let key = AgentKey::from_bytes(public.to_bytes());
        let id = AgentId::of_own(key.did(), key, PublicKey(public));
        Self { signing, id }
    }

    /// The same key, in the reference's spelling.
    #[must_use]
    pub fn with_legacy_did(self) -> Self {
        let key = self.key();
        let id = AgentId::of_own(key.legacy_did(), key, self.id.public_key().clone());
        Self { id, ..self }
    }

    /// Reads a PKCS#8 private key in PEM, as `openssl genpkey -algorithm ed25519` writes it.
    ///
    /// # Errors
    /// [`KeyFileError`], which says nothing of the content.
    pub fn from_pem(pem: &str) -> Result<Self, KeyFileError> {
        SigningKey::from_pkcs8_pem(pem).map(Self::from_signing).map_err(|_| KeyFileError)
    }

    /// The private key as PKCS#8 PEM: version 1, without the public key, which older OpenSSLs
    /// do not read. The caller wipes the text; intermediate copies are wiped here.
    #[must_use]
    pub fn to_pem(&self) -> String {
        let keypair = KeypairBytes { secret_key: self.signing.to_bytes(), public_key: None };
        let pem = keypair.to_pkcs8_pem(LineEnding::LF).expect("32 bytes fit PKCS#8");
        pem.to_string()
    }

    /// Whose key pair this is.
    #[must_use]
    pub fn id(&self) -> &AgentId {
        &self.id
    }

    /// The DID, in the spelling chosen.
    #[must_use]
    pub fn did(&self) -> &str {
        self.id.as_str()
    }

    /// The public key.
    #[must_use]
    pub fn key(&self) -> AgentKey {
        self.id.key()
    }

    /// Signs; the result is base64, as it goes on the wire.
    #[must_use]
    pub fn sign(&self, bytes: &[u8]) -> String {
        STANDARD.encode(self.sign_raw(bytes).0)
    }

    pub(crate) fn sign_raw(&self, bytes: &[u8]) -> SignatureBytes {
        SignatureBytes(self.signing.sign(bytes).to_bytes())
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.did())
    }
}

/// The text is no Ed25519 private key in PKCS#8 PEM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an ed25519 private key in PKCS#8 PEM")]
pub struct KeyFileError;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_encoding_is_canonical_where_the_point_compresses_to_it() {
        let mut near_the_prime = [0xff; 32];
        near_the_prime[31] = 0x7f;
        let mut checked = 0;
        for highest in [0x7f, 0xff] {
            for lowest in 0..=u8::MAX {
                let mut encoded = near_the_prime;
                (encoded[0], encoded[31]) = (lowest, highest);
                let Ok(point) = VerifyingKey::from_bytes(&encoded) else { continue };
                if point.is_weak() {
                    continue;
                }
                checked += 1;
                let compressed = point.to_edwards().compress();
                assert_eq!(is_canonical(&encoded), *compressed.as_bytes() == encoded, "{lowest:x}");
            }
        }
        assert!(checked > 100);
    }

    /// RFC 8410, section 10.3.
    const PEM: &str = "-----BEGIN PRIVATE KEY-----\n\
        MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
        -----END PRIVATE KEY-----\n";

    #[test]
    fn a_key_file_of_openssl_reads_and_writes_back() {
        let identity = Identity::from_pem(PEM).unwrap();
        let public = "19bf44096984cdfe8541bac167dc3b96c85086aa30b6b6cb0c5c38ad703166e1";
        let hex: String = identity.key().as_bytes().iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, public);
        assert_eq!(identity.to_pem(), PEM);
    }

    #[test]
    fn what_is_no_key_file_is_refused() {
        for pem in ["", "-----BEGIN PRIVATE KEY-----\n", &PEM.replace("MC4C", "MC5C")] {
            assert_eq!(Identity::from_pem(pem).err(), Some(KeyFileError));
        }
    }

    #[test]
    fn a_signature_holds_for_its_bytes_and_key_alone() {
        let (alice, bob) = (Identity::from_seed(&[1; 32]), Identity::from_seed(&[2; 32]));
        let signature = SignatureBytes::parse(&alice.sign(b"hello")).unwrap();
        assert_eq!(alice.id().public_key().verify(b"hello", &signature), Ok(()));
        let mismatch = Err(SignatureError::Mismatch);
        assert_eq!(alice.id().public_key().verify(b"hellp", &signature), mismatch);
        assert_eq!(bob.id().public_key().verify(b"hello", &signature), mismatch);
    }

    #[test]
    fn the_spelling_of_a_did_does_not_change_the_key() {
        let identity = Identity::generate();
        let legacy = identity.clone().with_legacy_did();
        assert_eq!(legacy.key(), identity.key());
        assert_eq!(legacy.did(), identity.key().legacy_did());
        assert_eq!(legacy.sign(b"x"), identity.sign(b"x"));
    }

    #[test]
    fn debug_does_not_show_the_private_key() {
        let identity = Identity::from_seed(&[3; 32]);
        assert_eq!(format!("{identity:?}"), format!("Identity({})", identity.did()));
    }

    #[test]
    fn only_one_spelling_of_a_signature_is_read() {
        let good = Identity::from_seed(&[1; 32]).sign(b"");
        assert!(SignatureBytes::parse(&good).is_ok());
        let stem = &good[..85];
        let last = good.as_bytes()[85];
        // 64 bytes leave four unused bits in the last character before `==`.
        let trailing_bits = format!("{stem}{}==", char::from(last + 1));
        let bad = [
            String::new(),
            format!("{stem}{}", char::from(last)),
            format!("{good}\n"),
            format!(" {good}"),
            good.replacen('=', "A", 1),
            trailing_bits,
            "A".repeat(88),
            "é".repeat(44),
        ];
        for text in bad {
            assert_eq!(SignatureBytes::parse(&text), Err(SignatureError::Encoding), "{text}");
        }
    }
}
