//! Endpoints of datagrams: each is a connection of its own, and ends with it.

use amoeba_cap::GetPort;
use amoeba_kernel::{EndpointId, ProcessId};
use amoeba_threads::Instant;
use amoeba_wire::packet::Address;
use amoeba_world::Destination;

use super::super::table::{Member, Token};
use super::Switch;
use crate::socket::{Bad, ToProcess};

impl Switch {
    /// OPEN.
    pub(super) fn open(&mut self, token: Token, member: Member, port: Option<&GetPort>) -> Result<(), Bad> {
        let Some(connection) = self.table.get_mut(token) else { return Ok(()) };
        if connection.is_waiting() || connection.endpoint.is_some() {
            return Err(Bad::OutOfTurn);
        }
        match self.kernel.open_endpoint(member.process, port) {
            Ok(opened) => {
                connection.endpoint = Some(opened.id);
                self.endpoints.insert(opened.id, token);
                self.send(token, ToProcess::Opened { address: opened.address, port: opened.put_port });
            }
            Err(status) => self.refuse(token, status),
        }
        Ok(())
    }

    /// RECEIVE: answered now or when something comes.
    pub(super) fn receive(&mut self, token: Token, member: Member) -> Result<(), Bad> {
        let Some(connection) = self.table.get_mut(token) else { return Ok(()) };
        let Some(endpoint) = connection.endpoint.filter(|_| !connection.is_waiting()) else {
            return Err(Bad::OutOfTurn);
        };
        connection.receiving = true;
        self.datagram(member.process, endpoint);
        Ok(())
    }

    /// There may be a datagram for a connection that waits.
    pub(super) fn datagram(&mut self, process: ProcessId, endpoint: EndpointId) {
        let Some(&token) = self.endpoints.get(&endpoint) else { return };
        let Some(connection) = self.table.get_mut(token).filter(|connection| connection.receiving) else {
            return;
        };
        match self.kernel.receive(process, endpoint) {
            Ok(Some(datagram)) => {
                connection.receiving = false;
                self.send(token, ToProcess::Datagram { datagram });
            }
            Ok(None) => {} // the kernel will say when there is one
            Err(_) => self.doom(token),
        }
    }

    /// SEND.
    pub(super) fn send_datagram(
        &mut self,
        now: Instant,
        token: Token,
        member: Member,
        from: Option<Address>,
        to: Destination,
        data: &[u8],
    ) -> Result<(), Bad> {
        let Some(connection) = self.table.get(token) else { return Ok(()) };
        if connection.is_waiting() {
            return Err(Bad::OutOfTurn);
        }
        match self.kernel.send_datagram(now, member.process, from, to, data) {
            Ok(()) => self.send(token, ToProcess::Done),
            Err(status) => self.refuse(token, status),
        }
        Ok(())
    }
}
