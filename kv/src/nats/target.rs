//! What a NATS URL or a NATS CLI context asks for. Reads files named there; opens no connection.

use std::{
    env, fs,
    path::{Path, PathBuf},
    time::Duration,
};

use url::form_urlencoded;

use super::Options;
use crate::{Error, Result};

/// How to prove who we are. Never shown.
pub(super) enum Login {
    Nobody,
    Token(String),
    Password(String, String),
    Credentials(String),
    Seed(String),
}

/// Everything a URL says. Not `Debug`: it holds secrets.
pub(super) struct Target {
    pub(super) servers: Vec<String>,
    pub(super) tls: bool,
    pub(super) tls_first: bool,
    pub(super) login: Login,
    pub(super) ca: Option<PathBuf>,
    pub(super) certificate: Option<(PathBuf, PathBuf)>,
    pub(super) inbox_prefix: Option<String>,
    pub(super) bucket: String,
    pub(super) options: Options,
    /// The URL without secrets.
    pub(super) shown: String,
}

const KNOWN: &str = "replicas, create, timeout, context, creds, nkey, ca, cert and key";

#[derive(Default)]
struct Query {
    replicas: Option<u16>,
    create: Option<bool>,
    timeout: Option<Duration>,
    context: Option<String>,
    creds: Option<PathBuf>,
    nkey: Option<PathBuf>,
    ca: Option<PathBuf>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
}

/// The parts of a NATS CLI context that matter here; its other keys are of no concern to a store.
#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct Context {
    url: String,
    token: String,
    user: String,
    password: String,
    creds: String,
    nkey: String,
    ca: String,
    cert: String,
    key: String,
    tls_first: bool,
    inbox_prefix: String,
    nsc: String,
    user_jwt: String,
    jetstream_domain: String,
    jetstream_api_prefix: String,
    socks_proxy: String,
}

impl Target {
    pub(super) fn parse(url: &str) -> Result<Self> {
        Self::parse_in(url, config_home())
    }

    fn parse_in(url: &str, config_home: Option<PathBuf>) -> Result<Self> {
        let form = "write nats://HOST[:PORT][,HOST…]/BUCKET";
        let Some((scheme, rest)) = url.split_once("://") else {
            return Err(Error::invalid(format!("a NATS store's URL starts with nats:// or tls://; {form}")));
        };
        let mut tls = match scheme {
            "nats" => false,
            "tls" => true,
            _ => return Err(Error::invalid(format!("{scheme:?} is no scheme for a NATS store; {form}"))),
        };
        if rest.contains('#') {
            return Err(Error::invalid("a NATS store's URL has no fragment; write # as %23"));
        }
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let Some((authority, bucket)) = rest.split_once('/') else {
            return Err(Error::invalid(format!("the NATS URL names no bucket; {form}")));
        };
        if bucket.contains('@') {
            // What stands before it is no bucket but the rest of a secret.
            return Err(Error::invalid("user and password of a NATS URL have no / as it stands; write it as %2F"));
        }
        let bucket = bucket_name(bucket)?;
        let (query, shown_query) = Query::parse(query)?;
        let (mut login, mut servers) = authority_of(authority)?;
        let mut target_tls_first = false;
        let mut inbox_prefix = None;
        let mut ca = query.ca;
        let mut pair = (query.cert, query.key);
        let shown_hosts = servers.join(",");
        if let Some(name) = &query.context {
            let context = Context::read(name, config_home)?;
            if servers.is_empty() {
                for one in context.url.split(',').map(str::trim).filter(|one| !one.is_empty()) {
                    let (scheme, address) = one.split_once("://").unwrap_or(("nats", one));
                    if !matches!(scheme, "nats" | "tls") {
                        return Err(Error::invalid(format!("the NATS context {name:?} has a URL with the scheme {scheme:?}")));
                    }
                    tls |= scheme == "tls";
                    let (own, hosts) = authority_of(address.trim_end_matches('/'))?;
                    servers.extend(hosts);
                    if matches!(login, Login::Nobody) {
                        login = own;
                    }
                }
            }
            if matches!(login, Login::Nobody) {
                login = context.login()?;
            }
            ca = ca.or_else(|| file(&context.ca));
            pair = (pair.0.or_else(|| file(&context.cert)), pair.1.or_else(|| file(&context.key)));
            target_tls_first = context.tls_first;
            inbox_prefix = Some(context.inbox_prefix).filter(|prefix| !prefix.is_empty());
        }
        if servers.is_empty() {
            return Err(Error::invalid(format!("the NATS URL names no host; {form}, or add ?context=NAME")));
        }
        match (query.creds, query.nkey) {
            (Some(_), Some(_)) => return Err(Error::invalid("creds and nkey in one NATS URL; leave one out")),
            (Some(path), None) => login = Login::Credentials(read(&path, "credentials")?),
            (None, Some(path)) => login = Login::Seed(seed(&read(&path, "nkey")?, &path)?),
            (None, None) => {}
        }
        let certificate = match pair {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            _ => return Err(Error::invalid("a client certificate needs both cert and key")),
        };
        for path in ca.iter().chain(certificate.iter().flat_map(|(cert, key)| [cert, key])) {
            read(path, "TLS")?;
        }
        let defaults = Options::default();
        Ok(Self {
            servers,
            tls,
            tls_first: target_tls_first,
            login,
            ca,
            certificate,
            inbox_prefix,
            options: Options {
                replicas: query.replicas,
                create: query.create.unwrap_or(defaults.create),
                timeout: query.timeout.unwrap_or(defaults.timeout),
            },
            shown: format!("{scheme}://{shown_hosts}/{bucket}{shown_query}"),
            bucket,
        })
    }
}

