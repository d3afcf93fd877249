-- What the specs share. Every node runs on an external target, so that nothing moves but what a session does and what the
-- dispatcher makes of it. Nothing here shows a number or a time.
\set ON_ERROR_STOP 1
SET client_min_messages = warning;
CREATE EXTENSION pgflow;
SELECT async.configure('{"targets": [{"target": "robots", "kind": "external"}]}');
CREATE SCHEMA iso;

-- Configures flow "iso" from node names, parents first: 'a b:a' is a chain of two. (Specs cannot hold braces.)
CREATE PROCEDURE iso.configure(_nodes TEXT, _append BOOL DEFAULT false) LANGUAGE plpgsql AS $$
BEGIN
  PERFORM flow.configure_flow('iso', jsonb_build_object('nodes', (
    SELECT jsonb_agg(jsonb_build_object('node', split_part(n, ':', 1), 'target', 'robots', 'dependencies', (
      SELECT coalesce(jsonb_agg(jsonb_build_object('parent', p)), '[]')
          FROM regexp_split_to_table(split_part(n, ':', 2), '\+') p WHERE p <> '')))
    FROM regexp_split_to_table(_nodes, ' ') n)), _append);
END
$$;

-- The run that a spec is about: the newest.
CREATE FUNCTION iso.run() RETURNS BIGINT LANGUAGE sql AS 'SELECT max(flow_id) FROM flow.flow';

CREATE FUNCTION iso.start() RETURNS VOID LANGUAGE plpgsql AS $$ BEGIN PERFORM flow.run_flow('iso', '{}'); END $$;

-- Steps {"s": _from} to {"s": _to} for node a, in that order.
CREATE PROCEDURE iso.push(_from INT, _to INT) LANGUAGE plpgsql AS $$
DECLARE
  _steps JSONB[] := ARRAY(
    SELECT jsonb_build_object('s', i) FROM generate_series(_from, _to, CASE WHEN _from > _to THEN -1 ELSE 1 END) i);
BEGIN
  CALL flow.push_steps(iso.run(), 'a', _steps);
END
$$;

-- The task of a node, or of one of its steps.
CREATE FUNCTION iso.task(_node TEXT, _step INT DEFAULT NULL) RETURNS BIGINT LANGUAGE sql AS $$
  SELECT t.task_id FROM flow.v_flow_task t WHERE t.flow_id = iso.run() AND t.node = _node AND t.step_arguments =
      CASE WHEN _step IS NULL THEN '{}' ELSE jsonb_build_object('s', _step) END;
$$;

CREATE FUNCTION iso.status() RETURNS TEXT LANGUAGE sql AS $$
  SELECT CASE WHEN f.processed IS NULL THEN 'open' WHEN f.cancelled THEN 'cancelled' ELSE 'ended' END || ': ' || (
    SELECT string_agg(s.node || ' ' || s.status || CASE WHEN s.finished IS NULL AND s.status IN ('Finished', 'Failed')
        THEN ' but open' ELSE '' END || CASE WHEN s.steps > 0
        THEN format(' (%s steps: %s pending, %s running, %s finished, %s failed)',
      s.steps, s.steps_pending, s.steps_running, s.steps_finished, s.steps_failed) ELSE '' END, ', ' ORDER BY s.node)
    FROM flow.v_flow_node_status s WHERE s.flow_id = f.flow_id)
  FROM flow.flow f WHERE f.flow_id = iso.run();
$$;

-- The status when the run has come to what is expected, or has not within ten seconds.
CREATE FUNCTION iso.comes_to(_expected TEXT) RETURNS TEXT LANGUAGE plpgsql AS $$
BEGIN
  FOR _try IN 1 .. 500 LOOP
    EXIT WHEN iso.status() = _expected;
    PERFORM pg_sleep(0.02);
  END LOOP;
  RETURN iso.status();
END
$$;

-- The status when the dispatcher has had time to do what it should not.
CREATE FUNCTION iso.stays() RETURNS TEXT LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_sleep(0.4);
  RETURN iso.status();
END
$$;

-- Waits until clients can take _count tasks.
CREATE PROCEDURE iso.offered(_count INT) LANGUAGE plpgsql AS $$
BEGIN
  FOR _try IN 1 .. 500 LOOP
    EXIT WHEN (SELECT count(*) FROM async.external_queue) = _count;
    PERFORM pg_sleep(0.02);
    COMMIT;
  END LOOP;
  ASSERT (SELECT count(*) FROM async.external_queue) = _count, 'tasks for clients';
END
$$;

-- Ends a task as a client that took it would.
CREATE FUNCTION iso.finish(_task_id BIGINT, _status async.finish_status_t DEFAULT 'FINISHED') RETURNS VOID
    LANGUAGE plpgsql AS $$
BEGIN
  PERFORM async.finish(ARRAY[_task_id], _status, CASE WHEN _status <> 'FINISHED' THEN 'as told' END);
END
$$;

-- Ends the tasks of several nodes at once, named in this order.
CREATE FUNCTION iso.finish_all(_nodes TEXT) RETURNS VOID LANGUAGE plpgsql AS $$
DECLARE
  _tasks BIGINT[] := ARRAY(SELECT iso.task(n.node)
      FROM regexp_split_to_table(_nodes, ' ') WITH ORDINALITY AS n(node, at) ORDER BY n.at);
BEGIN
  PERFORM async.finish(_tasks, 'FINISHED', NULL);
END
$$;

-- What a statement raises, without numbers; 'done' if nothing.
CREATE FUNCTION iso.try(_statement TEXT) RETURNS TEXT LANGUAGE plpgsql AS $$
BEGIN
  EXECUTE _statement;
  RETURN 'done';
EXCEPTION WHEN OTHERS THEN
  RETURN regexp_replace(SQLERRM, '\d+', 'N', 'g');
END
$$;

-- Leaves nothing behind.
CREATE PROCEDURE iso.clean() LANGUAGE plpgsql AS $$
BEGIN
  PERFORM flow.cancel(f.flow_id) FROM flow.flow f WHERE f.processed IS NULL;
  COMMIT;
  FOR _try IN 1 .. 500 LOOP
    EXIT WHEN flow.purge('0', NULL, 1000) = 0 AND NOT EXISTS (SELECT FROM flow.flow);
    COMMIT;
    PERFORM pg_sleep(0.02);
  END LOOP;
  DELETE FROM flow.configured;
  DELETE FROM async.external_queue;
END
$$;
