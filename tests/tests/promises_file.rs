//! The promises about locks and sessions, on a store in a file.

use tenure_tests::{promises, promises::Bed};

promises!(Bed::file());
