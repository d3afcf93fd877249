//! What the tasks of a node do: which routine they call or which query they run, and whether that can be.
//!
//! Must never look a name up that is not going to be called: an empty node needs no procedure of its name.

use super::catalog::{Asked, RoutineInfo, TargetInfo};
use super::document::NodeDoc;
use super::fault::{plain, quoted, Faults};
use super::model::Needs;
use super::parse::is_node_name;

/// What the tasks of a node do, as it was written and as it was found. Of its own task exactly one of `node`, `query` and
/// `query_routine` counts, in this order; of its steps `step`, `step_query` and `query_routine`.
#[derive(Debug, Default)]
pub(super) struct Routines {
    pub node: Option<String>,
    pub node_resolved: Option<String>,
    pub step: Option<String>,
    pub step_resolved: Option<String>,
    pub query: Option<String>,
    pub step_query: Option<String>,
    pub query_routine: Option<String>,
    pub query_routine_resolved: Option<String>,
}

/// What one task does: the key that says so, and its value.
#[derive(Clone, Copy, PartialEq)]
enum Source<'a> {
    Routine(&'static str, &'a str),
    Query(&'static str, &'a str),
    QueryRoutine(&'a str),
    Nothing,
}

/// The keys of a node's own task, of its steps, and of both.
const OWN: [&str; 2] = ["node_routine", "node_query"];
const STEP: [&str; 2] = ["step_routine", "step_query"];
const BOTH: [&str; 3] = ["routine", "query", "query_routine"];

/// What the tasks of a node do. `run_as` is the role that the hint of a missing privilege names.
pub(super) fn of_node(
    node: &NodeDoc,
    target: &TargetInfo,
    run_as: Option<&str>,
    catalog: &mut Asked<'_>,
    faults: &mut Faults,
) -> Routines {
    unused(node, faults);
    together(node, faults);
    if refused(node, target, faults) {
        return Routines::default();
    }
    let (for_node, for_steps) = effective(node, target);
    required(node, target, for_node, for_steps, faults);
    let mut routines = Routines::default();
    match for_node {
        Source::Routine(_, name) => routines.node = Some(name.to_owned()),
        Source::Query(_, text) => routines.query = Some(text.to_owned()),
        Source::QueryRoutine(name) => routines.query_routine = Some(name.to_owned()),
        Source::Nothing => {}
    }
    match for_steps {
        Source::Routine(_, name) => routines.step = Some(name.to_owned()),
        Source::Query(_, text) => routines.step_query = Some(text.to_owned()),
        Source::QueryRoutine(name) => routines.query_routine = Some(name.to_owned()),
        Source::Nothing => {}
    }
    if let Some(name) = routines.query_routine.as_deref() {
        routines.query_routine_resolved = query_routine(name, node, run_as, catalog, faults);
    }
    if *target != TargetInfo::Local {
        return routines;
    }
    let mut look_up = |source: Source<'_>| {
        let Source::Routine(key, name) = source else { return None };
        // A name that is refused as a node's name has its fault already.
        if key == "node" && !is_node_name(name) {
            return None;
        }
        match catalog.routine(name) {
            RoutineInfo::Ok { resolved } => Some(resolved),
            wrong => {
                let (message, hint) = procedure_fault(name, key, &wrong, run_as);
                faults.error_hint(node.path_of(key), message, hint);
                None
            }
        }
    };
    routines.node_resolved = look_up(for_node);
    routines.step_resolved = match for_steps {
        // One key names both: one look, one fault.
        same if same == for_node => routines.node_resolved.clone(),
        // Steps that a callback may push have their routine resolved then.
        Source::Routine("node", _) if node.steps.is_empty() => None,
        other => look_up(other),
    };
    routines
}

