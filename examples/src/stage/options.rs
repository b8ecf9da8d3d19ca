//! What the command lines of all stories have in common.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use super::Way;

/// Where a story plays, and what the director tells the processes that it starts.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Setting {
    /// Where it is coordinated: nats://HOST/BUCKET, file:PATH or memory: [default: a file: store in a temporary directory]
    #[arg(long, value_name = "URL")]
    pub(crate) store: Option<String>,

    /// Print one JSON object at the end, and nothing on the way
    #[arg(long)]
    pub(crate) json: bool,

    /// What this process is called
    #[arg(long, hide = true)]
    pub(crate) name: Option<String>,

    /// The name of this run
    #[arg(long, hide = true)]
    pub(crate) run: Option<String>,

    /// The directory of this run
    #[arg(long, hide = true)]
    pub(crate) dir: Option<PathBuf>,
}

impl Setting {
    /// What every process of the run `id` in `dir` is told: this, and `own` of the story.
    pub(crate) fn arguments(&self, id: &str, dir: &Path, own: &[(&str, &str)]) -> Vec<OsString> {
        let mut arguments = vec!["--run".into(), id.into(), "--dir".into(), dir.into()];
        for (flag, value) in own.iter().copied().chain(self.store.as_deref().map(|store| ("--store", store))) {
            arguments.extend([flag.into(), value.into()]);
        }
        arguments
    }

    /// How this process, which the director started, reaches the store.
    pub(crate) fn way(&self) -> Way {
        Way::to(self.store.as_deref(), self.dir.as_deref().unwrap_or(Path::new(".")))
    }
}