pub(super) fn bucket_name(text: &str) -> Result<String> {
    crate::check_bucket(text).map(|()| text.to_owned())
}

/// Splits `[user:pass@|token@]host[:port][,host…]`. Errors never repeat what stands before the `@`.
fn authority_of(text: &str) -> Result<(Login, Vec<String>)> {
    let (login, hosts) = match text.rsplit_once('@') {
        None => (Login::Nobody, text),
        Some((secret, hosts)) => {
            if secret.contains(['@', ',']) {
                return Err(Error::invalid(
                    "user and password stand once, before the first host of a NATS URL; write @ in them as %40 and , as %2C",
                ));
            }
            let login = match secret.split_once(':') {
                Some((user, password)) => Login::Password(decoded(user), decoded(password)),
                None => Login::Token(decoded(secret)),
            };
            (login, hosts)
        }
    };
    let mut servers = Vec::new();
    for host in hosts.split(',').filter(|_| !hosts.is_empty()) {
        let bad = || Error::invalid(format!("{host:?} is no host of a NATS server; write HOST or HOST:PORT"));
        let parsed = url::Url::parse(&format!("nats://{host}")).map_err(|_| bad())?;
        let clean = parsed.path().is_empty() && parsed.username().is_empty() && parsed.password().is_none();
        let name = parsed.host_str().filter(|name| !name.is_empty() && clean).ok_or_else(bad)?;
        servers.push(format!("{name}:{}", parsed.port().unwrap_or(4222)));
    }
    Ok((login, servers))
}

fn decoded(text: &str) -> String {
    form_urlencoded::parse(format!("x={}", text.replace('+', "%2B").replace('&', "%26")).as_bytes())
        .next()
        .map(|(_, value)| value.into_owned())
        .unwrap_or_default()
}

impl Query {
    /// The parameters, and the same as text without secrets (there are none among them: files are named, not quoted).
    fn parse(text: &str) -> Result<(Self, String)> {
        let mut query = Self::default();
        let mut seen: Vec<String> = Vec::new();
        for (key, value) in form_urlencoded::parse(text.replace('+', "%2B").as_bytes()) {
            if seen.iter().any(|earlier| *earlier == key) {
                return Err(Error::invalid(format!("{key} stands twice in the NATS URL")));
            }
            seen.push(key.clone().into_owned());
            let path = || Some(expanded(&value));
            match &*key {
                "replicas" => {
                    let count = value.parse().ok().filter(|n| (1..=5).contains(n));
                    query.replicas = Some(count.ok_or_else(|| wrong(&key, &value, "a number from 1 to 5"))?);
                }
                "create" => query.create = Some(value.parse().map_err(|_| wrong(&key, &value, "true or false"))?),
                "timeout" => query.timeout = Some(duration(&value).ok_or_else(|| wrong(&key, &value, "such as 5s or 500ms"))?),
                "context" => query.context = Some(value.into_owned()),
                "creds" => query.creds = path(),
                "nkey" => query.nkey = path(),
                "ca" => query.ca = path(),
                "cert" => query.cert = path(),
                "key" => query.key = path(),
                _ => {
                    let key: String = key.chars().take(80).collect();
                    return Err(Error::invalid(format!("{key:?} is no parameter of a NATS URL; there are {KNOWN}")));
                }
            }
        }
        let shown = if text.is_empty() { String::new() } else { format!("?{text}") };
        Ok((query, shown))
    }
}

