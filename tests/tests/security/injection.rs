//! SQL through every text: each function that a user of flows may call, with hostile texts in each of its arguments. The
//! functions are found in the catalogue, so that a new one is attacked as soon as it is there.

use anyhow::{bail, ensure, Result};
use pgflow_tests::session::{literal, Session};

use crate::kit::*;

const HOSTILE: [&str; 9] = [
    "'); DROP TABLE t.canary; UPDATE async.task SET run_as = 'postgres'; --",
    "\"); DROP TABLE t.canary; --",
    "$$; DROP TABLE t.canary; $$",
    "$x$; CREATE ROLE injected; $x$",
    "\\'; DROP TABLE t.canary; --",
    "' || nextval('t.sprung') || '",
    "%s %I %L %1$s %n {} {0}",
    "a.\"b\".c\" \r\n\t\u{202e}\u{1b}[31m",
    "nextval('t.sprung')",
];

/// A function, its schema and whether it is a procedure, and the types and names of what it takes.
struct Target {
    name: String,
    is_procedure: bool,
    types: Vec<String>,
    names: Vec<String>,
}

fn targets(admin: &mut Session) -> Result<Vec<Target>> {
    let rows = admin.rows(
        "SELECT p.pronamespace::REGNAMESPACE || '.' || quote_ident(p.proname), p.prokind = 'p',
                (SELECT string_agg(format_type(t, NULL), '|' ORDER BY n) FROM unnest(p.proargtypes) WITH ORDINALITY AS x(t, n)),
                array_to_string((coalesce(p.proargnames, '{}'))[:p.pronargs], '|', '')
           FROM pg_proc p
          WHERE p.pronamespace IN ('async'::REGNAMESPACE, 'flow'::REGNAMESPACE) AND p.pronargs > 0
            AND has_function_privilege('flow_user', p.oid, 'EXECUTE')
          ORDER BY 1",
    )?;
    let parts =
        |text: &Option<String>| text.clone().unwrap_or_default().split('|').map(str::to_owned).collect::<Vec<_>>();
    Ok(rows
        .iter()
        .map(|row| Target {
            name: row[0].clone().unwrap_or_default(),
            is_procedure: row[1].as_deref() == Some("t"),
            types: parts(&row[2]),
            names: parts(&row[3]),
        })
        .collect())
}

/// The attacker's own run and a task of it: what is looked at only where the ids are good is reached with these.
struct Own {
    run: i64,
    task: i64,
}

/// An argument that is as it should be.
fn plausible(kind: &str, name: &str, own: &Own) -> String {
    match kind {
        "bigint" if name.contains("task") => own.task.to_string(),
        "bigint" => own.run.to_string(),
        "bigint[]" => format!("ARRAY[{}]::BIGINT[]", own.task),
        "text" if name.contains("target") => "'local'".into(),
        "text" if name.contains("node") => "'a'".into(),
        "text" => "'f'".into(),
        "name" => "current_user::NAME".into(),
        "jsonb" => "'{}'::JSONB".into(),
        "jsonb[]" => "ARRAY['{\"i\": 1}']::JSONB[]".into(),
        "text[]" => "ARRAY['a']".into(),
        "integer" | "double precision" => "1".into(),
        "boolean" => "false".into(),
        "interval" => "INTERVAL '1 ms'".into(),
        "timestamp with time zone" => "now()".into(),
        "flow.callback_arguments_t" => {
            format!("ROW({}, 'f', '{{}}', 'a', '{{}}', {})::flow.callback_arguments_t", own.run, own.task)
        }
        "async.task_push_t" => "async.task('SELECT 1')".into(),
        "async.task_push_t[]" => "ARRAY[async.task('SELECT 1')]".into(),
        "async.finish_status_t" => "'FINISHED'".into(),
        "async.task_run_type_t" => "'EXECUTE'".into(),
        "regclass" => "'t.canary'::REGCLASS".into(),
        other => format!("NULL::{other}"),
    }
}

