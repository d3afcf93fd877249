//! Much at once: hundreds of jobs, and a result that does not fit into memory's share.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use pgflow_executor::job::{Ending, Secret};
use pgflow_executor::results::{Compression, Format, Keep, Store};
use pgflow_tests::servers::s3::{BUCKET, S3};

use crate::bench::{Bench, MEMORY};
use crate::rules::finished;
use crate::subject::Subject;

const CROWD: usize = 500;
const LARGE: u64 = 64 * 1024 * 1024;
/// What the process may grow by, with the result in transit.
const GROWTH: u64 = 32 * 1024 * 1024;

pub fn hundreds_are_in_flight_at_once<S: Subject>(bench: &mut Bench<S>) {
    let target = bench.direct();
    bench.subject.close_gate();
    let mut jobs = Vec::new();
    for number in 0..CROWD {
        let work = bench.subject.gated_effect(&format!("crowd-{number}"));
        let job = bench.job(&target, work);
        bench.begin(&job);
        jobs.push(job);
    }
    bench.wait_for_running(CROWD);
    bench.subject.open_gate();
    for (number, job) in jobs.iter().enumerate() {
        let ended = bench.end(job);
        assert!(finished(&ended), "{ended:?}");
        assert_eq!(bench.effects(&format!("crowd-{number}")), 1);
    }
}

pub fn a_large_result_takes_little_memory<S: Subject>(bench: &mut Bench<S>) {
    let s3 = S3::start().unwrap();
    let options = [
        ("endpoint", s3.endpoint()),
        ("region", "us-east-1".into()),
        ("allow_http", "true".into()),
        ("access_key_id", s3.access_key().into()),
        ("secret_access_key", s3.secret_key().into()),
    ];
    let options: BTreeMap<String, Secret> = options.into_iter().map(|(k, v)| (k.into(), Secret::new(v))).collect();
    let store = Arc::new(Store { name: "results".into(), url: format!("s3://{BUCKET}/large"), options });
    let target = bench.direct();
    let keep = |bench: &mut Bench<S>, bytes: u64, path: &str| {
        let work = bench.subject.large(bytes);
        let mut job = bench.job(&target, work);
        job.keep = Keep::Object {
            store: store.clone(),
            path: path.into(),
            format: Format::Csv,
            compression: Compression::None,
        };
        let Ending::Finished(done) = bench.run(&job).ending else { panic!("the result was not stored") };
        done.kept.expect("nothing was kept")
    };
    // What is needed once in any case: connections, buffers.
    keep(bench, 1024 * 1024, "small.csv");

    bench.shared = None;
    let _alone = MEMORY.write();
    fs::write("/proc/self/clear_refs", "5").expect("cannot reset the peak of this process's memory");
    let before = memory("VmRSS:");
    let kept = keep(bench, LARGE, "large.csv");
    let grown = memory("VmHWM:").saturating_sub(before);
    let stored = fs::metadata(s3.bucket_directory().join("large/large.csv")).expect("there is no object").len();
    assert!(stored >= LARGE && kept.bytes == Some(stored), "{stored} bytes are stored, told are {:?}", kept.bytes);
    assert!(grown < GROWTH, "the process grew by {grown} bytes for a result of {stored}");
}

/// A line of /proc/self/status, in bytes.
fn memory(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() * 1024
}
