//! Tokens as agents present them, good ones and others.

#![allow(clippy::unwrap_used, reason = "tests")]

mod issuer;

use std::{fs, sync::Arc, time::Duration};

use conexus_plugin_api::{
    Agent, Answer, CONTINUE, DenyCode, deny,
    host::{CallFault, Connection},
    set,
    testkit::{self, Kit, START_MS},
};
use conexus_protocol::AgentKey;
use issuer::{Key, file};
use jwt_auth::JwtAuth;
use serde_json::{Value, json};

const NOW: i64 = START_MS / 1000;

fn agent(byte: u8) -> Arc<Agent> {
    let key = AgentKey::from_bytes([byte; 32]);
    let agent = testkit::agent(&key.did()).build();
    Arc::new(Agent { key: [byte; 32], ..(*agent).clone() })
}

fn denied(reason: &str) -> Result<Answer, CallFault> {
    Ok(deny(DenyCode::Denied, reason))
}

fn claims(agent: &Agent) -> Value {
    json!({"sub": agent.did, "exp": NOW + 600, "iss": "https://login", "aud": ["conexus", "x"]})
}

fn with(mut claims: Value, name: &str, value: Value) -> Value {
    claims[name] = value;
    claims
}

fn without(mut claims: Value, name: &str) -> Value {
    claims.as_object_mut().unwrap().remove(name);
    claims
}

/// An instance that trusts this key, with more configuration.
fn kit(key: &Key, more: Value) -> Kit<JwtAuth> {
    let (_folder, path) = file(key.file_content());
    let source = if matches!(key, Key::Secret(_)) { "secret_file" } else { "key_file" };
    let mut config = json!({
        source: path, "algorithms": [key.algorithm()],
        "issuer": "https://login", "audience": "conexus",
    });
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    Kit::new(config).unwrap()
}

fn presented(kit: &Kit<JwtAuth>, agent: &Arc<Agent>, token: &str) -> Result<Answer, CallFault> {
    kit.register(testkit::register(agent).credentials(token))
}

#[test]
fn every_kind_of_key_verifies_its_own_tokens_and_no_others() {
    let alice = agent(1);
    let keys = [Key::ed(), Key::p256(), Key::rsa(), Key::secret(&[7; 32])];
    let strangers = [Key::ed(), Key::p256(), Key::ed(), Key::secret(&[8; 32])];
    for (key, stranger) in keys.iter().zip(strangers) {
        let kit = kit(key, json!({}));
        assert_eq!(presented(&kit, &alice, &key.token(&claims(&alice))), Ok(CONTINUE));
        let header = json!({"alg": key.algorithm()});
        let forged = stranger.token_with(&header, &claims(&alice));
        assert_eq!(presented(&kit, &alice, &forged), denied("the token's signature is not valid"));
    }
}

#[test]
fn the_algorithm_is_the_operators_choice_and_never_the_tokens() {
    let (alice, key) = (agent(1), Key::ed());
    let kit = kit(&key, json!({}));
    let refused = denied("the token's algorithm is not accepted");
    // The classic: the public key, which everybody has, as a shared secret.
    let confused = Key::secret(&key.file_content()).token(&claims(&alice));
    assert_eq!(presented(&kit, &alice, &confused), refused);
    for algorithm in ["ES256", "RS256", "HS256"] {
        let token = key.token_with(&json!({"alg": algorithm}), &claims(&alice));
        assert_eq!(presented(&kit, &alice, &token), refused, "{algorithm}");
    }
    for algorithm in ["none", "None", "nOnE", ""] {
        let token = key.token_with(&json!({"alg": algorithm}), &claims(&alice));
        assert!(presented(&kit, &alice, &token).is_ok_and(|answer| !answer.is_continue()));
    }
}

