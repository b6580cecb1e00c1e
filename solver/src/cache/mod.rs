//! When a result can be used again.
//!
//! | input | enters the key of |
//! |---|---|
//! | operation's fields | its step, one part each (`argv`, `env.PATH`, `mount./src`) |
//! | proxy variables, addresses of extra hosts, secret values, names, source lines | nothing |
//! | manifest digest and platform of an image | the image, and so all that is built on it |
//! | files of a build context: type, mode, owner, content, link target, names | the steps that select them (`context./src/main.c`) |
//! | modification times | nothing |
//! | the tree of another stage that is copied from or mounted read-only | by definition first, then by the content of what is selected |
//! | the tree that is built upon | by definition first, then by the identity of the result |

mod key;
mod parts;
mod record;

pub use key::{ContentInput, content_inputs, definition_parts, json_list};
pub use parts::{CacheKey, KeyParts};
pub use record::Record;
