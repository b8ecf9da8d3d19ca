//! Fuzz targets for everything that Tenure reads and others write: the wire, the store's URL, keys, the records in the
//! bucket and in the file, the daemon's flags and its files, paths and queries of its HTTP listener. There is nothing encrypted in
//! Tenure yet, so no envelope to open.
//!
//! A target is a test in `tests/`. In `cargo test` it takes every file of its corpus
//! (`tests/__fuzz__/<target>/corpus`), and for a second what chance makes: noise, and mutations of the corpus. Longer,
//! for two minutes each:
//!
//! ```text
//! BOLERO_RANDOM_TEST_TIME_MS=120000 cargo test --release -p tenure-fuzz -- --nocapture
//! ```
//!
//! A failure prints the input, to be put into the corpus as a file.

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

/// The corpus of a target.
#[derive(Debug)]
pub struct Corpus {
    seeds: Vec<Vec<u8>>,
    /// A failure has been told: those while it is made smaller are not.
    told: AtomicBool,
}

impl Corpus {
    /// The files of `target`.
    ///
    /// # Panics
    /// When there are none: they belong to the target.
    pub fn of(target: &str) -> Self {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/__fuzz__").join(target).join("corpus");
        let mut paths: Vec<PathBuf> =
            fs::read_dir(&directory).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())).collect();
        paths.sort();
        let seeds: Vec<_> = paths.iter().filter_map(|path| fs::read(path).ok()).collect();
        assert!(!seeds.is_empty(), "{} is empty", directory.display());
        Self { seeds, told: AtomicBool::new(false) }
    }

    /// Has `check` look at `input`, and at one of the corpus after mutations that `input` decides.
    ///
    /// # Panics
    /// When `check` does; what it looked at is printed before.
    pub fn each(&self, input: &[u8], check: impl Fn(&[u8])) {
        for looked_at in [input.to_vec(), self.mutated(input)] {
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| check(&looked_at))) {
                if !self.told.swap(true, Ordering::Relaxed) {
                    eprintln!("the input was b\"{}\"", looked_at.escape_ascii());
                }
                resume_unwind(panic);
            }
        }
    }

    fn mutated(&self, program: &[u8]) -> Vec<u8> {
        let mut program = Program(program);
        let mut bytes = self.seed(&mut program);
        while let Some(what) = program.byte() {
            let at = program.upto(bytes.len());
            match what % 8 {
                0 if at < bytes.len() => bytes[at] ^= 1 << (what >> 5),
                1 if at < bytes.len() => drop(bytes.remove(at)),
                2 => bytes.insert(at, program.byte().unwrap_or_default()),
                3 => bytes.insert(at, ODD[usize::from(program.byte().unwrap_or_default()) % ODD.len()]),
                4 => bytes.truncate(at),
                5 => {
                    let piece = bytes[at..].iter().take(usize::from(what >> 3)).copied().collect::<Vec<_>>();
                    bytes.splice(at..at, piece);
                }
                6 => {
                    let other = self.seed(&mut program);
                    let from = program.upto(other.len());
                    bytes.splice(at..at, other[from..].iter().take(40).copied());
                }
                _ => {
                    let number = NUMBERS[usize::from(program.byte().unwrap_or_default()) % NUMBERS.len()];
                    bytes.splice(at..at, number.bytes());
                }
            }
        }
        bytes
    }

    fn seed(&self, program: &mut Program<'_>) -> Vec<u8> {
        self.seeds[usize::from(program.byte().unwrap_or_default()) % self.seeds.len()].clone()
    }
}

/// Bytes that mean something to somebody.
const ODD: &[u8] = b"\"'{}[]:,.\\/@?#&=%*>-_ \t\r\n\0\x7f\x80\xc3\xff09aA";
const NUMBERS: [&str; 12] = [
    "0",
    "-1",
    "1.5",
    "1e999",
    "255",
    "65536",
    "4294967296",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "null",
    "true",
];

/// Bytes that say what to do.
struct Program<'a>(&'a [u8]);

impl Program<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn upto(&mut self, end: usize) -> usize {
        let [high, low] = [self.byte().unwrap_or_default(), self.byte().unwrap_or_default()];
        usize::from(u16::from_be_bytes([high, low])) % (end + 1)
    }
}
