//! The command line.

use std::{collections::BTreeMap, path::PathBuf, process::ExitCode, time::Duration};

use clap::{Parser, Subcommand};
use futures::future::try_join_all;
use tokio::signal::unix::{SignalKind, signal};

use crate::{Failed, Faults, Night, Options, Order, Program, Store, Verdict, client, daemon};

/// Breaks Tenure on real servers with real faults, and has what happened checked.
#[derive(Debug, Parser)]
#[command(name = "tenure-storm", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Runs one history and checks it; fails on a violation
    Run(Run),
    /// Three histories beside each other, over r1, r3 and file, each with a minute of mixed faults
    Short(Short),
    /// Many histories, with running totals as JSON lines; goes on where it was left
    Night(Nightly),
    /// One long history on r3 in which nobody is replaced; fails when a process grows
    Soak(Soaking),
    #[command(hide = true)]
    Client { order: String },
    #[command(hide = true)]
    Daemon { order: String },
}

#[derive(Debug, clap::Args)]
struct Run {
    /// r1, r3, file or memory
    #[arg(long, default_value = "r1")]
    store: Store,
    /// How long faults are done
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// How long it is calm afterwards; unless told, until everything must have converged
    #[arg(long)]
    calm: Option<u64>,
    /// What everything is drawn from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// none, mixed, or names of faults, separated by commas
    #[arg(long, default_value = "mixed")]
    faults: Faults,
    /// Client processes at a time
    #[arg(long, default_value_t = 4)]
    clients: usize,
    /// The lease in milliseconds; drawn unless told
    #[arg(long)]
    lease: Option<u64>,
    /// All pauses so many times as long as usual
    #[arg(long, default_value_t = 1.0, value_parser = pace)]
    pace: f64,
    /// Where the history is left
    #[arg(long, default_value = "target/storm")]
    out: PathBuf,
    /// Leaves it there even if nothing is wrong
    #[arg(long)]
    keep: bool,
    /// What clients and daemons log beside their tapes, such as tenure=debug,tenure_kv=debug
    #[arg(long)]
    log: Option<String>,
}

#[derive(Debug, clap::Args)]
struct Short {
    /// What everything is drawn from; by the time of day unless told
    #[arg(long)]
    seed: Option<u64>,
    /// Where histories with violations are left
    #[arg(long, default_value = "target/storm")]
    out: PathBuf,
}

#[derive(Debug, clap::Args)]
struct Nightly {
    /// So many in all
    #[arg(long, default_value_t = 2_000)]
    histories: u64,
    /// The stores, in turn
    #[arg(long, value_delimiter = ',', default_value = "r1,r3,file,r3,r1,memory")]
    stores: Vec<Store>,
    /// The seed of the first
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// none, mixed, or names of faults, separated by commas
    #[arg(long, default_value = "mixed")]
    faults: Faults,
    /// How long faults are done in each
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Client processes at a time, in each
    #[arg(long, default_value_t = 4)]
    clients: usize,
    /// All pauses so many times as long as usual; a fifth of that on file and memory
    #[arg(long, default_value_t = 0.8, value_parser = pace)]
    pace: f64,
    /// So many histories at a time, for two cores
    #[arg(long, default_value_t = 6)]
    at_once: usize,
    /// Where the account is kept, and histories with violations
    #[arg(long, default_value = "target/storm/night")]
    out: PathBuf,
}

#[derive(Debug, clap::Args)]
struct Soaking {
    /// How long
    #[arg(long, default_value_t = 2.0)]
    hours: f64,
    /// r1, r3, file or memory
    #[arg(long, default_value = "r3")]
    store: Store,
    /// What everything is drawn from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// All pauses so many times as long as usual
    #[arg(long, default_value_t = 8.0, value_parser = pace)]
    pace: f64,
    /// Where the history is left
    #[arg(long, default_value = "target/storm/soak")]
    out: PathBuf,
}

/// A factor for pauses.
fn pace(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(pace) if (0.0..=1_000.0).contains(&pace) => Ok(pace),
        _ => Err("a factor from 0 to 1000, such as 0.25".to_owned()),
    }
}

/// Runs the program with this process's arguments.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.into()),
    };
    let code = runtime.block_on(async {
        // Told to end, a director takes everything down that it has put up; clients and daemons see to it themselves.
        let directing = !matches!(arguments.what, What::Client { .. } | What::Daemon { .. });
        let interrupted = async {
            match (directing, signal(SignalKind::terminate())) {
                (true, Ok(mut terminate)) => tokio::select! {
                    _ = terminate.recv() => {}
                    _ = tokio::signal::ctrl_c() => {}
                },
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            code = what(arguments.what) => code,
            () = interrupted => Err("interrupted".into()),
        }
    });
    // What histories that were cut short have put up is taken down; a name look-up or a file that hangs is not waited for.
    runtime.shutdown_timeout(Duration::from_secs(5));
    code.unwrap_or_else(|error| failed(&error))
}

/// The log of a client or a daemon, where one is wanted.
fn log() {
    if let Ok(filter) = std::env::var("TENURE_STORM_LOG") {
        let filter = tracing_subscriber::EnvFilter::new(filter);
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    }
}

