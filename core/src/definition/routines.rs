//! Which routines a flow calls, and whether they can be called.
//!
//! Must never look a name up that is not going to be called: an empty node needs no procedure of its name.

use super::catalog::{Asked, RoutineInfo, TargetInfo};
use super::document::NodeDoc;
use super::fault::{plain, quoted, Faults};
use super::parse::is_node_name;

/// The routines of a node, as they were written and as they were found.
#[derive(Debug, Default)]
pub(super) struct Routines {
    pub node: Option<String>,
    pub node_resolved: Option<String>,
    pub step: Option<String>,
    pub step_resolved: Option<String>,
}

/// A routine and the key that names it.
type Named<'a> = (&'static str, &'a str);

/// The routines of a node. `run_as` is the role that the hint of a missing privilege names.
pub(super) fn of_node(
    node: &NodeDoc,
    target: TargetInfo,
    run_as: Option<&str>,
    catalog: &mut Asked<'_>,
    faults: &mut Faults,
) -> Routines {
    let (for_node, for_steps) = effective(node);
    unused(node, faults);
    let mut routines = Routines {
        node: for_node.map(|(_, name)| name.to_owned()),
        step: for_steps.map(|(_, name)| name.to_owned()),
        ..Routines::default()
    };
    if target != TargetInfo::Local {
        return routines;
    }
    let mut look_up = |(key, name): Named<'_>| {
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
    routines.node_resolved = for_node.and_then(&mut look_up);
    routines.step_resolved = match (for_node, for_steps) {
        // One key names both: one look, one fault.
        (Some(a), Some(b)) if a == b => routines.node_resolved.clone(),
        // Steps that a callback may push have their routine resolved then.
        (_, Some(("node", _))) if node.steps.is_empty() => None,
        (_, for_steps) => for_steps.and_then(&mut look_up),
    };
    routines
}

/// What the node's own task calls, and what its steps call.
fn effective(node: &NodeDoc) -> (Option<Named<'_>>, Option<Named<'_>>) {
    let named = |key: &'static str| node.text(key).map(|name| (key, name));
    let otherwise = || named("routine").or_else(|| named("node"));
    let for_node = if node.flag("empty", false) { None } else { named("node_routine").or_else(otherwise) };
    let for_steps = match node.text("steps_to_flow") {
        Some(_) => None,
        None => named("step_routine").or_else(otherwise),
    };
    (for_node, for_steps)
}

fn unused(node: &NodeDoc, faults: &mut Faults) {
    for (key, never, because) in [
        ("node_routine", node.flag("empty", false), "the node is empty"),
        ("step_routine", node.text("steps_to_flow").is_some(), "its steps start a flow"),
    ] {
        if never && node.text(key).is_some() {
            let message = format!("\"{key}\" is never called, because {because}");
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
            (format!("procedure {} takes ({found}), not (flow.callback_arguments_t)", quoted(name)), create)
        }
        RoutineInfo::NotExecutable => (
            format!("procedure {} may not be executed by {}", quoted(name), run_as.map_or("this role".into(), quoted)),
            format!("GRANT EXECUTE ON PROCEDURE {statement}(flow.callback_arguments_t) TO {}", grantee(run_as)),
        ),
    }
}

/// The resolved name of a flow's concurrency routine.
pub(super) fn concurrency(
    name: &str,
    path: &str,
    run_as: Option<&str>,
    catalog: &mut Asked<'_>,
    faults: &mut Faults,
) -> Option<String> {
    let statement = plain(name);
    let create = format!("create function {statement}(flow_id bigint, node text) returns text");
    let (message, hint) = match catalog.concurrency_routine(name) {
        RoutineInfo::Ok { resolved } => return Some(resolved),
        RoutineInfo::Missing => (format!("function {} does not exist", quoted(name)), create),
        RoutineInfo::NotAProcedure => (format!("{} is not a function that returns text", quoted(name)), create),
        RoutineInfo::WrongArguments { found } => {
            (format!("function {} takes ({found}), not (bigint, text)", quoted(name)), create)
        }
        RoutineInfo::NotExecutable => (
            format!("function {} may not be executed by {}", quoted(name), run_as.map_or("this role".into(), quoted)),
            format!("GRANT EXECUTE ON FUNCTION {statement}(bigint, text) TO {}", grantee(run_as)),
        ),
    };
    faults.error_hint(path, message, hint);
    None
}

/// The role as a statement names it.
fn grantee(run_as: Option<&str>) -> String {
    match run_as {
        Some(role) => format!("\"{}\"", plain(role).replace('"', "\"\"")),
        None => "the role that runs the flow".into(),
    }
}
