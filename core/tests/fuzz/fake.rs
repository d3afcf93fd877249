//! A catalog whose answers follow from the names, so that the same configuration is always judged the same.

use pgflow_core::definition::{Catalog, Elsewhere, Needs, RoutineInfo, TargetInfo};
use serde_json::{Map, Value};

pub struct Fake;

/// Most names lead to something good, some to each kind of fault.
fn routine(name: &str) -> RoutineInfo {
    let ours = name.strip_prefix('n').is_some_and(|number| number.parse::<u8>().is_ok());
    match name.bytes().map(u32::from).sum::<u32>() % 12 {
        _ if ours => RoutineInfo::Ok { resolved: format!("public.{name}") },
        0 => RoutineInfo::Missing,
        1 => RoutineInfo::NotAProcedure,
        2 => RoutineInfo::WrongArguments { found: format!("text, {name}") },
        3 => RoutineInfo::NotExecutable,
        _ => RoutineInfo::Ok { resolved: format!("public.{name}") },
    }
}

fn elsewhere(kind: &str, needs: Needs, exports: bool) -> TargetInfo {
    TargetInfo::Elsewhere(Elsewhere { kind: kind.into(), needs, exports, tiers: Some(vec!["fast".into()]) })
}

impl Catalog for Fake {
    fn target(&mut self, name: &str) -> TargetInfo {
        match name {
            "local" => TargetInfo::Local,
            "queue" => TargetInfo::External,
            "far" => elsewhere("postgres", Needs::QueryOrRoutine, false),
            "house" => elsewhere("clickhouse", Needs::Query, true),
            "web" => elsewhere("http", Needs::Options, false),
            _ => TargetInfo::Unknown,
        }
    }

    fn routine(&mut self, name: &str) -> RoutineInfo {
        routine(name)
    }

    fn concurrency_routine(&mut self, name: &str) -> RoutineInfo {
        routine(name)
    }

    fn query_routine(&mut self, name: &str) -> RoutineInfo {
        routine(name)
    }

    fn options_faults(&mut self, kind: &str, options: &Map<String, Value>) -> Vec<(String, String)> {
        let wrong = options.get("settings").and_then(|settings| settings.get("wrong"));
        wrong.map(|_| (".settings.wrong".to_owned(), format!("not on {kind}"))).into_iter().collect()
    }

    fn store_exists(&mut self, name: &str) -> bool {
        name == "results"
    }

    fn flow_exists(&mut self, name: &str) -> bool {
        name == "daily"
    }

    fn interval(&mut self, text: &str) -> Result<(), String> {
        if text.len() < 20 && text.chars().any(|c| c.is_ascii_digit()) && !text.starts_with('-') {
            Ok(())
        } else {
            Err("not an interval".into())
        }
    }
}
