// Generated from idl/system.class by `cargo xtask gen`; do not edit.

use crate::rt;

/// Look at counters, links and ways.
pub const READ: rt::Rights = rt::Rights::from_bits_retain(0x01);
/// Bytes of a text of statistics.
pub const STATISTICS_SIZE_MAX: usize = 65535;
/// Bytes of a name, an address or a version.
pub const NAME_SIZE_MAX: usize = 255;
/// Links of a host.
pub const LINKS_MAX: usize = 16;
/// Peers on all its links.
pub const PEERS_MAX: usize = 1024;
/// Bytes that an echo carries.
pub const ECHO_SIZE_MAX: usize = 1048576;
/// Nobody is known to listen on the port.
pub const UNKNOWN: u8 = 0;
/// A process of this host listens on it.
pub const HERE: u8 = 1;
/// A process of another host does.
pub const ELSEWHERE: u8 = 2;
/// A time that there is none of.
pub const NEVER: u64 = 9223372036854775807;
/// The command of [`statistics()`].
pub const CMD_STATISTICS: rt::Command = rt::Command(2550);
/// The command of [`about()`].
pub const CMD_ABOUT: rt::Command = rt::Command(2551);
/// The command of [`network()`].
pub const CMD_NETWORK: rt::Command = rt::Command(2552);
/// The command of [`way()`].
pub const CMD_WAY: rt::Command = rt::Command(2553);
/// The command of [`echo()`].
pub const CMD_ECHO: rt::Command = rt::Command(2554);

/// A link of the host.
#[derive(Clone, Debug, PartialEq)]
pub struct LinkState {
    /// `udp` or `ethernet`.
    pub kind: Vec<u8>,
    /// Where it listens, or its interface.
    pub address: Vec<u8>,
    /// Bytes of its largest packet.
    pub packet_size: u32,
    /// How packets are sealed; empty: they are not.
    pub sealing: Vec<u8>,
    /// Whether secure messages may cross it.
    pub trusted: bool,
}

impl rt::Marshal for LinkState {
    fn put(&self, writer_: &mut rt::Writer) -> Result<(), rt::OverLimit> {
        rt::put_string(writer_, &self.kind, 255)?;
        rt::put_string(writer_, &self.address, 255)?;
        writer_.put_u32(self.packet_size);
        rt::put_string(writer_, &self.sealing, 255)?;
        writer_.put_bool(self.trusted);
        Ok(())
    }

    fn get(reader_: &mut rt::Reader<'_>) -> Result<Self, rt::Malformed> {
        let kind = reader_.get_string(255).map(<[u8]>::to_vec)?;
        let address = reader_.get_string(255).map(<[u8]>::to_vec)?;
        let packet_size = reader_.get_u32()?;
        let sealing = reader_.get_string(255).map(<[u8]>::to_vec)?;
        let trusted = reader_.get_bool()?;
        Ok(LinkState { kind, address, packet_size, sealing, trusted })
    }
}

/// A host that a link knows.
#[derive(Clone, Debug, PartialEq)]
pub struct PeerState {
    /// Which of the links, from 0.
    pub link: u16,
    /// What it is called; empty: not known yet.
    pub name: Vec<u8>,
    /// Where it is on the link.
    pub address: Vec<u8>,
    /// Whether it is there.
    pub up: bool,
    /// Nanoseconds since it was last heard; NEVER.
    pub heard: u64,
    /// Bytes of the largest packet on the way to it.
    pub packet_size: u32,
    /// Nanoseconds to it and back, as the link last measured; NEVER.
    pub round_trip: u64,
    /// How packets to it are sealed; empty: they are not.
    pub sealing: Vec<u8>,
    /// What is wrong with it, for people; empty: nothing is known.
    pub trouble: Vec<u8>,
}

impl rt::Marshal for PeerState {
    fn put(&self, writer_: &mut rt::Writer) -> Result<(), rt::OverLimit> {
        writer_.put_u16(self.link);
        rt::put_string(writer_, &self.name, 255)?;
        rt::put_string(writer_, &self.address, 255)?;
        writer_.put_bool(self.up);
        writer_.put_u64(self.heard);
        writer_.put_u32(self.packet_size);
        writer_.put_u64(self.round_trip);
        rt::put_string(writer_, &self.sealing, 255)?;
        rt::put_string(writer_, &self.trouble, 255)?;
        Ok(())
    }