/// What the node's own task does, and what its steps do.
fn effective<'a>(node: &'a NodeDoc, target: &TargetInfo) -> (Source<'a>, Source<'a>) {
    let routine = |key: &'static str| node.text(key).map(|name| Source::Routine(key, name));
    let query = |key: &'static str| node.text(key).map(|text| Source::Query(key, text));
    let otherwise = || {
        let by_name = || if calls_routines(target) { routine("node") } else { None };
        query("query")
            .or_else(|| node.text("query_routine").map(Source::QueryRoutine))
            .or_else(|| routine("routine"))
            .or_else(by_name)
            .unwrap_or(Source::Nothing)
    };
    let special = |keys: [&'static str; 2]| routine(keys[0]).or_else(|| query(keys[1])).unwrap_or_else(otherwise);
    let for_node = if node.flag("empty", false) { Source::Nothing } else { special(OWN) };
    let for_steps = if node.text("steps_to_flow").is_some() { Source::Nothing } else { special(STEP) };
    (for_node, for_steps)
}

/// Whether tasks of a target can call a routine, or name one to a client.
fn calls_routines(target: &TargetInfo) -> bool {
    !matches!(target, TargetInfo::Elsewhere(at) if at.needs != Needs::QueryOrRoutine)
}

/// Keys that say two things of the same task.
fn together(node: &NodeDoc, faults: &mut Faults) {
    for keys in [&OWN[..], &STEP[..], &BOTH[..]] {
        let mut given = keys.iter().copied().filter(|key| node.text(key).is_some());
        let Some(first) = given.next() else { continue };
        for other in given {
            let message = format!("\"{other}\" cannot stand together with \"{first}\": a task does one thing");
            faults.error(node.path_of(other), message);
        }
    }
}

/// Keys that a target has no use for. True: it runs nothing that a key here could name.
fn refused(node: &NodeDoc, target: &TargetInfo, faults: &mut Faults) -> bool {
    let keys = OWN.into_iter().chain(STEP).chain(BOTH).filter(|key| node.text(key).is_some());
    let mut any = false;
    for key in keys {
        let is_query = key.contains("query");
        let because = match target {
            TargetInfo::External if is_query => {
                "an external target runs none: its clients are told the name of a routine".to_owned()
            }
            TargetInfo::Elsewhere(at) if at.needs == Needs::Options => {
                format!("a target of kind \"{}\" runs none: \"request\" says what is to be done", at.kind)
            }
            TargetInfo::Elsewhere(at) if at.needs == Needs::Query && !is_query => {
                format!("a target of kind \"{}\" calls none: give a \"query\"", at.kind)
            }
            _ => continue,
        };
        any = true;
        faults.error(node.path_of(key), format!("\"{key}\" has no meaning here, because {because}"));
    }
    any
}

/// Tasks that have nothing to do on a target that needs a query.
fn required(node: &NodeDoc, target: &TargetInfo, own: Source<'_>, step: Source<'_>, faults: &mut Faults) {
    let TargetInfo::Elsewhere(at) = target else { return };
    if at.needs != Needs::Query {
        return;
    }
    if own == Source::Nothing && !node.flag("empty", false) {
        let hint = "give \"query\", \"node_query\" or \"query_routine\"";
        faults.error_hint(node.path(), format!("it has no query, and its target is of kind \"{}\"", at.kind), hint);
    } else if step == Source::Nothing && node.text("steps_to_flow").is_none() && !node.steps.is_empty() {
        let hint = "give \"query\", \"step_query\" or \"query_routine\"";
        let message = format!("its steps have no query, and its target is of kind \"{}\"", at.kind);
        faults.error_hint(node.path_of("steps"), message, hint);
    }
}

fn unused(node: &NodeDoc, faults: &mut Faults) {
    let empty = node.flag("empty", false);
    let to_flow = node.text("steps_to_flow").is_some();
    for (key, verb, never, because) in [
        ("node_routine", "called", empty, "the node is empty"),
        ("node_query", "run", empty, "the node is empty"),
        ("step_routine", "called", to_flow, "its steps start a flow"),
        ("step_query", "run", to_flow, "its steps start a flow"),
    ] {
        if never && node.text(key).is_some() {
            let message = format!("\"{key}\" is never {verb}, because {because}");
            faults.warn_hint(node.path_of(key), message, format!("leave out \"{key}\""));
        }
    }
}

fn procedure_fault(name: &str, key: &str, wrong: &RoutineInfo, run_as: Option<&str>) -> (String, String) {
    let statement = plain(name);
    let create = format!("create procedure {statement}(flow.callback_arguments_t)");
    let create = match key {
        "node" => format!("{create}, or name another one as \"routine\""),
        _ => create,
    };
    match wrong {
        RoutineInfo::Missing | RoutineInfo::Ok { .. } => (format!("procedure {} does not exist", quoted(name)), create),
        RoutineInfo::NotAProcedure => (format!("{} is not a procedure", quoted(name)), create),
        RoutineInfo::WrongArguments { found } => {
            (format!("procedure {} takes ({}), not (flow.callback_arguments_t)", quoted(name), plain(found)), create)
        }
        RoutineInfo::NotExecutable => (
            format!("procedure {} may not be executed by {}", quoted(name), run_as.map_or("this role".into(), quoted)),
            format!("GRANT EXECUTE ON PROCEDURE {statement}(flow.callback_arguments_t) TO {}", grantee(run_as)),
        ),
    }
}

/// A function that must be there to be called.
struct Wanted<'a> {
    name: &'a str,
    /// Its arguments, as a message writes them and as a statement that creates it does.
    takes: &'a str,
    declared: &'a str,
}