#[test]
fn what_is_wrong_with_a_token_is_said() {
    let (alice, key) = (agent(1), Key::ed());
    let kit = kit(&key, json!({"required_claims": ["team"]}));
    let good = with(claims(&alice), "team", json!("red"));
    assert_eq!(presented(&kit, &alice, &key.token(&good)), Ok(CONTINUE));
    for (claims, reason) in [
        (with(good.clone(), "exp", json!(NOW - 30)), "the token has expired"),
        (without(good.clone(), "exp"), "the token lacks the claim exp"),
        (with(good.clone(), "exp", json!("tomorrow")), "the token lacks the claim exp"),
        (with(good.clone(), "nbf", json!(NOW + 31)), "the token is not valid yet"),
        (with(good.clone(), "iss", json!("https://evil")), "the token is from another issuer"),
        (without(good.clone(), "iss"), "the token lacks the claim iss"),
        (with(good.clone(), "aud", json!("other")), "the token is for another audience"),
        (without(good.clone(), "aud"), "the token lacks the claim aud"),
        (without(good.clone(), "team"), "the token lacks the claim team"),
        (with(good.clone(), "team", json!(null)), "the token lacks the claim team"),
        (without(good.clone(), "sub"), "the token does not name an agent"),
        (with(good.clone(), "sub", json!("alice")), "the token does not name an agent"),
        (with(good.clone(), "sub", json!(agent(2).did)), "the token belongs to another agent"),
    ] {
        assert_eq!(presented(&kit, &alice, &key.token(&claims)), denied(reason), "{claims}");
    }
    // Within the leeway of 30 s.
    for (name, time) in [("exp", NOW - 29), ("nbf", NOW + 30)] {
        let claims = with(good.clone(), name, json!(time));
        assert_eq!(presented(&kit, &alice, &key.token(&claims)), Ok(CONTINUE), "{name}");
    }
}

#[test]
fn garbage_is_denied_and_nothing_worse() {
    let (alice, key) = (agent(1), Key::ed());
    let kit = kit(&key, json!({}));
    let token = key.token(&claims(&alice));
    let [header, body, signature] = token.split('.').collect::<Vec<_>>()[..] else { panic!() };
    let long = "x".repeat(9000);
    for garbage in [
        "x",
        ".",
        "..",
        "...",
        "a.b",
        "a.b.c",
        "\u{0}",
        "ü.ü.ü",
        &long,
        &format!("{header}.{body}"),
        &format!("{header}.{body}."),
        &format!("{header}..{signature}"),
        &format!(".{body}.{signature}"),
        &format!("{header}.{body}.{signature}."),
        &format!("{header}.{body}.{signature}="),
        &format!("{header}.{body}.{}", &signature[1..]),
        &format!("{body}.{header}.{signature}"),
    ] {
        let answer = presented(&kit, &alice, garbage).unwrap();
        assert!(!answer.is_continue(), "{garbage}");
    }
    let list = key.token_with(&json!({"alg": "EdDSA"}), &json!([1]));
    assert!(!presented(&kit, &alice, &list).unwrap().is_continue());
    let critical = json!({"alg": "EdDSA", "crit": ["b64"], "b64": false});
    let critical = key.token_with(&critical, &claims(&alice));
    assert_eq!(presented(&kit, &alice, &critical), denied("the token cannot be read"));
}

#[test]
fn the_subject_may_be_spelt_either_way_and_need_not_be_a_did_at_all() {
    let (alice, key) = (agent(1), Key::ed());
    let legacy = AgentKey::from_bytes([1; 32]).legacy_did();
    let token = key.token(&with(claims(&alice), "sub", json!(legacy)));
    assert_eq!(presented(&kit(&key, json!({})), &alice, &token), Ok(CONTINUE));
    let token = key.token(&with(claims(&alice), "sub", json!("user-7")));
    assert_eq!(presented(&kit(&key, json!({"subject": "any"})), &alice, &token), Ok(CONTINUE));
    let other = with(claims(&agent(2)), "agent", json!(alice.did));
    let kit = kit(&key, json!({"subject_claim": "agent"}));
    assert_eq!(presented(&kit, &alice, &key.token(&other)), Ok(CONTINUE));
}

