//! What an attempt says when its connection breaks, and what the next one makes of it.

use std::time::Duration;

use pgflow_executor::job::{Ending, Job};
use pgflow_tests::servers::proxy::{Direction, Pattern};

use crate::bench::{Bench, Ended};
use crate::rules::finished;
use crate::subject::{Loss, Subject};

/// Nothing may be said to have finished or failed that was cut. Whether it was done is for the kind to know.
fn is_open(ended: &Ended) -> bool {
    matches!(ended.ending, Ending::Lost(_) | Ending::Again { .. })
}

/// The promise: how many effects there are, and that a receiver can tell that they are one.
fn keeps_its_promise<S: Subject>(bench: &mut Bench<S>, key: &str, loss: Loss) {
    bench.wait_for_running(0);
    let mut effects = bench.subject.effects(key);
    let promise = bench.subject.promise(loss);
    assert!(promise.contains(&effects.len()), "{} effects after {loss:?}, promised are {promise:?}", effects.len());
    effects.dedup();
    assert_eq!(effects.len(), 1, "a receiver cannot tell that these are repetitions: {effects:?}");
}

pub fn a_target_that_is_down_keeps_its_jobs_until_it_is_back<S: Subject>(bench: &mut Bench<S>) {
    let target = bench.target();
    assert_eq!(bench.probe(&target), Ok(()));
    bench.proxy.refuse();
    let work = bench.subject.effect("down");
    let job = bench.job(&target, work);
    let ended = bench.run(&job);
    assert!(matches!(ended.ending, Ending::Again { down: true, .. }), "{ended:?}");
    assert!(bench.probe(&target).is_err());
    assert_eq!(bench.effects("down"), 0);
    bench.proxy.heal();
    assert_eq!(bench.probe(&target), Ok(()));
    let ended = bench.run(&job);
    assert!(finished(&ended), "{ended:?}");
    assert_eq!(bench.effects("down"), 1);
}

pub fn cut_before_the_work_arrived<S: Subject>(bench: &mut Bench<S>) {
    let target = bench.target();
    for (key, pattern) in [("early-key", Pattern::WithheldWithAll), ("half-key", Pattern::Withheld)] {
        if pattern == Pattern::Withheld && !S::TAKES_HALVES {
            continue;
        }
        let cuts = bench.proxy.cuts();
        bench.proxy.cut_at(Direction::ToServer, key.as_bytes(), pattern);
        let work = bench.subject.effect(key);
        let job = bench.job(&target, work);
        let ended = bench.run(&job);
        assert!(is_open(&ended), "{ended:?}");
        bench.proxy.wait_for_cut(cuts).unwrap();
        assert_eq!(bench.effects(key), 0);
        bench.finish(Bench::<S>::next(&job, &ended).unwrap());
        keeps_its_promise(bench, key, Loss::Before);
    }
}

pub fn cut_while_the_work_is_done<S: Subject>(bench: &mut Bench<S>) {
    let target = bench.target();
    bench.subject.close_gate();
    let work = bench.subject.gated_effect("middle-key");
    let job = bench.job(&target, work);
    bench.begin(&job);
    bench.wait_for_running(1);
    bench.proxy.cut();
    let ended = bench.end(&job);
    assert!(matches!(ended.ending, Ending::Lost(_)), "{ended:?}");
    // The next attempt meets the one before it still at work.
    let next = Bench::<S>::next(&job, &ended).unwrap();
    bench.begin(&next);
    bench.subject.open_gate();
    let ended = bench.end(&next);
    match Bench::<S>::next(&next, &ended) {
        Some(next) => bench.finish(next),
        None => assert!(finished(&ended), "{ended:?}"),
    }
    keeps_its_promise(bench, "middle-key", Loss::During);
}