    fn get(reader_: &mut rt::Reader<'_>) -> Result<Self, rt::Malformed> {
        let link = reader_.get_u16()?;
        let name = reader_.get_string(255).map(<[u8]>::to_vec)?;
        let address = reader_.get_string(255).map(<[u8]>::to_vec)?;
        let up = reader_.get_bool()?;
        let heard = reader_.get_u64()?;
        let packet_size = reader_.get_u32()?;
        let round_trip = reader_.get_u64()?;
        let sealing = reader_.get_string(255).map(<[u8]>::to_vec)?;
        let trouble = reader_.get_string(255).map(<[u8]>::to_vec)?;
        Ok(PeerState { link, name, address, up, heard, packet_size, round_trip, sealing, trouble })
    }
}

/// The links of a host and what they know.
#[derive(Clone, Debug, PartialEq)]
pub struct Network {
    /// By their numbers.
    pub links: Vec<LinkState>,
    /// By link and address.
    pub peers: Vec<PeerState>,
}

impl rt::Marshal for Network {
    fn put(&self, writer_: &mut rt::Writer) -> Result<(), rt::OverLimit> {
        rt::put_count(writer_, self.links.len(), 16)?;
        for item_ in &self.links {
            rt::Marshal::put(item_, writer_)?;
        }
        rt::put_count(writer_, self.peers.len(), 1024)?;
        for item_ in &self.peers {
            rt::Marshal::put(item_, writer_)?;
        }
        Ok(())
    }

    fn get(reader_: &mut rt::Reader<'_>) -> Result<Self, rt::Malformed> {
        let links = rt::get_list(reader_, 16, <LinkState as rt::Marshal>::get)?;
        let peers = rt::get_list(reader_, 1024, <PeerState as rt::Marshal>::get)?;
        Ok(Network { links, peers })
    }
}

/// The way that requests for a port take.
#[derive(Clone, Debug, PartialEq)]
pub struct Way {
    /// UNKNOWN, HERE or ELSEWHERE.
    pub reach: u8,
    /// Processes that listen on it: all of this host, or those elsewhere that have answered.
    pub processes: u32,
    /// Weight of the networks between.
    pub hops: u16,
    /// Whether all of them are trusted.
    pub trusted: bool,
    /// The link to the nearest that is elsewhere.
    pub link: Vec<LinkState>,
    /// The host it is on, or the one that passes packets on to it.
    pub peer: Vec<PeerState>,
}

impl rt::Marshal for Way {
    fn put(&self, writer_: &mut rt::Writer) -> Result<(), rt::OverLimit> {
        writer_.put_u8(self.reach);
        writer_.put_u32(self.processes);
        writer_.put_u16(self.hops);
        writer_.put_bool(self.trusted);
        rt::put_count(writer_, self.link.len(), 1)?;
        for item_ in &self.link {
            rt::Marshal::put(item_, writer_)?;
        }
        rt::put_count(writer_, self.peer.len(), 1)?;
        for item_ in &self.peer {
            rt::Marshal::put(item_, writer_)?;
        }
        Ok(())
    }

    fn get(reader_: &mut rt::Reader<'_>) -> Result<Self, rt::Malformed> {
        let reach = reader_.get_u8()?;
        let processes = reader_.get_u32()?;
        let hops = reader_.get_u16()?;
        let trusted = reader_.get_bool()?;
        let link = rt::get_list(reader_, 1, <LinkState as rt::Marshal>::get)?;
        let peer = rt::get_list(reader_, 1, <PeerState as rt::Marshal>::get)?;
        Ok(Way { reach, processes, hops, trusted, link, peer })
    }
}

/// Counters and tables of the kernel: transactions, ports, routes, packets.
///
/// # Rights
/// `READ`.
pub fn statistics<'t>(t: impl Into<rt::Client<'t>>, object: &rt::Capability) -> Result<Vec<u8>, rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_STATISTICS);
    let data_ = Vec::new();
    header_.size = rt::header_size(&data_);
    let (_, data_) = t.into().trans(header_, data_, 65535, true)?;
    let text = rt::rest(data_, 0, 65535)?;
    Ok(text)
}

/// What [`about()`] gives.
#[derive(Clone, Debug, PartialEq)]
pub struct AboutReply {
    /// Of the program.
    pub version: Vec<u8>,
    /// What the host is called.
    pub host: Vec<u8>,
    /// Nanoseconds since the kernel was started.
    pub up: u64,
}

/// What runs here.
///
/// # Rights
/// None.
pub fn about<'t>(t: impl Into<rt::Client<'t>>, object: &rt::Capability) -> Result<AboutReply, rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_ABOUT);
    let data_ = Vec::new();
    header_.size = rt::header_size(&data_);
    let (_, data_) = t.into().trans(header_, data_, 520, true)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let version = reader_.get_string(255).map(<[u8]>::to_vec)?;
    let host = reader_.get_string(255).map(<[u8]>::to_vec)?;
    let up = reader_.get_u64()?;
    reader_.end()?;
    Ok(AboutReply { version, host, up })
}

