//! The statement that calls a routine: one top-level `DO` with a static `CALL`, and the inbox's row in it.
//!
//! A callback may COMMIT only where no transaction block surrounds it: `BEGIN` + `CALL` and `EXECUTE 'CALL …'` both forbid
//! it. In a `DO` at top level it may, and what follows its last COMMIT commits together with what stands behind the call.
//! A `DO` takes no parameters: names are quoted as identifiers, values as literals, and the block in dollars with a tag that
//! does not occur in it.

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::inbox::Entry;
use super::names::{quoted_literal, quoted_name};
use crate::job::{Failure, Job};

type Setting = (String, String);

/// `before`: settings for the length of the transaction, where the session is not ours to set. `after`: the row of the inbox,
/// and a setting that makes whoever the callback has become the session's own role again, which may enter it.
pub fn block(
    job: &Job,
    routine: &str,
    before: &[Setting],
    after: Option<(Setting, &Entry)>,
) -> Result<String, Failure> {
    let name = quoted_name(routine).ok_or_else(|| {
        Failure::new(format!("{routine} is no name of a routine")).hint("It is written as name or schema.name.")
    })?;
    let arguments = &job.work.arguments;
    let row = [
        of_type(arguments.flow_id.map(|id| id.to_string()), "int8"),
        of_type(arguments.flow.clone(), "text"),
        of_type(json(&arguments.flow_arguments), "jsonb"),
        of_type(arguments.node.clone(), "text"),
        of_type(json(&arguments.step_arguments), "jsonb"),
        of_type(Some(job.task_id.to_string()), "int8"),
    ]
    .join(", ");
    let mut body = String::from("BEGIN\n");
    before.iter().for_each(|setting| body.push_str(&set(setting)));
    body.push_str(&format!("CALL {name}(ROW({row})::flow.callback_arguments_t);\n"));
    if let Some((own_role, entry)) = after {
        body.push_str(&set(&own_role));
        let (engine, task, attempt) = (quoted_literal(&entry.engine), entry.task_id, entry.attempt);
        body.push_str(&format!(
            "PERFORM async.enter_inbox({engine}::pg_catalog.text, ({task})::pg_catalog.int8, ({attempt})::pg_catalog.int4);\n"
        ));
    }
    body.push_str("END");
    let tag = tag_for(&body);
    Ok(format!("DO LANGUAGE plpgsql ${tag}$\n{body}\n${tag}$"))
}

fn set((name, value): &Setting) -> String {
    format!("PERFORM pg_catalog.set_config({}, {}, true);\n", quoted_literal(name), quoted_literal(value))
}

/// SQL NULL for what is not there.
fn json(value: &Value) -> Option<String> {
    (!value.is_null()).then(|| value.to_string())
}

fn of_type(text: Option<String>, type_name: &str) -> String {
    match text {
        Some(text) => format!("{}::pg_catalog.{}", quoted_literal(&text), type_name),
        None => format!("NULL::pg_catalog.{}", type_name),
    }
}

/// A tag that does not occur in a text. It comes from the text itself, so that nobody can write it in beforehand.
fn tag_for(text: &str) -> String {
    let mut tag = format!("pgflow_{}", &hex::encode(Sha256::digest(text.as_bytes()))[..16]);
    while text.contains(&tag) {
        tag.push('x');
    }
    tag
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::job::{Arguments, Work};

    #[test]
    fn nothing_breaks_out_of_the_block() {
        let arguments = Arguments {
            flow: Some("a'b\\'$pgflow_$".into()),
            step_arguments: json!({"x": "'; DROP TABLE t; --", "y": "$$ \\"}),
            ..Arguments::default()
        };
        let job = Job { task_id: 7, work: Work { arguments, ..Work::default() }, ..Job::default() };
        let entry = Entry { engine: "e'1".into(), task_id: 7, attempt: 2 };
        let own = ("role".to_owned(), "none".to_owned());
        let sql = block(&job, "Ops.load", &[("a.b".into(), "it's".into())], Some((own, &entry))).unwrap();
        let tag = sql.split('$').nth(1).unwrap();
        assert_eq!(sql.matches(&format!("${tag}$")).count(), 2);
        assert!(
            sql.contains(r#"CALL "ops"."load"(ROW(NULL::pg_catalog.int8, E'a''b\\''$pgflow_$'::pg_catalog.text,"#),
            "{sql}"
        );
        assert!(sql.contains("''; DROP TABLE t; --"), "{sql}");
        assert!(sql.contains("async.enter_inbox('e''1'::pg_catalog.text, (7)::pg_catalog.int8, (2)::pg_catalog.int4)"));
        assert!(block(&job, "load(); DROP TABLE t", &[], None).is_err());
    }
}
