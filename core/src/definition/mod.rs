//! What a flow is: JSON → parse → merge → check → rank → a definition that may be stored.
//!
//! Must never touch a table or read a clock: what must be asked is asked of a `Catalog`. Must never stop at the first fault.

mod canonical;
mod catalog;
mod check;
mod document;
mod fault;
mod graph;
mod keys;
mod merge;
mod model;
mod options;
mod parse;
mod routines;

#[cfg(test)]
mod tests;

use serde_json::{Map, Value};

pub use catalog::{Catalog, Elsewhere, RoutineInfo, TargetInfo};
pub use fault::{Fault, Severity};
pub use graph::{extend_selection, ranks, UnknownNames};
pub use model::{Definition, FlowOptions, Needs, Node, OnPartial};
pub use parse::{MAX_FLOW_NAME, MAX_NODES, MAX_NODE_NAME};

use catalog::Asked;
use fault::Faults;
use parse::Reading;

/// Reads, merges and checks the configuration of a flow.
///
/// `stored` is given when `new` is to be added to what is stored; without it, `new` is the whole configuration. `strict` makes an
/// unknown key an error even if it resembles none. There is a definition if and only if no fault is an error.
pub fn configure(
    flow_name: &str,
    new: &Value,
    stored: Option<&Value>,
    strict: bool,
    catalog: &mut dyn Catalog,
) -> (Option<Definition>, Vec<Fault>) {
    let mut faults = Faults::default();
    parse::check_flow_name(flow_name, &mut faults);
    let reading = Reading { stored: false, strict, appended: stored.is_some() };
    let mut document = parse::parse(new, reading, &mut faults);
    if let Some(stored) = stored {
        let reading = Reading { stored: true, strict: false, appended: false };
        document = merge::merge(parse::parse(stored, reading, &mut faults), document);
        if document.nodes.is_empty() && !faults.refuses() {
            faults.error("$.nodes", "a flow needs at least one node");
        }
    }
    let (flow, nodes) = check::check(flow_name, &document, &mut Asked::new(catalog), &mut faults);
    let definition = (!faults.refuses()).then(|| Definition { flow, nodes, configuration: document.into_value() });
    (definition, faults.into_list())
}

/// What is wrong with the options of a task outside flows, on a target; paths begin with the option: `.result.store`.
pub fn options_faults(target: &TargetInfo, given: &Map<String, Value>, catalog: &mut dyn Catalog) -> Vec<Fault> {
    let mut faults = Faults::default();
    let mut known = Map::new();
    for (key, value) in given.iter().filter(|(_, value)| !value.is_null()) {
        match keys::Level::Node.kind(key).filter(|_| options::OPTIONS.contains(&key.as_str())) {
            Some(_) if key == "steps_per_transaction" => {
                faults.error(fault::key_path("", key), "\"steps_per_transaction\" has no meaning outside flows");
            }
            None => faults.error_hint(
                fault::key_path("", key),
                format!("unknown option {}", fault::quoted(key)),
                format!("a task has {}", options::OPTIONS.join(", ")),
            ),
            Some(kind) => match kind.check(value) {
                Err(wrong) => faults.error(fault::key_path("", key), format!("\"{key}\" {wrong}")),
                Ok(()) => {
                    known.insert(key.clone(), value.clone());
                }
            },
        }
    }
    options::check(&known, target, "", &|key| fault::key_path("", key), &mut Asked::new(catalog), &mut faults);
    faults.into_list()
}
