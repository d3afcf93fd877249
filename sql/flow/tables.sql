-- The graph layer: types and tables. Definitions are versioned and immutable; a run points to its version.

CREATE SCHEMA flow;

CREATE DOMAIN flow.flow_priority_t AS INT CHECK (VALUE BETWEEN -99 AND 99);

CREATE TYPE flow.callback_arguments_t AS (
  flow_id BIGINT, flow TEXT, flow_arguments JSONB, node TEXT, step_arguments JSONB, task_id BIGINT);

-- One row a version of a flow's definition. Never updated.
CREATE TABLE flow.definition (
  definition_id             BIGINT PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
  flow                      TEXT NOT NULL,
  configuration             JSONB NOT NULL,       -- what flow.configuration() gives and configure_flow takes
  concurrency_group_routine TEXT,                 -- resolved, schema-qualified
  priority                  INT NOT NULL DEFAULT 0,
  run_as                    NAME,                 -- null: the role that calls run_flow
  author                    NAME NOT NULL,
  created                   TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp()
);

-- The configured flows: each points to the version that the next run takes.
CREATE TABLE flow.configured (
  flow          TEXT PRIMARY KEY,
  -- No foreign keys to flow.definition: a parallel restore loads the tables in any order. run_flow locks what it uses.
  definition_id BIGINT NOT NULL,
  owner         NAME NOT NULL                      -- who configured it first
);
CREATE INDEX ON flow.configured (definition_id);

CREATE TABLE flow.definition_node (
  definition_id           BIGINT NOT NULL,         -- no foreign key: it would cost as much as the row
  node_no                 INT NOT NULL,
  node                    TEXT NOT NULL,
  rank                    INT NOT NULL,            -- length of the longest path from a root: the order of locks
  target                  TEXT,                    -- null: the local database
  routine                 TEXT,                    -- callback of the node's own task, as configured
  routine_resolved        TEXT,                    -- the same, schema-qualified when it could be resolved
  step_routine            TEXT,
  step_routine_resolved   TEXT,
  priority                INT NOT NULL DEFAULT 0,
  all_steps_must_complete BOOL NOT NULL DEFAULT true,
  empty                   BOOL NOT NULL DEFAULT false,
  steps_to_flow           TEXT,
  synchronous             BOOL NOT NULL DEFAULT false,
  node_timeout            INTERVAL,
  step_timeout            INTERVAL,
  on_partial_fail         BOOL NOT NULL DEFAULT false,
  count_parents           INT NOT NULL,
  steps                   JSONB,                   -- static steps: an array of objects, or null
  query                   TEXT,                    -- of the node's own task: what is run instead of a routine
  step_query              TEXT,
  query_routine           TEXT,                    -- a function of this database that returns the query, as configured
  query_routine_resolved  TEXT,
  options                 JSONB,                   -- parameters, settings, tier, request, result: those that are given
  steps_to_owner          NAME,                    -- whose flow steps_to_flow named when this was configured; null: nobody's
  UNIQUE (definition_id, node)
);
-- The key is the newest index: where statistics say that the table is empty, the planner takes the newest of equals.
ALTER TABLE flow.definition_node ADD PRIMARY KEY (definition_id, node_no);

CREATE TABLE flow.definition_edge (
  definition_id       BIGINT NOT NULL,
  parent_no           INT NOT NULL,
  node_no             INT NOT NULL,
  continue_on_failure BOOL NOT NULL DEFAULT false
);
CREATE INDEX ON flow.definition_edge (definition_id, node_no);
ALTER TABLE flow.definition_edge ADD PRIMARY KEY (definition_id, parent_no, node_no);

CREATE SEQUENCE flow.flow_id_seq;

-- One row a run.
CREATE TABLE flow.flow (
  flow_id              BIGINT PRIMARY KEY DEFAULT nextval('flow.flow_id_seq'),
  flow                 TEXT NOT NULL,
  definition_id        BIGINT NOT NULL,
  run_as               NAME NOT NULL,
  arguments            JSONB NOT NULL,
  created              TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(),
  processed            TIMESTAMPTZ,                -- null: open
  cancelled            BOOL NOT NULL DEFAULT false,
  parent_task_id       BIGINT,
  parent_flow_id       BIGINT,
  depth                INT NOT NULL DEFAULT 0,     -- nesting through steps_to_flow
  only_these_nodes     TEXT[],
  force_priority       INT,
  count_nodes          INT NOT NULL,
  count_finished_nodes INT NOT NULL DEFAULT 0,     -- nodes that ended, however
  count_failed_nodes   INT NOT NULL DEFAULT 0,     -- of these: failed, or never run because of a failure
  first_error          TEXT
) WITH (fillfactor = 70);
CREATE INDEX flow_open ON flow.flow (flow_id) WHERE processed IS NULL;
-- For async.require_another_run, and written so that nothing else uses it: to the planner, which believes that there are few
-- open runs, "flow_id = … AND processed IS NULL" would be as well looked for by reading all of it.
CREATE INDEX flow_open_of_role ON flow.flow (run_as) WHERE CASE WHEN processed IS NULL THEN true END;
CREATE INDEX flow_parent ON flow.flow (parent_flow_id) WHERE parent_flow_id IS NOT NULL;
CREATE INDEX flow_definition ON flow.flow (definition_id);

-- W waiting for parents; O open: its own task waits or runs; S its own task has finished, steps are open;
-- then one of: F finished, E failed, K skipped (a parent failed), C cancelled, T timed out, N not among only_these_nodes.
CREATE DOMAIN flow.node_state_t AS "char" CHECK (VALUE IN ('W', 'O', 'S', 'F', 'E', 'K', 'C', 'T', 'N'));

CREATE TABLE flow.flow_node (
  flow_id          BIGINT NOT NULL,
  node_no          INT NOT NULL,
  node             TEXT NOT NULL,
  state            flow.node_state_t NOT NULL DEFAULT 'W',
  excluded         BOOL NOT NULL DEFAULT false,    -- not among only_these_nodes: ends as N in its turn, without running
  parents_open     INT NOT NULL,                   -- parents that have not ended
  blocked_by       TEXT,                           -- a failed parent whose edge does not continue_on_failure
  task_id          BIGINT,                         -- the node's own task; null for empty nodes and before it is open
  concurrency_pool TEXT,                           -- what concurrency_group_routine said
  opened           TIMESTAMPTZ,
  ended            TIMESTAMPTZ,
  times_up         TIMESTAMPTZ,                    -- node_timeout: the node with its steps
  error            TEXT,
  PRIMARY KEY (flow_id, node_no)
) WITH (fillfactor = 70);

-- Which steps a node of a run has. The hash makes a second push of the same arguments a no-op (C6).
CREATE TABLE flow.flow_step (
  flow_id        BIGINT NOT NULL,
  node_no        INT NOT NULL,
  task_id        BIGINT NOT NULL,
  arguments_hash BYTEA NOT NULL,                   -- SHA-256 of the arguments' jsonb text
  PRIMARY KEY (flow_id, node_no, arguments_hash)
);
