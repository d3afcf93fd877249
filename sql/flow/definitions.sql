-- Definitions: storing a version, reading it, dropping a flow. What is stored has been checked in Rust (configure_flow).

CREATE FUNCTION flow.lock_name(_flow TEXT) RETURNS VOID LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'lock_name_wrapper';
COMMENT ON FUNCTION flow.lock_name IS
  'Internal: one transaction at a time for a flow''s name, by a lock that nobody else can take.';

-- Locks the configured flow until the end of the transaction, so that those who configure or drop it take turns.
-- Returns its row, or NULLs.
CREATE FUNCTION flow.lock_configured(_flow TEXT) RETURNS flow.configured
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _configured flow.configured;
BEGIN
  SELECT * INTO _configured FROM flow.configured c WHERE c.flow = _flow FOR UPDATE;
  IF NOT FOUND THEN
    -- Nothing to lock yet but the name.
    PERFORM flow.lock_name(_flow);
    SELECT * INTO _configured FROM flow.configured c WHERE c.flow = _flow FOR UPDATE;
  END IF;
  RETURN _configured;
END
$$;
COMMENT ON FUNCTION flow.lock_configured IS
  'Internal: locks a configured flow for the rest of the transaction and returns its row, or NULLs.';

-- What configure_flow merges with. Locks the flow, because a second configure must see what the first one stores.
CREATE FUNCTION flow.stored_configuration(_flow TEXT) RETURNS JSONB
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _configured flow.configured := flow.lock_configured(_flow);
BEGIN
  RETURN (SELECT d.configuration FROM flow.definition d WHERE d.definition_id = _configured.definition_id);
END
$$;
COMMENT ON FUNCTION flow.stored_configuration IS
  'Internal: the stored configuration of a flow, or null; locks the flow for the rest of the transaction.';

-- Raises unless _caller may act for the owner of a configured flow.
CREATE FUNCTION flow.require_owner(_caller OID, _configured flow.configured) RETURNS VOID
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF NOT async.may_act(_caller, _configured.owner) THEN
    RAISE insufficient_privilege USING
      MESSAGE = format('permission denied for flow "%s"', _configured.flow),
      DETAIL = format('The flow belongs to role "%s".', _configured.owner),
      HINT = 'Become a member of that role, or ask a member of flow_admin.';
  END IF;
END
$$;
COMMENT ON FUNCTION flow.require_owner IS
  'Internal: raises insufficient_privilege unless the role (OID) may act for the owner of a configured flow.';

-- Raises unless _caller may make a flow run as another role.
CREATE FUNCTION flow.require_run_as(_caller OID, _run_as NAME) RETURNS VOID
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _role OID := (SELECT r.oid FROM pg_roles r WHERE r.rolname = _run_as);
  -- From 16 on a membership may come without the right to SET ROLE.
  _right TEXT := CASE WHEN current_setting('server_version_num')::INT >= 160000 THEN 'SET' ELSE 'MEMBER' END;
BEGIN
  IF _role IS NULL THEN
    RAISE undefined_object USING
      MESSAGE = format('role "%s" does not exist', _run_as),
      DETAIL = 'At $.flow.run_as of the configuration.',
      HINT = 'Name an existing role, or leave "run_as" out: the flow then runs as the role that calls run_flow.';
  ELSIF NOT pg_has_role(_caller, _role, _right) THEN
    RAISE insufficient_privilege USING
      MESSAGE = format('role "%s" may not make a flow run as role "%s"', pg_get_userbyid(_caller), _run_as),
      DETAIL = 'At $.flow.run_as of the configuration.',
      HINT = format('This needs the right to SET ROLE %I.', _run_as);
  END IF;
END
$$;
COMMENT ON FUNCTION flow.require_run_as IS
  'Internal: raises undefined_object or insufficient_privilege unless the role (OID) may make a flow run as '
  '_run_as.';

