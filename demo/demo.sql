-- The demo's tables, its callbacks and its flow. Run by an ordinary role that is a member of flow_user and owns schema
-- demo; nothing here needs a superuser. A callback is a procedure that takes flow.callback_arguments_t and does its work:
-- what it writes and the record that it ran commit together.
\set ON_ERROR_STOP on
SET client_min_messages = warning;
DROP SCHEMA IF EXISTS demo CASCADE;
CREATE SCHEMA demo;
SET search_path = demo, public;

-- What is delivered: files as they come, and a note of each.
CREATE TABLE delivery (file TEXT PRIMARY KEY, arrived TIMESTAMPTZ NOT NULL DEFAULT now());
CREATE TABLE flights_json (document JSONB NOT NULL);
CREATE TABLE airports_csv (iata TEXT, name TEXT, city TEXT, state TEXT, country TEXT, latitude TEXT, longitude TEXT);
CREATE TABLE strikes_csv (
  airport TEXT, aircraft TEXT, damage TEXT, flown TEXT, operator TEXT, state TEXT, phase TEXT, size TEXT, species TEXT,
  time_of_day TEXT, cost_other TEXT, cost_repair TEXT, cost_total TEXT, knots TEXT);

-- What the flow makes of it.
CREATE TABLE flight_raw (departure TEXT, delay TEXT, distance TEXT, origin TEXT, destination TEXT);
CREATE TABLE flight (
  departure TIMESTAMP NOT NULL, delay INT NOT NULL, miles INT NOT NULL, origin TEXT NOT NULL, destination TEXT NOT NULL);
CREATE TABLE rejected (reason TEXT NOT NULL, flight flight_raw NOT NULL);
CREATE TABLE airport (iata TEXT PRIMARY KEY, name TEXT NOT NULL, city TEXT, state TEXT);
CREATE TABLE airport_delay (iata TEXT PRIMARY KEY, flights INT, mean_delay NUMERIC, late_share NUMERIC);
CREATE TABLE week_delay (week DATE PRIMARY KEY, flights INT, mean_delay NUMERIC, late_share NUMERIC);
CREATE TABLE week_strikes (week DATE PRIMARY KEY, strikes INT NOT NULL, mean_knots NUMERIC);
CREATE TABLE report (part TEXT, place INT, label TEXT, flights INT, mean_delay NUMERIC, late_share NUMERIC, strikes INT,
  published TIMESTAMPTZ NOT NULL DEFAULT now(), PRIMARY KEY (part, place));

-- Rows of the bird-strike file that cannot be read: an error, or left out.
CREATE TABLE strictness (skip_bad_rows BOOL NOT NULL);
INSERT INTO strictness VALUES (false);

-- The flow's argument "pace" (seconds) slows the steps down so that one can watch.
CREATE PROCEDURE dawdle(_args flow.callback_arguments_t, _share FLOAT DEFAULT 1) LANGUAGE sql AS $$
  SELECT pg_sleep(_share * coalesce((_args.flow_arguments->>'pace')::FLOAT, 0));
$$;

CREATE PROCEDURE load_flights(_args flow.callback_arguments_t) LANGUAGE plpgsql SET search_path = demo, public AS $$
DECLARE
  _count INT;
BEGIN
  TRUNCATE flight_raw, flight, rejected;
  INSERT INTO flight_raw
  SELECT f->>'date', f->>'delay', f->>'distance', f->>'origin', f->>'destination'
  FROM flights_json, jsonb_array_elements(document) AS f;
  GET DIAGNOSTICS _count = ROW_COUNT;
  RAISE NOTICE '% flights loaded', _count;  -- kept with the task: SELECT * FROM async.task_log
END
$$;

-- Its file is late. Nothing waits in the meantime: the task goes back to the queue and comes again.
CREATE PROCEDURE load_airports(_args flow.callback_arguments_t) LANGUAGE plpgsql SET search_path = demo, public AS $$
BEGIN
  IF NOT EXISTS (SELECT FROM delivery WHERE file = 'airports.csv') THEN
    RAISE NOTICE 'airports.csv has not arrived';
    CALL flow.defer(_args, '1 second');
    RETURN;
  END IF;
  TRUNCATE airport;
  INSERT INTO airport
  SELECT iata, name, city, state FROM airports_csv WHERE country = 'USA';
END
$$;

-- The node's own callback looks at what there is and pushes one step a week; they run side by side.
CREATE PROCEDURE plan_weeks(_args flow.callback_arguments_t) LANGUAGE plpgsql SET search_path = demo, public AS $$
DECLARE
  _weeks JSONB[] := ARRAY(
    SELECT jsonb_build_object('week', week)
    FROM (SELECT DISTINCT date_trunc('week', departure::TIMESTAMP)::DATE AS week FROM flight_raw) w ORDER BY week);
BEGIN
  CALL flow.push_steps(_args.flow_id, _args.node, _weeks);
END
$$;

CREATE PROCEDURE clean_week(_args flow.callback_arguments_t) LANGUAGE plpgsql SET search_path = demo, public AS $$
DECLARE
  _week DATE := _args.step_arguments->>'week';
