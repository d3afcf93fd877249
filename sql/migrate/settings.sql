-- A part of from_original.sql, not to be run alone.
-- Control, targets, pools: what async.configure finds fault with is left out and listed.
DO $$
DECLARE
  _given JSONB;
  _fault RECORD;
  _part  TEXT[];
BEGIN
  SELECT jsonb_build_object(
           'control', (SELECT jsonb_strip_nulls(to_jsonb(c) - ARRAY['pid', 'running_since', 'startup_routines', 'loop_routines'])
                         FROM old_async_control c),
           -- Every target was a pool of its own; the self target is "local" here. Without a connection there were only clients.
           'targets', (SELECT coalesce(jsonb_agg(jsonb_strip_nulls(to_jsonb(t) || jsonb_build_object(
                                'kind', CASE WHEN t.connection_string IS NULL THEN 'external' END)) ORDER BY t.target), '[]')
                         FROM old_async_target t
                        WHERE t.target NOT IN (SELECT c.self_target FROM old_async_control c) AND t.target <> 'async.self'),
           'concurrency_pools', (SELECT coalesce(jsonb_agg(jsonb_strip_nulls(to_jsonb(p)) ORDER BY p.concurrency_pool), '[]')
                         FROM old_async_concurrency_pool p
                        WHERE p.concurrency_pool NOT IN (SELECT t.target FROM old_async_target t)))
    INTO _given;
  INSERT INTO report (kind, name, outcome, reason, advice)
  SELECT 'target', t->>'target', 'look', 'it has no connection string: "kind" is now "external"',
         'Clients take its tasks with async.get_tasks. For work in this database, leave "target" out of the nodes.'
    FROM jsonb_array_elements(_given->'targets') t WHERE t->>'kind' = 'external'
  UNION ALL
  SELECT 'target', t->>'target', 'look', 'it leads to another server',
         'Tasks are sent there. Whoever takes it over owns it: unless a superuser does, it must carry a password.'
    FROM jsonb_array_elements(_given->'targets') t
   WHERE t->>'connection_string' IS NOT NULL AND NOT async.leads_here(t->>'connection_string')
  UNION ALL
  SELECT 'target', t->>'target', 'look', format('its tasks ran as role "%s"', o.user),
         format('Now they run as the role that calls run_flow. To keep it: "flow": {"run_as": "%s"} in configurations.', o.user)
    FROM jsonb_array_elements(_given->'targets') t
   CROSS JOIN LATERAL (SELECT async.conninfo_options(t->>'connection_string')->>'user') o("user")
   WHERE async.leads_here(t->>'connection_string') AND o.user IS NOT NULL
  UNION ALL
  SELECT 'control', r.key, 'look', array_to_string(r.value, ', '),
         'Not called any more: nothing loops. Schedule it with pg_cron if it is needed.'
    FROM old_async_control c
   CROSS JOIN LATERAL (VALUES ('startup_routines', c.startup_routines), ('loop_routines', c.loop_routines)) r(key, value)
   WHERE cardinality(r.value) > 0;

  LOOP  -- each round takes at least one faulty part out
    SELECT f.path, f.message INTO _fault FROM async.configuration_faults(_given) f WHERE f.severity = 'error' LIMIT 1;
    EXIT WHEN NOT FOUND;
    _part := regexp_match(_fault.path, '^\$\.(control|targets|concurrency_pools)(?:\.(\w+)|\[(\d+)\])?');
    IF coalesce(_part[2], _part[3]) IS NULL THEN
      RAISE EXCEPTION 'cannot take over the settings: %: %', _fault.path, _fault.message;
    END IF;
    INSERT INTO report (kind, name, outcome, reason, advice)
    VALUES (CASE _part[1] WHEN 'control' THEN 'control' WHEN 'targets' THEN 'target' ELSE 'pool' END,
            coalesce(_part[2], _given->_part[1]->_part[3]::INT->>'target', _given->_part[1]->_part[3]::INT->>'concurrency_pool', '?'),
            'refused', _fault.message, 'Set it with async.configure.');
    _given := _given #- ARRAY[_part[1], coalesce(_part[2], _part[3])];
  END LOOP;
  PERFORM set_config('client_min_messages', 'error', true);
  PERFORM async.configure(_given);
  PERFORM set_config('client_min_messages', 'warning', true);
  INSERT INTO report (kind, name, outcome)
  SELECT 'control', k, 'done' FROM jsonb_object_keys(_given->'control') k
  UNION ALL SELECT 'target', t->>'target', 'done' FROM jsonb_array_elements(_given->'targets') t
  UNION ALL SELECT 'pool', p->>'concurrency_pool', 'done' FROM jsonb_array_elements(_given->'concurrency_pools') p;
END
$$;