-- A time-out as a configuration writes it: interval text, or a number of seconds. The dispatcher adds it to times: one
-- that leads beyond the last of them would end the dispatcher.
CREATE FUNCTION flow.interval_of(_value JSONB) RETURNS INTERVAL LANGUAGE sql STABLE
RETURN CASE WHEN _value IS NOT NULL THEN least(CASE jsonb_typeof(_value)
  WHEN 'number' THEN make_interval(secs => least((_value #>> '{}')::DOUBLE PRECISION, 1e10))
  ELSE (_value #>> '{}')::INTERVAL
END, INTERVAL '100 years') END;
COMMENT ON FUNCTION flow.interval_of IS
  'Internal: a time-out of a configuration: interval text, or a number of seconds; at most 100 years.';

-- Stores a version of a flow and makes it the one that the next run takes; the same definition again makes no new version.
-- _options: {concurrency_group_routine, priority, run_as}. _nodes: an array of objects with the columns of
-- flow.definition_node and "parents": [[parent_no, continue_on_failure], …].
CREATE FUNCTION flow.store_definition(
  _caller OID, _flow TEXT, _configuration JSONB, _options JSONB, _nodes JSONB) RETURNS BIGINT
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _known    flow.configured := flow.lock_configured(_flow);
  _run_as   NAME := _options->>'run_as';
  _group    TEXT := _options->>'concurrency_group_routine';
  _priority INT := coalesce((_options->>'priority')::INT, 0);
  _author   NAME := pg_get_userbyid(_caller);
  _id       BIGINT;
BEGIN
  IF _known.flow IS NOT NULL THEN
    PERFORM flow.require_owner(_caller, _known);
  END IF;
  IF _run_as IS NOT NULL THEN
    PERFORM flow.require_run_as(_caller, _run_as);
  END IF;

  SELECT d.definition_id INTO _id
  FROM flow.definition d
  WHERE d.definition_id = _known.definition_id AND d.configuration = _configuration AND d.priority = _priority
    AND d.concurrency_group_routine IS NOT DISTINCT FROM _group AND d.run_as IS NOT DISTINCT FROM _run_as
    -- The same text may mean other routines than it did, under another search_path.
    AND (SELECT array_agg(ROW (n.node_no, n.routine_resolved, n.step_routine_resolved, n.query_routine_resolved) ORDER BY n.node_no)
         FROM jsonb_to_recordset(_nodes) AS n(
           node_no INT, routine_resolved TEXT, step_routine_resolved TEXT, query_routine_resolved TEXT))
      = (SELECT array_agg(ROW (n.node_no, n.routine_resolved, n.step_routine_resolved, n.query_routine_resolved) ORDER BY n.node_no)
         FROM flow.definition_node n WHERE n.definition_id = d.definition_id)
    -- A flow that steps start may be somebody else's by now: configuring again says that this is meant.
    AND NOT EXISTS (
      SELECT FROM flow.definition_node n LEFT JOIN flow.configured c ON c.flow = n.steps_to_flow
      WHERE n.definition_id = d.definition_id AND n.steps_to_flow <> _flow AND c.owner IS DISTINCT FROM n.steps_to_owner);
  IF FOUND THEN
    RETURN _id;
  END IF;

  INSERT INTO flow.definition (flow, configuration, concurrency_group_routine, priority, run_as, author)
  VALUES (_flow, _configuration, _group, _priority, _run_as, _author)
  RETURNING definition_id INTO _id;
  PERFORM flow.insert_nodes(_id, _priority, _nodes);
  INSERT INTO flow.configured AS c (flow, definition_id, owner) VALUES (_flow, _id, _author)
  ON CONFLICT (flow) DO UPDATE SET definition_id = excluded.definition_id;
  RETURN _id;
END
$$;
COMMENT ON FUNCTION flow.store_definition IS
  'Internal: stores a checked definition for a caller and returns its definition_id; the stored one if it is the '
  'same.';

-- The nodes and edges of a new version, in one statement. _priority: of nodes that have none of their own.
CREATE FUNCTION flow.insert_nodes(_definition_id BIGINT, _priority INT, _nodes JSONB) RETURNS VOID
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
  WITH given AS MATERIALIZED (
    SELECT n.* FROM jsonb_to_recordset(_nodes) AS n(
      node_no INT, node TEXT, rank INT, target TEXT, routine TEXT, routine_resolved TEXT, step_routine TEXT,
      step_routine_resolved TEXT, priority INT, all_steps_must_complete BOOL, empty BOOL, steps_to_flow TEXT,
      synchronous BOOL, node_timeout JSONB, step_timeout JSONB, on_partial_fail BOOL, count_parents INT, steps JSONB,
      parents JSONB, query TEXT, step_query TEXT, query_routine TEXT, query_routine_resolved TEXT, options JSONB)
  ), nodes AS (
    INSERT INTO flow.definition_node (
      definition_id, node_no, node, rank, target, routine, routine_resolved, step_routine, step_routine_resolved,
      priority, all_steps_must_complete, empty, steps_to_flow, synchronous, node_timeout, step_timeout,
      on_partial_fail, count_parents, steps, query, step_query, query_routine, query_routine_resolved, options,
      steps_to_owner)
    SELECT _definition_id, g.node_no, g.node, g.rank, g.target, g.routine, g.routine_resolved, g.step_routine,
      g.step_routine_resolved, coalesce(g.priority, _priority), coalesce(g.all_steps_must_complete, true),
      coalesce(g.empty, false), g.steps_to_flow, coalesce(g.synchronous, false), flow.interval_of(g.node_timeout),
      flow.interval_of(g.step_timeout), coalesce(g.on_partial_fail, false),
      coalesce(g.count_parents, jsonb_array_length(g.parents), 0), g.steps, g.query, g.step_query, g.query_routine,
      g.query_routine_resolved, g.options,
      (SELECT c.owner FROM flow.configured c WHERE c.flow = g.steps_to_flow)
    FROM given g
  )
  INSERT INTO flow.definition_edge (definition_id, parent_no, node_no, continue_on_failure)
  SELECT _definition_id, (p.value->>0)::INT, g.node_no, coalesce((p.value->>1)::BOOL, false)
  FROM given g CROSS JOIN LATERAL jsonb_array_elements(g.parents) p;
$$;
COMMENT ON FUNCTION flow.insert_nodes IS 'Internal: inserts the nodes and edges of a version from JSON.';

-- The selected nodes of a version, with all their ancestors and all their descendants where asked for; ascending.
-- OFFSET 0 makes each round of the recursion look its edges up by key, whatever the planner expects: a chain has many.
CREATE FUNCTION flow.extend_selection(_definition_id BIGINT, _selected INT[], _add_parents BOOL, _add_children BOOL)
RETURNS INT[] LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  WITH RECURSIVE up AS (
    SELECT s.node_no FROM unnest(_selected) AS s(node_no) WHERE _add_parents
    UNION
    SELECT p.parent_no FROM up CROSS JOIN LATERAL (
      SELECT e.parent_no FROM flow.definition_edge e
      WHERE e.definition_id = _definition_id AND e.node_no = up.node_no OFFSET 0) p
  ), down AS (
    SELECT s.node_no FROM unnest(_selected) AS s(node_no) WHERE _add_children
    UNION
    SELECT c.node_no FROM down CROSS JOIN LATERAL (
      SELECT e.node_no FROM flow.definition_edge e
      WHERE e.definition_id = _definition_id AND e.parent_no = down.node_no OFFSET 0) c
  )
  SELECT coalesce(array_agg(a.node_no ORDER BY a.node_no), '{}')
  FROM (SELECT unnest(_selected) AS node_no UNION SELECT node_no FROM up UNION SELECT node_no FROM down) a;
$$;
COMMENT ON FUNCTION flow.extend_selection IS
  'Internal: node numbers with those of all ancestors and all descendants, ascending.';

CREATE FUNCTION flow.configuration() RETURNS JSONB
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT coalesce(jsonb_object_agg(c.flow, d.configuration), '{}')
  FROM flow.configured c JOIN flow.definition d USING (definition_id);
$$;
COMMENT ON FUNCTION flow.configuration() IS
  'The configurations of all flows: an object, name of the flow → configuration as configure_flow takes it.';

CREATE FUNCTION flow.configuration(_flow TEXT) RETURNS JSONB
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT d.configuration FROM flow.configured c JOIN flow.definition d USING (definition_id) WHERE c.flow = _flow;
$$;
COMMENT ON FUNCTION flow.configuration(TEXT) IS
  'The configuration of a flow as configure_flow takes it; null: it is not configured.';

CREATE FUNCTION flow.walk_flow(
  _flow TEXT, OUT rank INT, OUT node TEXT, OUT parents TEXT[], OUT children TEXT[], OUT continue_on_failure TEXT[],
  OUT target TEXT, OUT routine TEXT, OUT step_routine TEXT, OUT steps_to_flow TEXT, OUT empty BOOL, OUT priority INT)
RETURNS SETOF RECORD LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT (w.n).rank, (w.n).node, w.parents, w.children, w.continue_on_failure, coalesce((w.n).target, 'local'),
    (w.n).routine, (w.n).step_routine, (w.n).steps_to_flow, (w.n).empty, (w.n).priority
  FROM (
    SELECT u.node_no, (array_agg(u.n) FILTER (WHERE u.is_node))[1] AS n,
      coalesce(array_agg(u.parent ORDER BY u.other_no) FILTER (WHERE u.parent IS NOT NULL), '{}') AS parents,
      coalesce(array_agg(u.child ORDER BY u.other_no) FILTER (WHERE u.child IS NOT NULL), '{}') AS children,
      coalesce(array_agg(u.parent ORDER BY u.other_no) FILTER (WHERE u.continue_on_failure), '{}') AS continue_on_failure
    FROM flow.configured f
    CROSS JOIN LATERAL (
      SELECT x.node_no, x AS n, true AS is_node, NULL::INT AS other_no, NULL::TEXT AS parent, NULL::TEXT AS child,
        false AS continue_on_failure
      FROM flow.definition_node x WHERE x.definition_id = f.definition_id
      UNION ALL
      SELECT e.node_no, NULL::flow.definition_node, false, e.parent_no, o.node, NULL, e.continue_on_failure
      FROM flow.definition_edge e
      CROSS JOIN LATERAL (SELECT x.node FROM flow.definition_node x
        WHERE x.definition_id = e.definition_id AND x.node_no = e.parent_no OFFSET 0) o
      WHERE e.definition_id = f.definition_id
      UNION ALL
      SELECT e.parent_no, NULL::flow.definition_node, false, e.node_no, NULL, o.node, false
      FROM flow.definition_edge e
      CROSS JOIN LATERAL (SELECT x.node FROM flow.definition_node x
        WHERE x.definition_id = e.definition_id AND x.node_no = e.node_no OFFSET 0) o
      WHERE e.definition_id = f.definition_id) u
    WHERE f.flow = _flow
    GROUP BY u.node_no) w
  ORDER BY (w.n).rank, w.node_no;
$$;
COMMENT ON FUNCTION flow.walk_flow IS
  'The nodes of a configured flow, parents before children. rank: length of the longest path from a node without '
  'parents; continue_on_failure: those of the parents below whose failure the node still runs; steps_to_flow: the '
  'flow that its steps start. No rows: not configured.';

CREATE FUNCTION flow.drop_flow(_flow TEXT) RETURNS VOID LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'as_owner';
COMMENT ON FUNCTION flow.drop_flow IS
  'Makes a flow unconfigured; what its runs did stays. Raises undefined_object when it is not configured, '
  'object_in_use while open runs need it, insufficient_privilege unless you may act for its owner.';

CREATE FUNCTION flow.drop_flow_as(_caller OID, _flow TEXT) RETURNS VOID
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _configured flow.configured := flow.lock_configured(_flow);
  _run        RECORD;
  _user       TEXT;
BEGIN
  IF _configured.flow IS NULL THEN
    RAISE undefined_object USING
      MESSAGE = format('flow "%s" is not configured', _flow),
      HINT = 'The configured flows are in flow.flow_configuration.';
  END IF;
  PERFORM flow.require_owner(_caller, _configured);

  -- An open run has its own version; but one whose steps start this flow would find nothing to start.
  SELECT f.flow_id, f.flow INTO _run
  FROM flow.flow f
  WHERE f.processed IS NULL
    AND (f.flow = _flow OR EXISTS (
      SELECT FROM flow.definition_node n WHERE n.definition_id = f.definition_id AND n.steps_to_flow = _flow))
  ORDER BY f.flow_id LIMIT 1;
  IF FOUND THEN
    RAISE object_in_use USING
      MESSAGE = format('flow "%s" cannot be dropped while runs need it', _flow),
      DETAIL = format('Run %s of flow "%s" is open.', _run.flow_id, _run.flow),
      HINT = 'Wait for its end with flow.wait, or end it with flow.cancel.';
  END IF;

  SELECT string_agg(DISTINCT format('"%s"', c.flow), ', ') INTO _user
  FROM flow.configured c JOIN flow.definition_node n USING (definition_id)
  WHERE n.steps_to_flow = _flow AND c.flow <> _flow;
  IF _user IS NOT NULL THEN
    RAISE WARNING 'steps of other flows start flow "%" and will fail: %', _flow, _user;
  END IF;
  DELETE FROM flow.configured c WHERE c.flow = _flow;
END
$$;
COMMENT ON FUNCTION flow.drop_flow_as IS 'Internal: flow.drop_flow with the caller''s role.';
