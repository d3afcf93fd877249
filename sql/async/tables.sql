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
