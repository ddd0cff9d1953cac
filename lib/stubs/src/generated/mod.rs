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
/// under their numbers. It has two columns, and every operation needs one of them. Nobody can change
/// it.
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
/// The files of a caller, as the hosts where its processes run see them. An object is what one run may
/// see; it dies with the run.
pub mod view;

/// What the class files call a command, `class.operation`; `None` for one that they do not have.
pub fn command_name(command: u16) -> Option<&'static str> {
    match command {
        1001 => Some("std.age"),
        1002 => Some("std.copy"),
        1003 => Some("std.destroy"),
        1004 => Some("std.info"),
        1005 => Some("std.restrict"),
        1006 => Some("std.status"),
        1007 => Some("std.touch"),
        1008 => Some("std.getparams"),
        1009 => Some("std.setparams"),
        1010 => Some("std.ntouch"),
        2001 => Some("bullet.classic_create"),
        2002 => Some("bullet.classic_delete"),
        2003 => Some("bullet.classic_fsck"),
        2004 => Some("bullet.classic_insert"),
        2005 => Some("bullet.classic_modify"),
        2006 => Some("bullet.classic_read"),
        2007 => Some("bullet.classic_size"),
        2008 => Some("bullet.classic_compact"),
        2009 => Some("bullet.sync"),
        2051 => Some("bullet.create"),
        2052 => Some("bullet.delete"),
        2053 => Some("bullet.fsck"),
        2054 => Some("bullet.insert"),
        2055 => Some("bullet.modify"),
        2056 => Some("bullet.read"),
        2057 => Some("bullet.size"),
        2058 => Some("bullet.compact"),
        2060 => Some("bullet.usage"),
        2061 => Some("bullet.list"),
        2062 => Some("bullet.identity"),
        2063 => Some("bullet.adopt"),
        2064 => Some("bullet.restore"),
        2065 => Some("bullet.read_whole"),
        2066 => Some("bullet.read_small"),
        2067 => Some("bullet.create_many"),
        2100 => Some("directory.classic_create"),
        2101 => Some("directory.classic_discard"),
        2102 => Some("directory.classic_list"),
        2103 => Some("directory.classic_append"),
        2104 => Some("directory.classic_chmod"),
        2105 => Some("directory.classic_delete"),
        2106 => Some("directory.classic_lookup"),
        2107 => Some("directory.classic_setlookup"),
        2108 => Some("directory.classic_install"),
        2109 => Some("directory.classic_puttype"),
        2110 => Some("directory.classic_replace"),
        2111 => Some("directory.classic_getmasks"),
        2112 => Some("directory.classic_getseqnr"),
        2150 => Some("directory.lookup"),
        2151 => Some("directory.list"),
        2152 => Some("directory.append"),
        2153 => Some("directory.replace"),
        2154 => Some("directory.delete"),
        2155 => Some("directory.chmod"),
        2156 => Some("directory.getmasks"),
        2157 => Some("directory.setlookup"),
        2158 => Some("directory.install"),
        2159 => Some("directory.create"),
        2160 => Some("directory.discard"),
        2161 => Some("directory.puttype"),
        2162 => Some("directory.getseqnr"),
        2163 => Some("directory.get_attributes"),
        2164 => Some("directory.put_attributes"),
        2165 => Some("directory.describe"),
        2166 => Some("directory.retract"),
        2167 => Some("directory.recover"),
        2168 => Some("directory.list_full"),
        2169 => Some("directory.rename"),
        2170 => Some("directory.makedir"),
        2171 => Some("directory.removedir"),
        2172 => Some("directory.changes"),
        2173 => Some("directory.export"),
        2174 => Some("directory.export_end"),
        2175 => Some("directory.usage"),
        2300 => Some("process.stun"),
        2301 => Some("process.getowner"),
        2302 => Some("process.setowner"),
        2304 => Some("process.getdef"),
        2305 => Some("process.getload_classic"),
        2308 => Some("owner.checkpoint"),
        2309 => Some("process.setcomment_classic"),
        2310 => Some("process.getcomment_classic"),
        2350 => Some("process.exec"),
        2351 => Some("process.resume"),
        2352 => Some("process.signal"),
        2353 => Some("process.wait"),
        2354 => Some("process.load"),
        2355 => Some("process.processes"),
        2356 => Some("process.lookup_process"),
        2357 => Some("process.read_log"),
        2358 => Some("process.resize"),
        2359 => Some("process.setcomment"),
        2360 => Some("process.getcomment"),
        2361 => Some("process.run"),
        2400 => Some("tod.get_time_classic"),
        2450 => Some("tod.get_time"),
        2550 => Some("system.statistics"),
        2551 => Some("system.about"),
        2552 => Some("system.network"),
        2553 => Some("system.way"),
        2554 => Some("system.echo"),
        2600 => Some("random.get_random"),
        3050 => Some("pool.find_host"),
        3051 => Some("pool.why"),
        3052 => Some("pool.note"),
        3053 => Some("pool.why_process"),
        3054 => Some("pool.hosts"),
        3055 => Some("pool.rescan"),
        3056 => Some("pool.doubt"),
        3057 => Some("pool.ended"),
        4070 => Some("stream.read"),
        4071 => Some("stream.write"),
        4072 => Some("stream.close"),
        4250 => Some("view.lookup"),
        4251 => Some("view.list"),
        4252 => Some("view.read"),
        4253 => Some("view.identity"),
        4254 => Some("view.revalidate"),
        4255 => Some("view.upload"),
        4256 => Some("view.apply"),
        _ => None,
    }
}
