//! Three devices do everything that an app can do while wires are cut and stalled, processes are killed and rights
//! come and go; once all is well again, every copy is the same, and no comparison had to mend anything.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use system_tests::deadline::{LATER, within_deadline};
use system_tests::proxy::{Direction, Proxy};
use system_tests::replica::{Replica, row_id};
use system_tests::seeds::Seed;
use system_tests::server::{Server, ServerOptions};
use test_chance::Chance;

/// Transactions of one run.
const STEPS: u64 = 400;
/// One step in so many is a fault instead.
const STEPS_PER_FAULT: u64 = 6;
/// What all devices but the last may do; it has one site only.
const ALL: [&str; 3] = ["site/1:rw", "site/2:rw", "tenant:rw"];
const LAST: [&str; 2] = ["site/1:rw", "tenant:rw"];
/// Everything that an app sees of a copy.
const COPY: [&str; 4] = [
    "SELECT hex(id), label, amount, tags FROM items ORDER BY id",
    "SELECT hex(id), name, count FROM tallies ORDER BY id",
    "SELECT hex(id), site_id, purpose FROM visits WHERE site_id = '1' ORDER BY id",
    "SELECT hex(id), title, body FROM notes ORDER BY id",
];
/// Errors with which a step may end: the row is not there any more, or not yet.
const EXPECTED: [&str; 2] = ["row_missing", "row_deleted"];

struct World {
    server: Server,
    proxies: Vec<Proxy>,
    replicas: Vec<Replica>,
    chance: Chance,
    /// Rows by collection.
    rows: BTreeMap<&'static str, Vec<String>>,
    tally: String,
    counted: i64,
}

impl World {
    fn new(chance: Chance) -> Self {
        let server = Server::start(ServerOptions::default());
        let proxies: Vec<Proxy> = (0..3).map(|_| Proxy::to(server.address())).collect();
        let grants = [&ALL[..], &ALL[..], &LAST[..]];
        let mut replicas: Vec<Replica> = proxies
            .iter()
            .zip(grants)
            .map(|(proxy, grants)| Replica::create(&proxy.url(), &server.token(grants)))
            .collect();
        let tally = replicas[0].insert("tallies", json!({"name": "all"}));
        replicas.iter_mut().for_each(Replica::sync);
        replicas
            .iter_mut()
            .for_each(|replica| replica.wait_for_number("SELECT count(id) FROM tallies", 1));
        let rows = ["items", "visits", "notes"].map(|collection| (collection, Vec::new()));
        Self { server, proxies, replicas, chance, rows: rows.into(), tally, counted: 0 }
    }

    fn pick(&mut self, collection: &'static str) -> Option<String> {
        let rows = &self.rows[collection];
        let at = self.chance.next() as usize;
        rows.get(at % rows.len().max(1)).cloned()
    }

    /// A row that is there, or a new one.
    fn put(&mut self, who: usize, collection: &'static str, mut columns: Value) -> Option<Value> {
        if self.chance.below(2) == 0
            && let Some(row) = self.pick(collection)
        {
            columns["id"] = row.into();
            return Some(json!(["put", collection, columns]));
        }
        let inserted = self.run(who, json!(["put", collection, columns]))?;
        self.rows.get_mut(collection).expect("it is there").push(row_id(&inserted));
        None
    }

    fn run(&mut self, who: usize, step: Value) -> Option<Value> {
        let shown = step.to_string();
        match self.replicas[who].try_call(json!({"op": "txn", "do": [step]})) {
            Ok(answer) => Some(answer["results"][0].clone()),
            Err(error) if EXPECTED.contains(&error.code.as_str()) => None,
            Err(error) => panic!("{shown}: {error:?}"),
        }
    }

