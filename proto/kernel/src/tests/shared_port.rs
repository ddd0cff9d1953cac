//! A port that several processes of one host serve, and clients of another host, who address one of them.

use super::*;

/// A host whose first process is busy, and whose second listens too; a client of another host that addresses the first.
fn busy_and_idle() -> (Net, [ProcessId; 2], PutPort, ProcessId) {
    let mut net = Net::new(2);
    let (busy, port) = net.serve(1);
    let client = net.attach(0);
    net.trans(0, client, port, vec![0]);
    net.run(100, |_| true);
    let (request, _) = net.request(1);
    net.answer(1, busy, request, vec![0]);
    net.run(100, |_| true);
    assert_eq!(net.reply(0), Ok(vec![0]));
    let idle = net.attach(1);
    let now = net.now;
    net.kernels[1].listen(now, idle, &GetPort::from_bytes(GET), 1 << 20).unwrap();
    (net, [busy, idle], port, client)
}

#[test]
fn a_request_from_another_host_does_not_wait_at_a_busy_process_while_another_is_idle() {
    let (mut net, [_, idle], port, client) = busy_and_idle();
    net.kernels[1].getreq(idle, port, GetreqId(2)).unwrap();
    net.trans(0, client, port, vec![1]);
    net.run(10, |_| true);
    let (request, message) = net.request(1);
    assert_eq!(message.data, [1]);
    net.answer(1, idle, request, vec![2]);
    net.run(10, |_| true);
    assert_eq!(net.reply(0), Ok(vec![2]));
}

#[test]
fn a_process_that_would_wait_takes_over_what_waits_for_another_of_its_host_the_oldest_first() {
    let (mut net, [busy, idle], port, client) = busy_and_idle();
    let other = net.attach(0);
    for (client, number) in [(client, 1), (other, 2)] {
        net.trans(0, client, port, vec![number]);
        net.run(10, |_| true);
    }
    assert!(net.events[1].is_empty(), "no thread waits");
    for (server, number) in [(idle, 1), (busy, 2)] {
        net.kernels[1].getreq(server, port, GetreqId(2)).unwrap();
        net.run(0, |_| true);
        let (request, message) = net.request(1);
        assert_eq!(message.data, [number]);
        net.answer(1, server, request, message.data);
        net.run(10, |_| true);
        assert_eq!(net.reply(0), Ok(vec![number]));
    }
}

#[test]
fn a_request_that_is_too_large_for_the_idle_process_waits_for_the_other() {
    let (mut net, [busy, idle], port, client) = busy_and_idle();
    let now = net.now;
    net.kernels[1].listen(now, idle, &GetPort::from_bytes(GET), 10).unwrap();
    net.kernels[1].getreq(idle, port, GetreqId(2)).unwrap();
    net.trans(0, client, port, vec![1; 11]);
    net.run(10, |_| true);
    assert!(net.events[1].is_empty());
    net.kernels[1].getreq(busy, port, GetreqId(2)).unwrap();
    net.run(0, |_| true);
    assert_eq!(net.request(1).1.data, [1; 11]);
}

/// The process that was addressed answers for the request: when either ends, the client cannot know what was executed.
#[test]
fn the_end_of_the_executing_process_or_of_the_addressed_one_may_have_executed() {
    for ends in 0..2 {
        let (mut net, servers, port, client) = busy_and_idle();
        net.kernels[1].getreq(servers[1], port, GetreqId(2)).unwrap();
        net.trans(0, client, port, vec![1]);
        net.run(10, |_| true);
        let (request, _) = net.request(1);
        let now = net.now;
        net.kernels[1].detach(now, servers[ends]);
        net.run(10, |_| true);
        if ends == 0 {
            net.answer(1, servers[1], request, vec![2]);
        }
        net.run(6000, |_| true);
        assert_eq!(net.reply(0), LOST);
    }
}

#[test]
fn a_request_that_was_taken_back_from_one_process_goes_to_another() {
    let (mut net, [busy, idle], port, client) = busy_and_idle();
    net.kernels[1].getreq(busy, port, GetreqId(3)).unwrap();
    net.trans(0, client, port, vec![1]);
    net.run(10, |_| true);
    let (request, message) = net.request(1);
    net.kernels[1].getreq(idle, port, GetreqId(2)).unwrap();
    let now = net.now;
    net.kernels[1].take_back(now, busy, request, message);
    net.run(10, |_| true);
    let (request, _) = net.request(1);
    net.answer(1, idle, request, vec![2]);
    net.run(10, |_| true);
    assert_eq!(net.reply(0), Ok(vec![2]));
}
