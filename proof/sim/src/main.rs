//! `tenure-sim`: runs seeds on every core and checks each.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use clap::Parser;
use tenure_check::history::Line;
use tenure_kv::mutants::Mutant;
use tenure_sim::{Plan, Verdict, judge, shrink};

/// A run is mostly small pieces of memory, taken and given back.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Simulates processes that use Tenure, with everything that can go wrong, and checks each run against the promises.
/// One seed is one run, the same each time.
#[derive(Debug, Parser)]
#[command(name = "tenure-sim", version)]
struct Arguments {
    /// The first seed.
    #[arg(long, default_value_t = 1, visible_alias = "from")]
    seed: u64,
    /// How many seeds, one after the other.
    #[arg(long, default_value_t = 1)]
    count: u64,
    /// At most so many runs at once; all cores if 0.
    #[arg(long, default_value_t = 0)]
    jobs: usize,
    /// Runs each seed twice and compares the histories byte by byte. Of many, every fiftieth is so anyway.
    #[arg(long)]
    twice: bool,
    /// Writes the history of each failed seed, shrunk, into this folder; of every seed with --keep.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Keeps the history of every seed, whole.
    #[arg(long, requires = "out")]
    keep: bool,
    /// Switches a deliberate defect on: its name, or `list`. Needs the feature `mutants`.
    #[arg(long)]
    mutant: Option<String>,
    /// Shows that the checks find every deliberate defect: for each, the first of --count seeds that fails with it and
    /// not without. Needs the feature `mutants`.
    #[arg(long, conflicts_with_all = ["mutant", "twice", "first"])]
    defects: bool,
    /// Stops at the first seed that fails.
    #[arg(long)]
    first: bool,
}

/// How often a long run says how far it has come.
const SAID_EVERY: u64 = 60;

/// Of many seeds each one that this divides is run twice: a run that is not the same again proves little.
const TWICE_EVERY: u64 = 50;

/// How far a run has come, and from where one that is stopped would go on.
struct Progress {
    first: u64,
    count: u64,
    begun: Instant,
    /// Which seed each job is at, counted from the first.
    under_way: Mutex<Vec<u64>>,
}

impl Progress {
    /// A job turns to seed number `n`.
    fn begin(&self, job: usize, n: u64, totals: &Totals) {
        let done = {
            let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
            under_way[job] = n;
            under_way.iter().copied().min().unwrap_or_default()
        };
        let (now, said) = (self.begun.elapsed().as_secs(), totals.said.load(Ordering::Relaxed));
        let due = now >= said + SAID_EVERY;
        if due && totals.said.compare_exchange(said, now, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            let (failed, rate) = (totals.failed.load(Ordering::Relaxed), done as f64 / self.begun.elapsed().as_secs_f64());
            let (from, left) = (self.first + done, self.count.saturating_sub(done));
            eprintln!("{done} seeds in {now} s, {rate:.0}/s, {failed} failed; the rest is --from {from} --count {left}");
        }
    }
}

#[derive(Default)]
struct Totals {
    /// When progress was told, in seconds from the beginning.
    said: AtomicU64,
    seeds: AtomicU64,
    failed: AtomicU64,
    operations: AtomicU64,
    faults: AtomicU64,
    writes: AtomicU64,
    stop: AtomicBool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match start(&arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("tenure-sim: {error}");
            ExitCode::from(2)
        }
    }
}

