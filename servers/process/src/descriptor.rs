//! The process descriptor: a process as data.
//!
//! Executing, stunning, debugging and moving are operations on descriptors. This is our 64-bit form; its byte
//! picture is in `docs/processes.md`. A virgin process has no segments and no threads: the host's loader makes
//! them from the program.

use amoeba_cap::{Capability, GetPort, ServerSecret};
use amoeba_wire::{Malformed, Reader, Writer};

use crate::{Limits, View};

/// The most bytes of an encoded descriptor.
pub const DESCRIPTOR_SIZE_MAX: usize = 1 << 20;
/// The most arguments, and the most environment strings.
pub const STRINGS_MAX: usize = 16_384;
/// The most bytes of one argument or environment string: what Linux itself takes.
pub const STRING_SIZE_MAX: usize = 131_071;
/// The most bytes of a path.
pub const PATH_SIZE_MAX: usize = 4095;
/// The most bytes of an architecture's or a CPU option's name.
pub const ARCHITECTURE_SIZE_MAX: usize = 32;
/// The most CPU options.
pub const OPTIONS_MAX: usize = 64;
/// The most entries of the capability environment.
pub const CAPABILITIES_MAX: usize = 256;
/// The most bytes of a name in the capability environment.
pub const CAPABILITY_NAME_SIZE_MAX: usize = 255;
/// The most segments.
pub const SEGMENTS_MAX: usize = 8192;
/// The most threads.
pub const THREADS_MAX: usize = 4096;
/// The most bytes of one thread's saved state.
pub const THREAD_STATE_SIZE_MAX: usize = 65_536;

/// The most files that come into a scratch directory, and the most that are taken out of it.
pub const SCRATCH_FILES_MAX: usize = 256;
/// The most bytes of a file's name in a scratch directory.
pub const FILE_NAME_SIZE_MAX: usize = 255;

/// The most bytes of a command line in a `Debug` form.
const DEBUG_SIZE_MAX: usize = 255;
const MAGIC: [u8; 8] = *b"AmoebaPD";
const VERSION: u16 = 1;
const FLAGS_KNOWN: u16 = 0b1111_1111;
const FLAG_TTY: u16 = 0b01;
const FLAG_DETACHED: u16 = 0b10;
const FLAG_SERVED_INPUT: u16 = 0b100;
const FLAG_SCRATCH: u16 = 0b1000;
const FLAG_LIMITS: u16 = 0b1_0000;
const FLAG_NETWORK: u16 = 0b10_0000;
const FLAG_VIEW: u16 = 0b100_0000;
const FLAG_AWAITED: u16 = 0b1000_0000;

/// Why bytes are not a process descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DescriptorError {
    /// The bytes do not begin as a descriptor does.
    #[error("not a process descriptor")]
    Magic,
    /// A descriptor of a version, or with a flag or kind, that this host does not know.
    #[error("a process descriptor of an unknown version")]
    Version,
    /// A field is cut short, too long, or holds something its type forbids.
    #[error("a malformed process descriptor")]
    Malformed,
    /// Larger than [`DESCRIPTOR_SIZE_MAX`], or a list longer than its bound.
    #[error("a process descriptor over its bounds")]
    TooLarge,
}

impl From<Malformed> for DescriptorError {
    fn from(_: Malformed) -> DescriptorError {
        DescriptorError::Malformed
    }
}

/// What a process runs.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Program {
    /// Nothing: a descriptor that cannot be executed.
    None,
    /// A file of the executing host: a path, or a name that is searched along the PATH of the environment strings.
    HostPath(Vec<u8>),
    /// A committed Bullet file: an executable of the host's architecture, or a script.
    File(Capability),
}

/// The size of a terminal, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowSize {
    /// Lines.
    pub rows: u16,
    /// Characters a line.
    pub columns: u16,
}

/// Standard input that the process's own host serves, as a stream object that another process writes to: the joint of
/// a pipeline. Whoever starts both makes port and secret, and gives the writer the capability.
#[derive(Clone, PartialEq, Eq)]
pub struct ServedInput {
    /// The port that is listened on.
    pub get_port: [u8; 6],
    /// What protects the stream object there.
    pub secret: [u8; 32],
}

