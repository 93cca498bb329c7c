//! The seam is in place; see the module's owner.
