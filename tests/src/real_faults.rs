//! Kills, freezes and partitions of real programs, as many as there is time for. The tests run some; `cargo xtask proof`
//! runs thousands.
//!
//! A world of programs serves some trials and ends with a check of everything; what does not hold panics there, with
//! the seed of the world.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;
use test_chance::Chance;

use crate::deadline::{Deadline, LATER, within_deadline};
use crate::ledger::{check_equal, flow, for_a_moment, stall_at_times, step, tally};
use crate::proxy::{Direction, Proxy};
use crate::replica::Replica;
use crate::server::{Server, ServerOptions};

/// Kills or partitions of one world.
pub const TRIALS_OF_A_WORLD: u64 = 50;
/// Replicas of a world.
const REPLICAS: u64 = 3;
/// Transactions that a replica writes in one trial, at most.
const MAX_WRITES: u64 = 5;
/// One trial in so many also freezes a program.
const TRIALS_PER_FREEZE: u64 = 3;
/// How long a partition lasts, in milliseconds.
const PARTITION_MS: std::ops::Range<u64> = 50..1_500;

/// A server, replicas behind a wire each, and what was written.
struct World {
    server: Server,
    proxies: Vec<Proxy>,
    replicas: Vec<Replica>,
    tally: String,
    written: BTreeSet<String>,
    acknowledged: BTreeSet<String>,
}

impl World {
    fn new() -> Self {
        let server = Server::start(ServerOptions::default());
        let tally = tally(&server);
        let proxies: Vec<_> = (0..REPLICAS).map(|_| Proxy::to(server.address())).collect();
        let mut replicas: Vec<_> = proxies
            .iter()
            .map(|proxy| Replica::create(&proxy.url(), &server.token(&["tenant:rw"])))
            .collect();
        replicas.iter_mut().for_each(Replica::sync);
        let (written, acknowledged) = (BTreeSet::new(), BTreeSet::new());
        Self { server, proxies, replicas, tally, written, acknowledged }
    }

    /// Each replica writes some transactions; a number in their labels says when.
    fn write(&mut self, chance: &mut Chance, trial: u64) {
        for (who, replica) in self.replicas.iter_mut().enumerate() {
            for n in 0..=chance.below(MAX_WRITES) {
                let label = format!("{trial} {who} {n}");
                replica.call(step(&self.tally, &label));
                self.written.insert(label.clone());
                self.acknowledged.insert(label);
            }
        }
    }

    fn check(&mut self) {
        self.proxies.iter().for_each(flow);
        for replica in &mut self.replicas {
            replica.connect();
            replica.wait_for_within("synced", LATER);
        }
        check_equal(&self.server, &mut self.replicas, &self.written, &self.acknowledged);
    }

    /// One program stands still for a moment while the others go on.
    fn freeze(&self, chance: &mut Chance) {
        let who = chance.below(REPLICAS + 1);
        if who == REPLICAS {
            self.server.freeze();
            for_a_moment(chance);
            self.server.thaw();
        } else {
            let replica = &self.replicas[index(who)];
            replica.freeze();
            for_a_moment(chance);
            replica.thaw();
        }
    }

    fn kill_server(&mut self, chance: &mut Chance, trial: u64) {
        self.write(chance, trial);
        for_a_moment(chance);
        self.server.kill9();
        self.proxies.iter().for_each(flow);
        self.server.restart();
    }

    /// The victim's last commands are killed before anybody can know whether they were done.
    fn kill_replica(&mut self, chance: &mut Chance, trial: u64) {
        let who = index(chance.below(REPLICAS));
        let replica = &mut self.replicas[who];
        replica.connect();
        let mut sent = Vec::new();
        for n in 0..=chance.below(MAX_WRITES) {
            let label = format!("{trial} victim {n}");
            self.written.insert(label.clone());
            sent.push((replica.send(step(&self.tally, &label)), label));
        }
        let answered = index(chance.below(sent.len() as u64 + 1));
        for (id, label) in sent.into_iter().take(answered) {
            replica.answer(id).expect("it is alive").unwrap_or_else(|error| panic!("{error:?}"));
            self.acknowledged.insert(label);
        }
        for_a_moment(chance);
        replica.kill9();
        flow(&self.proxies[who]);
        replica.open();
        let copy: BTreeSet<String> = replica
            .column("SELECT label FROM items")
            .iter()
            .filter_map(|label| label.as_str().map(str::to_owned))
            .collect();
        let of_trial = format!("{trial} victim ");
        let mut durable = self.acknowledged.iter().filter(|label| label.starts_with(&of_trial));
        let lost = durable.find(|label| !copy.contains(*label));
        assert_eq!(lost, None, "it was acknowledged to its app");
        replica.connect();
    }
}

