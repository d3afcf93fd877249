//! Configurations that are made to break what reads, stores, shows or draws them.

use std::time::{Duration, Instant};

use anyhow::{ensure, Result};
use pgflow_tests::session::{literal, Session};

use crate::kit::*;

/// Far beyond what they take: what has no bound takes this.
const LONGEST: Duration = Duration::from_secs(120);

/// The most memory that the session's backend has had, in MB.
fn memory(admin: &mut Session, session: &mut Session) -> Result<u64> {
    let pid = session.number("SELECT pg_backend_pid()")?;
    let status = admin.text(&format!("SELECT pg_read_file('/proc/{pid}/status')"))?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap_or("");
    Ok(line.split_whitespace().nth(1).unwrap_or("0").parse::<u64>()? / 1024)
}

fn bounded(place: &mut Place<'_>, what: &str, sql: &str, error: Option<&str>) -> Result<()> {
    let mut session = place.database.connect_as("malicious_attacker")?;
    let begun = Instant::now();
    match error {
        Some(error) => refused(&mut session, sql, error)?,
        None => session.run(sql)?,
    }
    let took = begun.elapsed();
    let peak = memory(&mut place.admin, &mut session)?;
    println!("{what}: {took:.1?}, {peak} MB");
    ensure!(took < LONGEST, "{what} took {took:.1?}");
    ensure!(peak < 1500, "{what} took {peak} MB");
    Ok(())
}

#[test]
fn large_and_deep_configurations_are_refused_or_stored_in_bounded_time_and_memory() {
    attack("malicious", |place| {
        let configure = |json: &str| format!("SELECT flow.configure_flow('f', ({json})::JSONB)");
        let node = r#"jsonb_build_object('node', 'n' || i, 'routine', 't.nothing')"#;
        let nodes = |count: usize| {
            format!("SELECT jsonb_build_object('nodes', jsonb_agg({node})) FROM generate_series(1, {count}) i")
        };
        let many = configure(&nodes(100_001));
        bounded(place, "100,001 nodes", &many, Some("a flow has at most 100000 nodes"))?;
        bounded(place, "20,000 nodes", &configure(&nodes(20_000)), None)?;
        let text = r#"SELECT jsonb_build_object('nodes', jsonb_build_array(jsonb_build_object('node', 'a', 'routine', 't.nothing', 'description', repeat('x', 10000000))))"#;
        bounded(place, "10 MB in one text", &configure(text), None)?;
        let keys = r#"SELECT jsonb_build_object('nodes', jsonb_build_array(jsonb_object_agg('unknown_' || i, i))) FROM generate_series(1, 300000) i"#;
        bounded(place, "300,000 unknown keys", &configure(keys), Some("different unknown keys"))?;
        let faulty = r#"SELECT jsonb_build_object('nodes', jsonb_agg(i)) FROM generate_series(1, 100000) i"#;
        bounded(place, "100,000 faults", &configure(faulty), Some("the configuration of flow"))?;
        let deep = |levels: usize| format!("SELECT repeat('[', {levels}) || repeat(']', {levels})");
        for levels in [200, 3000] {
            bounded(place, "deep", &configure(&deep(levels)), Some("nested more than 127 levels deep"))?;
            let call = format!("SELECT count(*) FROM flow.validate(({})::JSONB)", deep(levels));
            bounded(place, "deep, validated", &call, Some("ERROR 54000"))?;
        }
        // Postgres' own parser: a clean error, whatever the depth.
        bounded(place, "10,000 deep", &configure(&deep(10_000)), Some("ERROR 54"))?;
        bounded(place, "a million deep", &configure(&deep(1_000_000)), Some("ERROR 54001"))?;
        let name = "repeat('x', 1000)";
        let equal = format!("SELECT length(flow.render_graphviz((SELECT jsonb_build_object('nodes', jsonb_agg(jsonb_build_object('name', {name}))) FROM generate_series(1, 5000))))");
        bounded(place, "5,000 equal names in a diagram", &equal, None)?;
        Ok(())
    });
}

/// What is in names and errors comes out of views as it is, and out of diagrams and messages with nothing that breaks a
/// line, ends a string, or turns the direction of what follows.
#[test]
fn odd_characters_break_no_diagram_and_no_message() {
    attack("odd", |place| {
        let odd = "a\"b<c>&'\\ \u{202e}txet\u{2066} \u{200b}";
        let shown = |text: &str| {
            text.chars().filter(|c| matches!(c, '\u{200b}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')).count()
        };
        let name = literal(odd);
        place.admin.run(&format!(
            "CREATE PROCEDURE t.fails(_args flow.callback_arguments_t) LANGUAGE plpgsql AS $x$ BEGIN RAISE EXCEPTION USING MESSAGE = {name} || E'\\n]; evil [label=\"x\"'; END $x$"
        ))?;
        place.attacker.run(&format!(
            "SELECT flow.configure_flow({name}, '{{\"nodes\": [{{\"node\": \"a\", \"routine\": \"t.fails\"}}]}}')"
        ))?;
        let flow_id = place.attacker.number(&format!("SELECT flow.run_flow({name}, '{{}}')"))?;
        same(place.ended(flow_id)?, "a Failed")?;
        same(place.attacker.text("SELECT flow FROM flow.v_flow_status")?, odd)?;
        for call in [format!("flow.graphviz({flow_id})"), format!("flow.graphviz({name})")] {
            let drawn = place.attacker.text(&format!("SELECT {call}"))?;
            same(shown(&drawn), 0)?;
            ensure!(!drawn.contains("\n]") && !drawn.contains("<c>"), "{drawn}");
            // As the reference renderer reads it.
            let mut dot = std::process::Command::new("dot");
            let mut child = dot
                .arg("-Tsvg")
                .stdin(std::process::Stdio::piped())
                .stdout(std::process::Stdio::piped())
                .stderr(std::process::Stdio::piped())
                .spawn()?;
            std::io::Write::write_all(
                &mut child.stdin.take().unwrap_or_else(|| unreachable!("it is piped")),
                drawn.as_bytes(),
            )?;
            let output = child.wait_with_output()?;
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            ensure!(output.status.success() && said.is_empty(), "{said}\n{drawn}");
        }
        // A message repeats nothing odd of what it refuses.
        for json in [
            serde_json::json!({"nodes": [{"node": odd}]}),
            serde_json::json!({"nodes": [{"node": "a", "routine": odd}]}),
            serde_json::json!({"nodes": [{"node": "a", "routine": "t.nothing", "target": odd}]}),
            serde_json::json!({"nodes": [{"node": "a", "routine": "t.nothing", odd: 1, "dependencies": [{"parent": odd}]}]}),
        ] {
            let error =
                place.attacker.error(&format!("SELECT flow.configure_flow('f', {})", literal(&json.to_string())))?;
            same(shown(&error), 0)?;
        }
        // NUL is in no text and no jsonb; line breaks are in no name.
        let nul = r#"SELECT flow.configure_flow('f', '{"nodes": [{"node": "a\u0000b"}]}')"#;
        refused(&mut place.attacker, nul, "ERROR 22P05")?;
        for control in ["E'a\\nb'", "E'a\\tb'", "E'a\\u001b[31mb'", "E'a\\u0085b'"] {
            let call = format!("SELECT flow.configure_flow({control}, '{{\"nodes\": [{{\"node\": \"a\", \"routine\": \"t.nothing\"}}]}}')");
            refused(&mut place.attacker, &call, "control character")?;
        }
        Ok(())
    });
}