impl ServedInput {
    /// The port that is listened on.
    pub fn get_port(&self) -> GetPort {
        GetPort::from_bytes(self.get_port)
    }

    /// What protects the stream object there.
    pub fn secret(&self) -> ServerSecret {
        ServerSecret::from_bytes(self.secret)
    }
}

impl std::fmt::Debug for ServedInput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ServedInput")
    }
}

/// A working directory made for one process: files come into it before the program runs and are taken out after its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scratch {
    /// Names of files in it, and what they hold: committed Bullet files.
    pub files: Vec<(Vec<u8>, Capability)>,
    /// Names of files that are wanted afterwards.
    pub results: Vec<Vec<u8>>,
    /// The Bullet server that the results are stored on.
    pub store: Capability,
}

impl Default for Scratch {
    /// An empty directory of which nothing is wanted.
    fn default() -> Scratch {
        Scratch { files: Vec::new(), results: Vec::new(), store: Capability::NULL }
    }
}

/// Whether `name` can be the name of a file in a scratch directory: one name, which does not lead out of it.
pub fn is_file_name(name: &[u8]) -> bool {
    !matches!(name, b"" | b"." | b"..")
        && name.len() <= FILE_NAME_SIZE_MAX
        && !name.iter().any(|byte| matches!(byte, 0 | b'/'))
}

/// A piece of a process's memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where its contents are; null for zeros.
    pub contents: Capability,
    /// Where in `contents` they begin.
    pub file_offset: u64,
    /// Where it lies in the process's memory.
    pub address: u64,
    /// Its bytes.
    pub length: u64,
    /// The original's type, growth and protection bits.
    pub kind: u32,
}

/// A thread of a stunned process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thread {
    /// The original's state bits.
    pub state: u32,
    /// What `saved` holds, as the original's extra bits.
    pub extra: u32,
    /// Kernel state and registers.
    pub saved: Vec<u8>,
}

/// A process as data. [`ProcessDescriptor::encode`] and [`ProcessDescriptor::parse`] are inverse.
///
/// Its `Debug` form leaves out the environment strings, and shows the command line without secrets.
#[derive(Clone, PartialEq, Eq)]
pub struct ProcessDescriptor {
    /// CPU type and system, as in `x86_64-linux`; empty when any will do (a script).
    pub architecture: Vec<u8>,
    /// CPU options the program needs, as in `avx512f`.
    pub options: Vec<Vec<u8>>,
    /// What runs.
    pub program: Program,
    /// Arguments; the first is the name the program is told it has.
    pub arguments: Vec<Vec<u8>>,
    /// Environment strings, `NAME=value`.
    pub environment: Vec<Vec<u8>>,
    /// The capability environment: ROOT, HOME, WORK, STDIN, STDOUT, STDERR, TTY and others.
    pub capabilities: Vec<(Vec<u8>, Capability)>,
    /// Who hears of exit, stun and exception; null for nobody.
    pub owner: Capability,
    /// The process itself, once it runs.
    pub process: Capability,
    /// Whether its owner waits for its end, and serves its streams: then the owner is not told of the end, and streams that
    /// end with the process are not closed one by one.
    pub awaited: bool,
    /// A directory of the executing host; empty for the server's choice.
    pub working_directory: Vec<u8>,
    /// The size of the terminal it wants; `None` for pipes.
    pub terminal: Option<WindowSize>,
    /// Whether nobody waits for it: its output goes to a log that the process server keeps.
    pub detached: bool,
    /// Standard input that is served where the process runs; with it a STDIN in `capabilities` is not looked at.
    pub served_input: Option<ServedInput>,
    /// A working directory of its own instead of `working_directory`.
    pub scratch: Option<Scratch>,
    /// How much of its host it may use, with everything it starts.
    pub limits: Limits,
    /// Whether it uses the network of its host; without it, it has a loopback interface of its own and nothing else.
    pub network: bool,
    /// Its file tree.
    pub view: View,
    /// Its memory; none for a virgin process.
    pub segments: Vec<Segment>,
    /// Its threads; none for a virgin process.
    pub threads: Vec<Thread>,
}