/// The forms in which a text gets into an argument of a type; none: it cannot.
fn hostile(kind: &str, text: &str, own: &Own) -> Vec<String> {
    let sql = literal(text);
    let json = |value: serde_json::Value| format!("{}::JSONB", literal(&value.to_string()));
    match kind {
        "text" | "name" => vec![format!("{sql}::{kind}")],
        "text[]" => vec![format!("ARRAY[{sql}]")],
        "jsonb" => vec![
            json(text.into()),
            json(serde_json::json!([text])),
            json(
                serde_json::json!({text: text, "query_id": text, "sort_by": text, "to": text, "store": text, "path": text, "table": text}),
            ),
            json(serde_json::json!({"flow": {"run_as": text}, "concurrency_group_routine": text, "nodes": [
                {"node": text, "routine": text, "target": text, "node_timeout": text, text: text,
                 "steps_to_flow": text, "dependencies": [{"parent": text}]}]})),
            json(serde_json::json!({"nodes": [{"node": "a", "query": text, "description": text, "steps_to_flow": text,
                 "steps": null, "result": {"to": "table", "table": text}}]})),
        ],
        "jsonb[]" => vec![format!("ARRAY[{}]", json(serde_json::json!({text: text})))],
        "flow.callback_arguments_t" => vec![format!(
            "ROW({}, {sql}, {j}, {sql}, {j}, {})::flow.callback_arguments_t",
            own.run,
            own.task,
            j = json(serde_json::json!({text: text}))
        )],
        "async.task_push_t" => vec![
            format!("async.task('SELECT 1', {sql}, {}, 0, {sql})", json(text.into())),
            format!("async.task({sql}, 'local', NULL, 0, {sql})"),
        ],
        "async.task_push_t[]" => vec![format!("ARRAY[async.task({sql}, 'local', NULL, 0, {sql})]")],
        _ => Vec::new(),
    }
}

/// A table to be dropped, and a sequence that moves when a text has become SQL, also where that is rolled back.
fn traps(admin: &mut Session) -> Result<()> {
    admin.run(
        "CREATE TABLE t.canary (i INT); INSERT INTO t.canary VALUES (1);
         CREATE SEQUENCE t.sprung; GRANT USAGE ON SEQUENCE t.sprung TO PUBLIC",
    )
}

/// Everything that the attacker must not have changed, as one text.
fn world(admin: &mut Session) -> Result<String> {
    let victims = "SELECT oid FROM pg_roles WHERE rolname = 'injected_victim'";
    let mut all = Vec::new();
    for query in [
        "SELECT count(*) FROM t.canary".to_owned(),
        "SELECT is_called FROM t.sprung".into(),
        "SELECT string_agg(rolname || rolsuper || rolcreaterole, ',' ORDER BY oid) FROM pg_roles WHERE rolname ~ '^injected'".into(),
        "SELECT count(*) || ' ' || max(oid) FROM pg_proc WHERE pronamespace::REGNAMESPACE::TEXT !~ '^pg_temp'".into(),
        "SELECT count(*) || ' ' || max(oid) FROM pg_class WHERE relnamespace::REGNAMESPACE::TEXT !~ '^pg_(temp|toast)'".into(),
        "SELECT count(*) FROM pg_namespace WHERE nspname !~ '^pg_(temp|toast)'".into(),
        "SELECT string_agg(f::TEXT, ',' ORDER BY flow_id) FROM flow.flow f WHERE run_as = 'injected_victim'".into(),
        "SELECT string_agg(k::TEXT, ',' ORDER BY task_id) FROM async.task k WHERE run_as = 'injected_victim'".into(),
        "SELECT string_agg(n::TEXT, ',' ORDER BY n) FROM flow.flow_node n JOIN flow.flow f USING (flow_id) WHERE run_as = 'injected_victim'".into(),
        "SELECT string_agg(c::TEXT || d::TEXT, ',' ORDER BY c.flow) FROM flow.configured c JOIN flow.definition d USING (definition_id) WHERE owner <> 'injected_attacker'".into(),
        "SELECT string_agg(x::TEXT, ',') FROM (SELECT * FROM async.target ORDER BY target) x".into(),
        "SELECT c::TEXT FROM async.control c".into(),
        "SELECT count(*) FROM async.store".into(),
        "SELECT count(*) FROM async.role_limit".into(),
        format!("SELECT count(*) FROM pg_shdepend WHERE refobjid IN ({victims})"),
    ] {
        all.push(admin.text(&format!("SELECT coalesce(({query})::TEXT, '')"))?);
    }
    Ok(all.join("\n"))
}

