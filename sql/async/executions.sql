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
