-- Operating the engine: pause, resume, drain, adopt after a restore, dropping targets and pools. All need flow_admin.

CREATE FUNCTION async.set_paused(_caller OID, _paused BOOL, _what TEXT) RETURNS VOID
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM async.require_admin(_caller, _what);
  UPDATE async.control SET paused = _paused WHERE paused <> _paused;
  PERFORM async.announce_settings();
END
$$;
COMMENT ON FUNCTION async.set_paused IS 'Internal: pauses or resumes the engine for _caller.';

CREATE FUNCTION async.pause_as(_caller OID) RETURNS VOID
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM async.set_paused(_caller, true, 'pause the task engine');
END
$$;
COMMENT ON FUNCTION async.pause_as IS 'Internal: async.pause with the caller''s role.';

CREATE FUNCTION async.pause() RETURNS VOID LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'as_owner';
COMMENT ON FUNCTION async.pause IS
  'Starts no further task in this database once the transaction commits, until async.resume; what runs goes on. Outlives '
  'a restart. Needs flow_admin.';

CREATE FUNCTION async.resume_as(_caller OID) RETURNS VOID
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM async.set_paused(_caller, false, 'resume the task engine');
END
$$;
COMMENT ON FUNCTION async.resume_as IS 'Internal: async.resume with the caller''s role.';

CREATE FUNCTION async.resume() RETURNS VOID LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'as_owner';
COMMENT ON FUNCTION async.resume IS 'Undoes async.pause when the transaction commits. Needs flow_admin.';

CREATE FUNCTION async.drain_as(_caller OID, _timeout INTERVAL) RETURNS BOOL
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _until CONSTANT TIMESTAMPTZ := clock_timestamp() + coalesce(_timeout, interval '1 minute');
BEGIN
  -- First of all: the hold lasts until the transaction ends, even if a savepoint before it is rolled back to.
  PERFORM async.require_admin(_caller, 'drain the task engine');
  -- The pause itself is seen when this transaction commits; until then the engine is held.
  PERFORM async.hold_engine();
  PERFORM async.set_paused(_caller, true, 'drain the task engine');
  LOOP
    -- What workers hold counts, not only what runs this moment: between two tasks nothing does.
    IF NOT EXISTS (SELECT FROM async.processes() p
                   WHERE p.kind = 'worker' AND (p.queued > 0 OR p.task_id IS NOT NULL)
                     AND p.database_oid = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database()))
       AND NOT EXISTS (SELECT FROM async.running()) THEN  -- also what runs elsewhere
      RETURN true;
    ELSIF clock_timestamp() >= _until THEN
      RETURN false;
    END IF;
    PERFORM async.wait_for_change(greatest(1, least(200, extract(epoch FROM _until - clock_timestamp()) * 1000))::int);
  END LOOP;
END
$$;
COMMENT ON FUNCTION async.drain_as IS 'Internal: async.drain with the caller''s role.';

CREATE FUNCTION async.drain(_timeout INTERVAL DEFAULT '1 minute') RETURNS BOOL
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'as_owner';
COMMENT ON FUNCTION async.drain IS
  'Pauses the engine, then waits until no task of this database runs, at most _timeout. True when that is so. The '
  'engine stays paused: upgrade or drop the extension, then async.resume. Needs flow_admin.';

-- Where this database is right now: a copy (a restored dump, a template copy, a clone under pg_upgrade) is somewhere else.
CREATE FUNCTION async.whereabouts(OUT system_identifier BIGINT, OUT database_oid OID) RETURNS RECORD
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT c.system_identifier, d.oid FROM pg_control_system() c, pg_database d WHERE d.datname = current_database();
$$;
COMMENT ON FUNCTION async.whereabouts IS 'Internal: the identity of this database: of its cluster, and its OID there.';

CREATE FUNCTION async.adopted_as(_caller OID) RETURNS BOOL
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT e.system_identifier IS NULL
      OR (e.system_identifier = w.system_identifier AND e.database_oid = w.database_oid)
    FROM async.engine_state e, async.whereabouts() w;
$$;
COMMENT ON FUNCTION async.adopted_as IS 'Internal: async.adopted with the caller''s role.';

CREATE FUNCTION async.adopted() RETURNS BOOL LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'as_owner';
COMMENT ON FUNCTION async.adopted IS
  'Whether this database is where its work last ran. False in a restored dump or another copy: nothing runs there before '
  'async.adopt().';

