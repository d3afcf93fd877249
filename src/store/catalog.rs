//! What `configure_flow` asks the catalogue about, with the caller's rights and search path, and what it stores.
#![allow(unsafe_code)]

use std::ffi::CString;

use pgflow_core::definition::{Catalog, Definition, Node, OnPartial, RoutineInfo, TargetInfo};
use pgrx::{pg_sys, JsonB};
use serde_json::{json, Map, Value};

use super::routine::{self, Found};
use super::{arg, run};
use crate::elsewhere_api;

/// The catalogue as the caller sees it. Names of routines are resolved by the caller's search path, which is why nothing
/// here switches to the owner.
pub struct Live {
    callback: pg_sys::Oid,
    owner: pg_sys::Oid,
    /// Who will call the routines.
    pub role: pg_sys::Oid,
}

impl Live {
    pub fn new(owner: pg_sys::Oid, role: pg_sys::Oid) -> Option<Self> {
        Some(Live { callback: super::worker::callback_type()?, owner, role })
    }

    /// As the current user.
    pub fn current() -> Option<Self> {
        // SAFETY: reading the current user.
        let role = unsafe { pg_sys::GetUserId() };
        Live::new(super::extension_owner()?, role)
    }

    fn look_up(&self, name: &str, types: &[pg_sys::Oid], kind: u8, result: Option<pg_sys::Oid>) -> RoutineInfo {
        // SAFETY: catalogue look-ups inside a transaction.
        unsafe {
            let found = match routine::find(name, types) {
                Found::Exactly(found) => found,
                Found::Other(found) => return RoutineInfo::WrongArguments { found },
                Found::Nothing => return RoutineInfo::Missing,
            };
            let wrong_result = result.is_some_and(|r| pg_sys::get_func_rettype(found) != r);
            if pg_sys::get_func_prokind(found) as u8 != kind || wrong_result {
                return RoutineInfo::NotAProcedure;
            }
            if !may_execute(found, self.role) {
                return RoutineInfo::NotExecutable;
            }
            RoutineInfo::Ok { resolved: routine::quoted_name(found) }
        }
    }
}

unsafe fn may_execute(routine: pg_sys::Oid, role: pg_sys::Oid) -> bool {
    let wanted = pg_sys::ACL_EXECUTE as pg_sys::AclMode;
    #[cfg(feature = "pg15")]
    return pg_sys::pg_proc_aclcheck(routine, role, wanted) == pg_sys::AclResult::ACLCHECK_OK;
    #[cfg(not(feature = "pg15"))]
    return pg_sys::object_aclcheck(pg_sys::ProcedureRelationId, routine, role, wanted)
        == pg_sys::AclResult::ACLCHECK_OK;
}

/// The input function of intervals, whose OID is fixed.
const INTERVAL_IN: pg_sys::Oid = pg_sys::Oid::from_u32(1160);

impl Catalog for Live {
    fn target(&mut self, name: &str) -> TargetInfo {
        let owner = self.owner;
        let (kind, tiers) = super::as_user(owner, || {
            let rows = run(c"SELECT async.target_kind($1), async.target_tiers($1)", &[arg(name)]);
            (rows.get::<String>(0, 1), rows.get::<Vec<String>>(0, 2).unwrap_or_default())
        });
        match kind.as_deref() {
            Some("local") => TargetInfo::Local,
            Some("external") => TargetInfo::External,
            Some(kind) => {
                elsewhere_api::kind_info(kind, Some(tiers)).map_or(TargetInfo::Unknown, TargetInfo::Elsewhere)
            }
            None => TargetInfo::Unknown,
        }
    }

    fn routine(&mut self, name: &str) -> RoutineInfo {
        self.look_up(name, &[self.callback], b'p', None)
    }

    fn concurrency_routine(&mut self, name: &str) -> RoutineInfo {
        self.look_up(name, &[pg_sys::INT8OID, pg_sys::TEXTOID], b'f', Some(pg_sys::TEXTOID))
    }

    fn query_routine(&mut self, name: &str) -> RoutineInfo {
        self.look_up(name, &[self.callback], b'f', Some(pg_sys::TEXTOID))
    }

    fn options_faults(&mut self, kind: &str, options: &Map<String, Value>) -> Vec<(String, String)> {
        elsewhere_api::kind_option_faults(kind, options)
    }