fn wrong(key: &str, value: &str, needed: &str) -> Error {
    let value: String = value.chars().take(80).collect();
    Error::invalid(format!("{key}={value} in the NATS URL is wrong; it is {needed}"))
}

fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = match text.strip_suffix("ms") {
        Some(number) => (number, 1),
        None => (text.strip_suffix('s')?, 1_000),
    };
    let millis = number.parse::<u32>().ok().filter(|n| *n > 0)?;
    Some(Duration::from_millis(u64::from(millis) * unit))
}

impl Context {
    fn read(name: &str, config_home: Option<PathBuf>) -> Result<Self> {
        if name.is_empty() || name.starts_with('.') || name.contains(['/', '\\']) {
            return Err(Error::invalid(format!("{name:?} is no name of a NATS context; `nats context ls` lists them")));
        }
        let Some(home) = config_home else {
            return Err(Error::invalid("no directory for NATS contexts: set XDG_CONFIG_HOME or HOME"));
        };
        let path = home.join("nats/context").join(format!("{name}.json"));
        let text = read(&path, "NATS context")?;
        // The parser's own message may quote a secret, so only the place is told.
        let context: Self = serde_json::from_str(&text).map_err(|e| {
            Error::invalid(format!("{} is not a NATS context (line {}, column {})", path.display(), e.line(), e.column()))
        })?;
        for (key, value) in [
            ("nsc", &context.nsc),
            ("user_jwt", &context.user_jwt),
            ("jetstream_domain", &context.jetstream_domain),
            ("jetstream_api_prefix", &context.jetstream_api_prefix),
            ("socks_proxy", &context.socks_proxy),
        ] {
            if !value.is_empty() {
                return Err(Error::invalid(format!("the NATS context {name:?} sets {key}, which a store cannot use; clear it")));
            }
        }
        Ok(context)
    }

    fn login(&self) -> Result<Login> {
        if let Some(path) = file(&self.creds) {
            return read(&path, "credentials").map(Login::Credentials);
        }
        if let Some(path) = file(&self.nkey) {
            return seed(&read(&path, "nkey")?, &path).map(Login::Seed);
        }
        if !self.token.is_empty() {
            return Ok(Login::Token(self.token.clone()));
        }
        if !self.user.is_empty() {
            return Ok(Login::Password(self.user.clone(), self.password.clone()));
        }
        Ok(Login::Nobody)
    }
}

fn config_home() -> Option<PathBuf> {
    let named = env::var_os("XDG_CONFIG_HOME").filter(|dir| !dir.is_empty()).map(PathBuf::from);
    named.or_else(|| env::home_dir().map(|dir| dir.join(".config")))
}

fn file(text: &str) -> Option<PathBuf> {
    (!text.is_empty()).then(|| expanded(text))
}

fn expanded(text: &str) -> PathBuf {
    match (text.strip_prefix("~/"), env::home_dir()) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => PathBuf::from(text),
    }
}

fn read(path: &Path, what: &str) -> Result<String> {
    fs::read_to_string(path).map_err(|e| Error::invalid(format!("the {what} file {} cannot be read: {e}", path.display())))
}

