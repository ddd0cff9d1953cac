// Generated from idl/std.class by `cargo xtask gen`; do not edit.

use crate::rt;

/// Bytes of an information or status text that one transaction can carry.
pub const INFO_SIZE_MAX: usize = 65535;
/// Private parts in one ntouch.
pub const NTOUCH_MAX: usize = 2000;
/// Parameters of one server.
pub const PARAMETERS_MAX: usize = 64;
/// Bytes of a parameter's name, type, description or value.
pub const PARAMETER_TEXT_MAX: usize = 255;
/// The command of [`age()`].
pub const CMD_AGE: rt::Command = rt::Command(1001);
/// The command of [`copy()`].
pub const CMD_COPY: rt::Command = rt::Command(1002);
/// The command of [`destroy()`].
pub const CMD_DESTROY: rt::Command = rt::Command(1003);
/// The command of [`info()`].
pub const CMD_INFO: rt::Command = rt::Command(1004);
/// The command of [`restrict()`].
pub const CMD_RESTRICT: rt::Command = rt::Command(1005);
/// The command of [`status()`].
pub const CMD_STATUS: rt::Command = rt::Command(1006);
/// The command of [`touch()`].
pub const CMD_TOUCH: rt::Command = rt::Command(1007);
/// The command of [`getparams()`].
pub const CMD_GETPARAMS: rt::Command = rt::Command(1008);
/// The command of [`setparams()`].
pub const CMD_SETPARAMS: rt::Command = rt::Command(1009);
/// The command of [`ntouch()`].
pub const CMD_NTOUCH: rt::Command = rt::Command(1010);

/// A parameter of a server that can be looked at and set while it runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter {
    /// What it is called.
    pub name: Vec<u8>,
    /// Its type and range, for people: `integer 0..100`.
    pub kind: Vec<u8>,
    /// What it does.
    pub description: Vec<u8>,
    /// What it is now.
    pub value: Vec<u8>,
}

impl rt::Marshal for Parameter {
    fn put(&self, writer_: &mut rt::Writer) -> Result<(), rt::OverLimit> {
        rt::put_string(writer_, &self.name, 255)?;
        rt::put_string(writer_, &self.kind, 255)?;
        rt::put_string(writer_, &self.description, 255)?;
        rt::put_string(writer_, &self.value, 255)?;
        Ok(())
    }

    fn get(reader_: &mut rt::Reader<'_>) -> Result<Self, rt::Malformed> {
        let name = reader_.get_string(255).map(<[u8]>::to_vec)?;
        let kind = reader_.get_string(255).map(<[u8]>::to_vec)?;
        let description = reader_.get_string(255).map(<[u8]>::to_vec)?;
        let value = reader_.get_string(255).map(<[u8]>::to_vec)?;
        Ok(Parameter { name, kind, description, value })
    }
}

/// A new value for a parameter.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    /// Which parameter.
    pub name: Vec<u8>,
    /// What it is to be.
    pub value: Vec<u8>,
}

impl rt::Marshal for Setting {
    fn put(&self, writer_: &mut rt::Writer) -> Result<(), rt::OverLimit> {
        rt::put_string(writer_, &self.name, 255)?;
        rt::put_string(writer_, &self.value, 255)?;
        Ok(())
    }

    fn get(reader_: &mut rt::Reader<'_>) -> Result<Self, rt::Malformed> {
        let name = reader_.get_string(255).map(<[u8]>::to_vec)?;
        let value = reader_.get_string(255).map(<[u8]>::to_vec)?;
        Ok(Setting { name, value })
    }
}

/// One round of garbage collection: objects that were not touched for many rounds are destroyed.
///
/// # Rights
/// `ALL`.
pub fn age<'t>(t: impl Into<rt::Client<'t>>, object: &rt::Capability) -> Result<(), rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_AGE);
    let data_ = Vec::new();
    header_.size = rt::header_size(&data_);
    let (_, data_) = t.into().trans(header_, data_, 0, false)?;
    rt::Reader::new(&data_).end()?;
    Ok(())
}

/// Makes a copy of an object on the server, or in the place, that the request's capability names.
///
/// - `original`: The object to copy, perhaps of another server; its READ right is needed.
///
/// # Rights
/// `ALL`.
pub fn copy<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
    original: &rt::Capability,
) -> Result<rt::Capability, rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_COPY);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    writer_.put_cap(original);
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    let (header_, data_) = t.into().trans(header_, data_, 0, false)?;
    let copy = header_.capability();
    rt::Reader::new(&data_).end()?;
    Ok(copy)
}

/// Destroys the object; every capability for it is dead.
///
/// # Rights
/// `ALL`.
pub fn destroy<'t>(t: impl Into<rt::Client<'t>>, object: &rt::Capability) -> Result<(), rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_DESTROY);
    let data_ = Vec::new();
    header_.size = rt::header_size(&data_);
    let (_, data_) = t.into().trans(header_, data_, 0, false)?;
    rt::Reader::new(&data_).end()?;
    Ok(())
}

