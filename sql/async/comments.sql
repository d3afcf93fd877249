-- Comments on the objects of tables.sql, rust.sql and rights.sql.

COMMENT ON SCHEMA async IS 'pgflow''s task engine: targets, tasks, pools, attempts, time-outs. Knows nothing of graphs.';
COMMENT ON TYPE async.finish_status_t IS
  'How a task ended: FINISHED, FAILED, CANCELED, TIMED_OUT, DOA (never run). DEFERRED, PAUSED, YIELDED: not ended.';
COMMENT ON TYPE async.task_run_type_t IS 'How async.push_tasks treats its tasks: see there.';
COMMENT ON TYPE async.task_push_t IS 'A task to push; made by async.task, which explains the fields.';

COMMENT ON TABLE async.control IS 'One row: what async.configure''s "control" says, and whether the engine is paused.';
COMMENT ON COLUMN async.control.only_row IS 'Always true: there is one row.';
COMMENT ON COLUMN async.control.workers IS 'The most local workers of this database at once; null: the setting decides.';
COMMENT ON COLUMN async.control.self_target IS 'Another name for target "local".';
COMMENT ON COLUMN async.control.self_connection_string IS 'Kept for users of the SQL original, not used. Admins only.';
COMMENT ON COLUMN async.control.self_concurrency IS 'As configured; it is the max_concurrency of target "local".';
COMMENT ON COLUMN async.control.default_timeout IS 'Time-out of tasks that have none of their own nor from their target; null: none.';
COMMENT ON COLUMN async.control.default_concurrency_pool_workers IS 'Size of pools that are not configured.';
COMMENT ON COLUMN async.control.task_keep_duration IS 'How long history is kept; null: as pgflow.keep_runs_for says.';
COMMENT ON COLUMN async.control.advisory_mutex_id IS 'Kept for users of the SQL original, not used.';
COMMENT ON COLUMN async.control.debug_log IS 'Whether async.log(''DEBUG'', …) is recorded.';
COMMENT ON COLUMN async.control.paused IS 'No task starts: async.pause, async.resume.';

COMMENT ON TABLE async.engine_state IS 'One row that the dispatcher writes: what it must remember across restarts.';
COMMENT ON COLUMN async.engine_state.only_row IS 'Always true: there is one row.';
COMMENT ON COLUMN async.engine_state.system_identifier IS 'With database_oid: where this database was when its work last ran; null: never. See async.adopt.';
COMMENT ON COLUMN async.engine_state.database_oid IS 'See system_identifier.';
COMMENT ON COLUMN async.engine_state.clean_stop IS 'Whether the dispatcher last stopped in order; false while it runs and after a crash.';
COMMENT ON COLUMN async.engine_state.engine_id IS
  'Names this engine to servers elsewhere for as long as its task ids mean the same; async.adopt makes a new one.';
COMMENT ON COLUMN async.engine_state.next_low IS
  'The next value of open_low, once the transactions in next_writers have ended.';
COMMENT ON COLUMN async.engine_state.next_writers IS
  'Virtual transaction ids of those that might have been inserting tasks below next_low when it was noted.';
COMMENT ON COLUMN async.engine_state.open_low IS 'Every task with a lower id has ended.';

COMMENT ON TABLE async.target IS 'Where tasks run; configured with async.configure. "local" is this database and always there.';
COMMENT ON COLUMN async.target.target IS 'Its name.';
COMMENT ON COLUMN async.target.kind IS
  'local: workers of this database; external: clients take tasks with async.get_tasks; postgres, clickhouse, http: sent there.';
COMMENT ON COLUMN async.target.server IS 'A foreign server: its options and those of the user mapping of a task''s role (else of PUBLIC) lead there.';
COMMENT ON COLUMN async.target.options IS 'Keys of its kind: docs/targets. Admins only.';
COMMENT ON COLUMN async.target.owner IS 'The role that configured it. If that is no superuser, its connections must use a password.';
COMMENT ON COLUMN async.target.max_concurrency IS 'Size of its own pool: how many of its tasks run at once.';
COMMENT ON COLUMN async.target.connection_string IS 'A libpq connection string or a URL, may hold a password. Admins only.';
COMMENT ON COLUMN async.target.asynchronous_finish IS 'A call that returns leaves its task yielded, until async.finish or flow.finish.';
COMMENT ON COLUMN async.target.default_timeout IS 'Time-out of its tasks that have none of their own; null: control''s.';
COMMENT ON COLUMN async.target.concurrency_track_yielded IS 'A yielded task keeps its place in the pool.';

