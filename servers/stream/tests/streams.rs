//! The stream server through its stubs: order, flow control, repetition, closing.

use std::sync::Arc;
use std::time::Duration;

use amoeba_cap::{Capability, GetPort};
use amoeba_stream::{BUFFER_SIZE_MAX, Closed, STREAMS_MAX, StreamServer, TooMany};
use amoeba_stubs::stream::{self, PIECE_SIZE_MAX};
use amoeba_wire::Status;
use amoeba_world::{Error, World};

fn serve(world: &World) -> Arc<StreamServer> {
    let port = GetPort::from_bytes(*b"stream");
    let listener = world.transactions.listen(&port, amoeba_stream::REQUEST_SIZE_MAX).unwrap();
    let server = StreamServer::new(world, listener.put_port());
    drop(amoeba_stream::start(world, listener, server.clone(), 2).unwrap());
    server
}

/// A process that reads its input to the end.
fn read_all(world: &World, input: &Capability, size: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let reply = stream::read(world, input, bytes.len() as u64, size).unwrap();
        bytes.extend(reply.data);
        if reply.end {
            return bytes;
        }
    }
}

fn noise(size: u32) -> Vec<u8> {
    (0..size).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

#[test]
fn input_arrives_whole_and_in_order() {
    let world = amoeba_loopback::world();
    let server = serve(&world);
    let (input, source) = server.source().unwrap();
    let bytes = noise(3_000_000);
    let brought = bytes.clone();
    let feeder = world.threads.spawn("feeder", move || {
        for piece in brought.chunks(70_001) {
            source.push(piece).unwrap();
        }
        source.end();
    });
    assert!(read_all(&world, &input, u32::MAX) == bytes);
    feeder.unwrap().join().unwrap();
    assert_eq!(stream::read(&world, &input, 3_000_000, 1).unwrap().data, b"");
}

#[test]
fn output_arrives_whole_and_in_order() {
    let world = amoeba_loopback::world();
    let server = serve(&world);
    let (output, sink) = server.sink().unwrap();
    let bytes = noise(3_000_000);
    let written = bytes.clone();
    let process = world.clone();
    let writer = world.threads.spawn("process", move || {
        let mut position = 0;
        for piece in written.chunks(PIECE_SIZE_MAX) {
            stream::write(&process, &output, position, piece.to_vec()).unwrap();
            position += piece.len() as u64;
        }
        stream::close(&process, &output, position).unwrap();
    });
    let mut taken = Vec::new();
    while let Some(piece) = sink.take() {
        taken.extend(piece);
    }
    assert!(taken == bytes);
    writer.unwrap().join().unwrap();
}

#[test]
fn what_is_asked_twice_is_done_once() {
    let world = amoeba_loopback::world();
    let server = serve(&world);
    let (input, source) = server.source().unwrap();
    source.push(b"abcdef").unwrap();
    assert_eq!(stream::read(&world, &input, 0, 4).unwrap().data, b"abcd");
    assert_eq!(stream::read(&world, &input, 0, 4).unwrap().data, b"abcd");
    assert_eq!(stream::read(&world, &input, 2, 4).unwrap().data, b"cd");
    assert_eq!(stream::read(&world, &input, 4, 9).unwrap().data, b"ef");
    assert_eq!(stream::read(&world, &input, 2, 4), Err(Error::Refused(Status::STD_ARGBAD)));
    assert_eq!(stream::read(&world, &input, 7, 4), Err(Error::Refused(Status::STD_ARGBAD)));
    assert_eq!(stream::read(&world, &input, 6, 0), Err(Error::Refused(Status::STD_ARGBAD)));

    let (output, sink) = server.sink().unwrap();
    stream::write(&world, &output, 0, b"abc".to_vec()).unwrap();
    stream::write(&world, &output, 0, b"abc".to_vec()).unwrap();
    stream::write(&world, &output, 1, b"bcde".to_vec()).unwrap();
    let gap = stream::write(&world, &output, 6, b"x".to_vec());
    assert_eq!(gap, Err(Error::Refused(Status::STD_ARGBAD)));
    assert_eq!(stream::close(&world, &output, 6), Err(Error::Refused(Status::STD_ARGBAD)));
    stream::close(&world, &output, 5).unwrap();
    stream::close(&world, &output, 5).unwrap();
    let taken: Vec<u8> = std::iter::from_fn(|| sink.take()).flatten().collect();
    assert_eq!(taken, b"abcde");
}

#[test]
fn a_repeated_read_replaces_the_one_that_waits() {
    let world = amoeba_loopback::world();
    let server = serve(&world);
    let (input, source) = server.source().unwrap();
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let (world, input) = (world.clone(), input);
            let threads = world.threads.clone();
            threads
                .spawn("reader", move || stream::read(&world, &input, 0, 100).map(|reply| reply.data))
                .unwrap()
        })
        .collect();
    world.threads.sleep(Duration::from_millis(50));
    source.push(b"once").unwrap();
    let answers: Vec<_> = readers.into_iter().map(|reader| reader.join().unwrap()).collect();
    assert!(answers.contains(&Ok(b"once".to_vec())), "{answers:?}");
    assert_eq!(stream::read(&world, &input, 0, 100).unwrap().data, b"once");
}

