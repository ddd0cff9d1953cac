//! `a | b | c` in one word: the words of each command, as a shell's simple commands have them, and nothing else of a
//! shell.

/// What shells give a meaning that we do not.
const SPECIAL: &[char] = &[';', '&', '<', '>', '(', ')', '$', '`', '*', '?', '[', '~', '#', '!', '\n'];

/// Why a text is no pipeline of simple commands.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoPipeline {
    #[error("{0:?} has a meaning only in a shell")]
    Special(char),
    #[error("a quote is not closed")]
    OpenQuote,
    #[error("a command is missing on one side of a `|`")]
    Empty,
}

/// Whether `text` has a `|` that no quote protects.
pub(super) fn is_pipeline(text: &str) -> bool {
    let mut quote = None;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match (quote, character) {
            (None, '|') => return true,
            (None | Some('"'), '\\') => drop(characters.next()),
            (None, '\'' | '"') => quote = Some(character),
            (Some(open), close) if open == close => quote = None,
            _ => {}
        }
    }
    false
}

/// The commands of a pipeline, each at least one word.
pub(super) fn parse(text: &str) -> Result<Vec<Vec<String>>, NoPipeline> {
    let mut commands = vec![Vec::new()];
    let mut word: Option<String> = None;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            ' ' | '\t' | '|' => {
                let command = commands.last_mut().expect("it begins with one");
                command.extend(word.take());
                if character == '|' {
                    if command.is_empty() {
                        return Err(NoPipeline::Empty);
                    }
                    commands.push(Vec::new());
                }
            }
            '\'' => single_quoted(&mut characters, word.get_or_insert_default())?,
            '"' => double_quoted(&mut characters, word.get_or_insert_default())?,
            '\\' => word.get_or_insert_default().push(characters.next().ok_or(NoPipeline::OpenQuote)?),
            // In a shell this sets a variable; here nobody would.
            '=' if commands.last().is_some_and(Vec::is_empty) => return Err(NoPipeline::Special('=')),
            special if is_special(special, word.as_deref()) => return Err(NoPipeline::Special(special)),
            plain => word.get_or_insert_default().push(plain),
        }
    }
    let last = commands.last_mut().expect("it begins with one");
    last.extend(word);
    if last.is_empty() { Err(NoPipeline::Empty) } else { Ok(commands) }
}

/// Some signs are special only where a word begins.
fn is_special(character: char, word: Option<&str>) -> bool {
    match character {
        '#' | '~' | '!' => word.is_none(),
        other => SPECIAL.contains(&other),
    }
}

fn single_quoted(characters: &mut std::str::Chars<'_>, word: &mut String) -> Result<(), NoPipeline> {
    for character in characters {
        match character {
            '\'' => return Ok(()),
            plain => word.push(plain),
        }
    }
    Err(NoPipeline::OpenQuote)
}

fn double_quoted(characters: &mut std::str::Chars<'_>, word: &mut String) -> Result<(), NoPipeline> {
    while let Some(character) = characters.next() {
        match character {
            '"' => return Ok(()),
            '\\' => match characters.next().ok_or(NoPipeline::OpenQuote)? {
                escaped @ ('"' | '\\' | '$' | '`') => word.push(escaped),
                other => word.extend(['\\', other]),
            },
            '$' | '`' => return Err(NoPipeline::Special(character)),
            plain => word.push(plain),
        }
    }
    Err(NoPipeline::OpenQuote)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Vec<Vec<String>> {
        parse(text).unwrap()
    }

    #[test]
    fn commands_and_their_words() {
        assert_eq!(parsed("a | b"), [["a"], ["b"]]);
        assert_eq!(
            parsed("cat x|grep -v 'a b' | wc -l"),
            [vec!["cat", "x"], vec!["grep", "-v", "a b"], vec!["wc", "-l"]]
        );
        assert_eq!(
            parsed(r#"a "" 'x|y' "it's \"so\" \n" b\ c"#),
            [["a", "", "x|y", r#"it's "so" \n"#, "b c"]]
        );
        assert_eq!(parsed("dd if=/dev/zero | xargs -I{} echo a#b {}")[0], ["dd", "if=/dev/zero"]);
    }

    #[test]
    fn a_pipeline_has_a_bar_outside_of_quotes() {
        for text in ["a|b", "a | b", "'x' | y", r"a \' | b"] {
            assert!(is_pipeline(text), "{text}");
        }
        for text in ["a", "a b", "'a|b'", r#""a|b""#, r"a\|b", "'a | b"] {
            assert!(!is_pipeline(text), "{text}");
        }
    }

    #[test]
    fn what_needs_a_shell_is_refused() {
        for (text, sign) in [
            ("a | b > c", '>'),
            ("a && b | c", '&'),
            ("a | b; c", ';'),
            ("echo $HOME | cat", '$'),
            ("echo \"$HOME\" | cat", '$'),
            ("ls *.c | wc", '*'),
            ("X=1 a | b", '='),
            ("a | (b)", '('),
            ("a | # b", '#'),
        ] {
            assert_eq!(parse(text), Err(NoPipeline::Special(sign)), "{text}");
        }
        for text in ["a ||b", "| a", "a |", "a | | b", ""] {
            assert_eq!(parse(text), Err(NoPipeline::Empty), "{text}");
        }
        for text in ["a | 'b", "a | \"b", "a | b\\"] {
            assert_eq!(parse(text), Err(NoPipeline::OpenQuote), "{text}");
        }
    }

    #[test]
    fn no_text_panics() {
        bolero::check!().for_each(|bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes);
            if let Ok(commands) = parse(&text) {
                assert!(commands.iter().all(|words| !words.is_empty()));
                assert_eq!(commands.len() > 1, is_pipeline(&text));
            }
        });
    }
}
