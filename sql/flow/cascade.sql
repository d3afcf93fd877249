-- The graph's heart: which nodes have ended, what that opens, skips or ends below them, and when a run is done.
-- Set-based; never called by users; see docs/architecture.md for the lock order.
--
-- "LATERAL (… OFFSET 0)" keeps the planner from choosing an order of joins: these statements are planned once, perhaps
-- when the tables were empty, and must look up every row by its whole key whatever they hold later. "IN (SELECT unnest(…))"
-- with IS TRUE is a hashed membership test; "= ANY" of an array compares with each element.

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

-- Inserts the own tasks of nodes that have just been opened (state O, with these task_ids) and returns an A effect for each
-- run. In PL/pgSQL, which keeps the plan: it is called for every hop of the cascade.
CREATE FUNCTION flow.insert_node_tasks(_flow_ids BIGINT[], _node_nos INT[], _task_ids BIGINT[])
RETURNS SETOF flow.effect_t LANGUAGE plpgsql AS $$
BEGIN
  RETURN QUERY
    WITH pushed AS (
      INSERT INTO async.task (task_id, target, priority, run_as, flow_id, node_no, is_step, asynchronous_finish,
                              track_yielded, on_partial_fail, concurrency_pool, manual_timeout, source)
      SELECT o.task_id, f.target, f.priority, f.run_as, o.flow_id, o.node_no, false, f.asynchronous_finish, f.track_yielded,
             f.on_partial_fail, f.concurrency_pool, f.manual_timeout, 'flow'
      FROM unnest(_flow_ids, _node_nos, _task_ids) AS o (flow_id, node_no, task_id),
           LATERAL flow.task_form(o.flow_id, o.node_no, false) f)
    SELECT 'A', o.flow_id, NULL::int, min(o.task_id), max(o.task_id), NULL::timestamptz
    FROM unnest(_flow_ids, _task_ids) AS o (flow_id, task_id) GROUP BY o.flow_id;
END
$$;
COMMENT ON FUNCTION flow.insert_node_tasks IS 'Internal: inserts the own tasks of nodes that were opened.';

-- Makes the steps of a node ready whose own task has finished (or that has none): the static ones of its definition, and
-- those that were pushed before it opened. _own_task: the node's own task or null; what was pushed before has lower ids,
-- and a push that overtook the opening is released by the dispatcher when it arrives. Returns A effects.
CREATE FUNCTION flow.release_steps(_flow_id BIGINT, _node_no INT, _own_task BIGINT)
RETURNS SETOF flow.effect_t LANGUAGE plpgsql AS $$
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
LANGUAGE sql AS $$
  UPDATE async.task t SET eligible_when = NULL
  WHERE t.task_id = ANY (array(
    SELECT x.task_id FROM async.task x
    WHERE x.task_id = ANY (_task_ids) AND x.eligible_when = 'infinity' AND x.processed IS NULL
    ORDER BY x.task_id FOR NO KEY UPDATE SKIP LOCKED))
  RETURNING t.task_id;
$$;
COMMENT ON FUNCTION flow.release_held IS 'Internal: steps that were held may run; returns them.';

CREATE TYPE flow.ended_of_run_t AS (flow_id BIGINT, nodes INT, failed INT, error TEXT);
COMMENT ON TYPE flow.ended_of_run_t IS 'Internal: how many nodes of a run have ended, how many of them failed, and the first error.';

-- Counts nodes that have ended (_flow_ids/_node_nos) in their runs and down in their children, opens those whose last
-- parent has ended, and follows what ends at once. The caller holds the lock on the runs' rows.
CREATE FUNCTION flow.propagate(_flow_ids BIGINT[], _node_nos INT[])
RETURNS SETOF flow.effect_t LANGUAGE plpgsql AS $$
DECLARE
  _next RECORD;
  _decided flow.opening_t;
  _ended flow.ended_of_run_t;
  _is_complete BOOL;
  _finished BIGINT[];
