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
    account: KeyPair,
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
            user: signed(&account, &user, &of_user()),
            user_seed: user.seed().unwrap(),
            account,
        }
    }

    /// The text of a credentials file of another user, which lasts until then, in seconds since 1970.
    pub fn credentials_until(&self, end: u64) -> String {
        let user = KeyPair::new_user();
        let jwt = signed_until(&self.account, &user, &of_user(), Some(end));
        written(&jwt, &user.seed().unwrap())
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
        written(&self.user, &self.user_seed)
    }
}

fn written(jwt: &str, seed: &str) -> String {
    format!(
        "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    )
}

fn of_user() -> Value {
    json!({ "type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1 })
}

fn signed(issuer: &KeyPair, subject: &KeyPair, claims: &Value) -> String {
    signed_until(issuer, subject, claims, None)
}

fn signed_until(issuer: &KeyPair, subject: &KeyPair, claims: &Value, end: Option<u64>) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let mut all = json!({
        "jti": subject.public_key(), "iat": 1_700_000_000, "name": "it",
        "iss": issuer.public_key(), "sub": subject.public_key(), "nats": claims
    });
    if let Some(end) = end {
        all["exp"] = end.into();
    }
    let body = format!(
        "{}.{}",
        part(&json!({ "typ": "JWT", "alg": "ed25519-nkey" })),
        part(&all)
    );
    let signature = issuer.sign(body.as_bytes()).unwrap();
    format!("{body}.{}", URL_SAFE_NO_PAD.encode(signature))
}
