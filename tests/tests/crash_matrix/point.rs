//! The points where a process can be made to stand still, and what makes a process pass them. Their names are those of
//! `src/engine/stop_points.rs`.

use pgflow_tests::database::Kind;

/// What has to happen, after the work has begun, for somebody to pass a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prelude {
    /// Nothing: the work itself leads there.
    None,
    /// A worker is killed, and so every process of the server starts anew.
    Crash,
    /// The dispatcher is asked to end, and so the launcher starts another.
    DispatcherEnds,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    pub name: &'static str,
    /// Who stands there; none: a client's session.
    pub who: Option<Kind>,
    pub prelude: Prelude,
    /// How often the point is passed in a round, as far as can be relied upon.
    pub passes: usize,
}

const fn point(name: &'static str, who: Option<Kind>, prelude: Prelude, passes: usize) -> Point {
    Point { name, who, prelude, passes }
}

const DISPATCHER: Option<Kind> = Some(Kind::Dispatcher);
const LAUNCHER: Option<Kind> = Some(Kind::Launcher);
const WORKER: Option<Kind> = Some(Kind::Worker);

pub const POINTS: [Point; 19] = [
    point("client.statement", None, Prelude::None, 60),
    point("client.committed", None, Prelude::None, 4),
    point("launcher.looked", LAUNCHER, Prelude::DispatcherEnds, 1),
    point("launcher.asked", LAUNCHER, Prelude::DispatcherEnds, 1),
    point("dispatcher.begins", DISPATCHER, Prelude::Crash, 1),
    point("dispatcher.recovery", DISPATCHER, Prelude::Crash, 6),
    point("dispatcher.recovered", DISPATCHER, Prelude::Crash, 1),
    point("dispatcher.heard", DISPATCHER, Prelude::None, 12),
    point("dispatcher.cascade", DISPATCHER, Prelude::None, 60),
    point("dispatcher.decided", DISPATCHER, Prelude::None, 6),
    point("dispatcher.marked", DISPATCHER, Prelude::None, 8),
    point("dispatcher.committed", DISPATCHER, Prelude::None, 12),
    point("dispatcher.told", DISPATCHER, Prelude::None, 12),
    point("worker.begins", WORKER, Prelude::Crash, 1),
    point("worker.took", WORKER, Prelude::None, 40),
    point("worker.statement", WORKER, Prelude::None, 200),
    point("worker.wrote", WORKER, Prelude::None, 40),
    point("worker.committed", WORKER, Prelude::None, 40),
    point("worker.reported", WORKER, Prelude::None, 40),
];

pub fn named(name: &str) -> Point {
    match POINTS.iter().find(|point| point.name == name) {
        Some(point) => *point,
        None => panic!("there is no point {name}"),
    }
}