BEGIN
  -- Each round moves at least one edge further down: the longest path bounds the rounds.
  WHILE cardinality(_flow_ids) > 0 LOOP
    -- In one statement, because every hop of every run takes it. Most nodes open when their last parent has finished: in
    -- the update that counts it, with a task of their own. The others need a closer look.
    WITH ended AS (
      SELECT e.flow_id, r.definition_id, n.*
      FROM unnest(_flow_ids, _node_nos) AS e (flow_id, node_no),
           LATERAL (SELECT x.definition_id FROM flow.flow x WHERE x.flow_id = e.flow_id OFFSET 0) r,
           LATERAL (SELECT x.node_no, x.node, x.state, x.blocked_by, x.error, x.ended FROM flow.flow_node x
                    WHERE x.flow_id = e.flow_id AND x.node_no = e.node_no OFFSET 0) n),
    hit AS (
      SELECT p.flow_id, d.node_no, count(*)::int AS parents,
             min(coalesce(p.blocked_by, p.node))
               FILTER (WHERE p.state IN ('E', 'K', 'C', 'T') AND NOT d.continue_on_failure) AS blocked_by
      FROM ended p,
           LATERAL (SELECT x.node_no, x.continue_on_failure FROM flow.definition_edge x
                    WHERE x.definition_id = p.definition_id AND x.parent_no = p.node_no OFFSET 0) d
      GROUP BY p.flow_id, d.node_no ORDER BY p.flow_id, d.node_no),
    known AS (SELECT * FROM hit h, LATERAL flow.task_form(h.flow_id, h.node_no, false) f),
    counted AS (
      UPDATE flow.flow_node c
      SET parents_open = c.parents_open - hit.parents, blocked_by = coalesce(c.blocked_by, hit.blocked_by),
          (state, opened, task_id) = (
            SELECT CASE WHEN q.opens THEN 'O' ELSE c.state END, CASE WHEN q.opens THEN clock_timestamp() END,
                   CASE WHEN q.opens THEN nextval('async.task_id_seq') END
            FROM (SELECT c.parents_open = hit.parents AND NOT c.excluded AND NOT hit.empty
                         AND c.blocked_by IS NULL AND hit.blocked_by IS NULL AS opens OFFSET 0) q)
      FROM known hit WHERE c.flow_id = hit.flow_id AND c.node_no = hit.node_no AND c.state = 'W'
      RETURNING c.state, c.task_id, c.parents_open, hit.*),
    pushed AS (
      INSERT INTO async.task (task_id, target, priority, run_as, flow_id, node_no, is_step, asynchronous_finish,
                              track_yielded, on_partial_fail, concurrency_pool, manual_timeout, source)
      SELECT o.task_id, o.target, o.priority, o.run_as, o.flow_id, o.node_no, false, o.asynchronous_finish, o.track_yielded,
             o.on_partial_fail, o.concurrency_pool, o.manual_timeout, 'flow'
      FROM counted o WHERE o.state = 'O'),
    of_run AS (
      SELECT p.flow_id, count(*)::int AS nodes, (count(*) FILTER (WHERE p.state IN ('E', 'K', 'C', 'T')))::int AS failed,
             (array_agg(p.node || ': ' || p.error ORDER BY p.ended, p.node_no)
               FILTER (WHERE p.state IN ('E', 'T')))[1] AS error
      FROM ended p GROUP BY p.flow_id)
    SELECT min(c.flow_id) FILTER (WHERE c.state = 'O') AS first_flow, max(c.flow_id) FILTER (WHERE c.state = 'O') AS last_flow,
           min(c.task_id) FILTER (WHERE c.state = 'O') AS task_low, max(c.task_id) FILTER (WHERE c.state = 'O') AS task_high,
           array_agg(c.flow_id) FILTER (WHERE c.state = 'W') AS flows, array_agg(c.node_no) FILTER (WHERE c.state = 'W') AS nodes,
           (SELECT array_agg(ROW(o.flow_id, o.nodes, o.failed, o.error)::flow.ended_of_run_t) FROM of_run o) AS runs
    INTO _next
    FROM counted c WHERE c.parents_open = 0;
    IF _next.task_low IS NOT NULL THEN
      RETURN NEXT ROW('A', CASE WHEN _next.first_flow = _next.last_flow THEN _next.first_flow ELSE 0 END, NULL,
                      _next.task_low, _next.task_high, NULL)::flow.effect_t;
    END IF;
    -- One by one: that looks each run up by its key, whatever the planner believes of their number.
    _finished := '{}';
    FOREACH _ended IN ARRAY coalesce(_next.runs, '{}') LOOP
      UPDATE flow.flow r
      SET count_finished_nodes = r.count_finished_nodes + _ended.nodes,
          count_failed_nodes = r.count_failed_nodes + _ended.failed,
          first_error = coalesce(r.first_error, _ended.error),
          processed = CASE WHEN r.count_finished_nodes + _ended.nodes = r.count_nodes THEN clock_timestamp() END
      WHERE r.flow_id = _ended.flow_id AND r.processed IS NULL RETURNING r.processed IS NOT NULL INTO _is_complete;
      IF _is_complete THEN
        _finished := _finished || _ended.flow_id;
        RETURN NEXT ROW('F', _ended.flow_id, NULL, NULL, NULL, NULL)::flow.effect_t;
      END IF;
    END LOOP;
    IF cardinality(_finished) > 0 THEN
      RETURN QUERY SELECT * FROM flow.end_parents(_finished);
    END IF;
    EXIT WHEN _next.flows IS NULL;
    _decided := flow.open_nodes(_next.flows, _next.nodes);
    _flow_ids := _decided.ended_flows;
    _node_nos := _decided.ended_nodes;
    RETURN QUERY SELECT * FROM flow.start_nodes(_decided);
  END LOOP;