COMMENT ON TABLE async.concurrency_pool IS 'Configured pools: how many tasks that name it run at once. A target''s own pool is not here.';
COMMENT ON COLUMN async.concurrency_pool.concurrency_pool IS 'Its name.';
COMMENT ON COLUMN async.concurrency_pool.max_workers IS 'How many of its tasks run at once.';

COMMENT ON SEQUENCE async.task_id_seq IS 'Ids of tasks.';
COMMENT ON TABLE async.task IS
  'One row a task, of flows and others. Open while processed is null. Which tasks run right now is not here: async.v_task. '
  'You see the tasks of roles whose rights you have; flow_monitor sees all.';
COMMENT ON COLUMN async.task.task_id IS 'Its id; grows with time.';
COMMENT ON COLUMN async.task.target IS 'Where it runs.';
COMMENT ON COLUMN async.task.priority IS 'The lower the sooner.';
COMMENT ON COLUMN async.task.run_as IS 'The role it runs as: the one that pushed it or called run_flow.';
COMMENT ON COLUMN async.task.entered IS 'When it was pushed.';
COMMENT ON COLUMN async.task.consumed IS 'Start of the attempt that ended it, yielded it or put it off; null while the first one runs.';
COMMENT ON COLUMN async.task.first_consumed IS 'Start of the first attempt: the clock of its time-out.';
COMMENT ON COLUMN async.task.yielded IS 'Since when somebody else works on it: an asynchronous call or a client''s lease.';
COMMENT ON COLUMN async.task.unsure_since IS
  'The first attempt that may have run elsewhere unknown to us: looked up before the next; null: there is none.';
COMMENT ON COLUMN async.task.intention IS 'How often it was restarted by somebody; retries do not count.';
COMMENT ON COLUMN async.task.options IS 'Outside flows: parameters, settings, tier, request, result.';
COMMENT ON COLUMN async.task.processed IS 'When it ended; null: open.';
COMMENT ON COLUMN async.task.finish_status IS 'How it ended.';
COMMENT ON COLUMN async.task.failed IS 'True: ended other than FINISHED.';
COMMENT ON COLUMN async.task.processing_error IS 'The error, or what was said when it was ended.';
COMMENT ON COLUMN async.task.eligible_when IS 'Does not start before; infinity: a step whose node has not started.';
COMMENT ON COLUMN async.task.times_up IS 'When the running or yielded attempt is stopped, or the lease ends.';
COMMENT ON COLUMN async.task.attempt IS 'Attempts that ended, yielded or were lost; the running one is one more.';
COMMENT ON COLUMN async.task.crashes IS 'Attempts lost in a crash of the server that are charged to it.';
COMMENT ON COLUMN async.task.suspect IS 'Was running when the server died: runs alone next time.';
COMMENT ON COLUMN async.task.partially_committed IS 'Its callback has committed before it ended.';
COMMENT ON COLUMN async.task.asynchronous_finish IS 'When the call returns it is yielded, not finished.';
COMMENT ON COLUMN async.task.track_yielded IS 'Keeps its place in the pool while yielded.';
COMMENT ON COLUMN async.task.on_partial_fail IS 'If partially committed and then lost: fails instead of running again.';
COMMENT ON COLUMN async.task.is_step IS 'A step of a node, not the node''s own task.';
COMMENT ON COLUMN async.task.flow_id IS 'The run it belongs to; null: none.';
COMMENT ON COLUMN async.task.node_no IS 'The node of the run.';
COMMENT ON COLUMN async.task.concurrency_pool IS 'The pool it runs in; null: its target''s own; empty: the flow''s concurrency_group_routine says.';
COMMENT ON COLUMN async.task.manual_timeout IS 'Its own time-out, from the first start on.';
COMMENT ON COLUMN async.task.source IS 'Who pushed it, in the words of whoever did.';
COMMENT ON COLUMN async.task.query IS 'What it runs; null for tasks of flows (the definition has the routine) and of external targets.';
COMMENT ON COLUMN async.task.task_data IS 'What was given with it; of a step: its arguments.';

COMMENT ON TABLE async.claim IS 'Marks that precede starts: one row for each batch of tasks that a worker holds.';
COMMENT ON COLUMN async.claim.claim_id IS 'Its id.';
COMMENT ON COLUMN async.claim.task_ids IS 'The tasks of the batch.';
COMMENT ON COLUMN async.claim.attempts IS 'Of each task, the attempt that starts.';
COMMENT ON COLUMN async.claim.alone IS 'It is a suspect that runs alone.';

