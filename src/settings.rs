//! The settings `pgflow.*`: private statics, one accessor each. Units are milliseconds unless the name says otherwise.

use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting};

static ENABLED: GucSetting<bool> = GucSetting::<bool>::new(true);
static MAX_WORKERS: GucSetting<i32> = GucSetting::<i32>::new(16);
static MAX_DATABASES: GucSetting<i32> = GucSetting::<i32>::new(16);
static EVENT_QUEUE_SIZE: GucSetting<i32> = GucSetting::<i32>::new(8192);
static MAX_REMOTE_TASKS: GucSetting<i32> = GucSetting::<i32>::new(1000);
static WORKERS: GucSetting<i32> = GucSetting::<i32>::new(4);
static WORKERS_PER_ROLE: GucSetting<i32> = GucSetting::<i32>::new(4);
static WORKER_IDLE_TIME: GucSetting<i32> = GucSetting::<i32>::new(30_000);
static DEFAULT_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(0);
static MAX_CRASH_ATTEMPTS: GucSetting<i32> = GucSetting::<i32>::new(3);
static SUSPECT_QUARANTINE: GucSetting<i32> = GucSetting::<i32>::new(10_000);
static CANCEL_GRACE: GucSetting<i32> = GucSetting::<i32>::new(10_000);
static MAX_FLOW_DEPTH: GucSetting<i32> = GucSetting::<i32>::new(16);
static KEEP_RUNS_FOR: GucSetting<i32> = GucSetting::<i32>::new(30 * 24 * 60);
static KEEP_RUNS: GucSetting<i32> = GucSetting::<i32>::new(1_000_000);
static PURGE_INTERVAL: GucSetting<i32> = GucSetting::<i32>::new(60_000);
static PRIORITY_AGEING: GucSetting<i32> = GucSetting::<i32>::new(0);
static LOG_MESSAGES_PER_TASK: GucSetting<i32> = GucSetting::<i32>::new(100);
static LOG_MESSAGE_SIZE: GucSetting<i32> = GucSetting::<i32>::new(8192);
static STRICT_CONFIGURATION: GucSetting<bool> = GucSetting::<bool>::new(false);

