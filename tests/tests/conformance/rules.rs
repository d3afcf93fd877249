//! What a job's ending says, while the connection holds.

use std::time::Duration;

use pgflow_executor::job::{Ending, Failure};
use pgflow_executor::results::Keep;

use crate::bench::{Bench, Ended};
use crate::subject::Subject;

pub fn failure(ended: Ended) -> Failure {
    match ended.ending {
        Ending::Failed(failure) => failure,
        other => panic!("not a failure: {other:?}"),
    }
}

/// The code of the other side, which may be followed by its name.
fn has_code(failure: &Failure, code: &str) -> bool {
    failure.code.as_deref().and_then(|told| told.split_whitespace().next()) == Some(code)
}

pub fn finished(ended: &Ended) -> bool {
    matches!(ended.ending, Ending::Finished(_))
}

pub fn work_is_done_once_and_what_it_returns_is_kept<S: Subject>(bench: &mut Bench<S>) {
    let target = bench.target();
    let work = bench.subject.effect("once");
    let job = bench.job(&target, work);
    let ended = bench.run(&job);
    assert!(finished(&ended), "{ended:?}");
    assert_eq!(bench.effects("once"), 1);

    let work = bench.subject.rows(3);
    let mut job = bench.job(&target, work);
    job.keep = Keep::Inline { max_rows: 100, max_bytes: 100_000 };
    let Ending::Finished(done) = bench.run(&job).ending else { panic!("no rows") };
    let kept = done.kept.expect("nothing was kept");
    let numbers: Vec<String> = kept.content.unwrap().iter().map(|row| row["n"].to_string()).collect();
    assert_eq!(numbers, ["1", "2", "3"]);
    let names: Vec<&str> = kept.columns.iter().map(|column| column.name.as_str()).collect();
    assert_eq!((names, kept.rows), (vec!["n", "t"], Some(3)));
}

pub fn a_failure_is_final_and_has_the_code_of_the_other_side<S: Subject>(bench: &mut Bench<S>) {
    let target = bench.target();
    let (work, code) = bench.subject.failing();
    let job = bench.job(&target, work);
    let failure = failure(bench.run(&job));
    assert!(has_code(&failure, code), "{failure}");
    assert!(!failure.message.is_empty());
    // The connection is as good as before.
    let work = bench.subject.effect("after a failure");
    let job = bench.job(&target, work);
    assert!(finished(&bench.run(&job)));
}

pub fn a_query_that_makes_no_sense_is_a_failure<S: Subject>(bench: &mut Bench<S>) {
    let target = bench.target();
    let (work, code) = bench.subject.bad();
    let job = bench.job(&target, work);
    let failure = failure(bench.run(&job));
    assert!(has_code(&failure, code), "{failure}");
}

pub fn wrong_credentials_are_a_failure_that_names_no_secret<S: Subject>(bench: &mut Bench<S>) {
    let target = Bench::<S>::settled(bench.subject.stranger(bench.proxy.port()));
    let work = bench.subject.effect("stranger");
    let job = bench.job(&target, work);
    let failure = failure(bench.run(&job));
    assert!(has_code(&failure, bench.subject.refused()), "{failure}");
    assert_eq!(bench.effects("stranger"), 0);
}

pub fn no_secret_is_in_what_the_other_side_says<S: Subject>(bench: &mut Bench<S>) {
    let target = bench.target();
    let work = bench.subject.leaking();
    let job = bench.job(&target, work);
    // The bench looks for the secret itself.
    let failure = failure(bench.run(&job));
    assert!(failure.to_string().contains("***"), "the other side was to repeat the secret: {failure}");
}

pub fn more_than_may_be_kept_is_a_failure<S: Subject>(bench: &mut Bench<S>) {
    let target = bench.target();
    for keep in [Keep::Inline { max_rows: 10, max_bytes: 1 << 20 }, Keep::Inline { max_rows: 10_000, max_bytes: 100 }] {
        let work = bench.subject.rows(1000);
        let mut job = bench.job(&target, work);
        job.keep = keep;
        let failure = failure(bench.run(&job));
        assert!(failure.hint.is_some(), "{failure}");
    }
    let work = bench.subject.effect("after too much");
    let job = bench.job(&target, work);
    assert!(finished(&bench.run(&job)));
}

pub fn a_cancelled_job_stops_here_and_there<S: Subject>(bench: &mut Bench<S>) {
    let target = bench.target();
    bench.subject.close_gate();
    let work = bench.subject.gated_effect("cancelled");
    let job = bench.job(&target, work);
    bench.begin(&job);
    bench.wait_for_running(1);
    bench.stop(&job);
    let ended = bench.end(&job);
    assert!(matches!(ended, Ended { ending: Ending::Stopped, timed_out: false }), "{ended:?}");
    bench.wait_for_running(0);
    // One that is stopped before it has begun.
    let work = bench.subject.gated_effect("never");
    let job = bench.job(&target, work);
    bench.begin(&job);
    bench.stop(&job);
    let ended = bench.end(&job);
    assert!(matches!(ended.ending, Ending::Stopped), "{ended:?}");
    bench.wait_for_running(0);
    bench.subject.open_gate();
    let work = bench.subject.effect("after a stop");
    let job = bench.job(&target, work);
    assert!(finished(&bench.run(&job)));
}

pub fn a_job_whose_time_is_up_stops_here_and_there<S: Subject>(bench: &mut Bench<S>) {
    let target = bench.target();
    bench.subject.close_gate();
    let work = bench.subject.gated_effect("late");
    let mut job = bench.job(&target, work);
    job.time_limit = Some(Duration::from_millis(1500));
    let ended = bench.run(&job);
    assert!(matches!(ended, Ended { ending: Ending::Stopped, timed_out: true }), "{ended:?}");
    bench.wait_for_running(0);
}
