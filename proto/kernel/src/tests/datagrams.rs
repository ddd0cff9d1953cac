//! Datagrams between kernels.

use amoeba_world::{DATAGRAM_SIZE_MAX, Datagram, Destination};

use super::*;

fn to_port(net: &Net, get: &[u8; 6]) -> Destination {
    Destination::Port(net.kernels[0].put_port(&GetPort::from_bytes(*get)))
}

impl Net {
    fn open(&mut self, host: usize, process: ProcessId, port: Option<&[u8; 6]>) -> Opened {
        let port = port.map(|port| GetPort::from_bytes(*port));
        self.kernels[host].open_endpoint(process, port.as_ref()).unwrap()
    }

    fn post(&mut self, host: usize, process: ProcessId, from: Option<Address>, to: Destination, data: &[u8]) {
        let now = self.now;
        self.kernels[host].send_datagram(now, process, from, to, data).unwrap();
    }

    fn take(&mut self, host: usize, process: ProcessId, endpoint: EndpointId) -> Option<Datagram> {
        self.kernels[host].receive(process, endpoint).unwrap()
    }
}

#[test]
fn a_datagram_finds_a_port_and_its_answer_the_sender() {
    for (count, far) in [(1, 0), (3, 2)] {
        let mut net = Net::new(count);
        let (client, server) = (net.attach(0), net.attach(far));
        let near = net.open(0, client, None);
        let there = net.open(far, server, Some(&GET));
        assert_eq!(Some(to_port(&net, &GET)), there.put_port.map(Destination::Port));
        assert_eq!(net.take(far, server, there.id), None);
        let data = vec![3; DATAGRAM_SIZE_MAX];
        net.post(0, client, Some(near.address), to_port(&net, &GET), &data);
        net.run(100, |_| true);
        assert!(
            matches!(net.events[far].pop_front(), Some(Event::Datagram { endpoint, .. }) if endpoint == there.id)
        );
        assert_eq!(net.take(far, server, there.id), Some(Datagram { from: near.address, data }));
        net.post(far, server, Some(there.address), Destination::Address(near.address), b"thanks");
        net.run(100, |_| true);
        let answer = net.take(0, client, near.id).unwrap();
        assert_eq!((answer.from, &answer.data[..]), (there.address, &b"thanks"[..]));
    }
}

#[test]
fn what_nobody_listens_for_is_lost_after_one_search() {
    let mut net = Net::new(2);
    let client = net.attach(0);
    let mut sent = 0;
    for _ in 0..2 * SEARCH_QUEUE_MAX {
        net.post(0, client, None, to_port(&net, &GET), b"anybody?");
    }
    net.run(5000, |_| {
        sent += 1;
        true
    });
    assert_eq!(sent, SEARCH_LOCATES);
    assert!(net.kernels[0].poll_timeout().is_none());
    let server = net.attach(1);
    let there = net.open(1, server, Some(&GET));
    net.run(100, |_| true);
    assert_eq!(net.take(1, server, there.id), None);
    net.post(0, client, None, to_port(&net, &GET), b"now");
    net.run(100, |_| true);
    assert_eq!(net.take(1, server, there.id).unwrap().data, b"now");
    net.kernels[1].close_endpoint(server, there.id);
    let moved = net.open(1, server, Some(&GET));
    for data in [b"lost", b"here"] {
        net.post(0, client, None, to_port(&net, &GET), data);
        net.run(3000, |_| true);
    }
    assert_eq!(net.take(1, server, moved.id).unwrap().data, b"here");
}

#[test]
fn transactions_and_datagrams_of_one_port_never_meet() {
    let mut net = Net::new(2);
    let (client, server) = (net.attach(0), net.attach(1));
    let there = net.open(1, server, Some(&GET));
    let port = there.put_port.unwrap();
    let now = net.now;
    let request = Message { header: Header { port, command: 7, ..Header::NULL }, data: Vec::new() };
    net.kernels[0].trans(now, client, Slot(0), request, &TransOptions::default());
    net.run(6000, |_| true);
    let Some(Event::Reply { result, .. }) = net.events[0].pop_front() else { panic!("no reply") };
    assert_eq!(result.unwrap_err(), Error::NotSent(Status::RPC_NOTFOUND));

    // To the address of a process, which is no endpoint, a datagram is nothing, whatever it says.
    let listening = GetPort::from_bytes(*b"listen");
    net.kernels[1].listen(now, server, &listening, 1000).unwrap();
    let address = net.kernels[1].address(server).unwrap();
    let forged = [&[0; 14][..], &[3, 1], &[0; 100]].concat();
    net.post(0, client, None, Destination::Address(address), &forged);
    net.run(3000, |_| true);
    assert!(net.events[1].is_empty());
    assert_eq!(net.take(1, server, there.id), None);
}