END
$$;
COMMENT ON FUNCTION flow.propagate IS
  'Internal: counts ended nodes in their runs and down in their children, and opens, skips or ends these, until nothing moves.';

-- What became of nodes whose parents have all ended: they ended, or opened with a task of their own (task_ids) or with steps.
CREATE TYPE flow.opening_t AS (
  ended_flows BIGINT[], ended_nodes INT[], open_flows BIGINT[], open_nodes INT[], task_ids BIGINT[],
  step_flows BIGINT[], step_nodes INT[]);
COMMENT ON TYPE flow.opening_t IS 'Internal: what became of nodes whose parents have all ended.';

-- Decides what becomes of nodes whose parents have all ended: skipped below a failure, ended at once when they have
-- nothing to do, else open.
CREATE FUNCTION flow.open_nodes(_flow_ids BIGINT[], _node_nos INT[]) RETURNS flow.opening_t
LANGUAGE plpgsql AS $$
DECLARE
  _opening flow.opening_t;
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
    SET state = v.state, task_id = CASE WHEN v.state = 'O' THEN nextval('async.task_id_seq') END,
        opened = CASE WHEN v.state IN ('O', 'S', 'F') THEN clock_timestamp() END,
        ended = CASE WHEN v.state IN ('K', 'N', 'F') THEN clock_timestamp() END,
        error = CASE WHEN v.state = 'K' THEN format('not run because %s failed', c.blocked_by) END
    FROM verdict v WHERE c.flow_id = v.flow_id AND c.node_no = v.node_no
    RETURNING c.flow_id, c.node_no, c.state, c.task_id)
  SELECT coalesce(array_agg(c.flow_id) FILTER (WHERE c.state IN ('K', 'N', 'F')), '{}'),
         coalesce(array_agg(c.node_no) FILTER (WHERE c.state IN ('K', 'N', 'F')), '{}'),
         array_agg(c.flow_id) FILTER (WHERE c.state = 'O'), array_agg(c.node_no) FILTER (WHERE c.state = 'O'),
         array_agg(c.task_id) FILTER (WHERE c.state = 'O'),
         array_agg(c.flow_id) FILTER (WHERE c.state = 'S'), array_agg(c.node_no) FILTER (WHERE c.state = 'S')
  INTO _opening
  FROM changed c;
  -- Steps that were pushed to a node which will never open.
  IF cardinality(_opening.ended_flows) > 0 THEN
    PERFORM async.end_tasks(array(
      SELECT s.task_id
      FROM unnest(_opening.ended_flows, _opening.ended_nodes) AS e (flow_id, node_no),
           LATERAL (SELECT x.task_id FROM flow.flow_step x
                    WHERE x.flow_id = e.flow_id AND x.node_no = e.node_no OFFSET 0) s),
      'CANCELED', 'its node ended without running');
  END IF;
  RETURN _opening;
