// Generated from idl/*.class by `cargo xtask gen`; do not edit.

/// Immutable, whole files. A file is made, possibly piece by piece, committed at once, and from then on
/// only read, copied or destroyed; editing a committed file makes a new one. An uncommitted file can
/// only be edited and destroyed, and is forgotten when nobody has edited it for ten minutes.
pub mod bullet;
/// A directory maps names to capability sets. Its columns decide what a lookup brings out: a row has
/// one mask of rights a column, and the first rights bits of a directory's capability choose the
/// columns. Every operation on a directory needs the bit of at least one of its columns.
pub mod directory;
/// A host's own directory, kept by its kernel: the servers of the host under fixed names, its processes
/// under their numbers. Nobody can change it.
pub mod hostdir;
/// Hears when its process has stopped or ended.
pub mod owner;
/// Chooses the hosts of a pool that processes are to run on, and remembers why.
pub mod pool;
/// Starts, watches, stops and ends the processes of one host.
pub mod process;
/// Random bytes fit for keys.
pub mod random;
/// Operations that every object understands, whatever its class.
pub mod standard;
/// A sequence of bytes between a process and its caller. Positions count from the start, so what is
/// asked twice is done once.
pub mod stream;
/// The kernel of a host: what it is doing, and what it sees of others.
pub mod system;
/// What time it is on a host.
pub mod tod;
