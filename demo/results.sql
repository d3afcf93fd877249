-- What the demo prints when the run is over. Variable "run": its flow_id.
\pset footer off
\pset null '-'
\echo
\echo 'Where one waited, January to March 2001 (airports with 200 departures and more in the sample):'
SELECT label AS "from", flights, mean_delay AS "mean delay (min)", late_share AS "late (%)",
  repeat('#', (late_share / 2)::INT) AS " "
FROM demo.report WHERE part = 'airport' ORDER BY place;
\echo 'Week by week (bird strikes are an optional extra whose file could not be read):'
SELECT label AS "week of", flights, mean_delay AS "mean delay (min)", late_share AS "late (%)", strikes AS "bird strikes"
FROM demo.report WHERE part = 'week' ORDER BY place;
\echo 'SELECT * FROM flow.v_flow_status'
SELECT flow_id, flow, complete, run_time, count_nodes AS nodes, count_finished_nodes AS finished,
  count_failed_nodes AS failed, first_error
FROM flow.v_flow_status WHERE flow_id = :run;
\echo 'SELECT * FROM flow.v_flow_node_status'
SELECT s.node, s.status, s.steps, s.steps_finished AS done, s.attempt AS attempts, s.run_time, s.error
FROM flow.v_flow_node_status s JOIN flow.walk_flow('flights') w USING (node)
WHERE s.flow_id = :run ORDER BY w.rank, s.started;
