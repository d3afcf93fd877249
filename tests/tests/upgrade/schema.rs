//! An updated schema is that of a new database, in every detail, and so are the rows that the extension makes.

use std::collections::BTreeMap;

use anyhow::{ensure, Result};
use pgflow_tests::database::Database;
use pgflow_tests::session::Session;

use crate::kit::*;

/// (what it is of, what of it) → how it is.
type Facts = BTreeMap<(String, String), String>;

fn facts(database: &Database) -> Result<Facts> {
    let rows = database.connect()?.rows(include_str!("schema.sql"))?;
    let mut facts = Facts::new();
    for row in rows {
        let [name, what, how] = row.try_into().map_err(|row| anyhow::anyhow!("three columns, not {row:?}"))?;
        let before = facts.insert((name.unwrap_or_default(), what.unwrap_or_default()), how.unwrap_or_default());
        ensure!(before.is_none(), "a fact of the schema comes twice: {before:?}");
    }
    Ok(facts)
}

/// What the author of a change is to write where.
fn advice(name: &str, what: &str, in_new: bool, in_updated: bool) -> String {
    let object = name.split_once(' ').map_or(name, |(_, object)| object);
    let kind = what.split(' ').next().unwrap_or("");
    match (in_new, in_updated) {
        (true, false) if kind == "column" => format!("ALTER TABLE {object} ADD …, above the line"),
        (true, false) if ["constraint", "index"].contains(&kind) => {
            format!("ALTER TABLE or CREATE INDEX on {object}, above the line")
        }
        (false, true) if name.starts_with("function ") => format!("DROP FUNCTION {object}, above the line"),
        (false, true) if ["policy", "trigger", "column", "constraint", "index"].contains(&kind) => {
            format!("DROP {} on {object}, above the line", kind.to_uppercase())
        }
        (false, true) if kind == "comment" => format!("COMMENT ON {name} IS NULL"),
        (false, true) => format!("DROP {name}, above the line"),
        (true, true) if kind == "column" => {
            format!("ALTER TABLE {object} …, above the line; in CREATE TABLE new columns come last")
        }
        (true, true) if kind == "query" => format!("DROP VIEW {object}, above the line"),
        _ => format!("what brings {name} to this, or a rule in scripts/upgrade.awk if it can always be made again"),
    }
}

/// One line a difference.
fn differences(new: &Facts, updated: &Facts) -> Vec<String> {
    let mut found = Vec::new();
    for key in new.keys().chain(updated.keys().filter(|key| !new.contains_key(*key))) {
        let (wanted, is) = (new.get(key), updated.get(key));
        if wanted == is {
            continue;
        }
        let (name, what) = key;
        let hint = advice(name, what, wanted.is_some(), is.is_some());
        let shown = |fact: Option<&String>| fact.map_or("is missing".to_owned(), |how| how.trim().to_owned());
        found.push(format!(
            "{name}: {what}\n  new:     {}\n  updated: {}\n  needs:   {hint}",
            shown(wanted),
            shown(is)
        ));
    }
    found
}

/// The rows that CREATE EXTENSION makes.
fn rows(session: &mut Session) -> Result<Vec<String>> {
    let tables = session.column(
        "SELECT c.oid::regclass FROM pg_class c WHERE c.relkind = 'r' AND c.relnamespace IN ('async'::regnamespace, 'flow'::regnamespace)
         ORDER BY 1",
    )?;
    let mut all = Vec::new();
    for table in tables {
        let rows = session.column(&format!("SELECT to_jsonb(t) - 'engine_id' FROM {table} t ORDER BY 1"))?;
        all.extend(rows.into_iter().map(|row| format!("{table}: {row}")));
    }
    Ok(all)
}

#[test]
fn an_updated_schema_is_that_of_a_new_database() {
    let cluster = shared();
    let new = cluster.database("new").unwrap();
    let (wanted, rows_wanted) = (facts(&new).unwrap(), rows(&mut new.connect().unwrap()).unwrap());
    assert!(wanted.len() > 2000, "only {} facts", wanted.len());
    for version in earlier().unwrap() {
        let updated = of_version(cluster, &format!("updated from {version}"), &version).unwrap();
        let before = facts(&updated).unwrap();
        update(&mut updated.connect().unwrap()).unwrap();
        let found = differences(&wanted, &facts(&updated).unwrap());
        assert!(
            found.is_empty(),
            "{} differences between a new database and one updated from {version}; what they need goes into \
             sql/upgrade/…--{CURRENT}.sql:\n\n{}\n",
            found.len(),
            found.join("\n\n")
        );
        assert_eq!(rows(&mut updated.connect().unwrap()).unwrap(), rows_wanted);
        // What was compared does tell versions apart.
        assert!(!differences(&wanted, &before).is_empty());
    }
}

/// What still calls the library from the SQL of an earlier version must not be given to a function that takes something
/// else. See src/version.rs.
#[test]
fn a_c_function_never_changes_its_arguments_or_result() {
    let declared = "SELECT format('%s(%s) returns %s', p.prosrc, coalesce(p.proallargtypes, p.proargtypes::OID[])::regtype[], p.prorettype::regtype)
                      || CASE WHEN p.proisstrict THEN ' strict' ELSE '' END
                    FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
                    WHERE l.lanname = 'c' AND p.prosrc <> 'as_owner' AND p.probin = 'pgflow' ORDER BY 1";
    let cluster = shared();
    let symbol = |line: &str| line.split('(').next().unwrap_or("").to_owned();
    let new = cluster.database("new symbols").unwrap().connect().unwrap().column(declared).unwrap();
    assert!(new.len() > 20, "only {} functions in C", new.len());
    for version in earlier().unwrap() {
        let name = format!("symbols of {version}");
        let old = of_version(cluster, &name, &version).unwrap().connect().unwrap().column(declared).unwrap();
        for line in old {
            assert!(
                new.contains(&line) || !new.iter().any(|other| symbol(other) == symbol(&line)),
                "{line} of {version} is declared otherwise now: give the new one another symbol and keep the old one (src/version.rs)"
            );
        }
    }
}