END
$$;
COMMENT ON FUNCTION flow.open_nodes IS 'Internal: opens, skips or ends nodes whose parents have all ended.';

CREATE FUNCTION flow.start_nodes(_opening flow.opening_t) RETURNS SETOF flow.effect_t
LANGUAGE plpgsql AS $$
BEGIN
  IF _opening.open_flows IS NOT NULL THEN
    RETURN QUERY SELECT * FROM flow.insert_node_tasks(_opening.open_flows, _opening.open_nodes, _opening.task_ids);
  END IF;
  FOR _i IN 1 .. coalesce(cardinality(_opening.step_flows), 0) LOOP
    RETURN QUERY SELECT * FROM flow.release_steps(_opening.step_flows[_i], _opening.step_nodes[_i], NULL);
    -- No step yet: somebody is pushing. Asked again when that is over, also if nothing comes of it.
    IF NOT EXISTS (SELECT FROM flow.flow_step s
                   WHERE s.flow_id = _opening.step_flows[_i] AND s.node_no = _opening.step_nodes[_i]) THEN
      RETURN NEXT ROW('R', _opening.step_flows[_i], _opening.step_nodes[_i], NULL, NULL, NULL)::flow.effect_t;
    END IF;
  END LOOP;
END
$$;
COMMENT ON FUNCTION flow.start_nodes IS 'Internal: inserts the tasks, or makes the steps ready, of nodes that were opened.';

-- Ends the steps that started these runs, which have ended, as they ended. A step that a client has locked is left.
CREATE FUNCTION flow.end_parents(_flow_ids BIGINT[]) RETURNS SETOF flow.effect_t
LANGUAGE plpgsql AS $$
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
  _nodes INT[] := array(
    SELECT n.node_no FROM flow.flow_node n WHERE n.flow_id = _flow_id AND n.state = 'W' AND n.parents_open = 0
    ORDER BY n.node_no);
  _opening flow.opening_t := flow.open_nodes(array_fill(_flow_id, ARRAY[cardinality(_nodes)]), _nodes);
BEGIN
  PERFORM flow.announce_effects(
    array(SELECT e FROM flow.start_nodes(_opening) e)
    || array(SELECT e FROM flow.propagate(_opening.ended_flows, _opening.ended_nodes) e));
END
$$;
COMMENT ON FUNCTION flow.start_run IS 'Internal: opens the waiting nodes of a run that have no open parent.';

-- Looks at nodes that may have ended and decides. _failed_tasks: for each node the failed step that made it a candidate,
-- or null. Runs in the dispatcher; skips what clients have locked.
CREATE FUNCTION flow.settle(_flow_ids BIGINT[], _node_nos INT[], _failed_tasks BIGINT[])
RETURNS SETOF flow.effect_t LANGUAGE plpgsql AS $$
DECLARE
  _locked BIGINT[];
  _node RECORD;
  _steps RECORD;
  _error TEXT;
  _state "char";
  _ended_flows BIGINT[];
  _ended_nodes INT[];
