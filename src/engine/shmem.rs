//! What the engine's processes share: who they are, events for dispatchers, assignments for workers, progress.
//!
//! Everything is an atomic, so that any process may read at any time and a killed one leaves nothing locked (the
//! postmaster starts anew with zeroed memory anyway). All-zero memory is the valid initial state. Facts never live here:
//! what is lost with this memory is rebuilt from the tables.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering::*};

use pgflow_core::ring::{Cell, Event, Full, Positions, Ring};
use pgrx::pg_sys;

use super::own_task::Attempt;
use crate::settings;

/// Assignments a worker can hold.
pub const QUEUE: usize = 64;
/// Pools whose fill is published for views, a database.
pub const POOLS: usize = 64;

/// Text of at most `N * 8` bytes, written by one process and read by any. A reader that meets a write tries again, a
/// bounded number of times, and then sees nothing.
#[repr(C)]
pub struct Text<const N: usize> {
    version: AtomicU64,
    length: AtomicUsize,
    words: [AtomicU64; N],
}

impl<const N: usize> Text<N> {
    pub fn set(&self, text: &str) {
        let mut end = text.len().min(N * 8);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let bytes = &text.as_bytes()[..end];
        self.version.fetch_add(1, AcqRel);
        self.length.store(end, Release);
        for (word, chunk) in self.words.iter().zip(bytes.chunks(8)) {
            let mut buffer = [0u8; 8];
            buffer[..chunk.len()].copy_from_slice(chunk);
            word.store(u64::from_ne_bytes(buffer), Release);
        }
        self.version.fetch_add(1, AcqRel);
    }

    pub fn get(&self) -> Option<String> {
        for _ in 0..100 {
            let before = self.version.load(Acquire);
            if before % 2 == 1 {
                std::hint::spin_loop();
                continue;
            }
            let length = self.length.load(Acquire).min(N * 8);
            let mut bytes: Vec<u8> = self.words.iter().flat_map(|w| w.load(Acquire).to_ne_bytes()).collect();
            bytes.truncate(length);
            if self.version.load(Acquire) == before {
                return String::from_utf8(bytes).ok().filter(|text| !text.is_empty());
            }
        }
        None
    }
}

/// A process that can be woken: its pid and its latch.
#[repr(C)]
pub struct Process {
    pid: AtomicI32,
    /// Counts wake-ups: a latch that was reset by a wait in between is not all that tells of one.
    wakes: AtomicU64,
    latch: AtomicPtr<pg_sys::Latch>,
}

impl Process {
    /// Registers the calling process.
    pub fn enter(&self) {
        // SAFETY: MyLatch and MyProcPid are set for the life of every process that reaches our code.
        unsafe {
            self.latch.store(pg_sys::MyLatch, Release);
            self.pid.store(pg_sys::MyProcPid, Release);
        }
    }

    /// Takes the calling process out, if it is the one registered.
    pub fn leave(&self) {
        // SAFETY: reading a process-global integer.
        let me = unsafe { pg_sys::MyProcPid };
        if self.pid.compare_exchange(me, 0, AcqRel, Acquire).is_ok() {
            self.latch.store(std::ptr::null_mut(), Release);
        }
    }

    pub fn clear(&self) {
        self.pid.store(0, Release);
        self.latch.store(std::ptr::null_mut(), Release);
    }

    pub fn pid(&self) -> i32 {
        self.pid.load(Acquire)
    }

    pub fn wakes(&self) -> u64 {
        self.wakes.load(SeqCst)
    }

    /// Counts a wake-up, for whoever sets the latch itself.
    pub fn wakes_one(&self) {
        self.wakes.fetch_add(1, SeqCst);
    }

    pub fn latch(&self) -> *mut pg_sys::Latch {
        self.latch.load(Acquire)
    }

    pub fn wake(&self) {
        self.wakes.fetch_add(1, SeqCst);
        let latch = self.latch.load(Acquire);
        if !latch.is_null() {
            // SAFETY: a process's latch lies in the PGPROC array, which lives as long as the postmaster; setting the
            // latch of a process that is gone, or of the next one in that slot, is a harmless spurious wake-up.
            unsafe { pg_sys::SetLatch(latch) }
        }
    }
}

/// What the launcher knows of a database.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum DatabaseState {
    /// Nobody has looked whether it has the extension.
    Unknown = 0,
    /// A dispatcher was started; it has not said yet.
    Starting = 1,
    Running = 2,
    /// No extension there.
    Absent = 3,
    /// Its dispatcher ended with an error; to be started again after a pause.
    Failed = 4,
    /// A statement needs the database for itself: nobody of ours may connect.
    Dismissed = 5,
    /// Its extension is of another version than this library: see `crate::version`.
    Mismatched = 6,
}

