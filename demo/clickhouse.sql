-- The demo's second act: the same flights on ClickHouse. Run by the same ordinary role, after demo.sql. Target "warehouse"
-- and store "demo" are there: an administrator has configured them (run.sh does it).
\set ON_ERROR_STOP on
SET client_min_messages = warning;
SET search_path = demo, public;

-- One step for each of the busiest airports. They are pushed to another node, which runs them on ClickHouse.
CREATE PROCEDURE plan_airports(_args flow.callback_arguments_t) LANGUAGE plpgsql SET search_path = demo, public AS $$
DECLARE
  _airports JSONB[] := ARRAY(
    SELECT jsonb_build_object('origin', origin) FROM flight GROUP BY origin ORDER BY count(*) DESC, origin LIMIT 16);
BEGIN
  CALL flow.push_steps(_args.flow_id, 'estimate', _airports);
END
$$;

-- A mean delay of some hundred flights is a guess. How good a guess? Draw as many flights again, with repetition, thousands
-- of times, and see where the means lie (the bootstrap). That is work for ClickHouse: hundreds of millions of draws.
-- {name:Type} are parameters: origin is the step's argument, the others are the flow's. ClickHouse gets the flights from
-- Postgres by itself. What it does may be done twice after a crash, so its tables are made anew or replace what is there.
SELECT flow.configure_flow('flights_on_clickhouse', $json${
  "nodes": [
    {"node": "load",        "target": "warehouse",
     "query": "CREATE OR REPLACE TABLE flight ENGINE = MergeTree ORDER BY (origin, departure) AS SELECT * FROM postgresql({postgres:String}, {database:String}, 'flight', 'flight_reader', '', 'demo')"},
    {"node": "make_table",  "target": "warehouse",
     "query": "CREATE OR REPLACE TABLE estimate (origin String, flights UInt32, mean Float64, low Float64, high Float64) ENGINE = ReplacingMergeTree ORDER BY origin"},
    {"node": "plan",        "routine": "demo.plan_airports"},
    {"node": "estimate",    "target": "warehouse", "empty": true,
     "step_query": "INSERT INTO estimate WITH (SELECT groupArray(delay) FROM flight WHERE origin = {origin:String}) AS delays SELECT {origin:String}, length(delays), arrayAvg(delays), quantile(0.025)(mean), quantile(0.975)(mean) FROM (SELECT arrayAvg(arrayMap(i -> delays[1 + rand(i + number) % length(delays)], range(length(delays)))) AS mean FROM numbers({draws:UInt32}))",
     "settings": {"max_threads": 1, "max_block_size": 100},
     "dependencies": [{"parent": "load"}, {"parent": "make_table"}, {"parent": "plan"}]},
    {"node": "to_table",    "target": "warehouse",
     "query": "SELECT origin, flights, toDecimal32(mean, 1) AS mean_delay, toDecimal32(low, 1) AS low, toDecimal32(high, 1) AS high FROM estimate FINAL",
     "result": {"to": "table", "table": "demo.estimate", "truncate": true},
     "dependencies": [{"parent": "estimate"}]},
    {"node": "to_parquet",  "target": "warehouse", "priority": -1,
     "query": "SELECT origin, toHour(departure) AS hour, count() AS flights, avg(delay) AS mean_delay, quantile(0.9)(delay) AS p90 FROM flight GROUP BY origin, hour ORDER BY origin, hour",
     "result": {"to": "object", "store": "demo", "path": "{flow}/{flow_id}/by_hour", "format": "parquet"},
     "dependencies": [{"parent": "load"}]}
  ]}$json$) AS configured \gset