impl std::fmt::Debug for ProcessDescriptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProcessDescriptor")
            .field("command_line", &self.command_line(DEBUG_SIZE_MAX))
            .field("architecture", &String::from_utf8_lossy(&self.architecture))
            .field("process", &self.process)
            .field("owner", &self.owner)
            .field("detached", &self.detached)
            .field("terminal", &self.terminal)
            .finish_non_exhaustive()
    }
}

impl ProcessDescriptor {
    /// A virgin process that runs `program` with `arguments` and nothing else.
    pub fn new(architecture: &str, program: Program, arguments: Vec<Vec<u8>>) -> ProcessDescriptor {
        ProcessDescriptor {
            architecture: architecture.as_bytes().to_vec(),
            options: Vec::new(),
            program,
            arguments,
            environment: Vec::new(),
            capabilities: Vec::new(),
            owner: Capability::NULL,
            process: Capability::NULL,
            awaited: false,
            working_directory: Vec::new(),
            terminal: None,
            detached: false,
            served_input: None,
            scratch: None,
            limits: Limits::default(),
            network: false,
            view: View::Host,
            segments: Vec::new(),
            threads: Vec::new(),
        }
    }

    /// The capability called `name` in the capability environment.
    pub fn capability(&self, name: &[u8]) -> Option<Capability> {
        self.capabilities.iter().find(|(known, _)| known == name).map(|(_, capability)| *capability)
    }

    /// The value of the environment string called `name`.
    pub fn variable(&self, name: &[u8]) -> Option<&[u8]> {
        self.environment
            .iter()
            .find_map(|string| string.strip_prefix(name).and_then(|rest| rest.strip_prefix(b"=")))
    }

    /// The command line for people: the arguments with spaces between, shortened to `size_max` bytes of UTF-8.
    /// Arguments that are capabilities lose their check fields; environment strings are not shown.
    pub fn command_line(&self, size_max: usize) -> String {
        let mut line = String::new();
        for argument in &self.arguments {
            if !line.is_empty() {
                line.push(' ');
            }
            let text = amoeba_cap::without_secrets(&String::from_utf8_lossy(argument));
            line.extend(text.chars().map(|c| if c.is_control() { ' ' } else { c }));
            if line.len() > size_max {
                break;
            }
        }
        while line.len() > size_max {
            line.pop();
        }
        line
    }

    /// The bytes of this descriptor.
    ///
    /// # Errors
    /// [`DescriptorError::TooLarge`] when a list or the whole is over its bound, [`DescriptorError::Malformed`] when
    /// a string holds a NUL, so that it could not be parsed again.
    pub fn encode(&self) -> Result<Vec<u8>, DescriptorError> {
        self.check_bounds()?;
        let mut out = Writer::new();
        out.raw(&MAGIC).put_u16(VERSION).put_u16(self.flags());
        out.put_cap(&self.process).put_cap(&self.owner);
        let window = self.terminal.unwrap_or(WindowSize { rows: 0, columns: 0 });
        out.put_u16(window.rows).put_u16(window.columns);
        out.put_bytes(&self.architecture);
        put_list(&mut out, &self.options, |out, option| {
            out.put_bytes(option);
        });
        match &self.program {
            Program::None => out.put_u8(0),
            Program::HostPath(path) => out.put_u8(1).put_bytes(path),
            Program::File(file) => out.put_u8(2).put_cap(file),
        };
        out.put_bytes(&self.working_directory);
        for strings in [&self.arguments, &self.environment] {
            put_list(&mut out, strings, |out, string| {
                out.put_bytes(string);
            });
        }
        put_list(&mut out, &self.capabilities, |out, (name, capability)| {
            out.put_bytes(name).put_cap(capability);
        });
        put_list(&mut out, &self.segments, put_segment);
        put_list(&mut out, &self.threads, |out, thread| {
            out.put_u32(thread.state).put_u32(thread.extra).put_bytes(&thread.saved);
        });
        if let Some(input) = &self.served_input {
            out.raw(&input.get_port).raw(&input.secret);
        }
        if let Some(scratch) = &self.scratch {
            put_list(&mut out, &scratch.files, |out, (name, file)| {
                out.put_bytes(name).put_cap(file);
            });
            put_list(&mut out, &scratch.results, |out, name| {
                out.put_bytes(name);
            });
            out.put_cap(&scratch.store);
        }
        if self.limits.any() {
            self.limits.put(&mut out);
        }
        if !self.view.is_host() {
            self.view.put(&mut out);
        }
        if out.len() > DESCRIPTOR_SIZE_MAX {
            return Err(DescriptorError::TooLarge);
        }
        Ok(out.finish())
    }