impl DatabaseState {
    fn from(value: u32) -> Self {
        match value {
            1 => Self::Starting,
            2 => Self::Running,
            3 => Self::Absent,
            4 => Self::Failed,
            5 => Self::Dismissed,
            6 => Self::Mismatched,
            _ => Self::Unknown,
        }
    }
}

/// How full a pool is, for views.
#[repr(C)]
pub struct PoolUse {
    pub name: Text<8>,
    pub max: AtomicU32,
    pub running: AtomicU32,
    pub waiting: AtomicU64,
}

#[repr(C)]
pub struct Database {
    pub oid: AtomicU32,
    state: AtomicU32,
    pub dispatcher: Process,
    /// The dispatcher must read the tables anew: an event could not be queued.
    pub rebuild: AtomicBool,
    /// The dispatcher has attached: events are worth queueing.
    pub attached: AtomicBool,
    /// A transaction keeps the engine from starting tasks until it ends (`async.drain`).
    pub held: AtomicBool,
    /// A worker needs the executor and found that nobody listens.
    pub wants_executor: AtomicBool,
    /// Set by DROP and ALTER EXTENSION: the dispatcher looks whether it still has a reason to be.
    pub check_extension: AtomicBool,
    /// When the dispatcher will wake up by itself (microseconds since 2000; i64::MAX: not).
    pub next_wake: AtomicI64,
    pub queued: AtomicU32,
    pub tasks_done: AtomicU64,
    /// Why nothing or not everything runs here, in a user's words.
    pub last_error: Text<64>,
    pub pools: [PoolUse; POOLS],
    positions: Positions,
    /// Counts what `wait_for_change` waits for, and those who wait.
    pub change_count: AtomicU64,
    changes: pg_sys::ConditionVariable,
    changes_ready: AtomicBool,
}

impl Database {
    pub fn state(&self) -> DatabaseState {
        DatabaseState::from(self.state.load(Acquire))
    }

    pub fn set_state(&self, state: DatabaseState) {
        self.state.store(state as u32, Release);
    }

    pub fn change_state(&self, from: DatabaseState, to: DatabaseState) -> bool {
        self.state.compare_exchange(from as u32, to as u32, AcqRel, Acquire).is_ok()
    }

    /// Queues an event for the dispatcher, or makes it rebuild. Does not wake it.
    pub fn send(&self, event: &Event) {
        if self.attached.load(Acquire) && self.ring().push(event) == Err(Full) {
            self.rebuild.store(true, Release);
        }
    }

    pub fn ring(&self) -> Ring<'_> {
        let shared = shared();
        let index = (self as *const Database as usize - shared.databases().as_ptr() as usize) / size_of::<Database>();
        Ring::new(&self.positions, shared.cells(index))
    }

    /// Makes everybody in `wait_for_change` look again.
    pub fn announce_change(&self) {
        self.change_count.fetch_add(1, AcqRel);
        if self.changes_ready.load(Acquire) {
            // SAFETY: the condition variable was initialised at start-up and lies in shared memory.
            unsafe { pg_sys::ConditionVariableBroadcast(self.changes_ptr()) }
        }
    }

    pub fn changes_ptr(&self) -> *mut pg_sys::ConditionVariable {
        &self.changes as *const _ as *mut _
    }
}

/// The life of a worker slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum WorkerState {
    Free = 0,
    /// Reserved by a dispatcher; the process has not reported yet.
    Starting = 1,
    Ready = 2,
    /// The worker takes nothing any more.
    Leaving = 3,
    /// The process is gone; its dispatcher has not settled what it left.
    Gone = 4,
}

impl WorkerState {
    fn from(value: u32) -> Self {
        match value {
            1 => Self::Starting,
            2 => Self::Ready,
            3 => Self::Leaving,
            4 => Self::Gone,
            _ => Self::Free,
        }
    }
}

/// States of an assignment.
pub const ASSIGNED: u32 = 1;
pub const STARTED: u32 = 2;
pub const REVOKED: u32 = 3;
pub const DONE: u32 = 4;
/// Its callback has returned; its effects wait for the end of the transaction that it shares with others.
pub const PENDING: u32 = 5;

/// One task handed to a worker.
#[repr(C)]
pub struct Assignment {
    pub task_id: AtomicI64,
    pub attempt: AtomicI32,
    pub state: AtomicU32,
}

