//! The kind `clickhouse`, against ClickHouse. Its gate is an address that a query reads.

use std::ops::RangeInclusive;

use pgflow_executor::job::{Secret, Target, Work};
use pgflow_tests::servers::clickhouse;

use crate::receiver::Receiver;
use crate::subject::{Loss, Subject};

pub struct ClickHouse {
    server: clickhouse::ClickHouse,
    gate: Receiver,
}

fn query(text: impl Into<String>) -> Work {
    Work { query: Some(text.into()), ..Work::default() }
}

fn with_key(text: String, key: &str) -> Work {
    let mut work = query(text);
    work.arguments.step_arguments = serde_json::json!({ "key": key });
    work
}

impl ClickHouse {
    fn with_password(&self, port: u16, password: &str) -> Target {
        let options = [
            ("url", format!("http://127.0.0.1:{port}")),
            ("user", self.server.user().to_owned()),
            ("password", password.to_owned()),
        ];
        Target {
            connection_options: options.into_iter().map(|(key, value)| (key.to_owned(), Secret::new(value))).collect(),
            ..Target::default()
        }
    }
}

impl Subject for ClickHouse {
    const KIND: &'static str = "clickhouse";
    /// libchdb 26.7 ends with an uncaught exception when a connection is closed in the middle of a request's first line.
    const TAKES_HALVES: bool = false;

    fn start() -> Self {
        let server = clickhouse::ClickHouse::start().unwrap();
        server.query("CREATE TABLE effect (key String) ENGINE = MergeTree ORDER BY key").unwrap();
        ClickHouse { server, gate: Receiver::start() }
    }

    fn port(&self) -> u16 {
        self.server.http_port()
    }

    fn kill(&self) {
        self.server.kill().unwrap();
    }

    fn start_again(&self) {
        self.server.start_again().unwrap();
    }

    fn target(&self, port: u16) -> Target {
        self.with_password(port, self.server.password())
    }

    fn stranger(&self, port: u16) -> Target {
        self.with_password(port, "a-wrong-password")
    }

    fn secrets(&self) -> Vec<String> {
        vec![self.server.password().to_owned(), "a-wrong-password".into()]
    }

    fn effect(&self, key: &str) -> Work {
        with_key("INSERT INTO effect SELECT {key:String}".into(), key)
    }

    fn gated_effect(&self, key: &str) -> Work {
        let gate = format!("url('{}/gate', 'LineAsString', 'one String')", self.gate.url());
        // A block a line, so that it notices when it is killed.
        let settings = "max_block_size = 1, max_read_buffer_size = 4096, input_format_parallel_parsing = 0";
        with_key(
            format!("INSERT INTO effect SELECT {{key:String}} FROM {gate} WHERE one = '1' SETTINGS {settings}"),
            key,
        )
    }

    fn close_gate(&self) {
        self.gate.set_gate(false);
    }

    fn open_gate(&self) {
        self.gate.set_gate(true);
    }

    fn running(&self) -> usize {
        let count = "SELECT count() FROM system.processes WHERE query LIKE 'INSERT INTO effect%FROM url(%'";
        self.server.query(count).unwrap().parse().unwrap()
    }

    fn effects(&self, key: &str) -> Vec<String> {
        let found = self.server.query(&format!("SELECT 'one' FROM effect WHERE key = '{key}'")).unwrap();
        found.lines().map(str::to_owned).collect()
    }

    fn rows(&self, count: u32) -> Work {
        query(format!("SELECT toInt32(number + 1) AS n, 'a text' AS t FROM numbers({count})"))
    }

    fn large(&self, bytes: u64) -> Work {
        query(format!("SELECT number AS n, repeat('x', 1024) AS t FROM numbers({})", bytes / 1024 + 1))
    }

    fn failing(&self) -> (Work, &'static str) {
        (query("SELECT throwIf(number = 3, 'it cannot be done') FROM numbers(10)"), "395")
    }

    fn bad(&self) -> (Work, &'static str) {
        (query("SELEKT 1"), "62")
    }

    fn refused(&self) -> &'static str {
        "516"
    }

    fn leaking(&self) -> Work {
        query("SELECT toUInt32({token:String})")
    }

    fn answer(&self) -> &'static [u8] {
        b"HTTP/1.1 200"
    }

    fn look(&self) -> Option<&'static [u8]> {
        Some(b"query_log")
    }

    /// The look into the query log makes it once where the log tells; what a server that was killed had done, it may not.
    fn promise(&self, loss: Loss) -> RangeInclusive<usize> {
        match loss {
            Loss::Before | Loss::After => 1..=1,
            Loss::During | Loss::Restart => 1..=2,
        }
    }
}