    fn store_exists(&mut self, name: &str) -> bool {
        let owner = self.owner;
        super::as_user(owner, || run(c"SELECT 1 FROM async.store WHERE store = $1", &[arg(name)]).len > 0)
    }

    fn flow_exists(&mut self, name: &str) -> bool {
        run(c"SELECT 1 FROM flow.configured WHERE flow = $1", &[arg(name)]).len > 0
    }

    fn interval(&mut self, text: &str) -> Result<(), String> {
        let text = text.to_owned();
        let parsed = pgrx::PgTryBuilder::new(move || -> Result<(), String> {
            let Ok(text) = CString::new(text) else { return Err("not an interval".to_owned()) };
            // SAFETY: the input function of a built-in type; its error is caught, and it holds nothing that must be
            // released when it raises.
            let positive = unsafe {
                let datum =
                    pg_sys::OidInputFunctionCall(INTERVAL_IN, text.as_ptr().cast_mut(), pg_sys::Oid::INVALID, -1);
                let interval = datum.cast_mut_ptr::<pg_sys::Interval>();
                (*interval).time > 0 || (*interval).day > 0 || (*interval).month > 0
            };
            if positive {
                Ok(())
            } else {
                Err("it must be longer than nothing".to_owned())
            }
        })
        .catch_others(|_| Err("not an interval".to_owned()))
        .execute();
        parsed
    }
}

/// Raises if a role may not configure that much.
pub fn require_definition_size(caller: pg_sys::Oid, bytes: usize) {
    run(c"SELECT async.require_definition_size($1, $2)", &[arg(caller), arg(bytes as i64)]);
}

/// The stored configuration of a flow.
pub fn stored_configuration(flow: &str) -> Option<serde_json::Value> {
    run(c"SELECT flow.stored_configuration($1)", &[arg(flow)]).one::<JsonB>().map(|j| j.0)
}

/// A node as `flow.insert_nodes` takes it. What is as by default is left out: to write and read it costs more than the row.
fn stored_node(n: &Node) -> Value {
    let mut stored = Map::new();
    let mut put = |key: &str, value: Value| {
        if !value.is_null() {
            stored.insert(key.to_owned(), value);
        }
    };
    let only = |is_given: bool, value: bool| if is_given { value.into() } else { Value::Null };
    put("node_no", n.node_no.into());
    put("node", n.name.as_str().into());
    put("rank", n.rank.into());
    for (key, text) in [
        ("target", &n.target),
        ("routine", &n.routine),
        ("routine_resolved", &n.routine_resolved),
        ("step_routine", &n.step_routine),
        ("step_routine_resolved", &n.step_routine_resolved),
        ("query", &n.query),
        ("step_query", &n.step_query),
        ("query_routine", &n.query_routine),
        ("query_routine_resolved", &n.query_routine_resolved),
        ("steps_to_flow", &n.steps_to_flow),
    ] {
        put(key, text.as_deref().into());
    }
    put("options", (!n.options.is_empty()).then(|| Value::Object(n.options.clone())).into());
    put("priority", n.priority.into());
    put("all_steps_must_complete", only(!n.all_steps_must_complete, false));
    put("empty", only(n.empty, true));
    put("synchronous", only(n.synchronous, true));
    put("node_timeout", n.node_timeout.as_deref().into());
    put("step_timeout", n.step_timeout.as_deref().into());
    put("on_partial_fail", only(n.on_partial == OnPartial::Fail, true));
    put("steps", (!n.steps.is_empty()).then(|| json!(n.steps)).into());
    put("parents", (!n.parents.is_empty()).then(|| json!(n.parents)).into());
    Value::Object(stored)
}

/// Stores a new version; the function checks that the caller may.
pub fn store_definition(caller: pg_sys::Oid, flow: &str, definition: Definition) {
    let nodes = definition.nodes.iter().map(stored_node).collect();
    let options = json!({
        "concurrency_group_routine": definition.flow.concurrency_group_routine_resolved,
        "priority": definition.flow.priority, "run_as": definition.flow.run_as,
    });
    run(
        c"SELECT flow.store_definition($1, $2, $3, $4, $5)",
        &[
            arg(caller),
            arg(flow),
            arg(JsonB(definition.configuration)),
            arg(JsonB(options)),
            arg(JsonB(Value::Array(nodes))),
        ],
    );
}
