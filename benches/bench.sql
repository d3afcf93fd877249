-- What the benchmarks run: callbacks, flows, and the loops that measure. Loaded into a fresh database for each family.
CREATE SCHEMA bench;

CREATE TABLE bench.by_steps (i BIGINT NOT NULL, at TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp());
CREATE TABLE bench.by_pgbench (LIKE bench.by_steps INCLUDING ALL);
CREATE TABLE bench.by_peer (LIKE bench.by_steps INCLUDING ALL);
CREATE TABLE bench.started (flow_id BIGINT PRIMARY KEY, at TIMESTAMPTZ NOT NULL);
CREATE TABLE bench.committed (flow_id BIGINT PRIMARY KEY, kind TEXT NOT NULL, began TIMESTAMPTZ NOT NULL, ended TIMESTAMPTZ NOT NULL);

CREATE PROCEDURE bench.nothing(_args flow.callback_arguments_t) LANGUAGE plpgsql AS $$ BEGIN END $$;

CREATE PROCEDURE bench.sleep(_args flow.callback_arguments_t) LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_sleep(600);
END
$$;

CREATE PROCEDURE bench.push(_args flow.callback_arguments_t) LANGUAGE plpgsql AS $$
DECLARE
  _steps JSONB[] := ARRAY(
    SELECT jsonb_build_object('i', i) FROM generate_series(1, (_args.flow_arguments->>'steps')::INT) AS i);
BEGIN
  CALL flow.push_steps(_args.flow_id, _args.node, _steps);
END
$$;

-- Pushes the steps _low … _high, as a client would: CALL takes no subquery as an argument.
CREATE PROCEDURE bench.push_range(_run BIGINT, _low INT, _high INT) LANGUAGE plpgsql AS $$
DECLARE
  _steps JSONB[] := ARRAY(SELECT jsonb_build_object('i', i) FROM generate_series(_low, _high) AS i);
BEGIN
  CALL flow.push_steps(_run, 'work', _steps);
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

SELECT flow.configure_flow(name, configuration)
FROM (VALUES
  ('bench_nothing', '{"nodes": [{"node": "nothing", "routine": "bench.nothing"}]}'::JSONB),
  ('bench_steps', '{"nodes": [{"node": "work", "node_routine": "bench.push", "step_routine": "bench.insert_row"}]}'),
  ('bench_late', '{"nodes": [{"node": "work", "node_routine": "bench.nothing", "step_routine": "bench.insert_row"}]}'),
  ('bench_sleep', '{"nodes": [{"node": "work", "node_routine": "bench.nothing", "step_routine": "bench.sleep"}]}'),
  ('bench_stamp', '{"nodes": [{"node": "stamp", "routine": "bench.stamp"}]}')) AS f(name, configuration);