    fn step(&mut self, n: u64) {
        let who = self.chance.below(3) as usize;
        let site = if who == 2 { 1 } else { 1 + self.chance.below(2) };
        let word = format!("{n} by {who}");
        let step = match self.chance.below(10) {
            0 | 1 => self.put(who, "items", json!({"label": word, "amount": n})),
            2 => self.put(who, "visits", json!({"site_id": site.to_string(), "purpose": word})),
            3 => self.put(who, "notes", json!({"title": word})),
            4 | 5 => {
                let delta = self.chance.below(10) as i64 - 4;
                self.counted += delta;
                Some(json!(["inc", "tallies", self.tally, "count", delta]))
            }
            6 => {
                let what = ["del", "restore"][self.chance.below(2) as usize];
                self.pick("items").map(|row| json!([what, "items", row]))
            }
            7 => {
                let what = ["add", "remove"][self.chance.below(2) as usize];
                let tag = format!("tag {}", self.chance.below(4));
                self.pick("items").map(|row| json!([what, "items", row, "tags", tag]))
            }
            8 => self
                .pick("notes")
                .map(|row| json!(["text", "notes", row, "body", 0, 0, format!("{word} ")])),
            _ => self
                .pick("visits")
                .map(|row| json!(["put", "visits", {"id": row, "site_id": site.to_string()}])),
        };
        if let Some(step) = step {
            let is_count = step[0] == "inc";
            let done = self.run(who, step);
            assert!(done.is_some() || !is_count, "the tally is always there");
        }
    }

    fn fault(&mut self) {
        let who = self.chance.below(3) as usize;
        let direction = [Direction::Up, Direction::Down][self.chance.below(2) as usize];
        match self.chance.below(8) {
            0 => self.proxies[who].cut(),
            1 => self.proxies[who].stall_after(direction, self.chance.below(20_000)),
            2 | 3 => self.heal(who),
            4 => {
                self.replicas[who].kill9();
                self.replicas[who].open();
                self.replicas[who].connect();
            }
            5 => {
                self.server.kill9();
                self.server.restart();
            }
            6 => self.replicas[who].disconnect(),
            _ => self.replicas[who].connect(),
        }
    }

    /// A stalled connection is cut: what a device does about silence has a test of its own.
    fn heal(&self, who: usize) {
        let proxy = &self.proxies[who];
        let stalled =
            [Direction::Up, Direction::Down].iter().any(|direction| proxy.is_stalled(*direction));
        proxy.flow(Direction::Up);
        proxy.flow(Direction::Down);
        if stalled {
            proxy.cut();
        }
    }

    fn check_converged(&mut self) {
        (0..3).for_each(|who| self.heal(who));
        for replica in &mut self.replicas {
            replica.connect();
            replica.wait_for_within("synced", LATER);
        }
        let mut fresh = Replica::create(&self.server.url(), &self.server.token(&LAST));
        fresh.sync();
        let expected = COPY.map(|sql| fresh.query(sql));
        let count = fresh.number("SELECT count FROM tallies");
        assert_eq!(count, self.counted, "an increment was lost or applied twice");
        for (who, replica) in self.replicas.iter_mut().enumerate() {
            for (sql, rows) in COPY.iter().zip(&expected) {
                let same = within_deadline(LATER, || (replica.query(sql) == *rows).then_some(()));
                if same.is_none() {
                    let (found, status) = (replica.query(sql), replica.status());
                    let more: Vec<_> = found.iter().filter(|row| !rows.contains(row)).collect();
                    let less: Vec<_> = rows.iter().filter(|row| !found.contains(row)).collect();
                    panic!("device {who} has {more:?} instead of {less:?}: {status}");
                }
            }
            let status =
                replica.wait_for_status("a checkpoint", |status| status["caught_up"] == true);
            assert_eq!(
                (&status["in_step"], &status["repairs"]),
                (&json!(true), &json!(0)),
                "device {who}: {status}"
            );
            for entry in replica.quarantine() {
                let code = entry["code"].as_str().unwrap();
                let expected =
                    ["row_deleted", "row_missing", "depends_on_refused", "permission_denied"];
                assert!(expected.contains(&code), "device {who}: {entry}");
            }
        }
        assert_eq!(self.server.try_operate(&["scrub", "--tenant", "acme"]).code, Some(0));
        let log = self.server.log();
        assert!(!log.contains("protocol_violation"), "a device of ours broke the protocol\n{log}");
    }
}

#[test]
fn every_copy_is_the_same_once_all_is_well_again() {
    let seed = Seed::of("convergence under faults");
    let mut world = World::new(seed.chance());
    for n in 1..=STEPS {
        if world.chance.below(STEPS_PER_FAULT) == 0 {
            world.fault();
        } else {
            world.step(n);
        }
    }
    world.check_converged();
}
