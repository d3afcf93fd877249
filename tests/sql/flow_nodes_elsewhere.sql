-- Nodes with queries and options, on the local database and elsewhere: checked, stored, given back, routed.
\ir flow_helpers.psql

CREATE FUNCTION t.make_query(_args flow.callback_arguments_t) RETURNS TEXT LANGUAGE sql AS $$ SELECT 'SELECT 1' $$;
CREATE FUNCTION t.no_text(_args flow.callback_arguments_t) RETURNS INT LANGUAGE sql AS $$ SELECT 1 $$;
CREATE FUNCTION t.faults(_configuration JSONB) RETURNS TEXT LANGUAGE sql AS $$
  SELECT coalesce(string_agg(f.path || ': ' || f.message, E'\n'), 'none') FROM flow.validate(_configuration) f;
$$;
SELECT async.configure('{"targets": [
    {"target": "house", "connection_string": "https://u:p@house.example.com", "options": {"tiers": {"slow": {"target": "second", "settings": {"max_threads": 1}}, "here": {}}}},
    {"target": "second", "connection_string": "https://u:p@second.example.com", "max_concurrency": 2},
    {"target": "far", "connection_string": "host=db.example.com password=p"},
    {"target": "web", "kind": "http", "options": {"base_url": "https://h"}}, {"target": "robots", "kind": "external"}],
  "stores": [{"store": "results", "url": "s3://bucket", "options": {"access_key_id": "abcd", "secret_access_key": "hunter22"}}]}');

DO $$
DECLARE
  _configuration JSONB := '{"nodes": [
    {"node": "load", "target": "house", "query": "SELECT {d:Date}", "step_query": "SELECT {x:Int32}", "parameters": {"d": "$day"}, "settings": {"max_threads": 4},
     "tier": "slow", "result": {"to": "object", "store": "results", "format": "parquet", "path": "r/{flow}/{task_id}"}, "steps": [{"x": 1}], "on_partial": "fail"},
    {"node": "far_away", "target": "far", "routine": "nobody.knows", "dependencies": [{"parent": "load"}]},
    {"node": "call", "target": "web", "request": {"method": "POST", "path": "/v1"}, "result": "inline", "dependencies": [{"parent": "far_away"}]},
    {"node": "made", "query_routine": "t.make_query", "result": "inline"},
    {"node": "plain", "query": "SELECT 2"}]}';
  _node RECORD;
  _id   BIGINT;
  _definition BIGINT;
