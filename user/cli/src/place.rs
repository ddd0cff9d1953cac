//! What a PATH argument says: a name in the directory graph, or a capability, which may come by a way that others do
//! not see.

use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;

use amoeba_cap::Capability;
use anyhow::{Context, anyhow, bail};

use crate::failure::Advise;

/// Bytes that are read of a file or descriptor that is to hold a capability.
const CAPABILITY_TEXT_MAX: u64 = 256;
/// Bytes that are read of a file or descriptor that is to hold another secret.
const SECRET_LINE_MAX: u64 = 4096;
/// Bytes that are shown of what was to be a capability and is nothing like one.
const BAD_TEXT_SHOWN: usize = 12;

/// Where an object is to be found.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// A path in the directory graph: from the user's root when it begins with '/', else from the working directory.
    Path(Vec<u8>),
    /// The object of a capability, or what a path leads to from it; and how the capability was named, where that is
    /// no secret.
    Capability(Capability, Vec<u8>, Option<String>),
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.shown())
    }
}

impl Place {
    /// What `argument` says. `-`, `@FILE` and `fd:N` are read here.
    pub(crate) fn parse(argument: &OsStr) -> anyhow::Result<Place> {
        let bytes = argument.as_bytes();
        if bytes == b"-" {
            return read("standard input", std::io::stdin().lock());
        }
        if let Some(file) = bytes.strip_prefix(b"@") {
            return from_file(OsStr::from_bytes(file));
        }
        if let Some(number) = bytes.strip_prefix(b"fd:") {
            return from_descriptor(number);
        }
        Place::parse_without_reading(argument)
    }

    /// What `argument` says where `-`, `@` and `fd:` mean nothing: a name, or the text of a capability.
    pub(crate) fn parse_without_reading(argument: &OsStr) -> anyhow::Result<Place> {
        let bytes = argument.as_bytes();
        if bytes.is_empty() {
            bail!("the name is empty");
        }
        if let Some(text) = bytes.strip_prefix(b"cap:") {
            return from_text(text)
                .ok_or_else(|| anyhow!("{} is no capability", without_check(text)))
                .hint("a capability is port/object(rights)/check: `amoeba cap show PATH` prints one");
        }
        // A path can look like this too, with a directory called `1:2:3:4:5:6`; `./` in front says so.
        Ok(from_text(bytes).unwrap_or_else(|| Place::Path(bytes.to_vec())))
    }

    /// The place for people: no check field.
    pub(crate) fn shown(&self) -> String {
        match self {
            Place::Path(path) => crate::out::printable(path),
            Place::Capability(capability, path, named) => {
                let start = named.clone().unwrap_or_else(|| format!("{capability:?}"));
                if path.is_empty() { start } else { format!("{start}/{}", crate::out::printable(path)) }
            }
        }
    }

    /// An argument for people, read or not: the text of a capability is not repeated whole.
    pub(crate) fn argument_shown(argument: &OsStr) -> String {
        let bytes = argument.as_bytes();
        match (Place::parse_without_reading(argument), bytes.strip_prefix(b"cap:")) {
            (Ok(place), _) => place.shown(),
            (Err(_), Some(text)) => without_check(text),
            (Err(_), None) => format!("'{}'", crate::out::printable(bytes)),
        }
    }

    /// The place of `name` in the directory that this place is.
    pub(crate) fn child(&self, name: &[u8]) -> Place {
        let join = |path: &[u8]| {
            let slash: &[u8] = if path.is_empty() || path.ends_with(b"/") { b"" } else { b"/" };
            [path, slash, name].concat()
        };
        match self {
            Place::Path(path) => Place::Path(join(path)),
            Place::Capability(capability, path, named) => {
                Place::Capability(*capability, join(path), named.clone())
            }
        }
    }

    /// The places on the way to this one, without it, the first first.
    pub(crate) fn above(&self) -> Vec<Place> {
        let (Place::Path(path) | Place::Capability(_, path, _)) = self;
        let end = path.iter().rposition(|&byte| byte != b'/').map_or(0, |at| at + 1);
        let cuts = (1..end).filter(|&at| path[at] == b'/' && path[at - 1] != b'/');
        let cut = |at: usize| match self {
            Place::Path(path) => Place::Path(path[..at].to_vec()),
            Place::Capability(capability, path, named) => {
                Place::Capability(*capability, path[..at].to_vec(), named.clone())
            }
        };
        cuts.map(cut).collect()
    }

    /// The directory that this place is a name in; `None` where it has no name.
    pub(crate) fn parent(&self) -> Option<Place> {
        let (Place::Path(path) | Place::Capability(_, path, _)) = self;
        let end = path.iter().rposition(|&byte| byte != b'/').map_or(0, |at| at + 1);
        let begin = path[..end].iter().rposition(|&byte| byte == b'/').map_or(0, |at| at + 1);
        if matches!(&path[begin..end], b"" | b"." | b"..") {
            return None;
        }
        let above = match (&path[..begin], self) {
            (b"", Place::Path(_)) => b".".to_vec(),
            (above, _) => above.to_vec(),
        };
        Some(match self {
            Place::Path(_) => Place::Path(above),
            Place::Capability(capability, _, named) => Place::Capability(*capability, above, named.clone()),
        })
    }