CREATE FUNCTION async.adopt_as(_caller OID) RETURNS VOID
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM async.require_admin(_caller, 'let the work of this database run here');
  -- A copy is another engine to servers elsewhere: what the original did there is none of its own doing.
  UPDATE async.engine_state e
  SET engine_id = CASE WHEN e.system_identifier IS NULL
                         OR (e.system_identifier = w.system_identifier AND e.database_oid = w.database_oid)
                       THEN e.engine_id ELSE gen_random_uuid() END,
      system_identifier = w.system_identifier, database_oid = w.database_oid, next_low = NULL, next_writers = NULL
    FROM async.whereabouts() w;
  PERFORM async.announce_settings();
END
$$;
COMMENT ON FUNCTION async.adopt_as IS 'Internal: async.adopt with the caller''s role.';

CREATE FUNCTION async.adopt() RETURNS VOID LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'as_owner';
COMMENT ON FUNCTION async.adopt IS
  'Lets the open work of a copied or restored database run here. Before it: async.cancel or flow.cancel what must not run '
  'twice, in the original and in the copy. Needs flow_admin.';

CREATE FUNCTION async.drop_target_as(_caller OID, _target TEXT) RETURNS VOID
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _name CONSTANT TEXT := async.target_name(_target);
  _uses TEXT;
BEGIN
  PERFORM async.require_admin(_caller, 'drop a target');
  PERFORM FROM async.control FOR UPDATE;
  IF _name IS NULL OR _target IS NULL THEN
    RAISE undefined_object USING
      MESSAGE = format('there is no target "%s"', left(_target, 80)), HINT = 'async.v_target lists the targets.';
  ELSIF _name = 'local' THEN
    RAISE invalid_parameter_value USING
      MESSAGE = 'target "local" is this database and cannot be dropped';
  END IF;
  _uses := async.target_uses(_name);
  IF _uses IS NOT NULL THEN
    RAISE object_in_use USING
      MESSAGE = format('target "%s" is in use', _name), DETAIL = format('It is needed by %s.', _uses),
      HINT = 'Wait for them, or cancel them with async.cancel and flow.cancel.';
  END IF;
  DELETE FROM async.target t WHERE t.target = _name;
  PERFORM async.announce_settings();
END
$$;
COMMENT ON FUNCTION async.drop_target_as IS 'Internal: async.drop_target with the caller''s role.';

CREATE FUNCTION async.drop_target(_target TEXT) RETURNS VOID LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'as_owner';
COMMENT ON FUNCTION async.drop_target IS
  'Drops a target; its history stays. Raises object_in_use while open tasks or runs need it. Needs flow_admin.';

CREATE FUNCTION async.drop_pool_as(_caller OID, _concurrency_pool TEXT) RETURNS VOID
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _uses TEXT;
BEGIN
  PERFORM async.require_admin(_caller, 'drop a concurrency pool');
  PERFORM FROM async.control FOR UPDATE;
  IF NOT EXISTS (SELECT FROM async.concurrency_pool p WHERE p.concurrency_pool = _concurrency_pool) THEN
    RAISE undefined_object USING
      MESSAGE = format('there is no configured pool "%s"', left(_concurrency_pool, 80)),
      HINT = 'async.concurrency_pool lists them. The pool of a target goes with its target: async.drop_target.';
  END IF;
  _uses := async.pool_uses(_concurrency_pool);
  IF _uses IS NOT NULL THEN
    RAISE object_in_use USING
      MESSAGE = format('pool "%s" is in use', _concurrency_pool), DETAIL = format('It is needed by %s.', _uses),
      HINT = 'Without it, they would run with the default size of a pool.';
  END IF;
  DELETE FROM async.concurrency_pool p WHERE p.concurrency_pool = _concurrency_pool;
  PERFORM async.announce_settings();
END
$$;
COMMENT ON FUNCTION async.drop_pool_as IS 'Internal: async.drop_pool with the caller''s role.';

CREATE FUNCTION async.drop_pool(_concurrency_pool TEXT) RETURNS VOID LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'as_owner';
COMMENT ON FUNCTION async.drop_pool IS
  'Drops a configured pool: tasks that name it later run in one of the default size. Raises object_in_use while open tasks '
  'need it. Needs flow_admin.';