/// The line of an nkey file that is a seed.
fn seed(text: &str, path: &Path) -> Result<String> {
    let line = text.lines().map(str::trim).find(|line| line.starts_with("SU") && line.len() > 50);
    line.map(str::to_owned).ok_or_else(|| Error::invalid(format!("{} holds no user seed (a line SU…)", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_split_and_secrets_kept_out_of_sight() {
        let target = Target::parse("nats://us%40er:p%2Fw@a,b:4333,[::1]/jobs?replicas=3&timeout=250ms").unwrap();
        assert_eq!(target.servers, ["a:4222", "b:4333", "[::1]:4222"]);
        assert!(matches!(&target.login, Login::Password(user, pass) if user == "us@er" && pass == "p/w"));
        assert_eq!(target.shown, "nats://a:4222,b:4333,[::1]:4222/jobs?replicas=3&timeout=250ms");
        assert_eq!(target.options.replicas, Some(3));
        assert_eq!(target.options.timeout, Duration::from_millis(250));
        assert!(
            matches!(Target::parse("tls://s3cr3t@a/b").unwrap(), Target { login: Login::Token(t), tls: true, .. } if t == "s3cr3t")
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (url, names) in [
            ("nats://a", "bucket"),
            ("nats://a/", "bucket name"),
            ("nats://a/b.c", "b.c"),
            ("nats:///b", "host"),
            ("nats://a,/b", "host"),
            ("nats://a:x/b", "a:x"),
            ("nats://a/b?replica=3", "replica"),
            ("nats://a/b?replicas=0", "replicas=0"),
            ("nats://a/b?replicas=3&replicas=1", "twice"),
            ("nats://a/b?timeout=5", "timeout=5"),
            ("nats://a/b?creds=/none/such", "/none/such"),
            ("nats://a/b?cert=/none/such", "key"),
            ("nats://a/b?context=../x", "../x"),
            ("nats://a/b?context=none-such", "none-such.json"),
            ("ws://a/b", "ws"),
            ("nats://a/b#c", "fragment"),
        ] {
            let error = Target::parse(url).err().unwrap_or_else(|| panic!("{url} was taken"));
            assert!(error.is_invalid() && error.to_string().contains(names), "{url}: {error}");
        }
        for secret in [
            "nats://u:s3cr3t@x@a/b",
            "nats://s3cr3t,u@a/b",
            "nats://u:s3cr3t@a:x/b",
            "nats://s3cr3t@/b",
            "nats://u:s3cr3t/x@a/b",
            "nats://u:x/s3cr3t@a/b",
        ] {
            let error = Target::parse(secret).err().unwrap().to_string();
            assert!(!error.contains("s3cr3t"), "{error}");
        }
    }

    #[test]
    fn a_context_fills_in_what_the_url_leaves_open() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("nats/context");
        fs::create_dir_all(&dir).unwrap();
        let seed = dir.join("seed");
        fs::write(&seed, format!("# a comment\nSU{}\n", "A".repeat(56))).unwrap();
        let context = |text: String| fs::write(dir.join("prod.json"), text).unwrap();
        let parse = |url: &str| Target::parse_in(url, Some(home.path().to_owned()));

        context(r#"{"description":"x","url":"nats://a:1, tls://b","user":"u","password":"s3cr3t","color_scheme":"red"}"#.into());
        let target = parse("nats:///jobs?context=prod").unwrap();
        assert_eq!(target.servers, ["a:1", "b:4222"]);
        assert!(target.tls && matches!(&target.login, Login::Password(u, p) if u == "u" && p == "s3cr3t"));
        assert_eq!(target.shown, "nats:///jobs?context=prod");
        let target = parse("nats://other@c/jobs?context=prod").unwrap();
        assert_eq!(target.servers, ["c:4222"]);
        assert!(matches!(&target.login, Login::Token(token) if token == "other"), "the URL comes first");

        context(format!(r#"{{"url":"a","nkey":{seed:?}}}"#));
        assert!(matches!(parse("nats:///jobs?context=prod").unwrap().login, Login::Seed(_)));
        context(r#"{"url":"a","token":"t"}"#.into());
        assert!(matches!(parse("nats:///jobs?context=prod").unwrap().login, Login::Token(_)));

        for (text, names) in [
            (r#"{"url":"a","token":"s3cr3t""#, "prod.json"),
            (r#"{"url":"a","token":["s3cr3t"]}"#, "prod.json"),
            (r#"{"url":"a","jetstream_domain":"hub"}"#, "jetstream_domain"),
            (r#"{"url":"","token":"s3cr3t"}"#, "no host"),
            (r#"{"url":"a","creds":"/none/such"}"#, "/none/such"),
            (r#"{"url":"ws://a"}"#, "ws"),
        ] {
            context(text.into());
            let error = parse("nats:///jobs?context=prod").err().unwrap_or_else(|| panic!("{text} was taken"));
            assert!(error.is_invalid() && error.to_string().contains(names), "{text}: {error}");
            assert!(!error.to_string().contains("s3cr3t"), "{error}");
        }
    }
}
