//! In a worker: keeps what a callback says (NOTICE, WARNING, INFO, LOG), bounded, and out of the server's log unless the
//! server would have logged it.
#![allow(unsafe_code)]

use std::cell::RefCell;
use std::ffi::CStr;

use pgrx::pg_sys;

use crate::settings;

#[derive(Default)]
struct Kept {
    active: bool,
    levels: Vec<String>,
    messages: Vec<String>,
    dropped: usize,
}

thread_local! {
    static KEPT: RefCell<Kept> = const { RefCell::new(Kept { active: false, levels: Vec::new(), messages: Vec::new(), dropped: 0 }) };
}

static mut PREVIOUS: pg_sys::emit_log_hook_type = None;
static mut SERVER_LEVEL: i32 = 0;

/// Puts the hook in place. Messages below `log_min_messages` never reach it, so the level is lowered in this process and
/// the hook keeps from the log what the server's own level would have.
pub fn init() {
    // SAFETY: a worker is single-threaded; the hook lives as long as the library.
    unsafe {
        SERVER_LEVEL = pg_sys::log_min_messages;
        PREVIOUS = pg_sys::emit_log_hook;
        pg_sys::emit_log_hook = Some(hook);
        if SERVER_LEVEL > pg_sys::INFO as i32 {
            pg_sys::SetConfigOption(
                c"log_min_messages".as_ptr(),
                c"info".as_ptr(),
                pg_sys::GucContext::PGC_SUSET,
                pg_sys::GucSource::PGC_S_OVERRIDE,
            );
        }
    }
}

pub fn begin() {
    KEPT.set(Kept { active: true, ..Kept::default() });
}

pub fn discard() {
    KEPT.set(Kept::default());
}

/// Keeps what was said elsewhere on behalf of the callback.
pub fn add(notices: Vec<pgflow_executor::job::Notice>) {
    for notice in notices {
        keep(&notice.level, notice.message);
    }
}

/// Takes what was kept: levels and messages; `None` if the callback was silent.
pub fn take() -> Option<(Vec<String>, Vec<String>)> {
    let mut kept = KEPT.take();
    if kept.dropped > 0 {
        kept.levels.push("LOG".to_owned());
        kept.messages.push(format!("{} more messages were not kept", kept.dropped));
    }
    (!kept.levels.is_empty()).then_some((kept.levels, kept.messages))
}

fn keep(level: &str, text: String) {
    // A message raised while the list is borrowed is not one of a callback.
    KEPT.with(|kept| {
        let Ok(mut kept) = kept.try_borrow_mut() else { return };
        if !kept.active {
            return;
        }
        if kept.levels.len() >= settings::log_messages_per_task() {
            kept.dropped += 1;
            return;
        }
        let mut text = text;
        let mut end = text.len().min(settings::log_message_size());
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        kept.levels.push(level.to_owned());
        kept.messages.push(text);
    });
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn hook(data: *mut pg_sys::ErrorData) {
    let level = match (*data).elevel as u32 {
        pg_sys::WARNING => Some("WARNING"),
        pg_sys::NOTICE => Some("NOTICE"),
        pg_sys::INFO => Some("INFO"),
        pg_sys::LOG => Some("LOG"),
        _ => None,
    };
    if let Some(level) = level {
        if !(*data).message.is_null() {
            let mut text = CStr::from_ptr((*data).message).to_string_lossy().into_owned();
            if !(*data).detail.is_null() {
                text.push_str("\nDETAIL: ");
                text.push_str(&CStr::from_ptr((*data).detail).to_string_lossy());
            }
            keep(level, text);
        }
        let logged = (*data).elevel == pg_sys::LOG as i32 || (*data).elevel >= SERVER_LEVEL;
        (*data).output_to_server &= logged;
    }
    if let Some(previous) = PREVIOUS {
        previous(data);
    }
}
