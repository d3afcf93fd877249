-- What the benchmarks of benches/run.sh run: callbacks, flows, and the loops that measure.
\set ON_ERROR_STOP on
SET client_min_messages = warning;
DROP SCHEMA IF EXISTS bench CASCADE;
CREATE SCHEMA bench;

CREATE TABLE bench.by_steps (i BIGINT NOT NULL, at TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp());
CREATE TABLE bench.by_pgbench (LIKE bench.by_steps INCLUDING ALL);
CREATE TABLE bench.started (flow_id BIGINT PRIMARY KEY, at TIMESTAMPTZ NOT NULL);
CREATE TABLE bench.committed (flow_id BIGINT PRIMARY KEY, kind TEXT NOT NULL, began TIMESTAMPTZ NOT NULL, ended TIMESTAMPTZ NOT NULL);

CREATE PROCEDURE bench.nothing(_args flow.callback_arguments_t) LANGUAGE plpgsql AS $$ BEGIN END $$;

CREATE PROCEDURE bench.push(_args flow.callback_arguments_t) LANGUAGE plpgsql AS $$
DECLARE
  _steps JSONB[] := ARRAY(
    SELECT jsonb_build_object('i', i) FROM generate_series(1, (_args.flow_arguments->>'steps')::INT) AS i);
BEGIN
  CALL flow.push_steps(_args.flow_id, _args.node, _steps);
END
$$;

-- Waits for the end of a run, like flow.wait, but without a snapshot that is held for as long as the run takes.
CREATE PROCEDURE bench.wait_for(_run BIGINT) LANGUAGE plpgsql AS $$
BEGIN
  WHILE EXISTS (SELECT FROM flow.flow f WHERE f.flow_id = _run AND f.processed IS NULL) LOOP
    COMMIT;
    PERFORM pg_sleep(0.01);
    COMMIT;
  END LOOP;
END
$$;

CREATE PROCEDURE bench.insert_row(_args flow.callback_arguments_t) LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO bench.by_steps (i) VALUES ((_args.step_arguments->>'i')::BIGINT);
END
$$;

CREATE PROCEDURE bench.stamp(_args flow.callback_arguments_t) LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO bench.started VALUES (_args.flow_id, clock_timestamp());
END
$$;

-- Runs a flow of one node _count times, one after the other, and notes when each commit began and had ended.
CREATE PROCEDURE bench.measure_latency(_kind TEXT, _count INT, _pause FLOAT) LANGUAGE plpgsql AS $$
DECLARE
  _run   BIGINT;
  _began TIMESTAMPTZ;
  _ended TIMESTAMPTZ;
BEGIN
  FOR _i IN 1 .. _count LOOP
    PERFORM pg_sleep(_pause);
    COMMIT;
    _run := flow.run_flow('bench_stamp', '{}');
    _began := clock_timestamp();
    COMMIT;
    _ended := clock_timestamp();
    FOR _look IN 1 .. 5000 LOOP
      EXIT WHEN EXISTS (SELECT FROM bench.started s WHERE s.flow_id = _run);
      PERFORM pg_sleep(0.002);
      COMMIT;
    END LOOP;
    INSERT INTO bench.committed VALUES (_run, _kind, _began, _ended);
    COMMIT;
  END LOOP;
END
$$;

-- Milliseconds from the end of the commit (as the client sees it) to the callback's first statement.
CREATE VIEW bench.latency AS
  SELECT c.kind, extract(epoch FROM s.at - c.ended) * 1000 AS after_commit, extract(epoch FROM s.at - c.began) * 1000 AS with_commit
  FROM bench.committed c JOIN bench.started s USING (flow_id);

SELECT count(flow.configure_flow(name, configuration)) AS configured
FROM (VALUES
  ('bench_steps', '{"nodes": [{"node": "work", "node_routine": "bench.push", "step_routine": "bench.insert_row"}]}'::JSONB),
  ('bench_stamp', '{"nodes": [{"node": "stamp", "routine": "bench.stamp"}]}')) AS f(name, configuration) \gset

-- A chain of nodes, a fan 1 -> n -> 1, and layers of two nodes that depend on both of the layer before.
CREATE FUNCTION bench.chain(_nodes INT) RETURNS JSONB LANGUAGE sql AS $$
  SELECT jsonb_build_object('nodes', jsonb_agg(jsonb_build_object('node', 'n' || i, 'routine', 'bench.nothing',
    'dependencies', CASE WHEN i = 1 THEN '[]'::JSONB ELSE jsonb_build_array(jsonb_build_object('parent', 'n' || i - 1)) END)))
  FROM generate_series(1, _nodes) AS i
$$;

CREATE FUNCTION bench.fan(_width INT) RETURNS JSONB LANGUAGE sql AS $$
  SELECT jsonb_build_object('nodes',
    jsonb_build_array('{"node": "first", "routine": "bench.nothing"}'::JSONB)
    || jsonb_agg(jsonb_build_object('node', 'n' || i, 'routine', 'bench.nothing', 'dependencies', '[{"parent": "first"}]'::JSONB))
    || jsonb_build_array(jsonb_build_object('node', 'last', 'routine', 'bench.nothing',
         'dependencies', jsonb_agg(jsonb_build_object('parent', 'n' || i)))))
  FROM generate_series(1, _width) AS i
$$;

CREATE FUNCTION bench.layers(_layers INT) RETURNS JSONB LANGUAGE sql AS $$
  SELECT jsonb_build_object('nodes', jsonb_agg(jsonb_build_object('node', format('n%s_%s', l, k), 'routine', 'bench.nothing',
    'dependencies', CASE WHEN l = 1 THEN '[]'::JSONB ELSE jsonb_build_array(
      jsonb_build_object('parent', format('n%s_1', l - 1)), jsonb_build_object('parent', format('n%s_2', l - 1))) END)))
  FROM generate_series(1, _layers) AS l, generate_series(1, 2) AS k
$$;