/// The links of the host, and every peer that they know.
///
/// # Rights
/// `READ`.
pub fn network<'t>(t: impl Into<rt::Client<'t>>, object: &rt::Capability) -> Result<Network, rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_NETWORK);
    let data_ = Vec::new();
    header_.size = rt::header_size(&data_);
    let (_, data_) = t.into().trans(header_, data_, 1084504, true)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let network = <Network as rt::Marshal>::get(reader_)?;
    reader_.end()?;
    Ok(network)
}

/// The way that requests for a port take from here, as far as it is known now; nothing is searched for.
///
/// - `destination`: A put-port.
///
/// # Rights
/// `READ`.
pub fn way<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
    destination: rt::PutPort,
) -> Result<Way, rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_WAY);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    writer_.put_port(&destination);
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    let (_, data_) = t.into().trans(header_, data_, 1836, true)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let way = <Way as rt::Marshal>::get(reader_)?;
    reader_.end()?;
    Ok(way)
}

/// Sends data back, so that a round trip with them can be measured.
///
/// - `data`: Anything.
///
/// # Rights
/// None.
pub fn echo<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
    data: impl Into<Vec<u8>>,
) -> Result<Vec<u8>, rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_ECHO);
    let data = data.into();
    let data_ = rt::within(data, 1048576)?;
    header_.size = rt::header_size(&data_);
    let (_, data_) = t.into().trans(header_, data_, 1048576, true)?;
    let data = rt::rest(data_, 0, 1048576)?;
    Ok(data)
}

/// The standard operations this class offers.
pub const STANDARD: &[rt::Standard] = &[
    // age
    rt::Standard {
        command: rt::Command(1001),
        rights: rt::Rights::from_bits_retain(0xff),
        on: rt::On::Super,
    },
    // copy
    rt::Standard { command: rt::Command(1002), rights: rt::Rights::from_bits_retain(0xff), on: rt::On::Any },
    // destroy
    rt::Standard { command: rt::Command(1003), rights: rt::Rights::from_bits_retain(0xff), on: rt::On::Any },
    // info
    rt::Standard { command: rt::Command(1004), rights: rt::Rights::from_bits_retain(0x00), on: rt::On::Any },
    // restrict
    rt::Standard { command: rt::Command(1005), rights: rt::Rights::from_bits_retain(0x00), on: rt::On::Any },
    // status
    rt::Standard { command: rt::Command(1006), rights: rt::Rights::from_bits_retain(0x01), on: rt::On::Any },
    // touch
    rt::Standard { command: rt::Command(1007), rights: rt::Rights::from_bits_retain(0x00), on: rt::On::Any },
    // getparams
    rt::Standard { command: rt::Command(1008), rights: rt::Rights::from_bits_retain(0xff), on: rt::On::Any },
    // setparams
    rt::Standard { command: rt::Command(1009), rights: rt::Rights::from_bits_retain(0xff), on: rt::On::Any },
    // ntouch
    rt::Standard { command: rt::Command(1010), rights: rt::Rights::from_bits_retain(0x00), on: rt::On::Any },
];

/// The most bytes of data in any request: what to listen with.
pub const REQUEST_SIZE_MAX: usize = 1048576;

/// A server of this class: one method an operation, on objects the skeleton has checked.
pub trait Serve: rt::Objects {
    /// Counters and tables of the kernel: transactions, ports, routes, packets.
    ///
    /// # Rights
    /// `READ`.
    fn statistics(&self, call: &rt::Call, object: rt::Object<{ READ.bits() }>)
    -> Result<Vec<u8>, rt::Status>;
    /// What runs here.
    ///
    /// # Rights
    /// None.
    fn about(&self, call: &rt::Call, object: rt::Object<0>) -> Result<AboutReply, rt::Status>;
    /// The links of the host, and every peer that they know.
    ///
    /// # Rights
    /// `READ`.
    fn network(&self, call: &rt::Call, object: rt::Object<{ READ.bits() }>) -> Result<Network, rt::Status>;
    /// The way that requests for a port take from here, as far as it is known now; nothing is searched for.
    ///
    /// # Rights
    /// `READ`.
    fn way(
        &self,
        call: &rt::Call,
        object: rt::Object<{ READ.bits() }>,
        destination: rt::PutPort,
    ) -> Result<Way, rt::Status>;
    /// Sends data back, so that a round trip with them can be measured.
    ///
    /// # Rights
    /// None.
    fn echo(&self, call: &rt::Call, object: rt::Object<0>, data: Vec<u8>) -> Result<Vec<u8>, rt::Status>;
}

/// A server of this class as the skeleton sees it.
pub struct Service<S>(pub std::sync::Arc<S>);

impl<S> Clone for Service<S> {
    fn clone(&self) -> Self {
        Service(self.0.clone())
    }
}

