//! The time, as messages carry it.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::messages::Timestamp;

/// Now.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp {
        seconds: since.as_secs().try_into().unwrap_or(i64::MAX),
        nanos: since.subsec_nanos().try_into().unwrap_or(0),
    }
}
