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
