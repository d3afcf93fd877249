//! What a job can do: queries and calls, their arguments, settings, messages and failures.

use anyhow::Result;
use pgflow_executor::job::{Arguments, Ending, Job, Secret, Work};
use serde_json::{json, Value};

use crate::kit::*;

fn options(value: Value) -> serde_json::Map<String, Value> {
    value.as_object().cloned().unwrap_or_default()
}

#[test]
fn a_query_runs_and_several_statements_do() -> Result<()> {
    let (string, mut session) = database("a_query_runs")?;
    session.run("CREATE TABLE t (x INT)")?;
    let mut bench = Bench::new();
    bench.done(&job(&string, query("INSERT INTO t VALUES (1); INSERT INTO t VALUES (2);")))?;
    assert_eq!(session.text("SELECT count(*) FROM t")?, "2");
    // All or nothing.
    bench.failure(&job(&string, query("INSERT INTO t VALUES (3); SELECT 1/0")))?;
    assert_eq!(session.text("SELECT count(*) FROM t")?, "2");
    bench.done(&job(&string, query("VACUUM t")))?;
    Ok(())
}

#[test]
fn a_call_gets_its_arguments_and_may_commit() -> Result<()> {
    let (string, mut session) = database("a_call_gets")?;
    session.run(TYPE)?;
    session.run(
        "CREATE SCHEMA ops;
         CREATE TABLE seen (what JSONB);
         CREATE PROCEDURE ops.load(_a flow.callback_arguments_t) LANGUAGE plpgsql AS $$
         BEGIN
           INSERT INTO seen VALUES (to_jsonb(_a));
           COMMIT;
           RAISE NOTICE 'half of %', _a.node;
           INSERT INTO seen VALUES ('2');
           COMMIT;
           IF _a.step_arguments ? 'fail' THEN RAISE 'no' USING DETAIL = 'why', HINT = 'do', ERRCODE = 'PX001'; END IF;
         END $$",
    )?;
    let mut bench = Bench::new();
    for inbox in [false, true] {
        if inbox {
            session.run(INBOX)?;
            // A kept connection does not know of it.
            bench = Bench::new();
        }
        session.run("TRUNCATE seen")?;
        let step = json!({"x": "it's \\ $$ \u{e9}", "list": [1, null]});
        let job = job(&string, call("OPS.load", step.clone()));
        let done = bench.done(&job)?;
        assert_eq!((done.notices[0].level.as_str(), done.notices[0].message.as_str()), ("NOTICE", "half of load"));
        let seen: Value = serde_json::from_str(&session.text("SELECT what FROM seen LIMIT 1")?)?;
        assert_eq!(
            seen,
            json!({"flow_id": 7, "flow": "nightly's", "flow_arguments": {"day": "2026-11-20"}, "node": "load",
                   "step_arguments": step, "task_id": job.task_id})
        );
        assert_eq!(session.text("SELECT count(*) FROM seen")?, "2");
        let failure = bench.failure(&crate::kit::job(&string, call("ops.load", json!({"fail": true}))))?;
        assert_eq!((failure.code.as_deref(), failure.message.as_str()), (Some("PX001"), "no"));
        let detail = failure.detail.unwrap_or_default();
        assert!(detail.starts_with("why\nCONTEXT: PL/pgSQL function ops.load"), "{detail}");
        assert!(!detail.contains("inline_code_block"), "{detail}");
        assert_eq!(failure.hint.as_deref(), Some("do"));
    }
    Ok(())
}

#[test]
fn what_a_call_lacks_there_is_named() -> Result<()> {
    let (string, mut session) = database("what_a_call_lacks")?;
    let mut bench = Bench::new();
    let failure = bench.failure(&job(&string, call("load", json!({}))))?;
    assert!(failure.hint.unwrap_or_default().contains("pgflow_client.sql"), "{}", failure.message);
    session.run("CREATE SCHEMA flow")?;
    let failure = bench.failure(&job(&string, call("load", json!({}))))?;
    assert!(failure.hint.unwrap_or_default().contains("pgflow_client.sql"), "{}", failure.message);
    session.run(TYPE)?;
    let failure = bench.failure(&job(&string, call("load", json!({}))))?;
    assert!(failure.message.contains("load") && failure.code.as_deref() == Some("42883"), "{failure:?}");
    assert!(failure.hint.unwrap_or_default().contains("procedure"));
    let failure = bench.failure(&job(&string, call("load(); DROP SCHEMA flow", json!({}))))?;
    assert!(failure.message.contains("no name"), "{failure:?}");
    Ok(())
}

