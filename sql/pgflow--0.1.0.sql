-- pgflow 0.1.0, made from sql/load_order; do not edit.
\echo Use "CREATE EXTENSION pgflow" to load this file. \quit

-- async/tables.sql
-- The task engine: types and tables. Nothing here knows of graphs; flow_id, node_no and is_step are carried for the
-- layer above and handed back to it.

-- Names and arguments are handed between processes as UTF-8.
DO $$
BEGIN
  IF pg_catalog.current_setting('server_encoding') <> 'UTF8' THEN
    RAISE feature_not_supported USING
      MESSAGE = pg_catalog.format('pgflow needs a database with encoding UTF8, not %s',
                                  pg_catalog.current_setting('server_encoding')),
      HINT = 'CREATE DATABASE … ENCODING ''UTF8'' TEMPLATE template0.';
  END IF;
END
$$;

-- Plain CREATE SCHEMA, never IF NOT EXISTS: a schema that somebody prepared must stop the installation.
CREATE SCHEMA async;

CREATE TYPE async.finish_status_t AS ENUM
  ('FINISHED', 'FAILED', 'CANCELED', 'PAUSED', 'TIMED_OUT', 'YIELDED', 'DOA', 'DEFERRED');

CREATE TYPE async.task_run_type_t AS ENUM ('EXECUTE', 'DOA', 'EMPTY', 'EXECUTE_NOASYNC');

CREATE TYPE async.task_push_t AS (
  task_data JSONB, target TEXT, priority INT, query TEXT, concurrency_pool TEXT, manual_timeout INTERVAL,
  track_yielded BOOL);

-- One row: what async.configure's "control" says, and what the engine must remember across restarts.
CREATE TABLE async.control (
  only_row                         BOOL PRIMARY KEY DEFAULT true CHECK (only_row),
  workers                          INT,
  self_target                      TEXT NOT NULL DEFAULT 'async.self',
  self_connection_string           TEXT,
  self_concurrency                 INT,
  default_timeout                  INTERVAL,
  default_concurrency_pool_workers INT NOT NULL DEFAULT 8 CHECK (default_concurrency_pool_workers > 0),
  task_keep_duration               INTERVAL,
  advisory_mutex_id                BIGINT,
  debug_log                        BOOL NOT NULL DEFAULT false,
  paused                           BOOL NOT NULL DEFAULT false
);
INSERT INTO async.control DEFAULT VALUES;

-- One row that the dispatcher writes; the first session with work for a new database says whose it is.
CREATE TABLE async.engine_state (
  only_row          BOOL PRIMARY KEY DEFAULT true CHECK (only_row),
  system_identifier BIGINT,         -- with database_oid: where this database was when its work last ran (see async.adopt)
  database_oid      OID,
  clean_stop        BOOL NOT NULL DEFAULT true,
  engine_id         UUID NOT NULL DEFAULT gen_random_uuid(),  -- who asks, for servers elsewhere: see async.adopt
  open_low          BIGINT NOT NULL DEFAULT 0,  -- every task below it has ended
  next_low          BIGINT,         -- the next value of open_low, when these transactions have ended
  next_writers      TEXT[]
);
INSERT INTO async.engine_state DEFAULT VALUES;

CREATE TABLE async.target (
  target                    TEXT PRIMARY KEY,
  kind                      TEXT NOT NULL DEFAULT 'local',  -- local, external, or a kind of the executor
  max_concurrency           INT NOT NULL DEFAULT 8 CHECK (max_concurrency > 0),
  connection_string         TEXT,
  asynchronous_finish       BOOL NOT NULL DEFAULT false,
  default_timeout           INTERVAL,
  concurrency_track_yielded BOOL NOT NULL DEFAULT false,
  server                    TEXT,                           -- a foreign server: its options and a user mapping's
  options                   JSONB NOT NULL DEFAULT '{}',
  owner                     NAME NOT NULL DEFAULT current_user
);

CREATE TABLE async.concurrency_pool (
  concurrency_pool TEXT PRIMARY KEY,
  max_workers      INT NOT NULL CHECK (max_workers > 0)
);

CREATE SEQUENCE async.task_id_seq CACHE 1;

-- One row a task, written when it is pushed and once more when it ends. No index but the primary key, so that the
-- second write is a HOT update: neither dead index entries nor a snapshot held open slow the queue down. Which tasks
-- wait and which run is in the dispatcher's memory, rebuilt from this table when it starts.
CREATE TABLE async.task (
  task_id             BIGINT PRIMARY KEY DEFAULT nextval('async.task_id_seq'),
  target              TEXT NOT NULL,
  priority            INT NOT NULL DEFAULT 0,
  run_as              NAME NOT NULL,              -- the role it runs as: a name, because a dump keeps names
  entered             TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(),
  consumed            TIMESTAMPTZ,                -- start of the attempt that ended it, yielded it or put it off
  first_consumed      TIMESTAMPTZ,                -- start of the first attempt: the clock of a time-out (C12)
  yielded             TIMESTAMPTZ,
  processed           TIMESTAMPTZ,                -- null: open
  finish_status       async.finish_status_t,
  failed              BOOL,
  processing_error    TEXT,
  eligible_when       TIMESTAMPTZ,                -- not before
  times_up            TIMESTAMPTZ,                -- when the running or yielded attempt is stopped
  attempt             INT NOT NULL DEFAULT 0,     -- attempts that ended, yielded or were lost
  crashes             INT NOT NULL DEFAULT 0,     -- lost attempts charged to it (C18)
  suspect             BOOL NOT NULL DEFAULT false,-- was running when the server died: runs alone next time
  partially_committed BOOL NOT NULL DEFAULT false,
  asynchronous_finish BOOL NOT NULL DEFAULT false,
  track_yielded       BOOL NOT NULL DEFAULT false,
  on_partial_fail     BOOL NOT NULL DEFAULT false,
  is_step             BOOL NOT NULL DEFAULT false,
  flow_id             BIGINT,
  node_no             INT,
  concurrency_pool    TEXT,                       -- null: the target's own pool
  manual_timeout      INTERVAL,
  source              TEXT,
  query               TEXT,                       -- null for a task of a flow: its routine is in the definition
  task_data           JSONB,                      -- of a step: its arguments
  unsure_since        INT,                        -- the first attempt that may have run elsewhere: looked up before the next
  intention           INT NOT NULL DEFAULT 0,     -- counts restarts: what a receiver tells repetitions from
  options             JSONB                       -- outside flows: parameters, settings, tier, request, result
) WITH (fillfactor = 45);  -- room for every row's second version, also while a snapshot keeps the first

-- Marks that precede starts: one row a batch that a worker was handed. Rows of batches that have ended are deleted.
CREATE TABLE async.claim (
  claim_id BIGINT PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
  task_ids BIGINT[] NOT NULL,
  attempts INT[] NOT NULL,
  alone    BOOL NOT NULL DEFAULT false
);

-- What clients may take with async.get_tasks: tasks of external targets that wait. A table of its own, so that its
-- churn touches no other.
CREATE TABLE async.external_queue (
  target        TEXT NOT NULL,
  priority      INT NOT NULL,
  task_id       BIGINT NOT NULL,
  eligible_when TIMESTAMPTZ,
  PRIMARY KEY (target, priority, task_id)
);

-- Messages of callbacks and status changes beyond the plain start and end, which the task's own row tells.
CREATE TABLE async.task_log (
  task_id BIGINT NOT NULL,
  attempt INT NOT NULL,
  seq     INT NOT NULL,
  at      TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(),
  level   TEXT NOT NULL,          -- NOTICE, WARNING, INFO, LOG: a callback's message; STATUS: a change of status
  message TEXT NOT NULL,
  PRIMARY KEY (task_id, attempt, seq)
);

CREATE TABLE async.server_log (
  server_log_id BIGINT PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
  happened      TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(),
  level         TEXT NOT NULL DEFAULT 'NOTICE',
  message       TEXT NOT NULL
);

-- flow/tables.sql
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

-- async/elsewhere.sql
-- What work elsewhere needs beside targets and tasks: stores, secrets, results, executions, decisions.

-- Servers of ClickHouse, HTTP and object stores keep their options and credentials where Postgres people keep them:
-- CREATE SERVER … FOREIGN DATA WRAPPER pgflow, CREATE USER MAPPING. There is nothing to query through it.
CREATE FOREIGN DATA WRAPPER pgflow NO HANDLER NO VALIDATOR;
COMMENT ON FOREIGN DATA WRAPPER pgflow IS
  'For CREATE SERVER and CREATE USER MAPPING: options and credentials of ClickHouse, HTTP and object store targets.';

CREATE TABLE async.store (
  store    TEXT PRIMARY KEY,
  url      TEXT NOT NULL,
  server   TEXT,
  options  JSONB NOT NULL DEFAULT '{}',
  keep_for INTERVAL,
  owner    NAME NOT NULL DEFAULT current_user
);
COMMENT ON TABLE async.store IS 'Object stores that results may go to; configured with async.configure.';
COMMENT ON COLUMN async.store.store IS 'Its name.';
COMMENT ON COLUMN async.store.url IS 'file:///dir, s3://bucket/prefix, az://container/prefix or gs://bucket/prefix.';
COMMENT ON COLUMN async.store.server IS 'A foreign server whose options and user mapping (of owner, else of PUBLIC) hold the credentials.';
COMMENT ON COLUMN async.store.options IS 'endpoint, region, credentials and the like. Admins only.';
COMMENT ON COLUMN async.store.keep_for IS 'How long results are kept there; null: as control says.';
COMMENT ON COLUMN async.store.owner IS 'The role that configured it.';

CREATE TABLE async.task_secret (
  task_id BIGINT PRIMARY KEY,
  secrets JSONB NOT NULL
);
COMMENT ON TABLE async.task_secret IS 'Secrets of open tasks, bound as parameters; deleted when the task ends. Nobody may read it.';
COMMENT ON COLUMN async.task_secret.task_id IS 'The task.';
COMMENT ON COLUMN async.task_secret.secrets IS 'Name → value.';

-- What flow.finish and flow.defer, called by a callback elsewhere, have decided about a task that still runs there.
CREATE TABLE async.decision (
  task_id BIGINT PRIMARY KEY,
  attempt INT NOT NULL,
  status  async.finish_status_t NOT NULL,
  message TEXT,
  delay   INTERVAL
);
COMMENT ON TABLE async.decision IS 'What callbacks elsewhere have decided about their own running tasks; counts when the call returns.';
COMMENT ON COLUMN async.decision.task_id IS 'The task.';
COMMENT ON COLUMN async.decision.attempt IS 'The attempt that runs; a decision about another one does not count.';
COMMENT ON COLUMN async.decision.status IS 'FINISHED, FAILED or DEFERRED.';
COMMENT ON COLUMN async.decision.message IS 'Of a failure.';
COMMENT ON COLUMN async.decision.delay IS 'Of a deferral: how long.';

CREATE TABLE async.result (
  task_id     BIGINT PRIMARY KEY,
  attempt     INT NOT NULL,
  run_as      NAME NOT NULL,
  kept_as     TEXT NOT NULL CHECK (kept_as IN ('inline', 'table', 'object', 'export')),
  store       TEXT,
  path        TEXT,
  location    TEXT,
  format      TEXT,
  compression TEXT,
  rows        BIGINT,
  bytes       BIGINT,
  meta        JSONB,
  content     JSONB,
  created     TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(),
  expires     TIMESTAMPTZ,
  state       TEXT NOT NULL DEFAULT 'kept' CHECK (state IN ('kept', 'deleting', 'gone')),
  later       JSONB
);
COMMENT ON TABLE async.result IS 'What queries returned: where it is, or itself if it is small. Look through async.v_result.';
COMMENT ON COLUMN async.result.task_id IS 'The task whose last finished attempt it is of.';
COMMENT ON COLUMN async.result.attempt IS 'That attempt.';
COMMENT ON COLUMN async.result.run_as IS 'The role the task ran as: whose result it is.';
COMMENT ON COLUMN async.result.kept_as IS 'inline: in content; table: in a table of this database; object, export: in a store.';
COMMENT ON COLUMN async.result.store IS 'Of an object: the store.';
COMMENT ON COLUMN async.result.path IS 'Of an object: its path below the store''s prefix.';
COMMENT ON COLUMN async.result.location IS 'The URL of the object, or the name of the table.';
COMMENT ON COLUMN async.result.format IS 'parquet, csv, json (lines) or arrow.';
COMMENT ON COLUMN async.result.compression IS 'none, gzip or zstd.';
COMMENT ON COLUMN async.result.rows IS 'Rows, where they are known.';
COMMENT ON COLUMN async.result.bytes IS 'Size of the object, or of the rows as JSON.';
COMMENT ON COLUMN async.result.meta IS 'The columns: an array of {name, type, shape}.';
COMMENT ON COLUMN async.result.content IS 'Of an inline result: an array of objects.';
COMMENT ON COLUMN async.result.created IS 'When the task ended.';
COMMENT ON COLUMN async.result.expires IS 'When it will be deleted; null: not.';
COMMENT ON COLUMN async.result.state IS 'kept; deleting: its object is about to be deleted; gone.';
COMMENT ON COLUMN async.result.later IS 'What is to be done with another row that somebody has locked, once he has ended.';

-- async/rust.sql
-- Functions of the task engine that are in Rust. Announcements are described in docs/architecture.md.

CREATE FUNCTION async.announce_tasks(_low BIGINT, _high BIGINT, _flow_id BIGINT DEFAULT NULL, _node_no INT DEFAULT NULL)
RETURNS VOID LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'announce_tasks_wrapper';

CREATE FUNCTION async.announce_ended(_task_ids BIGINT[])
RETURNS VOID LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'announce_ended_wrapper';

CREATE FUNCTION async.announce_node(_flow_id BIGINT, _node_no INT)
RETURNS VOID LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'announce_node_wrapper';

CREATE FUNCTION async.announce_run(_flow_id BIGINT)
RETURNS VOID LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'announce_run_wrapper';

CREATE FUNCTION async.announce_settings()
RETURNS VOID LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'announce_settings_wrapper';

-- Raises, with the line to add, when the library is not in shared_preload_libraries.
CREATE FUNCTION async.require_engine()
RETURNS VOID LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'require_engine_wrapper';

-- The value of a setting of pgflow in its base unit (milliseconds, bytes, a count), or null where it is off.
CREATE FUNCTION async.setting(_name TEXT)
RETURNS BIGINT LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'setting_wrapper';

-- What runs right now: in this database's workers, and elsewhere (pid is the dispatcher's then).
CREATE FUNCTION async.running(
  OUT task_id BIGINT, OUT attempt INT, OUT pid INT, OUT role_oid OID, OUT started TIMESTAMPTZ,
  OUT progress_done DOUBLE PRECISION, OUT progress_total DOUBLE PRECISION, OUT progress_note TEXT,
  OUT rows BIGINT, OUT bytes BIGINT, OUT total_rows BIGINT)
RETURNS SETOF RECORD LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'running_wrapper';

-- The engine's processes of the whole cluster: kind launcher, dispatcher or worker.
CREATE FUNCTION async.processes(
  OUT kind TEXT, OUT pid INT, OUT database_oid OID, OUT role_oid OID, OUT state TEXT, OUT task_id BIGINT,
  OUT started TIMESTAMPTZ, OUT tasks_done BIGINT, OUT queued INT, OUT last_error TEXT)
RETURNS SETOF RECORD LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'processes_wrapper';

-- How full the dispatcher holds each pool of this database.
CREATE FUNCTION async.pool_use(OUT concurrency_pool TEXT, OUT max_workers INT, OUT running INT, OUT waiting BIGINT)
RETURNS SETOF RECORD LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'pool_use_wrapper';

-- Notes the outcome a callback decided for its own task (flow.finish, flow.defer inside it). True: the caller is the
-- worker that runs this task, and its outcome will follow the note if this transaction commits. False: it is not.
-- _status: FINISHED, FAILED or DEFERRED.
CREATE FUNCTION async.decide_own(_task_id BIGINT, _status TEXT, _message TEXT, _delay INTERVAL)
RETURNS BOOL LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'decide_own_wrapper';

-- Waits until something of this database's runs has changed or _milliseconds have passed. Wakes at commits of outcomes.
CREATE FUNCTION async.wait_for_change(_milliseconds INT)
RETURNS VOID LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'wait_for_change_wrapper';

-- Notes progress of the task that this worker runs; returns false when the caller is not that worker.
CREATE FUNCTION async.note_progress(_task_id BIGINT, _done DOUBLE PRECISION, _total DOUBLE PRECISION, _note TEXT)
RETURNS BOOL LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'note_progress_wrapper';

-- True when the caller is the worker that runs _task_id right now.
CREATE FUNCTION async.is_own_task(_task_id BIGINT)
RETURNS BOOL LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'is_own_task_wrapper';

-- Keeps the engine of this database from starting tasks until the transaction ends; then async.control counts.
CREATE FUNCTION async.hold_engine()
RETURNS VOID LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'hold_engine_wrapper';
COMMENT ON FUNCTION async.hold_engine IS
  'Internal: no task starts in this database until the transaction ends; then what async.control says counts.';

-- Tells the launcher that this database has the extension; called by the extension script, takes effect at commit.
CREATE FUNCTION async.wake_launcher()
RETURNS VOID LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'wake_launcher_wrapper';

-- What the executor knows of kinds of targets (src/elsewhere_api.rs). None of these connects anywhere, or repeats a secret.
CREATE FUNCTION async.executor_kinds()
RETURNS TEXT[] LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'executor_kinds_wrapper';
COMMENT ON FUNCTION async.executor_kinds IS 'The kinds of targets that tasks are sent to, beside "local" and "external".';

CREATE FUNCTION async.kind_needs(_kind TEXT)
RETURNS TEXT LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'kind_needs_wrapper';
COMMENT ON FUNCTION async.kind_needs IS
  'Internal: what a task of a kind must have: query, query_or_routine, or options (neither); null: nothing is known of it.';

CREATE FUNCTION async.target_faults(
  _kind TEXT, _connection_string TEXT, _connection_options JSONB, _password_required BOOL, _options JSONB)
RETURNS TABLE (path TEXT, message TEXT) LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'target_faults_wrapper';
COMMENT ON FUNCTION async.target_faults IS
  'Internal: what a kind finds wrong with a target; paths begin with the key: .options.verify.';

CREATE FUNCTION async.options_faults(_kind TEXT, _options JSONB)
RETURNS TABLE (path TEXT, message TEXT) LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'options_faults_wrapper';
COMMENT ON FUNCTION async.options_faults IS
  'Internal: what is wrong with the options of a task (parameters, settings, tier, request, result) of a kind of target.';

CREATE FUNCTION async.store_faults(_url TEXT, _options JSONB)
RETURNS TABLE (path TEXT, message TEXT) LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'store_faults_wrapper';
COMMENT ON FUNCTION async.store_faults IS 'Internal: what is wrong with a store: its URL, its options and those of its server.';

CREATE FUNCTION async.masked_options(_options JSONB)
RETURNS JSONB LANGUAGE c IMMUTABLE AS 'MODULE_PATHNAME', 'masked_options_wrapper';
COMMENT ON FUNCTION async.masked_options IS
  'Options without credentials: *** for the values of keys that look like one, of headers, and for passwords in URLs.';

-- async/rights.sql
-- Who may do what. Three roles of the cluster; a dropped or renamed role of a run never makes a query fail.

DO $$
DECLARE
  _role TEXT;
BEGIN
  FOREACH _role IN ARRAY ARRAY['flow_admin', 'flow_user', 'flow_monitor'] LOOP
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = _role) THEN
      BEGIN
        EXECUTE pg_catalog.format('CREATE ROLE %I NOLOGIN', _role);
      EXCEPTION WHEN duplicate_object OR unique_violation THEN
        NULL;  -- another database was given the extension at the same moment
      END;
    END IF;
  END LOOP;
END
$$;

-- True when _caller (an OID) may act for what belongs to _run_as: the role itself, its members, flow_admin, superusers.
CREATE FUNCTION async.may_act(_caller OID, _run_as NAME) RETURNS BOOL
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT pg_has_role(_caller, 'flow_admin', 'USAGE')
      OR EXISTS (SELECT FROM pg_roles r WHERE r.rolname = _run_as AND pg_has_role(_caller, r.oid, 'USAGE'));
$$;

-- The same for reading, for the current user: flow_monitor may read everything. Used by the row-level security policies.
CREATE FUNCTION async.may_read(_run_as NAME) RETURNS BOOL
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT _run_as = current_user
      OR pg_has_role('flow_monitor', 'USAGE') OR pg_has_role('flow_admin', 'USAGE')
      OR EXISTS (SELECT FROM pg_roles r WHERE r.rolname = _run_as AND pg_has_role(r.oid, 'USAGE'));
$$;

-- Raises unless _caller may administer the engine.
CREATE FUNCTION async.require_admin(_caller OID, _what TEXT) RETURNS VOID
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF NOT pg_has_role(_caller, 'flow_admin', 'USAGE') THEN
    RAISE insufficient_privilege USING
      MESSAGE = format('permission denied to %s', _what),
      HINT = 'This needs membership in flow_admin.';
  END IF;
END
$$;

-- async/ends_elsewhere.sql
-- How attempts end that ran somewhere else. Runs in the dispatcher; rows that a client has locked are skipped, and asked
-- about again.

-- Whether the tasks of a target run somewhere else, by way of the executor.
CREATE FUNCTION async.is_elsewhere(_target TEXT) RETURNS BOOL
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT EXISTS (SELECT FROM async.target k WHERE k.target = _target AND k.kind NOT IN ('local', 'external'));
$$;
COMMENT ON FUNCTION async.is_elsewhere IS 'Internal: whether the tasks of a target are sent somewhere else.';

-- Whether a worker of this database has the task first: to ask the routine that names its query, or to write what comes
-- back into a table.
CREATE FUNCTION async.starts_here(_flow_id BIGINT, _node_no INT, _query TEXT, _options JSONB) RETURNS BOOL
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT coalesce(o.query_routine IS NOT NULL AND _query IS NULL, false)
         OR coalesce(o.options->'result'->>'to', o.options->>'result') IS NOT DISTINCT FROM 'table'
    FROM (SELECT _options AS options, NULL::TEXT AS query_routine WHERE _flow_id = 0
          UNION ALL
          SELECT n.options, n.query_routine
            FROM (SELECT x.definition_id FROM flow.flow x WHERE x.flow_id = _flow_id OFFSET 0) f,
                 LATERAL (SELECT x.options, x.query_routine FROM flow.definition_node x
                           WHERE x.definition_id = f.definition_id AND x.node_no = _node_no OFFSET 0) n) AS o;
$$;
COMMENT ON FUNCTION async.starts_here IS
  'Internal: whether a worker of this database has a task of a target elsewhere first. _flow_id 0: of no flow.';

-- _words: finished, goes_on (the other side will end it later), failed, again (nothing was done), lost (it may have been
-- done), down (it could not be reached: nothing is charged), timed_out. Each row counts only for the attempt it names.
-- Returns what became of each task: finished, failed (also timed out), waits (yielded, put off, tried again), stale
-- (somebody else had ended it), locked (nothing was done).
CREATE FUNCTION async.end_attempts_elsewhere(
  _task_ids BIGINT[], _attempts INT[], _started TIMESTAMPTZ[], _words TEXT[], _errors TEXT[], _delays INTERVAL[],
  _max_attempts INT[])
RETURNS TABLE (task_id BIGINT, word TEXT) LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY
    WITH told AS MATERIALIZED (
      SELECT u.*, d.status, d.message, d.delay AS decided_delay
        FROM unnest(_task_ids, _attempts, _started, _words, _errors, _delays, _max_attempts)
               AS u (task_id, attempt, started, word, error, delay, max_attempts)
        LEFT JOIN LATERAL (SELECT x.* FROM async.decision x
                            WHERE x.task_id = u.task_id AND x.attempt = u.attempt OFFSET 0) d ON u.word IN ('finished', 'goes_on')
       ORDER BY u.task_id),
    open AS MATERIALIZED (
      SELECT t.task_id, t.asynchronous_finish, t.on_partial_fail, t.crashes
        FROM told u,
             LATERAL (SELECT x.task_id, x.asynchronous_finish, x.on_partial_fail, x.crashes FROM async.task x
                       WHERE x.task_id = u.task_id AND x.processed IS NULL AND x.attempt = u.attempt - 1
                         FOR NO KEY UPDATE SKIP LOCKED) t),
    verdict AS MATERIALIZED (
      SELECT u.task_id, u.attempt, u.started,
             CASE WHEN u.status = 'FAILED' THEN 'failed'
                  WHEN u.status = 'DEFERRED' THEN 'deferred'
                  WHEN u.status IS NOT NULL THEN 'finished'
                  WHEN u.word = 'goes_on' OR u.word = 'finished' AND o.asynchronous_finish THEN 'yielded'
                  WHEN u.word = 'lost' AND o.on_partial_fail THEN 'failed'
                  WHEN u.word IN ('again', 'lost') AND o.crashes + 1 >= u.max_attempts THEN 'failed'
                  ELSE u.word END AS word,
             CASE WHEN u.status = 'FAILED' THEN coalesce(u.message, 'failed by flow.finish')
                  WHEN u.word = 'lost' AND o.on_partial_fail
                    THEN format('it may have been done elsewhere (on_partial: fail): %s', u.error)
                  WHEN u.word IN ('again', 'lost') AND o.crashes + 1 >= u.max_attempts
                    THEN format('given up after %s attempts: %s', o.crashes + 1, u.error)
                  ELSE u.error END AS error,
             least(coalesce(u.decided_delay, u.delay), interval '100 years') AS delay
        FROM told u JOIN open o ON o.task_id = u.task_id),
    changed AS (
      UPDATE async.task t
      -- An attempt that could not begin leaves its number to the next.
      SET attempt = CASE WHEN v.word = 'down' THEN t.attempt ELSE v.attempt END,
          consumed = CASE WHEN v.word IN ('deferred', 'again', 'down', 'lost') THEN NULL ELSE v.started END,
          first_consumed = CASE WHEN v.word = 'down' THEN t.first_consumed ELSE coalesce(t.first_consumed, v.started) END,
          yielded = CASE WHEN v.word = 'yielded' THEN clock_timestamp() END,
          times_up = CASE WHEN v.word = 'yielded' THEN coalesce(t.first_consumed, v.started) + v.delay END,
          processed = CASE WHEN v.word IN ('finished', 'failed', 'timed_out') THEN clock_timestamp() END,
          finish_status = CASE v.word WHEN 'finished' THEN 'FINISHED' WHEN 'failed' THEN 'FAILED'
                            WHEN 'timed_out' THEN 'TIMED_OUT' WHEN 'yielded' THEN 'YIELDED'
                            WHEN 'deferred' THEN 'DEFERRED' END::async.finish_status_t,
          failed = CASE v.word WHEN 'finished' THEN false WHEN 'failed' THEN true WHEN 'timed_out' THEN true END,
          processing_error = CASE WHEN v.word IN ('failed', 'timed_out') THEN v.error END,
          eligible_when = CASE WHEN v.word IN ('deferred', 'again', 'down', 'lost') THEN clock_timestamp() + v.delay END,
          crashes = t.crashes + (v.word IN ('again', 'lost'))::INT,
          -- One that did nothing leaves open what became of those before it.
          unsure_since = CASE WHEN v.word = 'lost' THEN coalesce(t.unsure_since, v.attempt)
                              WHEN v.word IN ('again', 'down') THEN t.unsure_since END,
          suspect = false
      FROM verdict v WHERE t.task_id = v.task_id
      RETURNING t.task_id, t.attempt, v.word, v.error, v.delay),
    logged AS (
      INSERT INTO async.task_log (task_id, attempt, seq, level, message)
      SELECT c.task_id, c.attempt, 1000000, 'STATUS',
             CASE WHEN c.word = 'deferred' THEN format('put off for %s', async.interval_pretty(c.delay))
                  ELSE format('attempt %s %s: %s', c.attempt,
                              CASE c.word WHEN 'lost' THEN 'was lost' ELSE 'was not taken' END, c.error) END
        FROM changed c WHERE c.word IN ('deferred', 'again', 'lost')
      ON CONFLICT DO NOTHING),
    undecided AS (
      -- Not of those whose row is locked: they are told again.
      DELETE FROM async.decision d USING open o WHERE d.task_id = o.task_id),
    forgotten AS (
      DELETE FROM async.task_secret s USING changed c
       WHERE s.task_id = c.task_id AND c.word IN ('finished', 'failed', 'timed_out')),
    spent AS (
      DELETE FROM async.callback_token k USING changed c WHERE k.task_id = c.task_id AND c.word <> 'yielded')
    SELECT u.task_id,
           CASE WHEN c.word = 'finished' THEN 'finished'
                WHEN c.word IN ('failed', 'timed_out') THEN 'failed'
                WHEN c.word IS NOT NULL THEN 'waits'
                WHEN EXISTS (SELECT FROM async.task t WHERE t.task_id = u.task_id AND t.processed IS NULL
                                AND t.attempt = u.attempt - 1) THEN 'locked'
                ELSE 'stale' END
      FROM told u LEFT JOIN changed c ON c.task_id = u.task_id;
END
$$;
COMMENT ON FUNCTION async.end_attempts_elsewhere IS
  'Internal: writes how attempts that ran elsewhere ended, with what their callbacks have decided; for the dispatcher.';

-- Targets that cannot be reached, for the views; written by the dispatcher when that changes.
CREATE TABLE async.target_down (
  target   TEXT PRIMARY KEY,
  since    TIMESTAMPTZ NOT NULL,
  next_try TIMESTAMPTZ NOT NULL,
  tries    INT NOT NULL,
  error    TEXT NOT NULL
);
COMMENT ON TABLE async.target_down IS 'Targets that cannot be reached right now; their tasks wait. See async.v_target_status.';
COMMENT ON COLUMN async.target_down.target IS 'The target.';
COMMENT ON COLUMN async.target_down.since IS 'When it was first found to be down.';
COMMENT ON COLUMN async.target_down.next_try IS 'When it is tried again.';
COMMENT ON COLUMN async.target_down.tries IS 'How often it was tried since.';
COMMENT ON COLUMN async.target_down.error IS 'What the last try met.';

-- When the dispatcher must next look for results and executions that are over, though nothing else happens. Executions are
-- kept for hours and days: an hour is soon enough.
CREATE FUNCTION async.next_expiry() RETURNS TIMESTAMPTZ
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN least((SELECT min(r.expires) FROM async.result r),
               (SELECT clock_timestamp() + INTERVAL '1 hour' FROM async.execution e LIMIT 1));
END
$$;
COMMENT ON FUNCTION async.next_expiry IS 'Internal: when the dispatcher must look for what is over; null: there is nothing that ends.';

-- async/engine.sql
-- What the dispatcher does to tasks. Rows that a worker or client has locked are skipped: whoever holds the lock tells
-- the dispatcher when it is gone.

-- Ends open tasks; returns those it ended.
CREATE FUNCTION async.end_tasks(_task_ids BIGINT[], _status async.finish_status_t, _error TEXT)
RETURNS SETOF BIGINT LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _piece BIGINT[];
BEGIN
  -- In pieces: a row that changes meanwhile is compared with the whole list again.
  FOR _from IN 1 .. coalesce(cardinality(_task_ids), 0) BY 1000 LOOP
    _piece := _task_ids[_from : _from + 999];
    RETURN QUERY
      WITH open AS (
        SELECT t.task_id FROM async.task t
        WHERE t.task_id = ANY (_piece) AND t.processed IS NULL
        ORDER BY t.task_id FOR NO KEY UPDATE SKIP LOCKED),
      ended AS (
        UPDATE async.task t
        SET processed = clock_timestamp(), finish_status = _status, failed = _status <> 'FINISHED',
            processing_error = _error, suspect = false,
            -- The attempt that runs ends here.
            consumed = coalesce(r.started, t.consumed), first_consumed = coalesce(t.first_consumed, r.started),
            attempt = coalesce(r.attempt, t.attempt)
        FROM open LEFT JOIN async.running() r ON r.task_id = open.task_id
        WHERE t.task_id = open.task_id
        RETURNING t.task_id, t.target, t.priority),
      no_more_secret AS (
        DELETE FROM async.task_secret s USING ended e WHERE s.task_id = e.task_id),
      no_more_offered AS (
        DELETE FROM async.external_queue q USING ended e
        WHERE q.target = e.target AND q.priority = e.priority AND q.task_id = e.task_id)
      SELECT e.task_id FROM ended e;
  END LOOP;
END
$$;
COMMENT ON FUNCTION async.end_tasks IS
  'Internal: ends those of the tasks that are open and not locked, and returns them.';

-- Attempts that ended without an outcome: the worker or the server died. Charged are those that ran alone; a task that
-- has been charged too often fails, and so does one that had committed a part and may not run again. Returns every task
-- and whether it has ended by this.
CREATE FUNCTION async.lose_attempts(
  _task_ids BIGINT[], _attempts INT[], _charged BOOL[], _suspect BOOL, _reason TEXT, _max_crashes INT)
RETURNS TABLE (task_id BIGINT, ended BOOL) LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY
    WITH lost AS (
      SELECT t.task_id, l.attempt, l.charged,
             t.crashes + l.charged::int >= _max_crashes AS worn_out,
             (t.partially_committed OR async.is_elsewhere(t.target)) AND t.on_partial_fail AS partial
      FROM unnest(_task_ids, _attempts, _charged) AS l (task_id, attempt, charged)
      JOIN async.task t ON t.task_id = l.task_id
      WHERE t.processed IS NULL AND t.attempt = l.attempt - 1
      ORDER BY t.task_id FOR NO KEY UPDATE OF t SKIP LOCKED),
    changed AS (
      UPDATE async.task t
      SET attempt = lost.attempt,
          crashes = t.crashes + lost.charged::int,
          suspect = _suspect AND NOT (lost.worn_out OR lost.partial OR async.is_elsewhere(t.target)),
          unsure_since = CASE WHEN async.is_elsewhere(t.target) THEN coalesce(t.unsure_since, lost.attempt) END,
          consumed = NULL,
          processed = CASE WHEN lost.worn_out OR lost.partial THEN clock_timestamp() END,
          finish_status = CASE WHEN lost.worn_out OR lost.partial THEN 'FAILED'::async.finish_status_t END,
          failed = CASE WHEN lost.worn_out OR lost.partial THEN true END,
          processing_error = CASE
            WHEN lost.worn_out THEN format('given up after %s lost attempts: %s', t.crashes + lost.charged::int, _reason)
            WHEN lost.partial THEN format('%s after the callback had committed a part, or may have been done elsewhere '
                                          '(on_partial: fail)', _reason) END
      FROM lost WHERE t.task_id = lost.task_id
      RETURNING t.task_id, t.attempt, t.processed IS NOT NULL AS ended),
    no_more_secret AS (
      DELETE FROM async.task_secret s USING changed c WHERE s.task_id = c.task_id AND c.ended),
    logged AS (
      INSERT INTO async.task_log (task_id, attempt, seq, level, message)
      SELECT c.task_id, c.attempt, 1000000, 'STATUS', format('attempt %s was lost: %s', c.attempt, _reason)
      FROM changed c ON CONFLICT DO NOTHING)
    SELECT c.task_id, c.ended FROM changed c;
END
$$;
COMMENT ON FUNCTION async.lose_attempts IS
  'Internal: accounts for attempts that ended without an outcome; returns each task and whether that ended it.';

-- Moves the mark below which every task has ended, from where the dispatcher reads the table when it starts. A task that
-- is being inserted has a lower number than others that are visible, so the mark goes up to a number only when every
-- transaction that could have inserted below it has ended: those that held a writer's lock when the number was noted.
CREATE FUNCTION async.raise_open_low() RETURNS VOID
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _state async.engine_state;
  _low BIGINT;
BEGIN
  SELECT * INTO _state FROM async.engine_state FOR UPDATE SKIP LOCKED;
  IF NOT FOUND THEN
    RETURN;
  END IF;
  IF _state.next_low IS NOT NULL
     AND NOT EXISTS (SELECT FROM pg_locks l WHERE l.virtualtransaction = ANY (_state.next_writers)) THEN
    SELECT coalesce(min(t.task_id), _state.next_low) INTO _low
    FROM async.task t
    WHERE t.task_id >= _state.open_low AND t.task_id < _state.next_low AND t.processed IS NULL;
    IF _low > _state.open_low THEN
      UPDATE async.engine_state SET open_low = _low;
    END IF;
    _state.next_low := NULL;
  END IF;
  IF _state.next_low IS NULL THEN
    _low := (SELECT q.last_value FROM async.task_id_seq q);
    IF _low > _state.open_low THEN
      UPDATE async.engine_state
      SET next_low = _low,
          next_writers = array(
            SELECT l.virtualtransaction FROM pg_locks l
            WHERE l.locktype = 'relation' AND l.relation = 'async.task'::regclass AND l.mode = 'RowExclusiveLock'
              AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
              AND l.pid IS DISTINCT FROM pg_backend_pid());
    END IF;
  END IF;
END
$$;
COMMENT ON FUNCTION async.raise_open_low IS
  'Internal: moves the mark below which every task has ended, from where the dispatcher reads when it starts.';

-- async/targets.sql
-- Targets and pools: where a connection string leads, how a target is named, what open work needs it.

-- The local database is always a target.
INSERT INTO async.target (target, kind) VALUES ('local', 'local');

-- The options of a libpq connection string, key=value or URI, as an object. Null: not a connection string.
CREATE FUNCTION async.conninfo_options(_conninfo TEXT) RETURNS JSONB
LANGUAGE plpgsql IMMUTABLE STRICT SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
  _pair CONSTANT TEXT := $re$\s*([A-Za-z_]+)\s*=\s*('(?:[^'\\]|\\.)*'|(?:[^\s'\\]|\\.)+|(?=\s|$))(?=\s|$)$re$;
  _uri  CONSTANT TEXT := '^postgres(?:ql)?://(?:([^@/?]*)@)?([^/?]*)(?:/([^?]*))?(?:\?(.*))?$';
  _part TEXT[];
BEGIN
  IF _conninfo !~ '^postgres(ql)?://' THEN
    IF regexp_replace(_conninfo, _pair, '', 'g') !~ '^\s*$' THEN
      RETURN NULL;
    END IF;
    RETURN (
      SELECT coalesce(jsonb_object_agg(lower(m[1]),
               regexp_replace(regexp_replace(m[2], $re$^'(.*)'$$re$, '\1'), $re$\\(.)$re$, '\1', 'g')), '{}')
        FROM regexp_matches(_conninfo, _pair, 'g') AS m);
  END IF;
  _part := regexp_match(_conninfo, _uri);
  IF _part IS NULL THEN
    RETURN NULL;
  END IF;
  RETURN (
    SELECT coalesce(jsonb_object_agg(o.option, async.percent_decoded(o.value)) FILTER (WHERE o.value <> ''), '{}')
      FROM (SELECT 'user', split_part(_part[1], ':', 1)
            UNION ALL SELECT 'host', (
              SELECT string_agg(regexp_replace(h, '^\[(.*)\](:\d*)?$|^([^:]*)(:\d*)?$', '\1\3'), ',' ORDER BY n)
                FROM regexp_split_to_table(_part[2], ',') WITH ORDINALITY AS x(h, n))
            UNION ALL SELECT 'port', (
              SELECT string_agg(coalesce(substring(h FROM ':(\d*)$'), ''), ',' ORDER BY n)
                FROM regexp_split_to_table(_part[2], ',') WITH ORDINALITY AS x(h, n))
            UNION ALL SELECT 'dbname', _part[3]
            UNION ALL SELECT split_part(p, '=', 1), substr(p, strpos(p, '=') + 1)
              FROM regexp_split_to_table(coalesce(_part[4], ''), '&') AS p WHERE p <> '') AS o(option, value));
END
$body$;
COMMENT ON FUNCTION async.conninfo_options IS
  'Internal: the options of a libpq connection string (key=value or URI) as an object; null when it cannot be read.';

CREATE FUNCTION async.percent_decoded(_text TEXT) RETURNS TEXT
LANGUAGE plpgsql IMMUTABLE STRICT SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF strpos(_text, '%') = 0 THEN
    RETURN _text;
  END IF;
  RETURN (
    SELECT convert_from(string_agg(CASE WHEN m[1] IS NULL THEN convert_to(m[2], 'UTF8') ELSE decode(m[1], 'hex') END,
                                   ''::BYTEA ORDER BY n), 'UTF8')
      FROM regexp_matches(_text, '%([0-9A-Fa-f]{2})|([^%]+|%)', 'g') WITH ORDINALITY AS x(m, n));
END
$$;
COMMENT ON FUNCTION async.percent_decoded IS 'Internal: a part of a URI with its %XX decoded.';

-- Absent host: the socket; absent port: this server's. A proxy in front of this server is elsewhere.
CREATE FUNCTION async.leads_here(_conninfo TEXT) RETURNS BOOL
LANGUAGE plpgsql STABLE STRICT SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _options JSONB := async.conninfo_options(_conninfo);
BEGIN
  IF _options IS NULL OR _options ? 'service' OR coalesce(_options->>'dbname', current_database()) <> current_database() THEN
    RETURN false;
  END IF;
  RETURN NOT EXISTS (
    SELECT FROM regexp_split_to_table(coalesce(_options->>'hostaddr', _options->>'host', ''), ',') AS h(host)
     WHERE NOT (
       btrim(h.host) IN ('', 'localhost', '::1')
       OR h.host ~ '^\s*127(\.\d{1,3}){3}\s*$'
       OR rtrim(btrim(h.host), '/') IN (
         SELECT rtrim(btrim(d), '/') FROM regexp_split_to_table(current_setting('unix_socket_directories'), ',') AS d)
       OR lower(btrim(h.host)) IN (
         SELECT lower(btrim(a)) FROM regexp_split_to_table(current_setting('listen_addresses'), ',') AS a)
       OR btrim(h.host) IS NOT DISTINCT FROM host(inet_server_addr())))
    AND NOT EXISTS (
    SELECT FROM regexp_split_to_table(coalesce(_options->>'port', ''), ',') AS p(port)
     WHERE btrim(p.port) NOT IN ('', current_setting('port')));
END
$$;
COMMENT ON FUNCTION async.leads_here IS
  'Internal: whether a connection string leads to this very database of this very server.';

CREATE FUNCTION async.target_name(_target TEXT) RETURNS TEXT
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF _target IS NULL THEN
    RETURN 'local';
  ELSIF EXISTS (SELECT FROM async.target t WHERE t.target = _target) THEN
    RETURN _target;
  ELSIF _target = 'async.self' OR _target = (SELECT c.self_target FROM async.control c) THEN
    RETURN 'local';
  END IF;
  RETURN NULL;
END
$$;
COMMENT ON FUNCTION async.target_name IS
  'The name a target is stored by: "local" for null, "async.self" and what control.self_target says; null: unknown.';

CREATE FUNCTION async.target_kind(_target TEXT) RETURNS TEXT
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT t.kind FROM async.target t WHERE t.target = async.target_name(_target);
$$;
COMMENT ON FUNCTION async.target_kind IS
  'How tasks of a target run: local (workers of this database; also for null and the other names of "local"), external '
  '(clients take them with async.get_tasks), or sent elsewhere: postgres, clickhouse, http. Null: there is no such target.';

-- Tiers are named sets of settings of a target, or other names of other targets.
CREATE FUNCTION async.target_tiers(_target TEXT) RETURNS TEXT[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT ARRAY(SELECT k FROM jsonb_object_keys(CASE jsonb_typeof(t.options->'tiers') WHEN 'object' THEN t.options->'tiers'
                                                    ELSE '{}' END) AS k ORDER BY k)
    FROM async.target t WHERE t.target = async.target_name(_target);
$$;
COMMENT ON FUNCTION async.target_tiers IS 'Internal: the names of the tiers of a target.';

CREATE FUNCTION async.tier_target(_target TEXT, _tier TEXT) RETURNS TEXT
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT coalesce(o.target, t.target)
    FROM async.target t LEFT JOIN async.target o ON o.target = t.options->'tiers'->_tier->>'target'
   WHERE t.target = async.target_name(_target);
$$;
COMMENT ON FUNCTION async.tier_target IS
  'Internal: the target that tasks of a tier of a target go to: itself, unless the tier names another one.';

CREATE FUNCTION async.target_options_as(_caller OID, _target TEXT) RETURNS JSONB
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT async.masked_options(t.options) FROM async.target t WHERE t.target = _target;
$$;
COMMENT ON FUNCTION async.target_options_as IS 'Internal: async.target_options with the caller''s role.';

CREATE FUNCTION async.target_options(_target TEXT) RETURNS JSONB LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'as_owner';
COMMENT ON FUNCTION async.target_options IS 'The options of a target without credentials.';

-- What open work still needs a target; null: nothing. Only tasks from open_low on can be open.
CREATE FUNCTION async.target_uses(_target TEXT) RETURNS TEXT
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT nullif(concat_ws(' and ', (
      SELECT format('%s open task%s (%s)', count(*), CASE WHEN count(*) > 1 THEN 's' END,
                    concat_ws(', ', VARIADIC (array_agg(t.task_id::TEXT ORDER BY t.task_id))[:3])
                    || CASE WHEN count(*) > 3 THEN ', …' ELSE '' END)
        FROM async.task t
       WHERE t.processed IS NULL AND t.target = _target
         AND t.task_id >= (SELECT e.open_low FROM async.engine_state e)
      HAVING count(*) > 0), (
      SELECT format('%s open run%s (%s)', count(*), CASE WHEN count(*) > 1 THEN 's' END,
                    concat_ws(', ', VARIADIC (array_agg(format('%s of flow "%s"', r.flow_id, r.flow)
                      ORDER BY r.flow_id))[:3]) || CASE WHEN count(*) > 3 THEN ', …' ELSE '' END)
        FROM (SELECT DISTINCT f.flow_id, f.flow
                FROM flow.flow f
                JOIN flow.definition_node d ON d.definition_id = f.definition_id AND d.target = _target
                JOIN flow.flow_node n ON n.flow_id = f.flow_id AND n.node_no = d.node_no AND n.ended IS NULL
               WHERE f.processed IS NULL) AS r
      HAVING count(*) > 0)), '');
$$;
COMMENT ON FUNCTION async.target_uses IS 'Internal: the open tasks and runs that need a target, in words; null: none.';

CREATE FUNCTION async.pool_uses(_concurrency_pool TEXT) RETURNS TEXT
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT format('%s open task%s (%s)', count(*), CASE WHEN count(*) > 1 THEN 's' END,
                concat_ws(', ', VARIADIC (array_agg(t.task_id::TEXT ORDER BY t.task_id))[:3])
                || CASE WHEN count(*) > 3 THEN ', …' ELSE '' END)
    FROM async.task t
    LEFT JOIN flow.flow_node n ON t.concurrency_pool = '' AND n.flow_id = t.flow_id AND n.node_no = t.node_no
   WHERE t.processed IS NULL AND coalesce(nullif(t.concurrency_pool, ''), n.concurrency_pool) = _concurrency_pool
     AND t.task_id >= (SELECT e.open_low FROM async.engine_state e)
  HAVING count(*) > 0;
$$;
COMMENT ON FUNCTION async.pool_uses IS 'Internal: the open tasks that wait or run in a pool, in words; null: none.';

-- async/connections.sql
-- Where targets and stores lead, with credentials: for the dispatcher, which is a superuser, and for nobody else. Foreign
-- servers and user mappings are only read: nothing of a foreign data wrapper is called.

-- http, https or clickhouse of a URL; null: it is none of these.
CREATE FUNCTION async.url_scheme(_text TEXT) RETURNS TEXT
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT lower(substring(btrim(_text) FROM '^([A-Za-z]+)://'))
   WHERE lower(substring(btrim(_text) FROM '^([A-Za-z]+)://')) IN ('http', 'https', 'clickhouse', 'clickhouses');
$$;
COMMENT ON FUNCTION async.url_scheme IS 'Internal: the scheme of a URL of ClickHouse or HTTP, or null.';

CREATE FUNCTION async.is_superuser(_role NAME) RETURNS BOOL
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT coalesce((SELECT r.rolsuper FROM pg_roles r WHERE r.rolname = _role), false);
$$;
COMMENT ON FUNCTION async.is_superuser IS 'Internal: whether a role is there and a superuser.';

CREATE FUNCTION async.server_options(_server TEXT) RETURNS JSONB
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT coalesce((SELECT jsonb_object_agg(o.option_name, o.option_value)
                     FROM pg_foreign_server s, pg_options_to_table(s.srvoptions) o WHERE s.srvname = _server), '{}');
$$;
COMMENT ON FUNCTION async.server_options IS 'Internal: the options of a foreign server, without any user''s.';

-- Null: there is neither a mapping of the role nor one of PUBLIC.
CREATE FUNCTION async.mapping_options(_server TEXT, _role NAME) RETURNS JSONB
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT coalesce((SELECT jsonb_object_agg(o.option_name, o.option_value) FROM pg_options_to_table(m.umoptions) o), '{}')
    FROM pg_foreign_server s
    JOIN pg_user_mapping m ON m.umserver = s.oid
   WHERE s.srvname = _server
     AND (m.umuser = 0 OR m.umuser = (SELECT r.oid FROM pg_roles r WHERE r.rolname = _role))
   ORDER BY m.umuser = 0 LIMIT 1;
$$;
COMMENT ON FUNCTION async.mapping_options IS
  'Internal: the options of the user mapping of a role, else of PUBLIC, for a foreign server: credentials. Superusers only.';

-- As async.connection_of, with what is wrong instead of an error.
CREATE FUNCTION async.find_connection(
  _target TEXT, _role NAME, OUT connection_string TEXT, OUT connection_options JSONB, OUT password_required BOOL,
  OUT options JSONB, OUT kind TEXT, OUT fault TEXT, OUT hint TEXT)
RETURNS RECORD LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _found   async.target;
  _mapping JSONB;
  _place   TEXT;
BEGIN
  SELECT * INTO _found FROM async.target t WHERE t.target = _target;
  IF NOT FOUND THEN
    fault := format('target "%s" does not exist', left(_target, 80));
    hint := 'Configure it with async.configure.';
    RETURN;
  END IF;
  connection_string := _found.connection_string;
  connection_options := '{}';
  options := _found.options;
  kind := _found.kind;
  password_required := NOT async.is_superuser(_found.owner);
  IF _found.server IS NULL THEN
    RETURN;
  ELSIF NOT EXISTS (SELECT FROM pg_foreign_server s WHERE s.srvname = _found.server) THEN
    fault := format('foreign server "%s" of target "%s" does not exist', _found.server, _target);
    hint := 'CREATE SERVER, or configure the target with another one.';
    RETURN;
  END IF;
  password_required := password_required OR NOT EXISTS (
    SELECT FROM pg_foreign_server s JOIN pg_roles r ON r.oid = s.srvowner
     WHERE s.srvname = _found.server AND r.rolsuper);
  _mapping := async.mapping_options(_found.server, _role);
  IF _mapping IS NULL THEN
    fault := format('role "%s" has no user mapping for foreign server "%s"', _role, _found.server);
    hint := format('CREATE USER MAPPING FOR %I SERVER %I OPTIONS (…); or one FOR PUBLIC.', _role, _found.server);
    RETURN;
  END IF;
  -- Whoever may use a server makes a mapping for himself: it says who he is, never where the server is or how it is reached.
  -- Else he could have what the target sends (its headers, another's data) sent to a place of his choice.
  SELECT o.key INTO _place FROM jsonb_object_keys(_mapping) AS o(key)
   WHERE lower(o.key) ~ ('^(url|base_url|endpoint|hosts?|hostaddr|(http_)?port|dbname|database|secure|skip_verify|verify|ca_file|'
                         'ssl.*|gss.*|krb.*|options|service|passfile|proxy.*|region|allow_.*|connect_timeout|keepalives.*|'
                         'tcp_.*|target_session_attrs|channel_binding|require_auth|load_balance_hosts|named_collection)$')
   ORDER BY o.key LIMIT 1;
  IF FOUND THEN
    fault := format('the user mapping of role "%s" for foreign server "%s" has option "%s", which is not a credential',
                    _role, _found.server, _place);
    hint := format('ALTER USER MAPPING … SERVER %I OPTIONS (DROP %I); say it in the options of the server.', _found.server, _place);
    RETURN;
  END IF;
  -- As postgres_fdw has it: who is no superuser must prove who he is, unless a superuser has said otherwise in the mapping
  -- (postgres_fdw lets nobody else). The server's own operating system user would be let in anywhere here.
  password_required := password_required OR kind = 'postgres' AND NOT async.is_superuser(_role) AND NOT (
    coalesce(_mapping->>'password_required' = 'false', false) AND EXISTS (
      SELECT FROM pg_foreign_server s JOIN pg_foreign_data_wrapper w ON w.oid = s.srvfdw
       WHERE s.srvname = _found.server AND w.fdwname = 'postgres_fdw'));
  connection_options := async.server_options(_found.server) || (_mapping - 'password_required');
END
$$;
COMMENT ON FUNCTION async.find_connection IS
  'Internal: where a target leads for a role, with credentials; fault and hint: why it leads nowhere. Never raises.';

CREATE FUNCTION async.connection_of(_target TEXT, _role NAME)
RETURNS TABLE (connection_string TEXT, connection_options JSONB, password_required BOOL, options JSONB, kind TEXT)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _found RECORD;
BEGIN
  SELECT * INTO _found FROM async.find_connection(_target, _role);
  IF _found.fault IS NOT NULL THEN
    RAISE undefined_object USING MESSAGE = _found.fault, HINT = _found.hint;
  END IF;
  RETURN QUERY SELECT _found.connection_string, _found.connection_options, _found.password_required, _found.options, _found.kind;
END
$$;
COMMENT ON FUNCTION async.connection_of IS
  'Internal: where a target leads for a role, with credentials: its connection string, the options of its foreign server and '
  'of the user mapping of the role, else of PUBLIC (which win). password_required: its owner, or the server''s, is no '
  'superuser. Raises undefined_object for a target, server or mapping that is not there.';

CREATE FUNCTION async.connection_fault(_target TEXT, _role NAME) RETURNS TEXT
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _found RECORD;
BEGIN
  SELECT * INTO _found FROM async.find_connection(_target, _role);
  IF _found.fault IS NOT NULL THEN
    RETURN _found.fault || coalesce(E'\nHINT: ' || _found.hint, '');
  END IF;
  RETURN (
    SELECT string_agg(format('target "%s"%s: %s', _target, f.path, f.message), E'\n')
      FROM async.target_faults(_found.kind, _found.connection_string, _found.connection_options, _found.password_required,
                               _found.options) f);
END
$$;
COMMENT ON FUNCTION async.connection_fault IS
  'Internal: why tasks of a role cannot be sent to a target, in words and without secrets; null: nothing is known against '
  'it. Never raises.';

-- The role is the store's owner, not that of a run: a store is one place, whoever's results are there.
CREATE FUNCTION async.store_of(_store TEXT) RETURNS TABLE (url TEXT, options JSONB)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _found async.store;
BEGIN
  SELECT * INTO _found FROM async.store s WHERE s.store = _store;
  IF NOT FOUND THEN
    RAISE undefined_object USING
      MESSAGE = format('store "%s" does not exist', left(_store, 80)), HINT = 'Configure it with async.configure.';
  ELSIF _found.server IS NOT NULL AND NOT EXISTS (SELECT FROM pg_foreign_server s WHERE s.srvname = _found.server) THEN
    RAISE undefined_object USING
      MESSAGE = format('foreign server "%s" of store "%s" does not exist', _found.server, _store),
      HINT = 'CREATE SERVER, or configure the store with another one.';
  END IF;
  RETURN QUERY
    SELECT _found.url, coalesce((
      SELECT jsonb_object_agg(o.key, o.value #>> '{}')
        FROM jsonb_each(async.server_options(_found.server) || _found.options
                        || coalesce(async.mapping_options(_found.server, _found.owner), '{}')) o
       WHERE o.value <> 'null'), '{}');
END
$$;
COMMENT ON FUNCTION async.store_of IS
  'Internal: the URL of a store and its options as texts, credentials among them: of its foreign server, of its '
  'configuration, of the user mapping of its owner, else of PUBLIC; later ones win. Raises undefined_object.';

-- async/stores.sql
-- Object stores that results may go to: what needs one, dropping one. They are configured with async.configure.

-- What still needs a store; null: nothing. What is kept there could neither be read nor deleted without it.
CREATE FUNCTION async.store_uses(_store TEXT) RETURNS TEXT
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT nullif(concat_ws(' and ', (
      SELECT format('%s kept there', CASE count(*) WHEN 1 THEN '1 result that is' ELSE count(*) || ' results that are' END)
        FROM async.result r WHERE r.store = _store AND r.state <> 'gone'
      HAVING count(*) > 0), (
      SELECT format('%s open task%s (%s)', count(*), CASE WHEN count(*) > 1 THEN 's' END,
                    concat_ws(', ', VARIADIC (array_agg(t.task_id::TEXT ORDER BY t.task_id))[:3])
                    || CASE WHEN count(*) > 3 THEN ', …' ELSE '' END)
        FROM async.task t
       WHERE t.processed IS NULL AND t.options->'result'->>'store' = _store
         AND t.task_id >= (SELECT e.open_low FROM async.engine_state e)
      HAVING count(*) > 0), (
      SELECT format('%s open run%s (%s)', count(*), CASE WHEN count(*) > 1 THEN 's' END,
                    concat_ws(', ', VARIADIC (array_agg(format('%s of flow "%s"', r.flow_id, r.flow)
                      ORDER BY r.flow_id))[:3]) || CASE WHEN count(*) > 3 THEN ', …' ELSE '' END)
        FROM (SELECT DISTINCT f.flow_id, f.flow
                FROM flow.flow f
                JOIN flow.definition_node d ON d.definition_id = f.definition_id AND d.options->'result'->>'store' = _store
                JOIN flow.flow_node n ON n.flow_id = f.flow_id AND n.node_no = d.node_no AND n.ended IS NULL
               WHERE f.processed IS NULL) AS r
      HAVING count(*) > 0)), '');
$$;
COMMENT ON FUNCTION async.store_uses IS 'Internal: the results, open tasks and runs that need a store, in words; null: none.';

CREATE FUNCTION async.drop_store_as(_caller OID, _store TEXT) RETURNS VOID
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _uses TEXT;
BEGIN
  PERFORM async.require_admin(_caller, 'drop a store');
  PERFORM FROM async.control FOR UPDATE;
  IF NOT EXISTS (SELECT FROM async.store s WHERE s.store = _store) THEN
    RAISE undefined_object USING
      MESSAGE = format('there is no store "%s"', left(_store, 80)), HINT = 'async.v_store lists the stores.';
  END IF;
  _uses := async.store_uses(_store);
  IF _uses IS NOT NULL THEN
    RAISE object_in_use USING
      MESSAGE = format('store "%s" is in use', _store), DETAIL = format('It is needed by %s.', _uses),
      HINT = 'Drop results with async.drop_result, or wait until they expire.';
  END IF;
  DELETE FROM async.store s WHERE s.store = _store;
  PERFORM async.announce_settings();
END
$$;
COMMENT ON FUNCTION async.drop_store_as IS 'Internal: async.drop_store with the caller''s role.';

CREATE FUNCTION async.drop_store(_store TEXT) RETURNS VOID LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'as_owner';
COMMENT ON FUNCTION async.drop_store IS
  'Drops a store. Raises object_in_use while results are kept there or open tasks and runs need it. Needs flow_admin.';

CREATE FUNCTION async.store_options_as(_caller OID, _store TEXT) RETURNS JSONB
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT async.masked_options(s.options) FROM async.store s WHERE s.store = _store;
$$;
COMMENT ON FUNCTION async.store_options_as IS 'Internal: async.store_options with the caller''s role.';

CREATE FUNCTION async.store_options(_store TEXT) RETURNS JSONB LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'as_owner';
COMMENT ON FUNCTION async.store_options IS 'The options of a store without credentials.';

-- async/settings.sql
-- What a configuration of async.configure may hold: the keys, what a value may be, its entries. The targets and stores that
-- follow from it are in configured.sql, the checks and async.configure itself in configure.sql.

-- What async.configure knows. A key of type "ignored" had a meaning in the SQL original only; "kept" is stored, not used.
CREATE FUNCTION async.settings_keys(OUT section TEXT, OUT key TEXT, OUT type TEXT) RETURNS SETOF RECORD
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
  VALUES
    ('', 'control', 'object'), ('', 'targets', 'array'), ('', 'concurrency_pools', 'array'), ('', 'stores', 'array'),
    ('control', 'workers', 'count'), ('control', 'task_keep_duration', 'interval'),
    ('control', 'default_timeout', 'interval'), ('control', 'self_target', 'name'),
    ('control', 'self_concurrency', 'count'), ('control', 'default_concurrency_pool_workers', 'count'),
    ('control', 'debug_log', 'bool'), ('control', 'self_connection_string', 'kept'),
    ('control', 'advisory_mutex_id', 'kept'), ('control', 'idle_sleep', 'ignored'), ('control', 'busy_sleep', 'ignored'),
    ('control', 'heavy_maintenance_sleep', 'ignored'), ('control', 'light_maintenance_sleep', 'ignored'),
    ('control', 'last_heavy_maintenance', 'ignored'), ('control', 'last_light_maintenance', 'ignored'),
    ('control', 'enabled', 'ignored'), ('control', 'paused', 'ignored'), ('control', 'pid', 'ignored'),
    ('control', 'running_since', 'ignored'), ('control', 'startup_routines', 'ignored'),
    ('control', 'loop_routines', 'ignored'), ('control', 'version', 'ignored'),
    ('targets', 'target', 'name'), ('targets', 'kind', 'kind'), ('targets', 'max_concurrency', 'count'),
    ('targets', 'max_workers', 'count'), ('targets', 'connection_string', 'secret'),
    ('targets', 'asynchronous_finish', 'bool'), ('targets', 'default_timeout', 'interval'),
    ('targets', 'concurrency_track_yielded', 'bool'), ('targets', 'server', 'server'), ('targets', 'options', 'object'),
    ('stores', 'store', 'name'), ('stores', 'url', 'url'), ('stores', 'server', 'server'), ('stores', 'options', 'object'),
    ('stores', 'keep_for', 'interval'),
    ('concurrency_pools', 'concurrency_pool', 'name'), ('concurrency_pools', 'max_workers', 'count');
$$;
COMMENT ON FUNCTION async.settings_keys IS 'Internal: the keys of async.configure with their types, per section.';

-- What is wrong with one value, or null. Never repeats a value that may be a secret.
CREATE FUNCTION async.value_fault(_value JSONB, _type TEXT) RETURNS TEXT
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _is   CONSTANT TEXT := jsonb_typeof(_value);
  _text CONSTANT TEXT := _value #>> '{}';
BEGIN
  IF _type IN ('object', 'array') THEN
    RETURN CASE WHEN _is NOT IN (_type, 'null') THEN format('must be an %s, not %s', _type, _is) END;
  ELSIF _type = 'ignored' THEN
    RETURN NULL;
  ELSIF _is IN ('object', 'array') THEN
    RETURN format('must be a plain value, not an %s', _is);
  ELSIF _type = 'name' OR (_type = 'server' AND _is <> 'null') THEN
    RETURN CASE WHEN _is <> 'string' OR _text <> btrim(_text) OR _text = '' OR _text ~ '[[:cntrl:]]'
      THEN 'must be a name: a string without spaces around it' END;
  ELSIF _is = 'null' THEN
    RETURN NULL;
  ELSIF _type = 'count' THEN
    RETURN CASE WHEN _text !~ '^\d{1,9}$' OR _text ~ '^0+$'
      THEN format('must be a whole number from 1 on, not %s', left(_value::TEXT, 40)) END;
  ELSIF _type = 'bool' THEN
    RETURN CASE WHEN lower(_text) NOT IN ('true', 'false')
      THEN format('must be true or false, not %s', left(_value::TEXT, 40)) END;
  ELSIF _type = 'kind' THEN
    RETURN CASE WHEN _text <> ALL (ARRAY['local', 'external'] || async.executor_kinds())
      THEN format('must be "local", "external"%s, not %s',
                  (SELECT string_agg(format(', "%s"', k), '') FROM unnest(async.executor_kinds()) k), left(_value::TEXT, 40)) END;
  ELSIF _type = 'secret' THEN
    RETURN CASE WHEN _is <> 'string' OR (async.url_scheme(_text) IS NULL AND async.conninfo_options(_text) IS NULL)
      THEN 'must be a connection string: "host=… dbname=…", "postgresql://…" or "https://…"' END;
  ELSIF _type = 'url' THEN
    RETURN CASE WHEN _is <> 'string' THEN 'must be a URL: "file:///…", "s3://…", "az://…" or "gs://…"' END;
  ELSIF _type = 'seconds' THEN
    RETURN CASE WHEN _text !~ '^\d{1,7}(\.\d+)?$' OR _text ~ '^[0.]+$'
      THEN format('must be a positive number of seconds, not %s', left(_value::TEXT, 40)) END;
  ELSIF _type = 'interval' THEN
    IF _text::INTERVAL > INTERVAL '0' THEN
      RETURN NULL;
    END IF;
    RETURN format('must be longer than nothing, not %s', left(_value::TEXT, 40));
  END IF;
  RETURN NULL;
EXCEPTION WHEN data_exception THEN
  RETURN format('must be an interval such as "10 minutes", not %s', left(_value::TEXT, 40));
END
$$;
COMMENT ON FUNCTION async.value_fault IS 'Internal: what is wrong with a value of a given type; null: nothing.';

-- Edit distance that counts a swap of neighbours as one: what a typing error looks like.
CREATE FUNCTION async.resembles(_word TEXT, _known TEXT[]) RETURNS TEXT
LANGUAGE plpgsql IMMUTABLE STRICT SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _a CONSTANT TEXT := translate(lower(left(_word, 60)), '-_ .', '');
  _b TEXT; _other TEXT; _nearest TEXT; _distance INT; _best INT;
  _rows INT[][];
BEGIN
  FOREACH _other IN ARRAY _known LOOP
    _b := translate(_other, '_', '');
    _rows := array_fill(0, ARRAY[length(_a) + 1, length(_b) + 1]);
    FOR i IN 0 .. length(_a) LOOP
      FOR j IN 0 .. length(_b) LOOP
        _rows[i + 1][j + 1] := CASE WHEN i = 0 THEN j WHEN j = 0 THEN i ELSE least(
          _rows[i][j + 1] + 1, _rows[i + 1][j] + 1, _rows[i][j] + (substr(_a, i, 1) <> substr(_b, j, 1))::INT,
          CASE WHEN i > 1 AND j > 1 AND substr(_a, i, 1) = substr(_b, j - 1, 1) AND substr(_a, i - 1, 1) = substr(_b, j, 1)
            THEN _rows[i - 1][j - 1] + 1 END) END;
      END LOOP;
    END LOOP;
    _distance := CASE WHEN length(_a) > 3 AND (starts_with(_a, _b) OR starts_with(_b, _a)) THEN 1
                      ELSE _rows[length(_a) + 1][length(_b) + 1] END;
    IF _distance <= greatest(1, length(_b) / 4) AND _distance < coalesce(_best, 1000) THEN
      _best := _distance;
      _nearest := _other;
    END IF;
  END LOOP;
  RETURN _nearest;
END
$$;
COMMENT ON FUNCTION async.resembles IS 'Internal: the known word that _word looks like a slip of, or null.';

-- The entries of a configuration, their keys cleaned of what is unknown, meaningless or of the wrong type.
CREATE FUNCTION async.configured_entries(
  _configuration JSONB, OUT section TEXT, OUT path TEXT, OUT n BIGINT, OUT given JSONB, OUT entry JSONB)
RETURNS SETOF RECORD LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT e.section, e.path, e.n, (
           SELECT coalesce(jsonb_object_agg(CASE WHEN e.section = 'targets' AND g.key = 'max_workers'
                                                 THEN 'max_concurrency' ELSE g.key END, g.value ORDER BY g.key DESC), '{}')
             FROM jsonb_each(CASE jsonb_typeof(e.entry) WHEN 'object' THEN e.entry ELSE '{}' END) g
             JOIN async.settings_keys() k ON k.section = e.section AND k.key = g.key AND k.type <> 'ignored'
            WHERE async.value_fault(g.value, k.type) IS NULL),
         e.entry
    FROM (SELECT '', '$', 1::BIGINT, _configuration
          UNION ALL SELECT 'control', '$.control', 1, _configuration->'control'
           WHERE jsonb_typeof(_configuration->'control') = 'object'
          UNION ALL SELECT s.section, format('$.%s[%s]', s.section, a.n - 1), a.n, a.value
            FROM (VALUES ('targets'), ('concurrency_pools'), ('stores')) AS s(section),
                 jsonb_array_elements(CASE jsonb_typeof(_configuration->s.section) WHEN 'array'
                   THEN _configuration->s.section ELSE '[]' END) WITH ORDINALITY AS a(value, n)
         ) AS e(section, path, n, entry);
$$;
COMMENT ON FUNCTION async.configured_entries IS
  'Internal: the entries of a configuration: the keys as given, and those that can be used.';

-- async/configured.sql
-- The targets and stores that follow from a configuration and what is stored, and whose they are.

-- How the kind of a target follows from its foreign server; null: it does not.
CREATE FUNCTION async.kind_of_server(_server TEXT) RETURNS TEXT
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT CASE WHEN w.fdwname IN ('postgres_fdw', 'dblink_fdw') THEN 'postgres'
              WHEN s.srvtype = ANY (async.executor_kinds()) THEN s.srvtype
              WHEN EXISTS (SELECT FROM pg_options_to_table(s.srvoptions) o WHERE o.option_name = 'url'
                              AND async.url_scheme(o.option_value) IS NOT NULL) THEN 'clickhouse' END
    FROM pg_foreign_server s JOIN pg_foreign_data_wrapper w ON w.oid = s.srvfdw
   WHERE s.srvname = _server;
$$;
COMMENT ON FUNCTION async.kind_of_server IS
  'Internal: the kind of target that a foreign server is for, by its wrapper, TYPE or URL; null: it does not say.';

-- The targets as they would be stored. A key left out keeps what is stored, null is the default. Whoever changes where a
-- target leads becomes its owner, so that nobody inherits a superuser's right to connect without a password.
CREATE FUNCTION async.configured_targets(
  _configuration JSONB, _caller NAME DEFAULT NULL, OUT path TEXT, OUT target TEXT, OUT kind TEXT, OUT max_concurrency INT,
  OUT connection_string TEXT, OUT asynchronous_finish BOOL, OUT default_timeout INTERVAL,
  OUT concurrency_track_yielded BOOL, OUT server TEXT, OUT options JSONB, OUT owner NAME, OUT old_kind TEXT, OUT redirected BOOL)
RETURNS SETOF RECORD LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  WITH self AS (
    SELECT coalesce((SELECT e.given->>'self_target' FROM async.configured_entries(_configuration) e
                      WHERE e.section = 'control'), c.self_target) AS name
      FROM async.control c
  ), entry AS (
    SELECT e.path, e.n, e.given, CASE WHEN e.given->>'target' IN ('async.self', self.name) THEN 'local'
                                      ELSE e.given->>'target' END AS target
      FROM async.configured_entries(_configuration) e, self
     WHERE e.section = 'targets'
  ), merged AS (
    SELECT e.path, e.n, e.target, e.given->>'kind' AS kind_given, e.given ? 'kind' AS says_kind, t AS stored,
           coalesce(CASE WHEN e.given ? 'max_concurrency' THEN (e.given->>'max_concurrency')::INT
                         ELSE t.max_concurrency END, 8) AS max_concurrency,
           nullif(btrim(CASE WHEN e.given ? 'connection_string' THEN e.given->>'connection_string'
                             ELSE t.connection_string END), '') AS connection_string,
           coalesce(CASE WHEN e.given ? 'asynchronous_finish' THEN (e.given->>'asynchronous_finish')::BOOL
                         ELSE t.asynchronous_finish END, false) AS asynchronous_finish,
           CASE WHEN e.given ? 'default_timeout' THEN (e.given->>'default_timeout')::INTERVAL
                ELSE t.default_timeout END AS default_timeout,
           coalesce(CASE WHEN e.given ? 'concurrency_track_yielded' THEN (e.given->>'concurrency_track_yielded')::BOOL
                         ELSE t.concurrency_track_yielded END, false) AS concurrency_track_yielded,
           CASE WHEN e.given ? 'server' THEN e.given->>'server' ELSE t.server END AS server,
           coalesce(nullif(CASE WHEN e.given ? 'options' THEN e.given->'options' ELSE t.options END, 'null'), '{}') AS options
      FROM entry e LEFT JOIN async.target t ON t.target = e.target
  ), placed AS (
    SELECT m.*, CASE
             WHEN m.kind_given IS NOT NULL THEN m.kind_given
             -- It stays what it was said to be while it leads where it did.
             WHEN NOT m.says_kind AND (m.stored).kind <> 'local'
               AND (m.connection_string, m.server) IS NOT DISTINCT FROM ((m.stored).connection_string, (m.stored).server)
               THEN (m.stored).kind
             WHEN async.leads_here(m.connection_string) THEN 'local'
             WHEN m.server IS NOT NULL AND (m.connection_string IS NULL OR async.kind_of_server(m.server) IS NOT NULL)
               THEN async.kind_of_server(m.server)
             WHEN async.url_scheme(m.connection_string) IS NOT NULL THEN 'clickhouse'
             WHEN m.connection_string IS NOT NULL THEN 'postgres'
             WHEN (m.stored).kind = 'external' THEN 'external'
             ELSE 'local' END AS kind
      FROM merged m
  )
  SELECT p.path, p.target, p.kind, p.max_concurrency, p.connection_string, p.asynchronous_finish, p.default_timeout,
         p.concurrency_track_yielded, p.server, p.options,
         CASE WHEN r.redirected THEN coalesce(_caller, current_user) ELSE (p.stored).owner END, (p.stored).kind, r.redirected
    FROM placed p,
         LATERAL (SELECT (p.stored).target IS NULL
                      OR (p.kind, p.connection_string, p.server, p.options) IS DISTINCT FROM
                         ((p.stored).kind, (p.stored).connection_string, (p.stored).server, (p.stored).options)) AS r(redirected)
   ORDER BY p.n;
$$;
COMMENT ON FUNCTION async.configured_targets IS
  'Internal: the targets of a configuration merged with what is stored, with the kind and owner that follow. redirected: '
  'it is new or leads elsewhere than before, so _caller owns it.';

-- The stores as they would be stored, by the same rules.
CREATE FUNCTION async.configured_stores(
  _configuration JSONB, _caller NAME DEFAULT NULL, OUT path TEXT, OUT store TEXT, OUT url TEXT, OUT server TEXT,
  OUT options JSONB, OUT keep_for INTERVAL, OUT owner NAME, OUT redirected BOOL)
RETURNS SETOF RECORD LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT m.path, m.store, m.url, m.server, m.options, m.keep_for,
         CASE WHEN r.redirected THEN coalesce(_caller, current_user) ELSE (m.stored).owner END, r.redirected
    FROM (SELECT e.n, e.path, e.given->>'store' AS store, s AS stored,
                 CASE WHEN e.given ? 'url' THEN e.given->>'url' ELSE s.url END AS url,
                 CASE WHEN e.given ? 'server' THEN e.given->>'server' ELSE s.server END AS server,
                 coalesce(nullif(CASE WHEN e.given ? 'options' THEN e.given->'options' ELSE s.options END, 'null'), '{}') AS options,
                 CASE WHEN e.given ? 'keep_for' THEN (e.given->>'keep_for')::INTERVAL ELSE s.keep_for END AS keep_for
            FROM async.configured_entries(_configuration) e LEFT JOIN async.store s ON s.store = e.given->>'store'
           WHERE e.section = 'stores') AS m,
         LATERAL (SELECT (m.stored).store IS NULL OR (m.url, m.server, m.options) IS DISTINCT FROM
                         ((m.stored).url, (m.stored).server, (m.stored).options)) AS r(redirected)
   ORDER BY m.n;
$$;
COMMENT ON FUNCTION async.configured_stores IS
  'Internal: the stores of a configuration merged with what is stored, with the owner that follows: see configured_targets.';

-- The options that targets of every kind elsewhere have.
CREATE FUNCTION async.common_option_faults(_options JSONB, OUT path TEXT, OUT message TEXT) RETURNS SETOF RECORD
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT '.options.' || k.key, async.value_fault(_options->k.key, k.type)
    FROM (VALUES ('connect_timeout', 'seconds'), ('give_up_after', 'interval'), ('retry_delay', 'seconds'),
                 ('retry_delay_max', 'seconds'), ('max_attempts', 'count')) AS k(key, type)
   WHERE _options ? k.key AND async.value_fault(_options->k.key, k.type) IS NOT NULL;
$$;
COMMENT ON FUNCTION async.common_option_faults IS
  'Internal: what is wrong with the options that targets of all kinds elsewhere have: connect_timeout, give_up_after, '
  'retry_delay, retry_delay_max, max_attempts.';

-- A foreign server that an entry names: it must be there, and whoever makes an entry lead there must be allowed to use it.
CREATE FUNCTION async.server_fault(_server TEXT, _user NAME) RETURNS TEXT
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _oid OID := (SELECT s.oid FROM pg_foreign_server s WHERE s.srvname = _server);
BEGIN
  IF _server IS NULL THEN
    RETURN NULL;
  ELSIF _oid IS NULL THEN
    RETURN 'there is no such foreign server: CREATE SERVER makes one, of postgres_fdw or pgflow';
  ELSIF _user IS NOT NULL AND NOT has_server_privilege(_user, _oid, 'USAGE') THEN
    RETURN format('role "%s" may not use this server: GRANT USAGE ON FOREIGN SERVER', _user);
  END IF;
  RETURN NULL;
END
$$;
COMMENT ON FUNCTION async.server_fault IS
  'Internal: why a target or store cannot lead to a foreign server; _user: who makes it lead there, null: nobody.';

-- Only what can be known without the credentials of the role that a task runs as: they may come from its user mapping.
CREATE FUNCTION async.connection_faults(
  _configuration JSONB, _caller NAME, OUT path TEXT, OUT message TEXT)
RETURNS SETOF RECORD LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN QUERY
    SELECT t.path || v.path, v.message
      FROM async.configured_targets(_configuration, _caller) t, LATERAL (
        SELECT '.server', async.server_fault(t.server, CASE WHEN t.redirected THEN _caller END)
        UNION ALL SELECT c.path, c.message FROM async.common_option_faults(t.options) c
        UNION ALL SELECT f.path, f.message
          FROM async.target_faults(t.kind, t.connection_string, async.server_options(t.server),
                 t.server IS NULL AND NOT async.is_superuser(t.owner), t.options) f
         WHERE num_nonnulls(t.connection_string, t.server, nullif(t.options, '{}')) > 0
        UNION ALL SELECT format('.options.tiers.%s.target', i.key), 'there is no such target'
          FROM jsonb_each(CASE jsonb_typeof(t.options->'tiers') WHEN 'object' THEN t.options->'tiers' ELSE '{}' END) i
         WHERE jsonb_typeof(i.value->'target') = 'string'
           AND NOT EXISTS (SELECT FROM async.configured_targets(_configuration, _caller) o
                            WHERE o.target = i.value->>'target')) AS v(path, message)
     WHERE t.kind NOT IN ('local', 'external') AND v.message IS NOT NULL;
  RETURN QUERY
    SELECT s.path || v.path, v.message
      FROM async.configured_stores(_configuration, _caller) s, LATERAL (
        SELECT '.server', async.server_fault(s.server, CASE WHEN s.redirected THEN _caller END)
        UNION ALL SELECT '', 'has no "url"' WHERE s.url IS NULL
        -- What the server's operating system user may write is more than flow_admin may.
        UNION ALL SELECT '.url', 'leads to files of the server: only a superuser or a member of pg_write_server_files may say so'
         WHERE s.redirected AND s.url ~* '^file:' AND NOT pg_has_role(coalesce(_caller, current_user), 'pg_write_server_files', 'USAGE')
        UNION ALL SELECT f.path, f.message
          FROM async.store_faults(s.url, async.server_options(s.server) || s.options
                 || coalesce(async.mapping_options(s.server, s.owner), '{}')) f WHERE s.url IS NOT NULL) AS v(path, message)
     WHERE v.message IS NOT NULL;
END
$$;
COMMENT ON FUNCTION async.connection_faults IS
  'Internal: what is wrong with where the targets and stores of a configuration lead, as far as it is known without '
  'credentials. Repeats no value that may be a secret.';

-- async/configure.sql
-- async.configure: what the administrator sets. It checks everything first, names every fault with its place, and changes
-- nothing while anything is wrong.

CREATE FUNCTION async.configuration_faults(
  _configuration JSONB, _caller NAME DEFAULT current_user, OUT severity TEXT, OUT path TEXT, OUT message TEXT)
RETURNS SETOF RECORD LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _strict CONSTANT BOOL := coalesce(current_setting('pgflow.strict_configuration', true), 'off') IN ('on', 'true', '1');
  _self   TEXT;
BEGIN
  IF jsonb_typeof(_configuration) IS DISTINCT FROM 'object' THEN
    RETURN QUERY SELECT 'error', '$', 'must be an object with "control", "targets", "concurrency_pools" and "stores"';
    RETURN;
  END IF;

  -- Keys and values.
  RETURN QUERY
    SELECT v.severity, v.path, v.message FROM (
      SELECT e.section, e.n, CASE WHEN k.key IS NULL AND NOT _strict AND w.word IS NULL THEN 'warning' ELSE 'error' END,
             format(CASE WHEN g.key ~ '^[A-Za-z_][A-Za-z_0-9]*$' THEN '%s.%s' ELSE '%s["%s"]' END, e.path, left(g.key, 60)),
             CASE WHEN k.key IS NOT NULL THEN async.value_fault(g.value, k.type)
                  WHEN w.word IS NOT NULL THEN format('there is no such key; did you mean "%s"?', w.word)
                  ELSE 'there is no such key' END
        FROM async.configured_entries(_configuration) e
       CROSS JOIN LATERAL jsonb_each(CASE jsonb_typeof(e.entry) WHEN 'object' THEN e.entry ELSE '{}' END) g
        LEFT JOIN async.settings_keys() k ON k.section = e.section AND k.key = g.key
        LEFT JOIN LATERAL (
          SELECT async.resembles(g.key, array_agg(a.key)) FROM async.settings_keys() a
           WHERE a.section = e.section AND k.key IS NULL) AS w(word) ON true
      UNION ALL
      SELECT e.section, e.n, 'error', e.path,
             CASE jsonb_typeof(e.entry) WHEN 'object' THEN format('has no "%s"', x.key) ELSE 'must be an object' END
        FROM async.configured_entries(_configuration) e
        JOIN (VALUES ('targets', 'target'), ('concurrency_pools', 'concurrency_pool'), ('stores', 'store')) AS x(section, key)
          ON x.section = e.section
       WHERE jsonb_typeof(e.entry) <> 'object' OR NOT e.entry ? x.key
      UNION ALL
      SELECT e.section, e.n, 'error', e.path || '.max_workers', 'differs from max_concurrency, which is the same setting'
        FROM async.configured_entries(_configuration) e
       WHERE e.section = 'targets' AND jsonb_typeof(e.entry) = 'object'
         AND e.entry->>'max_workers' <> e.entry->>'max_concurrency'
      UNION ALL
      SELECT d.section, d.n, 'error', d.path, format('"%s" is here more than once', d.name)
        FROM (SELECT x.*, row_number() OVER (PARTITION BY x.section, x.name ORDER BY x.n) AS seen
                FROM (SELECT 'targets', row_number() OVER (), t.path, t.target
                        FROM async.configured_targets(_configuration) t
                      UNION ALL SELECT e.section, e.n, e.path, e.given->>'concurrency_pool'
                        FROM async.configured_entries(_configuration) e WHERE e.section = 'concurrency_pools'
                      UNION ALL SELECT e.section, e.n, e.path, e.given->>'store'
                        FROM async.configured_entries(_configuration) e WHERE e.section = 'stores'
                     ) AS x(section, n, path, name)
               WHERE x.name IS NOT NULL) AS d
       WHERE d.seen > 1
    ) AS v(section, n, severity, path, message)
    WHERE v.message IS NOT NULL
    ORDER BY array_position(ARRAY['', 'control', 'targets', 'concurrency_pools', 'stores'], v.section), v.n, v.path;

  -- Targets, as they would be stored.
  RETURN QUERY
    SELECT 'error', t.path || v.key, v.message
      FROM async.configured_targets(_configuration, _caller) t, LATERAL (VALUES
        ('.kind', CASE WHEN t.target = 'local' AND t.kind <> 'local'
           THEN '"local" is this database: give another target another name' END),
        ('.connection_string', CASE WHEN t.kind = 'local' AND NOT async.leads_here(t.connection_string)
           THEN 'leads elsewhere, but the target is local' END),
        ('.connection_string', CASE WHEN t.kind = 'external' AND t.connection_string IS NOT NULL
           THEN 'an external target has none: its clients come here and take tasks with async.get_tasks' END),
        ('.server', CASE WHEN t.kind IN ('local', 'external') AND t.server IS NOT NULL
           THEN format('a target of kind "%s" has none: it is for targets elsewhere', t.kind) END),
        ('.options', CASE WHEN t.kind IN ('local', 'external') AND t.options <> '{}'
           THEN format('a target of kind "%s" has none: they are for targets elsewhere', t.kind) END),
        ('', CASE WHEN t.kind NOT IN ('local', 'external')
                   AND num_nonnulls(t.connection_string, t.server, nullif(t.options, '{}')) = 0
           THEN format('a target of kind "%s" needs a connection_string or a server', t.kind) END),
        ('.kind', CASE WHEN t.kind IS NULL AND async.server_fault(t.server, NULL) IS NULL
           THEN 'must be given: the foreign server does not say which it is' END),
        ('.server', CASE WHEN t.kind IS NULL THEN async.server_fault(t.server, NULL) END),
        ('.kind', CASE WHEN t.kind <> t.old_kind AND t.target <> 'local'
           THEN 'was "' || t.old_kind || '" and would be "' || t.kind || '", but it is in use: '
                || async.target_uses(t.target) END)) AS v(key, message)
     WHERE v.message IS NOT NULL;
  RETURN QUERY SELECT 'error', f.path, f.message FROM async.connection_faults(_configuration, _caller) f;
  RETURN QUERY
    SELECT 'error', '$.targets', format('leaves out target "%s", which is in use: %s', t.target, u.uses)
      FROM async.target t, LATERAL async.target_uses(t.target) AS u(uses)
     WHERE jsonb_typeof(_configuration->'targets') = 'array' AND t.target <> 'local' AND u.uses IS NOT NULL
       AND t.target NOT IN (SELECT x.target FROM async.configured_targets(_configuration) x WHERE x.target IS NOT NULL);
  RETURN QUERY
    SELECT 'error', '$.concurrency_pools', format('leaves out pool "%s", which is in use: %s', p.concurrency_pool, u.uses)
      FROM async.concurrency_pool p, LATERAL async.pool_uses(p.concurrency_pool) AS u(uses)
     WHERE jsonb_typeof(_configuration->'concurrency_pools') = 'array' AND u.uses IS NOT NULL
       AND NOT EXISTS (SELECT FROM async.configured_entries(_configuration) x
                        WHERE x.section = 'concurrency_pools' AND x.given->>'concurrency_pool' = p.concurrency_pool);
  RETURN QUERY
    SELECT 'error', '$.stores', format('leaves out store "%s", which is in use: %s', s.store, u.uses)
      FROM async.store s, LATERAL async.store_uses(s.store) AS u(uses)
     WHERE jsonb_typeof(_configuration->'stores') = 'array' AND u.uses IS NOT NULL
       AND s.store NOT IN (SELECT x.store FROM async.configured_stores(_configuration) x WHERE x.store IS NOT NULL);

  _self := _configuration->'control'->>'self_target';
  RETURN QUERY
    SELECT 'error', '$.control.self_target', format('"%s" is a target of its own', _self)
     WHERE _self <> 'local' AND EXISTS (SELECT FROM async.target t WHERE t.target = _self);
END
$$;
COMMENT ON FUNCTION async.configuration_faults IS
  'Internal: everything wrong with a configuration, with JSON paths; severity "error" refuses it, "warning" does not.';

-- Without jit: its long statements look costly, and compiling them takes a hundred times as long as running them.
CREATE FUNCTION async.configure_as(_caller OID, _configuration JSONB) RETURNS VOID
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET jit = off AS $$
DECLARE
  _role    CONSTANT NAME := pg_get_userbyid(_caller);
  _faults  TEXT[];
  _found   RECORD;
  _control JSONB;
  _targets JSONB;
  _stores  JSONB;
BEGIN
  PERFORM async.require_admin(_caller, 'configure the task engine');
  IF _configuration IS NULL THEN
    RAISE null_value_not_allowed USING MESSAGE = 'the configuration is null';
  END IF;
  PERFORM FROM async.control FOR UPDATE;  -- one at a time

  FOR _found IN SELECT * FROM async.configuration_faults(_configuration, _role) LOOP
    IF _found.severity = 'warning' THEN
      RAISE WARNING '%: %', _found.path, _found.message;
    ELSE
      _faults := _faults || format('%s: %s', _found.path, _found.message);
    END IF;
  END LOOP;
  IF _faults IS NOT NULL THEN
    RAISE invalid_parameter_value USING
      MESSAGE = format('the configuration has %s fault%s',
                       cardinality(_faults), CASE WHEN cardinality(_faults) > 1 THEN 's' END),
      DETAIL = array_to_string(_faults, E'\n'),
      HINT = 'Nothing was changed.';
  END IF;

  SELECT e.given INTO _control FROM async.configured_entries(_configuration) e WHERE e.section = 'control';
  SELECT jsonb_agg(to_jsonb(t)) INTO _targets FROM async.configured_targets(_configuration, _role) t;
  SELECT jsonb_agg(to_jsonb(s)) INTO _stores FROM async.configured_stores(_configuration, _role) s;
  PERFORM async.say_what_is_ignored(_configuration, _targets);

  UPDATE async.control c SET
    workers                = CASE WHEN _control ? 'workers' THEN n.workers ELSE c.workers END,
    self_target            = coalesce(n.self_target, c.self_target),
    self_connection_string = CASE WHEN _control ? 'self_connection_string' THEN n.self_connection_string
                                  ELSE c.self_connection_string END,
    self_concurrency       = CASE WHEN _control ? 'self_concurrency' THEN n.self_concurrency
                                  ELSE c.self_concurrency END,
    default_timeout        = CASE WHEN _control ? 'default_timeout' THEN n.default_timeout ELSE c.default_timeout END,
    task_keep_duration     = CASE WHEN _control ? 'task_keep_duration' THEN n.task_keep_duration
                                  ELSE c.task_keep_duration END,
    advisory_mutex_id      = CASE WHEN _control ? 'advisory_mutex_id' THEN n.advisory_mutex_id
                                  ELSE c.advisory_mutex_id END,
    debug_log              = CASE WHEN _control ? 'debug_log' THEN coalesce(n.debug_log, false) ELSE c.debug_log END,
    default_concurrency_pool_workers = CASE WHEN _control ? 'default_concurrency_pool_workers'
      THEN coalesce(n.default_concurrency_pool_workers, 8) ELSE c.default_concurrency_pool_workers END
  FROM jsonb_populate_record(NULL::async.control, _control) n;
  IF _control ? 'self_concurrency' THEN
    UPDATE async.target SET max_concurrency = coalesce((_control->>'self_concurrency')::INT, 8) WHERE target = 'local';
  END IF;

  IF jsonb_typeof(_configuration->'targets') = 'array' THEN
    DELETE FROM async.target t
     WHERE t.target <> 'local'
       AND t.target NOT IN (SELECT n.target FROM jsonb_populate_recordset(NULL::async.target, _targets) n);
    UPDATE async.target t SET
      kind = n.kind, max_concurrency = n.max_concurrency, connection_string = n.connection_string,
      asynchronous_finish = n.asynchronous_finish, default_timeout = n.default_timeout,
      concurrency_track_yielded = n.concurrency_track_yielded, server = n.server, options = n.options, owner = n.owner
    FROM jsonb_populate_recordset(NULL::async.target, _targets) n WHERE n.target = t.target;
    INSERT INTO async.target
    SELECT n.* FROM jsonb_populate_recordset(NULL::async.target, _targets) n
     WHERE n.target NOT IN (SELECT t.target FROM async.target t);
  END IF;

  IF jsonb_typeof(_configuration->'concurrency_pools') = 'array' THEN
    DELETE FROM async.concurrency_pool;
    INSERT INTO async.concurrency_pool (concurrency_pool, max_workers)
    SELECT e.given->>'concurrency_pool', coalesce((e.given->>'max_workers')::INT, c.default_concurrency_pool_workers)
      FROM async.configured_entries(_configuration) e, async.control c
     WHERE e.section = 'concurrency_pools'
       AND e.given->>'concurrency_pool' NOT IN (SELECT t.target FROM async.target t);
  END IF;

  IF jsonb_typeof(_configuration->'stores') = 'array' THEN
    DELETE FROM async.store s
     WHERE s.store NOT IN (SELECT n.store FROM jsonb_populate_recordset(NULL::async.store, _stores) n);
    INSERT INTO async.store AS s
    SELECT n.* FROM jsonb_populate_recordset(NULL::async.store, _stores) n
    ON CONFLICT (store) DO UPDATE SET
      url = excluded.url, server = excluded.server, options = excluded.options, keep_for = excluded.keep_for,
      owner = excluded.owner;
  END IF;
  PERFORM async.announce_settings();
END
$$;
COMMENT ON FUNCTION async.configure_as IS 'Internal: async.configure with the caller''s role.';

-- One notice for the keys of the SQL original that mean nothing here, and a word on targets and pools that may surprise.
CREATE FUNCTION async.say_what_is_ignored(_configuration JSONB, _targets JSONB) RETURNS VOID
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _names TEXT;
  _found RECORD;
BEGIN
  SELECT string_agg(k.key, ', ' ORDER BY k.key) INTO _names
    FROM async.settings_keys() k
   WHERE k.section = 'control' AND k.type IN ('ignored', 'kept') AND _configuration->'control' ? k.key;
  IF _names IS NOT NULL THEN
    RAISE NOTICE 'without a meaning here: control keys %', _names USING
      DETAIL = 'Nobody polls and no connection to oneself is needed: a background worker is told of what changes.';
  END IF;

  SELECT string_agg(format('"%s"', t->>'target'), ', ') INTO _names
    FROM jsonb_array_elements(_targets) t
   WHERE t->>'kind' = 'local' AND async.conninfo_options(t->>'connection_string') ? 'user';
  IF _names IS NOT NULL THEN
    RAISE NOTICE 'this database itself: targets %', _names USING
      DETAIL = 'Their tasks run in a background worker as the role of the run; the user in the connection string is not used.';
  END IF;

  FOR _found IN
    SELECT e.path, t->>'target' AS target, t->>'max_concurrency' AS max_concurrency
      FROM async.configured_entries(_configuration) e
      JOIN jsonb_array_elements(_targets) t ON t->>'target' = e.given->>'concurrency_pool'
     WHERE e.section = 'concurrency_pools' AND e.given->>'max_workers' <> t->>'max_concurrency'
  LOOP
    RAISE WARNING '%: "%" is the pool of that target: its max_concurrency (%) holds',
      _found.path, _found.target, _found.max_concurrency;
  END LOOP;
END
$$;
COMMENT ON FUNCTION async.say_what_is_ignored IS 'Internal: the notices and warnings of async.configure.';

CREATE FUNCTION async.configure(_configuration JSONB) RETURNS VOID
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'as_owner';
COMMENT ON FUNCTION async.configure IS
  'Sets the task engine: an object with "control" (an object), "targets", "concurrency_pools" and "stores" (arrays, each the whole '
  'list). A part or key that is left out stays as it is, null is the default. A target or pool that the list leaves out '
  'is dropped (its history stays) unless open work needs it; so is a store, unless results are kept there. Everything wrong is refused at once, nothing is half done. '
  'Durations are intervals ("10 minutes"). Whoever changes where a target or store leads becomes its owner: connections of '
  'one whose owner is no superuser must use a password. Needs flow_admin, and USAGE on foreign servers that are named.';

-- async/tasks.sql
-- Tasks: pushing them, ending them, putting them off. What happens here happens in the caller's transaction; the
-- dispatcher is told when it commits.

CREATE FUNCTION async.task(
  _query TEXT, target TEXT DEFAULT NULL, task_data JSONB DEFAULT NULL, priority INT DEFAULT 0,
  concurrency_pool TEXT DEFAULT NULL,
  manual_timeout INTERVAL DEFAULT NULL, track_yielded BOOL DEFAULT NULL)
RETURNS async.task_push_t LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN ROW(task_data, target, priority, _query, concurrency_pool, manual_timeout, track_yielded)::async.task_push_t;
COMMENT ON FUNCTION async.task IS
  'A task for async.push_tasks. _query: any SQL (CALL too; null for external targets); target null: this database; '
  'task_data: what you like, kept with the task; priority: the lower the sooner; concurrency_pool null: the target''s '
  'own; manual_timeout: from the first start on; track_yielded: whether it holds its place in the pool while yielded.';

-- A role that cannot log in cannot have a worker of its own before PostgreSQL 17.
CREATE FUNCTION async.require_runnable_role(_role NAME) RETURNS VOID
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _can_login BOOL;
BEGIN
  SELECT r.rolcanlogin INTO _can_login FROM pg_roles r WHERE r.rolname = _role;
  IF NOT FOUND THEN
    RAISE undefined_object USING MESSAGE = format('role "%s" does not exist', _role);
  ELSIF NOT _can_login AND current_setting('server_version_num')::INT < 170000 THEN
    RAISE object_not_in_prerequisite_state USING
      MESSAGE = format('role "%s" cannot run tasks: it may not log in', _role),
      DETAIL = 'A task runs in a worker that is connected as its role.',
      HINT = format('ALTER ROLE %I LOGIN; a password is not needed.', _role);
  END IF;
END
$$;
COMMENT ON FUNCTION async.require_runnable_role IS
  'Internal: raises unless tasks can run in this database as the role: undefined_object, object_not_in_prerequisite_state.';

CREATE FUNCTION async.targets_of(
  _tasks async.task_push_t[], OUT given TEXT, OUT target TEXT, OUT kind TEXT, OUT asynchronous_finish BOOL,
  OUT concurrency_track_yielded BOOL, OUT needs TEXT)
RETURNS SETOF RECORD LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN QUERY
    SELECT d.given, t.target, t.kind, t.asynchronous_finish, t.concurrency_track_yielded, async.kind_needs(t.kind)
      FROM (SELECT DISTINCT coalesce(p.target, 'local') AS given FROM unnest(_tasks) p) AS d
      JOIN async.target t ON t.target = async.target_name(d.given);
END
$$;
COMMENT ON FUNCTION async.targets_of IS 'Internal: the targets that tasks name, each once; unknown ones are left out.';

CREATE FUNCTION async.push_tasks_as(
  _caller OID, _tasks async.task_push_t[], _run_type async.task_run_type_t, _source TEXT) RETURNS SETOF BIGINT
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _role   CONSTANT NAME := pg_get_userbyid(_caller);
  _runs   CONSTANT BOOL := coalesce(_run_type, 'EXECUTE') IN ('EXECUTE', 'EXECUTE_NOASYNC');
  _now    CONSTANT TIMESTAMPTZ := CASE WHEN NOT _runs THEN clock_timestamp() END;
  _faults TEXT[];
  _local  BOOL;
  _ids    BIGINT[];
BEGIN
  IF async.is_client_as(_caller) THEN
    RETURN QUERY SELECT i FROM async.ask_push_tasks(_tasks, _run_type, _source) AS i;
    RETURN;
  ELSIF _runs THEN
    PERFORM async.require_engine();
  END IF;

  SELECT array_agg(format('task %s: %s', p.n, v.message) ORDER BY p.n) FILTER (WHERE v.message IS NOT NULL),
         bool_or(t.kind = 'local')
    INTO _faults, _local
    FROM unnest(_tasks) WITH ORDINALITY
           AS p(task_data, target, priority, query, concurrency_pool, manual_timeout, track_yielded, n)
    LEFT JOIN async.targets_of(_tasks) t ON t.given = coalesce(p.target, 'local'),
    LATERAL (VALUES
      (CASE WHEN t.target IS NULL THEN format('there is no target "%s"', left(p.target, 80)) END),
      (CASE WHEN _runs AND t.kind <> 'external' AND btrim(coalesce(p.query, ''), E' \t\r\n;') = ''
         THEN CASE WHEN t.needs = 'options' THEN format('target "%s" takes requests: async.push_request', t.target)
                   ELSE format('it has no query, and target "%s" is not external', t.target) END END),
      (CASE WHEN _runs AND btrim(p.query, E' \t\r\n;') <> '' AND t.needs = 'options'
         THEN format('target "%s" runs no query: async.push_request', t.target) END),
      (CASE WHEN p.manual_timeout <= INTERVAL '0' THEN format('manual_timeout is %s', p.manual_timeout) END)) AS v(message);
  IF _faults IS NOT NULL THEN
    RAISE invalid_parameter_value USING
      MESSAGE = format('%s of %s tasks cannot be pushed', cardinality(_faults), cardinality(_tasks)),
      DETAIL = array_to_string(_faults[:10], E'\n')
               || CASE WHEN cardinality(_faults) > 10 THEN format(E'\nand %s more', cardinality(_faults) - 10) ELSE '' END,
      HINT = 'async.configure defines targets; with "kind": "external" clients take the tasks with async.get_tasks.';
  END IF;
  IF _runs AND _local THEN
    PERFORM async.require_runnable_role(_role);
  END IF;

  WITH pushed AS (
    INSERT INTO async.task (
      target, priority, run_as, query, task_data, concurrency_pool, manual_timeout, source, track_yielded,
      asynchronous_finish, consumed, processed, finish_status, failed)
    SELECT t.target, coalesce(p.priority, 0), _role, p.query, p.task_data,
           nullif(nullif(p.concurrency_pool, ''), t.target), p.manual_timeout, _source,
           coalesce(p.track_yielded, t.concurrency_track_yielded),
           t.asynchronous_finish AND coalesce(_run_type, 'EXECUTE') = 'EXECUTE', _now, _now,
           CASE _run_type WHEN 'DOA' THEN 'DOA' WHEN 'EMPTY' THEN 'FINISHED' END::async.finish_status_t,
           CASE _run_type WHEN 'DOA' THEN true WHEN 'EMPTY' THEN false END
      FROM unnest(_tasks) WITH ORDINALITY
             AS p(task_data, target, priority, query, concurrency_pool, manual_timeout, track_yielded, n)
      JOIN async.targets_of(_tasks) t ON t.given = coalesce(p.target, 'local')
     ORDER BY p.n
    RETURNING task_id
  )
  SELECT array_agg(p.task_id ORDER BY p.task_id) INTO _ids FROM pushed p;

  IF _runs AND _ids IS NOT NULL THEN
    PERFORM async.announce_tasks(_ids[1], _ids[cardinality(_ids)], NULL, NULL);
  END IF;
  RETURN QUERY SELECT i FROM unnest(_ids) WITH ORDINALITY AS x(i, n) ORDER BY n;
END
$$;
COMMENT ON FUNCTION async.push_tasks_as IS 'Internal: async.push_tasks with the caller''s role.';

CREATE FUNCTION async.push_tasks(
  _tasks async.task_push_t[], _run_type async.task_run_type_t DEFAULT 'EXECUTE', _source TEXT DEFAULT NULL)
RETURNS SETOF BIGINT LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'as_owner';
COMMENT ON FUNCTION async.push_tasks IS
  'Pushes tasks (see async.task) and returns their ids in the same order; they start when the transaction commits, as '
  'the role that pushed them. _run_type: EXECUTE; EXECUTE_NOASYNC: finished when the query returns, whatever the target '
  'says; EMPTY, DOA: not run, ended at once as finished or failed. Raises invalid_parameter_value with every fault.';

CREATE FUNCTION async.push_task(
  _task async.task_push_t, _run_type async.task_run_type_t DEFAULT 'EXECUTE', _source TEXT DEFAULT 'manual push')
RETURNS BIGINT LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN (SELECT async.push_tasks(ARRAY[_task], _run_type, _source));
END
$$;
COMMENT ON FUNCTION async.push_task IS 'Pushes one task and returns its id: async.push_tasks.';

-- Log lines of sessions; a worker numbers its own from 1, so that the two never collide.
CREATE FUNCTION async.note_tasks(_task_ids BIGINT[], _level TEXT, _message TEXT) RETURNS VOID
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
  INSERT INTO async.task_log (task_id, attempt, seq, level, message)
  SELECT t.task_id, t.attempt, 1000000 + coalesce((
           SELECT max(l.seq) - 999999 FROM async.task_log l
            WHERE l.task_id = t.task_id AND l.attempt = t.attempt AND l.seq >= 1000000), 0), _level, _message
    FROM async.task t WHERE t.task_id = ANY (_task_ids)
  ON CONFLICT DO NOTHING;
$$;
COMMENT ON FUNCTION async.note_tasks IS
  'Internal: a log line for each task, under its last attempt; seq from 1000000 on, below that are the workers'' own.';

CREATE FUNCTION async.announce_ranges(_task_ids BIGINT[]) RETURNS VOID
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
  SELECT async.announce_tasks(min(i.id), max(i.id), NULL, NULL)
    FROM (SELECT x.id, x.id - row_number() OVER (ORDER BY x.id) AS island
            FROM (SELECT DISTINCT id FROM unnest(_task_ids) AS u(id)) AS x) AS i
   GROUP BY i.island;
$$;
COMMENT ON FUNCTION async.announce_ranges IS 'Internal: async.announce_tasks for ids that need not follow each other.';

-- Locks the tasks in their order and raises unless all exist and _caller may act for each.
CREATE FUNCTION async.lock_tasks(
  _caller OID, _task_ids BIGINT[], OUT task_id BIGINT, OUT is_open BOOL, OUT held BOOL, OUT parked BOOL)
RETURNS SETOF RECORD LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _bad BIGINT[];
BEGIN
  SELECT array_agg(i.id ORDER BY i.id) INTO _bad
    FROM (SELECT DISTINCT u.id FROM unnest(_task_ids) AS u(id)) AS i
   WHERE NOT EXISTS (SELECT FROM async.task t WHERE t.task_id = i.id);
  IF _bad IS NOT NULL THEN
    RAISE undefined_object USING
      MESSAGE = CASE WHEN cardinality(_bad) = 1 THEN format('task %s does not exist', coalesce(_bad[1]::TEXT, 'null'))
                     ELSE format('%s tasks do not exist', cardinality(_bad)) END,
      DETAIL = format('Unknown: %s%s.', array_to_string(_bad[:10], ', ', 'null'),
                      CASE WHEN cardinality(_bad) > 10 THEN ', …' END),
      HINT = 'Nothing was changed.';
  END IF;

  WITH refused AS MATERIALIZED (
    SELECT r.run_as
      FROM (SELECT DISTINCT t.run_as FROM async.task t WHERE t.task_id = ANY (_task_ids)) AS r
     WHERE NOT async.may_act(_caller, r.run_as)
  )
  SELECT array_agg(t.task_id ORDER BY t.task_id) INTO _bad
    FROM async.task t JOIN refused r ON r.run_as = t.run_as WHERE t.task_id = ANY (_task_ids);
  IF _bad IS NOT NULL THEN
    RAISE insufficient_privilege USING
      MESSAGE = format('permission denied for task %s', _bad[1]),
      HINT = 'This needs the rights of the role that the task runs as, or membership in flow_admin.';
  END IF;

  RETURN QUERY
    SELECT t.task_id, t.processed IS NULL, t.eligible_when = 'infinity' AND t.processed IS NULL, t.yielded IS NOT NULL
      FROM async.task t WHERE t.task_id = ANY (_task_ids) ORDER BY t.task_id FOR NO KEY UPDATE;
END
$$;
COMMENT ON FUNCTION async.lock_tasks IS
  'Internal: locks tasks by task_id; says which are open, held (wait for their node) and parked (yielded or leased). '
  'Raises undefined_object or insufficient_privilege.';

CREATE FUNCTION async.warn_of_ended(_task_ids BIGINT[]) RETURNS VOID
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF cardinality(_task_ids) > 0 THEN
    RAISE WARNING '%', CASE WHEN cardinality(_task_ids) = 1 THEN format('task %s has ended already', _task_ids[1])
                            ELSE format('%s tasks have ended already: %s%s', cardinality(_task_ids),
                                        array_to_string(_task_ids[:10], ', '),
                                        CASE WHEN cardinality(_task_ids) > 10 THEN ', …' END) END;
  END IF;
END
$$;
COMMENT ON FUNCTION async.warn_of_ended IS 'Internal: the warning that ending these tasks again did nothing.';

-- The task of the callback that calls this, if it is among _task_ids: its outcome is noted, not written, because the
-- worker writes it with the callback's last transaction.
CREATE FUNCTION async.own_task(_task_ids BIGINT[]) RETURNS BIGINT
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT i FROM unnest(_task_ids) AS i WHERE async.is_own_task(i) LIMIT 1;
$$;
COMMENT ON FUNCTION async.own_task IS 'Internal: which of the tasks the caller is the worker of, or null.';

-- Which of the tasks are being run by another server right now: their call has not returned. A yielded task's has.
CREATE FUNCTION async.running_elsewhere(_task_ids BIGINT[], OUT task_id BIGINT, OUT attempt INT) RETURNS SETOF RECORD
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN QUERY
    SELECT r.task_id, max(r.attempt)
      FROM async.running() r
      JOIN async.task t ON t.task_id = r.task_id AND t.processed IS NULL AND t.yielded IS NULL
      JOIN async.target k ON k.target = t.target AND k.kind NOT IN ('local', 'external')
     WHERE r.task_id = ANY (_task_ids) GROUP BY r.task_id;
END
$$;
COMMENT ON FUNCTION async.running_elsewhere IS
  'Internal: those of the tasks that another server is running right now, with the attempt.';

-- A callback elsewhere says in a session of its own what becomes of its task: noted, and counts when its call returns, so
-- that the task fails if the callback raises after all. The last word holds. The tasks are locked, so that none of these
-- attempts can end meanwhile.
CREATE FUNCTION async.decide_elsewhere(
  _task_ids BIGINT[], _status async.finish_status_t, _message TEXT, _delay INTERVAL) RETURNS BIGINT[]
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
  WITH decided AS (
    INSERT INTO async.decision (task_id, attempt, status, message, delay)
    SELECT r.task_id, r.attempt, _status, _message, _delay FROM async.running_elsewhere(_task_ids) r ORDER BY r.task_id
    ON CONFLICT (task_id) DO UPDATE
      SET attempt = EXCLUDED.attempt, status = EXCLUDED.status, message = EXCLUDED.message, delay = EXCLUDED.delay
    RETURNING task_id
  )
  SELECT coalesce(array_agg(d.task_id), '{}') FROM decided d;
$$;
COMMENT ON FUNCTION async.decide_elsewhere IS
  'Internal: notes what is to become of those of the tasks that run on another server, when their calls return; returns them.';

CREATE FUNCTION async.end_tasks_for(
  _caller OID, _task_ids BIGINT[], _status async.finish_status_t, _error_message TEXT) RETURNS VOID
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _own   CONSTANT BIGINT := async.own_task(_task_ids);
  _away  BIGINT[];
  _open  BIGINT[];
  _ended BIGINT[];
BEGIN
  IF _own IS NOT NULL THEN
    PERFORM async.decide_own(_own, CASE _status WHEN 'FINISHED' THEN 'FINISHED' ELSE 'FAILED' END, _error_message, NULL);
  END IF;
  SELECT array_agg(l.task_id ORDER BY l.task_id) FILTER (WHERE l.is_open),
         array_agg(l.task_id ORDER BY l.task_id) FILTER (WHERE NOT l.is_open)
    INTO _open, _ended
    FROM async.lock_tasks(_caller, array_remove(_task_ids, _own)) l;
  PERFORM async.warn_of_ended(_ended);
  IF _status IN ('FINISHED', 'FAILED') AND _open IS NOT NULL THEN
    _away := async.decide_elsewhere(_open, _status, _error_message, NULL);
    _open := (SELECT array_agg(o) FROM unnest(_open) AS o WHERE o <> ALL (_away));
  END IF;
  IF _open IS NULL THEN
    RETURN;
  END IF;

  UPDATE async.task t SET
    processed        = clock_timestamp(),
    finish_status    = _status,
    failed           = _status <> 'FINISHED',
    processing_error = _error_message,
    consumed         = coalesce(r.started, t.consumed),
    first_consumed   = coalesce(t.first_consumed, r.started),
    attempt          = t.attempt + (t.yielded IS NULL)::INT  -- so that an attempt that runs right now cannot end it again
  FROM unnest(_open) AS i(id)
  LEFT JOIN (SELECT x.task_id, min(x.started) AS started FROM async.running() x GROUP BY x.task_id) AS r ON r.task_id = i.id
  WHERE t.task_id = i.id AND t.processed IS NULL;
  DELETE FROM async.external_queue q USING async.task t
   WHERE t.task_id = ANY (_open) AND q.target = t.target AND q.task_id = t.task_id;
  DELETE FROM async.task_secret s WHERE s.task_id = ANY (_open);
  PERFORM async.announce_ended(_open);
END
$$;
COMMENT ON FUNCTION async.end_tasks_for IS
  'Internal: ends open tasks for _caller (FINISHED, FAILED, CANCELED, TIMED_OUT, DOA); those that have ended: a warning. '
  'The caller''s own running task: its outcome is noted for the worker.';

CREATE FUNCTION async.cancel_as(_caller OID, _task_ids BIGINT[], _error_message TEXT) RETURNS VOID
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF async.is_client_as(_caller) THEN
    PERFORM async.ask_cancel_tasks(_task_ids, _error_message);
    RETURN;
  END IF;
  PERFORM async.end_tasks_for(_caller, _task_ids, 'CANCELED', coalesce(_error_message, 'manual cancel'));
END
$$;
COMMENT ON FUNCTION async.cancel_as IS 'Internal: async.cancel with the caller''s role.';

CREATE FUNCTION async.cancel(_task_ids BIGINT[], _error_message TEXT DEFAULT NULL) RETURNS VOID
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'as_owner';
COMMENT ON FUNCTION async.cancel IS
  'Cancels open tasks: CANCELED, with _error_message (default: manual cancel). A statement that runs is stopped at once, '
  'when the transaction commits. A task that has ended: a warning. Raises undefined_object for an unknown id.';

CREATE FUNCTION async.defer_as(_caller OID, _task_ids BIGINT[], _duration INTERVAL) RETURNS VOID
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _own   CONSTANT BIGINT := async.own_task(_task_ids);
  _delay CONSTANT INTERVAL := coalesce(_duration, INTERVAL '0');
  _away  BIGINT[];
  _open  BIGINT[];
  _ended BIGINT[];
  _held  BIGINT;
  _runs  BIGINT;
BEGIN
  IF async.is_client_as(_caller) THEN
    PERFORM async.ask_defer_tasks(_task_ids, _duration);
    RETURN;
  ELSIF _delay < INTERVAL '0' THEN
    RAISE invalid_parameter_value USING MESSAGE = format('a task cannot be put off by %s', _delay);
  END IF;
  IF _own IS NOT NULL THEN
    PERFORM async.decide_own(_own, 'DEFERRED', NULL, _delay);
  END IF;
  SELECT array_agg(l.task_id ORDER BY l.task_id) FILTER (WHERE l.is_open),
         array_agg(l.task_id ORDER BY l.task_id) FILTER (WHERE NOT l.is_open),
         min(l.task_id) FILTER (WHERE l.held)
    INTO _open, _ended, _held
    FROM async.lock_tasks(_caller, array_remove(_task_ids, _own)) l;
  IF _open IS NOT NULL THEN
    _away := async.decide_elsewhere(_open, 'DEFERRED', NULL, _delay);
    _open := (SELECT array_agg(o) FROM unnest(_open) AS o WHERE o <> ALL (_away));
    SELECT min(x.task_id) INTO _runs FROM async.running() x WHERE x.task_id = ANY (_open);
  END IF;
  IF _runs IS NOT NULL THEN
    RAISE object_not_in_prerequisite_state USING
      MESSAGE = format('task %s is running: only its own callback can put it off', _runs),
      HINT = 'flow.defer or async.defer inside the callback, or async.cancel from outside.';
  ELSIF _held IS NOT NULL THEN
    RAISE object_not_in_prerequisite_state USING
      MESSAGE = format('task %s waits for its node to start and cannot be put off', _held);
  END IF;
  PERFORM async.warn_of_ended(_ended);
  IF _open IS NULL THEN
    RETURN;
  END IF;

  UPDATE async.task t SET  -- its attempt was counted when it yielded or was leased
    eligible_when = clock_timestamp() + _delay,
    yielded       = NULL,
    consumed      = NULL,
    times_up      = NULL
  WHERE t.task_id = ANY (_open) AND t.processed IS NULL;
  DELETE FROM async.external_queue q USING async.task t
   WHERE t.task_id = ANY (_open) AND q.target = t.target AND q.task_id = t.task_id;
  PERFORM async.note_tasks(_open, 'STATUS', format('put off by %s, by role "%s"', _delay, pg_get_userbyid(_caller)));
  PERFORM async.announce_ended(_open);
  PERFORM async.announce_ranges(_open);
END
$$;
COMMENT ON FUNCTION async.defer_as IS 'Internal: async.defer with the caller''s role.';

CREATE FUNCTION async.defer(_task_ids BIGINT[], _duration INTERVAL) RETURNS VOID
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'as_owner';
COMMENT ON FUNCTION async.defer IS
  'Puts open tasks off: they wait again and start after _duration at the earliest. Inside a callback: its own task, once '
  'the callback has returned and committed; so for a task that another server runs. A task that another session runs here '
  'cannot be put off: object_not_in_prerequisite_state. The clock of a time-out goes on from the first start.';

CREATE FUNCTION async.yield_tasks(_caller OID, _task_ids BIGINT[]) RETURNS VOID
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _open  BIGINT[];
  _ended BIGINT[];
  _runs  BIGINT;
  _held  BIGINT;
BEGIN
  SELECT array_agg(l.task_id ORDER BY l.task_id) FILTER (WHERE l.is_open AND NOT l.parked),
         array_agg(l.task_id ORDER BY l.task_id) FILTER (WHERE NOT l.is_open),
         min(l.task_id) FILTER (WHERE l.is_open AND r.task_id IS NOT NULL),
         min(l.task_id) FILTER (WHERE l.held)
    INTO _open, _ended, _runs, _held
    FROM async.lock_tasks(_caller, _task_ids) l
    LEFT JOIN (SELECT DISTINCT x.task_id FROM async.running() x) AS r ON r.task_id = l.task_id;
  IF _runs IS NOT NULL OR _held IS NOT NULL THEN
    RAISE object_not_in_prerequisite_state USING
      MESSAGE = format(CASE WHEN _runs IS NOT NULL THEN 'task %s is running: it yields when its call returns'
                            ELSE 'task %s waits for its node to start and cannot yield' END, coalesce(_runs, _held)),
      HINT = 'A target with "asynchronous_finish": true makes its tasks yield until async.finish or flow.finish ends them.';
  END IF;
  PERFORM async.warn_of_ended(_ended);
  IF _open IS NULL THEN
    RETURN;
  END IF;
  UPDATE async.task t SET
    yielded        = clock_timestamp(),
    consumed       = coalesce(t.consumed, clock_timestamp()),
    first_consumed = coalesce(t.first_consumed, clock_timestamp()),
    attempt        = t.attempt + 1,
    times_up       = NULL
  WHERE t.task_id = ANY (_open) AND t.processed IS NULL;
  DELETE FROM async.external_queue q USING async.task t
   WHERE t.task_id = ANY (_open) AND q.target = t.target AND q.task_id = t.task_id;
  PERFORM async.announce_ended(_open);
END
$$;
COMMENT ON FUNCTION async.yield_tasks IS 'Internal: marks waiting tasks as yielded: somebody else works on them.';

CREATE FUNCTION async.finish_as(
  _caller OID, _task_ids BIGINT[], _status async.finish_status_t, _error_message TEXT, _duration INTERVAL) RETURNS VOID
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF async.is_client_as(_caller) THEN
    PERFORM async.ask_finish_tasks(_task_ids, _status, _error_message, _duration);
  ELSIF _status IS NULL THEN
    RAISE null_value_not_allowed USING
      MESSAGE = 'the status is null', HINT = 'FINISHED, FAILED, CANCELED, TIMED_OUT, DOA, YIELDED, DEFERRED or PAUSED.';
  ELSIF _status IN ('DEFERRED', 'PAUSED') THEN
    PERFORM async.defer_as(_caller, _task_ids, _duration);
  ELSIF _status = 'YIELDED' THEN
    PERFORM async.yield_tasks(_caller, _task_ids);
  ELSE
    PERFORM async.end_tasks_for(_caller, _task_ids, _status, _error_message);
  END IF;
END
$$;
COMMENT ON FUNCTION async.finish_as IS 'Internal: async.finish with the caller''s role.';

CREATE FUNCTION async.finish(
  _task_ids BIGINT[], _status async.finish_status_t, _error_message TEXT, _duration INTERVAL DEFAULT NULL) RETURNS VOID
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'as_owner';
COMMENT ON FUNCTION async.finish IS
  'Ends open tasks: FINISHED, or FAILED, CANCELED, TIMED_OUT, DOA with _error_message. DEFERRED and PAUSED put them back '
  'to wait (for _duration); YIELDED: somebody works on them and will finish them. A task that has ended: a warning. '
  'Inside a callback, its own task: the outcome follows if the callback commits. A task that another server runs: FINISHED, '
  'FAILED and DEFERRED count when its call has returned without an error, so that its callback can say them; async.cancel '
  'stops it at once. Raises undefined_object for an unknown id, insufficient_privilege for tasks of roles whose rights you '
  'lack.';

-- Every task below engine_state.open_low has ended; whoever opens one again keeps that true, and holds the row's lock
-- until its commit even when nothing changes, so that the mark is not raised over a task that is about to be open.
CREATE FUNCTION async.reopen_from(_task_id BIGINT) RETURNS VOID
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
  UPDATE async.engine_state SET open_low = least(open_low, _task_id);
$$;
COMMENT ON FUNCTION async.reopen_from IS
  'Internal: keeps engine_state.open_low at _task_id or below; for whoever reopens ended tasks, in the same transaction.';

CREATE FUNCTION async.restart_task_as(_caller OID, _task_id BIGINT) RETURNS VOID
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _task RECORD;
BEGIN
  PERFORM async.require_no_client();
  PERFORM async.require_engine();
  PERFORM async.lock_tasks(_caller, ARRAY[_task_id]);
  SELECT t.flow_id, t.processed, t.target, t.run_as, t.query, t.options, k.kind INTO _task
    FROM async.task t LEFT JOIN async.target k ON k.target = t.target WHERE t.task_id = _task_id;
  IF _task.flow_id IS NOT NULL THEN
    RAISE object_not_in_prerequisite_state USING
      MESSAGE = format('task %s belongs to run %s of a flow', _task_id, _task.flow_id),
      HINT = format('SELECT flow.retry_failed(%1$s) runs again what failed, flow.restart_flow(%1$s) everything.', _task.flow_id);
  ELSIF _task.processed IS NULL THEN
    RAISE object_not_in_prerequisite_state USING
      MESSAGE = format('task %s has not ended', _task_id), HINT = 'Cancel it first: async.cancel.';
  ELSIF _task.kind IS NULL THEN
    RAISE undefined_object USING
      MESSAGE = format('target "%s" of task %s does not exist any more', _task.target, _task_id),
      HINT = 'Configure it with async.configure.';
  ELSIF _task.kind <> 'external' AND _task.query IS NULL
        AND NOT (async.kind_needs(_task.kind) = 'options' AND _task.options ? 'request') THEN
    RAISE object_not_in_prerequisite_state USING MESSAGE = format('task %s has no query to run', _task_id);
  ELSIF _task.kind = 'local' THEN
    PERFORM async.require_runnable_role(_task.run_as);
  END IF;

  UPDATE async.task t SET
    processed = NULL, yielded = NULL, consumed = NULL, first_consumed = NULL, finish_status = NULL, failed = NULL,
    processing_error = NULL, eligible_when = NULL, times_up = NULL, crashes = 0, suspect = false,
    partially_committed = false, unsure_since = NULL,
    intention = t.intention + 1  -- whoever receives it elsewhere must not take it for a repetition
  WHERE t.task_id = _task_id;
  PERFORM async.note_tasks(ARRAY[_task_id], 'STATUS', format('started again by role "%s"', pg_get_userbyid(_caller)));
  PERFORM async.reopen_from(_task_id);
  PERFORM async.announce_tasks(_task_id, _task_id, NULL, NULL);
END
$$;
COMMENT ON FUNCTION async.restart_task_as IS 'Internal: async.restart_task with the caller''s role.';

CREATE FUNCTION async.restart_task(_task_id BIGINT) RETURNS VOID
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'as_owner';
COMMENT ON FUNCTION async.restart_task IS
  'Opens a task that has ended and belongs to no flow again: it runs once more under its id, its attempts go on counting. '
  'Raises object_not_in_prerequisite_state for an open task and for tasks of flows.';

-- async/elsewhere_tasks.sql
-- Tasks outside flows that run elsewhere with more than a query: parameters, settings, a tier, a request, a result, secrets.
-- Everything is checked when they are pushed; what they need then is in async.task.options and async.task_secret.

-- The options of a task as its target gets them. A tier that names another target leaves its settings behind, under those of
-- the task itself; the tier goes on only to a target that has one of that name.
CREATE FUNCTION async.resolved_options(_target TEXT, _options JSONB) RETURNS JSONB
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _there CONSTANT TEXT := async.tier_target(_target, _options->>'tier');
  _tier  JSONB;
BEGIN
  IF _options->>'tier' IS NULL OR _there IS NULL OR _there = async.target_name(_target) THEN
    RETURN _options;
  END IF;
  SELECT t.options->'tiers'->(_options->>'tier')->'settings' INTO _tier
    FROM async.target t WHERE t.target = async.target_name(_target);
  IF jsonb_typeof(_tier) = 'object' AND _tier <> '{}' THEN
    _options := _options || jsonb_build_object('settings', _tier || coalesce(_options->'settings', '{}'));
  END IF;
  RETURN CASE WHEN _options->>'tier' = ANY (async.target_tiers(_there)) THEN _options ELSE _options - 'tier' END;
END
$$;
COMMENT ON FUNCTION async.resolved_options IS
  'Internal: the options of a task of a configured target as the target gets them that its tier leads to.';

-- Secrets are bound like parameters: plain values by name, 64 kB at most. A fault never repeats one.
CREATE FUNCTION async.secrets_fault(_secrets JSONB) RETURNS TEXT
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT CASE
    WHEN _secrets IS NULL THEN NULL
    WHEN jsonb_typeof(_secrets) <> 'object' THEN 'secrets must be an object: name → value'
    WHEN octet_length(_secrets::TEXT) > 65536 THEN 'secrets are more than 64 kB'
    WHEN EXISTS (SELECT FROM jsonb_each(CASE jsonb_typeof(_secrets) WHEN 'object' THEN _secrets ELSE '{}' END) s
                  WHERE jsonb_typeof(s.value) NOT IN ('string', 'number', 'boolean') OR s.key !~ '^[A-Za-z_][A-Za-z_0-9]{0,62}$')
      THEN 'secrets must be plain values (texts, numbers, true or false) under names of letters, digits and underscores' END;
$$;
COMMENT ON FUNCTION async.secrets_fault IS 'Internal: what is wrong with the secrets of a task, without repeating any; null: nothing.';

-- _given: the options as given, nulls among them. _secrets are stored apart, where nobody can read them.
CREATE FUNCTION async.push_with_options(
  _caller OID, _what TEXT, _target TEXT, _query TEXT, _given JSONB, _secrets JSONB, _priority INT, _timeout INTERVAL,
  _task_data JSONB) RETURNS BIGINT
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _name    CONSTANT TEXT := async.target_name(_target);
  _options JSONB := (SELECT coalesce(jsonb_object_agg(o.key, o.value), '{}') FROM jsonb_each(_given) o
                      WHERE o.value <> 'null' AND (o.key, o.value) <> ('tier', '""'));
  _found   async.target;
  _faults  TEXT[];
  _id      BIGINT;
BEGIN
  PERFORM async.require_no_client();
  PERFORM async.require_engine();
  SELECT * INTO _found FROM async.target t WHERE t.target = _name;
  IF NOT FOUND OR _target IS NULL THEN
    RAISE undefined_object USING
      MESSAGE = format('there is no target "%s"', left(_target, 80)), HINT = 'async.v_target lists the targets.';
  ELSIF _options ? 'tier' AND _found.kind NOT IN ('local', 'external')
        AND _options->>'tier' <> ALL (async.target_tiers(_name)) THEN
    RAISE invalid_parameter_value USING
      MESSAGE = format('target "%s" has no tier "%s"', _name, left(_options->>'tier', 80)),
      HINT = 'async.v_target shows the "tiers" among its options.';
  END IF;
  _options := async.resolved_options(_name, _options);
  SELECT * INTO _found FROM async.target t WHERE t.target = async.tier_target(_name, _given->>'tier');
  IF (async.kind_needs(_found.kind) = 'options') IS DISTINCT FROM (_what = 'request') THEN
    RAISE wrong_object_type USING
      MESSAGE = format('target "%s" takes no %s', _found.target, _what),
      DETAIL = format('Its kind is "%s".', _found.kind),
      HINT = CASE WHEN _found.kind = 'external' THEN 'Push with async.push_task; clients take its tasks with async.get_tasks.'
                  WHEN _what = 'request' THEN 'async.push_query pushes queries.' ELSE 'async.push_request pushes requests.' END;
  END IF;

  SELECT array_agg(v.message) INTO _faults
    FROM (SELECT format('%s: %s', ltrim(f.path, '.'), f.message) AS message FROM async.options_faults(_found.kind, _options) f
          UNION ALL SELECT async.secrets_fault(nullif(_secrets, 'null'))
          UNION ALL SELECT 'secrets: tasks of this database have none' WHERE _found.kind = 'local' AND nullif(_secrets, 'null') <> '{}'
          UNION ALL SELECT 'the query is empty' WHERE _what = 'query' AND btrim(coalesce(_query, ''), E' \t\r\n;') = ''
          UNION ALL SELECT format('the time-out is %s', _timeout) WHERE _timeout <= INTERVAL '0') AS v
   WHERE v.message IS NOT NULL;
  IF _faults IS NOT NULL THEN
    RAISE invalid_parameter_value USING
      MESSAGE = format('the %s cannot be pushed', _what), DETAIL = array_to_string(_faults[:20], E'\n');
  END IF;
  IF _found.kind = 'local' THEN
    PERFORM async.require_runnable_role(pg_get_userbyid(_caller));
  END IF;

  INSERT INTO async.task (
    target, priority, run_as, query, task_data, manual_timeout, source, track_yielded, asynchronous_finish, options)
  VALUES (
    _found.target, coalesce(_priority, 0), pg_get_userbyid(_caller), _query, _task_data, _timeout, 'push_' || _what,
    _found.concurrency_track_yielded, _found.asynchronous_finish, nullif(_options, '{}'))
  RETURNING task_id INTO _id;
  INSERT INTO async.task_secret (task_id, secrets) SELECT _id, _secrets WHERE nullif(_secrets, 'null') <> '{}';
  PERFORM async.announce_tasks(_id, _id, NULL, NULL);
  RETURN _id;
END
$$;
COMMENT ON FUNCTION async.push_with_options IS
  'Internal: pushes a task with options for _caller; _what: query or request. Raises undefined_object, wrong_object_type, '
  'invalid_parameter_value with every fault.';

CREATE FUNCTION async.push_query_as(
  _caller OID, _target TEXT, _query TEXT, _parameters JSONB, _settings JSONB, _tier TEXT, _result JSONB, _secrets JSONB,
  _priority INT, _timeout INTERVAL, _task_data JSONB) RETURNS BIGINT
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
  SELECT async.push_with_options(
    _caller, 'query', coalesce(_target, 'local'), _query,
    jsonb_build_object('parameters', _parameters, 'settings', _settings, 'tier', _tier, 'result', _result),
    _secrets, _priority, _timeout, _task_data);
$$;
COMMENT ON FUNCTION async.push_query_as IS 'Internal: async.push_query with the caller''s role.';

CREATE FUNCTION async.push_query(
  _target TEXT, _query TEXT, _parameters JSONB DEFAULT NULL, _settings JSONB DEFAULT NULL, _tier TEXT DEFAULT NULL,
  _result JSONB DEFAULT NULL, _secrets JSONB DEFAULT NULL, _priority INT DEFAULT 0, _timeout INTERVAL DEFAULT NULL,
  _task_data JSONB DEFAULT NULL) RETURNS BIGINT
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'as_owner';
COMMENT ON FUNCTION async.push_query IS
  'Pushes a query to a target (null: this database) and returns the task''s id. _parameters: values of its {name:Type}, '
  'else taken from _task_data by name; _settings: of the other side; _tier: a set of settings, or another target, that '
  'the target names; _result: "inline", or an object that says where the rows go; _secrets: values like _parameters that '
  'nobody sees and that are deleted when the task ends (so it cannot be restarted with them), 64 kB at most; _priority, '
  '_timeout, _task_data as async.task. Raises undefined_object, wrong_object_type, invalid_parameter_value.';

CREATE FUNCTION async.push_request_as(
  _caller OID, _target TEXT, _request JSONB, _result JSONB, _secrets JSONB, _task_data JSONB, _priority INT,
  _timeout INTERVAL) RETURNS BIGINT
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
  SELECT async.push_with_options(
    _caller, 'request', _target, NULL, jsonb_build_object('request', _request, 'result', _result),
    _secrets, _priority, _timeout, _task_data);
$$;
COMMENT ON FUNCTION async.push_request_as IS 'Internal: async.push_request with the caller''s role.';

CREATE FUNCTION async.push_request(
  _target TEXT, _request JSONB, _result JSONB DEFAULT NULL, _secrets JSONB DEFAULT NULL, _task_data JSONB DEFAULT NULL,
  _priority INT DEFAULT 0, _timeout INTERVAL DEFAULT NULL) RETURNS BIGINT
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'as_owner';
COMMENT ON FUNCTION async.push_request IS
  'Pushes a request to an HTTP target and returns the task''s id. _request: {"method", "path", "query", "headers", "body", '
  '…}; {names} and "$names" in it are taken from _secrets, else from _task_data. The rest as async.push_query.';

-- async/callback_tokens.sql
-- Ending a task by a token that its own call was given: for systems elsewhere that go on by themselves after an HTTP
-- request and have no rights on the task but this one. Only a digest of the token is kept.

CREATE TABLE async.callback_token (
  task_id BIGINT PRIMARY KEY,
  attempt INT NOT NULL,
  digest  BYTEA NOT NULL UNIQUE
);
COMMENT ON TABLE async.callback_token IS 'Digests of the tokens that end tasks: see async.finish_by_token. Nobody may read it.';
COMMENT ON COLUMN async.callback_token.task_id IS 'The task.';
COMMENT ON COLUMN async.callback_token.attempt IS 'The attempt whose call was given the token.';
COMMENT ON COLUMN async.callback_token.digest IS 'SHA-256 of the token.';

-- Of an attempt that is about to be sent; the token of an earlier one ends with it.
CREATE FUNCTION async.make_callback_token(_task_id BIGINT, _attempt INT) RETURNS TEXT
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  -- 244 random bits.
  _token CONSTANT TEXT := replace(gen_random_uuid()::TEXT || gen_random_uuid()::TEXT, '-', '');
BEGIN
  INSERT INTO async.callback_token (task_id, attempt, digest)
  VALUES (_task_id, _attempt, sha256(convert_to(_token, 'UTF8')))
  ON CONFLICT (task_id) DO UPDATE SET attempt = excluded.attempt, digest = excluded.digest;
  RETURN _token;
END
$$;
COMMENT ON FUNCTION async.make_callback_token IS 'Internal: a new token for an attempt that is about to be sent.';

CREATE FUNCTION async.finish_by_token_as(_caller OID, _token TEXT, _failed BOOL, _error_message TEXT) RETURNS BIGINT
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _task RECORD;
BEGIN
  SELECT t.task_id, t.run_as, t.processed, t.yielded, t.attempt, c.attempt AS called INTO _task
    FROM async.callback_token c JOIN async.task t ON t.task_id = c.task_id
   WHERE c.digest = sha256(convert_to(_token, 'UTF8'));
  IF NOT FOUND THEN
    RAISE invalid_authorization_specification USING
      MESSAGE = 'no task waits for this token',
      DETAIL = 'It may be mistyped, or of a task that was deleted or called again since: each call has a token of its own.';
  ELSIF _task.processed IS NULL AND _task.called NOT IN (_task.attempt, _task.attempt + 1) THEN
    RAISE object_not_in_prerequisite_state USING
      MESSAGE = format('task %s is not in the attempt of this token any more', _task.task_id);
  END IF;
  -- The token stands for the right of the role that the task runs as.
  PERFORM async.end_tasks_for(
    coalesce((SELECT r.oid FROM pg_roles r WHERE r.rolname = _task.run_as), _caller), ARRAY[_task.task_id],
    CASE WHEN _failed THEN 'FAILED' ELSE 'FINISHED' END::async.finish_status_t,
    CASE WHEN _failed THEN coalesce(_error_message, 'failed by its callback') END);
  DELETE FROM async.callback_token c WHERE c.task_id = _task.task_id;
  RETURN _task.task_id;
END
$$;
COMMENT ON FUNCTION async.finish_by_token_as IS 'Internal: async.finish_by_token with the caller''s role.';

CREATE FUNCTION async.finish_by_token(_token TEXT, _failed BOOL DEFAULT false, _error_message TEXT DEFAULT NULL)
RETURNS BIGINT LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'as_owner';
COMMENT ON FUNCTION async.finish_by_token IS
  'Ends the task whose asynchronous HTTP request was given this token (header X-Pgflow-Callback-Token), finished or failed '
  'with _error_message; returns its id. The token is all the right that is needed. Raises '
  'invalid_authorization_specification for a token that no task waits for.';

-- async/external.sql
-- External targets: clients take tasks under a lease, do the work wherever they like, and end them with async.finish or
-- flow.finish. A lease that runs out puts the task back. The dispatcher fills async.external_queue and watches leases.

-- What the client of a flow's task needs: the callback's arguments and the name of its routine.
CREATE FUNCTION async.callback_data(_task_ids BIGINT[], OUT task_id BIGINT, OUT task_data JSONB) RETURNS SETOF RECORD
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN QUERY
    SELECT t.task_id, CASE WHEN t.flow_id IS NULL THEN t.task_data ELSE jsonb_build_object(
             'flow_id', f.flow_id, 'flow', f.flow, 'flow_arguments', f.arguments, 'node', n.node,
             'step_arguments', CASE WHEN t.is_step THEN t.task_data ELSE '{}' END, 'task_id', t.task_id,
             'routine', coalesce(CASE WHEN t.is_step THEN n.step_routine END, n.routine, n.node)) END
      FROM async.task t
      LEFT JOIN flow.flow f ON f.flow_id = t.flow_id
      LEFT JOIN flow.definition_node n ON n.definition_id = f.definition_id AND n.node_no = t.node_no
     WHERE t.task_id = ANY (_task_ids);
END
$$;
COMMENT ON FUNCTION async.callback_data IS
  'Internal: the task_data that a client gets: of a flow''s task its callback arguments and "routine".';

CREATE FUNCTION async.get_tasks_as(_caller OID, _target TEXT, _limit INT, _timeout INTERVAL)
RETURNS TABLE (task_id BIGINT, priority INT, times_up TIMESTAMPTZ, task_data JSONB)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  _now   CONSTANT TIMESTAMPTZ := clock_timestamp();
  _name  CONSTANT TEXT := async.target_name(_target);
  _admin CONSTANT BOOL := pg_has_role(_caller, 'flow_admin', 'USAGE');
  _lease INTERVAL;
  _kind  TEXT;
  _ids   BIGINT[];
BEGIN
  SELECT t.kind, coalesce(_timeout, t.default_timeout, c.default_timeout, INTERVAL '1 hour')
    INTO _kind, _lease FROM async.target t, async.control c WHERE t.target = _name;
  IF _kind IS NULL OR _target IS NULL THEN
    RAISE undefined_object USING
      MESSAGE = format('there is no target "%s"', left(_target, 80)), HINT = 'async.v_target lists the targets.';
  ELSIF _kind <> 'external' THEN
    RAISE wrong_object_type USING
      MESSAGE = format('tasks of target "%s" are not for clients to take', _name),
      DETAIL = format('Its kind is "%s": its tasks are run for you.', _kind),
      HINT = 'Set "kind": "external" for it with async.configure.';
  ELSIF _limit < 0 OR _lease <= INTERVAL '0' THEN
    RAISE invalid_parameter_value USING
      MESSAGE = CASE WHEN _limit < 0 THEN format('_limit is %s', _limit) ELSE format('the lease is %s', _lease) END;
  END IF;

  -- Both rows are skipped when locked, so that this never waits for a session that ends the task.
  WITH taken AS (
    SELECT q.priority, q.task_id
      FROM async.external_queue q
      JOIN async.task t ON t.task_id = q.task_id AND t.processed IS NULL AND t.yielded IS NULL
     WHERE q.target = _name AND (q.eligible_when IS NULL OR q.eligible_when <= _now)
       AND (_admin OR t.run_as IN (SELECT r.rolname FROM pg_roles r WHERE pg_has_role(_caller, r.oid, 'USAGE')))
     ORDER BY q.priority, q.task_id
     LIMIT least(coalesce(_limit, 1), 10000)
       FOR UPDATE OF q SKIP LOCKED FOR NO KEY UPDATE OF t SKIP LOCKED
  ), gone AS (
    DELETE FROM async.external_queue q USING taken k
     WHERE q.target = _name AND q.priority = k.priority AND q.task_id = k.task_id
  ), leased AS (
    UPDATE async.task t SET
      consumed = _now, first_consumed = coalesce(t.first_consumed, _now), yielded = _now, eligible_when = NULL,
      attempt = t.attempt + 1, times_up = least(_now + _lease, coalesce(t.first_consumed, _now) + t.manual_timeout)
    FROM taken k WHERE t.task_id = k.task_id
    RETURNING t.task_id
  )
  SELECT array_agg(l.task_id) INTO _ids FROM leased l;

  IF _ids IS NULL THEN
    RETURN;
  END IF;
  PERFORM async.announce_ended(_ids);
  RETURN QUERY
    SELECT t.task_id, t.priority, t.times_up, d.task_data
      FROM async.task t JOIN async.callback_data(_ids) d ON d.task_id = t.task_id
     WHERE t.task_id = ANY (_ids) ORDER BY t.priority, t.task_id;
END
$$;
COMMENT ON FUNCTION async.get_tasks_as IS 'Internal: async.get_tasks with the caller''s role.';

CREATE FUNCTION async.get_tasks(_target TEXT, _limit INT DEFAULT 1, _timeout INTERVAL DEFAULT NULL)
RETURNS TABLE (task_id BIGINT, priority INT, times_up TIMESTAMPTZ, task_data JSONB)
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'as_owner';
COMMENT ON FUNCTION async.get_tasks IS
  'Takes up to _limit (at most 10000) waiting tasks of an external target, lowest priority number first, for which you have '
  'rights. They are leased until times_up: _timeout, else the target''s or the control''s default_timeout, else an hour, '
  'and not beyond the task''s own time-out; what is not ended by then waits again. Of a flow''s task, task_data holds '
  'flow_id, flow, flow_arguments, node, step_arguments, task_id and routine. max_concurrency does not bound leases: how '
  'much a client works on at once is its own affair. End each with async.finish or flow.finish. Never waits.';

-- For the dispatcher: never waits for a lock; what a session holds is left for the next look.
CREATE FUNCTION async.expire_leases(_task_ids BIGINT[]) RETURNS SETOF BIGINT
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _now   CONSTANT TIMESTAMPTZ := clock_timestamp();
  _over  BIGINT[];
  _ended BIGINT[];
BEGIN
  SELECT array_agg(x.task_id ORDER BY x.task_id), array_agg(x.task_id ORDER BY x.task_id) FILTER (WHERE x.at_end)
    INTO _over, _ended
    FROM (SELECT t.task_id, t.first_consumed + t.manual_timeout <= _now AS at_end
            FROM async.task t
           WHERE t.task_id = ANY (_task_ids) AND t.processed IS NULL AND t.yielded IS NOT NULL AND t.times_up <= _now
             AND EXISTS (SELECT FROM async.target k WHERE k.target = t.target AND k.kind = 'external')
           ORDER BY t.task_id FOR NO KEY UPDATE OF t SKIP LOCKED) AS x;
  IF _over IS NULL THEN
    RETURN;
  END IF;

  UPDATE async.task t SET
    processed = _now, finish_status = 'TIMED_OUT', failed = true,
    processing_error = format('timed out after %s', t.manual_timeout)
  WHERE t.task_id = ANY (_ended);
  UPDATE async.task t SET yielded = NULL, consumed = NULL, times_up = NULL, eligible_when = NULL
  WHERE t.task_id = ANY (_over) AND t.processed IS NULL;
  PERFORM async.note_tasks(_over, 'STATUS', 'the lease ran out');
  RETURN QUERY SELECT i FROM unnest(_over) AS i;
END
$$;
COMMENT ON FUNCTION async.expire_leases IS
  'Internal: for the dispatcher, the leases that are over: their tasks wait again, and those whose own time-out is over are '
  'ended as TIMED_OUT. Returns both kinds, to be looked at. Locked rows are skipped.';

-- async/operations.sql
-- Operating the engine: pause, resume, drain, adopt after a restore, dropping targets and pools. All need flow_admin.

CREATE FUNCTION async.set_paused(_caller OID, _paused BOOL, _what TEXT) RETURNS VOID
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM async.require_admin(_caller, _what);
  UPDATE async.control SET paused = _paused WHERE paused <> _paused;
  PERFORM async.announce_settings();
END
$$;
COMMENT ON FUNCTION async.set_paused IS 'Internal: pauses or resumes the engine for _caller.';

CREATE FUNCTION async.pause_as(_caller OID) RETURNS VOID
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM async.set_paused(_caller, true, 'pause the task engine');
END
$$;
COMMENT ON FUNCTION async.pause_as IS 'Internal: async.pause with the caller''s role.';

CREATE FUNCTION async.pause() RETURNS VOID LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'as_owner';
COMMENT ON FUNCTION async.pause IS
  'Starts no further task in this database once the transaction commits, until async.resume; what runs goes on. Outlives '
  'a restart. Needs flow_admin.';

CREATE FUNCTION async.resume_as(_caller OID) RETURNS VOID
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM async.set_paused(_caller, false, 'resume the task engine');
END
$$;
COMMENT ON FUNCTION async.resume_as IS 'Internal: async.resume with the caller''s role.';

CREATE FUNCTION async.resume() RETURNS VOID LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'as_owner';
COMMENT ON FUNCTION async.resume IS 'Undoes async.pause when the transaction commits. Needs flow_admin.';

CREATE FUNCTION async.drain_as(_caller OID, _timeout INTERVAL) RETURNS BOOL
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _until CONSTANT TIMESTAMPTZ := clock_timestamp() + coalesce(_timeout, interval '1 minute');
BEGIN
  -- First of all: the hold lasts until the transaction ends, even if a savepoint before it is rolled back to.
  PERFORM async.require_admin(_caller, 'drain the task engine');
  -- The pause itself is seen when this transaction commits; until then the engine is held.
  PERFORM async.hold_engine();
  PERFORM async.set_paused(_caller, true, 'drain the task engine');
  LOOP
    -- What workers hold counts, not only what runs this moment: between two tasks nothing does.
    IF NOT EXISTS (SELECT FROM async.processes() p
                   WHERE p.kind = 'worker' AND (p.queued > 0 OR p.task_id IS NOT NULL)
                     AND p.database_oid = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database()))
       AND NOT EXISTS (SELECT FROM async.running()) THEN  -- also what runs elsewhere
      RETURN true;
    ELSIF clock_timestamp() >= _until THEN
      RETURN false;
    END IF;
    PERFORM async.wait_for_change(greatest(1, least(200, extract(epoch FROM _until - clock_timestamp()) * 1000))::int);
  END LOOP;
END
$$;
COMMENT ON FUNCTION async.drain_as IS 'Internal: async.drain with the caller''s role.';

CREATE FUNCTION async.drain(_timeout INTERVAL DEFAULT '1 minute') RETURNS BOOL
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'as_owner';
COMMENT ON FUNCTION async.drain IS
  'Pauses the engine, then waits until no task of this database runs, at most _timeout. True when that is so. The '
  'engine stays paused: upgrade or drop the extension, then async.resume. Needs flow_admin.';

-- Where this database is right now: a copy (a restored dump, a template copy, a clone under pg_upgrade) is somewhere else.
CREATE FUNCTION async.whereabouts(OUT system_identifier BIGINT, OUT database_oid OID) RETURNS RECORD
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT c.system_identifier, d.oid FROM pg_control_system() c, pg_database d WHERE d.datname = current_database();
$$;
COMMENT ON FUNCTION async.whereabouts IS 'Internal: the identity of this database: of its cluster, and its OID there.';

CREATE FUNCTION async.adopted_as(_caller OID) RETURNS BOOL
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT e.system_identifier IS NULL
      OR (e.system_identifier = w.system_identifier AND e.database_oid = w.database_oid)
    FROM async.engine_state e, async.whereabouts() w;
$$;
COMMENT ON FUNCTION async.adopted_as IS 'Internal: async.adopted with the caller''s role.';

CREATE FUNCTION async.adopted() RETURNS BOOL LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'as_owner';
COMMENT ON FUNCTION async.adopted IS
  'Whether this database is where its work last ran. False in a restored dump or another copy: nothing runs there before '
  'async.adopt().';

CREATE FUNCTION async.adopt_as(_caller OID) RETURNS VOID
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM async.require_admin(_caller, 'let the work of this database run here');
  -- A copy is another engine to servers elsewhere: what the original did there is none of its own doing.
  UPDATE async.engine_state e
  SET engine_id = CASE WHEN e.system_identifier IS NULL
                         OR (e.system_identifier = w.system_identifier AND e.database_oid = w.database_oid)
                       THEN e.engine_id ELSE gen_random_uuid() END,
      system_identifier = w.system_identifier, database_oid = w.database_oid, next_low = NULL, next_writers = NULL
    FROM async.whereabouts() w;
  PERFORM async.announce_settings();
END
$$;
COMMENT ON FUNCTION async.adopt_as IS 'Internal: async.adopt with the caller''s role.';

CREATE FUNCTION async.adopt() RETURNS VOID LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'as_owner';
COMMENT ON FUNCTION async.adopt IS
  'Lets the open work of a copied or restored database run here. Before it: async.cancel or flow.cancel what must not run '
  'twice, in the original and in the copy. Needs flow_admin.';

CREATE FUNCTION async.drop_target_as(_caller OID, _target TEXT) RETURNS VOID
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _name CONSTANT TEXT := async.target_name(_target);
  _uses TEXT;
BEGIN
  PERFORM async.require_admin(_caller, 'drop a target');
  PERFORM FROM async.control FOR UPDATE;
  IF _name IS NULL OR _target IS NULL THEN
    RAISE undefined_object USING
      MESSAGE = format('there is no target "%s"', left(_target, 80)), HINT = 'async.v_target lists the targets.';
  ELSIF _name = 'local' THEN
    RAISE invalid_parameter_value USING
      MESSAGE = 'target "local" is this database and cannot be dropped';
  END IF;
  _uses := async.target_uses(_name);
  IF _uses IS NOT NULL THEN
    RAISE object_in_use USING
      MESSAGE = format('target "%s" is in use', _name), DETAIL = format('It is needed by %s.', _uses),
      HINT = 'Wait for them, or cancel them with async.cancel and flow.cancel.';
  END IF;
  DELETE FROM async.target t WHERE t.target = _name;
  PERFORM async.announce_settings();
END
$$;
COMMENT ON FUNCTION async.drop_target_as IS 'Internal: async.drop_target with the caller''s role.';

CREATE FUNCTION async.drop_target(_target TEXT) RETURNS VOID LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'as_owner';
COMMENT ON FUNCTION async.drop_target IS
  'Drops a target; its history stays. Raises object_in_use while open tasks or runs need it. Needs flow_admin.';

CREATE FUNCTION async.drop_pool_as(_caller OID, _concurrency_pool TEXT) RETURNS VOID
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _uses TEXT;
BEGIN
  PERFORM async.require_admin(_caller, 'drop a concurrency pool');
  PERFORM FROM async.control FOR UPDATE;
  IF NOT EXISTS (SELECT FROM async.concurrency_pool p WHERE p.concurrency_pool = _concurrency_pool) THEN
    RAISE undefined_object USING
      MESSAGE = format('there is no configured pool "%s"', left(_concurrency_pool, 80)),
      HINT = 'async.concurrency_pool lists them. The pool of a target goes with its target: async.drop_target.';
  END IF;
  _uses := async.pool_uses(_concurrency_pool);
  IF _uses IS NOT NULL THEN
    RAISE object_in_use USING
      MESSAGE = format('pool "%s" is in use', _concurrency_pool), DETAIL = format('It is needed by %s.', _uses),
      HINT = 'Without it, they would run with the default size of a pool.';
  END IF;
  DELETE FROM async.concurrency_pool p WHERE p.concurrency_pool = _concurrency_pool;
  PERFORM async.announce_settings();
END
$$;
COMMENT ON FUNCTION async.drop_pool_as IS 'Internal: async.drop_pool with the caller''s role.';

CREATE FUNCTION async.drop_pool(_concurrency_pool TEXT) RETURNS VOID LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'as_owner';
COMMENT ON FUNCTION async.drop_pool IS
  'Drops a configured pool: tasks that name it later run in one of the default size. Raises object_in_use while open tasks '
  'need it. Needs flow_admin.';

-- async/views.sql
-- What people look at. Every view is security_invoker: row-level security shows each his own tasks, monitors all.
-- What runs right now is in shared memory; the views join it, so that they are true while a task runs.

CREATE FUNCTION async.interval_pretty(i INTERVAL) RETURNS TEXT
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _s CONSTANT NUMERIC := extract(epoch FROM i);
  _t CONSTANT NUMERIC := CASE WHEN abs(_s) >= 60 THEN round(abs(_s)) ELSE abs(_s) END;
BEGIN
  RETURN CASE WHEN _s < 0 THEN '-' ELSE '' END || CASE
    WHEN _t >= 86400 THEN format('%sd %sh %sm %ss', div(_t, 86400), div(mod(_t, 86400), 3600),
                                 div(mod(_t, 3600), 60), mod(_t, 60))
    WHEN _t >= 3600 THEN format('%sh %sm %ss', div(_t, 3600), div(mod(_t, 3600), 60), mod(_t, 60))
    WHEN _t >= 60 THEN format('%sm %ss', div(_t, 60), mod(_t, 60))
    WHEN _t >= 1 THEN trim_scale(round(_t, 1)) || 's'
    WHEN _t >= 0.01 OR _t = 0 THEN round(_t * 1000) || 'ms'
    ELSE trim_scale(round(_t * 1000, 2)) || 'ms' END;
END
$$;
COMMENT ON FUNCTION async.interval_pretty IS 'A duration for people: "1d 2h 3m 4s", "2m 5s", "3.5s", "350ms".';

-- Finds by bisection, because tasks have no index but their key; ids grow with time.
CREATE FUNCTION async.first_task_since(_since TIMESTAMPTZ) RETURNS BIGINT
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _low  BIGINT := coalesce((SELECT min(t.task_id) FROM async.task t), 1);
  _high BIGINT := coalesce((SELECT max(t.task_id) FROM async.task t), 0) + 1;
  _mid  BIGINT;
  _at   TIMESTAMPTZ;
BEGIN
  WHILE _low < _high LOOP  -- at most 63 times
    _mid := (_low + _high) / 2;
    SELECT t.entered INTO _at FROM async.task t WHERE t.task_id >= _mid ORDER BY t.task_id LIMIT 1;
    IF _at >= _since OR NOT FOUND THEN
      _high := _mid;
    ELSE
      _low := _mid + 1;
    END IF;
  END LOOP;
  RETURN _low;
END
$$;
COMMENT ON FUNCTION async.first_task_since IS
  'About the first task_id that was pushed at _since or later, of those you may read.';

CREATE FUNCTION async.last_message() RETURNS TEXT
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF NOT has_table_privilege('async.server_log', 'SELECT') THEN
    RETURN NULL;
  END IF;
  RETURN (SELECT l.message FROM async.server_log l ORDER BY l.server_log_id DESC LIMIT 1);
END
$$;
COMMENT ON FUNCTION async.last_message IS 'The newest line of async.server_log, or null for who may not read it.';

CREATE VIEW async.v_task WITH (security_invoker = true) AS
SELECT t.task_id,
       CASE WHEN t.processed IS NOT NULL THEN
              CASE t.finish_status WHEN 'FINISHED' THEN 'Finished' WHEN 'CANCELED' THEN 'Cancelled'
                WHEN 'TIMED_OUT' THEN 'Timed Out' WHEN 'DOA' THEN 'Skipped' ELSE 'Failed' END
            WHEN r.task_id IS NOT NULL THEN 'Running'
            WHEN t.yielded IS NOT NULL THEN CASE WHEN k.kind = 'external' THEN 'Leased' ELSE 'Yielded' END
            WHEN t.eligible_when = 'infinity' THEN 'Held'
            WHEN t.eligible_when > now() THEN 'Deferred'
            ELSE 'Pending' END AS state,
       t.target, t.priority, t.run_as, t.query, t.task_data, t.source,
       t.flow_id, t.node_no, t.is_step,
       t.entered, coalesce(r.started, t.consumed) AS consumed, t.first_consumed, t.yielded, t.processed,
       CASE WHEN coalesce(r.started, t.consumed) IS NOT NULL THEN async.interval_pretty(
         coalesce(t.processed, clock_timestamp()) - coalesce(r.started, t.consumed)) END AS run_time,
       t.finish_status, t.failed, t.processing_error, t.eligible_when, t.times_up, t.attempt, t.crashes, t.suspect,
       t.partially_committed, t.asynchronous_finish, t.track_yielded,
       coalesce(nullif(t.concurrency_pool, ''), t.target) AS concurrency_pool, t.manual_timeout,
       r.pid AS worker_pid, r.progress_done, r.progress_total, r.progress_note, r.rows, r.bytes, r.total_rows
  FROM async.task t
  LEFT JOIN async.target k ON k.target = t.target
  LEFT JOIN async.running() r ON r.task_id = t.task_id AND t.processed IS NULL;
COMMENT ON VIEW async.v_task IS
  'Tasks with what runs right now. state: Pending, Held (a step whose node has not started), Deferred (until '
  'eligible_when), Running, Yielded (waits for async.finish), Leased (a client took it), Finished, Failed, Cancelled, '
  'Timed Out, Skipped. consumed: start of the last attempt. progress_*: what the callback says of itself, or rows read and '
  'to read elsewhere; rows, bytes, total_rows: of a query that runs elsewhere, so far.';

CREATE VIEW async.v_task_log WITH (security_invoker = true) AS
SELECT t.task_id, 0 AS attempt, t.entered AS at, 'STATUS' AS level,
       format('pushed by role "%s" for target "%s"', t.run_as, t.target) AS message
  FROM async.task t
UNION ALL
SELECT t.task_id, 1, t.first_consumed, 'STATUS', 'started'
  FROM async.task t WHERE t.first_consumed IS NOT NULL AND t.first_consumed IS DISTINCT FROM t.consumed
UNION ALL
SELECT t.task_id, t.attempt, t.consumed, 'STATUS', 'started'
  FROM async.task t WHERE t.consumed IS NOT NULL AND t.attempt > 0
UNION ALL
SELECT t.task_id, r.attempt, r.started, 'STATUS', format('started in worker %s', r.pid)
  FROM async.running() r JOIN async.task t ON t.task_id = r.task_id AND t.processed IS NULL
UNION ALL
SELECT t.task_id, t.attempt, t.yielded, 'STATUS', 'yielded'
  FROM async.task t WHERE t.yielded IS NOT NULL
UNION ALL
SELECT t.task_id, t.attempt, t.processed, 'STATUS',
       lower(t.finish_status::TEXT) || coalesce(': ' || t.processing_error, '')
  FROM async.task t WHERE t.processed IS NOT NULL
UNION ALL
SELECT l.task_id, l.attempt, l.at, l.level, l.message
  FROM async.task_log l;
COMMENT ON VIEW async.v_task_log IS
  'What happened to a task: pushed, started, yielded, ended, and the lines of async.task_log (messages of the callback; '
  'put off, lease over, started again). Look by task_id, ORDER BY at. Starts of attempts between the first and the last are '
  'not kept.';

CREATE VIEW async.v_target WITH (security_invoker = true) AS
SELECT t.target, t.kind, t.max_concurrency, t.asynchronous_finish, t.default_timeout, t.concurrency_track_yielded,
       coalesce(p.running, 0) AS active_workers, coalesce(p.waiting, 0) AS waiting,
       t.server, t.owner, async.target_options(t.target) AS options
  FROM async.target t
  LEFT JOIN async.pool_use() p ON p.concurrency_pool = t.target
 ORDER BY t.target;
COMMENT ON VIEW async.v_target IS
  'The targets, without their connection strings and without credentials among their options. active_workers, waiting: tasks in the target''s own pool, whoever''s they are.';

CREATE VIEW async.v_store WITH (security_invoker = true) AS
SELECT s.store, s.url, s.server, s.owner, s.keep_for, async.store_options(s.store) AS options
  FROM async.store s
 ORDER BY s.store;
COMMENT ON VIEW async.v_store IS 'The stores, without credentials.';

CREATE VIEW async.v_target_status WITH (security_invoker = true) AS
SELECT k.target,
       count(*) FILTER (WHERE t.entered >= now() - INTERVAL '1 day') AS tasks_entered_24h,
       count(*) FILTER (WHERE t.entered >= now() - INTERVAL '1 hour') AS tasks_entered_1h,
       count(*) FILTER (WHERE t.entered >= now() - INTERVAL '1 minute') AS tasks_entered_1m,
       count(t.task_id) FILTER (WHERE t.processed IS NULL AND t.yielded IS NULL AND r.task_id IS NULL) AS tasks_pending,
       count(t.task_id) FILTER (WHERE t.processed IS NULL AND r.task_id IS NOT NULL) AS tasks_running,
       count(*) FILTER (WHERE t.processed IS NULL AND t.yielded IS NOT NULL AND r.task_id IS NULL) AS tasks_yielded,
       coalesce(p.running, 0) AS concurency_assigned_workers,
       count(*) FILTER (WHERE r.task_id IS NOT NULL AND t.concurrency_pool <> t.target) AS concurrency_external_pool,
       coalesce(p.max_workers, k.max_concurrency) AS concurency_max_workers,
       d.since AS down_since, d.next_try, d.tries AS down_tries, d.error AS down_error
  FROM async.target k
  LEFT JOIN async.task t ON t.target = k.target
   AND t.task_id >= (SELECT least(e.open_low, async.first_task_since(now() - INTERVAL '1 day')) FROM async.engine_state e)
   AND (t.processed IS NULL OR t.entered >= now() - INTERVAL '1 day')
  LEFT JOIN async.running() r ON r.task_id = t.task_id
  LEFT JOIN async.pool_use() p ON p.concurrency_pool = k.target
  LEFT JOIN async.target_down d ON d.target = k.target
 GROUP BY k.target, k.max_concurrency, p.running, p.max_workers, d.target
 ORDER BY k.target;
COMMENT ON VIEW async.v_target_status IS
  'Per target the tasks you may read: entered in the last day, hour, minute; open ones by state; concurrency_external_pool: '
  'running in another pool than the target''s; concurency_* (the original''s spelling): the target''s pool, running and size. '
  'down_*: since when it cannot be reached and why, how often it was tried; null: nothing is known to be wrong with it.';

CREATE VIEW async.v_worker_info WITH (security_invoker = true) AS
SELECT row_number() OVER (ORDER BY p.started, p.pid) AS slot,
       t.target, p.task_id, r.started AS running_since, t.query, t.priority,
       coalesce(nullif(t.concurrency_pool, ''), t.target) AS concurrency_pool,
       p.pid, pg_get_userbyid(p.role_oid) AS role, p.state, p.started, p.tasks_done,
       t.flow_id, r.progress_done, r.progress_total, r.progress_note, p.last_error
  FROM async.processes() p
  LEFT JOIN async.running() r ON r.pid = p.pid
  LEFT JOIN async.task t ON t.task_id = r.task_id
 WHERE p.kind = 'worker'
   AND p.database_oid = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database());
COMMENT ON VIEW async.v_worker_info IS
  'The workers of this database and what each runs, with details for tasks you may read. running_since: start of the task; '
  'started: of the worker. slot: a number for the display, not kept.';

CREATE VIEW async.v_concurrency_pool_info WITH (security_invoker = true) AS
SELECT n.concurrency_pool, coalesce(u.running, 0) AS workers,
       coalesce(u.max_workers, c.max_workers, k.max_concurrency) AS max_workers,
       t.task_id, t.query, t.started AS consumed, coalesce(u.waiting, 0) AS waiting, t.target, t.flow_id
  FROM (SELECT p.concurrency_pool FROM async.concurrency_pool p
        UNION SELECT k.target FROM async.target k
        UNION SELECT u.concurrency_pool FROM async.pool_use() u) AS n
  LEFT JOIN async.pool_use() u ON u.concurrency_pool = n.concurrency_pool
  LEFT JOIN async.concurrency_pool c ON c.concurrency_pool = n.concurrency_pool
  LEFT JOIN async.target k ON k.target = n.concurrency_pool
  LEFT JOIN (SELECT x.task_id, x.query, x.target, x.flow_id, r.started,
                    coalesce(nullif(x.concurrency_pool, ''), f.concurrency_pool, x.target) AS pool
               FROM async.running() r
               JOIN async.task x ON x.task_id = r.task_id
               LEFT JOIN flow.flow_node f
                      ON x.concurrency_pool = '' AND f.flow_id = x.flow_id AND f.node_no = x.node_no) AS t
         ON t.pool = n.concurrency_pool
 ORDER BY lower(n.concurrency_pool), t.task_id;
COMMENT ON VIEW async.v_concurrency_pool_info IS
  'Every pool (configured ones, those of the targets, those in use) with its running (workers) and waiting tasks and its '
  'size; one row for each running task that you may read, or one without.';

CREATE VIEW async.v_server_info WITH (security_invoker = true) AS
WITH here AS (
  SELECT d.oid FROM pg_database d WHERE d.datname = current_database()
), process AS (
  SELECT p.* FROM async.processes() p, here h WHERE p.database_oid = h.oid OR p.kind = 'launcher'
), open_task AS (
  SELECT t.task_id, t.query, t.entered, t.yielded, r.started
    FROM async.task t LEFT JOIN async.running() r ON r.task_id = t.task_id
   WHERE t.processed IS NULL AND t.task_id >= (SELECT e.open_low FROM async.engine_state e)
), longest AS (
  SELECT o.* FROM open_task o WHERE o.started IS NOT NULL ORDER BY o.started LIMIT 1
)
SELECT d.pid AS server_pid, clock_timestamp() - d.started AS uptime, async.last_message() AS last_message,
       CASE WHEN l.kind IS NULL THEN 'not loaded: shared_preload_libraries lacks pgflow'
            WHEN pg_is_in_recovery() THEN 'standby: nothing runs here'
            WHEN current_setting('pgflow.enabled', true) = 'off' THEN 'pgflow.enabled is off: nothing runs'
            WHEN d.pid IS NULL THEN 'not running'
            WHEN NOT a.adopted THEN 'a copy: nothing runs before async.adopt()'
            WHEN c.paused THEN 'paused'
            ELSE coalesce(d.state, 'running') END AS server_status,
       NULL::TEXT AS loop_time, NULL::TEXT AS reap_time, NULL::TEXT AS internal_time, NULL::TEXT AS run_time,
       NULL::TEXT AS routine_time, NULL::TEXT AS since_commit_time,
       w.workers, w.running_workers, w.longest_running_worker,
       p.concurrency_pools, p.idle_pools, p.running_pools, p.full_pools, p.tracked_running_tasks,
       o.unfinished_tasks, o.pending_tasks, o.yielded_tasks, o.running_tasks, o.longest_pending_task_duration,
       g.task_id AS longest_running_task_id, g.query AS longest_running_task_query,
       async.interval_pretty(clock_timestamp() - g.started) AS longest_running_task_duration,
       c.paused, a.adopted, l.pid AS launcher_pid, d.queued AS queued_tasks, d.tasks_done,
       w.starvation
  FROM async.control c
 CROSS JOIN (SELECT async.adopted() AS adopted) AS a
  LEFT JOIN LATERAL (SELECT x.* FROM process x WHERE x.kind = 'dispatcher' ORDER BY x.started DESC LIMIT 1) AS d ON true
  LEFT JOIN LATERAL (SELECT x.* FROM process x WHERE x.kind = 'launcher' LIMIT 1) AS l ON true
 CROSS JOIN (
   SELECT count(*) FILTER (WHERE x.kind = 'worker') AS workers,
          count(*) FILTER (WHERE x.kind = 'worker' AND x.task_id IS NOT NULL) AS running_workers,
          (SELECT async.interval_pretty(max(clock_timestamp() - r.started)) FROM async.running() r) AS longest_running_worker,
          string_agg(DISTINCT x.kind || ': ' || x.last_error, E'\n') FILTER (WHERE x.last_error <> '') AS starvation
     FROM process x) AS w
 CROSS JOIN (
   SELECT count(*) AS concurrency_pools, count(*) FILTER (WHERE u.running = 0) AS idle_pools,
          count(*) FILTER (WHERE u.running > 0 AND u.running < u.max_workers) AS running_pools,
          count(*) FILTER (WHERE u.running >= u.max_workers) AS full_pools,
          coalesce(sum(u.running), 0) AS tracked_running_tasks
     FROM async.pool_use() u) AS p
 CROSS JOIN (
   SELECT count(*) AS unfinished_tasks,
          count(*) FILTER (WHERE x.started IS NULL AND x.yielded IS NULL) AS pending_tasks,
          count(*) FILTER (WHERE x.started IS NULL AND x.yielded IS NOT NULL) AS yielded_tasks,
          count(*) FILTER (WHERE x.started IS NOT NULL) AS running_tasks,
          async.interval_pretty(max(clock_timestamp() - x.entered) FILTER (WHERE x.started IS NULL AND x.yielded IS NULL))
            AS longest_pending_task_duration
     FROM open_task x) AS o
  LEFT JOIN longest g ON true;
COMMENT ON VIEW async.v_server_info IS
  'One row on the engine in this database. server_pid: the dispatcher; server_status in words; adopted: see async.adopt; '
  'starvation: what the processes last complained of, such as max_worker_processes; queued_tasks: held by the dispatcher; '
  '*_tasks counts: of the tasks you may read. The *_time columns of the SQL original are always null: there is no loop.';

-- async/executions.sql
-- Executions: queries that are known by a query_id, of which a role has one in flight at a time, and whose results are
-- found and used again until they are too old. What an execution is, its task says, as long as there is one.

CREATE TABLE async.execution (
  execution_id      BIGINT PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
  task_id           BIGINT UNIQUE,
  query_id          TEXT NOT NULL,
  query_hash        TEXT NOT NULL,
  query             TEXT NOT NULL,
  tier              TEXT NOT NULL DEFAULT '',
  target            TEXT NOT NULL,
  created_at        TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(),
  created_by        NAME NOT NULL,
  quota_key         TEXT,
  collapsed_counter INT NOT NULL DEFAULT 0,
  open              BOOL NOT NULL DEFAULT true,
  status            TEXT CHECK (status IN ('CANCELED', 'FAILED', 'SUCCEEDED', 'EXPIRED')),
  picked_at         TIMESTAMPTZ,
  completed_at      TIMESTAMPTZ,
  result            JSONB,
  error             TEXT,
  expires           TIMESTAMPTZ
);
CREATE UNIQUE INDEX execution_in_flight ON async.execution (created_by, query_id) WHERE open;
CREATE INDEX execution_by_query ON async.execution (query_id, created_by, execution_id);
CREATE INDEX execution_unsettled ON async.execution (execution_id) WHERE open;
CREATE INDEX execution_expires ON async.execution (expires) WHERE expires IS NOT NULL;
COMMENT ON TABLE async.execution IS
  'Queries that async.submit was given. Look through async.v_execution: while its task exists, the task says how far it is.';
COMMENT ON COLUMN async.execution.execution_id IS 'Its id; grows with time.';
COMMENT ON COLUMN async.execution.task_id IS 'The task that runs it.';
COMMENT ON COLUMN async.execution.query_id IS 'What makes two submits the same; by default query_hash, with arguments also of those.';
COMMENT ON COLUMN async.execution.query_hash IS 'SHA-256 of the query''s text, in lower-case hexadecimal digits.';
COMMENT ON COLUMN async.execution.query IS 'The query.';
COMMENT ON COLUMN async.execution.tier IS 'As submitted.';
COMMENT ON COLUMN async.execution.target IS 'Where it runs.';
COMMENT ON COLUMN async.execution.created_at IS 'When it was submitted first.';
COMMENT ON COLUMN async.execution.created_by IS 'The role that submitted it.';
COMMENT ON COLUMN async.execution.quota_key IS 'As submitted: for whom the role acts.';
COMMENT ON COLUMN async.execution.collapsed_counter IS 'Submits that were answered with this execution because it was in flight.';
COMMENT ON COLUMN async.execution.open IS 'In flight, or ended and not looked at since.';
COMMENT ON COLUMN async.execution.status IS 'How it ended, taken over from its task; EXPIRED: over. Null: the task says.';
COMMENT ON COLUMN async.execution.picked_at IS 'Taken over from its task: when its last attempt started.';
COMMENT ON COLUMN async.execution.completed_at IS 'Taken over from its task: when it ended.';
COMMENT ON COLUMN async.execution.result IS 'Taken over when it ended: {meta, rows, duration}.';
COMMENT ON COLUMN async.execution.error IS 'Taken over from its task.';
COMMENT ON COLUMN async.execution.expires IS 'When it becomes EXPIRED; of an EXPIRED one: when its row is deleted.';

-- At most one row. Without it, and where it is null, the built-in values count.
CREATE TABLE async.execution_settings (
  only_row  BOOL PRIMARY KEY DEFAULT true CHECK (only_row),
  canceled  INTERVAL CHECK (canceled > INTERVAL '0'),
  failed    INTERVAL CHECK (failed > INTERVAL '0'),
  succeeded INTERVAL CHECK (succeeded > INTERVAL '0'),
  forgotten INTERVAL CHECK (forgotten > INTERVAL '0'),
  result    JSONB
);
COMMENT ON TABLE async.execution_settings IS 'What async.configure_executions has set.';
COMMENT ON COLUMN async.execution_settings.only_row IS 'Always true: there is one row at most.';
COMMENT ON COLUMN async.execution_settings.canceled IS 'How long after its end a cancelled execution expires; null: 1 hour.';
COMMENT ON COLUMN async.execution_settings.failed IS 'The same for a failed one; null: 168 hours.';
COMMENT ON COLUMN async.execution_settings.succeeded IS 'The same for a succeeded one, with its result; null: 90 days.';
COMMENT ON COLUMN async.execution_settings.forgotten IS 'How long after that its row is deleted; null: 90 days.';
COMMENT ON COLUMN async.execution_settings.result IS 'Where results go if async.submit is not told; null: inline.';

CREATE FUNCTION async.execution_keep(_status TEXT) RETURNS INTERVAL
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT CASE WHEN k.keep > INTERVAL '100 years' THEN INTERVAL '100 years' ELSE k.keep END
    FROM (SELECT CASE _status
      WHEN 'CANCELED' THEN coalesce((SELECT s.canceled FROM async.execution_settings s), INTERVAL '1 hour')
      WHEN 'FAILED' THEN coalesce((SELECT s.failed FROM async.execution_settings s), INTERVAL '168 hours')
      WHEN 'SUCCEEDED' THEN coalesce((SELECT s.succeeded FROM async.execution_settings s), INTERVAL '90 days')
      WHEN 'EXPIRED' THEN coalesce((SELECT s.forgotten FROM async.execution_settings s), INTERVAL '90 days') END) AS k(keep);
$$;
COMMENT ON FUNCTION async.execution_keep IS 'How long executions with this status are kept, from their end (EXPIRED: from then) on.';

CREATE FUNCTION async.configure_executions_as(
  _caller OID, _canceled INTERVAL, _failed INTERVAL, _succeeded INTERVAL, _forgotten INTERVAL, _result JSONB) RETURNS VOID
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM async.require_admin(_caller, 'configure executions');
  IF least(_canceled, _failed, _succeeded, _forgotten) <= INTERVAL '0' THEN
    RAISE invalid_parameter_value USING
      MESSAGE = format('executions cannot be kept for %s', least(_canceled, _failed, _succeeded, _forgotten));
  ELSIF jsonb_typeof(_result) NOT IN ('string', 'object') THEN
    RAISE invalid_parameter_value USING
      MESSAGE = format('_result must be a word or an object, not %s', jsonb_typeof(_result)),
      HINT = 'Such as {"to": "object", "store": "results", "format": "json"}, or "inline".';
  END IF;
  INSERT INTO async.execution_settings AS s (canceled, failed, succeeded, forgotten, result)
  VALUES (_canceled, _failed, _succeeded, _forgotten, _result)
  ON CONFLICT (only_row) DO UPDATE SET
    canceled = coalesce(excluded.canceled, s.canceled), failed = coalesce(excluded.failed, s.failed),
    succeeded = coalesce(excluded.succeeded, s.succeeded), forgotten = coalesce(excluded.forgotten, s.forgotten),
    result = coalesce(excluded.result, s.result);
END
$$;
COMMENT ON FUNCTION async.configure_executions_as IS 'Internal: async.configure_executions with the caller''s role.';

CREATE FUNCTION async.configure_executions(
  _canceled INTERVAL DEFAULT NULL, _failed INTERVAL DEFAULT NULL, _succeeded INTERVAL DEFAULT NULL,
  _forgotten INTERVAL DEFAULT NULL, _result JSONB DEFAULT NULL) RETURNS VOID
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'as_owner';
COMMENT ON FUNCTION async.configure_executions IS
  'How long after their end executions expire (1 hour, 168 hours, 90 days unless set; counts for those that end later), how '
  'long their rows are listed as EXPIRED (90 days), and where results go that async.submit says nothing about ("inline"). '
  'Null leaves a value as it is. Needs flow_admin.';

CREATE FUNCTION async.columns_of(_meta JSONB) RETURNS JSONB
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT CASE jsonb_typeof(_meta) WHEN 'array' THEN (
    SELECT coalesce(jsonb_agg(jsonb_build_object('name', c.value->'name', 'type', c.value->'type') ORDER BY c.n), '[]')
      FROM jsonb_array_elements(_meta) WITH ORDINALITY AS c(value, n)) END;
$$;
COMMENT ON FUNCTION async.columns_of IS 'Internal: the columns of a result, {name, type} each.';

CREATE VIEW async.v_execution WITH (security_invoker = true) AS
SELECT e.execution_id, e.query_id, e.query_hash, e.query, e.tier, e.target, s.status, e.created_at, e.created_by,
       CASE WHEN t.task_id IS NULL THEN e.picked_at ELSE coalesce(r.started, t.consumed) END AS picked_at,
       CASE WHEN t.task_id IS NULL THEN e.completed_at ELSE t.processed END AS completed_at,
       CASE WHEN s.status = 'RUNNING' THEN jsonb_build_object(
         'rows', coalesce(r.rows, 0), 'bytes', coalesce(r.bytes, 0), 'total_rows', coalesce(r.total_rows, 0),
         'elapsed', round(extract(epoch FROM clock_timestamp() - coalesce(r.started, t.consumed)) * 1000)) END AS progress,
       CASE WHEN s.status <> 'SUCCEEDED' THEN NULL
            WHEN t.task_id IS NULL OR x.task_id IS NULL AND e.result IS NOT NULL THEN e.result
            ELSE jsonb_build_object('meta', async.columns_of(x.meta), 'rows', x.rows,
                   'duration', round(extract(epoch FROM t.processed - t.consumed) * 1000)) END AS result,
       CASE WHEN t.task_id IS NULL THEN e.error ELSE t.processing_error END AS error,
       e.collapsed_counter, e.task_id, e.quota_key
  FROM async.execution e
  LEFT JOIN async.task t ON t.task_id = e.task_id
  LEFT JOIN async.running() r ON r.task_id = t.task_id AND t.processed IS NULL
  LEFT JOIN async.result x ON x.task_id = e.task_id AND x.state = 'kept'
 CROSS JOIN LATERAL (
   SELECT CASE WHEN e.status = 'EXPIRED' THEN 'EXPIRED'
               WHEN t.task_id IS NULL THEN coalesce(e.status, 'FAILED')
               WHEN t.processed IS NOT NULL THEN
                 CASE t.finish_status WHEN 'FINISHED' THEN 'SUCCEEDED' WHEN 'CANCELED' THEN 'CANCELED' ELSE 'FAILED' END
               WHEN r.task_id IS NOT NULL OR t.yielded IS NOT NULL THEN 'RUNNING'
               ELSE 'PENDING' END) AS s(status);
COMMENT ON VIEW async.v_execution IS
  'The executions of roles whose rights you have. status: PENDING, RUNNING, CANCELED, FAILED, SUCCEEDED, EXPIRED; progress '
  '{rows, bytes, total_rows, elapsed (ms)} while it runs; result {meta: [{name, type}], rows, duration (ms)} of one that '
  'succeeded: its rows give async.execution_result or async.fetch_result(task_id); quota_key: as submitted.';

-- async/results.sql
-- Results: recording them, reading them, and letting go of them when they are over.
-- A row of async.result answers for its object until the object is deleted, also when its task is long purged. A result
-- that another one has replaced goes on under a negative task_id until then.

CREATE SEQUENCE async.replaced_result_seq INCREMENT -1 MINVALUE -9223372036854775808 MAXVALUE -1 START -1;
COMMENT ON SEQUENCE async.replaced_result_seq IS 'Ids of results whose objects are only kept until they are deleted.';
COMMENT ON COLUMN async.result.task_id IS
  'The task whose last finished attempt it is of; negative: replaced or void, there only until its object is deleted.';
COMMENT ON COLUMN async.result.expires IS
  'When it is over and will be deleted; of one that is being deleted: when that is tried again; null: with its task.';
COMMENT ON COLUMN async.result.state IS
  'kept; deleting: its object is about to be deleted; gone: another task has written over its object.';

CREATE INDEX result_expires ON async.result (expires) WHERE expires IS NOT NULL;
CREATE INDEX result_object ON async.result (store, path) WHERE path IS NOT NULL AND state <> 'gone';
CREATE INDEX result_location ON async.result (location) WHERE path IS NOT NULL AND state <> 'gone';

CREATE VIEW async.v_result WITH (security_invoker = true) AS
SELECT r.task_id, t.flow_id, n.node, r.kept_as AS kind_of_result, r.location, r.format, r.compression, r.rows, r.bytes,
       r.meta, r.created, r.expires
  FROM async.result r
  LEFT JOIN async.task t ON t.task_id = r.task_id
  LEFT JOIN flow.flow_node n ON n.flow_id = t.flow_id AND n.node_no = t.node_no
 WHERE r.task_id > 0 AND r.state = 'kept' AND (r.expires IS NULL OR r.expires > clock_timestamp());
COMMENT ON VIEW async.v_result IS
  'Results that can be read with async.fetch_result. kind_of_result: inline, table, object or export; location: the table, '
  'or the URL of the object; meta: the columns, {name, type, shape} each; rows, bytes: where they are known; expires null: '
  'kept as long as its task.';

-- What an attempt has stored although its outcome does not count. Never the object of a result that does.
CREATE FUNCTION async.discard_result(_task_id BIGINT, _attempt INT, _kept JSONB) RETURNS VOID
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
  INSERT INTO async.result (task_id, attempt, run_as, kept_as, store, path, location, format, compression, expires)
  SELECT nextval('async.replaced_result_seq'), _attempt,
         coalesce((SELECT t.run_as FROM async.task t WHERE t.task_id = _task_id), current_user), _kept->>'kept_as',
         _kept->>'store', _kept->>'path', _kept->>'location', _kept->>'format', _kept->>'compression', clock_timestamp()
   WHERE _kept->>'kept_as' IN ('object', 'export') AND _kept->>'path' IS NOT NULL
     AND NOT EXISTS (SELECT FROM async.result r
                      WHERE r.store = _kept->>'store' AND r.path = _kept->>'path' AND r.state <> 'gone');
$$;
COMMENT ON FUNCTION async.discard_result IS
  'Internal: has an object deleted that an attempt stored whose outcome does not count; see async.record_result for _kept.';

-- Never waits for a client: it is called by the dispatcher too. _pause: how long until it is tried again.
CREATE FUNCTION async.record_result(_task_id BIGINT, _attempt INT, _kept JSONB, _pause INTERVAL DEFAULT '0') RETURNS VOID
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _run_as  NAME;
  _keep    INTERVAL;
  _touched BIGINT[];
  _locked  BIGINT[];
  _now     CONSTANT TIMESTAMPTZ := clock_timestamp();
  -- Longer is as good as for ever, and dates end somewhere.
  _longest CONSTANT INTERVAL := INTERVAL '100 years';
BEGIN
  IF coalesce(_kept->>'kept_as', 'none') = 'none' THEN
    RETURN;
  END IF;
  SELECT t.run_as INTO _run_as FROM async.task t WHERE t.task_id = _task_id;
  _touched := ARRAY(SELECT _task_id UNION SELECT r.task_id FROM async.result r
                     WHERE r.store = _kept->>'store' AND r.path = _kept->>'path' AND r.state <> 'gone');
  _locked := ARRAY(SELECT r.task_id FROM async.result r WHERE r.task_id = ANY (_touched)
                    ORDER BY r.task_id FOR UPDATE SKIP LOCKED);
  IF _run_as IS NULL OR EXISTS (SELECT FROM async.result r WHERE r.task_id = _task_id AND r.attempt > _attempt) THEN
    PERFORM async.discard_result(_task_id, _attempt, _kept);
    RETURN;
  END IF;

  -- Somebody is just dropping one of them: async.expire_results records this one when he has ended.
  IF EXISTS (SELECT FROM async.result r WHERE r.task_id = ANY (_touched) AND r.task_id <> ALL (_locked)) THEN
    INSERT INTO async.result (task_id, attempt, run_as, kept_as, store, path, location, format, compression, expires, later)
    VALUES (nextval('async.replaced_result_seq'), _attempt, _run_as, _kept->>'kept_as', _kept->>'store', _kept->>'path',
            _kept->>'location', _kept->>'format', _kept->>'compression', _now + _pause,
            jsonb_build_object('task_id', _task_id, 'attempt', _attempt, 'kept', _kept));
    RETURN;
  END IF;

  -- The object of an earlier attempt stays accounted for; one that this result was written over is somebody else's no more.
  UPDATE async.result r
     SET task_id = nextval('async.replaced_result_seq'), expires = CASE r.state WHEN 'deleting' THEN r.expires ELSE _now END
   WHERE r.task_id = _task_id AND r.path IS NOT NULL AND r.state <> 'gone'
     AND (r.store, r.path) IS DISTINCT FROM (_kept->>'store', _kept->>'path');
  UPDATE async.result r SET state = 'gone'
   WHERE r.store = _kept->>'store' AND r.path = _kept->>'path' AND r.state <> 'gone' AND r.task_id <> _task_id;

  _keep := coalesce((_kept->>'keep_for')::INTERVAL,
                    (SELECT s.keep_for FROM async.store s WHERE s.store = _kept->>'store'),
                    (SELECT async.execution_keep('SUCCEEDED') FROM async.execution e WHERE e.task_id = _task_id));
  _keep := CASE WHEN _keep > _longest THEN _longest ELSE _keep END;
  INSERT INTO async.result (task_id, attempt, run_as, kept_as, store, path, location, format, compression, rows, bytes, meta,
                            content, created, expires, state)
  VALUES (_task_id, _attempt, _run_as, _kept->>'kept_as', _kept->>'store', _kept->>'path', _kept->>'location',
          _kept->>'format', _kept->>'compression', (_kept->>'rows')::BIGINT, (_kept->>'bytes')::BIGINT,
          nullif(_kept->'meta', 'null'), nullif(_kept->'content', 'null'), _now, _now + _keep, 'kept')
  ON CONFLICT (task_id) DO UPDATE SET
    attempt = excluded.attempt, run_as = excluded.run_as, kept_as = excluded.kept_as, store = excluded.store,
    path = excluded.path, location = excluded.location, format = excluded.format, compression = excluded.compression,
    rows = excluded.rows, bytes = excluded.bytes, meta = excluded.meta, content = excluded.content,
    created = excluded.created, expires = excluded.expires, state = 'kept';
END
$$;
COMMENT ON FUNCTION async.record_result IS
  'Internal: records what a finished attempt has kept, in the transaction that ends the task. _kept: kept_as (inline, table, '
  'object, export), store, path (below the store''s prefix), location (URL or schema.table), format, compression, rows, '
  'bytes, meta (the columns), content (inline: the rows), keep_for. It is over after keep_for, else the store''s keep_for, '
  'else as async.configure_executions says for executions, else with its task. A late attempt''s is discarded. While '
  'somebody has locked what it replaces, it waits in a row of its own.';

CREATE FUNCTION async.caller_may_read(_caller OID, _run_as NAME) RETURNS BOOL
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT async.may_act(_caller, _run_as) OR pg_has_role(_caller, 'flow_monitor', 'USAGE');
$$;
COMMENT ON FUNCTION async.caller_may_read IS 'Internal: whether a role (OID) may read what runs as _run_as.';

-- Whoever writes over an object ends the result that it was of: only with the rights of that result's role. Other stores
-- may lead to the same place.
CREATE FUNCTION async.path_fault(_store TEXT, _path TEXT, _run_as NAME) RETURNS TEXT
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT format('the result of another role is kept at path %s of store %s (a path with {task_id} in it is every task''s own)',
                _path, _store)
   WHERE EXISTS (
     SELECT FROM (SELECT r.run_as FROM async.result r
                   WHERE r.store = _store AND r.path = _path AND r.state = 'kept' AND (r.task_id > 0 OR r.later IS NOT NULL)
                  UNION ALL
                  SELECT r.run_as FROM async.store s
                    JOIN async.result r ON r.location = rtrim(s.url, '/') || '/' || _path
                   WHERE s.store = _store AND r.path IS NOT NULL AND r.state = 'kept'
                     AND (r.task_id > 0 OR r.later IS NOT NULL)) AS o
      WHERE NOT EXISTS (SELECT FROM pg_roles m WHERE m.rolname = _run_as AND async.may_act(m.oid, o.run_as)));
$$;
COMMENT ON FUNCTION async.path_fault IS
  'Internal: why a task of _run_as must not write to this path of a store: a result of a role whose rights it has not is '
  'kept there; null: it may.';

-- Whoever reads a table can be made to execute what its owner has attached to it: a view's functions, a policy's, the
-- cast of a type to JSON. A reader who is not of the role that the result is of reads plain tables only.
CREATE FUNCTION async.table_fault(_table REGCLASS, _run_as NAME) RETURNS TEXT
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT CASE
    WHEN c.relkind NOT IN ('r', 'p') THEN 'It is not a table.'
    WHEN _run_as = current_user
         OR NOT me.rolsuper AND EXISTS (SELECT FROM pg_roles r WHERE r.rolname = _run_as AND pg_has_role(r.oid, 'USAGE'))
      THEN NULL
    WHEN row_security_active(c.oid) THEN 'It has row-level security, and you have not the rights of the role that wrote it.'
    WHEN EXISTS (SELECT FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid JOIN pg_roles o ON o.oid = t.typowner
                  WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND NOT o.rolsuper
                    AND o.rolname <> current_user)
      THEN 'It has columns of a type of another role, and you have not the rights of the role that wrote it.' END
    FROM pg_class c, pg_roles me WHERE c.oid = _table AND me.rolname = current_user;
$$;
COMMENT ON FUNCTION async.table_fault IS
  'Internal: why async.fetch_result does not read a table for you: it could execute another role''s functions with your '
  'rights; null: it does.';

-- What went wrong when a result cannot be given; the same words whether it is asked for by its reader or in Rust.
CREATE FUNCTION async.refuse_result(_task_id BIGINT, _state TEXT, _expires TIMESTAMPTZ) RETURNS VOID
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF _state IS NULL THEN
    RAISE undefined_object USING
      MESSAGE = format('there is no result of task %s', coalesce(_task_id::TEXT, 'null')),
      HINT = 'async.v_result lists the results you may read. A task keeps what its query returns only if "result" says so.';
  ELSIF _state = 'gone' THEN
    RAISE object_not_in_prerequisite_state USING
      MESSAGE = format('the result of task %s is gone: another task has written to the same path', _task_id),
      HINT = 'A path with {task_id} in it is every task''s own.';
  ELSIF _state <> 'kept' OR _expires <= clock_timestamp() THEN
    RAISE object_not_in_prerequisite_state USING
      MESSAGE = format('the result of task %s is over and is being deleted', _task_id);
  END IF;
END
$$;
COMMENT ON FUNCTION async.refuse_result IS 'Internal: raises unless a result in this state can be read.';

-- Whether an object is where its store leads today: a store that was configured anew may lead to somebody else's.
CREATE FUNCTION async.is_below(_location TEXT, _url TEXT) RETURNS BOOL
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT _url IS NOT NULL AND (_location IS NULL OR starts_with(_location, rtrim(_url, '/') || '/'));
$$;
COMMENT ON FUNCTION async.is_below IS 'Internal: whether an object''s URL lies below a store''s.';

-- For Rust: where the object of a result is. Raises unless _caller may read it and it is there.
CREATE FUNCTION async.stored_result_for(
  _caller OID, _task_id BIGINT, OUT store TEXT, OUT path TEXT, OUT format TEXT, OUT compression TEXT)
RETURNS RECORD LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _result async.result;
BEGIN
  SELECT * INTO _result FROM async.result r
   WHERE r.task_id = _task_id AND r.task_id > 0 AND async.caller_may_read(_caller, r.run_as);
  PERFORM async.refuse_result(_task_id, _result.state, _result.expires);
  IF _result.path IS NULL THEN
    RAISE object_not_in_prerequisite_state USING
      MESSAGE = format('the result of task %s is kept as "%s", not in a store', _task_id, _result.kept_as),
      HINT = 'async.fetch_result reads it.';
  ELSIF NOT EXISTS (SELECT FROM async.store s WHERE s.store = _result.store AND async.is_below(_result.location, s.url)) THEN
    RAISE object_not_in_prerequisite_state USING
      MESSAGE = format('the result of task %s is not in store "%s" any more', _task_id, _result.store),
      DETAIL = format('It was stored as %s, and the store leads elsewhere now.', coalesce(_result.location, _result.path)),
      HINT = 'Configure the store with its old "url" (async.configure), or give the new place another name.';
  END IF;
  store := _result.store;
  path := _result.path;
  format := _result.format;
  compression := coalesce(_result.compression, 'none');
END
$$;
COMMENT ON FUNCTION async.stored_result_for IS
  'Internal: where the object of a task''s result is; raises unless _caller may read it and it is there.';

CREATE FUNCTION async.read_stored_as(_caller OID, _task_id BIGINT, _limit INT, _offset BIGINT) RETURNS SETOF JSONB
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'read_stored_as_wrapper';
COMMENT ON FUNCTION async.read_stored_as IS 'Internal: async.read_stored with the caller''s role.';

CREATE FUNCTION async.read_stored(_task_id BIGINT, _limit INT, _offset BIGINT) RETURNS SETOF JSONB
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'as_owner';
COMMENT ON FUNCTION async.read_stored IS 'The rows of a result that is in a store: what async.fetch_result reads it with.';

CREATE FUNCTION async.result_url_as(_caller OID, _task_id BIGINT, _valid INTERVAL) RETURNS TEXT
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'result_url_as_wrapper';
COMMENT ON FUNCTION async.result_url_as IS 'Internal: async.result_url with the caller''s role.';

CREATE FUNCTION async.result_url(_task_id BIGINT, _valid INTERVAL DEFAULT '15 minutes') RETURNS TEXT
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'as_owner';
COMMENT ON FUNCTION async.result_url IS
  'A URL from which anybody can read the object of a result, for _valid (at most 7 days). Null: its store is a directory. '
  'Raises undefined_object for a task without a result that you may read, object_not_in_prerequisite_state for one that is '
  'not in a store.';

CREATE FUNCTION async.fetch_result(_task_id BIGINT, _limit INT DEFAULT NULL, _offset BIGINT DEFAULT 0) RETURNS SETOF JSONB
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _result async.result;  -- read with the caller's rights: row-level security decides
  _table  REGCLASS;
  _fault  TEXT;
BEGIN
  IF _limit < 0 OR _offset < 0 THEN
    RAISE invalid_parameter_value USING
      MESSAGE = format('%s is %s', CASE WHEN _limit < 0 THEN '_limit' ELSE '_offset' END, least(_limit, _offset));
  END IF;
  SELECT * INTO _result FROM async.result r WHERE r.task_id = _task_id AND r.task_id > 0;
  PERFORM async.refuse_result(_task_id, _result.state, _result.expires);
  IF _result.kept_as = 'inline' THEN
    RETURN QUERY
      SELECT e.row FROM jsonb_array_elements(_result.content) WITH ORDINALITY AS e(row, n)
       ORDER BY e.n OFFSET coalesce(_offset, 0) LIMIT _limit;
  ELSIF _result.kept_as = 'table' THEN
    _table := to_regclass(_result.location);
    IF _result.location IS NULL THEN
      RETURN;  -- nothing was returned, and there was no table
    ELSIF _table IS NULL THEN
      RAISE undefined_table USING
        MESSAGE = format('the result of task %s was written to table %s, which does not exist any more', _task_id,
                         _result.location);
    END IF;
    IF NOT has_table_privilege(_table, 'SELECT') THEN
      RAISE insufficient_privilege USING MESSAGE = format('permission denied for table %s', _result.location);
    END IF;
    _fault := async.table_fault(_table, _result.run_as);
    IF _fault IS NULL THEN
      -- It stays what it is until it is read.
      EXECUTE format('LOCK TABLE %s IN ACCESS SHARE MODE', _table);
      _fault := CASE WHEN to_regclass(_result.location) IS DISTINCT FROM _table THEN 'It was just replaced by another one.'
                     ELSE async.table_fault(_table, _result.run_as) END;
    END IF;
    IF _fault IS NOT NULL THEN
      RAISE object_not_in_prerequisite_state USING
        MESSAGE = format('the result of task %s cannot be fetched from %s', _task_id, _result.location),
        DETAIL = _fault, HINT = 'Select from it yourself, if you trust its owner.';
    END IF;
    RETURN QUERY EXECUTE format('SELECT to_jsonb(r.*) FROM %s AS r OFFSET $1 LIMIT $2', _table)
      USING coalesce(_offset, 0), _limit;
  ELSE
    RETURN QUERY SELECT s FROM async.read_stored(_task_id, _limit, coalesce(_offset, 0)) AS s;
  END IF;
END
$$;
COMMENT ON FUNCTION async.fetch_result IS
  'The rows of a task''s result, an object each, from the _offset-th on, at most _limit. From a table: all its rows, with '
  'your rights on the table and in no certain order; not where that could execute functions of a role whose rights you '
  'have not. From a store: read through this session, piece by piece. Raises '
  'undefined_object for a task without a result that you may read, object_not_in_prerequisite_state when it is over.';

CREATE FUNCTION async.drop_result_as(_caller OID, _task_id BIGINT) RETURNS VOID
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _result async.result;
BEGIN
  SELECT * INTO _result FROM async.result r
   WHERE r.task_id = _task_id AND r.task_id > 0 AND async.caller_may_read(_caller, r.run_as) FOR UPDATE;
  IF NOT FOUND THEN
    PERFORM async.refuse_result(_task_id, NULL, NULL);
  ELSIF NOT async.may_act(_caller, _result.run_as) THEN
    RAISE insufficient_privilege USING
      MESSAGE = format('permission denied for the result of task %s', _task_id),
      HINT = 'This needs the rights of the role that the task ran as, or membership in flow_admin.';
  ELSIF _result.path IS NULL OR _result.state = 'gone' THEN
    DELETE FROM async.result r WHERE r.task_id = _task_id;
  ELSIF _result.state = 'kept' THEN
    UPDATE async.result r SET expires = least(r.expires, clock_timestamp()) WHERE r.task_id = _task_id;
    PERFORM async.announce_settings();  -- the dispatcher of an idle database sleeps until something is over
  END IF;
END
$$;
COMMENT ON FUNCTION async.drop_result_as IS 'Internal: async.drop_result with the caller''s role.';

CREATE FUNCTION async.drop_result(_task_id BIGINT) RETURNS VOID LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'as_owner';
COMMENT ON FUNCTION async.drop_result IS
  'Ends a result now: it cannot be read any more, and its object is deleted soon. A table that a result was written to is '
  'yours and stays. Raises undefined_object for a task without a result, insufficient_privilege for others'' results.';

-- async/submitting.sql
-- Submitting executions. Of a role and a query_id one is in flight at a time: the partial unique index decides, also
-- between sessions that know nothing of each other yet.

CREATE TYPE async.submission_t AS (
  execution_id BIGINT, query_id TEXT, status TEXT, collapsed BOOL, task_id BIGINT, result_execution_id BIGINT,
  result_task_id BIGINT, result_completed_at TIMESTAMPTZ);
COMMENT ON TYPE async.submission_t IS 'What async.submit answers; explained there.';

-- Where a query goes that names no target.
CREATE FUNCTION async.execution_target(_target TEXT, _tier TEXT) RETURNS TEXT
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _all  TEXT[];
  _with TEXT[];
BEGIN
  IF _target IS NOT NULL THEN
    IF async.target_name(_target) IS NULL THEN
      RAISE undefined_object USING
        MESSAGE = format('there is no target "%s"', left(_target, 80)), HINT = 'async.v_target lists the targets.';
    END IF;
    RETURN async.target_name(_target);
  END IF;
  SELECT array_agg(t.target ORDER BY t.target), array_agg(t.target ORDER BY t.target) FILTER (WHERE t.options->'tiers' ? _tier)
    INTO _all, _with FROM async.target t WHERE t.kind = 'clickhouse';
  IF cardinality(_all) = 1 THEN
    RETURN _all[1];
  ELSIF cardinality(_with) = 1 THEN
    RETURN _with[1];
  ELSIF _all IS NULL THEN
    RAISE undefined_object USING
      MESSAGE = 'there is no target of kind "clickhouse"',
      HINT = 'Define one with async.configure, or name the target that is to run the query: _target.';
  END IF;
  RAISE ambiguous_parameter USING
    MESSAGE = format('several targets could run this: %s', array_to_string(coalesce(_with, _all), ', ')),
    DETAIL = CASE WHEN _with IS NULL THEN format('None of them has the tier "%s".', left(_tier, 80))
                  ELSE format('Each of them has the tier "%s".', left(_tier, 80)) END,
    HINT = 'Name one: _target.';
END
$$;
COMMENT ON FUNCTION async.execution_target IS
  'Internal: the target of an execution: the one that is named, else the only one of kind clickhouse, else the only one of '
  'those that has the tier. Raises undefined_object, ambiguous_parameter.';

CREATE FUNCTION async.settle_executions(_execution_ids BIGINT[]) RETURNS INT
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _settled INT := 0;
BEGIN
  IF cardinality(_execution_ids) > 0 THEN
    UPDATE async.execution e
       SET open = false, status = v.status, picked_at = v.picked_at, completed_at = v.completed_at, result = v.result,
           error = v.error, expires = coalesce(v.completed_at, clock_timestamp()) + async.execution_keep(v.status)
      FROM async.v_execution v
     WHERE e.execution_id = ANY (_execution_ids) AND v.execution_id = e.execution_id
       AND v.status IN ('CANCELED', 'FAILED', 'SUCCEEDED')
       AND (e.open OR e.status IS DISTINCT FROM v.status OR e.completed_at IS DISTINCT FROM v.completed_at);
    GET DIAGNOSTICS _settled = ROW_COUNT;
  END IF;
  RETURN _settled;
END
$$;
COMMENT ON FUNCTION async.settle_executions IS
  'Internal: executions take over what their tasks say, where those have ended; returns how many.';

-- The newest result that a role can use for a query_id. Of one role and query_id the order of ids is the order of ends.
CREATE FUNCTION async.newest_result(
  _role NAME, _query_id TEXT, OUT execution_id BIGINT, OUT task_id BIGINT, OUT completed_at TIMESTAMPTZ)
RETURNS RECORD LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT e.execution_id, e.task_id, coalesce(t.processed, e.completed_at)
    FROM async.execution e
    JOIN async.result r ON r.task_id = e.task_id AND r.state = 'kept'
     AND (r.expires IS NULL OR r.expires > clock_timestamp())
    LEFT JOIN async.task t ON t.task_id = e.task_id
   WHERE e.query_id = _query_id AND e.created_by = _role AND e.status IS DISTINCT FROM 'EXPIRED'
     AND CASE WHEN t.task_id IS NULL THEN e.status = 'SUCCEEDED' ELSE t.finish_status = 'FINISHED' END
   ORDER BY e.execution_id DESC LIMIT 1;
$$;
COMMENT ON FUNCTION async.newest_result IS 'Internal: the newest result of a role''s executions of a query_id that is still kept.';

CREATE FUNCTION async.submit_as(
  _caller OID, _query TEXT, _query_id TEXT, _tier TEXT, _arguments JSONB, _secrets JSONB, _stale_after INTERVAL, _target TEXT,
  _result JSONB, _settings JSONB, _quota_key TEXT, _priority INT, _timeout INTERVAL) RETURNS async.submission_t
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _role  CONSTANT NAME := pg_get_userbyid(_caller);
  _hash  CONSTANT TEXT := encode(sha256(convert_to(_query, 'UTF8')), 'hex');
  _bound CONSTANT JSONB := nullif(nullif(_arguments, 'null'), '{}');
  -- Without an id: the same query with other arguments is another one.
  _id    CONSTANT TEXT := coalesce(nullif(_query_id, ''), CASE
    WHEN _bound IS NULL THEN _hash
    ELSE encode(sha256(convert_to(_query || E'\n' || _bound::TEXT, 'UTF8')), 'hex') END);
  _where TEXT;
  _made  async.submission_t;
BEGIN
  IF btrim(coalesce(_query, ''), E' \t\r\n;') = '' THEN
    RAISE invalid_parameter_value USING MESSAGE = 'there is no query to submit';
  ELSIF octet_length(_id) > 1000 THEN
    RAISE invalid_parameter_value USING
      MESSAGE = format('the _query_id is too long: %s bytes of at most 1000', octet_length(_id));
  ELSIF _stale_after < INTERVAL '0' THEN
    RAISE invalid_parameter_value USING MESSAGE = format('_stale_after is %s', _stale_after);
  ELSIF jsonb_typeof(_arguments) NOT IN ('object', 'null') OR jsonb_typeof(_secrets) NOT IN ('object', 'null') THEN
    RAISE invalid_parameter_value USING MESSAGE = '_arguments and _secrets must be objects: name, value';
  END IF;
  _where := async.execution_target(_target, coalesce(_tier, ''));
  _made.query_id := _id;

  IF _stale_after IS NOT NULL THEN
    SELECT n.execution_id, n.task_id, n.completed_at
      INTO _made.result_execution_id, _made.result_task_id, _made.result_completed_at
      FROM async.newest_result(_role, _id) n;
    IF _made.result_completed_at >= clock_timestamp() - _stale_after THEN
      _made.execution_id := _made.result_execution_id;
      _made.task_id := _made.result_task_id;
      _made.status := 'SUCCEEDED';
      _made.collapsed := false;
      RETURN _made;
    END IF;
  END IF;

  FOR _try IN 1 .. 100 LOOP
    UPDATE async.execution e SET collapsed_counter = e.collapsed_counter + 1
     WHERE e.created_by = _role AND e.query_id = _id AND e.open
       AND EXISTS (SELECT FROM async.task t WHERE t.task_id = e.task_id AND t.processed IS NULL)
    RETURNING e.execution_id, e.task_id, true INTO _made.execution_id, _made.task_id, _made.collapsed;
    EXIT WHEN FOUND;
    -- One whose task has ended, or is gone, is in flight no more.
    PERFORM async.settle_executions(
      ARRAY(SELECT e.execution_id FROM async.execution e
             WHERE e.created_by = _role AND e.query_id = _id AND e.open FOR UPDATE));
    -- Waits for whoever is submitting the same: then it is there, or it never was.
    INSERT INTO async.execution (query_id, query_hash, query, tier, target, created_by, quota_key)
    VALUES (_id, _hash, _query, coalesce(_tier, ''), _where, _role, _quota_key)
    ON CONFLICT (created_by, query_id) WHERE open DO NOTHING
    RETURNING execution_id, false INTO _made.execution_id, _made.collapsed;
    IF FOUND THEN
      _made.task_id := async.push_query_as(
        _caller, _where, _query, NULL::JSONB, _settings, _tier, coalesce(
          nullif(_result, 'null'), (SELECT s.result FROM async.execution_settings s), '"inline"'),
        _secrets, _priority, _timeout, _bound);
      -- Its tier may have led to another target. A quota key is ClickHouse's alone, and no option that a node can have.
      UPDATE async.execution e SET task_id = t.task_id, target = t.target
        FROM async.task t WHERE e.execution_id = _made.execution_id AND t.task_id = _made.task_id;
      UPDATE async.task t SET options = coalesce(t.options, '{}') || jsonb_build_object('quota_key', _quota_key)
       WHERE t.task_id = _made.task_id AND _quota_key <> '' AND async.target_kind(t.target) = 'clickhouse';
      EXIT;
    END IF;
  END LOOP;
  IF _made.task_id IS NULL THEN
    RAISE lock_not_available USING
      MESSAGE = format('execution of query_id "%s" ends as fast as it is submitted', left(_id, 80)), HINT = 'Try again.';
  END IF;
  _made.status := coalesce((SELECT v.status FROM async.v_execution v WHERE v.execution_id = _made.execution_id), 'PENDING');
  RETURN _made;
END
$$;
COMMENT ON FUNCTION async.submit_as IS 'Internal: async.submit with the caller''s role.';

CREATE FUNCTION async.submit(
  _query TEXT, _query_id TEXT DEFAULT NULL, _tier TEXT DEFAULT '', _arguments JSONB DEFAULT NULL, _secrets JSONB DEFAULT NULL,
  _stale_after INTERVAL DEFAULT NULL, _target TEXT DEFAULT NULL, _result JSONB DEFAULT NULL, _settings JSONB DEFAULT NULL,
  _quota_key TEXT DEFAULT NULL, _priority INT DEFAULT 0, _timeout INTERVAL DEFAULT NULL)
RETURNS async.submission_t LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'as_owner';
COMMENT ON FUNCTION async.submit IS
  'Has a query run and its result kept. If one of yours with the same _query_id (default: the hash of the query and its '
  'arguments; the tier takes no part) is in flight, that one is returned (collapsed). With _stale_after, the newest result '
  'is returned too (result_execution_id, result_task_id): one that is not older is all there is to it, an older one '
  'serves while the query runs again. _arguments and _secrets are bound as parameters; secrets are erased when it ends. '
  '_target: by default the only ClickHouse target, else the only one that has the _tier. Waits for another session that '
  'is submitting the same and has not committed.';

-- async/execution_reading.sql
-- Finding executions, their results and their ends. With the caller's rights: row-level security decides what there is.

CREATE FUNCTION async.execution(_execution_id BIGINT) RETURNS SETOF async.v_execution
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
  SELECT v.* FROM async.v_execution v WHERE v.execution_id = _execution_id;
$$;
COMMENT ON FUNCTION async.execution IS 'One execution, as async.v_execution shows it; no row: there is none that you may read.';

CREATE FUNCTION async.search_executions(
  _query_id TEXT, _query_hash TEXT DEFAULT NULL, _statuses TEXT[] DEFAULT '{SUCCEEDED,FAILED}', _limit INT DEFAULT 3,
  _sort_by TEXT DEFAULT 'COMPLETED_AT') RETURNS SETOF async.v_execution
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _known CONSTANT TEXT[] := '{PENDING,RUNNING,CANCELED,FAILED,SUCCEEDED,EXPIRED}';
  _wrong TEXT := (SELECT string_agg(coalesce(s, 'null'), ', ') FROM unnest(_statuses) AS s WHERE s <> ALL (_known) OR s IS NULL);
BEGIN
  IF _wrong IS NOT NULL THEN
    RAISE invalid_parameter_value USING
      MESSAGE = format('there is no status %s', left(_wrong, 80)), HINT = array_to_string(_known, ', ') || '.';
  ELSIF _limit NOT BETWEEN 1 AND 100 THEN
    RAISE invalid_parameter_value USING MESSAGE = format('_limit is %s: 1 to 100', _limit);
  ELSIF _sort_by NOT IN ('CREATED_AT', 'COMPLETED_AT') THEN
    RAISE invalid_parameter_value USING
      MESSAGE = format('cannot sort by "%s"', left(_sort_by, 80)), HINT = 'CREATED_AT or COMPLETED_AT.';
  END IF;
  RETURN QUERY
    SELECT v.* FROM async.v_execution v
     WHERE v.query_id = _query_id AND (_query_hash IS NULL OR v.query_hash = _query_hash)
       AND v.status = ANY (coalesce(_statuses, '{SUCCEEDED,FAILED}'))
     ORDER BY CASE WHEN _sort_by = 'CREATED_AT' THEN v.created_at ELSE v.completed_at END DESC NULLS LAST, v.execution_id DESC
     LIMIT coalesce(_limit, 3);
END
$$;
COMMENT ON FUNCTION async.search_executions(TEXT, TEXT, TEXT[], INT, TEXT) IS
  'The newest executions of a query_id that you may read, at most _limit (100), by CREATED_AT or COMPLETED_AT.';

CREATE FUNCTION async.search_executions(_searches JSONB) RETURNS SETOF JSONB
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _search JSONB;
  _key    TEXT;
BEGIN
  IF jsonb_typeof(_searches) IS DISTINCT FROM 'array' OR jsonb_array_length(_searches) > 100 THEN
    RAISE invalid_parameter_value USING
      MESSAGE = '_searches must be an array of at most 100 searches',
      HINT = 'Such as [{"query_id": "daily", "statuses": ["SUCCEEDED"], "limit": 1}].';
  END IF;
  FOR _search IN SELECT s.value FROM jsonb_array_elements(_searches) WITH ORDINALITY AS s(value, n) ORDER BY s.n LOOP
    IF jsonb_typeof(_search) <> 'object' OR jsonb_typeof(_search->'query_id') IS DISTINCT FROM 'string'
       OR jsonb_typeof(_search->'statuses') NOT IN ('array', 'null') THEN
      RAISE invalid_parameter_value USING
        MESSAGE = format('not a search: %s', left(_search::TEXT, 200)),
        HINT = 'An object with "query_id" (text), and perhaps "query_hash", "statuses" (an array), "limit", "sort_by".';
    END IF;
    SELECT k INTO _key FROM jsonb_object_keys(_search) AS k
     WHERE k NOT IN ('query_id', 'query_hash', 'statuses', 'limit', 'sort_by') LIMIT 1;
    IF FOUND THEN
      RAISE invalid_parameter_value USING
        MESSAGE = format('a search has no "%s"', left(_key, 80)), HINT = 'query_id, query_hash, statuses, limit, sort_by.';
    END IF;
    RETURN QUERY
      SELECT coalesce(jsonb_agg(to_jsonb(x.*) ORDER BY x.ordinality), '[]') FROM async.search_executions(
        _search->>'query_id', _search->>'query_hash',
        CASE jsonb_typeof(_search->'statuses') WHEN 'array' THEN ARRAY(SELECT jsonb_array_elements_text(_search->'statuses'))
             ELSE '{SUCCEEDED,FAILED}' END,
        coalesce((_search->>'limit')::INT, 3), coalesce(_search->>'sort_by', 'COMPLETED_AT')) WITH ORDINALITY AS x;
  END LOOP;
END
$$;
COMMENT ON FUNCTION async.search_executions(JSONB) IS
  'Several searches at once: an array of objects with query_id, query_hash, statuses, limit, sort_by; a list of executions '
  'for each, in the same order.';

CREATE FUNCTION async.execution_result(_execution_id BIGINT, _limit INT DEFAULT NULL, _offset BIGINT DEFAULT 0) RETURNS JSONB
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _execution async.v_execution;
BEGIN
  SELECT * INTO _execution FROM async.v_execution v WHERE v.execution_id = _execution_id;
  IF NOT FOUND THEN
    RAISE undefined_object USING
      MESSAGE = format('there is no execution %s', coalesce(_execution_id::TEXT, 'null')),
      HINT = 'async.v_execution lists those you may read.';
  ELSIF _execution.status <> 'SUCCEEDED' THEN
    RAISE object_not_in_prerequisite_state USING
      MESSAGE = format('execution %s is %s and has no result', _execution_id, _execution.status),
      DETAIL = coalesce(_execution.error, format('It was submitted at %s.', _execution.created_at));
  END IF;
  RETURN jsonb_build_object('meta', _execution.result->'meta', 'rows', _execution.result->'rows', 'data', (
    SELECT coalesce(jsonb_agg(f), '[]') FROM async.fetch_result(_execution.task_id, _limit, _offset) AS f));
END
$$;
COMMENT ON FUNCTION async.execution_result IS
  'The result of an execution as one object: meta [{name, type}], rows (of the whole result), data: the rows from the '
  '_offset-th on, at most _limit. For large results rather async.fetch_result(task_id). Raises undefined_object, '
  'object_not_in_prerequisite_state.';

CREATE FUNCTION async.cancel_execution_as(_caller OID, _execution_id BIGINT, _error_message TEXT) RETURNS VOID
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _execution async.execution;
BEGIN
  SELECT * INTO _execution FROM async.execution e WHERE e.execution_id = _execution_id;
  IF NOT FOUND OR NOT async.caller_may_read(_caller, _execution.created_by) THEN
    RAISE undefined_object USING
      MESSAGE = format('there is no execution %s', coalesce(_execution_id::TEXT, 'null')),
      HINT = 'async.v_execution lists those you may read.';
  ELSIF NOT EXISTS (SELECT FROM async.task t WHERE t.task_id = _execution.task_id) THEN
    RAISE WARNING 'execution % has ended already', _execution_id;
  ELSE
    PERFORM async.cancel_as(_caller, ARRAY[_execution.task_id], _error_message);
  END IF;
END
$$;
COMMENT ON FUNCTION async.cancel_execution_as IS 'Internal: async.cancel_execution with the caller''s role.';

CREATE FUNCTION async.cancel_execution(_execution_id BIGINT, _error_message TEXT DEFAULT NULL) RETURNS VOID
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'as_owner';
COMMENT ON FUNCTION async.cancel_execution IS
  'Cancels an execution: it becomes CANCELED, and what runs elsewhere is stopped, when the transaction commits. One that '
  'has ended: a warning. Raises undefined_object, insufficient_privilege.';

-- For the dispatcher. Rows that somebody has locked are left for the next call.
CREATE FUNCTION async.expire_executions(_limit INT) RETURNS INT
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _now   CONSTANT TIMESTAMPTZ := clock_timestamp();
  _from  BIGINT := 0;
  _ids   BIGINT[];
  _count INT := 0;
  _over  INT;
BEGIN
  -- Ends are noticed here if nobody has submitted the same since: among the oldest in flight, then from somewhere on, so
  -- that many that are in flight for long do not hide what has ended behind them.
  FOR _round IN 1 .. 2 LOOP
    SELECT array_agg(o.execution_id) INTO _ids FROM (
      SELECT w.execution_id
        FROM (SELECT e.execution_id, e.task_id FROM async.execution e WHERE e.open AND e.execution_id >= _from
               ORDER BY e.execution_id LIMIT _limit FOR UPDATE SKIP LOCKED) AS w
       WHERE NOT EXISTS (SELECT FROM async.task t WHERE t.task_id = w.task_id AND t.processed IS NULL)) AS o;
    _count := _count + async.settle_executions(_ids);
    EXIT WHEN _round = 2;
    SELECT min(e.execution_id) + floor(random() * (max(e.execution_id) - min(e.execution_id) + 1))::BIGINT INTO _from
      FROM async.execution e WHERE e.open;
    EXIT WHEN _from IS NULL;
  END LOOP;

  -- What somebody has started again is no longer over. Nor is what somebody is just dropping the result of.
  WITH due AS (
    SELECT e.execution_id, e.task_id, e.status FROM async.execution e WHERE e.expires <= _now
     ORDER BY e.expires LIMIT _limit FOR UPDATE SKIP LOCKED
  ), free AS MATERIALIZED (
    SELECT r.task_id FROM async.result r WHERE r.task_id = ANY (ARRAY(SELECT d.task_id FROM due d)) FOR UPDATE SKIP LOCKED
  ), blocked AS MATERIALIZED (
    SELECT d.execution_id FROM due d JOIN async.result r ON r.task_id = d.task_id
     WHERE d.status <> 'EXPIRED' AND r.task_id NOT IN (SELECT f.task_id FROM free f)
  ), again AS (
    UPDATE async.execution e SET expires = _now + INTERVAL '1 hour' FROM due d
     WHERE e.execution_id = d.execution_id AND d.status <> 'EXPIRED'
       AND EXISTS (SELECT FROM async.task t WHERE t.task_id = d.task_id AND t.processed IS NULL)
       AND d.execution_id NOT IN (SELECT b.execution_id FROM blocked b)
    RETURNING e.execution_id
  ), expired AS (
    UPDATE async.execution e SET status = 'EXPIRED', expires = _now + async.execution_keep('EXPIRED') FROM due d
     WHERE e.execution_id = d.execution_id AND d.status <> 'EXPIRED'
       AND NOT EXISTS (SELECT FROM async.task t WHERE t.task_id = d.task_id AND t.processed IS NULL)
       AND d.execution_id NOT IN (SELECT b.execution_id FROM blocked b)
    RETURNING e.task_id
  ), results AS (
    UPDATE async.result r SET expires = _now FROM expired x
     WHERE r.task_id = x.task_id AND r.state = 'kept' AND (r.expires IS NULL OR r.expires > _now)
  ), forgotten AS (
    DELETE FROM async.execution e USING due d WHERE e.execution_id = d.execution_id AND d.status = 'EXPIRED'
  )
  SELECT count(*) INTO _over FROM due d WHERE d.execution_id NOT IN (SELECT b.execution_id FROM blocked b);
  RETURN _count + _over;
END
$$;
COMMENT ON FUNCTION async.expire_executions IS
  'Internal: deals with executions that have ended and with those that are over, at most _limit of each: these become '
  'EXPIRED and lose their results, and are deleted later. Returns how many: call again while it is not 0.';

CREATE VIEW async.v_dekart_job WITH (security_invoker = true) AS
SELECT t.task_id, t.task_data->>'report' AS report, t.task_data->>'query' AS query,
       CASE WHEN t.processed IS NOT NULL THEN CASE t.finish_status WHEN 'FINISHED' THEN 'DONE' ELSE 'FAILED' END
            WHEN r.task_id IS NOT NULL OR t.yielded IS NOT NULL THEN 'RUNNING'
            ELSE 'PENDING' END AS status,
       x.bytes AS result_size, x.location, t.processing_error AS error, t.entered AS created, t.processed AS ended
  FROM async.task t
  LEFT JOIN async.running() r ON r.task_id = t.task_id AND t.processed IS NULL
  LEFT JOIN async.result x ON x.task_id = t.task_id AND x.state = 'kept'
 WHERE t.options->'result'->>'to' IN ('export', 'object');
COMMENT ON VIEW async.v_dekart_job IS
  'Queries whose result goes to a store, with the status words of Dekart''s jobs: PENDING, RUNNING, DONE, FAILED with '
  'error. READING_RESULTS never shows: nothing is copied afterwards. report, query: of the arguments.';

-- async/result_expiry.sql
-- What becomes of results that are over, a bounded amount a call. For the dispatcher: it takes a batch with
-- async.expire_results, commits, deletes the objects, and says which are gone.
-- An object is deleted only if its row says where it is, its store still leads there, and no other result points to it.

CREATE FUNCTION async.expire_results(_limit INT) RETURNS TABLE (task_id BIGINT, store TEXT, path TEXT)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  _now   CONSTANT TIMESTAMPTZ := clock_timestamp();
  -- How long whoever deletes has before the object is handed out again: it may have died.
  _again CONSTANT INTERVAL := INTERVAL '10 minutes';
  _late  async.result;
BEGIN
  FOR _late IN
    SELECT * FROM async.result r WHERE r.expires <= _now AND r.later IS NOT NULL
     ORDER BY r.expires, r.task_id DESC LIMIT _limit FOR UPDATE SKIP LOCKED
  LOOP
    DELETE FROM async.result r WHERE r.task_id = _late.task_id;
    IF _late.later ? 'forget' THEN
      PERFORM async.forget_results(ARRAY[(_late.later->>'forget')::BIGINT], INTERVAL '1 second');
    ELSIF _late.state = 'kept' THEN
      PERFORM async.record_result((_late.later->>'task_id')::BIGINT, (_late.later->>'attempt')::INT, _late.later->'kept',
                                  INTERVAL '1 second');
    END IF;
  END LOOP;
  RETURN QUERY
    WITH due AS MATERIALIZED (
      SELECT r.task_id, r.store, r.path, r.location, r.expires, r.state <> 'gone' AND r.path IS NOT NULL AS is_object
        FROM async.result r WHERE r.expires <= _now AND r.later IS NULL
       ORDER BY r.expires, r.task_id LIMIT _limit FOR UPDATE SKIP LOCKED
    ), judged AS MATERIALIZED (
      -- Of several that point to one object and are over, the last one deletes it.
      SELECT d.*, coalesce(d.is_object AND async.is_below(d.location, s.url), false) AS is_ours, d.is_object AND EXISTS (
               SELECT FROM async.result o
                WHERE o.store = d.store AND o.path = d.path AND o.path IS NOT NULL AND o.state <> 'gone'
                  AND (coalesce(o.expires, 'infinity'), o.task_id) > (d.expires, d.task_id)
               UNION ALL
               SELECT FROM async.result o
                WHERE o.location = d.location AND o.path IS NOT NULL AND o.state <> 'gone'
                  AND (coalesce(o.expires, 'infinity'), o.task_id) > (d.expires, d.task_id)) AS is_needed
        FROM due d LEFT JOIN async.store s ON s.store = d.store
    ), left_behind AS (
      INSERT INTO async.server_log (level, message)
      SELECT 'WARNING', format('the object of a result was left where it is: %s; store "%s" does not lead there any more',
                               coalesce(j.location, j.path), j.store)
        FROM judged j WHERE j.is_object AND NOT j.is_ours AND NOT j.is_needed
    ), forgotten AS (
      DELETE FROM async.result r USING judged j
       WHERE r.task_id = j.task_id AND (NOT j.is_object OR NOT j.is_ours OR j.is_needed)
    ), marked AS (
      UPDATE async.result r SET state = 'deleting', expires = _now + _again, content = NULL
        FROM judged j
       WHERE r.task_id = j.task_id AND j.is_object AND j.is_ours AND NOT j.is_needed
      RETURNING r.task_id, r.store, r.path
    )
    SELECT m.task_id, m.store, m.path FROM marked m;
END
$$;
COMMENT ON FUNCTION async.expire_results IS
  'Internal: takes at most _limit results that are over. Inline and table ones are forgotten; objects are marked and '
  'returned, to be deleted once this has committed. Those that nobody reports as deleted are returned again after 10 minutes.';

CREATE FUNCTION async.results_deleted(_task_ids BIGINT[]) RETURNS VOID
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
  DELETE FROM async.result r
   WHERE r.task_id = ANY (ARRAY(SELECT x.task_id FROM async.result x WHERE x.task_id = ANY (_task_ids) AND x.state = 'deleting'
                                   FOR UPDATE SKIP LOCKED));
$$;
COMMENT ON FUNCTION async.results_deleted IS 'Internal: the objects of these results, given by async.expire_results, are gone. One '
  'that somebody has locked is given again.';

CREATE FUNCTION async.results_not_deleted(_task_ids BIGINT[], _reasons TEXT[]) RETURNS VOID
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
  INSERT INTO async.server_log (level, message)
  SELECT 'WARNING', format('the object of a result could not be deleted, will be tried again: %s: %s',
                           coalesce(r.location, r.path), left(f.reason, 1000))
    FROM unnest(_task_ids, _reasons) AS f(task_id, reason)
    JOIN async.result r ON r.task_id = f.task_id AND r.state = 'deleting';
$$;
COMMENT ON FUNCTION async.results_not_deleted IS
  'Internal: logs why the objects of these results could not be deleted; async.expire_results returns them again.';

CREATE FUNCTION async.resume_deletions() RETURNS VOID
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
  UPDATE async.result r SET expires = clock_timestamp()
   WHERE r.task_id = ANY (ARRAY(SELECT x.task_id FROM async.result x WHERE x.state = 'deleting' AND x.expires > clock_timestamp()
                                   FOR UPDATE SKIP LOCKED));
$$;
COMMENT ON FUNCTION async.resume_deletions IS
  'Internal: for a dispatcher that starts: what its predecessor was deleting is due at once.';

CREATE FUNCTION async.forget_results(_task_ids BIGINT[], _pause INTERVAL) RETURNS VOID
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _free CONSTANT BIGINT[] := ARRAY(
    SELECT r.task_id FROM async.result r
     WHERE r.task_id = ANY (_task_ids) AND (r.expires IS NULL OR r.state = 'gone') FOR UPDATE SKIP LOCKED);
BEGIN
  UPDATE async.result r SET expires = clock_timestamp() WHERE r.task_id = ANY (_free) AND r.state <> 'gone';
  DELETE FROM async.result r WHERE r.task_id = ANY (_free) AND r.state = 'gone';
  INSERT INTO async.result (task_id, attempt, run_as, kept_as, expires, later)
  SELECT nextval('async.replaced_result_seq'), r.attempt, r.run_as, 'inline', clock_timestamp() + _pause,
         jsonb_build_object('forget', r.task_id)
    FROM async.result r
   WHERE r.task_id = ANY (_task_ids) AND r.task_id <> ALL (_free) AND (r.expires IS NULL OR r.state = 'gone');
END
$$;
COMMENT ON FUNCTION async.forget_results IS
  'Internal: results of these tasks without a time of their own are over. Those that somebody has locked are so later: that '
  'is tried after _pause.';

-- Called before tasks are deleted: what must outlive them takes what it needs. Never waits for a client: who has locked an
-- execution keeps its task, until the next call.
CREATE FUNCTION async.forget_tasks(_task_ids BIGINT[]) RETURNS BIGINT[]
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _executions CONSTANT BIGINT[] := ARRAY(
    SELECT e.execution_id FROM async.execution e WHERE e.task_id = ANY (_task_ids) FOR UPDATE SKIP LOCKED);
  _ours       BIGINT[];
BEGIN
  PERFORM async.settle_executions(_executions);
  _ours := ARRAY(
    SELECT u.task_id FROM unnest(_task_ids) AS u(task_id)
     WHERE NOT EXISTS (SELECT FROM async.execution e
                        WHERE e.task_id = u.task_id AND e.execution_id <> ALL (_executions) OFFSET 0));
  PERFORM async.forget_results(_ours, INTERVAL '0');
  RETURN _ours;
END
$$;
COMMENT ON FUNCTION async.forget_tasks IS
  'Internal: these tasks are about to be deleted: executions take over what they show of them, and results without a time '
  'of their own are over. Returns those that may be deleted: not those whose execution somebody has locked.';

-- async/comments.sql
-- Comments on the objects of tables.sql, rust.sql and rights.sql.

COMMENT ON SCHEMA async IS 'pgflow''s task engine: targets, tasks, pools, attempts, time-outs. Knows nothing of graphs.';
COMMENT ON TYPE async.finish_status_t IS
  'How a task ended: FINISHED, FAILED, CANCELED, TIMED_OUT, DOA (never run). DEFERRED, PAUSED, YIELDED: not ended.';
COMMENT ON TYPE async.task_run_type_t IS 'How async.push_tasks treats its tasks: see there.';
COMMENT ON TYPE async.task_push_t IS 'A task to push; made by async.task, which explains the fields.';

COMMENT ON TABLE async.control IS 'One row: what async.configure''s "control" says, and whether the engine is paused.';
COMMENT ON COLUMN async.control.only_row IS 'Always true: there is one row.';
COMMENT ON COLUMN async.control.workers IS 'The most local workers of this database at once; null: the setting decides.';
COMMENT ON COLUMN async.control.self_target IS 'Another name for target "local".';
COMMENT ON COLUMN async.control.self_connection_string IS 'Kept for users of the SQL original, not used. Admins only.';
COMMENT ON COLUMN async.control.self_concurrency IS 'As configured; it is the max_concurrency of target "local".';
COMMENT ON COLUMN async.control.default_timeout IS 'Time-out of tasks that have none of their own nor from their target; null: none.';
COMMENT ON COLUMN async.control.default_concurrency_pool_workers IS 'Size of pools that are not configured.';
COMMENT ON COLUMN async.control.task_keep_duration IS 'How long history is kept; null: as pgflow.keep_runs_for says.';
COMMENT ON COLUMN async.control.advisory_mutex_id IS 'Kept for users of the SQL original, not used.';
COMMENT ON COLUMN async.control.debug_log IS 'Whether async.log(''DEBUG'', …) is recorded.';
COMMENT ON COLUMN async.control.paused IS 'No task starts: async.pause, async.resume.';

COMMENT ON TABLE async.engine_state IS 'One row that the dispatcher writes: what it must remember across restarts.';
COMMENT ON COLUMN async.engine_state.only_row IS 'Always true: there is one row.';
COMMENT ON COLUMN async.engine_state.system_identifier IS 'With database_oid: where this database was when its work last ran; null: never. See async.adopt.';
COMMENT ON COLUMN async.engine_state.database_oid IS 'See system_identifier.';
COMMENT ON COLUMN async.engine_state.clean_stop IS 'Whether the dispatcher last stopped in order; false while it runs and after a crash.';
COMMENT ON COLUMN async.engine_state.engine_id IS
  'Names this engine to servers elsewhere for as long as its task ids mean the same; async.adopt makes a new one.';
COMMENT ON COLUMN async.engine_state.next_low IS
  'The next value of open_low, once the transactions in next_writers have ended.';
COMMENT ON COLUMN async.engine_state.next_writers IS
  'Virtual transaction ids of those that might have been inserting tasks below next_low when it was noted.';
COMMENT ON COLUMN async.engine_state.open_low IS 'Every task with a lower id has ended.';

COMMENT ON TABLE async.target IS 'Where tasks run; configured with async.configure. "local" is this database and always there.';
COMMENT ON COLUMN async.target.target IS 'Its name.';
COMMENT ON COLUMN async.target.kind IS
  'local: workers of this database; external: clients take tasks with async.get_tasks; postgres, clickhouse, http: sent there.';
COMMENT ON COLUMN async.target.server IS 'A foreign server: its options and those of the user mapping of a task''s role (else of PUBLIC) lead there.';
COMMENT ON COLUMN async.target.options IS 'Keys of its kind: docs/targets. Admins only.';
COMMENT ON COLUMN async.target.owner IS 'The role that configured it. If that is no superuser, its connections must use a password.';
COMMENT ON COLUMN async.target.max_concurrency IS 'Size of its own pool: how many of its tasks run at once.';
COMMENT ON COLUMN async.target.connection_string IS 'A libpq connection string or a URL, may hold a password. Admins only.';
COMMENT ON COLUMN async.target.asynchronous_finish IS 'A call that returns leaves its task yielded, until async.finish or flow.finish.';
COMMENT ON COLUMN async.target.default_timeout IS 'Time-out of its tasks that have none of their own; null: control''s.';
COMMENT ON COLUMN async.target.concurrency_track_yielded IS 'A yielded task keeps its place in the pool.';

COMMENT ON TABLE async.concurrency_pool IS 'Configured pools: how many tasks that name it run at once. A target''s own pool is not here.';
COMMENT ON COLUMN async.concurrency_pool.concurrency_pool IS 'Its name.';
COMMENT ON COLUMN async.concurrency_pool.max_workers IS 'How many of its tasks run at once.';

COMMENT ON SEQUENCE async.task_id_seq IS 'Ids of tasks.';
COMMENT ON TABLE async.task IS
  'One row a task, of flows and others. Open while processed is null. Which tasks run right now is not here: async.v_task. '
  'You see the tasks of roles whose rights you have; flow_monitor sees all.';
COMMENT ON COLUMN async.task.task_id IS 'Its id; grows with time.';
COMMENT ON COLUMN async.task.target IS 'Where it runs.';
COMMENT ON COLUMN async.task.priority IS 'The lower the sooner.';
COMMENT ON COLUMN async.task.run_as IS 'The role it runs as: the one that pushed it or called run_flow.';
COMMENT ON COLUMN async.task.entered IS 'When it was pushed.';
COMMENT ON COLUMN async.task.consumed IS 'Start of the attempt that ended it, yielded it or put it off; null while the first one runs.';
COMMENT ON COLUMN async.task.first_consumed IS 'Start of the first attempt: the clock of its time-out.';
COMMENT ON COLUMN async.task.yielded IS 'Since when somebody else works on it: an asynchronous call or a client''s lease.';
COMMENT ON COLUMN async.task.unsure_since IS
  'The first attempt that may have run elsewhere unknown to us: looked up before the next; null: there is none.';
COMMENT ON COLUMN async.task.intention IS 'How often it was restarted by somebody; retries do not count.';
COMMENT ON COLUMN async.task.options IS 'Outside flows: parameters, settings, tier, request, result.';
COMMENT ON COLUMN async.task.processed IS 'When it ended; null: open.';
COMMENT ON COLUMN async.task.finish_status IS 'How it ended.';
COMMENT ON COLUMN async.task.failed IS 'True: ended other than FINISHED.';
COMMENT ON COLUMN async.task.processing_error IS 'The error, or what was said when it was ended.';
COMMENT ON COLUMN async.task.eligible_when IS 'Does not start before; infinity: a step whose node has not started.';
COMMENT ON COLUMN async.task.times_up IS 'When the running or yielded attempt is stopped, or the lease ends.';
COMMENT ON COLUMN async.task.attempt IS 'Attempts that ended, yielded or were lost; the running one is one more.';
COMMENT ON COLUMN async.task.crashes IS 'Attempts lost in a crash of the server that are charged to it.';
COMMENT ON COLUMN async.task.suspect IS 'Was running when the server died: runs alone next time.';
COMMENT ON COLUMN async.task.partially_committed IS 'Its callback has committed before it ended.';
COMMENT ON COLUMN async.task.asynchronous_finish IS 'When the call returns it is yielded, not finished.';
COMMENT ON COLUMN async.task.track_yielded IS 'Keeps its place in the pool while yielded.';
COMMENT ON COLUMN async.task.on_partial_fail IS 'If partially committed and then lost: fails instead of running again.';
COMMENT ON COLUMN async.task.is_step IS 'A step of a node, not the node''s own task.';
COMMENT ON COLUMN async.task.flow_id IS 'The run it belongs to; null: none.';
COMMENT ON COLUMN async.task.node_no IS 'The node of the run.';
COMMENT ON COLUMN async.task.concurrency_pool IS 'The pool it runs in; null: its target''s own; empty: the flow''s concurrency_group_routine says.';
COMMENT ON COLUMN async.task.manual_timeout IS 'Its own time-out, from the first start on.';
COMMENT ON COLUMN async.task.source IS 'Who pushed it, in the words of whoever did.';
COMMENT ON COLUMN async.task.query IS 'What it runs; null for tasks of flows (the definition has the routine) and of external targets.';
COMMENT ON COLUMN async.task.task_data IS 'What was given with it; of a step: its arguments.';

COMMENT ON TABLE async.claim IS 'Marks that precede starts: one row for each batch of tasks that a worker holds.';
COMMENT ON COLUMN async.claim.claim_id IS 'Its id.';
COMMENT ON COLUMN async.claim.task_ids IS 'The tasks of the batch.';
COMMENT ON COLUMN async.claim.attempts IS 'Of each task, the attempt that starts.';
COMMENT ON COLUMN async.claim.alone IS 'It is a suspect that runs alone.';

COMMENT ON TABLE async.external_queue IS 'Tasks of external targets that wait for async.get_tasks. Filled by the dispatcher.';
COMMENT ON COLUMN async.external_queue.target IS 'The target.';
COMMENT ON COLUMN async.external_queue.priority IS 'The task''s priority when it was queued.';
COMMENT ON COLUMN async.external_queue.task_id IS 'The task.';
COMMENT ON COLUMN async.external_queue.eligible_when IS 'Not handed out before; null: at once.';

COMMENT ON TABLE async.task_log IS 'Messages of callbacks and changes of status that the task''s row does not tell. See async.v_task_log.';
COMMENT ON COLUMN async.task_log.task_id IS 'The task.';
COMMENT ON COLUMN async.task_log.attempt IS 'Its attempt.';
COMMENT ON COLUMN async.task_log.seq IS 'Order within the attempt; from 1000000 on: written by sessions, not by the worker.';
COMMENT ON COLUMN async.task_log.at IS 'When.';
COMMENT ON COLUMN async.task_log.level IS 'NOTICE, WARNING, INFO, LOG: a callback''s message; STATUS: a change of status.';
COMMENT ON COLUMN async.task_log.message IS 'The line.';

COMMENT ON TABLE async.server_log IS 'What the engine and async.log have to say. For flow_monitor; see async.tail.';
COMMENT ON COLUMN async.server_log.server_log_id IS 'Order.';
COMMENT ON COLUMN async.server_log.happened IS 'When.';
COMMENT ON COLUMN async.server_log.level IS 'NOTICE, WARNING, DEBUG, …';
COMMENT ON COLUMN async.server_log.message IS 'The line.';

COMMENT ON FUNCTION async.announce_tasks IS 'Internal: the dispatcher looks at the open tasks of a range when the transaction commits.';
COMMENT ON FUNCTION async.announce_ended IS 'Internal: these tasks were ended, yielded or put off by somebody who is not a worker.';
COMMENT ON FUNCTION async.announce_node IS 'Internal: the caller holds a lock on a node; the dispatcher looks again when it is gone.';
COMMENT ON FUNCTION async.announce_run IS 'Internal: a run was changed as a whole.';
COMMENT ON FUNCTION async.announce_settings IS 'Internal: targets, pools or control were changed.';
COMMENT ON FUNCTION async.require_engine IS
  'Internal: raises object_not_in_prerequisite_state unless pgflow is in shared_preload_libraries.';
COMMENT ON FUNCTION async.setting IS 'The value of a setting of pgflow in its base unit (milliseconds, bytes, a count); null: off.';
COMMENT ON FUNCTION async.running IS
  'What the workers of this database run right now: task, attempt, worker''s pid and role, start, progress. See async.v_task.';
COMMENT ON FUNCTION async.processes IS
  'The engine''s processes in the whole cluster: kind launcher, dispatcher or worker; tasks_done since it started; queued: '
  'tasks the dispatcher holds; last_error: what it last could not do. See async.v_server_info, async.v_worker_info.';
COMMENT ON FUNCTION async.pool_use IS 'How full the dispatcher holds each pool of this database: running, waiting, size.';
COMMENT ON FUNCTION async.decide_own IS
  'Internal: notes the outcome (FINISHED, FAILED, DEFERRED) a callback decides for its own task; false: not its worker.';
COMMENT ON FUNCTION async.wait_for_change IS
  'Waits until something of this database''s runs has changed, at most so many milliseconds. COMMIT between calls.';
COMMENT ON FUNCTION async.note_progress IS
  'Notes progress of the task that the caller''s worker runs (done of total, a note); false: it is not that worker.';
COMMENT ON FUNCTION async.is_own_task IS 'Whether the caller is the worker that runs this task right now.';
COMMENT ON FUNCTION async.wake_launcher IS 'Internal: tells the launcher, at commit, that this database has the extension.';

COMMENT ON FUNCTION async.may_act IS
  'Internal: whether a role (OID) may act for what runs as _run_as: the role itself, its members, flow_admin, superusers.';
COMMENT ON FUNCTION async.may_read IS 'Whether you may read what runs as _run_as.';
COMMENT ON FUNCTION async.require_admin IS 'Internal: raises insufficient_privilege unless the role has the rights of flow_admin.';

-- flow/rust.sql
-- Functions of the graph layer that are in Rust.

-- Reads, checks and stores the configuration of a flow: every fault is reported at once, nothing is stored if there is one.
CREATE FUNCTION flow.configure_flow(_flow_name TEXT, _configuration JSONB, _append BOOL DEFAULT FALSE)
RETURNS VOID LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'configure_flow_wrapper';
COMMENT ON FUNCTION flow.configure_flow IS
  'Checks and stores the configuration of a flow (JSON: nodes, flow, concurrency_group_routine) as a new version, '
  'which the next run takes; open runs keep theirs. _append: adds to what is stored instead of replacing it. The '
  'same configuration again makes no new version. All faults are raised at once as invalid_parameter_value, with '
  'their JSON paths; flow.validate gives them as rows. insufficient_privilege: the flow belongs to a role whose '
  'rights you lack.';

-- The faults and warnings that configure_flow would report, as rows; stores nothing.
CREATE FUNCTION flow.validate(
  _configuration JSONB, OUT path TEXT, OUT severity TEXT, OUT message TEXT, OUT hint TEXT)
RETURNS SETOF RECORD LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'validate_wrapper';
COMMENT ON FUNCTION flow.validate IS
  'What configure_flow would find wrong, as rows: JSON path, severity (error or warning), message, hint. Stores '
  'nothing.';

-- A diagram as Graphviz text: {"title", "legend", "nodes": [{name, target, routine, status, steps: {total, pending,
-- running, finished, failed}, run_time, note, empty, steps_to_flow}], "edges": [{parent, child, continue_on_failure}]},
-- where parent and child count the nodes from 0.
CREATE FUNCTION flow.render_graphviz(_diagram JSONB)
RETURNS TEXT LANGUAGE c IMMUTABLE STRICT AS 'MODULE_PATHNAME', 'render_graphviz_wrapper';
COMMENT ON FUNCTION flow.render_graphviz IS
  'Internal: a diagram (JSON) in the language of Graphviz; flow.graphviz makes the JSON.';

-- The colour that a diagram gives a status word.
CREATE FUNCTION flow.node_status_color(_status TEXT)
RETURNS TEXT LANGUAGE c IMMUTABLE AS 'MODULE_PATHNAME', 'node_status_color_wrapper';
COMMENT ON FUNCTION flow.node_status_color IS
  'The colour (X11 name) that diagrams give a status word of flow.v_flow_node_status.';

-- flow/cascade.sql
-- The graph's heart: which nodes have ended, what that opens, skips or ends below them, and when a run is done.
-- Set-based; never called by users; see docs/architecture.md for the lock order.
--
-- "LATERAL (… OFFSET 0)" keeps the planner from choosing an order of joins: these statements are planned once, perhaps
-- when the tables were empty, and must look up every row by its whole key whatever they hold later.

-- What a decision means for the engine:
-- A tasks to queue: ids task_low..task_high of (flow_id, node_no)
-- N a node was stopped: its queued tasks are dropped, its running ones cancelled
-- E the task task_low was ended here (a step whose child run has ended): treat it as an outcome
-- R a row is locked by a client: ask again about (flow_id, node_no) when told
-- P the step that started this ended run is locked by a client: flow.end_parents again, later
-- T the node's time is up at "at"
-- F the run has finished
CREATE TYPE flow.effect_t AS (
  kind TEXT, flow_id BIGINT, node_no INT, task_low BIGINT, task_high BIGINT, at TIMESTAMPTZ);

-- Inserts the own tasks of nodes that have just been opened (state O) and returns an A effect for each run.
CREATE FUNCTION flow.insert_node_tasks(_flow_ids BIGINT[], _node_nos INT[])
RETURNS SETOF flow.effect_t LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN QUERY
    WITH opened AS (
      SELECT o.flow_id, o.node_no, nextval('async.task_id_seq') AS task_id,
             coalesce(g.target, n.target, 'local') AS target,
             coalesce(r.force_priority, n.priority) AS priority,
             r.run_as, n.node_timeout, n.on_partial_fail,
             coalesce(g.asynchronous_finish, false) AND NOT n.synchronous AS asynchronous_finish,
             coalesce(g.concurrency_track_yielded, false) AS track_yielded,
             CASE WHEN d.concurrency_group_routine IS NOT NULL THEN '' END AS concurrency_pool
      FROM unnest(_flow_ids, _node_nos) AS o (flow_id, node_no),
           LATERAL (SELECT * FROM flow.flow x WHERE x.flow_id = o.flow_id OFFSET 0) r,
           LATERAL (SELECT x.concurrency_group_routine FROM flow.definition x
                    WHERE x.definition_id = r.definition_id OFFSET 0) d,
           LATERAL (SELECT * FROM flow.definition_node x
                    WHERE x.definition_id = r.definition_id AND x.node_no = o.node_no OFFSET 0) n
           LEFT JOIN async.target g ON g.target = CASE WHEN n.options ? 'tier' THEN async.tier_target(n.target, n.options->>'tier')
                                                       ELSE coalesce(n.target, 'local') END
      ORDER BY o.flow_id, o.node_no),
    pushed AS (
      INSERT INTO async.task (task_id, target, priority, run_as, flow_id, node_no, is_step, asynchronous_finish,
                              track_yielded, on_partial_fail, concurrency_pool, manual_timeout, source)
      SELECT o.task_id, o.target, o.priority, o.run_as, o.flow_id, o.node_no, false, o.asynchronous_finish,
             o.track_yielded, o.on_partial_fail, o.concurrency_pool, o.node_timeout, 'flow'
      FROM opened o),
    noted AS (
      UPDATE flow.flow_node c SET task_id = o.task_id
      FROM opened o WHERE c.flow_id = o.flow_id AND c.node_no = o.node_no)
    SELECT 'A', o.flow_id, NULL::int, min(o.task_id), max(o.task_id), NULL::timestamptz
    FROM opened o GROUP BY o.flow_id;
END
$$;
COMMENT ON FUNCTION flow.insert_node_tasks IS 'Internal: inserts the own tasks of nodes that were opened.';

-- Makes the steps of a node ready whose own task has finished (or that has none): the static ones of its definition, and
-- those that were pushed before it opened. _own_task: the node's own task or null; what was pushed before has lower ids,
-- and a push that overtook the opening is released by the dispatcher when it arrives. Returns A effects.
CREATE FUNCTION flow.release_steps(_flow_id BIGINT, _node_no INT, _own_task BIGINT)
RETURNS SETOF flow.effect_t LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _static JSONB[];
  _held BIGINT[];
  _low BIGINT;
  _high BIGINT;
BEGIN
  -- Before the static ones are added: those are not held.
  _held := array(
    SELECT s.task_id FROM flow.flow_step s
    WHERE s.flow_id = _flow_id AND s.node_no = _node_no AND (_own_task IS NULL OR s.task_id < _own_task));
  SELECT array(SELECT jsonb_array_elements(n.steps)) INTO _static
  FROM flow.flow r JOIN flow.definition_node n ON n.definition_id = r.definition_id AND n.node_no = _node_no
  WHERE r.flow_id = _flow_id AND n.steps IS NOT NULL;
  IF cardinality(_static) > 0 THEN
    SELECT i.task_low, i.task_high INTO _low, _high FROM flow.insert_steps(_flow_id, _node_no, _static, false) i;
    IF _low IS NOT NULL THEN
      RETURN NEXT ROW('A', _flow_id, _node_no, _low, _high, NULL)::flow.effect_t;
    END IF;
  END IF;
  IF cardinality(_held) > 0 THEN
    SELECT min(r), max(r) INTO _low, _high FROM flow.release_held(_held) r;
    IF _low IS NOT NULL THEN
      RETURN NEXT ROW('A', _flow_id, _node_no, _low, _high, NULL)::flow.effect_t;
    END IF;
  END IF;
END
$$;
COMMENT ON FUNCTION flow.release_steps IS
  'Internal: makes the static steps of a node and those pushed before it opened ready to run.';

CREATE FUNCTION flow.release_held(_task_ids BIGINT[]) RETURNS SETOF BIGINT
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
  UPDATE async.task t SET eligible_when = NULL
  WHERE t.task_id = ANY (array(
    SELECT x.task_id FROM async.task x
    WHERE x.task_id = ANY (_task_ids) AND x.eligible_when = 'infinity' AND x.processed IS NULL
    ORDER BY x.task_id FOR NO KEY UPDATE SKIP LOCKED))
  RETURNING t.task_id;
$$;
COMMENT ON FUNCTION flow.release_held IS 'Internal: steps that were held may run; returns them.';

-- Opens nodes whose parents have all ended, and follows what ends at once. _flow_ids/_node_nos: nodes that have just
-- ended; their children are counted down. The caller holds the lock on the runs' rows.
CREATE FUNCTION flow.propagate(_flow_ids BIGINT[], _node_nos INT[])
RETURNS SETOF flow.effect_t LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _ended_flows BIGINT[] := _flow_ids;   -- ended in this round
  _ended_nodes INT[] := _node_nos;
  _all_flows BIGINT[] := '{}';          -- ended in any round
  _all_nodes INT[] := '{}';
  _ready_flows BIGINT[];
  _ready_nodes INT[];
  _open_flows BIGINT[];
  _open_nodes INT[];
  _stepping RECORD;
BEGIN
  -- Each round moves at least one edge further down: the longest path bounds the rounds.
  WHILE cardinality(_ended_flows) > 0 LOOP
    _all_flows := _all_flows || _ended_flows;
    _all_nodes := _all_nodes || _ended_nodes;
    WITH hit AS (
      SELECT e.flow_id, d.node_no, count(*)::int AS parents,
             min(coalesce(p.blocked_by, p.node))
               FILTER (WHERE p.state IN ('E', 'K', 'C', 'T') AND NOT d.continue_on_failure) AS blocked_by
      FROM unnest(_ended_flows, _ended_nodes) AS e (flow_id, node_no),
           LATERAL (SELECT x.definition_id FROM flow.flow x WHERE x.flow_id = e.flow_id OFFSET 0) r,
           LATERAL (SELECT x.node, x.state, x.blocked_by FROM flow.flow_node x
                    WHERE x.flow_id = e.flow_id AND x.node_no = e.node_no OFFSET 0) p,
           LATERAL (SELECT x.node_no, x.continue_on_failure FROM flow.definition_edge x
                    WHERE x.definition_id = r.definition_id AND x.parent_no = e.node_no OFFSET 0) d
      GROUP BY e.flow_id, d.node_no),
    counted AS (
      UPDATE flow.flow_node c
      SET parents_open = c.parents_open - hit.parents, blocked_by = coalesce(c.blocked_by, hit.blocked_by)
      FROM hit WHERE c.flow_id = hit.flow_id AND c.node_no = hit.node_no AND c.state = 'W'
      RETURNING c.flow_id, c.node_no, c.parents_open)
    SELECT array_agg(counted.flow_id), array_agg(counted.node_no) INTO _ready_flows, _ready_nodes
    FROM counted WHERE counted.parents_open = 0;
    _ended_flows := '{}';
    _ended_nodes := '{}';
    IF _ready_flows IS NOT NULL THEN
      SELECT o.ended_flows, o.ended_nodes, o.open_flows, o.open_nodes
      INTO _ended_flows, _ended_nodes, _open_flows, _open_nodes
      FROM flow.open_nodes(_ready_flows, _ready_nodes) o;
      IF cardinality(_open_flows) > 0 THEN
        RETURN QUERY SELECT * FROM flow.insert_node_tasks(_open_flows, _open_nodes);
      END IF;
      FOR _stepping IN
        SELECT n.flow_id, n.node_no
        FROM unnest(_ready_flows, _ready_nodes) AS r (flow_id, node_no),
             LATERAL (SELECT x.flow_id, x.node_no FROM flow.flow_node x
                      WHERE x.flow_id = r.flow_id AND x.node_no = r.node_no AND x.state = 'S' OFFSET 0) n
      LOOP
        RETURN QUERY SELECT * FROM flow.release_steps(_stepping.flow_id, _stepping.node_no, NULL);
      END LOOP;
    END IF;
  END LOOP;
  RETURN QUERY SELECT * FROM flow.count_ended(_all_flows, _all_nodes);
END
$$;
COMMENT ON FUNCTION flow.propagate IS
  'Internal: counts the children of ended nodes down and opens, skips or ends them, until nothing moves.';

-- Decides what becomes of nodes whose parents have all ended: skipped below a failure, ended at once when they have
-- nothing to do, else open.
CREATE FUNCTION flow.open_nodes(
  _flow_ids BIGINT[], _node_nos INT[],
  OUT ended_flows BIGINT[], OUT ended_nodes INT[], OUT open_flows BIGINT[], OUT open_nodes INT[])
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  WITH verdict AS (
    SELECT c.flow_id, c.node_no,
           CASE
             WHEN c.blocked_by IS NOT NULL THEN 'K'
             WHEN c.excluded THEN 'N'
             WHEN NOT n.empty THEN 'O'
             WHEN n.steps IS NOT NULL
               OR EXISTS (SELECT FROM flow.flow_step s WHERE s.flow_id = c.flow_id AND s.node_no = c.node_no) THEN 'S'
             -- An empty node that somebody is pushing to right now: decided when the push has ended.
             WHEN NOT EXISTS (SELECT FROM flow.flow_node f WHERE f.flow_id = c.flow_id AND f.node_no = c.node_no
                              FOR UPDATE SKIP LOCKED) THEN 'S'
             ELSE 'F'
           END AS state
    FROM unnest(_flow_ids, _node_nos) AS r (flow_id, node_no),
         LATERAL (SELECT * FROM flow.flow_node x
                  WHERE x.flow_id = r.flow_id AND x.node_no = r.node_no AND x.state = 'W' OFFSET 0) c,
         LATERAL (SELECT x.definition_id FROM flow.flow x WHERE x.flow_id = r.flow_id OFFSET 0) f,
         LATERAL (SELECT x.empty, x.steps FROM flow.definition_node x
                  WHERE x.definition_id = f.definition_id AND x.node_no = r.node_no OFFSET 0) n),
  changed AS (
    UPDATE flow.flow_node c
    SET state = v.state,
        opened = CASE WHEN v.state IN ('O', 'S', 'F') THEN clock_timestamp() END,
        ended = CASE WHEN v.state IN ('K', 'N', 'F') THEN clock_timestamp() END,
        error = CASE WHEN v.state = 'K' THEN format('not run because %s failed', c.blocked_by) END
    FROM verdict v WHERE c.flow_id = v.flow_id AND c.node_no = v.node_no
    RETURNING c.flow_id, c.node_no, c.state)
  SELECT coalesce(array_agg(c.flow_id) FILTER (WHERE c.state IN ('K', 'N', 'F')), '{}'),
         coalesce(array_agg(c.node_no) FILTER (WHERE c.state IN ('K', 'N', 'F')), '{}'),
         coalesce(array_agg(c.flow_id) FILTER (WHERE c.state = 'O'), '{}'),
         coalesce(array_agg(c.node_no) FILTER (WHERE c.state = 'O'), '{}')
  INTO ended_flows, ended_nodes, open_flows, open_nodes
  FROM changed c;
  -- Steps that were pushed to a node which will never open.
  IF cardinality(ended_flows) > 0 THEN
    PERFORM async.end_tasks(array(
      SELECT s.task_id
      FROM unnest(ended_flows, ended_nodes) AS e (flow_id, node_no),
           LATERAL (SELECT x.task_id FROM flow.flow_step x
                    WHERE x.flow_id = e.flow_id AND x.node_no = e.node_no OFFSET 0) s),
      'CANCELED', 'its node ended without running');
  END IF;
END
$$;
COMMENT ON FUNCTION flow.open_nodes IS 'Internal: opens, skips or ends nodes whose parents have all ended.';

-- Adds ended nodes to their runs' counters; a run that is complete ends, and with it the step that started it.
CREATE FUNCTION flow.count_ended(_flow_ids BIGINT[], _node_nos INT[])
RETURNS SETOF flow.effect_t LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _finished BIGINT[];
BEGIN
  WITH ended AS (
    SELECT e.flow_id, count(*)::int AS nodes,
           (count(*) FILTER (WHERE n.state IN ('E', 'K', 'C', 'T')))::int AS failed,
           (array_agg(n.node || ': ' || n.error ORDER BY n.ended, n.node_no)
             FILTER (WHERE n.state IN ('E', 'T')))[1] AS error
    FROM unnest(_flow_ids, _node_nos) AS e (flow_id, node_no),
         LATERAL (SELECT x.node_no, x.node, x.state, x.error, x.ended FROM flow.flow_node x
                  WHERE x.flow_id = e.flow_id AND x.node_no = e.node_no OFFSET 0) n
    GROUP BY e.flow_id),
  counted AS (
    UPDATE flow.flow r
    SET count_finished_nodes = r.count_finished_nodes + ended.nodes,
        count_failed_nodes = r.count_failed_nodes + ended.failed,
        first_error = coalesce(r.first_error, ended.error),
        processed = CASE WHEN r.count_finished_nodes + ended.nodes = r.count_nodes THEN clock_timestamp() END
    FROM ended WHERE r.flow_id = ended.flow_id AND r.processed IS NULL
    RETURNING r.flow_id, r.processed)
  SELECT array_agg(c.flow_id) INTO _finished FROM counted c WHERE c.processed IS NOT NULL;
  IF _finished IS NOT NULL THEN
    RETURN QUERY SELECT 'F', f, NULL::int, NULL::bigint, NULL::bigint, NULL::timestamptz FROM unnest(_finished) f;
    RETURN QUERY SELECT * FROM flow.end_parents(_finished);
  END IF;
END
$$;
COMMENT ON FUNCTION flow.count_ended IS 'Internal: adds ended nodes to their runs'' counters and ends complete runs.';

-- Ends the steps that started these runs, which have ended, as they ended. A step that a client has locked is left.
CREATE FUNCTION flow.end_parents(_flow_ids BIGINT[]) RETURNS SETOF flow.effect_t
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _run RECORD;
  _task RECORD;
BEGIN
  FOR _run IN
    SELECT r.flow_id, r.flow, r.parent_task_id, r.count_failed_nodes, r.cancelled, r.first_error
    FROM unnest(_flow_ids) AS u (flow_id),
         LATERAL (SELECT * FROM flow.flow x WHERE x.flow_id = u.flow_id AND x.parent_task_id IS NOT NULL OFFSET 0) r
    ORDER BY r.parent_task_id
  LOOP
    SELECT t.flow_id, t.node_no INTO _task FROM async.task t
    WHERE t.task_id = _run.parent_task_id AND t.processed IS NULL FOR NO KEY UPDATE SKIP LOCKED;
    IF FOUND THEN
      UPDATE async.task t
      SET processed = clock_timestamp(),
          failed = _run.count_failed_nodes > 0 OR _run.cancelled,
          finish_status = CASE WHEN _run.count_failed_nodes > 0 OR _run.cancelled THEN 'FAILED'
                               ELSE 'FINISHED' END::async.finish_status_t,
          processing_error = CASE WHEN _run.count_failed_nodes > 0 OR _run.cancelled
            THEN format('run %s of flow %s failed: %s', _run.flow_id, _run.flow, _run.first_error) END
      WHERE t.task_id = _run.parent_task_id;
      RETURN NEXT ROW('E', _task.flow_id, _task.node_no, _run.parent_task_id, _run.parent_task_id, NULL)::flow.effect_t;
    ELSIF EXISTS (SELECT FROM async.task t WHERE t.task_id = _run.parent_task_id AND t.processed IS NULL) THEN
      RETURN NEXT ROW('P', _run.flow_id, NULL, NULL, NULL, NULL)::flow.effect_t;
    END IF;
  END LOOP;
END
$$;
COMMENT ON FUNCTION flow.end_parents IS
  'Internal: ends the steps that started these ended runs; what a client has locked is reported, not waited for.';

-- Turns effects that arise in a client's transaction into announcements.
CREATE FUNCTION flow.announce_effects(_effects flow.effect_t[]) RETURNS VOID
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _effect flow.effect_t;
BEGIN
  FOREACH _effect IN ARRAY _effects LOOP
    CASE _effect.kind
      WHEN 'A' THEN PERFORM async.announce_tasks(_effect.task_low, _effect.task_high, _effect.flow_id, _effect.node_no);
      WHEN 'E' THEN PERFORM async.announce_ended(ARRAY[_effect.task_low]);
      WHEN 'R' THEN PERFORM async.announce_node(_effect.flow_id, _effect.node_no);
      ELSE PERFORM async.announce_run(_effect.flow_id);
    END CASE;
  END LOOP;
END
$$;
COMMENT ON FUNCTION flow.announce_effects IS 'Internal: tells the dispatcher what a client''s transaction has decided.';

-- Opens every waiting node of a run that has no open parent, in the caller's transaction.
CREATE FUNCTION flow.start_run(_flow_id BIGINT) RETURNS VOID
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _opened RECORD;
  _effects flow.effect_t[] := '{}';
  _node INT;
BEGIN
  SELECT o.* INTO _opened
  FROM (SELECT array_agg(n.flow_id) AS flows, array_agg(n.node_no) AS nodes FROM flow.flow_node n
        WHERE n.flow_id = _flow_id AND n.state = 'W' AND n.parents_open = 0) ready,
       flow.open_nodes(ready.flows, ready.nodes) o
  WHERE ready.flows IS NOT NULL;
  IF cardinality(_opened.open_flows) > 0 THEN
    _effects := _effects || array(SELECT e FROM flow.insert_node_tasks(_opened.open_flows, _opened.open_nodes) e);
  END IF;
  FOR _node IN SELECT n.node_no FROM flow.flow_node n
               WHERE n.flow_id = _flow_id AND n.state = 'S' AND n.task_id IS NULL AND n.parents_open = 0 LOOP
    _effects := _effects || array(SELECT e FROM flow.release_steps(_flow_id, _node, NULL) e);
  END LOOP;
  _effects := _effects || array(SELECT e FROM flow.propagate(_opened.ended_flows, _opened.ended_nodes) e);
  PERFORM flow.announce_effects(_effects);
  PERFORM async.announce_run(_flow_id);
END
$$;
COMMENT ON FUNCTION flow.start_run IS 'Internal: opens the waiting nodes of a run that have no open parent.';

-- Looks at nodes that may have ended and decides. _failed_tasks: for each node the failed step that made it a candidate,
-- or null. Runs in the dispatcher; skips what clients have locked.
CREATE FUNCTION flow.settle(_flow_ids BIGINT[], _node_nos INT[], _failed_tasks BIGINT[])
RETURNS SETOF flow.effect_t LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _locked BIGINT[];
  _node RECORD;
  _steps RECORD;
  _error TEXT;
  _state "char";
  _ended_flows BIGINT[] := '{}';
  _ended_nodes INT[] := '{}';
BEGIN
  _locked := array(
    SELECT r.flow_id FROM flow.flow r WHERE r.flow_id = ANY (_flow_ids) AND r.processed IS NULL
    ORDER BY r.flow_id FOR NO KEY UPDATE SKIP LOCKED);
  RETURN QUERY
    SELECT DISTINCT 'R', c.flow_id, c.node_no, NULL::bigint, NULL::bigint, NULL::timestamptz
    FROM unnest(_flow_ids, _node_nos) AS c (flow_id, node_no)
    JOIN flow.flow r ON r.flow_id = c.flow_id AND r.processed IS NULL
    WHERE c.flow_id <> ALL (_locked);

  FOR _node IN
    SELECT n.flow_id, n.node_no, n.node, n.state, n.task_id, d.all_steps_must_complete,
           d.node_timeout, t.processed AS own_ended, t.failed AS own_failed, t.finish_status AS own_status,
           t.processing_error AS own_error, t.first_consumed,
           s.processed IS NOT NULL AND s.failed AS step_failed, s.finish_status AS step_status,
           s.processing_error AS step_error, s.task_data AS step_arguments,
           d.steps IS NOT NULL
             OR EXISTS (SELECT FROM flow.flow_step x WHERE x.flow_id = c.flow_id AND x.node_no = c.node_no) AS has_steps
    FROM (SELECT c.flow_id, c.node_no, min(c.task_id) AS task_id
          FROM unnest(_flow_ids, _node_nos, _failed_tasks) AS c (flow_id, node_no, task_id)
          WHERE c.flow_id = ANY (_locked) GROUP BY c.flow_id, c.node_no) c
    CROSS JOIN LATERAL (SELECT x.definition_id FROM flow.flow x WHERE x.flow_id = c.flow_id OFFSET 0) r
    CROSS JOIN LATERAL (SELECT * FROM flow.flow_node x
                        WHERE x.flow_id = c.flow_id AND x.node_no = c.node_no AND x.state IN ('O', 'S') OFFSET 0) n
    CROSS JOIN LATERAL (SELECT * FROM flow.definition_node x
                        WHERE x.definition_id = r.definition_id AND x.node_no = c.node_no OFFSET 0) d
    LEFT JOIN LATERAL (SELECT * FROM async.task x WHERE x.task_id = n.task_id OFFSET 0) t ON true
    LEFT JOIN LATERAL (SELECT * FROM async.task x WHERE x.task_id = c.task_id OFFSET 0) s ON true
    ORDER BY n.flow_id, n.node_no
  LOOP
    _state := NULL;
    _error := NULL;
    IF _node.own_failed THEN
      _state := CASE _node.own_status WHEN 'TIMED_OUT' THEN 'T' WHEN 'CANCELED' THEN 'C' ELSE 'E' END;
      _error := _node.own_error;
    ELSIF _node.step_failed AND _node.all_steps_must_complete THEN
      _state := CASE _node.step_status WHEN 'TIMED_OUT' THEN 'T' ELSE 'E' END;
      _error := format('step %s failed: %s', _node.step_arguments, _node.step_error);
    ELSIF _node.state = 'O' AND _node.own_ended IS NULL THEN
      CONTINUE;   -- its own task is open
    ELSIF _node.state = 'O' AND _node.has_steps THEN
      UPDATE flow.flow_node n SET state = 'S', times_up = _node.first_consumed + _node.node_timeout
      WHERE n.flow_id = _node.flow_id AND n.node_no = _node.node_no;
      RETURN QUERY SELECT * FROM flow.release_steps(_node.flow_id, _node.node_no, _node.task_id);
      IF _node.node_timeout IS NOT NULL THEN
        RETURN NEXT ROW('T', _node.flow_id, _node.node_no, NULL, NULL,
                        _node.first_consumed + _node.node_timeout)::flow.effect_t;
      END IF;
    END IF;

    IF _state IS NULL THEN
      -- Its own task has finished. Nobody may be pushing, and no step may be open: looked at under the lock that keeps
      -- pushers out, by a statement that begins after the lock was taken.
      PERFORM FROM flow.flow_node n WHERE n.flow_id = _node.flow_id AND n.node_no = _node.node_no
      FOR UPDATE SKIP LOCKED;
      IF NOT FOUND THEN
        RETURN NEXT ROW('R', _node.flow_id, _node.node_no, NULL, NULL, NULL)::flow.effect_t;
        CONTINUE;
      END IF;
      -- OFFSET 0: one look-up by key a step, whatever the statistics say.
      SELECT count(*) FILTER (WHERE t.processed IS NULL) AS open,
             min(s.task_id) FILTER (WHERE t.failed) AS failed
      INTO _steps
      FROM flow.flow_step s,
           LATERAL (SELECT t.processed, t.failed FROM async.task t WHERE t.task_id = s.task_id OFFSET 0) t
      WHERE s.flow_id = _node.flow_id AND s.node_no = _node.node_no;
      IF _steps.failed IS NOT NULL AND _node.all_steps_must_complete THEN
        SELECT CASE t.finish_status WHEN 'TIMED_OUT' THEN 'T' ELSE 'E' END,
               format('step %s failed: %s', t.task_data, t.processing_error)
        INTO _state, _error FROM async.task t WHERE t.task_id = _steps.failed;
      ELSIF _steps.open > 0 THEN
        CONTINUE;
      ELSE
        _state := 'F';
      END IF;
    END IF;

    UPDATE flow.flow_node n SET state = _state, ended = clock_timestamp(), error = _error
    WHERE n.flow_id = _node.flow_id AND n.node_no = _node.node_no;
    IF _state <> 'F' THEN
      PERFORM flow.stop_tasks(_node.flow_id, _node.node_no, format('stopped because node %s failed', _node.node));
      RETURN NEXT ROW('N', _node.flow_id, _node.node_no, NULL, NULL, NULL)::flow.effect_t;
    END IF;
    _ended_flows := _ended_flows || _node.flow_id;
    _ended_nodes := _ended_nodes || _node.node_no;
  END LOOP;

  IF cardinality(_ended_flows) > 0 THEN
    RETURN QUERY SELECT * FROM flow.propagate(_ended_flows, _ended_nodes);
  END IF;
END
$$;
COMMENT ON FUNCTION flow.settle IS 'Internal: decides about nodes that may have ended; the dispatcher''s entry to the cascade.';

-- Cancels the open tasks of a node and the runs they started. Rows that a worker is just ending are left to it.
CREATE FUNCTION flow.stop_tasks(_flow_id BIGINT, _node_no INT, _error TEXT) RETURNS VOID
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _child BIGINT;
BEGIN
  PERFORM async.end_tasks(array(
    SELECT n.task_id FROM flow.flow_node n
    WHERE n.flow_id = _flow_id AND n.node_no = _node_no AND n.task_id IS NOT NULL
    UNION ALL
    SELECT s.task_id FROM flow.flow_step s WHERE s.flow_id = _flow_id AND s.node_no = _node_no), 'CANCELED', _error);
  FOR _child IN
    SELECT r.flow_id FROM flow.flow r JOIN flow.flow_step s ON s.task_id = r.parent_task_id
    WHERE r.parent_flow_id = _flow_id AND r.processed IS NULL AND s.flow_id = _flow_id AND s.node_no = _node_no
  LOOP
    PERFORM flow.cancel_run(_child, _error);
  END LOOP;
END
$$;
COMMENT ON FUNCTION flow.stop_tasks IS 'Internal: cancels the open tasks of a node and the child runs of its steps.';

-- A node's time is up: it fails with its open tasks.
CREATE FUNCTION flow.time_out_nodes(_flow_ids BIGINT[], _node_nos INT[])
RETURNS SETOF flow.effect_t LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _node RECORD;
  _locked BIGINT[];
  _ended_flows BIGINT[] := '{}';
  _ended_nodes INT[] := '{}';
BEGIN
  _locked := array(
    SELECT r.flow_id FROM flow.flow r WHERE r.flow_id = ANY (_flow_ids) AND r.processed IS NULL
    ORDER BY r.flow_id FOR NO KEY UPDATE SKIP LOCKED);
  RETURN QUERY
    SELECT 'T', c.flow_id, c.node_no, NULL::bigint, NULL::bigint, clock_timestamp() + interval '100 ms'
    FROM unnest(_flow_ids, _node_nos) AS c (flow_id, node_no)
    JOIN flow.flow r ON r.flow_id = c.flow_id AND r.processed IS NULL
    WHERE c.flow_id <> ALL (_locked);
  FOR _node IN
    SELECT n.flow_id, n.node_no, n.node
    FROM unnest(_flow_ids, _node_nos) AS c (flow_id, node_no)
    JOIN flow.flow_node n ON n.flow_id = c.flow_id AND n.node_no = c.node_no
    WHERE n.flow_id = ANY (_locked) AND n.state = 'S' AND n.times_up <= clock_timestamp()
    ORDER BY n.flow_id, n.node_no
  LOOP
    UPDATE flow.flow_node n SET state = 'T', ended = clock_timestamp(), error = 'node_timeout: its steps took too long'
    WHERE n.flow_id = _node.flow_id AND n.node_no = _node.node_no;
    PERFORM async.end_tasks(array(SELECT s.task_id FROM flow.flow_step s
                                  WHERE s.flow_id = _node.flow_id AND s.node_no = _node.node_no),
                            'TIMED_OUT', format('time-out of node %s', _node.node));
    PERFORM flow.stop_tasks(_node.flow_id, _node.node_no, format('time-out of node %s', _node.node));
    RETURN NEXT ROW('N', _node.flow_id, _node.node_no, NULL, NULL, NULL)::flow.effect_t;
    _ended_flows := _ended_flows || _node.flow_id;
    _ended_nodes := _ended_nodes || _node.node_no;
  END LOOP;
  IF cardinality(_ended_flows) > 0 THEN
    RETURN QUERY SELECT * FROM flow.propagate(_ended_flows, _ended_nodes);
  END IF;
END
$$;
COMMENT ON FUNCTION flow.time_out_nodes IS 'Internal: fails nodes whose node_timeout has passed while their steps run.';

-- flow/definitions.sql
-- Definitions: storing a version, reading it, dropping a flow. What is stored has been checked in Rust (configure_flow).

-- Locks the configured flow until the end of the transaction, so that those who configure or drop it take turns.
-- Returns its row, or NULLs.
CREATE FUNCTION flow.lock_configured(_flow TEXT) RETURNS flow.configured
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _configured flow.configured;
BEGIN
  SELECT * INTO _configured FROM flow.configured c WHERE c.flow = _flow FOR UPDATE;
  IF NOT FOUND THEN
    -- Nothing to lock yet. A name that exists is locked by its row alone, so nobody can block it from outside.
    PERFORM pg_advisory_xact_lock(hashtext('flow.configured'), hashtext(_flow));
    SELECT * INTO _configured FROM flow.configured c WHERE c.flow = _flow FOR UPDATE;
  END IF;
  RETURN _configured;
END
$$;
COMMENT ON FUNCTION flow.lock_configured IS
  'Internal: locks a configured flow for the rest of the transaction and returns its row, or NULLs.';

-- What configure_flow merges with. Locks the flow, because a second configure must see what the first one stores.
CREATE FUNCTION flow.stored_configuration(_flow TEXT) RETURNS JSONB
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _configured flow.configured := flow.lock_configured(_flow);
BEGIN
  RETURN (SELECT d.configuration FROM flow.definition d WHERE d.definition_id = _configured.definition_id);
END
$$;
COMMENT ON FUNCTION flow.stored_configuration IS
  'Internal: the stored configuration of a flow, or null; locks the flow for the rest of the transaction.';

-- Raises unless _caller may act for the owner of a configured flow.
CREATE FUNCTION flow.require_owner(_caller OID, _configured flow.configured) RETURNS VOID
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF NOT async.may_act(_caller, _configured.owner) THEN
    RAISE insufficient_privilege USING
      MESSAGE = format('permission denied for flow "%s"', _configured.flow),
      DETAIL = format('The flow belongs to role "%s".', _configured.owner),
      HINT = 'Become a member of that role, or ask a member of flow_admin.';
  END IF;
END
$$;
COMMENT ON FUNCTION flow.require_owner IS
  'Internal: raises insufficient_privilege unless the role (OID) may act for the owner of a configured flow.';

-- Raises unless _caller may make a flow run as another role.
CREATE FUNCTION flow.require_run_as(_caller OID, _run_as NAME) RETURNS VOID
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _role OID := (SELECT r.oid FROM pg_roles r WHERE r.rolname = _run_as);
  -- From 16 on a membership may come without the right to SET ROLE.
  _right TEXT := CASE WHEN current_setting('server_version_num')::INT >= 160000 THEN 'SET' ELSE 'MEMBER' END;
BEGIN
  IF _role IS NULL THEN
    RAISE undefined_object USING
      MESSAGE = format('role "%s" does not exist', _run_as),
      DETAIL = 'At $.flow.run_as of the configuration.',
      HINT = 'Name an existing role, or leave "run_as" out: the flow then runs as the role that calls run_flow.';
  ELSIF NOT pg_has_role(_caller, _role, _right) THEN
    RAISE insufficient_privilege USING
      MESSAGE = format('role "%s" may not make a flow run as role "%s"', pg_get_userbyid(_caller), _run_as),
      DETAIL = 'At $.flow.run_as of the configuration.',
      HINT = format('This needs the right to SET ROLE %I.', _run_as);
  END IF;
END
$$;
COMMENT ON FUNCTION flow.require_run_as IS
  'Internal: raises undefined_object or insufficient_privilege unless the role (OID) may make a flow run as '
  '_run_as.';

-- A time-out as a configuration writes it: interval text, or a number of seconds.
CREATE FUNCTION flow.interval_of(_value JSONB) RETURNS INTERVAL LANGUAGE sql STABLE
RETURN CASE jsonb_typeof(_value)
  WHEN 'number' THEN make_interval(secs => (_value #>> '{}')::DOUBLE PRECISION)
  ELSE (_value #>> '{}')::INTERVAL
END;
COMMENT ON FUNCTION flow.interval_of IS
  'Internal: a time-out of a configuration: interval text, or a number of seconds.';

-- Stores a version of a flow and makes it the one that the next run takes; the same definition again makes no new version.
-- _options: {concurrency_group_routine, priority, run_as}. _nodes: an array of objects with the columns of
-- flow.definition_node and "parents": [[parent_no, continue_on_failure], …].
CREATE FUNCTION flow.store_definition(
  _caller OID, _flow TEXT, _configuration JSONB, _options JSONB, _nodes JSONB) RETURNS BIGINT
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _known    flow.configured := flow.lock_configured(_flow);
  _run_as   NAME := _options->>'run_as';
  _group    TEXT := _options->>'concurrency_group_routine';
  _priority INT := coalesce((_options->>'priority')::INT, 0);
  _author   NAME := pg_get_userbyid(_caller);
  _id       BIGINT;
BEGIN
  IF _known.flow IS NOT NULL THEN
    PERFORM flow.require_owner(_caller, _known);
  END IF;
  IF _run_as IS NOT NULL THEN
    PERFORM flow.require_run_as(_caller, _run_as);
  END IF;

  SELECT d.definition_id INTO _id
  FROM flow.definition d
  WHERE d.definition_id = _known.definition_id AND d.configuration = _configuration AND d.priority = _priority
    AND d.concurrency_group_routine IS NOT DISTINCT FROM _group AND d.run_as IS NOT DISTINCT FROM _run_as
    -- The same text may mean other routines than it did, under another search_path.
    AND (SELECT array_agg(ROW (n.node_no, n.routine_resolved, n.step_routine_resolved, n.query_routine_resolved) ORDER BY n.node_no)
         FROM jsonb_to_recordset(_nodes) AS n(
           node_no INT, routine_resolved TEXT, step_routine_resolved TEXT, query_routine_resolved TEXT))
      = (SELECT array_agg(ROW (n.node_no, n.routine_resolved, n.step_routine_resolved, n.query_routine_resolved) ORDER BY n.node_no)
         FROM flow.definition_node n WHERE n.definition_id = d.definition_id);
  IF FOUND THEN
    RETURN _id;
  END IF;

  INSERT INTO flow.definition (flow, configuration, concurrency_group_routine, priority, run_as, author)
  VALUES (_flow, _configuration, _group, _priority, _run_as, _author)
  RETURNING definition_id INTO _id;
  PERFORM flow.insert_nodes(_id, _priority, _nodes);
  INSERT INTO flow.configured AS c (flow, definition_id, owner) VALUES (_flow, _id, _author)
  ON CONFLICT (flow) DO UPDATE SET definition_id = excluded.definition_id;
  RETURN _id;
END
$$;
COMMENT ON FUNCTION flow.store_definition IS
  'Internal: stores a checked definition for a caller and returns its definition_id; the stored one if it is the '
  'same.';

-- The nodes and edges of a new version, in one statement. _priority: of nodes that have none of their own.
CREATE FUNCTION flow.insert_nodes(_definition_id BIGINT, _priority INT, _nodes JSONB) RETURNS VOID
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
  WITH given AS MATERIALIZED (
    SELECT n.* FROM jsonb_to_recordset(_nodes) AS n(
      node_no INT, node TEXT, rank INT, target TEXT, routine TEXT, routine_resolved TEXT, step_routine TEXT,
      step_routine_resolved TEXT, priority INT, all_steps_must_complete BOOL, empty BOOL, steps_to_flow TEXT,
      synchronous BOOL, node_timeout JSONB, step_timeout JSONB, on_partial_fail BOOL, count_parents INT, steps JSONB,
      parents JSONB, query TEXT, step_query TEXT, query_routine TEXT, query_routine_resolved TEXT, options JSONB)
  ), nodes AS (
    INSERT INTO flow.definition_node (
      definition_id, node_no, node, rank, target, routine, routine_resolved, step_routine, step_routine_resolved,
      priority, all_steps_must_complete, empty, steps_to_flow, synchronous, node_timeout, step_timeout,
      on_partial_fail, count_parents, steps, query, step_query, query_routine, query_routine_resolved, options)
    SELECT _definition_id, g.node_no, g.node, g.rank, g.target, g.routine, g.routine_resolved, g.step_routine,
      g.step_routine_resolved, coalesce(g.priority, _priority), coalesce(g.all_steps_must_complete, true),
      coalesce(g.empty, false), g.steps_to_flow, coalesce(g.synchronous, false), flow.interval_of(g.node_timeout),
      flow.interval_of(g.step_timeout), coalesce(g.on_partial_fail, false),
      coalesce(g.count_parents, jsonb_array_length(g.parents), 0), g.steps, g.query, g.step_query, g.query_routine,
      g.query_routine_resolved, g.options
    FROM given g
  )
  INSERT INTO flow.definition_edge (definition_id, parent_no, node_no, continue_on_failure)
  SELECT _definition_id, (p.value->>0)::INT, g.node_no, coalesce((p.value->>1)::BOOL, false)
  FROM given g CROSS JOIN LATERAL jsonb_array_elements(g.parents) p;
$$;
COMMENT ON FUNCTION flow.insert_nodes IS 'Internal: inserts the nodes and edges of a version from JSON.';

-- The selected nodes of a version, with all their ancestors and all their descendants where asked for; ascending.
-- OFFSET 0 makes each round of the recursion look its edges up by key, whatever the planner expects: a chain has many.
CREATE FUNCTION flow.extend_selection(_definition_id BIGINT, _selected INT[], _add_parents BOOL, _add_children BOOL)
RETURNS INT[] LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  WITH RECURSIVE up AS (
    SELECT s.node_no FROM unnest(_selected) AS s(node_no) WHERE _add_parents
    UNION
    SELECT p.parent_no FROM up CROSS JOIN LATERAL (
      SELECT e.parent_no FROM flow.definition_edge e
      WHERE e.definition_id = _definition_id AND e.node_no = up.node_no OFFSET 0) p
  ), down AS (
    SELECT s.node_no FROM unnest(_selected) AS s(node_no) WHERE _add_children
    UNION
    SELECT c.node_no FROM down CROSS JOIN LATERAL (
      SELECT e.node_no FROM flow.definition_edge e
      WHERE e.definition_id = _definition_id AND e.parent_no = down.node_no OFFSET 0) c
  )
  SELECT coalesce(array_agg(a.node_no ORDER BY a.node_no), '{}')
  FROM (SELECT unnest(_selected) AS node_no UNION SELECT node_no FROM up UNION SELECT node_no FROM down) a;
$$;
COMMENT ON FUNCTION flow.extend_selection IS
  'Internal: node numbers with those of all ancestors and all descendants, ascending.';

CREATE FUNCTION flow.configuration() RETURNS JSONB
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT coalesce(jsonb_object_agg(c.flow, d.configuration), '{}')
  FROM flow.configured c JOIN flow.definition d USING (definition_id);
$$;
COMMENT ON FUNCTION flow.configuration() IS
  'The configurations of all flows: an object, name of the flow → configuration as configure_flow takes it.';

CREATE FUNCTION flow.configuration(_flow TEXT) RETURNS JSONB
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT d.configuration FROM flow.configured c JOIN flow.definition d USING (definition_id) WHERE c.flow = _flow;
$$;
COMMENT ON FUNCTION flow.configuration(TEXT) IS
  'The configuration of a flow as configure_flow takes it; null: it is not configured.';

CREATE FUNCTION flow.walk_flow(
  _flow TEXT, OUT rank INT, OUT node TEXT, OUT parents TEXT[], OUT children TEXT[], OUT continue_on_failure TEXT[],
  OUT target TEXT, OUT routine TEXT, OUT step_routine TEXT, OUT steps_to_flow TEXT, OUT empty BOOL, OUT priority INT)
RETURNS SETOF RECORD LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT (w.n).rank, (w.n).node, w.parents, w.children, w.continue_on_failure, coalesce((w.n).target, 'local'),
    (w.n).routine, (w.n).step_routine, (w.n).steps_to_flow, (w.n).empty, (w.n).priority
  FROM (
    SELECT u.node_no, (array_agg(u.n) FILTER (WHERE u.is_node))[1] AS n,
      coalesce(array_agg(u.parent ORDER BY u.other_no) FILTER (WHERE u.parent IS NOT NULL), '{}') AS parents,
      coalesce(array_agg(u.child ORDER BY u.other_no) FILTER (WHERE u.child IS NOT NULL), '{}') AS children,
      coalesce(array_agg(u.parent ORDER BY u.other_no) FILTER (WHERE u.continue_on_failure), '{}') AS continue_on_failure
    FROM flow.configured f
    CROSS JOIN LATERAL (
      SELECT x.node_no, x AS n, true AS is_node, NULL::INT AS other_no, NULL::TEXT AS parent, NULL::TEXT AS child,
        false AS continue_on_failure
      FROM flow.definition_node x WHERE x.definition_id = f.definition_id
      UNION ALL
      SELECT e.node_no, NULL::flow.definition_node, false, e.parent_no, o.node, NULL, e.continue_on_failure
      FROM flow.definition_edge e
      CROSS JOIN LATERAL (SELECT x.node FROM flow.definition_node x
        WHERE x.definition_id = e.definition_id AND x.node_no = e.parent_no OFFSET 0) o
      WHERE e.definition_id = f.definition_id
      UNION ALL
      SELECT e.parent_no, NULL::flow.definition_node, false, e.node_no, NULL, o.node, false
      FROM flow.definition_edge e
      CROSS JOIN LATERAL (SELECT x.node FROM flow.definition_node x
        WHERE x.definition_id = e.definition_id AND x.node_no = e.node_no OFFSET 0) o
      WHERE e.definition_id = f.definition_id) u
    WHERE f.flow = _flow
    GROUP BY u.node_no) w
  ORDER BY (w.n).rank, w.node_no;
$$;
COMMENT ON FUNCTION flow.walk_flow IS
  'The nodes of a configured flow, parents before children. rank: length of the longest path from a node without '
  'parents; continue_on_failure: those of the parents below whose failure the node still runs; steps_to_flow: the '
  'flow that its steps start. No rows: not configured.';

CREATE FUNCTION flow.drop_flow(_flow TEXT) RETURNS VOID LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'as_owner';
COMMENT ON FUNCTION flow.drop_flow IS
  'Makes a flow unconfigured; what its runs did stays. Raises undefined_object when it is not configured, '
  'object_in_use while open runs need it, insufficient_privilege unless you may act for its owner.';

CREATE FUNCTION flow.drop_flow_as(_caller OID, _flow TEXT) RETURNS VOID
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _configured flow.configured := flow.lock_configured(_flow);
  _run        RECORD;
  _user       TEXT;
BEGIN
  IF _configured.flow IS NULL THEN
    RAISE undefined_object USING
      MESSAGE = format('flow "%s" is not configured', _flow),
      HINT = 'The configured flows are in flow.flow_configuration.';
  END IF;
  PERFORM flow.require_owner(_caller, _configured);

  -- An open run has its own version; but one whose steps start this flow would find nothing to start.
  SELECT f.flow_id, f.flow INTO _run
  FROM flow.flow f
  WHERE f.processed IS NULL
    AND (f.flow = _flow OR EXISTS (
      SELECT FROM flow.definition_node n WHERE n.definition_id = f.definition_id AND n.steps_to_flow = _flow))
  ORDER BY f.flow_id LIMIT 1;
  IF FOUND THEN
    RAISE object_in_use USING
      MESSAGE = format('flow "%s" cannot be dropped while runs need it', _flow),
      DETAIL = format('Run %s of flow "%s" is open.', _run.flow_id, _run.flow),
      HINT = 'Wait for its end with flow.wait, or end it with flow.cancel.';
  END IF;

  SELECT string_agg(DISTINCT format('"%s"', c.flow), ', ') INTO _user
  FROM flow.configured c JOIN flow.definition_node n USING (definition_id)
  WHERE n.steps_to_flow = _flow AND c.flow <> _flow;
  IF _user IS NOT NULL THEN
    RAISE WARNING 'steps of other flows start flow "%" and will fail: %', _flow, _user;
  END IF;
  DELETE FROM flow.configured c WHERE c.flow = _flow;
END
$$;
COMMENT ON FUNCTION flow.drop_flow_as IS 'Internal: flow.drop_flow with the caller''s role.';

-- flow/runs.sql
-- Runs: starting, cancelling, changing priority, waiting.

-- Reads a run that _caller may act for, locked FOR UPDATE where asked; raises otherwise.
CREATE FUNCTION flow.require_run(_caller OID, _flow_id BIGINT, _lock BOOL) RETURNS flow.flow
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _run flow.flow;
BEGIN
  SELECT * INTO _run FROM flow.flow f WHERE f.flow_id = _flow_id;
  IF NOT FOUND THEN
    RAISE undefined_object USING
      MESSAGE = format('run %s does not exist', coalesce(_flow_id::TEXT, 'NULL')),
      HINT = 'flow.v_flow_status lists the runs; finished ones are purged after a while.';
  ELSIF pg_get_userbyid(_caller) <> _run.run_as AND NOT async.may_act(_caller, _run.run_as) THEN
    RAISE insufficient_privilege USING
      MESSAGE = format('permission denied for run %s', _flow_id),
      DETAIL = format('The run belongs to role "%s".', _run.run_as),
      HINT = 'Become a member of that role, or ask a member of flow_admin.';
  END IF;
  IF _lock THEN
    SELECT * INTO _run FROM flow.flow f WHERE f.flow_id = _flow_id FOR UPDATE;
    IF NOT FOUND THEN
      RAISE undefined_object USING
        MESSAGE = format('run %s does not exist', _flow_id), DETAIL = 'It has just been purged.';
    END IF;
  END IF;
  RETURN _run;
END
$$;
COMMENT ON FUNCTION flow.require_run IS
  'Internal: reads a run, locked if asked; raises undefined_object, or insufficient_privilege unless the role (OID) '
  'may act for it.';

-- Raises unless the targets of the selected nodes (null: all) exist and _run_as may execute their local routines now.
CREATE FUNCTION flow.require_runnable(_definition_id BIGINT, _run_as NAME, _selected INT[]) RETURNS VOID
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _wrong RECORD;
BEGIN
  SELECT n.node, n.target INTO _wrong
  FROM flow.definition_node n
  LEFT JOIN async.target t ON t.target = n.target
  WHERE n.definition_id = _definition_id AND n.target IS NOT NULL AND t.target IS NULL
    AND async.target_name(n.target) IS NULL AND (_selected IS NULL OR n.node_no IN (SELECT unnest(_selected)))
  ORDER BY n.node_no LIMIT 1;
  IF FOUND THEN
    RAISE undefined_object USING
      MESSAGE = format('target "%s" does not exist', _wrong.target),
      DETAIL = format('Node "%s" runs on it.', _wrong.node),
      HINT = 'Define the target with async.configure, or configure the flow again with another one.';
  END IF;

  -- Routines are resolved for local targets only, functions that make queries for all.
  SELECT r.*, to_regprocedure(r.routine || '(flow.callback_arguments_t)') IS NULL AS missing INTO _wrong
  FROM (
    SELECT u.routine, min(n.node) AS node, min(u.kind) AS kind
    FROM flow.definition_node n
    CROSS JOIN LATERAL (
      VALUES (n.routine_resolved, 'procedure'), (n.step_routine_resolved, 'procedure'),
             (n.query_routine_resolved, 'function')) u(routine, kind)
    WHERE n.definition_id = _definition_id AND u.routine IS NOT NULL
      AND (_selected IS NULL OR n.node_no IN (SELECT unnest(_selected)))
    GROUP BY u.routine) r
  LEFT JOIN pg_proc p ON p.oid = to_regprocedure(r.routine || '(flow.callback_arguments_t)')
  WHERE p.oid IS NULL OR NOT has_function_privilege(_run_as, p.oid, 'EXECUTE')
    OR NOT has_schema_privilege(_run_as, p.pronamespace, 'USAGE')
  ORDER BY r.node LIMIT 1;
  IF NOT FOUND THEN
    RETURN;
  ELSIF _wrong.missing THEN
    RAISE undefined_function USING
      MESSAGE = format('%s %s(flow.callback_arguments_t) does not exist', _wrong.kind, _wrong.routine),
      DETAIL = format('Node "%s" calls it. It existed when the flow was configured.', _wrong.node),
      HINT = 'Create it, or configure the flow again.';
  END IF;
  RAISE insufficient_privilege USING
    MESSAGE = format('permission denied for %s %s', _wrong.kind, _wrong.routine),
    DETAIL = format('Node "%s" calls it as role "%s".', _wrong.node, _run_as),
    HINT = format('GRANT EXECUTE ON %s %s(flow.callback_arguments_t) TO %I, and USAGE on its schema.',
      upper(_wrong.kind), _wrong.routine, _run_as);
END
$$;
COMMENT ON FUNCTION flow.require_runnable IS
  'Internal: raises unless the targets of the selected nodes (null: all) exist and the role may execute their local '
  'routines.';

-- The run whose step starts this one (steps_to_flow), and how deep that makes it. NULL and 0 for none.
CREATE FUNCTION flow.parent_of(
  _caller OID, _parent_task_id BIGINT, OUT parent_flow_id BIGINT, OUT depth INT, OUT force_priority INT)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _task RECORD;
  _run  flow.flow;
  _max  BIGINT := coalesce(async.setting('pgflow.max_flow_depth'), 16);
BEGIN
  depth := 0;
  SELECT t.flow_id, t.run_as, t.processed, t.xmin = pg_current_xact_id_if_assigned()::xid AS ours INTO _task
  FROM async.task t WHERE t.task_id = _parent_task_id;
  IF NOT FOUND THEN
    RAISE undefined_object USING MESSAGE = format('task %s does not exist', _parent_task_id);
  ELSIF NOT async.may_act(_caller, _task.run_as) THEN
    RAISE insufficient_privilege USING
      MESSAGE = format('permission denied for task %s', _parent_task_id),
      DETAIL = format('The task belongs to role "%s".', _task.run_as);
  END IF;
  IF _task.flow_id IS NOT NULL THEN
    -- Whoever cancels the parent looks for its children with the run locked. A worker that starts a child has written
    -- its own task before and needs no lock: if the parent is cancelled, this transaction goes or is waited for.
    IF NOT (coalesce(_task.ours, false) OR async.is_own_task(_parent_task_id)) THEN
      PERFORM FROM flow.flow f WHERE f.flow_id = _task.flow_id FOR KEY SHARE;
    END IF;
    SELECT * INTO _run FROM flow.flow f WHERE f.flow_id = _task.flow_id;
    parent_flow_id := _run.flow_id;
    depth := coalesce(_run.depth, 0) + 1;
    force_priority := _run.force_priority;
  END IF;
  IF _task.processed IS NOT NULL OR _run.processed IS NOT NULL THEN
    RAISE object_not_in_prerequisite_state USING
      MESSAGE = format('task %s has ended and cannot start a run', _parent_task_id);
  ELSIF depth > _max THEN
    RAISE program_limit_exceeded USING
      MESSAGE = format('flows start flows more than %s levels deep', _max),
      DETAIL = format('Task %s of run %s is at level %s.', _parent_task_id, parent_flow_id, depth - 1),
      HINT = 'Look for a flow whose steps_to_flow leads back to itself, or raise pgflow.max_flow_depth.';
  END IF;
END
$$;
COMMENT ON FUNCTION flow.parent_of IS
  'Internal: the run, depth and priority that a run gets from the task that starts it. Raises when that task or its '
  'run has ended, or program_limit_exceeded.';

-- The numbers of the nodes that only_these_nodes names, extended. Null: all.
CREATE FUNCTION flow.selected_nodes(
  _definition_id BIGINT, _flow TEXT, _only TEXT[], _add_parents BOOL, _add_children BOOL) RETURNS INT[]
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _selected INT[];
  _unknown  TEXT;
BEGIN
  IF _only IS NULL THEN
    RETURN NULL;
  END IF;
  SELECT array_agg(n.node_no) FILTER (WHERE n.node_no IS NOT NULL),
         string_agg(format('"%s"', o.node), ', ' ORDER BY o.node) FILTER (WHERE n.node_no IS NULL)
  INTO _selected, _unknown
  FROM (SELECT DISTINCT unnest(_only) AS node) o
  LEFT JOIN LATERAL (
    SELECT d.node_no FROM flow.definition_node d
    WHERE d.definition_id = _definition_id AND d.node = o.node OFFSET 0) n ON true;
  IF _unknown IS NOT NULL THEN
    RAISE undefined_object USING
      MESSAGE = format('flow "%s" has no node %s', _flow, _unknown),
      DETAIL = 'In _only_these_nodes.',
      HINT = format('Its nodes are %s.', (
        SELECT string_agg(format('"%s"', s.node), ', ') || CASE WHEN count(*) = 20 THEN ', …' ELSE '' END
        FROM (SELECT n.node FROM flow.definition_node n WHERE n.definition_id = _definition_id
              ORDER BY n.node_no LIMIT 20) s));
  END IF;
  RETURN flow.extend_selection(
    _definition_id, coalesce(_selected, '{}'), coalesce(_add_parents, false), coalesce(_add_children, false));
END
$$;
COMMENT ON FUNCTION flow.selected_nodes IS
  'Internal: the node numbers that _only_these_nodes means, extended; null: all. Raises undefined_object for an '
  'unknown name.';

CREATE FUNCTION flow.run_flow(
  _flow TEXT, _arguments JSONB, _only_these_nodes TEXT[] DEFAULT NULL, _add_parents BOOL DEFAULT FALSE,
  _add_children BOOL DEFAULT FALSE, _parent_task_id BIGINT DEFAULT NULL, _force_priority INT DEFAULT NULL,
  OUT flow_id BIGINT)
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'as_owner';
COMMENT ON FUNCTION flow.run_flow IS
  'Starts a run of a configured flow and returns its flow_id. It begins when the transaction commits and runs as '
  'the role that calls this (or the flow''s run_as). _arguments: JSON for the callbacks, null: {}; '
  '_only_these_nodes: the others count as finished without running; _add_parents, _add_children: with all their '
  'ancestors, descendants; _parent_task_id: the task that starts it, which ends when the run does; _force_priority: '
  '-99 to 99, of all its tasks, lower first. Raises undefined_object (flow, node, target), undefined_function, '
  'insufficient_privilege, program_limit_exceeded (pgflow.max_flow_depth), object_not_in_prerequisite_state (the '
  'library is not preloaded).';

CREATE FUNCTION flow.create_flow(
  _flow TEXT, _arguments JSONB, _only_these_nodes TEXT[] DEFAULT NULL, _add_parents BOOL DEFAULT FALSE,
  _add_children BOOL DEFAULT FALSE, _parent_task_id BIGINT DEFAULT NULL, _force_priority INT DEFAULT NULL,
  OUT flow_id BIGINT)
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'as_owner';
COMMENT ON FUNCTION flow.create_flow IS 'The same as flow.run_flow, under its newer name.';

CREATE FUNCTION flow.run_flow_as(
  _caller OID, _flow TEXT, _arguments JSONB, _only_these_nodes TEXT[], _add_parents BOOL, _add_children BOOL,
  _parent_task_id BIGINT, _force_priority INT) RETURNS BIGINT
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _configured RECORD;
  _run_as     NAME := pg_get_userbyid(_caller);
  _parent     RECORD;
  _selected   INT[];
  _flow_id    BIGINT;
  _count      INT;
BEGIN
  PERFORM async.require_engine();
  PERFORM async.require_no_client();
  SELECT c.definition_id, c.owner, d.run_as INTO _configured
  FROM flow.configured c JOIN flow.definition d USING (definition_id) WHERE c.flow = _flow;
  IF NOT FOUND THEN
    RAISE undefined_object USING
      MESSAGE = format('flow "%s" is not configured', _flow),
      HINT = 'Configure it with flow.configure_flow; the configured flows are in flow.flow_configuration.';
  ELSIF _configured.run_as IS NOT NULL THEN
    IF NOT (async.may_act(_caller, _configured.run_as) OR async.may_act(_caller, _configured.owner)) THEN
      RAISE insufficient_privilege USING
        MESSAGE = format('permission denied for flow "%s"', _flow),
        DETAIL = format('It runs as role "%s" and belongs to role "%s".', _configured.run_as, _configured.owner),
        HINT = 'Become a member of one of them, or ask a member of flow_admin.';
    END IF;
    _run_as := _configured.run_as;
  END IF;
  IF _force_priority NOT BETWEEN -99 AND 99 THEN
    RAISE invalid_parameter_value USING MESSAGE = format('priority %s is not between -99 and 99', _force_priority);
  END IF;
  PERFORM async.require_runnable_role(_run_as);
  IF _parent_task_id IS NOT NULL THEN
    _parent := flow.parent_of(_caller, _parent_task_id);
  ELSE
    SELECT NULL::BIGINT AS parent_flow_id, 0 AS depth, NULL::INT AS force_priority INTO _parent;
  END IF;
  _selected := flow.selected_nodes(
    _configured.definition_id, _flow, _only_these_nodes, _add_parents, _add_children);
  PERFORM flow.require_runnable(_configured.definition_id, _run_as, _selected);

  _flow_id := nextval('flow.flow_id_seq');
  INSERT INTO flow.flow_node (flow_id, node_no, node, parents_open, excluded)
  SELECT _flow_id, n.node_no, n.node, n.count_parents,
    _selected IS NOT NULL AND n.node_no NOT IN (SELECT unnest(_selected))
  FROM flow.definition_node n
  WHERE n.definition_id = _configured.definition_id
  ORDER BY n.node_no;
  GET DIAGNOSTICS _count = ROW_COUNT;
  -- Keeps the version from being purged until the run is there for all to see.
  PERFORM FROM flow.definition d WHERE d.definition_id = _configured.definition_id FOR KEY SHARE;
  IF NOT FOUND THEN
    RAISE serialization_failure USING
      MESSAGE = format('flow "%s" was configured anew at this very moment', _flow), HINT = 'Run it again.';
  END IF;
  INSERT INTO flow.flow (
    flow_id, flow, definition_id, run_as, arguments, parent_task_id, parent_flow_id, depth, force_priority, count_nodes,
    only_these_nodes)
  VALUES (
    _flow_id, _flow, _configured.definition_id, _run_as, coalesce(_arguments, '{}'), _parent_task_id,
    _parent.parent_flow_id, _parent.depth, coalesce(_force_priority, _parent.force_priority), _count,
    CASE WHEN _selected IS NOT NULL THEN ARRAY(
      SELECT n.node FROM flow.flow_node n WHERE n.flow_id = _flow_id AND NOT n.excluded ORDER BY n.node_no) END);
  PERFORM flow.start_run(_flow_id);
  RETURN _flow_id;
END
$$;
COMMENT ON FUNCTION flow.run_flow_as IS 'Internal: flow.run_flow with the caller''s role.';

CREATE FUNCTION flow.create_flow_as(
  _caller OID, _flow TEXT, _arguments JSONB, _only_these_nodes TEXT[], _add_parents BOOL, _add_children BOOL,
  _parent_task_id BIGINT, _force_priority INT) RETURNS BIGINT
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
  SELECT flow.run_flow_as(
    _caller, _flow, _arguments, _only_these_nodes, _add_parents, _add_children, _parent_task_id, _force_priority);
$$;
COMMENT ON FUNCTION flow.create_flow_as IS 'Internal: flow.create_flow with the caller''s role.';

CREATE FUNCTION flow.cancel(_flow_id BIGINT) RETURNS VOID LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'as_owner';
COMMENT ON FUNCTION flow.cancel IS
  'Cancels a run and the runs that its steps started: open tasks become CANCELED, running statements are stopped '
  'when the transaction commits. A run that has ended: a NOTICE. Raises undefined_object, insufficient_privilege.';

CREATE FUNCTION flow.cancel_as(_caller OID, _flow_id BIGINT) RETURNS VOID
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _run    flow.flow;
  _reason TEXT := format('cancelled by %s', pg_get_userbyid(_caller));
  _level  BIGINT[] := ARRAY[_flow_id];
  _all    BIGINT[] := '{}';
BEGIN
  IF async.is_client_as(_caller) THEN
    PERFORM async.ask_cancel_run(_flow_id);
    RETURN;
  END IF;
  _run := flow.require_run(_caller, _flow_id, true);
  IF _run.processed IS NOT NULL THEN
    RAISE NOTICE 'run % has ended already', _flow_id;
    RETURN;
  END IF;
  -- Level by level, parents before children: ends with the depth of the nesting, which is limited.
  WHILE _level IS NOT NULL LOOP
    PERFORM flow.end_runs(_level, _reason);
    PERFORM flow.end_run_tasks(_level, _reason);
    _all := _all || _level;
    SELECT array_agg(c.flow_id) INTO _level
    FROM (SELECT f.flow_id FROM flow.flow f WHERE f.parent_flow_id = ANY (_all) AND f.processed IS NULL
          ORDER BY f.flow_id FOR UPDATE) c;
  END LOOP;
  PERFORM async.announce_run(u.flow_id) FROM unnest(_all) AS u(flow_id);

  IF _run.parent_task_id IS NOT NULL THEN
    UPDATE async.task t
    SET processed = clock_timestamp(), finish_status = 'FAILED', failed = true,
      processing_error = format('child flow %s was cancelled', _flow_id)
    WHERE t.task_id = _run.parent_task_id AND t.processed IS NULL;
    IF FOUND THEN
      PERFORM async.announce_ended(ARRAY[_run.parent_task_id]);
    END IF;
  END IF;
END
$$;
COMMENT ON FUNCTION flow.cancel_as IS 'Internal: flow.cancel with the caller''s role.';

-- For the dispatcher: cancels a run and its children without waiting for anybody. False: a client has the run locked and
-- nothing was done. Tasks that are locked are left to whoever has them.
CREATE FUNCTION flow.cancel_run(_flow_id BIGINT, _reason TEXT) RETURNS BOOL
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _child BIGINT;
BEGIN
  PERFORM FROM flow.flow f WHERE f.flow_id = _flow_id AND f.processed IS NULL FOR UPDATE SKIP LOCKED;
  IF NOT FOUND THEN
    RETURN EXISTS (SELECT FROM flow.flow f WHERE f.flow_id = _flow_id AND f.processed IS NOT NULL);
  END IF;
  PERFORM flow.end_runs(ARRAY[_flow_id], _reason);
  PERFORM async.end_tasks(flow.open_tasks(ARRAY[_flow_id]), 'CANCELED'::async.finish_status_t, _reason);
  PERFORM async.announce_run(_flow_id);
  FOR _child IN
    SELECT f.flow_id FROM flow.flow f WHERE f.parent_flow_id = _flow_id AND f.processed IS NULL ORDER BY f.flow_id
  LOOP
    PERFORM flow.cancel_run(_child, _reason);
  END LOOP;
  RETURN true;
END
$$;
COMMENT ON FUNCTION flow.cancel_run IS
  'Internal: for the dispatcher, cancels a run and its children without waiting for locks; false: the run is '
  'locked, nothing was done.';

-- Ends open runs and their nodes. The runs are locked. Does not wait for those who push steps to a node just now: what
-- they push to a node that has ended is dropped by the dispatcher.
CREATE FUNCTION flow.end_runs(_flow_ids BIGINT[], _reason TEXT) RETURNS VOID
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _now TIMESTAMPTZ := clock_timestamp();
BEGIN
  PERFORM FROM flow.flow_node n WHERE n.flow_id = ANY (_flow_ids) AND n.state::"char" IN ('W', 'O', 'S')
  ORDER BY n.flow_id, n.node_no FOR NO KEY UPDATE;
  WITH ended AS (
    UPDATE flow.flow_node n
    SET state = CASE WHEN n.excluded THEN 'N' ELSE 'C' END, ended = _now, times_up = NULL,
      error = CASE WHEN NOT n.excluded THEN _reason END
    WHERE n.flow_id = ANY (_flow_ids) AND n.state::"char" IN ('W', 'O', 'S')
    RETURNING n.flow_id, n.excluded
  ), counted AS (
    SELECT e.flow_id, count(*) AS ended, count(*) FILTER (WHERE NOT e.excluded) AS failed FROM ended e GROUP BY e.flow_id
  )
  UPDATE flow.flow f
  SET processed = _now, cancelled = true, count_finished_nodes = f.count_finished_nodes + coalesce(c.ended, 0),
    count_failed_nodes = f.count_failed_nodes + coalesce(c.failed, 0), first_error = coalesce(f.first_error, _reason)
  FROM unnest(_flow_ids) AS u(flow_id) LEFT JOIN counted c USING (flow_id)
  WHERE f.flow_id = u.flow_id AND f.flow_id = ANY (_flow_ids);
END
$$;
COMMENT ON FUNCTION flow.end_runs IS 'Internal: ends locked open runs and their open nodes as cancelled.';

-- The open tasks of runs. Not the one that the caller is the callback of: it decides its outcome by itself.
-- OFFSET 0, here and elsewhere: looked up by key, whatever the planner believes. Statistics lag behind bursts of work, and
-- a join that seems to be of one row each must not turn out to be of a million by a million.
CREATE FUNCTION flow.open_tasks(_flow_ids BIGINT[]) RETURNS BIGINT[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT coalesce(array_agg(k.task_id ORDER BY k.task_id), '{}')
  FROM (
    SELECT n.task_id FROM flow.flow_node n WHERE n.flow_id = ANY (_flow_ids) AND n.task_id IS NOT NULL
    UNION ALL
    SELECT s.task_id FROM flow.flow_step s WHERE s.flow_id = ANY (_flow_ids)) k
  CROSS JOIN LATERAL (SELECT t.processed FROM async.task t WHERE t.task_id = k.task_id OFFSET 0) t
  WHERE t.processed IS NULL AND NOT async.is_own_task(k.task_id);
$$;
COMMENT ON FUNCTION flow.open_tasks IS
  'Internal: the open tasks of runs, ascending, without the caller''s own running task.';

-- Ends the open tasks of runs; waits for those whose outcome is being written. In pieces, each with a look of its own:
-- workers go on ending tasks meanwhile, and a row that has changed since the look costs a check of the whole condition.
CREATE FUNCTION flow.end_run_tasks(_flow_ids BIGINT[], _reason TEXT) RETURNS VOID
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _open    BIGINT[] := flow.open_tasks(_flow_ids);
  _running BIGINT[];
  _started TIMESTAMPTZ[];
  _piece   BIGINT[];
BEGIN
  SELECT array_agg(r.task_id), array_agg(r.started) INTO _running, _started FROM async.running() r;
  FOR _at IN 1 .. cardinality(_open) BY 1000 LOOP
    _piece := _open[_at : _at + 999];
    PERFORM FROM async.task t WHERE t.task_id = ANY (_piece) AND t.processed IS NULL
    ORDER BY t.task_id FOR NO KEY UPDATE;
    UPDATE async.task t
    SET processed = clock_timestamp(), finish_status = 'CANCELED', failed = true, processing_error = _reason,
      consumed = coalesce(_started[array_position(_running, t.task_id)], t.consumed),
      first_consumed = coalesce(t.first_consumed, _started[array_position(_running, t.task_id)]),
      attempt = t.attempt + (array_position(_running, t.task_id) IS NOT NULL)::INT
    WHERE t.task_id = ANY (_piece) AND t.processed IS NULL;
    PERFORM flow.unqueue(_piece, NULL);
  END LOOP;
END
$$;
COMMENT ON FUNCTION flow.end_run_tasks IS 'Internal: ends the open tasks of runs as CANCELED.';

-- Takes those of the tasks that clients could take from their queue, or (_priority given) moves them in it.
CREATE FUNCTION flow.unqueue(_task_ids BIGINT[], _priority INT) RETURNS VOID
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _place RECORD;
BEGIN
  FOR _place IN
    SELECT t.target, t.priority, array_agg(t.task_id) AS task_ids FROM async.task t
    WHERE t.task_id = ANY (_task_ids) AND t.target IN (SELECT g.target FROM async.target g WHERE g.kind = 'external')
    GROUP BY t.target, t.priority
  LOOP
    IF _priority IS NULL THEN
      DELETE FROM async.external_queue q
      WHERE q.target = _place.target AND q.priority = _place.priority AND q.task_id = ANY (_place.task_ids);
    ELSE
      UPDATE async.external_queue q SET priority = _priority
      WHERE q.target = _place.target AND q.priority = _place.priority AND q.task_id = ANY (_place.task_ids);
    END IF;
  END LOOP;
END
$$;
COMMENT ON FUNCTION flow.unqueue IS
  'Internal: takes tasks of external targets from async.external_queue, or gives them another priority in it.';

CREATE FUNCTION flow.set_priority(_flow_id BIGINT, _priority flow.flow_priority_t) RETURNS VOID
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'as_owner';
COMMENT ON FUNCTION flow.set_priority IS
  'Gives all tasks of an open run and of the runs its steps started a priority: -99 to 99, lower first; null: what '
  'is configured. Waiting tasks follow when the transaction commits. A run that has ended: a NOTICE.';

CREATE FUNCTION flow.set_priority_as(_caller OID, _flow_id BIGINT, _priority flow.flow_priority_t) RETURNS VOID
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _run   flow.flow := flow.require_run(_caller, _flow_id, true);
  _level BIGINT[] := ARRAY[_flow_id];
BEGIN
  IF _run.processed IS NOT NULL THEN
    RAISE NOTICE 'run % has ended already', _flow_id;
    RETURN;
  END IF;
  WHILE _level IS NOT NULL LOOP
    PERFORM flow.prioritize_runs(_level, _priority);
    SELECT array_agg(c.flow_id) INTO _level
    FROM (SELECT f.flow_id FROM flow.flow f WHERE f.parent_flow_id = ANY (_level) AND f.processed IS NULL
          ORDER BY f.flow_id FOR UPDATE) c;
  END LOOP;
END
$$;
COMMENT ON FUNCTION flow.set_priority_as IS 'Internal: flow.set_priority with the caller''s role.';

-- Gives locked runs a priority; null: the configured ones again. In pieces, as flow.end_run_tasks.
CREATE FUNCTION flow.prioritize_runs(_flow_ids BIGINT[], _priority INT) RETURNS VOID
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _open   BIGINT[];
  _piece  BIGINT[];
  _wanted RECORD;
BEGIN
  UPDATE flow.flow f SET force_priority = _priority WHERE f.flow_id = ANY (_flow_ids);
  -- The rows of running tasks are left alone: a callback under REPEATABLE READ could not write its outcome any more.
  _open := array(SELECT o FROM unnest(flow.open_tasks(_flow_ids)) o WHERE o NOT IN (SELECT r.task_id FROM async.running() r));
  FOR _at IN 1 .. cardinality(_open) BY 1000 LOOP
    _piece := _open[_at : _at + 999];
    PERFORM FROM async.task t WHERE t.task_id = ANY (_piece) AND t.processed IS NULL
    ORDER BY t.task_id FOR NO KEY UPDATE;
    FOR _wanted IN
      SELECT w.priority, array_agg(t.task_id) AS task_ids
      FROM async.task t
      CROSS JOIN LATERAL (
        SELECT coalesce(_priority, d.priority) AS priority
        FROM flow.flow f
        CROSS JOIN LATERAL (SELECT x.priority FROM flow.definition_node x
          WHERE x.definition_id = f.definition_id AND x.node_no = t.node_no OFFSET 0) d
        WHERE f.flow_id = t.flow_id OFFSET 0) w
      WHERE t.task_id = ANY (_piece) AND t.processed IS NULL AND t.priority <> w.priority
      GROUP BY w.priority
    LOOP
      PERFORM flow.unqueue(_wanted.task_ids, _wanted.priority);
      UPDATE async.task t SET priority = _wanted.priority WHERE t.task_id = ANY (_wanted.task_ids);
    END LOOP;
  END LOOP;
  PERFORM async.announce_run(u.flow_id) FROM unnest(_flow_ids) AS u(flow_id);
END
$$;
COMMENT ON FUNCTION flow.prioritize_runs IS
  'Internal: gives locked runs and their open tasks a priority; null: what is configured.';

CREATE FUNCTION flow.set_step_priority(_flow_id BIGINT, _task_id BIGINT, _priority flow.flow_priority_t) RETURNS VOID
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'as_owner';
COMMENT ON FUNCTION flow.set_step_priority IS
  'Gives one open task of a run a priority (-99 to 99, lower first), and the run that it started. Raises '
  'undefined_object when the run has no such task; a task that has ended: a NOTICE.';

CREATE FUNCTION flow.set_step_priority_as(
  _caller OID, _flow_id BIGINT, _task_id BIGINT, _priority flow.flow_priority_t) RETURNS VOID
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _run   flow.flow := flow.require_run(_caller, _flow_id, true);
  _task  async.task;
BEGIN
  SELECT * INTO _task FROM async.task t WHERE t.task_id = _task_id AND t.flow_id = _flow_id FOR NO KEY UPDATE;
  IF NOT FOUND THEN
    RAISE undefined_object USING
      MESSAGE = format('run %s has no task %s', _flow_id, _task_id),
      HINT = 'flow.v_flow_task_status lists the tasks of a run.';
  ELSIF _priority IS NULL THEN
    RAISE null_value_not_allowed USING MESSAGE = 'a priority is needed';
  ELSIF _task.processed IS NOT NULL THEN
    RAISE NOTICE 'task % has ended already', _task_id;
    RETURN;
  END IF;
  PERFORM flow.unqueue(ARRAY[_task_id], _priority);
  UPDATE async.task t SET priority = _priority WHERE t.task_id = _task_id;
  PERFORM async.announce_run(_flow_id);
  PERFORM flow.set_priority_as(_caller, f.flow_id, _priority)
  FROM flow.flow f WHERE f.parent_flow_id = _flow_id AND f.parent_task_id = _task_id AND f.processed IS NULL;
END
$$;
COMMENT ON FUNCTION flow.set_step_priority_as IS 'Internal: flow.set_step_priority with the caller''s role.';

-- flow/steps.sql
-- Steps: pushing them; and what a callback says about its own task: finished, put off, how far it is. The procedures that
-- callbacks call are in client/calls.sql; they come here unless this database is a client.

CREATE FUNCTION flow.push_steps_as(
  _caller OID, _flow_id BIGINT, _node TEXT, _arguments JSONB[]) RETURNS VOID
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _run     flow.flow := flow.require_run(_caller, _flow_id, false);
  _node_no INT := flow.node_number(_run.definition_id, _node);
  _at      RECORD;
  _pushed  RECORD;
BEGIN
  IF _node_no IS NULL THEN
    RAISE undefined_object USING
      MESSAGE = format('run %s of flow "%s" has no node "%s"', _flow_id, _run.flow, _node),
      HINT = format('Its nodes are %s.', (
        SELECT string_agg(format('"%s"', s.node), ', ') || CASE WHEN count(*) = 20 THEN ', …' ELSE '' END
        FROM (SELECT n.node FROM flow.definition_node n WHERE n.definition_id = _run.definition_id
              ORDER BY n.node_no LIMIT 20) s));
  END IF;
  PERFORM flow.check_steps(_arguments);
  IF coalesce(cardinality(_arguments), 0) = 0 THEN
    RETURN;
  END IF;

  -- With this lock held the node cannot end; the dispatcher does not wait for it, so it must be told when it is gone.
  SELECT n.state::"char" AS state, n.excluded INTO _at
  FROM flow.flow_node n WHERE n.flow_id = _flow_id AND n.node_no = _node_no FOR KEY SHARE;
  PERFORM async.announce_node(_flow_id, _node_no);
  IF _at.excluded THEN
    RAISE object_not_in_prerequisite_state USING
      MESSAGE = format('node "%s" takes no part in run %s', _node, _flow_id),
      DETAIL = 'The run was started with _only_these_nodes, and this node is not among them.';
  ELSIF _at.state NOT IN ('W', 'O', 'S') OR _run.processed IS NOT NULL THEN
    RAISE object_not_in_prerequisite_state USING
      MESSAGE = format('node "%s" of run %s has ended', _node, _flow_id),
      DETAIL = 'A node takes steps until its own task and all its steps have ended.',
      HINT = 'Push steps from the node''s callback or from one of its steps, or run the node again with flow.restart_flow.';
  END IF;

  _pushed := flow.insert_steps(_flow_id, _node_no, _arguments, _at.state = 'W');
  IF _pushed.inserted > 0 THEN
    PERFORM async.announce_tasks(_pushed.task_low, _pushed.task_high, _flow_id, _node_no);
  END IF;
END
$$;
COMMENT ON FUNCTION flow.push_steps_as IS 'Internal: flow.push_steps of this database''s runs, with the caller''s role.';

-- The number of a node in a version. Null: there is none of that name.
CREATE FUNCTION flow.node_number(_definition_id BIGINT, _node TEXT) RETURNS INT
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT n.node_no FROM flow.definition_node n WHERE n.definition_id = _definition_id AND n.node = _node;
$$;
COMMENT ON FUNCTION flow.node_number IS
  'Internal: the number of a node in a version; null: there is none of that name.';

-- Raises for the first thing that is no step: a step is an object that is not empty.
CREATE FUNCTION flow.check_steps(_arguments JSONB[]) RETURNS VOID
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _bad RECORD;
BEGIN
  SELECT a.arguments, a.at INTO _bad
  FROM unnest(_arguments) WITH ORDINALITY AS a(arguments, at)
  WHERE a.arguments IS NULL OR a.arguments = '{}' OR jsonb_typeof(a.arguments) <> 'object'
  LIMIT 1;
  IF FOUND THEN
    RAISE invalid_parameter_value USING
      MESSAGE = format('element %s of the steps is %s, not an object with arguments', _bad.at, CASE
        WHEN _bad.arguments IS NULL THEN 'NULL'
        WHEN _bad.arguments = '{}' THEN 'the empty object'
        ELSE format('a JSON %s', jsonb_typeof(_bad.arguments)) END),
      DETAIL = 'A step is identified by its arguments; empty ones stand for the node''s own task.',
      HINT = 'Give every step at least one argument, such as {"id": 1}.';
  END IF;
END
$$;
COMMENT ON FUNCTION flow.check_steps IS
  'Internal: raises invalid_parameter_value for the first element that is no step.';

-- What the tasks of one node of a run have in common.
CREATE TYPE flow.task_form_t AS (
  target TEXT, priority INT, run_as NAME, asynchronous_finish BOOL, track_yielded BOOL, on_partial_fail BOOL,
  concurrency_pool TEXT, manual_timeout INTERVAL);
COMMENT ON TYPE flow.task_form_t IS 'Internal: what the tasks of one node of a run have in common.';

CREATE FUNCTION flow.task_form(_flow_id BIGINT, _node_no INT, _is_step BOOL) RETURNS flow.task_form_t
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT
    CASE
      -- A step that starts a flow starts it here.
      WHEN _is_step AND n.steps_to_flow IS NOT NULL AND t.kind IS DISTINCT FROM 'local' THEN 'local'
      ELSE coalesce(t.target, async.target_name(n.target), n.target) END,
    coalesce(f.force_priority, n.priority),
    f.run_as,
    coalesce(t.asynchronous_finish, false) AND NOT n.synchronous,
    coalesce(t.concurrency_track_yielded, false),
    n.on_partial_fail,
    coalesce(r.concurrency_pool, CASE WHEN d.concurrency_group_routine IS NOT NULL THEN '' END),
    CASE WHEN _is_step THEN n.step_timeout ELSE n.node_timeout END
  FROM flow.flow f
  CROSS JOIN LATERAL (
    SELECT x.concurrency_group_routine FROM flow.definition x WHERE x.definition_id = f.definition_id OFFSET 0) d
  CROSS JOIN LATERAL (
    SELECT x.* FROM flow.definition_node x WHERE x.definition_id = f.definition_id AND x.node_no = _node_no OFFSET 0) n
  CROSS JOIN LATERAL (
    SELECT x.concurrency_pool FROM flow.flow_node x WHERE x.flow_id = _flow_id AND x.node_no = _node_no OFFSET 0) r
  LEFT JOIN async.target t ON t.target = CASE WHEN n.options ? 'tier' THEN async.tier_target(n.target, n.options->>'tier')
                                              ELSE coalesce(n.target, 'local') END
  WHERE f.flow_id = _flow_id;
$$;
COMMENT ON FUNCTION flow.task_form IS
  'Internal: what the tasks of one node of a run have in common; _is_step: of its steps, else of its own task.';

-- Adds those of the steps that the node does not have yet, in the order given. _held: the node has not opened; they wait.
-- task_low and task_high are NULL when nothing was new. The caller has locked the node and announces the tasks.
CREATE FUNCTION flow.insert_steps(
  _flow_id BIGINT, _node_no INT, _arguments JSONB[], _held BOOL,
  OUT task_low BIGINT, OUT task_high BIGINT, OUT inserted INT)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _as flow.task_form_t := flow.task_form(_flow_id, _node_no, true);
BEGIN
  -- Steps enter flow_step sorted by hash, so that two sessions that push the same ones wait for each other but never
  -- deadlock. "IS TRUE" keeps the membership test a hashed one, whatever number of steps the planner expects.
  WITH given AS MATERIALIZED (
    SELECT nextval('async.task_id_seq') AS task_id, a.arguments, sha256(convert_to(a.arguments::TEXT, 'UTF8')) AS hash
    FROM unnest(_arguments) AS a(arguments)
  ), new AS (
    INSERT INTO flow.flow_step (flow_id, node_no, task_id, arguments_hash)
    SELECT _flow_id, _node_no, g.task_id, g.hash FROM given g ORDER BY g.hash, g.task_id
    ON CONFLICT DO NOTHING
    RETURNING task_id
  ), tasks AS (
    INSERT INTO async.task (
      task_id, target, priority, run_as, eligible_when, asynchronous_finish, track_yielded, on_partial_fail, is_step,
      flow_id, node_no, concurrency_pool, manual_timeout, source, task_data)
    SELECT g.task_id, _as.target, _as.priority, _as.run_as, CASE WHEN _held THEN 'infinity'::TIMESTAMPTZ END,
      _as.asynchronous_finish, _as.track_yielded, _as.on_partial_fail, true, _flow_id, _node_no, _as.concurrency_pool,
      _as.manual_timeout, 'flow', g.arguments
    FROM given g
    WHERE (g.task_id IN (SELECT n.task_id FROM new n)) IS TRUE
    RETURNING task_id
  )
  SELECT min(t.task_id), max(t.task_id), count(*) INTO task_low, task_high, inserted FROM tasks t;
END
$$;
COMMENT ON FUNCTION flow.insert_steps IS
  'Internal: adds the new ones among these steps to a node and inserts their tasks. _held: they wait for the node '
  'to open. The caller announces task_low to task_high (null: nothing was new).';

CREATE FUNCTION flow.finish_as(
  _caller OID, _args flow.callback_arguments_t, _failed BOOL, _error_message TEXT) RETURNS VOID
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _status TEXT := CASE WHEN coalesce(_failed, false) THEN 'FAILED' ELSE 'FINISHED' END;
BEGIN
  IF NOT flow.require_task(_caller, _args) THEN
    RAISE WARNING 'task % has ended already', _args.task_id USING
      HINT = 'Nothing was changed: the first outcome holds.';
  ELSIF NOT (async.is_own_task(_args.task_id)
      AND async.decide_own(_args.task_id, _status, _error_message, NULL)) THEN
    PERFORM async.finish_as(
      _caller, ARRAY[_args.task_id], _status::async.finish_status_t, _error_message, NULL::INTERVAL);
  END IF;
END
$$;
COMMENT ON FUNCTION flow.finish_as IS 'Internal: flow.finish of this database''s tasks, with the caller''s role.';

CREATE FUNCTION flow.defer_as(_caller OID, _args flow.callback_arguments_t, _duration INTERVAL) RETURNS VOID
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF _duration IS NULL OR _duration < INTERVAL '0' THEN
    RAISE invalid_parameter_value USING
      MESSAGE = format('a task cannot be put off by %s', coalesce(_duration::TEXT, 'NULL')),
      HINT = 'Give an interval of zero or more, such as ''5 minutes''.';
  ELSIF NOT flow.require_task(_caller, _args) THEN
    RAISE WARNING 'task % has ended already', _args.task_id USING
      HINT = 'Nothing was changed: the first outcome holds.';
  ELSIF NOT (async.is_own_task(_args.task_id)
      AND async.decide_own(_args.task_id, 'DEFERRED', NULL, _duration)) THEN
    PERFORM async.defer_as(_caller, ARRAY[_args.task_id], _duration);
  END IF;
END
$$;
COMMENT ON FUNCTION flow.defer_as IS 'Internal: flow.defer of this database''s tasks, with the caller''s role.';

-- Checks that the arguments of a callback belong to one task, and that _caller may act for it. False: it has ended.
CREATE FUNCTION flow.require_task(_caller OID, _args flow.callback_arguments_t) RETURNS BOOL
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _task RECORD;
BEGIN
  SELECT t.processed, t.run_as, t.flow_id, n.node INTO _task
  FROM async.task t
  LEFT JOIN LATERAL (
    SELECT x.node FROM flow.flow_node x WHERE x.flow_id = t.flow_id AND x.node_no = t.node_no OFFSET 0) n ON true
  WHERE t.task_id = _args.task_id;
  IF NOT FOUND THEN
    RAISE undefined_object USING
      MESSAGE = format('task %s does not exist', coalesce(_args.task_id::TEXT, 'NULL')),
      HINT = 'Pass the arguments that the callback was called with.';
  ELSIF pg_get_userbyid(_caller) <> _task.run_as AND NOT async.may_act(_caller, _task.run_as) THEN
    RAISE insufficient_privilege USING
      MESSAGE = format('permission denied for task %s', _args.task_id),
      DETAIL = format('The task belongs to role "%s".', _task.run_as),
      HINT = 'Become a member of that role, or ask a member of flow_admin.';
  ELSIF (_task.flow_id, _task.node) IS DISTINCT FROM (_args.flow_id, _args.node) THEN
    RAISE invalid_parameter_value USING
      MESSAGE = format('these are not the arguments of task %s', _args.task_id),
      DETAIL = format('The task is of %s; the arguments name run %s, node "%s".',
        CASE WHEN _task.flow_id IS NULL THEN 'no run' ELSE format('run %s, node "%s"', _task.flow_id, _task.node) END,
        _args.flow_id, _args.node),
      HINT = 'Pass the arguments that the callback was called with.';
  END IF;
  RETURN _task.processed IS NULL;
END
$$;
COMMENT ON FUNCTION flow.require_task IS
  'Internal: checks that the arguments belong to a task which the role (OID) may act for; false: it has ended.';

CREATE FUNCTION flow.progress(
  _args flow.callback_arguments_t, _done DOUBLE PRECISION, _total DOUBLE PRECISION DEFAULT NULL, _note TEXT DEFAULT NULL)
RETURNS VOID LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'as_owner';
COMMENT ON FUNCTION flow.progress IS
  'Says how far a callback is: _done of _total, in whatever unit it counts, and a note; flow.v_flow_node_status and '
  'flow.watch show it at once, without a commit. Outside the running callback nothing happens.';

-- Only the worker that runs the task has a place to note it; elsewhere (a callback tried out by hand) nothing happens.
CREATE FUNCTION flow.progress_as(
  _caller OID, _args flow.callback_arguments_t, _done DOUBLE PRECISION, _total DOUBLE PRECISION, _note TEXT)
RETURNS VOID LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM async.note_progress(_args.task_id, _done, _total, _note);
END
$$;
COMMENT ON FUNCTION flow.progress_as IS 'Internal: flow.progress with the caller''s role.';

-- flow/restart.sql
-- Running an ended run again, whole, from a node on, or only what failed. The run keeps its number, version and role.

CREATE FUNCTION flow.restart_flow(_flow_id BIGINT, _node TEXT DEFAULT NULL) RETURNS VOID
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'as_owner';
COMMENT ON FUNCTION flow.restart_flow IS
  'Runs an ended run again under its number, version and role: all of it, or _node and all its descendants. What '
  'was pushed to these nodes is forgotten; static steps are not. Raises object_not_in_prerequisite_state while the '
  'run is open, undefined_object, insufficient_privilege.';

CREATE FUNCTION flow.restart_flow_as(_caller OID, _flow_id BIGINT, _node TEXT) RETURNS VOID
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _run   flow.flow := flow.require_ended(_caller, _flow_id);
  _nodes INT[];
BEGIN
  IF _node IS NULL THEN
    _nodes := ARRAY(SELECT n.node_no FROM flow.flow_node n WHERE n.flow_id = _flow_id ORDER BY n.node_no);
  ELSE
    SELECT ARRAY[n.node_no] INTO _nodes
    FROM flow.flow_node n
    WHERE n.flow_id = _flow_id AND n.node_no = flow.node_number(_run.definition_id, _node) AND NOT n.excluded;
    IF NOT FOUND THEN
      RAISE undefined_object USING
        MESSAGE = format('run %s of flow "%s" has no node "%s"', _flow_id, _run.flow, _node),
        DETAIL = CASE WHEN _run.only_these_nodes IS NOT NULL
          THEN 'The run was started with _only_these_nodes; the others take no part in it.'
          ELSE 'A run keeps the version of its flow that it was started with.' END,
        HINT = 'flow.v_flow_node_status lists the nodes of a run.';
    END IF;
    _nodes := flow.extend_selection(_run.definition_id, _nodes, false, true);
  END IF;
  PERFORM flow.reset_nodes(_flow_id, _nodes);
  PERFORM flow.reopen_run(_flow_id);
END
$$;
COMMENT ON FUNCTION flow.restart_flow_as IS 'Internal: flow.restart_flow with the caller''s role.';

CREATE FUNCTION flow.retry_failed(_flow_id BIGINT) RETURNS VOID
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'as_owner';
COMMENT ON FUNCTION flow.retry_failed IS
  'Runs again what failed, timed out, was cancelled or skipped in an ended run, and what depends on it. A node that '
  'only its steps made fail keeps the finished ones and repeats the others. Nothing failed: a NOTICE. Errors as '
  'flow.restart_flow.';

CREATE FUNCTION flow.retry_failed_as(_caller OID, _flow_id BIGINT) RETURNS VOID
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _run     flow.flow := flow.require_ended(_caller, _flow_id);
  _failed  INT[] := ARRAY(
    SELECT n.node_no FROM flow.flow_node n WHERE n.flow_id = _flow_id AND n.state::"char" IN ('E', 'T', 'C', 'K'));
  _below   INT[];
  _resumed INT[];
  _unfinished INT[];
BEGIN
  IF _failed = '{}' THEN
    RAISE NOTICE 'nothing in run % has failed', _flow_id;
    RETURN;
  END IF;
  -- Everything strictly below something that failed runs from its beginning.
  _below := flow.extend_selection(_run.definition_id, ARRAY(
    SELECT DISTINCT e.node_no FROM flow.definition_edge e
    WHERE e.definition_id = _run.definition_id AND (e.parent_no IN (SELECT unnest(_failed))) IS TRUE), false, true);
  -- A node whose own part was done (or that has none) and that only steps made fail goes on with those steps.
  _unfinished := ARRAY(
    SELECT DISTINCT s.node_no
    FROM flow.flow_step s
    CROSS JOIN LATERAL (SELECT x.finish_status FROM async.task x WHERE x.task_id = s.task_id OFFSET 0) t
    WHERE s.flow_id = _flow_id AND t.finish_status IS DISTINCT FROM 'FINISHED');
  _resumed := ARRAY(
    SELECT n.node_no
    FROM flow.flow_node n
    CROSS JOIN LATERAL (SELECT x.empty FROM flow.definition_node x
      WHERE x.definition_id = _run.definition_id AND x.node_no = n.node_no OFFSET 0) d
    LEFT JOIN LATERAL (SELECT x.finish_status FROM async.task x WHERE x.task_id = n.task_id OFFSET 0) t ON true
    WHERE n.flow_id = _flow_id AND n.state::"char" IN ('E', 'T', 'C')
      AND CASE WHEN d.empty THEN n.opened IS NOT NULL ELSE t.finish_status = 'FINISHED' END
      AND (n.node_no IN (SELECT unnest(_unfinished))) IS TRUE AND n.node_no NOT IN (SELECT unnest(_below)));
  PERFORM flow.resume_nodes(_flow_id, _resumed);
  PERFORM flow.reset_nodes(_flow_id, ARRAY(
    SELECT unnest(_failed) UNION SELECT unnest(_below) EXCEPT SELECT unnest(_resumed)));
  PERFORM flow.reopen_run(_flow_id);
END
$$;
COMMENT ON FUNCTION flow.retry_failed_as IS 'Internal: flow.retry_failed with the caller''s role.';

-- Locks a run that is to run again; raises while it is open or cannot run.
CREATE FUNCTION flow.require_ended(_caller OID, _flow_id BIGINT) RETURNS flow.flow
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _run flow.flow := flow.require_run(_caller, _flow_id, true);
BEGIN
  IF _run.processed IS NULL THEN
    RAISE object_not_in_prerequisite_state USING
      MESSAGE = format('run %s of flow "%s" is still open', _flow_id, _run.flow),
      HINT = 'Wait for its end with flow.wait, or end it with flow.cancel; then it can run again.';
  END IF;
  PERFORM async.require_no_client();
  PERFORM async.require_engine();
  PERFORM async.require_runnable_role(_run.run_as);
  PERFORM flow.require_runnable(_run.definition_id, _run.run_as, CASE WHEN _run.only_these_nodes IS NOT NULL THEN ARRAY(
    SELECT n.node_no FROM flow.flow_node n WHERE n.flow_id = _flow_id AND NOT n.excluded) END);
  RETURN _run;
END
$$;
COMMENT ON FUNCTION flow.require_ended IS 'Internal: locks an ended run that can run again; raises otherwise.';

-- Makes nodes wait as if they had never run. Their steps and tasks go; what was logged about the tasks stays.
-- "IS TRUE" keeps the membership tests hashed ones, and no join is left to the planner: see flow.open_tasks.
CREATE FUNCTION flow.reset_nodes(_flow_id BIGINT, _nodes INT[]) RETURNS VOID
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _definition_id BIGINT := (SELECT f.definition_id FROM flow.flow f WHERE f.flow_id = _flow_id);
  _tasks         BIGINT[];
BEGIN
  PERFORM FROM flow.flow_node n
  WHERE n.flow_id = _flow_id AND (n.node_no IN (SELECT unnest(_nodes))) IS TRUE ORDER BY n.node_no FOR UPDATE;

  WITH steps AS (
    DELETE FROM flow.flow_step s
    WHERE s.flow_id = _flow_id AND (s.node_no IN (SELECT unnest(_nodes))) IS TRUE RETURNING s.task_id
  )
  SELECT array_agg(k.task_id ORDER BY k.task_id) INTO _tasks
  FROM (
    SELECT s.task_id FROM steps s
    UNION ALL
    SELECT n.task_id FROM flow.flow_node n
    WHERE n.flow_id = _flow_id AND (n.node_no IN (SELECT unnest(_nodes))) IS TRUE AND n.task_id IS NOT NULL) k;
  FOR _at IN 1 .. coalesce(cardinality(_tasks), 0) BY 1000 LOOP
    DELETE FROM async.task t WHERE t.task_id = ANY (_tasks[_at : _at + 999]);
  END LOOP;

  UPDATE flow.flow_node n
  SET state = 'W', parents_open = 0, blocked_by = NULL, task_id = NULL, concurrency_pool = NULL, opened = NULL,
    ended = NULL, times_up = NULL, error = NULL
  WHERE n.flow_id = _flow_id AND (n.node_no IN (SELECT unnest(_nodes))) IS TRUE;
  -- Of parents that stay as they ended, only the outcome counts.
  WITH parents AS MATERIALIZED (
    SELECT e.node_no, count(*) FILTER (WHERE p.state IN ('W', 'O', 'S')) AS open,
      min(p.node) FILTER (WHERE p.state IN ('E', 'T', 'C', 'K') AND NOT e.continue_on_failure) AS blocked_by
    FROM flow.definition_edge e
    CROSS JOIN LATERAL (SELECT x.node, x.state::"char" AS state FROM flow.flow_node x
      WHERE x.flow_id = _flow_id AND x.node_no = e.parent_no OFFSET 0) p
    WHERE e.definition_id = _definition_id AND (e.node_no IN (SELECT unnest(_nodes))) IS TRUE
    GROUP BY e.node_no
  ), placed AS MATERIALIZED (
    SELECT p.open, p.blocked_by, n.at FROM parents p
    CROSS JOIN LATERAL (SELECT x.ctid AS at FROM flow.flow_node x
      WHERE x.flow_id = _flow_id AND x.node_no = p.node_no OFFSET 0) n
  )
  UPDATE flow.flow_node n SET parents_open = p.open, blocked_by = p.blocked_by FROM placed p WHERE n.ctid = p.at;
END
$$;
COMMENT ON FUNCTION flow.reset_nodes IS
  'Internal: makes nodes of a run wait as if they had never run; their steps and tasks are deleted.';

-- Reopens nodes whose own part is done: their steps that did not finish run again, the others stay as they ended.
CREATE FUNCTION flow.resume_nodes(_flow_id BIGINT, _nodes INT[]) RETURNS VOID
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _definition_id BIGINT := (SELECT f.definition_id FROM flow.flow f WHERE f.flow_id = _flow_id);
  _again         RECORD;
BEGIN
  UPDATE flow.flow_node n
  SET state = 'S', ended = NULL, error = NULL, times_up = clock_timestamp() + (
    SELECT d.node_timeout FROM flow.definition_node d WHERE d.definition_id = _definition_id AND d.node_no = n.node_no)
  WHERE n.flow_id = _flow_id AND (n.node_no IN (SELECT unnest(_nodes))) IS TRUE;

  FOR _again IN
    SELECT s.node_no, array_agg(s.task_id ORDER BY s.task_id) AS task_ids
    FROM flow.flow_step s
    CROSS JOIN LATERAL (SELECT x.finish_status FROM async.task x WHERE x.task_id = s.task_id OFFSET 0) t
    WHERE s.flow_id = _flow_id AND (s.node_no IN (SELECT unnest(_nodes))) IS TRUE
      AND t.finish_status IS DISTINCT FROM 'FINISHED'
    GROUP BY s.node_no
  LOOP
    FOR _at IN 1 .. cardinality(_again.task_ids) BY 1000 LOOP
      UPDATE async.task t
      SET processed = NULL, finish_status = NULL, failed = NULL, processing_error = NULL, consumed = NULL,
        first_consumed = NULL, yielded = NULL, eligible_when = NULL, times_up = NULL, crashes = 0, suspect = false,
        -- An attempt that was stopped as it began was not counted: its late outcome must not match the new one.
        attempt = t.attempt + (t.consumed IS NULL)::int,
        partially_committed = false, unsure_since = NULL, intention = t.intention + 1,
        query = NULL  -- of a flow's task only what its query_routine has said is here: it is asked again
      WHERE t.task_id = ANY (_again.task_ids[_at : _at + 999]);
      PERFORM async.note_tasks(_again.task_ids[_at : _at + 999], 'STATUS', 'started again by flow.retry_failed');
    END LOOP;
    PERFORM async.reopen_from(_again.task_ids[1]);
    PERFORM async.announce_tasks(
      _again.task_ids[1], _again.task_ids[cardinality(_again.task_ids)], _flow_id, _again.node_no);
  END LOOP;
END
$$;
COMMENT ON FUNCTION flow.resume_nodes IS
  'Internal: reopens nodes whose own task has finished and those of their steps that did not.';

-- Counts anew what has ended, opens the run and starts what can start.
CREATE FUNCTION flow.reopen_run(_flow_id BIGINT) RETURNS VOID
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  UPDATE flow.flow f
  SET processed = NULL, cancelled = false, count_finished_nodes = n.ended, count_failed_nodes = n.failed,
    first_error = (
      SELECT format('%s: %s', x.node, x.error) FROM flow.flow_node x
      WHERE x.flow_id = _flow_id AND x.state::"char" IN ('E', 'T', 'C') ORDER BY x.ended, x.node_no LIMIT 1)
  FROM (
    SELECT count(*) FILTER (WHERE x.state::"char" NOT IN ('W', 'O', 'S')) AS ended,
      count(*) FILTER (WHERE x.state::"char" IN ('E', 'T', 'C', 'K')) AS failed
    FROM flow.flow_node x WHERE x.flow_id = _flow_id) n
  WHERE f.flow_id = _flow_id;
  PERFORM flow.start_run(_flow_id);
END
$$;
COMMENT ON FUNCTION flow.reopen_run IS
  'Internal: counts the ended nodes of a run anew, opens it and starts what can start.';

-- flow/views.sql
-- What one reads: the relations of the SQL original, status of runs, nodes and tasks. Every view runs with the rights of
-- who reads it, and nothing in them keeps a condition on flow_id from reaching the primary keys.

-- Parsed when they are created, so that no search_path can change their meaning and the planner can inline them.
CREATE FUNCTION flow.node_status(
  _state flow.node_state_t, _running BOOL, _eligible_when TIMESTAMPTZ, _yielded TIMESTAMPTZ, _processed TIMESTAMPTZ,
  _failed BOOL, _steps_open BOOL) RETURNS TEXT LANGUAGE sql STABLE
RETURN CASE _state::"char"
  WHEN 'W' THEN 'Pending'
  WHEN 'S' THEN 'Running Steps'
  WHEN 'F' THEN 'Finished'
  WHEN 'N' THEN 'Finished'
  WHEN 'E' THEN 'Failed'
  WHEN 'K' THEN 'Skipped'
  WHEN 'C' THEN 'Cancelled'
  WHEN 'T' THEN 'Timed Out'
  ELSE CASE
    WHEN _running THEN 'Running'
    WHEN _failed THEN 'Failed'
    WHEN _processed IS NOT NULL THEN CASE WHEN _steps_open THEN 'Running Steps' ELSE 'Finished' END
    WHEN _eligible_when > statement_timestamp() THEN 'Deferred'
    WHEN _yielded IS NOT NULL THEN 'Running Async'
    ELSE 'Pending' END
END;
COMMENT ON FUNCTION flow.node_status IS 'Internal: the status word of a node of a run.';

CREATE FUNCTION flow.step_status(
  _finish_status async.finish_status_t, _processed TIMESTAMPTZ, _running BOOL, _eligible_when TIMESTAMPTZ,
  _yielded TIMESTAMPTZ) RETURNS TEXT LANGUAGE sql STABLE
RETURN CASE
  WHEN _processed IS NOT NULL THEN CASE _finish_status
    WHEN 'FINISHED' THEN 'Finished'
    WHEN 'CANCELED' THEN 'Cancelled'
    WHEN 'TIMED_OUT' THEN 'Timed Out'
    ELSE 'Failed' END
  WHEN _running THEN 'Running'
  -- A step of a node that has not opened is put off for ever.
  WHEN _eligible_when = 'infinity' THEN 'Pending'
  WHEN _eligible_when > statement_timestamp() THEN 'Deferred'
  WHEN _yielded IS NOT NULL THEN 'Running Async'
  ELSE 'Pending'
END;
COMMENT ON FUNCTION flow.step_status IS 'Internal: the status word of a step.';

CREATE FUNCTION flow.pretty_time(_from TIMESTAMPTZ, _to TIMESTAMPTZ) RETURNS TEXT LANGUAGE sql STABLE
RETURN CASE WHEN _from IS NULL THEN ''
  ELSE async.interval_pretty(greatest(coalesce(_to, statement_timestamp()) - _from, INTERVAL '0')) END;
COMMENT ON FUNCTION flow.pretty_time IS
  'Internal: the time between two moments (null: now) in words; '''' when it has not begun.';

-- The statement that a task of a flow runs.
CREATE FUNCTION flow.task_query(
  _routine TEXT, _starts_flow TEXT, _flow_id BIGINT, _flow TEXT, _flow_arguments JSONB, _node TEXT, _step_arguments JSONB,
  _task_id BIGINT) RETURNS TEXT LANGUAGE sql STABLE
RETURN CASE
  WHEN _task_id IS NULL THEN NULL
  WHEN _starts_flow IS NOT NULL THEN
    format('SELECT flow.run_flow(%L, %L, _parent_task_id => %s)', _starts_flow, _step_arguments, _task_id)
  ELSE format('CALL %s(ROW(%s, %L, %L, %L, %L, %s)::flow.callback_arguments_t)', _routine, _flow_id, _flow,
    _flow_arguments, _node, _step_arguments, _task_id)
END;
COMMENT ON FUNCTION flow.task_query IS 'Internal: the statement that a task of a flow runs, in full.';

-- The configured flows, as the original keeps them.

CREATE VIEW flow.flow_configuration WITH (security_invoker = true) AS
  SELECT c.flow, d.concurrency_group_routine, d.priority, d.run_as, c.owner, d.author, d.created AS configured,
    d.definition_id
  FROM flow.configured c JOIN flow.definition d USING (definition_id);
COMMENT ON VIEW flow.flow_configuration IS
  'The configured flows: one row each, with the version that the next run takes.';

CREATE VIEW flow.node WITH (security_invoker = true) AS
  SELECT n.node, coalesce(n.target, 'local') AS target, n.routine, n.routine AS node_routine, n.step_routine, n.priority,
    n.all_steps_must_complete, n.empty, n.steps_to_flow, n.synchronous, n.node_timeout, n.step_timeout, c.flow
  FROM flow.configured c JOIN flow.definition_node n USING (definition_id);
COMMENT ON VIEW flow.node IS
  'The nodes of the configured flows. A node belongs to its flow: two flows may each have one of the same name.';

CREATE VIEW flow.step WITH (security_invoker = true) AS
  SELECT n.node, s.arguments, c.flow
  FROM flow.configured c
  JOIN flow.definition_node n USING (definition_id)
  CROSS JOIN LATERAL jsonb_array_elements(n.steps) AS s(arguments);
COMMENT ON VIEW flow.step IS 'The static steps of the configured flows.';

CREATE VIEW flow.dependency_configuration WITH (security_invoker = true) AS
  SELECT c.flow, p.node AS parent, n.node AS child, e.continue_on_failure
  FROM flow.configured c
  JOIN flow.definition_edge e USING (definition_id)
  CROSS JOIN LATERAL (SELECT x.node FROM flow.definition_node x
    WHERE x.definition_id = e.definition_id AND x.node_no = e.parent_no OFFSET 0) p
  CROSS JOIN LATERAL (SELECT x.node FROM flow.definition_node x
    WHERE x.definition_id = e.definition_id AND x.node_no = e.node_no OFFSET 0) n;
COMMENT ON VIEW flow.dependency_configuration IS 'The dependencies of the configured flows.';

-- Runs.

CREATE VIEW flow.dependency WITH (security_invoker = true) AS
  SELECT f.flow_id, p.node AS parent, n.node AS child, e.continue_on_failure
  FROM flow.flow f
  JOIN flow.definition_edge e USING (definition_id)
  CROSS JOIN LATERAL (SELECT x.node FROM flow.definition_node x
    WHERE x.definition_id = e.definition_id AND x.node_no = e.parent_no OFFSET 0) p
  CROSS JOIN LATERAL (SELECT x.node FROM flow.definition_node x
    WHERE x.definition_id = e.definition_id AND x.node_no = e.node_no OFFSET 0) n;
COMMENT ON VIEW flow.dependency IS 'The dependencies of the runs, each as of the version that it was started with.';

CREATE VIEW flow.arguments WITH (security_invoker = true) AS
  SELECT f.flow_id, f.arguments FROM flow.flow f;
COMMENT ON VIEW flow.arguments IS 'The arguments of the runs.';

CREATE VIEW flow.v_flow_status WITH (security_invoker = true) AS
  SELECT f.flow_id, f.flow, CASE WHEN f.processed IS NULL THEN 'No' ELSE 'Yes' END AS complete,
    flow.pretty_time(f.created, f.processed) AS run_time, f.count_nodes::BIGINT AS count_nodes,
    (f.count_finished_nodes - f.count_failed_nodes)::BIGINT AS count_finished_nodes,
    f.count_failed_nodes::BIGINT AS count_failed_nodes, f.arguments, f.first_error
  FROM flow.flow f;
COMMENT ON VIEW flow.v_flow_status IS 'The runs: one row each, from flow.flow alone.';

CREATE VIEW flow.v_flow_configuration WITH (security_invoker = true) AS
  SELECT c.flow, d.concurrency_group_routine, f.created AS last_execution_time,
    CASE WHEN f.processed IS NOT NULL THEN f.count_failed_nodes = 0 END AS last_execution_success,
    'RUN'::TEXT AS flow_concurrency_control, f.flow_id AS last_execution_flow_id,
    coalesce(r.count_flows_running, 0)::INT AS count_flows_running, 0 AS count_flows_pending,
    f.first_error AS last_error_message
  FROM flow.configured c
  JOIN flow.definition d USING (definition_id)
  LEFT JOIN (
    SELECT x.flow, max(x.flow_id) AS flow_id, count(*) FILTER (WHERE x.processed IS NULL) AS count_flows_running
    FROM flow.flow x GROUP BY x.flow) r ON r.flow = c.flow
  LEFT JOIN flow.flow f ON f.flow_id = r.flow_id;
COMMENT ON VIEW flow.v_flow_configuration IS 'The configured flows, each with its last run.';

-- One row a node of a run. Nodes and steps come from one pass over the run, and the rest is looked up by key (OFFSET 0, see
-- flow.open_tasks): a join of nodes and steps, planned while the statistics lag or by a run in which one node has most of
-- the steps, would be of every node with every step.
CREATE VIEW flow.v_flow_node_status WITH (security_invoker = true) AS
  SELECT f.flow_id, f.flow, (s.n).node, coalesce(d.target, 'local') AS target, w.started, (s.n).ended AS finished,
    flow.node_status((s.n).state, r.task_id IS NOT NULL, t.eligible_when, t.yielded, t.processed, t.failed, s.open > 0)
      AS status,
    s.steps, s.open - s.running AS steps_pending, s.running AS steps_running, s.finished AS steps_finished,
    s.steps - s.open - s.finished AS steps_failed, d.all_steps_must_complete,
    flow.pretty_time(w.started, (s.n).ended) AS run_time,
    greatest((s.n).opened, (s.n).ended, r.started, t.consumed, t.yielded, t.processed) AS changed,
    w.started IS NOT NULL AND (s.n).ended IS NULL AS in_progress,
    CASE WHEN r.task_id IS NOT NULL THEN r.progress_done WHEN s.steps > 0 THEN s.steps - s.open END AS progress_done,
    CASE WHEN r.task_id IS NOT NULL THEN r.progress_total WHEN s.steps > 0 THEN s.steps END AS progress_total,
    r.progress_note,
    t.attempt + (r.task_id IS NOT NULL)::INT AS attempt,
    coalesce((s.n).error, t.processing_error) AS error,
    CASE WHEN (s.n).state::"char" = 'K' THEN (s.n).blocked_by END AS skipped_by, s.node_no
  FROM flow.flow f
  JOIN (
    SELECT u.flow_id, u.node_no, (array_agg(u.n) FILTER (WHERE NOT u.is_step))[1] AS n,
      count(*) FILTER (WHERE u.is_step) AS steps, count(*) FILTER (WHERE u.open) AS open,
      count(*) FILTER (WHERE u.open AND (u.yielded OR u.task_id IN (SELECT x.task_id FROM async.running() x)))
        AS running,
      count(*) FILTER (WHERE u.finished) AS finished
    FROM (
      SELECT n.flow_id, n.node_no, n, false AS is_step, NULL::BIGINT AS task_id, false AS open, false AS yielded,
        false AS finished
      FROM flow.flow_node n
      UNION ALL
      SELECT s.flow_id, s.node_no, NULL::flow.flow_node, true, s.task_id, t.processed IS NULL,
        t.yielded IS NOT NULL, t.processed IS NOT NULL AND t.finish_status = 'FINISHED'
      FROM flow.flow_step s
      CROSS JOIN LATERAL (
        SELECT x.processed, x.yielded, x.finish_status FROM async.task x WHERE x.task_id = s.task_id OFFSET 0) t) u
    GROUP BY u.flow_id, u.node_no) s ON s.flow_id = f.flow_id
  CROSS JOIN LATERAL (
    SELECT x.target, x.all_steps_must_complete FROM flow.definition_node x
    WHERE x.definition_id = f.definition_id AND x.node_no = s.node_no OFFSET 0) d
  LEFT JOIN LATERAL (SELECT x.* FROM async.task x WHERE x.task_id = (s.n).task_id OFFSET 0) t ON true
  LEFT JOIN async.running() r ON r.task_id = (s.n).task_id
  CROSS JOIN LATERAL (
    SELECT CASE WHEN (s.n).task_id IS NOT NULL THEN coalesce(t.first_consumed, r.started)
      WHEN NOT (s.n).excluded THEN (s.n).opened END AS started) w;
COMMENT ON VIEW flow.v_flow_node_status IS
  'The nodes of runs: one row each. Meant to be read with a condition on flow_id.';

-- One row a node (its own task) and one a step.
CREATE VIEW flow.v_flow_task_status WITH (security_invoker = true) AS
  SELECT f.flow_id, n.task_id, 'Node'::TEXT AS type, f.flow, n.node, coalesce(d.target, 'local') AS target,
    to_char(w.started, 'YYYY-MM-DD HH24:MI:SS') AS started,
    CASE WHEN n.ended IS NULL THEN 'No' ELSE 'Yes' END AS complete,
    flow.pretty_time(w.started, n.ended) AS run_time,
    flow.node_status(n.state, r.task_id IS NOT NULL, t.eligible_when, t.yielded, t.processed, t.failed, false) AS status,
    '{}'::TEXT AS step_arguments,
    coalesce(t.processing_error, n.error) AS processing_error,
    flow.task_query(coalesce(d.routine_resolved, d.routine), NULL, f.flow_id, f.flow, f.arguments, n.node, '{}',
      n.task_id) AS query,
    r.progress_done, r.progress_total, r.progress_note,
    t.attempt + (r.task_id IS NOT NULL)::INT AS attempt
  FROM flow.flow f
  JOIN flow.flow_node n ON n.flow_id = f.flow_id
  CROSS JOIN LATERAL (
    SELECT x.target, x.routine_resolved, x.routine FROM flow.definition_node x
    WHERE x.definition_id = f.definition_id AND x.node_no = n.node_no OFFSET 0) d
  LEFT JOIN LATERAL (SELECT x.* FROM async.task x WHERE x.task_id = n.task_id OFFSET 0) t ON true
  LEFT JOIN async.running() r ON r.task_id = n.task_id
  CROSS JOIN LATERAL (
    SELECT CASE WHEN n.task_id IS NOT NULL THEN coalesce(t.first_consumed, r.started)
      WHEN NOT n.excluded THEN n.opened END AS started) w
  UNION ALL
  SELECT f.flow_id, t.task_id, 'Step'::TEXT, f.flow, d.node, t.target,
    to_char(coalesce(t.first_consumed, r.started), 'YYYY-MM-DD HH24:MI:SS'),
    CASE WHEN t.processed IS NULL THEN 'No' ELSE 'Yes' END,
    flow.pretty_time(coalesce(t.first_consumed, r.started), t.processed),
    flow.step_status(t.finish_status, t.processed, r.task_id IS NOT NULL, t.eligible_when, t.yielded),
    t.task_data::TEXT, t.processing_error,
    flow.task_query(coalesce(d.step_routine_resolved, d.step_routine), d.steps_to_flow, f.flow_id, f.flow, f.arguments,
      d.node, t.task_data, t.task_id),
    r.progress_done, r.progress_total, r.progress_note,
    t.attempt + (r.task_id IS NOT NULL)::INT
  FROM flow.flow f
  JOIN flow.flow_step s ON s.flow_id = f.flow_id
  CROSS JOIN LATERAL (
    SELECT x.node, x.step_routine_resolved, x.step_routine, x.steps_to_flow FROM flow.definition_node x
    WHERE x.definition_id = f.definition_id AND x.node_no = s.node_no OFFSET 0) d
  CROSS JOIN LATERAL (SELECT x.* FROM async.task x WHERE x.task_id = s.task_id OFFSET 0) t
  LEFT JOIN async.running() r ON r.task_id = s.task_id;
COMMENT ON VIEW flow.v_flow_task_status IS
  'The tasks of runs: a row for each node (its own task; task_id null while it has none) and one for each step. '
  'Meant to be read with a condition on flow_id.';

-- The tasks of runs with the columns of the original. The equalities beyond task_id let a condition on task_id, too, start
-- from the task's primary key.
CREATE VIEW flow.v_flow_task WITH (security_invoker = true) AS
  SELECT k.flow_id, k.node, k.step_arguments, k.is_node, k.task_id, k.target, k.priority, k.entered,
    coalesce(r.started, k.consumed) AS consumed, k.processed, k.yielded, k.finish_status, k.source,
    flow.task_query(k.routine, k.starts_flow, k.flow_id, k.flow, k.flow_arguments, k.node, k.step_arguments, k.task_id)
      AS query,
    k.failed, k.processing_error, k.asynchronous_finish, k.times_up,
    jsonb_build_object('flow_id', k.flow_id, 'node', k.node, 'step_arguments', k.step_arguments) AS task_data,
    k.concurrency_pool, k.manual_timeout,
    k.processed IS NULL AND (r.task_id IS NOT NULL OR (k.yielded IS NOT NULL AND k.track_yielded)) AS tracked,
    k.track_yielded, k.eligible_when
  FROM (
    SELECT f.flow_id, f.flow, f.arguments AS flow_arguments, n.node, '{}'::JSONB AS step_arguments, true AS is_node,
      coalesce(d.routine_resolved, d.routine) AS routine, NULL::TEXT AS starts_flow, t.task_id, t.target, t.priority,
      t.entered, t.consumed, t.processed, t.yielded, t.finish_status, t.source, t.failed, t.processing_error,
      t.asynchronous_finish, t.times_up, t.concurrency_pool, t.manual_timeout, t.track_yielded, t.eligible_when
    FROM flow.flow f
    JOIN flow.flow_node n ON n.flow_id = f.flow_id
    JOIN flow.definition_node d ON d.definition_id = f.definition_id AND d.node_no = n.node_no
    JOIN async.task t ON t.task_id = n.task_id AND t.flow_id = n.flow_id AND t.node_no = n.node_no
    UNION ALL
    SELECT f.flow_id, f.flow, f.arguments, d.node, t.task_data, false,
      coalesce(d.step_routine_resolved, d.step_routine), d.steps_to_flow, t.task_id, t.target, t.priority,
      t.entered, t.consumed, t.processed, t.yielded, t.finish_status, t.source, t.failed, t.processing_error,
      t.asynchronous_finish, t.times_up, t.concurrency_pool, t.manual_timeout, t.track_yielded, t.eligible_when
    FROM flow.flow f
    JOIN flow.flow_step s ON s.flow_id = f.flow_id
    JOIN flow.definition_node d ON d.definition_id = f.definition_id AND d.node_no = s.node_no
    JOIN async.task t ON t.task_id = s.task_id AND t.flow_id = s.flow_id AND t.node_no = s.node_no) k
  LEFT JOIN async.running() r ON r.task_id = k.task_id;
COMMENT ON VIEW flow.v_flow_task IS
  'The tasks of runs with the columns of the SQL original. Meant to be read with a condition on flow_id or task_id.';

CREATE FUNCTION flow.args(_flow_id BIGINT) RETURNS JSONB
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF async.is_client() THEN
    RETURN flow.server_args(_flow_id);
  END IF;
  RETURN (flow.visible_run(_flow_id)).arguments;
END
$$;
COMMENT ON FUNCTION flow.args IS
  'The arguments of a run; on a client (async.server) of a run of the orchestrating server, asked once and kept. Raises '
  'undefined_object when you see no run of that number.';

-- Reads a run as the caller sees it; raises when there is none.
CREATE FUNCTION flow.visible_run(_flow_id BIGINT) RETURNS flow.flow
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _run flow.flow;
BEGIN
  SELECT * INTO _run FROM flow.flow f WHERE f.flow_id = _flow_id;
  IF NOT FOUND THEN
    RAISE undefined_object USING
      MESSAGE = format('run %s does not exist', coalesce(_flow_id::TEXT, 'NULL')),
      HINT = 'flow.v_flow_status lists the runs that you may see; finished ones are purged after a while.';
  END IF;
  RETURN _run;
END
$$;
COMMENT ON FUNCTION flow.visible_run IS 'Internal: reads a run as the caller sees it; raises undefined_object.';

CREATE FUNCTION flow.flows(_limit INT DEFAULT 1000) RETURNS JSONB
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT coalesce(jsonb_agg(s ORDER BY s.flow_id DESC), '[]')
  FROM (SELECT * FROM flow.v_flow_status v ORDER BY v.flow_id DESC LIMIT _limit) s;
$$;
COMMENT ON FUNCTION flow.flows IS
  'The newest _limit runs as a JSON array of the rows of flow.v_flow_status, newest first.';

CREATE FUNCTION flow.task_list(_flow_id BIGINT) RETURNS JSONB
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT coalesce(jsonb_agg(t ORDER BY t.task_id DESC), '[]')
  FROM flow.v_flow_task_status t WHERE t.flow_id = _flow_id;
$$;
COMMENT ON FUNCTION flow.task_list IS
  'The tasks of a run as a JSON array of the rows of flow.v_flow_task_status, newest first; [] when there is no '
  'such run.';

CREATE FUNCTION flow.graphviz(_flow_id BIGINT, OUT data TEXT)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _run   flow.flow := flow.visible_run(_flow_id);
  _nodes JSONB;
BEGIN
  SELECT jsonb_agg(jsonb_build_object(
    'name', s.node, 'target', s.target, 'routine', d.routine, 'status', s.status, 'run_time', nullif(s.run_time, ''),
    'steps', CASE WHEN s.steps > 0 THEN jsonb_build_object('total', s.steps, 'pending', s.steps_pending,
      'running', s.steps_running, 'finished', s.steps_finished, 'failed', s.steps_failed) END,
    'note', coalesce(s.error, s.progress_note), 'empty', d.empty, 'steps_to_flow', d.steps_to_flow)
    ORDER BY d.node_no)
  INTO _nodes
  FROM flow.v_flow_node_status s
  CROSS JOIN LATERAL (SELECT x.* FROM flow.definition_node x
    WHERE x.definition_id = _run.definition_id AND x.node_no = s.node_no OFFSET 0) d
  WHERE s.flow_id = _flow_id;
  data := flow.render_graphviz(jsonb_build_object(
    'title', format('%s / %s', _run.flow, _flow_id), 'legend', true, 'nodes', coalesce(_nodes, '[]'),
    'edges', flow.diagram_edges(_run.definition_id)));
END
$$;
COMMENT ON FUNCTION flow.graphviz(BIGINT) IS
  'The diagram of a run in the language of Graphviz: nodes with target, status colour, steps, run time. Raises '
  'undefined_object.';

CREATE FUNCTION flow.graphviz(_flow TEXT, OUT data TEXT)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _definition_id BIGINT := (SELECT c.definition_id FROM flow.configured c WHERE c.flow = _flow);
  _nodes         JSONB;
BEGIN
  IF _definition_id IS NULL THEN
    RAISE undefined_object USING
      MESSAGE = format('flow "%s" is not configured', _flow),
      HINT = 'The configured flows are in flow.flow_configuration; the diagram of a run is flow.graphviz(_flow_id).';
  END IF;
  SELECT jsonb_agg(jsonb_build_object(
    'name', d.node, 'target', coalesce(d.target, 'local'), 'routine', d.routine, 'status', NULL, 'run_time', NULL,
    'steps', CASE WHEN jsonb_array_length(d.steps) > 0 THEN jsonb_build_object('total', jsonb_array_length(d.steps),
      'pending', 0, 'running', 0, 'finished', 0, 'failed', 0) END,
    'note', NULL, 'empty', d.empty, 'steps_to_flow', d.steps_to_flow)
    ORDER BY d.node_no)
  INTO _nodes
  FROM flow.definition_node d WHERE d.definition_id = _definition_id;
  data := flow.render_graphviz(jsonb_build_object(
    'title', _flow, 'legend', true, 'nodes', _nodes, 'edges', flow.diagram_edges(_definition_id)));
END
$$;
COMMENT ON FUNCTION flow.graphviz(TEXT) IS
  'The diagram of a configured flow, whether it has run or not, in the language of Graphviz. Raises '
  'undefined_object.';

-- The edges of a version by the places of their nodes in the diagram, from 0: a version's nodes are numbered in one go.
CREATE FUNCTION flow.diagram_edges(_definition_id BIGINT) RETURNS JSONB
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT coalesce(jsonb_agg(jsonb_build_object(
    'parent', e.parent_no - f.first, 'child', e.node_no - f.first, 'continue_on_failure', e.continue_on_failure)
    ORDER BY e.parent_no, e.node_no), '[]')
  FROM (SELECT min(d.node_no) AS first FROM flow.definition_node d WHERE d.definition_id = _definition_id) f
  CROSS JOIN flow.definition_edge e
  WHERE e.definition_id = _definition_id;
$$;
COMMENT ON FUNCTION flow.diagram_edges IS 'Internal: the edges of a version for flow.render_graphviz.';

CREATE FUNCTION flow.graphviz_events(
  _flow_id BIGINT, _since TIMESTAMPTZ, OUT node TEXT, OUT node_status_color TEXT, OUT node_steps_overview TEXT,
  OUT run_time TEXT, OUT status TEXT, OUT changed TIMESTAMPTZ)
RETURNS SETOF RECORD LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT s.node, flow.node_status_color(s.status),
    CASE WHEN s.steps > 0 THEN format('pending %s running %s finished %s failed %s',
      s.steps_pending, s.steps_running, s.steps_finished, s.steps_failed) ELSE '' END,
    s.run_time, s.status, s.changed
  FROM flow.v_flow_node_status s
  WHERE s.flow_id = _flow_id AND (_since IS NULL OR s.changed > _since OR s.in_progress)
  ORDER BY s.changed, s.node;
$$;
COMMENT ON FUNCTION flow.graphviz_events IS
  'The nodes of a run that have changed after _since (null: all), and those that run, oldest change first: for a '
  'page that keeps a diagram up to date. node_steps_overview: ''pending 1 running 2 finished 3 failed 0'', '''' '
  'without steps.';

-- flow/watch.sql
-- Waiting for a run, and watching it.

CREATE FUNCTION flow.wait(_flow_id BIGINT, _timeout INTERVAL DEFAULT NULL) RETURNS BOOL
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _until TIMESTAMPTZ := clock_timestamp() + _timeout;
  _left  DOUBLE PRECISION := 1000;
BEGIN
  IF (flow.visible_run(_flow_id)).processed IS NOT NULL THEN
    RETURN true;
  ELSIF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
    RAISE object_not_in_prerequisite_state USING
      MESSAGE = format('cannot wait for a run in a %s transaction', upper(current_setting('transaction_isolation'))),
      DETAIL = 'Its snapshot would never show that the run has ended.',
      HINT = 'Wait in a READ COMMITTED transaction.';
  ELSIF flow.changed_here(_flow_id) THEN
    RAISE object_not_in_prerequisite_state USING
      MESSAGE = format('cannot wait for run %s in the transaction that started or changed it', _flow_id),
      DETAIL = 'The run goes on only after this transaction has committed.',
      HINT = 'Commit first, then call flow.wait.';
  END IF;
  -- The wait ends early whenever an outcome is committed; a second is the longest that a missed one can cost.
  LOOP
    IF _until IS NOT NULL THEN
      _left := extract(epoch FROM _until - clock_timestamp()) * 1000;
    END IF;
    IF _left > 0 THEN
      PERFORM async.wait_for_change(ceil(least(_left, 1000))::INT);
    END IF;
    -- A run that is gone has been purged, hence had ended.
    IF NOT EXISTS (SELECT FROM flow.flow f WHERE f.flow_id = _flow_id AND f.processed IS NULL) THEN
      RETURN true;
    ELSIF _left <= 0 THEN
      RETURN false;
    END IF;
  END LOOP;
END
$$;
COMMENT ON FUNCTION flow.wait IS
  'Waits until a run has ended: true; false when _timeout is over before (null: no limit). Refused '
  '(object_not_in_prerequisite_state) in the transaction that started or changed the run, and above READ COMMITTED; '
  'undefined_object. Holds a snapshot while it waits: for long runs use flow.watch, or poll.';

-- True when the run's row was written by this transaction (or one of its subtransactions): visible, yet in progress.
CREATE FUNCTION flow.changed_here(_flow_id BIGINT) RETURNS BOOL
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _ours   BIGINT := pg_current_xact_id_if_assigned()::TEXT::BIGINT;
  _writer BIGINT;
BEGIN
  -- Row versions keep 32 bits of the writer's number. Ours and those of our subtransactions come at or after our own.
  SELECT (f.xmin::TEXT::BIGINT - _ours % 4294967296 + 4294967296) % 4294967296 INTO _writer
  FROM flow.flow f WHERE f.flow_id = _flow_id;
  IF _ours IS NULL OR _writer IS NULL OR _writer >= 2147483648 THEN
    RETURN false;
  END IF;
  RETURN pg_xact_status((_ours + _writer)::TEXT::XID8) = 'in progress';
END
$$;
COMMENT ON FUNCTION flow.changed_here IS
  'Internal: whether the caller''s own transaction has written the row of a run.';

-- One look at a run: a line for the whole and one for each node that runs (at most 20). "what" is the same as long as
-- nothing but the clock has changed.
CREATE FUNCTION flow.watch_look(_flow_id BIGINT, OUT what TEXT, OUT lines TEXT[], OUT ended BOOL)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _run   flow.flow := flow.visible_run(_flow_id);
  _nodes TEXT[];
  _count BIGINT := 0;
BEGIN
  ended := _run.processed IS NOT NULL;
  what := format('%s of %s nodes done', _run.count_finished_nodes - _run.count_failed_nodes, _run.count_nodes)
    || CASE WHEN _run.count_failed_nodes > 0 THEN format(', %s failed', _run.count_failed_nodes) ELSE '' END;
  IF ended THEN
    what := what || CASE WHEN _run.cancelled THEN ', cancelled' WHEN _run.count_failed_nodes > 0 THEN ', failed'
      ELSE ', finished' END || coalesce(': ' || _run.first_error, '');
  ELSE
    SELECT array_agg(r.line ORDER BY r.started, r.node) FILTER (WHERE r.at <= 20), count(*) INTO _nodes, _count
    FROM (
      SELECT s.node, s.started, row_number() OVER (ORDER BY s.started, s.node) AS at,
        format('  %s: %s', s.node, lower(s.status))
          || CASE WHEN s.steps > 0 THEN format(', %s of %s steps', s.steps_finished + s.steps_failed, s.steps) ELSE '' END
          || CASE WHEN s.steps_failed > 0 THEN format(' (%s failed)', s.steps_failed) ELSE '' END
          || CASE WHEN s.status = 'Running' AND s.progress_done IS NOT NULL
              THEN format(', %s', s.progress_done) || coalesce(format(' of %s', s.progress_total), '') ELSE '' END
          || coalesce(', ' || s.progress_note, '') AS line
      FROM flow.v_flow_node_status s
      WHERE s.flow_id = _flow_id AND s.in_progress AND s.status NOT IN ('Finished', 'Failed')) r;
    IF _count > 20 THEN
      _nodes := _nodes || format('  and %s more nodes', _count - 20);
    END IF;
  END IF;
  -- Not flow.pretty_time's own "now": in a procedure that is when it was called.
  lines := format('run %s of %s, %s: %s', _flow_id, _run.flow,
      flow.pretty_time(_run.created, coalesce(_run.processed, clock_timestamp())), what)
    || coalesce(_nodes, '{}');
  what := what || coalesce(array_to_string(_nodes, E'\n'), '');
END
$$;
COMMENT ON FUNCTION flow.watch_look IS
  'Internal: what flow.watch says about a run; what is the same as long as only the clock has moved.';

CREATE FUNCTION flow.has_ended(_flow_id BIGINT) RETURNS BOOL
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
  SELECT NOT EXISTS (SELECT FROM flow.flow f WHERE f.flow_id = _flow_id AND f.processed IS NULL);
$$;
COMMENT ON FUNCTION flow.has_ended IS 'Internal: whether a run is over, or gone.';

-- Commits between looks, so that watching a long run does not keep VACUUM from its work. A procedure that commits cannot
-- pin search_path: every name is qualified, the operators too.
CREATE PROCEDURE flow.watch(_flow_id BIGINT, _interval INTERVAL DEFAULT '1 second')
LANGUAGE plpgsql AS $$
DECLARE
  _look  RECORD;
  _line  TEXT;
  _shown TEXT := '';
  _next  TIMESTAMPTZ;
  _left  INTERVAL;
BEGIN
  LOOP
    SELECT * INTO _look FROM flow.watch_look(_flow_id);
    IF _look.what OPERATOR(pg_catalog.<>) _shown OR _look.ended THEN
      FOREACH _line IN ARRAY _look.lines LOOP
        RAISE NOTICE '%', _line;
      END LOOP;
      _shown := _look.what;
    END IF;
    EXIT WHEN _look.ended;
    COMMIT;
    _next := pg_catalog.clock_timestamp() OPERATOR(pg_catalog.+) _interval;
    LOOP
      _left := _next OPERATOR(pg_catalog.-) pg_catalog.clock_timestamp();
      EXIT WHEN _left OPERATOR(pg_catalog.<=) '0'::pg_catalog.interval;
      PERFORM async.wait_for_change(flow.milliseconds(_left));
      COMMIT;
      EXIT WHEN flow.has_ended(_flow_id);
      -- At most fifty looks a second, however many outcomes there are.
      PERFORM pg_catalog.pg_sleep(0.02);
      COMMIT;
    END LOOP;
  END LOOP;
END
$$;
COMMENT ON PROCEDURE flow.watch IS
  'Tells with NOTICEs how far a run is, whenever something has changed, at most every _interval, and sums up when '
  'it has ended. Commits between looks, hence not inside a transaction block.';

-- An interval as a wait: from 1 ms to 1 s.
CREATE FUNCTION flow.milliseconds(_interval INTERVAL) RETURNS INT LANGUAGE sql STABLE
RETURN ceil(greatest(1, least(1000, extract(epoch FROM _interval) * 1000)))::INT;
COMMENT ON FUNCTION flow.milliseconds IS 'Internal: an interval as a wait in milliseconds, 1 to 1000.';

-- flow/purge.sql
-- What has ended and is old goes, a bounded amount a call. The dispatcher calls these; nobody else has a need to.

-- Deletes up to _limit finished runs, oldest first, that are older than _keep (control.task_keep_duration, where set, goes
-- before it) or beyond the newest _keep_runs, with all
-- that belongs to them. Returns how many runs it has deleted or begun to delete: call again while it is not 0.
CREATE FUNCTION flow.purge(_keep INTERVAL, _keep_runs BIGINT, _limit INT) RETURNS BIGINT
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  -- Steps deleted in one call at most: a run with more of them takes several.
  _budget CONSTANT INT := 50000;
  _runs   BIGINT[];
  _empty  BIGINT[];
  _tasks  BIGINT[];
  _beyond BIGINT;
BEGIN
  _keep := coalesce((SELECT c.task_keep_duration FROM async.control c), _keep);
  IF _keep_runs IS NOT NULL THEN
    SELECT f.flow_id INTO _beyond
    FROM flow.flow f WHERE f.processed IS NOT NULL ORDER BY f.flow_id DESC OFFSET _keep_runs LIMIT 1;
  END IF;
  -- Only the oldest finished runs are looked at, so that a call costs the same however many there are.
  SELECT array_agg(r.flow_id) INTO _runs
  FROM (
    SELECT f.flow_id
    FROM flow.flow f
    WHERE f.flow_id IN (
        SELECT o.flow_id
        FROM (SELECT x.flow_id, x.processed, x.parent_flow_id FROM flow.flow x WHERE x.processed IS NOT NULL
              ORDER BY x.flow_id LIMIT 10000) o
        WHERE (o.processed < clock_timestamp() - _keep OR o.flow_id <= _beyond)
          AND NOT EXISTS (SELECT FROM flow.flow p WHERE p.flow_id = o.parent_flow_id AND p.processed IS NULL OFFSET 0)
          AND NOT EXISTS (SELECT FROM flow.flow c WHERE c.parent_flow_id = o.flow_id AND c.processed IS NULL OFFSET 0)
        ORDER BY o.flow_id LIMIT _limit)
      AND f.processed IS NOT NULL
    ORDER BY f.flow_id
    FOR UPDATE SKIP LOCKED) r;

  IF _runs IS NOT NULL THEN
    WITH steps AS (
      DELETE FROM flow.flow_step s
      WHERE s.ctid = ANY (ARRAY(SELECT x.ctid FROM flow.flow_step x WHERE x.flow_id = ANY (_runs) LIMIT _budget))
      RETURNING s.task_id
    )
    SELECT array_agg(s.task_id) INTO _tasks FROM steps s;
    PERFORM flow.delete_tasks(_tasks);
    -- Runs that still have steps are left for the next call.
    _empty := ARRAY(
      SELECT r.flow_id FROM unnest(_runs) AS r(flow_id)
      WHERE NOT EXISTS (SELECT FROM flow.flow_step s WHERE s.flow_id = r.flow_id OFFSET 0));
    WITH gone AS (
      DELETE FROM flow.flow_node n WHERE n.flow_id = ANY (_empty) RETURNING n.task_id
    )
    SELECT array_agg(g.task_id) FILTER (WHERE g.task_id IS NOT NULL) INTO _tasks FROM gone g;
    PERFORM flow.delete_tasks(_tasks);
    DELETE FROM flow.flow f WHERE f.flow_id = ANY (_empty);
  END IF;
  PERFORM flow.purge_definitions(_limit);
  RETURN coalesce(cardinality(_runs), 0);
END
$$;
COMMENT ON FUNCTION flow.purge IS
  'Internal: deletes up to _limit ended runs, oldest first, that ended longer than _keep ago or are beyond the '
  'newest _keep_runs (null: no such limit), and unneeded versions. Returns the runs it dealt with: call again while '
  'it is not 0.';

CREATE FUNCTION flow.delete_tasks(_task_ids BIGINT[]) RETURNS BIGINT
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _piece BIGINT[];
  _count BIGINT := 0;
BEGIN
  FOR _at IN 1 .. coalesce(cardinality(_task_ids), 0) BY 1000 LOOP
    _piece := async.forget_tasks(_task_ids[_at : _at + 999]);
    _count := _count + cardinality(_piece);
    DELETE FROM async.task_log l WHERE l.task_id = ANY (_piece);
    DELETE FROM async.task_secret s WHERE s.task_id = ANY (_piece);
    DELETE FROM async.callback_token k WHERE k.task_id = ANY (_piece);
    DELETE FROM async.decision d WHERE d.task_id = ANY (_piece);
    DELETE FROM async.task t WHERE t.task_id = ANY (_piece);
  END LOOP;
  RETURN _count;
END
$$;
COMMENT ON FUNCTION flow.delete_tasks IS 'Internal: deletes tasks with their log and secrets; returns how many. One whose execution somebody has '
  'locked stays; tasks of runs have none.';

-- Deletes versions that neither a run nor a configured flow needs.
CREATE FUNCTION flow.purge_definitions(_limit INT) RETURNS VOID
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _locked BIGINT[];
BEGIN
  -- Locked first and looked at again: somebody may be starting a run of one.
  SELECT array_agg(l.definition_id) INTO _locked
  FROM (
    SELECT d.definition_id FROM flow.definition d
    WHERE NOT EXISTS (SELECT FROM flow.configured c WHERE c.definition_id = d.definition_id)
      AND NOT EXISTS (SELECT FROM flow.flow f WHERE f.definition_id = d.definition_id)
    LIMIT _limit FOR UPDATE OF d SKIP LOCKED) l;
  _locked := ARRAY(
    SELECT d.definition_id FROM unnest(_locked) AS d(definition_id)
    WHERE NOT EXISTS (SELECT FROM flow.configured c WHERE c.definition_id = d.definition_id)
      AND NOT EXISTS (SELECT FROM flow.flow f WHERE f.definition_id = d.definition_id));
  DELETE FROM flow.definition_edge e WHERE e.definition_id = ANY (_locked);
  DELETE FROM flow.definition_node n WHERE n.definition_id = ANY (_locked);
  DELETE FROM flow.definition d WHERE d.definition_id = ANY (_locked);
END
$$;
COMMENT ON FUNCTION flow.purge_definitions IS
  'Internal: deletes up to _limit versions that no run and no configured flow needs.';

-- Deletes up to _limit ended tasks outside runs that are older than _keep or beyond the newest _keep_tasks, log lines of
-- tasks that are gone, and old lines of the server log. Returns how many tasks it has deleted.
CREATE FUNCTION async.purge(_keep INTERVAL, _keep_tasks BIGINT, _limit INT) RETURNS BIGINT
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  -- Rows looked at in one go at most. async.task has no index but its key, and tasks of runs may lie between.
  _window CONSTANT INT := 50000;
  _start  BIGINT := 0;
  _beyond BIGINT;
  _ids    BIGINT[] := '{}';
  _found  BIGINT[];
  _deleted BIGINT;
BEGIN
  _keep := coalesce((SELECT c.task_keep_duration FROM async.control c), _keep);
  IF _keep_tasks IS NOT NULL THEN
    -- Where the newest rows hold fewer than _keep_tasks of them, none of those seen is beyond.
    SELECT n.task_id INTO _beyond
    FROM (SELECT t.task_id, t.flow_id, t.processed FROM async.task t
          ORDER BY t.task_id DESC LIMIT _window + 2 * _keep_tasks) n
    WHERE n.flow_id IS NULL AND n.processed IS NOT NULL
    ORDER BY n.task_id DESC OFFSET _keep_tasks LIMIT 1;
  END IF;
  -- The oldest rows, then a stretch from somewhere, so that tasks behind many that are kept have their turn too.
  FOR _round IN 1 .. 2 LOOP
    SELECT array_agg(r.task_id) INTO _found
    FROM (
      SELECT o.task_id
      FROM (SELECT t.task_id, t.flow_id, t.processed FROM async.task t WHERE t.task_id >= _start
            ORDER BY t.task_id LIMIT _window) o
      WHERE o.flow_id IS NULL AND (o.processed < clock_timestamp() - _keep
        OR (o.processed IS NOT NULL AND o.task_id <= _beyond))
      ORDER BY o.task_id LIMIT _limit - cardinality(_ids)) r;
    _ids := _ids || coalesce(_found, '{}');
    EXIT WHEN _round = 2 OR cardinality(_ids) >= _limit;
    SELECT o.task_id INTO _start FROM async.task o WHERE o.task_id > _start ORDER BY o.task_id OFFSET _window LIMIT 1;
    EXIT WHEN NOT FOUND;
    _start := _start + floor(random() * ((SELECT max(t.task_id) FROM async.task t) - _start))::BIGINT;
  END LOOP;
  _ids := ARRAY(
    SELECT t.task_id FROM async.task t
    WHERE t.task_id = ANY (_ids) AND t.flow_id IS NULL AND t.processed IS NOT NULL FOR UPDATE SKIP LOCKED);
  _deleted := flow.delete_tasks(_ids);

  DELETE FROM async.task_log l
  WHERE l.ctid = ANY (ARRAY(
    SELECT o.at_row
    FROM (SELECT x.ctid AS at_row, x.task_id, x.at FROM async.task_log x
          ORDER BY x.task_id, x.attempt, x.seq LIMIT _window) o
    WHERE o.at < clock_timestamp() - coalesce(_keep, INTERVAL '7 days')
      AND NOT EXISTS (SELECT FROM async.task t WHERE t.task_id = o.task_id OFFSET 0)
    LIMIT _limit));
  DELETE FROM async.server_log s
  WHERE s.server_log_id IN (
    SELECT o.server_log_id
    FROM (SELECT x.server_log_id, x.happened FROM async.server_log x ORDER BY x.server_log_id LIMIT _window) o
    WHERE o.happened < clock_timestamp() - _keep
      OR o.server_log_id <= (SELECT max(m.server_log_id) FROM async.server_log m) - 100000
    LIMIT _limit);
  RETURN _deleted;
END
$$;
COMMENT ON FUNCTION async.purge IS
  'Internal: deletes up to _limit ended tasks outside runs that ended longer than _keep ago or are beyond the '
  'newest _keep_tasks (null: no such limit), and old log lines. Returns the number of tasks deleted.';

-- flow/comments.sql
-- What tables, types and view columns mean. Functions and views have their comment beside them.

COMMENT ON SCHEMA flow IS
  'pgflow''s graph layer: flows are graphs of nodes; a run of one lets every node call its routine when its parents '
  'have ended.';
COMMENT ON DOMAIN flow.flow_priority_t IS 'A priority: -99 to 99, lower runs first.';
COMMENT ON DOMAIN flow.node_state_t IS
  'The state of a node of a run: W waits for parents; O open (its own task waits or runs); S its own task has '
  'finished, steps are open; ended: F finished, E failed, K skipped, C cancelled, T timed out, N takes no part in '
  'the run.';
COMMENT ON TYPE flow.callback_arguments_t IS 'What a callback is called with.';
COMMENT ON COLUMN flow.callback_arguments_t.flow_id IS 'The run.';
COMMENT ON COLUMN flow.callback_arguments_t.flow IS 'The flow''s name.';
COMMENT ON COLUMN flow.callback_arguments_t.flow_arguments IS 'What run_flow was given; {} for null.';
COMMENT ON COLUMN flow.callback_arguments_t.node IS 'The node.';
COMMENT ON COLUMN flow.callback_arguments_t.step_arguments IS 'The step''s arguments; {} for the node''s own task.';
COMMENT ON COLUMN flow.callback_arguments_t.task_id IS
  'The task: pass the whole to flow.finish, flow.defer, flow.progress.';

COMMENT ON TYPE flow.effect_t IS
  'Internal: what a decision of the cascade means for the engine; the kinds are explained in sql/flow/cascade.sql.';
COMMENT ON COLUMN flow.effect_t.kind IS 'A, N, E, R, T or F.';
COMMENT ON COLUMN flow.effect_t.flow_id IS 'The run.';
COMMENT ON COLUMN flow.effect_t.node_no IS 'The node, where the effect is about one.';
COMMENT ON COLUMN flow.effect_t.task_low IS 'The first task.';
COMMENT ON COLUMN flow.effect_t.task_high IS 'The last task.';
COMMENT ON COLUMN flow.effect_t.at IS 'When a node''s time is up.';

COMMENT ON SEQUENCE flow.flow_id_seq IS 'The numbers of runs.';
COMMENT ON TABLE flow.definition IS
  'Versions of flows: one row each, never updated; those that nothing needs are purged.';
COMMENT ON COLUMN flow.definition.definition_id IS 'Its number.';
COMMENT ON COLUMN flow.definition.flow IS 'The flow''s name.';
COMMENT ON COLUMN flow.definition.configuration IS
  'The configuration, as flow.configuration() gives it and configure_flow takes it.';
COMMENT ON COLUMN flow.definition.concurrency_group_routine IS
  'The function that says which pool a node''s tasks run in, schema-qualified; null: none.';
COMMENT ON COLUMN flow.definition.priority IS 'Of nodes that have none of their own; -99 to 99, lower runs first.';
COMMENT ON COLUMN flow.definition.run_as IS 'The role that runs of it run as; null: the role that calls run_flow.';
COMMENT ON COLUMN flow.definition.author IS 'The role that configured this version.';
COMMENT ON COLUMN flow.definition.created IS 'When.';

COMMENT ON TABLE flow.configured IS 'The configured flows.';
COMMENT ON COLUMN flow.configured.flow IS 'The name.';
COMMENT ON COLUMN flow.configured.definition_id IS 'The version that the next run takes.';
COMMENT ON COLUMN flow.configured.owner IS
  'The role that configured the flow first: it, its members and flow_admin may configure it again or drop it.';

COMMENT ON TABLE flow.definition_node IS 'The nodes of each version.';
COMMENT ON COLUMN flow.definition_node.definition_id IS 'The version.';
COMMENT ON COLUMN flow.definition_node.node_no IS 'The node''s number in it.';
COMMENT ON COLUMN flow.definition_node.node IS 'Its name.';
COMMENT ON COLUMN flow.definition_node.rank IS 'Length of the longest path from a node without parents.';
COMMENT ON COLUMN flow.definition_node.target IS 'Where its tasks run; null: the local database.';
COMMENT ON COLUMN flow.definition_node.routine IS 'What its own task calls, as configured; null for an empty node.';
COMMENT ON COLUMN flow.definition_node.routine_resolved IS
  'The same, schema-qualified, where it was found when configured (local targets).';
COMMENT ON COLUMN flow.definition_node.step_routine IS
  'What its steps call, as configured; null when they start a flow.';
COMMENT ON COLUMN flow.definition_node.step_routine_resolved IS
  'The same, schema-qualified, where it was found when configured.';
COMMENT ON COLUMN flow.definition_node.priority IS '-99 to 99, lower runs first.';
COMMENT ON COLUMN flow.definition_node.all_steps_must_complete IS
  'Whether a failed step stops the others and fails the node.';
COMMENT ON COLUMN flow.definition_node.empty IS 'It has no task of its own, only steps, or nothing.';
COMMENT ON COLUMN flow.definition_node.steps_to_flow IS
  'The flow that each of its steps starts; null: steps call a routine.';
COMMENT ON COLUMN flow.definition_node.synchronous IS
  'Its tasks end when their call returns, even on an asynchronous target.';
COMMENT ON COLUMN flow.definition_node.node_timeout IS
  'Limit for the node with its steps, from the start of its own task; null: none.';
COMMENT ON COLUMN flow.definition_node.step_timeout IS
  'Limit for each step, from its first start; null: the target''s.';
COMMENT ON COLUMN flow.definition_node.on_partial_fail IS
  'After a crash a task that had committed a part fails instead of running again.';
COMMENT ON COLUMN flow.definition_node.count_parents IS 'Number of its parents.';
COMMENT ON COLUMN flow.definition_node.query IS 'What the node''s own task runs instead of a routine.';
COMMENT ON COLUMN flow.definition_node.step_query IS 'What its steps run.';
COMMENT ON COLUMN flow.definition_node.query_routine IS 'A function of this database that returns the query, as configured.';
COMMENT ON COLUMN flow.definition_node.query_routine_resolved IS 'The same, schema-qualified.';
COMMENT ON COLUMN flow.definition_node.options IS 'parameters, settings, tier, request, result: those that are given.';
COMMENT ON COLUMN flow.definition_node.steps IS 'Its static steps: an array of objects; null: none.';

COMMENT ON TABLE flow.definition_edge IS 'The dependencies of each version.';
COMMENT ON COLUMN flow.definition_edge.definition_id IS 'The version.';
COMMENT ON COLUMN flow.definition_edge.parent_no IS 'The node that is waited for.';
COMMENT ON COLUMN flow.definition_edge.node_no IS 'The node that waits.';
COMMENT ON COLUMN flow.definition_edge.continue_on_failure IS 'Whether it runs although the parent failed.';

COMMENT ON TABLE flow.flow IS 'The runs. Visible to the role they run as, its members and flow_monitor.';
COMMENT ON COLUMN flow.flow.flow_id IS 'The run''s number.';
COMMENT ON COLUMN flow.flow.flow IS 'The flow''s name.';
COMMENT ON COLUMN flow.flow.definition_id IS 'The version that it keeps to its end.';
COMMENT ON COLUMN flow.flow.run_as IS 'The role that all its tasks run as.';
COMMENT ON COLUMN flow.flow.arguments IS 'What run_flow was given; {} for null.';
COMMENT ON COLUMN flow.flow.created IS 'When run_flow was called.';
COMMENT ON COLUMN flow.flow.processed IS 'When it ended; null: it is open.';
COMMENT ON COLUMN flow.flow.cancelled IS 'It was cancelled.';
COMMENT ON COLUMN flow.flow.parent_task_id IS
  'The task that started it and ends with it; null: somebody''s call of run_flow.';
COMMENT ON COLUMN flow.flow.parent_flow_id IS 'The run which that task belongs to.';
COMMENT ON COLUMN flow.flow.depth IS 'How many runs above it have started each other.';
COMMENT ON COLUMN flow.flow.only_these_nodes IS 'The nodes that take part, by name; null: all.';
COMMENT ON COLUMN flow.flow.force_priority IS 'The priority of all its tasks; null: each node''s own.';
COMMENT ON COLUMN flow.flow.count_nodes IS 'Number of its nodes.';
COMMENT ON COLUMN flow.flow.count_finished_nodes IS
  'Nodes that have ended, however (flow.v_flow_status counts only those that did not fail).';
COMMENT ON COLUMN flow.flow.count_failed_nodes IS
  'Of these: failed, timed out, cancelled, or skipped because of a failure.';
COMMENT ON COLUMN flow.flow.first_error IS 'The error that came first; null: none.';

COMMENT ON TABLE flow.flow_node IS 'The nodes of the runs. flow.v_flow_node_status tells it in words.';
COMMENT ON COLUMN flow.flow_node.flow_id IS 'The run.';
COMMENT ON COLUMN flow.flow_node.node_no IS 'The node''s number in the run''s version.';
COMMENT ON COLUMN flow.flow_node.node IS 'Its name.';
COMMENT ON COLUMN flow.flow_node.state IS 'See the domain flow.node_state_t.';
COMMENT ON COLUMN flow.flow_node.excluded IS 'It takes no part in the run (_only_these_nodes).';
COMMENT ON COLUMN flow.flow_node.parents_open IS 'Parents that have not ended.';
COMMENT ON COLUMN flow.flow_node.blocked_by IS 'A parent whose failure keeps it from running; null: none.';
COMMENT ON COLUMN flow.flow_node.task_id IS 'Its own task; null before it opens and for empty nodes.';
COMMENT ON COLUMN flow.flow_node.concurrency_pool IS
  'What the flow''s concurrency_group_routine said; null: not asked, or there is none.';
COMMENT ON COLUMN flow.flow_node.opened IS 'When its parents had ended.';
COMMENT ON COLUMN flow.flow_node.ended IS 'When it ended; null: it has not.';
COMMENT ON COLUMN flow.flow_node.times_up IS 'When node_timeout is over; known once its own task has finished.';
COMMENT ON COLUMN flow.flow_node.error IS 'Why it failed or did not run.';

COMMENT ON TABLE flow.flow_step IS 'The steps of the nodes of the runs; async.task has the rest.';
COMMENT ON COLUMN flow.flow_step.flow_id IS 'The run.';
COMMENT ON COLUMN flow.flow_step.node_no IS 'The node.';
COMMENT ON COLUMN flow.flow_step.task_id IS 'The step''s task.';
COMMENT ON COLUMN flow.flow_step.arguments_hash IS
  'SHA-256 of the arguments'' jsonb text: the same arguments are the same step.';

COMMENT ON COLUMN flow.flow_configuration.flow IS 'The name.';
COMMENT ON COLUMN flow.flow_configuration.concurrency_group_routine IS
  'The function that says which pool a node''s tasks run in; null: none.';
COMMENT ON COLUMN flow.flow_configuration.priority IS 'Of nodes that have none of their own; lower runs first.';
COMMENT ON COLUMN flow.flow_configuration.run_as IS
  'The role that its runs run as; null: the role that calls run_flow.';
COMMENT ON COLUMN flow.flow_configuration.owner IS 'The role that may configure it again.';
COMMENT ON COLUMN flow.flow_configuration.author IS 'The role that configured this version.';
COMMENT ON COLUMN flow.flow_configuration.configured IS 'When this version was stored.';
COMMENT ON COLUMN flow.flow_configuration.definition_id IS 'The version.';

COMMENT ON COLUMN flow.node.node IS 'The name.';
COMMENT ON COLUMN flow.node.target IS 'Where its tasks run.';
COMMENT ON COLUMN flow.node.routine IS 'What its own task calls; null for an empty node.';
COMMENT ON COLUMN flow.node.node_routine IS 'The same.';
COMMENT ON COLUMN flow.node.step_routine IS 'What its steps call; null when they start a flow.';
COMMENT ON COLUMN flow.node.priority IS 'Lower runs first.';
COMMENT ON COLUMN flow.node.all_steps_must_complete IS 'Whether a failed step stops the others and fails the node.';
COMMENT ON COLUMN flow.node.empty IS 'It has no task of its own.';
COMMENT ON COLUMN flow.node.steps_to_flow IS 'The flow that its steps start.';
COMMENT ON COLUMN flow.node.synchronous IS 'Its tasks end when their call returns, even on an asynchronous target.';
COMMENT ON COLUMN flow.node.node_timeout IS 'Limit for the node with its steps.';
COMMENT ON COLUMN flow.node.step_timeout IS 'Limit for each step.';
COMMENT ON COLUMN flow.node.flow IS 'The flow that it belongs to.';

COMMENT ON COLUMN flow.step.node IS 'The node.';
COMMENT ON COLUMN flow.step.arguments IS 'The step''s arguments.';
COMMENT ON COLUMN flow.step.flow IS 'The flow.';

COMMENT ON COLUMN flow.dependency_configuration.flow IS 'The flow.';
COMMENT ON COLUMN flow.dependency_configuration.parent IS 'The node that is waited for.';
COMMENT ON COLUMN flow.dependency_configuration.child IS 'The node that waits.';
COMMENT ON COLUMN flow.dependency_configuration.continue_on_failure IS
  'Whether the child runs although the parent failed.';

COMMENT ON COLUMN flow.dependency.flow_id IS 'The run.';
COMMENT ON COLUMN flow.dependency.parent IS 'The node that is waited for.';
COMMENT ON COLUMN flow.dependency.child IS 'The node that waits.';
COMMENT ON COLUMN flow.dependency.continue_on_failure IS 'Whether the child runs although the parent failed.';

COMMENT ON COLUMN flow.arguments.flow_id IS 'The run.';
COMMENT ON COLUMN flow.arguments.arguments IS 'What run_flow was given.';

COMMENT ON COLUMN flow.v_flow_status.flow_id IS 'The run.';
COMMENT ON COLUMN flow.v_flow_status.flow IS 'The flow''s name.';
COMMENT ON COLUMN flow.v_flow_status.complete IS 'Yes: it has ended; else No.';
COMMENT ON COLUMN flow.v_flow_status.run_time IS 'From run_flow to its end, or until now, in words.';
COMMENT ON COLUMN flow.v_flow_status.count_nodes IS 'Number of its nodes.';
COMMENT ON COLUMN flow.v_flow_status.count_finished_nodes IS
  'Nodes that have ended without failing; those that take no part included.';
COMMENT ON COLUMN flow.v_flow_status.count_failed_nodes IS
  'Nodes that failed, timed out, were cancelled, or never ran because of that.';
COMMENT ON COLUMN flow.v_flow_status.arguments IS 'What run_flow was given.';
COMMENT ON COLUMN flow.v_flow_status.first_error IS 'The error that came first; null: none.';

COMMENT ON COLUMN flow.v_flow_configuration.flow IS 'The name.';
COMMENT ON COLUMN flow.v_flow_configuration.concurrency_group_routine IS
  'The function that says which pool a node''s tasks run in.';
COMMENT ON COLUMN flow.v_flow_configuration.last_execution_time IS 'When its last run was started; null: never.';
COMMENT ON COLUMN flow.v_flow_configuration.last_execution_success IS
  'Whether its last run ended without a failed node; null: it is open, or there is none.';
COMMENT ON COLUMN flow.v_flow_configuration.flow_concurrency_control IS
  'Always RUN: runs of a flow do not wait for each other.';
COMMENT ON COLUMN flow.v_flow_configuration.last_execution_flow_id IS 'Its last run.';
COMMENT ON COLUMN flow.v_flow_configuration.count_flows_running IS 'Its open runs.';
COMMENT ON COLUMN flow.v_flow_configuration.count_flows_pending IS 'Always 0.';
COMMENT ON COLUMN flow.v_flow_configuration.last_error_message IS 'The first error of its last run.';

COMMENT ON COLUMN flow.v_flow_node_status.flow_id IS 'The run.';
COMMENT ON COLUMN flow.v_flow_node_status.flow IS 'The flow''s name.';
COMMENT ON COLUMN flow.v_flow_node_status.node IS 'The node.';
COMMENT ON COLUMN flow.v_flow_node_status.target IS 'Where its tasks run.';
COMMENT ON COLUMN flow.v_flow_node_status.started IS
  'First start of its own task (of an empty node: when it opened); null: it has not started.';
COMMENT ON COLUMN flow.v_flow_node_status.finished IS 'When it ended, its steps included.';
COMMENT ON COLUMN flow.v_flow_node_status.status IS
  'Pending, Deferred, Running, Running Async (its call has returned, flow.finish is awaited), Running Steps; ended: '
  'Finished (also: takes no part in the run), Failed, Timed Out, Cancelled, Skipped.';
COMMENT ON COLUMN flow.v_flow_node_status.steps IS 'Number of its steps.';
COMMENT ON COLUMN flow.v_flow_node_status.steps_pending IS 'Steps that wait.';
COMMENT ON COLUMN flow.v_flow_node_status.steps_running IS
  'Steps that run, or whose call has returned and that await flow.finish.';
COMMENT ON COLUMN flow.v_flow_node_status.steps_finished IS 'Steps that finished.';
COMMENT ON COLUMN flow.v_flow_node_status.steps_failed IS 'Steps that ended otherwise.';
COMMENT ON COLUMN flow.v_flow_node_status.all_steps_must_complete IS 'Whether a failed step fails the node.';
COMMENT ON COLUMN flow.v_flow_node_status.run_time IS
  'From its start to its end, or until now, in words; '''' before it starts.';
COMMENT ON COLUMN flow.v_flow_node_status.changed IS 'When something of its own last changed (not its steps).';
COMMENT ON COLUMN flow.v_flow_node_status.in_progress IS 'It has started and not ended.';
COMMENT ON COLUMN flow.v_flow_node_status.progress_done IS
  'While its own task runs: what flow.progress said; else how many of its steps have ended.';
COMMENT ON COLUMN flow.v_flow_node_status.progress_total IS 'Of how many; null: not said.';
COMMENT ON COLUMN flow.v_flow_node_status.progress_note IS 'What flow.progress said last, while its own task runs.';
COMMENT ON COLUMN flow.v_flow_node_status.attempt IS 'Attempts of its own task, a running one included.';
COMMENT ON COLUMN flow.v_flow_node_status.error IS 'Why it failed or did not run.';
COMMENT ON COLUMN flow.v_flow_node_status.skipped_by IS
  'Of a skipped node: the parent because of which it did not run.';
COMMENT ON COLUMN flow.v_flow_node_status.node_no IS 'Its number in the version of the flow that the run keeps.';

COMMENT ON COLUMN flow.v_flow_task_status.flow_id IS 'The run.';
COMMENT ON COLUMN flow.v_flow_task_status.task_id IS 'The task; null: the node has none (yet).';
COMMENT ON COLUMN flow.v_flow_task_status.type IS 'Node: a node''s own task; Step: one of its steps.';
COMMENT ON COLUMN flow.v_flow_task_status.flow IS 'The flow''s name.';
COMMENT ON COLUMN flow.v_flow_task_status.node IS 'The node.';
COMMENT ON COLUMN flow.v_flow_task_status.target IS 'Where it runs.';
COMMENT ON COLUMN flow.v_flow_task_status.started IS
  'First start, as text (YYYY-MM-DD HH24:MI:SS in the session''s time zone); null: it has not started.';
COMMENT ON COLUMN flow.v_flow_task_status.complete IS 'Yes: it has ended; else No. Of a node: with its steps.';
COMMENT ON COLUMN flow.v_flow_task_status.run_time IS
  'From its start to its end, or until now, in words; '''' before it starts.';
COMMENT ON COLUMN flow.v_flow_task_status.status IS
  'As in flow.v_flow_node_status; a step is never Running Steps or Skipped.';
COMMENT ON COLUMN flow.v_flow_task_status.step_arguments IS 'The step''s arguments as text; {} for a node''s own task.';
COMMENT ON COLUMN flow.v_flow_task_status.processing_error IS 'Why it failed or did not run.';
COMMENT ON COLUMN flow.v_flow_task_status.query IS 'The statement that it runs, in full; one can try it out by hand.';
COMMENT ON COLUMN flow.v_flow_task_status.progress_done IS 'While it runs: what flow.progress said.';
COMMENT ON COLUMN flow.v_flow_task_status.progress_total IS 'Of how many; null: not said.';
COMMENT ON COLUMN flow.v_flow_task_status.progress_note IS 'What flow.progress said last.';
COMMENT ON COLUMN flow.v_flow_task_status.attempt IS 'Its attempts, a running one included.';

COMMENT ON COLUMN flow.v_flow_task.flow_id IS 'The run.';
COMMENT ON COLUMN flow.v_flow_task.node IS 'The node.';
COMMENT ON COLUMN flow.v_flow_task.step_arguments IS 'The step''s arguments; {} for a node''s own task.';
COMMENT ON COLUMN flow.v_flow_task.is_node IS 'It is a node''s own task.';
COMMENT ON COLUMN flow.v_flow_task.task_id IS 'The task.';
COMMENT ON COLUMN flow.v_flow_task.target IS 'Where it runs.';
COMMENT ON COLUMN flow.v_flow_task.priority IS 'Lower runs first.';
COMMENT ON COLUMN flow.v_flow_task.entered IS 'When it was pushed.';
COMMENT ON COLUMN flow.v_flow_task.consumed IS 'Start of its last attempt.';
COMMENT ON COLUMN flow.v_flow_task.processed IS 'When it ended; null: open.';
COMMENT ON COLUMN flow.v_flow_task.yielded IS 'When its call had returned, of an asynchronous one.';
COMMENT ON COLUMN flow.v_flow_task.finish_status IS 'How it ended; while open: YIELDED, DEFERRED or null.';
COMMENT ON COLUMN flow.v_flow_task.source IS 'Always flow.';
COMMENT ON COLUMN flow.v_flow_task.query IS 'The statement that it runs, in full.';
COMMENT ON COLUMN flow.v_flow_task.failed IS 'It ended otherwise than FINISHED.';
COMMENT ON COLUMN flow.v_flow_task.processing_error IS 'Why.';
COMMENT ON COLUMN flow.v_flow_task.asynchronous_finish IS 'It waits for flow.finish after its call has returned.';
COMMENT ON COLUMN flow.v_flow_task.times_up IS 'When a yielded one times out.';
COMMENT ON COLUMN flow.v_flow_task.task_data IS 'An object with flow_id, node and step_arguments.';
COMMENT ON COLUMN flow.v_flow_task.concurrency_pool IS
  'The pool it runs in; null: its target''s own; '''': the flow''s routine is still to be asked.';
COMMENT ON COLUMN flow.v_flow_task.manual_timeout IS 'Its own time-out, from its first start.';
COMMENT ON COLUMN flow.v_flow_task.tracked IS 'It takes a place in its pool right now.';
COMMENT ON COLUMN flow.v_flow_task.track_yielded IS 'It keeps its place in the pool while yielded.';
COMMENT ON COLUMN flow.v_flow_task.eligible_when IS 'It does not run before; infinity: its node has not opened.';

-- client/server.sql
-- Where the orchestrating server is. The string may hold a password: only the owner of the table sees it; everybody else
-- sees "readable".

CREATE TABLE IF NOT EXISTS async.client_server (
  only_row          BOOL PRIMARY KEY DEFAULT true CHECK (only_row),
  connection_string TEXT NOT NULL,
  connect_with      TEXT NOT NULL,
  readable          TEXT NOT NULL,
  version           BIGINT NOT NULL
);
REVOKE ALL ON async.client_server FROM PUBLIC;
COMMENT ON TABLE async.client_server IS
  'Where the orchestrating server is, if this database is a client: one row or none. Set with async.server. Owner only.';
COMMENT ON COLUMN async.client_server.only_row IS 'Keeps the table at one row.';
COMMENT ON COLUMN async.client_server.connection_string IS 'As it was given. May hold a password.';
COMMENT ON COLUMN async.client_server.connect_with IS 'The same with defaults for what it leaves open, or the name of a foreign server.';
COMMENT ON COLUMN async.client_server.readable IS 'The same without secrets: what errors and async.server() show.';
COMMENT ON COLUMN async.client_server.version IS 'Differs after each change: connections that are kept belong to one version.';

-- Takes a connection string apart the way libpq does. What libpq would refuse is refused here, because its message can
-- repeat a piece of the password.
CREATE OR REPLACE FUNCTION async.connection_parts(_string TEXT, OUT readable TEXT, OUT secrets TEXT[])
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _rest  TEXT := _string;
  _item  TEXT[];
  _place TEXT[];
  _host  TEXT;
  _shown TEXT[] := '{}';
BEGIN
  secrets := '{}';
  IF _string ~ '^postgres(ql)?://' THEN
    -- 2 user, 4 password, 5 hosts, 7 database, 9 parameters
    _place := regexp_match(_string, '^(postgres(?:ql)?://)(?:([^:@/?]*)(:([^:@/?]*))?@)?([^@/?]*)(/([^@/?]*))?(\?(.*))?$');
    IF _place IS NOT NULL AND _string !~ '\s' AND _string !~ '%(?![0-9A-Fa-f]{2})'
       AND coalesce(_place[9] ~ '^([A-Za-z_]+=[^&=]*(&|$))*$', true) THEN
      readable := _place[1] || coalesce(_place[2] || '@', '') || _place[5] || coalesce(_place[6], '');
      secrets := array_remove(ARRAY[_place[4]] || ARRAY(
        SELECT split_part(p, '=', 2) FROM regexp_split_to_table(coalesce(_place[9], ''), '&') AS p
         WHERE split_part(p, '=', 1) NOT IN ('host', 'hostaddr', 'port', 'dbname', 'user', 'sslmode', 'connect_timeout')), NULL);
      FOREACH _host IN ARRAY string_to_array(_place[5], ',') LOOP
        IF _host !~ '^(\[[0-9A-Fa-f:.%]+\]|[^:\[\]]*)(:[0-9]*)?$' THEN
          readable := NULL;
        END IF;
      END LOOP;
    END IF;
  ELSIF EXISTS (SELECT FROM pg_foreign_server f WHERE f.srvname = _string) THEN
    readable := format('server %I', _string);
  ELSE
    FOR _at IN 1 .. 100 LOOP
      EXIT WHEN _rest ~ '^\s*$';
      _item := regexp_match(_rest, '^(\s*([a-z_]+)\s*=\s*(''(?:[^''\\]|\\.)*''|(?:[^\s''\\]|\\.)(?:[^\s\\]|\\.)*|$))');
      EXIT WHEN _item IS NULL;
      _rest := substr(_rest, length(_item[1]) + 1);
      IF _item[2] IN ('host', 'hostaddr', 'port', 'dbname', 'user', 'service') THEN
        _shown := _shown || (_item[2] || '=' || _item[3]);
      ELSIF _item[2] NOT IN ('sslmode', 'connect_timeout', 'application_name', 'target_session_attrs') THEN
        IF _item[2] = 'password' THEN
          _shown := _shown || 'password=***'::TEXT;
        END IF;
        secrets := secrets || regexp_replace(btrim(_item[3], ''''), '\\(.)', '\1', 'g');
      END IF;
    END LOOP;
    IF _rest ~ '^\s*$' THEN
      readable := array_to_string(_shown, ' ');
    END IF;
  END IF;
  secrets := array_remove(secrets, '');
  IF readable IS NULL OR readable = '' THEN
    RAISE invalid_parameter_value USING
      MESSAGE = 'the connection string cannot be read',
      DETAIL = 'It is not repeated here, because it may hold a password.',
      HINT = 'Write it as ''host=… port=… dbname=… user=… password=…'' (values with blanks or quotes as ''…'' with \ before '
        ''' and \), as postgresql://user:password@host:port/dbname (special characters as %40 and the like), or give the name '
        'of a foreign server of dblink_fdw or postgres_fdw.';
  END IF;
END
$$;
COMMENT ON FUNCTION async.connection_parts(TEXT) IS
  'Internal: a connection string without its secrets, and these; raises invalid_parameter_value for one that cannot be read.';

CREATE OR REPLACE FUNCTION async.set_server(_string TEXT) RETURNS VOID
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
SET debug_print_parse = off SET debug_print_rewritten = off SET debug_print_plan = off AS $$
DECLARE
  _readable TEXT;
  _with     TEXT := _string;
BEGIN
  DELETE FROM async.client_server;
  DELETE FROM flow.client_arguments;  -- those of another server's runs
  IF btrim(_string) = '' THEN
    RETURN;
  END IF;
  _readable := (async.connection_parts(_string)).readable;
  -- What the string says itself counts more than these. A server that does not answer must not hold a callback for ever.
  IF _string ~ '^postgres(ql)?://' THEN
    IF _string !~ '[?&]connect_timeout=' THEN
      _with := _with || CASE WHEN _string ~ '\?' THEN '&' ELSE '?' END || 'connect_timeout=10';
    END IF;
  ELSIF _readable !~ '^server ' THEN
    _with := 'fallback_application_name=pgflow_client connect_timeout=10 ' || _string;
  END IF;
  INSERT INTO async.client_server (connection_string, connect_with, readable, version)
  VALUES (_string, _with, _readable, (extract(epoch FROM clock_timestamp()) * 1000000)::BIGINT);
END
$$;
COMMENT ON FUNCTION async.set_server(TEXT) IS 'Internal: keeps where the orchestrating server is; '''': nowhere.';

-- client/transport.sql
-- How a statement reaches the orchestrating server: through dblink. dblink has no parameters: whoever makes a statement
-- quotes every value with format %L.
--
-- dblink lets everybody in a session use every connection that is open in it, and a connection has the rights of the user
-- that the string names. Hence: a connection is opened for a call and closed with it, by dblink itself, whatever happens,
-- unless the session's role could not misuse it: it has the owner's rights anyway, or may not execute dblink's functions
-- (REVOKE them from PUBLIC to have connections kept). Then one is kept for the session, and tried before each use.
--
-- The connection string is read by the statement that hands it to dblink. It is never a parameter or a literal: those
-- show in the plans that debug_print_plan prints.

CREATE OR REPLACE FUNCTION async.dblink_schema() RETURNS NAME
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _schema NAME;
BEGIN
  SELECT n.nspname INTO _schema
  FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'dblink';
  IF _schema IS NULL THEN
    RAISE undefined_object USING
      MESSAGE = 'the orchestrating server cannot be reached: extension "dblink" is not installed in this database',
      HINT = 'CREATE EXTENSION dblink; it comes with PostgreSQL (package postgresql-contrib).';
  END IF;
  RETURN _schema;
END
$$;
COMMENT ON FUNCTION async.dblink_schema() IS 'Internal: the schema of extension dblink; raises undefined_object with a hint without it.';

-- Runs as the owner.
CREATE OR REPLACE FUNCTION async.may_keep_connection() RETURNS BOOL
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT pg_has_role(session_user, current_user, 'USAGE') OR NOT EXISTS (
    SELECT FROM pg_extension e
    JOIN pg_depend d ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND d.deptype = 'e'
      AND d.classid = 'pg_proc'::regclass
    JOIN pg_roles r ON pg_has_role(session_user, r.oid, 'MEMBER')
    WHERE e.extname = 'dblink' AND has_function_privilege(r.oid, d.objid, 'EXECUTE'));
$$;
COMMENT ON FUNCTION async.may_keep_connection() IS
  'Internal: whether a connection may stay open: the session''s role has the owner''s rights, or cannot use dblink by itself.';

-- The name of the session's connection, open and answering.
CREATE OR REPLACE FUNCTION async.kept_connection(_dblink NAME) RETURNS TEXT
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
SET debug_print_parse = off SET debug_print_rewritten = off SET debug_print_plan = off AS $$
DECLARE
  _name CONSTANT TEXT := (SELECT format('pgflow-%s', s.version) FROM async.client_server s);
  _open TEXT[];
  _old  TEXT;
BEGIN
  EXECUTE format('SELECT %I.dblink_get_connections()', _dblink) INTO _open;
  FOR _old IN SELECT o FROM unnest(_open) AS o WHERE o LIKE 'pgflow-%' AND o <> _name LOOP
    EXECUTE format('SELECT %I.dblink_disconnect($1)', _dblink) USING _old;
  END LOOP;
  IF _name = ANY (_open) THEN
    BEGIN
      EXECUTE format('SELECT r.value FROM %I.dblink($1, $2) AS r(value TEXT)', _dblink) USING _name, 'SELECT ''1''::TEXT'::TEXT;
      RETURN _name;
    EXCEPTION WHEN OTHERS THEN  -- whatever it is, a new connection is the answer
      EXECUTE format('SELECT %I.dblink_disconnect($1)', _dblink) USING _name;
    END;
  END IF;
  EXECUTE format('SELECT %I.dblink_connect($1, s.connect_with) FROM async.client_server s', _dblink) USING _name;
  RETURN _name;
END
$$;
COMMENT ON FUNCTION async.kept_connection(NAME) IS 'Internal: the name of the session''s connection to the server, open and answering.';

-- One statement, one answer; the server commits before this returns. Its errors arrive as they were raised there: SQLSTATE,
-- message, detail, hint.
CREATE OR REPLACE FUNCTION async.ask_server(_statement TEXT) RETURNS SETOF TEXT
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
SET debug_print_parse = off SET debug_print_rewritten = off SET debug_print_plan = off AS $$
DECLARE
  _dblink  CONSTANT NAME := async.dblink_schema();
  _server  TEXT := async.server_to_ask();
  _name    TEXT;
  _detail  TEXT;
  _message TEXT;
  _code    TEXT;
  _secret  TEXT;
BEGIN
  IF async.may_keep_connection() THEN
    _name := async.kept_connection(_dblink);
    RETURN QUERY EXECUTE format('SELECT r.value FROM %I.dblink($1, $2) AS r(value TEXT)', _dblink) USING _name, _statement;
  ELSE
    RETURN QUERY EXECUTE format(
      'SELECT r.value FROM async.client_server s CROSS JOIN LATERAL %I.dblink(s.connect_with, $1) AS r(value TEXT)', _dblink)
      USING _statement;
  END IF;
EXCEPTION WHEN connection_exception OR SQLSTATE '2F003' THEN
  GET STACKED DIAGNOSTICS _message = MESSAGE_TEXT, _detail = PG_EXCEPTION_DETAIL, _code = RETURNED_SQLSTATE;
  _detail := concat_ws(': ', _message, nullif(btrim(_detail), ''));
  FOR _secret IN SELECT unnest((async.connection_parts(s.connection_string)).secrets) FROM async.client_server s LOOP
    _detail := replace(_detail, _secret, '***');
  END LOOP;
  RAISE EXCEPTION USING
    ERRCODE = _code,
    MESSAGE = format('the orchestrating server cannot be reached at "%s"', _server),
    DETAIL = _detail,
    HINT = CASE _code WHEN '2F003' THEN 'The role that installed this client is no superuser: dblink then connects only with a '
                 'password. Put one into async.server(…), and have the server ask for it (pg_hba.conf).'
               ELSE 'SELECT async.server(''…'') tells this database where the server is. Nothing was told to the server, unless '
                 'the connection broke after it had been asked.' END;
END
$$;
COMMENT ON FUNCTION async.ask_server(TEXT) IS
  'Internal: runs a statement on the orchestrating server and returns the first column of its rows as text.';

CREATE OR REPLACE FUNCTION async.server_to_ask() RETURNS TEXT
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _readable TEXT;
BEGIN
  SELECT s.readable INTO _readable FROM async.client_server s;
  IF _readable IS NULL THEN
    RAISE object_not_in_prerequisite_state USING
      MESSAGE = 'this database does not know its orchestrating server',
      HINT = 'SELECT async.server(''host=… dbname=… user=… password=…''), as the role that installed the client.';
  END IF;
  RETURN _readable;
END
$$;
COMMENT ON FUNCTION async.server_to_ask() IS 'Internal: the server as errors show it; raises when none is set.';

-- client/requests.sql
-- What the orchestrating server is asked, one function a request. Values are quoted, never pasted; intervals travel as
-- ISO 8601, which every IntervalStyle reads. Of a callback's arguments only what names its task is sent.

CREATE OR REPLACE FUNCTION async.ask_push_steps(_flow_id BIGINT, _node TEXT, _arguments JSONB[]) RETURNS VOID
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM async.ask_server(format(
    'CALL flow.push_steps(%L::BIGINT, %L::TEXT, %L::JSONB[], false)', _flow_id, _node, _arguments));
END
$$;
COMMENT ON FUNCTION async.ask_push_steps(BIGINT, TEXT, JSONB[]) IS 'Internal: flow.push_steps on the orchestrating server.';

CREATE OR REPLACE FUNCTION async.ask_finish(_args flow.callback_arguments_t, _failed BOOL, _error_message TEXT) RETURNS VOID
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM async.ask_server(format(
    'CALL flow.finish(ROW(%L, %L, NULL, %L, NULL, %L)::flow.callback_arguments_t, %L::BOOL, %L::TEXT, false)',
    _args.flow_id, _args.flow, _args.node, _args.task_id, _failed, _error_message));
END
$$;
COMMENT ON FUNCTION async.ask_finish(flow.callback_arguments_t, BOOL, TEXT) IS 'Internal: flow.finish on the orchestrating server.';

CREATE OR REPLACE FUNCTION async.ask_defer(_args flow.callback_arguments_t, _duration INTERVAL) RETURNS VOID
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET intervalstyle = iso_8601 AS $$
BEGIN
  PERFORM async.ask_server(format(
    'CALL flow.defer(ROW(%L, %L, NULL, %L, NULL, %L)::flow.callback_arguments_t, %L::INTERVAL)',
    _args.flow_id, _args.flow, _args.node, _args.task_id, _duration));
END
$$;
COMMENT ON FUNCTION async.ask_defer(flow.callback_arguments_t, INTERVAL) IS 'Internal: flow.defer on the orchestrating server.';

CREATE OR REPLACE FUNCTION async.ask_cancel_run(_flow_id BIGINT) RETURNS VOID
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM async.ask_server(format('SELECT flow.cancel(%L::BIGINT)::TEXT', _flow_id));
END
$$;
COMMENT ON FUNCTION async.ask_cancel_run(BIGINT) IS 'Internal: flow.cancel on the orchestrating server.';

CREATE OR REPLACE FUNCTION async.ask_finish_tasks(
  _task_ids BIGINT[], _status async.finish_status_t, _error_message TEXT, _duration INTERVAL) RETURNS VOID
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET intervalstyle = iso_8601 AS $$
BEGIN
  PERFORM async.ask_server(format(
    'SELECT async.finish(%L::BIGINT[], %L::async.finish_status_t, %L::TEXT, %L::INTERVAL)::TEXT',
    _task_ids, _status, _error_message, _duration));
END
$$;
COMMENT ON FUNCTION async.ask_finish_tasks(BIGINT[], async.finish_status_t, TEXT, INTERVAL) IS
  'Internal: async.finish on the orchestrating server.';

CREATE OR REPLACE FUNCTION async.ask_cancel_tasks(_task_ids BIGINT[], _error_message TEXT) RETURNS VOID
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM async.ask_server(format('SELECT async.cancel(%L::BIGINT[], %L::TEXT)::TEXT', _task_ids, _error_message));
END
$$;
COMMENT ON FUNCTION async.ask_cancel_tasks(BIGINT[], TEXT) IS 'Internal: async.cancel on the orchestrating server.';

CREATE OR REPLACE FUNCTION async.ask_defer_tasks(_task_ids BIGINT[], _duration INTERVAL) RETURNS VOID
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET intervalstyle = iso_8601 AS $$
BEGIN
  PERFORM async.ask_server(format('SELECT async.defer(%L::BIGINT[], %L::INTERVAL)::TEXT', _task_ids, _duration));
END
$$;
COMMENT ON FUNCTION async.ask_defer_tasks(BIGINT[], INTERVAL) IS 'Internal: async.defer on the orchestrating server.';

CREATE OR REPLACE FUNCTION async.ask_push_tasks(
  _tasks async.task_push_t[], _run_type async.task_run_type_t, _source TEXT) RETURNS SETOF BIGINT
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET intervalstyle = iso_8601 AS $$
BEGIN
  RETURN QUERY SELECT a::BIGINT FROM async.ask_server(format(
    'SELECT async.push_tasks(%L::async.task_push_t[], %L::async.task_run_type_t, %L::TEXT)::TEXT',
    _tasks, _run_type, _source)) AS a;
END
$$;
COMMENT ON FUNCTION async.ask_push_tasks(async.task_push_t[], async.task_run_type_t, TEXT) IS
  'Internal: async.push_tasks on the orchestrating server.';

-- The arguments of runs, as the server told them: a callback may ask often, and they do not change. Bounded: the newest
-- 10,000 runs, for 30 days.
CREATE OR REPLACE FUNCTION async.ask_args(_flow_id BIGINT) RETURNS JSONB
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _arguments JSONB;
BEGIN
  PERFORM async.server_to_ask();
  SELECT c.arguments INTO _arguments FROM flow.client_arguments c WHERE c.flow_id = _flow_id;
  IF FOUND THEN
    RETURN _arguments;
  END IF;
  SELECT a::JSONB INTO _arguments FROM async.ask_server(format('SELECT flow.args(%L::BIGINT)::TEXT', _flow_id)) AS a;
  IF _arguments IS NULL OR current_setting('transaction_read_only')::BOOL THEN
    RETURN _arguments;
  END IF;
  INSERT INTO flow.client_arguments (flow_id, arguments) VALUES (_flow_id, _arguments) ON CONFLICT DO NOTHING;
  IF random() < 0.01 AND current_setting('transaction_isolation') = 'read committed' THEN
    DELETE FROM flow.client_arguments c WHERE c.flow_id IN (
      SELECT x.flow_id FROM flow.client_arguments x
       WHERE x.flow_id <= (SELECT y.flow_id FROM flow.client_arguments y ORDER BY y.flow_id DESC OFFSET 10000 LIMIT 1)
          OR x.cached < clock_timestamp() - INTERVAL '30 days'
       ORDER BY x.flow_id LIMIT 1000 FOR UPDATE SKIP LOCKED);
  END IF;
  RETURN _arguments;
END
$$;
COMMENT ON FUNCTION async.ask_args(BIGINT) IS 'Internal: flow.args of the orchestrating server, kept here for the next time.';

-- client/calls.sql
-- The procedures that callbacks call. On a client they COMMIT first (unless told not to), so that the server, which reacts at
-- once, finds what the callback wrote. Those that do are without a SET clause, and with the caller's rights: every name is
-- qualified.

-- COMMIT has two refusals, both invalid_transaction_termination. In a block with EXCEPTION, where nothing is ever committed,
-- it says which one it would be: this place allows no COMMIT at all, or only the block forbids it. Their texts are
-- translated; a function, where no COMMIT is ever allowed, tells what the first reads like.
CREATE OR REPLACE FUNCTION async.require_commit(_refusal TEXT) RETURNS VOID
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  BEGIN
    COMMIT;
  EXCEPTION WHEN invalid_transaction_termination THEN
    IF _refusal <> SQLERRM THEN
      RETURN;
    END IF;
  END;
  RAISE invalid_transaction_termination USING
    MESSAGE = 'the orchestrating server can be told only after a COMMIT, and none is possible here',
    DETAIL = 'The call comes from a function, a transaction block, a procedure with a SET clause, or a block with EXCEPTION.',
    HINT = 'CALL it from a procedure or DO block outside of those. Or pass _flush_transaction_when_client := false: then the '
      'server is told at once, may react before your transaction commits, and is not untold if it rolls back.';
END
$$;
COMMENT ON FUNCTION async.require_commit(TEXT) IS
  'Internal: raises with a hint if this refusal of a COMMIT is one that says that none is possible.';

CREATE OR REPLACE PROCEDURE flow.push_steps(
  _flow_id BIGINT, _node TEXT, _arguments JSONB[], _flush_transaction_when_client BOOL DEFAULT TRUE)
LANGUAGE plpgsql AS $$
BEGIN
  IF async.commits_first(_flush_transaction_when_client) THEN
    BEGIN
      COMMIT;  -- is refused, see async.require_commit
    EXCEPTION WHEN invalid_transaction_termination THEN
      PERFORM async.require_commit(SQLERRM);
    END;
    COMMIT;
  END IF;
  PERFORM flow.push_steps_now(_flow_id, _node, _arguments);
END
$$;
COMMENT ON PROCEDURE flow.push_steps(BIGINT, TEXT, JSONB[], BOOL) IS
  'Adds steps to a node of a run: an array of JSON objects, the arguments of each; they run when the transaction '
  'has committed and the node''s own task has. Steps that the node has already (the same arguments) are left out. '
  '_flush_transaction_when_client: where this database is a client (async.server), commits before the server is told; '
  'false: the server is told at once and may start steps before this transaction commits, or although it rolls back. '
  'Raises invalid_parameter_value for a step that is {}, null or no object (with its place in the array), '
  'undefined_object for an unknown run or node, object_not_in_prerequisite_state when the node has ended or takes no '
  'part in the run; on a client invalid_transaction_termination where no COMMIT is possible, and class 08 when the '
  'server cannot be reached.';

CREATE OR REPLACE PROCEDURE flow.finish(
  _args flow.callback_arguments_t, _failed BOOL DEFAULT false, _error_message TEXT DEFAULT NULL,
  _flush_transaction_when_client BOOL DEFAULT true)
LANGUAGE plpgsql AS $$
BEGIN
  IF async.commits_first(_flush_transaction_when_client) THEN
    BEGIN
      COMMIT;  -- is refused, see async.require_commit
    EXCEPTION WHEN invalid_transaction_termination THEN
      PERFORM async.require_commit(SQLERRM);
    END;
    COMMIT;
  END IF;
  PERFORM flow.finish_now(_args, _failed, _error_message);
END
$$;
COMMENT ON PROCEDURE flow.finish(flow.callback_arguments_t, BOOL, TEXT, BOOL) IS
  'Ends the task of a callback: FINISHED, or FAILED with _error_message. _args: the arguments that the callback was '
  'called with. Inside the callback the outcome holds if its transaction commits, and for one that runs on another server '
  'if the call there returns without an error; elsewhere (asynchronous targets) it is written at once. A task that has '
  'ended: a WARNING. _flush_transaction_when_client: as for flow.push_steps. '
  'Raises undefined_object, invalid_parameter_value (not the task''s arguments), insufficient_privilege.';

CREATE OR REPLACE PROCEDURE flow.defer(_args flow.callback_arguments_t, _duration INTERVAL)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM flow.defer_now(_args, _duration);
END
$$;
COMMENT ON PROCEDURE flow.defer(flow.callback_arguments_t, INTERVAL) IS
  'Puts the task of a callback back to wait for at least _duration; then it runs again with the same arguments. It waits '
  'from the moment its call has returned. Time-outs go on from its first start. Commits nothing. Errors as flow.finish.';

-- client/inbox.sql
-- The inbox: which attempts of which tasks have had their effects here. Whoever runs a callback for a pgflow elsewhere enters
-- the attempt in the callback's transaction: both commit or neither. If the connection breaks before the answer arrives,
-- a look into the inbox tells which.
--
-- A row belongs to the role that the session logged in as: nobody can enter, or look for, an attempt in another's name.

CREATE TABLE IF NOT EXISTS async.inbox (
  engine  TEXT NOT NULL,
  task_id BIGINT NOT NULL,
  attempt INT NOT NULL,
  done    TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(),
  run_as  NAME NOT NULL DEFAULT session_user,
  PRIMARY KEY (engine, task_id, attempt, run_as)
);
CREATE INDEX IF NOT EXISTS inbox_done ON async.inbox USING brin (done);
REVOKE ALL ON async.inbox FROM PUBLIC;
COMMENT ON TABLE async.inbox IS
  'Attempts of tasks of orchestrating servers that have had their effects here; see async.enter_inbox. Kept for 30 days.';
COMMENT ON COLUMN async.inbox.engine IS 'Which orchestrating database.';
COMMENT ON COLUMN async.inbox.task_id IS 'Its task.';
COMMENT ON COLUMN async.inbox.attempt IS 'The attempt of the task.';
COMMENT ON COLUMN async.inbox.done IS 'When it was entered.';
COMMENT ON COLUMN async.inbox.run_as IS 'The role that the session had logged in as: whose row it is.';

-- The unique_violation is that of the key, with its schema, table and constraint (inbox_pkey): to be told from a callback's own.
CREATE OR REPLACE FUNCTION async.enter_attempt(_engine TEXT, _task_id BIGINT, _attempt INT) RETURNS VOID
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  INSERT INTO async.inbox (engine, task_id, attempt) VALUES (_engine, _task_id, _attempt);
  -- Now and then, at most twice as many as were entered since; never waits for anybody.
  IF random() < 0.002 AND current_setting('transaction_isolation') = 'read committed' THEN
    PERFORM async.clean_inbox();
  END IF;
END
$$;
COMMENT ON FUNCTION async.enter_attempt(TEXT, BIGINT, INT) IS 'Internal: async.enter_inbox with the owner''s rights.';

CREATE OR REPLACE FUNCTION async.clean_inbox() RETURNS BIGINT
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _gone BIGINT;
BEGIN
  DELETE FROM async.inbox i WHERE i.ctid = ANY (ARRAY(
    SELECT x.ctid FROM async.inbox x WHERE x.done < clock_timestamp() - INTERVAL '30 days' LIMIT 1000 FOR UPDATE SKIP LOCKED));
  GET DIAGNOSTICS _gone = ROW_COUNT;
  RETURN _gone;
END
$$;
COMMENT ON FUNCTION async.clean_inbox() IS
  'Internal: deletes up to 1000 rows of async.inbox that are older than 30 days; returns how many.';

-- client/extension.sql
-- The extension as a client: once async.server has a string, calls about runs and tasks go to that server, all of them, and
-- no run or task starts here. Without one everything is of this database.

CREATE TABLE flow.client_arguments (
  flow_id   BIGINT PRIMARY KEY,
  arguments JSONB,
  cached    TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE flow.client_arguments IS
  'On a client (async.server): the arguments of runs of the orchestrating server that flow.args has asked for.';
COMMENT ON COLUMN flow.client_arguments.flow_id IS 'The run.';
COMMENT ON COLUMN flow.client_arguments.arguments IS 'What it was started with.';
COMMENT ON COLUMN flow.client_arguments.cached IS 'When the server told them.';
ALTER TABLE flow.client_arguments ENABLE ROW LEVEL SECURITY;  -- and no policy, as for the next two: nobody but the owner
ALTER TABLE async.client_server ENABLE ROW LEVEL SECURITY;
ALTER TABLE async.inbox ENABLE ROW LEVEL SECURITY;

CREATE FUNCTION async.is_client() RETURNS BOOL LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'as_owner';
COMMENT ON FUNCTION async.is_client IS 'Whether async.server says that this database is a client of another one.';

CREATE FUNCTION async.is_client_as(_caller OID) RETURNS BOOL
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN EXISTS (SELECT FROM async.client_server);
END
$$;
COMMENT ON FUNCTION async.is_client_as IS 'Internal: async.is_client with the caller''s role.';

-- Two databases must not both believe that a run is theirs: their ids are the same small numbers.
CREATE FUNCTION async.require_no_client() RETURNS VOID
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF EXISTS (SELECT FROM async.client_server) THEN
    RAISE object_not_in_prerequisite_state USING
      MESSAGE = format('this database is a client of "%s" and runs nothing itself', async.server_to_ask()),
      HINT = 'Start it on that server. SELECT async.server('''') makes this database its own server again.';
  END IF;
END
$$;
COMMENT ON FUNCTION async.require_no_client IS 'Internal: raises when this database is a client.';

CREATE FUNCTION async.server_as(_caller OID, _new_connection_string TEXT) RETURNS TEXT
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
SET debug_print_parse = off SET debug_print_rewritten = off SET debug_print_plan = off AS $$
BEGIN
  IF _new_connection_string IS NOT NULL THEN
    PERFORM async.require_admin(_caller, 'set where the orchestrating server is');
    IF btrim(_new_connection_string) <> '' THEN
      LOCK TABLE async.task, flow.flow IN SHARE MODE;  -- nobody starts anything until this is decided
      IF EXISTS (SELECT FROM flow.flow f WHERE f.processed IS NULL)
         OR EXISTS (SELECT FROM async.task t WHERE t.processed IS NULL) THEN
        RAISE object_not_in_prerequisite_state USING
          MESSAGE = 'this database cannot become a client while runs or tasks of its own are open',
          HINT = 'Wait for them (flow.v_flow_status, async.v_task) or cancel them: what they call would go to the other server.';
      END IF;
    END IF;
    PERFORM async.set_server(_new_connection_string);
  END IF;
  RETURN coalesce((SELECT s.readable FROM async.client_server s), '');
END
$$;
COMMENT ON FUNCTION async.server_as IS 'Internal: async.server with the caller''s role.';

CREATE FUNCTION async.server(_new_connection_string TEXT DEFAULT NULL) RETURNS TEXT
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'as_owner';
COMMENT ON FUNCTION async.server IS
  'With a connection string (libpq''s, a URL, or the name of a foreign server) makes this database a client: flow.push_steps, '
  'flow.finish, flow.defer, flow.args, flow.cancel, async.push_tasks, async.finish, async.cancel and async.defer act on that '
  'server, through dblink, and nothing starts here. '''': its own server again. Returns what is set without secrets, '''' for '
  'nothing. Setting needs flow_admin; object_not_in_prerequisite_state while something is open here, invalid_parameter_value '
  'for a string that cannot be read.';

CREATE FUNCTION async.commits_first(_flush BOOL) RETURNS BOOL LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'as_owner';
COMMENT ON FUNCTION async.commits_first IS
  'Internal: whether flow.push_steps and flow.finish commit before they act: on a client, unless _flush is false.';

CREATE FUNCTION async.commits_first_as(_caller OID, _flush BOOL) RETURNS BOOL
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN EXISTS (SELECT FROM async.client_server) AND coalesce(_flush, true);
END
$$;
COMMENT ON FUNCTION async.commits_first_as IS 'Internal: async.commits_first with the caller''s role.';

CREATE FUNCTION flow.push_steps_now(_flow_id BIGINT, _node TEXT, _arguments JSONB[]) RETURNS VOID
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'as_owner';
COMMENT ON FUNCTION flow.push_steps_now IS 'Internal: flow.push_steps as a function: never commits.';

CREATE FUNCTION flow.push_steps_now_as(_caller OID, _flow_id BIGINT, _node TEXT, _arguments JSONB[]) RETURNS VOID
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF async.is_client_as(_caller) THEN
    PERFORM async.ask_push_steps(_flow_id, _node, _arguments);
  ELSE
    PERFORM flow.push_steps_as(_caller, _flow_id, _node, _arguments);
  END IF;
END
$$;
COMMENT ON FUNCTION flow.push_steps_now_as IS 'Internal: flow.push_steps_now with the caller''s role.';

CREATE FUNCTION flow.finish_now(_args flow.callback_arguments_t, _failed BOOL, _error_message TEXT) RETURNS VOID
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'as_owner';
COMMENT ON FUNCTION flow.finish_now IS 'Internal: flow.finish as a function: never commits.';

CREATE FUNCTION flow.finish_now_as(
  _caller OID, _args flow.callback_arguments_t, _failed BOOL, _error_message TEXT) RETURNS VOID
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF async.is_client_as(_caller) THEN
    PERFORM async.ask_finish(_args, _failed, _error_message);
  ELSE
    PERFORM flow.finish_as(_caller, _args, _failed, _error_message);
  END IF;
END
$$;
COMMENT ON FUNCTION flow.finish_now_as IS 'Internal: flow.finish_now with the caller''s role.';

CREATE FUNCTION flow.defer_now(_args flow.callback_arguments_t, _duration INTERVAL) RETURNS VOID
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'as_owner';
COMMENT ON FUNCTION flow.defer_now IS 'Internal: flow.defer as a function.';

CREATE FUNCTION flow.defer_now_as(_caller OID, _args flow.callback_arguments_t, _duration INTERVAL) RETURNS VOID
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF async.is_client_as(_caller) THEN
    PERFORM async.ask_defer(_args, _duration);
  ELSE
    PERFORM flow.defer_as(_caller, _args, _duration);
  END IF;
END
$$;
COMMENT ON FUNCTION flow.defer_now_as IS 'Internal: flow.defer_now with the caller''s role.';

-- Only of the server's runs: those of this database are read with the reader's own rights.
CREATE FUNCTION flow.server_args(_flow_id BIGINT) RETURNS JSONB LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'as_owner';
COMMENT ON FUNCTION flow.server_args IS 'flow.args of the orchestrating server; what flow.args calls on a client.';

CREATE FUNCTION flow.server_args_as(_caller OID, _flow_id BIGINT) RETURNS JSONB
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN async.ask_args(_flow_id);
END
$$;
COMMENT ON FUNCTION flow.server_args_as IS 'Internal: flow.server_args with the caller''s role.';

CREATE FUNCTION async.enter_inbox(_engine TEXT, _task_id BIGINT, _attempt INT) RETURNS VOID
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'as_owner';
COMMENT ON FUNCTION async.enter_inbox IS
  'Enters an attempt of a task of an orchestrating server, in the name of the session''s login role; counts if the '
  'transaction commits. Raises unique_violation of async.inbox when it is there; waits for one that is being entered.';

CREATE FUNCTION async.enter_inbox_as(_caller OID, _engine TEXT, _task_id BIGINT, _attempt INT) RETURNS VOID
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM async.enter_attempt(_engine, _task_id, _attempt);
END
$$;
COMMENT ON FUNCTION async.enter_inbox_as IS 'Internal: async.enter_inbox with the caller''s role.';

CREATE FUNCTION async.in_inbox(_engine TEXT, _task_id BIGINT, _attempt INT) RETURNS BOOL
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'as_owner';
COMMENT ON FUNCTION async.in_inbox IS
  'Whether an attempt of a task of an orchestrating server was entered, and committed, by the session''s login role.';

CREATE FUNCTION async.in_inbox_as(_caller OID, _engine TEXT, _task_id BIGINT, _attempt INT) RETURNS BOOL
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN EXISTS (SELECT FROM async.inbox i
    WHERE i.engine = _engine AND i.task_id = _task_id AND i.attempt = _attempt AND i.run_as = session_user);
END
$$;
COMMENT ON FUNCTION async.in_inbox_as IS 'Internal: async.in_inbox with the caller''s role.';

-- compatibility.sql
-- What users of the SQL original call and what means little or nothing here: the async part.

CREATE PROCEDURE async.main(_force BOOL DEFAULT false, _manual_mode BOOL DEFAULT false)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RAISE NOTICE 'async.main does nothing any more: the background worker "pgflow dispatcher" does its work' USING
    HINT = 'SELECT * FROM async.v_server_info shows it. Take the CALL out of cron.';
END
$$;
COMMENT ON PROCEDURE async.main IS 'Returns at once: a background worker does what the main loop of the SQL original did.';

CREATE FUNCTION async.wait_for_latch() RETURNS VOID LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
  SELECT NULL::VOID;
$$;
COMMENT ON FUNCTION async.wait_for_latch IS 'Returns at once: what a transaction did is visible when it has committed.';

CREATE FUNCTION async.log_as(_caller OID, _level TEXT, _message TEXT) RETURNS VOID
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _word CONSTANT TEXT := upper(coalesce(_level, 'NOTICE'));
  _line CONSTANT TEXT := left(coalesce(_message, ''), 10000);
BEGIN
  IF _word = 'DEBUG' AND NOT (SELECT c.debug_log FROM async.control c) THEN
    RETURN;
  ELSIF _word = 'WARNING' THEN
    RAISE WARNING '%', _line;
  ELSIF _word IN ('NOTICE', 'DEBUG', 'INFO', 'LOG') THEN
    RAISE NOTICE '%', _line;
  ELSE
    RAISE EXCEPTION '%', _line;  -- into the server's log; a row here would be rolled back
  END IF;
  INSERT INTO async.server_log (level, message) VALUES (_word, _line);
END
$$;
COMMENT ON FUNCTION async.log_as IS 'Internal: async.log with the caller''s role.';

CREATE FUNCTION async.log(_level TEXT, _message TEXT) RETURNS VOID
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'as_owner';
COMMENT ON FUNCTION async.log(TEXT, TEXT) IS
  'Raises _message as NOTICE or WARNING and adds it to async.server_log (at most 10000 characters). DEBUG: only while '
  'control.debug_log is on. Any other level raises it as an error.';

CREATE FUNCTION async.log(_message TEXT) RETURNS VOID
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
  SELECT async.log('NOTICE', _message);
$$;
COMMENT ON FUNCTION async.log(TEXT) IS 'async.log(''NOTICE'', _message).';

CREATE FUNCTION async.tail_once(_server_log_id BIGINT DEFAULT NULL, _grep TEXT DEFAULT NULL, _limit INT DEFAULT 1000)
RETURNS SETOF async.server_log LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT l.* FROM async.server_log l
   WHERE l.server_log_id > coalesce(_server_log_id, (
           SELECT min(x.server_log_id) - 1
             FROM (SELECT s.server_log_id FROM async.server_log s ORDER BY s.server_log_id DESC LIMIT 100) AS x))
     AND (_grep IS NULL OR l.message LIKE '%' || _grep || '%')
   ORDER BY l.server_log_id LIMIT _limit;
$$;
COMMENT ON FUNCTION async.tail_once IS
  'Lines of async.server_log after _server_log_id (null: the last 100) that contain _grep (a LIKE pattern without its ends), '
  'oldest first, at most _limit.';

-- Without a SET clause, because it commits between looks: every name and operator is qualified.
CREATE PROCEDURE async.tail(_grep TEXT DEFAULT NULL, _limit INT DEFAULT 1000)
LANGUAGE plpgsql AS $$
DECLARE
  _line RECORD;
  _last BIGINT;
BEGIN
  LOOP
    FOR _line IN SELECT * FROM async.tail_once(_last, _grep, _limit) LOOP
      RAISE NOTICE '[% - %]: %', _line.happened, _line.server_log_id, _line.message;
      _last := _line.server_log_id;
    END LOOP;
    COMMIT;
    PERFORM async.wait_for_change(1000);
    COMMIT;
  END LOOP;
END
$$;
COMMENT ON PROCEDURE async.tail IS
  'Prints lines of async.server_log as notices, for ever: the last 100, then new ones within a second. Cancel it to end it; '
  'CALL it outside a transaction block.';

CREATE FUNCTION async.worker_info(OUT worker_info JSONB) RETURNS JSONB
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT coalesce(jsonb_agg(jsonb_build_object(
           'slot', w.slot, 'target', w.target, 'task_id', w.task_id, 'running_since', w.running_since,
           'query', w.query, 'priority', w.priority) ORDER BY w.slot), '[]')
    FROM async.v_worker_info w;
$$;
COMMENT ON FUNCTION async.worker_info IS 'async.v_worker_info as an array of objects.';

-- dump.sql
-- pg_dump of a database with the extension keeps configuration, history and open runs. Two things make the restore work:
-- the tables' rows are marked as to be dumped, and rows that CREATE EXTENSION has just made give way to those of the dump.

DO $$
DECLARE
  _relation REGCLASS;
BEGIN
  FOR _relation IN
    SELECT c.oid FROM pg_catalog.pg_class c
     WHERE c.relkind IN ('r', 'S') AND c.relnamespace IN ('async'::pg_catalog.regnamespace, 'flow'::pg_catalog.regnamespace)
     ORDER BY c.oid
  LOOP
    PERFORM pg_catalog.pg_extension_config_dump(_relation, '');
  END LOOP;
END
$$;

-- Fires for async.control and async.engine_state (one row each) and for target 'local'.
CREATE FUNCTION async.give_way() RETURNS TRIGGER
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF TG_TABLE_NAME = 'control' THEN
    DELETE FROM async.control;
  ELSIF TG_TABLE_NAME = 'engine_state' THEN
    DELETE FROM async.engine_state;
    PERFORM async.announce_settings();  -- the dispatcher must learn, before it sees a task, that this is a copy
  ELSE
    DELETE FROM async.target WHERE target = NEW.target;
  END IF;
  RETURN NEW;
END
$$;
COMMENT ON FUNCTION async.give_way IS 'Internal: lets a restored row replace the one that CREATE EXTENSION made.';

CREATE TRIGGER give_way BEFORE INSERT ON async.control FOR EACH ROW EXECUTE FUNCTION async.give_way();
COMMENT ON TRIGGER give_way ON async.control IS 'For restores: see async.give_way.';
CREATE TRIGGER give_way BEFORE INSERT ON async.engine_state FOR EACH ROW EXECUTE FUNCTION async.give_way();
COMMENT ON TRIGGER give_way ON async.engine_state IS 'For restores: see async.give_way.';
CREATE TRIGGER give_way BEFORE INSERT ON async.target FOR EACH ROW WHEN (NEW.target = 'local')
  EXECUTE FUNCTION async.give_way();
COMMENT ON TRIGGER give_way ON async.target IS 'For restores: see async.give_way.';

-- grants.sql
-- Who may see and call what. Nothing is for PUBLIC. A function is either one that finds out its caller's rights itself (it
-- goes through as_owner), or one that needs none, or the owner's alone: by default, the last.

GRANT flow_user, flow_monitor TO flow_admin;
GRANT USAGE ON SCHEMA async, flow TO flow_user, flow_monitor;
GRANT USAGE ON FOREIGN DATA WRAPPER pgflow TO flow_admin;

-- Rows. The functions are evaluated once a query, not once a row.
CREATE FUNCTION async.reads_everything() RETURNS BOOL
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT pg_has_role('flow_monitor', 'USAGE') OR pg_has_role('flow_admin', 'USAGE');
$$;
COMMENT ON FUNCTION async.reads_everything IS 'Whether you may read the runs and tasks of all roles.';

CREATE FUNCTION async.readable_roles() RETURNS NAME[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT array_agg(r.rolname) FROM pg_roles r WHERE r.rolname = current_user OR pg_has_role(r.oid, 'USAGE');
$$;
COMMENT ON FUNCTION async.readable_roles IS 'The roles whose runs and tasks you may read: those whose rights you have.';

ALTER TABLE async.task ENABLE ROW LEVEL SECURITY;
CREATE POLICY pgflow_read ON async.task FOR SELECT
  USING ((SELECT async.reads_everything()) OR run_as = ANY ((SELECT async.readable_roles())::NAME[]));
ALTER TABLE flow.flow ENABLE ROW LEVEL SECURITY;
CREATE POLICY pgflow_read ON flow.flow FOR SELECT
  USING ((SELECT async.reads_everything()) OR run_as = ANY ((SELECT async.readable_roles())::NAME[]));

ALTER TABLE async.task_log ENABLE ROW LEVEL SECURITY;
CREATE POLICY pgflow_read ON async.task_log FOR SELECT
  USING ((SELECT async.reads_everything()) OR EXISTS (SELECT FROM async.task t WHERE t.task_id = task_log.task_id));
ALTER TABLE async.external_queue ENABLE ROW LEVEL SECURITY;
CREATE POLICY pgflow_read ON async.external_queue FOR SELECT
  USING ((SELECT async.reads_everything()) OR EXISTS (SELECT FROM async.task t WHERE t.task_id = external_queue.task_id));
ALTER TABLE async.result ENABLE ROW LEVEL SECURITY;
CREATE POLICY pgflow_read ON async.result FOR SELECT
  USING ((SELECT async.reads_everything()) OR run_as = ANY ((SELECT async.readable_roles())::NAME[]));
ALTER TABLE async.execution ENABLE ROW LEVEL SECURITY;
CREATE POLICY pgflow_read ON async.execution FOR SELECT
  USING ((SELECT async.reads_everything()) OR created_by = ANY ((SELECT async.readable_roles())::NAME[]));
ALTER TABLE async.task_secret ENABLE ROW LEVEL SECURITY;  -- and no policy: nobody but the owner
ALTER TABLE async.decision ENABLE ROW LEVEL SECURITY;
ALTER TABLE async.callback_token ENABLE ROW LEVEL SECURITY;
ALTER TABLE flow.flow_node ENABLE ROW LEVEL SECURITY;
CREATE POLICY pgflow_read ON flow.flow_node FOR SELECT
  USING ((SELECT async.reads_everything()) OR EXISTS (SELECT FROM flow.flow f WHERE f.flow_id = flow_node.flow_id));
ALTER TABLE flow.flow_step ENABLE ROW LEVEL SECURITY;
CREATE POLICY pgflow_read ON flow.flow_step FOR SELECT
  USING ((SELECT async.reads_everything()) OR EXISTS (SELECT FROM flow.flow f WHERE f.flow_id = flow_step.flow_id));

-- Tables and views: reading only; configured flows are for all users of flows, as functions are in pg_proc (the routine's
-- own EXECUTE right decides who can run it).
GRANT SELECT ON ALL TABLES IN SCHEMA async, flow TO flow_user, flow_monitor;
REVOKE SELECT ON async.target, async.control, async.claim, async.server_log, async.store, async.task_secret, async.decision,
  async.callback_token,
  async.client_server, async.inbox, flow.client_arguments FROM flow_user, flow_monitor;
GRANT SELECT ON async.claim, async.server_log TO flow_monitor;
GRANT SELECT ON async.target, async.control, async.store TO flow_admin;  -- a connection string may hold a password
GRANT SELECT (target, kind, max_concurrency, asynchronous_finish, default_timeout, concurrency_track_yielded, server, owner)
  ON async.target TO flow_user, flow_monitor;
GRANT SELECT (store, url, server, keep_for, owner) ON async.store TO flow_user, flow_monitor;
GRANT SELECT (only_row, workers, self_target, self_concurrency, default_timeout, default_concurrency_pool_workers,
  task_keep_duration, advisory_mutex_id, debug_log, paused)
  ON async.control TO flow_user, flow_monitor;

-- Functions.
REVOKE ALL ON ALL ROUTINES IN SCHEMA async, flow FROM PUBLIC;
DO $$
DECLARE
  -- Plain ones, without as_owner. Reading: for monitors too.
  _reading CONSTANT TEXT[] := ARRAY[
    'async.adopted', 'async.interval_pretty', 'async.may_read', 'async.reads_everything', 'async.readable_roles',
    'async.running', 'async.processes', 'async.pool_use', 'async.setting', 'async.wait_for_change', 'async.last_message',
    'async.first_task_since', 'async.target_name', 'async.target_kind', 'async.tail_once', 'async.tail', 'async.worker_info',
    'async.wait_for_latch', 'async.main', 'async.task', 'async.executor_kinds', 'async.masked_options',
    'async.fetch_result', 'async.read_stored', 'async.result_url', 'async.refuse_result', 'async.table_fault', 'async.execution',
    'async.search_executions', 'async.execution_result', 'async.execution_keep',
    'flow.args', 'flow.configuration', 'flow.walk_flow', 'flow.flows', 'flow.task_list', 'flow.graphviz',
    'flow.graphviz_events', 'flow.node_status_color', 'flow.validate', 'flow.watch', 'flow.wait',
    -- and what these call
    'async.is_client', 'flow.server_args',
    'flow.visible_run', 'flow.render_graphviz', 'flow.diagram_edges', 'flow.changed_here', 'flow.watch_look', 'flow.has_ended',
    'flow.milliseconds'];
  _doing CONSTANT TEXT[] := ARRAY[
    'async.push_task', 'async.log', 'async.note_progress', 'async.is_own_task', 'async.require_commit',
    'flow.push_steps', 'flow.finish', 'flow.defer',
    'flow.configure_flow'];
  _routine RECORD;
BEGIN
  FOR _routine IN
    SELECT p.oid::pg_catalog.regprocedure AS signature, s.name,
           p.prosrc = 'as_owner' AND l.lanname = 'c' AS checks_itself,
           EXISTS (SELECT FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_rewrite w ON w.oid = d.objid
                    WHERE d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass
                      AND d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.refobjid = p.oid) AS in_a_view
      FROM pg_catalog.pg_proc p
      JOIN pg_catalog.pg_language l ON l.oid = p.prolang,
           LATERAL (SELECT p.pronamespace::pg_catalog.regnamespace || '.' || p.proname) AS s(name)
     WHERE p.pronamespace IN ('async'::pg_catalog.regnamespace, 'flow'::pg_catalog.regnamespace)
       AND p.proname !~ '_as$|^announce_'
  LOOP
    IF _routine.in_a_view OR _routine.name = ANY (_reading) THEN
      EXECUTE pg_catalog.format('GRANT EXECUTE ON ROUTINE %s TO flow_user, flow_monitor', _routine.signature);
    ELSIF _routine.checks_itself OR _routine.name = ANY (_doing) THEN
      EXECUTE pg_catalog.format('GRANT EXECUTE ON ROUTINE %s TO flow_user', _routine.signature);
    END IF;
  END LOOP;
END
$$;

-- What must be so, whatever was added above: rows of users are protected, views ask for the reader's rights.
DO $$
DECLARE
  _bad TEXT;
BEGIN
  SELECT pg_catalog.string_agg(c.oid::pg_catalog.regclass::TEXT, ', ') INTO _bad
    FROM pg_catalog.pg_class c
   WHERE c.relnamespace IN ('async'::pg_catalog.regnamespace, 'flow'::pg_catalog.regnamespace)
     AND (c.relkind = 'v' AND NOT coalesce(c.reloptions @> ARRAY['security_invoker=true'], false)
          OR c.relkind = 'r' AND NOT c.relrowsecurity AND EXISTS (
            SELECT FROM pg_catalog.pg_attribute a
             WHERE a.attrelid = c.oid AND a.attname IN ('flow_id', 'task_id') AND NOT a.attisdropped));
  IF _bad IS NOT NULL THEN
    RAISE EXCEPTION 'without row-level security or security_invoker: %', _bad;
  END IF;
END
$$;

SELECT async.wake_launcher();
