//! `bertlet-convert demo`.

use bertlet_convert::error::Result;

/// Converts what ships, and shows it.
pub fn run() -> Result<()> {
    todo!()
}
