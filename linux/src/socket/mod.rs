//! What a process and its kernel daemon say to each other over a Unix stream socket.
//!
//! A process has several connections, one for each thread that waits: a thread in `trans` or in `getreq` owns its
//! connection until the answer has come, so both ends are plain code and no answer needs a number. The first
//! connection says ATTACH and learns the process's cookie (128 random bits); the others JOIN with it. The process
//! lives as long as one of its connections.
//!
//! # Frames
//!
//! Integers are little-endian, reserved bytes zero.
//!
//! ```text
//!  0        4      5            8                 8 + fixed            8 + length
//!  +--------+------+------------+-----------------+--------------------+
//!  | length | kind | reserved 3 | fixed part      | data               |
//!  +--------+------+------------+-----------------+--------------------+
//! ```
//!
//! `length` counts the fixed part, whose size the kind decides, and the data.
//!
//! | kind | to the kernel | fixed part | data | answered by |
//! |---|---|---|---|---|
//! | 1 | ATTACH | version 4 | | ATTACHED, ERROR |
//! | 2 | JOIN | cookie 16 | | DONE, ERROR |
//! | 3 | TRANS | locate timeout (ns) 8, deadline (ns; all ones: none) 8, reply size max 8, signed 1, get-port 6, reserved 1, header 32 | request | REPLY, ERROR |
//! | 4 | LISTEN | get-port 6, reserved 2, request size max 8 | | PORT, ERROR |
//! | 5 | UNLISTEN | put-port 6 | | DONE |
//! | 6 | GETREQ | put-port 6 | | REQUEST, ERROR (RPC_ABORTED: no longer listening) |
//! | 7 | PUTREP | request id 8, header 32 | reply | |
//! | 8 | FAIL | request id 8 | | |
//! | 9 | PUT-PORT | get-port 6 | | PORT |
//! | 10 | STATUS | | | TEXT |
//! | 11 | OPEN | has port 1, get-port 6, reserved 1 | | OPENED, ERROR |
//! | 12 | RECEIVE | | | DATAGRAM |
//! | 13 | SEND | source address 8 (null: the process), has port 1, put-port 6, reserved 1, address 8 | datagram | DONE, ERROR |
//! | 14 | INTRODUCE | signed 1, signature get-port 6, reserved 1, put-port 6, reserved 2; **with** the client's region | | CHANNEL, FLOW, ERROR |
//! | 15 | ACCEPT | channel 8; **with** the server's region | | |
//! | 16 | DECLINE | channel 8 | | |
//! | 17 | CLOSE | channel 8 | | DONE |
//! | 18 | READY | | | after KNOCK: REQUEST, or DONE when it was too late |
//! | 19 | LEND | process address 8; **with** a sealed memory file, or a way on which one is (`client/ways.rs`) | | TICKET, ERROR |
//! | 20 | BORROW | ticket 8 | | BORROWED, ERROR (STD_NOTFOUND) |
//! | 40 | LOOK | has port 1, put-port 6, reserved 1 | | FACTS |
//! | 41 | TRACE | proof 16 (see `admin`), process number 4 (0: all), with data 1, end what passes by 1, reserved 2, has port 1, put-port 6, reserved 1 | | DONE, ERROR |
//! | 42 | TRACE-NEXT | | | TRACED, when there is something |
//! | 50 | ADMIN | proof 16 | about other hosts: see `admin` | ADMINISTERED, ERROR |
//!
//! | kind | to the process | fixed part | data |
//! |---|---|---|---|
//! | 65 | ATTACHED | cookie 16, address 8 | |
//! | 66 | DONE | | |
//! | 67 | REPLY | header 32 | reply |
//! | 68 | ERROR | class 1 (1 not sent, 2 refused, 3 maybe executed, 4 bad reply), reserved 1, status 2 | |
//! | 69 | PORT | put-port 6 | |
//! | 70 | REQUEST | request id 8, process address 8, signed 1, signature 6, reserved 1, header 32 | request |
//! | 71 | TEXT | | text |
//! | 72 | OPENED | address 8, has port 1, put-port 6, reserved 1 | |
//! | 73 | DATAGRAM | source address 8 | datagram |
//! | 74 | INTRODUCED | channel 8, process address 8, signed 1, signature 6, reserved 1; **with** the client's region, an ear, a rope | |
//! | 75 | CHANNEL | channel 8; **with** the server's region, an ear, a rope | |
//! | 76 | FLOW | **with** a socket and an ear | flow 8, receiver 4, datagram size 4, window 4, keys 65 |
//! | 77 | FLOW-INTRODUCED | process address 8, signed 1, signature 6, reserved 1; **with** a socket and an ear | as FLOW |
//! | 78 | KNOCK | | |
//! | 79 | TICKET | ticket 8 | |
//! | 80 | BORROWED | **with** a sealed memory file | |
//! | 90 | FACTS | | record `way` (with a port) or `network` of class system |
//! | 91 | TRACED | records dropped since the last 8 | records ([`amoeba_wire::trace`]) |
//! | 100 | ADMINISTERED | | the answer |
//!
//! INTRODUCED answers GETREQ: the process then says ACCEPT or DECLINE over the same connection, and may say GETREQ again.
//! Regions, ears and ropes are descriptors that travel with the frame; see `docs/channels.md`. A descriptor with any other
//! frame, or one too many or too few, ends the connection. CLOSE is said by either process of a channel that has done with it.
//!
//! A memory file that is lent stays with the daemon until the process it is lent to borrows it, once; that process alone can.
//!
//! FLOW-INTRODUCED answers GETREQ too, and needs no answer. Flows are closed by CLOSE, as channels are.
//!
//! OPEN makes a connection the one of an endpoint of datagrams, which ends with it; RECEIVE goes over that alone.
//!
//! TRACE makes a connection one that sees what passes, for as long as it is open; TRACE-NEXT goes over that alone.
//!
//! PUTREP and FAIL go over the connection that delivered the request, at any time, also while that connection waits
//! for its next request. A connection that closes with requests unanswered fails them; one that says anything else
//! than the table allows is closed. Data are at most [`amoeba_wire::DATA_SIZE_MAX`] bytes: more is RPC_BADADDRESS,
//! after which the connection is closed as well.
//!
//! # Source
//! Ours. The one-connection-per-thread shape is that of AMUNIX, Amoeba 5.3's driver for Unix.

mod admin;
mod assemble;
mod frame;
mod pass;
mod path;
mod stream;

pub(crate) use admin::proof;
pub use admin::{Admin, Administered, STUNNED_MAX};
pub(crate) use assemble::{Assembled, Assembler};
pub use frame::{Bad, Cookie, Parts, ToKernel, ToProcess, TraceFilter};
pub(crate) use frame::{DESCRIPTORS_TO_KERNEL, FrameHead, TEXT_SIZE_MAX, VERSION};
pub(crate) use pass::{receive_some, send_some};
pub(crate) use path::{bind, connect};
pub(crate) use stream::{Lost, Stream, prepare};
