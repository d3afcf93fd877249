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
