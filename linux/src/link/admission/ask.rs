//! The host that joins: it asks, and asks again until it is answered or time is up.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use amoeba_cap::SystemSecret;
use amoeba_seal::{Handshake, Identity, Psk, Session, Suite, is_same};
use amoeba_threads::Instant;
use amoeba_world::{Entropy, random};

use super::desk::said;
use super::token::Token;
use super::wire::{
    Answer, Body, Datagram, Introduction, JOIN_PADDING, MEMBERS_MAX, Question, Row, Why, join_tag,
    refused_tag,
};
use super::{NAME_SIZE_MAX, is_name};
use crate::threads::now;

/// How long a host is asked before it counts as not there.
pub const JOIN_TIME: Duration = Duration::from_secs(8);
/// How long the inviter may take to write the row of its new host.
const CONFIRM_TIME: Duration = Duration::from_secs(30);
/// Time between two questions that are the same.
const ASK_INTERVAL: Duration = Duration::from_millis(250);
/// Time between two looks whether the token is noted, and whether the row is written.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// How a host joins.
pub struct AskConfig<'a> {
    /// What it was invited with.
    pub token: &'a Token,
    /// Its own identity, the same at each try.
    pub identity: &'a Identity,
    /// What it is to be called.
    pub name: &'a str,
    /// Whether no other name will do.
    pub chosen: bool,
    /// Where its own link will listen, at most [`super::ADDRESSES_MAX`].
    pub addresses: &'a [SocketAddr],
    /// Keys of the handshake.
    pub entropy: Arc<dyn Entropy>,
}

/// What a host needs that was taken in.
pub struct Joined {
    /// The system's secret.
    pub secret: SystemSecret,
    /// The root capability, as text.
    pub root_capability: String,
    /// What this host is called now.
    pub name: String,
    /// The host that took it in.
    pub inviter: String,
    /// The hosts of the system, the inviter among them.
    pub members: Vec<Row>,
}