/// An attempt that did its work and could not say so.
fn lose_the_answer<S: Subject>(bench: &mut Bench<S>, key: &str) -> Job {
    let target = bench.target();
    // A connection that is open already: what is cut is the answer to the work.
    let work = bench.subject.effect("first");
    let first = bench.job(&target, work);
    assert!(finished(&bench.run(&first)));
    let cuts = bench.proxy.cuts();
    bench.proxy.cut_at(Direction::ToClient, bench.subject.answer(), Pattern::Withheld);
    let work = bench.subject.effect(key);
    let job = bench.job(&target, work);
    let ended = bench.run(&job);
    assert!(matches!(ended.ending, Ending::Lost(_)), "{ended:?}");
    bench.proxy.wait_for_cut(cuts).unwrap();
    bench.wait_for_effect(key);
    Bench::<S>::next(&job, &ended).unwrap()
}

pub fn cut_when_the_work_was_done<S: Subject>(bench: &mut Bench<S>) {
    let next = lose_the_answer(bench, "late-key");
    bench.finish(next);
    keeps_its_promise(bench, "late-key", Loss::After);
}

/// Attempts that were handed out and never got so far as to look: the engine went down, they were told to wait.
pub fn attempts_between_that_never_looked<S: Subject>(bench: &mut Bench<S>) {
    let mut next = lose_the_answer(bench, "between-key");
    for _ in 0..3 {
        next = Bench::<S>::after_unknown(&next);
    }
    bench.finish(next);
    keeps_its_promise(bench, "between-key", Loss::After);
}

pub fn cut_again_while_the_attempt_before_is_looked_up<S: Subject>(bench: &mut Bench<S>) {
    let next = lose_the_answer(bench, "twice-key");
    let Some(look) = bench.subject.look() else {
        // Nothing is looked up: the attempt is cut before its work arrives.
        bench.proxy.cut_at(Direction::ToServer, b"twice-key", Pattern::WithheldWithAll);
        bench.finish(next);
        assert_eq!(bench.proxy.cuts(), 2);
        return keeps_its_promise(bench, "twice-key", Loss::After);
    };
    for pattern in [Pattern::WithheldWithAll, Pattern::PassedOn] {
        let cuts = bench.proxy.cuts();
        bench.proxy.cut_at(Direction::ToServer, look, pattern);
        let ended = bench.run(&next);
        bench.proxy.wait_for_cut(cuts).unwrap();
        // Whether the first attempt was done is as unknown as before, and only the same attempt looks it up again.
        let open = matches!(ended.ending, Ending::Again { down: true, .. }) || finished(&ended);
        assert!(open, "what the first attempt did is forgotten after {ended:?}");
    }
    bench.finish(next);
    keeps_its_promise(bench, "twice-key", Loss::After);
}

pub fn the_server_dies_in_the_middle<S: Subject>(bench: &mut Bench<S>) {
    let target = bench.target();
    bench.subject.close_gate();
    let work = bench.subject.gated_effect("killed-key");
    let job = bench.job(&target, work);
    bench.begin(&job);
    bench.wait_for_running(1);
    bench.subject.kill();
    let ended = bench.end(&job);
    assert!(matches!(ended.ending, Ending::Lost(_)), "{ended:?}");
    let next = Bench::<S>::next(&job, &ended).unwrap();
    // There is nobody.
    let ended = bench.run(&next);
    assert!(matches!(ended.ending, Ending::Again { .. } | Ending::Lost(_)), "{ended:?}");
    let next = Bench::<S>::next(&next, &ended).unwrap();
    bench.subject.open_gate();
    bench.subject.start_again();
    bench.finish(next);
    keeps_its_promise(bench, "killed-key", Loss::Restart);
}

pub fn a_connection_that_idled_is_gone<S: Subject>(bench: &mut Bench<S>) {
    let target = bench.target();
    for round in 0..3 {
        let key = format!("idle-{round}");
        let work = bench.subject.effect(&key);
        let job = bench.job(&target, work);
        // The attempt after the cut may meet the dead connection; what it then says must be right.
        bench.finish(job);
        assert_eq!(bench.effects(&key), 1);
        bench.proxy.cut();
        std::thread::sleep(Duration::from_millis(50));
    }
}
