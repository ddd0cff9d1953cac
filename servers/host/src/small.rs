//! The servers of one operation or two: time of day, random bytes.

use std::sync::Arc;

use amoeba_cap::{CheckField, ObjectNumber, ServerSecret};
use amoeba_server::{AnyObject, Call, Object, Objects};
use amoeba_stubs::{random, tod};
use amoeba_wire::Status;
use amoeba_world::{Clock, Entropy};

use crate::PERMANENT;

/// A server whose only object is itself.
pub struct Single<T> {
    secret: ServerSecret,
    info: &'static str,
    inner: T,
}

impl<T: Send + Sync> Single<T> {
    fn new(secret: ServerSecret, info: &'static str, inner: T) -> Arc<Single<T>> {
        Arc::new(Single { secret, info, inner })
    }
}

impl<T: Send + Sync> Objects for Single<T> {
    fn secret(&self) -> &ServerSecret {
        &self.secret
    }

    fn random(&self, object: ObjectNumber) -> Option<CheckField> {
        (object == ObjectNumber::SUPER).then_some(PERMANENT)
    }

    fn info(&self, _: AnyObject) -> Result<String, Status> {
        Ok(self.info.to_owned())
    }
}

/// The time of day.
pub struct Tod(Arc<dyn Clock>);

impl Tod {
    /// The server of this clock.
    pub fn server(secret: ServerSecret, clock: Arc<dyn Clock>) -> Arc<Single<Tod>> {
        Single::new(secret, "TOD Server", Tod(clock))
    }
}

impl tod::Serve for Single<Tod> {
    fn get_time_classic(&self, _: &Call, _: Object<0>) -> Result<tod::GetTimeClassicReply, Status> {
        let time = self.inner.0.unix_time();
        let milliseconds = time.subsec_millis() as u16;
        Ok(tod::GetTimeClassicReply { seconds: time.as_secs() as u32, milliseconds, daylight_saving: 0 })
    }

    fn get_time(&self, _: &Call, _: Object<0>) -> Result<tod::GetTimeReply, Status> {
        let time = self.inner.0.unix_time();
        Ok(tod::GetTimeReply { seconds: time.as_secs(), nanoseconds: time.subsec_nanos() })
    }
}

/// Random bytes.
pub struct Random(Arc<dyn Entropy>);

impl Random {
    /// The server of this entropy.
    pub fn server(secret: ServerSecret, entropy: Arc<dyn Entropy>) -> Arc<Single<Random>> {
        Single::new(secret, "? Random Number Server", Random(entropy))
    }
}

impl random::Serve for Single<Random> {
    fn get_random(&self, _: &Call, _: Object<0>, count: u16) -> Result<Vec<u8>, Status> {
        if usize::from(count) > random::RANDOM_SIZE_MAX {
            return Err(Status::STD_ARGBAD);
        }
        let mut bytes = vec![0; usize::from(count)];
        self.inner.0.fill(&mut bytes);
        Ok(bytes)
    }
}