    /// The descriptor in these bytes.
    ///
    /// # Errors
    /// See [`DescriptorError`]; every bound is checked before anything is allocated for what it bounds.
    pub fn parse(bytes: &[u8]) -> Result<ProcessDescriptor, DescriptorError> {
        if bytes.len() > DESCRIPTOR_SIZE_MAX {
            return Err(DescriptorError::TooLarge);
        }
        let mut reader = Reader::new(bytes);
        let input = &mut reader;
        if input.array::<8>().map_err(|_| DescriptorError::Magic)? != MAGIC {
            return Err(DescriptorError::Magic);
        }
        let (version, flags) = (input.get_u16()?, input.get_u16()?);
        if version != VERSION || flags & !FLAGS_KNOWN != 0 {
            return Err(DescriptorError::Version);
        }
        let process = input.get_cap()?;
        let owner = input.get_cap()?;
        let window = WindowSize { rows: input.get_u16()?, columns: input.get_u16()? };
        let descriptor = ProcessDescriptor {
            process,
            owner,
            terminal: (flags & FLAG_TTY != 0).then_some(window),
            detached: flags & FLAG_DETACHED != 0,
            awaited: flags & FLAG_AWAITED != 0,
            architecture: get_text(input, ARCHITECTURE_SIZE_MAX)?,
            options: get_list(input, OPTIONS_MAX, 4, |input| get_text(input, ARCHITECTURE_SIZE_MAX))?,
            program: get_program(input)?,
            working_directory: get_text(input, PATH_SIZE_MAX)?,
            arguments: get_list(input, STRINGS_MAX, 4, |input| get_text(input, STRING_SIZE_MAX))?,
            environment: get_list(input, STRINGS_MAX, 4, |input| get_text(input, STRING_SIZE_MAX))?,
            capabilities: get_list(input, CAPABILITIES_MAX, 20, |input| {
                Ok((get_text(input, CAPABILITY_NAME_SIZE_MAX)?, input.get_cap()?))
            })?,
            segments: get_list(input, SEGMENTS_MAX, SEGMENT_SIZE, get_segment)?,
            threads: get_list(input, THREADS_MAX, 12, get_thread)?,
            served_input: if flags & FLAG_SERVED_INPUT == 0 {
                None
            } else {
                Some(ServedInput { get_port: input.array()?, secret: input.array()? })
            },
            scratch: if flags & FLAG_SCRATCH == 0 { None } else { Some(get_scratch(input)?) },
            limits: if flags & FLAG_LIMITS == 0 { Limits::default() } else { Limits::get(input)? },
            network: flags & FLAG_NETWORK != 0,
            view: if flags & FLAG_VIEW == 0 { View::Host } else { View::get(input)? },
        };
        reader.end()?;
        Ok(descriptor)
    }

