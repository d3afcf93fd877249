//! What every process of the engine does alike: signals, latches, waiting, starting background workers.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::ffi::CStr;
use std::sync::atomic::Ordering::*;

use pgrx::pg_sys;

use super::shmem::{my_database, Process};

extern "C-unwind" {
    fn die(signal: i32);
    fn SignalHandlerForConfigReload(signal: i32);
}

/// Lets Postgres' own handlers do what they do in any backend: SIGTERM ends the process at the next safe place, SIGHUP
/// has the configuration read again. SIGINT is left alone.
pub fn standard_signals() {
    // SAFETY: both are signal handlers of the server itself; called once at the start of a background worker.
    unsafe {
        set_handler(libc::SIGTERM, die);
        set_handler(libc::SIGHUP, SignalHandlerForConfigReload);
        pg_sys::BackgroundWorkerUnblockSignals();
    }
}

/// The same, but SIGTERM goes to `on_stop`, which must be async-signal-safe.
pub fn standard_signals_but(on_stop: unsafe extern "C-unwind" fn(i32)) {
    // SAFETY: as above.
    unsafe {
        set_handler(libc::SIGTERM, on_stop);
        set_handler(libc::SIGHUP, SignalHandlerForConfigReload);
        pg_sys::BackgroundWorkerUnblockSignals();
    }
}

mod raw {
    extern "C" {
        /// The server's function, without the guard that pgrx puts around it: safe in a signal handler.
        pub fn SetLatch(latch: *mut pgrx::pg_sys::Latch);
    }
}

/// Ends this process's sleep; may be called in a signal handler.
pub fn wake_self() {
    // SAFETY: SetLatch is async-signal-safe; MyLatch is set before any handler is installed.
    unsafe { raw::SetLatch(pg_sys::MyLatch) }
}

/// Wakes a process of ours that may be this one, on a thread that is not the main one.
pub fn wake_from_thread(process: &Process) {
    process.wakes_one();
    let latch = process.latch();
    if !latch.is_null() {
        // SAFETY: SetLatch is async-signal-safe and touches nothing of a thread's own: it sets a flag in shared memory and
        // signals the process that waits. The raw function, because pgrx's guard is for the main thread only. The
        // caller has made sure that this process is attached to shared memory.
        unsafe { raw::SetLatch(latch) }
    }
}

/// Runs `body` with every signal blocked, so that threads it starts never handle one: they are all the main thread's.
pub fn without_signals<T>(body: impl FnOnce() -> T) -> T {
    let _blocked = Blocked::new();
    body()
}

/// Signals are blocked in this thread while it lives, however that ends.
struct Blocked(libc::sigset_t);

impl Blocked {
    fn new() -> Blocked {
        // SAFETY: a plain change of this thread's signal mask; both sets are this frame's.
        unsafe {
            let (mut all, mut before) = (std::mem::zeroed(), std::mem::zeroed());
            libc::sigfillset(&mut all);
            libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
            Blocked(before)
        }
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        // SAFETY: the mask that `new` has found.
        unsafe {
            libc::pthread_sigmask(libc::SIG_SETMASK, &self.0, std::ptr::null_mut());
        }
    }
}

/// # Safety
/// `handler` must be async-signal-safe.
pub unsafe fn set_handler(signal: i32, handler: unsafe extern "C-unwind" fn(i32)) {
    #[cfg(not(feature = "pg18"))]
    pg_sys::pqsignal(signal, Some(handler));
    #[cfg(feature = "pg18")]
    pg_sys::pqsignal_be(signal, Some(handler));
}

/// Sleeps until the latch is set or `milliseconds` have passed (negative: for ever), and handles interrupts. A cancel
/// that arrives here has nothing to cancel.
pub fn sleep(milliseconds: i64) {
    // SAFETY: our own latch; the postmaster's death ends the process.
    unsafe {
        let mut events = pg_sys::WL_LATCH_SET | pg_sys::WL_EXIT_ON_PM_DEATH;
        if milliseconds >= 0 {
            events |= pg_sys::WL_TIMEOUT;
        }
        pg_sys::WaitLatch(pg_sys::MyLatch, events as i32, milliseconds as _, pg_sys::PG_WAIT_EXTENSION);
        pg_sys::ResetLatch(pg_sys::MyLatch);
    }
    check_interrupts();
}

/// What is waited for longer than this is slept for (microseconds).
pub const SOON: i64 = 400;

/// Waits awake for what is to come at any moment, at most for `SOON`: to fall asleep and be woken takes a good part of that,
/// and who wakes finds its caches cold. Whoever else wants the processor has it in between. Returns whether it came.
pub fn watch(came: impl Fn() -> bool) -> bool {
    let until = crate::store::now() + SOON;
    loop {
        for _ in 0..32 {
            if came() {
                return true;
            }
            std::hint::spin_loop();
        }
        // SAFETY: reads a flag that signal handlers of this process set.
        if unsafe { pg_sys::InterruptPending } != 0 || crate::store::now() >= until {
            return false;
        }
        std::thread::yield_now();
    }
}

/// Tells `pg_stat_activity` what this process does; `None`: it is idle.
pub fn report_activity(what: Option<&CStr>) {
    // SAFETY: the text is copied.
    unsafe {
        match what {
            Some(text) => pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_RUNNING, text.as_ptr()),
            None => pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_IDLE, std::ptr::null()),
        }
    }
}

