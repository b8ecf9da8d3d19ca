//! The figures of the socket, each beside what it is asked to be near to, in one run, against a daemon that is a process.
//!
//! `cargo bench -p tenure-tests --bench socket` runs all; names after `--` pick parts (`memory`, `nats`, `killed`, `idle`).
//! The clients are plain blocking sockets, as any language has them.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value as Json, json};
use tempfile::TempDir;
use tenure::Session;
use tenure_tests::{NatsServer, unique_bucket};

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// How this program is told to be the client that holds a lock and is killed.
const VICTIM: &str = "victim";
const PATIENCE: Duration = Duration::from_secs(20);
/// Rounds before those that are measured.
const WARM: u32 = 200;

fn main() -> Outcome {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    if let [VICTIM, socket, name] = args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        return hold_until_killed(socket, name);
    }
    let wants = |part: &str| args.is_empty() || args.iter().any(|arg| arg == part);
    if wants("memory") {
        memory()?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    if wants("nats") {
        let server = runtime.block_on(NatsServer::start());
        nats(&runtime, &server.url(&unique_bucket("bench")))?;
    }
    if wants("killed") {
        killed("memory:", 1_000)?;
        let server = runtime.block_on(NatsServer::start());
        killed(&server.url(&unique_bucket("bench")), 500)?;
    }
    if wants("idle") {
        idle(2_000)?;
    }
    Ok(())
}

/// A child that is killed in any case.
struct Victim(Child);

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Daemon {
    process: Victim,
    directory: TempDir,
}

impl Daemon {
    fn start(store: &str) -> Outcome<Self> {
        let directory = tempfile::tempdir()?;
        let socket = directory.path().join("s.sock");
        let mut command = Command::new(env!("CARGO_BIN_EXE_test-tenured"));
        command.args(["--log", "warn", "--lease", "5s", "--store", store, "--socket"]).arg(&socket);
        let daemon = Self { process: Victim(command.spawn()?), directory };
        // The first lock also waits until a new bucket grants.
        let mut wire = daemon.connect()?;
        let (lease, _) = wire.acquire("settle")?;
        wire.release(&lease)?;
        Ok(daemon)
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("s.sock")
    }

    fn connect(&self) -> Outcome<Wire> {
        let begun = Instant::now();
        loop {
            match Wire::connect(&self.socket()) {
                Err(error) if begun.elapsed() > PATIENCE => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
                connected => return connected,
            }
        }
    }

    /// Ticks of processor time that it has used: hundredths of a second.
    fn ticks(&self) -> Outcome<u64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.0.id()))?;
        let fields = stat.rsplit(')').next().ok_or("no end of the name")?;
        let numbers: Vec<u64> = fields.split_whitespace().skip(11).take(2).map(str::parse).collect::<Result<_, _>>()?;
        Ok(numbers.iter().sum())
    }

    /// What it has used since `before` for each of so many rounds, in microseconds.
    fn processor_time(&self, before: u64, rounds: u32) -> Outcome<f64> {
        let ticks = u32::try_from(self.ticks()? - before)?;
        Ok(f64::from(ticks) * 10_000.0 / f64::from(rounds))
    }
}

/// A connection: one request at a time.
struct Wire {
    writer: UnixStream,
    reader: BufReader<UnixStream>,
    line: String,
}

impl Wire {
    fn connect(socket: &Path) -> Outcome<Self> {
        let writer = UnixStream::connect(socket)?;
        writer.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { reader: BufReader::new(writer.try_clone()?), writer, line: String::new() })
    }

    fn send(&mut self, method: &str, params: &Json) -> Outcome {
        let line = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        Ok(self.writer.write_all(format!("{line}\n").as_bytes())?)
    }

    fn answer(&mut self) -> Outcome<Json> {
        self.line.clear();
        self.reader.read_line(&mut self.line)?;
        let mut answer: Json = serde_json::from_str(&self.line)?;
        match answer.get_mut("result") {
            Some(result) => Ok(result.take()),
            None => Err(format!("refused: {answer}").into()),
        }
    }

    fn call(&mut self, method: &str, params: &Json) -> Outcome<Json> {
        self.send(method, params)?;
        self.answer()
    }

    fn acquire(&mut self, name: &str) -> Outcome<(String, u64)> {
        let granted = self.call("lock.acquire", &json!({ "name": name }))?;
        let lease = granted["lease"].as_str().ok_or("no lease")?.to_owned();
        Ok((lease, granted["fence"].as_u64().ok_or("no token")?))
    }

    fn release(&mut self, lease: &str) -> Outcome {
        self.call("lock.release", &json!({ "lease": lease })).map(drop)
    }
}

fn quantile(times: &mut [Duration], part: f64) -> f64 {
    times.sort_unstable();
    let last = times.len() - 1;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a place in a list")]
    times[(last as f64 * part).round() as usize].as_secs_f64()
}

/// One pair on the socket. The lock is another in each round, as in what it is compared with.
fn through_socket(wire: &mut Wire, name: &str) -> Outcome<Duration> {
    let begun = Instant::now();
    let (lease, _) = wire.acquire(name)?;
    wire.release(&lease)?;
    Ok(begun.elapsed())
}

