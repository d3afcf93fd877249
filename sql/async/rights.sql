-- Who may do what. Three roles of the cluster; a dropped or renamed role of a run never makes a query fail.

DO $$
DECLARE
  _role TEXT;
BEGIN
  FOREACH _role IN ARRAY ARRAY['flow_admin', 'flow_user', 'flow_monitor'] LOOP
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = _role) THEN
      BEGIN
        EXECUTE pg_catalog.format('CREATE ROLE %I NOLOGIN', _role);
      EXCEPTION WHEN duplicate_object OR unique_violation THEN
        NULL;  -- another database was given the extension at the same moment
      END;
    END IF;
  END LOOP;
END
$$;

-- True when _caller (an OID) may act for what belongs to _run_as: the role itself, its members, flow_admin, superusers.
CREATE FUNCTION async.may_act(_caller OID, _run_as NAME) RETURNS BOOL
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT pg_has_role(_caller, 'flow_admin', 'USAGE')
      OR EXISTS (SELECT FROM pg_roles r WHERE r.rolname = _run_as AND pg_has_role(_caller, r.oid, 'USAGE'));
$$;

-- The same for reading, for the current user: flow_monitor may read everything. Used by the row-level security policies.
CREATE FUNCTION async.may_read(_run_as NAME) RETURNS BOOL
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT _run_as = current_user
      OR pg_has_role('flow_monitor', 'USAGE') OR pg_has_role('flow_admin', 'USAGE')
      OR EXISTS (SELECT FROM pg_roles r WHERE r.rolname = _run_as AND pg_has_role(r.oid, 'USAGE'));
$$;

-- Raises unless _caller may administer the engine.
CREATE FUNCTION async.require_admin(_caller OID, _what TEXT) RETURNS VOID
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF NOT pg_has_role(_caller, 'flow_admin', 'USAGE') THEN
    RAISE insufficient_privilege USING
      MESSAGE = format('permission denied to %s', _what),
      HINT = 'This needs membership in flow_admin.';
  END IF;
END
$$;
