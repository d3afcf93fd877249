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
