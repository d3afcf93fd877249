//! pgflow: flows inside PostgreSQL. Modules and `_PG_init`; nothing else. The SQL objects are in `sql/`, in the order of
//! `sql/load_order`.

mod api;
mod as_owner;
mod elsewhere_api;
mod engine;
mod error;
mod flow_api;
mod json;
mod private_lock;
mod results_api;
mod settings;
mod store;
mod version;

::pgrx::pg_module_magic!();

/// Called when the library is loaded: by the postmaster if it is preloaded, else by the first session that calls it.
#[allow(unsafe_code)]
#[allow(non_snake_case)]
#[pgrx::pg_guard]
pub extern "C-unwind" fn _PG_init() {
    // SAFETY: reading a flag that only the postmaster changes.
    let preloading = unsafe { pgrx::pg_sys::process_shared_preload_libraries_in_progress };
    // Backtraces are for developers of this library, not for the DETAIL of a user's error.
    std::env::set_var("RUST_LIB_BACKTRACE", "0");
    settings::init(preloading);
    if preloading {
        engine::shmem::init();
        engine::hooks::init();
        engine::launcher::init();
        engine::stop_points::init();
    }
}
