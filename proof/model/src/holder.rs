//! What a session's holder makes of its renewals, and of the time that passes.

use crate::{
    config::{Config, Mutation, Policy},
    state::{Op, Outcome, Stage, State},
};

impl State {
    pub(crate) fn pass(&mut self, config: &Config, client: u8) {
        let process = &mut self.clients[usize::from(client)];
        let before = process.session.is_valid();
        process.session.passed += 1;
        if before && !process.session.is_valid() && config.policy[usize::from(client)] == Policy::AtDeadline {
            for task in &mut process.tasks {
                if let Stage::Held { over } = &mut task.stage {
                    *over = true;
                }
            }
        }
    }

    pub(crate) fn renewal_answered(&mut self, config: &Config, client: u8, op: Op, taken: bool) {
        let Op::Renew { beat, .. } = op else { return };
        if taken {
            self.renewed(config, client, beat);
        } else if self.clients[usize::from(client)].session.unanswered == 0 {
            self.lose(client);
        }
    }

    pub(crate) fn renewal_unanswered(&mut self, config: &Config, client: u8, op: Op) {
        let Op::Renew { beat, .. } = op else { return };
        if config.has(Mutation::UnansweredRenewalCounts) {
            self.renewed(config, client, beat);
        } else {
            self.clients[usize::from(client)].session.unanswered |= 1 << beat;
        }
    }

    pub(crate) fn renewed(&mut self, config: &Config, client: u8, beat: u8) {
        let session = &mut self.clients[usize::from(client)].session;
        let before = session.is_valid();
        session.acked = beat;
        session.unanswered = 0;
        self.seen.restored |= config.coverage && !before && session.is_valid();
    }

    /// The holder knows that its session is over, and everybody there is told.
    pub(crate) fn lose(&mut self, client: u8) {
        let process = &mut self.clients[usize::from(client)];
        process.session.lost = true;
        for task in &mut process.tasks {
            if task.stage == Stage::Idle {
                continue;
            }
            let call = task.call.take();
            self.late.extend(call.filter(|call| call.answer.is_none()).map(|call| call.op));
            if !matches!(task.stage, Stage::Done(_)) {
                task.stage = Stage::Done(Outcome::Lost);
            }
        }
    }

    pub(crate) fn crash(&mut self, client: u8) {
        let process = &mut self.clients[usize::from(client)];
        process.crashed = true;
        let call = process.session.call.take();
        self.late.extend(call.filter(|call| call.answer.is_none()).map(|call| call.op));
        self.lose(client);
    }
}
