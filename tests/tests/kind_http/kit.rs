//! Jobs for targets of kind `http`, and what comes of them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::Arc;

use pgflow_executor::job::{Arguments, Ending, Failure, Job, Secret, Target, Work};
use pgflow_executor::kind::{Context, Kind};
use pgflow_executor::kinds;
use pgflow_executor::results::{Keep, Kept};
use serde_json::{json, Map, Value};

static FINGERPRINTS: AtomicU64 = AtomicU64::new(1);

pub fn kind() -> Box<dyn Kind> {
    kinds::by_name("http").unwrap()
}

pub fn object(value: Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap()
}

/// A target that may reach this machine; `options` are added.
pub fn target(url: &str, options: Value) -> Target {
    let mut all = object(json!({"base_url": url, "allow_private": true}));
    all.extend(object(options));
    Target {
        name: "t".into(),
        kind: "http".into(),
        options: all,
        fingerprint: FINGERPRINTS.fetch_add(1, SeqCst),
        ..Target::default()
    }
}

pub fn job(target: &Target, request: Value) -> Job {
    Job {
        task_id: 7,
        attempt: 1,
        engine: "engine".into(),
        target: Arc::new(target.clone()),
        work: Work {
            arguments: Arguments {
                flow_id: Some(42),
                flow: Some("nightly".into()),
                flow_arguments: json!({"day": "2026-11-20"}),
                node: Some("call".into()),
                step_arguments: json!({"id": 5, "evil": "x\r\nX-Evil: 1"}),
            },
            options: object(json!({ "request": request })),
            ..Work::default()
        },
        ..Job::default()
    }
}

pub fn inline(mut job: Job) -> Job {
    job.keep = Keep::Inline { max_rows: 1000, max_bytes: 1 << 30 };
    job
}

pub fn secrets(pairs: &[(&str, &str)]) -> BTreeMap<String, Secret> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), Secret::new(*value))).collect()
}

pub fn context() -> Context {
    Context { stop: Default::default(), progress: Arc::new(|_| {}) }
}

pub async fn run(job: &Job) -> Ending {
    kind().run(job, &context()).await
}

pub fn kept(ending: Ending) -> Kept {
    match ending {
        Ending::Finished(done) => done.kept.expect("a result"),
        other => panic!("{other:?}"),
    }
}

pub fn failed(ending: Ending) -> Failure {
    match ending {
        Ending::Failed(failure) => failure,
        other => panic!("{other:?}"),
    }
}

pub fn lost(ending: Ending) -> Failure {
    match ending {
        Ending::Lost(failure) => failure,
        other => panic!("{other:?}"),
    }
}

/// (seconds to wait, whether it is down, why).
pub fn again(ending: Ending) -> (Option<u64>, bool, Failure) {
    match ending {
        Ending::Again { failure, after, down } => (after.map(|a| a.as_secs()), down, failure),
        other => panic!("{other:?}"),
    }
}

pub fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}
