-- What callbacks elsewhere say about their own running tasks: noted in async.decision, and nothing else happens until their
-- calls return. Which tasks run elsewhere is pretended; rolled back.
\set ON_ERROR_STOP on
SET client_min_messages = error;
BEGIN;
SELECT async.configure('{"targets": [{"target": "far", "connection_string": "host=nowhere.invalid dbname=d user=u password=p"},
  {"target": "robots", "kind": "external"}]}');
CREATE TABLE pretended (task_id BIGINT, attempt INT);
CREATE OR REPLACE FUNCTION async.running_elsewhere(_task_ids BIGINT[], OUT task_id BIGINT, OUT attempt INT) RETURNS SETOF RECORD
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN QUERY SELECT p.task_id, p.attempt FROM public.pretended p WHERE p.task_id = ANY (_task_ids);
END
$$;
CREATE ROLE decisions_owner LOGIN IN ROLE flow_user;
CREATE ROLE decisions_other LOGIN IN ROLE flow_user;
GRANT CREATE ON SCHEMA public TO decisions_owner;

SET ROLE decisions_owner;
SELECT flow.configure_flow('f', '{"nodes": [{"node": "a", "target": "far", "routine": "app.a"}]}');
SELECT flow.run_flow('f', '{}') AS flow_id \gset
RESET ROLE;
SELECT task_id FROM async.task WHERE flow_id = :flow_id \gset
INSERT INTO pretended VALUES (:task_id, 3);

CREATE FUNCTION pg_temp.args(_flow_id BIGINT, _task_id BIGINT) RETURNS flow.callback_arguments_t LANGUAGE sql AS $$
  SELECT ROW(_flow_id, 'f', '{}', 'a', '{}', _task_id)::flow.callback_arguments_t;
$$;
SELECT set_config('t.flow_id', :'flow_id', true), set_config('t.task_id', :'task_id', true);

DO $$
DECLARE
  _flow  CONSTANT BIGINT := current_setting('t.flow_id');
  _task  CONSTANT BIGINT := current_setting('t.task_id');
  _args  CONSTANT flow.callback_arguments_t := pg_temp.args(_flow, _task);
  _found RECORD;
  _ids   BIGINT[];
