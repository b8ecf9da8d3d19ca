//! Which store a URL names.

use std::{path::PathBuf, sync::Arc, time::Duration};

use crate::{Error, File, FileOptions, Memory, Result, Store, Sync, nats::Nats};

/// Opens the store that `url` names.
///
/// | URL | store |
/// |---|---|
/// | `memory:` | in this process, gone with it |
/// | `file:PATH` | one file on this machine; `?sync=always` (default) or `?sync=100ms` (see [`Sync`]) |
/// | `nats://HOST[,HOST…]/BUCKET` | a NATS JetStream bucket; `tls://` too; `?replicas=3` |
///
/// The path of a file is relative (`file:tenure/store`) or absolute (`file:/var/lib/tenure/store`, also
/// `file:///var/lib/tenure/store`) and is taken as it stands: nothing is percent-decoded, and `~` is left to
/// shells. A path with a `?` in it can be opened with [`File::open`].
///
/// # Errors
/// [`Error::Invalid`] when the URL, the file or the bucket is not usable, with the remedy;
/// [`Error::Unavailable`] when the servers are out of reach, or the file is in use.
///
/// # Cancel safety
/// Safe to drop; a bucket or a file may have been created.
pub async fn open(url: &str) -> Result<Arc<dyn Store>> {
    Ok(match named(url)? {
        Named::Memory => Arc::new(Memory::new()),
        Named::File(path, options) => Arc::new(File::open(path, options).await?),
        Named::Nats => Arc::new(Nats::open(url).await?),
    })
}

/// Refuses what [`open`] would refuse for the way it is written, and opens nothing: a scheme that names no store, a
/// wrong parameter, a bucket with a wrong name, credentials that cannot be read.
///
/// # Errors
/// [`Error::Invalid`], with the remedy.
///
/// ```
/// assert!(tenure_kv::check_url("nats://localhost/locks").is_ok());
/// assert!(tenure_kv::check_url("nats://localhost/two words").is_err());
/// ```
pub fn check_url(url: &str) -> Result<()> {
    match named(url)? {
        Named::Memory | Named::File(..) => Ok(()),
        Named::Nats => Nats::check_url(url),
    }
}

/// The URL that the store would show.
#[cfg(feature = "fuzzing")]
pub(crate) fn shown(url: &str) -> Result<String> {
    match named(url)? {
        Named::Memory => Ok("memory:".to_owned()),
        Named::File(path, options) => Ok(options.url(&path)),
        Named::Nats => Nats::shown_url(url),
    }
}

/// The store that a URL names.
pub(crate) enum Named {
    Memory,
    File(PathBuf, FileOptions),
    Nats,
}

pub(crate) fn named(url: &str) -> Result<Named> {
    let (scheme, rest) = url.split_once(':').unwrap_or((url, ""));
    match scheme {
        "memory" if rest.is_empty() => Ok(Named::Memory),
        "memory" => Err(Error::invalid(format!("{url:?} says too much: a store in memory is just memory:"))),
        "file" => file(rest).map(|(path, options)| Named::File(path, options)),
        "nats" | "tls" => Ok(Named::Nats),
        // Not the whole URL: it may hold a secret.
        _ => Err(Error::invalid(format!("{scheme:?} names no store; use memory:, file:PATH or nats://HOST/BUCKET"))),
    }
}

/// What follows `file:`.
fn file(rest: &str) -> Result<(PathBuf, FileOptions)> {
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let path = match path.strip_prefix("//") {
        None => path,
        Some(path) if path.starts_with('/') => path,
        Some(_) => return Err(Error::invalid(format!("file:{path} names a host; write file:/PATH or file:PATH, with no //"))),
    };
    if path.is_empty() {
        return Err(Error::invalid("file: needs a path, such as file:/var/lib/tenure/store"));
    }
    if path == "~" || path.starts_with("~/") {
        return Err(Error::invalid(format!("file:{path} would be a directory called ~; write the path of the home directory")));
    }
    if path.ends_with('/') {
        return Err(Error::invalid(format!("file:{path} names a directory; name a file in it, such as file:{path}store")));
    }
    let mut options = FileOptions::default();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=').unwrap_or((pair, "")) {
            ("sync", value) => options.sync = sync(value)?,
            (other, _) => {
                return Err(Error::invalid(format!("file: knows no parameter {other:?}; there is sync=always or sync=100ms")));
            }
        }
    }
    Ok((PathBuf::from(path), options))
}

fn sync(value: &str) -> Result<Sync> {
    let wrong = || Error::invalid(format!("sync={value} is neither always nor a time such as 250ms or 2s, at most 60s"));
    if value == "always" {
        return Ok(Sync::Always);
    }
    let (number, unit) = value.split_at(value.find(|c: char| !c.is_ascii_digit()).unwrap_or(value.len()));
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let interval = match unit {
        "ms" => Duration::from_millis(number),
        "s" => Duration::from_secs(number),
        _ => return Err(wrong()),
    };
    if interval.is_zero() || interval > Duration::from_secs(60) { Err(wrong()) } else { Ok(Sync::Every(interval)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_urls_are_taken_as_they_stand() {
        for (url, path) in [("a/b", "a/b"), ("/a", "/a"), ("///a%20b", "/a%20b"), ("./~", "./~"), ("a#b&c=d", "a#b&c=d")] {
            assert_eq!(file(url).unwrap().0, PathBuf::from(path));
        }
        for bad in ["", "//host/a", "~", "~/a", "a/", "?sync=always", "//"] {
            assert!(file(bad).unwrap_err().is_invalid(), "{bad:?}");
        }
    }

    #[test]
    fn a_file_store_shows_a_url_that_names_it() {
        for url in ["file:/a", "file:a?sync=250ms", "file:////a/b", "file:///a%20b"] {
            let Ok(Named::File(path, options)) = named(url) else { panic!("{url}") };
            let Ok(Named::File(same, as_before)) = named(&options.url(&path)) else { panic!("{}", options.url(&path)) };
            assert_eq!((same, as_before.sync), (path, options.sync));
        }
    }

    #[test]
    fn file_urls_say_when_to_sync() {
        let every = |ms| Sync::Every(Duration::from_millis(ms));
        for (query, wanted) in
            [("", Sync::Always), ("sync=always", Sync::Always), ("sync=250ms", every(250)), ("sync=2s", every(2000))]
        {
            assert_eq!(file(&format!("a?{query}")).unwrap().1.sync, wanted);
        }
        for bad in
            ["sync", "sync=", "sync=5", "sync=ms", "sync=0ms", "sync=1h", "sync=-1s", "sync=61s", "sync=1.5s", "sinc=always"]
        {
            assert!(file(&format!("a?{bad}")).unwrap_err().is_invalid(), "{bad:?}");
        }
        assert!(file("a?sinc=1s").unwrap_err().to_string().contains("sinc"));
    }
}
