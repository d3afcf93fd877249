//! What keeps a job from a server: who is down is tried again, who says no is not.

use anyhow::Result;
use pgflow_executor::job::{Ending, Failure, Secret, Target};
use pgflow_executor::kinds::by_name;
use pgflow_tests::cluster::{Cluster, Stop};
use serde_json::json;

use crate::kit::*;

fn down(bench: &mut Bench, string: &str) -> Failure {
    match bench.run(&job(string, query("SELECT 1"))) {
        Ending::Again { failure, down: true, .. } => failure,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_server_that_refuses_is_not_tried_again() -> Result<()> {
    let (string, _) = database("refuses")?;
    let mut bench = Bench::new();
    let with = |user: &str| string.replace("user=postgres", user);
    bench.done(&job(&with("user=pw_ann password=hunter22"), query("SELECT 1")))?;
    for (string, code) in [
        (with("user=pw_ann password=hunter23"), "28P01"),
        (with("user=pw_ann"), "28P01"),
        (with("user=nobody"), "28000"),
        (string.replace("dbname=refuses", "dbname=nowhere"), "3D000"),
    ] {
        let failure = bench.failure(&job(&string, query("SELECT 1")))?;
        assert_eq!(failure.code.as_deref(), Some(code), "{failure:?}");
        assert!(failure.hint.is_some() && !failure.to_string().contains("hunter"), "{failure:?}");
        // It is there, though it refuses.
        assert_eq!(bench.probe(&target(&string, json!({}))), Ok(()));
    }
    Ok(())
}

#[test]
fn a_server_that_is_not_there_is_tried_again() -> Result<()> {
    let mut bench = Bench::new();
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let nobody = format!("host=127.0.0.1 port={port} user=x");
    let failure = down(&mut bench, &nobody);
    assert!(failure.message.contains("nobody listens"), "{failure:?}");
    assert!(bench.probe(&target(&nobody, json!({}))).is_err());
    assert!(down(&mut bench, "host=there.invalid user=x").message.contains("name is not known"));
    assert!(down(&mut bench, "host=/tmp/no-such-directory user=x").message.contains("cannot connect"));
    Ok(())
}

#[test]
fn one_of_several_hosts_will_do() -> Result<()> {
    let (string, _) = database("several_hosts")?;
    let mut bench = Bench::new();
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let both = string.replace("host=127.0.0.1 port=", &format!("host=127.0.0.1,127.0.0.1 port={port},"));
    bench.done(&job(&both, query("SELECT 1")))?;
    bench
        .done(&job(&format!("{both} target_session_attrs=read-write load_balance_hosts=random"), query("SELECT 1")))?;
    bench.done(&job(&format!("{both} target_session_attrs=prefer-standby"), query("SELECT 1")))?;
    let failure = down(&mut bench, &format!("{string} target_session_attrs=standby"));
    assert!(failure.message.contains("no standby"), "{failure:?}");
    let socket = string.replace("host=127.0.0.1", &format!("host={}", shared().directory().display()));
    bench.done(&job(&socket, query("SELECT 1")))?;
    Ok(())
}

#[test]
fn a_server_that_takes_no_writes_is_read_without_its_inbox() -> Result<()> {
    let (string, mut session) = database("takes_no_writes")?;
    session.run(INBOX)?;
    session.run("ALTER DATABASE takes_no_writes SET default_transaction_read_only = on")?;
    let mut bench = Bench::new();
    for _ in 0..2 {
        bench.rows(job(&string, query("SELECT 1 AS x")))?;
    }
    let failure = bench.failure(&job(&string, query("CREATE TABLE t (x INT)")))?;
    assert!(failure.hint.unwrap_or_default().contains("target_session_attrs"), "{}", failure.message);
    Ok(())
}

#[test]
fn a_server_that_is_full_is_tried_again() -> Result<()> {
    let (string, mut session) = database("is_full")?;
    session.run("CREATE ROLE narrow LOGIN CONNECTION LIMIT 0")?;
    let failure = down(&mut Bench::new(), &string.replace("user=postgres", "user=narrow"));
    assert_eq!(failure.code.as_deref(), Some("53300"));
    Ok(())
}

#[test]
fn a_restart_of_the_server_is_survived() -> Result<()> {
    let cluster = start(Cluster::options());
    let string = string(&cluster, "postgres");
    let mut bench = Bench::new();
    bench.done(&job(&string, query("SELECT 1")))?;
    cluster.restart(Stop::Fast)?;
    bench.done(&job(&string, query("SELECT 1")))?;
    let slow = job(&string, query("SELECT pg_sleep(300)"));
    bench.begin(&slow);
    let running = format!("SELECT count(*) FROM pg_stat_activity WHERE application_name = '{}'", slow.attempt_key(1));
    wait_for(&mut cluster.connect("postgres", "postgres")?, &running, "1")?;
    cluster.stop(Stop::Immediate)?;
    let (_, ending, _) = bench.ending();
    assert!(matches!(ending, Ending::Lost(_)), "{ending:?}");
    down(&mut bench, &string);
    cluster.start()?;
    assert_eq!(bench.probe(&target(&string, json!({}))), Ok(()));
    bench.done(&job(&string, query("SELECT 1")))?;
    Ok(())
}

#[test]
fn a_target_of_no_superuser_needs_a_password_that_is_asked_for() -> Result<()> {
    let (string, _) = database("needs_password")?;
    let mut bench = Bench::new();
    let socket = string.replace("host=127.0.0.1", &format!("host={}", shared().directory().display()));
    let required = |string: &str, mapping: &[(&str, &str)]| {
        let mut target = Target { password_required: true, ..target(string, json!({})) };
        target.connection_options = mapping.iter().map(|(k, v)| ((*k).to_owned(), Secret::new(*v))).collect();
        target.fingerprint = fingerprint(&target);
        job_at(target, query("SELECT 1"))
    };
    // None at all; one that trust does not ask for, over the network and by a socket; for a user that it is asked of.
    for refused in [
        required(&string, &[]),
        required(&string, &[("password", "hunter22")]),
        required(&string, &[("password", "hunter22"), ("password_required", "false")]),
        required(&socket, &[("password", "hunter22")]),
        required(&string, &[("user", "pw_ann")]),
    ] {
        let failure = bench.failure(&refused)?;
        assert_eq!((failure.code.as_deref(), failure.message.as_str()), (Some("2F003"), "password is required"));
    }
    bench.done(&required(&string, &[("user", "pw_ann"), ("password", "hunter22")]))?;
    // A connection of an administrator's target is not lent to anybody else.
    bench.done(&job(&string, query("SELECT 1")))?;
    bench.failure(&required(&string, &[]))?;
    Ok(())
}

#[test]
fn a_configuration_is_checked_before_it_is_used() {
    let kind = by_name("postgres").unwrap();
    let faults = kind.check_target(&target("host=a passfile=/x hots=b", json!({"idel_time": 5, "inbox": "on"})));
    let texts: Vec<String> = faults.iter().map(|f| format!("{} {}", f.path, f.message)).collect();
    assert_eq!(faults.len(), 4, "{texts:?}");
    assert!(texts.iter().any(|t| t.contains("is idle_time meant?")), "{texts:?}");
    assert!(texts.iter().any(|t| t.contains("is host meant?")), "{texts:?}");
    let pooled = kind.check_target(&target("host=a options='-c x=y'", json!({"pooler": true})));
    assert_eq!(pooled.len(), 1);
    assert!(kind.check_target(&target("host=a", json!({"max_attempts": 3}))).is_empty());
    assert_eq!(kind.check_options(json!({"paramters": {}}).as_object().unwrap()).len(), 1);
}