#[test]
fn hostile_texts_in_every_argument_of_every_function_do_nothing() {
    attack("injected", |place| {
        place.admin.run("SELECT async.pause()")?;
        traps(&mut place.admin)?;
        configure(&mut place.victim, "f", r#"{"node": "a", "routine": "t.notes"}"#)?;
        run(&mut place.victim, "f")?;
        place.victim.run("SELECT async.push_task(async.task('SELECT 1'))")?;
        let run = run(&mut place.attacker, "f")?;
        let task = place.attacker.number(&format!("SELECT min(task_id) FROM async.task WHERE flow_id = {run}"))?;
        let own = Own { run, task };
        place.attacker.run("SET statement_timeout = '1s'")?;

        let before = world(&mut place.admin)?;
        let (mut calls, mut attacked, mut refusals) = (0, 0, 0);
        for target in targets(&mut place.admin)? {
            let good = |i: usize| plausible(&target.types[i], target.names.get(i).map_or("", String::as_str), &own);
            let mut taken = false;
            for (place_of, kind) in target.types.iter().enumerate() {
                for text in HOSTILE {
                    for bad in hostile(kind, text, &own) {
                        let arguments: Vec<String> = (0..target.types.len())
                            .map(|i| if i == place_of { bad.clone() } else { good(i) })
                            .collect();
                        let verb = if target.is_procedure { "CALL" } else { "SELECT * FROM" };
                        let call = format!("{verb} {}({})", target.name, arguments.join(", "));
                        refusals += usize::from(!harmless(place, &call)?);
                        (calls, taken) = (calls + 1, true);
                    }
                }
            }
            attacked += usize::from(taken);
            if taken {
                let now = world(&mut place.admin)?;
                ensure!(now == before, "{} changed the world\n{before}\n{now}", target.name);
            }
        }
        println!("{calls} calls of {attacked} functions, {refusals} refused");
        ensure!(
            attacked > 40 && refusals * 10 > calls && refusals < calls,
            "{attacked} functions, {refusals} of {calls}"
        );

        // What was pushed is the attacker's own SQL, run with his rights; views and diagrams show all of it.
        place.admin.run("SELECT flow.cancel(flow_id) FROM flow.flow WHERE run_as = 'injected_victim'")?;
        place.admin.run("SELECT async.resume()")?;
        place.database.wait_until(
            "NOT EXISTS (SELECT FROM async.task WHERE processed IS NULL AND target = 'local' AND yielded IS NULL)",
            SOON,
        )?;
        same(place.admin.number("SELECT count(*) FROM t.canary")?, 1)?;
        same(place.admin.number("SELECT count(*) FROM pg_roles WHERE rolname = 'injected'")?, 0)?;
        let views = place.admin.column("SELECT oid::REGCLASS FROM pg_class WHERE relkind = 'v' AND relnamespace IN ('async'::REGNAMESPACE, 'flow'::REGNAMESPACE)")?;
        for view in views {
            place.admin.run(&format!("SELECT * FROM {view}"))?;
        }
        place.admin.run("SELECT flow.graphviz(flow_id) FROM flow.flow; SELECT flow.graphviz(flow) FROM flow.configured")
    });
}

/// Whether the call went well; fails for an error that is not the caller's affair.
fn harmless(place: &mut Place<'_>, call: &str) -> Result<bool> {
    let Err(error) = place.attacker.run(call) else { return Ok(true) };
    let error = format!("{error:#}");
    // A syntax error would mean that the text has become SQL.
    for bad in ["ERROR XX", "ERROR 42601", "PANIC", "FATAL", "closed"] {
        if error.contains(bad) {
            bail!("{call}\n{error}");
        }
    }
    ensure!(error.contains("ERROR "), "{call}\n{error}");
    Ok(false)
}

/// The attack notices a function that pastes what it is given: else the test above would say nothing.
#[test]
fn a_function_that_pastes_its_argument_is_noticed() {
    attack("pasting", |place| {
        place.admin.run(
            "CREATE FUNCTION flow.naive(_text TEXT) RETURNS TEXT LANGUAGE plpgsql AS
               $f$ DECLARE _found TEXT; BEGIN EXECUTE 'SELECT ''' || _text || '''' INTO _found; RETURN _found; END $f$;
             GRANT EXECUTE ON FUNCTION flow.naive TO flow_user",
        )?;
        let naive = targets(&mut place.admin)?.iter().filter(|target| target.name == "flow.naive").count();
        same(naive, 1)?;
        traps(&mut place.admin)?;
        let before = world(&mut place.admin)?;
        let mut noticed = 0;
        for text in HOSTILE {
            noticed += usize::from(harmless(place, &format!("SELECT flow.naive({})", literal(text))).is_err());
        }
        ensure!(noticed > 0, "no text was noticed");
        ensure!(world(&mut place.admin)? != before, "the trap did not spring");
        Ok(())
    });
}
