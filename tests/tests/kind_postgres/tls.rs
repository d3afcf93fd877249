//! Encryption and who is believed to be the server, in every mode that libpq knows.

use std::path::Path;

use anyhow::Result;
use pgflow_executor::job::{Ending, Job, Secret, Target};
use pgflow_tests::cluster::Cluster;
use pgflow_tests::postmaster::run;
use pgflow_tests::servers::certificates::Authority;
use serde_json::json;

use crate::kit::*;

struct Place {
    cluster: Cluster,
    authority: Authority,
    stranger: Authority,
}

impl Place {
    /// A server that asks ann for a password and lets her in over TLS only.
    fn new() -> Result<Place> {
        let authority = Authority::new()?;
        let certificate = authority.server(&["DNS:db.example", "DNS:localhost"])?;
        let cluster = start(Cluster::options().with_tls(&certificate));
        cluster
            .connect("postgres", "postgres")?
            .run("CREATE ROLE ann LOGIN PASSWORD 'hunter22'; CREATE ROLE plain LOGIN PASSWORD 'hunter22'")?;
        admit(&cluster, "hostnossl all plain all scram-sha-256\nhostssl all plain all reject");
        Ok(Place { cluster, authority, stranger: Authority::new()? })
    }

    fn job(&self, options: &str) -> Job {
        let port = self.cluster.port();
        let text = "SELECT ssl AS s, coalesce(version, '') AS v FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
        let string = format!("hostaddr=127.0.0.1 port={port} dbname=postgres password=hunter22 {options}");
        Job { keep: inline(), ..job(&string, query(text)) }
    }
}

#[test]
fn each_mode_takes_what_it_should_and_nothing_else() -> Result<()> {
    let place = Place::new()?;
    let mut bench = Bench::new();
    let ours = format!("sslrootcert={}", place.authority.file().display());
    let other = format!("sslrootcert={}", place.stranger.file().display());
    // Who, the options, and what comes of it: whether it is encrypted, or the word that says why not.
    let cases: Vec<(&str, String, Result<bool, &str>)> = vec![
        ("ann", "host=db.example".into(), Ok(true)),
        ("ann", "host=db.example sslmode=disable".into(), Err("no encryption")),
        ("ann", "host=db.example sslmode=allow".into(), Ok(true)),
        ("ann", "host=db.example sslmode=require".into(), Ok(true)),
        ("ann", "sslmode=require".into(), Ok(true)),
        ("ann", "host=db.example sslmode=require channel_binding=require".into(), Ok(true)),
        ("plain", "host=db.example".into(), Ok(false)),
        ("plain", "host=db.example sslmode=allow".into(), Ok(false)),
        ("plain", "host=db.example sslmode=disable".into(), Ok(false)),
        ("plain", "host=db.example sslmode=disable channel_binding=require".into(), Err("channel binding")),
        ("plain", "host=db.example sslmode=require".into(), Err("rejects")),
        ("ann", format!("host=db.example sslmode=verify-full {ours}"), Ok(true)),
        ("ann", format!("host=elsewhere.example sslmode=verify-full {ours}"), Err("not valid for name")),
        ("ann", format!("sslmode=verify-full {ours}"), Err("not valid for name")),
        ("ann", format!("host=elsewhere.example sslmode=verify-ca {ours}"), Ok(true)),
        ("ann", format!("host=db.example sslmode=verify-full {other}"), Err("Name the file with the authority's")),
        ("ann", format!("host=db.example sslmode=verify-ca {other}"), Err("Name the file with the authority's")),
        ("ann", format!("host=db.example sslmode=require {other}"), Err("Name the file with the authority's")),
        // The system's authorities have not signed it.
        ("ann", "host=db.example sslrootcert=system".into(), Err("Name the file with the authority's")),
        ("ann", "host=db.example sslmode=verify-full sslrootcert=/nowhere".into(), Err("/nowhere")),
    ];
    for (user, options, expected) in cases {
        match (bench.run(&place.job(&format!("user={user} {options}"))), expected) {
            (Ending::Finished(done), Ok(encrypted)) => {
                let row = &done.kept.unwrap().content.unwrap()[0];
                assert_eq!(row["s"], json!(encrypted), "{user} {options}");
                assert!(!encrypted || row["v"] == json!("TLSv1.3"), "{row:?}");
            }
            (Ending::Failed(failure), Err(word)) => {
                assert!(failure.to_string().contains(word), "{user} {options}: {failure}");
                assert!(!failure.to_string().contains("hunter22"), "{failure}");
            }
            (ending, expected) => panic!("{user} {options}: {ending:?}, not {expected:?}"),
        }
    }
    Ok(())
}