#[test]
fn a_failure_says_code_place_and_hint() -> Result<()> {
    let (string, mut session) = database("a_failure_says")?;
    let mut bench = Bench::new();
    let failure = bench.failure(&job(&string, query("SELECT 1,\n  nothing FROM pg_class")))?;
    assert_eq!(failure.code.as_deref(), Some("42703"));
    assert!(failure.detail.unwrap_or_default().contains("LINE 2, column 3: nothing FROM"));
    let failure = bench.failure(&job(&string, query("SELECT relnam FROM pg_class")))?;
    assert!(failure.hint.unwrap_or_default().contains("relname"), "the server's own hint");
    let failure = bench.failure(&job(&string, query("COPY pg_class TO STDOUT")))?;
    assert!(failure.message.contains("copy"), "{failure:?}");
    let failure = bench.failure(&job(&string, query("CREATE TABLE c (x INT); COPY c FROM STDIN")))?;
    assert!(failure.message.contains("copy"), "{failure:?}");
    bench.done(&job(&string, query("SELECT 1")))?;
    // In a transaction of ours too.
    session.run(INBOX)?;
    let mut bench = Bench::new();
    for text in ["COPY pg_class TO STDOUT", "CREATE TABLE c (x INT); COPY c FROM STDIN"] {
        let failure = bench.failure(&job(&string, query(text)))?;
        assert!(failure.message.contains("copy"), "{failure:?}");
    }
    wait_for(&mut session, "SELECT to_regclass('c') IS NULL", "t")
}

#[test]
fn parameters_and_secrets_are_bound() -> Result<()> {
    let (string, mut session) = database("parameters_are_bound")?;
    session.run("CREATE TABLE t (n INT, d DATE, tags TEXT[], j JSONB, s TEXT)")?;
    let mut bench = Bench::new();
    let work = Work {
        query: Some("INSERT INTO t VALUES ({n}, {day:date}, {tags:text[]}, {j:jsonb}, {key} || '{n}')".into()),
        arguments: Arguments {
            flow_arguments: json!({"day": "2026-11-20"}),
            step_arguments: json!({"n": 5}),
            ..Arguments::default()
        },
        options: options(json!({"parameters":
            {"n": "$n", "day": "$day", "tags": ["a\"b", null, "c,d"], "j": {"x": [1]}}})),
        secrets: [("key".to_owned(), Secret::new("hunter22"))].into(),
        ..Work::default()
    };
    bench.done(&job(&string, work.clone()))?;
    let row = session.rows("SELECT n, d, tags, j, s FROM t")?.remove(0);
    let row: Vec<String> = row.into_iter().flatten().collect();
    assert_eq!(row, ["5", "2026-11-20", "{\"a\\\"b\",NULL,\"c,d\"}", "{\"x\": [1]}", "hunter22{n}"]);
    // What the server quotes of a secret does not get out.
    let bad = Work { query: Some("SELECT {key}::int".into()), ..work.clone() };
    let failure = bench.failure(&job(&string, bad))?;
    assert!(failure.message.contains("***") && !failure.to_string().contains("hunter22"), "{failure}");
    let missing = Work { query: Some("SELECT {nothing}".into()), ..work.clone() };
    assert!(bench.failure(&job(&string, missing))?.message.contains("{nothing}"));
    let two = Work { query: Some("SELECT {n}; SELECT 2".into()), ..work };
    assert!(bench.failure(&job(&string, two))?.hint.unwrap_or_default().contains("single statement"));
    Ok(())
}

