//! Paths as text: names with `/` between; `.` and `..` are resolved here, in the text alone.
//!
//! # Source
//! Amoeba 5.3, path_norm. There and here `/..` is `/`.

/// Bytes a name may have.
pub const NAME_SIZE_MAX: usize = 255;
/// Bytes a path may have.
pub const PATH_SIZE_MAX: usize = 4096;

/// Why a text is not a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PathError {
    /// The path is longer than [`PATH_SIZE_MAX`].
    #[error("a path has at most {PATH_SIZE_MAX} bytes")]
    PathTooLong,
    /// A name in it is longer than [`NAME_SIZE_MAX`].
    #[error("a name has at most {NAME_SIZE_MAX} bytes")]
    NameTooLong,
    /// It holds a NUL.
    #[error("a path holds no NUL")]
    Nul,
    /// It goes above the working directory, whose own path is not known.
    #[error("the path goes above the working directory, whose own name is not known")]
    AboveWork,
    /// It names the start itself, where a name in a directory is needed.
    #[error("the path has no last name")]
    NoName,
}

/// A path without `.`, `..` and empty names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Normal<'a> {
    /// Whether it starts at the root.
    pub absolute: bool,
    /// How many directories it goes up from its start first; 0 for an absolute path.
    pub up: usize,
    /// The names, each fit for a row.
    pub names: Vec<&'a [u8]>,
}

/// The normal form of a path.
pub fn normalise(path: &[u8]) -> Result<Normal<'_>, PathError> {
    if path.len() > PATH_SIZE_MAX {
        return Err(PathError::PathTooLong);
    }
    if path.contains(&0) {
        return Err(PathError::Nul);
    }
    let mut normal = Normal { absolute: path.first() == Some(&b'/'), up: 0, names: Vec::new() };
    for name in path.split(|&byte| byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." => normal.go_up(),
            name if name.len() > NAME_SIZE_MAX => return Err(PathError::NameTooLong),
            name => normal.names.push(name),
        }
    }
    Ok(normal)
}

impl Normal<'_> {
    fn go_up(&mut self) {
        if self.names.pop().is_none() && !self.absolute {
            self.up += 1;
        }
    }

    /// The path as text; `.` for the start of a relative one.
    pub fn to_text(&self) -> Vec<u8> {
        let ups = std::iter::repeat_n(&b".."[..], self.up);
        let names: Vec<&[u8]> = ups.chain(self.names.iter().copied()).collect();
        let joined = names.join(&b'/');
        match (self.absolute, joined.is_empty()) {
            (true, _) => [b"/", joined.as_slice()].concat(),
            (false, true) => b".".to_vec(),
            (false, false) => joined,
        }
    }
}

/// `path` as seen from the directory with the absolute path `start`, as an absolute path.
pub fn join(start: &[u8], path: &[u8]) -> Result<Vec<u8>, PathError> {
    if path.first() == Some(&b'/') {
        return Ok(normalise(path)?.to_text());
    }
    let whole = [start, b"/", path].concat();
    let whole = if whole.first() == Some(&b'/') { whole } else { [b"/", whole.as_slice()].concat() };
    Ok(normalise(&whole)?.to_text())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(path: &str) -> String {
        String::from_utf8(normalise(path.as_bytes()).unwrap().to_text()).unwrap()
    }

    #[test]
    fn dots_are_resolved_in_the_text() {
        let cases = [
            ("/..", "/"),
            ("/../../a", "/a"),
            ("", "."),
            (".", "."),
            ("a/..", "."),
            ("a/./b//c/", "a/b/c"),
            ("../a/../../b", "../../b"),
            ("/a/b/../c", "/a/c"),
            ("...", "..."),
        ];
        for (path, normal) in cases {
            assert_eq!(text(path), normal, "{path}");
        }
    }

    #[test]
    fn bounds_are_kept() {
        assert_eq!(normalise(&[b'a'; 256]), Err(PathError::NameTooLong));
        assert!(normalise(&[b'a'; 255]).is_ok());
        assert_eq!(normalise(&[b'/'; 4097]), Err(PathError::PathTooLong));
        assert_eq!(normalise(b"a\0b"), Err(PathError::Nul));
    }

    #[test]
    fn a_path_joins_to_where_it_is_seen_from() {
        let join = |start: &str, path: &str| {
            String::from_utf8(join(start.as_bytes(), path.as_bytes()).unwrap()).unwrap()
        };
        assert_eq!(join("/home/me", "../you/x"), "/home/you/x");
        assert_eq!(join("/home/me", "/x"), "/x");
        assert_eq!(join("/", "../../x"), "/x");
        assert_eq!(join("/a", ""), "/a");
    }

    proptest! {
        #[test]
        fn a_normal_path_is_its_own_normal_form(path in "[a./]{0,40}") {
            let once = text(&path);
            prop_assert_eq!(&text(&once), &once);
            prop_assert_eq!(path.starts_with('/'), once.starts_with('/'));
        }

        #[test]
        fn no_bytes_panic(path: Vec<u8>) {
            let _ = normalise(&path).map(|normal| normal.to_text());
        }
    }
}