BEGIN
  -- The common case, all at once: nodes whose own task has finished and that have no steps. Nobody may be pushing: looked
  -- at by a statement that begins after the lock was taken which keeps pushers out.
  SELECT array_agg(c.flow_id), array_agg(c.node_no) INTO _ended_flows, _ended_nodes
  FROM unnest(_flow_ids, _node_nos) AS c (flow_id, node_no),
       LATERAL (SELECT x.definition_id FROM flow.flow x
                WHERE x.flow_id = c.flow_id AND x.processed IS NULL FOR NO KEY UPDATE SKIP LOCKED) r,
       LATERAL (SELECT FROM flow.definition_node x
                WHERE x.definition_id = r.definition_id AND x.node_no = c.node_no AND x.steps IS NULL OFFSET 0) d,
       LATERAL (SELECT x.task_id FROM flow.flow_node x
                WHERE x.flow_id = c.flow_id AND x.node_no = c.node_no AND x.state = 'O' FOR UPDATE SKIP LOCKED) n,
       LATERAL (SELECT FROM async.task x
                WHERE x.task_id = n.task_id AND x.processed IS NOT NULL AND NOT x.failed OFFSET 0) t;
  WITH ended AS (
    UPDATE flow.flow_node n SET state = 'F', ended = clock_timestamp()
    FROM unnest(_ended_flows, _ended_nodes) AS c (flow_id, node_no)
    WHERE n.flow_id = c.flow_id AND n.node_no = c.node_no AND n.state = 'O'
      AND NOT EXISTS (SELECT FROM flow.flow_step s WHERE s.flow_id = c.flow_id AND s.node_no = c.node_no)
    RETURNING n.flow_id, n.node_no)
  SELECT coalesce(array_agg(e.flow_id), '{}'), coalesce(array_agg(e.node_no), '{}') INTO _ended_flows, _ended_nodes
  FROM ended e;
  IF cardinality(_ended_flows) = cardinality(_flow_ids) THEN
    RETURN QUERY SELECT * FROM flow.propagate(_ended_flows, _ended_nodes);
    RETURN;
  END IF;
  SELECT array_agg(c.flow_id), array_agg(c.node_no), array_agg(c.task_id) INTO _flow_ids, _node_nos, _failed_tasks
  FROM unnest(_flow_ids, _node_nos, _failed_tasks) AS c (flow_id, node_no, task_id)
  WHERE ((c.flow_id, c.node_no) IN (SELECT e.flow_id, e.node_no FROM unnest(_ended_flows, _ended_nodes) AS e (flow_id, node_no)))
        IS NOT TRUE;
  _locked := array(
    SELECT r.flow_id FROM flow.flow r WHERE r.flow_id = ANY (_flow_ids) AND r.processed IS NULL
    ORDER BY r.flow_id FOR NO KEY UPDATE SKIP LOCKED);
  RETURN QUERY
    SELECT DISTINCT 'R', c.flow_id, c.node_no, NULL::bigint, NULL::bigint, NULL::timestamptz
    FROM unnest(_flow_ids, _node_nos) AS c (flow_id, node_no),
         LATERAL (SELECT FROM flow.flow x WHERE x.flow_id = c.flow_id AND x.processed IS NULL OFFSET 0) r
    WHERE (c.flow_id IN (SELECT unnest(_locked))) IS NOT TRUE;

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
          WHERE (c.flow_id IN (SELECT unnest(_locked))) IS TRUE GROUP BY c.flow_id, c.node_no) c
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
LANGUAGE plpgsql AS $$
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
RETURNS SETOF flow.effect_t LANGUAGE plpgsql AS $$
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
    FROM unnest(_flow_ids, _node_nos) AS c (flow_id, node_no),
         LATERAL (SELECT FROM flow.flow x WHERE x.flow_id = c.flow_id AND x.processed IS NULL OFFSET 0) r
    WHERE (c.flow_id IN (SELECT unnest(_locked))) IS NOT TRUE;
  FOR _node IN
    SELECT n.flow_id, n.node_no, n.node
    FROM unnest(_flow_ids, _node_nos) AS c (flow_id, node_no),
         LATERAL (SELECT * FROM flow.flow_node x
                  WHERE x.flow_id = c.flow_id AND x.node_no = c.node_no AND x.state = 'S'
                    AND x.times_up <= clock_timestamp() OFFSET 0) n
    WHERE (c.flow_id IN (SELECT unnest(_locked))) IS TRUE
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
