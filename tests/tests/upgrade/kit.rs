//! What the tests of this binary share: the versions there are, databases of an earlier one, short checks.

use std::path::PathBuf;
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use anyhow::{ensure, Context, Result};
use pgflow_tests::cluster::{Cluster, Options};
use pgflow_tests::database::Database;
use pgflow_tests::session::Session;

/// The version that is installed.
pub const CURRENT: &str = env!("CARGO_PKG_VERSION");

pub const SOON: Duration = Duration::from_secs(20);

/// A file of the repository.
pub fn file(path: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).join(path)
}

/// The versions before the current one: those whose scripts are kept.
pub fn earlier() -> Result<Vec<String>> {
    let mut versions = Vec::new();
    for entry in file("sql").read_dir()? {
        let name = entry?.file_name().into_string().unwrap_or_default();
        let version = name.strip_prefix("pgflow--").and_then(|rest| rest.strip_suffix(".sql"));
        versions.extend(version.filter(|v| !v.contains("--") && *v != CURRENT).map(str::to_owned));
    }
    ensure!(!versions.is_empty(), "no earlier version in sql/");
    Ok(versions)
}

pub fn shared() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    static FIRST: Mutex<()> = Mutex::new(());
    let _one = FIRST.lock();
    CLUSTER.get_or_init(|| {
        let cluster = start(Cluster::options().setting("pgflow.worker_idle_time", "5s"));
        // The first extension creates the roles, which are the whole cluster's.
        cluster.database("first").unwrap_or_else(|error| panic!("cannot create an extension: {error:#}"));
        cluster
    })
}

/// Starts a cluster, one at a time: a port is taken only when its server listens.
pub fn start(options: Options) -> Cluster {
    static STARTING: Mutex<()> = Mutex::new(());
    let _one = STARTING.lock();
    options.start().unwrap_or_else(|error| panic!("cannot start a cluster: {error:#}"))
}

/// A database whose extension is of an earlier version.
pub fn of_version<'c>(cluster: &'c Cluster, name: &str, version: &str) -> Result<Database<'c>> {
    let database = cluster.plain_database(name)?;
    database.connect()?.run(&format!("CREATE EXTENSION pgflow VERSION '{version}'"))?;
    Ok(database)
}

/// A database as a server of version 0.1.0 had left it in the middle of work.
pub fn left_by_0_1_0<'c>(cluster: &'c Cluster, name: &str) -> Result<Database<'c>> {
    let database = of_version(cluster, name, "0.1.0")?;
    database.role("upgrade_alice")?;
    let left = std::fs::read_to_string(file("tests/upgrade/0.1.0.sql")).context("tests/upgrade/0.1.0.sql")?;
    cluster.psql(name, "postgres", &left)?;
    // It stayed where it was: what was loaded here is no copy.
    database.connect()?.run(
        "UPDATE async.engine_state e SET system_identifier = w.system_identifier, database_oid = w.database_oid
         FROM async.whereabouts() w",
    )?;
    Ok(database)
}

/// Updates to the current version.
pub fn update(session: &mut Session) -> Result<()> {
    session.run("ALTER EXTENSION pgflow UPDATE").with_context(|| {
        format!("the update to {CURRENT} fails: see the head of sql/upgrade/*--{CURRENT}.sql for what is written there by hand")
    })
}

pub fn pause(milliseconds: u64) {
    std::thread::sleep(Duration::from_millis(milliseconds));
}

/// The two must be equal; says what was found if not.
pub fn same<T: PartialEq<U> + std::fmt::Debug, U: std::fmt::Debug>(found: T, wanted: U) -> Result<()> {
    ensure!(found == wanted, "found  {found:?}\nwanted {wanted:?}");
    Ok(())
}

/// A text must have this part in it.
pub fn contains(text: &str, part: &str) -> Result<()> {
    ensure!(text.contains(part), "found  {text:?}\nwanted {part:?} in it");
    Ok(())
}
