-- As users of the SQL original write it: a node pushes 100,000 steps, each inserts a row. 100,000 rows, no more and no fewer.
-- A file of its own because it takes ten seconds and more.
\set ON_ERROR_STOP 1
\set QUIET 1
SET client_min_messages = warning;
SELECT async.configure(format('{"control": {"workers": 4, "default_timeout": "1 hour"},
  "targets": [{"target": "self", "max_concurrency": 4, "connection_string": "host=localhost port=%s dbname=%s"}]}',
  current_setting('port'), current_database())::JSONB) AS configured \gset

CREATE TABLE inserted (inserted_id BIGSERIAL PRIMARY KEY, step INT, happened TIMESTAMPTZ DEFAULT clock_timestamp());
CREATE PROCEDURE insert_run(_args flow.callback_arguments_t) LANGUAGE plpgsql AS $$
DECLARE
  _steps JSONB[];
BEGIN
  IF _args.step_arguments = '{}' THEN
    _steps := array(SELECT jsonb_build_object('id', s) FROM generate_series(1, (_args.flow_arguments->>'steps')::INT) s);
    CALL flow.push_steps(_args.flow_id, _args.node, _steps);
  ELSE
    INSERT INTO inserted (step) VALUES ((_args.step_arguments->>'id')::INT);
  END IF;
END
$$;
CREATE PROCEDURE insert_setup(_args flow.callback_arguments_t) LANGUAGE plpgsql AS $$ BEGIN TRUNCATE inserted; END $$;
SELECT flow.configure_flow('many_steps', '{"nodes": [
  {"node": "insert_setup", "target": "self"},
  {"node": "insert_run", "target": "self", "dependencies": [{"parent": "insert_setup"}]}]}') AS configured \gset
SELECT flow.run_flow('many_steps', '{"steps": 100000}') AS run \gset
DO $$
DECLARE
  _run CONSTANT BIGINT := (SELECT max(flow_id) FROM flow.flow);
BEGIN
  FOR _try IN 1 .. 1400 LOOP
    EXIT WHEN (SELECT processed IS NOT NULL FROM flow.flow WHERE flow_id = _run);
    COMMIT;
    PERFORM pg_sleep(0.2);
  END LOOP;
  ASSERT (SELECT complete = 'Yes' AND count_failed_nodes = 0 FROM flow.v_flow_status WHERE flow_id = _run), 'it does not end';
  ASSERT (SELECT count(*) = 100000 AND count(DISTINCT step) = 100000 AND min(step) = 1 AND max(step) = 100000
      FROM inserted), 'rows';
  ASSERT (SELECT steps = 100000 AND steps_finished = 100000 FROM flow.v_flow_node_status
      WHERE flow_id = _run AND node = 'insert_run');
END
$$;
\echo original_user_steps: ok
