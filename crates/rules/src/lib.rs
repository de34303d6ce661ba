//! Pure decisions that several components share.