BEGIN
  WITH typed AS (
    SELECT r, r.departure::TIMESTAMP AS departure, r.delay::INT AS delay, r.distance::INT AS miles FROM flight_raw r
    WHERE r.departure::TIMESTAMP >= _week AND r.departure::TIMESTAMP < _week + 7
  ), judged AS (
    SELECT t.*, CASE
      WHEN (t.r).origin = (t.r).destination OR t.miles <= 0 THEN 'goes nowhere'
      WHEN t.delay NOT BETWEEN -60 AND 24 * 60 THEN 'impossible delay' END AS reason
    FROM typed t
  ), kept AS (
    INSERT INTO flight SELECT departure, delay, miles, (r).origin, (r).destination FROM judged WHERE reason IS NULL
  )
  INSERT INTO rejected SELECT reason, r FROM judged WHERE reason IS NOT NULL;
  CALL dawdle(_args);
END
$$;

CREATE PROCEDURE delays_by_airport(_args flow.callback_arguments_t) LANGUAGE plpgsql SET search_path = demo, public AS $$
BEGIN
  TRUNCATE airport_delay;
  INSERT INTO airport_delay
  SELECT origin, count(*), round(avg(delay), 1), round(100.0 * count(*) FILTER (WHERE delay > 15) / count(*), 1)
  FROM flight JOIN airport ON iata = origin GROUP BY origin;
  CALL dawdle(_args);
END
$$;

CREATE PROCEDURE delays_by_week(_args flow.callback_arguments_t) LANGUAGE plpgsql SET search_path = demo, public AS $$
BEGIN
  TRUNCATE week_delay;
  INSERT INTO week_delay
  SELECT date_trunc('week', departure), count(*), round(avg(delay), 1),
    round(100.0 * count(*) FILTER (WHERE delay > 15) / count(*), 1)
  FROM flight GROUP BY 1;
  CALL dawdle(_args);
END
$$;

-- An optional extra. Every fourth row of its file has no speed, and the strict reading stumbles over the first of them.
CREATE PROCEDURE bird_strikes(_args flow.callback_arguments_t) LANGUAGE plpgsql SET search_path = demo, public AS $$
DECLARE
  _skip BOOL := (SELECT skip_bad_rows FROM strictness);
BEGIN
  TRUNCATE week_strikes;
  INSERT INTO week_strikes
  SELECT date_trunc('week', flown::DATE), count(*), round(avg(knots::INT))
  FROM strikes_csv WHERE flown LIKE '2001-%' AND (knots <> '' OR NOT _skip) GROUP BY 1;
END
$$;

-- Progress is visible to others while the callback's transaction is still open.
CREATE PROCEDURE quality_check(_args flow.callback_arguments_t) LANGUAGE plpgsql SET search_path = demo, public AS $$
DECLARE
  _check RECORD;
BEGIN
  FOR _check IN
    SELECT c.*, row_number() OVER () AS n, count(*) OVER () AS total FROM (VALUES
      ('no flight is lost', (SELECT count(*) FROM flight_raw) = (SELECT count(*) FROM flight) + (SELECT count(*) FROM rejected)),
      ('few are rejected', (SELECT count(*) FROM rejected) < 0.01 * (SELECT count(*) FROM flight_raw)),
      ('no week is missing', (SELECT count(*) FROM week_delay) = (SELECT max(week) - min(week) FROM week_delay) / 7 + 1),
      ('every airport is known', NOT EXISTS (SELECT FROM flight WHERE origin NOT IN (SELECT iata FROM airport)))
    ) AS c(what, holds)
  LOOP
    PERFORM flow.progress(_args, _check.n, _check.total, _check.what);
    CALL dawdle(_args, 0.5);
    IF NOT _check.holds THEN
      RAISE EXCEPTION 'quality check: "%" does not hold', _check.what;
    END IF;
  END LOOP;
END
$$;

CREATE PROCEDURE publish(_args flow.callback_arguments_t) LANGUAGE plpgsql SET search_path = demo, public AS $$
BEGIN
  DELETE FROM report;
  INSERT INTO report
  SELECT 'airport', row_number() OVER (ORDER BY late_share DESC), format('%s  %s', iata, city), flights, mean_delay, late_share
  FROM airport_delay JOIN airport USING (iata) WHERE flights >= 200 ORDER BY late_share DESC LIMIT 10;
  INSERT INTO report
  SELECT 'week', row_number() OVER (ORDER BY week), to_char(week, 'DD Mon YYYY'), flights, mean_delay, late_share, strikes
  FROM week_delay LEFT JOIN week_strikes USING (week);
  CALL dawdle(_args);
END
$$;

SELECT flow.configure_flow('flights', '{
  "nodes": [
    {"node": "load_flights",      "routine": "demo.load_flights"},
    {"node": "load_airports",     "routine": "demo.load_airports"},
    {"node": "bird_strikes",      "routine": "demo.bird_strikes"},
    {"node": "clean",             "node_routine": "demo.plan_weeks", "step_routine": "demo.clean_week",
                                  "dependencies": [{"parent": "load_flights"}]},
    {"node": "delays_by_airport", "routine": "demo.delays_by_airport",
                                  "dependencies": [{"parent": "clean"}, {"parent": "load_airports"}]},
    {"node": "delays_by_week",    "routine": "demo.delays_by_week", "dependencies": [{"parent": "clean"}]},
    {"node": "quality_check",     "routine": "demo.quality_check",
                                  "dependencies": [{"parent": "delays_by_airport"}, {"parent": "delays_by_week"}]},
    {"node": "publish",           "routine": "demo.publish",
                                  "dependencies": [{"parent": "quality_check"},
                                                   {"parent": "bird_strikes", "continue_on_failure": true}]}
  ]}') AS configured \gset
