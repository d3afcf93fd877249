//! What is kept of what tasks elsewhere return: from the words of a configuration to the executor's, and back into tables.

use pgflow_executor::job::{Done, Ending, Job};
use pgflow_executor::results::Keep;
use serde_json::{json, Value};

use super::remote::Landed;
use crate::engine::own_task::Attempt;
use crate::store::remote as store;

/// What the executor is to do with what a job returns. Err: why it cannot, in the user's words.
pub fn keep(job: &Job) -> Result<Keep, String> {
    match job.work.options.get("result") {
        None => Ok(Keep::Nothing),
        Some(Value::String(word)) if word == "none" => Ok(Keep::Nothing),
        Some(_) => Ok(Keep::Inline { max_rows: 1000, max_bytes: 1 << 20 }),
    }
}

/// Notes what a finished attempt has left: its result, and what the other side said.
pub fn record(l: &Landed) {
    let Ending::Finished(Done { kept, notices, .. }) = &l.ending else { return };
    if !notices.is_empty() {
        let (levels, messages) = notices.iter().map(|n| (n.level.clone(), n.message.clone())).unzip();
        crate::store::worker::log(Attempt { task_id: l.task_id, attempt: l.attempt }, levels, messages);
    }
    if let Some(kept) = kept {
        let said = json!({
            "kept_as": if kept.content.is_some() { "inline" } else { "object" }, "location": kept.location, "format": kept.format, "compression": kept.compression,
            "rows": kept.rows, "bytes": kept.bytes, "meta": kept.columns, "content": kept.content,
        });
        store::record_result(l.task_id, l.attempt, said);
    }
}

/// Objects that are gone, and those that could not be deleted.
pub fn deleted(ids: Vec<i64>, kept: Vec<(i64, String)>) {
    let _ = (ids, kept);
}
