//! The promises about locks and sessions, on the store in memory.

use tenure_tests::{promises, promises::Bed};

promises!(async { Bed::memory() });
