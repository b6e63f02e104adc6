//! The signatures of tokens, verified with ring: the implementation that TLS uses already.
//!
//! jsonwebtoken leaves the arithmetic to whoever is installed for the process. Nothing here signs.

use jsonwebtoken::{
    Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind,
    crypto::{CryptoProvider, JwtVerifier, KeyUtils},
    errors::ErrorKind,
};
use ring::{hmac, signature as sig};
use signature::{Error, Verifier};

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: |_, _| Err(ErrorKind::UnsupportedAlgorithm.into()),
    verifier_factory: |algorithm, key| {
        if algorithm.family() != key.family() {
            return Err(ErrorKind::InvalidAlgorithm.into());
        }
        Ok(Box::new(RingVerifier { algorithm: *algorithm, key: key.clone() }))
    },
    // Only for making and comparing keys, which happens nowhere here.
    key_utils: KeyUtils::new_unimplemented(),
};

/// Makes jsonwebtoken verify with ring. Where somebody else in the process was first, theirs
/// serves as well.
pub(crate) fn install() {
    let _ = PROVIDER.install_default();
}

struct RingVerifier {
    algorithm: Algorithm,
    key: DecodingKey,
}

impl JwtVerifier for RingVerifier {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

impl Verifier<Vec<u8>> for RingVerifier {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> std::result::Result<(), Error> {
        let verified = match self.key.kind() {
            DecodingKeyKind::SecretOrDer(key) => match self.algorithm.family() {
                AlgorithmFamily::Hmac => {
                    let key = hmac::Key::new(self.mac().ok_or_else(Error::new)?, key);
                    hmac::verify(&key, message, signature)
                }
                _ => {
                    let scheme = self.scheme().ok_or_else(Error::new)?;
                    sig::UnparsedPublicKey::new(scheme, key).verify(message, signature)
                }
            },
            DecodingKeyKind::RsaModulusExponent { n, e } => {
                let key = sig::RsaPublicKeyComponents { n: trimmed(n), e: trimmed(e) };
                key.verify(self.rsa().ok_or_else(Error::new)?, message, signature)
            }
        };
        verified.map_err(|_| Error::new())
    }
}

impl RingVerifier {
    const fn mac(&self) -> Option<hmac::Algorithm> {
        Some(match self.algorithm {
            Algorithm::HS256 => hmac::HMAC_SHA256,
            Algorithm::HS384 => hmac::HMAC_SHA384,
            Algorithm::HS512 => hmac::HMAC_SHA512,
            _ => return None,
        })
    }

    fn scheme(&self) -> Option<&'static dyn sig::VerificationAlgorithm> {
        Some(match self.algorithm {
            Algorithm::EdDSA => &sig::ED25519,
            Algorithm::ES256 => &sig::ECDSA_P256_SHA256_FIXED,
            Algorithm::ES384 => &sig::ECDSA_P384_SHA384_FIXED,
            _ => self.rsa()?,
        })
    }

    fn rsa(&self) -> Option<&'static sig::RsaParameters> {
        Some(match self.algorithm {
            Algorithm::RS256 => &sig::RSA_PKCS1_2048_8192_SHA256,
            Algorithm::RS384 => &sig::RSA_PKCS1_2048_8192_SHA384,
            Algorithm::RS512 => &sig::RSA_PKCS1_2048_8192_SHA512,
            Algorithm::PS256 => &sig::RSA_PSS_2048_8192_SHA256,
            Algorithm::PS384 => &sig::RSA_PSS_2048_8192_SHA384,
            Algorithm::PS512 => &sig::RSA_PSS_2048_8192_SHA512,
            _ => return None,
        })
    }
}

/// ring takes numbers without leading zeros, which some issuers write.
fn trimmed(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros..]
}
