-- Functions of the task engine that are in Rust. Announcements are described in docs/architecture.md.

CREATE FUNCTION async.announce_tasks(_low BIGINT, _high BIGINT, _flow_id BIGINT DEFAULT NULL, _node_no INT DEFAULT NULL)
RETURNS VOID LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'announce_tasks_wrapper';

CREATE FUNCTION async.announce_ended(_task_ids BIGINT[])
RETURNS VOID LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'announce_ended_wrapper';

CREATE FUNCTION async.announce_node(_flow_id BIGINT, _node_no INT)
RETURNS VOID LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'announce_node_wrapper';

CREATE FUNCTION async.announce_run(_flow_id BIGINT)
RETURNS VOID LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'announce_run_wrapper';

CREATE FUNCTION async.announce_settings()
RETURNS VOID LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'announce_settings_wrapper';

-- Raises, with the line to add, when the library is not in shared_preload_libraries.
CREATE FUNCTION async.require_engine()
RETURNS VOID LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'require_engine_wrapper';

-- The value of a setting of pgflow in its base unit (milliseconds, bytes, a count), or null where it is off.
CREATE FUNCTION async.setting(_name TEXT)
RETURNS BIGINT LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'setting_wrapper';

-- What runs right now: in this database's workers, and elsewhere (pid is the dispatcher's then).
CREATE FUNCTION async.running(
  OUT task_id BIGINT, OUT attempt INT, OUT pid INT, OUT role_oid OID, OUT started TIMESTAMPTZ,
  OUT progress_done DOUBLE PRECISION, OUT progress_total DOUBLE PRECISION, OUT progress_note TEXT,
  OUT rows BIGINT, OUT bytes BIGINT, OUT total_rows BIGINT)
RETURNS SETOF RECORD LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'running_wrapper';

-- The engine's processes of the whole cluster: kind launcher, dispatcher or worker.
CREATE FUNCTION async.processes(
  OUT kind TEXT, OUT pid INT, OUT database_oid OID, OUT role_oid OID, OUT state TEXT, OUT task_id BIGINT,
  OUT started TIMESTAMPTZ, OUT tasks_done BIGINT, OUT queued INT, OUT last_error TEXT)
RETURNS SETOF RECORD LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'processes_wrapper';

-- How full the dispatcher holds each pool of this database.
CREATE FUNCTION async.pool_use(OUT concurrency_pool TEXT, OUT max_workers INT, OUT running INT, OUT waiting BIGINT)
RETURNS SETOF RECORD LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'pool_use_wrapper';

-- Notes the outcome a callback decided for its own task (flow.finish, flow.defer inside it). True: the caller is the
-- worker that runs this task, and its outcome will follow the note if this transaction commits. False: it is not.
-- _status: FINISHED, FAILED or DEFERRED.
CREATE FUNCTION async.decide_own(_task_id BIGINT, _status TEXT, _message TEXT, _delay INTERVAL)
RETURNS BOOL LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'decide_own_wrapper';

-- Waits until something of this database's runs has changed or _milliseconds have passed. Wakes at commits of outcomes.
CREATE FUNCTION async.wait_for_change(_milliseconds INT)
RETURNS VOID LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'wait_for_change_wrapper';

-- Notes progress of the task that this worker runs; returns false when the caller is not that worker.
CREATE FUNCTION async.note_progress(_task_id BIGINT, _done DOUBLE PRECISION, _total DOUBLE PRECISION, _note TEXT)
RETURNS BOOL LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'note_progress_wrapper';

-- True when the caller is the worker that runs _task_id right now.
CREATE FUNCTION async.is_own_task(_task_id BIGINT)
RETURNS BOOL LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'is_own_task_wrapper';

-- Keeps the engine of this database from starting tasks until the transaction ends; then async.control counts.
CREATE FUNCTION async.hold_engine()
RETURNS VOID LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'hold_engine_wrapper';
COMMENT ON FUNCTION async.hold_engine IS
  'Internal: no task starts in this database until the transaction ends; then what async.control says counts.';

-- Tells the launcher that this database has the extension; called by the extension script, takes effect at commit.
CREATE FUNCTION async.wake_launcher()
RETURNS VOID LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'wake_launcher_wrapper';

-- What the executor knows of kinds of targets (src/elsewhere_api.rs). None of these connects anywhere, or repeats a secret.
CREATE FUNCTION async.executor_kinds()
RETURNS TEXT[] LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'executor_kinds_wrapper';
COMMENT ON FUNCTION async.executor_kinds IS 'The kinds of targets that tasks are sent to, beside "local" and "external".';

CREATE FUNCTION async.kind_needs(_kind TEXT)
RETURNS TEXT LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'kind_needs_wrapper';
COMMENT ON FUNCTION async.kind_needs IS
  'Internal: what a task of a kind must have: query, query_or_routine, or options (neither); null: nothing is known of it.';

CREATE FUNCTION async.target_faults(
  _kind TEXT, _connection_string TEXT, _connection_options JSONB, _password_required BOOL, _options JSONB)
RETURNS TABLE (path TEXT, message TEXT) LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'target_faults_wrapper';
COMMENT ON FUNCTION async.target_faults IS
  'Internal: what a kind finds wrong with a target; paths begin with the key: .options.verify.';

CREATE FUNCTION async.options_faults(_kind TEXT, _options JSONB)
RETURNS TABLE (path TEXT, message TEXT) LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'options_faults_wrapper';
COMMENT ON FUNCTION async.options_faults IS
  'Internal: what is wrong with the options of a task (parameters, settings, tier, request, result) of a kind of target.';

CREATE FUNCTION async.store_faults(_url TEXT, _options JSONB)
RETURNS TABLE (path TEXT, message TEXT) LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'store_faults_wrapper';
COMMENT ON FUNCTION async.store_faults IS 'Internal: what is wrong with a store: its URL, its options and those of its server.';

CREATE FUNCTION async.masked_options(_options JSONB)
RETURNS JSONB LANGUAGE c IMMUTABLE AS 'MODULE_PATHNAME', 'masked_options_wrapper';
COMMENT ON FUNCTION async.masked_options IS
  'Options without credentials: *** for the values of keys that look like one, of headers, and for passwords in URLs.';
