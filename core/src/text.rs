//! Which characters can be shown as they are.
//!
//! Must never be used to decide what is stored: only what a message or a diagram shows.

/// Whether a character would break a line, hide, or turn the direction of what surrounds it, or cannot stand in XML.
pub(crate) fn is_odd(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}'
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
        || (c as u32) & 0xfffe == 0xfffe
}

#[cfg(test)]
mod tests {
    use super::is_odd;

    #[test]
    fn control_bidi_invisible_and_non_characters_are_odd() {
        for c in
            ['\0', '\n', '\u{7f}', '\u{85}', '\u{202e}', '\u{2066}', '\u{200b}', '\u{feff}', '\u{ffff}', '\u{1fffe}']
        {
            assert!(is_odd(c), "{c:?}");
        }
        for c in ['a', ' ', '"', '<', 'é', '日', '😀', '\u{fffd}'] {
            assert!(!is_odd(c), "{c:?}");
        }
    }
}
