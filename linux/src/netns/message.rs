//! Messages of rtnetlink, as far as links and addresses need them.
//!
//! ```text
//! length u32 | kind u16 | flags u16 | sequence u32 | port u32 | body | attributes
//!                                     attribute: length u16 | kind u16 | value | zeros to a multiple of four
//! ```
//! All numbers are in the order of the host; a length counts its own header, but no padding behind it.

use std::ffi::CString;
use std::net::Ipv4Addr;

/// Bytes of a message's header.
const HEADER_SIZE: usize = 16;
/// What lengths are rounded up to.
const ALIGNMENT: usize = 4;

// <linux/netlink.h>
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;
// <linux/rtnetlink.h>
const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
// <linux/if_link.h>, <linux/if_addr.h>, <linux/veth.h>
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
// <net/if.h>, <sys/socket.h>
const IFF_UP: u32 = 1;
const AF_INET: u8 = 2;

/// The number of an interface in its namespace. Zero lets the operating system choose.
pub(super) type Index = i32;

/// The loopback interface of every namespace.
pub(super) const LOOPBACK: Index = 1;

/// A request, ready to be sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Message(Vec<u8>);

/// Makes a bridge that is up.
pub(super) fn new_bridge(sequence: u32, index: Index, name: &str) -> Message {
    Draft::new_link(sequence)
        .interface(index, IFF_UP)
        .text(IFLA_IFNAME, name)
        .nested(IFLA_LINKINFO, |info| info.text(IFLA_INFO_KIND, "bridge"))
        .finish()
}

/// One end of a cable, as it is called and numbered where it is plugged in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plug<'a> {
    pub(super) index: Index,
    pub(super) name: &'a str,
}

/// Makes a pair of Ethernet interfaces: `here` a port of the bridge `master`, if there is one, and up, `there` in the network namespace
/// that the descriptor `namespace` stands for and down, since it is made first and cannot be up without its other end.
pub(super) fn new_cable(
    sequence: u32,
    here: Plug<'_>,
    master: Option<Index>,
    there: Plug<'_>,
    namespace: i32,
) -> Message {
    let peer = |peer: Draft| {
        peer.interface(there.index, 0)
            .text(IFLA_IFNAME, there.name)
            .attribute(IFLA_NET_NS_FD, &namespace.to_ne_bytes())
    };
    let mut draft = Draft::new_link(sequence).interface(here.index, IFF_UP).text(IFLA_IFNAME, here.name);
    if let Some(master) = master {
        draft = draft.attribute(IFLA_MASTER, &master.to_ne_bytes());
    }
    draft
        .nested(IFLA_LINKINFO, |info| {
            info.text(IFLA_INFO_KIND, "veth").nested(IFLA_INFO_DATA, |data| data.nested(VETH_INFO_PEER, peer))
        })
        .finish()
}

/// Switches an interface on.
pub(super) fn set_up(sequence: u32, index: Index) -> Message {
    Draft::new(RTM_NEWLINK, NLM_F_REQUEST | NLM_F_ACK, sequence).interface(index, IFF_UP).finish()
}

/// Lets frames of an interface have so many bytes behind their Ethernet header.
pub(super) fn set_mtu(sequence: u32, index: Index, mtu: u32) -> Message {
    Draft::new(RTM_NEWLINK, NLM_F_REQUEST | NLM_F_ACK, sequence)
        .interface(index, 0)
        .attribute(IFLA_MTU, &mtu.to_ne_bytes())
        .finish()
}

/// Gives an interface an address.
pub(super) fn new_address(sequence: u32, index: Index, address: Ipv4Addr, prefix: u8) -> Message {
    let flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
    let mut draft = Draft::new(RTM_NEWADDR, flags, sequence);
    draft.0.extend([AF_INET, prefix, 0, 0]); // no flags, scope: the universe
    draft.0.extend(index.to_ne_bytes());
    draft.attribute(IFA_LOCAL, &address.octets()).attribute(IFA_ADDRESS, &address.octets()).finish()
}

impl Message {
    /// What goes over the socket.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// A message that is being written; its length is not in its header yet.
struct Draft(Vec<u8>);

impl Draft {
    fn new(kind: u16, flags: u16, sequence: u32) -> Draft {
        let mut bytes = vec![0; 4];
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend([0; 4]); // port 0: for the operating system
        Draft(bytes)
    }

    fn new_link(sequence: u32) -> Draft {
        Draft::new(RTM_NEWLINK, NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, sequence)
    }

    /// The body of messages about links: any family and type, this interface, these flags switched on.
    fn interface(mut self, index: Index, flags: u32) -> Draft {
        self.0.extend([0; 4]);
        self.0.extend(index.to_ne_bytes());
        self.0.extend(flags.to_ne_bytes());
        self.0.extend(flags.to_ne_bytes()); // which of them are meant
        self
    }

