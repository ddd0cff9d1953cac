//! A kernel that runs is told which hosts there are, opens its link, and takes hosts in; but only by who may say so.

use std::net::SocketAddr;
use std::time::Duration;

use amoeba_cap::SystemSecret;
use amoeba_linux::kernel::Config;
use amoeba_linux::link::admission::{
    AskConfig, Candidate, Desk, DeskConfig, Invite, InviteId, InviteState, JoinError, Row, Token, ask,
};
use amoeba_linux::link::{UdpConfig, UdpLink};
use amoeba_linux::socket::{Admin, Administered};
use amoeba_seal::{Identity, PublicKey};
use amoeba_wire::Status;
use amoeba_world::Error;

mod common;

use common::System;

const SECRET: [u8; 32] = [42; 32];
const INVITER: [u8; 32] = [1; 32];

fn secret() -> SystemSecret {
    SystemSecret::from_bytes(SECRET)
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// A kernel with a desk, whose link is not open yet.
fn with_desk(config: &mut Config) {
    config.desk = Some(Desk::new(DeskConfig {
        identity: Identity::from_bytes(INVITER),
        name: "anvil".into(),
        secret: secret(),
        root: "root".into(),
        entropy: amoeba_linux::entropy(),
    }));
    config.open_link = Some(Box::new(|listen| {
        let identity = Identity::from_bytes(INVITER);
        let link = UdpLink::bind(UdpConfig {
            listen,
            identity,
            secret: secret(),
            entropy: amoeba_linux::entropy(),
        })?;
        let listening = link.local_address();
        Ok((Box::new(link), listening))
    }));
}

#[test]
fn only_who_has_the_systems_secret_says_which_hosts_there_are() {
    let system = System::start_with("hosts-proof", with_desk);
    let stranger = SystemSecret::from_bytes([43; 32]);
    let row = Row { name: "mallory".into(), key: PublicKey::from_bytes([6; 32]), addresses: vec![local(9)] };
    let questions = [
        Admin::OpenLink(local(0)),
        Admin::Members(vec![row]),
        Admin::Invites(Vec::new()),
        Admin::Candidates,
        Admin::Settle { visit: 1, result: Ok(()) },
    ];
    for question in questions {
        let answer = system.client().administer(&stranger, &question);
        assert_eq!(answer, Err(Error::Refused(Status::STD_DENIED)), "{question:?}");
    }
    assert!(!system.client().kernel_status().unwrap().contains("link udp"), "nothing was opened");
    assert_eq!(
        system.client().administer(&secret(), &Admin::Candidates),
        Ok(Administered::Candidates(Vec::new()))
    );
}

#[test]
fn a_kernel_without_a_way_to_other_hosts_says_so() {
    let system = System::start("hosts-none");
    let answer = system.client().administer(&secret(), &Admin::OpenLink(local(0)));
    assert!(matches!(answer, Ok(Administered::Refused(_))), "{answer:?}");
    let answer = system.client().administer(&secret(), &Admin::Invites(Vec::new()));
    assert!(matches!(answer, Ok(Administered::Refused(_))), "{answer:?}");
}

/// The next candidate of a kernel that wants to be a member; the tokens are kept for all of them.
fn candidate(system: &System) -> Candidate {
    loop {
        match system.client().administer(&secret(), &Admin::Candidates) {
            Ok(Administered::Candidates(candidates)) if !candidates.is_empty() => {
                let candidate = candidates.into_iter().next().expect("there is one");
                if candidate.confirmed {
                    return candidate;
                }
                let settle = Admin::Settle { visit: candidate.visit, result: Ok(()) };
                system.client().administer(&secret(), &settle).unwrap();
            }
            Ok(Administered::Candidates(_)) => std::thread::sleep(Duration::from_millis(5)),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_link_is_opened_in_a_kernel_that_runs_and_a_host_taken_in() {
    let system = System::start_with("hosts-join", with_desk);
    let administer = |request: &Admin| system.client().administer(&secret(), request).unwrap();
    let Administered::Opened(address) = administer(&Admin::OpenLink(local(0))) else {
        panic!("it is opened")
    };
    assert_eq!(administer(&Admin::OpenLink(local(0))), Administered::Opened(address), "and once is enough");
    let (inviter, guest) = (Identity::from_bytes(INVITER).public(), Identity::from_bytes([2; 32]));
    let id = InviteId([7; 8]);
    let invite =
        Invite { id, secret: [8; 16], name: None, state: InviteState::Open(Duration::from_secs(60)) };
    administer(&Admin::Invites(vec![invite]));
    let own = Row { name: "anvil".into(), key: inviter, addresses: vec![address] };
    administer(&Admin::Members(vec![own.clone()]));
    let token = Token { id, secret: [8; 16], key: inviter, addresses: vec![address] };
    let addresses = [local(7)];
    let join = |name| {
        ask(&AskConfig {
            token: &token,
            identity: &guest,
            name,
            chosen: true,
            addresses: &addresses,
            entropy: amoeba_linux::entropy(),
        })
    };
    // The directory has another host of this name: the supervisor says no.
    let joining = |name: &'static str| {
        let join = &join;
        std::thread::scope(|scope| {
            let visitor = scope.spawn(move || {
                let (joined, pending) = join(name).unwrap();
                (joined, std::thread::spawn(move || pending.confirm()))
            });
            let candidate = candidate(&system);
            let (joined, confirming) = visitor.join().unwrap();
            (joined, confirming, candidate)
        })
    };
    let (_, confirming, Candidate { visit, invite, row, .. }) = joining("bolt");
    assert_eq!((invite, row.name.as_str(), row.key), (id, "bolt", guest.public()));
    administer(&Admin::Settle { visit, result: Err("taken".into()) });
    let refused = confirming.join().unwrap();
    assert!(matches!(&refused, Err(JoinError::Refused { reason, .. }) if reason == "taken"), "{refused:?}");
    // With another name it says yes.
    let (joined, confirming, Candidate { visit, .. }) = joining("chisel");
    assert_eq!((joined.secret.to_bytes(), joined.members), (SECRET, vec![own]));
    administer(&Admin::Settle { visit, result: Ok(()) });
    confirming.join().unwrap().unwrap();
    assert_eq!(administer(&Admin::Candidates), Administered::Candidates(Vec::new()));
}