fn index(number: u64) -> usize {
    usize::try_from(number).expect("a small number")
}

/// A world whose server or replicas are killed with SIGKILL so many times, and stand still now and then.
///
/// # Panics
/// Where something that was acknowledged is lost, or anything was applied twice.
pub fn kills(seed: u64, kills: u64) {
    let mut chance = Chance::of(seed);
    let mut world = World::new();
    for kill in 1..=kills {
        let who = index(chance.below(REPLICAS));
        stall_at_times(&mut chance, &world.proxies[who], kill);
        if chance.below(TRIALS_PER_FREEZE) == 0 {
            world.freeze(&mut chance);
        }
        if chance.below(2) == 0 {
            world.kill_server(&mut chance, kill);
        } else {
            world.kill_replica(&mut chance, kill);
        }
    }
    world.check();
}

/// How devices are parted from their server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// What the server sends does not arrive.
    In,
    /// What the device sends does not arrive.
    Out,
    /// Nothing arrives, and neither end is told.
    Both,
    /// As [`Shape::Both`], and the connections are gone when the wire is back: each end learns of it then.
    HalfOpen,
    /// Connections break at once, and new ones are refused.
    Refused,
}

const SHAPES: [Shape; 5] = [Shape::In, Shape::Out, Shape::Both, Shape::HalfOpen, Shape::Refused];

impl Shape {
    fn part(self, proxy: &Proxy) {
        if matches!(self, Self::In | Self::Both | Self::HalfOpen) {
            proxy.stall(Direction::Down);
        }
        if matches!(self, Self::Out | Self::Both | Self::HalfOpen) {
            proxy.stall(Direction::Up);
        }
        if self == Self::Refused {
            proxy.refuse();
        }
    }

    fn heal(self, proxy: &Proxy) {
        match self {
            Self::Refused => proxy.accept(),
            Self::HalfOpen => {
                proxy.cut();
                flow(proxy);
            }
            Self::In | Self::Out | Self::Both => flow(proxy),
        }
    }
}

/// A world that is parted so many times. The time from each heal until every replica holds everything and has nothing
/// left to send comes back.
///
/// # Panics
/// Where replicas do not converge, or not to what was written.
#[must_use]
pub fn partitions(seed: u64, partitions: u64) -> Vec<Duration> {
    let mut chance = Chance::of(seed);
    let mut world = World::new();
    let mut times = Vec::new();
    for trial in 1..=partitions {
        let shape = SHAPES[index(chance.below(SHAPES.len() as u64))];
        // One of them, or all.
        let who = chance.below(REPLICAS + 1);
        let parted: Vec<usize> =
            (0..index(REPLICAS)).filter(|at| who == REPLICAS || index(who) == *at).collect();
        parted.iter().for_each(|at| shape.part(&world.proxies[*at]));
        world.write(&mut chance, trial);
        let lasts = chance.below(PARTITION_MS.end - PARTITION_MS.start) + PARTITION_MS.start;
        within_deadline(Duration::from_millis(lasts), || None::<()>);
        parted.iter().for_each(|at| shape.heal(&world.proxies[*at]));
        times.push(converged(&mut world, shape));
    }
    world.check();
    times
}

/// Waits until every replica holds what was written and has nothing left to send.
fn converged(world: &mut World, shape: Shape) -> Duration {
    let healed = Deadline::after(LATER);
    let rows = json!(world.written.len());
    for (who, replica) in world.replicas.iter_mut().enumerate() {
        let mut last = json!(null);
        let same = within_deadline(healed.left(), || {
            let count = replica.value("SELECT count(*) FROM items");
            last = replica.status();
            (count == rows && last["unanswered"] == 0).then_some(())
        });
        assert!(same.is_some(), "{shape:?}: replica {who} has not converged: {last}");
    }
    healed.waited()
}

/// The time within which so many of 100 came; zero where there are none.
#[must_use]
pub fn percentile(times: &[Duration], of_hundred: usize) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let at = (sorted.len() * of_hundred).div_ceil(100).saturating_sub(1);
    sorted.get(at).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_the_time_within_which_so_many_came() {
        let times: Vec<Duration> = (1..=200).map(Duration::from_millis).collect();
        assert_eq!(percentile(&times, 50), Duration::from_millis(100));
        assert_eq!(percentile(&times, 99), Duration::from_millis(198));
        assert_eq!(percentile(&times, 100), Duration::from_millis(200));
        assert_eq!(percentile(&times[..1], 99), Duration::from_millis(1));
        assert_eq!(percentile(&[], 99), Duration::ZERO);
    }
}