#[test]
fn claims_become_labels_and_a_rate_class() {
    let (alice, key) = (agent(1), Key::ed());
    let kit = kit(
        &key,
        json!({
            "labels": {"team": "team", "roles": "/realm/roles", "none": "none"},
            "rate_class_claim": "plan",
        }),
    );
    let mut claims = claims(&alice);
    claims["team"] = json!("red");
    claims["realm"] = json!({"roles": ["a", "b"]});
    claims["plan"] = json!("gold");
    let expected = set().label("team", "red").label("roles", "a,b").rate_class("gold");
    assert_eq!(presented(&kit, &alice, &key.token(&claims)), Ok(expected.into()));
}

#[test]
fn a_token_of_the_upgrade_counts_at_register_and_only_for_its_agent() {
    let (alice, mallory, key) = (agent(1), agent(2), Key::ed());
    let kit = kit(&key, json!({"labels": {"team": "team"}, "when": "connect"}));
    let bearer = format!("bearer {}", key.token(&with(claims(&alice), "team", json!("red"))));
    let connection = Arc::new(Connection::default());
    let request = testkit::connect().header("Authorization", &bearer).on(&connection);
    assert_eq!(kit.connect(request), Ok(CONTINUE));
    let register = |agent| kit.register(testkit::register(agent).on(&connection));
    assert_eq!(register(&mallory), denied("the token belongs to another agent"));
    assert_eq!(register(&alice), Ok(set().label("team", "red").into()));
    kit.host().advance(Duration::from_secs(631));
    assert_eq!(register(&alice), denied("the token has expired"));
}

#[test]
fn where_a_token_is_looked_for_is_the_operators_choice() {
    let (alice, key) = (agent(1), Key::ed());
    let token = key.token(&claims(&alice));
    let missing = || denied("a token is required");
    let at_connect = kit(&key, json!({"when": "connect"}));
    assert_eq!(at_connect.connect(testkit::connect()), missing());
    let basic = testkit::connect().header("authorization", "Basic eDp5");
    assert_eq!(at_connect.connect(basic), missing());
    assert_eq!(presented(&at_connect, &alice, &token), missing());
    let at_register = kit(&key, json!({"when": "register"}));
    let garbage = testkit::connect().header("authorization", "Bearer garbage");
    assert_eq!(at_register.connect(garbage.clone()), Ok(CONTINUE));
    assert_eq!(at_register.register(testkit::register(&alice)), missing());
    let either = kit(&key, json!({}));
    assert_eq!(either.connect(testkit::connect()), Ok(CONTINUE));
    assert_eq!(either.connect(garbage), denied("the token cannot be read"));
    assert_eq!(presented(&either, &alice, ""), missing());
}

#[test]
fn a_query_parameter_is_looked_at_only_where_it_is_configured() {
    let (alice, key) = (agent(1), Key::ed());
    let query = format!("a=b&access_token={}", key.token(&claims(&alice)));
    let connection = Arc::new(Connection::default());
    let request = || testkit::connect().query(&query).on(&connection);
    let without = kit(&key, json!({"when": "connect"}));
    assert_eq!(without.connect(request()), denied("a token is required"));
    let with = kit(&key, json!({"when": "connect", "query": "access_token"}));
    assert_eq!(with.connect(request()), Ok(CONTINUE));
}

#[test]
fn a_renewal_needs_no_new_token_until_the_old_one_has_expired() {
    let (alice, key) = (agent(1), Key::ed());
    let kit = kit(&key, json!({}));
    let connection = Arc::new(Connection::default());
    let register = testkit::register(&alice).on(&connection);
    assert_eq!(
        kit.register(register.clone().credentials(&key.token(&claims(&alice)))),
        Ok(CONTINUE)
    );
    assert_eq!(kit.register(register.clone().renewal()), Ok(CONTINUE));
    kit.host().advance(Duration::from_secs(631));
    assert_eq!(kit.register(register.clone().renewal()), denied("the token has expired"));
    let newer = key.token(&with(claims(&alice), "exp", json!(NOW + 3600)));
    assert_eq!(kit.register(register.renewal().credentials(&newer)), Ok(CONTINUE));
}

