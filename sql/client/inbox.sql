-- The inbox: which attempts of which tasks have had their effects here. Whoever runs a callback for a pgflow elsewhere enters
-- the attempt in the callback's transaction: both commit or neither. If the connection breaks before the answer arrives,
-- a look into the inbox tells which.
--
-- A row belongs to the role that the session logged in as: nobody can enter, or look for, an attempt in another's name.

CREATE TABLE IF NOT EXISTS async.inbox (
  engine  TEXT NOT NULL,
  task_id BIGINT NOT NULL,
  attempt INT NOT NULL,
  done    TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(),
  run_as  NAME NOT NULL DEFAULT session_user,
  PRIMARY KEY (engine, task_id, attempt, run_as)
);
CREATE INDEX IF NOT EXISTS inbox_done ON async.inbox USING brin (done);
REVOKE ALL ON async.inbox FROM PUBLIC;
COMMENT ON TABLE async.inbox IS
  'Attempts of tasks of orchestrating servers that have had their effects here; see async.enter_inbox. Kept for 30 days.';
COMMENT ON COLUMN async.inbox.engine IS 'Which orchestrating database.';
COMMENT ON COLUMN async.inbox.task_id IS 'Its task.';
COMMENT ON COLUMN async.inbox.attempt IS 'The attempt of the task.';
COMMENT ON COLUMN async.inbox.done IS 'When it was entered.';
COMMENT ON COLUMN async.inbox.run_as IS 'The role that the session had logged in as: whose row it is.';

-- The unique_violation is that of the key, with its schema, table and constraint (inbox_pkey): to be told from a callback's own.
CREATE OR REPLACE FUNCTION async.enter_attempt(_engine TEXT, _task_id BIGINT, _attempt INT) RETURNS VOID
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  INSERT INTO async.inbox (engine, task_id, attempt) VALUES (_engine, _task_id, _attempt);
  -- Now and then, at most twice as many as were entered since; never waits for anybody.
  IF random() < 0.002 AND current_setting('transaction_isolation') = 'read committed' THEN
    PERFORM async.clean_inbox();
  END IF;
END
$$;
COMMENT ON FUNCTION async.enter_attempt(TEXT, BIGINT, INT) IS 'Internal: async.enter_inbox with the owner''s rights.';

CREATE OR REPLACE FUNCTION async.clean_inbox() RETURNS BIGINT
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _gone BIGINT;
BEGIN
  DELETE FROM async.inbox i WHERE i.ctid = ANY (ARRAY(
    SELECT x.ctid FROM async.inbox x WHERE x.done < clock_timestamp() - INTERVAL '30 days' LIMIT 1000 FOR UPDATE SKIP LOCKED));
  GET DIAGNOSTICS _gone = ROW_COUNT;
  RETURN _gone;
END
$$;
COMMENT ON FUNCTION async.clean_inbox() IS
  'Internal: deletes up to 1000 rows of async.inbox that are older than 30 days; returns how many.';