    fn flags(&self) -> u16 {
        let tty = if self.terminal.is_some() { FLAG_TTY } else { 0 };
        let detached = if self.detached { FLAG_DETACHED } else { 0 };
        let served = if self.served_input.is_some() { FLAG_SERVED_INPUT } else { 0 };
        let scratch = if self.scratch.is_some() { FLAG_SCRATCH } else { 0 };
        let limits = if self.limits.any() { FLAG_LIMITS } else { 0 };
        let network = if self.network { FLAG_NETWORK } else { 0 };
        let view = if self.view.is_host() { 0 } else { FLAG_VIEW };
        let awaited = if self.awaited { FLAG_AWAITED } else { 0 };
        tty | detached | served | scratch | limits | network | view | awaited
    }

    fn check_bounds(&self) -> Result<(), DescriptorError> {
        let counts = [
            (self.options.len(), OPTIONS_MAX),
            (self.arguments.len(), STRINGS_MAX),
            (self.environment.len(), STRINGS_MAX),
            (self.capabilities.len(), CAPABILITIES_MAX),
            (self.segments.len(), SEGMENTS_MAX),
            (self.threads.len(), THREADS_MAX),
        ];
        if counts.iter().any(|(count, max)| count > max) {
            return Err(DescriptorError::TooLarge);
        }
        check_texts(self.options.iter().chain([&self.architecture]), ARCHITECTURE_SIZE_MAX)?;
        check_texts(self.arguments.iter().chain(&self.environment), STRING_SIZE_MAX)?;
        check_texts(self.capabilities.iter().map(|(name, _)| name), CAPABILITY_NAME_SIZE_MAX)?;
        check_texts([&self.working_directory], PATH_SIZE_MAX)?;
        if let Program::HostPath(path) = &self.program {
            check_texts([path], PATH_SIZE_MAX)?;
        }
        if let Some(scratch) = &self.scratch {
            check_scratch(scratch)?;
        }
        if !self.view.is_sound() {
            return Err(DescriptorError::Malformed);
        }
        let too_large = self.threads.iter().any(|thread| thread.saved.len() > THREAD_STATE_SIZE_MAX);
        if too_large { Err(DescriptorError::TooLarge) } else { Ok(()) }
    }
}

const SEGMENT_SIZE: usize = 44;

fn check_scratch(scratch: &Scratch) -> Result<(), DescriptorError> {
    if scratch.files.len() > SCRATCH_FILES_MAX || scratch.results.len() > SCRATCH_FILES_MAX {
        return Err(DescriptorError::TooLarge);
    }
    let mut names = scratch.files.iter().map(|(name, _)| name).chain(&scratch.results);
    if names.all(|name| is_file_name(name)) { Ok(()) } else { Err(DescriptorError::Malformed) }
}

fn get_scratch(input: &mut Reader<'_>) -> Result<Scratch, DescriptorError> {
    let name = |input: &mut Reader<'_>| {
        let name = get_text(input, FILE_NAME_SIZE_MAX)?;
        if is_file_name(&name) { Ok(name) } else { Err(DescriptorError::Malformed) }
    };
    Ok(Scratch {
        files: get_list(input, SCRATCH_FILES_MAX, 20, |input| Ok((name(input)?, input.get_cap()?)))?,
        results: get_list(input, SCRATCH_FILES_MAX, 4, name)?,
        store: input.get_cap()?,
    })
}

fn check_texts<'a>(
    texts: impl IntoIterator<Item = &'a Vec<u8>>,
    size_max: usize,
) -> Result<(), DescriptorError> {
    for text in texts {
        if text.len() > size_max {
            return Err(DescriptorError::TooLarge);
        }
        if text.contains(&0) {
            return Err(DescriptorError::Malformed);
        }
    }
    Ok(())
}

fn put_list<T>(out: &mut Writer, items: &[T], put: impl Fn(&mut Writer, &T)) {
    out.put_u32(u32::try_from(items.len()).expect("lists were checked against their bounds"));
    for item in items {
        put(out, item);
    }
}

/// Takes a list of at most `max` items, each of which takes at least `item_size_min` bytes.
fn get_list<'a, T>(
    input: &mut Reader<'a>,
    max: usize,
    item_size_min: usize,
    get: impl Fn(&mut Reader<'a>) -> Result<T, DescriptorError>,
) -> Result<Vec<T>, DescriptorError> {
    let count = input.get_u32()? as usize;
    if count > max {
        return Err(DescriptorError::TooLarge);
    }
    if count * item_size_min > input.remaining() {
        return Err(DescriptorError::Malformed);
    }
    (0..count).map(|_| get(input)).collect()
}

