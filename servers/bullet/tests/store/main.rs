//! The store against a plain model, against crashes, and against disks that fail, fill up or lie.

mod carried;
mod compact;
mod crash;
mod damage;
mod disk;
mod faults;
mod large;
mod model;
mod sharing;
mod timers;
mod transfer;
mod world;
