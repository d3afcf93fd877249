-- A part of from_original.sql, not to be run alone.
-- Flows.
-- A node as a configuration says it; what is as by default is left out.
CREATE FUNCTION pg_temp.node_configuration(_node TEXT, _dependencies JSONB) RETURNS JSONB LANGUAGE sql STABLE AS $$
  SELECT jsonb_strip_nulls(to_jsonb(n) || jsonb_build_object(
           'routine', nullif(n.routine, ''),
           'node_routine', nullif(n.node_routine, ''),
           'step_routine', nullif(n.step_routine, ''),
           'all_steps_must_complete', CASE WHEN NOT n.all_steps_must_complete THEN false END,
           'empty', CASE WHEN n.empty THEN true END,
           'synchronous', CASE WHEN n.synchronous THEN true END,
           'dependencies', _dependencies))
         || coalesce((SELECT jsonb_build_object('steps', jsonb_agg(s.arguments ORDER BY s.arguments))  -- with their nulls
                        FROM old_flow_step s WHERE s.node = n.node HAVING count(*) > 0), '{}')
    FROM (SELECT _node AS node) x LEFT JOIN old_flow_node n USING (node);
$$;

DO $$
DECLARE
  _flow   RECORD;
  _given  JSONB;
  _detail TEXT;
BEGIN
  FOR _flow IN SELECT * FROM old_flow_flow_configuration ORDER BY flow LOOP
    SELECT jsonb_build_object(
             'nodes', coalesce(jsonb_agg(pg_temp.node_configuration(m.node, p.dependencies) ORDER BY m.node), '[]'))
           || jsonb_strip_nulls(jsonb_build_object(
             'concurrency_group_routine', nullif(_flow.concurrency_group_routine, '')))
      INTO _given
      FROM (SELECT n.node FROM old_flow_flow_node n WHERE n.flow = _flow.flow
            UNION SELECT x.node
              FROM old_flow_dependency_configuration d, LATERAL (VALUES (d.parent), (d.child)) x(node)
             WHERE d.flow = _flow.flow) AS m
      CROSS JOIN LATERAL (
        SELECT jsonb_agg(jsonb_build_object(
                 'parent', d.parent, 'continue_on_failure', coalesce(d.continue_on_failure, false)) ORDER BY d.parent)
               AS dependencies
          FROM old_flow_dependency_configuration d WHERE d.flow = _flow.flow AND d.child = m.node) AS p;
    BEGIN
      PERFORM flow.configure_flow(_flow.flow, _given);
      INSERT INTO report (kind, name, outcome) VALUES ('flow', _flow.flow, 'done');
    EXCEPTION WHEN OTHERS THEN
      GET STACKED DIAGNOSTICS _detail = PG_EXCEPTION_DETAIL;
      INSERT INTO report (kind, name, outcome, reason, advice)
      VALUES ('flow', _flow.flow, 'refused', concat_ws(E'\n', SQLERRM, nullif(_detail, '')),
              format('Correct it, then: SELECT flow.configure_flow(%L, %L)', _flow.flow, _given));
    END;
  END LOOP;
  UPDATE flow.configured SET owner = s.owner FROM migration_settings s;
  UPDATE flow.definition SET author = s.owner FROM migration_settings s;
END
$$;
