//! Layers that exist as a plan: a listing and where the contents are.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rbuild_store::entry::{Entry, Kind};

use super::error::{Error, show};
use super::files::open_path;
use super::grow::{Bytes, Item, grow};
use super::place::Placer;
use super::{LayerStore, Source};
use crate::worker::contents::ContentList;
use crate::worker::proto::{Content, LayerId};

/// The directories that contents come from, open.
#[derive(Debug)]
pub(crate) struct Sources<'a>(Vec<Opened<'a>>);

#[derive(Debug)]
enum Opened<'a> {
    Borrowed(BorrowedFd<'a>),
    Owned(OwnedFd),
}

impl LayerStore {
    /// Puts a planned layer, whose listing is in the store, on disk. One content for each regular
    /// file of the listing, in its order. A layer that is on disk is left as it is.
    ///
    /// # Errors
    ///
    /// If a content cannot be read or is not of the size listed; if the disk refuses.
    pub fn materialise(
        &self,
        layer: &LayerId,
        sources: &[Source<'_>],
        contents: &ContentList,
    ) -> Result<(), Error> {
        if self.is_on_disk(layer)? {
            return Ok(());
        }
        let listing = self.listing(layer)?;
        let sources = self.open_sources(sources)?;
        let contents: Vec<Content> = contents.iter().collect();
        let items = sources.items(listing.entries(), &contents)?;
        let work = self.work_dir("materialise")?;
        let root = work.make("fs")?;
        let owners = grow(root.as_fd(), Placer::new(self), &items)?;
        self.publish(layer, &work, listing.entries().to_vec(), &owners)
    }

    /// Opens the directories that contents come from.
    pub(crate) fn open_sources<'a>(&self, sources: &'a [Source<'a>]) -> Result<Sources<'a>, Error> {
        let open = |source: &'a Source<'a>| match source {
            Source::Dir(fd) => Ok(Opened::Borrowed(*fd)),
            Source::Layer(layer) => {
                self.require(layer)?;
                self.open_fs(layer).map(Opened::Owned)
            }
            Source::Store(path) => {
                self.below(path).and_then(|it| open_path(&it)).map(Opened::Owned)
            }
        };
        sources.iter().map(open).collect::<Result<_, _>>().map(Sources)
    }
}

impl Sources<'_> {
    /// Entries with their contents.
    pub(crate) fn items<'b>(
        &'b self,
        listing: &'b [Entry],
        contents: &'b [Content],
    ) -> Result<Vec<Item<'b>>, Error> {
        let mut contents = contents.iter();
        let mut items = Vec::with_capacity(listing.len());
        for entry in listing {
            let bytes = match entry.kind {
                Kind::File { .. } => {
                    let content = contents.next().ok_or_else(|| {
                        Error::Bug(format!("`{}` has no content", show(&entry.path)))
                    })?;
                    Some(self.bytes(content)?)
                }
                Kind::Dir { .. }
                | Kind::Symlink { .. }
                | Kind::Hardlink { .. }
                | Kind::Char { .. }
                | Kind::Block { .. }
                | Kind::Fifo
                | Kind::Whiteout => None,
            };
            items.push(Item { entry, bytes });
        }
        if contents.next().is_some() {
            return Err(Error::Bug("a layer has more contents than files".to_owned()));
        }
        Ok(items)
    }

    pub(crate) fn bytes<'b>(&'b self, content: &'b Content) -> Result<Bytes<'b>, Error> {
        match content {
            Content::Inline(bytes) => Ok(Bytes::Inline(bytes)),
            Content::Tree { root, path } => match self.0.get(*root) {
                Some(Opened::Borrowed(fd)) => Ok(Bytes::File(*fd, path)),
                Some(Opened::Owned(fd)) => Ok(Bytes::File(fd.as_fd(), path)),
                None => Err(Error::Bug(format!("a content names root {root}, which is not there"))),
            },
        }
    }
}
