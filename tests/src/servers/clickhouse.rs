//! ClickHouse, out of libchdb: HTTP and native TCP, one user `pgflow` with a password. The user `default`, who needs none,
//! may do nothing. What is in its tables, and its query log, outlives a restart.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{ensure, Context, Result};

use super::process::Process;
use super::{http, installed};
use crate::place::{free_port, random_secret};

const LAUNCHER: &str = include_str!("clickhouse.py");
const USER: &str = "pgflow";
/// Of the same password; may change neither data nor settings (`readonly = 1`).
pub const READER: &str = "reader";
/// Listens, and then stays.
const FIRST_QUERIES: &str = "SYSTEM START LISTEN HTTP; SYSTEM START LISTEN TCP; \
    SELECT sleepEachRow(1) FROM system.numbers \
    SETTINGS max_block_size = 1, function_sleep_max_microseconds_per_block = 0 FORMAT Null";

pub struct ClickHouse {
    process: Process,
    library: PathBuf,
    http_port: u16,
    tcp_port: u16,
    password: String,
}

impl ClickHouse {
    pub fn start() -> Result<ClickHouse> {
        let library = installed("clickhouse")?.join("libchdb.so");
        let process = Process::new()?;
        let server = ClickHouse {
            process,
            library,
            http_port: free_port()?,
            tcp_port: free_port()?,
            password: random_secret()?,
        };
        fs::write(server.path("launcher.py"), LAUNCHER)?;
        fs::write(server.path("users.xml"), server.users())?;
        fs::write(server.path("config.xml"), server.configuration())?;
        server.start_again()?;
        Ok(server)
    }

    fn users(&self) -> String {
        let password = &self.password;
        format!(
            "<clickhouse><profiles><default/><readers><readonly>1</readonly></readers></profiles><quotas><default/></quotas><users>
              <default><no_password/><networks><ip>::1</ip></networks><profile>default</profile><quota>default</quota>
                <grants><query>GRANT SYSTEM LISTEN ON *.*</query><query>GRANT SELECT ON system.numbers</query></grants>
              </default>
              <{USER}><password>{password}</password><networks><ip>::/0</ip></networks><profile>default</profile>
                <quota>default</quota></{USER}>
              <{READER}><password>{password}</password><networks><ip>::/0</ip></networks><profile>readers</profile>
                <quota>default</quota></{READER}>
            </users></clickhouse>"
        )
    }

    fn configuration(&self) -> String {
        format!(
            "<clickhouse>
              <users_config>{}</users_config>
              <max_concurrent_queries>2000</max_concurrent_queries>
              <max_connections>4096</max_connections>
              <listen_backlog>4096</listen_backlog>
              <query_log><database>system</database><table>query_log</table>
                <flush_interval_milliseconds>200</flush_interval_milliseconds></query_log>
              <logger><log>{}</log></logger>
            </clickhouse>",
            self.path("users.xml").display(),
            self.path("server.log").display()
        )
    }

    /// Starts it again after `stop` or `kill`, on the same ports.
    pub fn start_again(&self) -> Result<()> {
        let parts = self.put_query_log_aside()?;
        let mut command = Command::new(python());
        command.arg(self.path("launcher.py")).arg(&self.library);
        command.arg(format!("--config-file={}", self.path("config.xml").display()));
        command.arg(format!("--path={}", self.path("data").display()));
        command.args(["--listen_host=127.0.0.1", "--log-level=warning"]);
        command.arg(format!("--http_port={}", self.http_port)).arg(format!("--tcp_port={}", self.tcp_port));
        command.args(["--query", FIRST_QUERIES]);
        self.process.start(&command, || {
            http::request(self.http_port, "GET /ping HTTP/1.0\r\n", b"").is_ok_and(|(status, _)| status == 200)
        })?;
        self.query("SYSTEM FLUSH LOGS")?;
        self.attach_query_log(&parts)
    }

