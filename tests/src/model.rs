//! The reference model: what must become of a plan, whatever the timing. Written from docs/semantics.md (its numbers are
//! named) and shares nothing with the engine.
//!
//! A callback leaves two marks: `Begun`, written with its COMMIT if it commits, and `Done`, written last if it succeeds.
//! How often each mark must be there is decided as follows, for a node that runs:
//!
//! * Everything its callbacks can reach runs exactly once if the node finishes.
//! * A node fails if its own callback fails, or if a step that can be reached fails and all steps must complete (C4): if
//!   nothing stopped that step, it would fail; if something did, the node has failed already.
//! * In a node that fails, what the failure may race with ("may or may not") is: every step that can be reached; and the
//!   own callback where a step that fails can start before it has returned.
//! * Steps of the configuration start after the own callback (C2): if that fails, they never run.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::plan::{Does, Node, Plan, StepNo};

/// The final status word of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Word {
    Finished,
    Failed,
    Skipped,
}

impl Word {
    /// As the status views spell it.
    pub fn text(self) -> &'static str {
        match self {
            Word::Finished => "Finished",
            Word::Failed => "Failed",
            Word::Skipped => "Skipped",
        }
    }
}

/// Whose callback leaves a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    Own,
    Step(StepNo),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mark {
    Begun,
    Done,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Times {
    Never,
    Once,
    AtMostOnce,
}

impl Times {
    pub fn allows(self, count: usize) -> bool {
        match self {
            Times::Never => count == 0,
            Times::Once => count == 1,
            Times::AtMostOnce => count <= 1,
        }
    }
}

/// How many steps a node that finished has, and how they ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct StepCounts {
    pub all: usize,
    pub finished: usize,
    pub failed: usize,
}

#[derive(Clone, Debug)]
pub struct ExpectedNode {
    pub word: Word,
    /// Whether its callbacks may be called at all.
    pub runs: bool,
    /// Of a node that fails: whose failure its error may tell of.
    pub culprits: BTreeSet<Who>,
    /// Known exactly for a node that finishes.
    pub steps: Option<StepCounts>,
    pub marks: BTreeMap<(Who, Mark), Times>,
}

#[derive(Clone, Debug)]
pub struct Expected {
    pub nodes: Vec<ExpectedNode>,
    /// Nodes that failed and those that never ran because of it (A8).
    pub count_failed_nodes: usize,
}

/// Foretells the outcome of a plan.
pub fn expect(plan: &Plan) -> Expected {
    let excluded = excluded(plan);
    let mut nodes: Vec<Option<ExpectedNode>> = vec![None; plan.nodes.len()];
    for number in order(plan) {
        let node = &plan.nodes[number];
        // C3: a parent that failed, or was skipped, blocks unless the edge says continue_on_failure.
        let blocked = node.parents.iter().any(|edge| {
            let parent = nodes[edge.parent].as_ref().map(|parent| parent.word);
            parent != Some(Word::Finished) && !edge.continue_on_failure
        });
        nodes[number] = Some(match (blocked, excluded[number]) {
            (true, _) => not_run(node, Word::Skipped),
            (false, true) => not_run(node, Word::Finished), // C9
            (false, false) => run(node),
        });
    }
    let nodes: Vec<ExpectedNode> = nodes.into_iter().flatten().collect();
    let count_failed_nodes = nodes.iter().filter(|node| node.word != Word::Finished).count();
    Expected { nodes, count_failed_nodes }
}

/// Parents before children.
fn order(plan: &Plan) -> Vec<usize> {
    let children = plan.children();
    let mut open: Vec<usize> = plan.nodes.iter().map(|node| node.parents.len()).collect();
    let mut ready: VecDeque<usize> = (0..open.len()).filter(|node| open[*node] == 0).collect();
    let mut order = Vec::with_capacity(open.len());
    while let Some(node) = ready.pop_front() {
        order.push(node);
        for child in &children[node] {
            open[*child] -= 1;
            if open[*child] == 0 {
                ready.push_back(*child);
            }
        }
    }
    assert_eq!(order.len(), plan.nodes.len(), "the plan has a cycle");
    order
}

