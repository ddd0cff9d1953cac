//! What a process sees as its file tree: the part of a descriptor that says so.

use amoeba_cap::Capability;
use amoeba_stubs::process;
use amoeba_wire::{Malformed, Reader, Writer};

/// The most trees of a caller that a process sees.
pub const VIEW_TREES_MAX: usize = 64;
/// The most bytes of a tree's path.
pub const VIEW_PATH_SIZE_MAX: usize = 4095;

/// The file tree of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum View {
    /// The files of the executing host.
    #[default]
    Host,
    /// Files of whoever starts the process, served by him.
    Mine(Mine),
    /// The directory graph from this directory on, and nothing else.
    Graph(Capability),
}

/// Files of whoever starts a process.
#[derive(Clone, PartialEq, Eq)]
pub struct Mine {
    /// The object of class `view` that serves them.
    pub files: Capability,
    /// Who shares what the executing host remembers of these trees: whoever knows it. A secret of caller and host.
    pub identity: [u8; 32],
    /// The trees, each a file or directory by its absolute path.
    pub trees: Vec<Tree>,
}

/// A file or directory of a caller, with all that is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    /// Its absolute path: `/` and components between single slashes, none of them `.` or `..`.
    pub path: Vec<u8>,
    /// Whether what is written there goes back to the caller.
    pub writable: bool,
}

impl std::fmt::Debug for Mine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mine").field("trees", &self.trees).finish_non_exhaustive()
    }
}

/// Whether `path` can be that of a tree: absolute, below the root, and leading nowhere but down.
pub fn is_tree_path(path: &[u8]) -> bool {
    let Some(below) = path.strip_prefix(b"/") else { return false };
    path.len() <= VIEW_PATH_SIZE_MAX && below.split(|byte| *byte == b'/').all(crate::is_file_name)
}

impl View {
    /// Whether it is the executing host's own tree.
    pub fn is_host(&self) -> bool {
        *self == View::Host
    }

    /// Its number in a list of processes.
    pub(crate) fn number(&self) -> u8 {
        match self {
            View::Host => process::VIEW_HOST,
            View::Mine(_) => process::VIEW_MINE,
            View::Graph(_) => process::VIEW_GRAPH,
        }
    }

    /// Whether it can be encoded.
    pub(crate) fn is_sound(&self) -> bool {
        match self {
            View::Mine(mine) => {
                mine.trees.len() <= VIEW_TREES_MAX && mine.trees.iter().all(|tree| is_tree_path(&tree.path))
            }
            View::Host | View::Graph(_) => true,
        }
    }

    /// Appends a view that is not the host's.
    pub(crate) fn put(&self, out: &mut Writer) {
        match self {
            View::Host => {
                out.put_u8(0);
            }
            View::Mine(mine) => {
                out.put_u8(1).put_cap(&mine.files).raw(&mine.identity);
                out.put_u32(u32::try_from(mine.trees.len()).expect("the view is sound"));
                for tree in &mine.trees {
                    out.put_bool(tree.writable).put_bytes(&tree.path);
                }
            }
            View::Graph(root) => {
                out.put_u8(2).put_cap(root);
            }
        }
    }

    /// Takes a view; the host's own is never written down.
    ///
    /// # Errors
    /// Another kind, too many trees, or a path that leads elsewhere.
    pub(crate) fn get(input: &mut Reader<'_>) -> Result<View, Malformed> {
        let view = match input.get_u8()? {
            1 => {
                let (files, identity) = (input.get_cap()?, input.array()?);
                let count = input.get_u32()? as usize;
                if count > VIEW_TREES_MAX {
                    return Err(Malformed);
                }
                let tree = |input: &mut Reader<'_>| {
                    Ok(Tree {
                        writable: input.get_bool()?,
                        path: input.get_bytes(VIEW_PATH_SIZE_MAX)?.to_vec(),
                    })
                };
                let trees = (0..count).map(|_| tree(input)).collect::<Result<_, Malformed>>()?;
                View::Mine(Mine { files, identity, trees })
            }
            2 => View::Graph(input.get_cap()?),
            _ => return Err(Malformed),
        };
        if view.is_sound() { Ok(view) } else { Err(Malformed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DescriptorError, ProcessDescriptor, Program};

    fn seen(view: View) -> ProcessDescriptor {
        let mut descriptor = ProcessDescriptor::new("", Program::HostPath(b"ls".to_vec()), Vec::new());
        descriptor.view = view;
        descriptor
    }

    fn mine(path: &[u8]) -> View {
        let trees = vec![Tree { path: path.to_vec(), writable: true }];
        View::Mine(Mine { files: Capability::from_bytes([5; 16]), identity: [6; 32], trees })
    }

    #[test]
    fn views_come_back_and_the_hosts_own_is_not_written() {
        let plain = seen(View::Host).encode().unwrap();
        assert_eq!(plain[10], 0);
        for view in [mine(b"/usr"), View::Graph(Capability::from_bytes([7; 16])), View::Host] {
            let descriptor = seen(view);
            assert_eq!(ProcessDescriptor::parse(&descriptor.encode().unwrap()), Ok(descriptor));
        }
        let expected = [b"\x01".as_slice(), &[5; 16], &[6; 32], b"\x01\0\0\0\x01\x04\0\0\0/usr"].concat();
        assert_eq!(seen(mine(b"/usr")).encode().unwrap()[plain.len()..], expected);
    }

    #[test]
    fn no_tree_leads_elsewhere() {
        for path in [&b""[..], b"/", b"usr", b"/usr/", b"/a//b", b"/a/../b", b"/.", b"/a\0"] {
            assert_eq!(seen(mine(path)).encode(), Err(DescriptorError::Malformed), "{path:?}");
        }
        let mut bytes = seen(mine(b"/usr/aa")).encode().unwrap();
        let at = bytes.len() - 3;
        bytes[at..].copy_from_slice(b"/..");
        assert_eq!(ProcessDescriptor::parse(&bytes), Err(DescriptorError::Malformed));
    }

    #[test]
    fn debug_keeps_the_secret() {
        assert!(!format!("{:?}", mine(b"/usr")).contains('6'));
    }
}
