//! Takes the character NUL out of what is told: Postgres can store it neither in text nor in jsonb, and what cannot be
//! stored could not be told at all.
//!
//! Must never touch results: those are the user's. One that cannot be held fails its task: `Kept::holdable`.

use crate::job::{Done, Failure};

/// Stands for it.
const INSTEAD: &str = "\u{fffd}";

pub fn text(text: &mut String) {
    if text.contains('\0') {
        *text = text.replace('\0', INSTEAD);
    }
}

pub fn failure(failure: &mut Failure) {
    text(&mut failure.message);
    [&mut failure.code, &mut failure.detail, &mut failure.hint].into_iter().flatten().for_each(text);
}

pub fn done(done: &mut Done) {
    for notice in &mut done.notices {
        text(&mut notice.level);
        text(&mut notice.message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Notice;

    #[test]
    fn nothing_that_is_told_has_nul() {
        let mut told =
            Done { notices: vec![Notice { level: "NOTICE".into(), message: "a\0b".into() }], ..Done::default() };
        done(&mut told);
        assert_eq!(told.notices[0].message, "a\u{fffd}b");
        let mut met = Failure::new("x\0").detail("y\0").hint("z");
        failure(&mut met);
        assert!(!format!("{met:?}").contains("\\0"), "{met:?}");
    }
}