fn start(arguments: &Arguments) -> io::Result<ExitCode> {
    if !cfg!(tokio_unstable) {
        eprintln!("tenure-sim: built without --cfg tokio_unstable, so a seed is not the same run each time; set RUSTFLAGS");
    }
    let mutant = match arguments.mutant.as_deref() {
        Some("list") => {
            Mutant::ALL.iter().for_each(|mutant| println!("{}", name(*mutant)));
            return Ok(ExitCode::SUCCESS);
        }
        Some(wanted) => match Mutant::ALL.iter().find(|mutant| name(**mutant) == wanted) {
            Some(_) if !cfg!(feature = "mutants") => return Err(io::Error::other("deliberate defects need --features mutants")),
            Some(mutant) => Some(*mutant),
            None => return Err(io::Error::other(format!("there is no defect called {wanted}; --mutant list names them"))),
        },
        None => None,
    };
    if let Some(folder) = &arguments.out {
        std::fs::create_dir_all(folder)?;
    }
    if arguments.defects {
        if !cfg!(feature = "mutants") {
            return Err(io::Error::other("deliberate defects need --features mutants"));
        }
        return defects(arguments);
    }
    let jobs = if arguments.jobs > 0 { arguments.jobs } else { std::thread::available_parallelism()?.get() };
    let (totals, next, begun) = (Totals::default(), AtomicU64::new(0), Instant::now());
    let failed = Mutex::new(None);
    let progress = Progress { first: arguments.seed, count: arguments.count, begun, under_way: Mutex::new(vec![0; jobs]) };
    let (totals, next, failed, progress) = (&totals, &next, &failed, &progress);
    std::thread::scope(|scope| {
        for job in 0..jobs {
            scope.spawn(move || {
                while !totals.stop.load(Ordering::Relaxed) {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    progress.begin(job, n, totals);
                    if n >= arguments.count {
                        break;
                    }
                    if let Err(error) = one(arguments, arguments.seed + n, mutant, totals) {
                        *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                        totals.stop.store(true, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    if let Some(error) = failed.lock().unwrap_or_else(PoisonError::into_inner).take() {
        return Err(error);
    }
    summary(totals, begun.elapsed());
    Ok(if totals.failed.load(Ordering::Relaxed) == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Looks for a seed for each defect, on every core.
fn defects(arguments: &Arguments) -> io::Result<ExitCode> {
    let (next, missed) = (AtomicU64::new(0), AtomicBool::new(false));
    let jobs = std::thread::available_parallelism()?.get();
    let outcomes: Vec<io::Result<()>> = std::thread::scope(|scope| {
        let work = || -> io::Result<()> {
            while let Some(mutant) = Mutant::ALL.get(usize::try_from(next.fetch_add(1, Ordering::Relaxed)).unwrap_or(usize::MAX))
            {
                match caught(arguments, *mutant)? {
                    Some((seed, promises)) => println!("{:<32} seed {seed:<6} breaks {promises}", name(*mutant)),
                    None => {
                        missed.store(true, Ordering::Relaxed);
                        println!("{:<32} not found in {} seeds", name(*mutant), arguments.count);
                    }
                }
            }
            Ok(())
        };
        let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
        workers.into_iter().map(|worker| worker.join().unwrap_or_else(|_| Err(io::Error::other("a run panicked")))).collect()
    });
    outcomes.into_iter().collect::<io::Result<()>>()?;
    Ok(if missed.into_inner() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn caught(arguments: &Arguments, mutant: Mutant) -> io::Result<Option<(u64, String)>> {
    for seed in arguments.seed..arguments.seed + arguments.count {
        let plan = Plan::draw(seed);
        let all = vec![true; plan.faults.len()];
        let verdict = judge(&plan, &all, Some(mutant))?;
        if !verdict.broken.is_empty() && judge(&plan, &all, None)?.broken.is_empty() {
            let mut promises: Vec<_> = verdict.broken.iter().map(|(promise, _)| promise.as_str()).collect();
            promises.dedup();
            return Ok(Some((seed, promises.join(", "))));
        }
    }
    Ok(None)
}

fn one(arguments: &Arguments, seed: u64, mutant: Option<Mutant>, totals: &Totals) -> io::Result<()> {
    let plan = Plan::draw(seed);
    let all = vec![true; plan.faults.len()];
    let verdict = judge(&plan, &all, mutant)?;
    let twice = arguments.twice || arguments.count > 1 && seed.is_multiple_of(TWICE_EVERY);
    let again = if twice { Some(judge(&plan, &all, mutant)?) } else { None };
    totals.seeds.fetch_add(1, Ordering::Relaxed);
    let count = |wanted: fn(&Line) -> bool| verdict.history.lines.iter().filter(|line| wanted(line)).count() as u64;
    totals.operations.fetch_add(count(|line| matches!(line, Line::Call(_))), Ordering::Relaxed);
    totals.faults.fetch_add(count(|line| matches!(line, Line::Fault(_))), Ordering::Relaxed);
    totals.writes.fetch_add(count(|line| matches!(line, Line::Write(_))), Ordering::Relaxed);
    let differs = match &again {
        Some(again) => text(&verdict)? != text(again)?,
        None => false,
    };
    if differs {
        println!("seed {seed}: two runs of it differ");
        if let (Some(folder), Some(again)) = (&arguments.out, &again) {
            save(folder, &format!("{seed}-first"), &verdict)?;
            save(folder, &format!("{seed}-second"), again)?;
        }
    }
    if arguments.keep
        && let Some(folder) = &arguments.out
    {
        save(folder, &seed.to_string(), &verdict)?;
    }
    if verdict.broken.is_empty() && !differs {
        return Ok(());
    }
    totals.failed.fetch_add(1, Ordering::Relaxed);
    totals.stop.fetch_or(arguments.first, Ordering::Relaxed);
    if let Some(shrunk) = shrink(&plan, verdict, mutant)? {
        println!("seed {seed}:\n{shrunk}");
        if let Some(folder) = &arguments.out {
            let path = save(folder, &format!("{seed}-shrunk"), &shrunk.verdict)?;
            println!("  its history: {}", path.display());
        }
        io::stdout().flush()?;
    }
    Ok(())
}

fn text(verdict: &Verdict) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    verdict.history.write(&mut text)?;
    Ok(text)
}

fn save(folder: &Path, name: &str, verdict: &Verdict) -> io::Result<PathBuf> {
    let path = folder.join(format!("{name}.jsonl"));
    verdict.history.write(BufWriter::new(File::create(&path)?))?;
    Ok(path)
}

/// `ReleaseWithoutCas` is `release-without-cas`.
fn name(mutant: Mutant) -> String {
    let mut name = String::new();
    for letter in format!("{mutant:?}").chars() {
        if letter.is_ascii_uppercase() && !name.is_empty() {
            name.push('-');
        }
        name.push(letter.to_ascii_lowercase());
    }
    name
}

fn summary(totals: &Totals, took: Duration) {
    let get = |number: &AtomicU64| number.load(Ordering::Relaxed);
    println!(
        "{} seeds, {} operations, {} writes, {} faults, {} seeds failed, {:.1} s",
        get(&totals.seeds),
        get(&totals.operations),
        get(&totals.writes),
        get(&totals.faults),
        get(&totals.failed),
        took.as_secs_f64()
    );
}
