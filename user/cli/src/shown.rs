//! Objects and times in the form that people and programs read: never with a check field.

use amoeba_cap::Capability;
use serde::{Serialize, Serializer};

/// A capability for programs, without what makes it one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Shown {
    /// The put-port of its server.
    pub(crate) port: String,
    /// The object number.
    pub(crate) object: u32,
    /// The rights, in hexadecimal.
    pub(crate) rights: String,
}

impl From<&Capability> for Shown {
    fn from(capability: &Capability) -> Shown {
        Shown {
            port: capability.port.to_string(),
            object: capability.object().get(),
            rights: format!("{:02X}", capability.rights().bits()),
        }
    }
}

/// A name for programs: as text, and when it is no UTF-8 its bytes in hexadecimal too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Name {
    pub(crate) name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name_hex: Option<String>,
}

impl From<&[u8]> for Name {
    fn from(bytes: &[u8]) -> Name {
        let hex = || bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let name_hex = std::str::from_utf8(bytes).is_err().then(hex);
        Name { name: String::from_utf8_lossy(bytes).into_owned(), name_hex }
    }
}

/// Seconds since 1970 for programs, as [`time`] shows them.
pub(crate) fn serialize_time<S: Serializer>(seconds: &Option<u64>, to: S) -> Result<S::Ok, S::Error> {
    seconds.map(time).serialize(to)
}

/// Seconds since 1970 as `2026-11-21T22:44:17Z`.
pub(crate) fn time(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60)
}

/// Year, month and day of the Gregorian calendar, `days` after 1970-01-01.
fn civil(days: u64) -> (u64, u64, u64) {
    // Years that begin in March, so that the day that leap years add is the last one; eras of 400 years.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        let times = [0, 951_782_400, 1_709_251_199, 1_795_301_057, 4_102_444_800].map(time);
        assert_eq!(
            times,
            [
                "1970-01-01T00:00:00Z",
                "2000-02-29T00:00:00Z",
                "2024-02-29T23:59:59Z",
                "2026-11-21T22:44:17Z",
                "2100-01-01T00:00:00Z",
            ]
        );
    }

    #[test]
    fn no_check_field_is_shown() {
        let capability = Capability::from_bytes([0xAB; 16]);
        let text = serde_json::to_string(&Shown::from(&capability)).unwrap();
        assert_eq!(text, r#"{"port":"AB:AB:AB:AB:AB:AB","object":11250603,"rights":"AB"}"#);
    }

    #[test]
    fn names_that_are_no_text_keep_their_bytes() {
        assert_eq!(Name::from(&b"a"[..]), Name { name: "a".into(), name_hex: None });
        assert_eq!(Name::from(&b"\xFFa"[..]).name_hex, Some("ff61".into()));
    }
}