/// A string that the operating system is to take: it holds no NUL.
fn get_text(input: &mut Reader<'_>, size_max: usize) -> Result<Vec<u8>, DescriptorError> {
    let text = input.get_bytes(size_max)?;
    if text.contains(&0) { Err(DescriptorError::Malformed) } else { Ok(text.to_vec()) }
}

fn get_program(input: &mut Reader<'_>) -> Result<Program, DescriptorError> {
    match input.get_u8()? {
        0 => Ok(Program::None),
        1 => Ok(Program::HostPath(get_text(input, PATH_SIZE_MAX)?)),
        2 => Ok(Program::File(input.get_cap()?)),
        _ => Err(DescriptorError::Version),
    }
}

fn put_segment(out: &mut Writer, segment: &Segment) {
    out.put_cap(&segment.contents).put_u64(segment.file_offset).put_u64(segment.address);
    out.put_u64(segment.length).put_u32(segment.kind);
}

fn get_segment(input: &mut Reader<'_>) -> Result<Segment, DescriptorError> {
    Ok(Segment {
        contents: input.get_cap()?,
        file_offset: input.get_u64()?,
        address: input.get_u64()?,
        length: input.get_u64()?,
        kind: input.get_u32()?,
    })
}

fn get_thread(input: &mut Reader<'_>) -> Result<Thread, DescriptorError> {
    Ok(Thread {
        state: input.get_u32()?,
        extra: input.get_u32()?,
        saved: input.get_bytes(THREAD_STATE_SIZE_MAX)?.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn echo() -> ProcessDescriptor {
        let arguments = vec![b"echo".to_vec(), b"hello".to_vec()];
        ProcessDescriptor::new("x86_64-linux", Program::HostPath(b"echo".to_vec()), arguments)
    }

    #[test]
    fn the_layout_is_the_chapters() {
        let mut descriptor = echo();
        descriptor.owner = Capability::from_bytes([7; 16]);
        descriptor.terminal = Some(WindowSize { rows: 24, columns: 80 });
        descriptor.capabilities.push((b"ROOT".to_vec(), Capability::from_bytes([9; 16])));
        let mut expected = b"AmoebaPD\x01\0\x01\0".to_vec();
        expected.extend([0; 16]);
        expected.extend([7; 16]);
        expected.extend([24, 0, 80, 0]);
        expected.extend(b"\x0c\0\0\0x86_64-linux\0\0\0\0");
        expected.extend(b"\x01\x04\0\0\0echo");
        expected.extend(b"\0\0\0\0");
        expected.extend(b"\x02\0\0\0\x04\0\0\0echo\x05\0\0\0hello");
        expected.extend(b"\0\0\0\0");
        expected.extend(b"\x01\0\0\0\x04\0\0\0ROOT");
        expected.extend([9; 16]);
        expected.extend([0; 8]);
        assert_eq!(descriptor.encode().unwrap(), expected);
        assert_eq!(ProcessDescriptor::parse(&expected), Ok(descriptor));
    }

    #[test]
    fn bounds_hold_in_both_directions() {
        let mut descriptor = echo();
        descriptor.arguments = vec![vec![b'x'; STRING_SIZE_MAX + 1]];
        assert_eq!(descriptor.encode(), Err(DescriptorError::TooLarge));
        descriptor.arguments = vec![vec![b'x'; STRING_SIZE_MAX]; 8];
        assert_eq!(descriptor.encode(), Err(DescriptorError::TooLarge));
        descriptor.arguments = vec![b"a\0b".to_vec()];
        assert_eq!(descriptor.encode(), Err(DescriptorError::Malformed));
        let bytes = echo().encode().unwrap();
        assert_eq!(ProcessDescriptor::parse(&bytes[..bytes.len() - 1]), Err(DescriptorError::Malformed));
        assert_eq!(ProcessDescriptor::parse(&[&bytes[..], b"x"].concat()), Err(DescriptorError::Malformed));
        assert_eq!(ProcessDescriptor::parse(b"#!/bin/sh"), Err(DescriptorError::Magic));
        let mut newer = bytes.clone();
        newer[8] = 2;
        assert_eq!(ProcessDescriptor::parse(&newer), Err(DescriptorError::Version));
        assert_eq!(
            ProcessDescriptor::parse(&vec![0; DESCRIPTOR_SIZE_MAX + 1]),
            Err(DescriptorError::TooLarge)
        );
    }

    #[test]
    fn a_joint_and_a_scratch_directory_come_at_the_end() {
        let mut descriptor = echo();
        let plain = descriptor.encode().unwrap();
        descriptor.served_input = Some(ServedInput { get_port: [1; 6], secret: [2; 32] });
        descriptor.scratch = Some(Scratch {
            files: vec![(b"in".to_vec(), Capability::from_bytes([3; 16]))],
            results: vec![b"out".to_vec()],
            store: Capability::from_bytes([4; 16]),
        });
        let bytes = descriptor.encode().unwrap();
        assert_eq!(bytes[10], 0b1100);
        assert_eq!(&bytes[12..plain.len()], &plain[12..]);
        let mut expected = [&[1; 6][..], &[2; 32], b"\x01\0\0\0\x02\0\0\0in", &[3; 16]].concat();
        expected.extend(b"\x01\0\0\0\x03\0\0\0out");
        expected.extend([4; 16]);
        assert_eq!(bytes[plain.len()..], expected);
        assert_eq!(ProcessDescriptor::parse(&bytes), Ok(descriptor.clone()));
        for name in [&b""[..], b".", b"..", b"a/b", b"/a", b"a\0", &[b'x'; 256]] {
            assert!(!is_file_name(name));
            descriptor.scratch = Some(Scratch { results: vec![name.to_vec()], ..Scratch::default() });
            assert_eq!(descriptor.encode(), Err(DescriptorError::Malformed));
        }
        // A name that leads out is refused also when somebody else has encoded it.
        let at = bytes.len() - 16 - 3;
        for bad in [b"../", b"a\0b"] {
            let mut bytes = bytes.clone();
            bytes[at..at + 3].copy_from_slice(bad);
            assert_eq!(ProcessDescriptor::parse(&bytes), Err(DescriptorError::Malformed));
        }
    }

    #[test]
    fn limits_come_last_and_only_where_there_are_any() {
        let mut descriptor = echo();
        let plain = descriptor.encode().unwrap();
        descriptor.limits = Limits { memory: 64 << 20, cpu_thousandths: 1500, processes: 7 };
        descriptor.network = true;
        let bytes = descriptor.encode().unwrap();
        assert_eq!(bytes[10], 0b11_0000);
        assert_eq!(bytes[plain.len()..], *b"\0\0\0\x04\0\0\0\0\xDC\x05\0\0\x07\0\0\0");
        assert_eq!(ProcessDescriptor::parse(&bytes), Ok(descriptor));
        // One form for one descriptor: limits that limit nothing are not written.
        let mut empty = bytes.clone();
        let body = empty.len() - 16;
        empty[body..].fill(0);
        assert_eq!(ProcessDescriptor::parse(&empty), Err(DescriptorError::Malformed));
    }

    #[test]
    fn debug_shows_no_environment_and_no_capability() {
        let mut descriptor = echo();
        let secret = Capability::from_bytes([0xAB; 16]).to_text();
        descriptor.arguments = vec![b"curl".to_vec(), secret.clone().into_bytes()];
        descriptor.environment = vec![b"PASSWORD=hunter2".to_vec()];
        let shown = format!("{:?}", crate::Spec { descriptor, index: 7 });
        assert!(shown.contains("curl") && shown.contains('7'), "{shown}");
        assert!(!shown.contains("hunter2") && !shown.contains(&secret), "{shown}");
    }

    #[test]
    fn variables_and_command_lines_are_found() {
        let mut descriptor = echo();
        descriptor.environment = vec![b"PATHS=x".to_vec(), b"PATH=/bin".to_vec()];
        assert_eq!(descriptor.variable(b"PATH"), Some(&b"/bin"[..]));
        assert_eq!(descriptor.variable(b"HOME"), None);
        let secret = Capability::from_bytes([0xAB; 16]);
        descriptor.arguments.push(format!("cap:{}/etc", secret.to_text()).into());
        assert_eq!(descriptor.command_line(100), format!("echo hello cap:{secret:?}/*/etc"));
        descriptor.arguments.pop();
        descriptor.arguments.push("größer\n".into());
        assert_eq!(descriptor.command_line(100), "echo hello größer ");
        assert_eq!(descriptor.command_line(14), "echo hello gr");
    }

    #[test]
    fn no_bytes_panic_and_what_parses_encodes_the_same() {
        bolero::check!().for_each(|bytes: &[u8]| {
            // Half of the inputs get past the head, or the body would never be reached.
            let mut whole = echo().encode().unwrap();
            whole.truncate(48);
            whole.extend_from_slice(bytes);
            for input in [bytes, &whole] {
                if let Ok(descriptor) = ProcessDescriptor::parse(input) {
                    let encoded = descriptor.encode().unwrap();
                    assert_eq!(ProcessDescriptor::parse(&encoded), Ok(descriptor));
                }
            }
        });
    }

    fn text(size: usize) -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(1u8..=255, 0..size)
    }

    proptest! {
        #[test]
        fn descriptors_come_back(
            architecture in text(32), options in prop::collection::vec(text(8), 0..4),
            path in prop::option::of(text(64)), file: [u8; 16], arguments in prop::collection::vec(text(40), 0..6),
            environment in prop::collection::vec(text(40), 0..6), owner: [u8; 16], detached: bool,
            window in prop::option::of((any::<u16>(), any::<u16>())),
            segments in prop::collection::vec((any::<[u8; 16]>(), any::<u64>(), any::<u32>()), 0..4),
            saved in prop::collection::vec(any::<u8>(), 0..50),
            served in prop::option::of(any::<([u8; 6], [u8; 32])>()),
            names in prop::option::of(prop::collection::vec("[a-z]{1,8}", 0..4)),
            limits: (u64, u32, u32), network: bool, awaited: bool,
        ) {
            let program = path.map_or(Program::File(Capability::from_bytes(file)), Program::HostPath);
            let mut descriptor = ProcessDescriptor::new("", program, arguments);
            descriptor.architecture = architecture;
            descriptor.options = options;
            descriptor.environment = environment;
            descriptor.owner = Capability::from_bytes(owner);
            descriptor.capabilities = vec![(b"HOME".to_vec(), Capability::from_bytes(owner))];
            descriptor.detached = detached;
            descriptor.terminal = window.map(|(rows, columns)| WindowSize { rows, columns });
            descriptor.segments = segments.into_iter().map(|(contents, address, kind)| Segment {
                contents: Capability::from_bytes(contents), file_offset: 1, address, length: address, kind,
            }).collect();
            descriptor.threads = vec![Thread { state: 1, extra: 2, saved }];
            descriptor.served_input = served.map(|(get_port, secret)| ServedInput { get_port, secret });
            descriptor.scratch = names.map(|names| Scratch {
                files: names.iter().map(|name| (name.clone().into_bytes(), Capability::from_bytes(file))).collect(),
                results: names.into_iter().map(String::into_bytes).collect(),
                store: Capability::from_bytes(owner),
            });
            descriptor.limits = Limits { memory: limits.0, cpu_thousandths: limits.1, processes: limits.2 };
            descriptor.network = network;
            descriptor.awaited = awaited;
            let bytes = descriptor.encode().unwrap();
            prop_assert_eq!(ProcessDescriptor::parse(&bytes), Ok(descriptor));
        }
    }
}