/// The host was not taken in.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// Not a name for a host.
    #[error(
        "{0:?} cannot be a host's name: it has 1 to {NAME_SIZE_MAX} bytes, without '/' or control characters"
    )]
    Name(String),
    /// The token names no address.
    #[error("the token names no address")]
    NoAddress,
    /// Nobody answered.
    #[error("nobody answers at {}", shown(.0))]
    Silent(Vec<SocketAddr>),
    /// Nobody answered but somebody who is not the host that has made the token.
    #[error("another host answers at {0} than the one that has made the token")]
    Stranger(SocketAddr),
    /// The token is of no use; whoever said so has proved that it knows it.
    #[error("{0}")]
    Token(String),
    /// The host there does not know the token. It could not prove that it is the right one.
    #[error("the host at {0} does not know this token: it was revoked, or made by another host or long ago")]
    Unknown(SocketAddr),
    /// The inviter said no, and why.
    #[error("{inviter} refuses: {reason}")]
    Refused {
        /// Where.
        inviter: SocketAddr,
        /// Why.
        reason: String,
    },
    /// The inviter does not say whether this host is a member.
    #[error("the host at {0} answers, but does not confirm that this host is a member")]
    Unconfirmed(SocketAddr),
    /// The operating system refused.
    #[error("cannot ask {address}: {source}")]
    Io {
        /// Whom.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

fn shown(addresses: &[SocketAddr]) -> String {
    addresses.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(", ")
}

/// A host that has what it needs and is no member yet.
pub struct Pending(Conversation);

impl Pending {
    /// Says that everything was kept, and waits until this host is a member. Blocks for at most half a minute.
    ///
    /// # Errors
    /// The inviter refuses, or is silent: then the host may ask again with the same token and identity.
    pub fn confirm(mut self) -> Result<(), JoinError> {
        let deadline = now() + CONFIRM_TIME;
        while now() < deadline {
            match self.0.ask(Question::Confirm, deadline)? {
                Answer::Done => return Ok(()),
                _ => std::thread::sleep(LOOK_INTERVAL),
            }
        }
        Err(JoinError::Unconfirmed(self.0.address))
    }
}

/// Asks the host that has made the token to take this one in. Blocks for at most [`JOIN_TIME`] a step. This host is no
/// member before [`Pending::confirm`].
///
/// # Errors
/// See [`JoinError`].
pub fn ask(config: &AskConfig<'_>) -> Result<(Joined, Pending), JoinError> {
    if !is_name(config.name) {
        return Err(JoinError::Name(config.name.to_owned()));
    }
    let mut conversation = meet(config)?;
    let deadline = now() + JOIN_TIME;
    let (secret, root_capability, inviter, name, count) = loop {
        match conversation.ask(Question::Welcome, deadline)? {
            Answer::Welcome { secret, root, inviter, name, members } => {
                break (SystemSecret::from_bytes(secret), root, inviter, name, members);
            }
            // It does not say anything before it has noted whom the token is for.
            _ if now() + LOOK_INTERVAL < deadline => std::thread::sleep(LOOK_INTERVAL),
            _ => return Err(JoinError::Unconfirmed(conversation.address)),
        }
    };
    let mut members: Vec<Row> = Vec::new();
    while members.len() < usize::from(count).min(MEMBERS_MAX) {
        let from = u16::try_from(members.len()).expect("members are few");
        match conversation.ask(Question::Members(from), deadline)? {
            Answer::Members { from: start, rows } if start == from => {
                if rows.is_empty() {
                    break; // one was removed meanwhile
                }
                members.extend(rows);
            }
            _ => {}
        }
    }
    Ok((Joined { secret, root_capability, name, inviter, members }, Pending(conversation)))
}

/// A sealed conversation with the inviter.
struct Conversation {
    socket: UdpSocket,
    address: SocketAddr,
    attempt: u64,
    /// The last message of the handshake, said again with every question: it may have been lost.
    prove: Vec<u8>,
    session: Session,
}

impl Conversation {
    /// Asks until there is an answer.
    fn ask(&mut self, question: Question, deadline: Instant) -> Result<Answer, JoinError> {
        let address = self.address;
        let failed = |source| JoinError::Io { address, source };
        let mut scratch = [0; 4096];
        loop {
            if now() >= deadline {
                return Err(JoinError::Silent(vec![self.address]));
            }
            let mut sealed = Vec::new();
            let done = self.session.seal(now(), &[&question.emit()], &mut sealed);
            done.expect("a short conversation does not exhaust its keys");
            let datagram = Datagram { attempt: self.attempt, body: Body::Sealed { sealed: &sealed } }.emit();
            for bytes in [&self.prove, &datagram] {
                self.socket.send(bytes).or_else(patient).map_err(failed)?;
            }
            let again = now() + ASK_INTERVAL;
            while now() < again {
                let Some(size) = receive(&self.socket, &mut scratch, again).map_err(failed)? else {
                    continue;
                };
                match self.answer_in(&scratch[..size]) {
                    Some(Answer::Refused { reason }) => {
                        return Err(JoinError::Refused { inviter: self.address, reason });
                    }
                    Some(Answer::Useless(why)) => return Err(JoinError::Token(said(why))),
                    Some(answer) => return Ok(answer),
                    None => {}
                }
            }
        }
    }

    fn answer_in(&mut self, bytes: &[u8]) -> Option<Answer> {
        match Datagram::parse(bytes).ok()? {
            Datagram { attempt, body: Body::Sealed { sealed } } if attempt == self.attempt => {
                let mut sealed = sealed.to_vec();
                Answer::parse(self.session.open(now(), &mut sealed).ok()?.content).ok()
            }
            _ => None,
        }
    }
}

/// One address that is tried: the handshake is its own, for each address may be another host.
struct Try {
    address: SocketAddr,
    socket: UdpSocket,
    attempt: u64,
    handshake: Option<Handshake>,
    join: Vec<u8>,
}

/// Shakes hands with the first address where the right host answers.
fn meet(config: &AskConfig<'_>) -> Result<Conversation, JoinError> {
    let token = config.token;
    let mut failure = JoinError::Silent(token.addresses.clone());
    let mut tries = Vec::new();
    for &address in &token.addresses {
        match Try::begin(config, address) {
            Ok(one) => tries.push(one),
            Err(source) => failure = JoinError::Io { address, source },
        }
    }
    if token.addresses.is_empty() {
        return Err(JoinError::NoAddress);
    }
    let deadline = now() + JOIN_TIME;
    while now() < deadline && !tries.is_empty() {
        for one in &tries {
            // A host that is just starting refuses at first, and another way may be open.
            let _ = one.socket.send(&one.join);
        }
        let again = now() + ASK_INTERVAL;
        while now() < again && !tries.is_empty() {
            for index in (0..tries.len()).rev() {
                match tries[index].listen(config) {
                    Ok(None) => {}
                    Ok(Some(prove)) => return Ok(tries.swap_remove(index).converse(prove)),
                    Err(error @ JoinError::Token(_)) => return Err(error),
                    Err(error) => {
                        if matches!(error, JoinError::Stranger(_)) {
                            tries.swap_remove(index);
                        }
                        failure = error;
                    }
                }
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    Err(failure)
}

impl Try {
    fn begin(config: &AskConfig<'_>, address: SocketAddr) -> io::Result<Try> {
        let any = match address {
            SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
        };
        let socket = UdpSocket::bind(any)?;
        socket.connect(address)?;
        socket.set_nonblocking(true)?;
        let token = config.token;
        let attempt = u64::from_le_bytes(random(&*config.entropy));
        let mut handshake = Handshake::join(config.identity, &Psk::of_token(&token.secret), &config.entropy);
        let mut message = Vec::new();
        handshake.write(&[0; JOIN_PADDING], &mut message).expect("the first message is ours and fits");
        let tag = join_tag(&token.secret, attempt, token.id, &message);
        let join = Datagram { attempt, body: Body::Join { id: token.id, tag, message: &message } }.emit();
        Ok(Try { address, socket, attempt, handshake: Some(handshake), join })
    }

    /// Looks whether the host there has answered; the third message when it is the right one.
    fn listen(&mut self, config: &AskConfig<'_>) -> Result<Option<(Vec<u8>, Handshake)>, JoinError> {
        let mut scratch = [0; 4096];
        let Ok(size) = self.socket.recv(&mut scratch) else { return Ok(None) };
        let Ok(datagram) = Datagram::parse(&scratch[..size]) else { return Ok(None) };
        if datagram.attempt != self.attempt {
            return Ok(None);
        }
        match datagram.body {
            Body::Meet { message } => self.met(config, message),
            Body::Refused { why, tag } => {
                if is_same(&tag, &refused_tag(&config.token.secret, self.attempt, why)) {
                    Err(JoinError::Token(said(why)))
                } else if why == Why::Unknown {
                    Err(JoinError::Unknown(self.address))
                } else {
                    Ok(None)
                }
            }
            _ => Ok(None),
        }
    }

    fn met(
        &mut self,
        config: &AskConfig<'_>,
        message: &[u8],
    ) -> Result<Option<(Vec<u8>, Handshake)>, JoinError> {
        let Some(mut handshake) = self.handshake.take() else { return Ok(None) };
        if handshake.read(message).is_err() {
            self.handshake = Some(handshake); // the right one may still come
            return Ok(None);
        }
        if handshake.peer() != Some(config.token.key) {
            return Err(JoinError::Stranger(self.address)); // this try is over: the handshake is gone
        }
        let (name, chosen) = (config.name.to_owned(), config.chosen);
        let introduction = Introduction { name, chosen, addresses: config.addresses.to_vec() };
        let mut message = Vec::new();
        handshake.write(&introduction.emit(), &mut message).expect("an introduction fits a message");
        let prove = Datagram { attempt: self.attempt, body: Body::Prove { message: &message } }.emit();
        Ok(Some((prove, handshake)))
    }

    fn converse(self, (prove, handshake): (Vec<u8>, Handshake)) -> Conversation {
        let keys = handshake.finish(Suite::ChaCha20Poly1305).expect("its last message was just written");
        let Try { socket, address, attempt, .. } = self;
        Conversation { socket, address, attempt, prove, session: Session::new(now(), &keys, 0) }
    }
}

/// Waits for a datagram until `until`.
fn receive(socket: &UdpSocket, scratch: &mut [u8], until: Instant) -> io::Result<Option<usize>> {
    loop {
        match socket.recv(scratch) {
            Ok(size) => return Ok(Some(size)),
            Err(error) => patient(error)?,
        };
        if now() >= until {
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Errors that pass by themselves: nobody listens there at the moment, or there is no room.
fn patient(error: io::Error) -> io::Result<usize> {
    match error.kind() {
        ErrorKind::WouldBlock
        | ErrorKind::TimedOut
        | ErrorKind::Interrupted
        | ErrorKind::ConnectionRefused => Ok(0),
        _ => Err(error),
    }
}
