//! How a failure reaches the person: one line that says what and why, one that says what to do next, one exit code.

use std::fmt;
use std::io;

use amoeba_name::NameError;
use amoeba_wire::Status;
use amoeba_world::Error as Refusal;

use crate::progress::Interrupted;

/// The exit code of most failures.
pub(crate) const FAILED: u8 = 1;
/// The request may have been executed: whoever tries again must look first. The same number as EX_TEMPFAIL.
pub(crate) const MAY_HAVE_RUN: u8 = 75;
/// The reader of our output has gone: what a shell shows for SIGPIPE.
const BROKEN_PIPE: u8 = 141;

/// A signal ended the work: its number is added, as a shell does.
const INTERRUPTED: u8 = 128;

/// The next step, to be put into an `anyhow::Error` as context. It is printed apart from the error itself.
///
/// The binary uses it too, for the errors of its [`crate::System`].
#[derive(Clone, Debug)]
pub struct Hint(pub String);

impl fmt::Display for Hint {
    // Empty, so that the chain of causes does not repeat what is printed below it.
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}

/// The exit code that an error asks for, to be put into an `anyhow::Error` as context.
#[derive(Clone, Copy, Debug)]
pub struct Code(pub u8);

impl fmt::Display for Code {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}

/// All that went wrong has been told; the exit code is left to say.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("some of it failed")]
pub(crate) struct Told(pub(crate) u8);

/// Adds the next step, or the exit code, to an error.
pub(crate) trait Advise<T> {
    fn hint(self, next_step: impl Into<String>) -> anyhow::Result<T>;
    fn code(self, code: u8) -> anyhow::Result<T>;
}

impl<T, E: Into<anyhow::Error>> Advise<T> for Result<T, E> {
    fn hint(self, next_step: impl Into<String>) -> anyhow::Result<T> {
        self.map_err(|error| error.into().context(Hint(next_step.into())))
    }

    fn code(self, code: u8) -> anyhow::Result<T> {
        self.map_err(|error| error.into().context(Code(code)))
    }
}

/// What is printed of an error, and the exit code. `None` for text: there is nobody left to tell.
pub(crate) struct Report {
    pub(crate) text: Option<String>,
    pub(crate) code: u8,
}

/// What to print of `error`, and which code to exit with when nothing in it says otherwise.
pub(crate) fn report(error: &anyhow::Error, otherwise: u8) -> Report {
    let broken = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    };
    if let Some(Told(code)) = error.downcast_ref() {
        return Report { text: None, code: *code };
    }
    if error.chain().any(broken) {
        return Report { text: None, code: BROKEN_PIPE };
    }
    if let Some(signal) = error.chain().find_map(interrupt_in) {
        let code = INTERRUPTED + u8::try_from(signal).unwrap_or(0);
        return Report { text: Some("amoeba: interrupted\n".into()), code };
    }
    let causes: Vec<String> =
        error.chain().map(ToString::to_string).filter(|text| !text.is_empty()).collect();
    let mut text = format!("amoeba: {}\n", said_once(shortened(causes).join(": ")));
    let refusal = refusal(error);
    let hint = error.downcast_ref::<Hint>().map(|hint| hint.0.as_str());
    let unavailable = error.chain().any(|cause| matches!(cause.downcast_ref(), Some(NameError::Unavailable)));
    let advised =
        if unavailable { advice(Refusal::NotSent(Status::RPC_NOTFOUND)) } else { refusal.and_then(advice) };
    if let Some(hint) = hint.or(advised) {
        text.push_str(&format!("hint: {hint}\n"));
    }
    let may_have_run = matches!(refusal, Some(Refusal::MaybeExecuted(_)));
    let code = error.downcast_ref::<Code>().map(|code| code.0);
    Report { text: Some(text), code: code.unwrap_or(if may_have_run { MAY_HAVE_RUN } else { otherwise }) }
}

