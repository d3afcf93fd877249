-- What one role may ask for: limits that an administrator sets and that are checked when a client calls. There is none by
-- default. Open tasks are not counted: async.task has no index but its key, and one by role would make every task that ends
-- a dead entry of it.

CREATE TABLE async.role_limit (
  role                 NAME PRIMARY KEY,
  max_open_runs        INT,
  max_tasks_per_push   INT,
  max_argument_bytes   INT,
  max_definition_bytes INT
);
COMMENT ON TABLE async.role_limit IS
  'What roles may ask for: async.limit_role. Role "public": those that have no row of their own, but for flow_admin.';
COMMENT ON COLUMN async.role_limit.role IS 'The role, or "public".';
COMMENT ON COLUMN async.role_limit.max_open_runs IS 'Runs that are open at a time; null: any number.';
COMMENT ON COLUMN async.role_limit.max_tasks_per_push IS 'Steps or tasks of one push; null: any number.';
COMMENT ON COLUMN async.role_limit.max_argument_bytes IS 'Arguments of one run, or queries and arguments of one push; null: any size.';
COMMENT ON COLUMN async.role_limit.max_definition_bytes IS 'The text of one configuration of a flow; null: any size.';

CREATE FUNCTION async.limits_of(_role NAME) RETURNS async.role_limit
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT l.* FROM async.role_limit l
   WHERE l.role = _role
      OR l.role = 'public' AND NOT EXISTS (
           SELECT FROM pg_roles r WHERE r.rolname = _role AND pg_has_role(r.oid, 'flow_admin', 'USAGE'))
   ORDER BY l.role = _role DESC LIMIT 1;
$$;
COMMENT ON FUNCTION async.limits_of IS 'Internal: the limits of a role: its own, else those of "public"; nulls: none.';

CREATE FUNCTION async.refuse_beyond(_role NAME, _what TEXT, _asked BIGINT, _limit INT) RETURNS VOID
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF _asked > _limit THEN
    RAISE configuration_limit_exceeded USING
      MESSAGE = format('role "%s" may have %s %s, not %s', _role, _limit, _what, _asked),
      HINT = 'A member of flow_admin sets this limit: async.limit_role.';
  END IF;
END
$$;
COMMENT ON FUNCTION async.refuse_beyond IS 'Internal: raises configuration_limit_exceeded if more is asked for than a limit allows.';

CREATE FUNCTION async.require_definition_size(_caller OID, _bytes BIGINT) RETURNS VOID
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT async.refuse_beyond(l.role, 'bytes of one configuration', _bytes, l.max_definition_bytes)
    FROM async.limits_of(pg_get_userbyid(_caller)) l;
$$;
COMMENT ON FUNCTION async.require_definition_size IS 'Internal: raises if the configuration of a flow is larger than a role''s limit.';

-- Sizes are taken only where there is a limit: the text of a large push costs as much as the push.
CREATE FUNCTION async.require_size(_role NAME, _count BIGINT, _arguments JSONB[], _queries TEXT[]) RETURNS VOID
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _limits async.role_limit;
BEGIN
  IF NOT EXISTS (SELECT FROM async.role_limit) THEN
    RETURN;
  END IF;
  _limits := async.limits_of(_role);
  PERFORM async.refuse_beyond(_role, 'tasks of one push', _count, _limits.max_tasks_per_push);
  IF _limits.max_argument_bytes IS NOT NULL THEN
    PERFORM async.refuse_beyond(_role, 'bytes of arguments', (
      SELECT coalesce(sum(octet_length(a.text)), 0)
        FROM (SELECT u::TEXT FROM unnest(_arguments) u UNION ALL SELECT q FROM unnest(_queries) q) AS a(text)),
      _limits.max_argument_bytes);
  END IF;
END
$$;
COMMENT ON FUNCTION async.require_size IS
  'Internal: raises if a push, or the arguments of a run, are larger than the limits of a role; _count null: not a push.';

