//! Directives: `# key=value` comments at the very top (`syntax`, `escape`, `check`).

use crate::text::Word;

/// The directives of a Dockerfile.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Directives {
    /// `syntax`: reference of the frontend image, as written up to the first blank.
    pub syntax: Option<Word>,
    /// `escape`: the character that escapes and continues lines; a backslash unless given.
    pub escape: char,
    /// `check`: options of the linter, as written up to the first blank.
    pub check: Option<Word>,
}
