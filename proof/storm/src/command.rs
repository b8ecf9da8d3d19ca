//! The command line.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::{Parser, Subcommand};

use crate::{Failed, Faults, Options, Order, Program, Store, Verdict, client, daemon};

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
    /// How long it is calm afterwards
    #[arg(long, default_value_t = 15)]
    calm: u64,
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
    /// Where the history is left
    #[arg(long, default_value = "target/storm")]
    out: PathBuf,
    /// Leaves it there even if nothing is wrong
    #[arg(long)]
    keep: bool,
}

/// Runs the program with this process's arguments.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.into()),
    };
    let code = runtime.block_on(async {
        match arguments.what {
            What::Run(run) => one(run).await,
            What::Client { order } => match serde_json::from_str::<Order>(&order) {
                Ok(order) => client::run(order).await,
                Err(error) => Err(error.into()),
            },
            What::Daemon { order } => match serde_json::from_str::<daemon::Order>(&order) {
                Ok(order) => daemon::run(order).await,
                Err(error) => Err(error.into()),
            },
        }
    });
    // Nobody waits for a name look-up or a file that hangs.
    runtime.shutdown_timeout(Duration::from_millis(200));
    code.unwrap_or_else(|error| failed(&error))
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
        calm: Duration::from_secs(run.calm),
        seed: run.seed,
        faults: run.faults,
        clients: run.clients,
        lease: run.lease.map(Duration::from_millis),
        out: run.out.join(format!("{}-{}", run.store, run.seed)),
        keep: run.keep,
    };
    let program = Program::at(std::env::current_exe()?);
    let verdict = crate::run(&program, &options).await?;
    Ok(tell(&options, &verdict))
}

#[allow(clippy::print_stdout)]
fn tell(options: &Options, verdict: &Verdict) -> ExitCode {
    println!("{}", serde_json::to_string(&verdict.totals).unwrap_or_default());
    if verdict.violations.is_empty() {
        return ExitCode::SUCCESS;
    }
    for violation in &verdict.violations {
        println!("violation: {violation}");
    }
    let place = verdict.history.display();
    println!("The history is in {place}; tenure-check {place} --html PAGE.html makes a page of it.");
    println!(
        "The same again: tenure-storm run --store {} --seed {} --faults {} --seconds {} --calm {} --clients {}",
        options.store,
        options.seed,
        options.faults,
        options.span.as_secs(),
        options.calm.as_secs(),
        options.clients
    );
    ExitCode::FAILURE
}