    /// The last component of the path; empty where there is none.
    pub(crate) fn last_name(&self) -> &[u8] {
        let (Place::Path(path) | Place::Capability(_, path, _)) = self;
        let end = path.iter().rposition(|&byte| byte != b'/').map_or(0, |at| at + 1);
        path[..end].rsplit(|&byte| byte == b'/').next().unwrap_or_default()
    }

    /// Whether the path ends in '/', so that it can only mean a directory.
    pub(crate) fn is_directory(&self) -> bool {
        let (Place::Path(path) | Place::Capability(_, path, _)) = self;
        path.ends_with(b"/")
    }
}

impl From<Capability> for Place {
    fn from(capability: Capability) -> Place {
        Place::Capability(capability, Vec::new(), None)
    }
}

fn from_file(path: &OsStr) -> anyhow::Result<Place> {
    let shown = format!("@{}", path.display());
    let file = std::fs::File::open(path).context(shown.clone())?;
    read(&shown, file)
}

/// The secret that an argument is, or is read from where it says: `-`, `@FILE` or `fd:N`. Of a line that is read it is the
/// last word, so that a whole command line may be handed on.
pub(crate) fn read_secret(argument: &OsStr) -> anyhow::Result<String> {
    let bytes = argument.as_bytes();
    let (what, from): (String, Box<dyn Read>) = if bytes == b"-" {
        ("standard input".to_owned(), Box::new(std::io::stdin().lock()))
    } else if let Some(file) = bytes.strip_prefix(b"@") {
        let shown = format!("@{}", OsStr::from_bytes(file).display());
        let file = std::fs::File::open(OsStr::from_bytes(file)).context(shown.clone())?;
        (shown, Box::new(file))
    } else if let Some(number) = bytes.strip_prefix(b"fd:") {
        (crate::out::printable(bytes), Box::new(open_descriptor(number)?))
    } else {
        return Ok(argument.to_string_lossy().into_owned());
    };
    let mut text = Vec::new();
    from.take(SECRET_LINE_MAX).read_to_end(&mut text).with_context(|| what.clone())?;
    let text = String::from_utf8_lossy(&text);
    text.split_whitespace().next_back().map(str::to_owned).ok_or_else(|| anyhow!("{what} is empty"))
}

fn from_descriptor(number: &[u8]) -> anyhow::Result<Place> {
    let shown = format!("fd:{}", String::from_utf8_lossy(number));
    read(&shown, open_descriptor(number)?)
}

fn open_descriptor(number: &[u8]) -> anyhow::Result<std::fs::File> {
    let number: Option<u32> = std::str::from_utf8(number).ok().and_then(|number| number.parse().ok());
    let number = number.ok_or_else(|| anyhow!("fd: wants the number of an open descriptor, as in fd:3"))?;
    match std::fs::File::open(format!("/proc/self/fd/{number}")) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            bail!("descriptor {number} is not open")
        }
        file => file.context(format!("fd:{number}")),
    }
}

fn read(what: &str, from: impl Read) -> anyhow::Result<Place> {
    let mut text = Vec::new();
    from.take(CAPABILITY_TEXT_MAX).read_to_end(&mut text).with_context(|| what.to_owned())?;
    let text = String::from_utf8_lossy(&text);
    let text = text.trim();
    let text = text.strip_prefix("cap:").unwrap_or(text);
    match text.parse::<Capability>() {
        Ok(capability) => Ok(Place::Capability(capability, Vec::new(), Some(what.to_owned()))),
        Err(error) => Err(error)
            .with_context(|| format!("{what} holds no capability"))
            .hint("`amoeba cap show PATH` prints one"),
    }
}

/// The capability in `port/object(rights)/check` or `port/object(rights)/check/path`.
fn from_text(bytes: &[u8]) -> Option<Place> {
    let slashes: Vec<usize> = (0..bytes.len()).filter(|&at| bytes[at] == b'/').take(3).collect();
    let (text, path) = match slashes[..] {
        [_, _] => (bytes, &b""[..]),
        [_, _, third] => (&bytes[..third], &bytes[third + 1..]),
        _ => return None,
    };
    let capability: Capability = std::str::from_utf8(text).ok()?.parse().ok()?;
    // A path from a capability has no root but the capability.
    let path = &path[path.iter().take_while(|&&byte| byte == b'/').count()..];
    Some(Place::Capability(capability, path.to_vec(), None))
}

/// What may be shown of a text that was to be a capability, but is none: where it has no such parts, its beginning.
fn without_check(text: &[u8]) -> String {
    let secret_at = match text.iter().enumerate().filter(|(_, byte)| **byte == b'/').nth(1) {
        Some((at, _)) => at + 1,
        None => text.len().min(BAD_TEXT_SHOWN),
    };
    let shown = crate::out::printable(&text[..secret_at]);
    let rest = if secret_at < text.len() { "..." } else { "" };
    format!("cap:{shown}{rest}")
}