#[test]
fn a_set_of_keys_is_searched_by_id() {
    let alice = agent(1);
    let (first, second, rsa) = (Key::ed(), Key::ed(), Key::rsa());
    let odd = json!({"kty": "RSA", "n": "AQAB", "e": "AQAB", "kid": "d", "alg": "RSA-OAEP"});
    let mut encrypts = Key::rsa().jwk("e");
    encrypts["use"] = json!("enc");
    let set = json!({"keys": [first.jwk("a"), second.jwk("b"), rsa.jwk("c"), odd, encrypts]});
    let (_folder, path) = file(set.to_string());
    let config = json!({"jwks_file": path, "algorithms": ["EdDSA", "RS256"]});
    let kit = Kit::<JwtAuth>::new(config).unwrap();
    let token = |key: &Key, id: &str| {
        key.token_with(&json!({"alg": key.algorithm(), "kid": id}), &claims(&alice))
    };
    assert_eq!(presented(&kit, &alice, &token(&first, "a")), Ok(CONTINUE));
    assert_eq!(presented(&kit, &alice, &token(&second, "b")), Ok(CONTINUE));
    assert_eq!(presented(&kit, &alice, &token(&rsa, "c")), Ok(CONTINUE));
    let wrong = presented(&kit, &alice, &token(&first, "b"));
    assert_eq!(wrong, denied("the token's signature is not valid"));
    let unknown = || denied("the token's key is not known");
    assert_eq!(presented(&kit, &alice, &token(&first, "x")), unknown());
    // Without an id only the one RSA key is without doubt.
    assert_eq!(presented(&kit, &alice, &first.token(&claims(&alice))), unknown());
    assert_eq!(presented(&kit, &alice, &rsa.token(&claims(&alice))), Ok(CONTINUE));
}

#[test]
fn keys_are_read_again_and_stay_when_that_fails() {
    let (alice, old, new) = (agent(1), Key::ed(), Key::ed());
    let (_folder, path) = file(old.file_content());
    let config = json!({"key_file": path, "algorithms": ["EdDSA"]});
    let kit = Kit::<JwtAuth>::new(config).unwrap();
    let (first, second) = (old.token(&claims(&alice)), new.token(&claims(&alice)));
    fs::write(&path, "half a ke").unwrap();
    assert!(kit.tick().is_err());
    assert_eq!(presented(&kit, &alice, &first), Ok(CONTINUE));
    fs::write(&path, new.file_content()).unwrap();
    kit.reload().unwrap();
    assert_eq!(presented(&kit, &alice, &second), Ok(CONTINUE));
    assert!(!presented(&kit, &alice, &first).unwrap().is_continue());
}

#[test]
fn files_without_a_usable_key_are_refused_at_load_with_the_keys_name() {
    let ed = Key::ed();
    let private = "-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n";
    let set = json!({"keys": [ed.jwk("a")]}).to_string();
    for (source, algorithm, content, words) in [
        ("key_file", "EdDSA", "no key".into(), "not an Ed25519 public key"),
        ("key_file", "EdDSA", String::new(), "not an Ed25519 public key"),
        ("key_file", "EdDSA", private.into(), "private key"),
        ("key_file", "RS256", String::from_utf8(ed.file_content()).unwrap(), "not an RSA"),
        ("key_file", "HS256", "x".repeat(32), "use `secret_file`"),
        ("secret_file", "HS256", format!(" {} \n", "x".repeat(31)), "fewer than 32"),
        ("secret_file", "EdDSA", "x".repeat(32), "use `key_file`"),
        ("jwks_file", "EdDSA", "{".into(), "EOF"),
        ("jwks_file", "EdDSA", json!({"keys": []}).to_string(), "no key that fits"),
        ("jwks_file", "ES256", set, "no key that fits"),
    ] {
        let (_folder, path) = file(&content);
        let fault = Kit::<JwtAuth>::new(json!({source: path, "algorithms": [algorithm]}));
        let fault = fault.unwrap_err().to_string();
        assert!(fault.contains(source) && fault.contains(words), "{content:?}: {fault}");
    }
    let absent = json!({"key_file": "/nowhere/at/all", "algorithms": ["EdDSA"]});
    let fault = Kit::<JwtAuth>::new(absent).unwrap_err().to_string();
    assert!(fault.contains("`key_file` /nowhere/at/all"), "{fault}");
}
