//! The command `tenure-check`: checks a recorded history, and makes a page of it.

use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Parser;
use tenure_check::{Counts, History, check, print};

/// Checks a recorded history against what Tenure promises.
///
/// Ends with 0 when every promise was kept, 1 when one was broken, 2 when the history cannot be read.
#[derive(Debug, Parser)]
#[command(name = "tenure-check", version)]
struct Arguments {
    /// The history: one JSON object a line.
    file: PathBuf,
    /// Makes a page of it: a timeline with the violations marked.
    #[arg(long, value_name = "OUT.html")]
    html: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(kept) => ExitCode::from(u8::from(!kept)),
        Err(message) => {
            let _ = writeln!(io::stderr(), "tenure-check: {message}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &Arguments) -> Result<bool, String> {
    let history = read(&arguments.file)?;
    let (counts, verdicts) = (Counts::of(&history), check(&history));
    match print(io::stdout().lock(), &counts, &verdicts) {
        // Whoever reads may have had enough.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(format!("standard output: {error}")),
        _ => {}
    }
    if let Some(out) = &arguments.html {
        let page = tenure_check::page(&history, &counts, &verdicts);
        let written = File::create(out).map(BufWriter::new).and_then(|mut file| {
            file.write_all(page.as_bytes())?;
            file.flush()
        });
        written.map_err(|error| format!("{}: {error}", out.display()))?;
    }
    Ok(verdicts.iter().all(|verdict| verdict.violations.is_empty()))
}

fn read(path: &Path) -> Result<History, String> {
    let file = File::open(path).map_err(|error| format!("{}: {error}", path.display()))?;
    History::read(BufReader::new(file)).map_err(|error| format!("{}: {error}", path.display()))
}
