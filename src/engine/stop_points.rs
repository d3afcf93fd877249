//! Stop points: named places in the engine's code where a process can be made to stand still, so that the crash matrix
//! (`tests/tests/crash_matrix`) can have it die exactly there. For tests of pgflow only.
//!
//! Two locks keep them out of production. A server has them only if it was started with `pgflow.debug_stop_points = on`;
//! in any other, the setting that names a place, `pgflow.debug_stop_at`, does not exist, and no hook is installed. And
//! while no place is named, passing one costs one relaxed load of a variable of this process's own, and a branch.
//!
//! Must never change anything that the engine can see but time: a process that goes on has its latch set and every signal
//! still pending, as if it had arrived just then.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::*};

use pgrx::pg_sys;
use pgrx::pg_sys::panic::pgrx_extern_c_guard;
use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting};

use super::shmem::{my_database, try_shared};

/// A session stands still only if it bears this application_name, so that others can look on.
const VICTIM: &CStr = c"pgflow victim";

macro_rules! points {
    ($($(#[$meta:meta])* $point:ident = $number:literal $name:literal),* $(,)?) => {
        /// The places, in the order in which a task passes them.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u32)]
        pub enum Point { $($(#[$meta])* $point = $number),* }

        const POINTS: &[(u32, &str)] = &[$(($number, $name)),*];
    };
}

points! {
    /// Any statement of a client's session, of any depth.
    ClientStatement = 1 "client.statement",
    /// A client has committed; nobody has been told.
    ClientCommitted = 2 "client.committed",
    /// The launcher has read the list of databases.
    LauncherLooked = 3 "launcher.looked",
    /// The launcher has asked for a dispatcher.
    LauncherAsked = 4 "launcher.asked",
    /// The dispatcher is connected and has looked at nothing.
    DispatcherBegins = 5 "dispatcher.begins",
    /// Any statement while the dispatcher settles what an earlier one has left.
    DispatcherRecovery = 6 "dispatcher.recovery",
    /// What was lost is accounted for, committed, and the tables have not been read.
    DispatcherRecovered = 7 "dispatcher.recovered",
    /// Events are taken: from now on they are in the dispatcher's memory only.
    DispatcherHeard = 8 "dispatcher.heard",
    /// Any statement of the cascade.
    DispatcherCascade = 9 "dispatcher.cascade",
    /// The cascade has decided; the memory does not know.
    DispatcherDecided = 10 "dispatcher.decided",
    /// Marks of starts are written, not committed.
    DispatcherMarked = 11 "dispatcher.marked",
    /// The cycle is committed; no worker is told.
    DispatcherCommitted = 12 "dispatcher.committed",
    /// Workers are told; nothing is sent elsewhere.
    DispatcherTold = 13 "dispatcher.told",
    /// A worker is connected and not yet ready.
    WorkerBegins = 14 "worker.begins",
    /// A worker has taken a task up, and its callback has not begun.
    WorkerTook = 15 "worker.took",
    /// Any statement of a worker, its callback's included.
    WorkerStatement = 16 "worker.statement",
    /// The outcome is written, not committed.
    WorkerWrote = 17 "worker.wrote",
    /// The outcome is committed; nobody has been told.
    WorkerCommitted = 18 "worker.committed",
    /// The outcome is reported; the assignment still stands.
    WorkerReported = 19 "worker.reported",
}

impl Point {
    fn is_statement(number: u32) -> bool {
        [Point::ClientStatement, Point::DispatcherRecovery, Point::DispatcherCascade, Point::WorkerStatement]
            .iter()
            .any(|p| *p as u32 == number)
    }
}

static ALLOWED: GucSetting<bool> = GucSetting::<bool>::new(false);
static STOP_AT: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);

/// The place that is named, as its number; zero: none. This and what follows are this process's own, set by the setting.
static NAMED: AtomicU32 = AtomicU32::new(0);
/// How often the place must have been passed, by anybody.
static TIMES: AtomicU32 = AtomicU32::new(0);
/// Tells one naming from the next.
static TOKEN: AtomicU32 = AtomicU32::new(0);
/// Between `begin` and `end`: whose statements count.
static SECTION: AtomicU32 = AtomicU32::new(0);

/// In shared memory: how often the named place was passed, with the token of that naming above it.
#[repr(transparent)]
pub struct Passed(AtomicU64);

static mut PREVIOUS: pg_sys::ExecutorStart_hook_type = None;

/// Called once from `_PG_init` while the postmaster preloads.
pub fn init() {
    let flags = GucFlags::NO_SHOW_ALL | GucFlags::SUPERUSER_ONLY;
    GucRegistry::define_bool_guc(
        c"pgflow.debug_stop_points",
        c"For tests of pgflow: whether its processes can be made to stand still.",
        c"Never turn it on where work matters.",
        &ALLOWED,
        GucContext::Postmaster,
        flags,
    );
    if !ALLOWED.get() {
        return;
    }
    pgrx::warning!("pgflow: debug_stop_points is on: this server is for tests of pgflow only");
    // SAFETY: the hooks are guarded and live as long as the library; the postmaster loads libraries in one thread.
    unsafe {
        GucRegistry::define_string_guc_with_hooks(
            c"pgflow.debug_stop_at",
            c"For tests of pgflow: where a process is to stand still.",
            c"A place, which time it is passed (1), and any number that was not given before.",
            &STOP_AT,
            GucContext::Sighup,
            flags,
            Some(check),
            Some(assign),
            None,
        );
        PREVIOUS = pg_sys::ExecutorStart_hook;
        pg_sys::ExecutorStart_hook = Some(executor_start);
    }
}

/// The place, the time and the token that a setting names; zeros where it is empty.
fn parse(text: &str) -> Option<(u32, u32, u32)> {
    let mut words = text.split_whitespace();
    let Some(name) = words.next() else { return Some((0, 0, 0)) };
    let number = POINTS.iter().find(|p| p.1 == name)?.0;
    let times = words.next().map_or(Some(1), |word| word.parse().ok().filter(|n| *n > 0))?;
    let token = words.next().map_or(Some(1), |word| word.parse().ok())?;
    words.next().is_none().then_some((number, times, token))
}

/// # Safety
/// `text` is null or zero-terminated.
unsafe fn parse_raw(text: *const std::ffi::c_char) -> Option<(u32, u32, u32)> {
    if text.is_null() {
        return Some((0, 0, 0));
    }
    parse(CStr::from_ptr(text).to_str().ok()?)
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn check(
    value: *mut *mut std::ffi::c_char,
    _extra: *mut *mut std::ffi::c_void,
    _source: pg_sys::GucSource::Type,
) -> bool {
    parse_raw(*value).is_some()
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn assign(value: *const std::ffi::c_char, _extra: *mut std::ffi::c_void) {
    let (number, times, token) = parse_raw(value).unwrap_or_default();
    TIMES.store(times, Relaxed);
    TOKEN.store(token, Relaxed);
    NAMED.store(number, Relaxed);
}

/// A place that a process passes.
#[inline(always)]
pub fn pass(point: Point) {
    if NAMED.load(Relaxed) != 0 {
        passed(point as u32);
    }
}

/// From here to `end`, statements are those of this place.
#[inline(always)]
pub fn begin(point: Point) {
    if NAMED.load(Relaxed) != 0 {
        SECTION.store(point as u32, Relaxed);
    }
}

#[inline(always)]
pub fn end() {
    if NAMED.load(Relaxed) != 0 {
        SECTION.store(0, Relaxed);
    }
}

#[cold]
#[inline(never)]
fn passed(number: u32) {
    if NAMED.load(Relaxed) == number && (number != Point::ClientCommitted as u32 || is_victim()) && is_my_turn() {
        stand(number);
    }
}

/// Every statement that is executed in a server with stop points, whoever runs it.
unsafe extern "C-unwind" fn executor_start(query: *mut pg_sys::QueryDesc, flags: std::ffi::c_int) {
    if Point::is_statement(NAMED.load(Relaxed)) {
        pgrx_extern_c_guard(statement);
    }
    // Outside of any guard of pgrx, which would lose a part of what an error says.
    match PREVIOUS {
        Some(previous) => previous(query, flags),
        None => raw::standard_ExecutorStart(query, flags),
    }
}

mod raw {
    extern "C-unwind" {
        pub fn standard_ExecutorStart(query: *mut pgrx::pg_sys::QueryDesc, flags: std::ffi::c_int);
    }
}

fn statement() {
    let named = NAMED.load(Relaxed);
    let counts = if named == Point::ClientStatement as u32 {
        is_victim()
    } else if named == Point::WorkerStatement as u32 {
        super::worker::my_slot().is_some()
    } else {
        SECTION.load(Relaxed) == named
    };
    if counts && is_my_turn() {
        stand(named);
    }
}

fn is_victim() -> bool {
    // SAFETY: both are this process's own; the name is zero-terminated.
    unsafe {
        pg_sys::MyBackendType == pg_sys::BackendType::B_BACKEND
            && !pg_sys::application_name.is_null()
            && CStr::from_ptr(pg_sys::application_name) == VICTIM
    }
}

/// Counts a pass; true for exactly one process a naming.
fn is_my_turn() -> bool {
    let Some(shared) = try_shared() else { return false };
    let token = u64::from(TOKEN.load(Relaxed)) << 32;
    let next = |seen: u64| if seen & !0xffff_ffff == token { seen + 1 } else { token | 1 };
    let before = shared.passed.0.fetch_update(AcqRel, Acquire, |seen| Some(next(seen))).unwrap_or(0);
    next(before) == token | u64::from(TIMES.load(Relaxed))
}

/// Stands still until the place is not named any more, a signal has come, or the postmaster is dead.
fn stand(number: u32) {
    let name = POINTS.iter().find(|p| p.0 == number).map_or("", |p| p.1);
    let text = CString::new(format!("pgflow stands at {name}")).unwrap_or_default();
    super::process::report_activity(Some(&text));
    // SAFETY: our own latch. Reading the configuration anew is what any process of the server does between two statements;
    // here it may be amidst one, which only this setting could notice.
    unsafe {
        while NAMED.load(Relaxed) == number && !is_signalled() {
            let events = pg_sys::WL_LATCH_SET | pg_sys::WL_POSTMASTER_DEATH | pg_sys::WL_TIMEOUT;
            let woken = pg_sys::WaitLatch(pg_sys::MyLatch, events as i32, 20, pg_sys::PG_WAIT_EXTENSION);
            pg_sys::ResetLatch(pg_sys::MyLatch);
            if woken & pg_sys::WL_POSTMASTER_DEATH as i32 != 0 {
                break;
            }
            if pg_sys::ConfigReloadPending != 0 {
                pg_sys::ConfigReloadPending = 0;
                pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP);
            }
        }
        // Whatever has set it meanwhile is still to be noticed.
        pg_sys::SetLatch(pg_sys::MyLatch);
    }
}

fn is_signalled() -> bool {
    // SAFETY: flags of this process that its signal handlers set.
    let asked = unsafe { pg_sys::ProcDiePending != 0 || pg_sys::QueryCancelPending != 0 };
    // SAFETY: reading a process-global integer.
    let me = unsafe { pg_sys::MyProcPid };
    asked || (super::dispatcher::stop_asked() && my_database().is_some_and(|d| d.dispatcher.pid() == me))
}
