//! Example: programs that need no transactions. `datagram-listen` prints the port it listens on and every datagram that
//! arrives there, and answers each; `datagram-send` sends one and says whether an answer came. See `src/bin`.
#![forbid(unsafe_code)]
