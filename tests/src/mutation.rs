//! Deliberate mistakes in the cascade (sql/flow/cascade.sql), each of which the property test must notice. Applied to
//! the functions of one database; the files stay as they are.

use anyhow::{ensure, Context, Result};

use crate::session::{literal, Session};

pub struct Mutation {
    pub name: &'static str,
    /// The function that is changed, without its arguments.
    pub function: &'static str,
    pub search: &'static str,
    /// Takes the place of every occurrence.
    pub replace: &'static str,
}

pub const MUTATIONS: &[Mutation] = &[
    Mutation {
        name: "continue_on_failure is ignored",
        function: "flow.propagate",
        search: "AND NOT d.continue_on_failure",
        replace: "",
    },
    Mutation {
        name: "a skipped parent does not block",
        function: "flow.propagate",
        search: "p.state IN ('E', 'K', 'C', 'T') AND",
        replace: "p.state IN ('E', 'C', 'T') AND",
    },
    Mutation {
        name: "only the last parent's failure blocks",
        function: "flow.propagate",
        search: "c.blocked_by IS NULL AND hit.blocked_by IS NULL",
        replace: "hit.blocked_by IS NULL",
    },
    Mutation {
        name: "a node opens with one parent left",
        function: "flow.propagate",
        search: "c.parents_open = hit.parents",
        replace: "c.parents_open <= hit.parents + 1",
    },
    Mutation {
        name: "a node that was not chosen runs",
        function: "flow.propagate",
        search: "AND NOT c.excluded",
        replace: "",
    },
    Mutation {
        name: "a node whose callback has pushed steps ends without them",
        function: "flow.settle",
        search: "NOT EXISTS (SELECT FROM flow.flow_step",
        replace: "true OR EXISTS (SELECT FROM flow.flow_step",
    },
    Mutation {
        name: "a node ends without its static steps",
        function: "flow.settle",
        search: "AND x.steps IS NULL",
        replace: "",
    },
    Mutation {
        name: "a child is counted down twice",
        function: "flow.propagate",
        search: "c.parents_open - hit.parents",
        replace: "c.parents_open - 2 * hit.parents",
    },
    Mutation {
        name: "empty nodes are forgotten",
        function: "flow.open_nodes",
        search: "WHEN NOT n.empty THEN 'O'",
        replace: "WHEN true THEN 'O'",
    },
    Mutation {
        name: "an excluded node counts as failed",
        function: "flow.open_nodes",
        search: "WHEN c.excluded THEN 'N'",
        replace: "WHEN c.excluded THEN 'K'",
    },
    Mutation {
        name: "static steps are forgotten",
        function: "flow.release_steps",
        search: "cardinality(_static) > 0",
        replace: "cardinality(_static) < 0",
    },
    Mutation {
        name: "steps pushed before the node started stay held",
        function: "flow.release_held",
        search: "x.eligible_when = 'infinity'",
        replace: "x.eligible_when = '-infinity'",
    },
    Mutation {
        name: "a node finishes with open steps",
        function: "flow.settle",
        search: "_steps.open > 0",
        replace: "_steps.open < 0",
    },
    Mutation {
        name: "all_steps_must_complete is ignored",
        function: "flow.settle",
        search: "AND _node.all_steps_must_complete",
        replace: "AND false",
    },
    Mutation {
        name: "a failed callback does not fail its node",
        function: "flow.settle",
        search: "IF _node.own_failed THEN",
        replace: "IF false THEN",
    },
    Mutation {
        name: "a failure does not stop the node's steps",
        function: "flow.stop_tasks",
        search: "BEGIN\n",
        replace: "BEGIN\n  RETURN;\n",
    },
    Mutation {
        name: "skipped nodes are not counted as failed",
        function: "flow.propagate",
        search: "p.state IN ('E', 'K', 'C', 'T')))",
        replace: "p.state IN ('E', 'C', 'T')))",
    },
    Mutation {
        name: "a run ends with one node open",
        function: "flow.propagate",
        search: "= r.count_nodes",
        replace: ">= r.count_nodes - 1",
    },
];

impl Mutation {
    /// Changes the function in the session's database.
    pub fn apply(&self, session: &mut Session) -> Result<()> {
        let definition = session
            .text(&format!("SELECT pg_get_functiondef({}::REGPROC)", literal(self.function)))
            .with_context(|| format!("mutation \"{}\"", self.name))?;
        ensure!(
            definition.contains(self.search),
            "mutation \"{}\" is out of date: {} has no `{}` any more",
            self.name,
            self.function,
            self.search
        );
        session.run(&definition.replace(self.search, self.replace))
    }
}
