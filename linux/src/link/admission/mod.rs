//! Taking hosts into a system: the token of an invitation, the desk of the host that invites, and the host that asks.
//!
//! A host joins by Noise `XXpsk3`: it proves that it has the token, and the inviter proves that it is the host whose key the
//! token names. Only then does the system's secret leave the inviter. [`Token`] is what a person pastes, [`Desk`] what the
//! inviter's link asks, [`ask()`] what the joining host does; the bytes are in `wire`.

mod ask;
mod desk;
mod invites;
#[cfg(test)]
mod tests;
mod token;
mod wire;

pub use ask::{AskConfig, JOIN_TIME, JoinError, Joined, Pending, ask};
pub use desk::{Candidate, Desk, DeskConfig, VISITS_MAX};
pub use invites::{INVITES_MAX, Invite, InviteState};
pub use token::{ID_SIZE, InviteId, SECRET_SIZE, TOKEN_ADDRESSES_MAX, Token, TokenError};
pub use wire::{ADDRESSES_MAX, MEMBERS_MAX, NAME_SIZE_MAX, Row};
pub(crate) use wire::{get_address, get_row, get_rows, get_text, put_address, put_row, put_rows};

/// Whether a host may be called so: 1 to [`NAME_SIZE_MAX`] bytes without '/' and control characters.
pub fn is_name(name: &str) -> bool {
    let bad = |char: char| char.is_control() || char == '/';
    !name.is_empty() && name.len() <= NAME_SIZE_MAX && !name.contains(bad) && name != "." && name != ".."
}