async fn what(what: What) -> Result<ExitCode, Failed> {
    if matches!(what, What::Client { .. } | What::Daemon { .. }) {
        log();
    }
    match what {
        What::Run(run) => one(run).await,
        What::Short(short) => short_form(short).await,
        What::Night(night) => long_form(night).await,
        What::Soak(soak) => soaking(soak).await,
        What::Client { order } => match serde_json::from_str::<Order>(&order) {
            Ok(order) => client::run(order).await,
            Err(error) => Err(error.into()),
        },
        What::Daemon { order } => match serde_json::from_str::<daemon::Order>(&order) {
            Ok(order) => daemon::run(order).await,
            Err(error) => Err(error.into()),
        },
    }
}

#[allow(clippy::print_stderr)]
fn failed(error: &Failed) -> ExitCode {
    eprintln!("tenure-storm: {error}");
    ExitCode::from(2)
}

async fn one(run: Run) -> Result<ExitCode, Failed> {
    let options = Options {
        store: run.store,
        span: Duration::from_secs(run.seconds),
        calm: run.calm.map(Duration::from_secs),
        seed: run.seed,
        faults: run.faults,
        clients: run.clients,
        lease: run.lease.map(Duration::from_millis),
        pace: run.pace,
        out: run.out.join(format!("{}-{}", run.store, run.seed)),
        keep: run.keep,
    };
    let program = Program { log: run.log, ..Program::at(std::env::current_exe()?) };
    let verdict = crate::run(&program, &options).await?;
    Ok(if tell(&options, &verdict) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn short_form(short: Short) -> Result<ExitCode, Failed> {
    let program = Program::at(std::env::current_exe()?);
    let seed = short.seed.unwrap_or_else(|| fastrand::u64(1..1_000_000));
    let plans = [Store::R1, Store::R3, Store::File].map(|store| Options {
        store,
        span: Duration::from_secs(60),
        calm: None,
        seed,
        faults: Faults::Mixed,
        clients: 4,
        lease: None,
        pace: 1.0,
        out: short.out.join(format!("{store}-{seed}")),
        keep: false,
    });
    // They mostly wait, so they go on beside each other.
    let verdicts = try_join_all(plans.iter().map(|options| crate::run(&program, options))).await?;
    let well = plans.iter().zip(&verdicts).filter(|(options, verdict)| tell(options, verdict)).count();
    Ok(if well == plans.len() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[allow(clippy::print_stdout)]
async fn long_form(night: Nightly) -> Result<ExitCode, Failed> {
    let program = Program::at(std::env::current_exe()?);
    let plan = Night {
        histories: night.histories,
        stores: night.stores,
        seed: night.seed,
        faults: night.faults,
        span: Duration::from_secs(night.seconds),
        clients: night.clients,
        pace: night.pace,
        at_once: night.at_once,
        out: night.out,
    };
    let nightly = crate::night(&program, &plan, |totals, last| {
        println!("{}", serde_json::json!({ "totals": totals, "last": last.trim() }));
    })
    .await?;
    let mut never = BTreeMap::<String, Vec<&str>>::new();
    for (store, promise) in nightly.never_checked() {
        never.entry(store.to_string()).or_default().push(promise.as_str());
    }
    println!("{}", serde_json::json!({ "never_checked": never }));
    Ok(if nightly.is_well() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[allow(clippy::print_stdout)]
async fn soaking(soak: Soaking) -> Result<ExitCode, Failed> {
    let program = Program::at(std::env::current_exe()?);
    let options = Options {
        store: soak.store,
        span: Duration::try_from_secs_f64(soak.hours * 3_600.0)?,
        calm: None,
        seed: soak.seed,
        faults: crate::soak::faults(),
        clients: 5,
        lease: None,
        pace: soak.pace,
        out: soak.out.join(format!("{}-{}", soak.store, soak.seed)),
        keep: true,
    };
    let soaked = crate::soak::soak(&program, &options, Duration::from_secs(3)).await?;
    soaked.courses.iter().for_each(|course| println!("{course}"));
    let well = tell(&options, &soaked.verdict);
    Ok(if well && soaked.grew == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Whether all is well.
#[allow(clippy::print_stdout)]
fn tell(options: &Options, verdict: &Verdict) -> bool {
    println!("{}", serde_json::to_string(&verdict.totals).unwrap_or_default());
    if verdict.violations.is_empty() {
        return true;
    }
    for violation in &verdict.violations {
        println!("violation: {violation}");
    }
    let calm = options.calm.map_or_else(String::new, |calm| format!(" --calm {}", calm.as_secs()));
    let lease = options.lease.map_or_else(String::new, |lease| format!(" --lease {}", lease.as_millis()));
    let place = verdict.history.display();
    println!("The history is in {place}; tenure-check {place} --html PAGE.html makes a page of it.");
    println!(
        "The same again: tenure-storm run --store {} --seed {} --faults {} --seconds {} --clients {} --pace {}{calm}{lease}",
        options.store,
        options.seed,
        options.faults,
        options.span.as_secs(),
        options.clients,
        options.pace
    );
    false
}