impl Assignment {
    pub fn attempt(&self) -> Attempt {
        Attempt { task_id: self.task_id.load(Acquire), attempt: self.attempt.load(Acquire) }
    }
}

#[repr(C)]
pub struct Worker {
    state: AtomicU32,
    pub process: Process,
    pub database: AtomicU32,
    pub role: AtomicU32,
    /// Counts the processes that had this slot: one that comes too late finds another number.
    pub generation: AtomicU32,
    /// The process has come up.
    pub was_ready: AtomicBool,
    /// Ended to make room for a statement: what it ran is not to blame.
    pub dismissed: AtomicBool,
    /// Someone else needs the slot: leave when nothing is assigned.
    pub leave: AtomicBool,
    /// Next to be written by the dispatcher, next to be done by the worker.
    pub tail: AtomicU64,
    pub head: AtomicU64,
    pub queue: [Assignment; QUEUE],
    /// The task that runs; zero: none.
    pub task_id: AtomicI64,
    pub attempt: AtomicI32,
    pub started: AtomicI64,
    /// When the running task's time is up (microseconds since 2000; zero: never).
    pub deadline: AtomicI64,
    /// The task whose statement is to be cancelled; a cancel that arrives for another is ignored.
    pub cancel: AtomicI64,
    pub tasks_done: AtomicU64,
    pub done: AtomicU64,
    pub total: AtomicU64,
    pub note: Text<16>,
}

impl Worker {
    pub fn state(&self) -> WorkerState {
        WorkerState::from(self.state.load(Acquire))
    }

    pub fn set_state(&self, state: WorkerState) {
        self.state.store(state as u32, Release);
    }

    pub fn change_state(&self, from: WorkerState, to: WorkerState) -> bool {
        self.state.compare_exchange(from as u32, to as u32, AcqRel, Acquire).is_ok()
    }

    /// Assignments that were not taken up or are running.
    pub fn pending(&self) -> usize {
        self.tail.load(Acquire).saturating_sub(self.head.load(Acquire)) as usize
    }

    pub fn entry(&self, position: u64) -> &Assignment {
        &self.queue[(position % QUEUE as u64) as usize]
    }

    /// Empties a slot for a new process.
    pub fn reset(&self) {
        self.leave.store(false, Release);
        self.dismissed.store(false, Release);
        self.was_ready.store(false, Release);
        self.database.store(0, Release);
        self.head.store(0, Release);
        self.tail.store(0, Release);
        self.clear_task();
        self.cancel.store(0, Release);
        self.tasks_done.store(0, Release);
        self.process.clear();
    }

    pub fn clear_task(&self) {
        self.task_id.store(0, Release);
        self.deadline.store(0, Release);
    }
}

/// A task that a dispatcher's executor runs somewhere else, for views.
#[repr(C)]
pub struct Remote {
    /// The database whose dispatcher has this place; zero: free.
    pub database: AtomicU32,
    pub role: AtomicU32,
    /// Zero: nothing to show yet.
    pub task_id: AtomicI64,
    pub attempt: AtomicI32,
    pub started: AtomicI64,
    pub rows: AtomicU64,
    pub bytes: AtomicU64,
    pub total_rows: AtomicU64,
}

impl Remote {
    /// Takes the place for a task.
    pub fn take(&self, database: u32, role: u32, task_id: i64, attempt: i32, started: i64) -> bool {
        let taken = self.database.compare_exchange(0, database, AcqRel, Acquire).is_ok();
        if taken {
            self.role.store(role, Release);
            self.attempt.store(attempt, Release);
            self.started.store(started, Release);
            self.rows.store(0, Release);
            self.bytes.store(0, Release);
            self.total_rows.store(0, Release);
            self.task_id.store(task_id, Release);
        }
        taken
    }

    pub fn free(&self) {
        self.task_id.store(0, Release);
        self.database.store(0, Release);
    }
}

/// The head of the shared memory; arrays whose sizes are settings lie behind it.
#[repr(C)]
pub struct Shared {
    pub launcher: Process,
    pub launcher_wanted: AtomicBool,
    /// Counts updates of extensions: what a session knows of versions may have changed.
    pub updates: AtomicU64,
    /// Of a server for tests: see `stop_points`.
    pub passed: super::stop_points::Passed,
    /// Why the launcher cannot do all it should, in a user's words.
    pub launcher_error: Text<64>,
    databases: usize,
    workers: usize,
    queue: usize,
    remotes: usize,
}

impl Shared {
    pub fn databases(&self) -> &[Database] {
        // SAFETY: `startup` allocated this many databases at this offset, zeroed.
        unsafe { std::slice::from_raw_parts(self.base().add(offsets().0).cast(), self.databases) }
    }