/// Which nodes `_only_these_nodes` leaves out (C9).
pub fn excluded(plan: &Plan) -> Vec<bool> {
    let Some(only) = &plan.only else {
        return vec![false; plan.nodes.len()];
    };
    let parents: Vec<Vec<usize>> =
        plan.nodes.iter().map(|node| node.parents.iter().map(|edge| edge.parent).collect()).collect();
    let mut selected: BTreeSet<usize> = only.nodes.iter().copied().collect();
    if only.add_parents {
        selected.extend(closure(&only.nodes, |node| parents[node].clone()));
    }
    if only.add_children {
        let children = plan.children();
        selected.extend(closure(&only.nodes, |node| children[node].clone()));
    }
    (0..plan.nodes.len()).map(|node| !selected.contains(&node)).collect()
}

fn closure(from: &[usize], next: impl Fn(usize) -> Vec<usize>) -> BTreeSet<usize> {
    let mut seen = BTreeSet::new();
    let mut open: Vec<usize> = from.to_vec();
    while let Some(at) = open.pop() {
        if seen.insert(at) {
            open.extend(next(at));
        }
    }
    seen
}

fn not_run(node: &Node, word: Word) -> ExpectedNode {
    let marks =
        everyone(node).flat_map(|(who, _)| [((who, Mark::Begun), Times::Never), ((who, Mark::Done), Times::Never)]);
    ExpectedNode { word, runs: false, culprits: BTreeSet::new(), steps: None, marks: marks.collect() }
}

fn everyone(node: &Node) -> impl Iterator<Item = (Who, &Does)> {
    let steps = node.steps.iter().map(|(step, does)| (Who::Step(*step), does));
    std::iter::once((Who::Own, &node.own)).chain(steps)
}

/// Steps that are pushed only when a callback's transaction commits: at its COMMIT, or at its end if it succeeds.
fn pushes_that_last(does: &Does) -> &[StepNo] {
    if does.commits || !does.fails {
        &does.pushes
    } else {
        &[]
    }
}

/// All steps that can come to run when these are pushed: steps push steps.
fn reached(node: &Node, from: impl IntoIterator<Item = StepNo>) -> BTreeSet<StepNo> {
    let from: Vec<StepNo> = from.into_iter().collect();
    closure(&from, |step| pushes_that_last(&node.steps[&step]).to_vec())
}

/// What becomes of a node whose parents let it run.
fn run(node: &Node) -> ExpectedNode {
    let own_fails = !node.empty && node.own.fails;
    let own_pushes: &[StepNo] = if node.empty { &[] } else { pushes_that_last(&node.own) };
    // Steps that can start while the own callback runs, or before it has begun.
    let before = reached(node, node.early_steps.iter().copied());
    let beside = if node.empty || !node.own.commits {
        before.clone()
    } else {
        reached(node, node.early_steps.iter().chain(own_pushes).copied())
    };
    let statics: &[StepNo] = if own_fails { &[] } else { &node.static_steps };
    let all = reached(node, node.early_steps.iter().chain(own_pushes).chain(statics).copied());

    let failing = |steps: &BTreeSet<StepNo>| -> BTreeSet<Who> {
        steps.iter().filter(|step| node.steps[step].fails).map(|step| Who::Step(*step)).collect()
    };
    let stopping = |steps: &BTreeSet<StepNo>| node.all_steps_must_complete && !failing(steps).is_empty();
    let fails = own_fails || stopping(&all);

    let mut culprits = BTreeSet::new();
    if own_fails {
        culprits.insert(Who::Own);
    }
    if node.all_steps_must_complete {
        culprits.extend(failing(&all));
    }

    let mut marks = BTreeMap::new();
    for (who, does) in everyone(node) {
        let (begun, done) = match who {
            Who::Own if node.empty => (Times::Never, Times::Never),
            Who::Own => (unless(stopping(&before)), unless(stopping(&beside))),
            Who::Step(step) if !all.contains(&step) => (Times::Never, Times::Never),
            Who::Step(_) => (unless(fails), unless(fails)),
        };
        marks.insert((who, Mark::Begun), if does.commits { begun } else { Times::Never });
        marks.insert((who, Mark::Done), if does.fails { Times::Never } else { done });
    }
    let steps = (!fails).then(|| {
        let failed = failing(&all).len();
        StepCounts { all: all.len(), finished: all.len() - failed, failed }
    });
    ExpectedNode { word: if fails { Word::Failed } else { Word::Finished }, runs: true, culprits, steps, marks }
}

