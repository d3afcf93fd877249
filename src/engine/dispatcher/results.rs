//! What is kept of what tasks elsewhere return: from the words of a configuration to the executor's, and back into tables.

use std::sync::Arc;

use pgflow_executor::job::{Done, Ending, Job};
use pgflow_executor::results::{object_path, parse_result, Keep, Kept, ObjectSpec, ResultSpec, ResultTo, Store};

use super::jobs::secrets;
use super::remote::Landed;
use crate::engine::own_task::Attempt;
use crate::store::remote as store;

/// What is said about the result of a job. It was checked when it was configured.
pub fn spec(job: &Job) -> Result<ResultSpec, String> {
    let said = job.work.options.get("result").unwrap_or(&serde_json::Value::Null);
    parse_result(said).map_err(|faults| {
        let faults: Vec<String> = faults.iter().map(|f| format!("result{}: {}", f.path, f.message)).collect();
        faults.join("; ")
    })
}

/// A store with its credentials; None: there is none of that name.
pub fn open_store(name: &str) -> Option<Arc<Store>> {
    let (url, options) = store::object_store(name)?;
    Some(Arc::new(Store { name: name.to_owned(), url, options: secrets(options) }))
}

/// What the executor is to do with what a job returns. Err: why it cannot, in the user's words.
pub fn keep(job: &Job, spec: &ResultSpec) -> Result<Keep, String> {
    let place = |object: &ObjectSpec| -> Result<(Arc<Store>, String), String> {
        let place =
            open_store(&object.store).ok_or_else(|| format!("store {} does not exist any more", object.store))?;
        let path = object_path(object.path.as_deref(), job, object.format, object.compression);
        let path = path.map_err(|failure| failure.to_string())?;
        match store::path_fault(&object.store, &path, &job.role) {
            Some(fault) => Err(fault),
            None => Ok((place, path)),
        }
    };
    Ok(match &spec.to {
        // Rows of a table go to the worker that asked for them: see `bridge`.
        ResultTo::Nothing | ResultTo::Table { .. } => Keep::Nothing,
        ResultTo::Inline { max_rows, max_bytes, .. } => Keep::Inline { max_rows: *max_rows, max_bytes: *max_bytes },
        ResultTo::Object(object) => {
            let (store, path) = place(object)?;
            Keep::Object { store, path, format: object.format, compression: object.compression }
        }
        ResultTo::Export(object) => {
            let (store, path) = place(object)?;
            Keep::Export { store, path, format: object.format, compression: object.compression }
        }
    })
}

/// Notes what a finished attempt has left: its result, and what the other side said.
pub fn record(l: &Landed) {
    let Ending::Finished(Done { kept, notices, .. }) = &l.ending else { return };
    let attempt = Attempt { task_id: l.task_id, attempt: l.attempt };
    if !notices.is_empty() {
        let (levels, messages) = notices.iter().map(|n| (n.level.clone(), n.message.clone())).unzip();
        crate::store::worker::log(attempt, levels, messages);
    }
    if let Some(kept) = kept {
        store::record_result(attempt, &placed(kept, l), &l.spec);
    }
}

/// Has what an attempt has stored deleted: somebody has ended the task otherwise. Returns whether there is anything.
pub fn discard(l: &Landed) -> bool {
    let Ending::Finished(Done { kept: Some(kept), .. }) = &l.ending else { return false };
    let attempt = Attempt { task_id: l.task_id, attempt: l.attempt };
    store::discard_result(attempt, &placed(kept, l), &l.spec);
    l.keep.path().is_some()
}

fn placed(kept: &Kept, l: &Landed) -> Kept {
    Kept { path: l.keep.path().map(str::to_owned), ..kept.clone() }
}
