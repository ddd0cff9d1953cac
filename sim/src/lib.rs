//! World two: simulated hosts, network, disks and time, all from one seed.
