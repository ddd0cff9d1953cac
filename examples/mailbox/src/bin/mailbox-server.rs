//! A mailbox behind a secret port. Prints two capabilities, one to post with and one to take with, and serves until it
//! is killed. Run it beside a system (`amoeba up`), and give each capability to whom you mean.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use amoeba::{AnyObject, Call, CheckField, Object, ObjectNumber, Objects, ServerSecret, Service, Status};
use mailbox::{EMPTY, POST, REQUEST_SIZE_MAX, TAKE};

/// Letters in the box at most.
const LETTERS_MAX: usize = 1000;
/// Threads that wait for requests.
const THREADS: usize = 2;

struct Mailbox {
    secret: ServerSecret,
    random: CheckField,
    letters: Mutex<VecDeque<Vec<u8>>>,
}

impl Mailbox {
    fn letters(&self) -> std::sync::MutexGuard<'_, VecDeque<Vec<u8>>> {
        self.letters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Objects for Mailbox {
    fn secret(&self) -> &ServerSecret {
        &self.secret
    }

    fn random(&self, object: ObjectNumber) -> Option<CheckField> {
        (object == ObjectNumber::SUPER).then_some(self.random)
    }

    fn info(&self, _: AnyObject) -> Result<String, Status> {
        Ok(format!("mailbox with {} letters", self.letters().len()))
    }
}

impl mailbox::Serve for Mailbox {
    fn post(&self, _: &Call, _: Object<{ POST.bits() }>, letter: Vec<u8>) -> Result<(), Status> {
        let mut letters = self.letters();
        if letters.len() == LETTERS_MAX {
            return Err(Status::STD_NOSPACE);
        }
        letters.push_back(letter);
        Ok(())
    }

    fn take(&self, _: &Call, _: Object<{ TAKE.bits() }>) -> Result<Vec<u8>, Status> {
        self.letters().pop_front().ok_or(EMPTY)
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let world = amoeba::connect()?;
    let service = Service::new(&world, REQUEST_SIZE_MAX)?;
    let random = CheckField::from_bytes(amoeba::random_bytes(&*world.entropy));
    for rights in [POST, TAKE] {
        println!("{}", service.capability(ObjectNumber::SUPER, rights, random).to_text());
    }
    std::io::stdout().flush()?;
    let server = Mailbox { secret: service.secret(), random, letters: Mutex::default() };
    mailbox::serve(&world, service.listener(), Arc::new(server), THREADS)?;
    Ok(())
}
