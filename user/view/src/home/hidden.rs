//! What no host ever sees of its caller, whichever trees are shown.

/// Names that are not there, wherever they lie: they hold keys and passwords.
const NAMES: &[&[u8]] = &[
    b".ssh",
    b".gnupg",
    b".aws",
    b".azure",
    b".kube",
    b".docker",
    b".netrc",
    b".pgpass",
    b".git-credentials",
    b".password-store",
    b".vault-token",
];
/// The same with the name of the directory they lie in.
const PAIRS: &[(&[u8], &[u8])] = &[
    (b".config", b"gcloud"),
    (b".config", b"gh"),
    (b".config", b"amoeba"),
    (b"share", b"keyrings"),
    (b"state", b"amoeba"),
    (b"lib", b"amoeba"),
];
/// How names begin that this program gives to what it has not finished.
pub(crate) const TEMPORARY: &[u8] = b".amoeba-";

/// Whether the components of a path lead to or through something that is not shown.
pub(crate) fn is_hidden(path: &[u8]) -> bool {
    let mut before: &[u8] = b"";
    path.split(|byte| *byte == b'/').any(|name| {
        let hidden = NAMES.contains(&name) || name.starts_with(TEMPORARY) || PAIRS.contains(&(before, name));
        before = name;
        hidden
    })
}

/// What may not lie in a directory for it to be called `name`, nor while it is called so: there it would not be shown, and
/// under another name it would.
pub(crate) fn hidden_below(name: &[u8]) -> impl Iterator<Item = &'static [u8]> {
    PAIRS.iter().filter(move |(above, _)| *above == name).map(|(_, below)| *below)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_hidden_because_of_where_it_lies_is_told_by_that_name() {
        let below = |name: &[u8]| hidden_below(name).collect::<Vec<_>>();
        assert_eq!(below(b".config"), [&b"gcloud"[..], b"gh", b"amoeba"]);
        assert!(below(b"config").is_empty());
        for (above, _) in PAIRS {
            for name in below(above) {
                assert!(is_hidden(&[above, &b"/"[..], name].concat()));
            }
        }
    }

    #[test]
    fn secrets_are_hidden_at_any_depth_and_with_all_they_hold() {
        for path in
            ["home/u/.ssh", ".ssh/id_ed25519", "a/.aws/credentials", "h/.config/gcloud/x", "x/.amoeba-1"]
        {
            assert!(is_hidden(path.as_bytes()), "{path}");
        }
        for path in ["home/u/ssh", "usr/share/keyrings-not", "a/.config/other", "gcloud", ""] {
            assert!(!is_hidden(path.as_bytes()), "{path}");
        }
    }
}
