-- What the demo prints when the run on ClickHouse is over. Variable "run": its flow_id.
\pset footer off
\pset null '-'
\echo
\echo 'The airports again, with how sure one can be: 95 % of all drawn means lie between low and high.'
\echo 'Node to_table: ClickHouse''s rows are in a Postgres table, SELECT … FROM demo.estimate JOIN demo.airport …'
SELECT format('%s  %s', e.origin, a.city) AS "from", e.flights, e.mean_delay AS "mean delay (min)", e.low, e.high,
  repeat(' ', e.low::INT) || repeat('#', greatest(e.high::INT - e.low::INT, 1)) AS "minutes: 0 to 20"
FROM demo.estimate e JOIN demo.airport a ON a.iata = e.origin ORDER BY e.mean_delay DESC;
\echo 'Node to_parquet: SELECT … FROM async.v_result'
SELECT node, kind_of_result, format, compression, rows, bytes, regexp_replace(location, '.*/(.*/.*/.*)$', '…/\1') AS location
FROM async.v_result WHERE flow_id = :run AND kind_of_result = 'object';
\echo 'and what is in it: SELECT * FROM async.fetch_result(task_id, 3)'
SELECT f.* FROM async.v_result r, async.fetch_result(r.task_id, 3) AS f
WHERE r.flow_id = :run AND r.kind_of_result = 'object';
\echo 'SELECT * FROM flow.v_flow_node_status'
SELECT s.node, s.target, s.status, s.steps, s.steps_finished AS done, s.run_time
FROM flow.v_flow_node_status s JOIN flow.walk_flow('flights_on_clickhouse') w USING (node)
WHERE s.flow_id = :run ORDER BY w.rank, s.started;
