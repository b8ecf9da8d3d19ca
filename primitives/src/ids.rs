//! Ids that nobody else has: of sessions, epochs and joins.

/// A new one: 128 random bits as hexadecimal text.
pub(crate) fn fresh() -> String {
    #[cfg(feature = "testing")]
    if let Some(id) = crate::testing::next_id() {
        return id;
    }
    uuid::Uuid::new_v4().simple().to_string()
}