impl<S: Serve> rt::Service for Service<S> {
    fn objects(&self) -> &dyn rt::Objects {
        &*self.0
    }

    fn standard(&self, command: rt::Command) -> Option<rt::Standard> {
        rt::Standard::find(STANDARD, command)
    }

    fn dispatch(&self, request: rt::Request) -> Option<rt::Request> {
        let server = &*self.0;
        match request.command().0 {
            2550 => request.answer(|call, header, data| serve_statistics(server, call, header, data)),
            2551 => request.answer(|call, header, data| serve_about(server, call, header, data)),
            2552 => request.answer(|call, header, data| serve_network(server, call, header, data)),
            2553 => request.answer(|call, header, data| serve_way(server, call, header, data)),
            2554 => request.answer(|call, header, data| serve_echo(server, call, header, data)),
            _ => return Some(request),
        }
        None
    }
}

/// Serves requests for `server` on `threads` threads until the listener is closed.
///
/// # Errors
/// The world has no room for the threads; nothing is served.
pub fn serve<S: Serve + 'static>(
    world: &rt::World,
    listener: rt::Listener,
    server: std::sync::Arc<S>,
    threads: usize,
) -> Result<(), rt::SpawnError> {
    start(world, listener, server, threads).map(rt::Running::join)
}

/// As [`serve`], but returns at once.
///
/// # Errors
/// As [`serve`].
pub fn start<S: Serve + 'static>(
    world: &rt::World,
    listener: rt::Listener,
    server: std::sync::Arc<S>,
    threads: usize,
) -> Result<rt::Running, rt::SpawnError> {
    rt::start(world, listener, std::sync::Arc::new(Service(server)), threads)
}

fn serve_statistics<S: Serve>(
    server_: &S,
    call: &rt::Call,
    _: rt::Header,
    data_: Vec<u8>,
) -> Result<rt::Message, rt::Failure> {
    let object = call.object(server_, rt::On::Any)?;
    rt::Reader::new(&data_).end()?;
    let result = server_.statistics(call, object)?;
    reply_statistics(result)
}

fn reply_statistics(text: Vec<u8>) -> Result<rt::Message, rt::Failure> {
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let data_ = rt::within(text, 65535)?;
    header_.size = rt::header_size(&data_);
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_about<S: Serve>(
    server_: &S,
    call: &rt::Call,
    _: rt::Header,
    data_: Vec<u8>,
) -> Result<rt::Message, rt::Failure> {
    let object = call.object(server_, rt::On::Any)?;
    rt::Reader::new(&data_).end()?;
    let result = server_.about(call, object)?;
    reply_about(result)
}

fn reply_about(result: AboutReply) -> Result<rt::Message, rt::Failure> {
    let AboutReply { version, host, up } = result;
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    rt::put_string(writer_, &version, 255)?;
    rt::put_string(writer_, &host, 255)?;
    writer_.put_u64(up);
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_network<S: Serve>(
    server_: &S,
    call: &rt::Call,
    _: rt::Header,
    data_: Vec<u8>,
) -> Result<rt::Message, rt::Failure> {
    let object = call.object(server_, rt::On::Any)?;
    rt::Reader::new(&data_).end()?;
    let result = server_.network(call, object)?;
    reply_network(result)
}

fn reply_network(network: Network) -> Result<rt::Message, rt::Failure> {
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    rt::Marshal::put(&network, writer_)?;
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_way<S: Serve>(
    server_: &S,
    call: &rt::Call,
    _: rt::Header,
    data_: Vec<u8>,
) -> Result<rt::Message, rt::Failure> {
    let object = call.object(server_, rt::On::Any)?;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let destination = reader_.get_port()?;
    reader_.end()?;
    let result = server_.way(call, object, destination)?;
    reply_way(result)
}

fn reply_way(way: Way) -> Result<rt::Message, rt::Failure> {
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    rt::Marshal::put(&way, writer_)?;
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    Ok(rt::Message { header: header_, data: data_ })
}

fn serve_echo<S: Serve>(
    server_: &S,
    call: &rt::Call,
    _: rt::Header,
    data_: Vec<u8>,
) -> Result<rt::Message, rt::Failure> {
    let object = call.object(server_, rt::On::Any)?;
    let data = rt::rest(data_, 0, 1048576)?;
    let result = server_.echo(call, object, data)?;
    reply_echo(result)
}

fn reply_echo(data: Vec<u8>) -> Result<rt::Message, rt::Failure> {
    let mut header_ = rt::Header::reply(rt::Status::STD_OK);
    let data_ = rt::within(data, 1048576)?;
    header_.size = rt::header_size(&data_);
    Ok(rt::Message { header: header_, data: data_ })
}
