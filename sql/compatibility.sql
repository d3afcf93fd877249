-- What users of the SQL original call and what means little or nothing here: the async part.

CREATE PROCEDURE async.main(_force BOOL DEFAULT false, _manual_mode BOOL DEFAULT false)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RAISE NOTICE 'async.main does nothing any more: the background worker "pgflow dispatcher" does its work' USING
    HINT = 'SELECT * FROM async.v_server_info shows it. Take the CALL out of cron.';
END
$$;
COMMENT ON PROCEDURE async.main IS 'Returns at once: a background worker does what the main loop of the SQL original did.';

CREATE FUNCTION async.wait_for_latch() RETURNS VOID LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
  SELECT NULL::VOID;
$$;
COMMENT ON FUNCTION async.wait_for_latch IS 'Returns at once: what a transaction did is visible when it has committed.';

CREATE FUNCTION async.log_as(_caller OID, _level TEXT, _message TEXT) RETURNS VOID
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _word CONSTANT TEXT := upper(coalesce(_level, 'NOTICE'));
  _line CONSTANT TEXT := left(coalesce(_message, ''), 10000);
BEGIN
  IF _word = 'DEBUG' AND NOT (SELECT c.debug_log FROM async.control c) THEN
    RETURN;
  ELSIF _word = 'WARNING' THEN
    RAISE WARNING '%', _line;
  ELSIF _word IN ('NOTICE', 'DEBUG', 'INFO', 'LOG') THEN
    RAISE NOTICE '%', _line;
  ELSE
    RAISE EXCEPTION '%', _line;  -- into the server's log; a row here would be rolled back
  END IF;
  INSERT INTO async.server_log (level, message) VALUES (_word, _line);
END
$$;
COMMENT ON FUNCTION async.log_as IS 'Internal: async.log with the caller''s role.';

CREATE FUNCTION async.log(_level TEXT, _message TEXT) RETURNS VOID
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'as_owner';
COMMENT ON FUNCTION async.log(TEXT, TEXT) IS
  'Raises _message as NOTICE or WARNING and adds it to async.server_log (at most 10000 characters). DEBUG: only while '
  'control.debug_log is on. Any other level raises it as an error.';

CREATE FUNCTION async.log(_message TEXT) RETURNS VOID
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
  SELECT async.log('NOTICE', _message);
$$;
COMMENT ON FUNCTION async.log(TEXT) IS 'async.log(''NOTICE'', _message).';

CREATE FUNCTION async.tail_once(_server_log_id BIGINT DEFAULT NULL, _grep TEXT DEFAULT NULL, _limit INT DEFAULT 1000)
RETURNS SETOF async.server_log LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT l.* FROM async.server_log l
   WHERE l.server_log_id > coalesce(_server_log_id, (
           SELECT min(x.server_log_id) - 1
             FROM (SELECT s.server_log_id FROM async.server_log s ORDER BY s.server_log_id DESC LIMIT 100) AS x))
     AND (_grep IS NULL OR l.message LIKE '%' || _grep || '%')
   ORDER BY l.server_log_id LIMIT _limit;
$$;
COMMENT ON FUNCTION async.tail_once IS
  'Lines of async.server_log after _server_log_id (null: the last 100) that contain _grep (a LIKE pattern without its ends), '
  'oldest first, at most _limit.';

-- Without a SET clause, because it commits between looks: every name and operator is qualified.
CREATE PROCEDURE async.tail(_grep TEXT DEFAULT NULL, _limit INT DEFAULT 1000)
LANGUAGE plpgsql AS $$
DECLARE
  _line RECORD;
  _last BIGINT;
BEGIN
  LOOP
    FOR _line IN SELECT * FROM async.tail_once(_last, _grep, _limit) LOOP
      RAISE NOTICE '[% - %]: %', _line.happened, _line.server_log_id, _line.message;
      _last := _line.server_log_id;
    END LOOP;
    COMMIT;
    PERFORM async.wait_for_change(1000);
    COMMIT;
  END LOOP;
END
$$;
COMMENT ON PROCEDURE async.tail IS
  'Prints lines of async.server_log as notices, for ever: the last 100, then new ones within a second. Cancel it to end it; '
  'CALL it outside a transaction block.';

CREATE FUNCTION async.worker_info(OUT worker_info JSONB) RETURNS JSONB
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT coalesce(jsonb_agg(jsonb_build_object(
           'slot', w.slot, 'target', w.target, 'task_id', w.task_id, 'running_since', w.running_since,
           'query', w.query, 'priority', w.priority) ORDER BY w.slot), '[]')
    FROM async.v_worker_info w;
$$;
COMMENT ON FUNCTION async.worker_info IS 'async.v_worker_info as an array of objects.';