/// Defines every setting. Called once from `_PG_init`.
pub fn init(preloading: bool) {
    if preloading {
        int(
            c"pgflow.max_workers",
            c"Local workers of all databases and roles together.",
            c"Slots of shared memory; each running worker also takes one of max_worker_processes.",
            &MAX_WORKERS,
            1,
            512,
            GucContext::Postmaster,
            GucFlags::default(),
        );
        int(
            c"pgflow.max_databases",
            c"Databases with pgflow that can be served at the same time.",
            c"Each takes shared memory for its event queue.",
            &MAX_DATABASES,
            1,
            1024,
            GucContext::Postmaster,
            GucFlags::default(),
        );
        int(
            c"pgflow.event_queue_size",
            c"Events that can wait for a database's dispatcher.",
            c"When more arrive the dispatcher reads the tables anew, so nothing is lost; 56 bytes each.",
            &EVENT_QUEUE_SIZE,
            16,
            1 << 20,
            GucContext::Postmaster,
            GucFlags::default(),
        );
        int(
            c"pgflow.max_remote_tasks",
            c"Tasks of all databases together that run somewhere else at the same time.",
            c"On other Postgres servers, on ClickHouse, over HTTP; they take a connection or request each, not a process.",
            &MAX_REMOTE_TASKS,
            1,
            100_000,
            GucContext::Postmaster,
            GucFlags::default(),
        );
    }
    flag(
        c"pgflow.enabled",
        c"Whether the engine runs tasks at all.",
        c"Turn it off on a physical copy of a server, before its first start, so that no task runs twice.",
        &ENABLED,
        GucContext::Sighup,
    );
    int(
        c"pgflow.workers",
        c"Local workers of one database.",
        c"Tasks that run at the same time in one database. More than the machine has cores rarely helps short tasks.",
        &WORKERS,
        1,
        512,
        GucContext::Sighup,
        GucFlags::default(),
    );
    int(
        c"pgflow.workers_per_role",
        c"Local workers of one role in one database.",
        c"Keeps one role from taking every worker of its database.",
        &WORKERS_PER_ROLE,
        1,
        512,
        GucContext::Sighup,
        GucFlags::default(),
    );
    int(
        c"pgflow.worker_idle_time",
        c"How long a worker without work stays.",
        c"A worker that stays saves the 5 to 11 ms that starting one takes.",
        &WORKER_IDLE_TIME,
        100,
        i32::MAX,
        GucContext::Sighup,
        GucFlags::UNIT_MS,
    );
    int(
        c"pgflow.default_timeout",
        c"Time-out of tasks where neither node, target nor control names one.",
        c"Zero: none.",
        &DEFAULT_TIMEOUT,
        0,
        i32::MAX,
        GucContext::Sighup,
        GucFlags::UNIT_MS,
    );
    int(
        c"pgflow.max_crash_attempts",
        c"Lost attempts after which a task fails.",
        c"An attempt is charged when its worker or the server died while this task ran alone.",
        &MAX_CRASH_ATTEMPTS,
        1,
        1000,
        GucContext::Sighup,
        GucFlags::default(),
    );
    int(
        c"pgflow.suspect_quarantine",
        c"How long a task that was running when the server died runs alone.",
        c"After that others may start beside it.",
        &SUSPECT_QUARANTINE,
        0,
        i32::MAX,
        GucContext::Sighup,
        GucFlags::UNIT_MS,
    );
    int(
        c"pgflow.cancel_grace",
        c"How long a cancelled callback may go on before its worker is terminated.",
        c"A callback that traps the cancel is asked again every second, then its worker ends.",
        &CANCEL_GRACE,
        100,
        i32::MAX,
        GucContext::Sighup,
        GucFlags::UNIT_MS,
    );
    int(
        c"pgflow.max_flow_depth",
        c"How deep flows may start flows through steps_to_flow.",
        c"Stops a flow that starts itself.",
        &MAX_FLOW_DEPTH,
        1,
        1000,
        GucContext::Sighup,
        GucFlags::default(),
    );
    int(
        c"pgflow.keep_runs_for",
        c"How long finished runs and ended tasks are kept.",
        c"Minutes; zero keeps them for ever.",
        &KEEP_RUNS_FOR,
        0,
        i32::MAX,
        GucContext::Sighup,
        GucFlags::UNIT_MIN,
    );
    int(
        c"pgflow.keep_runs",
        c"How many finished runs, and ended tasks outside runs, are kept.",
        c"Zero: any number.",
        &KEEP_RUNS,
        0,
        i32::MAX,
        GucContext::Sighup,
        GucFlags::default(),
    );
    int(
        c"pgflow.purge_interval",
        c"How often the dispatcher purges while there is work or something to purge.",
        c"An idle system does not wake up for it.",
        &PURGE_INTERVAL,
        100,
        i32::MAX,
        GucContext::Sighup,
        GucFlags::UNIT_MS,
    );
    int(
        c"pgflow.priority_ageing",
        c"The time after which waiting tasks count as one priority more urgent.",
        c"Zero: priorities are strict. Counted from when tasks of the same role, pool and priority had their turn last.",
        &PRIORITY_AGEING,
        0,
        i32::MAX,
        GucContext::Sighup,
        GucFlags::UNIT_MS,
    );
    int(
        c"pgflow.log_messages_per_task",
        c"Messages of a callback that are kept with an attempt.",
        c"What comes after is counted, not kept.",
        &LOG_MESSAGES_PER_TASK,
        0,
        1_000_000,
        GucContext::Sighup,
        GucFlags::default(),
    );
    int(
        c"pgflow.log_message_size",
        c"Bytes of one kept message.",
        c"Longer ones are cut.",
        &LOG_MESSAGE_SIZE,
        64,
        1 << 20,
        GucContext::Sighup,
        GucFlags::UNIT_BYTE,
    );
    flag(
        c"pgflow.strict_configuration",
        c"Whether an unknown key in a configuration is an error.",
        c"Off: a warning with its path, unless it resembles a known key.",
        &STRICT_CONFIGURATION,
        GucContext::Userset,
    );
}