/// The resolved name of a function, or the fault of why it cannot be called.
fn function(
    wanted: &Wanted<'_>,
    found: RoutineInfo,
    path: String,
    run_as: Option<&str>,
    faults: &mut Faults,
) -> Option<String> {
    let name = quoted(wanted.name);
    let statement = plain(wanted.name);
    let create = format!("create function {statement}({}) returns text", wanted.declared);
    let (message, hint) = match found {
        RoutineInfo::Ok { resolved } => return Some(resolved),
        RoutineInfo::Missing => (format!("function {name} does not exist"), create),
        RoutineInfo::NotAProcedure => (format!("{name} is not a function that returns text"), create),
        RoutineInfo::WrongArguments { found } => {
            (format!("function {name} takes ({}), not ({})", plain(&found), wanted.takes), create)
        }
        RoutineInfo::NotExecutable => (
            format!("function {name} may not be executed by {}", run_as.map_or("this role".into(), quoted)),
            format!("GRANT EXECUTE ON FUNCTION {statement}({}) TO {}", wanted.takes, grantee(run_as)),
        ),
    };
    faults.error_hint(path, message, hint);
    None
}

/// The resolved name of a flow's concurrency routine.
pub(super) fn concurrency(
    name: &str,
    path: &str,
    run_as: Option<&str>,
    catalog: &mut Asked<'_>,
    faults: &mut Faults,
) -> Option<String> {
    let wanted = Wanted { name, takes: "bigint, text", declared: "flow_id bigint, node text" };
    function(&wanted, catalog.concurrency_routine(name), path.to_owned(), run_as, faults)
}

/// The resolved name of the function that makes a node's queries.
fn query_routine(
    name: &str,
    node: &NodeDoc,
    run_as: Option<&str>,
    catalog: &mut Asked<'_>,
    faults: &mut Faults,
) -> Option<String> {
    let wanted = Wanted { name, takes: "flow.callback_arguments_t", declared: "flow.callback_arguments_t" };
    function(&wanted, catalog.query_routine(name), node.path_of("query_routine"), run_as, faults)
}

/// The role as a statement names it.
fn grantee(run_as: Option<&str>) -> String {
    match run_as {
        Some(role) => format!("\"{}\"", plain(role).replace('"', "\"\"")),
        None => "the role that runs the flow".into(),
    }
}