/// Refuses a second argument that would read standard input.
pub(crate) fn one_standard_input<'a>(
    arguments: impl IntoIterator<Item = &'a std::ffi::OsString>,
) -> anyhow::Result<()> {
    if arguments.into_iter().filter(|argument| argument.as_bytes() == b"-").count() > 1 {
        bail!("`-` can stand for standard input only once");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "1:2:3:4:5:6/7(FF)/A:B:C:D:E:F";

    fn place(text: &str) -> Place {
        Place::parse(OsStr::new(text)).unwrap()
    }

    #[test]
    fn paths_and_capabilities_are_told_apart() {
        let capability: Capability = TEXT.parse().unwrap();
        assert_eq!(place("docs/a"), Place::Path(b"docs/a".to_vec()));
        assert_eq!(place("/a/b/c"), Place::Path(b"/a/b/c".to_vec()));
        assert_eq!(place(TEXT), capability.into());
        assert_eq!(place(&format!("cap:{TEXT}")), capability.into());
        assert_eq!(place(&format!("{TEXT}/x/y")), Place::Capability(capability, b"x/y".to_vec(), None));
        assert_eq!(place(&format!("./{TEXT}")), Place::Path(format!("./{TEXT}").into_bytes()));
    }

    #[test]
    fn a_bad_argument_is_named_as_it_was_typed_but_no_secret() {
        let told = |text: &str| {
            let error = Place::parse(OsStr::new(text)).expect_err("it names nothing");
            crate::failure::report(&error, 1).text.expect("there is somebody to tell")
        };
        let first = |text: &str| told(text).lines().next().expect("it says something").to_owned();
        assert_eq!(first(""), "amoeba: the name is empty");
        assert_eq!(first("fd:99"), "amoeba: descriptor 99 is not open");
        assert_eq!(first("fd:x"), "amoeba: fd: wants the number of an open descriptor, as in fd:3");
        assert_eq!(first("@none.cap"), "amoeba: @none.cap: No such file or directory (os error 2)");
        assert_eq!(first("cap:nonsense"), "amoeba: cap:nonsense is no capability");
        assert_eq!(first("cap:A:B:C:D:E:F:G:H"), "amoeba: cap:A:B:C:D:E:F:... is no capability");
        assert_eq!(first("cap:1:2:3:4:5:6/7(FF)/A:B"), "amoeba: cap:1:2:3:4:5:6/7(FF)/... is no capability");
        assert!(told("cap:x").contains("hint: a capability is port/object(rights)/check"));
    }

    #[test]
    fn a_capability_from_a_file_goes_by_the_name_of_the_file() {
        let file = std::env::temp_dir().join(format!("amoeba-place-{}", std::process::id()));
        std::fs::write(&file, TEXT).expect("the temporary folder is ours");
        let typed = format!("@{}", file.display());
        let parsed = place(&typed);
        std::fs::remove_file(&file).expect("it is ours");
        assert_eq!((parsed.shown(), parsed.child(b"a").shown()), (typed.clone(), format!("{typed}/a")));
        assert!(parsed.last_name().is_empty());
        assert_eq!(Place::argument_shown(OsStr::new(&typed)), typed);
        assert_eq!(Place::argument_shown(OsStr::new(TEXT)), "1:2:3:4:5:6/7(FF)");
        assert_eq!(Place::argument_shown(OsStr::new("")), "''");
    }

    #[test]
    fn what_is_shown_of_a_capability_is_no_secret() {
        let shown = format!("{:?}", place(&format!("{TEXT}/x")));
        assert_eq!(shown, "1:2:3:4:5:6/7(FF)/x");
    }

    #[test]
    fn a_file_may_hold_a_capability_and_a_newline() {
        let read = |text: &str| read("it", text.as_bytes());
        let capability: Capability = TEXT.parse().unwrap();
        let read_place = Place::Capability(capability, Vec::new(), Some("it".into()));
        assert_eq!(read(&format!(" {TEXT}\n")).unwrap(), read_place);
        assert!(read("").is_err() && read(&"x".repeat(10_000)).is_err());
    }

    #[test]
    fn children_and_last_names() {
        assert_eq!(place("docs").child(b"a"), place("docs/a"));
        assert_eq!(place("docs/").child(b"a"), place("docs/a"));
        assert_eq!(place(TEXT).child(b"a"), place(&format!("{TEXT}/a")));
        assert_eq!(
            ["a/b", "a/b//", "a", "/"].map(|path| place(path).last_name().to_vec()),
            [&b"b"[..], b"b", b"a", b""].map(<[u8]>::to_vec)
        );
        assert_eq!(place("/a//b/c/").above(), [place("/a"), place("/a//b")]);
        assert_eq!(place("a").above(), []);
        assert!(place("a/").is_directory() && !place("a").is_directory());
    }

    #[test]
    fn no_argument_panics() {
        bolero::check!().for_each(|bytes: &[u8]| {
            // Only forms that read nothing from outside.
            if !matches!(bytes.first(), Some(b'-' | b'@' | b'f')) {
                let _ = Place::parse(OsStr::from_bytes(bytes)).map(|place| place.shown());
            }
        });
    }
}
