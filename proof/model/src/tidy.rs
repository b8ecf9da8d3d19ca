//! Forgetting what makes no difference any more, so that states that behave alike are one.

use crate::{
    config::Config,
    state::{CLIENTS, Stage, State},
};

impl State {
    /// Forgets what makes no difference any more, so that states that behave alike are one.
    pub(crate) fn tidy(&mut self, config: &Config) {
        let mut late = std::mem::take(&mut self.late);
        let passed: [u8; CLIENTS] = std::array::from_fn(|at| self.clients[at].session.passed);
        for (client, wants) in self.clients.iter_mut().zip(&config.wants) {
            let through = client.is_through(wants);
            let session = &mut client.session;
            // Who wants nothing any more does not renew either.
            if through {
                let call = session.call.take().filter(|call| call.answer.is_none());
                late.extend(call.map(|call| call.op));
                (session.acked, session.unanswered) = (0, 0);
            }
            for task in &mut client.tasks {
                match &mut task.stage {
                    // A silence that may be over stays so.
                    Stage::Behind { ticket, since, .. } if *since <= passed[usize::from(ticket.client)] => *since = 0,
                    Stage::First | Stage::Held { .. } | Stage::Releasing | Stage::Withdrawing { .. } | Stage::Done(_) => {
                        task.sight = None;
                    }
                    _ => {}
                }
                if matches!(task.stage, Stage::Done(_)) {
                    (task.writes, task.unanswered) = (0, false);
                }
            }
        }
        let before = late.len();
        late.retain(|op| !self.is_moot(config, *op));
        self.seen.refused |= config.coverage && late.len() < before;
        late.sort_unstable();
        self.late = late;
    }
}
