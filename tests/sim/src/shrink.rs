//! Making a failing plan smaller: fewer steps, then fewer parts of transactions, as long as it still fails alike.

use crate::plan::{Action, Plan};
use crate::world::{Outcome, run};

/// Most runs that shrinking one plan may take.
pub const MAX_RUNS: usize = 600;

/// The smallest plan found that fails as the first one does, and how it fails.
#[must_use]
pub fn shrink(plan: &Plan, outcome: &Outcome) -> (Plan, Outcome) {
    let Some(kind) = outcome.violations.first().map(crate::oracles::Violation::kind) else {
        return (plan.clone(), outcome.clone());
    };
    let mut best = (plan.clone(), outcome.clone());
    let mut runs = 0;
    let mut fails = |candidate: Plan, best: &mut (Plan, Outcome)| {
        runs += 1;
        if runs > MAX_RUNS {
            return false;
        }
        let outcome = run(&candidate);
        let alike = outcome.violations.iter().any(|violation| violation.kind() == kind);
        if alike {
            *best = (candidate, outcome);
        }
        alike
    };
    let mut chunk = (best.0.steps.len() / 2).max(1);
    loop {
        let mut at = 0;
        let mut smaller = false;
        while at < best.0.steps.len() {
            let mut candidate = best.0.clone();
            let end = (at + chunk).min(candidate.steps.len());
            candidate.steps.drain(at..end);
            if fails(candidate, &mut best) {
                smaller = true;
            } else {
                at += chunk;
            }
        }
        if chunk == 1 && !smaller {
            break;
        }
        if !smaller || chunk > 1 {
            chunk = (chunk / 2).max(1);
        }
    }
    shrink_ops(&mut best, &mut fails);
    best
}

fn shrink_ops(
    best: &mut (Plan, Outcome),
    fails: &mut impl FnMut(Plan, &mut (Plan, Outcome)) -> bool,
) {
    for step in 0..best.0.steps.len() {
        let mut at = 0;
        while let Action::Write { ops, .. } = &best.0.steps[step].action
            && ops.len() > 1
            && at < ops.len()
        {
            let mut candidate = best.0.clone();
            if let Action::Write { ops, .. } = &mut candidate.steps[step].action {
                ops.remove(at);
            }
            if !fails(candidate, best) {
                at += 1;
            }
        }
    }
}
