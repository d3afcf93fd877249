//! What the validator must ask the outside about, and the memory that keeps it from asking twice.
//!
//! Must never know how the answers are found: the extension asks PostgreSQL, a test has a fake.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::model::Needs;

/// The outside world, as far as a configuration refers to it. Implemented over SPI by the extension, by a fake in tests.
pub trait Catalog {
    /// What is known of a target.
    fn target(&mut self, name: &str) -> TargetInfo;
    /// Whether `name` is a procedure that takes `flow.callback_arguments_t` and that the role may execute.
    fn routine(&mut self, name: &str) -> RoutineInfo;
    /// Whether `name` is a function `(flow_id bigint, node text) returns text` that the role may execute.
    /// Here `NotAProcedure` means: not a plain function.
    fn concurrency_routine(&mut self, name: &str) -> RoutineInfo;
    /// Whether `name` is a function `(flow.callback_arguments_t) returns text` that the role may execute.
    /// Here `NotAProcedure` means: not a plain function.
    fn query_routine(&mut self, name: &str) -> RoutineInfo;
    /// What a kind of target finds wrong with the options of a task: (path, such as `.settings.max_threads`, message).
    fn options_faults(&mut self, kind: &str, options: &Map<String, Value>) -> Vec<(String, String)>;
    /// Whether a store of that name is configured.
    fn store_exists(&mut self, name: &str) -> bool;
    /// Whether a flow of that name is configured.
    fn flow_exists(&mut self, name: &str) -> bool;
    /// Whether `text` is an interval, and positive. The error is a message that can follow the key's name.
    fn interval(&mut self, text: &str) -> Result<(), String>;
}

/// What is known of a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetInfo {
    /// There is none of that name.
    Unknown,
    /// The database that the flow runs in: its routines are checked.
    Local,
    /// Tasks are sent somewhere else: a routine lives there and is not checked.
    Elsewhere(Elsewhere),
    /// No routine is ever called: clients take the tasks.
    External,
}

/// What is known of a target elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elsewhere {
    /// Its kind: `postgres`, `clickhouse`, `http`.
    pub kind: String,
    /// What its tasks must have.
    pub needs: Needs,
    /// Whether the other side can write results to a store by itself.
    pub exports: bool,
    /// Its tiers; `None`: not to be checked here.
    pub tiers: Option<Vec<String>>,
}

/// What is known of a routine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RoutineInfo {
    /// There is none of that name.
    Missing,
    /// There is one, of another kind.
    NotAProcedure,
    /// There is one, with other arguments.
    WrongArguments {
        /// The arguments it takes, as the catalogue prints them.
        found: String,
    },
    /// There is one that this role may not execute.
    NotExecutable,
    /// There is one that can be called.
    Ok {
        /// Its schema-qualified, quoted name.
        resolved: String,
    },
}

/// A catalog that is asked once per distinct name.
pub(super) struct Asked<'a> {
    catalog: &'a mut dyn Catalog,
    targets: HashMap<String, TargetInfo>,
    routines: HashMap<String, RoutineInfo>,
    query_routines: HashMap<String, RoutineInfo>,
    flows: HashMap<String, bool>,
    stores: HashMap<String, bool>,
    intervals: HashMap<String, Result<(), String>>,
}

impl<'a> Asked<'a> {
    pub fn new(catalog: &'a mut dyn Catalog) -> Self {
        Asked {
            catalog,
            targets: HashMap::new(),
            routines: HashMap::new(),
            query_routines: HashMap::new(),
            flows: HashMap::new(),
            stores: HashMap::new(),
            intervals: HashMap::new(),
        }
    }

    pub fn target(&mut self, name: &str) -> TargetInfo {
        once(&mut self.targets, name, |name| self.catalog.target(name))
    }

    pub fn routine(&mut self, name: &str) -> RoutineInfo {
        once(&mut self.routines, name, |name| self.catalog.routine(name))
    }

    /// A flow has one, so there is nothing to remember.
    pub fn concurrency_routine(&mut self, name: &str) -> RoutineInfo {
        self.catalog.concurrency_routine(name)
    }

    pub fn query_routine(&mut self, name: &str) -> RoutineInfo {
        once(&mut self.query_routines, name, |name| self.catalog.query_routine(name))
    }

    /// Hardly two nodes have the same options.
    pub fn options_faults(&mut self, kind: &str, options: &Map<String, Value>) -> Vec<(String, String)> {
        self.catalog.options_faults(kind, options)
    }

    pub fn store_exists(&mut self, name: &str) -> bool {
        once(&mut self.stores, name, |name| self.catalog.store_exists(name))
    }

    pub fn flow_exists(&mut self, name: &str) -> bool {
        once(&mut self.flows, name, |name| self.catalog.flow_exists(name))
    }

    pub fn interval(&mut self, text: &str) -> Result<(), String> {
        once(&mut self.intervals, text, |text| self.catalog.interval(text))
    }
}

fn once<T: Clone>(known: &mut HashMap<String, T>, name: &str, ask: impl FnOnce(&str) -> T) -> T {
    if let Some(answer) = known.get(name) {
        return answer.clone();
    }
    let answer = ask(name);
    known.insert(name.to_owned(), answer.clone());
    answer
}