#[test]
fn settings_hold_for_one_job_and_nothing_of_a_job_stays() -> Result<()> {
    let (string, _) = database("settings_hold")?;
    let mut bench = Bench::new();
    let with = Work {
        options: options(json!({"settings": {"work_mem": "12MB", "my.own": 7}})),
        ..query(
            "SELECT current_setting('work_mem') AS m, current_setting('my.own', true) AS o, pg_backend_pid() AS p,
                        current_setting('application_name') AS a",
        )
    };
    let first = job(&string, with.clone());
    let rows = bench.rows(first.clone())?;
    assert_eq!((&rows[0]["m"], &rows[0]["o"]), (&json!("12MB"), &json!("7")));
    assert_eq!(rows[0]["a"], json!(first.attempt_key(1)));
    std::thread::sleep(std::time::Duration::from_millis(300));
    let leave = "CREATE TEMP TABLE left_over (x INT); SET search_path = nowhere; SELECT pg_advisory_lock(5); PREPARE p AS SELECT 1; LISTEN x; SET ROLE bob";
    bench.done(&job(&string, query(leave)))?;
    std::thread::sleep(std::time::Duration::from_millis(300));
    let look = "SELECT to_regclass('pg_temp.left_over') IS NULL AND current_setting('search_path') <> 'nowhere' AND current_user = 'postgres'
                       AND NOT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid())
                       AND NOT EXISTS (SELECT FROM pg_prepared_statements WHERE from_sql) AS clean,
                       current_setting('work_mem') <> '12MB' AS reset, pg_backend_pid() AS p";
    let again = bench.rows(job(&string, query(look)))?;
    assert_eq!((&again[0]["clean"], &again[0]["reset"]), (&json!(true), &json!(true)));
    assert_eq!(again[0]["p"], rows[0]["p"], "the connection is the same");
    let wrong = Work { options: options(json!({"settings": {"wrok_mem": "12MB"}})), ..query("SELECT 1") };
    let failure = bench.failure(&job(&string, wrong))?;
    assert_eq!(failure.code.as_deref(), Some("42704"), "{failure:?}");
    Ok(())
}

#[test]
fn a_target_may_name_a_role_to_become() -> Result<()> {
    let (string, mut session) = database("a_role_to_become")?;
    session.run("CREATE ROLE etl NOLOGIN")?;
    let mut bench = Bench::new();
    let etl = job_at(target(&string, json!({"role": "etl"})), query("SELECT current_user::text AS u"));
    assert_eq!(bench.rows(etl)?[0]["u"], json!("etl"));
    let nobody = job_at(target(&string, json!({"role": "nobody"})), query("SELECT 1"));
    assert!(bench.failure(&nobody)?.message.contains("nobody"));
    // Without a user it is the role of the job.
    let plain = string.replace(" user=postgres", "");
    let bob = Job { role: "bob".into(), ..job(&plain, query("SELECT session_user::text AS u")) };
    assert_eq!(bench.rows(bob)?[0]["u"], json!("bob"));
    Ok(())
}

#[test]
fn messages_are_bounded() -> Result<()> {
    let (string, _) = database("messages_are_bounded")?;
    let text = "DO $$ BEGIN FOR i IN 1..250 LOOP RAISE WARNING 'no %', i; END LOOP; END $$";
    let notices = Bench::new().done(&job(&string, query(text)))?.notices;
    assert_eq!(notices.len(), 101);
    assert_eq!((notices[0].level.as_str(), notices[99].message.as_str()), ("WARNING", "no 100"));
    assert!(notices[100].message.contains("150 more"));
    Ok(())
}

#[test]
fn a_closed_connection_is_replaced() -> Result<()> {
    let (string, mut session) = database("a_closed_connection")?;
    let mut bench = Bench::new();
    let pid = bench.rows(job(&string, query("SELECT pg_backend_pid() AS p")))?[0]["p"].clone();
    std::thread::sleep(std::time::Duration::from_millis(300));
    session.run(&format!("SELECT pg_terminate_backend({pid})"))?;
    for _ in 0..3 {
        bench.done(&job(&string, query("SELECT 1")))?;
    }
    // Terminated while it works: nobody says what became of it.
    let slow = job(&string, query("SELECT pg_sleep(60)"));
    bench.begin(&slow);
    let running = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = '{}' AND query LIKE '%sleep%'",
        slow.attempt_key(1)
    );
    wait_for(&mut session, &running, "1")?;
    session.run(&format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = '{}'",
        slow.attempt_key(1)
    ))?;
    let (_, ending, _) = bench.ending();
    assert!(matches!(&ending, Ending::Lost(f) if f.code.as_deref() == Some("57P01")), "{ending:?}");
    Ok(())
}