fn interrupt_in(cause: &(dyn std::error::Error + 'static)) -> Option<i32> {
    let error = cause.downcast_ref::<io::Error>()?.get_ref()?;
    Some(error.downcast_ref::<Interrupted>()?.0)
}

/// The transaction that failed, if that is what failed.
pub(crate) fn refusal(error: &anyhow::Error) -> Option<Refusal> {
    error.downcast_ref::<Refusal>().copied().or_else(|| error.chain().find_map(refusal_in))
}

fn refusal_in(cause: &(dyn std::error::Error + 'static)) -> Option<Refusal> {
    if let Some(error) = cause.downcast_ref::<NameError>() {
        return match error {
            NameError::Transaction(refusal) => Some(*refusal),
            _ => None,
        };
    }
    if let Some(error) = cause.downcast_ref::<io::Error>() {
        return refusal_in(error.get_ref()?);
    }
    cause.downcast_ref::<Refusal>().copied()
}

/// The causes without those that the one before them has told already, as errors do that print their source.
fn shortened(causes: Vec<String>) -> Vec<String> {
    let mut kept: Vec<String> = Vec::new();
    for cause in causes {
        if !kept.last().is_some_and(|last| last.ends_with(&cause)) {
            kept.push(cause);
        }
    }
    kept
}

/// The text without saying twice that a request may have been executed, as the error and its status both do.
fn said_once(text: String) -> String {
    let twice = Refusal::MaybeExecuted(Status::RPC_FAILURE).to_string();
    text.replace(
        &twice,
        "may have been executed: the server or the network failed after sending (RPC_FAILURE)",
    )
}

/// What to do about a refusal when the command knows nothing better.
fn advice(refusal: Refusal) -> Option<&'static str> {
    if matches!(refusal, Refusal::MaybeExecuted(_)) {
        return Some(
            "nobody knows whether it was done: look before you do it again (`amoeba ls`, `stat`; `ps -a`, `logs`)",
        );
    }
    match refusal.status() {
        Status::RPC_NOTFOUND => Some("its server does not run or cannot be reached: see `amoeba status`"),
        Status::RPC_TRYAGAIN | Status::STD_NOTNOW => Some("try again in a moment"),
        Status::STD_CAPBAD => {
            Some("the object was destroyed, or the capability was revoked, is expired or is mistyped")
        }
        Status::STD_DENIED => Some("permission denied: ask the owner for a capability with more rights"),
        Status::STD_NOSPACE => Some(
            "remove what is no longer needed (`amoeba rm --destroy`); `amoeba df` and `amoeba doctor` tell what is full",
        ),
        Status::STD_SYSERR => Some(
            "its server's log says why (`amoeba status` tells where); of a file, `amoeba fsck` tells whether it is damaged",
        ),
        Status::STD_COMBAD => Some("the object is of another kind: see `amoeba stat`"),
        Status::SP_CLASH => Some("somebody else was faster: look at the name again"),
        Status::SP_NOTEMPTY => Some("`amoeba rm -r` removes a directory with what is in it"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    fn told(error: anyhow::Error) -> (String, u8) {
        let report = report(&error, FAILED);
        (report.text.unwrap_or_default(), report.code)
    }

    #[test]
    fn an_error_says_what_why_and_the_next_step() {
        let error = Err::<(), _>(Refusal::Refused(Status::STD_DENIED)).context("docs/a");
        let text = "amoeba: docs/a: the capability lacks a right (STD_DENIED)\n\
                    hint: permission denied: ask the owner for a capability with more rights\n";
        assert_eq!(told(error.unwrap_err()), (text.into(), 1));
    }

    #[test]
    fn a_hint_and_a_code_of_its_own_come_first() {
        let error =
            Err::<(), _>(Refusal::NotSent(Status::RPC_NOTFOUND)).hint("start it").code(9).context("x");
        let (text, code) = told(error.unwrap_err());
        assert_eq!(text.lines().last(), Some("hint: start it"));
        assert!(text.starts_with("amoeba: x: not executed"), "{text}");
        assert_eq!(code, 9);
    }

    #[test]
    fn what_may_have_run_is_75_also_inside_an_input_error() {
        let refusal = Refusal::MaybeExecuted(Status::RPC_FAILURE);
        let (text, _) = told(anyhow::Error::from(refusal).context("docs/a"));
        assert_eq!(text.matches("may have been executed").count(), 1, "{text}");
        assert!(text.contains("\nhint: nobody knows whether it was done"), "{text}");
        assert_eq!(told(refusal.into()).1, 75);
        assert_eq!(told(io::Error::other(refusal).into()).1, 75);
    }

    #[test]
    fn an_interrupt_has_the_code_of_its_signal() {
        let error = anyhow::Error::from(io::Error::other(Interrupted(15))).context("big");
        assert_eq!(told(error), ("amoeba: interrupted\n".into(), 143));
    }

    #[test]
    fn a_reader_that_has_gone_is_told_nothing() {
        let error = anyhow::Error::from(io::Error::from(io::ErrorKind::BrokenPipe)).context("stdout");
        assert_eq!(told(error), (String::new(), 141));
    }
}
