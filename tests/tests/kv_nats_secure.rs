//! NATS over TLS with certificates of both sides, and logins by credentials file.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use nkeys::KeyPair;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair as TlsKey};
use serde_json::{Value, json};
use tempfile::TempDir;
use tenure_kv::{Error, Key, Store, StoreExt, nats::Nats};
use tenure_tests::NatsServer;

fn key() -> Key {
    Key::new("data.x").unwrap()
}

async fn refused(url: String) -> Error {
    match Nats::open(&url).await {
        Ok(_) => panic!("{url} was opened"),
        Err(error) => error,
    }
}

/// An authority, and files signed by it.
struct Authority {
    issuer: CertifiedIssuer<'static, TlsKey>,
    folder: TempDir,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "an authority for a test");
        let issuer = CertifiedIssuer::self_signed(params, TlsKey::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer, folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes `<name>.pem` and `<name>.key` for the host 127.0.0.1.
    fn sign(&self, name: &str) {
        let key = TlsKey::generate().unwrap();
        let certificate = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap();
        std::fs::write(self.path(&format!("{name}.pem")), certificate.pem()).unwrap();
        std::fs::write(self.path(&format!("{name}.key")), key.serialize_pem()).unwrap();
    }
}

fn file(path: &Path) -> String {
    format!("{:?}", path.display().to_string())
}

#[tokio::test]
async fn tls_with_certificates_of_both_sides() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    for name in ["server", "client"] {
        ours.sign(name);
    }
    theirs.sign("client");
    let server = NatsServer::start_with(&format!(
        "tls {{ cert_file: {}, key_file: {}, ca_file: {}, verify: true }}",
        file(&ours.path("server.pem")),
        file(&ours.path("server.key")),
        file(&ours.path("ca.pem"))
    ))
    .await;
    let host = server.client_url().trim_start_matches("nats://").to_owned();
    let with = |ca: &Authority, client: &Authority| {
        let (ca, cert, key) = (ca.path("ca.pem"), client.path("client.pem"), client.path("client.key"));
        format!("tls://{host}/b?ca={}&cert={}&key={}", ca.display(), cert.display(), key.display())
    };
    let store = Nats::open(&with(&ours, &ours)).await.unwrap();
    store.put(&key(), "x").await.unwrap();
    assert!(store.info().url.starts_with("tls://"), "{}", store.info().url);

    for url in [with(&theirs, &ours), with(&ours, &theirs), format!("tls://{host}/b?ca={}", ours.path("ca.pem").display())] {
        let error = refused(url.clone()).await;
        assert!(error.to_string().contains("TLS") && error.to_string().contains("ca, cert and key"), "{url}: {error}");
    }
    let broken = ours.path("broken.pem");
    std::fs::write(&broken, "no certificate").unwrap();
    let error = refused(format!("tls://{host}/b?ca={}", broken.display())).await;
    assert!(error.is_invalid() || error.to_string().contains("TLS"), "{error}");
}

/// A token as NATS' own tools make it.
fn token(issuer: &KeyPair, subject: &KeyPair, name: &str, nats: Value) -> String {
    let encode = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let claims = json!({
        "jti": uuid::Uuid::new_v4().simple().to_string(), "iat": now,
        "iss": issuer.public_key(), "sub": subject.public_key(), "name": name, "nats": nats,
    });
    let signed = format!("{}.{}", encode(&json!({ "typ": "JWT", "alg": "ed25519-nkey" })), encode(&claims));
    let signature = BASE64_URL_SAFE_NO_PAD.encode(issuer.sign(signed.as_bytes()).unwrap());
    format!("{signed}.{signature}")
}

fn credentials(token: &str, user: &KeyPair) -> String {
    format!(
        "-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
        user.seed().unwrap()
    )
}

#[tokio::test]
async fn a_credentials_file_logs_in_and_a_wrong_one_says_why() {
    let (operator, account, user) = (KeyPair::new_operator(), KeyPair::new_account(), KeyPair::new_user());
    let unlimited = json!({
        "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1,
        "mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1,
    });
    let of_operator = token(&operator, &operator, "operator", json!({ "type": "operator", "version": 2 }));
    let system = KeyPair::new_account();
    let permissions = json!({ "pub": {}, "sub": {} });
    let of_system =
        token(&operator, &system, "system", json!({ "type": "account", "version": 2, "default_permissions": permissions }));
    let of_account = token(
        &operator,
        &account,
        "account",
        json!({ "type": "account", "version": 2, "limits": unlimited, "default_permissions": permissions }),
    );
    let own = json!({ "type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1, "pub": {}, "sub": {} });
    let server = NatsServer::start_with(&format!(
        "operator: {of_operator}\nsystem_account: {system}\nresolver: MEMORY\n\
         resolver_preload {{ {system}: {of_system}, {}: {of_account} }}",
        account.public_key(),
        system = system.public_key()
    ))
    .await;
    let host = server.client_url().trim_start_matches("nats://").to_owned();
    let folder = tempfile::tempdir().unwrap();
    let url = |name: &str| format!("nats://{host}/b?creds={}", folder.path().join(name).display());
    let write = |name: &str, text: String| std::fs::write(folder.path().join(name), text).unwrap();

    write("app.creds", credentials(&token(&account, &user, "app", own.clone()), &user));
    let store = Nats::open(&url("app.creds")).await.unwrap();
    store.put(&key(), "x").await.unwrap();

    let stranger = KeyPair::new_account();
    write("stranger.creds", credentials(&token(&stranger, &user, "app", own), &user));
    let error = refused(url("stranger.creds")).await;
    assert!(error.is_invalid() && error.to_string().contains("refuses the credentials"), "{error}");
    write("empty.creds", "nothing in it".to_owned());
    let error = refused(url("empty.creds")).await;
    assert!(error.is_invalid() && error.to_string().contains("user JWT and seed"), "{error}");
    let seed = user.seed().unwrap();
    assert!(!format!("{store:?} {error:?}").contains(&seed));
}
