//! Replies into buffers that their client has posted, several transactions under way.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use amoeba_linux::client::Client;
use amoeba_wire::{Header, Status};
use amoeba_world::{Posted, Shared, TransOptions, Transactions};

use super::common::{port, request};
use super::{Host, Server, await_that, pattern, use_flow};

/// The parts of a file, by number and size; a part of another number is not there.
fn parts(
    client: &Client,
    port: amoeba_cap::PutPort,
    sizes: &[usize],
    buffer: &mut [u8],
) -> Vec<Option<usize>> {
    let mut rest = buffer;
    let mut posts = Vec::new();
    for (number, size) in sizes.iter().enumerate() {
        let (buffer, others) = rest.split_at_mut(*size);
        rest = others;
        posts.push(Posted::new(request(port, vec![number as u8]), buffer));
    }
    let options = TransOptions { locate_timeout: Duration::from_millis(300), ..TransOptions::default() };
    client.trans_posted(&mut posts, &options);
    let size = |(number, post): (usize, &Posted<'_>)| {
        assert_eq!(post.request, request(port, vec![number as u8]), "a request is given back");
        post.result.expect("every transaction has a result").ok().map(|(_, size)| size)
    };
    posts.iter().enumerate().map(size).collect()
}

/// A server of replies as large as `sizes` say, out of one file; `meet` before each reply.
fn file_server(
    host: &Host,
    threads: usize,
    sizes: Vec<usize>,
    meet: impl Fn() + Send + Sync + 'static,
) -> Server {
    let client = host.client();
    let listener = client.listen(&port(1), 1 << 20).unwrap();
    let executed = Arc::new(AtomicUsize::new(0));
    let file = Arc::new(pattern(sizes.iter().sum()));
    let work = Arc::new((sizes, meet));
    for _ in 0..threads {
        let (listener, executed, file, work) =
            (listener.clone(), executed.clone(), file.clone(), work.clone());
        std::thread::spawn(move || {
            while let Ok(incoming) = listener.getreq() {
                let Some(number) = incoming.request.data.first().map(|number| usize::from(*number)) else {
                    incoming.reply.send(incoming.request);
                    continue;
                };
                executed.fetch_add(1, Ordering::SeqCst);
                (work.1)();
                let begin = work.0[..number].iter().sum::<usize>();
                let part = Shared::new(file.clone(), begin..begin + work.0[number]);
                incoming.reply.send_shared(Header::reply(Status::STD_OK), part);
            }
        });
    }
    Server { port: listener.put_port(), listener, executed, _client: client }
}

const SIZES: [usize; 9] = [300_000, 0, 1, 1 << 20, 1400, 77_777, 2 << 20, 5, 400_000];

#[test]
fn parts_are_under_way_together_and_each_is_put_in_its_place() {
    let [one, two] = Host::pair("parts");
    let inside = Arc::new(AtomicUsize::new(0));
    let meeting = inside.clone();
    // None goes on before two have been there at once, so one after the other would never end.
    let server = file_server(&one, 3, SIZES.to_vec(), move || {
        let others = meeting.fetch_add(1, Ordering::SeqCst);
        await_that(|| meeting.load(Ordering::SeqCst) > 1 || others > 0);
    });
    let client = two.client();
    use_flow(&two, &client, server.port);
    inside.store(10, Ordering::SeqCst); // until there are several flows nobody waits
    let total = SIZES.iter().sum();
    let mut buffer = vec![0; total];
    await_that(|| {
        parts(&client, server.port, &SIZES, &mut buffer);
        two.count("flows given to clients") > 1
    });
    let packets = two.count("transactions elsewhere");
    inside.store(0, Ordering::SeqCst);
    let executed = server.executed();
    buffer.fill(0);
    assert_eq!(parts(&client, server.port, &SIZES, &mut buffer), SIZES.map(Some));
    assert!(buffer == pattern(total));
    assert_eq!(server.executed() - executed, SIZES.len(), "each once");
    assert_eq!(two.count("transactions elsewhere"), packets, "the daemons see nothing of it");
}

#[test]
fn what_is_larger_than_its_buffer_is_not_put_there() {
    let [one, two] = Host::pair("overflow");
    let server = file_server(&one, 1, SIZES.to_vec(), || ());
    let client = two.client();
    use_flow(&two, &client, server.port);
    let mut buffer = vec![0xee; 1 << 20];
    for size in [1000, 299_999] {
        let mut posts = [Posted::new(request(server.port, vec![0]), &mut buffer[..size])];
        client.trans_posted(&mut posts, &TransOptions::default());
        let (header, filled) = posts[0].result.unwrap().unwrap();
        assert_eq!((header.status(), filled), (Status::STD_OVERFLOW, 0));
    }
    assert!(buffer.iter().all(|byte| *byte == 0xee));
    assert_eq!(
        parts(&client, server.port, &SIZES[..1], &mut buffer),
        [Some(SIZES[0])],
        "the flow is as before"
    );
}

#[test]
fn on_one_host_parts_are_fetched_too() {
    let [one, _two] = Host::pair("here");
    let server = file_server(&one, 1, SIZES.to_vec(), || ());
    let mut buffer = vec![0; SIZES.iter().sum()];
    for _ in 0..3 {
        buffer.fill(0);
        assert_eq!(parts(&one.client(), server.port, &SIZES, &mut buffer), SIZES.map(Some));
        assert!(buffer == pattern(buffer.len()));
    }
}

#[test]
fn a_server_that_ends_in_the_middle_leaves_each_part_executed_once_at_most() {
    let [one, two] = Host::pair("ends");
    let count = Arc::new(AtomicUsize::new(0));
    let counting = count.clone();
    let server = file_server(&one, 2, SIZES.to_vec(), move || {
        counting.fetch_add(1, Ordering::SeqCst);
    });
    let client = two.client();
    use_flow(&two, &client, server.port);
    let mut buffer = vec![0; SIZES.iter().sum()];
    parts(&client, server.port, &SIZES, &mut buffer);
    let before = count.load(Ordering::SeqCst);
    let (listener, counted) = (server.listener.clone(), count.clone());
    let closing = std::thread::spawn(move || {
        await_that(|| counted.load(Ordering::SeqCst) > before + 3);
        listener.close();
    });
    let results = parts(&client, server.port, &SIZES, &mut buffer);
    closing.join().unwrap();
    let executed = count.load(Ordering::SeqCst) - before;
    assert!(
        executed >= results.iter().flatten().count() && executed <= SIZES.len(),
        "{executed}: {results:?}"
    );
}
