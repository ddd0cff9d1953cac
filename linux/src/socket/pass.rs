//! Bytes and the descriptors that travel with them.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use super::FrameHead;
use super::frame::DESCRIPTORS_TO_PROCESS;

const ANCILLARY_SIZE: usize = rustix::cmsg_space!(ScmRights(DESCRIPTORS_TO_PROCESS));

/// Sends what is left of a frame after its first `sent` bytes, as much as the socket takes at once. Its descriptors go with
/// the first byte.
pub(crate) fn send_some(
    socket: &OwnedFd,
    head: &FrameHead,
    data: &[u8],
    sent: usize,
    descriptors: &[BorrowedFd<'_>],
    flags: SendFlags,
) -> io::Result<usize> {
    let head_left = head.bytes().get(sent..).unwrap_or_default();
    let data_left = &data[sent.saturating_sub(head.bytes().len())..];
    let parts = [IoSlice::new(head_left), IoSlice::new(data_left)];
    let mut space = [MaybeUninit::uninit(); ANCILLARY_SIZE];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if sent == 0 && !descriptors.is_empty() {
        let fits = ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
        assert!(fits, "no frame has more than DESCRIPTORS_TO_PROCESS");
    }
    // NOSIGNAL: a peer that went away is an error of this call, not the death of the process.
    let count = retry_on_intr(|| sendmsg(socket, &parts, &mut ancillary, flags | SendFlags::NOSIGNAL))?;
    Ok(count)
}

/// Receives bytes into `bytes`, and appends the descriptors that came with them.
///
/// # Errors
/// The system's own; `TOOMANYREFS` for more descriptors than travel with any frame.
pub(crate) fn receive_some(
    socket: impl AsFd,
    bytes: &mut [u8],
    descriptors: &mut Vec<OwnedFd>,
    flags: RecvFlags,
) -> Result<usize, Errno> {
    let mut space = [MaybeUninit::uninit(); ANCILLARY_SIZE];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = retry_on_intr(|| {
        recvmsg(&socket, &mut [IoSliceMut::new(bytes)], &mut ancillary, flags | RecvFlags::CMSG_CLOEXEC)
    })?;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(passed) = message {
            descriptors.extend(passed);
        }
    }
    match received.flags.contains(ReturnFlags::CTRUNC) || descriptors.len() > DESCRIPTORS_TO_PROCESS {
        true => Err(Errno::TOOMANYREFS),
        false => Ok(received.bytes),
    }
}