COMMENT ON TABLE async.external_queue IS 'Tasks of external targets that wait for async.get_tasks. Filled by the dispatcher.';
COMMENT ON COLUMN async.external_queue.target IS 'The target.';
COMMENT ON COLUMN async.external_queue.priority IS 'The task''s priority when it was queued.';
COMMENT ON COLUMN async.external_queue.task_id IS 'The task.';
COMMENT ON COLUMN async.external_queue.eligible_when IS 'Not handed out before; null: at once.';

COMMENT ON TABLE async.task_log IS 'Messages of callbacks and changes of status that the task''s row does not tell. See async.v_task_log.';
COMMENT ON COLUMN async.task_log.task_id IS 'The task.';
COMMENT ON COLUMN async.task_log.attempt IS 'Its attempt.';
COMMENT ON COLUMN async.task_log.seq IS 'Order within the attempt; from 1000000 on: written by sessions, not by the worker.';
COMMENT ON COLUMN async.task_log.at IS 'When.';
COMMENT ON COLUMN async.task_log.level IS 'NOTICE, WARNING, INFO, LOG: a callback''s message; STATUS: a change of status.';
COMMENT ON COLUMN async.task_log.message IS 'The line.';

COMMENT ON TABLE async.server_log IS 'What the engine and async.log have to say. For flow_monitor; see async.tail.';
COMMENT ON COLUMN async.server_log.server_log_id IS 'Order.';
COMMENT ON COLUMN async.server_log.happened IS 'When.';
COMMENT ON COLUMN async.server_log.level IS 'NOTICE, WARNING, DEBUG, …';
COMMENT ON COLUMN async.server_log.message IS 'The line.';

COMMENT ON FUNCTION async.announce_tasks IS 'Internal: the dispatcher looks at the open tasks of a range when the transaction commits.';
COMMENT ON FUNCTION async.announce_ended IS 'Internal: these tasks were ended, yielded or put off by somebody who is not a worker.';
COMMENT ON FUNCTION async.announce_node IS 'Internal: the caller holds a lock on a node; the dispatcher looks again when it is gone.';
COMMENT ON FUNCTION async.announce_run IS 'Internal: a run was changed as a whole.';
COMMENT ON FUNCTION async.announce_settings IS 'Internal: targets, pools or control were changed.';
COMMENT ON FUNCTION async.require_engine IS
  'Internal: raises object_not_in_prerequisite_state unless pgflow is in shared_preload_libraries.';
COMMENT ON FUNCTION async.setting IS 'The value of a setting of pgflow in its base unit (milliseconds, bytes, a count); null: off.';
COMMENT ON FUNCTION async.running IS
  'What the workers of this database run right now: task, attempt, worker''s pid and role, start, progress. See async.v_task.';
COMMENT ON FUNCTION async.processes IS
  'The engine''s processes in the whole cluster: kind launcher, dispatcher or worker; tasks_done since it started; queued: '
  'tasks the dispatcher holds; last_error: what it last could not do. See async.v_server_info, async.v_worker_info.';
COMMENT ON FUNCTION async.pool_use IS 'How full the dispatcher holds each pool of this database: running, waiting, size.';
COMMENT ON FUNCTION async.decide_own IS
  'Internal: notes the outcome (FINISHED, FAILED, DEFERRED) a callback decides for its own task; false: not its worker.';
COMMENT ON FUNCTION async.wait_for_change IS
  'Waits until something of this database''s runs has changed, at most so many milliseconds. COMMIT between calls.';
COMMENT ON FUNCTION async.note_progress IS
  'Notes progress of the task that the caller''s worker runs (done of total, a note); false: it is not that worker.';
COMMENT ON FUNCTION async.is_own_task IS 'Whether the caller is the worker that runs this task right now.';
COMMENT ON FUNCTION async.wake_launcher IS 'Internal: tells the launcher, at commit, that this database has the extension.';

COMMENT ON FUNCTION async.may_act IS
  'Internal: whether a role (OID) may act for what runs as _run_as: the role itself, its members, flow_admin, superusers.';
COMMENT ON FUNCTION async.may_read IS 'Whether you may read what runs as _run_as.';
COMMENT ON FUNCTION async.require_admin IS 'Internal: raises insufficient_privilege unless the role has the rights of flow_admin.';
