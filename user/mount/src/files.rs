//! Makes the files that the rows of a batch are to stand for.
//!
//! Small ones, as most are, are made with one request, which is answered when all of them are on their server's disk. The
//! others are made in its memory first, brought to its disk together, and looked for again after that: a server that was
//! restarted in between has lost them, and they are made once more.

use std::sync::Arc;

use amoeba_name::Content as FileContent;
use amoeba_stubs::bullet::{self, MANY_MAX, MANY_SIZE_MAX};
use amoeba_volume::Node;
use amoeba_wire::Status;
use amoeba_world::Error as Refusal;

use crate::Shared;
use crate::commit::{Rows, Stopped, again};
use crate::queue::{Made, Object, Version};
use crate::tree::Content;

/// A version that is to become a file, and what node it is of.
type Wanted<'r> = (Node, &'r Arc<Version>);

impl Shared {
    /// Makes all files that the rows are to stand for, on the disk of their server.
    pub(crate) fn make_files(&self, rows: &Rows) -> Result<(), Stopped> {
        let mut wanted: Vec<Wanted<'_>> = Vec::new();
        for target in rows.values().flatten() {
            if let Object::Version(version) = &target.object
                // Several names of one file are several rows.
                && (target.attributes.links.is_none()
                    || !wanted.iter().any(|(_, known)| Arc::ptr_eq(known, version)))
            {
                wanted.push((target.node, version));
            }
        }
        self.make_small(wanted.iter().map(|(_, version)| (false, *version)))?;
        wanted.retain(|(_, version)| !version.is_safe());
        self.make_one_by_one(&wanted)
    }

    /// Makes of these versions the small ones that are no files yet; of which it is said, may be there several times.
    pub(crate) fn make_small<'v>(
        &self,
        versions: impl Iterator<Item = (bool, &'v Arc<Version>)>,
    ) -> Result<(), Stopped> {
        let mut small: Vec<&Arc<Version>> = Vec::new();
        for (may_be_known, version) in versions {
            let is_known = may_be_known && small.iter().any(|known| Arc::ptr_eq(known, version));
            if !is_known && !version.is_made() && version.scratch.size() <= MANY_SIZE_MAX as u64 {
                small.push(version);
            }
        }
        small.chunks(MANY_MAX).try_for_each(|some| self.make_together(some))
    }

    fn make_together(&self, wanted: &[&Arc<Version>]) -> Result<(), Stopped> {
        let mut all = Vec::with_capacity(wanted.len());
        for version in wanted {
            all.push(version.scratch.whole().map_err(|_| again(Refusal::BadReply))?);
        }
        let flags = bullet::COMMIT | bullet::SAFETY;
        let files = bullet::create_many(self.client(), &self.file_server(), flags, &all).map_err(again)?;
        if files.len() != wanted.len() {
            return Err(Stopped::Never(Refusal::BadReply));
        }
        for ((version, file), data) in wanted.iter().zip(files).zip(&all) {
            let (size, hash) = (data.len() as u64, *blake3::hash(data).as_bytes());
            let content = FileContent { port: file.port, object: file.object(), size, hash };
            version.was_made(Made { file, content, is_safe: true });
        }
        Ok(())
    }

    fn make_one_by_one(&self, wanted: &[Wanted<'_>]) -> Result<(), Stopped> {
        if wanted.is_empty() {
            return Ok(());
        }
        let server = self.file_server();
        let mut made = Vec::with_capacity(wanted.len());
        for (_, version) in wanted {
            made.push(version.make(self.client(), &server).map_err(again)?);
        }
        bullet::sync(self.client(), &server).map_err(again)?;
        for ((node, version), made) in wanted.iter().zip(&made) {
            match bullet::size(self.client(), &made.file) {
                Ok(_) => {}
                Err(Refusal::Refused(Status::STD_CAPBAD)) if self.is_current(*node, version) => {
                    version.unmake(&made.file);
                    return Err(Stopped::Later(Refusal::NotSent(Status::STD_CAPBAD)));
                }
                // The next version, which was begun, is on its way.
                Err(Refusal::Refused(Status::STD_CAPBAD)) => {}
                Err(error) => return Err(again(error)),
            }
        }
        Ok(())
    }

    /// Whether the scratch still has the contents of a version.
    fn is_current(&self, node: Node, version: &Arc<Version>) -> bool {
        let tree = self.tree.lock();
        let Ok(member) = tree.member(node) else { return true };
        let changed = matches!(&member.content, Content::File(file) if file.changed);
        !changed && member.version.as_ref().is_some_and(|current| Arc::ptr_eq(current, version))
    }
}