BEGIN
  -- The role that the task runs as says it; nothing but the note changes. The last word holds.
  SET LOCAL ROLE decisions_owner;
  CALL flow.defer(_args, '90 seconds');
  RESET ROLE;
  SELECT * INTO _found FROM async.decision WHERE task_id = _task;
  ASSERT (_found.attempt, _found.status, _found.message, _found.delay) IS NOT DISTINCT FROM
         (3, 'DEFERRED'::async.finish_status_t, NULL::TEXT, INTERVAL '90 seconds'), _found::TEXT;
  SET LOCAL ROLE decisions_owner;
  CALL flow.finish(_args, true, 'it broke');
  RESET ROLE;
  SELECT * INTO _found FROM async.decision WHERE task_id = _task;
  ASSERT (_found.attempt, _found.status, _found.message, _found.delay) IS NOT DISTINCT FROM
         (3, 'FAILED'::async.finish_status_t, 'it broke'::TEXT, NULL::INTERVAL), _found::TEXT;
  UPDATE pretended SET attempt = 4;
  SET LOCAL ROLE decisions_owner;
  CALL flow.finish(_args);
  RESET ROLE;
  SELECT * INTO _found FROM async.decision WHERE task_id = _task;
  ASSERT (_found.attempt, _found.status, _found.message) IS NOT DISTINCT FROM
         (4, 'FINISHED'::async.finish_status_t, NULL::TEXT), _found::TEXT;
  ASSERT (SELECT processed IS NULL AND yielded IS NULL AND eligible_when IS NULL AND attempt = 0 AND finish_status IS NULL
            FROM async.task WHERE task_id = _task), 'the task itself';
  ASSERT (SELECT count(*) FROM async.decision) = 1;

  -- The same through the task engine, which also takes the arguments of no callback.
  PERFORM async.defer(ARRAY[_task], '1 hour');
  ASSERT (SELECT status = 'DEFERRED' AND delay = '1 hour' FROM async.decision WHERE task_id = _task);
  PERFORM async.finish(ARRAY[_task], 'FAILED', 'no');
  ASSERT (SELECT status = 'FAILED' AND message = 'no' AND delay IS NULL FROM async.decision WHERE task_id = _task);

  -- Not by others, not with somebody else's arguments; the note is not for reading.
  SET LOCAL ROLE decisions_other;
  BEGIN CALL flow.finish(_args); ASSERT false; EXCEPTION WHEN insufficient_privilege THEN NULL; END;
  BEGIN CALL flow.defer(_args, '1 s'); ASSERT false; EXCEPTION WHEN insufficient_privilege THEN NULL; END;
  BEGIN PERFORM async.defer(ARRAY[_task], '1 s'); ASSERT false; EXCEPTION WHEN insufficient_privilege THEN NULL; END;
  RESET ROLE;
  SET LOCAL ROLE decisions_owner;
  BEGIN PERFORM FROM async.decision; ASSERT false; EXCEPTION WHEN insufficient_privilege THEN NULL; END;
  BEGIN CALL flow.defer(_args, '-1 s'); ASSERT false; EXCEPTION WHEN invalid_parameter_value THEN NULL; END;
  BEGIN
    CALL flow.finish(ROW(_flow, 'f', '{}', 'b', '{}', _task)::flow.callback_arguments_t); ASSERT false;
  EXCEPTION WHEN invalid_parameter_value THEN NULL; END;
  RESET ROLE;
  ASSERT (SELECT status = 'FAILED' AND message = 'no' FROM async.decision WHERE task_id = _task);

  -- Several at once: those that run elsewhere are noted, the others happen.
  _ids := ARRAY(SELECT async.push_tasks(ARRAY[async.task('SELECT 1', 'far'), async.task(NULL, 'robots')]));
  INSERT INTO pretended VALUES (_ids[1], 1);
  PERFORM async.finish(_ids, 'FINISHED', NULL);
  ASSERT (SELECT processed IS NULL FROM async.task WHERE task_id = _ids[1]);
  ASSERT (SELECT status = 'FINISHED' AND attempt = 1 FROM async.decision WHERE task_id = _ids[1]);
  ASSERT (SELECT finish_status = 'FINISHED' FROM async.task WHERE task_id = _ids[2]);
  ASSERT NOT EXISTS (SELECT FROM async.decision WHERE task_id = _ids[2]);

  -- A cancel is none of the callback's own business: at once.
  PERFORM async.cancel(ARRAY[_ids[1]]);
  ASSERT (SELECT finish_status = 'CANCELED' FROM async.task WHERE task_id = _ids[1]);
END
$$;

-- A task whose call has returned, and which goes on (an asynchronous target), is ended at once. The real function now.
ROLLBACK;
BEGIN;
SELECT async.configure('{"targets": [{"target": "far", "asynchronous_finish": true,
  "connection_string": "host=nowhere.invalid dbname=d user=u password=p"}]}');
DO $$
DECLARE
  _id BIGINT := async.push_task(async.task('SELECT 1', 'far'));
BEGIN
  ASSERT NOT EXISTS (SELECT FROM async.running_elsewhere(ARRAY[_id]));
  UPDATE async.task SET yielded = clock_timestamp(), attempt = 1 WHERE task_id = _id;
  PERFORM async.finish(ARRAY[_id], 'FAILED', 'said later');
  ASSERT (SELECT finish_status = 'FAILED' AND processing_error = 'said later' AND attempt = 1 FROM async.task WHERE task_id = _id);
  ASSERT NOT EXISTS (SELECT FROM async.decision);
END
$$;
ROLLBACK;
