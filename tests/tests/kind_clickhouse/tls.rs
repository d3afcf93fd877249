//! https://: whom the queries, and the statements of our own beside them, trust.

use pgflow_executor::job::{Ending, Secret, Target};
use pgflow_tests::servers::certificates::Authority;
use pgflow_tests::servers::terminator::Terminator;
use serde_json::{json, Value};

use crate::kit::{done, end, job_on, kind, map, run, running, server, start, target, until};

#[tokio::test]
async fn certificates_are_checked_by_queries_probes_and_kills() {
    let authority = Authority::new().unwrap();
    let certificate = authority.server(&["DNS:localhost"]).unwrap();
    let terminator = Terminator::start(server().http_port(), &certificate).unwrap();
    let of = |number: u64, host: &str, options: Value| {
        let (user, password, port) = (server().user(), server().password(), terminator.port());
        let string = Some(Secret::new(format!("https://{user}:{password}@{host}:{port}/default")));
        let plain = target(server(), terminator.port());
        Target { connection_string: string, fingerprint: number, options: map(options), ..plain }
    };
    let ca_file = authority.file().display().to_string();
    let good = [
        of(1, "localhost", json!({"ca_file": ca_file})),
        of(2, "127.0.0.1", json!({"ca_file": ca_file, "verify": "ca"})),
        of(3, "127.0.0.1", json!({"verify": "none"})),
    ];
    for target in good {
        kind().probe(&target).await.unwrap();
        done(run(&job_on(target.clone(), "SELECT 1")).await);
        let job = job_on(target, "SELECT sleepEachRow(1) FROM numbers(3600) SETTINGS max_block_size = 1");
        let run = start(&kind(), &job);
        until("it runs", async || running(server(), &job).await == 1).await;
        run.context.stop.cancel();
        assert!(matches!(end(run).await, Ending::Stopped));
        until("it is killed", async || running(server(), &job).await == 0).await;
    }
    // Signed by nobody whom the system knows; another name than the certificate's.
    for bad in [of(4, "localhost", json!({})), of(5, "127.0.0.1", json!({"ca_file": ca_file}))] {
        let failure = kind().probe(&bad).await.unwrap_err();
        assert!(failure.message.contains("certificate"), "{failure}");
        assert!(failure.hint.as_deref().is_some_and(|hint| hint.contains("ca_file")), "{failure}");
        let Ending::Again { failure, down: true, .. } = run(&job_on(bad, "SELECT 1")).await else {
            panic!("a server that is not trusted")
        };
        assert!(failure.message.contains("certificate"), "{failure}");
    }
}