fn unless(stopped: bool) -> Times {
    if stopped {
        Times::AtMostOnce
    } else {
        Times::Once
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Edge, Only};

    fn edge(parent: usize) -> Edge {
        Edge { parent, continue_on_failure: false }
    }

    fn soft(parent: usize) -> Edge {
        Edge { parent, continue_on_failure: true }
    }

    fn below(parents: &[Edge]) -> Node {
        Node { parents: parents.to_vec(), ..Node::plain() }
    }

    fn failing() -> Does {
        Does { fails: true, ..Does::default() }
    }

    fn pushing(steps: &[StepNo]) -> Does {
        Does { pushes: steps.to_vec(), ..Does::default() }
    }

    fn committing(does: Does) -> Does {
        Does { commits: true, ..does }
    }

    fn with_steps(own: Does, steps: &[(StepNo, Does)]) -> Node {
        Node { own, steps: steps.iter().cloned().collect(), ..Node::plain() }
    }

    fn words(nodes: Vec<Node>) -> Vec<Word> {
        words_of(&Plan { nodes, ..Plan::default() })
    }

    fn words_of(plan: &Plan) -> Vec<Word> {
        expect(plan).nodes.iter().map(|node| node.word).collect()
    }

    fn single(node: Node) -> ExpectedNode {
        expect(&Plan { nodes: vec![node], ..Plan::default() }).nodes.remove(0)
    }

    use Mark::*;
    use Times::*;
    use Who::*;
    use Word::*;

    #[test]
    fn c3_failure_passes_down_until_an_edge_continues() {
        let failed = Node { own: failing(), ..Node::plain() };
        let nodes = vec![failed, below(&[edge(0)]), below(&[edge(1)]), below(&[soft(2)]), below(&[edge(3)])];
        let expected = expect(&Plan { nodes: nodes.clone(), ..Plan::default() });
        assert_eq!(words(nodes), [Failed, Skipped, Skipped, Finished, Finished]);
        assert_eq!(expected.count_failed_nodes, 3);
    }

    #[test]
    fn c3_one_hard_edge_to_a_failed_parent_is_enough() {
        let failed = || Node { own: failing(), ..Node::plain() };
        let nodes =
            vec![failed(), failed(), Node::plain(), below(&[soft(0), edge(1), edge(2)]), below(&[soft(0), edge(2)])];
        assert_eq!(words(nodes), [Failed, Failed, Finished, Skipped, Finished]);
    }

    #[test]
    fn nodes_need_not_be_listed_in_order() {
        assert_eq!(words(vec![below(&[edge(1)]), Node { own: failing(), ..Node::plain() }]), [Skipped, Failed]);
    }

    #[test]
    fn c9_excluded_nodes_count_as_finished_but_pass_a_failure_on() {
        let nodes = vec![
            Node { own: failing(), ..Node::plain() },
            below(&[edge(0)]),
            below(&[edge(1)]),
            below(&[soft(1)]),
            Node { own: failing(), ..Node::plain() },
        ];
        let only = |nodes: &[usize], add_parents, add_children| {
            Some(Only { nodes: nodes.to_vec(), add_parents, add_children })
        };
        let mut plan = Plan { nodes, only: only(&[2], false, false), ..Plan::default() };
        assert_eq!(words_of(&plan), [Finished; 5]);
        plan.only = only(&[0, 2, 3], false, false);
        assert_eq!(words_of(&plan), [Failed, Skipped, Skipped, Finished, Finished]);
        assert!(!expect(&plan).nodes[4].runs);
        plan.only = only(&[2], true, false);
        assert_eq!(excluded(&plan), [false, false, false, true, true]);
        plan.only = only(&[1], false, true);
        assert_eq!(excluded(&plan), [true, false, false, false, true]);
    }

    #[test]
    fn c4_a_failing_step_fails_its_node_or_not() {
        let steps = [(1, Does::default()), (2, failing()), (3, Does::default())];
        let strict = with_steps(pushing(&[1, 2]), &steps);
        let expected = single(strict.clone());
        assert_eq!(expected.word, Failed);
        assert_eq!(expected.culprits, BTreeSet::from([Step(2)]));
        assert_eq!(expected.marks[&(Own, Done)], Once, "its steps start after it has committed");
        assert_eq!(expected.marks[&(Step(1), Done)], AtMostOnce);
        assert_eq!(expected.marks[&(Step(2), Done)], Never);
        assert_eq!(expected.marks[&(Step(3), Done)], Never, "nobody pushes it");
        assert_eq!(expected.steps, None);

        let expected = single(Node { all_steps_must_complete: false, ..strict });
        assert_eq!(expected.word, Finished);
        assert_eq!(expected.marks[&(Step(1), Done)], Once);
        assert_eq!(expected.marks[&(Step(2), Done)], Never);
        assert_eq!(expected.steps, Some(StepCounts { all: 2, finished: 1, failed: 1 }));
    }

    #[test]
    fn c7_pushes_last_with_their_transaction() {
        let steps = [(1, pushing(&[2])), (2, Does::default())];
        let own = Does { fails: true, ..pushing(&[1]) };
        let expected = single(with_steps(own.clone(), &steps));
        assert_eq!((expected.word, expected.marks[&(Step(1), Done)]), (Failed, Never));
        let expected = single(with_steps(committing(own), &steps));
        assert_eq!((expected.word, expected.marks[&(Step(2), Done)]), (Failed, AtMostOnce));
        assert_eq!(expected.marks[&(Own, Begun)], Once);
        let expected = single(with_steps(pushing(&[1]), &steps));
        assert_eq!((expected.word, expected.marks[&(Step(2), Done)]), (Finished, Once));
        assert_eq!(expected.steps, Some(StepCounts { all: 2, finished: 2, failed: 0 }));
    }

    #[test]
    fn c6_the_same_step_pushed_often_is_one_step() {
        let node = Node {
            static_steps: vec![1, 2],
            ..with_steps(pushing(&[1, 1, 2]), &[(1, pushing(&[2, 1])), (2, Does::default())])
        };
        assert_eq!(single(node).steps, Some(StepCounts { all: 2, finished: 2, failed: 0 }));
    }

    #[test]
    fn c2_static_steps_of_a_failed_callback_never_run() {
        let node = Node { static_steps: vec![1], ..with_steps(failing(), &[(1, Does::default())]) };
        assert_eq!(single(node.clone()).marks[&(Step(1), Done)], Never);
        let both = Node { own: committing(Does { fails: true, ..pushing(&[1]) }), ..node };
        assert_eq!(single(both).marks[&(Step(1), Done)], AtMostOnce);
    }

    #[test]
    fn a_failing_step_may_stop_the_callback_that_pushed_it() {
        let node = with_steps(committing(pushing(&[1])), &[(1, failing())]);
        let expected = single(node);
        assert_eq!(expected.marks[&(Own, Begun)], Once);
        assert_eq!(expected.marks[&(Own, Done)], AtMostOnce);
    }

    #[test]
    fn a_failing_early_step_may_come_before_the_callback() {
        let own = committing(Does::default());
        let expected = single(Node { early_steps: vec![1], ..with_steps(own.clone(), &[(1, failing())]) });
        assert_eq!((expected.word, expected.marks[&(Own, Begun)]), (Failed, AtMostOnce));
        let expected = single(Node { early_steps: vec![1], ..with_steps(own, &[(1, Does::default())]) });
        assert_eq!((expected.word, expected.marks[&(Own, Begun)]), (Finished, Once));
        assert_eq!(expected.marks[&(Step(1), Done)], Once);
    }

    #[test]
    fn c8_an_empty_node_has_steps_but_no_callback() {
        let node = Node { empty: true, static_steps: vec![1], ..with_steps(failing(), &[(1, Does::default())]) };
        let expected = single(node);
        assert_eq!((expected.word, expected.marks[&(Own, Done)]), (Finished, Never));
        assert_eq!(expected.marks[&(Step(1), Done)], Once);
        assert_eq!(single(Node { empty: true, ..Node::plain() }).word, Finished);
    }
}