CREATE FUNCTION async.lock_role(_role OID) RETURNS VOID LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'lock_role_wrapper';
COMMENT ON FUNCTION async.lock_role IS 'Internal: one transaction at a time for a role, by a lock that nobody else can take.';

-- Counts no further than the limit, by an index on the open runs of a role. Whoever starts a run of a limited role waits for
-- others that do, or several at once would count past each other; a worker that starts the run of a step does not wait.
CREATE FUNCTION async.require_another_run(_role NAME, _in_worker BOOL) RETURNS VOID
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _limits async.role_limit;
  _open   BIGINT;
BEGIN
  IF NOT EXISTS (SELECT FROM async.role_limit l WHERE l.max_open_runs IS NOT NULL) THEN
    RETURN;
  END IF;
  _limits := async.limits_of(_role);
  IF _limits.max_open_runs IS NULL THEN
    RETURN;
  ELSIF NOT _in_worker THEN
    PERFORM async.lock_role(r.oid) FROM pg_roles r WHERE r.rolname = _role;
  END IF;
  SELECT count(*) INTO _open FROM (
    SELECT FROM flow.flow f
     WHERE f.run_as = _role AND CASE WHEN f.processed IS NULL THEN true END LIMIT _limits.max_open_runs) AS o;
  PERFORM async.refuse_beyond(_role, 'open runs', _open + 1, _limits.max_open_runs);
END
$$;
COMMENT ON FUNCTION async.require_another_run IS 'Internal: raises if a role has as many open runs as its limit allows.';

CREATE FUNCTION async.limit_role_as(_caller OID, _role NAME, _limits JSONB) RETURNS VOID
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _known CONSTANT TEXT[] := ARRAY['max_open_runs', 'max_tasks_per_push', 'max_argument_bytes', 'max_definition_bytes'];
  _wrong TEXT;
BEGIN
  PERFORM async.require_admin(_caller, 'limit what a role may ask for');
  IF _role IS NULL OR _role <> 'public' AND NOT EXISTS (SELECT FROM pg_roles r WHERE r.rolname = _role) THEN
    RAISE undefined_object USING MESSAGE = format('role "%s" does not exist', _role), HINT = '"public" stands for all others.';
  ELSIF jsonb_typeof(_limits) <> 'object' THEN
    RAISE invalid_parameter_value USING MESSAGE = 'the limits must be an object', HINT = array_to_string(_known, ', ');
  END IF;
  SELECT format('"%s" is no limit, or not a whole number from 0 to 2147483647, or null', left(k.key, 60)) INTO _wrong
    FROM jsonb_each(coalesce(_limits, '{}')) k
   WHERE NOT (k.key = ANY (_known) AND (k.value = 'null'
         OR jsonb_typeof(k.value) = 'number' AND k.value::TEXT ~ '^\d{1,10}$' AND k.value::TEXT::BIGINT <= 2147483647))
   LIMIT 1;
  IF _wrong IS NOT NULL THEN
    RAISE invalid_parameter_value USING MESSAGE = _wrong, HINT = array_to_string(_known, ', ');
  END IF;
  DELETE FROM async.role_limit l WHERE l.role = _role;
  INSERT INTO async.role_limit
  SELECT (jsonb_populate_record(NULL::async.role_limit, _limits || jsonb_build_object('role', _role))).*
   WHERE jsonb_strip_nulls(_limits) <> '{}';
END
$$;
COMMENT ON FUNCTION async.limit_role_as IS 'Internal: async.limit_role with the caller''s role.';

CREATE FUNCTION async.limit_role(_role NAME, _limits JSONB) RETURNS VOID
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'as_owner';
COMMENT ON FUNCTION async.limit_role IS
  'Limits what a role may ask for, from now on: an object with max_open_runs, max_tasks_per_push, max_argument_bytes, '
  'max_definition_bytes, those that shall hold; null or {}: none. Role "public": all that have no limits of their own, but '
  'for flow_admin. What is beyond is refused with configuration_limit_exceeded. Needs flow_admin.';
