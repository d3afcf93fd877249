-- Ending a task by a token that its own call was given: for systems elsewhere that go on by themselves after an HTTP
-- request and have no rights on the task but this one. Only a digest of the token is kept.

CREATE TABLE async.callback_token (
  task_id BIGINT PRIMARY KEY,
  attempt INT NOT NULL,
  digest  BYTEA NOT NULL UNIQUE
);
COMMENT ON TABLE async.callback_token IS 'Digests of the tokens that end tasks: see async.finish_by_token. Nobody may read it.';
COMMENT ON COLUMN async.callback_token.task_id IS 'The task.';
COMMENT ON COLUMN async.callback_token.attempt IS 'The attempt whose call was given the token.';
COMMENT ON COLUMN async.callback_token.digest IS 'SHA-256 of the token.';

-- Of an attempt that is about to be sent; the token of an earlier one ends with it.
CREATE FUNCTION async.make_callback_token(_task_id BIGINT, _attempt INT) RETURNS TEXT
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  -- 244 random bits.
  _token CONSTANT TEXT := replace(gen_random_uuid()::TEXT || gen_random_uuid()::TEXT, '-', '');
BEGIN
  INSERT INTO async.callback_token (task_id, attempt, digest)
  VALUES (_task_id, _attempt, sha256(convert_to(_token, 'UTF8')))
  ON CONFLICT (task_id) DO UPDATE SET attempt = excluded.attempt, digest = excluded.digest;
  RETURN _token;
END
$$;
COMMENT ON FUNCTION async.make_callback_token IS 'Internal: a new token for an attempt that is about to be sent.';

CREATE FUNCTION async.finish_by_token_as(_caller OID, _token TEXT, _failed BOOL, _error_message TEXT) RETURNS BIGINT
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _task RECORD;
BEGIN
  SELECT t.task_id, t.run_as, t.processed, t.yielded, t.attempt, c.attempt AS called INTO _task
    FROM async.callback_token c JOIN async.task t ON t.task_id = c.task_id
   WHERE c.digest = sha256(convert_to(_token, 'UTF8'));
  IF NOT FOUND THEN
    RAISE invalid_authorization_specification USING
      MESSAGE = 'no task waits for this token',
      DETAIL = 'It may be mistyped, or of a task that was deleted or called again since: each call has a token of its own.';
  ELSIF _task.processed IS NULL AND _task.called NOT IN (_task.attempt, _task.attempt + 1) THEN
    RAISE object_not_in_prerequisite_state USING
      MESSAGE = format('task %s is not in the attempt of this token any more', _task.task_id);
  END IF;
  -- The token stands for the right of the role that the task runs as.
  PERFORM async.end_tasks_for(
    coalesce((SELECT r.oid FROM pg_roles r WHERE r.rolname = _task.run_as), _caller), ARRAY[_task.task_id],
    CASE WHEN _failed THEN 'FAILED' ELSE 'FINISHED' END::async.finish_status_t,
    CASE WHEN _failed THEN coalesce(_error_message, 'failed by its callback') END);
  DELETE FROM async.callback_token c WHERE c.task_id = _task.task_id;
  RETURN _task.task_id;
END
$$;
COMMENT ON FUNCTION async.finish_by_token_as IS 'Internal: async.finish_by_token with the caller''s role.';

CREATE FUNCTION async.finish_by_token(_token TEXT, _failed BOOL DEFAULT false, _error_message TEXT DEFAULT NULL)
RETURNS BIGINT LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'as_owner';
COMMENT ON FUNCTION async.finish_by_token IS
  'Ends the task whose asynchronous HTTP request was given this token (header X-Pgflow-Callback-Token), finished or failed '
  'with _error_message; returns its id. The token is all the right that is needed. Raises '
  'invalid_authorization_specification for a token that no task waits for.';
