//! Who is introduced to whom.

use super::*;

fn listen(kernel: &mut Kernel, server: ProcessId, getreqs: u64) -> PutPort {
    let port = kernel.listen(at(0), server, &GetPort::from_bytes(GET), 100).unwrap();
    for number in 0..getreqs {
        kernel.getreq(server, port, GetreqId(server.0 * 100 + number)).unwrap();
    }
    port
}

#[test]
fn the_process_with_the_fewest_channels_is_chosen() {
    let mut kernel = Net::kernel(1, Vec::new(), at(0));
    let [client, one, two] = [(); 3].map(|()| kernel.attach().unwrap());
    let port = listen(&mut kernel, one, 10);
    listen(&mut kernel, two, 10);
    let count = |kernel: &mut Kernel, times: usize| {
        let servers: Vec<_> =
            (0..times).map(|_| kernel.introduce(client, port, None).unwrap().server).collect();
        servers.iter().filter(|server| **server == one).count()
    };
    assert_eq!(count(&mut kernel, 6), 3);
    kernel.part(two, port);
    kernel.part(two, port);
    assert_eq!(count(&mut kernel, 2), 0, "the one that lost two is given two");
    kernel.unlisten(at(1), one, port);
    assert_eq!(count(&mut kernel, 2), 0);
    assert_eq!(kernel.counters().introductions, 10);
}

#[test]
fn nobody_is_introduced_without_the_get_port_or_a_waiting_thread() {
    let mut kernel = Net::kernel(1, Vec::new(), at(0));
    let [client, server, thief] = [(); 3].map(|()| kernel.attach().unwrap());
    let port = listen(&mut kernel, server, 1);
    // Who knows the put-port alone listens on another port.
    let stolen = kernel.listen(at(0), thief, &GetPort::from_bytes(port.to_bytes()), 100).unwrap();
    assert_ne!(stolen, port);
    let signature = GetPort::from_bytes([9; 6]);
    let introduction = kernel.introduce(client, port, Some(&signature)).unwrap();
    assert_eq!((introduction.server, introduction.getreq), (server, GetreqId(server.0 * 100)));
    assert_eq!(introduction.caller.process, kernel.address(client).unwrap());
    assert_eq!(introduction.caller.signature, Some(kernel.put_port(&signature)));
    assert_eq!(kernel.introduce(client, port, None), Err(Status::RPC_TRYAGAIN), "the thread is taken");
    assert_eq!(kernel.introduce(client, stolen, None), Err(Status::RPC_TRYAGAIN));
    assert_eq!(kernel.introduce(client, PutPort::NULL, None), Err(Status::RPC_BADPORT));
    assert_eq!(kernel.introduce(client, PutPort::from_bytes([1; 6]), None), Err(Status::RPC_NOTFOUND));
    assert_eq!(kernel.getreq(server, port, GetreqId(7)), Ok(()), "its thread may wait again");
}
