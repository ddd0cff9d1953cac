//! Rows of directories become nodes.

use std::collections::btree_map::Entry;

use amoeba_cap::Capability;
use amoeba_stubs::bullet_stream;
use amoeba_volume::{Error, Kind, LINK_TEXT_SIZE_MAX, NAME_SIZE_MAX, Node};

use crate::Shared;
use crate::rows::{self, Class, Page, Row, kind_of_mode};
use crate::tree::{Content, Folder, Local, Shown, Slot};

impl Shared {
    /// The node under a name, if there is one; for the moment, unless it is remembered.
    pub(crate) fn find(&self, directory: Node, name: &[u8]) -> Result<Option<Node>, Error> {
        if name.len() > NAME_SIZE_MAX {
            return Err(Error::NameTooLong);
        }
        loop {
            let shown = self.tree.lock().shown(directory, name)?;
            match shown {
                Some(Shown::Node(node)) => return Ok(Some(node)),
                Some(Shown::Nothing) => return Ok(None),
                Some(Shown::Row(row)) => {
                    let (kind, content) = self.understand(&row)?;
                    if let Some(node) = self.tree.lock().meet(directory, name, &row, kind, content)? {
                        return Ok(Some(node));
                    }
                }
                None => self.load(directory, name)?,
            }
        }
    }

    /// As [`Shared::find`]; the node is remembered.
    pub(crate) fn find_and_remember(&self, directory: Node, name: &[u8]) -> Result<Option<Node>, Error> {
        loop {
            let Some(node) = self.find(directory, name)? else { return Ok(None) };
            let mut tree = self.tree.lock();
            // It may have been dropped in between, or something else have come.
            if matches!(tree.shown(directory, name)?, Some(Shown::Node(now)) if now == node) {
                tree.remember(node);
                return Ok(Some(node));
            }
        }
    }

    /// Asks for what is to be known of a name: with the first page of the directory, or by itself.
    fn load(&self, directory: Node, name: &[u8]) -> Result<(), Error> {
        let (capability, asked) = self.directory(directory)?;
        if !asked {
            let page = rows::page(self.client(), &capability, b"", rows::PAGE)?;
            return self.take_page(directory, page, true);
        }
        let row = rows::row(self.client(), &capability, name)?;
        let mut tree = self.tree.lock();
        let folder = tree.folder_mut(directory)?;
        let slot = Slot { server: row, local: Local::Same, pending: 0 };
        folder.entries.entry(name.to_vec()).or_insert(slot);
        tree.note_row(directory, name);
        Ok(())
    }

    /// Makes sure that all names of a directory are known.
    pub(crate) fn load_all(&self, directory: Node) -> Result<(), Error> {
        let mut after = Vec::new();
        loop {
            if self.tree.lock().folder(directory)?.complete {
                return Ok(());
            }
            let (capability, _) = self.directory(directory)?;
            let page = rows::page(self.client(), &capability, &after, rows::PAGE)?;
            let is_first = after.is_empty();
            match page.rows.last() {
                Some((last, _)) => after.clone_from(last),
                None if page.more => return Err(Error::Io),
                None => {}
            }
            self.take_page(directory, page, is_first)?;
        }
    }

    fn directory(&self, directory: Node) -> Result<(Capability, bool), Error> {
        let tree = self.tree.lock();
        let asked = tree.folder(directory)?.asked;
        Ok((*tree.member(directory)?.set.first().ok_or(Error::Io)?, asked))
    }

    /// What is not known yet is taken; what is known was asked for, or changed, since.
    fn take_page(&self, directory: Node, page: Page, is_first: bool) -> Result<(), Error> {
        let mut tree = self.tree.lock();
        let folder = tree.folder_mut(directory)?;
        if is_first && !folder.asked {
            (folder.asked, folder.sequence) = (true, page.sequence);
        }
        folder.complete |= !page.more;
        for (name, row) in page.rows {
            let slot = Slot { server: Some(row), local: Local::Same, pending: 0 };
            let folder = tree.folder_mut(directory)?;
            if let Entry::Vacant(place) = folder.entries.entry(name.clone()) {
                place.insert(slot);
                tree.note_row(directory, &name);
            }
        }
        Ok(())
    }

    /// What a row is to programs.
    ///
    /// # Errors
    /// [`Error::Io`]: the server of what it stands for does not answer now, and nothing is said of it that a program could take
    /// for its contents.
    pub(crate) fn understand(&self, row: &Row) -> Result<(Kind, Content), Error> {
        let Some(object) = row.object() else {
            return Ok((Kind::File, Content::Object(b"nothing\n".to_vec())));
        };
        match self.class(object)? {
            Class::Directory => Ok((Kind::Directory, Content::Directory(Folder::default()))),
            Class::Other(info) => Ok((Kind::File, Content::Object(format!("{info}\n").into_bytes()))),
            Class::File => match self.understand_file(row, object) {
                Err(Error::Io) => Err(Error::Io),
                Err(error) => Ok((Kind::File, Content::Object(format!("{error}\n").into_bytes()))),
                understood => understood,
            },
        }
    }

    fn understand_file(&self, row: &Row, object: &Capability) -> Result<(Kind, Content), Error> {
        let content = row.attributes.content.filter(|content| content.is_of(object));
        let kind = row.attributes.mode.filter(|_| content.is_some()).and_then(kind_of_mode);
        match kind {
            Some(Kind::SymbolicLink) => {
                let read = || bullet_stream::read_whole(self.client(), object, LINK_TEXT_SIZE_MAX);
                let text = row.attributes.link.clone().map_or_else(read, Ok).map_err(rows::error_of)?;
                Ok((Kind::SymbolicLink, Content::Link(text)))
            }
            Some(kind @ (Kind::Pipe | Kind::Socket)) => Ok((kind, Content::Special)),
            _ => {
                let asked = || rows::size(self.client(), &row.set);
                let size = content.map_or_else(asked, |content| Ok(content.size))?;
                Ok((Kind::File, Content::File(self.tree.lock().new_file(size, None))))
            }
        }
    }
}
