//! Beginning again after a loss and after the command's end, with a pause that grows.

use std::time::Duration;

use super::{How, Job, Source, Turn, interrupted, once};
use crate::command::{
    End,
    exit::{self, Failure},
    run::Signals,
    say::{say, span},
};

/// The first pause.
const FIRST: Duration = Duration::from_millis(100);
/// The longest pause, and how long a command must have run for the pauses to begin anew.
const LONGEST: Duration = Duration::from_secs(10);

/// Takes turns until a signal asks for the end, or beginning again would not help.
pub(super) async fn run<S: Source>(source: &mut S, job: &Job<'_>, signals: &mut Signals) -> Result<End, Failure> {
    let mut pauses = Pauses::default();
    loop {
        let turn = once(source, job, signals).await;
        let Some(pause) = pauses.after(&turn) else { return turn.end };
        let said = match &turn.end {
            Ok(end) => format!("{}: the command ended with {}", job.name, end.code),
            Err(failure) => failure.message.clone(),
        };
        say(&format!("{said}; again in {}", span(pause)));
        tokio::select! {
            biased;
            signal = signals.next_that_ends() => return interrupted(signal.as_raw()),
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// The pauses between turns.
#[derive(Debug, Default)]
struct Pauses {
    last: Option<Duration>,
    /// It has run at least once: what fails from then on may pass.
    ran: bool,
}

impl Pauses {
    /// How long to wait before the next turn, or that there is to be none.
    fn after(&mut self, turn: &Turn) -> Option<Duration> {
        match turn.how {
            How::Ran { time, asked } => {
                let runnable = !matches!(&turn.end, Ok(end) if [exit::NOT_EXECUTABLE, exit::NOT_FOUND].contains(&end.code));
                if asked || !runnable {
                    return None;
                }
                self.ran = true;
                if time >= LONGEST {
                    self.last = None;
                }
            }
            How::Failed if self.ran => {}
            How::Failed | How::Over => return None,
        }
        let pause = self.last.map_or(FIRST, |last| (last * 2).min(LONGEST));
        self.last = Some(pause);
        Some(jittered(pause))
    }
}

/// Between half of it and all, so that candidates that failed together do not come back together.
fn jittered(pause: Duration) -> Duration {
    let draw = u32::from(uuid::Uuid::new_v4().as_bytes()[0]);
    pause / 2 + pause / 2 * draw / 255
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ran(seconds: u64, code: u8, asked: bool) -> Turn {
        Turn { end: Ok(code.into()), how: How::Ran { time: Duration::from_secs(seconds), asked } }
    }

    fn failed() -> Turn {
        Turn { end: Err(Failure::failed("no store")), how: How::Failed }
    }

    #[test]
    fn pauses_grow_and_begin_anew_after_a_long_run() {
        let mut pauses = Pauses::default();
        let mut before = Duration::ZERO;
        for _ in 0..12 {
            let pause = pauses.after(&ran(0, 1, false)).unwrap();
            assert!(pause >= before / 2 && pause <= LONGEST, "{pause:?} after {before:?}");
            before = pause;
        }
        assert!(before >= LONGEST / 2);
        assert!(pauses.after(&ran(60, 1, false)).unwrap() <= FIRST);
    }

    #[test]
    fn what_does_not_mend_itself_ends_it() {
        let mut pauses = Pauses::default();
        assert_eq!(pauses.after(&failed()), None, "nothing has worked yet");
        assert_eq!(pauses.after(&ran(0, exit::NOT_FOUND, false)), None);
        assert_eq!(pauses.after(&ran(0, 143, true)), None);
        assert!(pauses.after(&ran(0, 0, false)).is_some());
        assert!(pauses.after(&failed()).is_some());
        assert_eq!(pauses.after(&Turn { end: Ok(130.into()), how: How::Over }), None);
    }
}
