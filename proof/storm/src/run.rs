//! One history from its beginning to its verdict.

use std::{
    collections::BTreeSet,
    fs,
    io::BufWriter,
    path::PathBuf,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tempfile::TempDir;
use tenure_check::history::Head;
use tokio::time::{Instant, sleep};

use crate::{
    Failed,
    crew::{Crew, Program},
    daemon::{self, Daemon},
    faults,
    options::{Options, Store},
    order::{Field, Order, Way},
    record::{Daemons, Facts, Record},
    stage::{self, Embedded, Nats, Stage},
    totals::Totals,
};

/// From one look for clients that ended by themselves to the next.
const LOOK: Duration = Duration::from_millis(250);

/// Everything of one history while it goes on.
#[derive(Debug)]
pub(crate) struct Storm {
    pub(crate) options: Options,
    pub(crate) program: Program,
    pub(crate) stage: Stage,
    pub(crate) crew: Crew,
    pub(crate) record: Record,
    pub(crate) lease: Duration,
    field: Field,
    numbers: AtomicU64,
    skipped: Mutex<BTreeSet<String>>,
    wrong: Mutex<Vec<String>>,
    /// Clients come over the socket, or some do.
    with_daemon: bool,
    /// The daemon, while there is one.
    pub(crate) daemon: tokio::sync::Mutex<Option<Daemon>>,
    daemons: Mutex<Daemons>,
    /// Not under the history's own directory, whose name may be long: a socket's path is short.
    sockets: TempDir,
    /// What faults are drawn from.
    chances: u64,
}

/// What came of a history.
#[derive(Debug)]
pub struct Verdict {
    /// Counts of what happened.
    pub totals: Totals,
    /// What the checker found, and what went wrong beside it; empty when all is well.
    pub violations: Vec<String>,
    /// Where the history is.
    pub history: PathBuf,
}

/// Records one history and has it checked.
///
/// # Errors
/// When it could not be recorded: no server, no disk, a client that could not be started.
///
/// # Panics
/// When a server does not come up, with its log.
pub async fn run(program: &Program, options: &Options) -> Result<Verdict, Failed> {
    let storm = Storm::begin(program, options).await?;
    storm.rage().await?;
    storm.finish().await
}

/// Short ones, so that they run out within a history; not so short that a busy machine loses them by itself.
fn lease(store: Store, rng: &mut fastrand::Rng) -> Duration {
    Duration::from_millis(match store {
        Store::R3 => rng.u64(1_500..4_000),
        _ => rng.u64(800..2_500),
    })
}

fn field(rng: &mut fastrand::Rng) -> Field {
    let crowd = if rng.u8(0..4) == 0 { 9 } else { rng.usize(1..3) };
    Field { locks: rng.usize(2..5), waiters: rng.usize(1..3), crowd, ids: rng.usize(3..8), ..Field::default() }
}

impl Storm {
    /// Everybody is started.
    pub(crate) async fn begin(program: &Program, options: &Options) -> Result<Self, Failed> {
        // Nothing of an earlier history may get into this one, not even of one that was cut short.
        if options.out.exists() {
            stage::unmount(&options.out);
            fs::remove_dir_all(&options.out)?;
        }
        fs::create_dir_all(&options.out)?;
        let mut rng = fastrand::Rng::with_seed(options.seed);
        let lease = options.lease.unwrap_or_else(|| lease(options.store, &mut rng));
        let held_long = options.faults.include("kill-alone");
        let field = Field { pace: options.pace, held_long, ..field(&mut rng) };
        let stage = match options.store {
            Store::R1 => Stage::Nats(Box::new(Nats::start(1, options, &mut rng).await?)),
            Store::R3 => Stage::Nats(Box::new(Nats::start(3, options, &mut rng).await?)),
            Store::File => Stage::Embedded(Embedded::in_file(options)),
            Store::Memory => Stage::Embedded(Embedded::in_memory(options)),
        };
        let with_daemon = matches!(stage, Stage::Embedded(_)) || rng.bool();
        let storm = Self {
            options: options.clone(),
            program: program.clone(),
            stage,
            crew: Crew::default(),
            record: Record::default(),
            lease,
            field,
            numbers: AtomicU64::new(0),
            skipped: Mutex::default(),
            wrong: Mutex::default(),
            with_daemon,
            daemon: tokio::sync::Mutex::default(),
            daemons: Mutex::default(),
            sockets: tempfile::Builder::new().prefix("tenure-storm-").tempdir()?,
            chances: rng.u64(..),
        };
        if with_daemon {
            storm.start_daemon().await?;
        }
        for _ in 0..options.clients {
            storm.start_client().await?;
        }
        Ok(storm)
    }

    /// Faults are done for as long as they should be, and then it is calm.
    pub(crate) async fn rage(&self) -> Result<(), Failed> {
        let mut rng = fastrand::Rng::with_seed(self.chances);
        let until = Instant::now() + self.options.span;
        tokio::try_join!(
            faults::to_clients(self, until, rng.fork()),
            faults::to_the_stage(self, until, rng.fork()),
            faults::to_the_daemon(self, until, rng.fork())
        )?;
        self.record.quiet();
        let calm = Instant::now() + self.calm();
        while Instant::now() < calm {
            sleep(LOOK).await;
            self.replace_the_gone().await?;
        }
        Ok(())
    }

    /// How long it is calm in the end. Unless told, past what the checker allows to whatever began by then: the lease
    /// and 11 s.
    pub(crate) fn calm(&self) -> Duration {
        self.options.calm.unwrap_or(self.lease + Duration::from_secs(13))
    }

    /// Starts one more client.
    pub(crate) async fn start_client(&self) -> Result<(), Failed> {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed) + 1;
        // Where clients can do without a daemon, every other one does.
        let by_socket = self.with_daemon && (matches!(self.stage, Stage::Embedded(_)) || number % 2 == 1);
        let (way, wires) = if by_socket {
            (Way::Socket(self.socket()), Vec::new())
        } else {
            let (url, wires) = self.stage.way().await;
            (Way::Store(url), wires)
        };
        let order = Order {
            number,
            seed: self.options.seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            way,
            tape: self.options.out.join(format!("client-{number}.tape")),
            lease_ms: u64::try_from(self.lease.as_millis())?,
            field: self.field.clone(),
        };
        let stepped = self.options.faults.include("clock") && number.is_multiple_of(2);
        if stepped && self.program.clock_library.is_none() {
            self.skipped("clock: libfaketime is not installed");
        }
        let clock =
            (stepped && self.program.clock_library.is_some()).then(|| self.options.out.join(format!("client-{number}.clock")));
        self.crew.start(&self.program, &order, wires, clock)
    }

    fn socket(&self) -> PathBuf {
        self.sockets.path().join("tenured.sock")
    }

    /// Starts a daemon, the first or the next.
    pub(crate) async fn start_daemon(&self) -> Result<(), Failed> {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed) + 1;
        let (store, wires) = self.stage.way().await;
        let embedded = match &self.stage {
            Stage::Nats(_) => None,
            Stage::Embedded(embedded) => Some(embedded.volatile),
        };
        let incarnations = self.daemons().count() + 1;
        let epoch = embedded.map(|volatile| if volatile { incarnations } else { 1 });
        let order = daemon::Order {
            number,
            socket: self.socket(),
            store,
            tape: self.options.out.join(format!("daemon-{number}.tape")),
            writes: embedded.map(|_| self.options.out.join(format!("daemon-{number}.writes"))),
            epoch: epoch.unwrap_or(1),
            lease_ms: u64::try_from(self.lease.as_millis())?,
        };
        let daemon = Daemon::start(&self.program, &order, wires).await?;
        let pid = daemon.child.id().ok_or("the daemon ended at once")?;
        self.daemons().add(Facts { number, pid, epoch });
        *self.daemon.lock().await = Some(daemon);
        Ok(())
    }

    pub(crate) fn daemons(&self) -> MutexGuard<'_, Daemons> {
        self.daemons.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts new clients in place of those who ended by themselves.
    pub(crate) async fn replace_the_gone(&self) -> Result<(), Failed> {
        for gone in self.crew.reap() {
            self.record.fault(tenure_check::history::FaultKind::Crash, |fault| fault.client = Some(gone));
            self.start_client().await?;
        }
        Ok(())
    }

    /// Notes that a fault cannot be done here.
    pub(crate) fn skipped(&self, what: &str) {
        self.skipped.lock().unwrap_or_else(PoisonError::into_inner).insert(what.to_owned());
    }

    /// Notes something that went wrong which no history shows.
    pub(crate) fn wrong(&self, what: String) {
        self.wrong.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }

    /// Whether a fault with this note was done.
    pub(crate) fn done(&self, note: &str) -> bool {
        self.record.faults().iter().any(|fault| fault.note == note)
    }

    /// Everybody ends; everything is merged and checked.
    pub(crate) async fn finish(self) -> Result<Verdict, Failed> {
        let mut wrong: Vec<_> =
            self.crew.end().await.iter().map(|client| format!("client {client} did not end when it was told to")).collect();
        wrong.extend(self.crew.unexpected());
        wrong.append(&mut self.wrong.lock().unwrap_or_else(PoisonError::into_inner));
        if let Some(daemon) = self.daemon.lock().await.take() {
            wrong.extend(daemon.end().await?);
        }
        self.record.end();
        let Options { store, seed, out, faults, span, .. } = self.options;
        let mut notes = vec![format!("storm: --store {store} --seed {seed} --faults {faults} --seconds {}", span.as_secs())];
        notes.push(format!("lease {} ms", self.lease.as_millis()));
        notes.extend(self.stage.notes());
        let skipped = self.skipped.into_inner().unwrap_or_else(PoisonError::into_inner);
        notes.extend(skipped.iter().map(|what| format!("skipped: {what}")));
        let head = Head {
            version: 1,
            store: store.in_history().to_owned(),
            seed: Some(seed.to_string()),
            slack_us: 0,
            lag_us: store.lag(),
            notes,
        };
        let mut observed = self.stage.finish().await?;
        wrong.append(&mut observed.clashes);
        let daemons = self.daemons.into_inner().unwrap_or_else(PoisonError::into_inner);
        let history = self.record.merge(head, &out, observed, &daemons)?;
        let place = out.join("history.jsonl");
        history.write(BufWriter::new(fs::File::create(&place)?))?;
        let judged = crate::verdicts::of(&history);
        let totals = Totals::of(&history).and(&judged);
        let mut violations = judged.violations;
        violations.extend(wrong);
        if violations.is_empty() && !self.options.keep {
            fs::remove_dir_all(&out)?;
        }
        Ok(Verdict { totals, violations, history: place })
    }
}
