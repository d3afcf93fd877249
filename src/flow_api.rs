//! `flow.configure_flow`, `flow.validate` and what draws diagrams: SQL functions over `pgflow-core`. Declared in
//! `sql/flow/rust.sql`.
#![allow(unsafe_code)]

use pgflow_core::definition::{self, Definition, Fault, Severity};
use pgflow_core::diagram;
use pgrx::iter::TableIterator;
use pgrx::pg_sys;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::error::raise;
use crate::json::Json;
use crate::settings;
use crate::store::{self, catalog};

/// Faults that are printed in one error.
const FAULTS_SHOWN: usize = 50;

#[pg_extern(sql = false)]
fn configure_flow(flow_name: Option<&str>, configuration: Option<Json>, append: Option<bool>) {
    let (Some(flow), Some(Json(new, bytes))) = (flow_name, configuration) else {
        raise(
            PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED,
            "configure_flow needs a flow's name and its configuration".to_owned(),
            None,
            None,
        );
    };
    crate::version::require_same();
    // SAFETY: reading the current user.
    let caller = unsafe { pg_sys::GetUserId() };
    store::connected(|| {
        let owner = owner();
        store::as_user(owner, || catalog::require_definition_size(caller, bytes));
        let stored =
            append.unwrap_or(false).then(|| store::as_user(owner, || catalog::stored_configuration(flow))).flatten();
        let (definition, faults) = check(flow, &new, stored.as_ref(), caller, owner);
        report(flow, &faults);
        if let Some(definition) = definition {
            store::as_user(owner, || catalog::store_definition(caller, flow, definition));
        }
    });
}

fn owner() -> pg_sys::Oid {
    match store::extension_owner() {
        Some(owner) => owner,
        None => {
            raise(PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT, "extension pgflow is not installed".to_owned(), None, None)
        }
    }
}

/// Routines are looked up as who will call them: the role that the flow names, else the caller.
fn check(
    flow: &str,
    new: &serde_json::Value,
    stored: Option<&serde_json::Value>,
    caller: pg_sys::Oid,
    owner: pg_sys::Oid,
) -> (Option<Definition>, Vec<Fault>) {
    let run_as = new.pointer("/flow/run_as").or_else(|| stored.and_then(|s| s.pointer("/flow/run_as")));
    let role = run_as
        .and_then(|r| r.as_str())
        .and_then(|name| std::ffi::CString::new(name).ok())
        // SAFETY: a catalogue look-up inside a transaction; an unknown role is reported when the flow is stored.
        .map(|name| unsafe { pg_sys::get_role_oid(name.as_ptr(), true) })
        .filter(|oid| *oid != pg_sys::Oid::INVALID)
        .unwrap_or(caller);
    match catalog::Live::new(owner, role) {
        Some(mut live) => definition::configure(flow, new, stored, settings::strict_configuration(), &mut live),
        None => (None, Vec::new()),
    }
}

/// Warnings as WARNINGs; all errors as one ERROR.
fn report(flow: &str, faults: &[Fault]) {
    for fault in faults.iter().filter(|f| f.severity == Severity::Warning).take(FAULTS_SHOWN) {
        let mut warning = ErrorReport::new(
            PgSqlErrorCode::ERRCODE_WARNING,
            format!("configuration of flow {flow}: {}: {}", fault.path, fault.message),
            "configure_flow",
        );
        if let Some(hint) = &fault.hint {
            warning = warning.set_hint(hint.clone());
        }
        warning.report(PgLogLevel::WARNING);
    }
    let errors: Vec<&Fault> = faults.iter().filter(|f| f.severity == Severity::Error).collect();
    if errors.is_empty() {
        return;
    }
    let mut lines: Vec<String> = errors.iter().take(FAULTS_SHOWN).map(|f| f.to_string()).collect();
    if errors.len() > FAULTS_SHOWN {
        lines.push(format!("and {} more", errors.len() - FAULTS_SHOWN));
    }
    let count = if errors.len() == 1 { "1 fault".to_owned() } else { format!("{} faults", errors.len()) };
    raise(
        PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
        format!("the configuration of flow \"{flow}\" has {count}; nothing was stored"),
        Some(lines.join("\n")),
        Some("SELECT * FROM flow.validate(configuration) lists them as rows."),
    );
}

#[pg_extern(sql = false)]
fn validate(
    configuration: Option<Json>,
) -> TableIterator<
    'static,
    (name!(path, String), name!(severity, String), name!(message, String), name!(hint, Option<String>)),
> {
    // SAFETY: reading the current user.
    let caller = unsafe { pg_sys::GetUserId() };
    let faults = match configuration {
        Some(Json(new, bytes)) => store::connected(|| {
            let owner = owner();
            store::as_user(owner, || catalog::require_definition_size(caller, bytes));
            check("(validated)", &new, None, caller, owner).1
        }),
        None => Vec::new(),
    };
    TableIterator::new(faults.into_iter().map(|f| (f.path, f.severity.to_string(), f.message, f.hint)))
}

#[pg_extern(sql = false, immutable)]
fn node_status_color(status: Option<&str>) -> &'static str {
    diagram::status_color(status.unwrap_or(""))
}

#[pg_extern(sql = false, immutable)]
fn render_graphviz(diagram: Json) -> String {
    let d = &diagram.0;
    let list = |key: &str| d.get(key).and_then(|v| v.as_array()).cloned().unwrap_or_default();
    diagram::graphviz(&diagram::Diagram {
        title: text(d, "title").unwrap_or_default(),
        legend: d.get("legend").and_then(|v| v.as_bool()).unwrap_or(true),
        nodes: list("nodes").iter().map(node).collect(),
        edges: list("edges")
            .iter()
            .map(|e| diagram::DiagramEdge {
                parent: number(e, "parent") as usize,
                child: number(e, "child") as usize,
                continue_on_failure: e.get("continue_on_failure").and_then(|v| v.as_bool()).unwrap_or(false),
            })
            .collect(),
    })
}

fn text(value: &serde_json::Value, key: &str) -> Option<String> {
    value.get(key).and_then(|v| v.as_str()).map(str::to_owned)
}

fn number(value: &serde_json::Value, key: &str) -> u64 {
    value.get(key).and_then(|v| v.as_u64()).unwrap_or(0)
}

fn node(n: &serde_json::Value) -> diagram::DiagramNode {
    diagram::DiagramNode {
        name: text(n, "name").unwrap_or_default(),
        target: text(n, "target"),
        routine: text(n, "routine"),
        status: text(n, "status"),
        steps: n.get("steps").filter(|s| s.is_object()).map(|s| diagram::StepCounts {
            total: number(s, "total"),
            pending: number(s, "pending"),
            running: number(s, "running"),
            finished: number(s, "finished"),
            failed: number(s, "failed"),
        }),
        run_time: text(n, "run_time"),
        note: text(n, "note"),
        empty: n.get("empty").and_then(|v| v.as_bool()).unwrap_or(false),
        steps_to_flow: text(n, "steps_to_flow"),
    }
}