#[allow(clippy::too_many_arguments)]
fn int(
    name: &'static std::ffi::CStr,
    short: &'static std::ffi::CStr,
    long: &'static std::ffi::CStr,
    setting: &'static GucSetting<i32>,
    min: i32,
    max: i32,
    context: GucContext,
    flags: GucFlags,
) {
    GucRegistry::define_int_guc(name, short, long, setting, min, max, context, flags);
}

fn flag(
    name: &'static std::ffi::CStr,
    short: &'static std::ffi::CStr,
    long: &'static std::ffi::CStr,
    setting: &'static GucSetting<bool>,
    context: GucContext,
) {
    GucRegistry::define_bool_guc(name, short, long, setting, context, GucFlags::default());
}

pub fn enabled() -> bool {
    ENABLED.get()
}
pub fn max_workers() -> usize {
    MAX_WORKERS.get() as usize
}
pub fn max_databases() -> usize {
    MAX_DATABASES.get() as usize
}
pub fn event_queue_size() -> usize {
    EVENT_QUEUE_SIZE.get() as usize
}
pub fn max_remote_tasks() -> usize {
    MAX_REMOTE_TASKS.get() as usize
}
pub fn workers() -> usize {
    WORKERS.get() as usize
}
pub fn workers_per_role() -> usize {
    WORKERS_PER_ROLE.get() as usize
}
pub fn worker_idle_ms() -> i64 {
    WORKER_IDLE_TIME.get().into()
}
pub fn max_crash_attempts() -> i32 {
    MAX_CRASH_ATTEMPTS.get()
}
pub fn suspect_quarantine_ms() -> i64 {
    SUSPECT_QUARANTINE.get().into()
}
/// Milliseconds; none: tasks may take as long as they want.
pub fn default_timeout_ms() -> Option<i64> {
    by_name("pgflow.default_timeout")
}
pub fn cancel_grace_ms() -> i64 {
    CANCEL_GRACE.get().into()
}
pub fn keep_runs_minutes() -> i32 {
    KEEP_RUNS_FOR.get()
}
pub fn keep_runs() -> i32 {
    KEEP_RUNS.get()
}
pub fn purge_interval_ms() -> i64 {
    PURGE_INTERVAL.get().into()
}
/// Microseconds; none: priorities are strict.
pub fn priority_ageing() -> Option<i64> {
    Some(i64::from(PRIORITY_AGEING.get()) * 1000).filter(|time| *time > 0)
}
pub fn log_messages_per_task() -> usize {
    LOG_MESSAGES_PER_TASK.get() as usize
}
pub fn log_message_size() -> usize {
    LOG_MESSAGE_SIZE.get() as usize
}
pub fn strict_configuration() -> bool {
    STRICT_CONFIGURATION.get()
}

/// The value of a setting by its full name, for SQL. `None`: no such setting, or off.
pub fn by_name(name: &str) -> Option<i64> {
    let value = match name {
        "pgflow.default_timeout" => DEFAULT_TIMEOUT.get(),
        "pgflow.max_flow_depth" => MAX_FLOW_DEPTH.get(),
        "pgflow.max_crash_attempts" => MAX_CRASH_ATTEMPTS.get(),
        "pgflow.workers" => WORKERS.get(),
        "pgflow.workers_per_role" => WORKERS_PER_ROLE.get(),
        "pgflow.max_workers" => MAX_WORKERS.get(),
        "pgflow.keep_runs_for" => KEEP_RUNS_FOR.get(),
        "pgflow.keep_runs" => KEEP_RUNS.get(),
        _ => return None,
    };
    (value != 0).then_some(value.into())
}