/// What [`info()`] gives.
#[derive(Clone, Debug, PartialEq)]
pub struct InfoReply {
    /// Bytes of the whole text.
    pub length: u16,
    /// As much of it as was wanted.
    pub text: Vec<u8>,
}

/// One line about the object. Its first character tells the kind: - file, / directory, ! process, +
/// terminal, | pipe, ? random, % kernel directory.
///
/// - `wanted`: Bytes the client takes.
///
/// # Rights
/// None.
pub fn info<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
    wanted: u16,
) -> Result<InfoReply, rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_INFO);
    let data_ = Vec::new();
    header_.size = wanted;
    let (header_, data_) = t.into().trans(header_, data_, 65535, true)?;
    let length = header_.size;
    let text = rt::rest(data_, 0, 65535)?;
    Ok(InfoReply { length, text })
}

/// A capability for the same object with only those rights of this one that are in the mask.
///
/// - `mask`: The rights to keep.
///
/// # Rights
/// None.
pub fn restrict<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
    mask: u32,
) -> Result<rt::Capability, rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_RESTRICT);
    let data_ = Vec::new();
    header_.size = rt::header_size(&data_);
    header_.offset = mask as i32;
    let (header_, data_) = t.into().trans(header_, data_, 0, true)?;
    let restricted = header_.capability();
    rt::Reader::new(&data_).end()?;
    Ok(restricted)
}

/// What [`status()`] gives.
#[derive(Clone, Debug, PartialEq)]
pub struct StatusReply {
    /// Bytes of the whole text.
    pub length: u16,
    /// As much of it as was wanted.
    pub text: Vec<u8>,
}

/// Several lines on how the object, or the server, is doing.
///
/// - `wanted`: Bytes the client takes.
///
/// # Rights
/// `ALL`.
pub fn status<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
    wanted: u16,
) -> Result<StatusReply, rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_STATUS);
    let data_ = Vec::new();
    header_.size = wanted;
    let (header_, data_) = t.into().trans(header_, data_, 65535, true)?;
    let length = header_.size;
    let text = rt::rest(data_, 0, 65535)?;
    Ok(StatusReply { length, text })
}

/// Keeps the object alive: it is in use.
///
/// # Rights
/// None.
pub fn touch<'t>(t: impl Into<rt::Client<'t>>, object: &rt::Capability) -> Result<(), rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_TOUCH);
    let data_ = Vec::new();
    header_.size = rt::header_size(&data_);
    let (_, data_) = t.into().trans(header_, data_, 0, true)?;
    rt::Reader::new(&data_).end()?;
    Ok(())
}

/// What [`getparams()`] gives.
#[derive(Clone, Debug, PartialEq)]
pub struct GetparamsReply {
    /// The count.
    pub count: u16,
    /// The parameters.
    pub parameters: Vec<Parameter>,
}

/// The parameters of the server.
///
/// # Rights
/// `ALL`.
pub fn getparams<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
) -> Result<GetparamsReply, rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_GETPARAMS);
    let data_ = Vec::new();
    header_.size = rt::header_size(&data_);
    let (header_, data_) = t.into().trans(header_, data_, 65536, true)?;
    let count = header_.extra;
    let mut whole_ = rt::Reader::new(&data_);
    let reader_ = &mut whole_;
    let parameters = rt::get_until_end(reader_, 64, <Parameter as rt::Marshal>::get)?;
    reader_.end()?;
    Ok(GetparamsReply { count, parameters })
}

/// Sets parameters; stops at the first that is unknown or whose value is out of range (STD_ARGBAD).
///
/// # Rights
/// `ALL`.
pub fn setparams<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
    count: u16,
    settings: &[Setting],
) -> Result<(), rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_SETPARAMS);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    rt::check_count(settings.len(), 64)?;
    for item_ in settings {
        rt::Marshal::put(item_, writer_)?;
    }
    let data_ = buffer_.finish();
    header_.size = rt::header_size(&data_);
    header_.extra = count;
    let (_, data_) = t.into().trans(header_, data_, 0, true)?;
    rt::Reader::new(&data_).end()?;
    Ok(())
}

/// Touches many objects of one server. A status tells the last failure; what could be touched was.
///
/// # Rights
/// None.
pub fn ntouch<'t>(
    t: impl Into<rt::Client<'t>>,
    object: &rt::Capability,
    count: u16,
    privates: &[rt::Private],
) -> Result<u16, rt::Error> {
    let mut header_ = rt::Header::request(object, CMD_NTOUCH);
    let mut buffer_ = rt::Writer::new();
    let writer_ = &mut buffer_;
    rt::check_count(privates.len(), 2000)?;
    for item_ in privates {
        writer_.put_private(item_);
    }
    let data_ = buffer_.finish();
    header_.size = count;
    let (header_, data_) = t.into().trans(header_, data_, 0, true)?;
    let touched = header_.extra;
    rt::Reader::new(&data_).end()?;
    Ok(touched)
}
