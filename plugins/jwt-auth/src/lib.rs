//! Agents prove by a JSON Web Token who they are.
//!
//! A token comes with the upgrade request (`Authorization: Bearer …`, or a query parameter) or as
//! REGISTER's `credentials`. What it claims may become labels and a rate class. By default it must
//! also name the agent's own DID, so that a stolen token is of no use under another key.
//!
//! ```toml
//! [hook.tokens]
//! use = "plugin:jwt-auth"
//!
//! [hook.tokens.config]
//! key_file   = "issuer.pem"            # the issuer's public key
//! algorithms = ["EdDSA"]
//! issuer     = "https://login.example"
//! audience   = "conexus"
//! labels     = { team = "team", roles = "/realm_access/roles" }
//!
//! [[chain.on_connect]]
//! hook = "tokens"
//!
//! [[chain.on_register]]
//! hook = "tokens"
//! ```
//!
//! # Configuration
//!
//! | key | default | |
//! | --- | --- | --- |
//! | `key_file` | | a public key in PEM (Ed25519, RSA of 2048 bits or more, P-256, P-384) |
//! | `secret_file` | | a shared secret of at least 32 bytes; white space around it is cut off |
//! | `jwks_file` | | a JSON Web Key Set; a token names its key by `kid`. Exactly one of the three is needed |
//! | `algorithms` | required | which are accepted: `EdDSA`, `ES256`, `ES384`, `RS256` to `RS512`, `PS256` to `PS512`, `HS256` to `HS512`. What a token says of itself never widens this |
//! | `issuer` | any | the `iss` that is accepted, or a list |
//! | `audience` | any | the `aud` that is accepted, or a list. Set it wherever the issuer also makes tokens for others |
//! | `leeway` | `"30s"` | by how much clocks may differ |
//! | `required_claims` | `[]` | claims that must be there; `exp` always must |
//! | `when` | `"either"` | `connect`: only the upgrade request counts; `register`: only `credentials`; `either` |
//! | `query` | none | also take the token from this query parameter. URLs are often logged on their way; prefer the header |
//! | `subject` | `"did"` | `did`: the subject must be the agent's DID, in either spelling; `any`: it is not compared |
//! | `subject_claim` | `"sub"` | the claim that is the subject |
//! | `labels` | `{}` | label = claim; a claim that begins with `/` is a JSON pointer. Texts, numbers, booleans, and lists of these (joined by commas) become labels |
//! | `rate_class_claim` | none | the claim that names the agent's rate class |
//!
//! The hook belongs into the chains of `on_connect` and `on_register`; with `when = "register"` into
//! the latter alone. What a token at the upgrade claimed is kept for the connection and looked at
//! again at REGISTER. A renewal without new credentials is judged by the token that is known; it
//! is denied once that token has expired.
//!
//! A token that is missing or not good enough is a denial, with HTTP 403 at the upgrade. Keys are
//! read again at each reload of the policy, and at each tick where the hook has one.

#![deny(unsafe_code)]

mod claims;
mod config;
mod crypto;
mod identity;
mod keys;
mod plugin;
mod verify;

pub use plugin::JwtAuth;

conexus_plugin_api::declare_plugin!(JwtAuth);