#[test]
fn a_queue_is_bounded_and_keeps_the_newest() {
    let mut net = Net::new(1);
    let process = net.attach(0);
    let there = net.open(0, process, None);
    for number in 0..DATAGRAMS_MAX as u8 + 10 {
        net.post(0, process, None, Destination::Address(there.address), &[number]);
    }
    let got: Vec<u8> = std::iter::from_fn(|| net.take(0, process, there.id)).map(|got| got.data[0]).collect();
    assert_eq!(got, (10..DATAGRAMS_MAX as u8 + 10).collect::<Vec<_>>());
    assert!(net.kernels[0].status().lines().any(|line| line.split_whitespace().eq([
        "datagrams",
        "dropped",
        "10"
    ])));
    let all: usize = DATAGRAMS_SIZE_MAX / DATAGRAM_SIZE_MAX;
    let many: Vec<_> = (0..all / DATAGRAMS_MAX + 1).map(|_| net.open(0, process, None)).collect();
    let full = vec![0; DATAGRAM_SIZE_MAX];
    for endpoint in &many {
        (0..DATAGRAMS_MAX)
            .for_each(|_| net.post(0, process, None, Destination::Address(endpoint.address), &full));
    }
    assert!(net.take(0, process, many[0].id).is_some());
    assert!(net.take(0, process, many[many.len() - 1].id).is_none());
}

#[test]
fn nobody_sends_or_receives_in_anothers_name() {
    let mut net = Net::new(1);
    let (one, other) = (net.attach(0), net.attach(0));
    let endpoint = net.open(0, one, None);
    let kernel = &mut net.kernels[0];
    let to = Destination::Address(endpoint.address);
    let refused = |result| assert_eq!(result, Err(Status::RPC_BADPORT));
    refused(kernel.send_datagram(at(0), other, Some(endpoint.address), to, b""));
    refused(kernel.send_datagram(at(0), one, None, Destination::Address(Address::NULL), b""));
    refused(kernel.send_datagram(at(0), one, None, Destination::Port(PutPort::NULL), b""));
    refused(kernel.receive(other, endpoint.id).map(drop));
    refused(kernel.open_endpoint(one, Some(&GetPort::from_bytes([0; 6]))).map(drop));
    let large = vec![0; DATAGRAM_SIZE_MAX + 1];
    assert_eq!(kernel.send_datagram(at(0), one, None, to, &large), Err(Status::RPC_BADADDRESS));
    for _ in 1..ENDPOINTS_PER_PROCESS_MAX {
        kernel.open_endpoint(one, None).unwrap();
    }
    assert_eq!(kernel.open_endpoint(one, None), Err(Status::RPC_TRYAGAIN));
    kernel.close_endpoint(other, endpoint.id);
    assert_eq!(kernel.receive(one, endpoint.id), Ok(None));
    kernel.detach(at(0), one);
    refused(kernel.receive(one, endpoint.id).map(drop));
}

#[test]
fn endpoints_of_a_port_take_turns() {
    let mut net = Net::new(2);
    let (client, server) = (net.attach(0), net.attach(1));
    let two = [net.open(1, server, Some(&GET)), net.open(1, server, Some(&GET))];
    // A host answers a search with one of its endpoints; here, where they are, each is known.
    for host in [0, 1] {
        for _ in 0..4 {
            net.post(host, [client, server][host], None, to_port(&net, &GET), b"x");
            net.run(100, |_| true);
        }
    }
    let counts = two.map(|endpoint| std::iter::from_fn(|| net.take(1, server, endpoint.id)).count());
    assert_eq!(counts.iter().sum::<usize>(), 8);
    assert!(counts.iter().all(|count| *count >= 2), "{counts:?}");
}