fn memory() -> Outcome {
    let daemon = Daemon::start("memory:")?;
    let mut wire = daemon.connect()?;
    let (mut pairs, mut pings) = (Vec::new(), Vec::new());
    let used = daemon.ticks()?;
    for round in 0..WARM + 20_000 {
        let took = through_socket(&mut wire, &format!("bench.{}", round % 64))?;
        let begun = Instant::now();
        wire.call("ping", &json!({}))?;
        if round >= WARM {
            pings.push(begun.elapsed());
            pairs.push(took);
        }
    }
    let used = daemon.processor_time(used, WARM + 20_000)?;
    let micros = |times: &mut Vec<Duration>, part| quantile(times, part) * 1e6;
    println!(
        "memory: lock.acquire + lock.release through the socket, {} times: p50 {:.1} µs, p99 {:.1} µs (asked: p50 at most 80); \
         two pings: p50 {:.1} µs; processor time of the daemon for each round: {used:.0} µs",
        pairs.len(),
        micros(&mut pairs, 0.5),
        micros(&mut pairs, 0.99),
        2.0 * micros(&mut pings, 0.5),
    );
    Ok(())
}

/// The pair through the socket and by the Rust API, in turns, each on a connection of its own to the same server.
fn nats(runtime: &tokio::runtime::Runtime, url: &str) -> Outcome {
    let daemon = Daemon::start(url)?;
    let mut wire = daemon.connect()?;
    let session = runtime.block_on(async {
        Outcome::Ok(Session::builder(tenure_kv::open(url).await?).lease(Duration::from_secs(5)).open().await?)
    })?;
    let (mut socket, mut api, mut pings) = (Vec::new(), Vec::new(), Vec::new());
    let used = daemon.ticks()?;
    for round in 0..WARM + 3_000 {
        let through = through_socket(&mut wire, &format!("socket.{}", round % 64))?;
        let mutex = session.mutex(&format!("api.{}", round % 64))?;
        let begun = Instant::now();
        runtime.block_on(async { Outcome::Ok(mutex.lock().await?.release().await?) })?;
        let by_api = begun.elapsed();
        // The daemon has been idle for as long as it is between the two requests of a pair.
        let begun = Instant::now();
        wire.call("ping", &json!({}))?;
        if round >= WARM {
            pings.push(begun.elapsed());
            api.push(by_api);
            socket.push(through);
        }
    }
    let used = daemon.processor_time(used, WARM + 3_000)?;
    let [socket, api, ping] = [&mut socket, &mut api, &mut pings].map(|times| quantile(times, 0.5) * 1e6);
    println!(
        "NATS: the pair through the socket p50 {socket:.0} µs, by the Rust API on the same server p50 {api:.0} µs: {:.0} µs above \
         (asked: at most 60); two pings of a daemon that was idle before: {:.0} µs; \
         processor time of the daemon for each round: {used:.0} µs",
        socket - api,
        2.0 * ping
    );
    runtime.block_on(session.close())?;
    Ok(())
}

/// A process of its own that holds the lock, says so, and is killed.
fn hold_until_killed(socket: &str, name: &str) -> Outcome {
    let mut wire = Wire::connect(Path::new(socket))?;
    let (_, fence) = wire.acquire(name)?;
    println!("{fence}");
    wire.writer.set_read_timeout(None)?;
    wire.reader.read_line(&mut String::new())?;
    Ok(())
}

fn victim(socket: &Path, name: &str) -> Outcome<Victim> {
    let socket = socket.to_str().ok_or("the socket's path is no text")?;
    let mut child = Command::new(std::env::current_exe()?).args([VICTIM, socket, name]).stdout(Stdio::piped()).spawn()?;
    let said = child.stdout.take().ok_or("the victim has no output")?;
    let victim = Victim(child);
    let mut line = String::new();
    BufReader::new(said).read_line(&mut line)?;
    line.trim().parse::<u64>()?;
    Ok(victim)
}

/// From SIGKILL of a client that holds the lock to the grant in the next client's hands.
fn killed(url: &str, rounds: usize) -> Outcome {
    let daemon = Daemon::start(url)?;
    let (mut next, mut looker) = (daemon.connect()?, daemon.connect()?);
    let mut gaps = Vec::new();
    for round in 0..rounds {
        let name = format!("killed.{}", round % 8);
        let mut victim = victim(&daemon.socket(), &name)?;
        next.send("lock.acquire", &json!({ "name": name }))?;
        while looker.call("lock.get", &json!({ "name": name }))?["waiters"].as_array().is_none_or(Vec::is_empty) {
            std::thread::sleep(Duration::from_millis(1));
        }
        // It also has to look at what is before it.
        std::thread::sleep(Duration::from_millis(5));
        let begun = Instant::now();
        victim.0.kill()?;
        let granted = next.answer()?;
        gaps.push(begun.elapsed());
        next.release(granted["lease"].as_str().ok_or("no lease")?)?;
    }
    let kind = if url == "memory:" { "memory" } else { "NATS" };
    let [p50, p99] = [0.5, 0.99].map(|part| quantile(&mut gaps, part) * 1e3);
    println!(
        "{kind}: holding client killed, {rounds} times: next client has it after p50 {p50:.2} ms, p99 {p99:.2} ms (asked: p99 at most 10)"
    );
    Ok(())
}

/// Processor time with many connections that do nothing, beside that with none.
fn idle(connections: usize) -> Outcome {
    const WATCHED: Duration = Duration::from_secs(20);
    let watched = |daemon: &Daemon| -> Outcome<u64> {
        let before = daemon.ticks()?;
        std::thread::sleep(WATCHED);
        Ok(daemon.ticks()? - before)
    };
    let daemon = Daemon::start("memory:")?;
    // The lock that was held at the start leaves its session behind for a while.
    let alone = watched(&daemon)?;
    let mut wires = Vec::new();
    for _ in 0..connections {
        let mut wire = daemon.connect()?;
        wire.call("hello", &json!({ "protocol": [1] }))?;
        wires.push(wire);
    }
    let crowded = watched(&daemon)?;
    println!(
        "idle: {connections} connections: {crowded} hundredths of a second of processor time in {WATCHED:?}, without them {alone} \
         (asked: nothing that can be measured)"
    );
    Ok(())
}
