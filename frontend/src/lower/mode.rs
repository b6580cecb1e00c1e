//! Modes of `--chmod`: octal, or symbolic as `chmod(1)` reads them.

/// All permission bits.
pub(crate) const MAX_BITS: u32 = 0o7777;

/// Whether a text is a symbolic mode: `u=rwX,go-w`. Each clause is who, then operators with the
/// permissions, or with the class that they are copied from.
pub(crate) fn is_symbolic(text: &str) -> bool {
    !text.is_empty() && text.split(',').all(is_clause)
}

fn is_clause(clause: &str) -> bool {
    let actions = clause.trim_start_matches(['u', 'g', 'o', 'a']);
    if !actions.starts_with(['+', '-', '=']) {
        return false;
    }
    actions.split(['+', '-', '=']).all(|permissions| {
        matches!(permissions, "u" | "g" | "o")
            || permissions.chars().all(|it| matches!(it, 'r' | 'w' | 'x' | 'X' | 's' | 't'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbolic_modes() {
        for text in ["+x", "u=rwX,go-w", "a=", "g=u", "u+s", "ug+r-w", "o=t"] {
            assert!(is_symbolic(text), "{text}");
        }
        for text in ["", "x", "999", "0x1", "u", "u+q", "u+r,", "u=ug"] {
            assert!(!is_symbolic(text), "{text}");
        }
    }
}