#[test]
fn a_stop_goes_over_tls_too() -> Result<()> {
    let place = Place::new()?;
    let mut bench = Bench::new();
    let root = place.authority.file();
    let options = format!("user=ann host=db.example sslmode=verify-full sslrootcert={}", root.display());
    let slow = Job { work: query("SELECT pg_sleep(300)"), ..place.job(&options) };
    bench.begin(&slow);
    let mut session = place.cluster.connect("postgres", "postgres")?;
    let active = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = '{}' AND wait_event = 'PgSleep'",
        slow.attempt_key(1)
    );
    wait_for(&mut session, &active, "1")?;
    bench.stop(&slow);
    assert!(matches!(bench.ending().1, Ending::Stopped));
    wait_for(&mut session, &active, "0")?;
    // Whether a password was asked for is seen in the tunnel as well.
    let with = |user: &str| {
        let port = place.cluster.port();
        let string = format!("host=localhost port={port} dbname=postgres sslmode=require user={user}");
        let mut target = Target { password_required: true, ..target(&string, json!({})) };
        target.connection_options = [("password".to_owned(), Secret::new("hunter22"))].into();
        target.fingerprint = fingerprint(&target);
        job_at(target, query("SELECT 1"))
    };
    bench.done(&with("ann"))?;
    assert_eq!(bench.failure(&with("postgres"))?.message, "password is required");
    Ok(())
}

#[test]
fn a_server_without_tls_is_refused_where_it_is_demanded() -> Result<()> {
    let (string, _) = database("without_tls")?;
    let mut bench = Bench::new();
    bench.done(&job(&format!("{string} sslmode=prefer"), query("SELECT 1")))?;
    let failure = bench.failure(&job(&format!("{string} sslmode=require"), query("SELECT 1")))?;
    assert!(failure.message.contains("does not support TLS") && failure.hint.is_some(), "{failure:?}");
    Ok(())
}

#[test]
fn a_certificate_that_signs_itself_is_named_as_its_own_authority() -> Result<()> {
    let cluster = start(Cluster::options());
    let data = cluster.data();
    let made = |name: &str, days: &str| {
        let file = |kind: &str| data.join(format!("{name}.{kind}"));
        run(std::process::Command::new("openssl")
            .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", days, "-subj", "/CN=self"])
            .args(["-addext", "subjectAltName=DNS:self.example"])
            .arg("-keyout")
            .arg(file("key"))
            .arg("-out")
            .arg(file("pem")))
        .map(|_| file("pem"))
    };
    let root = made("self", "30")?;
    let other = made("other", "30")?;
    own(&data)?;
    cluster.set(&[
        ("ssl_cert_file".into(), "self.pem".into()),
        ("ssl_key_file".into(), "self.key".into()),
        ("ssl".into(), "on".into()),
    ])?;
    cluster.reload()?;
    std::thread::sleep(std::time::Duration::from_millis(500));
    let mut bench = Bench::new();
    let mut with = |host: &str, mode: &str, root: &Path| {
        let (port, root) = (cluster.port(), root.display());
        let string =
            format!("host={host} hostaddr=127.0.0.1 port={port} user=postgres sslmode={mode} sslrootcert={root}");
        bench.run(&job(&string, query("SELECT 1")))
    };
    assert!(matches!(with("self.example", "verify-full", &root), Ending::Finished(_)));
    assert!(matches!(with("other.example", "verify-ca", &root), Ending::Finished(_)));
    assert!(matches!(with("other.example", "verify-full", &root), Ending::Failed(_)));
    assert!(matches!(with("self.example", "verify-full", &other), Ending::Failed(_)));
    Ok(())
}

/// Gives files to whoever runs the server.
fn own(data: &Path) -> Result<()> {
    let reference = format!("--reference={}", data.join("postgresql.conf").display());
    for name in ["self.key", "self.pem", "other.pem"] {
        run(std::process::Command::new("chown").arg(&reference).arg(data.join(name)))?;
    }
    run(std::process::Command::new("chmod").arg("600").arg(data.join("self.key"))).map(drop)
}
