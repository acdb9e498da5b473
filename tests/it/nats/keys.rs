//! Keys and JWTs, made anew for each test: an operator signs an account, the account signs a user.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nkeys::KeyPair;
use serde_json::{Value, json};

pub fn user_key() -> KeyPair {
    KeyPair::new_user()
}

pub struct Jwts {
    operator: String,
    /// The public keys of the accounts with their JWTs: the worker's, and the system account that JetStream wants.
    accounts: [(String, String); 2],
    user: String,
    user_seed: String,
}

impl Jwts {
    pub fn new() -> Self {
        let (operator, account, user) = (
            KeyPair::new_operator(),
            KeyPair::new_account(),
            KeyPair::new_user(),
        );
        let limits = json!({
            "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true,
            "conn": -1, "leaf": -1,
            "mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1
        });
        let signed_account = |account: &KeyPair, limits: &Value| {
            let claims = json!({ "type": "account", "version": 2, "limits": limits });
            (account.public_key(), signed(&operator, account, &claims))
        };
        let no_storage = json!({ "subs": -1, "data": -1, "payload": -1, "conn": -1 });
        Self {
            operator: signed(
                &operator,
                &operator,
                &json!({ "type": "operator", "version": 2 }),
            ),
            accounts: [
                signed_account(&account, &limits),
                signed_account(&KeyPair::new_account(), &no_storage),
            ],
            user: signed(
                &account,
                &user,
                &json!({ "type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1 }),
            ),
            user_seed: user.seed().unwrap(),
        }
    }

    /// What a server needs to trust the operator.
    pub fn server_lines(&self) -> String {
        let [(ours, our_jwt), (system, system_jwt)] = &self.accounts;
        format!(
            "operator: {}\nsystem_account: {system}\nresolver: MEMORY\n\
             resolver_preload: {{ {ours}: {our_jwt}, {system}: {system_jwt} }}",
            self.operator
        )
    }

    /// The text of a credentials file.
    pub fn credentials(&self) -> String {
        format!(
            "-----BEGIN NATS USER JWT-----\n{}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
            self.user, self.user_seed
        )
    }
}

fn signed(issuer: &KeyPair, subject: &KeyPair, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let body = format!(
        "{}.{}",
        part(&json!({ "typ": "JWT", "alg": "ed25519-nkey" })),
        part(&json!({
            "jti": subject.public_key(), "iat": 1_700_000_000, "name": "it",
            "iss": issuer.public_key(), "sub": subject.public_key(), "nats": claims
        }))
    );
    let signature = issuer.sign(body.as_bytes()).unwrap();
    format!("{body}.{}", URL_SAFE_NO_PAD.encode(signature))
}
