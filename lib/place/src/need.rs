//! What is known of a process before it runs.

use std::time::Duration;

use amoeba_stubs::pool;

/// Options of a CPU that one need may name.
pub const OPTIONS_MAX: usize = pool::OPTIONS_MAX;
/// Hosts that one need may name as wanted, or as unwanted.
pub const WISHES_MAX: usize = pool::WISHES_MAX;
/// Processes that one decision can place.
pub const FIND_MAX: u32 = pool::FIND_MAX as u32;

/// A need that cannot be meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Bad {
    /// A name is too long, or not printable text.
    #[error("a name is too long or not printable")]
    Name,
    /// More options or hosts than one request can name.
    #[error("at most {OPTIONS_MAX} options and {WISHES_MAX} hosts can be named")]
    TooMany,
    /// No process, or more than [`FIND_MAX`], are to be placed.
    #[error("1 to {FIND_MAX} processes can be placed at once")]
    Count,
}

/// What is known of a process before it runs; zero or empty where nothing is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Need {
    /// CPU type and system the program is built for, as in `x86_64-linux`; empty: any.
    pub architecture: String,
    /// Options the CPU must have.
    pub options: Vec<String>,
    /// Bytes of memory it will use.
    pub memory: u64,
    /// Limits that its host must enforce, as the bits of class `process`.
    pub limits: u8,
    /// The same whenever the program is the same, and no part of a capability; zeros: no telling.
    pub program: [u8; 8],
    /// Bytes of the program and of what it always reads, if they must be fetched to the host it runs on, which keeps
    /// them; 0 for a host's own program.
    pub text: u64,
    /// Whether they lie on [`Need::here`], and need not be fetched to that host.
    pub text_here: bool,
    /// Bytes of files that must be brought to any host but [`Need::here`].
    pub ship: u64,
    /// How long it would run on an idle host; zero: what parameter WORK says.
    pub work: Duration,
    /// The client's own host.
    pub here: String,
    /// Processes that run on the client's own host now, as the client counts them: the load there is taken to be no less. Unless
    /// it is 0, what is placed there counts as among them from then on.
    pub busy: u32,
    /// If there are any: one of these hosts.
    pub only: Vec<String>,
    /// None of these hosts.
    pub avoid: Vec<String>,
}

impl Need {
    /// The record that travels. Lists that are too long are an error of the stub.
    pub fn to_record(&self) -> pool::Need {
        let bytes = |texts: &[String]| texts.iter().map(|text| text.as_bytes().to_vec()).collect();
        pool::Need {
            architecture: self.architecture.as_bytes().to_vec(),
            options: bytes(&self.options),
            memory: self.memory,
            limits: self.limits,
            program: self.program,
            text: self.text,
            text_here: self.text_here,
            ship: self.ship,
            work_milliseconds: u32::try_from(self.work.as_millis()).unwrap_or(u32::MAX),
            here: self.here.as_bytes().to_vec(),
            busy: self.busy,
            only: bytes(&self.only),
            avoid: bytes(&self.avoid),
        }
    }

    /// The need in a record that arrived.
    ///
    /// # Errors
    /// [`Bad::Name`]: not UTF-8, or not printable: these names come back in texts for people.
    pub fn from_record(record: pool::Need) -> Result<Need, Bad> {
        let texts = |texts: Vec<Vec<u8>>| texts.into_iter().map(printable).collect::<Result<Vec<_>, Bad>>();
        let need = Need {
            architecture: printable(record.architecture)?,
            options: texts(record.options)?,
            memory: record.memory,
            limits: record.limits,
            program: record.program,
            text: record.text,
            text_here: record.text_here,
            ship: record.ship,
            work: Duration::from_millis(record.work_milliseconds.into()),
            here: printable(record.here)?,
            busy: record.busy,
            only: texts(record.only)?,
            avoid: texts(record.avoid)?,
        };
        need.check().map(|()| need)
    }

    /// Whether it keeps to its bounds.
    ///
    /// # Errors
    /// See [`Bad`].
    pub fn check(&self) -> Result<(), Bad> {
        if [&self.only, &self.avoid].into_iter().any(|hosts| hosts.len() > WISHES_MAX)
            || self.options.len() > OPTIONS_MAX
        {
            return Err(Bad::TooMany);
        }
        let short = |text: &String| text.len() <= pool::ARCHITECTURE_SIZE_MAX && is_printable(text);
        let named = |text: &String| text.len() <= pool::NAME_MAX && is_printable(text);
        let good = self.options.iter().chain([&self.architecture]).all(short)
            && self.only.iter().chain(&self.avoid).chain([&self.here]).all(named);
        if good { Ok(()) } else { Err(Bad::Name) }
    }
}

/// Whether a name may be shown to people as it is.
pub(crate) fn is_printable(text: &str) -> bool {
    !text.chars().any(char::is_control)
}

fn printable(bytes: Vec<u8>) -> Result<String, Bad> {
    String::from_utf8(bytes).ok().filter(|text| is_printable(text)).ok_or(Bad::Name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_need_travels_and_comes_back() {
        let need = Need {
            architecture: "x86_64-linux".into(),
            options: vec!["avx2".into()],
            memory: 1,
            limits: 5,
            program: [2; 8],
            text: 3,
            text_here: true,
            ship: 4,
            work: Duration::from_millis(5),
            here: "anvil".into(),
            busy: 6,
            only: vec!["bolt".into()],
            avoid: vec!["cask".into(), "grüße".into()],
        };
        assert_eq!(Need::from_record(need.to_record()), Ok(need));
    }

    #[test]
    fn what_would_spoil_a_text_or_a_bound_is_refused() {
        let record = |name: &[u8]| pool::Need { here: name.to_vec(), ..Need::default().to_record() };
        for bad in [&b"\x1b[2J"[..], b"a\nb", b"\xff", &[b'x'; 256]] {
            assert_eq!(Need::from_record(record(bad)), Err(Bad::Name), "{bad:?}");
        }
        let many = Need { avoid: vec![String::new(); WISHES_MAX + 1], ..Need::default() };
        assert_eq!(many.check(), Err(Bad::TooMany));
    }
}
