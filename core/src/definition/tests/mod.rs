//! The rules of `configure`, one test each, against a catalog that is a fake.

mod append;
mod elsewhere;
mod graphs;
mod properties;
mod references;
mod shape;

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::*;

/// A catalog of fixed answers that counts what it is asked. Every procedure exists whose name does not begin with `no_`.
#[derive(Default)]
pub(super) struct Fake {
    pub asked: HashMap<String, usize>,
}

impl Fake {
    fn count(&mut self, what: &str, name: &str) {
        *self.asked.entry(format!("{what} {name}")).or_default() += 1;
    }
}

impl Catalog for Fake {
    fn target(&mut self, name: &str) -> TargetInfo {
        self.count("target", name);
        match name {
            "local" => TargetInfo::Local,
            "far" => elsewhere("postgres", Needs::QueryOrRoutine),
            "house" => elsewhere("clickhouse", Needs::Query),
            "web" => elsewhere("http", Needs::Options),
            "queue" => TargetInfo::External,
            _ => TargetInfo::Unknown,
        }
    }

    fn routine(&mut self, name: &str) -> RoutineInfo {
        self.count("routine", name);
        match name {
            "a_function" => RoutineInfo::NotAProcedure,
            "a_text_procedure" => RoutineInfo::WrongArguments { found: "text".into() },
            "a_secret" => RoutineInfo::NotExecutable,
            _ if name.starts_with("no_") => RoutineInfo::Missing,
            _ => RoutineInfo::Ok { resolved: format!("public.{name}") },
        }
    }

    fn concurrency_routine(&mut self, name: &str) -> RoutineInfo {
        self.routine(name)
    }

    fn query_routine(&mut self, name: &str) -> RoutineInfo {
        self.count("query routine", name);
        match name {
            "a_function" => RoutineInfo::Ok { resolved: "public.a_function".into() },
            "a_procedure" => RoutineInfo::NotAProcedure,
            "a_text_function" => RoutineInfo::WrongArguments { found: "text".into() },
            "a_secret" => RoutineInfo::NotExecutable,
            _ => RoutineInfo::Missing,
        }
    }

    /// Every kind knows the setting `wrong`, and nothing good of it.
    fn options_faults(&mut self, kind: &str, options: &Map<String, Value>) -> Vec<(String, String)> {
        let wrong = options.get("settings").and_then(|settings| settings.get("wrong"));
        wrong.map(|_| (".settings.wrong".to_owned(), format!("not on {kind}"))).into_iter().collect()
    }

    fn store_exists(&mut self, name: &str) -> bool {
        self.count("store", name);
        name == "results"
    }

    fn flow_exists(&mut self, name: &str) -> bool {
        self.count("flow", name);
        name == "daily"
    }

    fn interval(&mut self, text: &str) -> Result<(), String> {
        self.count("interval", text);
        match text {
            "soon" => Err("not an interval".into()),
            text if text.starts_with('-') => Err("not positive".into()),
            _ => Ok(()),
        }
    }
}

fn elsewhere(kind: &str, needs: Needs) -> TargetInfo {
    let tiers = Some(vec!["fast".to_owned()]);
    TargetInfo::Elsewhere(Elsewhere { kind: kind.into(), needs, exports: needs == Needs::Query, tiers })
}

/// The faults of a configuration as (severity, path, message).
pub(super) fn faults(configuration: Value) -> Vec<(Severity, String, String)> {
    let (definition, faults) = configure("f", &configuration, None, false, &mut Fake::default());
    assert_eq!(definition.is_none(), faults.iter().any(|fault| fault.severity == Severity::Error));
    faults.into_iter().map(|fault| (fault.severity, fault.path, fault.message)).collect()
}

pub(super) fn error(path: &str, message: &str) -> (Severity, String, String) {
    (Severity::Error, path.into(), message.into())
}

pub(super) fn warning(path: &str, message: &str) -> (Severity, String, String) {
    (Severity::Warning, path.into(), message.into())
}

/// The definition of a configuration without any fault.
pub(super) fn defined(configuration: Value) -> Definition {
    let (definition, faults) = configure("f", &configuration, None, false, &mut Fake::default());
    assert_eq!(faults, []);
    definition.unwrap()
}

/// The hint of a configuration's only fault.
pub(super) fn hint(configuration: Value) -> String {
    let (_, faults) = configure("f", &configuration, None, false, &mut Fake::default());
    assert_eq!(faults.len(), 1, "{faults:?}");
    faults[0].hint.clone().unwrap()
}