    fn attribute(self, kind: u16, value: &[u8]) -> Draft {
        self.nested(kind, |mut draft| {
            draft.0.extend(value);
            draft
        })
    }

    fn text(self, kind: u16, text: &str) -> Draft {
        let text = CString::new(text).expect("names of interfaces and their kinds hold no NUL");
        self.attribute(kind, text.as_bytes_with_nul())
    }

    /// An attribute whose value `write` appends.
    fn nested(mut self, kind: u16, write: impl FnOnce(Draft) -> Draft) -> Draft {
        let start = self.0.len();
        self.0.extend([0; 2]);
        self.0.extend(kind.to_ne_bytes());
        let mut draft = write(self);
        let size = u16::try_from(draft.0.len() - start).expect("our attributes are short");
        draft.0[start..start + 2].copy_from_slice(&size.to_ne_bytes());
        draft.0.resize(draft.0.len().next_multiple_of(ALIGNMENT), 0);
        draft
    }

    fn finish(mut self) -> Message {
        let size = u32::try_from(self.0.len()).expect("our messages are short");
        self.0[..4].copy_from_slice(&size.to_ne_bytes());
        Message(self.0)
    }
}

/// The answer to request `sequence` in what came over the socket: zero, or the number of an error. `None`: it is not
/// in there.
pub(super) fn answer(mut bytes: &[u8], sequence: u32) -> Option<i32> {
    loop {
        let word = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let size = usize::try_from(word(0)?).ok()?;
        if size < HEADER_SIZE || size > bytes.len() {
            return None;
        }
        let kind = u16::from_ne_bytes([bytes[4], bytes[5]]);
        if kind == NLMSG_ERROR && word(8)? == sequence {
            let status = word(HEADER_SIZE)?.cast_signed();
            return (size >= HEADER_SIZE + 4).then_some(status.wrapping_neg());
        }
        bytes = bytes.get(size.next_multiple_of(ALIGNMENT)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Kind and value of each attribute.
    fn attributes(mut bytes: &[u8]) -> Vec<(u16, Vec<u8>)> {
        let mut found = Vec::new();
        while bytes.len() >= 4 {
            let size = usize::from(u16::from_ne_bytes([bytes[0], bytes[1]]));
            let kind = u16::from_ne_bytes([bytes[2], bytes[3]]);
            found.push((kind, bytes[4..size].to_vec()));
            bytes = &bytes[size.next_multiple_of(ALIGNMENT)..];
        }
        assert!(bytes.is_empty());
        found
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn an_address_is_the_bytes_that_iproute2_sends() {
        let message = new_address(7, 2, Ipv4Addr::new(10, 77, 0, 1), 24);
        let expected = [
            [40, 0, 0, 0, 20, 0, 5, 6].as_slice(),
            &[7, 0, 0, 0, 0, 0, 0, 0],
            &[2, 24, 0, 0, 2, 0, 0, 0],
            &[8, 0, 2, 0, 10, 77, 0, 1],
            &[8, 0, 1, 0, 10, 77, 0, 1],
        ];
        assert_eq!(message.bytes(), expected.concat());
    }

    #[test]
    fn a_cable_holds_its_other_end() {
        let (here, there) = (Plug { index: 101, name: "port1" }, Plug { index: 100, name: "eth0" });
        let message = new_cable(1, here, Some(100), there, 9);
        assert_eq!(message.bytes().len() % ALIGNMENT, 0);
        let outer = attributes(&message.bytes()[HEADER_SIZE + 16..]);
        assert_eq!(outer[0], (IFLA_IFNAME, b"port1\0".to_vec()));
        assert_eq!(outer[1], (IFLA_MASTER, 100i32.to_ne_bytes().to_vec()));
        let info = attributes(&outer[2].1);
        assert_eq!(info[0], (IFLA_INFO_KIND, b"veth\0".to_vec()));
        let data = attributes(&info[1].1);
        assert_eq!(data[0].0, VETH_INFO_PEER);
        let peer = attributes(&data[0].1[16..]);
        assert_eq!(peer, [(IFLA_IFNAME, b"eth0\0".to_vec()), (IFLA_NET_NS_FD, 9i32.to_ne_bytes().to_vec())]);
    }

    /// What the operating system says of request `sequence`.
    fn said(sequence: u32, status: i32) -> Vec<u8> {
        let mut draft = Draft::new(NLMSG_ERROR, 0, sequence);
        draft.0.extend(status.to_ne_bytes());
        draft.finish().0
    }

    #[test]
    fn an_answer_is_found_behind_others() {
        assert_eq!(answer(&said(3, 0), 3), Some(0));
        assert_eq!(answer(&[said(2, 0), said(3, -1)].concat(), 3), Some(1));
        assert_eq!(answer(&said(2, 0), 3), None);
    }

    #[test]
    fn no_answer_makes_it_panic() {
        bolero::check!().for_each(|bytes: &[u8]| {
            let _ = answer(bytes, 0);
        });
    }
}