    pub fn workers(&self) -> &[Worker] {
        // SAFETY: as above; the offset follows the databases.
        unsafe { std::slice::from_raw_parts(self.base().add(offsets().1).cast(), self.workers) }
    }

    pub fn remotes(&self) -> &[Remote] {
        // SAFETY: as above; the offset follows the cells.
        unsafe { std::slice::from_raw_parts(self.base().add(offsets().3).cast(), self.remotes) }
    }

    fn cells(&self, database: usize) -> &[Cell] {
        // SAFETY: as above; `queue` cells for each database.
        unsafe {
            let first = self.base().add(offsets().2).cast::<Cell>();
            std::slice::from_raw_parts(first.add(database * self.queue), self.queue)
        }
    }

    fn base(&self) -> *const u8 {
        (self as *const Shared).cast()
    }

    pub fn database(&self, oid: pg_sys::Oid) -> Option<&Database> {
        self.databases().iter().find(|d| d.oid.load(Acquire) == oid.to_u32())
    }

    /// The database's entry, made if there is room.
    pub fn database_or_new(&self, oid: pg_sys::Oid) -> Option<&Database> {
        self.database(oid).or_else(|| {
            self.databases().iter().find(|d| d.oid.compare_exchange(0, oid.to_u32(), AcqRel, Acquire).is_ok())
        })
    }
}

/// Offsets of databases, workers, cells and remote tasks, and the whole size.
fn offsets() -> (usize, usize, usize, usize, usize) {
    let up = |n: usize| n.next_multiple_of(128);
    let databases = up(size_of::<Shared>());
    let workers = up(databases + settings::max_databases() * size_of::<Database>());
    let cells = up(workers + settings::max_workers() * size_of::<Worker>());
    let remotes = up(cells + settings::max_databases() * settings::event_queue_size() * size_of::<Cell>());
    let end = up(remotes + settings::max_remote_tasks() * size_of::<Remote>());
    (databases, workers, cells, remotes, end)
}

static SHARED: AtomicPtr<Shared> = AtomicPtr::new(std::ptr::null_mut());

/// The shared memory; only for processes of a server that preloaded the library.
pub fn shared() -> &'static Shared {
    try_shared().unwrap_or_else(|| pgrx::error!("pgflow is not in shared_preload_libraries"))
}

/// The shared memory, if the library was preloaded.
pub fn try_shared() -> Option<&'static Shared> {
    // SAFETY: set once by `startup` to memory that lives as long as the server and is only changed through atomics.
    unsafe { SHARED.load(Acquire).as_ref() }
}

/// This process's database.
pub fn my_database() -> Option<&'static Database> {
    // SAFETY: reading a process-global OID.
    try_shared()?.database(unsafe { pg_sys::MyDatabaseId })
}

static mut PREVIOUS_REQUEST: pg_sys::shmem_request_hook_type = None;
static mut PREVIOUS_STARTUP: pg_sys::shmem_startup_hook_type = None;

/// Asks for the memory. Called once from `_PG_init` while the postmaster preloads.
pub fn init() {
    // SAFETY: the postmaster loads libraries in one thread, before anything else can read these hooks.
    unsafe {
        PREVIOUS_REQUEST = pg_sys::shmem_request_hook;
        pg_sys::shmem_request_hook = Some(request);
        PREVIOUS_STARTUP = pg_sys::shmem_startup_hook;
        pg_sys::shmem_startup_hook = Some(startup);
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn request() {
    if let Some(previous) = PREVIOUS_REQUEST {
        previous();
    }
    pg_sys::RequestAddinShmemSpace(offsets().4);
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn startup() {
    if let Some(previous) = PREVIOUS_STARTUP {
        previous();
    }
    let mut found = false;
    let memory = pg_sys::ShmemInitStruct(c"pgflow".as_ptr(), offsets().4, &mut found);
    // SAFETY: the memory has the size that `offsets` computes and nobody else sees it yet: the hook runs in the
    // postmaster, before it starts any process, and again with fresh memory after a crash.
    if !found {
        std::ptr::write_bytes(memory.cast::<u8>(), 0, offsets().4);
        let shared = memory.cast::<Shared>();
        (*shared).databases = settings::max_databases();
        (*shared).workers = settings::max_workers();
        (*shared).queue = settings::event_queue_size();
        (*shared).remotes = settings::max_remote_tasks();
        for database in (*shared).databases() {
            pg_sys::ConditionVariableInit(database.changes_ptr());
            database.changes_ready.store(true, Release);
        }
    }
    SHARED.store(memory.cast(), Release);
}