#[test]
fn who_brings_too_much_waits() {
    let world = amoeba_loopback::world();
    let server = serve(&world);
    let (output, sink) = server.sink().unwrap();
    let pieces = BUFFER_SIZE_MAX / PIECE_SIZE_MAX;
    for piece in 0..pieces - 1 {
        stream::write(&world, &output, (piece * PIECE_SIZE_MAX) as u64, vec![1; PIECE_SIZE_MAX]).unwrap();
    }
    let (process, last) = (world.clone(), ((pieces - 1) * PIECE_SIZE_MAX) as u64);
    let writer = world.threads.spawn("process", move || {
        stream::write(&process, &output, last, vec![2; PIECE_SIZE_MAX]).unwrap();
    });
    world.threads.sleep(Duration::from_millis(50));
    // A process that does not wait for that answer cannot fill our memory.
    let more = stream::write(&world, &output, BUFFER_SIZE_MAX as u64, vec![3]);
    assert_eq!(more, Err(Error::Refused(Status::STD_NOSPACE)));
    assert_eq!(sink.take().map(|piece| piece.len()), Some(PIECE_SIZE_MAX));
    writer.unwrap().join().unwrap();
}

#[test]
fn both_ends_can_close() {
    let world = amoeba_loopback::world();
    let server = serve(&world);
    let (output, sink) = server.sink().unwrap();
    stream::write(&world, &output, 0, b"lost".to_vec()).unwrap();
    sink.refuse();
    let refused = stream::write(&world, &output, 4, b"x".to_vec());
    assert_eq!(refused, Err(Error::Refused(stream::CLOSED)));
    assert_eq!(sink.take(), None);

    let (input, source) = server.source().unwrap();
    stream::close(&world, &input, 0).unwrap();
    assert_eq!(source.push(b"x"), Err(Closed));
    source.wait_closed();
    let reply = stream::read(&world, &input, 0, 1).unwrap();
    assert_eq!((reply.end, reply.data), (true, vec![]));

    let (output, sink) = server.sink().unwrap();
    stream::write(&world, &output, 0, b"kept".to_vec()).unwrap();
    sink.end();
    assert_eq!(sink.take(), Some(b"kept".to_vec()));
    assert_eq!(sink.take(), None);
}

#[test]
fn rights_kinds_and_bounds_are_kept() {
    let world = amoeba_loopback::world();
    let server = serve(&world);
    let (output, _sink) = server.sink().unwrap();
    assert_eq!(stream::read(&world, &output, 0, 1), Err(Error::Refused(Status::STD_DENIED)));
    let (input, _source) = server.source().unwrap();
    assert_eq!(stream::write(&world, &input, 0, vec![]), Err(Error::Refused(Status::STD_DENIED)));
    server.remove(&input);
    assert_eq!(stream::read(&world, &input, 0, 1), Err(Error::Refused(Status::STD_CAPBAD)));
    for _ in 1..STREAMS_MAX {
        server.source().unwrap();
    }
    assert_eq!(server.sink().map(drop), Err(TooMany));
}