/// Whether a worker may be connected as a role that may not log in (the server's flag for it came with 17).
pub const NOLOGIN_ROLES: bool = cfg!(any(feature = "pg17", feature = "pg18"));

/// Starts a background worker of this library. Returns whether a slot was free.
pub fn start(kind: &str, name: &str, function: &str, argument: u64) -> bool {
    // SAFETY: the struct is plain data; every string is cut to its field and zero-terminated.
    unsafe {
        let mut worker: pg_sys::BackgroundWorker = std::mem::zeroed();
        describe(&mut worker, kind, name, function, argument);
        worker.bgw_restart_time = -1; // BGW_NEVER_RESTART: who starts it decides
        worker.bgw_notify_pid = pg_sys::MyProcPid;
        let mut handle = std::ptr::null_mut();
        pg_sys::RegisterDynamicBackgroundWorker(&mut worker, &mut handle)
    }
}

/// Registers a background worker that starts with the server.
pub fn start_with_server(kind: &str, name: &str, function: &str) {
    // SAFETY: as above; called while the postmaster preloads.
    unsafe {
        let mut worker: pg_sys::BackgroundWorker = std::mem::zeroed();
        describe(&mut worker, kind, name, function, 0);
        worker.bgw_restart_time = 1;
        pg_sys::RegisterBackgroundWorker(&mut worker);
    }
}

fn describe(worker: &mut pg_sys::BackgroundWorker, kind: &str, name: &str, function: &str, argument: u64) {
    fn fill(field: &mut [std::ffi::c_char], text: &str) {
        let room = field.len() - 1;
        for (to, from) in field.iter_mut().zip(text.bytes().take(room)) {
            *to = from as _;
        }
    }
    fill(&mut worker.bgw_type, kind);
    fill(&mut worker.bgw_name, name);
    fill(&mut worker.bgw_function_name, function);
    fill(&mut worker.bgw_library_name, "pgflow");
    worker.bgw_flags = (pg_sys::BGWORKER_SHMEM_ACCESS | pg_sys::BGWORKER_BACKEND_DATABASE_CONNECTION) as i32;
    // A standby runs nothing; after promotion the launcher starts there.
    worker.bgw_start_time = pg_sys::BgWorkerStartTime::BgWorkerStart_RecoveryFinished;
    worker.bgw_main_arg = pg_sys::Datum::from(argument as usize);
}

thread_local! {
    static SEEN: Cell<u64> = const { Cell::new(0) };
}

/// Waits until the dispatcher of this database has changed something since the last call in this process, or the time is
/// up. A change between two calls is never missed.
pub fn wait_for_change(milliseconds: i32) {
    let Some(database) = my_database() else {
        wait_briefly(milliseconds);
        return;
    };
    let until = crate::store::now() + i64::from(milliseconds) * 1000;
    // SAFETY: the condition variable was initialised at start-up. Sleeping on it checks for interrupts; an error leaves
    // it through the abort of the transaction.
    unsafe {
        pg_sys::ConditionVariablePrepareToSleep(database.changes_ptr());
        while database.change_count.load(Acquire) == SEEN.get() {
            let left = (until - crate::store::now()) / 1000;
            if left <= 0 {
                break;
            }
            pg_sys::ConditionVariableTimedSleep(database.changes_ptr(), left as _, pg_sys::PG_WAIT_EXTENSION);
        }
        pg_sys::ConditionVariableCancelSleep();
    }
    SEEN.set(database.change_count.load(Acquire));
}

/// Sleeps in a client's backend: interrupts are handled, other reasons for its latch end the sleep early.
pub fn wait_briefly(milliseconds: i32) {
    // SAFETY: our own latch.
    unsafe {
        let events = pg_sys::WL_LATCH_SET | pg_sys::WL_EXIT_ON_PM_DEATH | pg_sys::WL_TIMEOUT;
        pg_sys::WaitLatch(pg_sys::MyLatch, events as i32, milliseconds.into(), pg_sys::PG_WAIT_EXTENSION);
        pg_sys::ResetLatch(pg_sys::MyLatch);
        pg_sys::check_for_interrupts!();
    }
}

/// Handles what has been asked of this process: to end, to read its configuration again. Not a cancel: that is for a
/// running statement.
pub fn check_interrupts() {
    // SAFETY: called between transactions, where ending is safe.
    unsafe {
        pg_sys::QueryCancelPending = 0;
        pg_sys::check_for_interrupts!();
        if pg_sys::ConfigReloadPending != 0 {
            pg_sys::ConfigReloadPending = 0;
            pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP);
        }
    }
}

/// A cancel that has arrived is forgotten: there is nothing left that it was meant for.
pub fn forget_cancel() {
    // SAFETY: a flag of this process that its signal handler sets.
    unsafe { pg_sys::QueryCancelPending = 0 }
}

/// Sends a signal to a process of this server; nothing where there is none.
pub fn signal(pid: i32, signal: i32) {
    if pid > 0 {
        // SAFETY: a pid that has just been reused by another process of the same user is possible only if a slot's
        // process died unnoticed, which its exit callback rules out.
        unsafe { libc::kill(pid, signal) };
    }
}
