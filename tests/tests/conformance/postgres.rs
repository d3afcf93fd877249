//! The kind `postgres`, against a server that has the inbox. Its gate is an advisory lock.

use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Mutex;

use pgflow_executor::job::{Secret, Target, Work};
use pgflow_tests::cluster::{Cluster, Stop, SUPERUSER};
use pgflow_tests::place::random_secret;
use pgflow_tests::session::Session;

use crate::subject::{Loss, Subject};

/// Without pgflow, as most targets are: what a target needs is a script.
const CLIENT: &str = "../sql/pgflow_client.sql";

pub struct Postgres {
    cluster: Cluster,
    password: String,
    /// Holds the lock while the gate is closed.
    gate: Mutex<Option<Session>>,
    /// For looks; made anew after a restart.
    eyes: Mutex<Option<Session>>,
}

fn query(text: impl Into<String>) -> Work {
    Work { query: Some(text.into()), ..Work::default() }
}

fn with_key(text: &str, key: &str) -> Work {
    let mut work = query(text);
    work.arguments.step_arguments = serde_json::json!({ "key": key });
    work
}

impl Postgres {
    fn with_password(&self, port: u16, password: &str) -> Target {
        let string = format!("host=127.0.0.1 port={port} dbname=postgres user=ann password={password}");
        Target { connection_string: Some(Secret::new(string)), ..Target::default() }
    }

    fn connect(&self) -> Session {
        self.cluster.connect("postgres", SUPERUSER).unwrap()
    }

    fn look(&self, sql: &str) -> Vec<String> {
        let mut eyes = self.eyes.lock().unwrap();
        if eyes.is_none() {
            *eyes = Some(self.connect());
        }
        eyes.as_mut().unwrap().column(sql).unwrap()
    }
}

impl Subject for Postgres {
    const KIND: &'static str = "postgres";

    fn start() -> Self {
        let cluster = Cluster::options().not_preloaded().with_passwords().max_connections(700).start().unwrap();
        let password = random_secret().unwrap();
        let script = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(CLIENT)).unwrap();
        cluster.psql("postgres", SUPERUSER, &script).unwrap();
        let mut session = cluster.connect("postgres", SUPERUSER).unwrap();
        session.run(&format!("CREATE ROLE ann LOGIN PASSWORD '{password}'")).unwrap();
        session.run("CREATE TABLE effect (key TEXT); GRANT INSERT ON effect TO ann").unwrap();
        session.run("SELECT async.grant_client('ann')").unwrap();
        drop(session);
        Postgres { cluster, password, gate: Mutex::default(), eyes: Mutex::default() }
    }

    fn port(&self) -> u16 {
        self.cluster.port()
    }

    fn kill(&self) {
        *self.eyes.lock().unwrap() = None;
        self.cluster.stop(Stop::Immediate).unwrap();
    }

    fn start_again(&self) {
        self.cluster.start().unwrap();
    }

    fn target(&self, port: u16) -> Target {
        self.with_password(port, &self.password)
    }

    fn stranger(&self, port: u16) -> Target {
        self.with_password(port, "a-wrong-password")
    }

    fn secrets(&self) -> Vec<String> {
        vec![self.password.clone(), "a-wrong-password".into()]
    }

    fn effect(&self, key: &str) -> Work {
        with_key("INSERT INTO public.effect VALUES ({key})", key)
    }

    fn gated_effect(&self, key: &str) -> Work {
        let text = "WITH done AS (INSERT INTO public.effect VALUES ({key}) RETURNING 1)
                    SELECT pg_advisory_xact_lock_shared(7) FROM done";
        with_key(text, key)
    }

    fn close_gate(&self) {
        let mut session = self.connect();
        session.run("SELECT pg_advisory_lock(7)").unwrap();
        *self.gate.lock().unwrap() = Some(session);
    }

    fn open_gate(&self) {
        *self.gate.lock().unwrap() = None;
    }

    fn running(&self) -> usize {
        let waiting = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ShareLock'";
        self.look(waiting).len()
    }

    fn effects(&self, key: &str) -> Vec<String> {
        Postgres::look(self, &format!("SELECT 'one' FROM effect WHERE key = '{key}'"))
    }

    fn rows(&self, count: u32) -> Work {
        query(format!("SELECT n, 'a text' AS t FROM generate_series(1, {count}) AS n"))
    }

    fn large(&self, bytes: u64) -> Work {
        query(format!("SELECT n, repeat('x', 1024) AS t FROM generate_series(1, {}) AS n", bytes / 1024 + 1))
    }

    fn failing(&self) -> (Work, &'static str) {
        (query("SELECT 1 / (n - 3) FROM generate_series(1, 10) AS n"), "22012")
    }

    fn bad(&self) -> (Work, &'static str) {
        (query("SELEKT 1"), "42601")
    }

    fn refused(&self) -> &'static str {
        "28P01"
    }

    fn leaking(&self) -> Work {
        query("SELECT {token:text}::int4")
    }

    fn answer(&self) -> &'static [u8] {
        b"COMMIT\0"
    }

    fn look(&self) -> Option<&'static [u8]> {
        Some(b"inbox")
    }

    fn promise(&self, _: Loss) -> RangeInclusive<usize> {
        1..=1
    }
}
