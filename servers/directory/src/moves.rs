//! Plans that concern a row and a directory, or two rows, at once: rename, making and removing a directory by its name.
//!
//! A rename moves a row as it is. Within its directory nobody gains by that. Into another directory it might bring the
//! row before columns of which the mover has more; so only who sees as much of it as any column lets through may.

use amoeba_cap::{Capability, CapabilitySet, ObjectNumber, Private, PutPort, Rights};

use crate::entry::Change;
use crate::row::{ATTRIBUTES_SIZE_MAX, DELETE, MODIFY, Masks, Name, Row, columns_are_good, has_column};
use crate::update::{Outcome, Plan, PlanError, Planner, ROOT, Refusal, Rename, clipped, done};

impl Planner<'_> {
    pub(crate) fn rename(&self, from: (&Private, &Name), to: (&Private, &Name), how: Rename) -> Plan {
        self.authorize(from.0, MODIFY)?;
        let columns = self.authorize(to.0, MODIFY)?.columns.len();
        let moved = self.row(from.0, from.1)?;
        let target = self.tables.row(to.0.object, to.1)?;
        if how == Rename::New && target.is_some() {
            return Err(Refusal::Exists.into());
        }
        if (from.0.object, from.1) == (to.0.object, to.1) {
            return Ok((Vec::new(), Outcome::Done));
        }
        self.may_move(&moved, from.0, to.0)?;
        let place = |row: &Row, (directory, name): (&Private, &Name), columns: usize| {
            let row = Row { time: self.time, masks: clipped(row.masks, columns), ..row.clone() };
            Change::Put(directory.object, name.clone(), row)
        };
        let come = place(&moved, to, columns);
        let gone = Change::Delete(from.0.object, from.1.clone());
        match (how, target) {
            (Rename::Exchange, None) => Err(Refusal::NotFound.into()),
            (Rename::Exchange, Some(target)) => {
                self.may_move(&target, to.0, from.0)?;
                let columns = self.authorize(from.0, MODIFY)?.columns.len();
                Ok((vec![come, place(&target, from, columns)], Outcome::Done))
            }
            (_, Some(target)) => {
                self.may_be_replaced(&target.set)?;
                let mask = target.mask(to.0.rights);
                Ok((vec![gone, come], Outcome::Replaced(target.set, mask)))
            }
            (_, None) => Ok((vec![gone, come], Outcome::Done)),
        }
    }

    /// Refuses to bring a row before other columns when the mover does not see all of it.
    fn may_move(&self, row: &Row, from: &Private, to: &Private) -> Result<(), PlanError> {
        let all = row.masks.iter().fold(Rights::NONE, |all, &mask| all | mask);
        let sees_all = row.mask(from.rights).contains(all);
        if from.object == to.object || sees_all { Ok(()) } else { Err(Refusal::Denied.into()) }
    }

    /// Refuses to replace what names a directory that is not empty.
    fn may_be_replaced(&self, set: &CapabilitySet) -> Result<(), PlanError> {
        let Some(member) = self.own_member(set) else { return Ok(()) };
        let Some(directory) = self.tables.directory(member.object())? else { return Ok(()) };
        let genuine = directory.verifies(&self.identity.secret, &member.private);
        if genuine && directory.rows > 0 { Err(Refusal::NotEmpty.into()) } else { Ok(()) }
    }

    pub(crate) fn make_directory(
        &self,
        private: &Private,
        name: Name,
        columns: Vec<Vec<u8>>,
        owner: PutPort,
        masks: Masks,
        attributes: Vec<u8>,
    ) -> Plan {
        let parent = self.authorize(private, MODIFY)?;
        let columns = if columns.is_empty() { parent.columns.clone() } else { columns };
        if !columns_are_good(&columns) {
            return Err(Refusal::BadArgument.into());
        }
        if attributes.len() > ATTRIBUTES_SIZE_MAX {
            return Err(Refusal::TooLarge.into());
        }
        if self.tables.row(private.object, &name)?.is_some() {
            return Err(Refusal::Exists.into());
        }
        let owner = if owner.is_null() { parent.owner } else { owner };
        let (object, directory) = self.new_directory(columns, owner)?;
        let random = directory.random;
        let row = Row {
            time: self.time,
            kind: Capability::NULL,
            masks: clipped(masks, parent.columns.len()),
            set: self.identity.secret.capability(self.port, object, Rights::ALL, random).into(),
            attributes,
        };
        let changes = vec![Change::Create(object, directory), Change::Put(private.object, name, row)];
        Ok((changes, Outcome::Created(object, random)))
    }

    pub(crate) fn remove_directory(&self, private: &Private, name: Name) -> Plan {
        self.authorize(private, MODIFY)?;
        let row = self.row(private, &name)?;
        let gone = Change::Delete(private.object, name);
        let target = self.own_member(&row.set).ok_or(Refusal::BadArgument)?.private;
        let Some(directory) = self.tables.directory(target.object)? else {
            return done(gone); // it was removed already, and only its name is left
        };
        if !directory.verifies(&self.identity.secret, &target) {
            return Err(Refusal::BadCapability.into());
        }
        let rights = target.rights & row.mask(private.rights);
        if !rights.contains(DELETE) || !has_column(rights, directory.column_rights()) || target.object == ROOT
        {
            return Err(Refusal::Denied.into());
        }
        if directory.rows > 0 {
            return Err(Refusal::NotEmpty.into());
        }
        Ok((vec![gone, Change::Remove(target.object)], Outcome::Done))
    }

    /// The member of a set that is a directory of this service.
    fn own_member(&self, set: &CapabilitySet) -> Option<Capability> {
        let own = |member: &&Capability| member.port == self.port && member.object() != ObjectNumber::SUPER;
        set.current().find(own).copied()
    }
}
