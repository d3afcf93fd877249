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
