//! Random plans, and a count of what is in them.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{excluded, Expected, Who, Word};
use crate::plan::{Does, Edge, Node, Only, Plan, StepNo};
use crate::rng::Rng;

/// How much goes wrong in a plan. Some plans have no failures, so that deep graphs are run to their end too.
struct Mood {
    own_fails: u64,
    step_fails: u64,
}

/// A plan of 3 to 60 nodes.
pub fn random_plan(rng: &mut Rng) -> Plan {
    let mood = match rng.between(0, 4) {
        0 => Mood { own_fails: 0, step_fails: 0 },
        1 => Mood { own_fails: 20, step_fails: 15 },
        _ => Mood { own_fails: 7, step_fails: 5 },
    };
    let count = if rng.percent(70) { rng.between(3, 25) } else { rng.between(26, 60) };
    let mut plan = Plan::default();
    for number in 0..count {
        let parents = random_parents(rng, number);
        plan.nodes.push(Node { parents, ..random_node(rng, &mood) });
    }
    plan.only = random_only(rng, count);
    add_early_steps(rng, &mut plan);
    plan.listed = (0..count).collect();
    rng.shuffle(&mut plan.listed);
    plan
}

fn random_parents(rng: &mut Rng, number: usize) -> Vec<Edge> {
    let wanted = match rng.between(0, 9) {
        0 => 0,
        1..=5 => 1,
        6..=7 => 2,
        8 => 3,
        _ => rng.between(3, 8),
    };
    // Mostly near ones, so that there are long paths.
    let near = if rng.percent(70) { number.saturating_sub(5) } else { 0 };
    let mut parents: Vec<usize> = (near..number).collect();
    rng.shuffle(&mut parents);
    parents.truncate(wanted);
    parents.into_iter().map(|parent| Edge { parent, continue_on_failure: rng.percent(25) }).collect()
}

fn random_node(rng: &mut Rng, mood: &Mood) -> Node {
    let mut node = Node::plain();
    node.empty = rng.percent(12);
    node.all_steps_must_complete = rng.percent(65);
    node.own = random_does(rng, mood.own_fails);
    if !rng.percent(45) {
        return node;
    }
    let steps = rng.between(1, 6);
    for step in 1..=steps {
        let mut does = random_does(rng, mood.step_fails);
        if rng.percent(25) {
            does.pushes = some_steps(rng, steps, 2);
        }
        node.steps.insert(step, does);
    }
    if rng.percent(50) {
        node.static_steps = some_steps(rng, steps, 4);
        node.static_steps.sort_unstable();
        node.static_steps.dedup(); // twice the same one is a fault of the configuration, not a no-op
    }
    if !node.empty && (node.static_steps.is_empty() || rng.percent(50)) {
        node.own.pushes = some_steps(rng, steps, 6);
    }
    node
}

fn random_does(rng: &mut Rng, fails: u64) -> Does {
    let commits = rng.percent(25);
    let pause_ms = if commits && rng.percent(40) { rng.between(1, 15) } else { 0 };
    Does { pushes: Vec::new(), commits, pause_ms, fails: rng.percent(fails) }
}

/// Some of the steps 1 to `last`, now and then one of them twice.
fn some_steps(rng: &mut Rng, last: StepNo, most: usize) -> Vec<StepNo> {
    (0..rng.between(1, most)).map(|_| rng.between(1, last)).collect()
}

fn random_only(rng: &mut Rng, count: usize) -> Option<Only> {
    if !rng.percent(25) {
        return None;
    }
    let percent = rng.between(10, 80) as u64;
    let mut nodes: Vec<usize> = (0..count).filter(|_| rng.percent(percent)).collect();
    if nodes.is_empty() {
        nodes.push(rng.between(0, count - 1));
    }
    Some(Only { nodes, add_parents: rng.percent(30), add_children: rng.percent(30) })
}

/// Steps that the starting session pushes. Only to nodes that have not ended when `run_flow` returns.
fn add_early_steps(rng: &mut Rng, plan: &mut Plan) {
    let at_once = ended_at_once(plan);
    let excluded = excluded(plan);
    for (number, node) in plan.nodes.iter_mut().enumerate() {
        if !node.steps.is_empty() && !at_once[number] && !excluded[number] && rng.percent(20) {
            node.early_steps = some_steps(rng, node.steps.len(), 2);
        }
    }
}

/// Nodes that have nothing to do and nothing to wait for. Parents have lower numbers here.
fn ended_at_once(plan: &Plan) -> Vec<bool> {
    let excluded = excluded(plan);
    let mut ended: Vec<bool> = Vec::with_capacity(plan.nodes.len());
    for (number, node) in plan.nodes.iter().enumerate() {
        let idle = excluded[number] || (node.empty && node.static_steps.is_empty());
        ended.push(idle && node.parents.iter().all(|edge| ended[edge.parent]));
    }
    ended
}

