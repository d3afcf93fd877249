-- Storing, reading and dropping definitions.
\ir flow_helpers.psql

DO $$
DECLARE
  _first BIGINT; _again BIGINT; _second BIGINT; _nodes JSONB;
BEGIN
  ASSERT flow.stored_configuration('f') IS NULL;
  _nodes := '[{"node": "a", "node_timeout": 90, "step_timeout": "2 minutes"},
    {"node": "b", "parents": ["a"], "priority": 3, "steps": [{"x": 1}]}, {"node": "c", "parents": ["a", "~b"]}]';
  _first := t.flow('f', _nodes, '{"priority": 7}');
  ASSERT flow.stored_configuration('f') = jsonb_build_object('nodes', _nodes);
  ASSERT (SELECT array_agg((node, priority, node_timeout, step_timeout)::TEXT ORDER BY node_no)
          FROM flow.definition_node WHERE definition_id = _first)
    = '{"(a,7,00:01:30,00:02:00)","(b,3,,)","(c,7,,)"}';
  -- The same again makes no new version; another search_path's routine, priority or configuration does.
  _again := t.flow('f', _nodes, '{"priority": 7}');
  ASSERT _again = _first, 'identical';
  _second := t.flow('f', _nodes, '{"priority": 8}');
  ASSERT _second > _first;
  ASSERT t.flow('f', _nodes || '[{"node": "d"}]', '{"priority": 8}') > _second;
  ASSERT (SELECT count(*) FROM flow.definition WHERE flow = 'f') = 3;
  ASSERT (SELECT owner FROM flow.configured WHERE flow = 'f') = current_user;
END $$;

DO $$
BEGIN
  PERFORM t.flow('f "quoted" '' flow', '[{"node": "a"}, {"node": "b", "parents": ["a"]}]');
  ASSERT flow.configuration('f "quoted" '' flow')->'nodes'->0->>'node' = 'a';
  ASSERT flow.configuration('none') IS NULL;
  ASSERT (SELECT count(*) FROM jsonb_object_keys(flow.configuration())) >= 2;
  ASSERT (SELECT array_agg((w.rank, w.node, w.parents, w.children, w.continue_on_failure)::TEXT)
          FROM flow.walk_flow('f') w)
    = '{"(0,a,{},\"{b,c}\",{})","(0,d,{},{},{})","(1,b,{a},{c},{})","(2,c,\"{a,b}\",{},{b})"}';
  ASSERT (SELECT count(*) FROM flow.dependency_configuration WHERE flow = 'f') = 3;
  ASSERT (SELECT arguments FROM flow.step WHERE flow = 'f' AND node = 'b') = '{"x": 1}';
  ASSERT (SELECT target FROM flow.node WHERE flow = 'f' AND node = 'b') = 'local';
  ASSERT flow.graphviz('f') LIKE '%f%';
  ASSERT t.raised('SELECT flow.graphviz(''none''::TEXT)') LIKE '42704 flow "none" is not configured';
END $$;

-- extend_selection: ancestors and descendants of what is selected, not of what was added; long chains too.
DO $$
DECLARE
  _id BIGINT; _start TIMESTAMPTZ; _n INT;
BEGIN
  _id := t.flow('d', '[{"node": "a"}, {"node": "b"}, {"node": "c", "parents": ["a", "b"]},
    {"node": "d", "parents": ["c"]}, {"node": "e", "parents": ["b"]}]');
  ASSERT flow.extend_selection(_id, '{2}', false, false) = '{2}';
  ASSERT flow.extend_selection(_id, '{2}', true, false) = '{0,1,2}';
  ASSERT flow.extend_selection(_id, '{2}', false, true) = '{2,3}';
  ASSERT flow.extend_selection(_id, '{0,4}', true, true) = '{0,1,2,3,4}';
  ASSERT flow.extend_selection(_id, '{}', true, true) = '{}';
  INSERT INTO flow.definition (flow, configuration, author) VALUES ('chain', '{}', 'x') RETURNING definition_id INTO _id;
  INSERT INTO flow.definition_edge SELECT _id, i - 1, i, false FROM generate_series(1, 10000) i;
  _start := clock_timestamp();
  _n := cardinality(flow.extend_selection(_id, '{0}', true, true));
  ASSERT _n = 10001;
  ASSERT clock_timestamp() - _start < '2 seconds', 'linear';
END $$;

DO $$
DECLARE
  _run BIGINT;
BEGIN
  PERFORM t.flow('child', '[{"node": "x"}]');
  PERFORM t.flow('parent', '[{"node": "p", "steps_to_flow": "child"}]');
  _run := flow.run_flow('parent', NULL);
  ASSERT t.raised('SELECT flow.drop_flow(''child'')') LIKE '55006 flow "child" cannot be dropped%', 'needed by steps';
  ASSERT t.raised('SELECT flow.drop_flow(''parent'')') LIKE '55006 %';
  PERFORM flow.cancel(_run);
  PERFORM flow.drop_flow('parent');
  PERFORM flow.drop_flow('child');
  ASSERT t.raised('SELECT flow.drop_flow(''child'')') LIKE '42704 flow "child" is not configured';
  ASSERT t.status(_run) = 'p Cancelled', 'history is kept';
END $$;

ROLLBACK;
\echo flow_definitions: ok