    /// This clickhouse-local makes its query log anew and fails if there is one: the old one's parts are moved out of the
    /// way before the start, and attached to the new one after it.
    fn put_query_log_aside(&self) -> Result<Vec<PathBuf>> {
        let log = self.query_log();
        if !log.exists() {
            return Ok(Vec::new());
        }
        let aside = self.path("query_log");
        if aside.exists() {
            fs::remove_dir_all(&aside)?;
        }
        fs::rename(&log, &aside)?;
        let mut parts = Vec::new();
        for entry in fs::read_dir(&aside)? {
            let path = entry?.path();
            // 202611_1_1_0: a part that is whole.
            if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("20")) {
                parts.push(path);
            }
        }
        Ok(parts)
    }

    fn attach_query_log(&self, parts: &[PathBuf]) -> Result<()> {
        for part in parts {
            let name = part.file_name().context("a part without a name")?;
            fs::rename(part, self.query_log().join("detached").join(name))?;
            self.query(&format!("ALTER TABLE system.query_log ATTACH PART '{}'", name.to_string_lossy()))?;
        }
        Ok(())
    }

    fn query_log(&self) -> PathBuf {
        self.path("data/data/system/query_log")
    }

    pub fn stop(&self) -> Result<()> {
        self.process.stop()
    }

    /// `kill -9`.
    pub fn kill(&self) -> Result<()> {
        self.process.kill()
    }

    pub fn restart(&self) -> Result<()> {
        self.kill()?;
        self.start_again()
    }

    pub fn process(&self) -> &Process {
        &self.process
    }

    pub fn http_port(&self) -> u16 {
        self.http_port
    }

    /// Of the native protocol.
    pub fn tcp_port(&self) -> u16 {
        self.tcp_port
    }

    /// Without credentials.
    pub fn http_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.http_port)
    }

    pub fn user(&self) -> &str {
        USER
    }

    pub fn password(&self) -> &str {
        &self.password
    }

    /// Runs a statement; what it returns, as tab-separated text without the last end of line.
    pub fn query(&self, sql: &str) -> Result<String> {
        let head = format!(
            "POST / HTTP/1.0\r\nX-ClickHouse-User: {USER}\r\nX-ClickHouse-Key: {}\r\n\
             X-ClickHouse-Format: TabSeparated\r\n",
            self.password
        );
        let (status, body) = http::request(self.http_port, &head, sql.as_bytes())?;
        let text = String::from_utf8_lossy(&body).into_owned();
        ensure!(status == 200, "ClickHouse answers {status} to {sql}\n{text}");
        Ok(text.trim_end_matches('\n').to_owned())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.process.directory().join(name)
    }
}

/// Debian's if it is there: another may be a script around one.
fn python() -> &'static Path {
    let debian = Path::new("/usr/bin/python3");
    if debian.exists() {
        debian
    } else {
        Path::new("python3")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clickhouse_answers_and_keeps_its_tables_and_its_log() {
        let server = ClickHouse::start().unwrap();
        assert_eq!(server.query("SELECT currentUser(), 6 * 7").unwrap(), "pgflow\t42");
        server.query("CREATE TABLE kept (a Int64) ENGINE = MergeTree ORDER BY a").unwrap();
        server.query("INSERT INTO kept SELECT number FROM numbers(10)").unwrap();
        let error = server.query("SELECT nonsense").unwrap_err().to_string();
        assert!(error.contains("Code: 47"), "{error}");
        for _ in 0..2 {
            server.query("SYSTEM FLUSH LOGS").unwrap();
            server.restart().unwrap();
            assert_eq!(server.query("SELECT count() FROM kept").unwrap(), "10");
            let logged =
                "SELECT count() FROM system.query_log WHERE type = 'QueryFinish' AND query LIKE 'INSERT INTO kept%'";
            assert_eq!(server.query(logged).unwrap(), "1");
        }
        // The user without a password sees nothing.
        let anonymous =
            http::request(server.http_port, "POST / HTTP/1.0\r\n", b"SELECT * FROM system.processes").unwrap();
        assert_ne!(anonymous.0, 200);
    }
}