/// How often each feature occurs.
pub type Features = BTreeMap<&'static str, usize>;

/// All features that 200 plans must show between them.
pub const FEATURES: [&str; 24] = [
    "nodes",
    "nodes finished",
    "nodes failed",
    "nodes skipped",
    "nodes excluded",
    "nodes excluded and skipped",
    "nodes run below a failed or skipped parent",
    "empty nodes",
    "empty nodes with steps",
    "continue_on_failure edges",
    "own callbacks that fail",
    "own callbacks that push, commit and fail",
    "callbacks that commit",
    "steps",
    "static steps",
    "pushed steps",
    "steps pushed twice in one push",
    "steps both static and pushed",
    "steps that push",
    "steps that fail",
    "nodes finished in spite of failed steps",
    "steps pushed by the starting session",
    "runs with only_these_nodes",
    "runs with _add_parents or _add_children",
];

/// Adds what occurs in a plan, given what is expected of it.
pub fn count_features(plan: &Plan, expected: &Expected, counts: &mut Features) {
    let mut add = |feature: &'static str, count: usize| {
        debug_assert!(FEATURES.contains(&feature), "{feature} is not listed");
        *counts.entry(feature).or_default() += count;
    };
    let excluded = excluded(plan);
    let word = |node: usize| expected.nodes[node].word;
    add("nodes", plan.nodes.len());
    add("runs with only_these_nodes", plan.only.is_some().into());
    let extended = plan.only.as_ref().is_some_and(|only| only.add_parents || only.add_children);
    add("runs with _add_parents or _add_children", extended.into());
    for (number, node) in plan.nodes.iter().enumerate() {
        add("continue_on_failure edges", node.parents.iter().filter(|edge| edge.continue_on_failure).count());
        add("nodes excluded", excluded[number].into());
        match word(number) {
            Word::Finished => add("nodes finished", 1),
            Word::Failed => add("nodes failed", 1),
            Word::Skipped => add("nodes skipped", 1),
        }
        add("nodes excluded and skipped", (excluded[number] && word(number) == Word::Skipped).into());
        if !expected.nodes[number].runs {
            continue;
        }
        let below_failure = node.parents.iter().any(|edge| word(edge.parent) != Word::Finished);
        add("nodes run below a failed or skipped parent", below_failure.into());
        let failed_steps = expected.nodes[number].steps.is_some_and(|steps| steps.failed > 0);
        add("nodes finished in spite of failed steps", failed_steps.into());
        add("empty nodes", node.empty.into());
        add("empty nodes with steps", (node.empty && !node.static_steps.is_empty()).into());
        add("static steps", node.static_steps.len());
        add("steps pushed by the starting session", node.early_steps.len());
        add("steps", expected.nodes[number].steps.map_or(0, |steps| steps.all));
        let statics: BTreeSet<StepNo> = node.static_steps.iter().copied().collect();
        for (who, does) in callbacks(node) {
            let own = who == Who::Own;
            let pushed: BTreeSet<StepNo> = does.pushes.iter().copied().collect();
            add("callbacks that commit", does.commits.into());
            add("pushed steps", pushed.len());
            add("steps pushed twice in one push", does.pushes.len() - pushed.len());
            add("steps both static and pushed", statics.intersection(&pushed).count());
            add("own callbacks that fail", (own && does.fails).into());
            let doomed = own && does.fails && does.commits && !does.pushes.is_empty();
            add("own callbacks that push, commit and fail", doomed.into());
            add("steps that push", (!own && !does.pushes.is_empty()).into());
            add("steps that fail", (!own && does.fails).into());
        }
    }
}

fn callbacks(node: &Node) -> impl Iterator<Item = (Who, &Does)> {
    let own = (!node.empty).then_some((Who::Own, &node.own));
    own.into_iter().chain(node.steps.iter().map(|(step, does)| (Who::Step(*step), does)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::expect;

    #[test]
    fn the_same_seed_gives_the_same_plan() {
        let plan = |seed| format!("{:?}", random_plan(&mut Rng::new(seed)));
        assert_eq!(plan(7), plan(7));
        assert_ne!(plan(7), plan(8));
    }

    #[test]
    fn two_hundred_plans_show_every_feature() {
        for seed in 0..20 {
            let mut rng = Rng::new(seed);
            let mut counts = Features::new();
            for _ in 0..200 {
                let plan = random_plan(&mut rng);
                assert!((3..=60).contains(&plan.nodes.len()));
                count_features(&plan, &expect(&plan), &mut counts);
            }
            for feature in FEATURES {
                assert!(counts.get(feature).is_some_and(|count| *count > 0), "seed {seed}: no {feature}");
            }
        }
    }
}