BEGIN
  ASSERT t.faults(_configuration) = 'none', t.faults(_configuration);
  PERFORM flow.configure_flow('e', _configuration);
  ASSERT flow.configuration('e') = _configuration, flow.configuration('e');
  PERFORM flow.configure_flow('e', flow.configuration('e'));
  SELECT definition_id INTO _definition FROM flow.configured WHERE flow = 'e';
  ASSERT (SELECT count(*) = 1 FROM flow.definition WHERE flow = 'e'), 'the same again makes no new version';
  SELECT * INTO _node FROM flow.definition_node WHERE node = 'load' AND definition_id = _definition;
  ASSERT _node.query = 'SELECT {d:Date}' AND _node.step_query = 'SELECT {x:Int32}' AND _node.routine IS NULL AND _node.step_routine IS NULL
     AND _node.query_routine IS NULL AND _node.on_partial_fail, _node;
  ASSERT _node.options = '{"parameters": {"d": "$day"}, "settings": {"max_threads": 4}, "tier": "slow",
    "result": {"to": "object", "store": "results", "format": "parquet", "path": "r/{flow}/{task_id}"}}', _node.options;
  ASSERT (SELECT query IS NULL AND routine = 'nobody.knows' AND routine_resolved IS NULL AND options IS NULL FROM flow.definition_node
           WHERE definition_id = _definition AND node = 'far_away');
  ASSERT (SELECT query IS NULL AND routine IS NULL AND options->'request'->>'path' = '/v1' FROM flow.definition_node
           WHERE definition_id = _definition AND node = 'call');
  ASSERT (SELECT query IS NULL AND routine IS NULL AND query_routine = 't.make_query' AND query_routine_resolved = 't.make_query' AND options = '{"result": "inline"}'
            FROM flow.definition_node WHERE definition_id = _definition AND node = 'made');

  -- A run. The tier leads to another target, for the node's own task and for its steps.
  _id := flow.run_flow('e', '{"day": "2026-11-20"}');
  ASSERT (SELECT target = 'second' AND query IS NULL AND options IS NULL FROM async.task WHERE task_id = t.own(_id, 'load'));
  ASSERT (SELECT target = 'local' FROM async.task WHERE task_id = t.own(_id, 'plain'));
  PERFORM t.end_node(_id, 'load');
  ASSERT (SELECT target = 'second' AND task_data = '{"x": 1}' FROM async.task WHERE task_id = t.step(_id, 'load', '{"x": 1}'));
  ASSERT async.resolved_options('house', _node.options)
    = _node.options - 'tier' || '{"settings": {"max_threads": 4}}', async.resolved_options('house', _node.options);
  ASSERT async.resolved_options('house', '{"tier": "slow"}') = '{"settings": {"max_threads": 1}}';
  ASSERT async.resolved_options('house', '{"tier": "here"}') = '{"tier": "here"}' AND async.resolved_options('house', NULL) IS NULL;

  -- Steps that did not finish run again as a new intention.
  PERFORM t.end_task(t.step(_id, 'load', '{"x": 1}'), 'FAILED');
  PERFORM flow.cancel(_id);
  UPDATE async.task SET unsure_since = 1 WHERE task_id = t.step(_id, 'load', '{"x": 1}');
  PERFORM flow.retry_failed(_id);
  ASSERT (SELECT intention = 1 AND unsure_since IS NULL AND processed IS NULL FROM async.task WHERE task_id = t.step(_id, 'load', '{"x": 1}'));

  -- The function is looked at again when a run starts.
  DROP FUNCTION t.make_query;
  ASSERT t.raised('SELECT flow.run_flow(''e'', NULL)') LIKE '42883 function t.make_query(flow.callback_arguments_t) does not exist';
END
$$;

DO $$
DECLARE
  _faults TEXT := t.faults('{"nodes": [
    {"node": "a", "target": "house"}, {"node": "b", "target": "house", "query": "q", "routine": "r"}, {"node": "c", "target": "web", "query": "q"},
    {"node": "d", "query_routine": "t.no_text"}, {"node": "e", "target": "robots", "query": "q"}, {"node": "f", "query": "q", "settings": {"x": 1}, "tier": "slow"},
    {"node": "g", "target": "house", "query": "q", "tier": "fast", "result": {"to": "object", "store": "attic", "format": "csv"}},
    {"node": "h", "target": "far", "query": "q", "request": {}, "result": {"to": "export", "store": "results", "format": "csv"}},
    {"node": "i", "routine": "t.done", "result": "inline"}, {"node": "j", "query": "q", "paramters": {}, "result": []}]}');
BEGIN
  ASSERT _faults LIKE '%$.nodes[0]: it has no query, and its target is of kind "clickhouse"%', _faults;
  ASSERT _faults LIKE '%$.nodes[1].query: "query" cannot stand together with "routine"%', _faults;
  ASSERT _faults LIKE '%$.nodes[2].query: %"request" says what is to be done%', _faults;
  ASSERT _faults LIKE '%$.nodes[3].query_routine: "t.no_text" is not a function that returns text%', _faults;
  ASSERT _faults LIKE '%$.nodes[4].query: %', _faults;
  ASSERT _faults LIKE '%$.nodes[5].settings: %local database%' AND _faults LIKE '%$.nodes[5].tier: %', _faults;
  ASSERT _faults LIKE '%$.nodes[6].tier: the target has no tier "fast"%$.nodes[6].result.store: store "attic" does not exist%', _faults;
  ASSERT _faults LIKE '%$.nodes[7].request: %' AND _faults LIKE '%$.nodes[7].result.to: this target cannot write an object itself%', _faults;
  ASSERT _faults LIKE '%$.nodes[8].result: "result" needs a query%', _faults;
  ASSERT _faults LIKE '%$.nodes[9].paramters: unknown key "paramters"%' AND _faults LIKE '%$.nodes[9].result: "result" must be an object or a word%', _faults;
END
$$;
ROLLBACK;
